//! Makes a record's document fit into a bounded row.

use serde_json::{Value, json};

use crate::record::Record;

/// The document as JSON, at most `limit` bytes long: what is longest loses half until it fits (the
/// row counts, the assertions' values, the steps, the damaged files, or the detail of one check), and
/// `truncated` lists what was lost. A document that fits is the record, nothing else.
pub fn document(record: &Record, limit: usize) -> Result<String, serde_json::Error> {
    let whole = serde_json::to_value(record)?;
    let mut text = whole.to_string();
    let mut document = whole.clone();
    // Each round halves the longest part, so that this ends after some twenty rounds a part.
    while text.len() > limit && shorten(&mut document) {
        let lost = losses(&whole, &document);
        document["truncated"] = json!(lost);
        text = document.to_string();
    }
    Ok(text)
}

/// Where the parts are that may grow long, as JSON pointers.
fn parts(document: &Value) -> Vec<String> {
    let lists = ["/tables", "/values", "/steps", "/other_files/damaged"].map(str::to_owned);
    let checks = document["checks"].as_array().map_or(0, Vec::len);
    let details = (0..checks).map(|index| format!("/checks/{index}/detail"));
    lists.into_iter().chain(details).collect()
}

/// Halves the longest part; `false` where nothing is left to lose.
fn shorten(document: &mut Value) -> bool {
    let length = |pointer: &String| match document.pointer(pointer) {
        Some(part) if size(part) > 0 => part.to_string().len(),
        _ => 0,
    };
    let longest = parts(document).into_iter().max_by_key(length);
    match longest.and_then(|pointer| document.pointer_mut(&pointer)) {
        Some(part) if size(part) > 0 => {
            halve(part);
            true
        }
        _ => false,
    }
}

/// What a part is counted in: entries, or bytes of text.
fn size(part: &Value) -> usize {
    match part {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        Value::String(text) => text.len(),
        _ => 0,
    }
}

fn halve(part: &mut Value) {
    match part {
        Value::Object(map) => {
            let keep = map.len() / 2;
            let gone: Vec<String> = map.keys().skip(keep).cloned().collect();
            for name in &gone {
                map.remove(name);
            }
        }
        Value::Array(list) => list.truncate(list.len() / 2),
        Value::String(text) => {
            *text = text.chars().take(text.chars().count() / 2).collect();
        }
        _ => {}
    }
}

fn losses(whole: &Value, document: &Value) -> Vec<String> {
    let mut lost = Vec::new();
    for pointer in parts(whole) {
        let sizes = whole.pointer(&pointer).map(size).zip(document.pointer(&pointer).map(size));
        let Some((had, kept)) = sizes.filter(|(had, kept)| kept < had) else { continue };
        let gone = had - kept;
        let check = pointer.strip_suffix("/detail").and_then(|check| whole.pointer(check));
        lost.push(match check {
            Some(check) => {
                let name = check["name"].as_str().unwrap_or_default();
                format!("{name}: {gone} of {had} bytes left out")
            }
            None => {
                format!("{}: {gone} of {had} left out", pointer[1..].replace('/', "."))
            }
        });
    }
    lost
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::record::{Check, Point, Status, Verdict};

    fn record(tables: usize, detail: usize) -> Record {
        let at = "2026-11-22T09:00:00Z".parse().unwrap();
        Record {
            database: "app".into(),
            generation: None,
            txid: None,
            point: Point { asked: "latest".into(), restored_at: None, txid: None, seed: None },
            verdict: Verdict::Fail,
            checks: vec![Check::new("integrity_check", Status::Fail, "é".repeat(detail))],
            tables: (0..tables).map(|n| (format!("table_{n:06}"), n as u64)).collect(),
            size: None,
            schema: None,
            values: [].into(),
            steps: Vec::new(),
            other_files: None,
            instead: None,
            restore: None,
            lag_seconds: None,
            source_match: None,
            started_at: at,
            finished_at: at,
            versions: [].into(),
        }
    }

    #[test]
    fn what_fits_is_left_alone() {
        let record = record(10, 10);
        let text = document(&record, 100_000).unwrap();
        assert_eq!(text, serde_json::to_string(&serde_json::to_value(&record).unwrap()).unwrap());
    }

    #[test]
    fn the_longest_list_goes_first_and_it_says_so() {
        let long_tables = document(&record(50_000, 100), 100_000).unwrap();
        assert!(long_tables.len() <= 100_000);
        let value: Value = serde_json::from_str(&long_tables).unwrap();
        assert_eq!(value["checks"][0]["detail"].as_str().unwrap().chars().count(), 100);
        let said = value["truncated"][0].as_str().unwrap();
        let kept = value["tables"].as_object().unwrap().len();
        assert_eq!(said, format!("tables: {} of 50000 left out", 50_000 - kept));
        assert!(kept > 1000, "{kept}: no more than needed is lost");

        let long_detail = document(&record(3, 400_000), 100_000).unwrap();
        assert!(long_detail.len() <= 100_000);
        let value: Value = serde_json::from_str(&long_detail).unwrap();
        assert_eq!(value["tables"].as_object().unwrap().len(), 3);
        assert!(value["truncated"][0].as_str().unwrap().starts_with("integrity_check: "));
        assert!(serde_json::from_value::<Record>(value).is_ok(), "still a record");
    }

    #[test]
    fn values_and_damaged_files_are_cut_too() {
        let mut record = record(3, 10);
        let text = |n: usize| (format!("rule {n:04}"), json!("x".repeat(100)));
        record.values = (0..1000).map(text).collect();
        let damaged = crate::record::DamagedFile {
            object: "x".repeat(100),
            problem: "y".repeat(100),
            spoiled_points: 1,
            first: None,
            last: None,
        };
        let damaged = vec![damaged; 1000];
        record.other_files = Some(crate::record::OtherFiles { damaged, ..Default::default() });
        let value: Value = serde_json::from_str(&document(&record, 50_000).unwrap()).unwrap();
        assert!(value.to_string().len() <= 50_000);
        let said = value["truncated"].to_string();
        for part in ["values: ", "other_files.damaged: "] {
            assert!(said.contains(part), "{said}");
        }
        let read: Record = serde_json::from_value(value).unwrap();
        assert!(read.values.len() > 50 && read.tables.len() == 3);
        assert!(serde_json::from_str::<Value>(&document(&record, 10).unwrap()).is_ok());
    }
}
