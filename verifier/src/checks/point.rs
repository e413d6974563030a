//! `point`: the restored point lies between the last proven one and now.
//!
//! A chain that leads into the future was written by a clock that nobody should restore by; a newest state that is
//! older than one that was proven before means that newer ones are gone, in whatever generation.

use jiff::Timestamp;

use crate::clock::TOLERANCE;
use crate::record::{Check, Record, Status};

const NAME: &str = "point";

/// Compares `restored_at` with the time now and, where the newest state was asked for, with the record of
/// the last PASS.
#[must_use]
pub fn point(restored_at: Timestamp, now: Timestamp, before: Option<&Record>) -> Check {
    let ahead = restored_at.duration_since(now);
    if ahead > TOLERANCE {
        return Check::new(
            NAME,
            Status::Fail,
            format!(
                "the restored state says it is of {restored_at}, which is after {now}, the time here\n\
                 HINT: a restore by time is off by as much: compare the clocks of the server and of this machine"
            ),
        );
    }
    // One of the future was recorded by a clock that was wrong, and proves nothing of a time.
    let past = |time: &Timestamp| time.duration_since(now) <= TOLERANCE;
    let proven = before.and_then(|before| Some((before, before.point.restored_at.filter(past)?)));
    let Some((pass, proven)) = proven else {
        return Check::new(NAME, Status::Pass, format!("{restored_at} is not in the future"));
    };
    if proven.duration_since(restored_at) > TOLERANCE {
        return Check::new(
            NAME,
            Status::Fail,
            format!(
                "the newest restorable state is of {restored_at}; the drill of {} had restored one of {proven} ({})\n\
                 HINT: newer states are gone: look for deleted generations or objects, or a server whose clock was set back",
                pass.finished_at,
                pass.txid.map_or("no TXID".to_owned(), |txid| format!("TXID {txid}")),
            ),
        );
    }
    let words =
        format!("{restored_at} is not in the future, nor before {proven}, which was proven");
    Check::new(NAME, Status::Pass, words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::drill::{Asked, Draft};

    #[test]
    fn neither_in_the_future_nor_before_what_was_proven() {
        let at = |text: &str| -> Timestamp { format!("2026-11-22T{text}Z").parse().unwrap() };
        let pass = |restored_at: Timestamp| {
            let mut record = Draft::new("app", &Asked::LATEST, restored_at).record;
            record.point.restored_at = Some(restored_at);
            record
        };
        let now = at("09:00:00");
        for (restored_at, proven, status) in [
            (at("08:00:00"), None, Status::Pass),
            (at("09:05:00"), None, Status::Pass),
            (at("09:05:01"), None, Status::Fail),
            (at("08:00:00"), Some(at("08:00:00")), Status::Pass),
            (at("08:00:00"), Some(at("08:05:00")), Status::Pass),
            (at("08:00:00"), Some(at("08:05:01")), Status::Fail),
            (at("08:00:00"), Some(at("09:05:01")), Status::Pass),
        ] {
            let pass = proven.map(pass);
            let check = point(restored_at, now, pass.as_ref());
            assert_eq!(check.status, status, "{}", check.detail);
        }
    }
}
