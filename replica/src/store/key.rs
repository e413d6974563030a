//! Every object the product knows, as one enum: the only place where a key becomes text.
//!
//! Two layouts share the names. S3 writes a level as four hexadecimal digits (`0000/`), the file
//! backend as `ltx/<decimal level>/`: each is what Litestream v0.5 reads there.

use crate::format::{GenerationId, Level, TxidRange};
use crate::store::V03Key;

/// The directory of all levels in the file layout.
pub(super) const FILE_LEVELS_DIR: &str = "ltx";

/// Where one chain of LTX files stands below a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Directly at the database's root: a replica that Litestream wrote.
    Root,
    /// A generation of ours.
    Generation(GenerationId),
}

impl Chain {
    /// The directory of one level below the database as S3 has it, without a slash at its end.
    pub(super) fn s3_level_path(self, level: Level) -> String {
        self.join(&format!("{:04x}", level.get()))
    }

    /// The directory of one level below the database as the file backend has it.
    pub(super) fn file_level_path(self, level: Level) -> String {
        self.join(&format!("{FILE_LEVELS_DIR}/{level}"))
    }

    fn join(self, below: &str) -> String {
        match self {
            Self::Root => below.to_owned(),
            Self::Generation(id) => format!("{id}/{below}"),
        }
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("(root)"),
            Self::Generation(id) => id.fmt(f),
        }
    }
}

/// Reads the name of a level's directory on S3 (`0000` to `0009`).
pub(super) fn level_of_s3_dir(name: &str) -> Option<Level> {
    Level::all().find(|level| format!("{:04x}", level.get()) == name)
}

/// One LTX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LtxKey {
    /// The chain it belongs to.
    pub chain: Chain,
    /// Its level.
    pub level: Level,
    /// Its TXIDs, which are its name.
    pub txids: TxidRange,
}

/// One object below a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `drill.toml`: what must be true of a restored copy.
    DrillConfig,
    /// `heartbeat.json`: the only object the shipper overwrites.
    Heartbeat,
    /// `receipt.json`: the last PASS.
    Receipt,
    /// A file of a chain.
    Ltx(LtxKey),
    /// A part of a Litestream v0.3 replica, never written.
    V03(V03Key),
}

impl From<LtxKey> for Key {
    fn from(key: LtxKey) -> Self {
        Self::Ltx(key)
    }
}

impl Key {
    /// The key below the database as S3 has it: `<generation>/0000/<min>-<max>.ltx`.
    #[must_use]
    pub fn s3_path(&self) -> String {
        self.path(|key| key.chain.s3_level_path(key.level))
    }

    /// The path below the database as the file backend has it: `<generation>/ltx/0/<min>-<max>.ltx`.
    #[must_use]
    pub fn file_path(&self) -> String {
        self.path(|key| key.chain.file_level_path(key.level))
    }

    fn path(&self, level_path: impl Fn(&LtxKey) -> String) -> String {
        match self {
            Self::DrillConfig => "drill.toml".to_owned(),
            Self::Heartbeat => "heartbeat.json".to_owned(),
            Self::Receipt => "receipt.json".to_owned(),
            Self::Ltx(key) => format!("{}/{}", level_path(key), key.txids.file_name()),
            Self::V03(key) => key.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::format::Txid;

    fn ltx(chain: Chain, level: u8) -> Key {
        let txids = TxidRange::new(Txid::FIRST, Txid::new(0x2a).unwrap()).unwrap();
        LtxKey { chain, level: Level::new(level).unwrap(), txids }.into()
    }

    #[test]
    fn a_key_reads_as_litestream_expects_it_on_each_backend() {
        let id = "01938c5e-7a00-7000-8000-000000000001";
        let generation = Chain::Generation(id.parse().unwrap());
        let name = "0000000000000001-000000000000002a.ltx";
        let cases = [
            (ltx(generation, 0), format!("{id}/0000/{name}"), format!("{id}/ltx/0/{name}")),
            (ltx(generation, 9), format!("{id}/0009/{name}"), format!("{id}/ltx/9/{name}")),
            (ltx(Chain::Root, 2), format!("0002/{name}"), format!("ltx/2/{name}")),
            (Key::DrillConfig, "drill.toml".into(), "drill.toml".into()),
            (Key::Heartbeat, "heartbeat.json".into(), "heartbeat.json".into()),
            (Key::Receipt, "receipt.json".into(), "receipt.json".into()),
        ];
        for (key, s3, file) in cases {
            assert_eq!(key.s3_path(), s3);
            assert_eq!(key.file_path(), file);
        }
    }

    #[test]
    fn only_the_ten_levels_are_level_directories() {
        for level in Level::all() {
            assert_eq!(level_of_s3_dir(&format!("000{level}")), Some(level));
        }
        for name in ["000a", "0", "00000", "", "ltx", "0010"] {
            assert_eq!(level_of_s3_dir(name), None, "{name}");
        }
    }
}
