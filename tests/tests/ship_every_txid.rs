//! Random transactions are shipped, and at *every* TXID what was shipped is the source, page for page.
//!
//! The engine runs on a real database beside a real application connection in this process. After each
//! capture the source's pages are read through SQLite and compared with what a replica would hold: the
//! shipped files, decoded and applied one after the other. They go into a store, too, and at the end every
//! TXID is restored from there, and compared with what the source was. The seed of a failing run is in its message;
//! `SEAWORTHY_SEED=n` runs only that one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::format::{
    DatabaseChecksum, Decoder, GenerationId, Level, PageNumber, Txid, TxidRange, page_checksum,
};
use replica::restore::{Inventory, plan, publish};
use replica::store::{Body, Chain, LtxAttributes, LtxKey, Root, S3Options, Store};
use rusqlite::Connection;
use seaworthy_tests::{seed, writer};
use shipper::chain::disk::SystemDisk;
use shipper::chain::open::Open;
use shipper::chain::{LocalChain, Upload};
use shipper::clock::SystemClock;
use shipper::ship::engine::{Engine, Pace};
use shipper::wal::attach;

const PAGE_SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const ROUNDS: usize = 60;

type Pages = BTreeMap<u32, Vec<u8>>;

#[test]
fn every_txid_is_the_source_at_all_page_sizes() {
    let seeds = seed::given().map_or_else(|| (0..24).collect(), |seed| vec![seed]);
    for seed in seeds {
        let page_size = PAGE_SIZES[usize::try_from(seed).unwrap() % PAGE_SIZES.len()];
        println!("seed {seed}, page size {page_size}");
        Run::new(seed, page_size).run();
    }
}

/// One seeded run.
struct Run {
    seed: u64,
    random: StdRng,
    directory: tempfile::TempDir,
    application: Connection,
    witness: Connection,
    engine: Engine,
    local: Arc<LocalChain>,
    copy: Pages,
    txid: Option<Txid>,
    store: Arc<dyn Store>,
    chain: Chain,
    runtime: tokio::runtime::Runtime,
    states: Vec<(Txid, u64)>,
}

impl Run {
    fn new(seed: u64, page_size: u32) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        prepare(&path, page_size, random.random_range(0..3));
        let application = open(&path);
        // A small cache, so that big transactions spill frames into the WAL before they commit; and no
        // fsync, which this test is not about.
        application.execute_batch("PRAGMA cache_size = 20; PRAGMA synchronous = OFF").unwrap();
        let witness = open(&path);
        let attachable = attach::check(&path).unwrap();
        // Every slice of the snapshot is as short as it can be, so that changes fall between them.
        let pace = Pace {
            sync_interval: Duration::ZERO,
            slice: Duration::ZERO,
            scrub_every: Duration::ZERO,
            scrub_pause: Duration::ZERO,
            most_frames: 50,
        };
        let open = Open {
            page_size: attachable.page_size,
            node_id: 7,
            spool_limit: u64::MAX,
            shared_disk: false,
            disk: Arc::new(SystemDisk),
        };
        let local = Arc::new(LocalChain::open(&directory.path().join("state"), open).unwrap());
        let engine =
            Engine::attach(&path, attachable, pace, local.clone(), Arc::new(SystemClock)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let url = format!("file://{}", directory.path().join("replica").display());
        let root = runtime.block_on(Root::open(&url.parse().unwrap(), &S3Options::default()));
        let chain = Chain::Generation(GenerationId::from_uuid(uuid::Uuid::now_v7()));
        Self {
            store: root.unwrap().database("app").unwrap(),
            chain,
            runtime,
            states: Vec::new(),
            seed,
            random,
            directory,
            application,
            witness,
            engine,
            local,
            copy: Pages::new(),
            txid: None,
        }
    }

    fn run(&mut self) {
        // Some changes while the snapshot is being taken.
        for _ in 0..self.random.random_range(0..4) {
            self.change();
        }
        while self.engine.step(true).unwrap().sweeping.is_some() {
            self.change();
        }
        self.compare();
        for _ in 0..ROUNDS {
            for _ in 0..self.random.random_range(1..4) {
                self.change();
            }
            self.engine.step(true).unwrap();
            self.compare();
        }
        assert!(self.txid.unwrap() > Txid::FIRST.next(), "seed {}: nothing was shipped", self.seed);
        self.restore_each();
    }

    fn change(&mut self) {
        match self.random.random_range(0..20) {
            0 => execute(&self.application, "VACUUM"),
            1 => execute(&self.application, "PRAGMA incremental_vacuum(5)"),
            2 => execute(&self.application, "PRAGMA wal_checkpoint(PASSIVE)"),
            3 => execute(&self.application, "PRAGMA wal_checkpoint(TRUNCATE)"),
            4 => execute(&self.application, "BEGIN; DELETE FROM item; ROLLBACK"),
            5 => execute(&self.application, "DELETE FROM item WHERE id % 3 <> 0"),
            6 => execute(
                &self.application,
                "BEGIN; CREATE TABLE big AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 \
                 FROM n WHERE i < 200) SELECT randomblob(1000) AS b FROM n; DROP TABLE big; COMMIT",
            ),
            _ => writer::transaction(&mut self.application, &mut self.random).unwrap(),
        }
    }

