//! The record of a drill: one JSON document, the same in the ledger, from `--json`, from the Lambda
//! and behind the mail. Its field names are an interface: other people's scripts read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use replica::format::{GenerationId, Txid};
use serde::{Deserialize, Serialize};

/// What the drill as a whole says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The copy was restored and every applicable check held.
    Pass,
    /// Something is wrong with the backup.
    Fail,
    /// Something around the drill kept it from finding out.
    Inconclusive,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

impl Verdict {
    /// PASS only where at least one check was made and each held or did not apply; one failed check
    /// is FAIL, whatever else could not be found out.
    #[must_use]
    pub fn of(checks: &[Check]) -> Self {
        let any = |status| checks.iter().any(|check| check.status == status);
        if any(Status::Fail) {
            Self::Fail
        } else if any(Status::Error) || !any(Status::Pass) {
            Self::Inconclusive
        } else {
            Self::Pass
        }
    }

    /// The verdict over several drills: FAIL before INCONCLUSIVE before PASS; nothing drilled is
    /// INCONCLUSIVE.
    #[must_use]
    pub fn over(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let rank = |verdict: &Self| match verdict {
            Self::Pass => 0,
            Self::Inconclusive => 1,
            Self::Fail => 2,
        };
        verdicts.into_iter().max_by_key(rank).unwrap_or(Self::Inconclusive)
    }
}

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It cannot be told from this copy, for a reason that is no fault (the detail says which).
    Unchecked,
    /// It could not be carried out (the detail says what to do).
    Error,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unchecked => "unchecked",
            Self::Error => "error",
        })
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name (`chain`, `durable_point`, `integrity_check`, `foreign_key_check`, `tables`).
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found, for people; corruption names object, offset, expected and actual.
    pub detail: String,
}

impl Check {
    /// A check that ended with `status`.
    #[must_use]
    pub fn new(name: &str, status: Status, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status, detail: detail.into() }
    }
}

/// The restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// As asked for: `latest`, a timestamp or a TXID.
    pub asked: String,
    /// The moment the copy stands for: everything in it was committed then.
    pub restored_at: Option<Timestamp>,
    /// Its TXID.
    pub txid: Option<Txid>,
}

/// The measured restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreFigures {
    /// From the first request to the last byte synced, seconds.
    pub seconds: f64,
    /// Bytes fetched.
    pub bytes: u64,
    /// Objects fetched.
    pub objects: usize,
}

/// One drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The database's name (the last part of its URL).
    pub database: String,
    /// The generation restored; `null` for a replica that Litestream wrote, or before one was chosen.
    pub generation: Option<GenerationId>,
    /// The TXID of the copy; `null` where there is none.
    pub txid: Option<Txid>,
    /// The restore point.
    pub point: Point,
    /// The outcome.
    pub verdict: Verdict,
    /// Every check made, in order.
    pub checks: Vec<Check>,
    /// Row counts of the copy's tables.
    pub tables: BTreeMap<String, u64>,
    /// The restore, where it was carried out.
    pub restore: Option<RestoreFigures>,
    /// How far the newest restorable state was behind the start of the drill, seconds; `null` for a
    /// past point or without a copy.
    pub lag_seconds: Option<f64>,
    /// Whether the copy provably equals the source; `null` where the chain has no checksums or was
    /// never scrubbed.
    pub source_match: Option<bool>,
    /// When the drill began.
    pub started_at: Timestamp,
    /// When its last check ended.
    pub finished_at: Timestamp,
    /// Program versions: `verifier`, `sqlite`, and `shipper` where the heartbeat names it.
    pub versions: BTreeMap<String, String>,
}

impl Record {
    /// Adds a check made after the drill proper; the verdict follows, but never improves.
    pub fn append(&mut self, check: Check) {
        self.checks.push(check);
        self.verdict = Verdict::over([self.verdict, Verdict::of(&self.checks)]);
    }

