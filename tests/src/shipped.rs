//! A database, an application's connection to it, and a shipper's engine and chain in this process: every step of its
//! life at the test's will, the state directory included.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use replica::format::{GenerationId, Level, Txid};
use replica::restore::{Target, apply, select};
use replica::store::{Body, LtxAttributes, Store};
use rusqlite::Connection;
use shipper::chain::disk::{Disk, SystemDisk};
use shipper::chain::keys::ltx_key;
use shipper::chain::open::Open;
use shipper::chain::roll_forward::{RollForwardError, roll_forward};
use shipper::chain::{LocalChain, Upload};
use shipper::clock::SystemClock;
use shipper::ship::engine::{Engine, Pace};
use shipper::ship::status::{Phase, Status};
use shipper::ship::sweep::Goal;
use shipper::ship::upload::{Attempt, Ended, Uploader};
use shipper::wal::attach;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::memory_store::{Condition, MemoryStore};
use crate::writer;

/// What belongs together. Gone when dropped.
#[derive(Debug)]
pub struct Shipped {
    directory: tempfile::TempDir,
    /// The application's connection.
    pub application: Connection,
    /// The bucket.
    pub store: MemoryStore,
    /// The shipper's disk, for the next time that a chain is opened.
    pub disk: Arc<dyn Disk>,
    chain: Option<Arc<LocalChain>>,
    engine: Option<Engine>,
    runtime: Runtime,
}

impl Shipped {
    /// A database whose first snapshot is in the bucket.
    #[must_use]
    pub fn new() -> Self {
        let mut shipped = Self::begun();
        shipped.sweep();
        assert_eq!(shipped.upload(), Some(1));
        shipped
    }

    /// A database whose generation has a name, and whose first snapshot is being taken.
    #[must_use]
    pub fn begun() -> Self {
        let mut shipped = Self::unshipped();
        // A place in a WAL that never had a frame would prove nothing later.
        shipped.commit();
        shipped.open();
        let generation = GenerationId::from_uuid(uuid::Uuid::now_v7());
        shipped.chain().set_generation(generation, None).unwrap();
        assert_eq!(shipped.attach(), Some(Goal::Snapshot));
        shipped
    }

