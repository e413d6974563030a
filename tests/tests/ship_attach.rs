//! Whether the WAL goes on from where it was captured: at a start, at a hand-over, at a capture. What is taken for
//! continuity must be, and what is continuity is not swept again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use replica::format::PageSize;
use replica::format::wal::{Position, Salts, WalChecksum, frame_offset};
use rusqlite::Connection;
use seaworthy_tests::shipped::Shipped;
use shipper::clock::SystemClock;
use shipper::ship::capture::{Capture, Discontinuity, Purpose};
use shipper::ship::sweep::Goal;
use shipper::wal::attach;
use shipper::wal::files::Files;
use shipper::wal::hold::Hold;
use shipper::wal::reader::{WalReader, wal_path};
use shipper::wal::sqlite::{self, Mark};

fn page_size(path: &Path) -> PageSize {
    attach::check(path).unwrap().page_size
}

/// Captures everything and uploads it, and says where that was.
fn shipped_up_to(shipped: &mut Shipped) -> Position {
    shipped.ship();
    shipped.chain().durable_state().unwrap().position.unwrap()
}

fn checkpoint(connection: &Connection, mode: &str) {
    let busy: i64 = connection
        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 0);
}

/// The machine loses power: every process is gone, and with it the WAL's index.
fn lose_power(shipped: &mut Shipped) {
    shipped.die();
    let nobody = Connection::open_in_memory().unwrap();
    let application = std::mem::replace(&mut shipped.application, nobody);
    let kept = std::fs::read(wal_path(&shipped.database())).unwrap();
    // Its close would checkpoint and remove the WAL.
    let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    application.set_db_config(config, true).unwrap();
    drop(application);
    std::fs::write(wal_path(&shipped.database()), kept).unwrap();
    let index = shipped.database().with_extension("db-shm");
    if index.exists() {
        std::fs::remove_file(index).unwrap();
    }
}

fn reopen(shipped: &mut Shipped) {
    shipped.application = Connection::open(shipped.database()).unwrap();
    shipped.application.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
}

#[test]
fn commits_made_meanwhile_are_captured_from_the_wal() {
    let mut shipped = Shipped::new();
    shipped.ship();
    shipped.die();
    shipped.commit();
    shipped.commit_one();
    assert_eq!(shipped.restart(), None);
    shipped.settle();
}

#[test]
fn a_reboot_without_foreign_writes_goes_on() {
    let mut shipped = Shipped::new();
    shipped.ship();
    lose_power(&mut shipped);
    reopen(&mut shipped);
    assert_eq!(shipped.restart(), None);
    shipped.ship();
    shipped.settle();
}

#[test]
fn a_wal_that_was_restarted_meanwhile_is_caught_up() {
    for mode in ["TRUNCATE", "RESTART"] {
        let mut shipped = Shipped::new();
        let position = shipped_up_to(&mut shipped);
        shipped.die();
        shipped.commit();
        checkpoint(&shipped.application, mode);
        // As far as the saved place, and further.
        let frames = |shipped: &Shipped| {
            let bytes = std::fs::metadata(wal_path(&shipped.database())).unwrap().len();
            bytes / frame_offset(2, page_size(&shipped.database()))
        };
        while mode == "TRUNCATE" && frames(&shipped) <= u64::from(position.frame) {
            shipped.commit();
        }
        shipped.commit_one();
        assert_eq!(shipped.restart(), Some(Goal::CatchUp), "{mode}");
        shipped.settle();
    }
}

#[test]
fn a_wal_that_was_closed_and_begun_anew_is_caught_up() {
    let mut shipped = Shipped::new();
    shipped.ship();
    shipped.die();
    shipped.commit();
    shipped.application = Connection::open_in_memory().unwrap();
    assert!(!wal_path(&shipped.database()).exists(), "the last connection removes it");
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
    // The same again, from an empty WAL to an empty WAL: both places are alike, and prove nothing.
    shipped.die();
    shipped.application = Connection::open(shipped.database()).unwrap();
    shipped.commit();
    shipped.application = Connection::open_in_memory().unwrap();
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn a_wal_that_lost_its_end_is_caught_up() {
    let mut shipped = Shipped::new();
    let before = shipped_up_to(&mut shipped).frame;
    shipped_up_to(&mut shipped);
    lose_power(&mut shipped);
    let path = wal_path(&shipped.database());
    let end = frame_offset(before + 1, page_size(&shipped.database()));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..usize::try_from(end).unwrap()]).unwrap();
    reopen(&mut shipped);
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn a_wal_that_lost_frames_before_its_end_is_caught_up() {
    let mut shipped = Shipped::new();
    let before = shipped_up_to(&mut shipped).frame;
    shipped_up_to(&mut shipped);
    lose_power(&mut shipped);
    let path = wal_path(&shipped.database());
    let hole = usize::try_from(frame_offset(before + 1, page_size(&shipped.database()))).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[hole + 100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    reopen(&mut shipped);
    // The frame at the saved place is still there, behind the end.
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn a_wal_that_took_another_way_is_caught_up() {
    let mut shipped = Shipped::new();
    let before = shipped_up_to(&mut shipped).frame;
    let saved = shipped_up_to(&mut shipped);
    lose_power(&mut shipped);
    let path = wal_path(&shipped.database());
    let end = frame_offset(before + 1, page_size(&shipped.database()));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..usize::try_from(end).unwrap()]).unwrap();
    reopen(&mut shipped);
    // The same salts, as many frames, and other content.
    let sql = "UPDATE item SET name = name || '!' WHERE id % 50 = 0";
    shipped.application.execute(sql, []).unwrap();
    shipped.commit();
    let now = WalReader::open(&shipped.database(), page_size(&shipped.database())).unwrap();
    assert!(now.file_size().unwrap() >= frame_offset(saved.frame, page_size(&shipped.database())));
    assert_eq!(shipped.restart(), Some(Goal::CatchUp));
    shipped.settle();
}

