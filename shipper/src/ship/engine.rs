//! The engine of one attached database: looks, captures, checkpoints. Blocking, so it runs on a blocking
//! thread; it never touches the network.
//!
//! Each [`Engine::step`] does what is due and says when the next one is. Nothing is lost if a step comes
//! late or fails: the held transaction keeps the WAL until the next one.

mod wal_size;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use replica::format::{PageSize, Txid};

use crate::clock::Clock;
use crate::ship::capture::{Capture, Discontinuity};
use crate::ship::pages::page_count;
use crate::ship::snapshot::Snapshot;
use crate::ship::spool::{Spool, Spooled};
use crate::wal::attach::Attachable;
use crate::wal::bytes::{Position, frame_size};
use crate::wal::checkpoint::{Checkpointer, LockReport};
use crate::wal::hold::Hold;
use crate::wal::reader::WalReader;
use crate::wal::sqlite::{self, Mark};

/// Pause between hand-overs (and tries without the lock) while the WAL is not fully backfilled.
const HAND_OVER_EVERY: Duration = Duration::from_millis(100);
/// How often the files are compared with their names, and the WAL is looked at without a notice.
pub const POLL: Duration = Duration::from_secs(5);

/// How fast an engine goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Shortest time between two captures for the bucket.
    pub sync_interval: Duration,
    /// How long one slice of a snapshot may keep a read transaction open.
    pub snapshot_slice: Duration,
}

impl Pace {
    /// The pace of a database that is synced this often.
    #[must_use]
    pub fn new(sync_interval: Duration) -> Self {
        Self { sync_interval, snapshot_slice: Duration::from_millis(100) }
    }
}

/// What a step found and did.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The next step is due after this, or at the next notice of a change.
    pub next: Duration,
    /// Everything committed at this moment is in the spool or was uploaded.
    pub complete_until: Option<Timestamp>,
    /// TXID of the last capture.
    pub captured: Option<Txid>,
    /// Whether the first snapshot is still being taken.
    pub snapshotting: bool,
    /// Bytes of the WAL file.
    pub wal_bytes: u64,
    /// What the write lock has cost so far.
    pub locks: LockReport,
}

/// One attached database.
#[derive(Debug)]
pub struct Engine {
    database: PathBuf,
    attachable: Attachable,
    pace: Pace,
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    hold: Hold,
    capture: Capture,
    checkpointer: Checkpointer,
    snapshot: Option<Snapshot>,
    last_look: (Mark, Instant),
    last_capture: Option<Instant>,
    last_hand_over: Instant,
    last_poll: Instant,
    /// The end of the WAL when it was last fully backfilled.
    backfilled: Option<Position>,
}

impl Engine {
    /// Attaches to a database that [`crate::wal::attach::check`] found attachable, and begins the first
    /// snapshot of a new generation.
    ///
    /// # Errors
    /// Those of SQLite and of the file system.
    pub fn attach(
        database: &Path,
        attachable: Attachable,
        pace: Pace,
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let page_size = attachable.page_size;
        let hold = Hold::begin(database, page_size)?;
        let checkpointer = Checkpointer::open(database)?;
        let wal = WalReader::open(database, page_size)?;
        let mark = hold.mark();
        let page_count = page_count(hold.reader())?;
        let from = Mark { page_count, ..mark };
        let now = Instant::now();
        // The snapshot is TXID 1; what is captured while it is taken follows it.
        let capture =
            Capture::new(wal, spool.clone(), clock.clone(), page_size, from, Txid::FIRST.next());
        let snapshot = Snapshot::begin(database, &spool, page_size, clock.now())?;
        Ok(Self {
            database: database.to_owned(),
            attachable,
            pace,
            spool,
            clock,
            hold,
            capture,
            checkpointer,
            snapshot: Some(snapshot),
            last_look: (from, now),
            last_capture: None,
            last_hand_over: now,
            last_poll: now,
            backfilled: None,
        })
    }

