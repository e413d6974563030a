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
//! - [`tip`]: the end that the engine works at. [`uploads`]: the end that the uploader works at.
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
pub mod reserve;
pub mod roll_forward;
pub mod spool;
pub mod sums;
pub mod tip;
pub mod uploads;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use replica::format::{Checksum, GenerationId, PageSize, Txid};
use tokio::sync::Notify;

use crate::chain::disk::Disk;
use crate::chain::entry::Entry;
use crate::chain::record::{Durable, Record, RecordFile};
use crate::chain::reserve::Reserve;
use crate::chain::spool::Spool;
use crate::chain::sums::PageSums;
pub use crate::chain::tip::{Kind, Tip, TipState};
pub use crate::chain::uploads::Upload;

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
    reserve: Reserve,
    /// The file that was last found to continue what is in the bucket.
    verified: Mutex<Option<Checksum>>,
    arrived: Notify,
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

    /// Whether this generation was found in the bucket once.
    #[must_use]
    pub fn was_found(&self) -> bool {
        self.record().record.found
    }

    /// Notes that it was found there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_found(&self) -> anyhow::Result<()> {
        if self.was_found() { Ok(()) } else { self.change_record(|record| record.found = true) }
    }

    /// Whether what the bucket holds must be read from it before anything can be captured.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.durable_sums().torn
    }

    /// Names the generation. No file of it that is not sent yet bears a time before `not_before`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_generation(
        &self,
        generation: GenerationId,
        not_before: Option<Timestamp>,
    ) -> anyhow::Result<()> {
        self.change_record(|record| {
            record.generation = Some(generation);
            record.not_before = not_before;
        })
    }

    /// The earliest time that a file of this generation may bear.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.record().record.not_before.unwrap_or(Timestamp::UNIX_EPOCH)
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

    fn next_txid(&self) -> Txid {
        self.record().record.durable.map_or(Txid::FIRST, |durable| durable.txid.next())
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
