//! A damaged spool: what is a state of the database only together goes up together or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use replica::format::Txid;
use seaworthy_tests::shipped::Shipped;
use shipper::ship::sweep::Goal;

#[test]
fn a_snapshot_never_goes_up_without_the_captures_made_meanwhile() {
    let mut shipped = Shipped::begun();
    shipped.sweep_meanwhile();
    let files = shipped.spooled();
    assert!(files.len() > 2, "{files:?}");
    let capture = files.last().unwrap();
    let whole = std::fs::read(capture).unwrap();
    std::fs::write(capture, b"gone").unwrap();
    let error = shipped.chain().next_upload().unwrap_err();
    assert!(format!("{error:#}").contains("read "), "{error:#}");
    std::fs::write(capture, whole).unwrap();
    assert_eq!(shipped.upload(), Some(1));
    assert_eq!(shipped.spooled(), Vec::<PathBuf>::new(), "nothing is left in the spool");
}

#[test]
fn waiting_files_become_one_and_a_frozen_one_never_changes() {
    let mut shipped = Shipped::begun();
    shipped.sweep();
    assert_eq!(shipped.upload(), Some(1));
    for _ in 0..70 {
        shipped.commit();
        shipped.capture();
    }
    let frozen = shipped.chain().next_upload().unwrap().unwrap();
    let content = std::fs::read(&frozen.entry.path).unwrap();
    assert_eq!(shipped.spooled(), std::slice::from_ref(&frozen.entry.path));
    for _ in 0..70 {
        shipped.commit();
        shipped.capture();
    }
    shipped.chain().compact(false).unwrap();
    assert_eq!(shipped.chain().backlog().0, 2);
    shipped.commit();
    shipped.capture();
    assert_eq!(shipped.restart(), None, "the WAL is as it was");
    let again = shipped.chain().next_upload().unwrap().unwrap();
    assert_eq!((again.txid, std::fs::read(&again.entry.path).unwrap()), (frozen.txid, content));
    assert_eq!((shipped.upload(), shipped.upload(), shipped.upload()), (Some(2), Some(3), None));
}

#[test]
fn a_file_that_is_not_whole_ends_the_spool_and_what_it_held_is_captured_again() {
    let mut shipped = Shipped::begun();
    shipped.sweep();
    assert_eq!(shipped.upload(), Some(1));
    for _ in 0..3 {
        shipped.commit();
        shipped.capture();
    }
    let files = shipped.spooled();
    let middle = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &middle[..middle.len() / 2]).unwrap();
    // The WAL still holds everything after the first file.
    assert_eq!(shipped.restart(), None);
    assert_eq!(shipped.chain().backlog().0, 2, "the first, and one for the rest");
    assert_eq!((shipped.upload(), shipped.upload()), (Some(2), None));

    shipped.commit();
    shipped.capture();
    std::fs::write(&shipped.spooled()[0], b"").unwrap();
    shipped.die();
    shipped.application.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    shipped.commit();
    assert_eq!(shipped.restart(), Some(Goal::CatchUp), "the WAL is another one");
    shipped.sweep_meanwhile();
    assert_eq!((shipped.upload(), shipped.upload()), (Some(3), None));
}

#[test]
fn a_first_snapshot_that_was_taken_is_not_taken_again() {
    let mut shipped = Shipped::begun();
    shipped.commit();
    assert_eq!(shipped.restart(), Some(Goal::Snapshot), "nothing of it was whole");
    shipped.sweep_meanwhile();
    shipped.commit();
    shipped.capture();
    assert_eq!(shipped.restart(), None);
    let frozen = shipped.chain().next_upload().unwrap().unwrap();
    assert_eq!(frozen.txid, Txid::FIRST);
    shipped.commit();
    shipped.capture();
    assert_eq!(shipped.restart(), None);
    assert_eq!((shipped.upload(), shipped.upload(), shipped.upload()), (Some(1), Some(2), None));
    assert_eq!(shipped.restart(), None);
}
