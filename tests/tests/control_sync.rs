//! `shipper sync`: what it acknowledges is in the bucket, and nothing else is acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use seaworthy_tests::process::Process;
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::shipping::{Shipping, same_rows};
use seaworthy_tests::writer::{self, Writer};
use serde_json::Value;

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

/// Asks whether all is well until the answer is `well`, and gives the last error.
fn until_status(shipping: &Shipping, shipper: &mut Process, well: bool) -> String {
    let mut told = String::new();
    let asked = shipper.until(|| match shipping.status(i32::from(!well)) {
        Ok(status) => {
            told = status["databases"][0]["last_error"].as_str().unwrap_or_default().to_owned();
            true
        }
        Err(_) => false,
    });
    asked.unwrap_or_else(|error| panic!("{error:#}"));
    told
}

/// A bucket that was emptied by somebody: asked for by a sync although nothing was committed since, and at a start.
#[test]
fn a_chain_that_is_gone_ends_in_a_new_generation() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let server = S3Server::start();
    let options = format!("endpoint = \"{}\"\nregion = \"us-east-1\"", server.endpoint);
    let shipping =
        Shipping::new(directory.path(), &server.url("gone"), &options, server.environment());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    commit(&at("app.db"), "first");
    shipping.sync(&[]).unwrap();
    let ltx = |part: &str| {
        let keys = server.keys();
        keys.into_iter().filter(|key| key.contains(part)).collect::<Vec<_>>()
    };
    // The shipper's key may not list: what is not there is then refused.
    let check = |shipper: &Process, copy: &str, denied: &[&str]| {
        server.deny(denied);
        shipping.sync(&[]).unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
        server.deny(&[]);
        shipping.restore("app", &at(copy)).unwrap();
        same_rows(&at(copy), &at("app.db")).unwrap();
    };
    let list = ["ListObjectsV2"];
    // Everything; then the snapshot alone; then the newest file alone, while no shipper runs.
    ltx("app/").iter().for_each(|key| server.remove(key));
    check(&shipper, "all.db", &[]);
    assert!(shipper.output().contains("what this shipper wrote is gone"), "{}", shipper.output());
    assert!(shipper.output().contains("a new generation begins"), "{}", shipper.output());
    ltx("/0009/").iter().for_each(|key| server.remove(key));
    check(&shipper, "snapshot.db", &list);
    commit(&at("app.db"), "second");
    shipping.sync(&[]).unwrap();
    shipper.stop().unwrap();
    let newest = ltx("/0000/").pop().unwrap();
    server.remove(&newest);
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipper.until_it_says("a new generation begins").unwrap();
    check(&shipper, "tip.db", &list);
    until_status(&shipping, &mut shipper, true);
    shipper.stop().unwrap();
}

/// A key that may read nothing, or a store that is away, says nothing about what is there.
#[test]
fn a_store_that_refuses_does_not_end_a_generation() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let server = S3Server::start();
    let options = format!("endpoint = \"{}\"\nregion = \"us-east-1\"", server.endpoint);
    let shipping =
        Shipping::new(directory.path(), &server.url("denied"), &options, server.environment());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipping.sync(&[]).unwrap();
    server.deny(&["HeadObject"]);
    let output = shipping.ask(&["sync", "--timeout", "3s"], 1).unwrap();
    assert!(said(&output).contains("access denied"), "{}", said(&output));
    until_status(&shipping, &mut shipper, false);
    server.deny(&[]);
    shipping.sync(&[]).unwrap();
    until_status(&shipping, &mut shipper, true);
    shipper.stop().unwrap();
    assert!(!shipper.output().contains("a new generation begins"), "{}", shipper.output());
}

/// A replica on a disk that is not mounted: its mount point is an empty directory.
#[test]
fn an_unmounted_replica_is_waited_for_and_not_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipping.sync(&[]).unwrap();
    let away = || {
        fs::rename(at("replica"), at("elsewhere")).unwrap();
        fs::create_dir(at("replica")).unwrap();
    };
    let back = || {
        fs::remove_dir(at("replica")).expect("nothing was written to the mount point");
        fs::rename(at("elsewhere"), at("replica")).unwrap();
    };
    away();
    commit(&at("app.db"), "while it is away");
    let output = shipping.ask(&["sync", "--timeout", "3s"], 1).unwrap();
    let text = said(&output);
    assert!(text.contains("has lost its mark") && text.contains("HINT: is the disk"), "{text}");
    until_status(&shipping, &mut shipper, false);
    back();
    shipping.sync(&[]).unwrap();
    // The same at a start.
    shipper.stop().unwrap();
    away();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    let told = until_status(&shipping, &mut shipper, false);
    assert!(told.contains("has lost its mark"), "{told}");
    let doctor = shipping.ask(&["doctor"], 1).unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("has lost its mark"));
    back();
    shipping.sync(&[]).unwrap();
    assert!(!shipper.output().contains("a new generation begins"), "{}", shipper.output());
    // Emptied on purpose, the mark with it.
    fs::remove_dir_all(at("replica")).unwrap();
    shipping.ask(&["sync", "--timeout", "3s"], 1).unwrap();
    shipping.ask(&["reset", "app", "--why", "emptied on purpose"], 0).unwrap();
    shipper.until_it_says("emptied on purpose").unwrap();
    shipping.sync(&[]).unwrap();
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
    shipper.stop().unwrap();
}

