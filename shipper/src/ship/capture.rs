//! One capture: what was committed since the last one, as one entry of the spool (or, where it is much, some).
//!
//! *Invariant*: [`Capture::position`] moves only when the entries for everything before it are whole. A failed
//! capture is repeated over the same (and newer) frames, and gives what it would have given at once: every entry of the page
//! index that it changed is changed again.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use replica::format::wal::{Position, WalChecksum, WalError, frame_offset, frame_size};
use replica::format::{PageNumber, PageSize, WalSpan};
use rusqlite::Connection;

use crate::chain::disk::Disk;
use crate::chain::entry::{End, Entry, EntryWriter};
use crate::chain::{Kind, LocalChain, Tip, TipState};
use crate::clock::Clock;
use crate::ship::pages::read_page;
use crate::ship::witnesses::Witnesses;
use crate::wal::files::{Files, Replaced};
use crate::wal::index_file::CutShort;
use crate::wal::reader::{Changes, WalReader};
use crate::wal::sqlite::Mark;

/// The WAL does not continue from where it was captured. What differs must be caught up.
#[derive(Debug, thiserror::Error)]
#[error("the WAL does not continue from where it was captured: {0}")]
pub struct Discontinuity(pub String);

impl From<Replaced> for Discontinuity {
    fn from(replaced: Replaced) -> Self {
        Self(replaced.to_string())
    }
}

impl From<CutShort> for Discontinuity {
    fn from(cut: CutShort) -> Self {
        Self(cut.to_string())
    }
}

/// The capturing end of one chain.
#[derive(Debug)]
pub struct Capture {
    wal: WalReader,
    files: Arc<Files>,
    chain: Arc<LocalChain>,
    clock: Arc<dyn Clock>,
    page_size: PageSize,
    most_frames: u32,
    position: Position,
    page_count: u32,
    last_timestamp: Timestamp,
    witnesses: Witnesses,
    page: Vec<u8>,
}

/// What a capture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A state of the database, which goes into the spool.
    State,
    /// Part of a sweep, which will put it there.
    Part,
}

/// What is written under way: the first entry of a group is finished last.
struct Group {
    first: Option<EntryWriter>,
    rest: Vec<Entry>,
}

impl Capture {
    /// Captures what comes after `from`, at most `most_frames` in one entry. `last_timestamp` is that of the file before.
    #[must_use]
    pub fn new(
        wal: WalReader,
        files: Arc<Files>,
        chain: Arc<LocalChain>,
        clock: Arc<dyn Clock>,
        from: Mark,
        last_timestamp: Timestamp,
        most_frames: u32,
    ) -> Self {
        let page_size = chain.page_size();
        Self {
            wal,
            files,
            chain,
            clock,
            page_size,
            most_frames,
            position: from.position,
            page_count: from.page_count,
            last_timestamp,
            witnesses: Witnesses::default(),
            page: vec![0; page_size.len()],
        }
    }

    /// The end of what was captured.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Pages in the database there.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// The WAL being captured.
    #[must_use]
    pub fn wal(&self) -> &WalReader {
        &self.wal
    }

    /// A timestamp for a file whose last frame was just read: never below the one before.
    pub fn timestamp(&mut self) -> Timestamp {
        let earliest = self.last_timestamp.max(self.chain.not_before());
        self.last_timestamp = self.clock.now().max(earliest);
        self.last_timestamp
    }

