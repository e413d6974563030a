//! `schema`: nothing that the last PASS had is lost.
//!
//! The fingerprint (SHA-256 over tables, indexes, views and triggers, white space evened out) tells whether anything
//! changed. Migrations are normal: a change alone passes, and is said. A table that had rows and is gone is not, unless
//! `[schema] dropped` in `drill.toml` names it. SQLite's own tables (`sqlite_stat1`, …) come and go without a word.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

use crate::checks::tables::TableNames;
use crate::checks::{LISTED, refused};
use crate::record::{Check, Record, Status};
use crate::rules::SchemaRules;

const NAME: &str = "schema";

/// Takes the fingerprint, and compares with the record of the last PASS (where that is comparable).
#[must_use]
pub fn schema(
    copy: &Connection,
    before: Option<&Record>,
    rules: &SchemaRules,
) -> (Check, Option<String>) {
    let taken = fingerprint(copy).and_then(|taken| Ok((taken, TableNames::read(copy)?)));
    let ((fingerprint, objects), names) = match taken {
        Ok(taken) => taken,
        Err(error) => return (refused(NAME, &error), None),
    };
    let here = format!("{objects} object(s), fingerprint {}", &fingerprint[..16]);
    let Some(before) = before else {
        let detail = format!("{here}; no earlier PASS to compare with");
        return (Check::new(NAME, Status::Pass, detail), Some(fingerprint));
    };
    let lost: Vec<String> = before
        .tables
        .iter()
        .filter(|(name, rows)| **rows > 0 && !names.contains(name))
        .filter(|(name, _)| !rules.dropped.iter().any(|pattern| pattern.matches(name)))
        .map(|(name, rows)| format!("{name} ({rows} rows)"))
        .collect();
    if !lost.is_empty() {
        let more = if lost.len() > LISTED { ", …" } else { "" };
        let listed = lost.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
        let detail = format!(
            "{} table(s) of the PASS of {} are gone: {listed}{more}\n\
             HINT: if a migration dropped them, say so in drill.toml: [schema] dropped = [\"name\", \"pattern_*\"]",
            lost.len(),
            before.finished_at,
        );
        return (Check::new(NAME, Status::Fail, detail), Some(fingerprint));
    }
    let compared = match &before.schema {
        Some(earlier) if *earlier == fingerprint => "as in",
        Some(_) => "changed since",
        None => "not known of",
    };
    let detail = format!("{here}, {compared} the PASS of {}", before.finished_at);
    (Check::new(NAME, Status::Pass, detail), Some(fingerprint))
}

/// The fingerprint as hexadecimal text, and how many objects it is of.
fn fingerprint(copy: &Connection) -> rusqlite::Result<(String, u64)> {
    let mut statement = copy.prepare(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema \
         WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, name, tbl_name, sql",
    )?;
    let mut rows = statement.query(())?;
    let (mut hash, mut objects) = (Sha256::new(), 0);
    while let Some(row) = rows.next()? {
        objects += 1;
        for column in 0..4 {
            let field = match row.get_ref(column)? {
                ValueRef::Text(field) | ValueRef::Blob(field) => even(field),
                _ => Vec::new(),
            };
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(&field);
        }
    }
    let digits = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((digits, objects))
}

/// White space outside of quotes as one space, none at the ends.
fn even(sql: &[u8]) -> Vec<u8> {
    let (mut even, mut quote) = (Vec::with_capacity(sql.len()), None);
    for &byte in sql.trim_ascii() {
        match quote {
            Some(end) if byte == end => quote = None,
            Some(_) => {}
            None if byte.is_ascii_whitespace() => {
                if even.last() != Some(&b' ') {
                    even.push(b' ');
                }
                continue;
            }
            None => {
                quote = match byte {
                    b'\'' | b'"' | b'`' => Some(byte),
                    b'[' => Some(b']'),
                    _ => None,
                }
            }
        }
        even.push(byte);
    }
    even
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::drill::{Asked, Draft};

    fn database(sql: &str) -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap();
        db
    }

    fn print(sql: &str) -> String {
        fingerprint(&database(sql)).unwrap().0
    }

    #[test]
    fn the_fingerprint_is_of_what_was_declared() {
        let base = "CREATE TABLE t(a, b DEFAULT 'x  y'); CREATE INDEX i ON t(a);";
        let same = "CREATE INDEX decoy ON u(x); DROP INDEX decoy; DROP TABLE u;";
        let spaced = "CREATE TABLE t(a,  b\n DEFAULT 'x  y');CREATE INDEX i  ON t(a);";
        assert_eq!(print(base), print(&format!("CREATE TABLE u(x); {base} {same}")));
        assert_eq!(print(base), print(&spaced.replace("(a,  b", "(a, b")));
        assert_eq!(print(base), print(&format!("{base} INSERT INTO t VALUES (1, 2); ANALYZE;")));
        for other in [
            "CREATE TABLE t(a, b DEFAULT 'x y'); CREATE INDEX i ON t(a);",
            "CREATE TABLE t(a, b DEFAULT 'x  y'); CREATE INDEX i ON t(b);",
            "CREATE TABLE t(a, b DEFAULT 'x  y');",
            "",
        ] {
            assert_ne!(print(base), print(other), "{other}");
        }
        assert_eq!(print("").len(), 64);
    }

    #[test]
    fn a_change_is_said_and_a_loss_fails() {
        let mut before =
            Draft::new("app", &Asked::LATEST, "2026-11-22T09:00:00Z".parse().unwrap()).record;
        before.tables = [("orders".to_owned(), 7), ("empty".to_owned(), 0)].into();
        before.schema = Some(print("CREATE TABLE orders(x); CREATE TABLE empty(x);"));
        let dropped: SchemaRules =
            serde_json::from_value(serde_json::json!({"dropped": ["ord*"]})).unwrap();
        let none = SchemaRules::default();
        for (sql, rules, status, words) in [
            (
                "CREATE TABLE orders(x); CREATE TABLE empty(x)",
                &none,
                Status::Pass,
                ", as in the PASS",
            ),
            ("CREATE TABLE orders(x, y)", &none, Status::Pass, ", changed since the PASS"),
            ("CREATE VIRTUAL TABLE orders USING fts5(x)", &none, Status::Pass, "changed"),
            ("CREATE TABLE other(x)", &none, Status::Fail, "are gone: orders (7 rows)\nHINT: "),
            ("", &none, Status::Fail, "1 table(s) of the PASS"),
            ("", &dropped, Status::Pass, "changed"),
        ] {
            let (check, print) = schema(&database(sql), Some(&before), rules);
            assert_eq!(check.status, status, "{sql}: {}", check.detail);
            assert!(check.detail.contains(words), "{sql}: {}", check.detail);
            assert!(print.is_some());
        }
        let (first, _) = schema(&database(""), None, &none);
        assert!(first.status == Status::Pass && first.detail.contains("no earlier PASS"));
    }
}
