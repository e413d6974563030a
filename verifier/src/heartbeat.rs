//! Reads `heartbeat.json`, and believes no time in it that the store does not bear out.
//!
//! The server's clock may be wrong, or have been for a while, and its key may write any heartbeat. The store says when it
//! got the document: nothing that it tells of is later. A heartbeat that cannot be read is as good as none, and is said.

use jiff::{SignedDuration, Timestamp};
use replica::documents::{Heartbeat, ScrubReport};
use replica::format::GenerationId;
use replica::store::{Key, Store, StoreError, read_all};

use crate::clock::TOLERANCE;
use crate::words::in_words;

/// Far above what a heartbeat needs, bytes.
const LIMIT_BYTES: usize = 64 * 1024;

/// A store's time is cut off to the second.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The heartbeat, without times that cannot be; `None` where there is none (yet, or of a replica that Litestream
    /// wrote), or none that can be used.
    pub heartbeat: Option<Heartbeat>,
    /// Why there is one that cannot be used, or what of it is not believed.
    pub problem: Option<String>,
    /// How long before its arrival it claims to be written, where that is more than clocks may differ: the server's
    /// clock is behind, or the replica is a copy.
    pub behind: SignedDuration,
}

/// The heartbeat, at `now`.
///
/// # Errors
/// The store's.
pub async fn read(store: &dyn Store, now: Timestamp) -> Result<Reading, StoreError> {
    let bytes = match read_all(store, &Key::Heartbeat, LIMIT_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Reading::default()),
        Err(error @ StoreError::TooLarge { .. }) => return Ok(unusable(store, &in_words(error))),
        Err(error) => return Err(error),
    };
    let heartbeat = match serde_json::from_slice(&bytes) {
        Ok(heartbeat) => heartbeat,
        Err(error) => return Ok(unusable(store, &error.to_string())),
    };
    // After the content: if it is replaced between the two, its time is only less of a bound.
    match store.head(&Key::Heartbeat).await {
        Ok(info) => Ok(bounded(heartbeat, info.modified, now)),
        Err(error) if error.is_not_found() => Ok(Reading::default()),
        Err(error) => Err(error),
    }
}

/// When a generation began, by the time in its id.
#[must_use]
pub fn began(generation: GenerationId) -> Option<Timestamp> {
    let time = generation.uuid().get_timestamp()?;
    Timestamp::from_second(i64::try_from(time.to_unix().0).ok()?).ok()
}

fn unusable(store: &dyn Store, why: &str) -> Reading {
    let target = store.locate(&Key::Heartbeat);
    let problem = format!(
        "{target}: not a heartbeat ({why})\n\
         HINT: a running shipper writes a new one within minutes: is it older than that, newer than this verifier, or \
         did something else write it?"
    );
    Reading { problem: Some(problem), ..Reading::default() }
}

/// Takes the times out of a heartbeat that were not there yet when the store got it.
fn bounded(mut heartbeat: Heartbeat, modified: Timestamp, now: Timestamp) -> Reading {
    let mut problem = None;
    let stored = modified.saturating_add(SECOND).unwrap_or(modified);
    let claimed = heartbeat.written_at;
    // Its clock went back since: what was known by the other clock says nothing by this one.
    let unknown = |at: &Timestamp| at.duration_since(claimed) > TOLERANCE;
    heartbeat.synced_at = heartbeat.synced_at.filter(|at| !unknown(at));
    heartbeat.last_transaction_at = heartbeat.last_transaction_at.filter(|at| !unknown(at));
    heartbeat.written_at = claimed.min(stored);
    let latest = heartbeat.written_at;
    heartbeat.synced_at = heartbeat.synced_at.map(|at| at.min(latest));
    heartbeat.last_transaction_at = heartbeat.last_transaction_at.map(|at| at.min(latest));
    let possible = stored.min(now).saturating_add(TOLERANCE).unwrap_or(now);
    heartbeat.scrub = heartbeat.scrub.and_then(|scrub| {
        if scrub.finished_at > possible {
            problem = Some(format!(
                "the heartbeat tells of a scrub of {}, when it was not there yet: not counted",
                scrub.finished_at
            ));
            return None;
        }
        Some(ScrubReport { finished_at: scrub.finished_at.min(latest), ..scrub })
    });
    let behind = modified.duration_since(claimed);
    let behind = if behind > TOLERANCE { behind } else { SignedDuration::ZERO };
    Reading { heartbeat: Some(heartbeat), problem, behind }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn claims(written_at: &str, synced_at: &str, scrub: &str) -> Heartbeat {
        serde_json::from_value(serde_json::json!({
            "version": 1, "generation": "0192f0c1-2345-7abc-8def-0123456789ab", "txid": "5",
            "page_size": 4096, "page_count": 1, "written_at": written_at, "synced_at": synced_at,
            "last_transaction_at": synced_at, "wal_bytes": 0, "last_error": null,
            "shipper_version": "0.1.0", "sqlite_version": "3", "host": "web-1",
            "scrub": {"finished_at": scrub, "txid": "5", "mismatches": 0},
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_later_than_the_stores_own_time_of_the_document() {
        const STORED: &str = "2026-11-22T09:00:00Z";
        const FUTURE: &str = "2099-01-01T00:00:00Z";
        let bound = at("2026-11-22T09:00:01Z");
        let now = at("2026-11-22T10:00:00Z");
        let read = |heartbeat| bounded(heartbeat, at(STORED), now);
        let forged = read(claims(FUTURE, FUTURE, FUTURE));
        let beat = forged.heartbeat.unwrap();
        assert_eq!((beat.written_at, beat.synced_at), (bound, Some(bound)));
        assert_eq!((beat.last_transaction_at, beat.scrub), (Some(bound), None));
        assert!(forged.problem.unwrap().contains("scrub of 2099"));

        // The clock was ahead for a while, and came back.
        let back = read(claims(STORED, FUTURE, FUTURE)).heartbeat.unwrap();
        assert_eq!((back.written_at, back.synced_at, back.scrub), (at(STORED), None, None));
        // It is always ten minutes ahead.
        let ahead = "2026-11-22T09:10:00Z";
        let beat = read(claims(ahead, ahead, "2026-11-22T08:10:00Z")).heartbeat.unwrap();
        assert_eq!((beat.written_at, beat.synced_at), (bound, Some(bound)));
        assert_eq!(beat.scrub.unwrap().finished_at, at("2026-11-22T08:10:00Z"));
        // It is behind, or this is a copy.
        let behind = "2026-11-20T09:00:00Z";
        let reading = read(claims(behind, behind, behind));
        assert_eq!(reading.behind, SignedDuration::from_hours(48));
        assert_eq!(reading.heartbeat, Some(claims(behind, behind, behind)));
        // A file of the future, by its time too: its scrub does not count.
        let beat = bounded(claims(FUTURE, FUTURE, FUTURE), at(FUTURE), now).heartbeat.unwrap();
        assert_eq!((beat.written_at, beat.scrub), (at(FUTURE), None));
    }
}
