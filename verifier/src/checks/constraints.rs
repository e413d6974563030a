//! `check_constraints`: no row breaks a CHECK constraint of its table.
//!
//! `integrity_check` would say so, but not of this copy: SQLite forgets the constraints of a file that it may not write.
//! So each table that has any is asked for the rows for which one of them is false. As in SQLite, NULL holds.
//! A constraint that cannot be evaluated here (a function of the application's) is named, and hides no other table.

use rusqlite::Connection;

use crate::checks::clauses::check_clauses;
use crate::checks::integrity::is_final;
use crate::checks::{LISTED, quoted, refused, with_long_values};
use crate::record::{Check, Status};

const NAME: &str = "check_constraints";
/// Of a constraint, so many characters are shown.
const SHOWN: usize = 100;

/// Runs the check.
#[must_use]
pub fn constraints(copy: &Connection) -> Check {
    let judged = with_long_values(copy, || judge(copy)).and_then(|judged| judged);
    judged.unwrap_or_else(|error| refused(NAME, &error))
}

fn judge(copy: &Connection) -> rusqlite::Result<Check> {
    let (mut tables, mut constraints) = (0_usize, 0);
    let (mut broken, mut left_out) = (Vec::new(), Vec::new());
    for (table, sql) in declared(copy)? {
        let clauses = check_clauses(&sql);
        if clauses.is_empty() {
            continue;
        }
        tables += 1;
        constraints += clauses.len();
        match violations(copy, &table, &clauses) {
            Ok(found) => broken.extend(found),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => left_out.push(format!("{table} ({error})")),
        }
        if broken.len() > LISTED {
            break;
        }
    }
    if !broken.is_empty() {
        let more = if broken.len() > LISTED { "\n… and more" } else { "" };
        broken.truncate(LISTED);
        return Ok(Check::new(NAME, Status::Fail, broken.join("\n") + more));
    }
    let detail = format!("{constraints} CHECK constraint(s) of {tables} table(s)");
    if left_out.is_empty() {
        return Ok(Check::new(NAME, Status::Pass, format!("{detail}, no violation")));
    }
    let (count, more) = (left_out.len(), if left_out.len() > LISTED { ", …" } else { "" });
    left_out.truncate(LISTED);
    let detail = format!("{detail}; not checked, {count} table(s): {}{more}", left_out.join(", "));
    Ok(Check::new(NAME, Status::Unchecked, detail))
}

/// Tables and their statements, as far as they may have a CHECK constraint.
fn declared(copy: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = copy.prepare(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%check%' ORDER BY name",
    )?;
    statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Rows that break a constraint, in words; not more than are listed, and one.
fn violations(copy: &Connection, table: &str, clauses: &[&str]) -> rusqlite::Result<Vec<String>> {
    match violations_by(copy, table, clauses, "_rowid_") {
        // WITHOUT ROWID.
        Err(error) if error.to_string().contains("no such column: _rowid_") => {
            violations_by(copy, table, clauses, "NULL")
        }
        found => found,
    }
}

fn violations_by(
    copy: &Connection,
    table: &str,
    clauses: &[&str],
    row_id: &str,
) -> rusqlite::Result<Vec<String>> {
    // Line ends, since a clause may end with a comment.
    let broken: Vec<String> = clauses.iter().map(|clause| format!("NOT ({clause}\n)")).collect();
    let sql = format!(
        "SELECT {row_id}, {} FROM {} NOT INDEXED WHERE {} LIMIT {}",
        broken.join(", "),
        quoted(table),
        broken.join(" OR "),
        LISTED + 1
    );
    let mut statement = copy.prepare(&sql)?;
    let mut rows = statement.query(())?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let of_row = row.get::<_, Option<i64>>(0).ok().flatten();
        let of_row = of_row.map_or_else(String::new, |id| format!(" row {id}"));
        let mut which = clauses.iter().zip(1..);
        let clause = which.find(|(_, column)| row.get::<_, bool>(*column).unwrap_or_default());
        let clause = clause.map_or("", |(clause, _)| clause);
        let clause: String = clause.chars().take(SHOWN).collect();
        found.push(format!("{table}{of_row} breaks CHECK ({clause})"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::checks::open;

    /// The check of a copy in which constraints were not enforced.
    fn check(sql: &str) -> Check {
        check_changed(sql, |bytes| bytes)
    }

    fn check_changed(sql: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Check {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let database = Connection::open(&path).unwrap();
        database.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        database.execute_batch(sql).unwrap();
        drop(database);
        std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
        constraints(&open(&path, None).unwrap())
    }

    #[test]
    fn rows_that_hold_pass_and_null_holds() {
        let check = check(
            "CREATE TABLE t(x CHECK (x > 0), y, CHECK (x < y OR y IS NULL)); CREATE TABLE u(x);
             INSERT INTO t VALUES (1, 2), (NULL, NULL), (5, NULL)",
        );
        assert_eq!(check.status, Status::Pass, "{}", check.detail);
        assert_eq!(check.detail, "2 CHECK constraint(s) of 1 table(s), no violation");
    }

    #[test]
    fn a_row_that_breaks_one_fails_and_is_named() {
        for (sql, words) in [
            (
                "CREATE TABLE t(x CHECK (x > 0), y CHECK (y <> 'bad' -- never\n)); \
                 INSERT INTO t VALUES (1, 'good'), (2, 'bad'), (-1, 'good')",
                "t row 2 breaks CHECK (y <> 'bad' -- never)\nt row 3 breaks CHECK (x > 0)",
            ),
            (
                "CREATE TABLE w(k PRIMARY KEY, x CHECK (x)) WITHOUT ROWID; INSERT INTO w VALUES ('a', 0)",
                "w breaks CHECK (x)",
            ),
            (
                "CREATE TABLE \"a \"\" b\"(x); ALTER TABLE \"a \"\" b\" ADD COLUMN y CHECK (y = 'it''s'); \
                 INSERT INTO \"a \"\" b\" VALUES (1, 'no')",
                "a \" b row 1 breaks CHECK (y = 'it''s')",
            ),
        ] {
            let check = check(sql);
            assert_eq!((check.status, check.detail.as_str()), (Status::Fail, words), "{sql}");
        }
        let many = check(
            "CREATE TABLE t(x CHECK (x < 0)); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
             INSERT INTO t SELECT i FROM n",
        );
        assert_eq!(many.detail.lines().count(), LISTED + 1);
        assert!(many.detail.ends_with("\n… and more"), "{}", many.detail);
    }

    #[test]
    fn what_cannot_be_evaluated_is_named_and_hides_nothing() {
        let unknown = |mut bytes: Vec<u8>| {
            let at = bytes.windows(9).position(|window| window == b"upper(x) ").unwrap();
            bytes[at..at + 5].copy_from_slice(b"appfn");
            bytes
        };
        let sql = "CREATE TABLE a(x CHECK (upper(x) > '')); INSERT INTO a VALUES ('a'); CREATE TABLE t(x CHECK (x > 0));";
        let check = check_changed(sql, unknown);
        assert_eq!(check.status, Status::Unchecked, "{}", check.detail);
        assert!(check.detail.contains("not checked, 1 table(s): a ("), "{}", check.detail);
        let check = check_changed(&format!("{sql} INSERT INTO t VALUES (0)"), unknown);
        assert_eq!(check.detail, "t row 1 breaks CHECK (x > 0)");
    }
}
