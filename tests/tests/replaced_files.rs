//! An old file is put over the live one: by `mv` and by `cp`, with the log removed and beside an empty one, with the
//! shipper attached and while it is stopped. And the path is pointed elsewhere, as deploys do it.
//!
//! The source stays sound and loses nothing that was committed after it, and the replica ends up as the source. What cannot
//! be vouched for is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::application::Application;
use seaworthy_tests::mount::Mount;
use seaworthy_tests::process::Process;
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

/// How a deploy makes a path lead to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swap {
    /// The file is a link, and is pointed elsewhere.
    Link,
    /// A directory above it is a link, and is pointed elsewhere.
    DirectoryLink,
    /// Another file is renamed over it, beside the log that is removed.
    Renamed,
    /// The directory is moved away, and another one takes its place.
    Directory,
    /// Another directory is mounted over its own.
    Mounted,
    /// Another file is mounted over it: refused, since its log is elsewhere.
    FileMounted,
}

/// Two versions of a database, and a path that leads to the first.
struct Deploy {
    scene: Scene,
    path: std::path::PathBuf,
    shipper: Process,
}

impl Deploy {
    fn new(swap: Swap) -> Self {
        let scene = Scene::new(4096, 0).unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(scene.at(version)).unwrap();
            bank::create(&scene.at(version).join("app.db"), 4096, 0).unwrap();
        }
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, scene.at(name)).unwrap();
        };
        let path = match swap {
            Swap::Link => {
                link("v1/app.db", "current.db");
                scene.at("current.db")
            }
            Swap::DirectoryLink => {
                link("v1", "current");
                scene.at("current/app.db")
            }
            _ => scene.at("v1/app.db"),
        };
        let shipper = scene.shipping.start(&[("app", &path)], "50ms").unwrap();
        Self { scene, path, shipper }
    }

    fn swap(&self, swap: Swap) -> Option<Mount> {
        let at = |name: &str| self.scene.at(name);
        let relink = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, at("next")).unwrap();
            fs::rename(at("next"), at(name)).unwrap();
        };
        match swap {
            Swap::Link => relink("v2/app.db", "current.db"),
            Swap::DirectoryLink => relink("v2", "current"),
            Swap::Renamed => {
                for suffix in ["-wal", "-shm"] {
                    let _ = fs::remove_file(at(&format!("v1/app.db{suffix}")));
                }
                fs::rename(at("v2/app.db"), &self.path).unwrap();
            }
            Swap::Directory => {
                fs::rename(at("v1"), at("v0")).unwrap();
                fs::rename(at("v2"), at("v1")).unwrap();
            }
            Swap::Mounted => return Some(Mount::bind(&at("v2"), &at("v1"))),
            Swap::FileMounted => return Some(Mount::bind(&at("v2/app.db"), &self.path)),
        }
        None
    }

    /// Works, and returns how many transactions there are by now at the path.
    fn work(&self) -> u64 {
        let application = Application::start(&self.path, LITTLE).unwrap();
        std::thread::sleep(TURN);
        application.stop().unwrap();
        bank::count(&self.path).unwrap()
    }

    /// How many transactions the newest state in the replica holds.
    fn shipped(&self) -> u64 {
        let copy = self.scene.at("copy.db");
        self.scene.shipping.restore_with("app", &copy, &["--force"]).unwrap();
        bank::Ledger::default().check(&copy).unwrap()
    }
}

/// At the moment that a sync is acknowledged, the replica has what was committed under the path before, wherever it leads.
#[test]
fn a_path_that_leads_elsewhere_is_what_is_shipped() {
    for swap in [Swap::Link, Swap::DirectoryLink, Swap::Renamed, Swap::Directory, Swap::Mounted] {
        println!("{swap:?}");
        let deploy = Deploy::new(swap);
        deploy.work();
        deploy.scene.shipping.sync(&["app"]).unwrap();
        let mount = deploy.swap(swap);
        for _ in 0..2 {
            let count = deploy.work();
            deploy.scene.shipping.sync(&["app"]).unwrap();
            assert_eq!(deploy.shipped(), count, "{swap:?}\n{}", deploy.shipper.output());
        }
        drop(deploy);
        drop(mount);
    }
}

