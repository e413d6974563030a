//! `integrity_check`: SQLite's own, over the whole copy.
//!
//! SQLite refuses the whole of it for one thing that it cannot do: a collation, tokenizer or module that is unknown here,
//! a row that its memory cannot hold. Then each table is asked by itself, so that damage in the others still fails the copy, and
//! of a table that is refused too, what can be: its structure (`quick_check`), or at least that its rows can be read. What
//! was not checked is named and counted, and leaves the check `unchecked`; where nothing could be checked, it is `error`.
//!
//! Long values are no reason: the length that a drill reads elsewhere is no bound here. SQLite looks at a value only where an index needs it,
//! and its memory stays bounded by the heap's limit.

use rusqlite::{Connection, ErrorCode};

use crate::checks::{LISTED, quoted, refused, with_long_values};
use crate::record::{Check, Status};

const NAME: &str = "integrity_check";

/// Runs the check.
#[must_use]
pub fn integrity(copy: &Connection) -> Check {
    with_long_values(copy, || match problems(copy, NAME, &(LISTED + 1).to_string()) {
        Ok(problems) if problems.is_empty() => Check::new(NAME, Status::Pass, "ok"),
        Ok(problems) => Check::new(NAME, Status::Fail, listed(&problems)),
        Err(error) if is_final(&error) => refused(NAME, &error),
        Err(error) => table_by_table(copy, &error).unwrap_or_else(|ended| ended),
    })
    .unwrap_or_else(|error| refused(NAME, &error))
}

/// Whether asking for less would bring nothing else: damage, the deadline, a disk that cannot be read.
pub(super) fn is_final(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::OperationInterrupted
                | ErrorCode::SystemIoFailure
        )
    )
}

/// What was checked of the tables.
#[derive(Debug, Default)]
struct Share {
    whole: usize,
    structure: Vec<String>,
    read: Vec<String>,
    nothing: Vec<String>,
}

/// Each table by itself, after SQLite refused them together. An error is the check that ended it.
fn table_by_table(copy: &Connection, refusal: &rusqlite::Error) -> Result<Check, Check> {
    // It needs less, and sees also the pages that belong to no table.
    let structure = is_sound(problems(copy, "quick_check", &(LISTED + 1).to_string()))?.is_ok();
    let names = table_names(copy).map_err(|error| refused(NAME, &error))?;
    let mut share = Share::default();
    for table in &names {
        let Err(error) = is_sound(problems(copy, NAME, &quoted(table)))? else {
            share.whole += 1;
            continue;
        };
        let named = format!("{table} ({error})");
        if structure || is_sound(problems(copy, "quick_check", &quoted(table)))?.is_ok() {
            share.structure.push(named);
        } else if is_sound(read_rows(copy, table).map(|()| Vec::new()))?.is_ok() {
            share.read.push(named);
        } else {
            share.nothing.push(named);
        }
    }
    Ok(share.judge(names.len(), structure, refusal))
}

impl Share {
    fn judge(self, tables: usize, structure: bool, refusal: &rusqlite::Error) -> Check {
        let mut detail = format!(
            "{refusal}: so each table by itself: {} of {tables} table(s) checked",
            self.whole
        );
        for (words, names) in [
            ("only their structure (quick_check)", &self.structure),
            ("only that their rows can be read", &self.read),
            ("not checked", &self.nothing),
        ] {
            if !names.is_empty() {
                let more = if names.len() > LISTED { ", …" } else { "" };
                let first = names[..names.len().min(LISTED)].join(", ");
                detail.push_str(&format!("; {words}, {}: {first}{more}", names.len()));
            }
        }
        if !structure {
            detail.push_str("; not checked: pages that belong to no table, or to two");
        }
        if self.whole == tables && structure {
            return Check::new(NAME, Status::Pass, detail);
        }
        if self.nothing.len() == tables {
            let hint = "\nHINT: nothing of this copy could be checked here; check a restored copy with the application's own SQLite";
            return Check::new(NAME, Status::Error, detail + hint);
        }
        Check::new(NAME, Status::Unchecked, detail)
    }
}

/// Sound (`Ok(Ok)`), or refused (`Ok(Err)`); an error is the check that ends everything.
fn is_sound(answer: rusqlite::Result<Vec<String>>) -> Result<Result<(), rusqlite::Error>, Check> {
    match answer {
        Ok(problems) if problems.is_empty() => Ok(Ok(())),
        Ok(problems) => Err(Check::new(NAME, Status::Fail, listed(&problems))),
        Err(error) if is_final(&error) => Err(refused(NAME, &error)),
        Err(error) => Ok(Err(error)),
    }
}

