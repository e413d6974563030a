//! A damaged spool: what is a state of the database only together goes up together or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replica::format::{Level, Txid};
use rusqlite::Connection;
use seaworthy_tests::writer;
use shipper::clock::SystemClock;
use shipper::ship::engine::{Engine, Pace};
use shipper::ship::spool::Spool;
use shipper::wal::attach;

struct Attached {
    directory: tempfile::TempDir,
    application: Connection,
    engine: Engine,
    spool: Arc<Spool>,
}

fn attached() -> Attached {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    writer::create(&path, 4096, 3000).unwrap();
    let spool = Arc::new(Spool::create(&directory.path().join("spool")).unwrap());
    let pace = Pace { sync_interval: Duration::ZERO, snapshot_slice: Duration::ZERO };
    let attachable = attach::check(&path).unwrap();
    let engine =
        Engine::attach(&path, attachable, pace, spool.clone(), Arc::new(SystemClock)).unwrap();
    Attached { application: Connection::open(&path).unwrap(), directory, engine, spool }
}

impl Attached {
    fn commit(&self) {
        self.application
            .execute("UPDATE item SET name = name || '.' WHERE id % 50 = 0", [])
            .unwrap();
    }

    /// The spooled files, by name.
    fn files(&self) -> Vec<PathBuf> {
        let spool = std::fs::read_dir(self.directory.path().join("spool")).unwrap();
        let spool = spool.map(|entry| entry.unwrap().path()).next().unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[test]
fn a_snapshot_never_goes_up_without_the_captures_made_meanwhile() {
    let mut attached = attached();
    while attached.engine.step(true).unwrap().snapshotting {
        attached.commit();
    }
    let files = attached.files();
    let capture = files.iter().find(|path| path.display().to_string().contains("/0-")).unwrap();
    let (whole, damaged) = (std::fs::read(capture).unwrap(), b"gone".to_vec());
    std::fs::write(capture, damaged).unwrap();
    let error = attached.spool.next().unwrap_err();
    assert!(format!("{error:#}").contains("read "), "{error:#}");

    std::fs::write(capture, whole).unwrap();
    let snapshot = attached.spool.next().unwrap().unwrap();
    assert_eq!(snapshot.level, Level::SNAPSHOT);
    assert!(snapshot.txids.is_snapshot() && snapshot.txids.max() > Txid::FIRST, "{snapshot:?}");
}

#[test]
fn waiting_files_become_one_and_a_merge_that_fails_sends_the_first_as_it_is() {
    let mut attached = attached();
    while attached.engine.step(true).unwrap().snapshotting {}
    let snapshot = attached.spool.next().unwrap().unwrap();
    attached.spool.uploaded(&snapshot);
    for _ in 0..70 {
        attached.commit();
        attached.engine.step(true).unwrap();
    }
    let files = attached.files();
    let last = files.last().unwrap();
    let whole = std::fs::read(last).unwrap();
    std::fs::write(last, b"gone").unwrap();
    let first = attached.spool.next().unwrap().unwrap();
    assert_eq!(first.txids.min(), first.txids.max(), "{first:?}");
    assert_eq!(first.txids.min(), snapshot.txids.max().next());

    std::fs::write(last, whole).unwrap();
    let merged = attached.spool.next().unwrap().unwrap();
    assert_eq!(merged.txids.min(), snapshot.txids.max().next());
    assert!(merged.txids.max().get() >= merged.txids.min().get() + 69, "{merged:?}");
    attached.spool.uploaded(&merged);
    assert!(attached.spool.next().unwrap().is_none());
    assert_eq!(attached.files(), Vec::<PathBuf>::new(), "nothing is left in the spool");
}
