//! `shipper doctor`: each thing that is wrong is a line of its own, with what to do; and nothing is changed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::shipping::Shipping;
use seaworthy_tests::writer;

fn doctor(shipping: &Shipping, expected: i32) -> String {
    String::from_utf8(shipping.ask(&["doctor"], expected).unwrap().stdout).unwrap()
}

/// Makes the header say that SQLite 3.46.1 wrote last.
fn written_by_old_sqlite(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[96..100].copy_from_slice(&3_046_001_u32.to_be_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn rights_are_neither_missing_nor_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let server = S3Server::start();
    let options = format!("endpoint = \"{}\"", server.endpoint);
    let url = server.url("web-1");
    let shipping = Shipping::new(directory.path(), &url, &options, server.environment());
    let app = directory.path().join("app.db");
    writer::create(&app, 4096, 10).unwrap();
    shipping.configure(&[("app", &app)], "1s").unwrap();
    // Nothing runs yet: no more than a warning, and nothing is written anywhere.
    let told = doctor(&shipping, 0);
    assert!(told.contains("warn  no shipper is running"), "{told}");
    assert!(told.contains("nothing was shipped there yet"), "{told}");
    assert!(told.contains("warn  ") && told.contains("may list it"), "{told}");
    assert!(told.contains("may delete from it"), "{told}");
    assert_eq!((server.counts().put(), server.keys().len()), (0, 0), "nothing was written");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "database and configuration");

    server.deny(&["ListObjectsV2", "DeleteObject"]);
    let mut shipper = shipping.start(&[("app", &app)], "100ms").unwrap();
    shipping.sync(&[]).unwrap();
    let keys = || server.keys().iter().any(|key| key.ends_with("heartbeat.json"));
    shipper.until(keys).unwrap();
    let before = server.keys();
    let told = doctor(&shipping, 0);
    for line in [
        "ok    s3://test-bucket/web-1/app: can be read",
        "ok    this machine's clock agrees with the store's",
        "ok    s3://test-bucket/web-1/app: the running shipper writes to it",
        "ok    s3://test-bucket/web-1/app: what is there cannot be overwritten",
        "ok    s3://test-bucket/web-1/app: may not be listed",
        "ok    s3://test-bucket/web-1/app: may not be deleted from",
        "journal_mode=DELETE fails",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(server.keys(), before, "nothing was written");
    server.deny(&["ListObjectsV2", "DeleteObject", "GetObject"]);
    let told = doctor(&shipping, 1);
    assert!(told.contains("fail  s3://test-bucket/web-1/app: ") && told.contains("HINT"), "{told}");
    shipper.stop().unwrap();
}

#[test]
fn a_database_that_cannot_be_shipped_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    let db = Connection::open(at("rollback.db")).unwrap();
    db.execute_batch("CREATE TABLE t (a)").unwrap();
    drop(db);
    writer::create(&at("old.db"), 4096, 10).unwrap();
    writer::checkpoint_truncate(&at("old.db")).unwrap();
    written_by_old_sqlite(&at("old.db"));
    let (rollback, old, none) = (at("rollback.db"), at("old.db"), at("none.db"));
    shipping.configure(&[("rollback", &rollback), ("old", &old), ("none", &none)], "1s").unwrap();
    let told = doctor(&shipping, 1);
    for line in [
        "fail  rollback: ",
        "not in WAL mode",
        "ok    old: ",
        "warn  old: last written by SQLite 3.46.1",
        "fail  none: ",
        "no such file",
        "free for state_dir",
        "open files enough for 3 databases",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!at("replica").exists() && !at("state").exists(), "nothing was written");
}
