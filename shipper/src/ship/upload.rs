//! From the spool to the bucket, in order.
//!
//! *Invariant*: file n + 1 is not sent before file n is durable, so [`Status`]'s durable TXID only ever moves
//! when everything before it is in the bucket. After a quiet time the first file goes up at once, then at most one
//! per sync interval. An outage is waited out; the spool grows meanwhile, nobody else waits.

use std::sync::Arc;
use std::time::Duration;

use replica::documents::Heartbeat;
use replica::format::GenerationId;
use replica::store::{Body, Chain, Key, LtxAttributes, LtxKey, Store, StoreError, read_all};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::ship::generation;
use crate::ship::spool::{Spool, Spooled};
use crate::ship::status::Status;

/// First and longest pause after a failure that outlived the store's own retries.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A heartbeat is far smaller.
const HEARTBEAT_LIMIT: usize = 64 << 10;

/// Shortest pause, also where there is no time left.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// Why a generation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another writer has written to our generation: it must be left to them.
    #[error("another writer owns this generation: {0}")]
    OtherWriter(#[source] StoreError),
    /// The spool cannot be read any more.
    #[error("read spool: {0:#}")]
    Spool(anyhow::Error),
}

/// Uploads one generation of one database.
#[derive(Debug)]
pub struct Uploader {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// What.
    pub spool: Arc<Spool>,
    /// Who is told.
    pub status: Arc<Status>,
    /// Shortest time between two uploads.
    pub interval: Duration,
    /// The wall clock, for the generation's name.
    pub clock: Arc<dyn Clock>,
    /// Becomes true when there is no time left for intervals.
    pub hurry: watch::Receiver<bool>,
}

impl Uploader {
    /// Uploads until the generation cannot go on.
    pub async fn run(mut self) -> Ended {
        let generation = generation::new(self.predecessor().await, self.clock.now());
        info!(%generation, "new generation");
        self.status.set_generation(generation);
        let mut pause = PAUSE.0;
        let mut started: Option<Instant> = None;
        loop {
            if let Some(started) = started {
                self.wait_until(started + self.interval).await;
            }
            let file = match self.next().await {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(error) => return Ended::Spool(error),
            };
            started = Some(Instant::now());
            match self.put(generation, &file).await {
                Ok(()) => {
                    self.spool.uploaded(&file);
                    self.status.uploaded(&file);
                    pause = PAUSE.0;
                }
                Err(error) if error.is_precondition() => return Ended::OtherWriter(error),
                Err(failure) => {
                    let permanent = failure.is_permanent();
                    let text = format!("{:#}", anyhow::Error::new(failure));
                    if self.status.upload_failed(&text) {
                        if permanent {
                            error!("upload {}: {text}", file.txids);
                        } else {
                            warn!("upload {}: {text}", file.txids);
                        }
                    }
                    tokio::time::sleep(SHORTEST_PAUSE).await;
                    self.wait_until(Instant::now() + pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                    started = None;
                }
            }
        }
    }

    async fn put(&self, generation: GenerationId, file: &Spooled) -> Result<(), StoreError> {
        let chain = Chain::Generation(generation);
        let key = LtxKey { chain, level: file.level, txids: file.txids };
        let body = Body::File { path: file.path.clone(), len: file.size };
        let attributes = LtxAttributes { timestamp: file.timestamp, checksum: file.checksum };
        self.store.put_ltx(&key, body, attributes).await.map(|_| ())
    }

    /// The next file; where there is none, waits for one and returns `None`: ask again.
    async fn next(&self) -> anyhow::Result<Option<Spooled>> {
        let spool = self.spool.clone();
        let next = tokio::task::spawn_blocking(move || spool.next()).await??;
        if next.is_none() {
            self.spool.arrived().await;
        }
        Ok(next)
    }

    async fn wait_until(&mut self, deadline: Instant) {
        let hurry = self.hurry.wait_for(|hurry| *hurry);
        // Either way it is time; a sender that is gone is no hurry, so the timeout still bounds the wait.
        let _ = tokio::time::timeout_at(deadline, hurry).await;
    }

    /// The generation that the last heartbeat names, so that ours sorts after it.
    async fn predecessor(&self) -> Option<GenerationId> {
        let content = match read_all(self.store.as_ref(), &Key::Heartbeat, HEARTBEAT_LIMIT).await {
            Ok(content) => content,
            Err(error) => {
                if !error.is_not_found() {
                    warn!("read the last heartbeat: {:#}", anyhow::Error::new(error));
                }
                return None;
            }
        };
        let heartbeat: Result<Heartbeat, _> = serde_json::from_slice(&content);
        heartbeat.ok().map(|heartbeat| heartbeat.generation)
    }
}
