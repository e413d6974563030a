//! Makes a restored file appear whole or not at all.

use std::path::Path;
use std::sync::Arc;

use crate::restore::{Plan, Progress, RestoreError, Restored};
use crate::store::Store;

/// Restores into a temporary file in `output`'s directory, syncs it, renames it, syncs the directory.
/// Refuses an existing `output`, `output-wal` or `output-shm` unless `force` (which then replaces the
/// one and removes the others).
///
/// # Errors
/// Those of [`crate::restore::apply`], and of the file system. Nothing is left behind.
pub async fn publish(
    _store: Arc<dyn Store>,
    _plan: &Plan,
    _output: &Path,
    _force: bool,
    _progress: Arc<dyn Progress>,
) -> Result<Restored, RestoreError> {
    todo!()
}
