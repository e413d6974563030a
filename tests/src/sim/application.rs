//! The application: one connection to a database in WAL mode, random work, and everything that applications do to
//! one that is being shipped. It never waits for anybody (`busy_timeout` 0), and must never have to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::sim::history::Pages;
use crate::writer;

/// Work that is not one of [`writer::transaction`]'s, by its weight.
const WORK: [(u32, &str); 12] = [
    (30, "UPDATE tally SET n = n + 1"),
    (2, "VACUUM"),
    (2, "PRAGMA incremental_vacuum(5)"),
    (3, "PRAGMA wal_checkpoint(PASSIVE)"),
    (2, "PRAGMA wal_checkpoint(FULL)"),
    (3, "PRAGMA wal_checkpoint(RESTART)"),
    (4, "PRAGMA wal_checkpoint(TRUNCATE)"),
    (2, "BEGIN; DELETE FROM item; ROLLBACK"),
    (3, "DELETE FROM item WHERE id % 3 <> 0"),
    (1, "DELETE FROM item"),
    (
        3,
        "BEGIN; CREATE TABLE big AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
         WHERE i < 60) SELECT hex(zeroblob(300)) || i AS b FROM n; DROP TABLE big; UPDATE tally SET n = n + 1; COMMIT",
    ),
    (
        2,
        "INSERT INTO item (name, body) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE \
         i < 80) SELECT 'more ' || i, hex(zeroblob(100)) || i FROM n",
    ),
];

/// How the application treats its database.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Bytes in a page.
    pub page_size: u32,
    /// Rows to begin with.
    pub rows: u32,
    /// `PRAGMA auto_vacuum`.
    pub auto_vacuum: u32,
    /// `PRAGMA wal_autocheckpoint`.
    pub autocheckpoint: u32,
    /// Whether every commit is forced to the disk (`synchronous` FULL), not only every checkpoint (NORMAL).
    pub full: bool,
}

/// The application, running or not.
#[derive(Debug)]
pub struct Application {
    path: PathBuf,
    habits: Habits,
    connection: Option<Connection>,
    /// Looks at what is committed.
    witness: Option<Connection>,
    /// Reads for long.
    reader: Option<Connection>,
    in_transaction: bool,
}

