//! An old file is put over the live one: by `mv` and by `cp`, with the log removed and beside an empty one, with the
//! shipper attached and while it is stopped.
//!
//! The source stays sound and loses nothing that was committed after it, and the replica ends up as the source.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::application::Application;
use seaworthy_tests::scene::Scene;
use seaworthy_tests::{bank, writer};

const TURN: Duration = Duration::from_millis(500);
/// Most pages stay as they were.
const LITTLE: &[&str] = &["pause_us=50000"];

/// Grows the database by a thousand pages, which are free then.
fn grow(source: &Path) {
    let sql = "CREATE TABLE filler (x); INSERT INTO filler VALUES (randomblob(4000000)); DROP TABLE filler";
    Connection::open(source).unwrap().execute_batch(sql).unwrap();
}

/// How an old file comes to lie where the live one was.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// `mv`: another inode.
    Moved,
    /// `cp`: the same inode.
    Copied,
}

/// The application works, stops, gets an old file, works on from there.
fn old_file(way: Way, log_removed: bool, attached: bool) {
    println!("{way:?}, log removed: {log_removed}, shipper attached: {attached}");
    let scene = Scene::new(4096, 0).unwrap();
    let (old, source) = (scene.at("old.db"), scene.source.clone());
    // The old file is as long as the live one, however fast this machine is: what else can be is the test below.
    grow(&source);
    let mut shipper = scene.start().unwrap();
    let kept = scene.work(&[]).unwrap();
    writer::checkpoint_truncate(&source).unwrap();
    fs::copy(&source, &old).unwrap();
    scene.work(&[]).unwrap();
    if !attached {
        shipper.stop().unwrap();
    }
    if log_removed {
        // As it is after a crash: not all of the log is in the database file.
        let application = Application::start(&source, &["spill=1"]).unwrap();
        std::thread::sleep(TURN);
        application.kill().unwrap();
        scene.remove_log();
    } else {
        writer::checkpoint_truncate(&source).unwrap();
    }
    match way {
        Way::Moved => fs::rename(&old, &source).unwrap(),
        Way::Copied => drop(fs::copy(&old, &source).unwrap()),
    }
    let after = scene.work(LITTLE).unwrap();
    if !attached {
        shipper = scene.start().unwrap();
    }
    scene.until_shipped(&mut shipper).unwrap();
    let more = scene.work(LITTLE).unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    // Nothing that the application was told is committed got lost on our account.
    assert_eq!(bank::Ledger::default().check(&source).unwrap(), kept + after + more);
    assert_eq!(states.last().unwrap().count, kept + after + more, "{}", shipper.output());
}

#[test]
fn an_old_file_moved_over_the_live_one() {
    for attached in [true, false] {
        old_file(Way::Moved, true, attached);
    }
    // Beside a log that somebody has open, SQLite itself takes the new file for the old one: only with all stopped.
    old_file(Way::Moved, false, false);
}

#[test]
fn an_old_file_copied_over_the_live_one_beside_an_empty_log() {
    for attached in [true, false] {
        old_file(Way::Copied, false, attached);
    }
}

/// Where the old file is much shorter, the wal-index that is still in force wants more pages in it than it has, and SQLite
/// refuses every checkpoint (`walCheckpoint` in its `wal.c`: a WAL this small cannot be what is missing), the application's
/// own too, until the WAL has grown by as much.
#[test]
fn an_old_file_too_short_for_a_checkpoint_is_shipped_all_the_same() {
    const HINT: &str = "HINT: all is shipped, but the WAL grows";
    let scene = Scene::new(4096, 0).unwrap();
    let (old, source) = (scene.at("old.db"), scene.source.clone());
    let mut shipper = scene.start().unwrap();
    let kept = scene.work(LITTLE).unwrap();
    writer::checkpoint_truncate(&source).unwrap();
    fs::copy(&source, &old).unwrap();
    grow(&source);
    scene.until_shipped(&mut shipper).unwrap();
    // What keeps the wal-index in force, also while the shipper looks at the file anew.
    let application = Connection::open(&source).unwrap();
    application.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)).unwrap();
    fs::copy(&old, &source).unwrap();
    let after = scene.work(LITTLE).unwrap();
    assert!(writer::checkpoint_truncate(&source).is_err(), "SQLite made the checkpoint");
    shipper.until_it_says(HINT).unwrap();
    let mut shipped = kept + after;
    for _ in 0..3 {
        shipped += scene.work(LITTLE).unwrap();
        scene.shipping.sync(&["app"]).unwrap();
        let copy = scene.at("copy.db");
        scene.shipping.restore_with("app", &copy, &["--force"]).unwrap();
        assert_eq!(bank::Ledger::default().check(&copy).unwrap(), shipped, "{}", shipper.output());
    }
    let told = shipper.output();
    let times = |text: &str| told.matches(text).count();
    assert_eq!(times(HINT), 1, "{told}");
    // Once for the file, and at most once for what a fresh look at it was worth.
    assert!(times("caught up with the source") <= 2, "{told}");
    // The hint is right.
    application.execute_batch("VACUUM").unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    scene.finish(&mut shipper).unwrap();
}