/// Also where the application does not know that it should have been restarted.
#[test]
fn nothing_is_vouched_for_while_an_application_has_the_old_file_open() {
    for swap in [Swap::Renamed, Swap::DirectoryLink] {
        let mut deploy = Deploy::new(swap);
        deploy.work();
        deploy.scene.shipping.sync(&["app"]).unwrap();
        let application = Application::start(&deploy.path, LITTLE).unwrap();
        std::thread::sleep(TURN);
        drop(deploy.swap(swap));
        // What was answered before somebody could see it is not what is asked for here.
        let hint = "HINT: restart the application";
        deploy.shipper.until_it_says(hint).unwrap();
        let refused = deploy.scene.shipping.ask(&["sync", "app"], 1).unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains("still has the old file open") && text.contains(hint), "{text}");
        let status = deploy.scene.shipping.status(1).unwrap();
        let database = &status["databases"][0];
        assert_eq!(database["state"], "stuck", "{status}");
        assert!(database["last_error"].as_str().unwrap().contains(hint), "{status}");
        application.stop().unwrap();
        let count = deploy.work();
        // The engine looks by itself now and then; until it does, it does not vouch.
        let synced = || deploy.scene.shipping.sync(&["app"]).is_ok();
        deploy.shipper.until(synced).unwrap();
        assert_eq!(deploy.shipped(), count, "{}", deploy.shipper.output());
    }
}

/// A file of which the application has another name, beside which it has its own WAL: by a mount in its own view (Docker:
/// `-v app.db:/data/app.db`), which nothing but its locks and the changes of the file tell.
#[test]
fn an_application_that_uses_another_log_is_never_vouched_for() {
    const HINT: &str = "mount the directory, not the file";
    let scene = Scene::new(4096, 0).unwrap();
    let elsewhere = scene.at("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("app.db"), "").unwrap();
    let mount = Mount::bind(&scene.source, &elsewhere.join("app.db"));
    let view = elsewhere.join("app.db");
    let mut shipper = scene.start().unwrap();
    scene.shipping.sync(&["app"]).unwrap();
    // It makes checkpoints of its own all the time, so that the file changes.
    let often = ["every=5", "sql=PRAGMA wal_checkpoint(PASSIVE)", "pause_us=2000"];
    let application = Application::start(&view, &often).unwrap();
    shipper.until_it_says(HINT).unwrap();
    for _ in 0..3 {
        let refused = scene.shipping.ask(&["sync", "app", "--timeout", "5s"], 1).unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains(HINT), "{text}");
        std::thread::sleep(TURN / 2);
    }
    // Between two attachments it is not known yet.
    let stuck =
        || scene.shipping.status(1).is_ok_and(|all| all["databases"][0]["state"] == "stuck");
    shipper.until(stuck).unwrap();
    // A shipper that starts meanwhile does not take a torn snapshot either.
    shipper.stop().unwrap();
    fs::remove_dir_all(scene.at("state")).unwrap();
    let mut shipper = scene.start().unwrap();
    shipper.until_it_says(HINT).unwrap();
    let commits = application.stop().unwrap().commits;
    drop(mount);
    // What its last close wrote back is all there is.
    scene.until_shipped(&mut shipper).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    assert_eq!(states.last().unwrap().count, commits, "{}", shipper.output());
}

/// The same seen from the other side: what the shipper has is one of two names, or a mount of the file alone.
#[test]
fn a_file_that_gets_a_second_name_is_refused_until_it_is_gone() {
    for swap in [None, Some(Swap::FileMounted)] {
        let mut deploy = Deploy::new(Swap::Renamed);
        deploy.work();
        deploy.scene.shipping.sync(&["app"]).unwrap();
        let second = deploy.scene.at("second.db");
        let (mount, hint) = match swap {
            Some(swap) => (deploy.swap(swap), "mount the directory, not the file"),
            None => {
                fs::hard_link(&deploy.path, &second).unwrap();
                (None, "keep one name")
            }
        };
        let refused = deploy.scene.shipping.ask(&["sync", "app", "--timeout", "20s"], 1).unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains(hint), "{text}");
        deploy.shipper.until_it_says(hint).unwrap();
        deploy.scene.shipping.status(1).unwrap();
        drop(mount);
        if swap.is_none() {
            fs::remove_file(&second).unwrap();
        }
        let count = deploy.work();
        let synced = || deploy.scene.shipping.sync(&["app"]).is_ok();
        deploy.shipper.until(synced).unwrap();
        assert_eq!(deploy.shipped(), count, "{}", deploy.shipper.output());
    }
}
