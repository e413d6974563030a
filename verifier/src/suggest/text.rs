//! A survey as a commented `drill.toml`.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;

use crate::suggest::{Survey, Table, column};

impl Survey {
    /// The proposal: valid TOML that the copy passes. Ends with a line break.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        let _ = writeln!(
            text,
            "# What must be true of a restored copy of {}\n\
             # Proposed by `verifier suggest` from its state at {}. Edit it: you know what\n\
             # must never be missing. Put it beside the generations, as drill.toml.\n",
            comment(&self.url),
            self.at,
        );
        if self.tables.is_empty() {
            let _ = writeln!(text, "# No table has rows yet: suggest again when some have.\n");
        }
        for table in &self.tables {
            table_rule(&mut text, table);
        }
        if self.left_out > 0 {
            let _ =
                writeln!(text, "# {} smaller table(s) with rows are left out.\n", self.left_out);
        }
        if self.empty > 0 {
            let _ = writeln!(text, "# {} table(s) have no rows.\n", self.empty);
        }
        for table in &self.tables {
            assertion(&mut text, table);
        }
        let _ = match (&self.foreign_keys_trouble, self.foreign_keys) {
            (Some(trouble), _) => writeln!(
                text,
                "# A drill would not pass its foreign_key_check today: {}\n",
                comment(trouble)
            ),
            (None, 0) => writeln!(text, "# The schema has no foreign keys.\n"),
            (None, keys) => writeln!(
                text,
                "# The schema has {keys} foreign key(s); every drill checks them, no rule is needed.\n"
            ),
        };
        let _ = writeln!(
            text,
            "[budget]\n\
             # The restore took {:.1} s; three times that is allowed.\n\
             restore = \"{}\"\n\
             # The most that may be lost, where somebody watches the copy's age:\n\
             # lag = \"1m\"",
            self.restore.as_secs_f64(),
            budget(self.restore),
        );
        text
    }
}

fn table_rule(text: &mut String, table: &Table) {
    let _ = writeln!(
        text,
        "[[table]]\nname = {}\n# {} row(s) now\nmin_rows = {}\n# max_change = \"20%\"    # against the last PASS\n",
        string(&table.name),
        table.rows,
        least_rows(table.rows),
    );
}

fn assertion(text: &mut String, table: &Table) {
    let Some(newest) = &table.newest else { return };
    let _ = writeln!(
        text,
        "[[assert]]\nname = {}\n# the newest was {} old: {}\nsql = {}\nmax_age = \"{}h\"\n",
        string(&format!("{} keep coming", table.name)),
        readable(newest.age),
        newest.newest,
        string(&column::query(&table.name, &newest.column)),
        newest.max_age.as_hours(),
    );
}

/// Half of the rows, rounded down to one digit; at least 1.
fn least_rows(rows: u64) -> u64 {
    let half = (rows / 2).max(1);
    let digit = 10_u64.saturating_pow(half.ilog10());
    half / digit * digit
}

/// Three times the restore, in whole minutes.
fn budget(restore: Duration) -> String {
    let seconds = restore.as_secs().saturating_add(1).saturating_mul(3);
    format!("{}m", seconds.div_ceil(60))
}

fn readable(age: SignedDuration) -> String {
    let minutes = age.as_mins();
    match minutes {
        0..=119 => format!("{minutes} min"),
        120..=2879 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / (24 * 60)),
    }
}

/// A text in a comment: on one line, whatever is in it.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A TOML basic string.
fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rusqlite::Connection;

    use super::*;
    use crate::rules::{Judged, Rules};

    fn survey(sql: &str) -> (Connection, Survey) {
        let copy = Connection::open_in_memory().unwrap();
        copy.execute_batch(sql).unwrap();
        let at = "2026-11-22T09:00:00Z".parse().unwrap();
        let survey = Survey::of(&copy, "file:///b/app", at, Duration::from_millis(2300)).unwrap();
        (copy, survey)
    }

    /// What is proposed can be read, and holds of the copy that it was read from.
    fn holds(copy: &Connection, survey: &Survey) -> Rules {
        let rules = Rules::parse("drill.toml", &survey.to_toml()).unwrap();
        for table in &rules.tables {
            let sql = format!("SELECT count(*) FROM {}", crate::checks::quoted(&table.name));
            let rows: i64 = copy.query_row(&sql, (), |row| row.get(0)).unwrap();
            assert!(table.min_rows.unwrap() <= u64::try_from(rows).unwrap(), "{table:?}");
        }
        for assertion in &rules.assertions {
            let judged = copy
                .query_row(&assertion.sql, (), |row| {
                    Ok(assertion.expectation().judge_value(Some(row.get_ref(0)?), survey.at))
                })
                .unwrap();
            assert!(matches!(judged, Judged::Holds(_)), "{assertion:?}: {judged:?}");
        }
        assert!(rules.budget.restore.unwrap().get() >= survey.restore * 3);
        rules
    }

    #[test]
    fn a_shop_gets_rules_that_it_passes() {
        let (copy, survey) = survey(
            "CREATE TABLE customers(id INTEGER PRIMARY KEY, name);
             CREATE TABLE orders(id INTEGER PRIMARY KEY, customer REFERENCES customers, created_at TEXT);
             CREATE TABLE carts(id);
             INSERT INTO customers VALUES (1, 'a'), (2, 'b'), (3, 'c');
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO orders SELECT i, 1 + i % 3, datetime('2026-11-22 08:50:00', '-' || (500 - i) || ' minutes') FROM n;",
        );
        let rules = holds(&copy, &survey);
        let names: Vec<&str> = rules.tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["orders", "customers"]);
        assert_eq!(rules.tables[0].min_rows, Some(200));
        assert_eq!(rules.assertions.len(), 1);
        assert_eq!(rules.assertions[0].name, "orders keep coming");
        assert_eq!(rules.assertions[0].sql, "SELECT max(\"created_at\") FROM \"orders\"");
        let text = survey.to_toml();
        for part in [
            "has 1 foreign key(s)",
            "1 table(s) have no rows",
            "max_age = \"1h\"",
            "restore = \"1m\"",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn hostile_names_stay_names() {
        let (copy, mut survey) = survey(
            "CREATE TABLE \"a\"\"b\\c
             [budget]\"(\"x
             date\" TEXT); INSERT INTO \"a\"\"b\\c
             [budget]\" VALUES ('2026-11-22 08:00:00')",
        );
        survey.url = "file:///a\nmin_rows = 7".to_owned();
        let rules = holds(&copy, &survey);
        assert_eq!((rules.tables.len(), rules.assertions.len()), (1, 1));
        assert_eq!(rules.tables[0].name, survey.tables[0].name);
    }

    #[test]
    fn an_empty_database_gets_a_file_that_can_be_read() {
        let (copy, survey) = survey("CREATE TABLE t(x)");
        assert!(holds(&copy, &survey).tables.is_empty());
        let (copy, survey) = survey_with_broken_keys();
        holds(&copy, &survey);
        assert!(survey.to_toml().contains("would not pass its foreign_key_check"));
    }

    fn survey_with_broken_keys() -> (Connection, Survey) {
        survey(
            "PRAGMA foreign_keys = OFF; CREATE TABLE p(id INTEGER PRIMARY KEY);
             CREATE TABLE c(p REFERENCES p); INSERT INTO c VALUES (7)",
        )
    }

    #[test]
    fn many_rows_become_a_round_number() {
        for (rows, least) in [(1, 1), (2, 1), (3, 1), (39, 10), (500, 200), (123_456, 60_000)] {
            assert_eq!(least_rows(rows), least);
        }
    }
}
