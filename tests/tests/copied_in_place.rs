//! An old file is copied over the live one in place, beside an empty WAL, with the shipper attached: neither SQLite nor
//! a name says that anything happened. It is noticed, and caught up.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::shipped::Shipped;
use shipper::ship::capture::Discontinuity;
use shipper::ship::sweep::Goal;

/// By another process: a descriptor that is closed in this one would drop SQLite's locks.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// As soon as the shipper lets it.
fn empty_the_wal(shipped: &mut Shipped) {
    shipped.application.busy_timeout(Duration::ZERO).unwrap();
    let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
    while shipped.application.query_row(truncate, [], |row| row.get::<_, i64>(0)).unwrap() != 0 {
        std::thread::sleep(Duration::from_millis(100));
        shipped.capture();
    }
}

/// Whether the engine comes upon the other file by itself.
fn is_noticed(shipped: &mut Shipped) -> bool {
    for _ in 0..3 {
        match shipped.engine().step(true) {
            Ok(_) => {}
            Err(error) if error.is::<Discontinuity>() => return true,
            Err(error) => unreachable!("{error:#}"),
        }
    }
    false
}

fn old_file_comes_back(looked_between: bool, after: impl Fn(&Shipped), grown: bool) {
    let mut shipped = Shipped::new();
    shipped.ship();
    empty_the_wal(&mut shipped);
    let old = shipped.state("old.db");
    copy(&shipped.database(), &old);
    shipped.ship();
    if grown {
        let sql = "INSERT INTO item (name) SELECT name FROM item LIMIT 500";
        shipped.application.execute(sql, []).unwrap();
        shipped.ship();
    }
    empty_the_wal(&mut shipped);
    if looked_between {
        for _ in 0..3 {
            shipped.capture();
        }
    }
    copy(&old, &shipped.database());
    shipped.application = Connection::open(shipped.database()).unwrap();
    after(&shipped);
    assert!(is_noticed(&mut shipped), "looked between: {looked_between}, grown: {grown}");
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    if !grown {
        shipped.settle();
    }
    for restored in ["caught-up.db", "gone-on.db"] {
        let restored = shipped.restore(restored);
        assert_eq!(items(&restored), items(&shipped.database()));
        shipped.ship();
    }
}

#[test]
fn a_database_that_shrinks_as_its_wal_begins_anew_is_still_itself() {
    let mut shipped = Shipped::new();
    shipped.ship();
    empty_the_wal(&mut shipped);
    shipped.application.execute_batch("DELETE FROM item WHERE id > 100; VACUUM").unwrap();
    assert!(!is_noticed(&mut shipped));
    shipped.settle();
}

/// What is in the database, which is sound.
fn items(database: &Path) -> Vec<(i64, String)> {
    let reader = Connection::open(database).unwrap();
    let sound: String = reader.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut select = reader.prepare("SELECT id, name FROM item ORDER BY id").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn before_the_application_goes_on() {
    for looked_between in [true, false] {
        old_file_comes_back(looked_between, |_| {}, false);
    }
}

#[test]
fn before_a_commit_of_the_application() {
    for looked_between in [true, false] {
        old_file_comes_back(looked_between, Shipped::commit_one, false);
    }
}

#[test]
fn over_a_database_that_has_grown_since() {
    for looked_between in [true, false] {
        old_file_comes_back(looked_between, Shipped::commit_one, true);
    }
}