    /// Bytes in a page.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.attachable.page_size
    }

    /// Does what is due. With `to_the_end`, captures all that is committed now, whatever the interval.
    ///
    /// # Errors
    /// [`Discontinuity`] (this engine cannot go on), or a failure that may pass.
    pub fn step(&mut self, to_the_end: bool) -> anyhow::Result<Step> {
        let now = Instant::now();
        self.check_files(now)?;
        let as_of = self.clock.now();
        let mark = self.look(now, as_of, to_the_end)?;
        // A snapshot that failed half-way has a hole: only a new generation heals it.
        self.go_on_with_snapshot()
            .map_err(|error| Discontinuity(format!("first snapshot: {error:#}{}", hint(&error))))?;
        self.keep_wal_small(now, mark)?;
        Ok(self.report(now, as_of))
    }

    /// Looks at the WAL's end and captures what is due, in one short read transaction.
    fn look(&mut self, now: Instant, as_of: Timestamp, to_the_end: bool) -> anyhow::Result<Mark> {
        let reader = self.checkpointer.connection();
        let mark = sqlite::begin_read(reader, self.attachable.page_size)?;
        if mark.position != self.last_look.0.position {
            self.last_look = (mark, now);
        }
        let sync_due = self
            .last_capture
            .is_none_or(|last| now.duration_since(last) >= self.pace.sync_interval);
        let captured = if mark.position != self.capture.position() && (sync_due || to_the_end) {
            self.last_capture = Some(now);
            self.capture.capture(reader, self.hold.mark(), mark, as_of)
        } else {
            Ok(None)
        };
        let ended = sqlite::end_read(reader);
        self.accept(captured?);
        ended?;
        Ok(mark)
    }

    /// Hands a capture on.
    fn accept(&mut self, capture: Option<Spooled>) {
        let Some(capture) = capture else { return };
        match &mut self.snapshot {
            Some(snapshot) => snapshot.add(capture),
            None => self.spool.append(vec![capture]),
        }
    }

    /// Reads another slice; after the last one, captures everything that any slice may have seen.
    fn go_on_with_snapshot(&mut self) -> anyhow::Result<()> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(()) };
        if !snapshot.slice(self.pace.snapshot_slice)? {
            return Ok(());
        }
        let as_of = self.clock.now();
        self.look(Instant::now(), as_of, true)?;
        if let Some(snapshot) = self.snapshot.take() {
            self.spool.append(snapshot.finish(as_of)?);
        }
        Ok(())
    }

    /// Moves on to a newer transaction, capturing first where [`Hold`] asks for it.
    fn hand_over(&mut self, now: Instant) -> anyhow::Result<()> {
        let as_of = self.clock.now();
        let capture = &mut self.capture;
        let mut captured = None;
        let handed =
            self.hold.hand_over::<anyhow::Error>(capture.position(), |reader, held, next| {
                captured = capture.capture(reader, held, next, as_of)?;
                Ok(())
            });
        // What was captured is captured, whatever came after.
        self.accept(captured);
        self.last_hand_over = now;
        handed
    }

    /// Compares the files with their names now and then.
    fn check_files(&mut self, now: Instant) -> anyhow::Result<()> {
        use std::os::unix::fs::MetadataExt;
        if now.duration_since(self.last_poll) < POLL {
            return Ok(());
        }
        self.last_poll = now;
        let inode = std::fs::metadata(&self.database).map(|file| file.ino()).ok();
        if inode != Some(self.attachable.inode) {
            return Err(Discontinuity("the database file was replaced or removed".into()).into());
        }
        if !self.capture.wal().is_current() {
            return Err(Discontinuity("the WAL file was replaced or removed".into()).into());
        }
        Ok(())
    }

    fn wal_bytes_in_use(&self, mark: Mark) -> u64 {
        u64::from(mark.position.frame) * frame_size(self.attachable.page_size)
    }

    fn report(&self, now: Instant, as_of: Timestamp) -> Step {
        let (mark, _) = self.last_look;
        let all_captured = self.capture.position() == mark.position;
        let next = if self.snapshot.is_some() {
            Duration::ZERO
        } else if self.backfilled != Some(mark.position) && mark.position.frame > 0 {
            HAND_OVER_EVERY
        } else if all_captured {
            POLL
        } else {
            self.last_capture.map_or(Duration::ZERO, |last| {
                self.pace.sync_interval.saturating_sub(now.duration_since(last))
            })
        };
        Step {
            next,
            complete_until: all_captured.then_some(as_of),
            captured: Txid::new(self.capture.next_txid().get() - 1).ok(),
            snapshotting: self.snapshot.is_some(),
            wal_bytes: self.capture.wal().file_size().unwrap_or(0),
            locks: self.checkpointer.locks(),
        }
    }
}

/// What an operator can do about a snapshot that failed.
fn hint(error: &anyhow::Error) -> &'static str {
    let full = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    });
    if full {
        "\nHINT: make room for state_dir: it holds a compressed copy of the database, twice for a moment, until \
         the first snapshot is in the bucket"
    } else {
        ""
    }
}
