//! Pages that were captured lately: witnesses that a database is still the one that was captured.
//!
//! Where the WAL begins anew, nothing in it says that the database file below is the one that the old WAL was written
//! into: an older state of it may have been copied over it in between. An older state lacks what was committed last, so it
//! differs in one of the pages captured last, unless what follows has just written all of these anew.
//!
//! Does not promise to find a file that differs only elsewhere: that is left to the scrub.

use std::collections::VecDeque;

use replica::format::{PageNumber, page_checksum};
use rusqlite::Connection;

use crate::chain::sums::PageSums;
use crate::ship::pages::read_page;

/// Pages remembered: so few that asking all of them takes less than a millisecond.
const MOST: usize = 64;
/// Pages of one capture.
const MOST_OF_ONE: usize = 16;

/// The pages, the ones captured last at the end.
#[derive(Debug, Default)]
pub struct Witnesses(VecDeque<PageNumber>);

impl Witnesses {
    /// Remembers some of the pages of a capture, spread over them.
    pub fn note(&mut self, pages: impl ExactSizeIterator<Item = PageNumber>) {
        let step = pages.len().div_ceil(MOST_OF_ONE).max(1);
        for page in pages.step_by(step) {
            self.0.retain(|known| *known != page);
            self.0.push_back(page);
        }
        let excess = self.0.len().saturating_sub(MOST);
        self.0.drain(..excess);
    }

    /// Forgets pages that the database does not have any more.
    pub fn forget_beyond(&mut self, page_count: u32) {
        self.0.retain(|page| page.get() <= page_count);
    }

    /// The first page that is not, as the open transaction of `reader` sees it, what the index has of it.
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub fn contradiction(
        &self,
        reader: &Connection,
        sums: &mut PageSums,
        page: &mut [u8],
    ) -> anyhow::Result<Option<PageNumber>> {
        for number in self.0.iter().copied() {
            read_page(reader, number, page)?;
            if sums.get(number)? != Some(page_checksum(number, page)) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_last_ones_stay_each_once() {
        let page = |number: u32| PageNumber::new(number).unwrap();
        let mut witnesses = Witnesses::default();
        witnesses.note((1..=1000).map(page).collect::<Vec<_>>().into_iter());
        assert!(witnesses.0.len() <= MOST_OF_ONE);
        for _ in 0..3 {
            witnesses.note([page(2000), page(2001)].into_iter());
        }
        assert_eq!(witnesses.0.iter().filter(|page| page.get() == 2001).count(), 1);
        for number in 3000..3100 {
            witnesses.note([page(number)].into_iter());
        }
        assert_eq!(witnesses.0.len(), MOST);
        assert_eq!(witnesses.0.back().unwrap().get(), 3099);
    }
}
