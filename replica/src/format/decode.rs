//! Reads one LTX file, page by page, in constant memory, and believes nothing it reads.

use std::io::Read;

use crate::format::{FormatError, Header, PageNumber, Trailer};

/// Reads one file. Only after [`Decoder::finish`] returned `Ok` is any of its pages proven.
#[derive(Debug)]
pub struct Decoder<R: Read> {
    _input: R,
}

impl<R: Read> Decoder<R> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// Not a valid header, or a failing reader.
    pub fn new(_input: R) -> Result<Self, FormatError> {
        todo!()
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        todo!()
    }

    /// Reads the next page into `page` (exactly one page long); `None` after the last one.
    ///
    /// # Errors
    /// A page that breaks a rule of the format, or a failing reader.
    pub fn next_page(&mut self, _page: &mut [u8]) -> Result<Option<PageNumber>, FormatError> {
        todo!()
    }

    /// Skips (but checks) what is left of the pages, then checks index, trailer and end of file.
    ///
    /// # Errors
    /// Anything that is not as it must be, or a failing reader.
    pub fn finish(self) -> Result<Trailer, FormatError> {
        todo!()
    }
}
