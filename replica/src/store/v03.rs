//! Names in a Litestream v0.3 replica, which we only read:
//! `generations/<16 hex>/snapshots/<8 hex>.snapshot.lz4` and `generations/<16 hex>/wal/<8 hex>_<8 to 16 hex>.wal.lz4`.
//!
//! Invariant: only names that match to the letter are read, and each is written as it was read.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

/// The directory that holds the generations of a v0.3 replica.
pub(super) const GENERATIONS_DIR: &str = "generations";

/// One generation: a snapshot and the WALs since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V03Generation(u64);

impl fmt::Display for V03Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for V03Generation {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        hexadecimal(name, 16..=16).map(Self).ok_or(())
    }
}

impl V03Generation {
    /// The directories of its objects below the database, without a slash at the end.
    pub(super) fn directories(self) -> [String; 2] {
        ["snapshots", "wal"].map(|kind| format!("{GENERATIONS_DIR}/{self}/{kind}"))
    }
}

/// What one object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum V03Part {
    /// The database file as it was when WAL `index` began.
    Snapshot {
        /// The WAL that goes on from it.
        index: u32,
    },
    /// Bytes of a WAL.
    Segment {
        /// Which WAL.
        index: u32,
        /// Where in it they begin, bytes.
        offset: u64,
        /// Digits that the offset is written with.
        digits: u8,
    },
}

impl V03Part {
    /// Reads an object's name (the last part of its key).
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let index = |text| hexadecimal(text, 8..=8).and_then(|index| u32::try_from(index).ok());
        if let Some(stem) = name.strip_suffix(".snapshot.lz4") {
            return Some(Self::Snapshot { index: index(stem)? });
        }
        let (stem, offset) = name.strip_suffix(".wal.lz4")?.split_once('_')?;
        let digits = u8::try_from(offset.len()).ok()?;
        let offset = hexadecimal(offset, 8..=16)?;
        Some(Self::Segment { index: index(stem)?, offset, digits })
    }
}

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V03Key {
    /// Its generation.
    pub generation: V03Generation,
    /// What it holds.
    pub part: V03Part,
}

impl fmt::Display for V03Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [snapshots, wal] = self.generation.directories();
        match self.part {
            V03Part::Snapshot { index } => write!(f, "{snapshots}/{index:08x}.snapshot.lz4"),
            V03Part::Segment { index, offset, digits } => {
                write!(
                    f,
                    "{wal}/{index:08x}_{offset:0width$x}.wal.lz4",
                    width = usize::from(digits)
                )
            }
        }
    }
}

/// One object as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V03Object {
    /// What it holds.
    pub part: V03Part,
    /// Its size, bytes.
    pub size: u64,
    /// When the store says it was written: the only time that a v0.3 replica has.
    pub modified: Timestamp,
}

/// Lower-case hexadecimal digits, as many as allowed.
fn hexadecimal(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let right = digits.contains(&text.len()) && text.bytes().all(digit);
    u64::from_str_radix(text, 16).ok().filter(|_| right)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_written_as_they_were_read() {
        let generation: V03Generation = "0a28762c50b44d4b".parse().unwrap();
        for name in [
            "snapshots/00000001.snapshot.lz4",
            "snapshots/ffffffff.snapshot.lz4",
            "wal/00000001_00001038.wal.lz4",
            "wal/00000001_000000001038.wal.lz4",
            "wal/0000000a_ffffffffffffffff.wal.lz4",
        ] {
            let part = V03Part::from_name(name.split_once('/').unwrap().1).unwrap();
            let key = V03Key { generation, part };
            assert_eq!(key.to_string(), format!("generations/0a28762c50b44d4b/{name}"));
        }
    }

    #[test]
    fn other_names_are_not_read() {
        for name in [
            "00000001.snapshot",
            "1.snapshot.lz4",
            "0000000A.snapshot.lz4",
            "+0000001.snapshot.lz4",
            "000000001.snapshot.lz4",
            "../00000001.snapshot.lz4",
            "00000001.wal.lz4",
            "00000001_1038.wal.lz4",
            "00000001_00000000000001038.wal.lz4",
            "00000001_0000103g.wal.lz4",
            "00000001_+0001038.wal.lz4",
            "",
        ] {
            assert_eq!(V03Part::from_name(name), None, "{name}");
        }
        for name in ["a28762c50b44d4b", "A28762c50b44d4b1", "a28762c50b44d4b12", "", ".."] {
            assert!(name.parse::<V03Generation>().is_err(), "{name}");
        }
    }
}
