//! `integrity_check`: SQLite's own, over the whole copy.
//!
//! It needs every collation that the schema uses. Where one is unknown here, the tables are checked one by
//! one, so that damage in the others still fails the copy; the rest leaves the check `unchecked`.

use rusqlite::Connection;

use crate::checks::{LISTED, is_unknown, quoted, refused};
use crate::record::{Check, Status};

const NAME: &str = "integrity_check";

/// Runs the check.
#[must_use]
pub fn integrity(copy: &Connection) -> Check {
    match problems(copy, &(LISTED + 1).to_string()) {
        Ok(problems) if problems.is_empty() => Check::new(NAME, Status::Pass, "ok"),
        Ok(problems) => Check::new(NAME, Status::Fail, listed(&problems)),
        Err(error) if is_unknown(&error.to_string()) => table_by_table(copy, &error),
        Err(error) => refused(NAME, &error),
    }
}

fn table_by_table(copy: &Connection, unknown: &rusqlite::Error) -> Check {
    let tables = match table_names(copy) {
        Ok(tables) => tables,
        Err(error) => return refused(NAME, &error),
    };
    let mut left_out = Vec::new();
    for table in &tables {
        match problems(copy, &quoted(table)) {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => return Check::new(NAME, Status::Fail, listed(&problems)),
            Err(error) if is_unknown(&error.to_string()) => left_out.push(table.as_str()),
            Err(error) => return refused(NAME, &error),
        }
    }
    let count = left_out.len();
    left_out.truncate(LISTED);
    let detail = format!(
        "{unknown}: this program has no such extension; {} table(s) ok, {count} not checked: {}",
        tables.len() - count,
        left_out.join(", ")
    );
    Check::new(NAME, Status::Unchecked, detail)
}

fn table_names(copy: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    statement.query_map((), |row| row.get(0))?.collect()
}

/// The rows of the pragma that are not `ok`; its argument is a bound, or a table.
fn problems(copy: &Connection, argument: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare(&format!("PRAGMA integrity_check({argument})"))?;
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
        assert!(check.detail.contains("APPCOL"), "{}", check.detail);

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
}
