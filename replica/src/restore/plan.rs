//! The plan: which files lead from nothing to a TXID. Pure.

use crate::format::Txid;
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, Key, LtxKey, LtxObject};

/// Files to apply, oldest first: the first is a snapshot, each further one starts at most one TXID
/// after the end of those before it and ends later.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The chain.
    pub chain: Chain,
    /// The files, oldest first; never empty.
    pub files: Vec<LtxObject>,
    /// The TXID that the copy will have.
    pub txid: Txid,
}

impl Plan {
    /// Bytes to fetch.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The key of one of its files.
    #[must_use]
    pub fn key(&self, file: &LtxObject) -> Key {
        Key::Ltx(LtxKey { chain: self.chain, level: file.level, txids: file.txids })
    }
}

/// Plans a restore of the newest state (`None`), or of exactly `txid`.
///
/// # Errors
/// [`RestoreError::Chain`]: no snapshot, a gap before a later file, or a TXID that no set of files ends at.
pub fn plan(_inventory: &Inventory, _txid: Option<Txid>) -> Result<Plan, RestoreError> {
    todo!()
}
