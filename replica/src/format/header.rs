//! The 100-byte header and the 16-byte trailer.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `LTX1` |
//! | 4 | 4 | flags: `0x2` = no database checksums |
//! | 8 | 4 | page size, bytes |
//! | 12 | 4 | commit: pages of the database after apply |
//! | 16 | 8 | min TXID |
//! | 24 | 8 | max TXID |
//! | 32 | 8 | timestamp, ms since 1970 |
//! | 40 | 8 | pre-apply checksum |
//! | 48 | 8 | WAL offset |
//! | 56 | 8 | WAL size |
//! | 64 | 4 + 4 | WAL salts |
//! | 72 | 8 | node id |
//! | 80 | 20 | reserved |
//!
//! Reserved bytes are written as zero and, as in the reference implementation, not looked at when
//! read (the file checksum covers them).

use jiff::Timestamp;

use crate::format::{Checksum, FormatError, PageSize, Txid, TxidRange};

/// Bytes of a header.
pub const HEADER_SIZE: usize = 100;
/// Bytes of a trailer.
pub const TRAILER_SIZE: usize = 16;

const MAGIC: [u8; 4] = *b"LTX1";
/// The oldest files: one LZ4 stream for all pages, no index.
const FLAG_COMPRESSED_PAGES: u32 = 0x1;
const FLAG_NO_CHECKSUM: u32 = 0x2;

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
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, FormatError> {
        let magic = field(bytes, 0);
        if magic != MAGIC {
            return Err(FormatError::Magic { actual: magic });
        }
        let checksummed = match u32::from_be_bytes(field(bytes, 4)) {
            0 => true,
            FLAG_NO_CHECKSUM => false,
            FLAG_COMPRESSED_PAGES => {
                return Err(FormatError::OlderFormat {
                    offset: 4,
                    what: "flag 0x1, all pages compressed as one",
                });
            }
            actual => return Err(FormatError::HeaderFlags { actual }),
        };
        let page_size = u32::from_be_bytes(field(bytes, 8));
        let page_size =
            PageSize::new(page_size).map_err(|_| FormatError::PageSize { actual: page_size })?;
        let (min, max) =
            (u64::from_be_bytes(field(bytes, 16)), u64::from_be_bytes(field(bytes, 24)));
        let txids = TxidRange::new(
            Txid::new(min).map_err(|_| FormatError::MinTxidZero)?,
            Txid::new(max).map_err(|_| FormatError::MaxTxidZero)?,
        )
        .map_err(|_| FormatError::TxidOrder { min, max })?;
        let timestamp = i64::from_be_bytes(field(bytes, 32));
        let timestamp = Timestamp::from_millisecond(timestamp)
            .map_err(|_| FormatError::Timestamp { actual: timestamp })?;
        Ok(Self {
            page_size,
            commit: u32::from_be_bytes(field(bytes, 12)),
            txids,
            timestamp,
            checksummed,
            pre_apply: pre_apply(u64::from_be_bytes(field(bytes, 40)), txids, checksummed)?,
            wal: wal_span(
                i64::from_be_bytes(field(bytes, 48)),
                i64::from_be_bytes(field(bytes, 56)),
                (u32::from_be_bytes(field(bytes, 64)), u32::from_be_bytes(field(bytes, 68))),
            )?,
            node_id: u64::from_be_bytes(field(bytes, 72)),
        })
    }

    /// The bytes. Not every value of this type is a valid header: [`Header::decode`] tells.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let flags = if self.checksummed { 0 } else { FLAG_NO_CHECKSUM };
        let pre_apply = self.pre_apply.map_or(0, Checksum::raw);
        let wal = self.wal.unwrap_or(WalSpan { offset: 0, size: 0, salts: (0, 0) });
        let mut bytes = [0; HEADER_SIZE];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, &MAGIC);
        put(4, &flags.to_be_bytes());
        put(8, &self.page_size.get().to_be_bytes());
        put(12, &self.commit.to_be_bytes());
        put(16, &self.txids.min().get().to_be_bytes());
        put(24, &self.txids.max().get().to_be_bytes());
        put(32, &self.timestamp.as_millisecond().to_be_bytes());
        put(40, &pre_apply.to_be_bytes());
        put(48, &wal.offset.to_be_bytes());
        put(56, &wal.size.to_be_bytes());
        put(64, &wal.salts.0.to_be_bytes());
        put(68, &wal.salts.1.to_be_bytes());
        put(72, &self.node_id.to_be_bytes());
        bytes
    }

    /// Checks that the file's name tells the TXIDs that the header tells.
    ///
    /// # Errors
    /// [`FormatError::Name`].
    pub fn check_name(&self, name: TxidRange) -> Result<(), FormatError> {
        if name != self.txids {
            return Err(FormatError::Name { name, header: self.txids });
        }
        Ok(())
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

fn pre_apply(
    raw: u64,
    txids: TxidRange,
    checksummed: bool,
) -> Result<Option<Checksum>, FormatError> {
    match (raw, txids.is_snapshot(), checksummed) {
        (0, true, _) | (0, _, false) => Ok(None),
        (actual, true, _) => Err(FormatError::PreApplyOnSnapshot { actual }),
        (actual, _, false) => Err(FormatError::PreApplyNotAllowed { actual }),
        (0, false, true) => Err(FormatError::PreApplyMissing),
        (actual, false, true) => {
            Checksum::from_raw(actual).map(Some).ok_or(FormatError::PreApplyMalformed { actual })
        }
    }
}

fn wal_span(offset: i64, size: i64, salts: (u32, u32)) -> Result<Option<WalSpan>, FormatError> {
    let span = WalSpan {
        offset: u64::try_from(offset)
            .map_err(|_| FormatError::WalOffsetNegative { actual: offset })?,
        size: u64::try_from(size).map_err(|_| FormatError::WalSizeNegative { actual: size })?,
        salts,
    };
    if offset != 0 {
        return Ok(Some(span));
    }
    if salts != (0, 0) {
        return Err(FormatError::WalSaltsWithoutOffset { salts });
    }
    if size != 0 {
        return Err(FormatError::WalSizeWithoutOffset { size });
    }
    Ok(None)
}

/// The `N` bytes at `offset`, which is a constant below `HEADER_SIZE - N`.
fn field<const N: usize>(bytes: &[u8; HEADER_SIZE], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}
