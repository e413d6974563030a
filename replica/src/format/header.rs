//! The 100-byte header and the 16-byte trailer.

use jiff::Timestamp;

use crate::format::{Checksum, FormatError, PageSize, TxidRange};

/// Bytes of a header.
pub const HEADER_SIZE: usize = 100;
/// Bytes of a trailer.
pub const TRAILER_SIZE: usize = 16;

/// Which bytes of which WAL a file was made from (information only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalSpan {
    /// Byte offset of the first frame.
    pub offset: u64,
    /// Bytes of frames.
    pub size: u64,
    /// Salts of the WAL's header.
    pub salts: (u32, u32),
}

/// The header of an LTX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database after this file was applied.
    pub commit: u32,
    /// TXIDs covered.
    pub txids: TxidRange,
    /// When the source was read, with millisecond precision: everything in the file was committed then.
    pub timestamp: Timestamp,
    /// Whether the file belongs to a checksummed chain (else flag `NoChecksum`, pre- and post-apply zero).
    pub checksummed: bool,
    /// Database checksum before this file; `None` for a snapshot or where not checksummed.
    pub pre_apply: Option<Checksum>,
    /// The source's WAL, where known.
    pub wal: Option<WalSpan>,
    /// Free for the writer's use; zero here.
    pub node_id: u64,
}

impl Header {
    /// # Errors
    /// One variant of [`FormatError`] for each rule of the format that does not hold.
    pub fn decode(_bytes: &[u8; HEADER_SIZE]) -> Result<Self, FormatError> {
        todo!()
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        todo!()
    }
}

/// The trailer of an LTX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Database checksum after this file, where checksummed.
    pub post_apply: Option<Checksum>,
    /// Checksum of the file's (uncompressed) content.
    pub file: Checksum,
}
