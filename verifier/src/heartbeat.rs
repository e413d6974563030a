//! Reads `heartbeat.json`.

use replica::documents::Heartbeat;
use replica::store::{Key, Store, StoreError, read_all};

/// Far above what a heartbeat needs, bytes.
const LIMIT_BYTES: usize = 64 * 1024;

/// Why there is a heartbeat that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The store refused or failed.
    #[error("read heartbeat")]
    Store(#[from] StoreError),
    /// It is not the document it should be.
    #[error(
        "{target}: not a heartbeat\nHINT: is the shipper newer than this verifier, or did something else write it?"
    )]
    Content {
        /// Its full key.
        target: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The heartbeat; `None` where there is none (yet, or of a replica that Litestream wrote).
///
/// # Errors
/// The store's, or a document that is not a heartbeat.
pub async fn read(store: &dyn Store) -> Result<Option<Heartbeat>, HeartbeatError> {
    let bytes = match read_all(store, &Key::Heartbeat, LIMIT_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| HeartbeatError::Content { target: store.locate(&Key::Heartbeat), source })
}
