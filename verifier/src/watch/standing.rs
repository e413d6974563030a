//! How a database stands: fresh, idle, stuck or dead, and whether its proof is recent. Pure.

use std::time::Duration;

use jiff::Timestamp;
use replica::documents::Heartbeat;
use serde::Serialize;

use crate::clock::TOLERANCE;
use crate::heartbeat;

/// What shipping looks like from the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// Transactions were shipped lately.
    Fresh,
    /// The shipper lives and there is nothing new to ship.
    Idle,
    /// The shipper lives and does not get the newest transactions into the bucket.
    Stuck,
    /// No sign of life.
    Dead,
}

impl Life {
    /// Somebody must look.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Stuck | Self::Dead)
    }
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fresh => "fresh",
            Self::Idle => "idle",
            Self::Stuck => "stuck",
            Self::Dead => "dead",
        })
    }
}

/// What was found in bucket and ledger.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The heartbeat, where there is one.
    pub heartbeat: Option<Heartbeat>,
    /// The newest object's time, looked for only where there is no heartbeat that can be used.
    pub newest_object: Option<Timestamp>,
    /// When the last drill that passed ended.
    pub last_pass: Option<Timestamp>,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Is it shipped?
    pub life: Life,
    /// Why this is said of it.
    pub life_detail: String,
    /// The first snapshot is under way: it is too early to say that `life` is well or not.
    pub pending: bool,
    /// Which two hosts ship it, where another one than the heartbeat's was seen lately.
    pub other_host: Option<String>,
    /// No PASS for longer than allowed.
    pub proof_overdue: bool,
    /// Why this is said of it.
    pub proof_detail: String,
}

/// Judges the evidence at `now`. A database that was never drilled is measured from when it was first
/// seen; one whose first snapshot is not complete, from then or from when its generation began, whichever is
/// later (a restarted shipper may begin a new one).
#[must_use]
pub fn standing(
    now: Timestamp,
    first_seen: Timestamp,
    evidence: &Evidence,
    stale_after: Duration,
    proof_after: Duration,
) -> Standing {
    let (life, life_detail) = match (&evidence.heartbeat, evidence.newest_object) {
        (Some(heartbeat), _) => by_heartbeat(now, first_seen, heartbeat, stale_after),
        (None, Some(newest)) if is_to_come(now, newest) => {
            (Life::Dead, format!("no heartbeat, and the newest object is of {newest}: {TO_COME}"))
        }
        (None, Some(newest)) if age(now, newest) <= stale_after => {
            (Life::Fresh, format!("no heartbeat; the newest object is of {newest}"))
        }
        (None, Some(newest)) => (
            Life::Dead,
            format!(
                "no heartbeat, and the newest object is of {newest}: idle and dead look the same without one"
            ),
        ),
        (None, None) => (Life::Dead, "nothing is there: no heartbeat and no object".to_owned()),
    };
    let pending = life == Life::Fresh
        && evidence.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.synced_at.is_none());
    let last_pass = evidence.last_pass.filter(|pass| !is_to_come(now, *pass));
    let proof_overdue = age(now, last_pass.unwrap_or(first_seen)) > proof_after;
    let proof_detail = match last_pass {
        Some(pass) => format!("last PASS {pass}"),
        None => format!("never passed a drill (watched since {first_seen})"),
    };
    let beat = evidence.heartbeat.as_ref();
    let other_host = beat.and_then(|beat| other_host(now, beat, stale_after));
    Standing { life, life_detail, pending, other_host, proof_overdue, proof_detail }
}

/// Two hosts that ship one database, as far as the one that wrote the heartbeat saw the other lately.
fn other_host(now: Timestamp, heartbeat: &Heartbeat, stale_after: Duration) -> Option<String> {
    let other = heartbeat.other_host.as_ref()?;
    let lately = age(now, other.written_at) <= stale_after && !is_to_come(now, other.written_at);
    lately.then(|| {
        format!(
            "{} ships generation {}, and {} ships generation {} (seen at {})",
            heartbeat.host, heartbeat.generation, other.host, other.generation, other.written_at
        )
    })
}

fn by_heartbeat(
    now: Timestamp,
    first_seen: Timestamp,
    heartbeat: &Heartbeat,
    stale_after: Duration,
) -> (Life, String) {
    let error = heartbeat.last_error.as_ref().map(|error| format!("; its last error: {error}"));
    let error = error.unwrap_or_default();
    let written = heartbeat.written_at;
    if is_to_come(now, written) {
        return (Life::Dead, format!("the last heartbeat is of {written}: {TO_COME}{error}"));
    }
    if age(now, written) > stale_after {
        return (Life::Dead, format!("the last heartbeat is of {written}{error}"));
    }
    match heartbeat.synced_at {
        None if age(now, first_seen.max(began(heartbeat))) > stale_after => {
            (Life::Stuck, format!("heartbeat of {written}, but nothing was ever durable{error}"))
        }
        None => {
            (Life::Fresh, format!("heartbeat of {written}, the first snapshot is under way{error}"))
        }
        Some(synced) if age(now, synced) > stale_after => (
            Life::Stuck,
            format!("heartbeat of {written}, but everything was last durable at {synced}{error}"),
        ),
        Some(synced) => {
            let recent = |at| age(now, at) <= stale_after;
            let life = if heartbeat.last_transaction_at.is_some_and(recent) {
                Life::Fresh
            } else {
                Life::Idle
            };
            (life, format!("everything durable at {synced}"))
        }
    }
}

/// When the heartbeat's generation began, by the time in its id. One later than the heartbeat itself
/// is not believed: it would be young for ever.
fn began(heartbeat: &Heartbeat) -> Timestamp {
    heartbeat::began(heartbeat.generation)
        .filter(|began| *began <= heartbeat.written_at)
        .unwrap_or(Timestamp::MIN)
}

