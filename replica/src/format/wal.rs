//! The bytes of a WAL file, as <https://www.sqlite.org/fileformat2.html#walformat> has them. Pure.

use serde::{Deserialize, Serialize};

use crate::format::PageSize;

/// Bytes of the file's header.
pub const WAL_HEADER_SIZE: usize = 32;
/// Bytes of a frame's header.
pub const FRAME_HEADER_SIZE: usize = 24;

const MAGIC_LITTLE_ENDIAN: u32 = 0x377f_0682;
const MAGIC_BIG_ENDIAN: u32 = 0x377f_0683;
const FORMAT_VERSION: u32 = 3_007_000;

/// The two numbers that change at every restart of a WAL and stand in each of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Salts(pub u32, pub u32);

/// The cumulative checksum over a WAL up to some frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WalChecksum(pub u32, pub u32);

/// A place between two frames of one incarnation of a WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which incarnation.
    pub salts: Salts,
    /// Frames before this place.
    pub frame: u32,
    /// Checksum over the header and those frames; of no meaning while `frame` is 0.
    pub checksum: WalChecksum,
}

/// How the words under a checksum are to be read: the one thing about a WAL that depends on the
/// machine that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Created on a little-endian machine.
    Little,
    /// Created on a big-endian machine.
    Big,
}

/// Why bytes are not what the WAL format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Not a WAL.
    #[error("WAL header: magic {0:#010x} is not a WAL's")]
    Magic(u32),
    /// A format we do not know.
    #[error("WAL header: format version {0} is not 3007000")]
    Version(u32),
    /// A page size that cannot be.
    #[error("WAL header: page size {0} is not a power of two in 512..=65536")]
    PageSize(u32),
    /// The header's own checksum does not hold.
    #[error("WAL header: checksum does not hold")]
    HeaderChecksum,
    /// A frame of another incarnation.
    #[error("WAL frame {frame}: salts {found:?}, expected {expected:?}")]
    FrameSalts {
        /// Number of the frame, from 1.
        frame: u32,
        /// What stands there.
        found: Salts,
        /// What should.
        expected: Salts,
    },
    /// A frame whose cumulative checksum does not hold.
    #[error("WAL frame {frame}: checksum {found:?}, expected {expected:?}")]
    FrameChecksum {
        /// Number of the frame, from 1.
        frame: u32,
        /// What stands there.
        found: WalChecksum,
        /// What was computed.
        expected: WalChecksum,
    },
    /// A frame for page 0.
    #[error("WAL frame {frame}: page number 0")]
    FramePage {
        /// Number of the frame, from 1.
        frame: u32,
    },
}

/// The header of a WAL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader {
    /// Byte order of every checksum in this file.
    pub order: ByteOrder,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Which incarnation.
    pub salts: Salts,
    /// Checksum of the header: where the first frame's checksum starts from.
    pub checksum: WalChecksum,
}

impl WalHeader {
    /// # Errors
    /// Anything that is not a valid header.
    pub fn decode(bytes: &[u8; WAL_HEADER_SIZE]) -> Result<Self, WalError> {
        let order = match be_u32(bytes, 0) {
            MAGIC_LITTLE_ENDIAN => ByteOrder::Little,
            MAGIC_BIG_ENDIAN => ByteOrder::Big,
            other => return Err(WalError::Magic(other)),
        };
        if be_u32(bytes, 4) != FORMAT_VERSION {
            return Err(WalError::Version(be_u32(bytes, 4)));
        }
        let raw_size = be_u32(bytes, 8);
        let page_size = PageSize::new(raw_size).map_err(|_| WalError::PageSize(raw_size))?;
        let checksum = WalChecksum(be_u32(bytes, 24), be_u32(bytes, 28));
        if WalChecksum::default().extend(order, &bytes[..24]) != checksum {
            return Err(WalError::HeaderChecksum);
        }
        Ok(Self { order, page_size, salts: Salts(be_u32(bytes, 16), be_u32(bytes, 20)), checksum })
    }
}

/// What a frame's header says, once it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The page whose new content follows (1 or more).
    pub page: u32,
    /// For the last frame of a transaction, the database's size in pages after it; else 0.
    pub commit: u32,
}

impl Frame {
    /// Verifies frame number `number` (from 1), which follows a frame with checksum `previous`, and
    /// returns it with its own checksum. `bytes` is the frame's header and its page.
    ///
    /// # Errors
    /// Salts or checksum that do not belong to this WAL.
    pub fn verify(
        header: &WalHeader,
        number: u32,
        previous: WalChecksum,
        bytes: &[u8],
    ) -> Result<(Self, WalChecksum), WalError> {
        let found = Salts(be_u32(bytes, 8), be_u32(bytes, 12));
        if found != header.salts {
            return Err(WalError::FrameSalts { frame: number, found, expected: header.salts });
        }
        let expected = previous
            .extend(header.order, &bytes[..8])
            .extend(header.order, &bytes[FRAME_HEADER_SIZE..]);
        let found = WalChecksum(be_u32(bytes, 16), be_u32(bytes, 20));
        if found != expected {
            return Err(WalError::FrameChecksum { frame: number, found, expected });
        }
        let frame = Self { page: be_u32(bytes, 0), commit: be_u32(bytes, 4) };
        if frame.page == 0 {
            return Err(WalError::FramePage { frame: number });
        }
        Ok((frame, expected))
    }
}

