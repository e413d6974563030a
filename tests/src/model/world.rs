//! One state of everything, and what was spent of the bounds to get there.

use crate::model::bucket::{Bucket, File, OTHER};
use crate::model::disk::{Disk, Frozen, Record};
use crate::model::engine::{Engine, Waiting};
use crate::model::source::{PAGES, Reader, Source};

/// How often what may happen at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Bounds {
    /// Commits, those that were never published included.
    pub commits: u8,
    /// Checkpoints that nobody is forbidden to run; without any, the read transaction is not handed over.
    pub checkpoints: u8,
    /// Kills of the shipper.
    pub crashes: u8,
    /// Power cuts and reboots.
    pub power_losses: u8,
    /// PUTs whose answer is lost.
    pub lost_answers: u8,
    /// The application's `wal_checkpoint(TRUNCATE)`, and closes of its last connection.
    pub truncates: u8,
    /// Writers that die before they publish their commit.
    pub dying_writers: u8,
    /// PUTs of another shipper into our generation.
    pub foreign_puts: u8,
    /// `shipper sync`.
    pub syncs: u8,
    /// Losses of the state directory.
    pub state_losses: u8,
    /// Times that an old one is put back.
    pub put_backs: u8,
}

/// A PUT whose answer nobody waits for any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InFlight {
    /// Its generation.
    pub generation: usize,
    /// Its TXID.
    pub txid: u8,
    /// Its content.
    pub file: File,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The application's database.
    pub source: Source,
    /// The bucket.
    pub bucket: Bucket,
    /// The state directory.
    pub disk: Disk,
    /// What it was when it was lost.
    pub backup: Option<Disk>,
    /// The shipper, while it runs.
    pub engine: Option<Engine>,
    /// On its way to the bucket.
    pub in_flight: Option<InFlight>,
    /// In memory only (without [`crate::model::step::Step::RemoveAfterRecord`]).
    pub removed: Option<Frozen>,
    /// Runs of the shipper so far.
    pub runs: u8,
    /// The newest state that a `sync` was answered for: an index of the timeline.
    pub acknowledged: Option<usize>,
    /// A PUT from before a power cut took effect after it.
    pub landed_late: bool,
    /// Something happened that a catch-up is the right answer to.
    pub excused: bool,
    /// A catch-up was begun, or a generation given up, for no good reason.
    pub needless: bool,
    /// What happened.
    pub spent: Bounds,
}

impl World {
    /// A database whose state is in the bucket, and a shipper that was stopped cleanly; or, with `fresh`, a
    /// database that was never shipped, without a WAL.
    #[must_use]
    pub fn new(fresh: bool) -> Self {
        let source = Source::new(!fresh);
        let mut bucket = Bucket { generations: vec![Vec::new()], ..Bucket::default() };
        let mut disk = Disk::new(0, 0);
        if !fresh {
            let state = source.image();
            let pages = state.map(Some);
            let before = disk.record.checksum;
            bucket.put(0, 1, File { pages, before, after: state, node: 1 });
            bucket.heartbeat = Some(0);
            disk = Disk::of(Record {
                txid: 1,
                checksum: state,
                position: Some(source.position()),
                index_synced: 1,
                runs: 1,
                ..disk.record
            });
        }
        Self {
            source,
            bucket,
            disk,
            backup: None,
            engine: None,
            in_flight: None,
            removed: None,
            runs: 0,
            acknowledged: None,
            landed_late: false,
            excused: fresh,
            needless: false,
            spent: Bounds::default(),
        }
    }

    /// The shipper's read transactions.
    #[must_use]
    pub fn readers(&self) -> Vec<Reader> {
        self.engine.iter().flat_map(Engine::readers).collect()
    }

    /// The application gave the WAL new salts: nobody could expect a stopped shipper to go on.
    pub fn restarted_wal(&mut self) {
        self.excused |= self.engine.is_none();
    }

    /// The shipper stops, and with it what it had in memory.
    pub fn kill(&mut self) {
        // Nothing on disk proves that a WAL that was just restarted goes on from the one before.
        let live = self.source.position().salt;
        self.excused |= self.disk.position().is_none_or(|position| position.salt != live);
        self.engine = None;
        self.removed = None;
    }

    /// The state directory is gone: the next start begins a generation.
    pub fn lose_state(&mut self) {
        let empty = Disk::new(self.bucket.generations.len(), 0);
        self.backup = Some(std::mem::replace(&mut self.disk, empty));
        self.bucket.generations.push(Vec::new());
        self.excused = true;
    }

    /// Another shipper, with a database of its own, writes the next file of our generation.
    pub fn foreign_put(&mut self) {
        let generation = self.disk.record.generation;
        let mut before = crate::model::bucket::NOTHING;
        if let Some(file) = self.bucket.get(generation, self.bucket.head(generation)) {
            before = file.after;
        }
        let (mut pages, mut after) = ([None; PAGES], before);
        pages[0] = Some(OTHER - 1);
        after[0] = OTHER - 1;
        let txid = self.bucket.head(generation) + 1;
        self.bucket.put(generation, txid, File { pages, before, after, node: OTHER });
        self.excused = true;
    }

    /// A `sync` whose capture is durable is answered.
    pub fn answer_sync(&mut self, durable: u8) {
        let Some(engine) = &mut self.engine else { return };
        if let Some(Waiting { state, .. }) = engine.sync.take_if(|sync| sync.sequence <= durable) {
            self.acknowledged = self.acknowledged.max(Some(state));
        }
    }

    /// A catch-up begins.
    pub fn catches_up(&mut self) {
        self.needless |= !self.excused;
    }

    /// A generation begins. Only another writer is a reason for it, or a later generation.
    pub fn begins_generation(&mut self) {
        let ours = self.disk.record.generation;
        let left = &self.bucket.generations[ours];
        let foreign = left.iter().flatten().any(|file| file.node == OTHER);
        self.needless |= !foreign && self.bucket.heartbeat <= Some(ours);
        self.bucket.generations.push(Vec::new());
    }
}
