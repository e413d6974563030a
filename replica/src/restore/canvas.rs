//! The pages of a restored database: which are there already, and the writing of those that are new.
//!
//! Files are applied newest first, so the first copy of a page is the right one, and each page is written
//! once. A page that a newer file cut off ([`Canvas::cut`]) is not taken from an older one: growth brings its own
//! pages. Neighbouring pages are written together. The lock page stays a hole.

use std::sync::mpsc::{Receiver, SyncSender};

use crate::format::{Checksum, DatabaseChecksum, PageNumber, PageSize, page_checksum};

/// Bytes written at once (or one page, if that is more).
const RUN_BYTES: usize = 256 << 10;
/// Buffers between decoder and writer.
pub(super) const RUNS: usize = 16;

/// Pages to be written next to each other.
#[derive(Debug)]
pub(super) struct Run {
    /// Where in the file, bytes.
    pub(super) offset: u64,
    /// Bytes of `buffer` to be written.
    pub(super) length: usize,
    /// A buffer, given back when written.
    pub(super) buffer: Vec<u8>,
}

/// The writer is gone (its own error tells why).
#[derive(Debug)]
pub(super) struct WriterGone;

/// Collects pages.
pub(super) struct Canvas {
    page_size: PageSize,
    commit: u32,
    /// Pages above this one were cut off by a file that came already.
    kept: u32,
    taken: Vec<u64>,
    left: u32,
    checksum: Option<DatabaseChecksum>,
    runs: SyncSender<Run>,
    spent: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    /// First page in `buffer`, and how many there are.
    start: u32,
    filled: usize,
}

impl Canvas {
    /// A database of `commit` pages. `spent` gives buffers back; the first [`RUNS`] are made here.
    pub(super) fn new(
        page_size: PageSize,
        commit: u32,
        checksummed: bool,
        runs: SyncSender<Run>,
        spent: Receiver<Vec<u8>>,
    ) -> Self {
        let has_lock_page = commit >= page_size.lock_page().get();
        Self {
            page_size,
            commit,
            kept: commit,
            taken: vec![0; commit.div_ceil(64) as usize],
            left: commit - u32::from(has_lock_page),
            checksum: checksummed.then(DatabaseChecksum::default),
            runs,
            spent,
            buffer: vec![0; Self::buffer_length(page_size)],
            start: 0,
            filled: 0,
        }
    }

    /// Length of each buffer.
    pub(super) fn buffer_length(page_size: PageSize) -> usize {
        RUN_BYTES.max(page_size.len())
    }

    /// Room for one page, to be decoded into before [`Canvas::keep`].
    pub(super) fn slot(&mut self) -> &mut [u8] {
        let length = self.page_size.len();
        let at = self.filled * length;
        &mut self.buffer[at..at + length]
    }

    /// The database had only `commit` pages once: what older files say of those above is gone for good.
    pub(super) fn cut(&mut self, commit: u32) {
        self.kept = self.kept.min(commit);
    }

    /// Takes the page in the slot, unless a newer file had it or cut it off.
    pub(super) fn keep(&mut self, number: PageNumber) -> Result<(), WriterGone> {
        let page = number.get();
        let (word, bit) = (((page - 1) / 64) as usize, 1_u64 << ((page - 1) % 64));
        if page > self.kept || self.taken[word] & bit != 0 {
            return Ok(());
        }
        self.taken[word] |= bit;
        self.left -= 1;
        if let Some(mut checksum) = self.checksum.take() {
            checksum.toggle(page_checksum(number, self.slot()));
            self.checksum = Some(checksum);
        }
        let follows = self.filled > 0 && self.start as usize + self.filled == page as usize;
        if self.filled > 0 && !follows {
            let slot = self.filled * self.page_size.len();
            let full = self.flush()?;
            let length = self.page_size.len();
            self.buffer[..length].copy_from_slice(&full[slot..slot + length]);
            self.hand_over(full, slot)?;
        }
        if self.filled == 0 {
            self.start = page;
        }
        self.filled += 1;
        if (self.filled + 1) * self.page_size.len() > self.buffer.len() {
            self.finish_run()?;
        }
        Ok(())
    }

    /// Swaps the buffer for an empty one.
    fn flush(&mut self) -> Result<Vec<u8>, WriterGone> {
        let empty = self.spent.recv().map_err(|_| WriterGone)?;
        Ok(std::mem::replace(&mut self.buffer, empty))
    }

    fn hand_over(&mut self, buffer: Vec<u8>, length: usize) -> Result<(), WriterGone> {
        let offset = u64::from(self.start - 1) * u64::from(self.page_size.get());
        self.filled = 0;
        self.runs.send(Run { offset, length, buffer }).map_err(|_| WriterGone)
    }

    /// Hands over what is collected.
    pub(super) fn finish_run(&mut self) -> Result<(), WriterGone> {
        if self.filled == 0 {
            return Ok(());
        }
        let length = self.filled * self.page_size.len();
        let full = self.flush()?;
        self.hand_over(full, length)
    }

    /// How many pages never came, and the first of them.
    pub(super) fn missing(&self) -> Option<(u32, PageNumber)> {
        if self.left == 0 {
            return None;
        }
        let lock = self.page_size.lock_page().get();
        let taken =
            |page: u32| self.taken[((page - 1) / 64) as usize] >> ((page - 1) % 64) & 1 == 1;
        let first = (1..=self.commit).find(|page| *page != lock && !taken(*page))?;
        Some((self.left, PageNumber::new(first).ok()?))
    }

    /// The checksum of all pages kept, where it was asked for.
    pub(super) fn checksum(&self) -> Option<Checksum> {
        self.checksum.map(DatabaseChecksum::value)
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Pages in the database.
    pub(super) fn commit(&self) -> u32 {
        self.commit
    }
}
