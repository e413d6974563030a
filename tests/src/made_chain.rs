//! Chains made from a real SQLite database, one file per transaction, without a shipper: as many as a test wants, the
//! same for the same seed, and what the database was at each TXID.
//!
//! Independent of the shipper's code: pages are compared with those of the transaction before.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::format::{
    Checksum, DatabaseChecksum, Encoder, Header, Level, PageNumber, PageSize, Txid, TxidRange,
    page_checksum,
};
use replica::restore::{Inventory, apply, plan};
use replica::store::{Body, Chain, Key, LtxAttributes, LtxKey, Store};

/// The first TXID's time.
const BEGINNING: i64 = 1_764_000_000;

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// What every choice is drawn from.
    pub seed: u64,
    /// Files, the snapshot included.
    pub txids: u64,
    /// Bytes in a page.
    pub page_size: u32,
    /// With database checksums.
    pub checksummed: bool,
}

/// The database at one TXID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Pages.
    pub pages: u32,
    /// Of all its pages.
    pub checksum: Checksum,
}

/// A chain and what it holds.
#[derive(Debug)]
pub struct MadeChain {
    /// Where it stands.
    pub chain: Chain,
    /// The state at TXID 1, 2, …
    pub states: Vec<State>,
    /// Its files as they were put.
    pub files: Vec<(LtxKey, Bytes)>,
}

impl MadeChain {
    /// Makes a chain that is nowhere yet: TXID 1 is a snapshot, each further one a file of level 0.
    #[must_use]
    pub fn make(recipe: Recipe) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.db");
        let mut random = StdRng::seed_from_u64(recipe.seed);
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(&format!(
            "PRAGMA page_size = {}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER NOT NULL, filler BLOB NOT NULL);
             CREATE INDEX t_k ON t (k);",
            recipe.page_size
        ))
        .unwrap();
        let chain = Chain::Generation(crate::stores::generation());
        let mut made = Self { chain, states: Vec::new(), files: Vec::new() };
        let mut image =
            Image { page_size: PageSize::new(recipe.page_size).unwrap(), pages: vec![] };
        for txid in 1..=recipe.txids {
            if txid > 1 {
                transact(&db, &mut random, txid);
            }
            let before = made.states.last().copied();
            let changed = image.become_file(&path);
            let state = image.state(before, &changed);
            let (level, txids) = if txid == 1 {
                (Level::SNAPSHOT, TxidRange::single(Txid::FIRST))
            } else {
                (Level::SYNC, TxidRange::single(Txid::new(txid).unwrap()))
            };
            let header = Header {
                page_size: image.page_size,
                commit: state.pages,
                txids,
                timestamp: Timestamp::from_second(BEGINNING + txid.cast_signed()).unwrap(),
                checksummed: recipe.checksummed,
                pre_apply: before.map(|state| state.checksum).filter(|_| recipe.checksummed),
                wal: None,
                node_id: 7,
            };
            let content = image.encode(header, &changed, state.checksum);
            made.files.push((LtxKey { chain, level, txids }, content));
            made.states.push(state);
        }
        made
    }

    /// Puts its files into a store that has none of them.
    pub async fn put(&self, store: &dyn Store) {
        for (key, content) in &self.files {
            put(store, key, content.clone()).await;
        }
    }

    /// Its last TXID.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.states.len() as u64
    }

    /// The state at a TXID.
    #[must_use]
    pub fn state(&self, txid: u64) -> State {
        self.states[txid as usize - 1]
    }

    /// Restores a TXID with as many objects as it takes, and requires that the copy is its state; gives how many
    /// those were.
    ///
    /// # Panics
    /// It is not, or cannot be restored.
    pub async fn restores(
        &self,
        store: &Arc<dyn Store>,
        inventory: &Inventory,
        txid: u64,
    ) -> usize {
        let plan = plan(inventory, Some(Txid::new(txid).unwrap())).unwrap();
        let output = tempfile::NamedTempFile::new().unwrap();
        let file = output.reopen().unwrap();
        apply(Arc::clone(store), &plan, file, Arc::new(())).await.unwrap();
        self.is_state(output.path(), txid);
        plan.files.len()
    }

    /// Requires that a database file is the state at a TXID.
    ///
    /// # Panics
    /// It is not.
    pub fn is_state(&self, path: &Path, txid: u64) {
        let bytes = std::fs::read(path).unwrap();
        let expected = self.state(txid);
        assert_eq!(
            state_of(&bytes, bytes.len() / expected.pages as usize),
            expected,
            "TXID {txid}"
        );
    }
}

