//! `source_match` from end to end: a running shipper compares the live source with what it ships, says so in its heartbeat,
//! and the drill makes a proof of it, or an alarm.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use seaworthy_tests::drill_support::{Surroundings, detail, status};
use seaworthy_tests::process::Process;
use seaworthy_tests::shipping::Shipping;
use serde_json::{Value, json};

struct Scene {
    world: Surroundings,
    directory: tempfile::TempDir,
    shipping: Shipping,
}

impl Scene {
    fn new() -> Self {
        let (world, directory) = (Surroundings::new().unwrap(), tempfile::tempdir().unwrap());
        // The lines after [replica]'s: what a scrub found is news also of an idle database.
        let options = "[heartbeat]\nevery = \"1s\"\nidle_every = \"1h\"";
        let shipping = Shipping::new(directory.path(), &world.url(""), options, Vec::new());
        Self { world, directory, shipping }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    fn start(&self) -> Process {
        self.shipping.start(&[("app", &self.source())], "100ms").unwrap()
    }

    /// What the heartbeat says of the last scrub.
    fn scrub(&self) -> Value {
        let text = fs::read(self.world.replica("app").join("heartbeat.json")).unwrap_or_default();
        let heartbeat: Value = serde_json::from_slice(&text).unwrap_or_default();
        heartbeat["scrub"].clone()
    }

    /// Starts the shipper, which then compares, and waits for a heartbeat that says so.
    fn scrubbed(&self) -> (Process, Value) {
        let before = self.scrub();
        let mut shipper = self.start();
        let mut scrub = Value::Null;
        // The first heartbeat of a run comes before its scrub.
        let told = || {
            scrub = self.scrub();
            !scrub.is_null() && scrub != before
        };
        shipper.until(told).unwrap();
        self.shipping.sync(&["app"]).unwrap();
        (shipper, scrub)
    }
}

/// Changes one letter of the file, as a broken disk or a careless copy would.
fn change_behind_sqlite(path: &Path, from: &str, to: &str) {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(to.as_bytes(), at as u64).unwrap();
}

#[test]
fn a_scrub_of_the_live_source_makes_the_proof_and_what_it_finds_fails_the_drill() {
    let scene = Scene::new();
    // Open to the end, so that the WAL stays, and the shipper goes on from where it was.
    let application = Connection::open(scene.source()).unwrap();
    application
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE ballast(note TEXT); CREATE TABLE log(at TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO ballast SELECT printf('ballast %05d', i) FROM n;
             PRAGMA wal_checkpoint(TRUNCATE)",
        )
        .unwrap();
    let commit = || application.execute_batch("INSERT INTO log VALUES (datetime())").unwrap();

    // The first start: the scrub comes right after the snapshot.
    let (mut shipper, scrub) = scene.scrubbed();
    assert_eq!(scrub["mismatches"], 0);
    commit();
    let record = scene.world.drill(&["app"], 0).unwrap();
    assert_eq!(record["source_match"], json!(true), "{record:#}");
    let named = format!(
        "scrub of {} at TXID {} found the source equal",
        scrub["finished_at"].as_str().unwrap(),
        scrub["txid"].as_str().unwrap()
    );
    assert!(detail(&record, "source_match").contains(&named), "{named}: {record:#}");
    shipper.stop().unwrap();

    change_behind_sqlite(&scene.source(), "ballast 00250", "Ballast 00250");
    let (mut shipper, scrub) = scene.scrubbed();
    assert_eq!(scrub["mismatches"], 1, "{}", shipper.output());
    assert!(shipper.output().contains("the source differs from what was shipped"));
    let record = scene.world.drill(&["app"], 1).unwrap();
    assert_eq!(
        (record["verdict"].as_str(), status(&record, "source_match"), &record["source_match"]),
        (Some("FAIL"), "fail", &json!(false)),
        "{record:#}"
    );
    let words = detail(&record, "source_match");
    let when = scrub["finished_at"].as_str().unwrap();
    for part in [when, "1 page(s) of the source differed from what was shipped", "\nHINT: "] {
        assert!(words.contains(part), "{part}: {words}");
    }
    shipper.stop().unwrap();

    // What differed was shipped anew: the next scrub is clean, and ends the alarm.
    let (mut shipper, scrub) = scene.scrubbed();
    assert_eq!(scrub["mismatches"], 0, "{}", shipper.output());
    let record = scene.world.drill(&["app"], 0).unwrap();
    assert_eq!(record["source_match"], json!(true), "{record:#}");
    shipper.stop().unwrap();
}
