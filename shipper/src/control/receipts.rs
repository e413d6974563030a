//! The last drill's receipts, read seldom.
//!
//! *Invariant*: each is read at most once a minute, and only when somebody asks. One that is missing, or that this key
//! may not read, is no receipt and no error; what cannot be read in time is answered with what was known before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use replica::documents::{Receipt, ReceiptDocument};
use replica::store::{Key, Store, read_all};
use tokio::time::Instant;

use crate::ship::registry::Entry;

/// How long one is believed.
const FOR: Duration = Duration::from_secs(60);
/// How long who asks waits for all of them.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reads at once.
const AT_ONCE: usize = 16;
/// A receipt is far smaller.
const LIMIT: usize = 64 << 10;

/// What was read, by database.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    read_at: Instant,
    receipt: Option<Receipt>,
}

impl Receipts {
    /// Reads those that are due.
    pub(super) async fn refresh(&self, entries: &[Entry]) {
        let due: Vec<&Entry> = {
            let mut known = self.lock();
            known.retain(|name, _| entries.iter().any(|entry| entry.config.name == *name));
            let fresh = |entry: &&Entry| {
                known.get(&entry.config.name).is_some_and(|known| known.read_at.elapsed() < FOR)
            };
            entries.iter().filter(|entry| !fresh(entry)).collect()
        };
        let reads = futures_util::stream::iter(due).for_each_concurrent(AT_ONCE, |entry| async {
            let name = &entry.config.name;
            // Said before: one that hangs is not asked for again at once.
            self.lock()
                .entry(name.clone())
                .or_insert_with(|| Known { read_at: Instant::now(), receipt: None })
                .read_at = Instant::now();
            let receipt = read(entry.store.as_ref()).await;
            if let Some(known) = self.lock().get_mut(name) {
                known.receipt = receipt;
            }
        });
        // Those that take longer are for the next who asks.
        let _ = tokio::time::timeout(PATIENCE, reads).await;
    }

    /// The last one known.
    pub(super) fn get(&self, name: &str) -> Option<Receipt> {
        self.lock().get(name).and_then(|known| known.receipt.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(store: &dyn Store) -> Option<Receipt> {
    match read_all(store, &Key::Receipt, LIMIT).await {
        Ok(content) => {
            let document: Option<ReceiptDocument> = serde_json::from_slice(&content).ok();
            document.and_then(|document| document.last_pass)
        }
        Err(error) => {
            if !error.is_not_found() && !error.is_denied() {
                tracing::debug!(%error, "read receipt");
            }
            None
        }
    }
}
