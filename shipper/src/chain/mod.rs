//! One generation's chain as this machine knows it: what the bucket holds, what is on its way, where to go on.
//!
//! **The bucket is the journal.** Every upload is one TXID with a key of its own that is written once, so what is known
//! here may be old or torn: the keys that follow tell what was lost ([`roll_forward`]). Hence nothing is forced to the disk
//! for a capture or an upload.
//!
//! - [`record`]: the generation, the last TXID known to be in the bucket, and the place in the WAL there.
//! - `durable.sums` ([`sums`]): the page checksums of the database *in the bucket*. `tip.sums`: those of the last
//!   capture; a cache, made anew from the former and the spool at every start.
//! - [`spool`], [`entry`]: captures between the two.
//!
//! *Invariant*: applied to the database in the bucket, the spool's groups give the tip; and the tip's checksum is that of
//! the source at the tip's position, as long as the WAL shows no doubt.
//! *Invariant*: a frozen file does not change until it is known to be in the bucket, or not to be ours.

pub mod disk;
pub mod entry;
mod framed;
pub mod keys;
pub mod open;
pub mod record;
pub mod roll_forward;
pub mod spool;
pub mod sums;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use jiff::Timestamp;
use replica::format::{Checksum, GenerationId, Header, Level, PageSize, Txid, TxidRange, WalSpan};
use tokio::sync::Notify;

use crate::chain::disk::Disk;
use crate::chain::entry::{Entry, EntryWriter, Footer};
use crate::chain::record::{Durable, Record, RecordFile};
use crate::chain::spool::{Spool, entry_path, frozen_path, merge_groups};
use crate::chain::sums::PageSums;
use crate::wal::bytes::Position;

/// Uploads after which the durable index is forced to the disk: a power failure costs at most reading as many files back.
const FORCE_EVERY: u64 = 64;

/// The chain of one generation of one database.
#[derive(Debug)]
pub struct LocalChain {
    directory: PathBuf,
    page_size: PageSize,
    node_id: u64,
    disk: Arc<dyn Disk>,
    // Taken in this order. The last two are held for moments only, so that nobody waits for long work with them.
    tip: Mutex<Tip>,
    durable_sums: Mutex<DurableSums>,
    record: Mutex<Recorded>,
    spool: Mutex<Spool>,
    spool_limit: u64,
    arrived: Notify,
}

/// The capturing end.
#[derive(Debug)]
pub struct Tip {
    /// Page checksums at the tip (or of what a sweep has seen of it so far).
    pub sums: PageSums,
    /// `None` until there is a first state.
    pub state: Option<TipState>,
    next_sequence: u64,
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

/// The uploading end: page checksums of the database in the bucket.
#[derive(Debug)]
struct DurableSums {
    sums: PageSums,
    /// Whether they may be anything: a crash tore them.
    torn: bool,
}

/// The record, and its file.
#[derive(Debug)]
struct Recorded {
    record: Record,
    file: RecordFile,
}

/// A file to upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Its TXID.
    pub txid: Txid,
    /// Its level: that of a snapshot for the first, else that of a sync.
    pub level: Level,
    /// The file.
    pub entry: Entry,
}

/// The spool holds more than it may.
#[derive(Debug, thiserror::Error)]
#[error(
    "spool: {bytes} bytes wait for the bucket, above the limit of {limit}\n\
     HINT: see why nothing is uploaded (shipper doctor); what was captured meanwhile is caught up later"
)]
pub struct SpoolFull {
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes that may be.
    pub limit: u64,
}

impl LocalChain {
    /// Bytes in a page.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The generation, once it has a name.
    #[must_use]
    pub fn generation(&self) -> Option<GenerationId> {
        self.record().record.generation
    }

    /// Where the bucket stands, as far as it is known.
    #[must_use]
    pub fn durable_state(&self) -> Option<Durable> {
        self.record().record.durable
    }

    /// Whether a store that takes a key twice was found.
    #[must_use]
    pub fn is_unguarded(&self) -> bool {
        self.record().record.unguarded
    }

