//! CRC-64/GO-ISO with bit 63 set, of pages and of whole databases.

use crate::format::PageNumber;

/// A checksum as the format stores it: bit 63 is always set, so that zero can mean "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Checksum(u64);

impl Checksum {
    /// `None` where bit 63 is not set.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        (raw >> 63 == 1).then_some(Self(raw))
    }

    /// The 64 bits as stored.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }
}

/// Bit 63 | CRC-64/GO-ISO(page number as u32 BE, then the page).
#[must_use]
pub fn page_checksum(_number: PageNumber, _page: &[u8]) -> Checksum {
    todo!()
}

/// The checksum of a whole database: bit 63 | XOR of its pages' checksums, the lock page left out.
/// Adding a page twice takes it out again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseChecksum(u64);

impl DatabaseChecksum {
    /// Adds a page (or, the second time, removes it).
    pub fn toggle(&mut self, page: Checksum) {
        self.0 ^= page.raw();
    }

    /// The checksum as a file stores it.
    #[must_use]
    pub fn value(self) -> Checksum {
        Checksum(self.0 | 1 << 63)
    }
}
