//! What a shipper finds when it starts is believed only as far as it proves itself, and what it cannot prove it reads
//! back from the bucket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use seaworthy_tests::shipped::Shipped;
use shipper::chain::disk::{Change, Disk};
use shipper::chain::roll_forward::RollForwardError;
use shipper::ship::sweep::Goal;
use shipper::ship::upload::{Attempt, Ended};

/// Changes the index's entry of a page, as a torn write does.
fn tear(sums: &Path, page: usize) {
    let mut bytes = std::fs::read(sums).unwrap();
    bytes[(page - 1) * 8] ^= 1;
    std::fs::write(sums, bytes).unwrap();
}

/// Pages (from 1) whose entries differ.
fn differing(a: &Path, b: &Path) -> Vec<usize> {
    let (a, b) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    let pairs = a.chunks(8).zip(b.chunks(8)).enumerate();
    pairs.filter(|(_, (a, b))| a != b).map(|(index, _)| index + 1).collect()
}

/// A page that [`Shipped::commit`] does not change, and one that it does.
fn quiet_and_busy(shipped: &mut Shipped) -> (usize, usize) {
    let before = shipped.saved();
    shipped.ship();
    let busy = differing(&before.path().join("durable.sums"), &shipped.state("durable.sums"));
    let quiet = (2..).find(|page| !busy.contains(page)).unwrap();
    (quiet, *busy.last().unwrap())
}

