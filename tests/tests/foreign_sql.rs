//! The application does to its database what SQL allows: its own checkpoints of every kind, `VACUUM`,
//! automatic and incremental vacuum, a connection that comes and goes; at every page size, with a restart of
//! the shipper in the middle, while the application goes on and while it is closed.
//!
//! Every state in the replica is one that was committed, and the last one is the source, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use seaworthy_tests::application::Application;
use seaworthy_tests::scene::{Scene, in_commit_order};

const TURN: Duration = Duration::from_millis(700);

/// An application with `options` runs through a start, a restart beside it, and a stop.
fn survives(page_size: u32, auto_vacuum: u32, options: &[&str]) {
    println!("page size {page_size}, auto_vacuum {auto_vacuum}, {options:?}");
    let scene = Scene::new(page_size, auto_vacuum).unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, options).unwrap();
    std::thread::sleep(TURN);
    shipper.stop().unwrap();
    std::thread::sleep(TURN / 4);
    let mut shipper = scene.start().unwrap();
    std::thread::sleep(TURN);
    let first = application.stop().unwrap();

    // Nobody else is there when the application closes its last connection: its log goes away.
    shipper.stop().unwrap();
    let application = Application::start(&scene.source, options).unwrap();
    std::thread::sleep(TURN / 4);
    let second = application.stop().unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, options).unwrap();
    std::thread::sleep(TURN / 2);
    let third = application.stop().unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    let commits = first.commits + second.commits + third.commits;
    assert_eq!(states.last().unwrap().count, commits);
    println!("{commits} commits, {} states, {first:?}", states.len());
}

#[test]
fn checkpoints_that_truncate() {
    survives(512, 0, &["every=40", "sql=PRAGMA wal_checkpoint(TRUNCATE)"]);
}

#[test]
fn checkpoints_that_restart() {
    survives(1024, 0, &["every=40", "sql=PRAGMA wal_checkpoint(RESTART)"]);
}

#[test]
fn full_checkpoints_without_automatic_ones() {
    survives(
        2048,
        0,
        &["every=100", "sql=PRAGMA wal_autocheckpoint(0); PRAGMA wal_checkpoint(FULL)"],
    );
}

#[test]
fn vacuum() {
    survives(4096, 0, &["every=150", "sql=VACUUM"]);
}

#[test]
fn automatic_vacuum() {
    survives(8192, 1, &["spill=1"]);
}

#[test]
fn incremental_vacuum() {
    survives(16384, 2, &["every=30", "sql=PRAGMA incremental_vacuum(7)"]);
}

#[test]
fn a_connection_that_comes_and_goes() {
    survives(32768, 0, &["reopen=20"]);
}

#[test]
fn transactions_that_spill_into_the_log() {
    survives(65536, 0, &["spill=1"]);
}

#[test]
fn an_application_killed_in_the_middle_of_its_transactions() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    for round in 0..15 {
        let application = Application::start(&scene.source, &["spill=1"]).unwrap();
        std::thread::sleep(Duration::from_millis(40 + round * 23));
        application.kill().unwrap();
        if round % 5 == 4 {
            // Both at once, as when the machine's memory is out.
            let application = Application::start(&scene.source, &["spill=1"]).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            shipper.kill().unwrap();
            application.kill().unwrap();
            shipper = scene.start().unwrap();
        }
    }
    let count = seaworthy_tests::bank::count(&scene.source).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, count);
    assert!(count > 100, "{count} commits");
}