    /// Captures up to `to`, which `reader`'s open transaction sees, and which was the newest state at
    /// `as_of`; `held` is what the held transaction saw as it began. Returns the parts of a sweep; a state goes to the spool.
    ///
    /// # Errors
    /// [`Discontinuity`], [`crate::chain::SpoolFull`], a WAL that does not verify, a page that is nowhere to be found, or
    /// those of the file system.
    pub fn capture(
        &mut self,
        reader: &Connection,
        held: Mark,
        to: Mark,
        as_of: Timestamp,
        purpose: Purpose,
    ) -> anyhow::Result<Vec<Entry>> {
        let from = self.continue_from(held, to)?;
        let restarted = to.position.salts != self.position.salts;
        let chain = self.chain.clone();
        let mut tip = chain.tip();
        if to.position.frame == from.frame {
            if restarted {
                self.hear_witnesses(&mut tip, reader, self.page_count)?;
            }
            self.position = Position { checksum: to.position.checksum, ..from };
            return Ok(Vec::new());
        }
        let sequence = tip.last_sequence();
        let mut group = Group { first: None, rest: Vec::new() };
        let written = self
            .write(&mut tip, &mut group, reader, from, to, purpose)
            // Another database's frames can be among them only if its name led to it before they were read.
            .and_then(|()| Ok(self.files.check().map_err(Discontinuity::from)?))
            .and_then(|()| match restarted {
                true => self.hear_witnesses(&mut tip, reader, to.page_count),
                false => Ok(()),
            })
            .and_then(|()| self.finish(&mut tip, &mut group, to, as_of, purpose));
        if let Err(error) = written {
            group.abandon(chain.disk());
            tip.rewind(sequence);
            return Err(error);
        }
        self.position = to.position;
        self.page_count = to.page_count;
        if purpose == Purpose::Part {
            return Ok(group.rest);
        }
        let state = TipState {
            checksum: tip.sums.checksum(),
            page_count: to.page_count,
            position: Some(to.position),
            timestamp: self.last_timestamp,
        };
        chain.append(&mut tip, group.rest, state)?;
        Ok(Vec::new())
    }

    /// Whether the database of `page_count` pages that `reader` sees, all of which is captured, is still the one that was
    /// captured.
    fn hear_witnesses(
        &mut self,
        tip: &mut Tip,
        reader: &Connection,
        page_count: u32,
    ) -> anyhow::Result<()> {
        self.witnesses.forget_beyond(page_count);
        let found = self.witnesses.contradiction(reader, &mut tip.sums, &mut self.page)?;
        let Some(page) = found else { return Ok(()) };
        Err(Discontinuity(format!(
            "page {page} is not as it was captured, although the WAL begins anew: another file was copied over the database"
        ))
        .into())
    }

    /// Writes all entries, the first one to all but its end.
    fn write(
        &mut self,
        tip: &mut Tip,
        group: &mut Group,
        reader: &Connection,
        from: Position,
        to: Mark,
        purpose: Purpose,
    ) -> anyhow::Result<()> {
        let (mut at, mut fewest) = (from, self.page_count);
        // Pages beyond `fewest` that an earlier entry of this group has.
        let mut seen = BTreeSet::new();
        loop {
            let changes = self.wal.changes(at, to, fewest, self.most_frames).map_err(|error| {
                // Within the index's bounds every frame verifies, unless the file is not what it was.
                let damaged = error.is::<WalError>();
                if damaged { Discontinuity(format!("{error:#}")).into() } else { error }
            })?;
            let last = changes.end.frame == to.position.frame;
            let alone = last && group.first.is_none();
            let state = alone && purpose == Purpose::State;
            let kind = if state { Kind::State } else { Kind::Part };
            let wal = WalSpan {
                offset: frame_offset(at.frame + 1, self.page_size),
                size: u64::from(changes.end.frame - at.frame) * frame_size(self.page_size),
                salts: (to.position.salts.0, to.position.salts.1),
            };
            let timestamp = self.timestamp();
            let mut writer =
                self.chain.begin_entry(tip, changes.commit, timestamp, kind, Some(wal))?;
            let encoded = self.write_pages(tip, &mut writer, reader, &changes, last, &seen);
            if group.first.is_none() {
                group.first = Some(writer);
                encoded?;
            } else {
                encoded.and_then(|()| {
                    let end = self.end(tip, writer.sequence(), &changes, timestamp);
                    group.rest.push(writer.finish(end, self.chain.disk())?);
                    Ok(())
                })?;
            }
            if last {
                return Ok(());
            }
            fewest = changes.fewest;
            seen.extend(changes.pages().map(|(number, _)| number));
            at = changes.end;
        }
    }

