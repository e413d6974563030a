//! Writes `heartbeat.json`: more often while anything changes, seldom while nothing does.
//!
//! A heartbeat that cannot be written is not retried beyond the store's own retries: the next one is due soon, and
//! its absence is what tells the verifier.

use std::sync::Arc;
use std::time::Duration;

use replica::documents::Heartbeat;
use replica::store::{Key, Store};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::config::HeartbeatConfig;
use crate::ship::rival::Ours;
use crate::ship::seen;
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
        let mut at_once = false;
        loop {
            let beat = self.beat();
            let due = match (&last, &beat) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((written, at)), Some(now)) => {
                    let every = if is_news(written, now) {
                        self.config.every
                    } else {
                        self.config.idle_every
                    };
                    at_once || at.elapsed() >= every
                }
            };
            if let Some(next) = beat.filter(|_| due) {
                let at = Instant::now();
                self.look_for_rival(&next, last.is_some()).await;
                last = self.write().await.map(|written| (written, at)).or(last);
            }
            let pause = if last.is_none() { FIRST_LOOK } else { self.config.every };
            at_once = tokio::time::timeout(pause, self.status.news()).await.is_ok();
        }
    }

    /// Asks whose heartbeat it is that `next` is to replace, where that is in doubt.
    async fn look_for_rival(&self, next: &Heartbeat, wrote_before: bool) {
        let seen = if !wrote_before {
            self.status.take_last()
        } else if self.status.suspects_a_rival() {
            match seen::look(self.store.as_ref()).await {
                Ok(seen) => seen,
                // The next one asks again.
                Err(error) => {
                    warn!("read the last heartbeat: {error}");
                    return;
                }
            }
        } else {
            return;
        };
        let ours = Ours {
            host: &self.host,
            generation: next.generation,
            wrote_before,
            now: self.clock.now(),
            config: self.config,
        };
        self.status.judge_rival(seen.as_ref(), &ours);
    }

    /// Writes one now; `None` where there is no generation to tell of, or it failed.
    pub async fn write(&self) -> Option<Heartbeat> {
        let beat = self.beat()?;
        let written = async {
            let content = serde_json::to_vec_pretty(&beat)?;
            anyhow::Ok(self.store.put_document(&Key::Heartbeat, content.into()).await?)
        };
        let failure = written.await.err().map(|error| format!("{error:#}"));
        let news = self.status.heartbeat_tried(&beat, failure.as_deref());
        let Some(failure) = failure else { return Some(beat) };
        if news {
            error!(
                "write heartbeat: {failure}\n\
                 HINT: shipping goes on, and what sync acknowledges restores; but the watch takes this shipper for dead. \
                 {} must be an object that this key may overwrite",
                self.store.locate(&Key::Heartbeat)
            );
        }
        None
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
