//! The bytes of a file through one buffer of fixed size, and how far we are.
//!
//! Invariant: a length from the file never sizes an allocation; what does not fit into the buffer
//! is a bug of the caller, who bounds it first.

use std::io::{ErrorKind, Read};

use crate::format::FormatError;

/// Large reads for the operating system, small enough to open many files at once.
const CAPACITY: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Source<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the file of `buffer[start]`.
    offset: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: vec![0; CAPACITY], start: 0, end: 0, offset: 0 }
    }

    /// From now on up to `length` bytes will be taken at once.
    pub(super) fn reserve(&mut self, length: usize) {
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
    }

    /// Bytes of the file taken so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next `length` bytes, which belong to `what`.
    pub(super) fn take(&mut self, length: usize, what: &'static str) -> Result<&[u8], FormatError> {
        if self.end - self.start < length {
            self.fill(length)?;
            let actual = self.end - self.start;
            if actual < length {
                let offset = self.offset;
                return Err(FormatError::Truncated { offset, what, expected: length, actual });
            }
        }
        let bytes = &self.buffer[self.start..self.start + length];
        self.start += length;
        self.offset += length as u64;
        Ok(bytes)
    }

    /// The next `N` bytes, which belong to `what`.
    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    /// Whether nothing is left.
    pub(super) fn at_end(&mut self) -> Result<bool, FormatError> {
        if self.start == self.end {
            self.fill(1)?;
        }
        Ok(self.start == self.end)
    }

    /// Reads until `length` bytes are there or the input ends.
    fn fill(&mut self, length: usize) -> Result<(), FormatError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < length {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + self.end as u64;
                    return Err(FormatError::Read { offset, source });
                }
            }
        }
        Ok(())
    }
}