fn table_names(copy: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    statement.query_map((), |row| row.get(0))?.collect()
}

/// Reads every value of a table.
fn read_rows(copy: &Connection, table: &str) -> rusqlite::Result<()> {
    let mut statement = copy.prepare(&format!("SELECT * FROM {} NOT INDEXED", quoted(table)))?;
    let mut rows = statement.query(())?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// The rows of the pragma that are not `ok`; its argument is a bound, or a table.
fn problems(copy: &Connection, pragma: &str, argument: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare(&format!("PRAGMA {pragma}({argument})"))?;
    let rows = statement.query_map((), |row| row.get::<_, String>(0))?;
    let problems: Vec<String> = rows.take(LISTED + 1).collect::<Result<_, _>>()?;
    Ok(if problems == ["ok"] { Vec::new() } else { problems })
}

fn listed(problems: &[String]) -> String {
    let mut text = problems.iter().take(LISTED).cloned().collect::<Vec<_>>().join("\n");
    if problems.len() > LISTED {
        text.push_str("\n… and more");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::checks::open;
    use std::os::unix::fs::FileExt;

    /// A database with an index, its file changed by `damage`.
    fn database(
        sql: &str,
        damage: impl Fn(&std::fs::File),
    ) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        damage(&std::fs::File::options().read(true).write(true).open(&path).unwrap());
        (dir, path)
    }

    const SQL: &str = "CREATE TABLE t(x TEXT); CREATE INDEX i ON t(x); \
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
        INSERT INTO t SELECT printf('value %05d', i) FROM n";

    #[test]
    fn a_sound_copy_passes() {
        let (_dir, path) = database(SQL, |_| ());
        assert_eq!(integrity(&open(&path, None).unwrap()).status, Status::Pass);
    }

    #[test]
    fn a_row_that_differs_from_its_index_fails_and_is_named() {
        let (_dir, path) = database(SQL, |file| {
            let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let at = bytes.windows(11).position(|window| window == b"value 00250").unwrap();
            file.write_all_at(b"valuE", at as u64).unwrap();
        });
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Fail);
        assert!(check.detail.contains("index i"), "{}", check.detail);
    }

    #[test]
    fn a_zeroed_page_fails() {
        let (_dir, path) = database(SQL, |file| file.write_all_at(&[0; 4096], 4096).unwrap());
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Fail, "{}", check.detail);
    }

    #[test]
    fn many_problems_are_cut_short() {
        let (_dir, path) = database(SQL, |file| {
            let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            for at in 0..bytes.len() - 5 {
                if &bytes[at..at + 5] == b"value" && at / 4096 < 4 {
                    file.write_all_at(b"valuE", at as u64).unwrap();
                }
            }
        });
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Fail);
        assert_eq!(check.detail.lines().count(), LISTED + 1, "{}", check.detail);
        assert!(check.detail.ends_with("\n… and more"), "{}", check.detail);
    }

    #[test]
    fn an_unknown_collation_is_unchecked_but_structural_damage_still_fails() {
        let sql = format!(
            "{SQL}; CREATE TABLE c(x COLLATE NOCASE UNIQUE); INSERT INTO c VALUES (1), (2);"
        );
        let rename = |file: &std::fs::File| {
            let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let at = bytes.windows(14).position(|window| window == b"COLLATE NOCASE").unwrap();
            file.write_all_at(b"COLLATE APPCOL", at as u64).unwrap();
        };
        let (_dir, path) = database(&sql, rename);
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Unchecked, "{}", check.detail);
        assert!(check.detail.contains("1 of 2 table(s) checked"), "{}", check.detail);
        let read = "only that their rows can be read, 1: c (no such collation sequence: APPCOL)";
        assert!(check.detail.contains(read), "{}", check.detail);

        // What SQLite only reports, and what stops it.
        let (_dir, differing) = database(&sql, |file| {
            rename(file);
            let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let at = bytes.windows(11).position(|window| window == b"value 00250").unwrap();
            file.write_all_at(b"valuE", at as u64).unwrap();
        });
        let check = integrity(&open(&differing, None).unwrap());
        assert!(check.status == Status::Fail && check.detail.contains("index i"), "{check:?}");
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&[0; 4096], 4096)
            .unwrap();
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Fail, "{}", check.detail);
    }

    /// Changes the first `from` of the file.
    fn replace(file: &std::fs::File, from: &[u8], to: &[u8]) {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        file.write_all_at(to, at as u64).unwrap();
    }

    /// Longer than what a drill reads elsewhere, and as long as memory allows no index to hold.
    const LONG: &str = "CREATE TABLE long(n, x); INSERT INTO long VALUES (1, zeroblob(20000000))";
    const TOO_LONG: &str = "CREATE TABLE long(n, x UNIQUE); CREATE INDEX long_n ON long(n); \
        INSERT INTO long VALUES (1, zeroblob(60000000))";

    /// Made by another process: once a test of this one has opened a copy, its SQLite may not take that much memory.
    fn too_long(damage: impl Fn(&std::fs::File)) -> (tempfile::TempDir, std::path::PathBuf) {
        let (dir, path) = database(SQL, |_| ());
        let make = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
        let mut python = std::process::Command::new("python3");
        let made = python.args(["-c", make]).arg(&path).arg(TOO_LONG).status().unwrap();
        assert!(made.success(), "{made}");
        damage(&std::fs::File::options().read(true).write(true).open(&path).unwrap());
        (dir, path)
    }

    #[test]
    fn a_long_value_keeps_nothing_from_being_checked() {
        let (_dir, path) = database(&format!("{SQL}; {LONG}"), |_| ());
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!((check.status, check.detail.as_str()), (Status::Pass, "ok"));
        let damage = |file: &std::fs::File| replace(file, b"value 00250", b"valuE 00250");
        let (_dir, path) = database(&format!("{SQL}; {LONG}"), damage);
        let check = integrity(&open(&path, None).unwrap());
        assert!(check.status == Status::Fail && check.detail.contains("index i"), "{check:?}");
    }

    #[test]
    fn a_row_that_memory_cannot_hold_leaves_its_table_alone_unchecked() {
        let (_dir, path) = too_long(|_| ());
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Unchecked, "{}", check.detail);
        let words = "1 of 2 table(s) checked; only their structure (quick_check), 1: long (";
        assert!(check.detail.contains(words), "{}", check.detail);
        let damage = |file: &std::fs::File| replace(file, b"value 00250", b"valuE 00250");
        let (_dir, path) = too_long(damage);
        let check = integrity(&open(&path, None).unwrap());
        assert!(check.status == Status::Fail && check.detail.contains("index i"), "{check:?}");
    }

    #[test]
    fn an_unknown_tokenizer_leaves_its_table_alone_unchecked() {
        let sql = format!(
            "{SQL}; CREATE VIRTUAL TABLE notes USING fts5(body, tokenize='porter'); \
             INSERT INTO notes VALUES ('hello')"
        );
        let unknown =
            |file: &std::fs::File| replace(file, b"tokenize='porter'", b"tokenize='appown'");
        let (_dir, path) = database(&sql, unknown);
        let check = integrity(&open(&path, None).unwrap());
        assert_eq!(check.status, Status::Unchecked, "{}", check.detail);
        assert!(check.detail.contains("6 of 7 table(s) checked"), "{}", check.detail);
        assert!(
            check.detail.contains("only that their rows can be read, 1: notes ("),
            "{}",
            check.detail
        );
        let (_dir, path) = database(&sql, |file| {
            unknown(file);
            replace(file, b"value 00250", b"valuE 00250");
        });
        let check = integrity(&open(&path, None).unwrap());
        assert!(check.status == Status::Fail && check.detail.contains("index i"), "{check:?}");
    }

    #[test]
    fn where_nothing_could_be_checked_it_is_no_pass() {
        let refusal = rusqlite::Error::InvalidQuery;
        let nothing = Share { nothing: vec!["t (why)".to_owned()], ..Share::default() };
        let check = nothing.judge(1, false, &refusal);
        assert!(check.status == Status::Error && check.detail.contains("\nHINT: "), "{check:?}");
        let one = Share { nothing: vec!["t (why)".to_owned()], whole: 1, ..Share::default() };
        assert_eq!(one.judge(2, false, &refusal).status, Status::Unchecked);
        let all = || Share { whole: 2, ..Share::default() };
        assert_eq!(all().judge(2, false, &refusal).status, Status::Unchecked);
        assert_eq!(all().judge(2, true, &refusal).status, Status::Pass);
    }
}
