//! Makes a record's document fit into a bounded row.

use serde_json::{Value, json};

use crate::record::Record;

/// The document as JSON, at most `limit` bytes long: what is longest loses half until it fits (the
/// row counts, or the detail of one check), and `truncated` lists what was lost. A document
/// that fits is the record, nothing else.
pub fn document(record: &Record, limit: usize) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(record)?;
    let mut text = document.to_string();
    // Each round halves the longest part, so that this ends after some twenty rounds.
    while text.len() > limit && shorten(&mut document) {
        let lost = losses(record, &document);
        document["truncated"] = json!(lost);
        text = document.to_string();
    }
    Ok(text)
}

/// Halves the longest part; `false` where nothing is left to lose.
fn shorten(document: &mut Value) -> bool {
    let tables = document["tables"].to_string().len();
    let check = document["checks"].as_array().and_then(|checks| {
        let lengths = checks.iter().map(|check| check["detail"].as_str().map_or(0, str::len));
        lengths.enumerate().max_by_key(|(_, length)| *length)
    });
    match check {
        Some((index, length)) if length >= tables => {
            let detail = document["checks"][index]["detail"].as_str().unwrap_or_default();
            let half: String = detail.chars().take(detail.chars().count() / 2).collect();
            document["checks"][index]["detail"] = json!(half);
            length > 0
        }
        _ => {
            let Some(tables) = document["tables"].as_object_mut() else { return false };
            let keep = tables.len() / 2;
            let gone: Vec<String> = tables.keys().skip(keep).cloned().collect();
            for name in &gone {
                tables.remove(name);
            }
            !gone.is_empty()
        }
    }
}

fn losses(record: &Record, document: &Value) -> Vec<String> {
    let mut lost = Vec::new();
    let kept = document["tables"].as_object().map_or(0, serde_json::Map::len);
    if kept < record.tables.len() {
        lost.push(format!(
            "tables: {} of {} left out",
            record.tables.len() - kept,
            record.tables.len()
        ));
    }
    for (index, check) in record.checks.iter().enumerate() {
        let kept = document["checks"][index]["detail"].as_str().map_or(0, str::len);
        if kept < check.detail.len() {
            let gone = check.detail.len() - kept;
            lost.push(format!("{}: {gone} of {} bytes left out", check.name, check.detail.len()));
        }
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
            point: Point { asked: "latest".into(), restored_at: None, txid: None },
            verdict: Verdict::Fail,
            checks: vec![Check::new("integrity_check", Status::Fail, "é".repeat(detail))],
            tables: (0..tables).map(|n| (format!("table_{n:06}"), n as u64)).collect(),
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
}
