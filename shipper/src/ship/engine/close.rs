//! Leaving the database as SQLite leaves it: checkpointed, without a WAL, where nobody else has it open.
//!
//! The last connection's close removes the WAL, and SQLite alone decides which one is the last: it takes the exclusive lock,
//! or leaves everything as it is. What the file is then is noted, so that the next start can tell that nobody wrote to it.
//!
//! *Invariant*: a [`Rest`] is taken while the held transaction keeps everybody from writing to the file, of a file that was
//! written some time before; and what the file holds is in the bucket. It is noted only if the file still is the same once
//! the WAL is gone. Who commits between this and the close, or later, changes the file, or leaves a WAL beside it that has
//! all that came: either is seen at the next start. A crash before it is noted costs a catch-up.
//!
//! Nobody waits for this any more than for the close of another program: there is nothing left to backfill.

use std::time::{Duration, SystemTime};

use crate::ship::capture::Discontinuity;
use crate::ship::engine::Engine;
use crate::wal::openers::LeftBehind;
use crate::wal::reader::wal_path;
use crate::wal::rest::Rest;

/// Files written further apart than this have different times: some ticks of the slowest kernel.
const TICK: Duration = Duration::from_millis(20);
/// The same where the file system keeps whole seconds.
const COARSE_TICK: Duration = Duration::from_secs(2);

impl Engine {
    /// Lets go of everything, as [`Engine::leave`] does; with the WAL gone, notes what the file is now. An error where that
    /// could not be noted.
    pub fn close(mut self) -> (LeftBehind, anyhow::Result<()>) {
        let rest = self.come_to_rest().unwrap_or_else(|error| {
            tracing::debug!("the WAL stays: {error:#}");
            None
        });
        let Some(rest) = rest else { return (self.leave(), Ok(())) };
        let Self {
            hold, capture, sweep, checkpointer, mut left, openers, attachable, chain, ..
        } = self;
        drop((hold, capture, sweep));
        if let Err(error) = checkpointer.close() {
            tracing::debug!("the WAL stays: {error}");
        }
        let removed = !wal_path(&attachable.real).exists();
        // Else the close backfilled what somebody committed just now, and nobody captured it.
        let same = Rest::of(openers.database()).is_ok_and(|now| now == rest);
        left.add(openers.leave());
        (left, if removed && same { chain.note_rest(rest) } else { Ok(()) })
    }

    /// Backfills what is left in the WAL, where everything in it is in the bucket and nobody else is there.
    fn come_to_rest(&mut self) -> anyhow::Result<Option<Rest>> {
        if self.sweep.is_some() || self.openers.any() {
            return Ok(None);
        }
        self.index.begin().map_err(Discontinuity::from)?;
        let now = self.clock.monotonic();
        let (mark, _) = self.last_look;
        if self.backfilled != Some(mark.position) {
            self.checkpoint(now)?;
        }
        let rest = Rest::of(self.openers.database())?;
        let tick = if rest.is_coarse() { COARSE_TICK } else { TICK };
        let written = SystemTime::UNIX_EPOCH + rest.modified();
        if SystemTime::now().duration_since(written).unwrap_or_default() < tick {
            std::thread::sleep(tick);
        }
        let mark = self.look(now, self.clock.now(), true)?;
        self.checkpointer.files().check()?;
        self.check_untouched()?;
        self.index.check().map_err(Discontinuity::from)?;
        // What was captured just now is not in the bucket.
        let durable = self.chain.backlog().0 == 0;
        let whole = self.backfilled == Some(mark.position) && self.settled.is_some() && durable;
        Ok((whole && Rest::of(self.openers.database())? == rest).then_some(rest))
    }
}