    fn write_pages(
        &mut self,
        tip: &mut Tip,
        writer: &mut EntryWriter,
        reader: &Connection,
        changes: &Changes,
        last: bool,
        seen: &BTreeSet<PageNumber>,
    ) -> anyhow::Result<()> {
        let mut page = std::mem::take(&mut self.page);
        let lock_page = self.page_size.lock_page();
        // Only the last entry is written at the state that `reader` sees, and only it is asked to be complete.
        let end = if last { changes.commit } else { 0 };
        let grown = (changes.fewest.saturating_add(1)..=end)
            .filter_map(|number| PageNumber::new(number).ok())
            .filter(|number| *number != lock_page && !seen.contains(number));
        let written = sources(changes, grown).try_for_each(|(number, frame)| {
            match frame {
                Some(frame) => self.wal.page(frame, &mut page)?,
                None => read_page(reader, number, &mut page)
                    .with_context(|| format!("read page {number}, which no frame holds"))?,
            }
            let sum = writer.page(number, &page)?;
            tip.sums.set(number, sum).map(|_| ())
        });
        self.page = page;
        self.witnesses.note(changes.pages().map(|(number, _)| number));
        written
    }

    /// Ends the group: what was cut off goes, and the first entry gets its name.
    fn finish(
        &mut self,
        tip: &mut Tip,
        group: &mut Group,
        to: Mark,
        as_of: Timestamp,
        purpose: Purpose,
    ) -> anyhow::Result<()> {
        tip.sums.truncate(to.page_count)?;
        tip.sums.flush()?;
        let first = group.first.take().context("capture without an entry")?;
        let last = tip.last_sequence();
        let members = if purpose == Purpose::Part { first.sequence() } else { last };
        let end = End {
            members,
            through: members,
            position: to.position,
            pre_apply: tip.state.map(|state| state.checksum),
            post_apply: tip.sums.checksum(),
            page_count: to.page_count,
            timestamp: self.last_timestamp,
            complete_until: as_of,
        };
        let entry = first.finish(end, self.chain.disk())?;
        group.rest.insert(0, entry);
        Ok(())
    }

    fn end(&self, tip: &Tip, sequence: u64, changes: &Changes, timestamp: Timestamp) -> End {
        End {
            members: sequence,
            through: sequence,
            position: changes.end,
            pre_apply: None,
            post_apply: tip.sums.checksum(),
            page_count: changes.commit,
            timestamp,
            complete_until: timestamp,
        }
    }

    /// Where the capture goes on: the last position, or the start of a WAL that was restarted under a
    /// held transaction from exactly the place that was captured.
    fn continue_from(&self, held: Mark, to: Mark) -> Result<Position, Discontinuity> {
        if to.position.salts != self.position.salts {
            // What began while the held transaction stood on slot 0 cannot be backfilled, so it can only be left empty.
            let empty = self.position.frame == 0 && held.position.salts != self.position.salts;
            if self.position != held.position && !empty {
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
}

impl Group {
    fn abandon(self, disk: &dyn Disk) {
        if let Some(first) = self.first {
            first.abandon();
        }
        self.rest.iter().for_each(|entry| disk.remove(&entry.path));
    }
}

/// Every page of an entry, ascending, with the frame that holds it. Pages that the database grew by and no frame
/// holds (SQLite does not write unused ones) come from the database itself.
fn sources(
    changes: &Changes,
    grown: impl Iterator<Item = PageNumber>,
) -> impl Iterator<Item = (PageNumber, Option<u32>)> {
    let mut grown = grown.peekable();
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
