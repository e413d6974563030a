//! `receipt.json`: the last drill that passed, written by the verifier, read by the shipper.

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
