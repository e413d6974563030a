//! Page numbers and sizes, as types: those that exist are valid.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::format::IdError;

/// A page number; the first page of a database is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct PageNumber(u32);

impl PageNumber {
    /// # Errors
    /// Zero is not a page number.
    pub fn new(value: u32) -> Result<Self, IdError> {
        if value == 0 {
            return Err(IdError::new("page number", "1 or more", value));
        }
        Ok(Self(value))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Where the page starts in the database file, in bytes.
    #[must_use]
    pub fn file_offset(self, page_size: PageSize) -> u64 {
        u64::from(self.0 - 1) * u64::from(page_size.get())
    }
}

impl From<PageNumber> for u32 {
    fn from(number: PageNumber) -> Self {
        number.0
    }
}

impl TryFrom<u32> for PageNumber {
    type Error = IdError;
    fn try_from(value: u32) -> Result<Self, IdError> {
        Self::new(value)
    }
}

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes in a page: a power of two in 512..=65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct PageSize(u32);

impl PageSize {
    /// # Errors
    /// Anything but a power of two in 512..=65536.
    pub fn new(value: u32) -> Result<Self, IdError> {
        if !value.is_power_of_two() || !(512..=65536).contains(&value) {
            return Err(IdError::new("page size", "a power of two in 512..=65536", value));
        }
        Ok(Self(value))
    }

    /// In bytes.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// In bytes, as a length.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a page is never empty")]
    pub fn len(self) -> usize {
        self.0 as usize
    }

    /// The page at byte 2^30, which SQLite uses for locks: never in a file.
    #[must_use]
    pub fn lock_page(self) -> PageNumber {
        PageNumber(0x4000_0000 / self.0 + 1)
    }
}

impl From<PageSize> for u32 {
    fn from(size: PageSize) -> Self {
        size.0
    }
}

impl TryFrom<u32> for PageSize {
    type Error = IdError;
    fn try_from(value: u32) -> Result<Self, IdError> {
        Self::new(value)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
