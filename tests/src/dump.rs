//! The logical dump that the fixtures' `expected.json` has the hash of: `'\n'.join(iterdump())` of Python 3.11's `sqlite3`.
//!
//! Written from its documented output, for what the fixtures hold: tables, their rows in table order, then indexes, triggers
//! and views. Not for virtual tables, nor for `AUTOINCREMENT` and `ANALYZE` (which bring tables of SQLite's own).

#![allow(clippy::missing_errors_doc)]

use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

/// The statements that make the database anew.
pub fn dump(path: &Path) -> Result<Vec<String>> {
    let uri = format!("file:{}?immutable=1", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri, flags)?;
    let mut statements = vec!["BEGIN TRANSACTION;".to_owned()];
    let tables =
        "SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL AND type = 'table' ORDER BY name";
    for (name, sql) in pairs(&db, tables)? {
        ensure!(!name.starts_with("sqlite_"), "{name}: a table of SQLite's own");
        statements.push(format!("{sql};"));
        statements.extend(rows(&db, &name)?);
    }
    let others = "SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL \
                  AND type IN ('index', 'trigger', 'view')";
    statements.extend(pairs(&db, others)?.into_iter().map(|(_, sql)| format!("{sql};")));
    statements.push("COMMIT;".to_owned());
    Ok(statements)
}

/// SHA-256 of the lines, as hexadecimal text.
#[must_use]
pub fn sha256_of_lines(lines: &[String]) -> String {
    let digest = Sha256::digest(lines.join("\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pairs(db: &Connection, sql: &str) -> Result<Vec<(String, String)>> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// One `INSERT` a row.
fn rows(db: &Connection, table: &str) -> Result<Vec<String>> {
    let quoted = table.replace('"', "\"\"");
    let mut columns = db.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let columns = columns.query_map([table], |row| row.get::<_, String>(0))?;
    let values: Vec<String> = columns
        .map(|name| Ok(format!("quote(\"{}\")", name?.replace('"', "\"\""))))
        .collect::<rusqlite::Result<_>>()?;
    let sql = format!("SELECT {} FROM \"{quoted}\"", values.join(" || ',' || "));
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map((), |row| row.get::<_, String>(0))?;
    rows.map(|row| Ok(format!("INSERT INTO \"{quoted}\" VALUES({});", row?))).collect()
}
