//! An application that writes to a SQLite database in WAL mode: random transactions from a seed.
//!
//! It uses SQLite as applications do (its own connection, SQLite's own automatic checkpoints) and
//! knows nothing of what ships its database. The same seed gives the same transactions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rusqlite::{Connection, params};

use crate::process::PATIENCE;

/// Tables that [`transaction`] may have made beside the first; bounded so that a long run stays small.
const MAX_TABLES: u32 = 8;

/// Creates a database in WAL mode with one table and `rows` rows.
///
/// # Errors
/// SQLite refuses.
pub fn create(path: &Path, page_size: u32, rows: u32) -> Result<()> {
    let connection = Connection::open(path).context("create database")?;
    connection.pragma_update(None, "page_size", page_size).context("set page size")?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .context("switch to WAL")?;
    ensure!(mode == "wal", "journal mode is {mode}");
    connection
        .execute_batch(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, body BLOB);
             CREATE INDEX item_name ON item (name);",
        )
        .context("create table")?;
    connection
        .execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO item (name, body) SELECT 'row ' || i, randomblob(200) FROM n WHERE ?1 > 0",
            [rows],
        )
        .context("fill table")?;
    Ok(())
}

/// One random transaction: inserts, updates, deletes, blobs over many pages, now and then a new or a
/// dropped table.
///
/// # Errors
/// SQLite refuses; the transaction is then rolled back.
pub fn transaction(connection: &mut Connection, random: &mut StdRng) -> Result<()> {
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .context("begin")?;
    for _ in 0..random.random_range(1..=6) {
        match random.random_range(0..100) {
            0..60 => {
                let length = if random.random_bool(0.05) { 60_000 } else { 600 };
                let mut body = vec![0; random.random_range(0..length)];
                random.fill_bytes(&mut body);
                let name = format!("name {}", random.random_range(0..1_000));
                transaction
                    .execute("INSERT INTO item (name, body) VALUES (?1, ?2)", params![name, body])
                    .context("insert")?;
            }
            60..80 => {
                let body = vec![random.random::<u8>(); random.random_range(0..900)];
                transaction
                    .execute(
                        "UPDATE item SET body = ?1 WHERE id % 17 = ?2 AND id % 5 = 0",
                        params![body, random.random_range(0..17)],
                    )
                    .context("update")?;
            }
            80..96 => {
                transaction
                    .execute("DELETE FROM item WHERE id % 29 = ?1", [random.random_range(0..29)])
                    .context("delete")?;
            }
            96..98 => {
                let table = random.random_range(0..MAX_TABLES);
                transaction
                    .execute_batch(&format!(
                        "CREATE TABLE IF NOT EXISTS extra_{table} (k PRIMARY KEY, v) WITHOUT ROWID;
                         INSERT OR REPLACE INTO extra_{table} SELECT name, body FROM item LIMIT 50;"
                    ))
                    .context("create table")?;
            }
            _ => {
                let table = random.random_range(0..MAX_TABLES);
                transaction
                    .execute_batch(&format!("DROP TABLE IF EXISTS extra_{table}"))
                    .context("drop table")?;
            }
        }
    }
    transaction.commit().context("commit")
}

/// A thread that commits [`transaction`]s until it is stopped.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Writer {
    /// Starts writing to an existing database, with `pause` between commits.
    #[must_use]
    pub fn start(path: &Path, seed: u64, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (path, stop) = (path.to_path_buf(), Arc::clone(&stop));
            move || write(&path, seed, pause, &stop)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends after the transaction under way and gives the number of commits.
    ///
    /// # Errors
    /// The first error that SQLite gave the writer, with the seed.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stop writer twice")?;
        thread.join().map_err(|_| anyhow!("writer panicked"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A failed test is already on its way out; its own message is the one to read.
            drop(thread.join());
        }
    }
}

fn write(path: &PathBuf, seed: u64, pause: Duration, stop: &AtomicBool) -> Result<u64> {
    let mut connection = Connection::open(path).context("open database")?;
    connection.busy_timeout(PATIENCE).context("set busy timeout")?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut commits = 0;
    while !stop.load(Ordering::Relaxed) {
        transaction(&mut connection, &mut random)
            .with_context(|| format!("transaction {commits} of seed {seed}"))?;
        commits += 1;
        std::thread::sleep(pause);
    }
    Ok(commits)
}

/// Brings everything from the write-ahead log into the database file, as the application's last close does.
///
/// # Errors
/// Somebody still reads or writes after [`PATIENCE`].
pub fn checkpoint_truncate(path: &Path) -> Result<()> {
    let connection = Connection::open(path).context("open database")?;
    connection.busy_timeout(PATIENCE).context("set busy timeout")?;
    let deadline = Instant::now() + PATIENCE;
    // SQLite waits for readers and writers by itself, but not for somebody else's checkpoint.
    loop {
        let busy: i64 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .context("checkpoint")?;
        if busy == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "checkpoint of {} is blocked", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Compares two database files byte for byte.
///
/// # Errors
/// They differ; the message names lengths and the first page that differs.
pub fn same_bytes(actual: &Path, expected: &Path) -> Result<()> {
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let (actual_bytes, expected_bytes) = (read(actual)?, read(expected)?);
    ensure!(!expected_bytes.is_empty(), "{} is empty", expected.display());
    if actual_bytes == expected_bytes {
        return Ok(());
    }
    let page_size = match expected_bytes.get(16..18) {
        Some([0, 1]) => 65_536,
        Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])).max(512),
        _ => 512,
    };
    let page = actual_bytes
        .chunks(page_size)
        .zip(expected_bytes.chunks(page_size))
        .position(|(left, right)| left != right);
    Err(anyhow!(
        "{} has {} bytes, {} has {}; first page that differs: {}",
        actual.display(),
        actual_bytes.len(),
        expected.display(),
        expected_bytes.len(),
        page.map_or_else(|| "none, one is longer".to_owned(), |index| (index + 1).to_string()),
    ))
}
