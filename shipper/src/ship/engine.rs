//! The engine of one attached database: looks, captures, checkpoints. Blocking, so it runs on a blocking
//! thread; it never touches the network.
//!
//! Each [`Engine::step`] does what is due and says when the next one is. Nothing is lost if a step comes
//! late or fails: the held transaction keeps the WAL until the next one.

mod close;
mod scrub;
mod wal_size;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use replica::documents::ScrubReport;
use replica::format::PageSize;
use replica::format::wal::{Position, WalChecksum, frame_size};

use crate::chain::reserve::{NoRoom, is_out_of_room};
use crate::chain::{LocalChain, SpoolFull};
use crate::clock::{Clock, ClockWatch};
use crate::ship::capture::{Capture, Discontinuity, Purpose};
use crate::ship::sweep::{Goal, Sweep};
use crate::wal::attach::Attachable;
use crate::wal::checkpoint::{Checkpointer, LockReport};
use crate::wal::files::{Files, Replaced, Stamp};
use crate::wal::hold::Hold;
use crate::wal::index_file::IndexFile;
use crate::wal::openers::{LeftBehind, Openers};
use crate::wal::reader::WalReader;
use crate::wal::rest::Rest;
use crate::wal::sqlite::{self, Mark};

/// Pause between hand-overs (and tries without the lock) while the WAL is not fully backfilled.
const HAND_OVER_EVERY: Duration = Duration::from_millis(100);
/// How often the files are compared with their names, and the WAL is looked at without a notice.
pub const POLL: Duration = Duration::from_secs(5);
/// How long somebody who opens the database may take until he uses its WAL.
const OPENING: Duration = Duration::from_secs(2);

/// How fast an engine goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Shortest time between two captures for the bucket.
    pub sync_interval: Duration,
    /// How long one slice of a sweep or a scrub may keep a read transaction open.
    pub slice: Duration,
    /// From the end of one scrub to the next.
    pub scrub_every: Duration,
    /// Between two slices of a scrub.
    pub scrub_pause: Duration,
    /// Frames of the WAL in one file of the spool at most: bounds the page map of a huge transaction, 8 bytes a frame.
    pub most_frames: u32,
}

impl Pace {
    /// The pace of a database that is synced this often.
    #[must_use]
    pub fn new(sync_interval: Duration) -> Self {
        Self {
            sync_interval,
            slice: Duration::from_millis(100),
            scrub_every: Duration::from_secs(24 * 60 * 60),
            scrub_pause: Duration::from_secs(1),
            most_frames: 1 << 18,
        }
    }
}

/// What a step found and did.
#[derive(Debug, Clone)]
pub struct Step {
    /// The next step is due after this, or at the next notice of a change.
    pub next: Duration,
    /// Everything committed at this moment is in the spool or was uploaded.
    pub complete_until: Option<Timestamp>,
    /// Why nothing is vouched for although all that can be seen is captured, ending in a `HINT:` line.
    pub unvouched: Option<String>,
    /// Number of the last capture.
    pub captured: u64,
    /// The end of the WAL.
    pub seen: Position,
    /// The sweep under way, where there is one.
    pub sweeping: Option<Goal>,
    /// Bytes of the WAL file.
    pub wal_bytes: u64,
    /// What the write lock has cost so far.
    pub locks: LockReport,
    /// A scrub that ended in this step.
    pub scrubbed: Option<ScrubReport>,
    /// The clock was set: times told before are of another clock.
    pub clock_set: bool,
}

/// One attached database.
#[derive(Debug)]
pub struct Engine {
    attachable: Attachable,
    pace: Pace,
    chain: Arc<LocalChain>,
    clock: Arc<dyn Clock>,
    hold: Hold,
    capture: Capture,
    checkpointer: Checkpointer,
    index: IndexFile,
    sweep: Option<Sweep>,
    scrub: scrub::Schedule,
    clock_watch: ClockWatch,
    last_look: (Mark, Instant),
    last_capture: Option<Instant>,
    last_hand_over: Instant,
    last_poll: Instant,
    /// The end of the WAL when it was last fully backfilled.
    backfilled: Option<Position>,
    /// The database's file as it was then: nobody has a reason to write to it until the WAL has something for it.
    settled: Option<Stamp>,
    /// Since when somebody has the database open and not its WAL.
    elsewhere_since: Option<Instant>,
    left: LeftBehind,
    /// Dropped after every connection.
    openers: Openers,
}

