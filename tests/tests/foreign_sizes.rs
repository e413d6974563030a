//! Logs and databases that are seldom met: a log with checksums of the other byte order, a database beyond
//! 1 GiB (where SQLite leaves a page out), a transaction of 300 MB.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use seaworthy_tests::application::Application;
use seaworthy_tests::process::PATIENCE;
use seaworthy_tests::scene::{Scene, in_commit_order};
use seaworthy_tests::shipping::peak_memory;
use seaworthy_tests::{bank, writer};

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
    let mut old = (0, 0);
    let mut new = (0, 0);
    let (header, frames) = bytes.split_at_mut(32);
    sum(&mut old, &header[..24], u32::from_le_bytes);
    header[..4].copy_from_slice(&0x377f_0683_u32.to_be_bytes());
    sum(&mut new, &header[..24], u32::from_be_bytes);
    header[24..].copy_from_slice(&stored(new));
    let salts = header[16..24].to_vec();
    for frame in frames.chunks_exact_mut(24 + page_size) {
        for part in [&frame[..8], &frame[24..]] {
            sum(&mut old, part, u32::from_le_bytes);
            sum(&mut new, part, u32::from_be_bytes);
        }
        // What follows the last whole frame is of an earlier round, or of a transaction that never was: it must not
        // become valid.
        if frame[8..16] != salts || frame[16..24] != stored(old) {
            break;
        }
        frame[16..24].copy_from_slice(&stored(new));
    }
    std::fs::write(wal, bytes).unwrap();
}

/// SQLite's checksum of a log, with its words read as `word` says.
fn sum(sum: &mut (u32, u32), data: &[u8], word: fn([u8; 4]) -> u32) {
    for pair in data.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *pair;
        sum.0 = sum.0.wrapping_add(word([a, b, c, d])).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word([e, f, g, h])).wrapping_add(sum.0);
    }
}

/// As a header or a frame has it.
fn stored((first, second): (u32, u32)) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_be_bytes(), second.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

#[test]
fn a_log_with_checksums_of_the_other_byte_order() {
    let scene = Scene::new(4096, 0).unwrap();
    let wal = PathBuf::from(format!("{}-wal", scene.source.display()));
    let mut shipper = scene.start().unwrap();
    for round in 0..4 {
        let before = bank::count(&scene.source).unwrap();
        let application = Application::start(&scene.source, &["spill=1"]).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while bank::count(&scene.source).unwrap() == before {
            assert!(Instant::now() < deadline, "nothing was ever written");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(200 + 50 * round));
        application.kill().unwrap();
        shipper.kill().unwrap();
        turn_byte_order(&wal);
        std::fs::remove_file(format!("{}-shm", scene.source.display())).unwrap();
        shipper = scene.start().unwrap();
        let gentle = Application::start(&scene.source, &["pause_us=20000"]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        gentle.stop().unwrap();
        scene.shipping.sync(&[]).unwrap();
    }
    let count = bank::count(&scene.source).unwrap();
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, count);
}

/// Adds megabytes of zeros in one transaction.
fn grow(path: &Path, megabytes: u32) {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
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
    scene.shipping.sync(&[]).unwrap();
    assert!(std::fs::metadata(&scene.source).unwrap().len() < 1 << 30);
    grow(&scene.source, 30);
    let application = Application::start(&scene.source, &["pause_us=5000"]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let first = application.stop().unwrap();
    scene.shipping.sync(&[]).unwrap();
    shipper.stop().unwrap();
    scene.latest_is_the_source().unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
    assert!(std::fs::metadata(&scene.source).unwrap().len() > 1 << 30);

    // Without its state it cannot but take a snapshot, now of a database with a page left out.
    std::fs::remove_dir_all(scene.at("state")).unwrap();
    let mut shipper = scene.start().unwrap();
    let application = Application::start(&scene.source, &["pause_us=5000"]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let second = application.stop().unwrap();
    scene.shipping.sync(&[]).unwrap();
    let memory = peak_memory(&shipper).unwrap();
    shipper.stop().unwrap();
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
    scene.shipping.sync(&[]).unwrap();
    let db = Connection::open(&scene.source).unwrap();
    db.execute_batch(
        "CREATE TABLE big (body);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO big SELECT randomblob(100000) || zeroblob(948000) FROM n",
    )
    .unwrap();
    drop(db);
    let application = Application::start(&scene.source, &["pause_us=5000"]).unwrap();
    scene.shipping.sync(&[]).unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
    let work = application.stop().unwrap();
    let memory = peak_memory(&shipper).unwrap();
    println!("memory {} MB, {work:?}", memory >> 20);
    let states = scene.finish(&mut shipper).unwrap();
    in_commit_order(&states).unwrap();
    assert_eq!(states.last().unwrap().count, work.commits);
    assert!(memory < MEMORY_BOUND, "{memory} bytes resident");
}
