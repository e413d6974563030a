//! One capture: what was committed since the last one, as one LTX file with the next TXID.
//!
//! *Invariant*: [`Capture::position`] moves only when the file for everything before it is whole. A failed
//! capture changes nothing and is repeated, with the same TXID, over the same (and newer) frames.

use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use replica::format::{Header, Level, PageNumber, PageSize, Txid, TxidRange, WalSpan};
use rusqlite::Connection;

use crate::clock::Clock;
use crate::ship::pages::read_page;
use crate::ship::spool::{Spool, Spooled};
use crate::wal::bytes::{Position, WalChecksum, WalError, frame_offset, frame_size};
use crate::wal::reader::{Changes, WalReader};
use crate::wal::sqlite::Mark;

/// The WAL does not continue from where it was captured: something that no rule of SQLite's allows while
/// our read transactions are held happened to the files. The generation cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("this generation cannot go on: {0}")]
pub struct Discontinuity(pub String);

/// The capturing end of one chain.
#[derive(Debug)]
pub struct Capture {
    wal: WalReader,
    spool: Arc<Spool>,
    clock: Arc<dyn Clock>,
    page_size: PageSize,
    position: Position,
    page_count: u32,
    next: Txid,
    last_timestamp: Timestamp,
    page: Vec<u8>,
}

impl Capture {
    /// Captures what comes after `from`; the next file will be `next`.
    #[must_use]
    pub fn new(
        wal: WalReader,
        spool: Arc<Spool>,
        clock: Arc<dyn Clock>,
        page_size: PageSize,
        from: Mark,
        next: Txid,
    ) -> Self {
        Self {
            wal,
            spool,
            clock,
            page_size,
            position: from.position,
            page_count: from.page_count,
            next,
            last_timestamp: Timestamp::UNIX_EPOCH,
            page: vec![0; page_size.len()],
        }
    }

    /// The end of what was captured.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The TXID of the next file.
    #[must_use]
    pub fn next_txid(&self) -> Txid {
        self.next
    }

    /// The WAL being captured.
    #[must_use]
    pub fn wal(&self) -> &WalReader {
        &self.wal
    }

    /// Bytes of WAL between what was captured and `mark`.
    #[must_use]
    pub fn pending_bytes(&self, mark: Mark) -> u64 {
        let from = if mark.position.salts == self.position.salts { self.position.frame } else { 0 };
        u64::from(mark.position.frame.saturating_sub(from)) * frame_size(self.page_size)
    }

    /// A timestamp for a file whose last frame was just read: never below the one before.
    pub fn timestamp(&mut self) -> Timestamp {
        self.last_timestamp = self.clock.now().max(self.last_timestamp);
        self.last_timestamp
    }

    /// Captures up to `to`, which `reader`'s open transaction sees, and which was the newest state at
    /// `as_of`; `held` is what the held transaction saw as it began. `None` where nothing is new.
    ///
    /// # Errors
    /// [`Discontinuity`], a WAL that does not verify, a page that is nowhere to be found, or those of the
    /// file system.
    pub fn capture(
        &mut self,
        reader: &Connection,
        held: Mark,
        to: Mark,
        as_of: Timestamp,
    ) -> anyhow::Result<Option<Spooled>> {
        let from = self.continue_from(held, to)?;
        if to.position.frame == from.frame {
            self.position = Position { checksum: to.position.checksum, ..from };
            return Ok(None);
        }
        let changes = self.wal.changes(from, to, self.page_count).map_err(|error| {
            // Within the index's bounds every frame verifies, unless the file is not what it was.
            if error.is::<WalError>() { Discontinuity(format!("{error:#}")).into() } else { error }
        })?;
        let txids = TxidRange::single(self.next);
        let header = Header {
            page_size: self.page_size,
            commit: changes.commit,
            txids,
            timestamp: self.timestamp(),
            checksummed: false,
            pre_apply: None,
            wal: Some(WalSpan {
                offset: frame_offset(from.frame + 1, self.page_size),
                size: self.pending_bytes(to),
                salts: (to.position.salts.0, to.position.salts.1),
            }),
            node_id: 0,
        };
        let path = self.spool.path(Level::SYNC, txids);
        let mut encoder = self.spool.start(&path, header)?;
        let mut page = std::mem::take(&mut self.page);
        let encoded = self.sources(&changes).try_for_each(|(number, frame)| {
            match frame {
                Some(frame) => self.wal.page(frame, &mut page)?,
                None => read_page(reader, number, &mut page)
                    .with_context(|| format!("read page {number}, which no frame holds"))?,
            }
            encoder.page(number, &page).with_context(|| format!("write {}", path.display()))
        });
        self.page = page;
        encoded?;
        let spooled = Spool::finish(encoder, path, Level::SYNC, &header, as_of)?;
        self.position = to.position;
        self.page_count = changes.commit;
        self.next = self.next.next();
        Ok(Some(spooled))
    }

    /// Where the capture goes on: the last position, or the start of a WAL that was restarted under a
    /// held transaction from exactly the place that was captured.
    fn continue_from(&self, held: Mark, to: Mark) -> Result<Position, Discontinuity> {
        if to.position.salts != self.position.salts {
            if self.position != held.position {
                return Err(Discontinuity(format!(
                    "WAL restarted at frame {}, captured up to {}",
                    held.position.frame, self.position.frame
                )));
            }
            let checksum = WalChecksum::default();
            return Ok(Position { salts: to.position.salts, frame: 0, checksum });
        }
        if to.position.frame < self.position.frame {
            return Err(Discontinuity(format!(
                "WAL ends at frame {}, captured up to {}",
                to.position.frame, self.position.frame
            )));
        }
        Ok(self.position)
    }

    /// Every page of the new file, ascending, with the frame that holds it. Pages that the database grew
    /// by and no frame holds (SQLite does not write unused ones) come from the database itself.
    fn sources<'a>(
        &self,
        changes: &'a Changes,
    ) -> impl Iterator<Item = (PageNumber, Option<u32>)> + 'a {
        let lock_page = self.page_size.lock_page();
        let mut grown = (changes.fewest.saturating_add(1)..=changes.commit)
            .filter_map(|number| PageNumber::new(number).ok())
            .filter(move |number| *number != lock_page)
            .peekable();
        let mut framed = changes.pages().map(|(number, frame)| (number, Some(frame))).peekable();
        std::iter::from_fn(move || match (framed.peek().copied(), grown.peek().copied()) {
            (Some((number, _)), Some(new)) if new < number => grown.next().map(|new| (new, None)),
            (Some((number, _)), new) => {
                if new == Some(number) {
                    grown.next();
                }
                framed.next()
            }
            (None, _) => grown.next().map(|new| (new, None)),
        })
    }
}
