//! What a damage came to: the drill's record, judged by what was expected of it.

use std::path::Path;

use serde::Serialize;

use crate::record::{Record, Status, Verdict};
use crate::sabotage::damage::{Damage, Expected};

/// How one trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The drill failed, as it must.
    Caught,
    /// It passed, as it must: nothing of the data is lost.
    Harmless,
    /// It passed, and nothing in this chain could have told.
    NotCatchable,
    /// This chain has nothing to damage so.
    NotApplicable,
    /// It passed (or could not tell), and should have failed.
    Missed,
    /// It did not pass, and should have.
    FalseAlarm,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Caught => "caught",
            Self::Harmless => "harmless, passes",
            Self::NotCatchable => "not catchable",
            Self::NotApplicable => "not applicable",
            Self::Missed => "MISSED",
            Self::FalseAlarm => "FALSE ALARM",
        })
    }
}

/// One damage, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The damage.
    pub damage: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The checks that failed, in the record's order: the first is the one that caught it.
    pub checks: Vec<String>,
    /// What the first of them found; or why nothing could.
    pub detail: String,
}

impl Trial {
    pub(super) fn not_applicable(damage: &Damage, reason: String) -> Self {
        Self {
            damage: damage.name.clone(),
            outcome: Outcome::NotApplicable,
            checks: Vec::new(),
            detail: reason,
        }
    }

    /// Judges a drill of the scratch copy at `dir`; objects are then named from there on.
    pub(super) fn judge(damage: &Damage, record: &Record, dir: &Path) -> Self {
        let failed = || record.checks.iter().filter(|check| check.status == Status::Fail);
        let outcome = match (record.verdict, &damage.expected) {
            (Verdict::Fail, Expected::Harmless) => Outcome::FalseAlarm,
            (Verdict::Fail, _) => Outcome::Caught,
            (Verdict::Pass, Expected::Harmless) => Outcome::Harmless,
            (Verdict::Inconclusive, Expected::Harmless) => Outcome::FalseAlarm,
            (Verdict::Pass, Expected::NotCatchable(_) | Expected::ByChance(_)) => {
                Outcome::NotCatchable
            }
            (_, _) => Outcome::Missed,
        };
        let detail = match &damage.expected {
            Expected::NotCatchable(why) | Expected::ByChance(why)
                if outcome == Outcome::NotCatchable =>
            {
                (*why).to_owned()
            }
            _ => record.findings().first().map(|check| check.detail.clone()).unwrap_or_default(),
        };
        let detail = detail.replace(&format!("{}/", dir.display()), "");
        Self {
            damage: damage.name.clone(),
            outcome,
            checks: failed().map(|check| check.name.clone()).collect(),
            detail,
        }
    }

    /// Whether the check that caught it is one of those that should.
    #[must_use]
    pub fn is_as_expected(&self, damage: &Damage) -> bool {
        match (&damage.expected, self.outcome) {
            (_, Outcome::NotApplicable) => true,
            (Expected::Caught(by), Outcome::Caught) => {
                self.checks.first().is_some_and(|first| by.contains(&first.as_str()))
            }
            (Expected::Harmless, Outcome::Harmless)
            | (Expected::NotCatchable(_), Outcome::NotCatchable)
            | (Expected::ByChance(_), Outcome::NotCatchable | Outcome::Caught) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;

    use super::*;
    use crate::drill::{Asked, Draft};
    use crate::record::Check;
    use crate::sabotage::damage::Applied;

    #[test]
    fn a_trial_is_judged_by_what_was_expected() {
        let caught = || Expected::Caught(&["chain"]);
        for (expected, status, outcome, as_expected) in [
            (caught(), Status::Fail, Outcome::Caught, true),
            (Expected::Caught(&["point"]), Status::Fail, Outcome::Caught, false),
            (caught(), Status::Pass, Outcome::Missed, false),
            // What cannot be told is not caught.
            (caught(), Status::Error, Outcome::Missed, false),
            (Expected::Harmless, Status::Pass, Outcome::Harmless, true),
            (Expected::Harmless, Status::Fail, Outcome::FalseAlarm, false),
            (Expected::Harmless, Status::Error, Outcome::FalseAlarm, false),
            (Expected::NotCatchable("why"), Status::Pass, Outcome::NotCatchable, true),
            (Expected::NotCatchable("why"), Status::Error, Outcome::Missed, false),
            (Expected::ByChance("why"), Status::Fail, Outcome::Caught, true),
        ] {
            let damage = Damage::for_tests(expected.clone(), Applied::Done);
            let mut record = Draft::new("app", &Asked::LATEST, Timestamp::UNIX_EPOCH).record;
            record.checks.push(Check::new(
                "chain",
                status,
                "/tmp/x/ltx/0/1.ltx: damaged\nHINT: look",
            ));
            record.verdict = Verdict::of(&record.checks);
            let trial = Trial::judge(&damage, &record, Path::new("/tmp/x"));
            assert_eq!(trial.outcome, outcome, "{expected:?} {status}");
            assert_eq!(trial.is_as_expected(&damage), as_expected, "{expected:?} {status}");
            let detail = match outcome {
                Outcome::NotCatchable => "why",
                Outcome::Harmless => "",
                _ if status == Status::Pass => "",
                _ => "ltx/0/1.ltx: damaged\nHINT: look",
            };
            assert_eq!(trial.detail, detail, "the scratch directory is nobody's business");
        }
    }
}
