//! The heartbeat that stands in the bucket: who shipped this database last, and which generation.
//!
//! What it claims is its writer's word; when it was written is the store's, so nothing in it counts as later than that.

use jiff::{SignedDuration, Timestamp};
use replica::documents::Heartbeat;
use replica::store::{Key, Store, StoreError, read_all};
use tracing::warn;

/// A heartbeat is far smaller.
const LIMIT: usize = 64 << 10;
/// A store tells times to the second.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A heartbeat, and when the store got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it says.
    pub heartbeat: Heartbeat,
    /// By the store's clock.
    pub modified: Timestamp,
}

impl Seen {
    /// The latest time that its writer's files may bear, bounded by the store's clock.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        let Heartbeat { written_at, synced_at, .. } = &self.heartbeat;
        let bound = self.modified.checked_add(SECOND).unwrap_or(self.modified);
        synced_at.map_or(*written_at, |synced| synced.max(*written_at)).min(bound)
    }
}

/// Reads it; `None` where there is none, or nothing that could be understood.
///
/// # Errors
/// Those of the store: there may be one.
pub async fn look(store: &dyn Store) -> Result<Option<Seen>, StoreError> {
    let content = match read_all(store, &Key::Heartbeat, LIMIT).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error @ StoreError::TooLarge { .. }) => {
            warn!("the last heartbeat is not one: {:#}", anyhow::Error::new(error));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let heartbeat = match serde_json::from_slice(&content) {
        Ok(heartbeat) => heartbeat,
        Err(error) => {
            warn!("the last heartbeat cannot be understood: {error}");
            return Ok(None);
        }
    };
    let modified = store.head(&Key::Heartbeat).await?.modified;
    Ok(Some(Seen { heartbeat, modified }))
}
