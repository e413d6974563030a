//! Logs and databases that are seldom met: a log with checksums of the other byte order, a database beyond
//! 1 GiB (where SQLite leaves a page out), a transaction of 300 MB.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use seaworthy_tests::application::Application;
use seaworthy_tests::scene::{Scene, in_commit_order};
use seaworthy_tests::shipping::peak_memory;
use seaworthy_tests::{bank, writer};

const LIMIT: Duration = Duration::from_secs(60);
/// Of a build without optimization, too; a transaction held in memory would be eight times this.
const MEMORY_BOUND: u64 = 40 << 20;

/// Rewrites a log's checksums in the order that a machine of the other kind writes.
fn turn_byte_order(wal: &Path) {
    let mut bytes = std::fs::read(wal).unwrap();
    if bytes[..4] == 0x377f_0683_u32.to_be_bytes() {
        // Not restarted since the last time: SQLite went on in the order that it found.
        return;
    }
    assert_eq!(bytes[..4], 0x377f_0682_u32.to_be_bytes(), "a log with an unknown magic number");
    let page_size = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    bytes[..4].copy_from_slice(&0x377f_0683_u32.to_be_bytes());
    let mut sum = (0_u32, 0_u32);
    let mut add = |data: &[u8]| {
        for words in data.chunks_exact(8) {
            let word = |at: usize| u32::from_be_bytes(words[at..at + 4].try_into().unwrap());
            sum.0 = sum.0.wrapping_add(word(0)).wrapping_add(sum.1);
            sum.1 = sum.1.wrapping_add(word(4)).wrapping_add(sum.0);
        }
        [sum.0.to_be_bytes(), sum.1.to_be_bytes()].concat()
    };
    let (header, frames) = bytes.split_at_mut(32);
    let of_header = add(&header[..24]);
    header[24..].copy_from_slice(&of_header);
    let salts = header[16..24].to_vec();
    // What follows is of the log's earlier round.
    let current = |frame: &&mut [u8]| frame[8..16] == salts;
    for frame in frames.chunks_exact_mut(24 + page_size).take_while(current) {
        add(&frame[..8]);
        let of_frame = add(&frame[24..]);
        frame[16..24].copy_from_slice(&of_frame);
    }
    std::fs::write(wal, bytes).unwrap();
}

#[test]
fn a_log_with_checksums_of_the_other_byte_order() {
    let scene = Scene::new(4096, 0).unwrap();
    let wal = PathBuf::from(format!("{}-wal", scene.source.display()));
    let mut shipper = scene.start().unwrap();
    for round in 0..4 {
        let application = Application::start(&scene.source, &["spill=1"]).unwrap();
        std::thread::sleep(Duration::from_millis(200 + 50 * round));
        application.kill().unwrap();
        shipper.kill().unwrap();
        turn_byte_order(&wal);
        std::fs::remove_file(format!("{}-shm", scene.source.display())).unwrap();
        shipper = scene.start().unwrap();
        let gentle = Application::start(&scene.source, &["pause_us=20000"]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        gentle.stop().unwrap();
        scene.shipping.ask(&["sync"], 0).unwrap();
    }
    let count = bank::count(&scene.source).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, count);
}

/// Adds megabytes of zeros in one transaction.
fn grow(path: &Path, megabytes: u32) {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(LIMIT).unwrap();
    db.execute_batch("PRAGMA synchronous = OFF; CREATE TABLE IF NOT EXISTS ballast (body)")
        .unwrap();
    db.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO ballast SELECT zeroblob(1048000) FROM n",
        [megabytes],
    )
    .unwrap();
}

#[test]
fn a_database_that_grows_beyond_a_gibibyte_and_is_shipped_anew() {
    let scene = Scene::new(32768, 0).unwrap();
    grow(&scene.source, 1015);
    writer::checkpoint_truncate(&scene.source).unwrap();
    let mut shipper = scene.start().unwrap();
    scene.shipping.ask(&["sync", "--timeout", "60s"], 0).unwrap();
    assert!(std::fs::metadata(&scene.source).unwrap().len() < 1 << 30);
    grow(&scene.source, 30);
    let application = Application::start(&scene.source, &["pause_us=5000"]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let first = application.stop().unwrap();
    shipper.stop(LIMIT).unwrap();
    scene.latest_is_the_source().unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
    assert!(std::fs::metadata(&scene.source).unwrap().len() > 1 << 30);

    // Without its state it cannot but take a snapshot, now of a database with a page left out.
    std::fs::remove_dir_all(scene.at("state")).unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, &["pause_us=5000"]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let second = application.stop().unwrap();
    scene.shipping.ask(&["sync", "--timeout", "60s"], 0).unwrap();
    let memory = peak_memory(&shipper).unwrap();
    shipper.stop(LIMIT).unwrap();
    scene.latest_is_the_source().unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
    let count = bank::Ledger::default().check(&scene.at("copy.db")).unwrap();
    assert_eq!(count, first.commits + second.commits);
    println!("memory {} MB", memory >> 20);
    assert!(memory < MEMORY_BOUND, "{memory} bytes resident");
}

#[test]
fn a_transaction_of_three_hundred_megabytes() {
    let scene = Scene::new(4096, 0).unwrap();
    let mut shipper = scene.start().unwrap();
    scene.shipping.ask(&["sync"], 0).unwrap();
    let db = Connection::open(&scene.source).unwrap();
    db.execute_batch(
        "CREATE TABLE big (body);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO big SELECT randomblob(100000) || zeroblob(948000) FROM n",
    )
    .unwrap();
    drop(db);
    let application = Application::start(&scene.source, &["pause_us=5000"]).unwrap();
    scene
        .shipping
        .ask(&["sync", "--timeout", "60s"], 0)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
    let work = application.stop().unwrap();
    let memory = peak_memory(&shipper).unwrap();
    println!("memory {} MB, {work:?}", memory >> 20);
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, work.commits);
    assert!(memory < MEMORY_BOUND, "{memory} bytes resident");
}
