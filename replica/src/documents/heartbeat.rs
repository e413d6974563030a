//! `heartbeat.json`: the shipper's proof of life, and what it had made durable by then.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::{GenerationId, PageSize, Txid};

/// What the shipper last said of one database. Unknown fields are ignored, so that an older verifier
/// reads a newer shipper's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Format version of this document: 1.
    pub version: u32,
    /// The generation being shipped.
    pub generation: GenerationId,
    /// The last TXID in the bucket; `None` until the first snapshot is complete.
    pub txid: Option<Txid>,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database at `txid`.
    pub page_count: u32,
    /// When this was written.
    pub written_at: Timestamp,
    /// The last moment when everything committed in the database was durable in the bucket.
    pub synced_at: Option<Timestamp>,
    /// When the last transaction was seen.
    pub last_transaction_at: Option<Timestamp>,
    /// Size of the WAL file, bytes.
    pub wal_bytes: u64,
    /// The error that keeps the shipper from shipping, where there is one.
    pub last_error: Option<String>,
    /// The shipper's version.
    pub shipper_version: String,
    /// The version of the SQLite in it.
    pub sqlite_version: String,
    /// The host's name.
    pub host: String,
    /// The last full comparison of the live source with what was shipped.
    #[serde(default)]
    pub scrub: Option<ScrubReport>,
    /// Another host that was seen to ship this database lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_host: Option<OtherHost>,
}

/// Another host that writes this database's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherHost {
    /// Its name.
    pub host: String,
    /// The generation that it ships.
    pub generation: GenerationId,
    /// When it last wrote its heartbeat, by the store's clock.
    pub written_at: Timestamp,
}

/// A finished scrub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// When it ended.
    pub finished_at: Timestamp,
    /// The generation it vouches for; older shippers did not say.
    #[serde(default)]
    pub generation: Option<GenerationId>,
    /// The TXID of that generation it vouches for.
    pub txid: Txid,
    /// Pages that differed (and were shipped anew).
    pub mismatches: u64,
}
