//! The Lambda: an event in, what `--json` prints out.
//!
//! A FAIL or INCONCLUSIVE drill is a successful invocation, for the record is the answer. The invocation itself
//! fails for an event or a configuration that cannot work, when a mail that was due could
//! not be sent, and when a watch could not see what it watches: then the function's own error alarm is the last one left to ring.
//! Services are prepared at the first invocation, so that the start-up asks nothing of the network and a wrong
//! configuration is told in an answer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use replica::operator::{DatabaseArg, explain, nearest, usage};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::drill::Asked;
use crate::tasks::{CompactTask, DrillTask, Tasks};

/// The tasks an event may ask for.
const TASKS: [&str; 3] = ["drill", "watch", "compact"];
/// Bounds of the time kept back for cleaning up, the ledger and the mail.
const MARGIN_AT_LEAST: Duration = Duration::from_secs(1);
const MARGIN_AT_MOST: Duration = Duration::from_secs(20);

/// `{"task": "drill" | "watch" | "compact", "database": …, "at": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    task: String,
    database: Option<String>,
    at: Option<String>,
}

/// Answers one event.
///
/// # Errors
/// An event or configuration that cannot work, a mail that could not be sent, or a watch that is blind.
pub async fn handle(
    tasks: &dyn Tasks,
    event: Value,
    deadline: Option<Instant>,
) -> anyhow::Result<Value> {
    let event: Event = serde_json::from_value(event).map_err(|error| {
        usage(format!(
            "event: {error}\nHINT: send {{\"task\": \"drill\"}}, {{\"task\": \"watch\"}} or {{\"task\": \"compact\"}}"
        ))
    })?;
    let parsed = |text: Option<String>| text.map(|text| text.parse::<DatabaseArg>()).transpose();
    let named = |database: Option<String>| {
        let database =
            parsed(database).map_err(|error| usage(format!("event: database: {error}")))?;
        anyhow::Ok(database.into_iter().collect::<Vec<_>>())
    };
    if event.at.is_some() && event.task != "drill" {
        return Err(usage("event: at: only a drill has a point").into());
    }
    match event.task.as_str() {
        "drill" => {
            let databases = named(event.database)?;
            let asked = event.at.as_deref().unwrap_or("latest").parse::<Asked>();
            let asked = asked.map_err(|error| usage(format!("event: at: {error}")))?;
            let answer = tasks.drill(DrillTask { databases, asked, deadline }).await?;
            let json = serde_json::to_value(&answer)?;
            anyhow::ensure!(
                !answer.mail_failed,
                "the drill's verdict is {} and its mail could not be sent: {json}\n\
                 HINT: check [alert] and that the sender is verified in SES; the record is in the ledger",
                answer.verdict()
            );
            Ok(json)
        }
        "watch" => {
            let answer = tasks.watch().await?;
            let json = serde_json::to_value(&answer)?;
            anyhow::ensure!(
                !answer.mail_failed(),
                "an alarm could not be mailed: {json}\nHINT: check [alert] and that the sender is verified in SES"
            );
            anyhow::ensure!(
                !answer.is_blind(),
                "the watch could not find everything out: {json}\n\
                 HINT: each detail says what could not be read; until then no alarm can be trusted to come"
            );
            Ok(json)
        }
        "compact" => {
            let task = CompactTask { databases: named(event.database)?, deadline };
            let answer = tasks.compact(task).await?;
            let json = serde_json::to_value(&answer)?;
            // No mail tells of it. What is only left for want of time is the next run's.
            anyhow::ensure!(
                !answer.needs_attention(),
                "the compaction found something: {json}\nHINT: each finding says where, and what to do"
            );
            Ok(json)
        }
        other => {
            let meant = nearest(other, &TASKS).map_or_else(
                || format!("known tasks are {}", TASKS.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            Err(usage(format!("event: unknown task {other:?}\nHINT: {meant}")).into())
        }
    }
}

/// Serves invocations until the environment ends.
///
/// # Errors
/// The runtime API cannot be reached.
pub async fn serve<T, F>(prepare: impl Fn() -> F) -> anyhow::Result<()>
where
    T: Tasks,
    F: Future<Output = anyhow::Result<T>>,
{
    let tasks = OnceCell::new();
    let (tasks, prepare) = (&tasks, &prepare);
    let service = service_fn(move |invocation: LambdaEvent<Value>| async move {
        let deadline = deadline(invocation.context.deadline, SystemTime::now());
        let answer = async {
            let tasks = tasks.get_or_try_init(prepare).await?;
            handle(tasks, invocation.payload, Some(deadline)).await
        };
        answer.await.map_err(|error| {
            let message = explain(&error);
            tracing::error!(error = message, "invocation failed");
            Diagnostic { error_type: "verifier".to_owned(), error_message: message }
        })
    });
    lambda_runtime::run(service).await.map_err(|error| anyhow::anyhow!("lambda runtime: {error}"))
}

/// When work must end so that cleaning up, recording and mailing fit before the environment's own
/// deadline (`deadline_ms` since the epoch): a fifth of what is left is kept back.
fn deadline(deadline_ms: u64, now: SystemTime) -> Instant {
    let end = UNIX_EPOCH + Duration::from_millis(deadline_ms);
    let left = end.duration_since(now).unwrap_or(Duration::ZERO);
    let margin = (left / 5).clamp(MARGIN_AT_LEAST, MARGIN_AT_MOST);
    Instant::now() + left.saturating_sub(margin)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::compact::{CompactAnswer, Report};
    use crate::drill::Draft;
    use crate::record::{Check, Status};
    use crate::tasks::DrillAnswer;
    use crate::watch::{Life, MailOutcome, WatchAnswer, WatchReport};

    #[derive(Default)]
    struct Fake {
        asked: Mutex<Vec<String>>,
        mail_failed: bool,
        watched: Vec<WatchReport>,
        compacted: Option<(&'static str, Status, String)>,
    }

    #[async_trait(?Send)]
    impl Tasks for Fake {
        async fn drill(&self, task: DrillTask) -> anyhow::Result<DrillAnswer> {
            self.asked.lock().unwrap().push(format!("{:?} at {}", task.databases, task.asked));
            let mut draft = Draft::new("app", &task.asked, "2026-11-22T09:00:00Z".parse().unwrap());
            draft.record.checks.push(Check::new("chain", Status::Fail, "gap"));
            Ok(DrillAnswer {
                one_named: task.databases.len() == 1,
                records: vec![draft.finish(Duration::ZERO)],
                mail_failed: self.mail_failed,
            })
        }

        async fn watch(&self) -> anyhow::Result<WatchAnswer> {
            Ok(WatchAnswer {
                watched_at: "2026-11-22T09:00:00Z".parse().unwrap(),
                databases: self.watched.clone(),
            })
        }

        async fn compact(&self, task: CompactTask) -> anyhow::Result<CompactAnswer> {
            self.asked.lock().unwrap().push(format!("{:?} to compact", task.databases));
            let mut report = Report::new("app");
            if let Some((name, status, detail)) = &self.compacted {
                report.find(name, *status, detail.clone());
            }
            Ok(CompactAnswer::new("2026-11-22T09:00:00Z".parse().unwrap(), vec![report]))
        }
    }

    #[tokio::test]
    async fn a_failed_drill_is_an_answer() {
        let fake = Fake::default();
        let one = handle(&fake, json!({"task": "drill", "database": "app", "at": "1a"}), None)
            .await
            .unwrap();
        assert_eq!(
            (one["verdict"].as_str(), one["database"].as_str()),
            (Some("FAIL"), Some("app"))
        );
        let all = handle(&fake, json!({"task": "drill"}), None).await.unwrap();
        assert_eq!(all["verdict"], "FAIL");
        assert_eq!(all["records"][0]["database"], "app");
        let asked = fake.asked.lock().unwrap();
        assert_eq!(*asked, ["[Name(\"app\")] at 000000000000001a", "[] at latest"]);
    }

    #[tokio::test]
    async fn a_compaction_that_needs_somebody_fails_the_invocation() {
        let event = json!({"task": "compact", "database": "app"});
        for (found, answers) in [
            (None, Ok("PASS")),
            (Some(("deadline", Status::Error, "3 windows left")), Ok("INCONCLUSIVE")),
            (Some(("window", Status::Error, "access denied")), Err("access denied")),
            (Some(("window", Status::Fail, "x.ltx: damaged")), Err("x.ltx: damaged")),
        ] {
            let compacted = found.map(|(name, status, detail)| (name, status, detail.to_owned()));
            let fake = Fake { compacted, ..Fake::default() };
            match (handle(&fake, event.clone(), None).await, answers) {
                (Ok(answer), Ok(verdict)) => assert_eq!(answer["verdict"], verdict),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (other, _) => panic!("{other:?}"),
            }
            assert_eq!(*fake.asked.lock().unwrap(), ["[Name(\"app\")] to compact"]);
        }
        let fake = Fake::default();
        let event = json!({"task": "compact", "at": "latest"});
        let error = handle(&fake, event, None).await.unwrap_err().to_string();
        assert!(error.contains("at: only a drill has a point"), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_work_is_an_error_that_says_so() {
        let fake = Fake::default();
        for (event, expected) in [
            (json!({"task": "dril"}), "unknown task \"dril\"\nHINT: did you mean drill?"),
            (json!({"task": "xyz"}), "known tasks are drill, watch, compact"),
            (json!({}), "missing field `task`"),
            (json!({"task": "drill", "databse": "app"}), "unknown field `databse`"),
            (json!({"task": "drill", "at": "yesterday"}), "\"yesterday\" is no point"),
            (json!({"task": "drill", "database": "a/b"}), "neither a configured name nor a URL"),
        ] {
            let error = handle(&fake, event.clone(), None).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{event}: {error}");
        }
        assert!(fake.asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_mail_that_was_not_sent_fails_the_invocation() {
        let fake = Fake { mail_failed: true, ..Fake::default() };
        let error = handle(&fake, json!({"task": "drill"}), None).await.unwrap_err().to_string();
        assert!(error.contains("verdict is FAIL and its mail could not be sent"), "{error}");
    }

    #[tokio::test]
    async fn a_watch_that_sees_nothing_fails_the_invocation() {
        let seen = WatchReport {
            database: "app".to_owned(),
            state: Some(Life::Fresh),
            detail: String::new(),
            proof_overdue: Some(false),
            last_pass: None,
            other_host: None,
            mail: MailOutcome::None,
        };
        let unread = WatchReport {
            state: None,
            detail: "s3://b/p: access denied".to_owned(),
            ..seen.clone()
        };
        let unrecorded = WatchReport { proof_overdue: None, ..seen.clone() };
        for (watched, works) in [
            (vec![seen.clone()], true),
            (vec![WatchReport { state: Some(Life::Dead), ..seen.clone() }], true),
            (vec![], false),
            (vec![seen.clone(), unread], false),
            (vec![seen, unrecorded], false),
        ] {
            let fake = Fake { watched, ..Fake::default() };
            let answer = handle(&fake, json!({"task": "watch"}), None).await;
            match answer {
                Ok(_) => assert!(works, "{:?}", fake.watched),
                Err(error) => {
                    assert!(!works && error.to_string().contains("could not find"), "{error}");
                }
            }
        }
    }

    #[test]
    fn time_is_kept_back_before_the_environments_deadline() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        for (left_ms, work_ms) in [(900_000, 880_000), (50_000, 40_000), (3_000, 2_000), (500, 0)] {
            let before = Instant::now();
            let end = deadline(1_000_000 + left_ms, now);
            let asked = before..=Instant::now();
            let work = Duration::from_millis(work_ms);
            assert!(asked.contains(&(end - work)), "{left_ms}: {:?}", end - before);
        }
    }
}