#[test]
fn frames_that_may_be_overwritten_at_once_are_captured_on_attaching() {
    let mut shipped = Shipped::new();
    shipped.ship();
    shipped.die();
    shipped.commit();
    checkpoint(&shipped.application, "PASSIVE");
    // Everything is backfilled, so the next commit restarts the WAL under the first transaction.
    assert_eq!(shipped.restart(), None);
    shipped.commit_one();
    shipped.capture();
    shipped.settle();
}

#[test]
fn a_transaction_that_lets_the_wal_be_restarted_is_not_entered_before_a_capture() {
    let shipped = {
        let mut shipped = Shipped::new();
        shipped.die();
        shipped
    };
    let path = shipped.database();
    let mut hold = Hold::begin(&path, page_size(&path)).unwrap();
    let mut captured = hold.mark().position;
    let hand_over = |hold: &mut Hold, captured: &mut Position| {
        let mut asked = false;
        let from = *captured;
        hold.hand_over::<rusqlite::Error>(from, |_, _, next| {
            (asked, *captured) = (true, next.position);
            Ok(())
        })
        .unwrap();
        asked
    };
    shipped.commit();
    assert!(!hand_over(&mut hold, &mut captured), "the new mark keeps the WAL as it is");
    checkpoint(&shipped.application, "PASSIVE");
    assert!(hand_over(&mut hold, &mut captured), "everything is backfilled: slot 0");
    assert!(hold.is_restartable());
    shipped.commit();
    assert_ne!(sqlite_mark(&path).position.salts, captured.salts, "the WAL was restarted");
    assert!(hand_over(&mut hold, &mut captured), "a new WAL");
}

fn sqlite_mark(path: &Path) -> Mark {
    let reader = sqlite::open(path).unwrap();
    let mark = sqlite::begin_read(&reader, page_size(path)).unwrap();
    sqlite::end_read(&reader).unwrap();
    mark
}

#[test]
fn a_capture_goes_on_only_from_where_it_stands() {
    let mut shipped = Shipped::new();
    shipped.ship();
    shipped.restart();
    let (path, chain) = (shipped.database(), shipped.chain().clone());
    shipped.commit();
    let to = sqlite_mark(&path);
    let attachable = attach::check(&path).unwrap();
    let try_from = |from: Position, held: Position| {
        let wal = WalReader::open(&path, attachable.page_size).unwrap();
        let files = Arc::new(Files::of(&path, &attachable).unwrap());
        let (clock, mark) = (Arc::new(SystemClock), Mark { position: from, ..to });
        let mut capture =
            Capture::new(wal, files, chain.clone(), clock, mark, Timestamp::UNIX_EPOCH, u32::MAX);
        let reader = sqlite::open(&path).unwrap();
        sqlite::begin_read(&reader, attachable.page_size).unwrap();
        let held = Mark { position: held, ..to };
        match capture.capture(&reader, held, to, Timestamp::now(), Purpose::Part) {
            Ok(_) => true,
            Err(error) if error.is::<Discontinuity>() => false,
            Err(error) => unreachable!("{error:#}"),
        }
    };
    let other =
        |salt, frame| Position { salts: Salts(salt, 0), frame, checksum: WalChecksum::default() };
    let ahead = Position { frame: to.position.frame + 1, ..to.position };
    assert!(try_from(to.position, to.position), "nothing is new");
    assert!(!try_from(ahead, ahead), "the WAL ends before");
    assert!(try_from(other(1, 5), other(1, 5)), "restarted from where it was captured");
    assert!(!try_from(other(1, 4), other(1, 5)), "restarted from further on");
    assert!(try_from(other(2, 0), other(1, 5)), "left empty since then");
    assert!(!try_from(other(1, 0), other(1, 5)), "not empty when it was held");
}
