//! Whether another host ships the same database: told from the heartbeat that stands in the bucket.
//!
//! The bucket is asked once at a start. Only where its heartbeat is another's, and recent by the store's clock, it is asked again
//! before each heartbeat of ours, until the other one has been silent for three times the longest pause between two.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use replica::documents::{Heartbeat, OtherHost};
use replica::format::GenerationId;
use tracing::{error, info};

use crate::config::HeartbeatConfig;
use crate::ship::seen::Seen;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// This machine's name.
    pub host: &'a str,
    /// Its generation.
    pub generation: GenerationId,
    /// Whether a heartbeat that names it was written before.
    pub wrote_before: bool,
    /// The wall clock.
    pub now: Timestamp,
    /// How often heartbeats are written.
    pub config: HeartbeatConfig,
}

/// What is known of another host.
#[derive(Debug, Default)]
pub struct Rival {
    /// When a recent heartbeat that is not ours was last seen.
    sighted: Option<Instant>,
    told: Option<OtherHost>,
}

impl Rival {
    /// Whether the bucket must be asked again.
    #[must_use]
    pub fn is_suspected(&self) -> bool {
        self.sighted.is_some()
    }

    /// Judges the heartbeat that stands in the bucket. Returns what is to be told.
    pub fn judge(&mut self, seen: Option<&Seen>, ours: &Ours<'_>) -> Option<OtherHost> {
        let silent = silent_after(ours.config);
        let recent = seen.filter(|seen| is_recent(seen.modified, ours.now, silent));
        // One of this machine's name may be of its own past, until ours has taken its place once.
        let suspicious = recent.filter(|seen| {
            let Heartbeat { host, generation, .. } = &seen.heartbeat;
            host != ours.host || *generation != ours.generation
        });
        let foreign =
            suspicious.filter(|seen| ours.wrote_before || seen.heartbeat.host != ours.host);
        if suspicious.is_some() {
            self.sighted = Some(Instant::now());
        }
        if let Some(Seen { heartbeat, modified }) = foreign {
            let Heartbeat { host, generation, .. } = heartbeat;
            let (host, generation, written_at) = (host.clone(), *generation, *modified);
            let news = self.told.as_ref().is_none_or(|told| told.host != host);
            if news {
                error!(
                    %host, %generation, %written_at,
                    "another host shipped this database a moment ago\n\
                     HINT: a plain restore gives what was shipped last, by whichever of the two: stop one of them, or give it a \
                     prefix of its own. If this machine was only renamed, or took the other one's place, nothing need be done: \
                     this ends after {silent:?}"
                );
            }
            self.told = Some(OtherHost { host, generation, written_at });
        }
        if self.sighted.is_some_and(|sighted| sighted.elapsed() > silent) {
            if let Some(told) = self.told.take() {
                info!(
                    host = told.host,
                    "the other host has not shipped this database for {silent:?}"
                );
            }
            self.sighted = None;
        }
        self.told.clone()
    }
}

/// How long another host must have been silent not to be one that ships.
fn silent_after(config: HeartbeatConfig) -> Duration {
    3 * config.idle_every.max(config.every)
}

/// A time that is yet to come is recent: one of the clocks is wrong.
fn is_recent(modified: Timestamp, now: Timestamp, silent: Duration) -> bool {
    Duration::try_from(now.duration_since(modified)).is_ok_and(|age| age <= silent)
        || modified > now
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CONFIG: HeartbeatConfig =
        HeartbeatConfig { every: Duration::from_secs(60), idle_every: Duration::from_secs(300) };

    fn generation() -> GenerationId {
        GenerationId::from_uuid(uuid::Uuid::now_v7())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn seen(host: &str, generation: GenerationId) -> Seen {
        let heartbeat = serde_json::from_value(serde_json::json!({
            "version": 1, "generation": generation, "txid": null, "page_size": 4096, "page_count": 0,
            "written_at": at(9999), "synced_at": null, "last_transaction_at": null, "wal_bytes": 0,
            "last_error": null, "shipper_version": "0", "sqlite_version": "3", "host": host
        }));
        Seen { heartbeat: heartbeat.unwrap(), modified: at(0) }
    }

    #[test]
    fn another_host_is_told_while_its_heartbeats_are_recent_by_the_stores_clock() {
        let (generation, theirs) = (generation(), generation());
        let ours = |seconds, wrote_before| Ours {
            host: "web-1",
            generation,
            wrote_before,
            now: at(seconds),
            config: CONFIG,
        };
        let mut rival = Rival::default();
        assert_eq!(rival.judge(None, &ours(0, false)), None);
        // Our own, of a moment ago; and of our own past, until we have written ours.
        assert_eq!(rival.judge(Some(&seen("web-1", generation)), &ours(5, false)), None);
        assert!(!rival.is_suspected());
        let past = seen("web-1", theirs);
        assert_eq!(rival.judge(Some(&past), &ours(5, false)), None);
        assert!(rival.is_suspected(), "a clone bears our name, too");
        let clone = rival.judge(Some(&past), &ours(5, true)).unwrap();
        assert_eq!((clone.host.as_str(), clone.written_at), ("web-1", at(0)));

        let mut rival = Rival::default();
        let other = seen("web-2", theirs);
        // What it claims of itself is of the future; what the store says is long ago.
        assert_eq!(rival.judge(Some(&other), &ours(901, false)), None);
        assert!(!rival.is_suspected());
        assert_eq!(rival.judge(Some(&other), &ours(899, false)).unwrap().host, "web-2");
        // It stays told although ours has taken its place, and ends when it was silent for long enough.
        let ours_there = seen("web-1", generation);
        assert!(rival.judge(Some(&ours_there), &ours(900, true)).is_some());
        rival.sighted = Instant::now().checked_sub(Duration::from_secs(901));
        assert_eq!(rival.judge(Some(&ours_there), &ours(1801, true)), None);
        assert!(!rival.is_suspected());
        // A clock of ours that is behind the store's makes nobody old.
        assert!(rival.judge(Some(&other), &ours(-5000, false)).is_some());
    }
}
