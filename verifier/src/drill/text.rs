//! A record for a terminal.

use std::fmt::Write as _;

use crate::record::{Record, Step};

/// Verdict first, then the point, the checks, the tables. Ends with a line break.
#[must_use]
pub fn text(record: &Record) -> String {
    let mut text = String::new();
    // Writing into a `String` cannot fail.
    let _ = writeln!(text, "{}  {}", record.verdict, record.database);
    let txid = record.point.txid.map_or("none".to_owned(), |txid| txid.to_string());
    let at = record.point.restored_at.map_or(String::new(), |at| format!(", state of {at}"));
    let _ = writeln!(text, "  point       {} -> TXID {txid}{at}", record.point.asked);
    if let Some(generation) = record.generation {
        let _ = writeln!(text, "  generation  {generation}");
    }
    if let Some(restore) = &record.restore {
        let _ = writeln!(
            text,
            "  restore     {:.3} s, {} bytes in {} objects",
            restore.seconds, restore.bytes, restore.objects
        );
    }
    if let Some(size) = &record.size {
        let _ = writeln!(
            text,
            "  size        {} bytes, {} pages of {}",
            size.bytes, size.page_count, size.page_size
        );
    }
    if let Some(lag) = record.lag_seconds {
        let _ = writeln!(text, "  lag         {lag:.3} s");
    }
    if let Some(slowest) = slowest(&record.steps) {
        let _ = writeln!(text, "  slowest     {slowest}");
    }
    let _ = writeln!(text, "  checks");
    let width = record.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &record.checks {
        let mut lines = check.detail.lines();
        let first = lines.next().unwrap_or_default();
        let _ =
            writeln!(text, "    {:<9}  {:<width$}  {first}", check.status.to_string(), check.name);
        for line in lines {
            let _ = writeln!(text, "    {:<9}  {:<width$}  {line}", "", "");
        }
    }
    if !record.values.is_empty() {
        let _ = writeln!(text, "  values");
        let width = record.values.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &record.values {
            let _ = writeln!(text, "    {name:<width$}  {value}");
        }
    }
    if !record.tables.is_empty() {
        let _ = writeln!(text, "  tables");
        let width = record.tables.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, rows) in &record.tables {
            let _ = writeln!(text, "    {name:<width$}  {rows:>12} rows");
        }
    }
    printable(&text)
}

/// What a database or a bucket calls its things must not steer the terminal.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

/// Steps that are worth naming.
const SLOWEST: usize = 3;

/// The slowest steps, and what all took together; `None` where nothing took time.
fn slowest(steps: &[Step]) -> Option<String> {
    let mut by_time: Vec<&Step> = steps.iter().filter(|step| step.seconds > 0.0).collect();
    by_time.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let named: Vec<String> = by_time
        .iter()
        .take(SLOWEST)
        .map(|step| format!("{} {:.3} s", step.name, step.seconds))
        .collect();
    let all: f64 = steps.iter().map(|step| step.seconds).sum();
    (!named.is_empty()).then(|| format!("{} (of {all:.3} s)", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_reaches_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\n");
    }

    #[test]
    fn the_slowest_steps_come_first() {
        let step = |name: &str, seconds| Step { name: name.to_owned(), seconds };
        let steps = [
            step("list", 0.5),
            step("restore", 9.0),
            step("schema", 0.0),
            step("tables", 2.0),
            step("x", 0.1),
        ];
        let expected = "restore 9.000 s, tables 2.000 s, list 0.500 s (of 11.600 s)";
        assert_eq!(slowest(&steps).as_deref(), Some(expected));
        assert_eq!(slowest(&[]), None);
    }
}
