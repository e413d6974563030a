//! An old file is put over the live one: by `mv` and by `cp`, with the log removed and beside an empty one, with the
//! shipper attached and while it is stopped.
//!
//! The source stays sound and loses nothing that was committed after it, and the replica ends up as the source.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::time::Duration;

use seaworthy_tests::application::Application;
use seaworthy_tests::scene::Scene;
use seaworthy_tests::{bank, writer};

const TURN: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(60);
/// Most pages stay as they were.
const LITTLE: &[&str] = &["pause_us=50000"];

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
    let mut shipper = scene.start().unwrap();
    let kept = scene.work(&[]).unwrap();
    writer::checkpoint_truncate(&source).unwrap();
    fs::copy(&source, &old).unwrap();
    scene.work(&[]).unwrap();
    if !attached {
        shipper.stop(LIMIT).unwrap();
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