fn ended(result: Result<u64, RollForwardError>) -> String {
    match result {
        Err(RollForwardError::Ended(why)) => why,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_torn_index_is_made_whole_from_the_bucket() {
    let mut shipped = Shipped::new();
    let (_, busy) = quiet_and_busy(&mut shipped);
    assert_eq!(shipped.ship(), 3);
    shipped.die();
    tear(&shipped.state("durable.sums"), busy);
    shipped.open();
    assert!(shipped.chain().is_torn());
    assert_eq!(shipped.read_back().unwrap(), 2, "everything since the index was forced");
    assert_eq!((shipped.durable(), shipped.attach()), (3, Some(Goal::CatchUp)));
    shipped.settle();
}

#[test]
fn a_torn_index_that_the_bucket_does_not_mend_is_given_up() {
    let mut shipped = Shipped::new();
    let (quiet, _) = quiet_and_busy(&mut shipped);
    shipped.die();
    tear(&shipped.state("durable.sums"), quiet);
    shipped.open();
    assert!(shipped.chain().is_torn());
    assert!(ended(shipped.read_back()).contains("page index"));
}

#[test]
fn what_was_forgotten_is_read_back_and_the_rest_caught_up() {
    let mut shipped = Shipped::new();
    shipped.ship();
    assert_eq!(shipped.restart(), None);
    shipped.commit();
    shipped.capture();
    let stale = shipped.saved();
    assert_eq!(shipped.upload(), Some(3));
    assert_eq!(shipped.ship(), 4);
    shipped.commit();
    shipped.fall_back_to(&stale);
    shipped.open();
    assert!(!shipped.chain().is_torn(), "it was whole once");
    assert_eq!((shipped.read_back().unwrap(), shipped.durable()), (2, 4));
    assert_eq!(shipped.chain().backlog(), (0, 0), "what waited follows something older");
    // The WAL still holds the place of TXID 2, but that proves nothing of TXID 4.
    assert_eq!(shipped.attach(), Some(Goal::CatchUp));
    shipped.settle();
    assert_eq!(shipped.durable(), 5);
}

#[test]
fn what_another_run_wrote_is_not_read_back() {
    let mut shipped = Shipped::new();
    let stale = shipped.saved();
    assert_eq!(shipped.restart(), None);
    assert_eq!(shipped.ship(), 2);
    shipped.fall_back_to(&stale);
    shipped.open();
    assert!(ended(shipped.read_back()).contains("written by another shipper"));
}

#[test]
fn what_follows_another_state_is_not_read_back() {
    let mut shipped = Shipped::new();
    let stale = shipped.saved();
    assert_eq!(shipped.ship(), 2);
    shipped.fall_back_to(&stale);
    // The same run, with the state of another moment.
    shipped.open();
    shipped.attach();
    shipped.commit_one();
    shipped.capture();
    let upload = shipped.chain().next_upload().unwrap().unwrap();
    shipped.chain().uploaded(&upload).unwrap();
    shipped.commit();
    shipped.capture();
    let (txid, stale) = (shipped.chain().next_upload().unwrap().unwrap().txid, shipped.saved());
    assert_eq!(txid.get(), 3);
    let upload = shipped.chain().next_upload().unwrap().unwrap();
    shipped.put(&upload);
    shipped.fall_back_to(&stale);
    shipped.die();
    tear(&shipped.state("durable.sums"), 2);
    shipped.open();
    assert!(shipped.chain().is_torn());
    assert!(ended(shipped.read_back()).contains("continues "));
}

/// Lets writes of the record through as often as it is told to, and remembers what was forced when.
#[derive(Debug, Default)]
struct Watched {
    events: Mutex<Vec<String>>,
    record_writes_left: Mutex<Option<u32>>,
}

impl Watched {
    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.events.lock().unwrap().push(format!("{what} {name}"));
    }
}

impl Disk for Watched {
    fn before(&self, change: Change, path: &Path) -> io::Result<()> {
        if change == Change::Write && path.ends_with("record") {
            let mut left = self.record_writes_left.lock().unwrap();
            if *left == Some(0) {
                return Err(io::Error::other("the process died"));
            }
            *left = left.map(|left| left - 1);
            self.note("write", path);
        }
        Ok(())
    }

    fn sync(&self, _file: &std::fs::File, path: &Path) -> io::Result<()> {
        self.note("force", path);
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// TXID 3 is in the bucket and in the index; the process died before the record said so.
fn died_between_index_and_record() -> Shipped {
    let mut shipped = Shipped::new();
    let watched = Arc::new(Watched::default());
    shipped.disk = watched.clone();
    assert_eq!(shipped.restart(), None);
    assert_eq!(shipped.ship(), 2);
    shipped.commit();
    shipped.capture();
    let upload = shipped.chain().next_upload().unwrap().unwrap();
    shipped.put(&upload);
    // One more: that the upload is confirmed.
    *watched.record_writes_left.lock().unwrap() = Some(1);
    shipped.chain().uploaded(&upload).unwrap_err();
    *watched.record_writes_left.lock().unwrap() = None;
    shipped.die();
    shipped
}

#[test]
fn a_process_that_dies_between_index_and_record_costs_nothing() {
    let mut shipped = died_between_index_and_record();
    shipped.open();
    assert!(!shipped.chain().is_torn());
    assert_eq!((shipped.durable(), shipped.attach()), (3, None), "nothing is read again");
    shipped.ship();
    shipped.settle();
}

#[test]
fn a_process_that_dies_while_it_reads_back_still_catches_up() {
    let mut shipped = Shipped::new();
    shipped.ship();
    assert_eq!(shipped.restart(), None);
    let stale = shipped.saved();
    assert_eq!((shipped.ship(), shipped.ship()), (3, 4));
    shipped.fall_back_to(&stale);
    let watched = Arc::new(Watched::default());
    shipped.disk = watched.clone();
    shipped.open();
    // One more: that the bucket is at TXID 4.
    *watched.record_writes_left.lock().unwrap() = Some(1);
    shipped.read_back().unwrap_err();
    *watched.record_writes_left.lock().unwrap() = None;
    // The place of TXID 2, which the WAL still holds, is not that of TXID 4.
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    assert_eq!(shipped.durable(), 4);
    shipped.settle();
}

#[test]
fn the_file_on_its_way_does_not_excuse_an_index_that_does_not_add_up() {
    let mut shipped = Shipped::new();
    let (quiet, _) = quiet_and_busy(&mut shipped);
    let mut shipped = died_between_index_and_record();
    tear(&shipped.state("durable.sums"), quiet);
    shipped.open();
    assert!(shipped.chain().is_torn());
}

#[test]
fn a_file_that_no_answer_said_is_in_the_bucket_completes_no_index() {
    let mut shipped = Shipped::new();
    let (_, busy) = quiet_and_busy(&mut shipped);
    shipped.commit();
    shipped.capture();
    let upload = shipped.chain().next_upload().unwrap().unwrap();
    assert_eq!(upload.txid.get(), 3);
    shipped.die();
    // Torn just where that file would mend it.
    tear(&shipped.state("durable.sums"), busy);
    shipped.open();
    assert!(shipped.chain().is_torn());
    assert_eq!((shipped.read_back().unwrap(), shipped.durable()), (1, 2));
    shipped.attach();
    shipped.settle();
}

#[test]
fn a_run_is_known_before_it_uploads_and_an_index_forced_before_it_is_said_to_be() {
    let mut shipped = Shipped::new();
    let watched = Arc::new(Watched::default());
    shipped.disk = watched.clone();
    shipped.open();
    let opened: Vec<String> = std::mem::take(&mut watched.events.lock().unwrap());
    assert_eq!(opened[..2], ["write record", "force record"]);
    shipped.attach();
    // More than enough for the index to be forced again.
    for _ in 0..200 {
        shipped.commit_one();
        shipped.capture();
        shipped.upload();
        if watched.events.lock().unwrap().iter().any(|event| event == "force durable.sums") {
            break;
        }
    }
    let events = watched.events.lock().unwrap().clone();
    assert_eq!(events[events.len() - 3..], ["force durable.sums", "write record", "force record"]);
}

#[test]
fn a_damaged_file_of_the_spool_leaves_no_trace_in_the_index() {
    let mut shipped = Shipped::new();
    shipped.ship();
    for _ in 0..2 {
        shipped.commit();
        shipped.capture();
    }
    let waiting = shipped.chain().backlog().0;
    let mut files: Vec<_> = std::fs::read_dir(shipped.state("spool"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert_eq!((waiting, files.len()), (2, 2));
    shipped.die();
    // In the last of its pages: those before it are fine.
    let mut bytes = std::fs::read(&files[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    // The WAL does not have it any more, so that it must be swept: every page that the damaged file had.
    shipped.application.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    shipped.commit_one();
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn an_upload_is_applied_to_what_it_follows_and_to_nothing_else() {
    let mut shipped = Shipped::new();
    shipped.commit();
    shipped.capture();
    let upload = shipped.chain().next_upload().unwrap().unwrap();
    let file = std::fs::read(&upload.entry.path).unwrap();
    shipped.chain().uploaded(&upload).unwrap();
    std::fs::write(&upload.entry.path, file).unwrap();
    let error = shipped.chain().uploaded(&upload).unwrap_err();
    assert!(format!("{error:#}").contains("continues "), "{error:#}");
}

#[test]
fn what_was_merged_while_waiting_goes_on_after_a_restart() {
    let mut shipped = Shipped::new();
    for _ in 0..3 {
        shipped.commit();
        shipped.capture();
    }
    let before = shipped.saved();
    shipped.chain().compact(true).unwrap();
    assert_eq!(shipped.chain().backlog().0, 1);
    // The process died before the merged files were removed.
    for file in std::fs::read_dir(before.path().join("spool")).unwrap().skip(1) {
        let from = file.unwrap().path();
        let to = shipped.state("spool").join(from.file_name().unwrap());
        if !to.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
    assert_eq!(shipped.restart(), None);
    assert_eq!(shipped.chain().backlog().0, 1);
    assert_eq!(shipped.upload(), Some(2));
    shipped.settle();
}

#[test]
fn a_frozen_file_that_was_there_already_vouches_for_nothing_behind_it() {
    let mut shipped = Shipped::new();
    shipped.commit();
    shipped.capture();
    shipped.chain().next_upload().unwrap();
    let stale = shipped.saved();
    assert_eq!(shipped.upload(), Some(2));
    assert_eq!(shipped.ship(), 3);
    shipped.fall_back_to(&stale);
    shipped.restart();
    let (outcome, told) = shipped.attempt();
    assert!(matches!(outcome, Err(Ended::Stale(_))), "{outcome:?}");
    assert_eq!(told.durable_capture(), None, "a sync would be answered for it");
    // Where nothing is behind it, it counts.
    assert_eq!(shipped.read_back().unwrap(), 1);
    shipped.restart();
    shipped.settle();
    shipped.commit();
    shipped.capture();
    let upload = shipped.chain().next_upload().unwrap().unwrap();
    shipped.put(&upload);
    let (outcome, told) = shipped.attempt();
    assert!(matches!(outcome, Ok(Attempt::Uploaded(txid)) if txid == upload.txid), "{outcome:?}");
    assert!(told.durable_capture().is_some());
}
