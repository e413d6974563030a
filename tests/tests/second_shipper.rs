//! Two shippers where there should be one: on the same database, on the same place in the bucket, and from the clone
//! of a disk; and one with a state directory of long ago.
//!
//! No generation ever has two writers: each one's files follow each other, and every state is one that its source
//! committed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use seaworthy_tests::application::Application;
use seaworthy_tests::process::{PATIENCE, Process, command, run};
use seaworthy_tests::scene::{Found, Scene, generations, in_commit_order};
use seaworthy_tests::shipping::Shipping;
use seaworthy_tests::{bank, writer};

const TURN: Duration = Duration::from_millis(1500);

/// A shipper with a state of its own in `directory`, and the replica of `scene`.
fn another(scene: &Scene, directory: &Path) -> Shipping {
    let url = format!("file://{}", scene.at("replica").display());
    Shipping::new(directory, &url, "", Vec::new())
}

fn copy(from: &Path, to: &Path) {
    // In a process of its own: closing a file drops the locks that this process has on it.
    run(command("cp").arg("-a").arg(from).arg(to), 0).unwrap();
}

/// Lets each ship what is left, whatever the two have still to find out about each other, and stops it; what they said.
fn stop(shippers: [(&Shipping, &mut Process); 2]) -> String {
    let mut said = String::new();
    for (shipping, shipper) in shippers {
        shipping.sync(&[]).unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
        shipper.stop().unwrap();
        said += &shipper.output();
        said += "----\n";
    }
    said
}

/// The most transactions that a state of each generation holds.
fn ends(states: &[Found]) -> Vec<u64> {
    let most = |chain| {
        states.iter().filter(|state| state.chain == chain).map(|state| state.count).max().unwrap()
    };
    generations(states).into_iter().map(most).collect()
}

#[test]
fn on_the_same_database_with_a_state_of_its_own() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut first = scene.start().unwrap();
    let application = Application::start(&scene.source, &["pause_us=500"]).unwrap();
    std::thread::sleep(TURN);
    let elsewhere = tempfile::tempdir().unwrap();
    let databases = [("app", scene.source.as_path())];
    let other_shipping = another(&scene, elsewhere.path());
    let mut second = other_shipping.start(&databases, "50ms").unwrap();
    std::thread::sleep(TURN * 2);
    let commits = application.stop().unwrap().commits;
    let said = stop([(&scene.shipping, &mut first), (&other_shipping, &mut second)]);
    let states = scene.states(scene.store().unwrap().as_ref()).unwrap();
    in_commit_order(&states).unwrap_or_else(|error| panic!("{error:#}\n{said}"));
    // Both see everything, so both end at the same state, each in its own generation.
    assert_eq!(ends(&states), [commits, commits], "{said}");
    scene.latest_is_the_source().unwrap_or_else(|error| panic!("{error:#}\n{said}"));
}

#[test]
fn another_database_under_the_same_name() {
    let (scene, other) = (Scene::new(4096, 0).unwrap(), Scene::new(1024, 1).unwrap());
    let mut first = scene.start().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let databases = [("app", other.source.as_path())];
    let other_shipping = another(&scene, elsewhere.path());
    let mut second = other_shipping.start(&databases, "50ms").unwrap();
    let applications =
        [&scene, &other].map(|scene| Application::start(&scene.source, &["pause_us=500"]).unwrap());
    std::thread::sleep(TURN * 2);
    let mut commits = applications.map(|application| application.stop().unwrap().commits);
    let said = stop([(&scene.shipping, &mut first), (&other_shipping, &mut second)]);
    let states = scene.states(scene.store().unwrap().as_ref()).unwrap();
    in_commit_order(&states).unwrap_or_else(|error| panic!("{error:#}\n{said}"));
    let mut ends = ends(&states);
    ends.sort_unstable();
    commits.sort_unstable();
    assert_eq!(ends, commits, "{said}");
}

