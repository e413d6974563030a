//! `tables`: every table of the copy can be read to its end; their row counts go into the record.
//!
//! A table that had many rows at the last PASS and has none now fails, and so does a database that lost its last row,
//! unless a `[[table]]` rule of `drill.toml` judges that table: small queues run empty, and an emptied business does
//! not go unnoticed. Every other change is said.
//!
//! SQLite's own tables, views and the shadow tables behind virtual ones are left out. Virtual tables are
//! opened and named but not counted: their rows stand in the shadow tables, and their code may be unknown here.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, ErrorCode};

use crate::checks::{LISTED, quoted, refused};
use crate::record::{Check, Record, Status};
use crate::rules::TableRule;

const NAME: &str = "tables";

/// Rows that no queue is expected to hold and then lose between two drills.
pub(crate) const MANY_ROWS: u64 = 100;

/// The names of what the application calls a table.
#[derive(Debug, Default)]
pub struct TableNames {
    /// Tables with rows of their own.
    pub ordinary: BTreeSet<String>,
    /// Virtual ones.
    pub virtual_: BTreeSet<String>,
}

impl TableNames {
    /// Asks the copy.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(copy: &Connection) -> rusqlite::Result<Self> {
        let mut statement = copy.prepare(
            "SELECT name, type = 'table' FROM pragma_table_list WHERE schema = 'main' \
             AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )?;
        let rows = statement
            .query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
        let mut names = Self::default();
        for row in rows {
            let (name, is_ordinary) = row?;
            if is_ordinary {
                names.ordinary.insert(name)
            } else {
                names.virtual_.insert(name)
            };
        }
        Ok(names)
    }

    /// Whether there is a table of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.ordinary.contains(name) || self.virtual_.contains(name)
    }
}

/// Counts the rows of every table, and compares with the record of the last PASS (where that is comparable).
#[must_use]
pub fn tables(
    copy: &Connection,
    before: Option<&Record>,
    rules: &[TableRule],
) -> (Check, BTreeMap<String, u64>) {
    let mut counts = BTreeMap::new();
    let names = match TableNames::read(copy) {
        Ok(names) => names,
        Err(error) => return (refused(NAME, &error), counts),
    };
    let mut unchecked = Vec::new();
    for table in names.ordinary {
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
    for table in &names.virtual_ {
        match opened(copy, table) {
            Ok(()) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                let check = refused(NAME, &error);
                return (Check { detail: format!("{table}: {}", check.detail), ..check }, counts);
            }
            Err(error) => unchecked.push(format!("{table}: {error}")),
        }
    }
    if let Some(before) = before
        && let Some(check) = emptied(&counts, before, rules)
    {
        return (check, counts);
    }
    if !unchecked.is_empty() {
        unchecked.truncate(LISTED);
        return (Check::new(NAME, Status::Unchecked, unchecked.join("\n")), counts);
    }
    let rows: u64 = counts.values().sum();
    let mut detail = format!("{} table(s), {rows} row(s)", counts.len());
    if !names.virtual_.is_empty() {
        detail.push_str("; virtual, not counted: ");
        detail.push_str(&names.virtual_.into_iter().take(LISTED).collect::<Vec<_>>().join(", "));
    }
    if let Some(before) = before {
        detail.push_str(&changes(&counts, before));
    }
    (Check::new(NAME, Status::Pass, detail), counts)
}

/// Asks the code behind a virtual table whether it can work with what it has.
fn opened(copy: &Connection, table: &str) -> rusqlite::Result<()> {
    copy.prepare(&format!("SELECT 1 FROM {}", quoted(table))).map(drop)
}

/// The failed check where rows are gone that should not be.
fn emptied(counts: &BTreeMap<String, u64>, before: &Record, rules: &[TableRule]) -> Option<Check> {
    let is_ruled = |name: &str| rules.iter().any(|rule| rule.name == name);
    let had = before.tables.iter().filter(|(name, rows)| **rows > 0 && !is_ruled(name));
    let emptied: Vec<(&String, u64)> =
        had.filter(|(name, _)| counts.get(*name) == Some(&0)).map(|(n, rows)| (n, *rows)).collect();
    let is_void = counts.values().all(|rows| *rows == 0);
    let listed: Vec<String> = emptied
        .iter()
        .filter(|(_, rows)| is_void || *rows >= MANY_ROWS)
        .take(LISTED)
        .map(|(name, rows)| format!("{name}: expected some of {rows} rows, actual 0"))
        .collect();
    if listed.is_empty() {
        return None;
    }
    let detail = format!(
        "emptied since the PASS of {}:\n{}\n\
         HINT: a table that may run empty gets a rule in drill.toml: [[table]] name = \"…\", min_rows = 0",
        before.finished_at,
        listed.join("\n")
    );
    Some(Check::new(NAME, Status::Fail, detail))
}

/// What is different from the last PASS, the biggest changes first.
fn changes(counts: &BTreeMap<String, u64>, before: &Record) -> String {
    let mut changed: Vec<(u64, String)> = counts
        .iter()
        .filter_map(|(name, &rows)| match before.tables.get(name) {
            Some(&earlier) if earlier == rows => None,
            Some(&earlier) if earlier < rows => {
                Some((rows - earlier, format!("{name} {rows} (+{})", rows - earlier)))
            }
            Some(&earlier) => {
                Some((earlier - rows, format!("{name} {rows} (-{})", earlier - rows)))
            }
            None => Some((rows, format!("{name} {rows} (new)"))),
        })
        .collect();
    let since = format!("since the PASS of {}", before.finished_at);
    if changed.is_empty() {
        return format!("; as many in each {since}");
    }
    changed.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let more = if changed.len() > LISTED { ", …" } else { "" };
    let listed: Vec<String> = changed.into_iter().take(LISTED).map(|(_, words)| words).collect();
    format!("\n{since}: {}{more}", listed.join(", "))
}

