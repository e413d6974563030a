//! How the WAL is kept small: SQLite's own PASSIVE checkpoint, without the lock where that succeeds, under
//! it for a bounded time where a fast writer leaves no other way.
//!
//! Never RESTART or TRUNCATE (they wait for the application's readers, and its writers for them). What the
//! lock was held for is measured and reported. An application's own long reader is waited for without
//! the lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::clock::Clock;
use crate::wal::files::Files;
use crate::wal::sqlite::{self, CheckpointResult};

/// How long the write lock is asked for before giving up until the next step, at first.
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// How long a checkpoint is retried under the lock, at first.
const LOCKED_RETRY: Duration = Duration::from_millis(50);
/// How far both may grow: a WAL that has outgrown its threshold this many times is the greater harm.
const MOST_PRESSURE: u32 = 8;
/// How long a checkpoint is retried while the application's own one is running.
const BUSY_RETRY: Duration = Duration::from_millis(5);
/// Pause between tries.
const RETRY_PAUSE: Duration = Duration::from_micros(500);
/// A reader that is in the way for this long is not waited for under the lock.
const LONG_READER: Duration = Duration::from_millis(200);
/// First and longest pause after a checkpoint that a reader of the application, or SQLite, kept from its end.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// SQLite refuses to make a checkpoint of this file with this WAL.
#[derive(Debug, thiserror::Error)]
#[error("SQLite refuses to checkpoint")]
pub struct Refused(#[source] rusqlite::Error);

/// What checkpoints and the write lock have cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockReport {
    /// How often the write lock was held.
    pub taken: u64,
    /// The longest time.
    pub longest: Duration,
}

/// The checkpointer of one database.
#[derive(Debug)]
pub struct Checkpointer {
    database: PathBuf,
    files: Arc<Files>,
    clock: Arc<dyn Clock>,
    connection: Connection,
    /// Opened when first needed: at ordinary write rates it never is.
    lock: Option<Connection>,
    locks: LockReport,
    not_before: Option<Instant>,
    backoff: Duration,
    blocked_since: Option<Instant>,
    /// How far the last incomplete checkpoint came, and since when.
    stuck: Option<(u32, Instant)>,
    busy_since: Option<Instant>,
}

impl Checkpointer {
    /// # Errors
    /// Those of SQLite.
    pub fn open(
        database: &Path,
        files: Arc<Files>,
        clock: Arc<dyn Clock>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            database: database.to_owned(),
            files,
            clock,
            connection: sqlite::open(database)?,
            lock: None,
            locks: LockReport::default(),
            not_before: None,
            backoff: BACKOFF.0,
            blocked_since: None,
            stuck: None,
            busy_since: None,
        })
    }

    /// What the lock has cost so far.
    #[must_use]
    pub fn locks(&self) -> LockReport {
        self.locks
    }

    /// The connection, which holds no transaction between calls.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether a checkpoint may be tried again after one that was kept from its end.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// A PASSIVE checkpoint, retried for some milliseconds while the application is checkpointing itself.
    ///
    /// # Errors
    /// [`crate::wal::files::Replaced`] (nothing was written), [`Refused`], and those of SQLite.
    pub fn passive(&self) -> anyhow::Result<CheckpointResult> {
        self.retry(BUSY_RETRY, |result| !result.busy)
    }

    /// A PASSIVE checkpoint, retried until everything is backfilled or the bound is reached. Only of use
    /// under the write lock.
    ///
    /// # Errors
    /// [`crate::wal::files::Replaced`] (nothing was written), [`Refused`], and those of SQLite.
    pub fn passive_to_the_end(&self, pressure: u32) -> anyhow::Result<CheckpointResult> {
        let bound = LOCKED_RETRY * pressure.clamp(1, MOST_PRESSURE);
        self.retry(bound, CheckpointResult::is_complete)
    }

    /// Runs `work` while nobody can write to the database; `None` where the lock was not to be had.
    /// `pressure` is how many times the WAL's threshold is exceeded.
    ///
    /// # Errors
    /// Those of SQLite and of `work`.
    pub fn locked<T, E: From<rusqlite::Error>>(
        &mut self,
        pressure: u32,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let lock = match self.lock.take() {
            Some(lock) => lock,
            None => sqlite::open(&self.database)?,
        };
        if !sqlite::begin_locked(&lock, LOCK_WAIT * pressure.clamp(1, MOST_PRESSURE))? {
            self.lock = Some(lock);
            return Ok(None);
        }
        let since = Instant::now();
        let worked = work(self);
        let ended = sqlite::end_locked(&lock);
        self.locks.taken += 1;
        self.locks.longest = self.locks.longest.max(since.elapsed());
        self.lock = Some(lock);
        let value = worked?;
        ended?;
        Ok(Some(value))
    }

    /// Closes its connections. Where nobody else has the database open, the last one removes the WAL.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn close(self) -> rusqlite::Result<()> {
        let Self { connection, lock, .. } = self;
        drop(lock);
        sqlite::close_and_remove_wal(connection)
    }

    /// Whether the files are still those that are open.
    #[must_use]
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Notes whether the application is making a checkpoint itself; returns for how long it always has been.
    pub fn busy(&mut self, busy: bool, now: Instant) -> Duration {
        self.busy_since = busy.then(|| self.busy_since.unwrap_or(now));
        self.busy_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Notes how far a checkpoint came that was kept from its end, and says whether the same reader of the application
    /// has been in its way for longer than short readers take.
    pub fn is_stuck(&mut self, backfilled: u32, now: Instant) -> bool {
        match self.stuck {
            Some((at, since)) if at == backfilled => now.duration_since(since) >= LONG_READER,
            _ => {
                self.stuck = Some((backfilled, now));
                false
            }
        }
    }

    /// Notes that the checkpoint was kept from its end, by a reader of the application or by SQLite; returns for how long it
    /// has been.
    pub fn blocked(&mut self, now: Instant) -> Duration {
        self.not_before = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        now - *self.blocked_since.get_or_insert(now)
    }

    /// Notes that nobody is in the way.
    pub fn unblocked(&mut self) {
        self.not_before = None;
        self.backoff = BACKOFF.0;
        self.blocked_since = None;
        self.stuck = None;
    }

    fn retry(
        &self,
        bound: Duration,
        done: impl Fn(CheckpointResult) -> bool,
    ) -> anyhow::Result<CheckpointResult> {
        let deadline = self.clock.monotonic() + bound;
        loop {
            self.files.check()?;
            let result = sqlite::checkpoint_passive(&self.connection).map_err(|error| {
                if sqlite::is_another_file(&error) {
                    Refused(error).into()
                } else {
                    anyhow::Error::from(error)
                }
            })?;
            if done(result) || self.clock.monotonic() >= deadline {
                return Ok(result);
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}
