//! The databases of this process, for those who ask about them.
//!
//! *Invariant*: every database that is shipped (or waited for) is in it, each with the end of the channel through
//! which its task can be asked. Looking never waits for anything but one short lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use replica::store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::config::DatabaseConfig;
use crate::ship::status::Status;
use crate::ship::sync::SyncRequest;

/// One database.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its configuration.
    pub config: DatabaseConfig,
    /// What is known of it.
    pub status: Arc<Status>,
    /// For asking when everything is in the bucket.
    pub syncs: mpsc::Sender<SyncRequest>,
    /// Its place in the bucket.
    pub store: Arc<dyn Store>,
}

/// All databases.
#[derive(Debug)]
pub struct Registry {
    content: Mutex<Content>,
    looks: mpsc::Sender<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<String, Entry>,
    refused: BTreeMap<PathBuf, String>,
}

impl Registry {
    /// Nobody yet. Requests to look for new databases arrive on the other end of `looks`.
    #[must_use]
    pub fn new(looks: mpsc::Sender<oneshot::Sender<()>>) -> Self {
        Self { content: Mutex::default(), looks }
    }

    /// Adds a database.
    pub fn insert(&self, entry: Entry) {
        self.lock().entries.insert(entry.config.name.clone(), entry);
    }

    /// Removes one.
    pub fn remove(&self, name: &str) {
        self.lock().entries.remove(name);
    }

    /// Replaces the list of files that are asked for and not shipped.
    pub fn set_refused(&self, refused: BTreeMap<PathBuf, String>) {
        self.lock().refused = refused;
    }

    /// All databases, by name.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.values().cloned().collect()
    }

    /// One database.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Entry> {
        self.lock().entries.get(name).cloned()
    }

    /// Files that are asked for and not shipped, and why not.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<PathBuf, String> {
        self.lock().refused.clone()
    }

    /// Looks for databases that appeared; returns when those are in the registry.
    pub async fn look(&self) {
        let (done, looked) = oneshot::channel();
        if self.looks.send(done).await.is_ok() {
            // Nobody answers any more once the program is stopping.
            let _ = looked.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
