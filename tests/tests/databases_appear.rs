//! Databases that come and go while the shipper runs, and many of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use seaworthy_tests::process::Process;
use seaworthy_tests::shipping::{Shipping, peak_memory, same_rows};
use seaworthy_tests::writer;

const MANY: usize = 100;

fn started(shipping: &Shipping, name: &str, glob: &Path) -> Process {
    let shipper = shipping.start(&[(name, glob)], "100ms").unwrap();
    assert!(!shipper.output().contains("ERROR"), "{}", shipper.output());
    shipper
}

fn refused(shipping: &Shipping) -> String {
    let output = shipping.ask(&["status"], 1).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_appears_is_shipped_and_of_two_that_want_one_place_the_first_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    for site in ["one", "two", "three"] {
        fs::create_dir_all(at("srv").join(site)).unwrap();
    }
    // Nothing is there yet.
    let mut shipper = started(&shipping, "{stem}", &at("srv/*/*.db"));
    writer::create(&at("srv/one/app.db"), 4096, 100).unwrap();
    // Asked for, it is found at once.
    shipping.sync(&["app"]).unwrap();
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("srv/one/app.db")).unwrap();

    // A second one of that name, and a second path to the first one.
    writer::create(&at("srv/two/app.db"), 4096, 7).unwrap();
    std::os::unix::fs::symlink(at("srv/one/app.db"), at("srv/three/link.db")).unwrap();
    shipper.until(|| shipping.ask(&["status"], 1).is_ok()).unwrap();
    let output = shipping.ask(&["sync"], 1).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("would be named app, as "), "{text}");
    assert!(text.contains("the same file as database app"), "{text}");
    assert!(text.contains("\nHINT: "), "{text}");
    let told = refused(&shipping);
    assert!(told.contains("two/app.db  not shipped") && told.contains("not attached"), "{told}");
    assert!(shipper.output().contains("not shipped: would be named app"), "{}", shipper.output());

    // The first one goes on.
    let db = Connection::open(at("srv/one/app.db")).unwrap();
    db.execute_batch("CREATE TABLE more (a); INSERT INTO more VALUES (1)").unwrap();
    shipping.sync(&["app"]).unwrap();
    shipping.restore("app", &at("again.db")).unwrap();
    same_rows(&at("again.db"), &at("srv/one/app.db")).unwrap();
    drop(db);

    // Deleted, it is reported, and waited for.
    // A second path to it could be the first to find the next one.
    fs::remove_file(at("srv/three/link.db")).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(at(&format!("srv/one/app.db{suffix}")));
    }
    let gone = || {
        let told = shipping.status(1).unwrap();
        let databases = told["databases"].as_array().unwrap();
        databases.iter().any(|one| {
            let reason = one["reason"].as_str().unwrap_or_default();
            one["database"] == "app" && reason.contains("no such file")
        })
    };
    shipper.until(gone).unwrap();
    writer::create(&at("srv/one/app.db"), 4096, 3).unwrap();
    shipping.sync(&["app"]).unwrap();
    shipping.restore("app", &at("third.db")).unwrap();
    same_rows(&at("third.db"), &at("srv/one/app.db")).unwrap();
    shipper.stop().unwrap();
}

#[test]
fn two_configured_paths_to_one_file_are_a_wrong_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    writer::create(&at("app.db"), 4096, 1).unwrap();
    std::os::unix::fs::symlink(at("app.db"), at("link.db")).unwrap();
    let shipping = Shipping::to_files(directory.path());
    shipping.configure(&[("a", &at("app.db")), ("b", &at("link.db"))], "1s").unwrap();
    let output = shipping.ask(&["run"], 2).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("are the same file") && text.contains("\nHINT: "), "{text}");
}

