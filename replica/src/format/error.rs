//! What can be wrong with a file, one variant per rejection.

/// Why the bytes are not a valid LTX v3 file. `offset` is in bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The reader itself failed (not the file's content).
    #[error("read at offset {offset}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// The reader's error.
        #[source]
        source: std::io::Error,
    },
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The writer or the scratch file failed.
    #[error("write LTX file")]
    Write(#[from] std::io::Error),
}
