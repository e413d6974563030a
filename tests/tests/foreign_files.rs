//! Somebody handles the files of a live database: deleted and created anew, copied elsewhere,
//! switched away from the write-ahead log and back; with the shipper attached, and while it is stopped.
//!
//! The shipper finds out by itself, the source stays sound, and the replica ends up as the source.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::application::Application;
use seaworthy_tests::drill_support::{self, Surroundings};
use seaworthy_tests::process::{PATIENCE, Process};
use seaworthy_tests::scene::Scene;
use seaworthy_tests::{bank, writer};

const TURN: Duration = Duration::from_millis(500);

/// A shipper whose database was written, and then deleted.
fn deleted() -> (Scene, Process) {
    let scene = Scene::new(4096, 0).unwrap();
    let shipper = scene.start().unwrap();
    scene.work(&[]).unwrap();
    fs::remove_file(&scene.source).unwrap();
    scene.remove_log();
    (scene, shipper)
}

#[test]
fn deleted_and_created_anew() {
    let (scene, mut shipper) = deleted();
    std::thread::sleep(TURN);
    bank::create(&scene.source, 8192, 1).unwrap();
    let commits = scene.work(&[]).unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
}

/// The stop's final sync does not wait for the pause to be over, and ships what was committed since.
#[test]
fn stopped_in_the_middle_of_a_doubt() {
    let (scene, mut shipper) = deleted();
    bank::create(&scene.source, 4096, 0).unwrap();
    let commits = scene.work(&[]).unwrap();
    shipper.until_it_says("what differs is caught up in").unwrap();
    let states = scene.stop_and_check(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
}

/// As one is that SQLite was told to grow in chunks, and one that an older file was copied over beside its log.
#[test]
fn a_file_longer_than_its_database() {
    const ZEROS: u64 = 25 * 4096;
    let scene = Scene::new(4096, 0).unwrap();
    let mut commits = scene.work(&[]).unwrap();
    let grow = || {
        let file = fs::File::options().write(true).open(&scene.source).unwrap();
        file.set_len(file.metadata().unwrap().len() + ZEROS).unwrap();
    };
    grow();
    let mut shipper = scene.start().unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    commits += scene.work(&["pause_us=50000"]).unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    shipper.stop().unwrap();
    writer::checkpoint_truncate(&scene.source).unwrap();
    grow();
    let mut shipper = scene.start().unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
    // The chain's count is the file's, the header's the database's: no reason for a drill to fail.
    let surroundings = Surroundings::new().unwrap();
    surroundings.copy_replica(&scene.at("replica"), "").unwrap();
    let record = surroundings.drill(&["app"], 0).unwrap();
    let detail = drill_support::detail(&record, "size");
    assert!(detail.contains("are not the database's: page 1 counts "), "{detail}");
}

/// With all stopped nothing but the database is left, as SQLite leaves it: a copy put back is what the application finds.
/// A start that finds what the stop left goes on with it; one that does not, catches up.
#[test]
fn stopped_cleanly_it_is_left_as_sqlite_leaves_it() {
    const CAUGHT_UP: &str = "caught up with the source";
    let scene = Scene::new(4096, 0).unwrap();
    let kept = scene.at("kept.db");
    fs::copy(&scene.source, &kept).unwrap();
    let mut commits = 0;
    for round in 0..3 {
        let mut shipper = scene.start().unwrap();
        // In the first round the application stops before the shipper, in the others it does not begin.
        if round == 0 {
            commits += scene.work(&[]).unwrap();
        }
        scene.shipping.sync(&[]).unwrap();
        shipper.stop().unwrap();
        let left: Vec<bool> = ["-wal", "-shm"].map(|suffix| scene.beside(suffix).exists()).to_vec();
        assert_eq!(left, [false, false], "round {round}: {}", shipper.output());
        assert!(!shipper.output().contains(CAUGHT_UP), "round {round}: {}", shipper.output());
    }
    // What is committed between the start of the application and that of the shipper comes next in the WAL, too.
    let application = Application::start(&scene.source, &["pause_us=50000"]).unwrap();
    std::thread::sleep(TURN);
    let mut shipper = scene.start().unwrap();
    scene.shipping.sync(&[]).unwrap();
    // It is connected: its WAL stays.
    shipper.stop().unwrap();
    assert!(scene.beside("-wal").exists(), "{}", shipper.output());
    assert!(!shipper.output().contains(CAUGHT_UP), "{}", shipper.output());
    let mut shipper = scene.start().unwrap();
    commits += application.stop().unwrap().commits;
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);

    // Another file in its place, is not taken for it.
    fs::copy(&kept, &scene.source).unwrap();
    bank::Ledger::default().check(&scene.source).unwrap();
    assert_eq!(bank::count(&scene.source).unwrap(), 0);
    let mut shipper = scene.start().unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, 0);
    assert!(shipper.output().contains(CAUGHT_UP), "{}", shipper.output());
    // Nor is what an application wrote and closed while the shipper was away.
    let commits = scene.work(&[]).unwrap();
    let mut shipper = scene.start().unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
    assert!(shipper.output().contains(CAUGHT_UP), "{}", shipper.output());
}

#[test]
fn copied_elsewhere_while_it_is_written() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, &[]).unwrap();
    for copy in 0..10 {
        let db = Connection::open(&scene.source).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        let target = scene.at(&format!("copy-{copy}"));
        db.execute("VACUUM INTO ?1", [target.display().to_string()]).unwrap();
        bank::Ledger::default().check(&target).unwrap();
        drop(db);
        // In a process of its own: closing a file drops the locks that this process has on it.
        let mut cp = seaworthy_tests::process::command("cp");
        for suffix in ["", "-wal", "-shm"] {
            cp.arg(scene.beside(suffix));
        }
        fs::create_dir_all(scene.at("elsewhere")).unwrap();
        seaworthy_tests::process::run(cp.arg(scene.at("elsewhere")), 0).unwrap();
    }
    let work = application.stop().unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, work.commits);
}

#[test]
fn switched_away_from_the_log_while_stopped_and_back() {
    let scene = Scene::new(4096, 0).unwrap();
    let other = scene.at("other.db");
    writer::create(&other, 4096, 100).unwrap();
    let databases = [("app", scene.source.as_path()), ("other", other.as_path())];
    let mut shipper = scene.shipping.start(&databases, "50ms").unwrap();
    let mut commits = scene.work(&[]).unwrap();
    shipper.stop().unwrap();
    let switch = |mode: &str| {
        let db = Connection::open(&scene.source).unwrap();
        let is: String =
            db.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get(0)).unwrap();
        assert_eq!(is, mode);
    };
    switch("delete");
    commits += scene.work(&[]).unwrap();

    let mut shipper = scene.shipping.start(&databases, "50ms").unwrap();
    shipper.until_it_says("not in WAL mode\nHINT: ").unwrap();
    let db = Connection::open(&other).unwrap();
    db.execute("INSERT INTO item (name) VALUES ('others go on')", []).unwrap();
    drop(db);
    shipper
        .until(|| {
            scene.shipping.restore_with("other", &scene.at("other.copy"), &["--force"]).unwrap();
            let db = Connection::open(scene.at("other.copy")).unwrap();
            db.query_row("SELECT count(*) FROM item WHERE name = 'others go on'", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap()
                == 1
        })
        .unwrap();

    switch("wal");
    commits += scene.work(&[]).unwrap();
    scene.until_shipped(&mut shipper).unwrap();
    commits += scene.work(&[]).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
}