impl Engine {
    /// Attaches to a database that [`crate::wal::attach::check`] found attachable. Where the WAL still holds what the
    /// chain's tip was captured from, it goes on from there; else what differs is caught up; and where there is no state
    /// at all yet, the first snapshot is begun.
    ///
    /// # Errors
    /// [`Discontinuity`] (try again, with the chain opened anew), those of SQLite and of the file system.
    pub fn attach(
        database: &Path,
        attachable: Attachable,
        pace: Pace,
        chain: Arc<LocalChain>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let page_size = attachable.page_size;
        let mut index = IndexFile::of(&attachable.real);
        index.begin().map_err(Discontinuity::from)?;
        let real = attachable.real.as_path();
        let hold = Hold::begin(real, page_size)?;
        let openers = Openers::of(&attachable).context("ask who has the database open")?;
        let files = Arc::new(Files::of(database, &attachable).map_err(Discontinuity::from)?);
        let checkpointer = Checkpointer::open(real, files.clone(), clock.clone())?;
        let wal = WalReader::open(real, page_size)?;
        let mark = hold.mark();
        // With an empty WAL nobody has anything to write to the file, from now on.
        let settled = files.stamp().filter(|_| mark.position.frame == 0);
        let now = clock.monotonic();
        let as_of = clock.now();
        let tip = chain.tip().state;
        let last_timestamp = tip.map_or(Timestamp::UNIX_EPOCH, |tip| tip.timestamp);
        let known = tip.and_then(|tip| tip.position.map(|position| (tip.page_count, position)));
        let mut continued = None;
        if let Some((page_count, position)) = known
            && position.salts == mark.position.salts
            && position.frame <= mark.position.frame
            && wal.holds(position)?
        {
            continued = Some(Mark { position, page_count });
        }
        if continued.is_none()
            && let Some((page_count, _)) = known
            && let Some(rest) = chain.rest()
            && Rest::of(openers.database()).is_ok_and(|now| now == rest)
            && !wal.was_restarted()?
        {
            // Nobody wrote to the file since it was left without a WAL, so whatever the present WAL holds comes next.
            let (salts, checksum) = (mark.position.salts, WalChecksum::default());
            continued = Some(Mark { position: Position { salts, frame: 0, checksum }, page_count });
        }
        let from = continued.unwrap_or(mark);
        let mut capture = Capture::new(
            wal,
            files,
            chain.clone(),
            clock.clone(),
            from,
            last_timestamp,
            pace.most_frames,
        );
        let sweep = if continued.is_some() {
            // The WAL may be restarted under this first transaction: what it sees is captured before anything else.
            capture.capture(hold.reader(), mark, mark, as_of, Purpose::State)?;
            None
        } else {
            let goal = if tip.is_some() { Goal::CatchUp } else { Goal::Snapshot };
            Some(Sweep::begin(real, &chain, goal, capture.timestamp())?)
        };
        index.check().map_err(Discontinuity::from)?;
        Ok(Self {
            attachable,
            pace,
            chain,
            hold,
            capture,
            checkpointer,
            index,
            sweep,
            // At once, or as soon as a sweep is over: what vouches for the proof must not wait for tomorrow.
            scrub: scrub::Schedule::new(now),
            clock_watch: ClockWatch::new(clock.now(), now),
            last_look: (from, now),
            last_capture: None,
            last_hand_over: now,
            last_poll: now,
            backfilled: settled.map(|_| mark.position),
            settled,
            elsewhere_since: None,
            left: LeftBehind::default(),
            openers,
            clock,
        })
    }

