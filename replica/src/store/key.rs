//! Every object the product knows, as one enum.

use crate::format::{GenerationId, Level, TxidRange};

/// Where one chain of LTX files stands below a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Directly at the database's root: a replica that Litestream wrote.
    Root,
    /// A generation of ours.
    Generation(GenerationId),
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("(root)"),
            Self::Generation(id) => id.fmt(f),
        }
    }
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
        todo!()
    }

    /// The path below the database as the file backend has it: `<generation>/ltx/0/<min>-<max>.ltx`.
    #[must_use]
    pub fn file_path(&self) -> String {
        todo!()
    }
}