/// The rows of a table.
pub(super) fn count(copy: &Connection, table: &str) -> rusqlite::Result<u64> {
    // NOT INDEXED: the table's own pages are read, not a smaller index in their place.
    let sql = format!("SELECT count(*) FROM {} NOT INDEXED", quoted(table));
    copy.query_row(&sql, (), |row| row.get::<_, i64>(0))
        .map(|rows| u64::try_from(rows).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::drill::{Asked, Draft};

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
        let (check, counts) = tables(&db, None, &[]);
        assert_eq!(check.status, Status::Pass);
        let expected = [("orders", 2), ("odd \" name", 0), ("w", 1), ("sqlitey", 0)];
        assert_eq!(counts, expected.map(|(name, rows)| (name.to_owned(), rows)).into());
        assert_eq!(check.detail, "4 table(s), 3 row(s); virtual, not counted: notes");
    }

    /// The check of a database in a file, whose bytes `damage` changes.
    fn check_file(sql: &str, damage: impl Fn(&std::fs::File)) -> Check {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        damage(&std::fs::File::options().write(true).open(&path).unwrap());
        tables(&crate::checks::open(&path, None).unwrap(), None, &[]).0
    }

    #[test]
    fn a_table_that_cannot_be_read_fails_whatever_its_indexes_say() {
        use std::os::unix::fs::FileExt;
        let sql = "CREATE TABLE t(x, a, b, c, d, e); CREATE INDEX i ON t(x); \
                   INSERT INTO t VALUES (1, 2, 3, 4, 5, 6)";
        assert_eq!(check_file(sql, |_| ()).status, Status::Pass);
        // Page 2 is the table, page 3 the index.
        let check = check_file(sql, |file| file.write_all_at(&[0; 4096], 4096).unwrap());
        assert_eq!(check.status, Status::Fail, "{}", check.detail);
        assert!(check.detail.starts_with("t: "), "{}", check.detail);
    }

    #[test]
    fn a_virtual_table_fails_where_it_is_corrupt_and_is_unchecked_where_it_is_unknown() {
        let corrupt = "CREATE VIRTUAL TABLE places USING rtree(id, low, high); \
                       UPDATE places_node SET data = x'00'";
        let check = check_file(corrupt, |_| ());
        assert_eq!(check.status, Status::Fail, "{}", check.detail);
        assert!(check.detail.starts_with("places: "), "{}", check.detail);
        let unknown = "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES \
                       ('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING nobodys(x)')";
        let check = check_file(unknown, |_| ());
        assert_eq!(check.status, Status::Unchecked, "{}", check.detail);
        assert!(check.detail.contains("no such module: nobodys"), "{}", check.detail);
    }

    fn check(now: &[(&str, u64)], earlier: &[(&str, u64)], ruled: &[&str]) -> Check {
        let db = Connection::open_in_memory().unwrap();
        for (name, rows) in now {
            db.execute_batch(&format!(
                "CREATE TABLE {name}(x); WITH RECURSIVE n(i) AS \
                 (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO {name} SELECT i FROM n LIMIT {rows}"
            ))
            .unwrap();
        }
        let at = "2026-11-22T09:00:00Z".parse().unwrap();
        let mut before = Draft::new("app", &Asked::LATEST, at).record;
        before.tables = earlier.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
        let rule = |name: &&str| TableRule {
            name: (*name).to_owned(),
            min_rows: Some(0),
            max_change: None,
        };
        tables(&db, Some(&before), &ruled.iter().map(rule).collect::<Vec<_>>()).0
    }

    #[test]
    fn what_ran_empty_fails_and_what_changed_is_said() {
        type Rows<'a> = &'a [(&'a str, u64)];
        let cases: [(Rows<'_>, Rows<'_>, &[&str], Status, &str); 8] = [
            (&[("a", 5), ("b", 1)], &[("a", 5), ("b", 1)], &[], Status::Pass, "as many in each"),
            (&[("a", 5), ("b", 9)], &[("a", 7), ("b", 1)], &[], Status::Pass, "b 9 (+8), a 5 (-2)"),
            (&[("a", 5), ("c", 2)], &[("a", 5)], &[], Status::Pass, "c 2 (new)"),
            (&[("a", 5), ("q", 0)], &[("a", 5), ("q", 99)], &[], Status::Pass, "q 0 (-99)"),
            (
                &[("a", 5), ("q", 0)],
                &[("a", 5), ("q", 100)],
                &[],
                Status::Fail,
                "q: expected some of 100",
            ),
            (&[("a", 5), ("q", 0)], &[("a", 5), ("q", 100)], &["q"], Status::Pass, "q 0 (-100)"),
            (
                &[("a", 0), ("q", 0)],
                &[("a", 1), ("q", 0)],
                &[],
                Status::Fail,
                "a: expected some of 1",
            ),
            (&[("a", 0)], &[("a", 1)], &["a"], Status::Pass, "a 0 (-1)"),
        ];
        for (now, earlier, ruled, status, words) in cases {
            let check = check(now, earlier, ruled);
            assert_eq!(check.status, status, "{now:?} {earlier:?}: {}", check.detail);
            assert!(check.detail.contains(words), "{words:?} in {}", check.detail);
        }
    }
}
