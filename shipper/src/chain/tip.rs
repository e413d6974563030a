//! The capturing end of a chain: the last state captured, and entries of the spool that lead on from it.

use anyhow::Context;
use jiff::Timestamp;
use replica::format::wal::Position;
use replica::format::{Checksum, Header, Txid, TxidRange, WalSpan};

use crate::chain::entry::{End, Entry, EntryWriter, Room};
use crate::chain::record::Durable;
use crate::chain::spool::entry_path;
use crate::chain::sums::PageSums;
use crate::chain::{LocalChain, SpoolFull};
use crate::wal::rest::Rest;

/// The capturing end.
#[derive(Debug)]
pub struct Tip {
    /// Page checksums at the tip (or of what a sweep has seen of it so far).
    pub sums: PageSums,
    /// `None` until there is a first state.
    pub state: Option<TipState>,
    pub(super) next_sequence: u64,
}

/// The state that the spool ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TipState {
    /// The database's checksum.
    pub checksum: Checksum,
    /// Pages in the database.
    pub page_count: u32,
    /// The place in the WAL, where it is known.
    pub position: Option<Position>,
    /// The last file's timestamp.
    pub timestamp: Timestamp,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every page: the first file of a chain (or, with others behind it, the first part of it).
    Snapshot,
    /// A state after the tip's (or, with others behind it, the first part of one).
    State,
    /// No state by itself.
    Part,
}

impl From<&End> for TipState {
    fn from(end: &End) -> Self {
        let End { post_apply: checksum, page_count, timestamp, .. } = *end;
        Self { checksum, page_count, position: Some(end.position), timestamp }
    }
}

impl From<Durable> for TipState {
    fn from(durable: Durable) -> Self {
        let Durable { checksum, page_count, position, timestamp, .. } = durable;
        Self { checksum, page_count, position, timestamp }
    }
}

impl Tip {
    /// Nothing captured yet.
    pub(super) fn empty(sums: PageSums) -> Self {
        Self { sums, state: None, next_sequence: 1 }
    }

    /// The number of the last entry that was begun; 0 where none was.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Entries after `sequence` came to nothing.
    pub fn rewind(&mut self, sequence: u64) {
        self.next_sequence = sequence + 1;
    }
}

impl LocalChain {
    /// The TXID of what is captured now, if nothing comes between: a file that bears it goes up as it is.
    pub(super) fn expected_txid(&self) -> Txid {
        let next = self.next_txid();
        if self.spool().frozen().is_some() { next.next() } else { next }
    }

