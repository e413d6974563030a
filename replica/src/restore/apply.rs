//! Carries a plan out into a file.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use crate::format::{Checksum, PageSize, Txid};
use crate::restore::{Plan, RestoreError};
use crate::store::Store;

/// Told of every piece of work done, from any thread.
pub trait Progress: Send + Sync {
    /// `bytes` more of [`Plan::bytes`] were fetched and checked.
    fn fetched(&self, bytes: u64);
}

impl Progress for () {
    fn fetched(&self, _bytes: u64) {}
}

/// A copy that every checksum passed for.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The state it is in.
    pub txid: Txid,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database.
    pub page_count: u32,
    /// The database checksum its last file promises, where the chain is checksummed.
    pub post_apply: Option<Checksum>,
    /// Bytes fetched.
    pub bytes: u64,
    /// Objects fetched.
    pub objects: usize,
    /// From the first request to the last byte written (and synced).
    pub elapsed: Duration,
}

/// Restores `plan` into `output` (an empty file, opened for writing): newest file first, each page
/// written once, several objects fetched ahead, memory bounded. The file is synced at the end.
///
/// # Errors
/// The store's, a damaged object, an incomplete database, or a failing write. The output's content is
/// then of no use.
pub async fn apply(
    _store: Arc<dyn Store>,
    _plan: &Plan,
    _output: File,
    _progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    todo!()
}
