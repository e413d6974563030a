//! What can be wrong with a file, one variant per rejection.
//!
//! Invariant: each message says where (`offset`, in bytes from the start of the file) and, where it
//! means anything, what was expected and what was there. The file's name or key is the caller's to
//! add.

use std::io;

use crate::format::{Checksum, TxidRange};

/// Why the bytes are not a valid LTX v3 file. `offset` is in bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "offset, expected, actual and page are what they say")]
pub enum FormatError {
    /// The reader itself failed (not the file's content).
    #[error("read at offset {offset}")]
    Read {
        offset: u64,
        #[source]
        source: io::Error,
    },
    /// The file ends too early; `what` begins at `offset`.
    #[error("offset {offset}: file ends within {what}: expected {expected} bytes, actual {actual}")]
    Truncated { offset: u64, what: &'static str, expected: usize, actual: usize },
    /// A decoder that has failed cannot go on.
    #[error("offset {offset}: read on after an error")]
    AfterError { offset: u64 },
    /// The caller's buffer is not one page long.
    #[error("page buffer of {actual} bytes, expected {expected}")]
    PageBuffer { expected: usize, actual: usize },

    /// Not an LTX file at all.
    #[error("offset 0: not an LTX file: expected magic LTX1, actual {}", actual.escape_ascii())]
    Magic { actual: [u8; 4] },
    /// An LTX file of version 1 or 2, which share the magic of version 3.
    #[error(
        "offset {offset}: older LTX format ({what}), expected version 3\n\
         HINT: restore this file with the Litestream or LiteFS release that wrote it"
    )]
    OlderFormat { offset: u64, what: &'static str },
    /// A header flag other than `NoChecksum`.
    #[error("offset 4: unknown header flags: expected 0x0 or 0x2, actual {actual:#x}")]
    HeaderFlags { actual: u32 },
    /// Not a page size of SQLite.
    #[error("offset 8: page size: expected a power of two in 512..=65536, actual {actual}")]
    PageSize { actual: u32 },
    /// TXIDs count from 1.
    #[error("offset 16: min TXID: expected 1 or more, actual 0")]
    MinTxidZero,
    /// TXIDs count from 1.
    #[error("offset 24: max TXID: expected 1 or more, actual 0")]
    MaxTxidZero,
    /// Max TXID below min TXID.
    #[error("offset 24: max TXID: expected {min:016x} or more, actual {max:016x}")]
    TxidOrder { min: u64, max: u64 },
    /// A time that no calendar has.
    #[error("offset 32: timestamp out of range: actual {actual} ms")]
    Timestamp { actual: i64 },
    /// A snapshot has nothing before it.
    #[error("offset 40: pre-apply checksum of a snapshot: expected 0, actual {actual:016x}")]
    PreApplyOnSnapshot { actual: u64 },
    /// A file without database checksums has no pre-apply checksum.
    #[error("offset 40: pre-apply checksum without checksums: expected 0, actual {actual:016x}")]
    PreApplyNotAllowed { actual: u64 },
    /// A checksummed file that is no snapshot needs its pre-apply checksum.
    #[error("offset 40: pre-apply checksum: expected one, actual 0")]
    PreApplyMissing,
    /// A checksum without bit 63.
    #[error("offset 40: pre-apply checksum: expected bit 63 set, actual {actual:016x}")]
    PreApplyMalformed { actual: u64 },
    /// A negative offset into the WAL.
    #[error("offset 48: WAL offset: expected 0 or more, actual {actual}")]
    WalOffsetNegative { actual: i64 },
    /// A negative length of WAL.
    #[error("offset 56: WAL size: expected 0 or more, actual {actual}")]
    WalSizeNegative { actual: i64 },
    /// A length of WAL, but not where.
    #[error("offset 48: WAL offset: expected one beside WAL size {size}, actual 0")]
    WalSizeWithoutOffset { size: i64 },
    /// Salts of a WAL, but not where.
    #[error("offset 48: WAL offset: expected one beside WAL salts {0:08x} {1:08x}, actual 0", salts.0, salts.1)]
    WalSaltsWithoutOffset { salts: (u32, u32) },
    /// The file's name tells other TXIDs than its header.
    #[error("offset 16: TXIDs differ from the file's name: expected {name}, actual {header}")]
    Name { name: TxidRange, header: TxidRange },

    /// Page number 0 ends the pages, and then its flags are zero.
    #[error("offset {offset}: page number: expected 1 or more, actual 0 with flags {flags:#06x}")]
    PageNumberZero { offset: u64, flags: u16 },
    /// A page flag other than "block with its size".
    #[error(
        "offset {offset}: page {page}: unknown flags: expected 0x0 or 0x1, actual {actual:#06x}"
    )]
    PageFlags { offset: u64, page: u32, actual: u16 },
    /// A page that must not be here, or one that is missing.
    #[error("offset {offset}: {fault}")]
    Page { offset: u64, fault: PageFault },
    /// More compressed bytes than LZ4 ever makes of a page.
    #[error("offset {offset}: page {page}: compressed size: expected 1 to {max}, actual {actual}")]
    CompressedSize { offset: u64, page: u32, max: usize, actual: u32 },
    /// The compressed bytes are no LZ4 block.
    #[error("offset {offset}: page {page}: invalid LZ4 block")]
    Lz4 {
        offset: u64,
        page: u32,
        #[source]
        source: lz4_flex::block::DecompressError,
    },
    /// The compressed bytes are less than one page.
    #[error("offset {offset}: page {page}: decoded length: expected {expected}, actual {actual}")]
    DecodedLength { offset: u64, page: u32, expected: usize, actual: usize },
    /// An LZ4 frame of another kind than the format's.
    #[error(
        "offset {offset}: page {page}: LZ4 frame header: expected {}, actual {}",
        hex(expected),
        hex(actual)
    )]
    FrameHeader { offset: u64, page: u32, expected: [u8; 7], actual: [u8; 7] },
    /// An LZ4 frame that goes on after its page.
    #[error(
        "offset {offset}: page {page}: LZ4 frame: expected its end, actual block of {actual:#x}"
    )]
    FrameEnd { offset: u64, page: u32, actual: u32 },
    /// The page differs from its LZ4 frame's checksum.
    #[error(
        "offset {offset}: page {page}: LZ4 frame checksum: expected {expected:08x}, actual {actual:08x}"
    )]
    FrameChecksum { offset: u64, page: u32, expected: u32, actual: u32 },

    /// The page index (from `offset`, `length` bytes) does not tell where the pages are.
    #[error("offset {offset}: page index of {length} bytes differs from the pages before it")]
    Index { offset: u64, length: u64 },
    /// The page index does not know its own length.
    #[error("offset {offset}: length of the page index: expected {expected}, actual {actual}")]
    IndexLength { offset: u64, expected: u64, actual: u64 },
    /// A file without database checksums has no post-apply checksum.
    #[error(
        "offset {offset}: post-apply checksum without checksums: expected 0, actual {actual:016x}"
    )]
    PostApplyNotAllowed { offset: u64, actual: u64 },
    /// A checksummed file needs its post-apply checksum.
    #[error("offset {offset}: post-apply checksum: expected one, actual 0")]
    PostApplyMissing { offset: u64 },
    /// A checksum without bit 63.
    #[error("offset {offset}: post-apply checksum: expected bit 63 set, actual {actual:016x}")]
    PostApplyMalformed { offset: u64, actual: u64 },
    /// The pages of a snapshot do not add up to its post-apply checksum.
    #[error(
        "offset {offset}: post-apply checksum of a snapshot: expected {expected} by its pages, \
         actual {actual}"
    )]
    PostApplyMismatch { offset: u64, expected: Checksum, actual: Checksum },
    /// A checksum without bit 63.
    #[error("offset {offset}: file checksum: expected bit 63 set, actual {actual:016x}")]
    FileChecksumMalformed { offset: u64, actual: u64 },
    /// The content differs from the file's checksum.
    #[error("offset {offset}: file checksum: expected {expected} by the content, actual {actual}")]
    FileChecksumMismatch { offset: u64, expected: Checksum, actual: Checksum },
    /// Something follows the trailer.
    #[error("offset {offset}: bytes after the end of the file")]
    TrailingBytes { offset: u64 },
}