    /// Whether what the bucket holds must be read from it before anything can be captured.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.durable_sums().torn
    }

    /// Names the generation.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_generation(&self, generation: GenerationId) -> anyhow::Result<()> {
        self.change_record(|record| record.generation = Some(generation))
    }

    /// Notes whether the store takes a key twice.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_unguarded(&self, unguarded: bool) -> anyhow::Result<()> {
        self.change_record(|record| record.unguarded = unguarded)
    }

    fn change_record(&self, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let mut recorded = self.record();
        let Recorded { record, file } = &mut *recorded;
        change(record);
        file.write(record, self.disk())
    }

    /// The capturing end. Held while a capture is written; the uploader never waits for it.
    pub fn tip(&self) -> MutexGuard<'_, Tip> {
        lock(&self.tip)
    }

    fn durable_sums(&self) -> MutexGuard<'_, DurableSums> {
        lock(&self.durable_sums)
    }

    fn record(&self) -> MutexGuard<'_, Recorded> {
        lock(&self.record)
    }

    /// What this machine's files pass.
    #[must_use]
    pub fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    fn remove(&self, entry: &Entry) {
        self.disk.remove(&entry.path);
    }

    fn spool(&self) -> MutexGuard<'_, Spool> {
        lock(&self.spool)
    }

    /// The TXID of what is captured now, if nothing comes between: a file that bears it goes up as it is.
    fn expected_txid(&self) -> Txid {
        let next = self.next_txid();
        if self.spool().frozen().is_some() { next.next() } else { next }
    }

    fn next_txid(&self) -> Txid {
        self.record().record.durable.map_or(Txid::FIRST, |durable| durable.txid.next())
    }

    /// Begins an entry. `follows` says after what database it is a state by itself; `None` for a part of a group.
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
        let writer = EntryWriter::create(&entry_path(&self.directory, sequence), sequence, header)?;
        tip.next_sequence += 1;
        Ok(writer)
    }

    /// Takes a number back that [`LocalChain::begin_entry`] gave, because its entry came to nothing.
    pub fn abandon_entry(tip: &mut Tip, writer: EntryWriter) {
        if tip.next_sequence == writer.sequence() + 1 {
            tip.next_sequence = writer.sequence();
        }
        writer.abandon();
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
        let mut spool = self.spool();
        spool.append(group);
        drop(spool);
        self.arrived.notify_one();
        self.check_room()
    }

    /// Whether what waits is more than it may be. One file never is: without it there is nothing to go on from.
    ///
    /// # Errors
    /// [`SpoolFull`].
    pub fn check_room(&self) -> Result<(), SpoolFull> {
        let (files, bytes) = self.backlog();
        let limit = self.spool_limit;
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

    /// Waits until there may be a file.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Whether a file is being uploaded, or was when an earlier run died.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.spool().frozen().is_some()
    }

    /// Files in the spool, and their bytes.
    #[must_use]
    pub fn backlog(&self) -> (usize, u64) {
        self.spool().backlog()
    }

    /// The last capture that is in the bucket.
    #[must_use]
    pub fn durable_sequence(&self) -> Option<u64> {
        self.record().record.durable.map(|durable| durable.sequence)
    }

    /// The file to upload: the frozen one, or everything that waits, frozen now.
    ///
    /// # Errors
    /// Those of the file system, and a damaged spool.
    pub fn next_upload(&self) -> anyhow::Result<Option<Upload>> {
        let txid = self.next_txid();
        let level = if txid == Txid::FIRST { Level::SNAPSHOT } else { Level::SYNC };
        let (frozen, waiting) = {
            let spool = self.spool();
            (spool.frozen().cloned(), spool.waiting())
        };
        let entry = match frozen {
            Some(entry) => entry,
            None if waiting.is_empty() => return Ok(None),
            None => self.freeze(&waiting, txid)?,
        };
        Ok(Some(Upload { txid, level, entry }))
    }

    fn freeze(&self, waiting: &[Vec<Entry>], txid: Txid) -> anyhow::Result<Entry> {
        let path = frozen_path(&self.directory, txid);
        let ready = match waiting {
            [group] => match group.as_slice() {
                [only] if self.is_ready(only, txid) => Some(only),
                _ => None,
            },
            _ => None,
        };
        if let Some(only) = ready {
            self.disk
                .rename(&only.path, &path)
                .with_context(|| format!("freeze {}", only.path.display()))?;
            let entry = Entry { path, ..only.clone() };
            self.spool().freeze(1, entry.clone());
            return Ok(entry);
        }
        let (directory, page_size) = (&self.directory, self.page_size);
        let merged =
            merge_groups(waiting, directory, path, page_size, txid, self.node_id, self.disk())?;
        self.spool().freeze(waiting.len(), merged.clone());
        waiting.iter().flatten().for_each(|entry| self.remove(entry));
        Ok(merged)
    }

    /// Whether an entry can go up under `txid` as it is.
    fn is_ready(&self, entry: &Entry, txid: Txid) -> bool {
        let Header { checksummed, txids, node_id, pre_apply, .. } = entry.header;
        checksummed
            && txids == TxidRange::single(txid)
            && node_id == self.node_id
            && pre_apply == entry.footer.pre_apply
    }

    /// Merges what waits behind the frozen file, where it is much or `always`.
    ///
    /// # Errors
    /// Those of the file system, and a damaged spool.
    pub fn compact(&self, always: bool) -> anyhow::Result<()> {
        let waiting = {
            let spool = self.spool();
            if !(always || spool.is_crowded()) {
                return Ok(());
            }
            spool.waiting()
        };
        let Some(first) = waiting.first().and_then(|group| group.first()) else { return Ok(()) };
        if waiting.len() < 2 {
            return Ok(());
        }
        // A name of its own until every input is merged; then in the first one's place.
        let path = entry_path(&self.directory, first.footer.sequence);
        let txid = self.expected_txid();
        let (directory, page_size) = (&self.directory, self.page_size);
        let merged =
            merge_groups(&waiting, directory, path, page_size, txid, self.node_id, self.disk())?;
        self.spool().replace(waiting.len(), merged.clone());
        let replaced = waiting.iter().flatten().filter(|entry| entry.path != merged.path);
        replaced.for_each(|entry| self.remove(entry));
        Ok(())
    }

    /// `upload` is in the bucket.
    ///
    /// # Errors
    /// Those of the file system, and a file that does not continue what is in the bucket: then nothing here can be
    /// believed any more.
    pub fn uploaded(&self, upload: &Upload) -> anyhow::Result<()> {
        let footer = upload.entry.footer;
        // A run that dies from here on leaves the index torn; this, and the frozen file, lead the next one on.
        self.change_record(|record| record.confirmed = Some(upload.txid))?;
        let mut durable = self.durable_sums();
        // Until the record says so, the index may be ahead of it.
        durable.torn = true;
        let sums = &mut durable.sums;
        sums.apply(upload.entry.decoder()?, self.page_size, true)
            .with_context(|| format!("apply {}", upload.entry.path.display()))?;
        sums.flush()?;
        let forced = self.record().record.index_forced.map_or(0, Txid::get);
        let force = upload.txid == Txid::FIRST || upload.txid.get() >= forced + FORCE_EVERY;
        if force {
            sums.force()?;
        }
        let mut recorded = self.record();
        let Recorded { record, file } = &mut *recorded;
        record.durable = Some(Durable {
            txid: upload.txid,
            checksum: footer.post_apply,
            page_count: footer.page_count,
            position: Some(footer.position),
            sequence: footer.through,
            timestamp: footer.timestamp,
        });
        if force {
            record.index_forced = Some(upload.txid);
            file.force(record, self.disk())?;
        } else {
            file.write(record, self.disk())?;
        }
        drop(recorded);
        durable.torn = false;
        drop(durable);
        self.spool().thaw();
        self.remove(&upload.entry);
        Ok(())
    }

    /// Forces everything that a start after a power failure would miss.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn force(&self) -> anyhow::Result<()> {
        let entries = self.spool().entries();
        entries.iter().try_for_each(|entry| self.force_file(&entry.path))?;
        self.disk.sync_directory(&self.directory).context("force the spool")?;
        let mut durable = self.durable_sums();
        let whole = !durable.torn;
        if whole {
            durable.sums.force()?;
        }
        let mut recorded = self.record();
        let Recorded { record, file } = &mut *recorded;
        if whole {
            record.index_forced = record.durable.map(|durable| durable.txid);
        }
        file.force(record, self.disk())
    }

    fn force_file(&self, path: &Path) -> anyhow::Result<()> {
        let name = || format!("force {}", path.display());
        let file = std::fs::File::open(path).with_context(name)?;
        self.disk.sync(&file, path).with_context(name)
    }

    /// Gives up what waits (and with `frozen`, what is being uploaded); what it said is caught up later.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn drop_spool(&self, frozen: bool) -> anyhow::Result<()> {
        let mut tip = self.tip();
        let dropped = self.spool().drain(frozen);
        dropped.iter().for_each(|entry| self.remove(entry));
        let mut sums = self.durable_sums().sums.copy_to(tip.sums.path())?;
        let durable = self.record().record.durable;
        let mut last = durable.map_or(0, |durable| durable.sequence);
        let mut state = durable.map(TipState::from);
        if let Some(entry) = self.spool().frozen().cloned() {
            sums.apply(entry.decoder()?, self.page_size, false)?;
            last = entry.footer.through;
            state = Some(TipState::from(&entry.footer));
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

impl From<&Footer> for TipState {
    fn from(footer: &Footer) -> Self {
        let Footer { post_apply: checksum, page_count, timestamp, .. } = *footer;
        Self { checksum, page_count, position: Some(footer.position), timestamp }
    }
}

impl From<Durable> for TipState {
    fn from(durable: Durable) -> Self {
        let Durable { checksum, page_count, position, timestamp, .. } = durable;
        Self { checksum, page_count, position, timestamp }
    }
}

impl Tip {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
