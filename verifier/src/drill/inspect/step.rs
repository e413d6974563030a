//! The checks that ask SQLite, as steps that can be taken by themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checks;
use crate::record::{self, Check, Record, Size};
use crate::rules::Rules;
use crate::words::millis;

/// What the steps ask of.
#[derive(Debug, Clone)]
pub struct Content {
    /// The copy's file.
    pub copy: PathBuf,
    /// What "now" is to an assertion.
    pub now: Timestamp,
    /// Whether the newest state was asked for.
    pub latest: bool,
    /// What the operator says must hold.
    pub rules: Rules,
    /// The record of the last PASS, where it is compared with it.
    pub before: Option<Record>,
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Integrity,
    Constraints,
    ForeignKeys,
    Schema,
    Tables,
    /// By its number in `drill.toml`.
    Assertion(usize),
    /// By its number in `drill.toml`.
    TableRule(usize),
}

impl Step {
    /// All, in the record's order.
    pub(super) fn all(rules: &Rules) -> Vec<Self> {
        let mut steps =
            vec![Self::Integrity, Self::Constraints, Self::ForeignKeys, Self::Schema, Self::Tables];
        steps.extend((0..rules.assertions.len()).map(Self::Assertion));
        steps.extend((0..rules.tables.len()).map(Self::TableRule));
        steps
    }

    /// What its check is called.
    pub(super) fn name(self, rules: &Rules) -> String {
        match self {
            Self::Integrity => "integrity_check".to_owned(),
            Self::Constraints => "check_constraints".to_owned(),
            Self::ForeignKeys => "foreign_key_check".to_owned(),
            Self::Schema => "schema".to_owned(),
            Self::Tables => "tables".to_owned(),
            Self::Assertion(at) => format!("assert: {}", rules.assertions[at].name),
            Self::TableRule(at) => format!("table: {}", rules.tables[at].name),
        }
    }

    /// How long it may take by a rule of its own.
    pub(super) fn timeout(self, rules: &Rules) -> Option<Duration> {
        match self {
            Self::Assertion(at) => Some(rules.assertions[at].timeout.get()),
            _ => None,
        }
    }

    /// Makes the check.
    pub(super) fn take(
        self,
        copy: &mut Connection,
        content: &Content,
        deadline: Option<Instant>,
    ) -> Findings {
        let (rules, before, latest) = (&content.rules, content.before.as_ref(), content.latest);
        let mut findings = Findings::default();
        findings.time(&self.name(rules), |found| {
            let check = match self {
                Self::Integrity => checks::integrity(copy),
                Self::Constraints => checks::constraints(copy),
                Self::ForeignKeys => checks::foreign_keys(copy),
                Self::Schema => {
                    let (check, fingerprint) = checks::schema(copy, before, &rules.schema);
                    found.schema = fingerprint;
                    check
                }
                Self::Tables => {
                    let (check, counts) = checks::tables(copy, before, &rules.tables);
                    found.tables = counts;
                    check
                }
                Self::Assertion(at) => {
                    let rule = &rules.assertions[at];
                    let (check, value) =
                        checks::assertion(copy, rule, content.now, latest, deadline);
                    found.values.extend(value.map(|value| (rule.name.clone(), value)));
                    check
                }
                Self::TableRule(at) => checks::table_rule(copy, &rules.tables[at], before, latest),
            };
            found.checks.push(check);
        });
        findings
    }
}

/// What checks found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// How long each took that reads the copy.
    pub steps: Vec<record::Step>,
    /// Row counts.
    pub tables: BTreeMap<String, u64>,
    /// The copy's size.
    pub size: Option<Size>,
    /// The schema's fingerprint.
    pub schema: Option<String>,
    /// What the assertions found.
    pub values: BTreeMap<String, Value>,
}

impl Findings {
    /// Nothing but this check.
    pub(super) fn of(check: Check) -> Self {
        Self { checks: vec![check], ..Self::default() }
    }

    /// Adds what was found after these.
    pub(super) fn append(&mut self, found: Self) {
        self.checks.extend(found.checks);
        self.steps.extend(found.steps);
        self.tables.extend(found.tables);
        self.size = found.size.or(self.size);
        self.schema = found.schema.or(self.schema.take());
        self.values.extend(found.values);
    }

    /// Does `work`, and notes how long it took.
    pub(super) fn time(&mut self, step: &str, work: impl FnOnce(&mut Self)) {
        let began = Instant::now();
        work(self);
        self.note_time(step, began);
    }

    /// Notes how long a step took that began then.
    pub(super) fn note_time(&mut self, step: &str, began: Instant) {
        let seconds = millis(began.elapsed().as_secs_f64());
        self.steps.push(record::Step { name: step.to_owned(), seconds });
    }
}
