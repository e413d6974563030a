//! `table: <name>`: a table that `drill.toml` names exists and has the rows it should have.

use rusqlite::Connection;

use crate::checks::tables::{TableNames, count};
use crate::checks::{broken, refused};
use crate::record::{Check, Record, Status};
use crate::rules::TableRule;

/// Checks one rule; `before` is the record of the last PASS, where that is comparable.
#[must_use]
pub fn table_rule(
    copy: &Connection,
    rule: &TableRule,
    before: Option<&Record>,
    latest: bool,
) -> Check {
    let name = format!("table: {}", rule.name);
    match TableNames::read(copy) {
        Ok(names) if names.contains(&rule.name) => {}
        Ok(_) => return broken(&name, latest, format!("no table {:?} in the copy", rule.name)),
        Err(error) => return refused(&name, &error),
    }
    let rows = match count(copy, &rule.name) {
        Ok(rows) => rows,
        Err(error) => return refused(&name, &error),
    };
    if let Some(min_rows) = rule.min_rows.filter(|min_rows| rows < *min_rows) {
        let words = format!("expected at least {min_rows} row(s), actual {rows}");
        return broken(&name, latest, words);
    }
    let mut words = format!("{rows} row(s)");
    if let Some(max_change) = rule.max_change {
        let earlier = before.and_then(|before| before.tables.get(&rule.name).copied());
        match earlier.and_then(|earlier| change(earlier, rows)) {
            Some(share) if share.abs() > max_change.get() => {
                let words = format!(
                    "{rows} row(s), {share:+.1}% since the last PASS ({} rows): expected at most {}%\n\
                     HINT: if this is meant, raise max_change for one drill: the next compares with it",
                    earlier.unwrap_or_default(),
                    max_change.get()
                );
                return broken(&name, latest, words);
            }
            Some(share) => words.push_str(&format!(", {share:+.1}% since the last PASS")),
            None => words.push_str("; no earlier count to compare with"),
        }
    }
    Check::new(&name, Status::Pass, words)
}

/// The change in hundredths of what was there; `None` where nothing was.
#[allow(clippy::cast_precision_loss)]
fn change(earlier: u64, now: u64) -> Option<f64> {
    (earlier > 0).then(|| (now as f64 - earlier as f64) / earlier as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::drill::{Asked, Draft};

    #[test]
    fn rows_are_bounded_from_below_and_in_their_change() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(
            "CREATE TABLE orders(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
             INSERT INTO orders SELECT i FROM n LIMIT 80; \
             CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('a')",
        )
        .unwrap();
        let mut before =
            Draft::new("app", &Asked::LATEST, "2026-11-22T09:00:00Z".parse().unwrap()).record;
        let cases = [
            (serde_json::json!({"name": "orders", "min_rows": 80}), None, Status::Pass),
            (serde_json::json!({"name": "orders", "min_rows": 81}), None, Status::Fail),
            (serde_json::json!({"name": "notes", "min_rows": 1}), None, Status::Pass),
            (serde_json::json!({"name": "gone"}), None, Status::Fail),
            (serde_json::json!({"name": "orders", "max_change": "20%"}), Some(100), Status::Pass),
            (serde_json::json!({"name": "orders", "max_change": "19%"}), Some(100), Status::Fail),
            (serde_json::json!({"name": "orders", "max_change": "60%"}), Some(50), Status::Pass),
            (serde_json::json!({"name": "orders", "max_change": "59%"}), Some(50), Status::Fail),
            (serde_json::json!({"name": "orders", "max_change": "1%"}), Some(0), Status::Pass),
            (serde_json::json!({"name": "orders", "max_change": "1%"}), None, Status::Pass),
        ];
        for (rule, earlier, status) in cases {
            let parsed: TableRule = serde_json::from_value(rule.clone()).unwrap();
            before.tables = earlier.map(|rows| ("orders".to_owned(), rows)).into_iter().collect();
            let check = table_rule(&db, &parsed, Some(&before), true);
            assert_eq!(check.status, status, "{rule} {earlier:?}: {}", check.detail);
            assert_eq!(check.name, format!("table: {}", parsed.name));
            let past = table_rule(&db, &parsed, None, false);
            assert_ne!(past.status, Status::Fail, "{rule} at a past point");
        }
    }
}
