//! CRC-64/GO-ISO with bit 63 set, of pages, of whole databases and of files.
//!
//! Invariant: a [`Checksum`] has bit 63 set, so that zero can mean "none". It finds damage and
//! lost pages; it does not resist someone who wants to deceive it.

use std::fmt;
use std::str::FromStr;

use crc_fast::{CrcAlgorithm, Digest};

use crate::format::{IdError, PageNumber};

const BIT_63: u64 = 1 << 63;

/// A checksum as the format stores it: bit 63 is always set, so that zero can mean "none".
/// As text it is 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Checksum(u64);

impl Checksum {
    /// `None` where bit 63 is not set.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        (raw & BIT_63 != 0).then_some(Self(raw))
    }

    /// The 64 bits as stored.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .and_then(Self::from_raw)
            .ok_or_else(|| IdError::new("checksum", "16 hexadecimal digits with bit 63 set", text))
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

impl TryFrom<String> for Checksum {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

/// Bit 63 | CRC-64/GO-ISO(page number as u32 BE, then the page).
#[must_use]
pub fn page_checksum(number: PageNumber, page: &[u8]) -> Checksum {
    let mut crc = Crc::new();
    crc.update(&number.get().to_be_bytes());
    crc.update(page);
    crc.checksum()
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
        Checksum(self.0 | BIT_63)
    }
}

impl From<Checksum> for DatabaseChecksum {
    /// Continues from a stored checksum: bit 63 carries no information and may be set or not.
    fn from(stored: Checksum) -> Self {
        Self(stored.raw())
    }
}

/// A running CRC-64/GO-ISO.
#[derive(Debug, Clone)]
pub(super) struct Crc(Digest);

impl Crc {
    pub(super) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64GoIso))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn checksum(&self) -> Checksum {
        Checksum(self.0.finalize() | BIT_63)
    }
}

#[cfg(test)]
mod tests;
