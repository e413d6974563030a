//! Notices of changed files: one inotify instance for all databases, with a slow poll behind it elsewhere.
//!
//! A notice says "look", nothing more: what changed is read from the WAL itself. A busy writer's notices are
//! taken at most every [`PAUSE`], so that it cannot keep us busy; the first one after a pause is taken at once.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::Notify;

const PAUSE: Duration = Duration::from_millis(10);
const BUFFER: usize = 4096;
/// Events taken at once.
const BATCH: usize = 1024;

/// Watches files.
#[derive(Debug)]
pub struct Watcher {
    events: EventStream<Vec<u8>>,
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Registry {
    watches: Mutex<Watches>,
    notices: Mutex<HashMap<WatchDescriptor, Arc<Notify>>>,
}

/// Adds watches to a [`Watcher`].
#[derive(Debug, Clone)]
pub struct Watch(Arc<Registry>);

/// Tells of changes of one file, until it is dropped.
#[derive(Debug)]
pub struct Notice {
    registry: Arc<Registry>,
    descriptor: WatchDescriptor,
    changed: Arc<Notify>,
}

impl Watcher {
    /// # Errors
    /// The system's limit of inotify instances is reached. Needs a runtime.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let registry =
            Registry { watches: Mutex::new(inotify.watches()), notices: Mutex::default() };
        let events = inotify.into_event_stream(vec![0; BUFFER])?;
        Ok(Self { events, registry: Arc::new(registry) })
    }

    /// For adding watches.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.registry.clone())
    }

    /// Passes notices on, for as long as it is polled.
    ///
    /// # Errors
    /// The system's.
    pub async fn run(mut self) -> io::Result<()> {
        while let Some(first) = self.events.next().await {
            self.pass_on(&first?.wd);
            for _ in 1..BATCH {
                let Some(Some(event)) = self.events.next().now_or_never() else { break };
                self.pass_on(&event?.wd);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn pass_on(&self, watched: &WatchDescriptor) {
        if let Some(changed) = lock(&self.registry.notices).get(watched) {
            changed.notify_one();
        }
    }
}

impl Watch {
    /// Watches a file for writes. Blocking: looks the path up.
    ///
    /// # Errors
    /// No such file, or the system's limit of watches is reached.
    pub fn file(&self, path: &Path) -> io::Result<Notice> {
        // A path may hang: nobody else waits for it.
        let mut watches = lock(&self.0.watches).clone();
        let descriptor = watches.add(path, WatchMask::MODIFY)?;
        let changed = Arc::new(Notify::new());
        lock(&self.0.notices).insert(descriptor.clone(), changed.clone());
        Ok(Notice { registry: self.0.clone(), descriptor, changed })
    }
}

impl Notice {
    /// Waits for a change since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        lock(&self.registry.notices).remove(&self.descriptor);
        // The file may be gone, and its watch with it.
        let _ = lock(&self.registry.watches).remove(self.descriptor.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
