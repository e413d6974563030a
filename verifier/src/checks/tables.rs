//! `tables`: every table of the copy can be read to its end; their row counts go into the record.
//!
//! SQLite's own tables, views and the shadow tables behind virtual ones are left out. Virtual tables are
//! named but not counted: their rows stand in the shadow tables, and their code may be unknown here.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::checks::{LISTED, quoted, refused};
use crate::record::{Check, Status};

const NAME: &str = "tables";

/// Counts the rows of every table.
#[must_use]
pub fn tables(copy: &Connection) -> (Check, BTreeMap<String, u64>) {
    let mut counts = BTreeMap::new();
    let (ordinary, virtual_) = match names(copy) {
        Ok(names) => names,
        Err(error) => return (refused(NAME, &error), counts),
    };
    let mut unchecked = Vec::new();
    for table in ordinary {
        match count(copy, &table) {
            Ok(rows) => {
                counts.insert(table, rows);
            }
            Err(error) => {
                let check = refused(NAME, &error);
                let detail = format!("{table}: {}", check.detail);
                if check.status != Status::Unchecked {
                    return (Check { detail, ..check }, counts);
                }
                unchecked.push(detail);
            }
        }
    }
    if !unchecked.is_empty() {
        unchecked.truncate(LISTED);
        return (Check::new(NAME, Status::Unchecked, unchecked.join("\n")), counts);
    }
    let rows: u64 = counts.values().sum();
    let mut detail = format!("{} table(s), {rows} row(s)", counts.len());
    if !virtual_.is_empty() {
        detail.push_str("; virtual, not counted: ");
        detail.push_str(&virtual_.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "));
    }
    (Check::new(NAME, Status::Pass, detail), counts)
}

fn names(copy: &Connection) -> rusqlite::Result<(Vec<String>, Vec<String>)> {
    let mut statement = copy.prepare(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' \
         AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let rows =
        statement.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let (mut ordinary, mut virtual_) = (Vec::new(), Vec::new());
    for row in rows {
        let (name, kind) = row?;
        if kind == "table" { ordinary.push(name) } else { virtual_.push(name) }
    }
    Ok((ordinary, virtual_))
}

fn count(copy: &Connection, table: &str) -> rusqlite::Result<u64> {
    // NOT INDEXED: the table's own pages are read, not a smaller index in their place.
    let sql = format!("SELECT count(*) FROM {} NOT INDEXED", quoted(table));
    copy.query_row(&sql, (), |row| row.get::<_, i64>(0))
        .map(|rows| u64::try_from(rows).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn counts_what_the_application_calls_a_table() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(
            "CREATE TABLE orders(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO orders(x) VALUES (1), (2);
             CREATE TABLE \"odd \"\" name\"(x); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES (1);
             CREATE TABLE sqlitey(x);
             CREATE VIEW v AS SELECT * FROM orders; CREATE VIRTUAL TABLE notes USING fts5(body);
             INSERT INTO notes VALUES ('hello')",
        )
        .unwrap();
        let (check, counts) = tables(&db);
        assert_eq!(check.status, Status::Pass);
        let expected = [("orders", 2), ("odd \" name", 0), ("w", 1), ("sqlitey", 0)];
        assert_eq!(counts, expected.map(|(name, rows)| (name.to_owned(), rows)).into());
        assert_eq!(check.detail, "4 table(s), 3 row(s); virtual, not counted: notes");
    }
}
