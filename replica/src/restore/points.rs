//! Restore points: the states that a chain can be restored to.

use jiff::Timestamp;

use crate::format::Txid;
use crate::restore::RestoreError;
use crate::store::{Chain, Store};

/// One state that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Its chain.
    pub chain: Chain,
    /// Its TXID.
    pub txid: Txid,
    /// A `--timestamp` that is safe to ask for to get it.
    pub timestamp: Timestamp,
    /// Bytes to fetch for it.
    pub bytes: u64,
}

/// Every restore point of every chain, oldest first.
///
/// # Errors
/// The store's.
pub async fn points(_store: &dyn Store) -> Result<Vec<RestorePoint>, RestoreError> {
    todo!()
}
