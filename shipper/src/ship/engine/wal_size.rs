//! Keeping the WAL small: when to checkpoint, when only to hand over, when to take the lock.

use std::time::{Duration, Instant};

use replica::format::wal::{Position, frame_size};

use crate::ship::engine::{Engine, HAND_OVER_EVERY};
use crate::wal::checkpoint::Refused;
use crate::wal::sqlite::{self, Mark};

/// WAL bytes from which a checkpoint without the lock is worth its fsyncs.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// WAL bytes from which the lock is taken if there is no other way.
const LOCK_BYTES: u64 = 16 << 20;
/// Where the application writes faster than this while a checkpoint is made, there is no gap between its commits to be
/// hoped for: the lock is taken at once. Else only where the WAL outgrows the threshold by far all the same.
const FAST_BYTES_PER_SECOND: u64 = 24 << 20;
/// Tries without the lock, one after the other, and how long they may take together without getting shorter.
const MOST_ROUNDS: u32 = 20;
const ROUNDS_FOR: Duration = Duration::from_millis(100);
/// How long the application may be found making a checkpoint before that is no help any more.
const BUSY_LONGEST: Duration = Duration::from_secs(2);
/// Without a commit for this long, what is left in the WAL is backfilled.
const QUIET: Duration = Duration::from_secs(1);
/// How long a reader of the application may keep the WAL from shrinking before it is worth a warning.
const BLOCKED_WARNING: Duration = Duration::from_secs(60);

impl Engine {
    /// Checkpoints or hands over, whichever is due.
    pub(super) fn keep_wal_small(&mut self, now: Instant, mark: Mark) -> anyhow::Result<()> {
        let used = self.wal_bytes_in_use(mark);
        let moved = mark.position != self.hold.mark().position;
        if self.hold.is_restartable() && moved && used < CHECKPOINT_BYTES {
            // The application went on after everything was backfilled: leave slot 0, where each of its commits would
            // look at the whole WAL, for an early mark, once. (Where there is much already, the mark moves right before
            // our checkpoint: else the application's own would have it all to do, in the middle of a commit.)
            self.hand_over(now)?;
        }
        if used == 0
            && self.backfilled != Some(mark.position)
            && self.hold.mark().position == mark.position
        {
            // An empty WAL has nothing to backfill.
            self.complete(mark.position);
        }
        if used == 0 || self.backfilled == Some(mark.position) {
            return Ok(());
        }
        let rested = now.duration_since(self.last_hand_over) >= HAND_OVER_EVERY;
        let quiet = now.duration_since(self.last_look.1) >= QUIET;
        let wanted = used >= LOCK_BYTES || (rested && (used >= CHECKPOINT_BYTES || quiet));
        if wanted && self.checkpointer.is_ready(now) {
            self.checkpoint(now).or_else(|error| self.refused(now, error))?;
        } else if rested {
            self.hand_over(now)?;
        }
        Ok(())
    }

    /// Backfills without the lock; where a fast writer leaves no other way, under it.
    pub(super) fn checkpoint(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut deadline = None;
        let (mut rest, mut fast, mut busy) = (u32::MAX, false, false);
        // A commit that falls between a backfill and the hand-over after it keeps the WAL from being restarted. Each
        // round has less to backfill, and so a better chance, as long as the application pauses between commits.
        for _ in 0..MOST_ROUNDS {
            let began = self.clock.monotonic();
            self.hand_over(now)?;
            let mark = self.hold.mark();
            let result = self.checkpointer.passive()?;
            busy = result.busy;
            if !busy && result.backfilled < mark.position.frame {
                let long = self.checkpointer.is_stuck(result.backfilled, now);
                if long || self.wal_bytes_in_use(mark) < LOCK_BYTES {
                    self.blocked(now);
                    return Ok(());
                }
                break;
            }
            self.checkpointer.unblocked();
            if deadline.is_none() && !busy {
                // Most of it, so that the hand-over finds little to capture.
                self.look(now, self.clock.now(), true)?;
            }
            self.hand_over(now)?;
            let after = self.hold.mark().position;
            if after == mark.position && !busy {
                self.complete(mark.position);
                return Ok(());
            }
            let ended = self.clock.monotonic();
            let written = after.frame.saturating_sub(mark.position.frame);
            let bytes = u64::from(written) * frame_size(self.attachable.page_size);
            let microseconds = (ended - began).as_micros().max(1);
            fast = u128::from(bytes) * 1_000_000 / microseconds > u128::from(FAST_BYTES_PER_SECOND);
            let shrinks = written <= rest / 2;
            if fast || busy || (!shrinks && ended >= *deadline.get_or_insert(ended + ROUNDS_FOR)) {
                break;
            }
            rest = written;
        }
        let used = self.wal_bytes_in_use(self.hold.mark());
        // An application that is making a checkpoint itself, and does not write meanwhile, needs no help at first.
        let busy_for = self.checkpointer.busy(busy, now);
        let helped = busy && busy_for < BUSY_LONGEST;
        if (used >= 3 * LOCK_BYTES && !helped) || (used >= LOCK_BYTES && fast) {
            // Also where the application is checkpointing (as fast as it writes, it always is), and where it reads:
            // while nothing is written, one of its short readers after the other goes away.
            self.look(now, self.clock.now(), true)?;
            let times = u32::try_from(used / LOCK_BYTES).unwrap_or(u32::MAX);
            return self.checkpoint_locked(now, if fast { times } else { 1 });
        }
        Ok(())
    }

