//! Puts the frames of one WAL into the database file, as SQLite's checkpoint would.
//!
//! Stricter than SQLite, which takes the first frame that does not verify for the end of the WAL and drops what follows
//! without a word: every frame must verify, and the last one must end a transaction (Litestream ships whole
//! transactions only).
//!
//! Invariant: a page is written in the place of its number; the file gets its length at the end of the WAL, since
//! within it pages may come and go. Memory: one frame.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::format::PageSize;
use crate::format::wal::{
    FRAME_HEADER_SIZE, Frame, WAL_HEADER_SIZE, WalChecksum, WalError, WalHeader, frame_size,
};
use crate::restore::{RestoreError, output};

/// One WAL being applied.
pub(super) struct Wal<'a> {
    file: &'a File,
    /// Bytes that the file has now.
    length: u64,
    /// The database's page size, where a snapshot has told it.
    expected: Option<PageSize>,
    header: Option<WalHeader>,
    /// The part of the header, or of a frame, that came.
    partial: Vec<u8>,
    frames: u32,
    checksum: WalChecksum,
    /// What the last frame said: pages after its transaction, or 0 within one.
    commit: u32,
    /// Bytes taken.
    taken: u64,
}

/// What is wrong with the WAL; the caller knows the object.
#[derive(Debug)]
pub(super) enum Fault {
    /// A header or frame that does not verify.
    Wal(WalError),
    /// Something that does not fit: what, expected, actual.
    Conflict(&'static str, String, String),
    /// Writing failed.
    Output(RestoreError),
}

impl From<WalError> for Fault {
    fn from(error: WalError) -> Self {
        Self::Wal(error)
    }
}

impl<'a> Wal<'a> {
    /// The next WAL of a database in `file`, which has `length` bytes.
    pub(super) fn new(file: &'a File, length: u64, expected: Option<PageSize>) -> Self {
        Self {
            file,
            length,
            expected,
            header: None,
            partial: Vec::new(),
            frames: 0,
            checksum: WalChecksum::default(),
            commit: 0,
            taken: 0,
        }
    }

    /// Bytes of this WAL taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes the next bytes of the WAL, in pieces of any size.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        self.taken += bytes.len() as u64;
        while !bytes.is_empty() {
            let wanted = match &self.header {
                None => WAL_HEADER_SIZE,
                Some(header) => FRAME_HEADER_SIZE + header.page_size.len(),
            };
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if self.partial.len() == wanted {
                let whole = std::mem::take(&mut self.partial);
                self.whole(&whole)?;
                self.partial = whole;
                self.partial.clear();
            }
        }
        Ok(())
    }

    fn whole(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some(header) = &self.header else {
            let bytes = bytes.first_chunk().ok_or(WalError::HeaderChecksum)?;
            let header = WalHeader::decode(bytes)?;
            if let Some(expected) = self.expected.filter(|size| *size != header.page_size) {
                let (expected, actual) = (expected.to_string(), header.page_size.to_string());
                return Err(Fault::Conflict("page size", expected, actual));
            }
            self.checksum = header.checksum;
            self.header = Some(header);
            return Ok(());
        };
        let number = self.frames + 1;
        let (frame, checksum) = Frame::verify(header, number, self.checksum, bytes)?;
        let size = u64::from(header.page_size.get());
        let (start, end) = (u64::from(frame.page - 1) * size, u64::from(frame.page) * size);
        if end > self.length {
            output::refuse_without_room(self.file, end, self.length).map_err(Fault::Output)?;
            self.length = end;
        }
        self.file
            .write_all_at(&bytes[FRAME_HEADER_SIZE..], start)
            .map_err(|source| Fault::Output(output::failure(end, "write", source)))?;
        (self.frames, self.checksum, self.commit) = (number, checksum, frame.commit);
        Ok(())
    }

    /// The WAL is complete: the file has as many pages as its last transaction left. Its length, and the
    /// page size that the WAL told.
    pub(super) fn finish(self) -> Result<(u64, Option<PageSize>), Fault> {
        let Some(header) = self.header.filter(|_| self.partial.is_empty()) else {
            let wanted = self.header.map_or(WAL_HEADER_SIZE as u64, |h| frame_size(h.page_size));
            let actual = format!("{} at its end", self.partial.len());
            return Err(Fault::Conflict("bytes of a WAL frame", wanted.to_string(), actual));
        };
        if self.frames == 0 {
            return Ok((self.length, Some(header.page_size)));
        }
        if self.commit == 0 {
            let expected = "the end of a transaction".to_owned();
            let actual = format!("frame {} within one", self.frames);
            return Err(Fault::Conflict("end of the WAL", expected, actual));
        }
        let length = u64::from(self.commit) * u64::from(header.page_size.get());
        output::refuse_without_room(self.file, length, self.length).map_err(Fault::Output)?;
        self.file
            .set_len(length)
            .map_err(|source| Fault::Output(output::failure(length, "set length", source)))?;
        Ok((length, Some(header.page_size)))
    }
}