impl Application {
    /// Makes the database, and begins.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn create(path: &Path, habits: Habits) -> Result<Self> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "page_size", habits.page_size)?;
        db.pragma_update(None, "auto_vacuum", habits.auto_vacuum)?;
        drop(db);
        writer::create(path, habits.page_size, habits.rows)?;
        Connection::open(path)?.execute_batch(
            "CREATE TABLE tally (n INTEGER NOT NULL); INSERT INTO tally VALUES (0)",
        )?;
        Self::reopen(path, habits)
    }

    /// Begins with a database that is there.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn reopen(path: &Path, habits: Habits) -> Result<Self> {
        let mut application = Self {
            path: path.to_owned(),
            habits,
            connection: None,
            witness: None,
            reader: None,
            in_transaction: false,
        };
        application.open()?;
        Ok(application)
    }

    /// The database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its habits.
    #[must_use]
    pub fn habits(&self) -> Habits {
        self.habits
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Opens the database, where it is not open.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn open(&mut self) -> Result<()> {
        if self.connection.is_some() {
            return Ok(());
        }
        let db = Connection::open(&self.path).context("open")?;
        db.busy_timeout(Duration::ZERO)?;
        let synchronous = if self.habits.full { "FULL" } else { "NORMAL" };
        db.pragma_update(None, "synchronous", synchronous)?;
        // Small, so that big transactions spill into the WAL before they commit.
        db.pragma_update(None, "cache_size", 20)?;
        db.pragma_update(None, "wal_autocheckpoint", self.habits.autocheckpoint)?;
        // SQLite looks at the database with the first statement.
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        self.connection = Some(db);
        self.witness = Some(Connection::open(&self.path)?);
        self.in_transaction = false;
        Ok(())
    }

    /// Closes the database as applications should; the last one to do so checkpoints.
    pub fn close(&mut self) {
        self.reader = None;
        self.connection = None;
        self.witness = None;
    }

    /// Dies.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn kill(&mut self) -> Result<()> {
        let all = [self.reader.take(), self.connection.take(), self.witness.take()];
        for db in all.iter().flatten() {
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        }
        Ok(())
    }

    /// A second connection begins to read, and stays in its transaction; or it ends that.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn read_on(&mut self) -> Result<&'static str> {
        if self.connection.is_none() {
            return Ok("(closed)");
        }
        if self.reader.take().is_some() {
            return Ok("the reader ends");
        }
        let reader = Connection::open(&self.path)?;
        reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
        self.reader = Some(reader);
        Ok("a reader begins")
    }

    /// A transaction begins that stays open while other things happen; or it ends.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn hold_on(&mut self, random: &mut StdRng) -> Result<&'static str> {
        let Some(db) = &self.connection else { return Ok("(closed)") };
        let sql = match (self.in_transaction, random.random_bool(0.7)) {
            // More than the cache holds: uncommitted frames stand in the WAL.
            (false, _) => {
                "BEGIN IMMEDIATE; INSERT INTO item (name, body) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT \
                 i + 1 FROM n WHERE i < 40) SELECT 'held ' || i, hex(zeroblob(200)) || i FROM n"
            }
            (true, true) => "UPDATE tally SET n = n + 1; COMMIT",
            (true, false) => "ROLLBACK",
        };
        db.execute_batch(sql).context("hold a transaction")?;
        self.in_transaction = !self.in_transaction;
        Ok(sql)
    }

    /// Does something, and says what.
    ///
    /// # Errors
    /// SQLite refuses: only a checkpoint may find others in its way.
    pub fn work(&mut self, random: &mut StdRng) -> Result<&'static str> {
        let Some(db) = &mut self.connection else { return Ok("(closed)") };
        if self.in_transaction {
            db.execute_batch("UPDATE item SET body = hex(zeroblob(90)) WHERE id % 7 = 0")?;
            return Ok("in its transaction");
        }
        if random.random_bool(0.5) {
            writer::transaction(db, random)?;
            return Ok("transaction");
        }
        let total = WORK.iter().map(|(weight, _)| weight).sum();
        let mut at = random.random_range(0..total);
        let mut chosen = WORK[0].1;
        for (weight, sql) in WORK {
            if at < weight {
                chosen = sql;
                break;
            }
            at -= weight;
        }
        let done = db.execute_batch(chosen);
        let busy = |error: &rusqlite::Error| {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
        };
        match done {
            Err(error) if busy(&error) && chosen.contains("wal_checkpoint") => {}
            other => other.context(chosen)?,
        }
        Ok(chosen)
    }

    /// The state of the database; `None` where it is not open.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn state(&self) -> Result<Option<u64>> {
        self.witness.as_ref().map(state).transpose()
    }

    /// A second connection of the application's, for what it does in the middle of something else.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn second(&self) -> Result<Option<Connection>> {
        if self.connection.is_none() || self.in_transaction {
            return Ok(None);
        }
        let db = Connection::open(&self.path)?;
        db.busy_timeout(Duration::ZERO)?;
        db.pragma_update(None, "wal_autocheckpoint", self.habits.autocheckpoint)?;
        Ok(Some(db))
    }
}

/// The state that a connection sees.
///
/// # Errors
/// SQLite refuses.
pub fn state(db: &Connection) -> Result<u64> {
    let mut pages = Pages::default();
    let mut statement = db.prepare_cached("SELECT pgno, data FROM sqlite_dbpage")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        pages.set(row.get(0)?, row.get_ref(1)?.as_blob()?);
    }
    Ok(pages.state())
}

impl Application {
    /// Copies the database to a file of its own, in WAL mode, too.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let db = self.witness.as_ref().context("not open")?;
        db.execute("VACUUM INTO ?1", [path.display().to_string()]).context("copy")?;
        let wal = "PRAGMA journal_mode = WAL";
        Connection::open(path)?.query_row(wal, [], |_| Ok(())).context("switch to WAL")?;
        Ok(())
    }
}
