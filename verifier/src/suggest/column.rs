//! Which column of a table moves with the clock, and how old it may become.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use crate::checks::quoted;
use crate::rules::moment;

/// Columns of a table that are looked at.
const COLUMNS_AT_MOST: usize = 100;
/// Newest values that tell how often rows come.
const VALUES: usize = 200;
/// A query that takes longer is no assertion for every drill.
const SLOW: Duration = Duration::from_secs(5);
/// A column whose newest value is older says nothing of today.
const STALE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A row in the future by more is a plan (an expiry, a due date), not an event.
const FUTURE: SignedDuration = SignedDuration::from_hours(1);
/// The shortest age proposed.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
/// The longest.
const LONGEST: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A column that moves with the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The column.
    pub column: String,
    /// Its newest value.
    pub newest: Timestamp,
    /// How old that was when it was looked at (not negative).
    pub age: SignedDuration,
    /// How old it may be in a drill: whole hours.
    pub max_age: SignedDuration,
}

/// The column with the newest value, of those whose names or types speak of time and whose newest values all are times.
pub(super) fn newest(copy: &Connection, table: &str, at: Timestamp) -> Option<Newest> {
    let columns = columns(copy, table).unwrap_or_default();
    let candidates = columns.into_iter().filter_map(|column| of_column(copy, table, column, at));
    candidates.max_by(|a, b| a.newest.cmp(&b.newest).then_with(|| b.column.cmp(&a.column)))
}

fn columns(copy: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = copy.prepare("SELECT name, type FROM pragma_table_info(?1)")?;
    let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut columns = Vec::new();
    for row in rows.take(COLUMNS_AT_MOST) {
        let (name, kind): (String, String) = row?;
        if speaks_of_time(&name, &kind) {
            columns.push(name);
        }
    }
    Ok(columns)
}

fn speaks_of_time(name: &str, kind: &str) -> bool {
    let (name, kind) = (name.to_ascii_lowercase(), kind.to_ascii_uppercase());
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let in_name =
        ["created", "updated", "modified", "inserted", "changed", "time", "date", "logged"]
            .iter()
            .any(|part| name.contains(part))
            || words.iter().any(|word| ["at", "on", "ts", "when"].contains(word));
    let planned = ["expire", "due", "until", "valid", "birth", "schedul", "deadline"];
    let in_kind = ["DATE", "TIME"].iter().any(|part| kind.contains(part));
    (in_name || in_kind) && !planned.iter().any(|part| name.contains(part))
}

/// The query whose first value is the newest.
pub(super) fn query(table: &str, column: &str) -> String {
    format!("SELECT max({}) FROM {}", quoted(column), quoted(table))
}

fn of_column(copy: &Connection, table: &str, column: String, at: Timestamp) -> Option<Newest> {
    let began = Instant::now();
    let first = copy.query_row(&query(table, &column), (), |row| Ok(moment(row.get_ref(0)?)));
    let newest = first.ok().flatten()?;
    if began.elapsed() > SLOW || newest > at + FUTURE {
        return None;
    }
    let times = times(copy, table, &column).ok().flatten()?;
    let age = at.duration_since(newest).max(SignedDuration::ZERO);
    let max_age = max_age(age, &times)?;
    Some(Newest { column, newest, age, max_age })
}

/// The newest values, newest first; `None` where one of them is no time.
fn times(copy: &Connection, table: &str, column: &str) -> rusqlite::Result<Option<Vec<Timestamp>>> {
    let (name, table) = (quoted(column), quoted(table));
    let sql = format!(
        "SELECT {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY {name} DESC LIMIT {VALUES}"
    );
    let mut statement = copy.prepare(&sql)?;
    let mut rows = statement.query(())?;
    let mut times = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(time) = moment(row.get_ref(0)?) else { return Ok(None) };
        times.push(time);
    }
    Ok(Some(times))
}

/// How old the newest row may be: twice what it is, four times the longest pause between the last rows, in whole hours
/// (days from two days on); `None` where that says nothing.
fn max_age(age: SignedDuration, times: &[Timestamp]) -> Option<SignedDuration> {
    if age > STALE {
        return None;
    }
    let pauses = times.windows(2).map(|pair| pair[0].duration_since(pair[1]).abs());
    let pause = pauses.max().unwrap_or(SignedDuration::ZERO);
    let wanted = pause.checked_mul(4)?.max(age.checked_mul(2)?).max(SHORTEST);
    let hours = wanted.as_secs().checked_add(3599)? / 3600;
    let hours = if hours > 48 { hours.checked_add(23)? / 24 * 24 } else { hours };
    let rounded = SignedDuration::from_hours(hours);
    (rounded <= LONGEST).then_some(rounded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at() -> Timestamp {
        "2026-11-22T09:00:00Z".parse().unwrap()
    }

    fn found(sql: &str) -> Option<Newest> {
        let copy = Connection::open_in_memory().unwrap();
        copy.execute_batch(sql).unwrap();
        newest(&copy, "t", at())
    }

    #[test]
    fn times_are_found_by_name_or_type_and_by_their_values() {
        for (sql, expected) in [
            (
                "CREATE TABLE t(created_at); INSERT INTO t VALUES ('2026-11-22 08:30:00')",
                Some("created_at"),
            ),
            ("CREATE TABLE t(x DATETIME); INSERT INTO t VALUES (1795337000)", Some("x")),
            ("CREATE TABLE t(ts INTEGER); INSERT INTO t VALUES (1795337000123)", Some("ts")),
            (
                "CREATE TABLE t(a, b); INSERT INTO t VALUES ('2026-11-22 08:30:00', 1795337000)",
                None,
            ),
            ("CREATE TABLE t(created_at); INSERT INTO t VALUES ('yesterday')", None),
            ("CREATE TABLE t(created_at); INSERT INTO t VALUES ('2026-11-22'), ('2026-1-x')", None),
            ("CREATE TABLE t(created_at); INSERT INTO t VALUES (NULL)", None),
            ("CREATE TABLE t(created_at)", None),
            ("CREATE TABLE t(expires_at); INSERT INTO t VALUES ('2026-11-22 08:30:00')", None),
            ("CREATE TABLE t(paid_at); INSERT INTO t VALUES ('2027-11-22 08:30:00')", None),
            ("CREATE TABLE t(paid_at); INSERT INTO t VALUES ('2025-11-22 08:30:00')", None),
            (
                "CREATE TABLE t(created_at, updated_at);
                 INSERT INTO t VALUES ('2026-11-20 08:30:00', '2026-11-22 08:30:00')",
                Some("updated_at"),
            ),
            (
                "CREATE TABLE t(\"a \"\" date\"); INSERT INTO t VALUES ('2026-11-22')",
                Some("a \" date"),
            ),
        ] {
            assert_eq!(found(sql).map(|newest| newest.column).as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn the_age_has_a_margin_and_is_rounded_up() {
        let hours = SignedDuration::from_hours;
        let times = |ages: &[i64]| ages.iter().map(|age| at() - hours(*age)).collect::<Vec<_>>();
        for (age, ages, expected) in [
            (0, vec![0], Some(1)),
            (3, vec![3], Some(6)),
            (1, vec![1, 2, 8], Some(24)),
            (0, vec![0, 13], Some(72)),
            (29 * 24, vec![29 * 24], Some(58 * 24)),
            (31 * 24, vec![31 * 24], None),
            (1, vec![1, 40 * 24], None),
        ] {
            assert_eq!(max_age(hours(age), &times(&ages)), expected.map(hours), "{age} {ages:?}");
        }
    }
}
