//! `receipt.json`: the last drill that passed, and what a failed one asks for; written by the verifier, read by the shipper.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::{GenerationId, Txid};

/// The last PASS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Format version of this document: 1.
    pub version: u32,
    /// Id of the drill, as in the ledger.
    pub drill_id: String,
    /// The generation restored; `None` for a replica that Litestream wrote.
    pub generation: Option<GenerationId>,
    /// The TXID restored; `None` for a replica that Litestream v0.3 wrote, which has none.
    pub txid: Option<Txid>,
    /// The moment the copy stands for.
    pub restored_at: Timestamp,
    /// When the drill ended.
    pub finished_at: Timestamp,
}

/// A newest state that could not be restored: the shipper is to begin a new generation with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairWanted {
    /// The generation that is damaged.
    pub generation: GenerationId,
    /// When the drill ended.
    pub at: Timestamp,
    /// What it found.
    pub why: String,
}

/// All that stands in `receipt.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptDocument {
    /// The last PASS, where there was one.
    #[serde(flatten)]
    pub last_pass: Option<Receipt>,
    /// Set by a drill of the newest state that failed because the chain is damaged; a PASS takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_wanted: Option<RepairWanted>,
}