/// Why a page must not come next (or the pages must not end here): the same for reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what they say")]
pub enum PageFault {
    /// Not above the page before it.
    #[error("pages out of order: expected above {previous}, actual {actual}")]
    Order { previous: u32, actual: u32 },
    /// Beyond the end of the database.
    #[error("page beyond the commit: expected at most {commit}, actual {actual}")]
    BeyondCommit { commit: u32, actual: u32 },
    /// SQLite's lock page is never in a file.
    #[error("lock page {page} in the file")]
    LockPage { page: u32 },
    /// A page is missing from a snapshot.
    #[error("page missing from a snapshot: expected {expected}, actual {actual}")]
    Gap { expected: u32, actual: u32 },
    /// A snapshot stops before its last page.
    #[error("snapshot incomplete: expected page {expected} of {commit}, actual end of pages")]
    Incomplete { expected: u32, commit: u32 },
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "expected and actual are what they say")]
pub enum EncodeError {
    /// The writer or the scratch file failed.
    #[error("write LTX file")]
    Write(#[from] io::Error),
    /// The header breaks a rule of the format.
    #[error("header to write")]
    Header(#[source] FormatError),
    /// A page out of place.
    #[error(transparent)]
    Page(#[from] PageFault),
    /// Not one page.
    #[error("page to write: expected {expected} bytes, actual {actual}")]
    PageLength { expected: usize, actual: usize },
    /// LZ4 refused a page.
    #[error("compress page")]
    Compress(#[from] lz4_flex::block::CompressError),
    /// The scratch file gave back something else than was written to it.
    #[error("page index changed in the scratch file")]
    Scratch,
    /// A checksummed file needs its post-apply checksum.
    #[error("post-apply checksum to write: expected one, actual none")]
    PostApplyMissing,
    /// A file without database checksums has no post-apply checksum.
    #[error("post-apply checksum to write: expected none, actual {actual}")]
    PostApplyNotAllowed { actual: Checksum },
    /// The pages of a snapshot do not add up to the post-apply checksum.
    #[error("post-apply checksum of a snapshot: expected {expected} by its pages, actual {actual}")]
    PostApplyMismatch { expected: Checksum, actual: Checksum },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
