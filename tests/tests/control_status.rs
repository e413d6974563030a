//! `shipper status` and the socket behind it: what is told, who may ask, and that no client hurts shipping.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use seaworthy_tests::process::PATIENCE;
use seaworthy_tests::shipping::{Shipping, same_rows};
use seaworthy_tests::writer;
use serde_json::Value;

/// Swaps two paths at once: were nothing there for a moment, the shipper would begin anew.
fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

#[test]
fn every_database_is_told_with_what_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let (app, missing) = (at("app.db"), at("missing.db"));
    let mut shipper = shipping.start(&[("app", &app), ("missing", &missing)], "100ms").unwrap();
    shipping.sync(&["app"]).unwrap();
    Connection::open(&app).unwrap().execute_batch("CREATE TABLE more (a)").unwrap();
    shipping.sync(&["app"]).unwrap();
    // Written by the verifier, elsewhere.
    let receipt = r#"{"version":1,"drill_id":"7","generation":null,"txid":"000000000000001a",
        "restored_at":"2026-11-22T09:30:00Z","finished_at":"2026-11-22T09:31:00Z"}"#;
    fs::write(at("replica/app/receipt.json"), receipt).unwrap();
    let told = shipping.status(1).unwrap();
    let [app, missing] = told["databases"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&app["database"], &app["state"]), (&"app".into(), &"fresh".into()), "{told}");
    assert_eq!(app["phase"], "shipping");
    assert_eq!(app["lag_seconds"], 0.0, "{told}");
    assert_eq!((&app["last_error"], &app["unguarded"]), (&Value::Null, &false.into()));
    assert!(app["txid"].is_string() && app["generation"].is_string(), "{told}");
    assert!(app["wal_bytes"].is_u64() && app["locks"]["taken"].is_u64(), "{told}");
    assert_eq!((&app["spool_files"], &app["spool_bytes"]), (&0.into(), &0.into()));
    assert_eq!(missing["state"], "not_attached");
    let reason = missing["reason"].as_str().unwrap();
    assert!(reason.contains("no such file") && reason.contains("\nHINT: "), "{reason}");
    let output = shipping.ask(&["status"], 1).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["fresh", "not attached", "  HINT: "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A receipt that takes more than two seconds to read is told a minute later.
    let told =
        || shipping.status(1).unwrap()["databases"][0]["receipt"]["txid"] == "000000000000001a";
    shipper.until(told).unwrap();
    let output = shipping.ask(&["status"], 1).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2026-11-22T09:31:00Z"), "{text}");
    writer::create(&at("missing.db"), 4096, 1).unwrap();
    shipping.sync(&[]).unwrap();
    shipping.status(0).unwrap();
    shipper.stop().unwrap();
}

#[test]
fn what_does_not_reach_the_bucket_is_stuck() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "100ms").unwrap();
    shipping.sync(&[]).unwrap();
    fs::write(at("elsewhere"), "in the way").unwrap();
    exchange(&at("replica"), &at("elsewhere"));
    Connection::open(at("app.db")).unwrap().execute_batch("CREATE TABLE more (a)").unwrap();
    let stuck = || {
        shipping.status(1).is_ok_and(|told| {
            let app = &told["databases"][0];
            app["state"] == "stuck" && app["last_error"].is_string() && app["spool_files"] != 0
        })
    };
    shipper.until(stuck).unwrap();
    exchange(&at("replica"), &at("elsewhere"));
    shipping.sync(&[]).unwrap();
    shipping.status(0).unwrap();
    shipper.stop().unwrap();
}

/// What the shipper answers to raw bytes: one line, or nothing.
fn answer(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may hang up before everything is written.
    let _ = stream.write_all(request);
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

#[test]
fn no_client_hurts_shipping_or_other_clients() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    writer::create(&at("app.db"), 4096, 100).unwrap();
    let mut shipper = shipping.start(&[("app", &at("app.db"))], "100ms").unwrap();
    let socket = at("run/shipper.sock");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&at("run")), mode(&socket)), (0o700, 0o600), "only the owner may ask");

    for request in ["nonsense\n", "{\"command\":\"stop\"}\n", "{}\n", "\n", "[[[[[[\n"] {
        let answer = answer(&socket, request.as_bytes());
        assert!(answer.contains("refused") && answer.contains("HINT"), "{request}: {answer}");
    }
    // Longer than any request: cut off, not read to its end.
    answer(&socket, &vec![b'x'; 10 << 20]);
    // More clients than there is room for, that say nothing, or ask for long syncs and go away.
    let silent: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    fs::write(at("elsewhere"), "in the way").unwrap();
    exchange(&at("replica"), &at("elsewhere"));
    let db = Connection::open(at("app.db")).unwrap();
    db.execute_batch("CREATE TABLE more (a)").unwrap();
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ =
            stream.write_all(b"{\"command\":\"sync\",\"database\":null,\"timeout_ms\":3600000}\n");
        waiting.push(stream);
    }
    drop(silent);
    // Some were refused: there is a bound, and somebody who asks how it stands is still answered.
    let mut last = String::new();
    let mut stream = waiting.pop().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut last).unwrap();
    assert!(last.contains("syncs wait already"), "{last}");
    // Exit code 1 once it has noticed what is in the way.
    shipper.until(|| shipping.ask(&["status"], 1).is_ok()).unwrap();
    drop(waiting);
    exchange(&at("replica"), &at("elsewhere"));
    shipping.sync(&[]).unwrap();
    shipper.stop().unwrap();
    assert!(!socket.exists(), "removed at the end");
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("app.db")).unwrap();
}
