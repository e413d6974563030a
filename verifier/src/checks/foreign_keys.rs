//! `foreign_key_check`: every reference has its row.
//!
//! Table by table, so that one declaration that SQLite cannot evaluate (a parent without the needed
//! unique index: the application's schema, not the backup's fault), or anything else that it refuses, hides no other table.

use rusqlite::Connection;

use crate::checks::integrity::is_final;
use crate::checks::{LISTED, refused, with_long_values};
use crate::record::{Check, Status};

const NAME: &str = "foreign_key_check";

/// Runs the check.
#[must_use]
pub fn foreign_keys(copy: &Connection) -> Check {
    with_long_values(copy, || judge(copy)).unwrap_or_else(|error| refused(NAME, &error))
}

fn judge(copy: &Connection) -> Check {
    let tables = match referencing_tables(copy) {
        Ok(tables) => tables,
        Err(error) => return refused(NAME, &error),
    };
    let mut violations = 0_u64;
    let mut listed = Vec::new();
    let mut unknown = Vec::new();
    for table in &tables {
        match violations_of(copy, table, &mut listed) {
            Ok(found) => violations += found,
            Err(error) if is_final(&error) => return refused(NAME, &error),
            Err(error) => unknown.push(format!("{table}: {error}")),
        }
    }
    if violations > 0 {
        let more = if violations > listed.len() as u64 { "\n…" } else { "" };
        let detail =
            format!("{violations} row(s) without their parent:\n{}{more}", listed.join("\n"));
        return Check::new(NAME, Status::Fail, detail);
    }
    if !unknown.is_empty() {
        let share =
            format!("{} of {} referencing table(s) not checked:", unknown.len(), tables.len());
        unknown.truncate(LISTED);
        return Check::new(NAME, Status::Unchecked, format!("{share}\n{}", unknown.join("\n")));
    }
    Check::new(NAME, Status::Pass, format!("{} referencing table(s), no violation", tables.len()))
}

fn referencing_tables(copy: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare(
        "SELECT s.name FROM sqlite_schema AS s WHERE s.type = 'table' \
         AND EXISTS (SELECT 1 FROM pragma_foreign_key_list(s.name)) ORDER BY s.name",
    )?;
    statement.query_map((), |row| row.get(0))?.collect()
}

/// Counts the violations of one table and lists the first ones.
fn violations_of(
    copy: &Connection,
    table: &str,
    listed: &mut Vec<String>,
) -> rusqlite::Result<u64> {
    let mut statement = copy.prepare("SELECT rowid, parent FROM pragma_foreign_key_check(?1)")?;
    let mut rows = statement.query([table])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        if listed.len() < LISTED {
            let row_id: Option<i64> = row.get(0)?;
            let parent: String = row.get(1)?;
            let row_id = row_id.map_or_else(|| "(no rowid)".to_owned(), |id| id.to_string());
            listed.push(format!("{table} row {row_id} references {parent}"));
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(sql: &str) -> Check {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        db.execute_batch(sql).unwrap();
        foreign_keys(&db)
    }

    const SCHEMA: &str = "CREATE TABLE parent(id INTEGER PRIMARY KEY); \
        CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id)); INSERT INTO parent VALUES (1);";

    #[test]
    fn every_reference_with_its_row_passes() {
        assert_eq!(
            check(&format!("{SCHEMA} INSERT INTO child VALUES (1, 1), (2, NULL)")).status,
            Status::Pass
        );
    }

    #[test]
    fn an_orphan_fails_and_is_named() {
        let check = check(&format!("{SCHEMA} INSERT INTO child VALUES (7, 99)"));
        assert_eq!(check.status, Status::Fail);
        assert!(
            check.detail.contains("1 row(s)")
                && check.detail.contains("child row 7 references parent")
        );
    }

    #[test]
    fn a_mismatched_declaration_is_unchecked_and_hides_no_other_table() {
        let odd = "CREATE TABLE loose(x); CREATE TABLE a_odd(x REFERENCES loose(x)); INSERT INTO a_odd VALUES (1);";
        assert_eq!(check(&format!("{SCHEMA} {odd}")).status, Status::Unchecked);
        assert_eq!(
            check(&format!("{SCHEMA} {odd} INSERT INTO child VALUES (7, 99)")).status,
            Status::Fail
        );
    }

    #[test]
    fn many_violations_are_counted_and_few_listed() {
        let check = check(&format!(
            "{SCHEMA} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
             INSERT INTO child SELECT i, i + 5 FROM n"
        ));
        assert!(check.detail.starts_with("1000 row(s)"), "{}", check.detail);
        assert_eq!(check.detail.lines().count(), LISTED + 2);
    }
}
