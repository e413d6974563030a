//! What a chain has: its files by level.

use crate::restore::RestoreError;
use crate::store::{Chain, LtxObject, Store};

/// The files of one chain.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The chain.
    pub chain: Chain,
    /// Its files, by level, then name.
    pub files: Vec<LtxObject>,
}

impl Inventory {
    /// Lists every level of a chain.
    ///
    /// # Errors
    /// Those of a listing.
    pub async fn read(_store: &dyn Store, _chain: Chain) -> Result<Self, RestoreError> {
        todo!()
    }
}
