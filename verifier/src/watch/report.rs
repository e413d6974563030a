//! What a watch answers, as JSON and as exit code.

use jiff::Timestamp;
use replica::operator::Exit;
use serde::Serialize;

use crate::watch::Life;

/// What became of the mail that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailOutcome {
    /// None was due.
    None,
    /// Sent (or logged, where nobody is configured).
    Sent,
    /// Another watcher is sending it.
    Elsewhere,
    /// It could not be sent: the next watch tries again.
    Failed,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WatchReport {
    /// Its name.
    pub database: String,
    /// `fresh`, `idle`, `stuck`, `dead`; `null` where it could not be found out.
    pub state: Option<Life>,
    /// Why.
    pub detail: String,
    /// No PASS for longer than allowed; `null` where it could not be found out.
    pub proof_overdue: Option<bool>,
    /// When the last drill that passed ended.
    pub last_pass: Option<Timestamp>,
    /// Which two hosts ship it, where that is so.
    pub other_host: Option<String>,
    /// The mail.
    pub mail: MailOutcome,
}

/// Every database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WatchAnswer {
    /// When the watch began.
    pub watched_at: Timestamp,
    /// The databases, by name.
    pub databases: Vec<WatchReport>,
}

impl WatchAnswer {
    /// 1 when one is stuck or dead, shipped by two hosts, or its proof is overdue; else 3 when something could not be found
    /// out, a mail could not be sent, or nothing is there to watch; else 0.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let any = |wrong: fn(&WatchReport) -> bool| self.databases.iter().any(wrong);
        if any(|report| {
            report.state.is_some_and(Life::is_bad)
                || report.proof_overdue == Some(true)
                || report.other_host.is_some()
        }) {
            Exit::Fails
        } else if self.is_blind() || self.mail_failed() {
            Exit::Inconclusive
        } else {
            Exit::Holds
        }
    }

    /// Nothing is there to watch, or something of it could not be found out: no mail tells of it.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        let unknown =
            |report: &WatchReport| report.state.is_none() || report.proof_overdue.is_none();
        self.databases.is_empty() || self.databases.iter().any(unknown)
    }

    /// A mail that was due could not be sent.
    #[must_use]
    pub fn mail_failed(&self) -> bool {
        self.databases.iter().any(|report| report.mail == MailOutcome::Failed)
    }

    /// For a terminal: a line a database.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for report in &self.databases {
            let state = report.state.map_or_else(|| "unknown".to_owned(), |life| life.to_string());
            let proof = match (report.proof_overdue, report.last_pass) {
                (None, _) => "proof unknown".to_owned(),
                (Some(overdue), pass) => {
                    let pass =
                        pass.map_or("never proven".to_owned(), |pass| format!("last PASS {pass}"));
                    if overdue { format!("PROOF OVERDUE, {pass}") } else { pass }
                }
            };
            let hosts = report.other_host.as_ref();
            let hosts = hosts.map_or(String::new(), |hosts| format!("  TWO HOSTS: {hosts}"));
            text.push_str(&format!(
                "{}  {state}{hosts}  {proof}  ({})\n",
                report.database, report.detail
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn answer(databases: Vec<WatchReport>) -> WatchAnswer {
        WatchAnswer { watched_at: "2026-11-22T09:00:00Z".parse().unwrap(), databases }
    }

    fn report(state: Option<Life>, proof_overdue: Option<bool>, mail: MailOutcome) -> WatchReport {
        WatchReport {
            database: "app".to_owned(),
            state,
            detail: String::new(),
            proof_overdue,
            last_pass: None,
            other_host: None,
            mail,
        }
    }

    #[test]
    fn what_was_not_seen_is_not_well() {
        let (fresh, dead) = (Some(Life::Fresh), Some(Life::Dead));
        let (none, failed) = (MailOutcome::None, MailOutcome::Failed);
        let well = || report(fresh, Some(false), none);
        assert_eq!((answer(vec![]).is_blind(), answer(vec![]).exit()), (true, Exit::Inconclusive));
        for (other, blind, exit) in [
            (well(), false, Exit::Holds),
            (report(None, Some(false), none), true, Exit::Inconclusive),
            (report(fresh, None, none), true, Exit::Inconclusive),
            (report(fresh, Some(false), failed), false, Exit::Inconclusive),
            (report(fresh, Some(true), none), false, Exit::Fails),
            (report(dead, None, none), true, Exit::Fails),
            (WatchReport { other_host: Some("a and b".into()), ..well() }, false, Exit::Fails),
        ] {
            let answer = answer(vec![well(), other]);
            assert_eq!((answer.is_blind(), answer.exit()), (blind, exit), "{answer:?}");
        }
    }
}
