//! The answer of the command: a table, or JSON.

use std::fmt::Write as _;

use replica::operator::Exit;
use serde::Serialize;

use crate::record::Record;
use crate::sabotage::{Outcome, Stage, Trial};

/// What every damage came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The database's name.
    pub database: String,
    /// The chain that was copied.
    pub chain: String,
    /// Whether it carries database checksums.
    pub checksummed: bool,
    /// The drill of the undamaged copy.
    pub undamaged: Record,
    /// One trial a damage; none where the undamaged copy did not pass.
    pub trials: Vec<Trial>,
}

impl Report {
    pub(super) fn new(database: &str, stage: &Stage, trials: Vec<Trial>) -> Self {
        Self {
            database: database.to_owned(),
            chain: stage.scene().chain.to_string(),
            checksummed: stage.scene().is_checksummed(),
            undamaged: stage.undamaged().clone(),
            trials,
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.trials.iter().filter(|trial| trial.outcome == outcome).count()
    }

    /// 0: every damage was caught or is harmless (or no check could tell, for a reason that is named); 1: one was missed, or
    /// a harmless one raised an alarm; 3: there was no sound backup to damage.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.trials.is_empty() {
            Exit::Inconclusive
        } else if self.count(Outcome::Missed) + self.count(Outcome::FalseAlarm) > 0 {
            Exit::Fails
        } else {
            Exit::Holds
        }
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        if self.trials.is_empty() {
            let verdict = self.undamaged.verdict;
            let _ =
                writeln!(text, "INCONCLUSIVE  {}: its undamaged copy is {verdict}", self.database);
            for check in self.undamaged.findings() {
                let _ = writeln!(text, "  {}: {}", check.name, first_line(&check.detail));
            }
            text.push_str("HINT: sabotage needs a healthy backup: drill it and mend what it finds, then try again\n");
            return text;
        }
        let width = self.trials.iter().map(|trial| trial.damage.chars().count()).max().unwrap_or(0);
        for trial in &self.trials {
            let by = trial.checks.first().map_or("", String::as_str);
            let _ = writeln!(
                text,
                "{:<16}  {:<width$}  {by:<17}  {}",
                trial.outcome.to_string(),
                trial.damage,
                first_line(&trial.detail)
            );
        }
        let _ = writeln!(
            text,
            "\n{}: {} caught, {} harmless, {} not catchable, {} not applicable, {} missed, {} false alarm(s)",
            self.database,
            self.count(Outcome::Caught),
            self.count(Outcome::Harmless),
            self.count(Outcome::NotCatchable),
            self.count(Outcome::NotApplicable),
            self.count(Outcome::Missed),
            self.count(Outcome::FalseAlarm),
        );
        text
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::drill::{Asked, Draft};

    #[test]
    fn one_missed_damage_or_false_alarm_fails_the_command() {
        use Outcome::{Caught, FalseAlarm, Harmless, Missed, NotApplicable, NotCatchable};
        for (outcomes, exit) in [
            (vec![Caught, Harmless, NotCatchable, NotApplicable], Exit::Holds),
            (vec![Caught, Missed], Exit::Fails),
            (vec![Caught, FalseAlarm], Exit::Fails),
            (vec![], Exit::Inconclusive),
        ] {
            let trial = |outcome: &Outcome| Trial {
                damage: "x".into(),
                outcome: *outcome,
                checks: Vec::new(),
                detail: String::new(),
            };
            let report = Report {
                database: "app".into(),
                chain: "(root)".into(),
                checksummed: false,
                undamaged: Draft::new("app", &Asked::LATEST, Timestamp::UNIX_EPOCH).record,
                trials: outcomes.iter().map(trial).collect(),
            };
            assert_eq!(report.exit(), exit, "{outcomes:?}");
            assert_eq!(report.text().contains("HINT: sabotage needs"), exit == Exit::Inconclusive);
        }
    }
}
