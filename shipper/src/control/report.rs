//! What an operator is told of one database: [`Status`](crate::ship::status::Status) judged.

use std::time::Duration;

use jiff::Timestamp;
use replica::documents::{OtherHost, Receipt, ScrubReport};
use replica::format::{GenerationId, Txid};
use serde::{Deserialize, Serialize};

use crate::config::DatabaseConfig;
use crate::ship::status::{Phase, State};

/// The verifier's default for the same question: what was shipped within this time is fresh, not idle.
const RECENT: Duration = Duration::from_secs(900);
/// Behind for longer than this (and some sync intervals) is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// An engine looks every few seconds: one that has not for this long is stuck, whatever it said then.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// How a database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Shipped lately, or its first snapshot is on its way.
    Fresh,
    /// Everything is in the bucket, and nothing new was committed lately.
    Idle,
    /// What was committed does not get into the bucket.
    Stuck,
    /// It is not shipped at the moment.
    NotAttached,
}

impl Standing {
    /// Somebody must look.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Stuck | Self::NotAttached)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Fresh => "fresh",
            Self::Idle => "idle",
            Self::Stuck => "stuck",
            Self::NotAttached => "not attached",
        })
    }
}

/// What the write lock has cost since the shipper started.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LockCost {
    /// How often it was held.
    pub taken: u64,
    /// The longest time, seconds.
    pub longest_seconds: f64,
}

/// A file that is asked for and not shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The file.
    pub path: String,
    /// Why not, ending in a `HINT:` line where the operator can act.
    pub reason: String,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub database: String,
    /// Its file.
    pub path: String,
    /// How it stands.
    pub state: Standing,
    /// What is being done: `starting`, `not_attached`, `snapshotting`, `catching_up`, `shipping`.
    pub phase: String,
    /// Why it is not attached, ending in a `HINT:` line where the operator can act.
    pub reason: Option<String>,
    /// The generation that is shipped.
    pub generation: Option<GenerationId>,
    /// The last TXID in the bucket.
    pub txid: Option<Txid>,
    /// Pages of the database there.
    pub page_count: u32,
    /// How far the bucket is behind, seconds: what would be lost if the server were lost now. 0 where everything is in
    /// the bucket; `null` where nothing complete was in it since the shipper started.
    pub lag_seconds: Option<f64>,
    /// The last moment when everything committed was in the bucket.
    pub synced_at: Option<Timestamp>,
    /// When a transaction was last seen.
    pub last_transaction_at: Option<Timestamp>,
    /// Size of the WAL file, bytes.
    pub wal_bytes: u64,
    /// Files that wait for the bucket.
    pub spool_files: usize,
    /// Their bytes.
    pub spool_bytes: u64,
    /// The error that keeps the shipper from shipping, where there is one.
    pub last_error: Option<String>,
    /// Why the last heartbeat could not be written; shipping goes on without.
    #[serde(default)]
    pub heartbeat_error: Option<String>,
    /// Another host that was seen to ship this database lately.
    #[serde(default)]
    pub other_host: Option<OtherHost>,
    /// The store ignores the condition that keeps two writers apart.
    pub unguarded: bool,
    /// A write over an object was refused since the shipper started: nothing there can be overwritten.
    #[serde(default)]
    pub guarded: bool,
    /// What the write lock has cost.
    pub locks: LockCost,
    /// The last comparison of the live database with what was shipped.
    pub scrub: Option<ScrubReport>,
    /// The last drill that passed.
    pub receipt: Option<Receipt>,
}

impl Report {
    /// Judges what is known at `now`.
    #[must_use]
    pub fn new(
        config: &DatabaseConfig,
        state: State,
        receipt: Option<Receipt>,
        now: Timestamp,
    ) -> Self {
        let lag = lag(&state, now);
        let last_error = state.last_error().cloned();
        let standing = standing(&state, lag, config.sync_interval, now);
        let (phase, reason) = match state.phase {
            Phase::Starting => ("starting", Some("it waits for its turn to begin".to_owned())),
            Phase::NotAttached { reason } => ("not_attached", Some(reason)),
            Phase::Snapshotting => ("snapshotting", None),
            Phase::CatchingUp => ("catching_up", None),
            Phase::Shipping => ("shipping", None),
        };
        Self {
            database: config.name.clone(),
            path: config.path.display().to_string(),
            state: standing,
            phase: phase.to_owned(),
            reason,
            generation: state.generation,
            txid: state.durable,
            page_count: state.page_count,
            lag_seconds: lag.map(|lag| lag.as_secs_f64()),
            synced_at: state.synced_at,
            last_transaction_at: state.last_transaction_at,
            wal_bytes: state.wal_bytes,
            spool_files: state.spool_files,
            spool_bytes: state.spool_bytes,
            last_error,
            heartbeat_error: state.heartbeat_error,
            other_host: state.other_host,
            unguarded: state.unguarded,
            guarded: state.guarded,
            locks: LockCost {
                taken: state.locks.taken,
                longest_seconds: state.locks.longest.as_secs_f64(),
            },
            scrub: state.scrub,
            receipt,
        }
    }
}

