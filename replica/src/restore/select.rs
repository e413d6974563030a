//! Which chain, and which point in it.

use jiff::Timestamp;

use crate::restore::{Inventory, Plan, RestoreError};
use crate::store::{Chain, Store};

/// The point asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest.
    Latest,
    /// The newest at or before.
    AtOrBefore(Timestamp),
    /// Exactly this one.
    Txid(crate::format::Txid),
}

/// A chain, what it has, and the plan that reaches the point asked for.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The plan.
    pub plan: Plan,
    /// Everything the chain has.
    pub inventory: Inventory,
    /// The timestamp of the plan's last file: everything in the copy was committed then.
    pub timestamp: Timestamp,
    /// What an operator should know (heartbeat and files disagree on the latest chain, …).
    pub remarks: Vec<String>,
}

/// Finds the chain (the one asked for; else the one the heartbeat names if it has a complete
/// snapshot; else the most recently updated one that is restorable) and plans the restore.
///
/// # Errors
/// Nothing restorable, the point not reachable, or the store's errors.
pub async fn select(
    _store: &dyn Store,
    _chain: Option<Chain>,
    _target: Target,
) -> Result<Selected, RestoreError> {
    todo!()
}