    /// Bytes in a page.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.attachable.page_size
    }

    /// The sweep under way, where there is one.
    #[must_use]
    pub fn sweeping(&self) -> Option<Goal> {
        self.sweep.as_ref().map(Sweep::goal)
    }

    /// Does what is due. With `to_the_end`, captures all that is committed now, whatever the interval.
    ///
    /// # Errors
    /// [`Discontinuity`] (this engine cannot go on), [`crate::chain::SpoolFull`], or a failure that may pass.
    pub fn step(&mut self, to_the_end: bool) -> anyhow::Result<Step> {
        self.index.begin().map_err(Discontinuity::from)?;
        let stepped = self.try_step(to_the_end).map_err(|error| {
            let another = error.chain().any(|cause| {
                cause.downcast_ref::<rusqlite::Error>().is_some_and(sqlite::is_another_file)
            });
            // A file that became another one under an open connection: only a new connection can tell what it is now.
            if another { Discontinuity(format!("{error:#}")).into() } else { error }
        });
        // Whatever came of it: nothing that was read counts.
        self.index.check().map_err(Discontinuity::from)?;
        stepped
    }

    fn try_step(&mut self, to_the_end: bool) -> anyhow::Result<Step> {
        let now = self.clock.monotonic();
        let polled = self.check_files(now, to_the_end)?;
        let as_of = self.clock.now();
        if self.clock_watch.look(as_of, now) {
            tracing::info!(%as_of, "the clock was set: comparing the source with what is shipped once more");
            self.scrub.begin_by(now);
        }
        let mark = self.look(now, as_of, to_the_end)?;
        self.index.check().map_err(Discontinuity::from)?;
        self.check_settled(mark, polled)?;
        if self.is_used_elsewhere(now) {
            // What is read now may be torn, and a checkpoint of ours would meet those of the other WAL.
            return self.report(now, as_of, None);
        }
        self.go_on_with_sweep().map_err(|error| {
            // What it wrote is in the spool, or given up with all that waits; else a sweep that failed half-way has a hole
            // that only another one heals.
            let told = error.is::<SpoolFull>() || is_out_of_room(&error);
            if told {
                error
            } else {
                Discontinuity(format!("sweep: {error:#}{}", hint(&error))).into()
            }
        })?;
        self.keep_wal_small(now, mark).map_err(|error| match error.downcast::<Replaced>() {
            Ok(replaced) => Discontinuity::from(replaced).into(),
            Err(error) => error,
        })?;
        let scrubbed = self.go_on_with_scrub(now).map_err(|error| {
            // The index may have what no file has: only one made anew gives states that restore.
            let told = error.is::<SpoolFull>() || error.is::<Discontinuity>();
            if told { error } else { Discontinuity(format!("compare: {error:#}")).into() }
        })?;
        self.report(now, as_of, scrubbed)
    }

    /// Whether somebody has the database open who does not use the WAL that we see.
    fn is_used_elsewhere(&mut self, now: Instant) -> bool {
        let elsewhere = self.openers.elsewhere();
        self.elsewhere_since = elsewhere.then(|| self.elsewhere_since.unwrap_or(now));
        elsewhere
    }

    /// Why nothing can be vouched for at `now`.
    fn unvouched(&mut self, now: Instant) -> Option<String> {
        let long = self.elsewhere_since.is_some_and(|since| now.duration_since(since) >= OPENING);
        let elsewhere = long.then(|| {
            format!("an application has the database open, but not the WAL beside it{MOUNT_HINT}")
        });
        elsewhere.or_else(|| self.left.reason(Some(self.attachable.file)))
    }

    /// Keeps in mind which files the database had before.
    pub fn remember(&mut self, left: LeftBehind) {
        self.left = left;
    }

    /// Lets go of everything; what the database had before, and the file that it has now, stay open.
    #[must_use]
    pub fn leave(self) -> LeftBehind {
        let Self { mut left, openers, .. } = self;
        left.add(openers.leave());
        left
    }

    /// Where the database really is.
    #[must_use]
    pub fn real_path(&self) -> &Path {
        &self.attachable.real
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
            let before = self.chain.tip().last_sequence();
            let purpose = self.purpose();
            let captured = self.capture.capture(reader, self.hold.mark(), mark, as_of, purpose);
            // A WAL that was only restarted has nothing to ship: the commit that follows at once must not wait.
            if self.chain.tip().last_sequence() != before {
                self.last_capture = Some(now);
            }
            captured
        } else {
            Ok(Vec::new())
        };
        let ended = sqlite::end_read(reader);
        let parts = captured?;
        self.accept(parts);
        ended?;
        Ok(mark)
    }

    /// What a capture is for at the moment.
    fn purpose(&self) -> Purpose {
        if self.sweep.is_some() { Purpose::Part } else { Purpose::State }
    }

    /// Hands the parts of a sweep on.
    fn accept(&mut self, parts: Vec<crate::chain::entry::Entry>) {
        if let Some(sweep) = &mut self.sweep {
            sweep.add(parts);
        }
    }

    /// Reads another slice; after the last one, captures everything that any slice may have seen.
    fn go_on_with_sweep(&mut self) -> anyhow::Result<()> {
        let Some(sweep) = &mut self.sweep else { return Ok(()) };
        if !sweep.slice(&self.chain, self.pace.slice)? {
            return Ok(());
        }
        let as_of = self.clock.now();
        self.look(self.clock.monotonic(), as_of, true)?;
        // A file that was written beside its WAL was read in the middle of that.
        self.check_untouched()?;
        if let Some(sweep) = self.sweep.take() {
            sweep.finish(&self.chain, &mut self.capture, as_of)?;
        }
        Ok(())
    }

    /// Moves on to a newer transaction, capturing first where [`Hold`] asks for it.
    fn hand_over(&mut self, now: Instant) -> anyhow::Result<()> {
        let as_of = self.clock.now();
        let purpose = self.purpose();
        let capture = &mut self.capture;
        let mut parts = Vec::new();
        let handed =
            self.hold.hand_over::<anyhow::Error>(capture.position(), |reader, held, next| {
                parts = capture.capture(reader, held, next, as_of, purpose)?;
                Ok(())
            });
        // What was captured is captured, whatever came after.
        self.accept(parts);
        self.last_hand_over = now;
        handed
    }

    /// Compares the files with their names now and then, where nothing else does.
    fn check_files(&mut self, now: Instant, to_the_end: bool) -> Result<bool, Discontinuity> {
        let due = to_the_end || now.duration_since(self.last_poll) >= POLL;
        if due {
            self.last_poll = now;
            self.checkpointer.files().check()?;
        }
        Ok(due)
    }

    /// With everything backfilled and the held transaction on slot 0 nobody can make a checkpoint, so the database's file
    /// stays as it is until we move on. Where it does not, something other than SQLite has written to it.
    fn check_settled(&mut self, mark: Mark, polled: bool) -> Result<(), Discontinuity> {
        let moved = self.backfilled != Some(mark.position);
        if moved || polled {
            self.check_untouched()?;
        }
        if moved {
            self.settled = None;
        }
        Ok(())
    }

    /// See [`Engine::check_settled`].
    pub(super) fn check_untouched(&self) -> Result<(), Discontinuity> {
        if self.settled.is_some_and(|settled| self.checkpointer.files().stamp() != Some(settled)) {
            return Err(Discontinuity(format!(
                "the database's file was written, but not through the WAL beside it{MOUNT_HINT}"
            )));
        }
        Ok(())
    }

    fn wal_bytes_in_use(&self, mark: Mark) -> u64 {
        u64::from(mark.position.frame) * frame_size(self.attachable.page_size)
    }

    fn report(
        &mut self,
        now: Instant,
        as_of: Timestamp,
        scrubbed: Option<ScrubReport>,
    ) -> anyhow::Result<Step> {
        let (mark, _) = self.last_look;
        let all_captured = self.capture.position() == mark.position;
        let unvouched = self.unvouched(now);
        let known = all_captured && self.sweep.is_none() && self.elsewhere_since.is_none();
        let vouched = known && unvouched.is_none();
        if vouched {
            // Until `as_of` at least, the name led to what was captured.
            self.checkpointer.files().check().map_err(Discontinuity::from)?;
            self.check_untouched()?;
        }
        let next = if self.elsewhere_since.is_some() {
            OPENING / 4
        } else if self.sweep.is_some() {
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
        let due = self.scrub.due().saturating_duration_since(now);
        Ok(Step {
            next: if self.elsewhere_since.is_some() { next } else { next.min(due) },
            complete_until: vouched.then_some(as_of),
            unvouched,
            captured: self.chain.tip().last_sequence(),
            seen: mark.position,
            sweeping: self.sweeping(),
            wal_bytes: self.capture.wal().file_size().unwrap_or(0),
            locks: self.checkpointer.locks(),
            scrubbed,
            clock_set: self.clock_watch.take(),
        })
    }
}

/// What to do where the application uses another WAL than the one that we see.
const MOUNT_HINT: &str = "\nHINT: where the file alone is mounted or linked into the application's view of it (Docker: -v \
                          app.db:/data/app.db), mount the directory, not the file: the WAL belongs to it. If somebody copied \
                          a file over the database, nothing else need be done";

/// What an operator can do about local trouble, as further lines of the message.
pub(super) fn hint(error: &anyhow::Error) -> &'static str {
    // One that was refused the reserve says so itself.
    if is_out_of_room(error) && !error.chain().any(|cause| cause.is::<NoRoom>()) {
        "\nHINT: make room for state_dir: it holds a compressed copy of the database, twice for a moment, until \
         it is in the bucket"
    } else {
        ""
    }
}
