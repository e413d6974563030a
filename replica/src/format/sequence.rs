//! Which page may come next: one rule for the decoder and the encoder.
//!
//! Invariant: after [`Sequence::end`] returned `Ok`, the pages seen were strictly ascending, at most
//! `commit`, without the lock page; and for a snapshot every page of the database was seen.

use crate::format::{Header, PageFault};

#[derive(Debug)]
pub(super) struct Sequence {
    snapshot: bool,
    commit: u32,
    lock_page: u32,
    previous: u32,
}

impl Sequence {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            snapshot: header.txids.is_snapshot(),
            commit: header.commit,
            lock_page: header.page_size.lock_page().get(),
            previous: 0,
        }
    }

    /// Takes the next page's number (not zero).
    pub(super) fn next(&mut self, actual: u32) -> Result<(), PageFault> {
        if actual <= self.previous {
            return Err(PageFault::Order { previous: self.previous, actual });
        }
        if actual > self.commit {
            return Err(PageFault::BeyondCommit { commit: self.commit, actual });
        }
        if actual == self.lock_page {
            return Err(PageFault::LockPage { page: actual });
        }
        if self.snapshot {
            // Below `actual`, so there is a next page.
            let expected = page_after(self.previous, self.lock_page).unwrap_or(actual);
            if actual != expected {
                return Err(PageFault::Gap { expected, actual });
            }
        }
        self.previous = actual;
        Ok(())
    }

    /// No page follows.
    pub(super) fn end(&self) -> Result<(), PageFault> {
        match page_after(self.previous, self.lock_page) {
            Some(expected) if self.snapshot && expected <= self.commit => {
                Err(PageFault::Incomplete { expected, commit: self.commit })
            }
            _ => Ok(()),
        }
    }
}

/// The next page that is not the lock page; `None` after the last one of all.
pub(super) fn page_after(page: u32, lock_page: u32) -> Option<u32> {
    let next = page.checked_add(1)?;
    if next == lock_page { next.checked_add(1) } else { Some(next) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn snapshot(commit: u32) -> Sequence {
        // 64 KiB pages.
        Sequence { snapshot: true, commit, lock_page: 16_385, previous: 16_383 }
    }

    #[test]
    fn snapshot_goes_on_after_the_lock_page() {
        let mut pages = snapshot(16_386);
        pages.next(16_384).unwrap();
        assert_eq!(pages.end(), Err(PageFault::Incomplete { expected: 16_386, commit: 16_386 }));
        assert_eq!(pages.next(16_385), Err(PageFault::LockPage { page: 16_385 }));
        pages.next(16_386).unwrap();
        pages.end().unwrap();
    }

    #[test]
    fn snapshot_may_not_leave_out_more_than_the_lock_page() {
        let mut pages = snapshot(16_387);
        pages.next(16_384).unwrap();
        assert_eq!(pages.next(16_387), Err(PageFault::Gap { expected: 16_386, actual: 16_387 }));
    }

    #[test]
    fn snapshot_that_ends_with_the_lock_page_is_complete_without_it() {
        let mut pages = snapshot(16_385);
        pages.next(16_384).unwrap();
        pages.end().unwrap();
    }

    #[test]
    fn last_page_of_all_has_no_next() {
        let mut pages = Sequence {
            snapshot: true,
            commit: u32::MAX,
            lock_page: 16_385,
            previous: u32::MAX - 1,
        };
        pages.next(u32::MAX).unwrap();
        pages.end().unwrap();
        assert!(pages.next(u32::MAX).is_err());
    }
}
