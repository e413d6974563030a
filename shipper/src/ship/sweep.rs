//! Reading the whole source, in slices so that the WAL is never held for long: for the first file of a generation
//! every page, for a catch-up those that differ from the page index.
//!
//! Each slice is read in a short transaction of its own, so slices see different states; every change since
//! the first one is captured meanwhile. Merged, newest copy first, the result is exactly the state of the
//! last capture: a page is either unchanged since its slice, or in a capture. The same holds for the page index, where the
//! last one to say something of a page is the newest. Memory is flat; the disk holds what is shipped, compressed.
//!
//! A crash leaves parts that nothing counts as a state: the sweep begins anew.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use replica::format::{PageNumber, PageSize, page_checksum};
use rusqlite::Connection;

use crate::chain::entry::{End, Entry, EntryWriter};
use crate::chain::{Kind, LocalChain, SpoolFull, Tip, TipState};
use crate::ship::capture::Capture;
use crate::ship::pages::read_page;
use crate::wal::sqlite;

/// Pages between looks at the clock.
const PAGES_PER_LOOK: u32 = 64;

/// A sweep under way.
#[derive(Debug)]
pub struct Sweep {
    reader: Connection,
    page_size: PageSize,
    goal: Goal,
    writer: EntryWriter,
    next_page: u32,
    page: Vec<u8>,
    parts: Vec<Entry>,
    differing: u64,
}

/// What a sweep is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The first file of a generation: every page.
    Snapshot,
    /// What the chain missed: every page that differs from the page index.
    CatchUp,
}

impl Sweep {
    /// Begins: from now on every capture is a part and must be handed to [`Sweep::add`].
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub fn begin(
        database: &Path,
        chain: &LocalChain,
        goal: Goal,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let page_size = chain.page_size();
        let reader = sqlite::open(database)?;
        let mark = sqlite::begin_read(&reader, page_size)?;
        sqlite::end_read(&reader)?;
        let kind = match goal {
            Goal::Snapshot => Kind::Snapshot,
            Goal::CatchUp => Kind::State,
        };
        let writer = chain.begin_entry(&mut chain.tip(), mark.page_count, now, kind, None)?;
        let page = vec![0; page_size.len()];
        let parts = Vec::new();
        Ok(Self { reader, page_size, goal, writer, next_page: 1, page, parts, differing: 0 })
    }

    /// What it is for.
    #[must_use]
    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// Captures made since the sweep began.
    pub fn add(&mut self, parts: Vec<Entry>) {
        self.parts.extend(parts);
    }

    /// Reads some more pages, for about `bound`; `true` when all were read.
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub fn slice(&mut self, chain: &LocalChain, bound: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + bound;
        let seen = sqlite::begin_read(&self.reader, self.page_size)?;
        let read = self.read_until(&mut chain.tip(), seen.page_count, deadline);
        let ended = sqlite::end_read(&self.reader);
        let done = read?;
        ended?;
        Ok(done)
    }

    /// Puts slices and captures, which reach at least as far as the last slice, into the spool as one state.
    ///
    /// # Errors
    /// Those of the file system, and a full spool.
    pub fn finish(
        self,
        chain: &LocalChain,
        capture: &mut Capture,
        complete_until: Timestamp,
    ) -> anyhow::Result<()> {
        let Self { writer, parts, goal, differing, .. } = self;
        let mut tip = chain.tip();
        let (page_count, position) = (capture.page_count(), capture.position());
        tip.sums.truncate(page_count)?;
        tip.sums.flush()?;
        let before = tip.state;
        let state = TipState {
            checksum: tip.sums.checksum(),
            page_count,
            position: Some(position),
            timestamp: capture.timestamp(),
        };
        let unchanged = before.is_some_and(|before| {
            (before.checksum, before.page_count) == (state.checksum, state.page_count)
        });
        if goal == Goal::CatchUp {
            tracing::info!(pages = differing, "caught up with the source");
        }
        if unchanged && parts.is_empty() {
            // Nothing was begun since.
            tip.rewind(writer.sequence() - 1);
            writer.abandon();
            return chain.confirm_position(&mut tip, position);
        }
        let end = End {
            members: tip.last_sequence(),
            through: tip.last_sequence(),
            position,
            pre_apply: before.map(|state| state.checksum),
            post_apply: state.checksum,
            page_count,
            timestamp: state.timestamp,
            complete_until,
        };
        let slices = writer.finish(end, chain.disk())?;
        let appended: Result<(), SpoolFull> =
            chain.append(&mut tip, [slices].into_iter().chain(parts).collect(), state);
        Ok(appended?)
    }

    fn read_until(
        &mut self,
        tip: &mut Tip,
        present: u32,
        deadline: Instant,
    ) -> anyhow::Result<bool> {
        let lock_page = self.page_size.lock_page().get();
        let mut read = 0;
        while self.next_page <= self.writer.page_count() {
            if read >= PAGES_PER_LOOK && Instant::now() >= deadline {
                return Ok(false);
            }
            read = if read >= PAGES_PER_LOOK { 1 } else { read + 1 };
            let number = PageNumber::new(self.next_page)?;
            self.next_page += 1;
            if number.get() != lock_page {
                self.read(tip, number, present)?;
            }
        }
        Ok(true)
    }

    fn read(&mut self, tip: &mut Tip, number: PageNumber, present: u32) -> anyhow::Result<()> {
        if number.get() > present {
            if self.goal == Goal::Snapshot {
                // Cut off since: the merge drops this page, or takes it from the capture that saw the
                // database grow again.
                self.page.fill(0);
                self.writer.page(number, &self.page)?;
            }
            return Ok(());
        }
        read_page(&self.reader, number, &mut self.page)?;
        let sum = page_checksum(number, &self.page);
        if self.goal == Goal::Snapshot || tip.sums.get(number)? != Some(sum) {
            self.writer.page(number, &self.page)?;
            tip.sums.set(number, sum)?;
            self.differing += 1;
        }
        Ok(())
    }
}
