//! Identifiers of files, as types: a TXID cannot be mistaken for a level. Those that exist are
//! valid; as text and in JSON they have one form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is wrong with the text or number of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not {expected}: {got}")]
pub struct IdError {
    /// The text or number that was refused.
    pub got: String,
    /// The kind of identifier.
    pub what: &'static str,
    /// What it should have looked like.
    pub expected: &'static str,
}

impl IdError {
    pub(super) fn new(what: &'static str, expected: &'static str, got: impl fmt::Display) -> Self {
        Self { got: got.to_string(), what, expected }
    }
}

/// A transaction id: 1 for the first file of a generation, then one more per sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Txid(u64);

impl Txid {
    /// The first TXID of every chain.
    pub const FIRST: Self = Self(1);

    /// # Errors
    /// Zero is not a TXID.
    pub fn new(value: u64) -> Result<Self, IdError> {
        if value == 0 {
            return Err(IdError::new("TXID", "1 or more", value));
        }
        Ok(Self(value))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The TXID after this one (saturating: 2^64 syncs are never reached).
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Txid {
    type Err = IdError;

    /// Up to 16 hexadecimal digits, with or without leading zeros.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::new("TXID", "1 to 16 hexadecimal digits, not zero", text);
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        u64::from_str_radix(text, 16).ok().and_then(|v| Self::new(v).ok()).ok_or_else(refuse)
    }
}

impl From<Txid> for String {
    fn from(txid: Txid) -> Self {
        txid.to_string()
    }
}

impl TryFrom<String> for Txid {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

/// The TXIDs that one file covers, `min..=max`; its `Display` is the file's name without `.ltx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxidRange {
    min: Txid,
    max: Txid,
}

impl TxidRange {
    /// # Errors
    /// `min` above `max`.
    pub fn new(min: Txid, max: Txid) -> Result<Self, IdError> {
        if min > max {
            return Err(IdError::new("TXID range", "min <= max", format!("{min}-{max}")));
        }
        Ok(Self { min, max })
    }

    /// The range of one TXID.
    #[must_use]
    pub fn single(txid: Txid) -> Self {
        Self { min: txid, max: txid }
    }

    /// First TXID covered.
    #[must_use]
    pub fn min(self) -> Txid {
        self.min
    }

    /// Last TXID covered: the database's state after the file was applied.
    #[must_use]
    pub fn max(self) -> Txid {
        self.max
    }

    /// A file that starts at TXID 1 holds every page, at whatever level it stands.
    #[must_use]
    pub fn is_snapshot(self) -> bool {
        self.min == Txid::FIRST
    }

    /// `<min>-<max>.ltx`, 16 lower-case hexadecimal digits each.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{self}.ltx")
    }

    /// Reads exactly `^[0-9a-f]{16}-[0-9a-f]{16}\.ltx$`.
    ///
    /// # Errors
    /// Any other name.
    pub fn from_file_name(name: &str) -> Result<Self, IdError> {
        let refuse = || IdError::new("file name", "<16 hex>-<16 hex>.ltx", name);
        let lower_hex = |part: &str| {
            part.len() == 16 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let (min, max) =
            name.strip_suffix(".ltx").and_then(|stem| stem.split_once('-')).ok_or_else(refuse)?;
        if !lower_hex(min) || !lower_hex(max) {
            return Err(refuse());
        }
        let parse = |part: &str| part.parse::<Txid>().map_err(|_| refuse());
        Self::new(parse(min)?, parse(max)?).map_err(|_| refuse())
    }
}

impl fmt::Display for TxidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// A compaction level: 0 for one file per sync, 1 to 8 compactions, 9 snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// One file per sync.
    pub const SYNC: Self = Self(0);
    /// Snapshots.
    pub const SNAPSHOT: Self = Self(9);

    /// # Errors
    /// Above 9.
    pub fn new(value: u8) -> Result<Self, IdError> {
        if value > 9 {
            return Err(IdError::new("level", "0 to 9", value));
        }
        Ok(Self(value))
    }

    /// Every level, 0 to 9.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=9).map(Self)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One chain of TXIDs from one source with no doubt in it: a UUIDv7, so that names sort by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct GenerationId(uuid::Uuid);

impl GenerationId {
    /// Any UUID; a new generation is made with one of version 7.
    #[must_use]
    pub fn from_uuid(uuid: uuid::Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID.
    #[must_use]
    pub fn uuid(self) -> uuid::Uuid {
        self.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for GenerationId {
    type Err = IdError;

    /// The 36 characters of a hyphenated, lower-case UUID.
    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid::Uuid::parse_str(text)
            .ok()
            .map(Self)
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| IdError::new("generation", "a lower-case UUID", text))
    }
}

impl From<GenerationId> for String {
    fn from(id: GenerationId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for GenerationId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests;