#[test]
fn a_hundred_databases_in_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    fs::create_dir(at("srv")).unwrap();
    let databases: Vec<PathBuf> = (0..MANY).map(|n| at(&format!("srv/db-{n:03}.db"))).collect();
    for path in &databases {
        writer::create(path, 4096, 10).unwrap();
    }
    let mut shipper = started(&shipping, "{stem}", &at("srv/*.db"));
    for (n, path) in databases.iter().enumerate() {
        let db = Connection::open(path).unwrap();
        db.execute_batch(&format!("CREATE TABLE last (n); INSERT INTO last VALUES ({n})")).unwrap();
    }
    let output = shipping.sync(&[]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), MANY, "{text}");
    let process = PathBuf::from(format!("/proc/{}", shipper.id()));
    let files = fs::read_dir(process.join("fd")).unwrap().count();
    // Four steps of engines and three file accesses at once. A thread that has just ended its work may not be idle yet when the
    // next piece begins, so there may be twice as many; where a step took long, another was begun beside it. Those end.
    let threads = || fs::read_dir(process.join("task")).unwrap().count();
    shipper.until(|| threads() <= 16).unwrap();
    println!(
        "{MANY} databases: {files} files, {} threads, {} kB at most",
        threads(),
        peak_memory(&shipper).unwrap() >> 10
    );
    assert!(files <= 60 + 14 * MANY, "{files} open files");
    shipper.kill().unwrap();
    for n in [0, 17, MANY - 1] {
        let copy = at(&format!("copy-{n}.db"));
        shipping.restore(&format!("db-{n:03}"), &copy).unwrap();
        same_rows(&copy, &databases[n]).unwrap();
    }
}

#[test]
fn what_somebody_puts_under_a_glob_stops_no_other_not_even_at_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join("srv").join(name);
    let shipping = Shipping::to_files(directory.path());
    fs::create_dir_all(at("b")).unwrap();
    writer::create(&at("b/app.db"), 4096, 10).unwrap();
    let glob = directory.path().join("srv/*/*.db");
    let begun = || shipping.start(&[("{stem}", &glob)], "100ms").unwrap();
    let mut shipper = begun();
    shipping.sync(&["app"]).unwrap();
    shipper.stop().unwrap();

    // A copy that comes first by its path, and names that cannot be.
    fs::create_dir_all(at("a")).unwrap();
    writer::create(&at("a/app.db"), 4096, 3).unwrap();
    let odd = ["app copy", "kunden-müller", "0000", "3f2b8c1e-9d4a-4c6b-8f1e-2a7b9c0d1e2f"];
    for name in odd {
        writer::create(&at(&format!("b/{name}.db")), 4096, 1).unwrap();
    }
    let mut shipper = begun();
    let db = Connection::open(at("b/app.db")).unwrap();
    db.execute("INSERT INTO item (name) VALUES ('later')", []).unwrap();
    shipping.sync(&["app"]).unwrap();
    let told = refused(&shipping);
    for path in odd.map(|name| format!("b/{name}.db")).into_iter().chain(["a/app.db".into()]) {
        assert!(told.contains(&format!("{path}  not shipped")), "{path}\n{told}");
    }
    assert!(told.contains("name = \"db-{stem}\""), "{told}");
    shipping.restore("app", &at("copy.db")).unwrap();
    same_rows(&at("copy.db"), &at("b/app.db")).unwrap();
    shipper.stop().unwrap();
}

#[test]
fn an_index_that_is_cut_short_ends_one_attachment_and_not_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shipping = Shipping::to_files(directory.path());
    for name in ["a.db", "b.db"] {
        writer::create(&at(name), 4096, 10).unwrap();
    }
    let (a, b) = (at("a.db"), at("b.db"));
    let mut shipper = shipping.start(&[("a", &a), ("b", &b)], "100ms").unwrap();
    shipping.sync(&[]).unwrap();
    fs::OpenOptions::new().write(true).open(at("a.db-shm")).unwrap().set_len(0).unwrap();
    shipper.until_it_says("a.db-shm was cut short").unwrap();
    for path in [&a, &b] {
        let db = Connection::open(path).unwrap();
        db.execute("INSERT INTO item (name) VALUES ('later')", []).unwrap();
    }
    shipping.sync(&[]).unwrap();
    for (name, path) in [("a", &a), ("b", &b)] {
        let copy = at(&format!("{name}-copy"));
        shipping.restore(name, &copy).unwrap();
        same_rows(&copy, path).unwrap();
    }
    shipper.stop().unwrap();
}
