//! Writes one LTX file, page by page, in constant memory.

use std::io::{Read, Seek, Write};

use crate::format::{Checksum, EncodeError, Header, PageNumber, Trailer};

/// Writes one file. `scratch` holds the page index until [`Encoder::finish`]: a
/// `tempfile::SpooledTempFile` keeps memory flat whatever the file's size.
#[derive(Debug)]
pub struct Encoder<W: Write, S: Read + Write + Seek> {
    _out: W,
    _scratch: S,
}

/// A finished file.
#[derive(Debug)]
pub struct Encoded<W> {
    /// The writer, not flushed or synced.
    pub out: W,
    /// Checksums at the end of the file.
    pub trailer: Trailer,
    /// Size of the file, bytes.
    pub size: u64,
    /// Pages in it.
    pub pages: u32,
}

impl<W: Write, S: Read + Write + Seek> Encoder<W, S> {
    /// Writes the header.
    ///
    /// # Errors
    /// A header that breaks a rule of the format, or a failing writer.
    pub fn new(_out: W, _scratch: S, _header: Header) -> Result<Self, EncodeError> {
        todo!()
    }

    /// Adds a page, LZ4-compressed. Pages come in ascending order, the lock page never.
    ///
    /// # Errors
    /// Wrong order, wrong size, a number beyond the commit, the lock page, or a failing writer.
    pub fn page(&mut self, _number: PageNumber, _page: &[u8]) -> Result<(), EncodeError> {
        todo!()
    }

    /// Writes index and trailer. `post_apply` is given exactly for a checksummed file.
    ///
    /// # Errors
    /// An incomplete snapshot, a missing or superfluous `post_apply`, or a failing writer.
    pub fn finish(self, _post_apply: Option<Checksum>) -> Result<Encoded<W>, EncodeError> {
        todo!()
    }
}
