//! `assert: <name>`: a query of `drill.toml` answers as its operator expects.
//!
//! The query is one statement that only reads, on the hardened connection, within a time of its own. What it finds
//! wrong is `fail`, also where a table or column it names is missing. A rule that cannot be carried out as it is
//! written (no SQL, more than one statement, one that writes, one that never ends) is `error`: it says nothing of the
//! backup. What this build of SQLite does not know is `unchecked`.

use std::time::Instant;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};
use serde_json::{Value, json};

use crate::checks::{broken, ends_at, refused};
use crate::record::{Check, Status};
use crate::rules::{Assertion, Judged};

/// Rows counted beyond the expected number before counting stops.
const ROWS_BEYOND: u64 = 1000;
/// Longest text or blob that a record keeps of a value.
const KEPT: usize = 1000;

/// Runs one assertion; its value goes into the record (the first column of the first row, or the number of rows).
#[must_use]
pub fn assertion(
    copy: &mut Connection,
    rule: &Assertion,
    now: Timestamp,
    latest: bool,
    deadline: Option<Instant>,
) -> (Check, Option<Value>) {
    let name = format!("assert: {}", rule.name);
    let own = Instant::now().checked_add(rule.timeout.get());
    let until = own.into_iter().chain(deadline).min();
    if let Err(error) = ends_at(copy, until) {
        return (refused(&name, &error), None);
    }
    let answer = answer(copy, rule, now);
    let restored = ends_at(copy, deadline);
    if let Err(error) = restored {
        return (refused(&name, &error), None);
    }
    match answer {
        Ok((Judged::Holds(words), value)) => (Check::new(&name, Status::Pass, words), Some(value)),
        Ok((Judged::Broken(words), value)) => (broken(&name, latest, words), Some(value)),
        Err(Stop::Rule(words)) => (Check::new(&name, Status::Error, words), None),
        Err(Stop::Sqlite(error)) => {
            let in_time = deadline.is_none_or(|deadline| Instant::now() < deadline);
            (stopped(&name, rule, latest, &error, in_time), None)
        }
    }
}

/// Why there is no answer.
enum Stop {
    /// The rule cannot be carried out.
    Rule(String),
    /// SQLite refused.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn answer(copy: &Connection, rule: &Assertion, now: Timestamp) -> Result<(Judged, Value), Stop> {
    let mut statement = copy.prepare(&rule.sql)?;
    if !statement.readonly() || statement.column_count() == 0 {
        let words = "sql does not only read\nHINT: an assertion is one SELECT";
        return Err(Stop::Rule(words.to_owned()));
    }
    let expectation = rule.expectation();
    let most = expectation.rows.map_or(1, |rows| rows.saturating_add(ROWS_BEYOND));
    let mut rows = statement.query(())?;
    let (mut judged, mut value, mut count) = (None, Value::Null, 0);
    while count < most
        && let Some(row) = rows.next()?
    {
        if count == 0 {
            let first = row.get_ref(0)?;
            judged = Some(expectation.judge_value(Some(first), now));
            value = kept(first);
        }
        count += 1;
    }
    if !expectation.needs_value() {
        let counted = expectation.judge_rows(count);
        let judged = counted.unwrap_or_else(|| Judged::Holds(format!("{count} row(s)")));
        return Ok((judged, json!(count)));
    }
    let judged = judged.unwrap_or_else(|| expectation.judge_value(None, now));
    Ok((
        match (judged, expectation.judge_rows(count)) {
            (Judged::Holds(_), Some(broken @ Judged::Broken(_))) => broken,
            (judged, _) => judged,
        },
        value,
    ))
}

