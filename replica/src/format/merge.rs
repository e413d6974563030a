//! Merges consecutive files into one: the newest copy of each page wins.

use std::io::{Read, Seek, Write};

use crate::format::{Decoder, EncodeError, Encoded, FormatError};

/// Why files cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Input `index` is not valid.
    #[error("input {index}")]
    Input {
        /// Position in the inputs, from 0.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] EncodeError),
}

/// Merges `inputs` (oldest first) into one file that covers all their TXIDs, in constant memory per
/// input: pages beyond the last commit are dropped, the timestamp is the last input's, WAL fields
/// are zero. Every input is checked to its end.
///
/// # Errors
/// No input, inputs that do not follow each other (`min <= previous max + 1`, `max > previous max`,
/// one page size), a damaged input, or a failing writer.
pub fn merge<R: Read, W: Write, S: Read + Write + Seek>(
    _inputs: Vec<Decoder<R>>,
    _out: W,
    _scratch: S,
) -> Result<Encoded<W>, MergeError> {
    todo!()
}
