//! One module for each command: arguments in, effects and one result out.

pub mod doctor;
pub mod points;
pub mod reset;
pub mod restore;
pub mod run;
pub mod status;
pub mod sync;

use std::io::Write;

use anyhow::Context;
use replica::operator::{Usage, nearest, usage};

/// Prints a result to stdout.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to stdout")
}

/// Prints one JSON document to stdout.
fn print_json(document: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{document:#}\n"))
}

/// Bytes as people read them: `454.2 MB`.
fn readable_bytes(bytes: u64) -> String {
    let mut unit = "bytes";
    let mut size = bytes as f64;
    for next in ["kB", "MB", "GB", "TB"] {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{size:.1} {unit}") }
}

/// No database has this name, of those that the running shipper knows.
fn unknown_database(name: &str, known: &[String]) -> Usage {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    usage(match nearest(name, &known) {
        Some(near) => format!("no database is named {name}\nHINT: did you mean {near}?"),
        None => format!(
            "no database is named {name}\nHINT: `shipper status` lists those that the running shipper knows"
        ),
    })
}