fn stopped(
    name: &str,
    rule: &Assertion,
    latest: bool,
    error: &rusqlite::Error,
    in_time: bool,
) -> Check {
    let message = error.to_string();
    let is_missing = ["no such table: ", "no such column: "].iter().any(|m| message.contains(m));
    match error.sqlite_error_code() {
        _ if matches!(error, rusqlite::Error::MultipleStatement) => {
            let words = "sql holds more than one statement\nHINT: an assertion is one SELECT";
            Check::new(name, Status::Error, words)
        }
        Some(ErrorCode::OperationInterrupted) if in_time => {
            let allowed = rule.timeout.get().as_secs_f64();
            let words = format!(
                "did not end within {allowed} s\nHINT: make the query cheaper (an index, a LIMIT), or give it a timeout \
                 of its own in drill.toml"
            );
            Check::new(name, Status::Error, words)
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            let words = format!(
                "{message}\nHINT: an assertion is one SELECT; nothing beyond the copy can be reached"
            );
            Check::new(name, Status::Error, words)
        }
        _ if is_missing => broken(name, latest, message),
        _ => {
            let check = refused(name, error);
            let hint = "\nHINT: is the assertion's sql right? Try it on the live database";
            if check.status == Status::Error && !check.detail.contains("HINT: ") {
                let detail = format!("{}{hint}", check.detail);
                return Check { detail, ..check };
            }
            check
        }
    }
}

