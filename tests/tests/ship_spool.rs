//! A damaged spool, and one without room: what is a state of the database only together goes up together or not at all, and
//! nothing goes up that does not restore.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use replica::format::{PageNumber, Txid, page_checksum};
use seaworthy_tests::shipped::Shipped;
use shipper::chain::disk::{Change, Disk, Space};
use shipper::chain::reserve::is_out_of_room;
use shipper::chain::{LocalChain, SpoolFull};
use shipper::ship::capture::Discontinuity;
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

/// A small disk, as full as the test says.
#[derive(Debug)]
struct SmallDisk {
    free: Mutex<u64>,
    /// New files of the spool cannot be written.
    full: Mutex<bool>,
}

const SMALL: u64 = 64 << 20;

impl SmallDisk {
    fn set(&self, free: u64, full: bool) {
        *self.free.lock().unwrap() = free;
        *self.full.lock().unwrap() = full;
    }
}

impl Disk for SmallDisk {
    fn before(&self, change: Change, path: &Path) -> io::Result<()> {
        let new = change == Change::Write && path.extension().is_some_and(|end| end == "tmp");
        if new && *self.full.lock().unwrap() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space { free: *self.free.lock().unwrap(), total: SMALL })
    }

    fn sync(&self, _file: &std::fs::File, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A database whose first snapshot is in the bucket, on a disk with room.
fn on_a_small_disk() -> (Shipped, Arc<SmallDisk>) {
    let mut shipped = Shipped::new();
    let disk = Arc::new(SmallDisk { free: Mutex::new(SMALL), full: Mutex::new(false) });
    shipped.disk = disk.clone();
    assert_eq!(shipped.restart(), None);
    (shipped, disk)
}

/// What the shipper's own task does then.
fn give_up(shipped: &mut Shipped) {
    let chain: Arc<LocalChain> = shipped.chain().clone();
    shipped.die();
    chain.drop_spool(false).unwrap();
}

#[test]
fn what_waits_gives_way_before_the_disk_is_full() {
    let (mut shipped, disk) = on_a_small_disk();
    disk.set(SMALL / 16, false);
    let refused = (0..1000).find_map(|_| {
        shipped.commit();
        shipped.engine().step(true).err()
    });
    assert!(refused.unwrap().is::<SpoolFull>());
    assert!(shipped.chain().backlog().1 < SMALL / 16);
    // Merged, it fits again.
    shipped.chain().compact(true).unwrap();
    shipped.chain().check_room().unwrap();
    shipped.settle();
}

#[test]
fn a_sweep_leaves_the_reserve_and_nothing_behind() {
    let (mut shipped, disk) = on_a_small_disk();
    let insert = "INSERT INTO item (name) VALUES (hex(randomblob(40000)))";
    for _ in 0..60 {
        shipped.application.execute(insert, []).unwrap();
    }
    give_up(&mut shipped);
    disk.set(SMALL / 16, false);
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    let refused = (0..1000).find_map(|_| shipped.engine().step(true).err()).unwrap();
    assert!(is_out_of_room(&refused), "{refused:#}");
    assert!(format!("{refused:#}").contains("HINT: make room"), "{refused:#}");
    give_up(&mut shipped);
    shipped.open();
    assert_eq!(shipped.spooled(), Vec::<PathBuf>::new());
    disk.set(SMALL, false);
    assert_eq!(shipped.attach(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn what_cannot_be_merged_is_given_up_and_caught_up() {
    let (mut shipped, disk) = on_a_small_disk();
    for _ in 0..5 {
        shipped.commit();
        shipped.capture();
    }
    // The first as it is, which is ready; for the next there is no room.
    disk.set(0, true);
    assert_eq!(shipped.upload(), Some(2));
    let refused = shipped.chain().next_upload().unwrap_err();
    assert!(is_out_of_room(&refused), "{refused:#}");
    give_up(&mut shipped);
    disk.set(SMALL, false);
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn a_file_that_does_not_restore_is_not_sent() {
    let mut shipped = Shipped::new();
    shipped.commit();
    shipped.capture();
    let path = shipped.spooled().remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert!(shipped.chain().next_upload().is_err());
    let path = shipped.spooled().remove(0);
    std::fs::write(&path, whole).unwrap();
    assert_eq!(shipped.upload(), Some(2));
    // An index that has what no file has: every file after it would claim a state that never was.
    let page = PageNumber::new(2).unwrap();
    shipped.chain().tip().sums.set(page, page_checksum(page, &[1; 4096])).unwrap();
    shipped.commit_one();
    shipped.capture();
    let refused = format!("{:#}", shipped.chain().next_upload().unwrap_err());
    assert!(refused.contains("does not give the state"), "{refused}");
    shipped.chain().doubt();
    shipped.die();
    shipped.restart();
    shipped.settle();
}

#[test]
fn a_comparison_that_fails_is_a_doubt() {
    let mut shipped = Shipped::new();
    shipped.die();
    shipped.application.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    // The log has one page, and another one is damaged.
    shipped.commit_one();
    shipped.restart();
    shipped.settle();
    shipped.die();
    let bytes = std::fs::read(shipped.database()).unwrap();
    // Among those that the first slice compares.
    let at = 20 * 4096 + 4000;
    let file = std::fs::File::options().write(true).open(shipped.database()).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let disk = Arc::new(SmallDisk { free: Mutex::new(SMALL), full: Mutex::new(true) });
    shipped.disk = disk.clone();
    assert_eq!(shipped.restart(), None);
    let failed = (0..100).find_map(|_| shipped.engine().step(true).err()).unwrap();
    assert!(failed.is::<Discontinuity>(), "{failed:#}");
    disk.set(SMALL, false);
    shipped.open();
    shipped.chain().doubt();
    assert_eq!(shipped.attach(), Some(Goal::CatchUp));
    shipped.settle();
}
