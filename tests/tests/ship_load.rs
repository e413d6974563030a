//! Writers at full speed on three databases at once: nothing is lost, memory and WAL stay bounded.
//!
//! A minute by default; `SEAWORTHY_LOAD_SECONDS=n` changes it. The bounds are wide (this is not a
//! benchmark): an engine that starves for the lock, or holds frames in memory, exceeds them by far.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::shipping::{Shipping, peak_memory, same_rows};
use seaworthy_tests::{bank, writer};

const WAL_BOUND: u64 = 512 << 20;
const MEMORY_BOUND: u64 = 64 << 20;
const ROWS: i64 = 5_000;

#[test]
fn a_minute_of_writers_at_full_speed_on_three_databases() {
    let seconds = std::env::var("SEAWORTHY_LOAD_SECONDS")
        .map_or(60, |text| text.parse().expect("SEAWORTHY_LOAD_SECONDS is a number"));
    let server = S3Server::start();
    let directory = tempfile::tempdir().unwrap();
    let shipping = Shipping::new(
        directory.path(),
        &server.url("load"),
        &format!("endpoint = \"http://{}\"\nregion = \"us-east-1\"", server.address()),
        server.environment(),
    );
    let names = ["one", "two", "three"];
    let paths: Vec<PathBuf> =
        names.iter().map(|name| directory.path().join(format!("{name}.db"))).collect();
    for path in &paths {
        writer::create(path, 4096, 100).unwrap();
    }
    let databases: Vec<(&str, &Path)> =
        names.into_iter().zip(paths.iter().map(PathBuf::as_path)).collect();
    let mut shipper = shipping.start(&databases, "1s").unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = paths
        .iter()
        .map(|path| {
            let (path, stop) = (path.clone(), stop.clone());
            std::thread::spawn(move || write(&path, &stop))
        })
        .collect();
    let mut longest_wal = 0;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        for path in &paths {
            let wal = shipper::wal::reader::wal_path(path);
            longest_wal = longest_wal.max(std::fs::metadata(wal).map_or(0, |wal| wal.len()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    for (name, writer) in names.iter().zip(writers) {
        let (commits, worst) = writer.join().unwrap();
        println!("{name}: {commits} commits, worst {worst:?}");
        assert!(commits > 100, "{name}: {commits} commits");
    }
    let memory = peak_memory(&shipper).unwrap();
    println!("longest WAL {} MB, memory {} MB", longest_wal >> 20, memory >> 20);
    shipping.sync(&[]).unwrap();
    shipper.stop().unwrap();
    assert!(longest_wal < WAL_BOUND, "a WAL grew to {longest_wal} bytes");
    assert!(memory < MEMORY_BOUND, "the shipper had {memory} bytes resident");

    for (name, source) in databases {
        let copy = directory.path().join(format!("{name}.copy"));
        shipping.restore(name, &copy).unwrap_or_else(|error| {
            panic!("restore {name}: {error:#}\n{}", shipper.output());
        });
        writer::checkpoint_truncate(source).unwrap();
        writer::same_bytes(&copy, source).unwrap();
        same_rows(&copy, source).unwrap();
    }
}

/// Small commits as fast as they go, over a bounded number of rows. Returns how many, and the slowest.
fn write(path: &Path, stop: &AtomicBool) -> (u64, Duration) {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(bank::BUSY).unwrap();
    db.execute_batch("PRAGMA synchronous = NORMAL").unwrap();
    let mut insert = db
        .prepare(
            "INSERT OR REPLACE INTO item (id, name, body) \
             VALUES (abs(random()) % ?1, hex(randomblob(4)), randomblob(300))",
        )
        .unwrap();
    let (mut commits, mut worst) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        insert.execute([ROWS]).unwrap();
        worst = worst.max(began.elapsed());
        commits += 1;
    }
    (commits, worst)
}