    /// The checks that decided a verdict other than PASS, the deciding kind first.
    #[must_use]
    pub fn findings(&self) -> Vec<&Check> {
        let of = |status| self.checks.iter().filter(move |check| check.status == status);
        of(Status::Fail).chain(of(Status::Error)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn checks(statuses: &[Status]) -> Vec<Check> {
        statuses.iter().map(|&status| Check::new("x", status, "")).collect()
    }

    #[test]
    fn verdict_follows_from_the_checks() {
        use Status::{Error, Fail, Pass, Unchecked};
        for (statuses, verdict) in [
            (vec![Pass, Pass], Verdict::Pass),
            (vec![Pass, Unchecked], Verdict::Pass),
            (vec![Pass, Error], Verdict::Inconclusive),
            (vec![Error, Fail], Verdict::Fail),
            (vec![Pass, Fail], Verdict::Fail),
            (vec![Unchecked], Verdict::Inconclusive),
            (vec![], Verdict::Inconclusive),
        ] {
            assert_eq!(Verdict::of(&checks(&statuses)), verdict, "{statuses:?}");
        }
    }

    #[test]
    fn worst_verdict_wins_and_none_is_not_a_pass() {
        use Verdict::{Fail, Inconclusive, Pass};
        assert_eq!(Verdict::over([Pass, Inconclusive, Pass]), Inconclusive);
        assert_eq!(Verdict::over([Fail, Inconclusive]), Fail);
        assert_eq!(Verdict::over([]), Inconclusive);
    }

    #[test]
    fn json_has_exactly_the_published_fields() {
        let at: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        let txid: Txid = "1a".parse().unwrap();
        let record = Record {
            database: "app".into(),
            generation: Some("0192f0c1-2345-7abc-8def-0123456789ab".parse().unwrap()),
            txid: Some(txid),
            point: Point { asked: "latest".into(), restored_at: Some(at), txid: Some(txid) },
            verdict: Verdict::Pass,
            checks: vec![Check::new("chain", Status::Pass, "3 objects")],
            tables: [("orders".to_owned(), 79)].into(),
            restore: Some(RestoreFigures { seconds: 0.25, bytes: 4096, objects: 3 }),
            lag_seconds: Some(1.5),
            source_match: None,
            started_at: at,
            finished_at: at,
            versions: [("verifier".to_owned(), "0.1.0".to_owned())].into(),
        };
        let expected = serde_json::json!({
            "database": "app",
            "generation": "0192f0c1-2345-7abc-8def-0123456789ab",
            "txid": "000000000000001a",
            "point": {"asked": "latest", "restored_at": "2026-11-22T09:00:00Z", "txid": "000000000000001a"},
            "verdict": "PASS",
            "checks": [{"name": "chain", "status": "pass", "detail": "3 objects"}],
            "tables": {"orders": 79},
            "restore": {"seconds": 0.25, "bytes": 4096, "objects": 3},
            "lag_seconds": 1.5,
            "source_match": null,
            "started_at": "2026-11-22T09:00:00Z",
            "finished_at": "2026-11-22T09:00:00Z",
            "versions": {"verifier": "0.1.0"},
        });
        assert_eq!(serde_json::to_value(&record).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Record>(expected).unwrap(), record);
        let words: Vec<_> = [Verdict::Fail, Verdict::Inconclusive]
            .map(|v| serde_json::to_value(v).unwrap().to_string())
            .into();
        assert_eq!(words, ["\"FAIL\"", "\"INCONCLUSIVE\""]);
    }

    #[test]
    fn a_later_check_never_improves_the_verdict() {
        let at: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        let mut record = Record {
            database: "app".into(),
            generation: None,
            txid: None,
            point: Point { asked: "latest".into(), restored_at: None, txid: None },
            verdict: Verdict::Pass,
            checks: checks(&[Status::Pass]),
            tables: BTreeMap::new(),
            restore: None,
            lag_seconds: None,
            source_match: None,
            started_at: at,
            finished_at: at,
            versions: BTreeMap::new(),
        };
        record.append(Check::new("ledger", Status::Error, "unreachable"));
        assert_eq!(record.verdict, Verdict::Inconclusive);
        record.verdict = Verdict::Fail;
        record.append(Check::new("x", Status::Pass, ""));
        assert_eq!(record.verdict, Verdict::Fail);
    }
}
