//! A record for a terminal.

use std::fmt::Write as _;

use crate::record::Record;

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
    if let Some(lag) = record.lag_seconds {
        let _ = writeln!(text, "  lag         {lag:.3} s");
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
    if !record.tables.is_empty() {
        let _ = writeln!(text, "  tables");
        let width = record.tables.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, rows) in &record.tables {
            let _ = writeln!(text, "    {name:<width$}  {rows:>12} rows");
        }
    }
    text
}