    /// Applies what was shipped since the last call, and compares.
    fn compare(&mut self) {
        while let Some(file) = self.local.next_upload().unwrap() {
            self.apply(&file);
            self.upload(&file);
            self.local.uploaded(&file).unwrap();
        }
        let source = pages(&self.witness);
        assert_eq!(
            self.copy.len(),
            source.len(),
            "seed {}: pages at TXID {:?}",
            self.seed,
            self.txid
        );
        for (number, page) in &source {
            assert!(
                self.copy.get(number) == Some(page),
                "seed {}: page {number} differs at TXID {:?}",
                self.seed,
                self.txid
            );
        }
        let content: Vec<u8> = source.into_values().flatten().collect();
        match self.states.last_mut() {
            Some((last, state)) if Some(*last) == self.txid => {
                assert_eq!(*state, digest(&content), "seed {}: one TXID, two states", self.seed);
            }
            _ => self.states.extend(self.txid.map(|txid| (txid, digest(&content)))),
        }
    }

    fn upload(&self, file: &Upload) {
        let txids = TxidRange::single(file.txid);
        let key = LtxKey { chain: self.chain, level: file.level, txids };
        let footer = &file.entry.footer;
        let body = Body::File { path: file.entry.path.clone(), len: footer.size };
        let attributes =
            LtxAttributes { timestamp: footer.end.timestamp, checksum: footer.checksum };
        self.runtime.block_on(self.store.put_ltx(&key, body, attributes)).unwrap();
    }

    fn restore_each(&self) {
        let store = self.store.as_ref();
        let inventory = self.runtime.block_on(Inventory::read(store, self.chain)).unwrap();
        for (txid, expected) in &self.states {
            let output = self.directory.path().join(txid.to_string());
            let plan = plan(&inventory, Some(*txid)).unwrap();
            self.runtime
                .block_on(publish(self.store.clone(), &plan, &output, false, Arc::new(())))
                .unwrap_or_else(|error| panic!("seed {}: TXID {txid}: {error}", self.seed));
            let restored = std::fs::read(&output).unwrap();
            std::fs::remove_file(&output).unwrap();
            assert_eq!(digest(&restored), *expected, "seed {}: restored TXID {txid}", self.seed);
        }
    }

    /// Applies a file, which must prove the database before and after it.
    fn apply(&mut self, file: &Upload) {
        let seed = self.seed;
        let expected = match self.txid {
            None => (Level::SNAPSHOT, Txid::FIRST),
            Some(txid) => (Level::SYNC, txid.next()),
        };
        assert_eq!((file.level, file.txid), expected, "seed {seed}: {file:?}");
        let opened = File::open(&file.entry.path).unwrap();
        let reader = BufReader::new(opened.take(file.entry.footer.size));
        let mut decoder = Decoder::new(reader).unwrap();
        let header = *decoder.header();
        assert_eq!(header.txids, TxidRange::single(file.txid), "seed {seed}");
        assert!(header.checksummed, "seed {seed}");
        if self.txid.is_some() {
            assert_eq!(header.pre_apply, Some(checksum(&self.copy)), "seed {seed}: before");
        }
        let mut page = vec![0; header.page_size.len()];
        while let Some(number) = decoder.next_page(&mut page).unwrap() {
            self.copy.insert(number.get(), page.clone());
        }
        let trailer = decoder.finish().unwrap();
        self.copy.retain(|number, _| *number <= header.commit);
        assert_eq!(trailer.post_apply, Some(checksum(&self.copy)), "seed {seed}: after");
        self.txid = Some(file.txid);
    }
}

fn checksum(pages: &Pages) -> replica::format::Checksum {
    let mut sum = DatabaseChecksum::default();
    for (number, page) in pages {
        sum.toggle(page_checksum(PageNumber::new(*number).unwrap(), page));
    }
    sum.value()
}

fn prepare(path: &Path, page_size: u32, auto_vacuum: u32) {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "page_size", page_size).unwrap();
    db.pragma_update(None, "auto_vacuum", auto_vacuum).unwrap();
    drop(db);
    writer::create(path, page_size, 1000).unwrap();
}

fn open(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    db
}

/// Runs statements that may be refused while others read or write: the application goes on.
fn execute(db: &Connection, sql: &str) {
    match db.execute_batch(sql) {
        Ok(()) => {}
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
        Err(error) => panic!("{sql}: {error}"),
    }
}

fn digest(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

fn pages(db: &Connection) -> Pages {
    let mut statement = db.prepare("SELECT pgno, data FROM sqlite_dbpage").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}