/// The state directory of weeks ago comes back from a backup of the disk, the database stays.
#[test]
fn an_old_state_directory() {
    let scene = Scene::new(4096, 0).unwrap();
    let application = Application::start(&scene.source, &["pause_us=500"]).unwrap();
    let mut shipper = scene.start().unwrap();
    std::thread::sleep(TURN);
    shipper.kill().unwrap();
    copy(&scene.at("state"), &scene.at("old"));
    let mut shipper = scene.start().unwrap();
    std::thread::sleep(TURN);
    shipper.stop().unwrap();
    std::fs::remove_dir_all(scene.at("state")).unwrap();
    std::fs::rename(scene.at("old"), scene.at("state")).unwrap();
    let mut shipper = scene.start().unwrap();
    std::thread::sleep(TURN);
    let commits = application.stop().unwrap().commits;
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, commits);
}

/// It is put back after another generation began: the old one does not go on.
#[test]
fn an_old_state_directory_after_a_later_generation() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    scene.work(&["pause_us=500"]).unwrap();
    scene.shipping.sync(&[]).unwrap();
    shipper.kill().unwrap();
    std::fs::rename(scene.at("state"), scene.at("old")).unwrap();
    let mut shipper = scene.start().unwrap();
    scene.work(&["pause_us=500"]).unwrap();
    scene.shipping.sync(&[]).unwrap();
    shipper.kill().unwrap();
    std::fs::remove_dir_all(scene.at("state")).unwrap();
    std::fs::rename(scene.at("old"), scene.at("state")).unwrap();
    let mut shipper = scene.start().unwrap();
    scene.shipping.sync(&[]).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    let said = shipper.output();
    assert!(said.contains("which began after this machine's own"), "{said}");
    assert_eq!(generations(&states).len(), 3, "the first one did not go on: {said}");
}

/// A disk is cloned while the shipper is down and the application goes on; then both machines go on. (Of a shipper that
/// runs while the disk is cloned, the clone may win the generation: docs/FAULTS.md.)
#[test]
fn from_the_clone_of_a_disk() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut first = scene.start().unwrap();
    let application = Application::start(&scene.source, &["pause_us=500"]).unwrap();
    std::thread::sleep(TURN);
    scene.shipping.sync(&[]).unwrap();
    let disk = tempfile::tempdir().unwrap();
    first.kill().unwrap();
    copy(&scene.at("state"), &disk.path().join("state"));
    let mut first = scene.start().unwrap();
    scene.shipping.sync(&[]).unwrap();
    // Of the live database a clone of the disk would have one moment; SQLite gives us that.
    let clone = disk.path().join("app.db");
    let db = rusqlite::Connection::open(&scene.source).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute("VACUUM INTO ?1", [clone.display().to_string()]).unwrap();
    drop(db);
    let db = rusqlite::Connection::open(&clone).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    drop(db);

    let databases = [("app", clone.as_path())];
    let other_shipping = another(&scene, disk.path());
    let mut second = other_shipping.start(&databases, "50ms").unwrap();
    // The clone's application is slower, so that the two histories differ in what a TXID holds.
    let cloned = Application::start(&clone, &["pause_us=3000"]).unwrap();
    std::thread::sleep(TURN * 2);
    application.stop().unwrap();
    cloned.stop().unwrap();
    let counts = [&scene.source, &clone].map(|path| bank::count(path).unwrap());
    let said = stop([(&scene.shipping, &mut first), (&other_shipping, &mut second)]);
    let states = scene.states(scene.store().unwrap().as_ref()).unwrap();
    in_commit_order(&states).unwrap_or_else(|error| panic!("{error:#}\n{said}"));
    let ends = ends(&states);
    assert_eq!(ends.len(), 2, "{ends:?}, {counts:?}\n{said}");
    assert!(counts.iter().all(|count| ends.contains(count)), "{ends:?}, {counts:?}\n{said}");
    assert!(said.contains("another"), "nobody said that there is another writer\n{said}");
    for (shipping, path) in [(&scene.shipping, &scene.source), (&other_shipping, &clone)] {
        // Each one's newest state is still there, whatever the other did.
        let target = disk.path().join("copy.db");
        writer::checkpoint_truncate(path).unwrap();
        let whole = generations(&states).into_iter().any(|chain| {
            let chain = chain.to_string();
            let options = ["--force", "--generation", &chain];
            shipping.restore_with("app", &target, &options).unwrap();
            writer::same_bytes(&target, path).is_ok()
        });
        assert!(whole, "{} is in no generation\n{said}", path.display());
    }
}
