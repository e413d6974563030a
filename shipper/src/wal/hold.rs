//! The read transaction that is never let go of: two connections, hand over hand.
//!
//! A read transaction on a slot with a mark inside the WAL stops every writer from restarting the WAL. One
//! on slot 0 (taken when everything was backfilled as it began) stops every checkpoint from backfilling,
//! so that a WAL can be restarted under it once, from exactly where it began, and never again. SQLite
//! does not say which slot it gave us, but it follows from what was committed in between:
//!
//! *Invariant*: the next transaction can stand on slot 0 only if the WAL's end has not moved since the
//! current one began (which kept everything after its own mark from being backfilled), or if the WAL is a
//! new one. In these cases, and only then, all that the next one sees is captured before the current one ends.
//!
//! A crash leaves nothing behind: locks die with the process.

use std::path::Path;

use replica::format::PageSize;
use replica::format::wal::Position;
use rusqlite::Connection;

use crate::wal::sqlite::{self, Mark};

/// A read transaction on the database, from [`Hold::begin`] until it is dropped.
#[derive(Debug)]
pub struct Hold {
    readers: [Connection; 2],
    current: usize,
    mark: Mark,
    restartable: bool,
    page_size: PageSize,
}

impl Hold {
    /// Begins to hold. Everything up to [`Hold::mark`] counts as known to the caller.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn begin(path: &Path, page_size: PageSize) -> rusqlite::Result<Self> {
        let readers = [sqlite::open(path)?, sqlite::open(path)?];
        let mark = sqlite::begin_read(&readers[0], page_size)?;
        Ok(Self { readers, current: 0, mark, restartable: true, page_size })
    }

    /// The connection that holds the transaction now.
    #[must_use]
    pub fn reader(&self) -> &Connection {
        &self.readers[self.current]
    }

    /// What the transaction held now saw as it began.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether the WAL may be restarted under this transaction (it may stand on slot 0).
    #[must_use]
    pub fn is_restartable(&self) -> bool {
        self.restartable
    }

    /// Moves on to a transaction that sees the newest commit. `capture` is called with it, before the old
    /// one ends, where the invariant asks for it and `captured` does not reach that far.
    ///
    /// # Errors
    /// Those of SQLite and of `capture`; the old transaction is then still held.
    pub fn hand_over<E: From<rusqlite::Error>>(
        &mut self,
        captured: Position,
        capture: impl FnOnce(&Connection, Mark, Mark) -> Result<(), E>,
    ) -> Result<(), E> {
        let next = 1 - self.current;
        let mark = sqlite::begin_read(&self.readers[next], self.page_size)?;
        let restartable = can_be_restartable(self.mark, mark);
        if restartable
            && captured != mark.position
            && let Err(error) = capture(&self.readers[next], self.mark, mark)
        {
            // The capture's error is the one to tell; the old transaction is still ours.
            let _ = sqlite::end_read(&self.readers[next]);
            return Err(error);
        }
        sqlite::end_read(&self.readers[self.current])?;
        self.current = next;
        self.mark = mark;
        self.restartable = restartable;
        Ok(())
    }
}

/// Whether a transaction that saw `next` as it began, beside one that saw `held`, may stand on slot 0.
fn can_be_restartable(held: Mark, next: Mark) -> bool {
    let appended =
        next.position.salts == held.position.salts && next.position.frame > held.position.frame;
    !appended
}