/// A time that no clock had yet, as far as clocks may differ: it would be recent for ever.
fn is_to_come(now: Timestamp, then: Timestamp) -> bool {
    then.duration_since(now) > TOLERANCE
}

const TO_COME: &str =
    "that is yet to come, so it tells nothing of now (a clock was set back since, or it is forged)";

/// How long ago; nothing for a time that is yet to come (clocks differ).
fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use replica::documents::OtherHost;

    use super::*;

    const STALE: Duration = Duration::from_secs(900);
    const PROOF: Duration = Duration::from_secs(8 * 86_400);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn heartbeat(written: i64, synced: Option<i64>, transaction: Option<i64>) -> Evidence {
        let heartbeat = serde_json::from_value(serde_json::json!({
            "version": 1, "generation": "0192f0c1-2345-7abc-8def-0123456789ab", "txid": null,
            "page_size": 4096, "page_count": 1, "written_at": at(written), "synced_at": synced.map(at),
            "last_transaction_at": transaction.map(at), "wal_bytes": 0, "last_error": "disk full",
            "shipper_version": "0.1.0", "sqlite_version": "3", "host": "web-1",
        }));
        Evidence { heartbeat: Some(heartbeat.unwrap()), ..Evidence::default() }
    }

    #[test]
    fn four_lives() {
        let object = |minute| Evidence { newest_object: Some(at(minute)), ..Evidence::default() };
        // Now is minute 100; stale after 15.
        for (evidence, first_seen, life) in [
            (heartbeat(99, Some(99), Some(99)), 0, Life::Fresh),
            (heartbeat(85, Some(85), Some(85)), 0, Life::Fresh),
            (heartbeat(99, Some(99), Some(50)), 0, Life::Idle),
            (heartbeat(99, Some(99), None), 0, Life::Idle),
            (heartbeat(99, Some(84), Some(99)), 0, Life::Stuck),
            (heartbeat(99, None, None), 0, Life::Stuck),
            (heartbeat(99, None, None), 90, Life::Fresh),
            (heartbeat(84, Some(84), Some(84)), 0, Life::Dead),
            (heartbeat(84, Some(20), Some(84)), 0, Life::Dead),
            (heartbeat(105, Some(105), Some(105)), 0, Life::Fresh),
            (heartbeat(106, Some(106), Some(106)), 0, Life::Dead),
            (object(90), 0, Life::Fresh),
            (object(106), 0, Life::Dead),
            (object(84), 0, Life::Dead),
            (Evidence::default(), 100, Life::Dead),
        ] {
            let standing = standing(at(100), at(first_seen), &evidence, STALE, PROOF);
            assert_eq!(standing.life, life, "{evidence:?}");
        }
    }

    /// A heartbeat of minute 99 without anything durable, of a generation of minute `began`.
    fn snapshotting(began: i64) -> Evidence {
        let mut evidence = heartbeat(99, None, None);
        let seconds = at(began).as_second().unsigned_abs();
        let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
        evidence.heartbeat.as_mut().unwrap().generation =
            uuid::Uuid::new_v7(time).to_string().parse().unwrap();
        evidence
    }

    #[test]
    fn a_first_snapshot_has_time_from_the_generations_beginning() {
        // Now is minute 100; stale after 15.
        for (began, first_seen, life) in [
            (98, -100_000, Life::Fresh),
            (85, -100_000, Life::Fresh),
            (84, -100_000, Life::Stuck),
            (-5000, -100_000, Life::Stuck),
            (-5000, 90, Life::Fresh),
            (5000, -100_000, Life::Stuck),
        ] {
            let evidence = snapshotting(began);
            let standing = standing(at(100), at(first_seen), &evidence, STALE, PROOF);
            assert_eq!(standing.life, life, "{began} {first_seen}");
            assert_eq!(standing.pending, life == Life::Fresh, "{began} {first_seen}");
        }
        let shipped = heartbeat(99, Some(99), Some(99));
        assert!(!standing(at(100), at(0), &shipped, STALE, PROOF).pending);
    }

    #[test]
    fn a_stuck_shippers_error_is_told() {
        let standing = standing(at(100), at(0), &heartbeat(99, Some(50), None), STALE, PROOF);
        assert!(
            standing.life_detail.ends_with("its last error: disk full"),
            "{}",
            standing.life_detail
        );
    }

    #[test]
    fn another_host_is_told_while_it_was_seen_lately() {
        for (minute, told) in [(99, true), (85, true), (84, false), (110, false)] {
            let mut evidence = heartbeat(99, Some(99), Some(99));
            let beat = evidence.heartbeat.as_mut().unwrap();
            beat.other_host = Some(OtherHost {
                host: "clone".to_owned(),
                generation: beat.generation,
                written_at: at(minute),
            });
            let standing = standing(at(100), at(0), &evidence, STALE, PROOF);
            assert_eq!(standing.other_host.is_some(), told, "{minute}");
        }
    }

    #[test]
    fn proof_counts_from_the_last_pass_else_from_first_sight() {
        let day = 24 * 60;
        for (last_pass, first_seen, overdue) in [
            (Some(0), 0, true),
            (Some(2 * day), 0, false),
            (None, 0, true),
            (None, 5 * day, false),
            (Some(99 * day), 0, true),
        ] {
            let evidence = Evidence { last_pass: last_pass.map(at), ..Evidence::default() };
            let standing = standing(at(9 * day), at(first_seen), &evidence, STALE, PROOF);
            assert_eq!(standing.proof_overdue, overdue, "{last_pass:?} {first_seen}");
        }
    }
}