/// Puts an LTX object that was not there.
///
/// # Panics
/// It was, or cannot be put.
pub async fn put(store: &dyn Store, key: &LtxKey, content: Bytes) {
    let trailer = content.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap();
    let timestamp =
        Timestamp::from_second(BEGINNING + key.txids.max().get().cast_signed()).unwrap();
    let attributes = LtxAttributes { timestamp, checksum: Checksum::from_raw(trailer).unwrap() };
    store.put_ltx(key, Body::Bytes(content), attributes).await.unwrap();
}

/// Every object of a chain with its bytes.
///
/// # Panics
/// One cannot be read.
pub async fn contents(store: &dyn Store, chain: Chain) -> Vec<(LtxKey, Bytes)> {
    let mut contents = Vec::new();
    for file in Inventory::read(store, chain).await.unwrap().files {
        let key = LtxKey { chain, level: file.level, txids: file.txids };
        let content = replica::store::read_all(store, &Key::Ltx(key), 1 << 30).await.unwrap();
        contents.push((key, content));
    }
    contents
}

fn transact(db: &rusqlite::Connection, random: &mut StdRng, txid: u64) {
    let insert = |random: &mut StdRng| {
        let (k, length) = (random.random::<u32>(), random.random_range(0..600));
        let sql = "INSERT INTO t (k, filler) VALUES (?1, zeroblob(?2))";
        db.execute(sql, (k, length)).unwrap();
    };
    match random.random_range(0..60) {
        0 => {
            db.execute_batch("DELETE FROM t WHERE id % 3 <> 0; VACUUM").unwrap();
        }
        1 => {
            db.execute_batch("BEGIN").unwrap();
            (0..80).for_each(|_| insert(random));
            db.execute_batch("COMMIT").unwrap();
        }
        2..=20 => {
            let sql = "UPDATE t SET k = ?1 WHERE id % 7 = ?1 % 7";
            db.execute(sql, [random.random::<u16>()]).unwrap();
        }
        _ => insert(random),
    }
    // At least one page differs.
    db.pragma_update(None, "user_version", txid as i32).unwrap();
}

/// The database as it was after the last transaction.
struct Image {
    page_size: PageSize,
    pages: Vec<Vec<u8>>,
}

impl Image {
    /// Takes the file's pages; gives the numbers of those that differ, with their checksums before.
    fn become_file(&mut self, path: &Path) -> Vec<(PageNumber, Option<Checksum>)> {
        let bytes = std::fs::read(path).unwrap();
        let mut changed = Vec::new();
        let old = std::mem::take(&mut self.pages);
        self.pages = bytes.chunks(self.page_size.len()).map(<[u8]>::to_vec).collect();
        for at in 0..old.len().max(self.pages.len()) {
            if old.get(at) != self.pages.get(at) {
                let number = PageNumber::new(at as u32 + 1).unwrap();
                changed.push((number, old.get(at).map(|page| page_checksum(number, page))));
            }
        }
        changed
    }

    fn page(&self, number: PageNumber) -> Option<&Vec<u8>> {
        self.pages.get(number.get() as usize - 1)
    }

    fn state(&self, before: Option<State>, changed: &[(PageNumber, Option<Checksum>)]) -> State {
        let mut sum = before.map_or(0, |state| state.checksum.raw());
        for (number, old) in changed {
            sum ^= old.map_or(0, Checksum::raw);
            sum ^= self.page(*number).map_or(0, |page| page_checksum(*number, page).raw());
        }
        let checksum = Checksum::from_raw(sum | 1 << 63).unwrap();
        State { pages: self.pages.len() as u32, checksum }
    }

    fn encode(
        &self,
        header: Header,
        changed: &[(PageNumber, Option<Checksum>)],
        post: Checksum,
    ) -> Bytes {
        let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
        for (number, _) in changed {
            if let Some(page) = self.page(*number) {
                encoder.page(*number, page).unwrap();
            }
        }
        encoder.finish(header.checksummed.then_some(post)).unwrap().out.into()
    }
}

fn state_of(bytes: &[u8], page_size: usize) -> State {
    let mut sum = DatabaseChecksum::default();
    for (number, page) in (1..).zip(bytes.chunks(page_size)) {
        sum.toggle(page_checksum(PageNumber::new(number).unwrap(), page));
    }
    State { pages: (bytes.len() / page_size) as u32, checksum: sum.value() }
}