impl Frame {
    /// Salts and cumulative checksum as a frame's header has them, unverified.
    #[must_use]
    pub fn claims(header: &[u8; FRAME_HEADER_SIZE]) -> (Salts, WalChecksum) {
        (
            Salts(be_u32(header, 8), be_u32(header, 12)),
            WalChecksum(be_u32(header, 16), be_u32(header, 20)),
        )
    }
}

impl WalChecksum {
    /// SQLite's `walChecksumBytes`: two sums that feed each other, over 8 bytes at a time. `bytes` is a
    /// multiple of 8 long.
    #[must_use]
    pub fn extend(self, order: ByteOrder, bytes: &[u8]) -> Self {
        match order {
            ByteOrder::Little => self.sum(bytes, u32::from_le_bytes),
            ByteOrder::Big => self.sum(bytes, u32::from_be_bytes),
        }
    }

    fn sum(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        debug_assert_eq!(bytes.len() % 8, 0);
        let (mut a, mut b) = (self.0, self.1);
        for pair in bytes.as_chunks::<8>().0 {
            let [w0, w1, w2, w3, w4, w5, w6, w7] = *pair;
            a = a.wrapping_add(word([w0, w1, w2, w3])).wrapping_add(b);
            b = b.wrapping_add(word([w4, w5, w6, w7])).wrapping_add(a);
        }
        Self(a, b)
    }
}

/// Bytes of a frame, header and page.
#[must_use]
pub fn frame_size(page_size: PageSize) -> u64 {
    FRAME_HEADER_SIZE as u64 + u64::from(page_size.get())
}

/// Where frame `number` (from 1) starts in the file, in bytes.
#[must_use]
pub fn frame_offset(number: u32, page_size: PageSize) -> u64 {
    WAL_HEADER_SIZE as u64 + u64::from(number - 1) * frame_size(page_size)
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A WAL that real SQLite wrote here, with its frames.
    fn real_wal() -> (Vec<u8>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE t (a);
             INSERT INTO t VALUES (randomblob(3000)); INSERT INTO t VALUES (1);",
        )
        .unwrap();
        (std::fs::read(directory.path().join("app.db-wal")).unwrap(), 1024)
    }

    /// The same WAL as a machine of the other byte order would have checksummed it.
    fn in_other_order(mut wal: Vec<u8>, page_size: usize) -> Vec<u8> {
        let order = match be_u32(&wal, 0) {
            MAGIC_LITTLE_ENDIAN => ByteOrder::Big,
            _ => ByteOrder::Little,
        };
        let magic = match order {
            ByteOrder::Big => MAGIC_BIG_ENDIAN,
            ByteOrder::Little => MAGIC_LITTLE_ENDIAN,
        };
        wal[..4].copy_from_slice(&magic.to_be_bytes());
        let mut sum = WalChecksum::default().extend(order, &wal[..24]);
        wal[24..28].copy_from_slice(&sum.0.to_be_bytes());
        wal[28..32].copy_from_slice(&sum.1.to_be_bytes());
        for frame in wal[WAL_HEADER_SIZE..].chunks_exact_mut(FRAME_HEADER_SIZE + page_size) {
            sum = sum.extend(order, &frame[..8]).extend(order, &frame[FRAME_HEADER_SIZE..]);
            frame[16..20].copy_from_slice(&sum.0.to_be_bytes());
            frame[20..24].copy_from_slice(&sum.1.to_be_bytes());
        }
        wal
    }

    fn verify_all(wal: &[u8], page_size: usize) -> Result<Vec<Frame>, WalError> {
        let header = WalHeader::decode(wal[..WAL_HEADER_SIZE].try_into().unwrap())?;
        let mut sum = header.checksum;
        let mut frames = Vec::new();
        for (index, bytes) in
            wal[WAL_HEADER_SIZE..].chunks_exact(FRAME_HEADER_SIZE + page_size).enumerate()
        {
            let number = u32::try_from(index).unwrap() + 1;
            let (frame, next) = Frame::verify(&header, number, sum, bytes)?;
            frames.push(frame);
            sum = next;
        }
        Ok(frames)
    }

    #[test]
    fn frames_of_a_real_wal_verify_in_either_byte_order() {
        let (wal, page_size) = real_wal();
        let frames = verify_all(&wal, page_size).unwrap();
        assert!(frames.len() > 4, "{frames:?}");
        assert_eq!(frames.last().unwrap().commit, 4, "{frames:?}");
        assert_eq!(verify_all(&in_other_order(wal, page_size), page_size).unwrap(), frames);
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (wal, page_size) = real_wal();
        for at in 0..wal.len() {
            let mut damaged = wal.clone();
            damaged[at] ^= 0x10;
            // The count of checkpoints (12..16) is under the header's checksum, too.
            assert!(verify_all(&damaged, page_size).is_err(), "byte {at} is not checked");
        }
    }
}
