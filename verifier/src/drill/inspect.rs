//! Runs the checks on a restored copy, off the async threads, in the record's order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use replica::documents::Heartbeat;
use rusqlite::Connection;
use serde_json::Value;

use crate::checks::{self, SourceMatch, Told};
use crate::record::{Check, Record, Size, Status, Step};
use crate::rules::Rules;
use crate::words::millis;

/// A copy, and what its checks compare it with.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The copy's file.
    pub copy: PathBuf,
    /// What its chain says of it.
    pub told: Option<Told>,
    /// The moment it stands for.
    pub restored_at: Timestamp,
    /// Whether the newest state was asked for.
    pub latest: bool,
    /// The time now.
    pub now: Timestamp,
    /// The heartbeat, where it could be read.
    pub heartbeat: Option<Heartbeat>,
    /// How far the server's clock is behind.
    pub behind: SignedDuration,
    /// What the operator says must hold.
    pub rules: Rules,
    /// The record of the last PASS of the newest state: only that is compared with it.
    pub before: Option<Record>,
    /// When the checks must have ended.
    pub deadline: Option<Instant>,
}

/// What the checks found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// How long each took that reads the copy.
    pub steps: Vec<Step>,
    /// Row counts.
    pub tables: BTreeMap<String, u64>,
    /// The copy's size.
    pub size: Option<Size>,
    /// The schema's fingerprint.
    pub schema: Option<String>,
    /// What the assertions found.
    pub values: BTreeMap<String, Value>,
}

impl Subject {
    /// `source_match`, which goes before what the drill finds out without the copy.
    pub async fn source(self) -> Findings {
        off_thread("source_match", move || {
            let mut findings = Findings::default();
            findings.time("source_match", |found| {
                let what = SourceMatch {
                    told: self.told,
                    heartbeat: self.heartbeat.as_ref(),
                    latest: self.latest,
                    now: self.now,
                    behind: self.behind,
                };
                found.checks.push(checks::source_match(&what, &self.copy, self.deadline));
            });
            findings
        })
        .await
    }

    /// Every other check that needs the copy.
    pub async fn content(self) -> Findings {
        off_thread("integrity_check", move || self.run()).await
    }

    fn run(&self) -> Findings {
        let mut findings = Findings::default();
        let before = self.before.as_ref();
        findings.checks.push(checks::point(self.restored_at, self.now, before));
        let heartbeat = self.heartbeat.as_ref();
        let (size, figures) = checks::size(&self.copy, self.told, heartbeat);
        findings.checks.push(size);
        findings.size = figures;
        match checks::open(&self.copy, self.deadline) {
            Ok(mut copy) => self.query(&mut copy, &mut findings),
            Err(error) => findings.checks.push(checks::not_opened(&error)),
        }
        findings
    }

    fn query(&self, copy: &mut Connection, findings: &mut Findings) {
        let before = self.before.as_ref();
        findings.time("integrity_check", |found| found.checks.push(checks::integrity(copy)));
        findings.time("foreign_key_check", |found| found.checks.push(checks::foreign_keys(copy)));
        findings.time("schema", |found| {
            let (check, fingerprint) = checks::schema(copy, before, &self.rules.schema);
            found.checks.push(check);
            found.schema = fingerprint;
        });
        findings.time("tables", |found| {
            let (check, counts) = checks::tables(copy, before, &self.rules.tables);
            found.checks.push(check);
            found.tables = counts;
        });
        // What "now" is to an assertion: at a past point, that point.
        let now = if self.latest { self.now } else { self.restored_at };
        for rule in &self.rules.assertions {
            findings.time(&format!("assert: {}", rule.name), |found| {
                let (check, value) = checks::assertion(copy, rule, now, self.latest, self.deadline);
                found.checks.push(check);
                found.values.extend(value.map(|value| (rule.name.clone(), value)));
            });
        }
        for rule in &self.rules.tables {
            findings.time(&format!("table: {}", rule.name), |found| {
                found.checks.push(checks::table_rule(copy, rule, before, self.latest));
            });
        }
    }
}

impl Findings {
    fn time(&mut self, step: &str, work: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        work(self);
        let seconds = millis(began.elapsed().as_secs_f64());
        self.steps.push(Step { name: step.to_owned(), seconds });
    }
}

/// Runs `work`; a panic in it becomes the failed check `name`.
async fn off_thread(name: &str, work: impl FnOnce() -> Findings + Send + 'static) -> Findings {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_panic| {
        let detail = "a check itself failed (panicked)\nHINT: the verifier's log says where; please report it";
        Findings { checks: vec![Check::new(name, Status::Error, detail)], ..Findings::default() }
    })
}