/// How far the bucket is behind; `None` where nothing complete was in it yet.
fn lag(state: &State, now: Timestamp) -> Option<Duration> {
    let looked = state.stepped_at.is_some_and(|at| age(now, at) <= SILENT_AFTER);
    if state.phase == Phase::Shipping && state.is_synced() && looked {
        return Some(Duration::ZERO);
    }
    state.synced_at.map(|at| age(now, at))
}

fn standing(
    state: &State,
    lag: Option<Duration>,
    sync_interval: Duration,
    now: Timestamp,
) -> Standing {
    if matches!(state.phase, Phase::Starting | Phase::NotAttached { .. }) {
        return Standing::NotAttached;
    }
    let failing = state.last_error().is_some();
    let silent = state.stepped_at.is_some_and(|at| age(now, at) > SILENT_AFTER);
    let behind = lag.is_some_and(|lag| lag > STUCK_AFTER + 3 * sync_interval);
    if failing || silent || behind {
        return Standing::Stuck;
    }
    let recent = state.last_transaction_at.is_some_and(|at| age(now, at) <= RECENT);
    if recent || state.phase != Phase::Shipping { Standing::Fresh } else { Standing::Idle }
}

/// How long ago; nothing for a time that is yet to come.
fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn config() -> DatabaseConfig {
        DatabaseConfig {
            path: "/srv/app.db".into(),
            name: "app".into(),
            sync_interval: Duration::from_secs(1),
        }
    }

    /// Everything durable at second 0.
    fn synced() -> State {
        State {
            phase: Phase::Shipping,
            durable: Txid::new(7).ok(),
            captured: Some(7),
            durable_capture: Some(7),
            captured_until: Some(at(0)),
            synced_at: Some(at(0)),
            stepped_at: Some(at(0)),
            last_transaction_at: Some(at(0)),
            ..State::default()
        }
    }

    fn judged(state: State, now: i64) -> (Standing, Option<f64>) {
        let report = Report::new(&config(), state, None, at(now));
        (report.state, report.lag_seconds)
    }

    #[test]
    fn fresh_then_idle() {
        assert_eq!(judged(synced(), 5), (Standing::Fresh, Some(0.0)));
        let idle = State { stepped_at: Some(at(1000)), ..synced() };
        assert_eq!(judged(idle, 1001), (Standing::Idle, Some(0.0)));
    }

    #[test]
    fn an_engine_that_is_silent_is_stuck_whatever_it_said() {
        assert_eq!(judged(synced(), 31), (Standing::Stuck, Some(31.0)));
    }

    #[test]
    fn behind_is_fresh_at_first_then_stuck() {
        let behind = |now| State { captured: Some(8), stepped_at: Some(at(now)), ..synced() };
        assert_eq!(judged(behind(60), 60), (Standing::Fresh, Some(60.0)));
        assert_eq!(judged(behind(64), 64), (Standing::Stuck, Some(64.0)));
        let uncaptured = State { captured_until: None, stepped_at: Some(at(3)), ..synced() };
        assert_eq!(judged(uncaptured, 3), (Standing::Fresh, Some(3.0)));
    }

    #[test]
    fn an_error_is_stuck_and_no_attachment_is_told_with_its_reason() {
        let failing = State { upload_error: Some("access denied".into()), ..synced() };
        assert_eq!(judged(failing, 1).0, Standing::Stuck);
        let reason = "no such file\nHINT: start the application".to_owned();
        let state = State { phase: Phase::NotAttached { reason: reason.clone() }, ..synced() };
        let report = Report::new(&config(), state, None, at(9));
        assert_eq!(
            (report.state, report.reason, report.lag_seconds),
            (Standing::NotAttached, Some(reason), Some(9.0))
        );
        assert_eq!(judged(State::default(), 0), (Standing::NotAttached, None));
        let first = State { phase: Phase::Snapshotting, ..State::default() };
        assert_eq!(judged(first, 0), (Standing::Fresh, None));
    }
}