    /// Everything up to `position` is in the database file.
    fn complete(&mut self, position: Position) {
        self.backfilled = Some(position);
        self.settled = self.checkpointer.files().stamp();
    }

    /// Backfills while nobody writes: captures the last frames, then stands on slot 0.
    fn checkpoint_locked(&mut self, now: Instant, pressure: u32) -> anyhow::Result<()> {
        let as_of = self.clock.now();
        let purpose = self.purpose();
        let Self { checkpointer, hold, capture, attachable, .. } = self;
        let mut parts = Vec::new();
        let locked = checkpointer.locked::<_, anyhow::Error>(pressure, |checkpointer| {
            let reader = checkpointer.connection();
            let mark = sqlite::begin_read(reader, attachable.page_size)?;
            let captured = capture.capture(reader, hold.mark(), mark, as_of, purpose);
            let ended = sqlite::end_read(reader);
            // What was captured is captured, whatever came after.
            parts.extend(captured?);
            ended?;
            let mut next = || {
                hold.hand_over::<anyhow::Error>(capture.position(), |reader, held, next| {
                    parts.extend(capture.capture(reader, held, next, as_of, purpose)?);
                    Ok(())
                })
            };
            next()?;
            let result = checkpointer.passive_to_the_end(pressure)?;
            next()?;
            Ok(result)
        });
        self.accept(parts);
        match locked? {
            Some(result) if result.is_complete() => {
                self.checkpointer.unblocked();
                self.complete(self.hold.mark().position);
            }
            Some(result) if result.busy => tracing::debug!("the application is checkpointing"),
            Some(_) => self.blocked(now),
            None => tracing::debug!("the write lock was not to be had"),
        }
        self.last_look = (self.hold.mark(), now);
        self.last_hand_over = now;
        Ok(())
    }

    /// SQLite refused a checkpoint, if that is what `error` says. Where it did not before, the file has become another one.
    /// Where it always did since we attached, attaching again is of no use: capturing goes on without.
    ///
    /// It refuses where the file lacks more than the WAL can hold (`walCheckpoint` in its `wal.c`): an older, shorter file was
    /// put under a wal-index that is still in force, which its readers and writers do not mind.
    fn refused(&mut self, now: Instant, error: anyhow::Error) -> anyhow::Result<()> {
        if !error.is::<Refused>() || self.backfilled.is_some() {
            return Err(error);
        }
        if self.checkpointer.blocked(now).is_zero() {
            tracing::warn!(
                "{error:#}: the file is shorter than its WAL says, as where an older one was copied over it in use\n\
                 HINT: all is shipped, but the WAL grows; check the database, and run VACUUM in it once"
            );
        }
        Ok(())
    }

    /// A checkpoint could not reach our own mark: somebody else reads an older state.
    fn blocked(&mut self, now: Instant) {
        let since = self.checkpointer.blocked(now);
        if since >= BLOCKED_WARNING {
            tracing::warn!(
                seconds = since.as_secs(),
                "a read transaction of the application keeps the WAL from being checkpointed\n\
                 HINT: look for a connection that stays in a transaction, or a statement that is never reset"
            );
        }
    }
}
