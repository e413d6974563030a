//! Writes `heartbeat.json`: more often while anything changes, seldom while nothing does.
//!
//! A heartbeat that cannot be written is not retried beyond the store's own retries: the next one is due soon, and
//! its absence is what tells the verifier.

use std::sync::Arc;
use std::time::Duration;

use replica::documents::Heartbeat;
use replica::store::{Key, Store};
use tokio::time::Instant;
use tracing::warn;

use crate::clock::Clock;
use crate::config::HeartbeatConfig;
use crate::ship::status::Status;

/// How often a new database is looked at until its first heartbeat is due.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Writes the heartbeats of one generation of one database.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// Of what.
    pub status: Arc<Status>,
    /// How often.
    pub config: HeartbeatConfig,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// This machine's name.
    pub host: Arc<str>,
}

impl Pulse {
    /// Writes heartbeats until it is dropped.
    pub async fn run(&self) {
        let mut last: Option<(Heartbeat, Instant)> = None;
        loop {
            let due = match (&last, self.beat()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((written, at)), Some(now)) => {
                    let every = if is_news(written, &now) {
                        self.config.every
                    } else {
                        self.config.idle_every
                    };
                    at.elapsed() >= every
                }
            };
            if due {
                let at = Instant::now();
                last = self.write().await.map(|written| (written, at)).or(last);
            }
            let pause = if last.is_none() { FIRST_LOOK } else { self.config.every };
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes one now; `None` where there is no generation to tell of, or it failed.
    pub async fn write(&self) -> Option<Heartbeat> {
        let beat = self.beat()?;
        let content = match serde_json::to_vec_pretty(&beat) {
            Ok(content) => content,
            Err(error) => {
                warn!(%error, "write heartbeat");
                return None;
            }
        };
        match self.store.put_document(&Key::Heartbeat, content.into()).await {
            Ok(()) => Some(beat),
            Err(error) => {
                warn!("write heartbeat: {error}");
                None
            }
        }
    }

    fn beat(&self) -> Option<Heartbeat> {
        self.status.heartbeat(self.clock.now(), &self.host)
    }
}

/// Whether anything but the times differs.
fn is_news(written: &Heartbeat, now: &Heartbeat) -> bool {
    // What a scrub found vouches for the drill: it must not wait.
    fn told(beat: &Heartbeat) -> impl PartialEq + '_ {
        (
            beat.generation,
            beat.txid,
            &beat.last_error,
            beat.last_transaction_at,
            &beat.scrub,
            &beat.other_host,
        )
    }
    told(written) != told(now)
}