#[test]
fn a_reset_begins_a_generation_and_the_old_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipping.sync(&[]).unwrap();
    let generation = || shipping.status(0).unwrap()["databases"][0]["generation"].clone();
    let old = generation();
    let refused = said(&shipping.ask(&["reset", "apq"], 2).unwrap());
    assert!(refused.contains("no database is named apq\nHINT: did you mean app?"), "{refused}");
    shipping.ask(&["reset", "app", "--why", "to see it"], 0).unwrap();
    shipper.until_it_says("an operator asked for it: to see it").unwrap();
    shipping.sync(&[]).unwrap();
    let new = generation();
    assert!(new.is_string() && new != old, "{old} {new}");
    for (copy, generation) in [("new.db", new), ("old.db", old)] {
        let options = ["--generation", generation.as_str().unwrap()];
        shipping.restore_with("app", &at(copy), &options).unwrap();
        same_rows(&at(copy), &at("app.db")).unwrap();
    }
    shipper.stop().unwrap();
}

/// What a drill found reaches the shipper, once.
#[test]
fn a_receipt_that_wants_a_repair_ends_its_own_generation_only() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipping.sync(&[]).unwrap();
    let generation = || shipping.status(0).unwrap()["databases"][0]["generation"].clone();
    let old = generation();
    shipper.stop().unwrap();
    let receipt = serde_json::json!({ "repair_wanted": {
        "generation": old, "at": "2026-11-22T12:00:00Z", "why": "checksum of page 7" } });
    fs::write(at("replica/app/receipt.json"), receipt.to_string()).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipper.until_it_says("could not restore this generation: checksum of page 7").unwrap();
    shipping.sync(&[]).unwrap();
    let new = generation();
    assert_ne!(new, old);
    shipper.stop().unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "50ms").unwrap();
    shipping.sync(&[]).unwrap();
    assert_eq!(generation(), new, "the receipt names another one");
    shipper.stop().unwrap();
}

/// The state directory is lost, the server goes on, and is lost right after the next acknowledgement.
#[test]
fn a_new_generation_is_the_latest_once_it_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&["app"]).unwrap();
    let first = heartbeat(directory.path());
    lost(shipper);
    fs::remove_dir_all(at("state")).unwrap();
    commit(&at("app.db"), "after the loss");
    let shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&["app"]).unwrap();
    lost(shipper);
    let second = heartbeat(directory.path());
    assert_ne!(first["generation"], second["generation"], "it is named before it is acknowledged");
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
}

/// By the headers' times, which is all that a store of files has.
#[test]
fn a_new_generation_is_the_latest_although_the_clock_went_back() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&["app"]).unwrap();
    lost(shipper);
    fs::remove_dir_all(at("state")).unwrap();
    // An hour ago the clock was an hour ahead.
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    let mut beat = heartbeat(directory.path());
    beat["written_at"] = jiff::Timestamp::try_from(ahead).unwrap().to_string().into();
    let path = at("replica/app/heartbeat.json");
    fs::write(&path, beat.to_string()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(ahead).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    commit(&at("app.db"), "behind the snapshot");
    shipping.sync(&["app"]).unwrap();
    shipper.stop().unwrap();
    let generation = heartbeat(directory.path())["generation"].as_str().unwrap().to_owned();
    let snapshot = format!("replica/app/{generation}/ltx/9/{0:016x}-{0:016x}.ltx", 1);
    let modified = fs::metadata(at(&snapshot)).unwrap().modified().unwrap();
    assert!(modified >= ahead - Duration::from_millis(1), "{modified:?} is before {ahead:?}");
}

#[test]
fn a_heartbeat_that_cannot_be_written_is_told_and_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    // No file takes the place of a directory.
    fs::create_dir_all(at("replica/app/heartbeat.json/taken")).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&["app"]).unwrap();
    shipper
        .until(|| {
            let told = shipping.status(0).unwrap();
            told["databases"][0]["heartbeat_error"].is_string()
        })
        .unwrap();
    shipper.stop().unwrap();
    assert!(shipper.output().contains("write heartbeat"), "{}", shipper.output());
}

#[test]
fn another_host_that_ships_the_same_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipping.sync(&["app"]).unwrap();
    assert!(heartbeat(directory.path())["other_host"].is_null());
    shipper.stop().unwrap();
    let mut beat = heartbeat(directory.path());
    beat["host"] = "web-2".into();
    fs::write(at("replica/app/heartbeat.json"), beat.to_string()).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "1h").unwrap();
    shipper.until(|| heartbeat(directory.path())["other_host"]["host"] == "web-2").unwrap();
    let told = shipping.status(0).unwrap();
    assert_eq!(told["databases"][0]["other_host"]["host"], "web-2", "{told}");
    shipping.sync(&["app"]).unwrap();
    shipper.stop().unwrap();
    assert!(
        shipper.output().contains("another host shipped this database"),
        "{}",
        shipper.output()
    );
}

/// The last heartbeat; nothing while there is none.
fn heartbeat(directory: &Path) -> Value {
    let text = fs::read(directory.join("replica/app/heartbeat.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
