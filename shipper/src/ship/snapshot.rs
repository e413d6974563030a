//! The first file of a generation: every page, read in slices so that the WAL is never held for long.
//!
//! Each slice is read in a short transaction of its own, so slices see different states; every change since
//! the first one is captured meanwhile. Merged, newest copy first, the result is exactly the state of the
//! last capture: a page is either unchanged since its slice, or in a capture. Memory is flat, the disk
//! holds a compressed copy of the database (twice, while merging).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use replica::format::{Header, Level, PageNumber, PageSize, Txid, TxidRange};
use rusqlite::Connection;

use crate::ship::pages::{page_count, read_page};
use crate::ship::spool::{Spool, SpoolEncoder, Spooled};
use crate::wal::sqlite;

/// Pages between looks at the clock.
const PAGES_PER_LOOK: u32 = 64;

/// A snapshot being taken.
#[derive(Debug)]
pub struct Snapshot {
    reader: Connection,
    page_size: PageSize,
    header: Header,
    encoder: SpoolEncoder,
    path: PathBuf,
    next_page: u32,
    page: Vec<u8>,
    captures: Vec<Spooled>,
}

impl Snapshot {
    /// Begins: from now on every capture must be handed to [`Snapshot::add`].
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub fn begin(
        database: &Path,
        spool: &Spool,
        page_size: PageSize,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let reader = sqlite::open(database)?;
        sqlite::begin_read(&reader, page_size)?;
        let commit = page_count(&reader)?;
        sqlite::end_read(&reader)?;
        let txids = TxidRange::single(Txid::FIRST);
        let header = Header {
            page_size,
            commit,
            txids,
            timestamp: now,
            checksummed: false,
            pre_apply: None,
            wal: None,
            node_id: 0,
        };
        let path = spool.path(Level::SNAPSHOT, txids);
        let encoder = spool.start(&path, header)?;
        let page = vec![0; page_size.len()];
        Ok(Self {
            reader,
            page_size,
            header,
            encoder,
            path,
            next_page: 1,
            page,
            captures: Vec::new(),
        })
    }

    /// A capture made since the snapshot began.
    pub fn add(&mut self, capture: Spooled) {
        self.captures.push(Spooled { level: Level::SNAPSHOT, ..capture });
    }

    /// Reads some more pages, for about `bound`; `true` when all were read.
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub fn slice(&mut self, bound: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + bound;
        sqlite::begin_read(&self.reader, self.page_size)?;
        let read = self.read_until(deadline);
        let ended = sqlite::end_read(&self.reader);
        let done = read?;
        ended?;
        Ok(done)
    }

    /// The slices and the captures since, which reach at least as far as the last slice. Only merged, as
    /// [`Spool::next`] does, are they a state of the database.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self, complete_until: Timestamp) -> anyhow::Result<Vec<Spooled>> {
        let Self { header, encoder, path, captures, .. } = self;
        let slices = Spool::finish(encoder, path, Level::SNAPSHOT, &header, complete_until)?;
        Ok([slices].into_iter().chain(captures).collect())
    }

    fn read_until(&mut self, deadline: Instant) -> anyhow::Result<bool> {
        let present = page_count(&self.reader)?;
        let lock_page = self.page_size.lock_page().get();
        let mut read = 0;
        while self.next_page <= self.header.commit {
            if read >= PAGES_PER_LOOK && Instant::now() >= deadline {
                return Ok(false);
            }
            read = if read >= PAGES_PER_LOOK { 1 } else { read + 1 };
            let number = PageNumber::new(self.next_page)?;
            self.next_page += 1;
            if number.get() == lock_page {
                continue;
            }
            if number.get() <= present {
                read_page(&self.reader, number, &mut self.page)?;
            } else {
                // Cut off since: the merge drops this page, or takes it from the capture that saw the
                // database grow again.
                self.page.fill(0);
            }
            self.encoder.page(number, &self.page)?;
        }
        Ok(true)
    }
}