    fn unshipped() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        writer::create(&path, 4096, 3000).unwrap();
        Self {
            application: Connection::open(&path).unwrap(),
            store: MemoryStore::new(Condition::Honoured),
            disk: Arc::new(SystemDisk),
            chain: None,
            engine: None,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            directory,
        }
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.directory.path().join("app.db")
    }

    /// A path of the state directory.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join("state").join(name)
    }

    /// The chain that was opened last.
    #[must_use]
    pub fn chain(&self) -> &Arc<LocalChain> {
        self.chain.as_ref().unwrap()
    }

    /// The engine that was attached last.
    pub fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().unwrap()
    }

    /// A transaction that changes pages all over the database.
    pub fn commit(&self) {
        let sql = "UPDATE item SET name = name || '.' WHERE id % 50 = 0";
        self.application.execute(sql, []).unwrap();
    }

    /// A transaction that changes one page.
    pub fn commit_one(&self) {
        self.application.execute("UPDATE item SET name = name || '.' WHERE id = 1", []).unwrap();
    }

    /// Captures everything that is committed.
    pub fn capture(&mut self) {
        self.engine().step(true).unwrap();
    }

    /// Ends the sweep under way.
    pub fn sweep(&mut self) {
        while self.engine().step(true).unwrap().sweeping.is_some() {}
    }

    /// Ends the sweep under way, with a commit between one slice and the next.
    pub fn sweep_meanwhile(&mut self) {
        while self.engine().step(true).unwrap().sweeping.is_some() {
            self.commit();
        }
    }

    /// The spooled files, by name.
    #[must_use]
    pub fn spooled(&self) -> Vec<PathBuf> {
        let spool = std::fs::read_dir(self.state("spool")).unwrap();
        let mut files: Vec<_> = spool.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Puts a file into the bucket.
    pub fn put(&self, upload: &Upload) {
        let footer = upload.entry.footer;
        let body = Body::File { path: upload.entry.path.clone(), len: footer.size };
        let attributes =
            LtxAttributes { timestamp: footer.end.timestamp, checksum: footer.checksum };
        let key = ltx_key(self.chain().generation().unwrap(), upload.txid);
        self.runtime.block_on(self.store.put_ltx(&key, body, attributes)).unwrap();
    }

    /// Uploads the next file.
    pub fn upload(&self) -> Option<u64> {
        let upload = self.chain().next_upload().unwrap()?;
        let expected = if upload.txid == Txid::FIRST { Level::SNAPSHOT } else { Level::SYNC };
        assert_eq!(upload.level, expected);
        self.put(&upload);
        self.chain().uploaded(&upload).unwrap();
        Some(upload.txid.get())
    }

    /// What the real uploader's first try comes to, and what it told.
    pub fn attempt(&self) -> (Result<Attempt, Ended>, Arc<Status>) {
        let (chain, status) = (self.chain().clone(), Arc::new(Status::new()));
        status.attached(chain.page_size(), Phase::CatchingUp, &chain);
        let (_hurry, hurried) = watch::channel(true);
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let clock = Arc::new(SystemClock);
        let mut uploader =
            Uploader::new(store, chain, status.clone(), Duration::ZERO, clock, hurried);
        (self.runtime.block_on(uploader.attempt()), status)
    }

    /// Commits, captures and uploads.
    pub fn ship(&mut self) -> u64 {
        self.commit();
        self.capture();
        self.upload().unwrap()
    }

    /// The process dies.
    pub fn die(&mut self) {
        self.engine = None;
        self.chain = None;
    }

    /// Another process opens what was left of the chain.
    pub fn open(&mut self) {
        self.die();
        let open = Open {
            page_size: attach::check(&self.database()).unwrap().page_size,
            node_id: rand::random(),
            spool_limit: u64::MAX,
            shared_disk: false,
            disk: self.disk.clone(),
        };
        self.chain = Some(Arc::new(LocalChain::open(&self.state(""), open).unwrap()));
    }

    /// It attaches to the database; what it sweeps for, if it does.
    pub fn attach(&mut self) -> Option<Goal> {
        self.attach_with(Duration::ZERO)
    }

    /// As [`Shipped::attach`]; it captures by itself only once in so long.
    pub fn attach_with(&mut self, sync_interval: Duration) -> Option<Goal> {
        let pace = Pace {
            slice: Duration::ZERO,
            scrub_every: Duration::from_secs(3600),
            ..Pace::new(sync_interval)
        };
        let (path, chain) = (self.database(), self.chain().clone());
        let attachable = attach::check(&path).unwrap();
        let clock = Arc::new(SystemClock);
        let engine = Engine::attach(&path, attachable, pace, chain, clock).unwrap();
        let goal = engine.sweeping();
        self.engine = Some(engine);
        goal
    }

    /// The process dies, and another one takes over.
    pub fn restart(&mut self) -> Option<Goal> {
        self.open();
        self.attach()
    }

    /// Reads back from the bucket.
    ///
    /// # Errors
    /// Those of the read-back.
    pub fn read_back(&self) -> Result<u64, RollForwardError> {
        self.runtime.block_on(roll_forward(self.chain(), &self.store))
    }

    /// The last TXID that is known to be in the bucket.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.chain().durable_state().map_or(0, |durable| durable.txid.get())
    }

    /// A copy of the state directory as it is now.
    #[must_use]
    pub fn saved(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_files(&self.state(""), copy.path());
        copy
    }

    /// The process dies, and its state directory is what it was.
    pub fn fall_back_to(&mut self, saved: &tempfile::TempDir) {
        self.die();
        std::fs::remove_dir_all(self.state("")).unwrap();
        copy_files(saved.path(), &self.state(""));
    }

    /// Everything that waits is uploaded, and restored from the bucket to a file of this name.
    pub fn restore(&mut self, name: &str) -> PathBuf {
        self.sweep();
        while self.upload().is_some() {}
        let path = self.state(name);
        let output =
            std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        self.runtime.block_on(async {
            let selected = select(&*store, None, Target::Latest).await.unwrap();
            apply(store.clone(), &selected.plan, output, Arc::new(())).await.unwrap();
        });
        path
    }

    /// Everything that waits is uploaded; then the chain's checksum is that of the source, as a reader sees it.
    pub fn settle(&mut self) {
        self.sweep();
        while self.upload().is_some() {}
        let page_size = self.chain().page_size();
        let durable = self.chain().durable_state().unwrap();
        let actual = crate::shipped::database_checksum(&self.database(), page_size);
        assert_eq!(durable.checksum, actual, "at TXID {}", durable.txid);
        assert!(durable.txid >= Txid::FIRST);
    }
}

impl Default for Shipped {
    fn default() -> Self {
        Self::new()
    }
}

/// The checksum of a database as it is read through SQLite.
#[must_use]
pub fn database_checksum(
    path: &Path,
    page_size: replica::format::PageSize,
) -> replica::format::Checksum {
    use replica::format::{DatabaseChecksum, PageNumber, page_checksum};
    let reader = shipper::wal::sqlite::open(path).unwrap();
    let pages: u32 = reader.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let mut page = reader.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1").unwrap();
    let mut sum = DatabaseChecksum::default();
    for number in 1..=pages {
        let number = PageNumber::new(number).unwrap();
        if number != page_size.lock_page() {
            let data: Vec<u8> = page.query_row([number.get()], |row| row.get(0)).unwrap();
            sum.toggle(page_checksum(number, &data));
        }
    }
    sum.value()
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
