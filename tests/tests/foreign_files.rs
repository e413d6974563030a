//! Somebody handles the files of a live database: deleted and created anew, copied elsewhere,
//! switched away from the write-ahead log and back; with the shipper attached, and while it is stopped.
//!
//! The shipper finds out by itself, the source stays sound, and the replica ends up as the source.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::application::Application;
use seaworthy_tests::scene::Scene;
use seaworthy_tests::shipping::until_it_says;
use seaworthy_tests::{bank, writer};

const TURN: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(60);

fn beside(database: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", database.display()))
}

fn remove_log(database: &Path) {
    for suffix in ["-wal", "-shm"] {
        // Nobody may have made it yet.
        let _ = fs::remove_file(beside(database, suffix));
    }
}

fn work(scene: &Scene) -> u64 {
    let application = Application::start(&scene.source, &[]).unwrap();
    std::thread::sleep(TURN);
    application.stop().unwrap().commits
}

#[test]
fn deleted_and_created_anew() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    work(&scene);
    fs::remove_file(&scene.source).unwrap();
    remove_log(&scene.source);
    std::thread::sleep(TURN);
    bank::create(&scene.source, 8192, 1).unwrap();
    let commits = work(&scene);
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
}

#[test]
fn copied_elsewhere_while_it_is_written() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, &[]).unwrap();
    for copy in 0..10 {
        let db = Connection::open(&scene.source).unwrap();
        db.busy_timeout(LIMIT).unwrap();
        let target = scene.at(&format!("copy-{copy}"));
        db.execute("VACUUM INTO ?1", [target.display().to_string()]).unwrap();
        bank::Ledger::default().check(&target).unwrap();
        drop(db);
        // In a process of its own: closing a file drops the locks that this process has on it.
        let mut cp = seaworthy_tests::process::command("cp");
        for suffix in ["", "-wal", "-shm"] {
            cp.arg(beside(&scene.source, suffix));
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
    let mut commits = work(&scene);
    shipper.stop(LIMIT).unwrap();
    let switch = |mode: &str| {
        let db = Connection::open(&scene.source).unwrap();
        let is: String =
            db.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get(0)).unwrap();
        assert_eq!(is, mode);
    };
    switch("delete");
    commits += work(&scene);

    let mut shipper = scene.shipping.start(&databases, "50ms").unwrap();
    until_it_says(&mut shipper, "not in WAL mode\nHINT: ").unwrap();
    let db = Connection::open(&other).unwrap();
    db.execute("INSERT INTO item (name) VALUES ('others go on')", []).unwrap();
    drop(db);
    shipper
        .until(LIMIT, || {
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
    commits += work(&scene);
    scene.until_shipped(&mut shipper).unwrap();
    commits += work(&scene);
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
}
