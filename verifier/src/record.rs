//! The record of a drill: one JSON document, the same in the ledger, from `--json`, from the Lambda
//! and behind the mail. Its field names are an interface: other people's scripts read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use replica::documents::Receipt;
use replica::format::{GenerationId, Txid};
use replica::operator::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

    /// 0 PASS, 1 FAIL, 3 INCONCLUSIVE.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Pass => Exit::Holds,
            Self::Fail => Exit::Fails,
            Self::Inconclusive => Exit::Inconclusive,
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
    /// Its name (`chain`, `source_match`, `integrity_check`, `assert: orders keep coming`, …).
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
    /// What a random point was drawn with: the same seed draws the same point of the same points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
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

/// The size of the restored copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes in a page.
    pub page_size: u32,
    /// Pages.
    pub page_count: u32,
    /// Length of the file, bytes.
    pub bytes: u64,
}

/// One step of the drill and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `restore`, or the name of a check.
    pub name: String,
    /// Wall time, seconds.
    pub seconds: f64,
}

/// The files that the restored point did not need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherFiles {
    /// Files verified in this drill …
    pub verified: usize,
    /// … and their bytes.
    pub bytes: u64,
    /// How many there are.
    pub of: usize,
    /// Those found damaged.
    pub damaged: Vec<DamagedFile>,
}

/// A damaged file, and what can no longer be restored for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedFile {
    /// Its full key.
    pub object: String,
    /// What is wrong with it: offset, expected, actual.
    pub problem: String,
    /// How many restore points need it.
    pub spoiled_points: usize,
    /// The first of them.
    pub first: Option<Txid>,
    /// The last of them.
    pub last: Option<Txid>,
}

/// A point that can be had where the one asked for, and the last one that was proven, cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instead {
    /// Its generation; `null` for a replica that Litestream wrote.
    pub generation: Option<GenerationId>,
    /// Its TXID.
    pub txid: Txid,
}

/// One drill. What a later version added is missing in older documents, and read as absent.
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
    /// Size of the copy.
    #[serde(default)]
    pub size: Option<Size>,
    /// Fingerprint of the copy's schema (SHA-256, hexadecimal): equal where the schema is.
    #[serde(default)]
    pub schema: Option<String>,
    /// What each assertion of `drill.toml` found, by the assertion's name.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// How long each step took, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The files that this point did not need, where they were looked at.
    #[serde(default)]
    pub other_files: Option<OtherFiles>,
    /// What can be had where damage has no way around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<Instead>,
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

    /// Whether a file that was found damaged is one that the point of a PASS needs.
    #[must_use]
    pub fn spoils(&self, pass: &Receipt) -> bool {
        let damaged = self.other_files.iter().flat_map(|files| &files.damaged);
        let Some(txid) = pass.txid.filter(|_| pass.generation == self.generation) else {
            return false;
        };
        damaged
            .filter_map(|file| Some((file.first?, file.last?)))
            .any(|(first, last)| first <= txid && txid <= last)
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
            point: Point {
                asked: "latest".into(),
                restored_at: Some(at),
                txid: Some(txid),
                seed: Some(7),
            },
            verdict: Verdict::Pass,
            checks: vec![Check::new("chain", Status::Pass, "3 objects")],
            tables: [("orders".to_owned(), 79)].into(),
            size: Some(Size { page_size: 4096, page_count: 2, bytes: 8192 }),
            schema: Some("5c".to_owned()),
            values: [("newest".to_owned(), serde_json::json!(3))].into(),
            steps: vec![Step { name: "restore".to_owned(), seconds: 0.25 }],
            other_files: Some(OtherFiles {
                verified: 2,
                bytes: 300,
                of: 9,
                damaged: vec![DamagedFile {
                    object: "x.ltx".to_owned(),
                    problem: "cut".to_owned(),
                    spoiled_points: 1,
                    first: Some(txid),
                    last: Some(txid),
                }],
            }),
            instead: Some(Instead { generation: None, txid }),
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
            "point": {"asked": "latest", "restored_at": "2026-11-22T09:00:00Z", "txid": "000000000000001a", "seed": 7},
            "verdict": "PASS",
            "checks": [{"name": "chain", "status": "pass", "detail": "3 objects"}],
            "tables": {"orders": 79},
            "size": {"page_size": 4096, "page_count": 2, "bytes": 8192},
            "schema": "5c",
            "values": {"newest": 3},
            "steps": [{"name": "restore", "seconds": 0.25}],
            "other_files": {"verified": 2, "bytes": 300, "of": 9, "damaged": [{
                "object": "x.ltx", "problem": "cut", "spoiled_points": 1,
                "first": "000000000000001a", "last": "000000000000001a",
            }]},
            "instead": {"generation": null, "txid": "000000000000001a"},
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
    fn a_document_of_an_older_version_is_read() {
        let at = "2026-11-22T09:00:00Z";
        let record: Record = serde_json::from_value(serde_json::json!({
            "database": "app", "generation": null, "txid": null,
            "point": {"asked": "latest", "restored_at": null, "txid": null},
            "verdict": "PASS", "checks": [], "tables": {"orders": 79}, "restore": null,
            "lag_seconds": null, "source_match": null, "started_at": at, "finished_at": at,
            "versions": {},
        }))
        .unwrap();
        assert_eq!((record.size, record.schema, record.point.seed), (None, None, None));
        assert_eq!((record.tables["orders"], record.values.len()), (79, 0));
    }

    #[test]
    fn a_later_check_never_improves_the_verdict() {
        let at: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        let mut record = Record {
            database: "app".into(),
            generation: None,
            txid: None,
            point: Point { asked: "latest".into(), restored_at: None, txid: None, seed: None },
            verdict: Verdict::Pass,
            checks: checks(&[Status::Pass]),
            tables: BTreeMap::new(),
            size: None,
            schema: None,
            values: BTreeMap::new(),
            steps: Vec::new(),
            other_files: None,
            instead: None,
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
