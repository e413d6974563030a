//! From a position to a mark: which frame holds the newest content of which page.
//!
//! Every frame on the way is verified (salts and the cumulative checksum), and the checksum at the end
//! must be the one that the wal-index names. Reads the WAL file by a descriptor of its own: a WAL carries no
//! locks that closing it could drop. Memory: 8 bytes a frame, and one buffer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use replica::format::wal::{
    FRAME_HEADER_SIZE, Frame, Position, Salts, WAL_HEADER_SIZE, WalError, WalHeader, frame_offset,
};
use replica::format::{PageNumber, PageSize};

use crate::wal::sqlite::Mark;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Where the header counts how often it was begun anew.
const RESTARTS_AT: u64 = 12;

/// The WAL of a database.
#[derive(Debug)]
pub struct WalReader {
    file: File,
    path: PathBuf,
    page_size: PageSize,
}

/// What changed between a position and a mark.
#[derive(Debug)]
pub struct Changes {
    /// Newest frame of each page that is not beyond the new end of the database, by ascending page.
    pages: Vec<(PageNumber, u32)>,
    /// Pages in the database at the end.
    pub commit: u32,
    /// The fewest pages that the database had after any transaction on the way: pages above it are
    /// content of this capture, even where no frame holds them.
    pub fewest: u32,
    /// How far this goes.
    pub end: Position,
}

impl Changes {
    /// Changed pages with the frame that holds each, ascending.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = (PageNumber, u32)> + '_ {
        self.pages.iter().copied()
    }
}

impl WalReader {
    /// # Errors
    /// No WAL there, or no right to read it.
    pub fn open(database: &Path, page_size: PageSize) -> anyhow::Result<Self> {
        let path = wal_path(database);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { file, path, page_size })
    }

    /// Size of the WAL file, bytes.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn file_size(&self) -> std::io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the WAL still holds what was captured up to `position`: its incarnation, and the cumulative checksum
    /// of the last frame before it. A place at the start of a WAL that never had a frame proves nothing.
    ///
    /// # Errors
    /// A failing read; a WAL that ends before, or is none, is `false`.
    pub fn holds(&self, position: Position) -> anyhow::Result<bool> {
        let Ok(header) = self.header() else { return Ok(false) };
        if header.salts != position.salts || position.salts == Salts::default() {
            return Ok(false);
        }
        if position.frame == 0 {
            return Ok(true);
        }
        let offset = frame_offset(position.frame, self.page_size);
        if self.file_size()? < offset + FRAME_HEADER_SIZE as u64 {
            return Ok(false);
        }
        let mut bytes = [0; FRAME_HEADER_SIZE];
        self.read_at(&mut bytes, offset)?;
        Ok(Frame::claims(&bytes) == (position.salts, position.checksum))
    }

    /// Reads at most `limit` of the frames after `from` up to `to`, which is of the same incarnation of the WAL and
    /// not before it. `fewest` is the smallest number of pages so far.
    ///
    /// # Errors
    /// A frame that does not verify, an end that is not the wal-index's, or a failing read.
    pub fn changes(
        &self,
        from: Position,
        to: Mark,
        mut fewest: u32,
        limit: u32,
    ) -> anyhow::Result<Changes> {
        let header = self.header()?;
        if header.salts != to.position.salts || header.page_size != self.page_size {
            return Err(WalError::FrameSalts {
                frame: 0,
                found: header.salts,
                expected: to.position.salts,
            })
            .with_context(|| format!("read {}", self.path.display()));
        }
        let mut checksum = if from.frame == 0 { header.checksum } else { from.checksum };
        let frame_size = FRAME_HEADER_SIZE + self.page_size.len();
        let frames_per_chunk = (CHUNK / frame_size).max(1);
        let last = to.position.frame.min(from.frame.saturating_add(limit));
        let mut newest = Vec::with_capacity((last - from.frame) as usize);
        let mut number = from.frame + 1;
        let mut buffer = Vec::new();
        while number <= last {
            let count = frames_per_chunk.min((last - number + 1) as usize);
            buffer.resize(count * frame_size, 0);
            self.read_at(&mut buffer, frame_offset(number, self.page_size))?;
            for bytes in buffer.chunks_exact(frame_size) {
                let (frame, sum) = Frame::verify(&header, number, checksum, bytes)
                    .with_context(|| format!("read {}", self.path.display()))?;
                checksum = sum;
                if frame.commit != 0 {
                    fewest = fewest.min(frame.commit);
                }
                newest.push((frame.page, number));
                number += 1;
            }
        }
        if last == to.position.frame && checksum != to.position.checksum {
            return Err(WalError::FrameChecksum {
                frame: to.position.frame,
                found: checksum,
                expected: to.position.checksum,
            })
            .with_context(|| format!("compare {} with its index", self.path.display()));
        }
        let end = Position { salts: header.salts, frame: last, checksum };
        Ok(Changes {
            pages: newest_per_page(newest, to.page_count),
            commit: to.page_count,
            fewest,
            end,
        })
    }

    /// Reads the page that frame `number` holds.
    ///
    /// # Errors
    /// A failing read.
    pub fn page(&self, number: u32, page: &mut [u8]) -> anyhow::Result<()> {
        self.read_at(page, frame_offset(number, self.page_size) + FRAME_HEADER_SIZE as u64)
    }

    /// Whether it was begun anew since it was made, so that what it held first is gone: SQLite counts that in its header.
    ///
    /// # Errors
    /// A failing read.
    pub fn was_restarted(&self) -> anyhow::Result<bool> {
        if self.file_size()? == 0 {
            return Ok(false);
        }
        let mut count = [0; 4];
        self.read_at(&mut count, RESTARTS_AT)?;
        Ok(count != [0; 4])
    }

    fn header(&self) -> anyhow::Result<WalHeader> {
        let mut bytes = [0; WAL_HEADER_SIZE];
        self.read_at(&mut bytes, 0)?;
        WalHeader::decode(&bytes).with_context(|| format!("read {}", self.path.display()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> anyhow::Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .with_context(|| format!("read {} at offset {offset}", self.path.display()))
    }
}

/// The WAL that belongs to a database.
#[must_use]
pub fn wal_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

/// From (page, frame) pairs in any order to the last frame of each page up to `commit`.
fn newest_per_page(mut frames: Vec<(u32, u32)>, commit: u32) -> Vec<(PageNumber, u32)> {
    frames.sort_unstable();
    let mut pages: Vec<(PageNumber, u32)> = Vec::new();
    for (page, frame) in frames {
        if page > commit {
            break;
        }
        let Ok(page) = PageNumber::new(page) else { continue };
        match pages.last_mut() {
            Some((last, newest)) if *last == page => *newest = frame,
            _ => pages.push((page, frame)),
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_newest_frame_of_each_page_up_to_the_end_counts() {
        let frames = vec![(3, 1), (1, 2), (9, 3), (3, 4), (2, 5), (1, 6)];
        let page = |number| PageNumber::new(number).unwrap();
        assert_eq!(newest_per_page(frames, 8), [(page(1), 6), (page(2), 5), (page(3), 4)]);
    }
}