    /// Begins an entry. `kind` says whether it is a state by itself.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin_entry(
        &self,
        tip: &mut Tip,
        page_count: u32,
        timestamp: Timestamp,
        kind: Kind,
        wal: Option<WalSpan>,
    ) -> anyhow::Result<EntryWriter> {
        let expected = self.expected_txid();
        let txid = match kind {
            Kind::Snapshot => Txid::FIRST,
            // Never taken for a snapshot.
            Kind::State | Kind::Part => expected.max(Txid::FIRST.next()),
        };
        let checksummed = kind != Kind::Part;
        let pre_apply = tip.state.map(|state| state.checksum);
        let header = Header {
            page_size: self.page_size,
            commit: page_count,
            txids: TxidRange::single(txid),
            timestamp,
            checksummed,
            pre_apply: pre_apply.filter(|_| kind == Kind::State),
            wal,
            node_id: self.node_id,
        };
        let sequence = tip.next_sequence;
        let path = entry_path(&self.directory, sequence);
        let room = Room::new(self.reserve.clone(), self.backlog().1);
        let writer = EntryWriter::create(&path, sequence, header, room, self.disk())?;
        tip.next_sequence += 1;
        Ok(writer)
    }

    /// Puts a finished group behind the others; `state` is the database at its end.
    ///
    /// # Errors
    /// [`SpoolFull`]: the group is in the spool all the same.
    pub fn append(
        &self,
        tip: &mut Tip,
        group: Vec<Entry>,
        state: TipState,
    ) -> Result<(), SpoolFull> {
        tip.state = Some(state);
        self.spool().append(group);
        self.arrived.notify_one();
        self.check_room()
    }

    /// Whether what waits is more than it may be, or than the disk has room for. One file never is: without it there is nothing to go on from.
    ///
    /// # Errors
    /// [`SpoolFull`].
    pub fn check_room(&self) -> Result<(), SpoolFull> {
        let (files, bytes) = self.backlog();
        let mut limit = self.spool_limit;
        if let Ok(room) = self.reserve.headroom() {
            // Merging takes as much again for a moment.
            limit = limit.min(room / 4 * 3);
        }
        if files > 1 && bytes > limit { Err(SpoolFull { bytes, limit }) } else { Ok(()) }
    }

    /// Notes that the tip's state stands at `position` of the WAL, with nothing to ship for it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn confirm_position(&self, tip: &mut Tip, position: Position) -> anyhow::Result<()> {
        if let Some(state) = &mut tip.state {
            state.position = Some(position);
        }
        if self.spool().is_empty() {
            self.change_record(|record| {
                if let Some(durable) = &mut record.durable {
                    durable.position = Some(position);
                }
            })?;
        }
        Ok(())
    }

    /// Notes that the source was left at rest, in the state that the bucket has.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn note_rest(&self, rest: Rest) -> anyhow::Result<()> {
        self.change_record(|record| {
            record.rest = record.durable.map(|durable| (durable.txid, rest))
        })
    }

    /// What the source's file is if it still is in the tip's state; unknown where the tip is another than when it was left.
    #[must_use]
    pub fn rest(&self) -> Option<Rest> {
        if self.backlog().0 > 0 {
            return None;
        }
        let record = &self.record().record;
        record
            .rest
            .filter(|(txid, _)| record.durable.is_some_and(|durable| durable.txid == *txid))
            .map(|(_, rest)| rest)
    }

    /// The place in the WAL proves nothing any more: what differs must be caught up.
    pub fn doubt(&self) {
        if let Some(state) = &mut self.tip().state {
            state.position = None;
        }
    }

    /// Removes what no capture or sweep goes on with: parts of one that was broken off.
    fn remove_leftovers(&self) -> anyhow::Result<()> {
        let frozen = self.spool().frozen().map(|entry| entry.path.clone());
        let name = || format!("read spool {}", self.directory.display());
        for file in std::fs::read_dir(&self.directory).with_context(name)? {
            let path = file.with_context(name)?.path();
            if Some(&path) != frozen.as_ref() {
                self.disk.remove(&path);
            }
        }
        Ok(())
    }

    /// Gives up what waits (and with `frozen`, what is being uploaded); what it said is caught up later.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn drop_spool(&self, frozen: bool) -> anyhow::Result<()> {
        let mut tip = self.tip();
        let dropped = self.spool().drain(frozen);
        dropped.iter().for_each(|entry| self.remove(entry));
        self.remove_leftovers()?;
        let mut sums = self.durable_sums().sums.copy_to(tip.sums.path())?;
        let durable = self.record().record.durable;
        let mut last = durable.map_or(0, |durable| durable.sequence);
        let mut state = durable.map(TipState::from);
        if let Some(entry) = self.spool().frozen().cloned() {
            sums.apply(entry.decoder()?, self.page_size, false)?;
            last = entry.footer.end.through;
            state = Some(TipState::from(&entry.footer.end));
        }
        // What was captured after it is gone, so the WAL's place says nothing.
        if let Some(state) = &mut state {
            state.position = None;
        }
        *tip = Tip { sums, state, next_sequence: last + 1 };
        drop(tip);
        self.change_record(|record| {
            if let Some(durable) = &mut record.durable {
                durable.position = None;
            }
        })
    }
}
