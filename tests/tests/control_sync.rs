//! `shipper sync`: what it acknowledges is in the bucket, and nothing else is acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::process::Process;
use seaworthy_tests::shipping::{Shipping, same_rows};
use seaworthy_tests::writer::{self, Writer};

fn commit(path: &Path, name: &str) {
    let mut db = Connection::open(path).unwrap();
    // SQLite's own handler sleeps so long that, on one core, a writer that never rests keeps it out for a minute.
    db.busy_handler(Some(|tries| {
        std::thread::sleep(Duration::from_micros(100));
        tries < 3_000_000
    }))
    .unwrap();
    // A table that the writer beside it leaves alone.
    db.execute_batch("CREATE TABLE IF NOT EXISTS marker (name)").unwrap();
    db.execute("INSERT INTO marker (name) VALUES (?1)", [name]).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The shipper is killed right after the acknowledgement: nothing that comes later can help.
fn lost(mut shipper: Process) {
    shipper.kill().unwrap();
}

#[test]
fn what_was_acknowledged_is_restored_after_the_server_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    // An interval that no test waits for: a sync does not, either.
    let shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&["app"]).unwrap();
    commit(&at("app.db"), "the last one");
    let output = shipping.sync(&[]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("app: in the bucket up to TXID 00000000000000"), "{text}");
    lost(shipper);
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
}

#[test]
fn a_busy_writer_does_not_keep_a_sync_from_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let shipper = shipping.start(&[("app", &at("app.db"))], "100ms").unwrap();
    let writer = Writer::start(&at("app.db"), 7, Duration::ZERO);
    for round in 0..5 {
        let name = format!("round {round}");
        commit(&at("app.db"), &name);
        shipping.sync(&[]).unwrap();
        let copy = at(&format!("copy-{round}.db"));
        shipping.restore("app", &copy).unwrap();
        let copy = Connection::open(copy).unwrap();
        let sql = "SELECT count(*) FROM marker WHERE name = ?1";
        let there: i64 = copy.query_row(sql, [&name], |row| row.get(0)).unwrap();
        assert_eq!(there, 1, "{name} was acknowledged");
    }
    writer.stop().unwrap();
    lost(shipper);
}

#[test]
fn nothing_is_acknowledged_while_the_bucket_is_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    fs::write(at("replica"), "in the way").unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "100ms").unwrap();
    let failed = || {
        let told = shipping.status(1);
        told.is_ok_and(|told| told["databases"][0]["last_error"].is_string())
    };
    shipper.until(failed).unwrap();
    let output = shipping.ask(&["sync", "--timeout", "3s"], 1).unwrap();
    let text = said(&output);
    assert!(text.contains("app: not in the bucket after 3s: "), "{text}");
    assert!(output.stdout.is_empty());
    fs::remove_file(at("replica")).unwrap();
    shipping.sync(&[]).unwrap();
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
    shipper.stop().unwrap();
}

/// The final sync: nobody asked for what was committed after the last sync.
#[test]
fn what_was_committed_before_a_stop_is_in_the_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&[]).unwrap();
    commit(&at("app.db"), "the last one");
    shipper.stop().unwrap();
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
}

#[test]
fn each_database_that_is_not_shipped_is_named_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("good.db"), 4096, 10).unwrap();
    let (good, missing) = (at("good.db"), at("missing.db"));
    let mut shipper = shipping.start(&[("good", &good), ("missing", &missing)], "100ms").unwrap();
    let output = shipping.ask(&["sync", "--timeout", "300s"], 1).unwrap();
    let text = said(&output);
    assert!(text.contains("missing: not attached: ") && text.contains("no such file"), "{text}");
    assert!(text.contains("\nHINT: "), "{text}");
    let done = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(done.contains("good: in the bucket"), "{done}");
    shipping.sync(&["good"]).unwrap();
    let text = said(&shipping.ask(&["sync", "goof"], 2).unwrap());
    assert!(text.contains("no database is named goof\nHINT: did you mean good?"), "{text}");
    // Created now, and asked for: nobody waits for the next try.
    writer::create(&missing, 4096, 10).unwrap();
    shipping.sync(&["missing"]).unwrap();
    shipper.stop().unwrap();
}

#[test]
fn without_a_running_shipper_nothing_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 10).unwrap();
    shipping.configure(&[("app", &at("app.db"))], "1s").unwrap();
    for command in ["sync", "status"] {
        let text = said(&shipping.ask(&[command], 1).unwrap());
        assert!(text.contains("no shipper is running") && text.contains("\nHINT: "), "{text}");
    }
    let shipper = shipping.start(&[("app", &at("app.db"))], "1s").unwrap();
    shipping.sync(&[]).unwrap();
    lost(shipper);
    let text = said(&shipping.ask(&["sync"], 1).unwrap());
    assert!(text.contains("no shipper is running"), "a dead one's socket is nobody: {text}");
    // The next one takes the dead one's place.
    let mut next = shipping.start(&[("app", &at("app.db"))], "1s").unwrap();
    shipping.sync(&[]).unwrap();
    next.stop().unwrap();
    let text = said(&shipping.ask(&["sync"], 1).unwrap());
    assert!(text.contains("no shipper is running"), "{text}");
}
