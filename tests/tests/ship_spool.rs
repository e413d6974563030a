//! A damaged spool: what is a state of the database only together goes up together or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replica::format::{Level, Txid};
use rusqlite::Connection;
use seaworthy_tests::writer;
use shipper::chain::LocalChain;
use shipper::chain::disk::SystemDisk;
use shipper::chain::open::Open;
use shipper::clock::SystemClock;
use shipper::ship::engine::{Engine, Pace};
use shipper::ship::sweep::Goal;
use shipper::wal::attach;

struct Attached {
    directory: tempfile::TempDir,
    application: Connection,
    engine: Option<Engine>,
    chain: Arc<LocalChain>,
}

fn attached() -> Attached {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    writer::create(&path, 4096, 3000).unwrap();
    let application = Connection::open(&path).unwrap();
    let chain = open(&directory);
    let engine = Some(engine(&directory, &chain));
    Attached { application, directory, engine, chain }
}

fn open(directory: &tempfile::TempDir) -> Arc<LocalChain> {
    let open = Open {
        page_size: attach::check(&directory.path().join("app.db")).unwrap().page_size,
        node_id: rand::random(),
        spool_limit: u64::MAX,
        disk: Arc::new(SystemDisk),
    };
    Arc::new(LocalChain::open(&directory.path().join("state"), open).unwrap())
}

fn engine(directory: &tempfile::TempDir, chain: &Arc<LocalChain>) -> Engine {
    let path = directory.path().join("app.db");
    let pace = Pace {
        sync_interval: Duration::ZERO,
        slice: Duration::ZERO,
        scrub_every: Duration::from_secs(3600),
        scrub_pause: Duration::ZERO,
        most_frames: 1 << 18,
    };
    let attachable = attach::check(&path).unwrap();
    Engine::attach(&path, attachable, pace, chain.clone(), Arc::new(SystemClock)).unwrap()
}

impl Attached {
    fn commit(&self) {
        self.application
            .execute("UPDATE item SET name = name || '.' WHERE id % 50 = 0", [])
            .unwrap();
    }

    fn capture(&mut self) {
        self.engine.as_mut().unwrap().step(true).unwrap();
    }

    fn sweep(&mut self, meanwhile: bool) {
        while self.engine.as_mut().unwrap().step(true).unwrap().sweeping.is_some() {
            if meanwhile {
                self.commit();
            }
        }
    }

    /// Sends the next file to nowhere.
    fn upload(&self) -> Option<u64> {
        let upload = self.chain.next_upload().unwrap()?;
        let expected = if upload.txid == Txid::FIRST { Level::SNAPSHOT } else { Level::SYNC };
        assert_eq!(upload.level, expected);
        self.chain.uploaded(&upload).unwrap();
        Some(upload.txid.get())
    }

    /// The process dies, and another one opens what it left.
    fn restart(&mut self) -> Option<Goal> {
        self.engine = None;
        self.chain = open(&self.directory);
        let engine = engine(&self.directory, &self.chain);
        let goal = engine.sweeping();
        self.engine = Some(engine);
        goal
    }

    /// The spooled files, by name.
    fn files(&self) -> Vec<PathBuf> {
        let spool = std::fs::read_dir(self.directory.path().join("state/spool")).unwrap();
        let mut files: Vec<_> = spool.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Names the generation, as an uploader does first.
    fn begin(&self) {
        let generation = replica::format::GenerationId::from_uuid(uuid::Uuid::now_v7());
        self.chain.set_generation(generation).unwrap();
    }
}

#[test]
fn a_snapshot_never_goes_up_without_the_captures_made_meanwhile() {
    let mut attached = attached();
    attached.begin();
    attached.sweep(true);
    let files = attached.files();
    assert!(files.len() > 2, "{files:?}");
    let capture = files.last().unwrap();
    let whole = std::fs::read(capture).unwrap();
    std::fs::write(capture, b"gone").unwrap();
    let error = attached.chain.next_upload().unwrap_err();
    assert!(format!("{error:#}").contains("read "), "{error:#}");
    std::fs::write(capture, whole).unwrap();
    assert_eq!(attached.upload(), Some(1));
    assert_eq!(attached.files(), Vec::<PathBuf>::new(), "nothing is left in the spool");
}

#[test]
fn waiting_files_become_one_and_a_frozen_one_never_changes() {
    let mut attached = attached();
    attached.begin();
    attached.sweep(false);
    assert_eq!(attached.upload(), Some(1));
    for _ in 0..70 {
        attached.commit();
        attached.capture();
    }
    let frozen = attached.chain.next_upload().unwrap().unwrap();
    let content = std::fs::read(&frozen.entry.path).unwrap();
    assert_eq!(attached.files(), std::slice::from_ref(&frozen.entry.path));
    for _ in 0..70 {
        attached.commit();
        attached.capture();
    }
    attached.chain.compact(false).unwrap();
    assert_eq!(attached.chain.backlog().0, 2);
    attached.commit();
    attached.capture();
    assert_eq!(attached.restart(), None, "the WAL is as it was");
    let again = attached.chain.next_upload().unwrap().unwrap();
    assert_eq!((again.txid, std::fs::read(&again.entry.path).unwrap()), (frozen.txid, content));
    assert_eq!((attached.upload(), attached.upload(), attached.upload()), (Some(2), Some(3), None));
}

#[test]
fn a_file_that_is_not_whole_ends_the_spool_and_what_it_held_is_captured_again() {
    let mut attached = attached();
    attached.begin();
    attached.sweep(false);
    assert_eq!(attached.upload(), Some(1));
    for _ in 0..3 {
        attached.commit();
        attached.capture();
    }
    let files = attached.files();
    let middle = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &middle[..middle.len() / 2]).unwrap();
    // The WAL still holds everything after the first file.
    assert_eq!(attached.restart(), None);
    assert_eq!(attached.chain.backlog().0, 2, "the first, and one for the rest");
    assert_eq!((attached.upload(), attached.upload()), (Some(2), None));

    attached.commit();
    attached.capture();
    std::fs::write(&attached.files()[0], b"").unwrap();
    attached.engine = None;
    attached.application.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    attached.commit();
    assert_eq!(attached.restart(), Some(Goal::CatchUp), "the WAL is another one");
    attached.sweep(true);
    assert_eq!((attached.upload(), attached.upload()), (Some(3), None));
}

#[test]
fn a_first_snapshot_that_was_taken_is_not_taken_again() {
    let mut attached = attached();
    attached.begin();
    attached.commit();
    assert_eq!(attached.restart(), Some(Goal::Snapshot), "nothing of it was whole");
    attached.sweep(true);
    attached.commit();
    attached.capture();
    assert_eq!(attached.restart(), None);
    let frozen = attached.chain.next_upload().unwrap().unwrap();
    assert_eq!(frozen.txid, Txid::FIRST);
    attached.commit();
    attached.capture();
    assert_eq!(attached.restart(), None);
    assert_eq!((attached.upload(), attached.upload(), attached.upload()), (Some(1), Some(2), None));
    assert_eq!(attached.restart(), None);
}