/// The value as a record keeps it: bounded, and never a number that JSON does not have.
fn kept(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => json!(number),
        ValueRef::Real(number) if number.is_finite() => json!(number),
        ValueRef::Real(number) => json!(number.to_string()),
        ValueRef::Text(text) => {
            json!(String::from_utf8_lossy(text).chars().take(KEPT).collect::<String>())
        }
        ValueRef::Blob(blob) => {
            let digits: String = blob.iter().take(KEPT / 2).map(|b| format!("{b:02x}")).collect();
            json!(format!("x'{digits}'"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::checks::open;

    const SCHEMA: &str = "CREATE TABLE orders(id INTEGER PRIMARY KEY, total, at); \
        INSERT INTO orders VALUES (1, 10, '2026-11-22 08:00:00'), (2, -5, '2026-11-20 08:00:00')";

    /// One row, after many steps of SQLite's machine: its progress is looked at every so often.
    const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
        SELECT count(*) FROM n";
    /// Takes far longer than the deadlines here.
    const ENDLESS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    fn run(rule: &Value, latest: bool) -> (Check, Option<Value>) {
        run_until(rule, latest, None)
    }

    fn run_until(rule: &Value, latest: bool, deadline: Option<Instant>) -> (Check, Option<Value>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch(SCHEMA).unwrap();
        let mut named = json!({"name": "x"});
        named.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let rule = serde_json::from_value(named).unwrap();
        let mut copy = open(&path, None).unwrap();
        let now = "2026-11-22T09:00:00Z".parse().unwrap();
        let outcome = assertion(&mut copy, &rule, now, latest, deadline);
        if deadline.is_none() {
            let long = format!("SELECT count(*) FROM orders, ({MANY})");
            let after: i64 = copy.query_row(&long, (), |r| r.get(0)).unwrap();
            assert_eq!(after, 2, "the connection goes on, without the rule's own deadline");
        }
        outcome
    }

    #[test]
    fn the_drills_deadline_is_not_the_rules_fault() {
        let soon = Instant::now() + Duration::from_millis(50);
        let rule = json!({"sql": ENDLESS, "rows": 1, "timeout": "60s"});
        let (check, value) = run_until(&rule, true, Some(soon));
        assert_eq!((check.status, value), (Status::Error, None), "{}", check.detail);
        assert!(check.detail.starts_with("deadline reached"), "{}", check.detail);
    }

    #[test]
    fn of_a_long_value_the_beginning_is_kept() {
        let text = json!({"sql": "SELECT replace(printf('%2000c', 'x'), ' ', 'x')", "min": 0});
        assert_eq!(run(&text, true).1, Some(json!("x".repeat(KEPT))));
        let blob = json!({"sql": "SELECT zeroblob(2000)", "min": 0});
        assert_eq!(run(&blob, true).1, Some(json!(format!("x'{}'", "0".repeat(KEPT)))));
    }

    #[test]
    fn an_answer_is_judged_and_kept() {
        for (rule, status, value) in [
            (
                json!({"sql": "SELECT max(at) FROM orders", "max_age": "1h"}),
                Status::Pass,
                json!("2026-11-22 08:00:00"),
            ),
            (
                json!({"sql": "SELECT max(at) FROM orders", "max_age": "59m"}),
                Status::Fail,
                json!("2026-11-22 08:00:00"),
            ),
            (
                json!({"sql": "SELECT count(*) FROM orders", "min": 2, "max": 2}),
                Status::Pass,
                json!(2),
            ),
            (
                json!({"sql": "SELECT sum(total) FROM orders", "equals": 5.0}),
                Status::Pass,
                json!(5),
            ),
            (json!({"sql": "SELECT 1 WHERE 0", "min": 0}), Status::Fail, Value::Null),
            (json!({"sql": "SELECT NULL", "min": 0}), Status::Fail, Value::Null),
            (
                json!({"sql": "SELECT * FROM orders WHERE total < 0", "rows": 0}),
                Status::Fail,
                json!(1),
            ),
            (
                json!({"sql": "SELECT * FROM orders WHERE total < -9 -- ;", "rows": 0}),
                Status::Pass,
                json!(0),
            ),
            (
                json!({"sql": "SELECT id FROM orders ORDER BY id", "rows": 2, "equals": 1}),
                Status::Pass,
                json!(1),
            ),
            (
                json!({"sql": "SELECT id FROM orders ORDER BY id", "rows": 3, "equals": 1}),
                Status::Fail,
                json!(1),
            ),
            (json!({"sql": "SELECT 9e999", "min": 0}), Status::Pass, json!("inf")),
            (json!({"sql": "SELECT x'00ff'", "rows": 1, "min": 0}), Status::Fail, json!("x'00ff'")),
        ] {
            let (check, found) = run(&rule, true);
            assert_eq!((check.status, found), (status, Some(value)), "{rule}: {}", check.detail);
            let (past, _) = run(&rule, false);
            assert_ne!(past.status, Status::Fail, "{rule} at a past point");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_carried_out_accuses_nobody() {
        for (rule, status, words) in [
            (
                json!({"sql": "SELECT total FROM gone", "rows": 0}),
                Status::Fail,
                "no such table: gone",
            ),
            (
                json!({"sql": "SELECT missing FROM orders", "rows": 0}),
                Status::Fail,
                "no such column: missing",
            ),
            (
                json!({"sql": "SELECT app_function()", "rows": 0}),
                Status::Unchecked,
                "no such function",
            ),
            (
                json!({"sql": "SELECT 1 WHERE 'a' = 'b' COLLATE app", "rows": 0}),
                Status::Unchecked,
                "no such collation",
            ),
            (json!({"sql": "SELEC 1", "rows": 0}), Status::Error, "syntax error"),
            (json!({"sql": "", "rows": 0}), Status::Error, "HINT: "),
            (
                json!({"sql": "SELECT 1; DELETE FROM orders", "rows": 1}),
                Status::Error,
                "more than one statement",
            ),
            (json!({"sql": "DELETE FROM orders", "rows": 0}), Status::Error, "does not only read"),
            (
                json!({"sql": "DELETE FROM orders RETURNING id", "rows": 2}),
                Status::Error,
                "does not only read",
            ),
            (json!({"sql": "PRAGMA query_only = 0", "rows": 0}), Status::Error, "not authorized"),
            (json!({"sql": "ATTACH '/etc/passwd' AS x", "rows": 0}), Status::Error, "HINT: "),
            (
                json!({"sql": ENDLESS, "rows": 1, "timeout": "10ms"}),
                Status::Error,
                "did not end within 0.01 s",
            ),
        ] {
            let (check, value) = run(&rule, true);
            assert_eq!((check.status, value), (status, None), "{rule}: {}", check.detail);
            assert!(check.detail.contains(words), "{rule}: {}", check.detail);
            let (past, _) = run(&rule, false);
            assert_ne!(past.status, Status::Fail, "{rule} at a past point");
        }
        assert_eq!(
            Duration::from_secs(30),
            serde_json::from_value::<Assertion>(json!({"name": "x", "sql": "x"}))
                .unwrap()
                .timeout
                .get()
        );
    }
}
