//! Single steps of an engine, in the order that a test chooses: what is said of them, and what they leave to the next one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use seaworthy_tests::shipped::Shipped;
use shipper::ship::capture::Discontinuity;
use shipper::ship::sweep::Goal;

const RARELY: Duration = Duration::from_secs(3600);

#[test]
fn a_step_is_complete_only_with_everything_captured() {
    let mut shipped = Shipped::new();
    shipped.open();
    shipped.attach_with(RARELY);
    shipped.commit();
    assert!(
        shipped.engine().step(false).unwrap().complete_until.is_some(),
        "the first is captured"
    );
    shipped.commit();
    assert_eq!(shipped.engine().step(false).unwrap().complete_until, None);
    assert!(shipped.engine().step(true).unwrap().complete_until.is_some());
    shipped.settle();
}

#[test]
fn a_sweep_ends_with_what_was_committed_between_its_slices() {
    let mut shipped = Shipped::begun();
    shipped.attach_with(RARELY);
    let mut slices = 0;
    while shipped.engine().step(false).unwrap().sweeping.is_some() {
        shipped.commit();
        slices += 1;
    }
    assert!(slices > 1, "{slices}");
    assert_eq!(shipped.upload(), Some(1));
    shipped.settle();
}

#[test]
fn a_sweep_that_finds_nothing_says_nothing_of_the_bucket_while_files_wait() {
    let mut shipped = Shipped::new();
    shipped.ship();
    shipped.commit();
    shipped.capture();
    shipped.open();
    shipped.chain().doubt();
    assert_eq!(shipped.attach(), Some(Goal::CatchUp));
    shipped.sweep();
    assert_eq!(shipped.spooled().len(), 1, "what waited before, and nothing more");
    shipped.die();
    for file in shipped.spooled() {
        std::fs::remove_file(file).unwrap();
    }
    // The WAL still has what was lost, behind the place that is known to be in the bucket.
    assert_eq!(shipped.restart(), None);
    shipped.settle();
}

#[test]
fn what_is_cut_off_is_forgotten_and_may_come_back() {
    let mut shipped = Shipped::new();
    shipped.ship();
    shipped.application.execute_batch("DELETE FROM item WHERE id > 100; VACUUM").unwrap();
    shipped.settle();
    let sql = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
               INSERT INTO item (name) SELECT 'item ' || i FROM n";
    shipped.application.execute(sql, []).unwrap();
    shipped.settle();
    assert_eq!(shipped.restart(), None);
    shipped.ship();
    shipped.settle();
}

/// Also between the looks that are made now and then.
#[test]
fn no_step_vouches_for_a_file_that_was_replaced() {
    let mut shipped = Shipped::new();
    shipped.ship();
    let step = shipped.engine().step(false).unwrap();
    assert!(step.complete_until.is_some(), "{step:?}");
    let other = shipped.state("other.db");
    std::fs::copy(shipped.database(), &other).unwrap();
    std::fs::rename(other, shipped.database()).unwrap();
    let error = shipped.engine().step(false).unwrap_err();
    assert!(
        error.is::<Discontinuity>() && format!("{error:#}").contains("leads elsewhere"),
        "{error:#}"
    );
}

/// A sweep that somebody writes beside, past the WAL, is not a state.
#[test]
fn a_sweep_of_a_file_that_is_written_meanwhile_comes_to_nothing() {
    let mut shipped = Shipped::new();
    shipped.application.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    shipped.die();
    shipped.application = rusqlite::Connection::open_in_memory().unwrap();
    shipped.open();
    shipped.chain().doubt();
    assert_eq!(shipped.attach(), Some(Goal::CatchUp));
    assert!(shipped.engine().step(true).unwrap().sweeping.is_some(), "one slice of many");
    let bytes = std::fs::read(shipped.database()).unwrap();
    let mut file = std::fs::File::options().write(true).open(shipped.database()).unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let ended = std::iter::repeat_with(|| shipped.engine().step(true))
        .find(|step| !step.as_ref().is_ok_and(|step| step.sweeping.is_some()))
        .unwrap();
    let error = ended.unwrap_err();
    assert!(error.is::<Discontinuity>(), "{error:#}");
    assert_eq!(shipped.upload(), None);
}
