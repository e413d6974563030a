//! Every state that a replica holds, one after the other, as database files.
//!
//! Independent of the restore code: it reads the files of each generation in order, requires that they
//! follow each other without gap or fork, and applies their pages to one file.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use replica::format::{Checksum, Decoder, Level, Txid};
use replica::store::{Chain, LtxKey, LtxObject, Root, S3Options, Store, read_all};

const LARGEST_FILE: usize = 1 << 30;

/// One state.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// Its generation.
    pub chain: Chain,
    /// Its TXID.
    pub txid: Txid,
    /// From when on it can be asked for.
    pub timestamp: Timestamp,
    /// The database in this state; changes with the next one.
    pub path: &'a Path,
    /// Whether no later one follows in its generation.
    pub last: bool,
}

/// The place of one database in a replica of files.
///
/// # Errors
/// A path that is not Unicode.
pub fn file_store(replica: &Path, name: &str) -> Result<Arc<dyn Store>> {
    let url = format!("file://{}", replica.display()).parse()?;
    let root = runtime()?.block_on(Root::open(&url, &S3Options::default()))?;
    Ok(root.database(name)?)
}

/// Visits every state of every generation, oldest first; gives the generations that hold any. A generation whose
/// snapshot never arrived holds none.
///
/// # Errors
/// The first gap, fork, damaged file, or error of `visit`.
pub fn replay(
    store: &dyn Store,
    scratch: &Path,
    mut visit: impl FnMut(&State<'_>) -> Result<()>,
) -> Result<Vec<Chain>> {
    let runtime = runtime()?;
    let mut complete = Vec::new();
    for chain in runtime.block_on(store.chains())? {
        let list = |level| runtime.block_on(store.list_ltx(chain, level));
        let snapshots = list(Level::SNAPSHOT)?;
        let Some(first) = snapshots.first() else { continue };
        ensure!(snapshots.len() == 1, "{chain}: {} snapshots", snapshots.len());
        let mut files = vec![*first];
        files.extend(
            list(Level::SYNC)?.into_iter().filter(|file| file.txids.max() > first.txids.max()),
        );
        let path = scratch.join("history.db");
        let mut copy = Copy { file: File::create(&path)?, txid: None, checksum: None, time: None };
        for (at, object) in files.iter().enumerate() {
            let key = LtxKey { chain, level: object.level, txids: object.txids };
            let content = runtime.block_on(read_all(store, &key.into(), LARGEST_FILE))?;
            let timestamp = copy
                .apply(object, &content)
                .with_context(|| format!("{chain}: file {}", object.txids))?;
            let last = at + 1 == files.len();
            let state = State { chain, txid: object.txids.max(), timestamp, path: &path, last };
            visit(&state).with_context(|| format!("{chain}: state {}", state.txid))?;
        }
        complete.push(chain);
    }
    Ok(complete)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start runtime")
}

struct Copy {
    file: File,
    txid: Option<Txid>,
    checksum: Option<Checksum>,
    time: Option<Timestamp>,
}

impl Copy {
    fn apply(&mut self, object: &LtxObject, content: &[u8]) -> Result<Timestamp> {
        let mut decoder = Decoder::new(Cursor::new(content))?;
        let header = *decoder.header();
        ensure!(header.txids == object.txids, "holds TXIDs {}", header.txids);
        match self.txid {
            None => ensure!(object.txids.is_snapshot(), "not a snapshot"),
            Some(txid) => {
                ensure!(object.txids.min() == txid.next(), "follows {txid}: a gap or a fork");
                ensure!(header.pre_apply == self.checksum, "continues another state");
            }
        }
        ensure!(self.time <= Some(header.timestamp), "its time is before its predecessor's");
        let size = header.page_size.len();
        let mut page = vec![0; size];
        while let Some(number) = decoder.next_page(&mut page)? {
            self.file.write_all_at(&page, u64::from(number.get() - 1) * size as u64)?;
        }
        self.file.set_len(u64::from(header.commit) * size as u64)?;
        self.checksum = decoder.finish()?.post_apply;
        self.txid = Some(object.txids.max());
        self.time = Some(header.timestamp);
        Ok(header.timestamp)
    }
}
