//! What a database's chain is and how far the bucket has it, in two slots that are written in turn.
//!
//! A slot is written in place, so that a write costs no change of the file system's own records. Each has a number
//! and a checksum: the newest whole one counts. A crash in the middle of a write leaves the other one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use replica::format::wal::Position;
use replica::format::{Checksum, GenerationId, PageSize, Txid};
use serde::{Deserialize, Serialize};

use crate::chain::disk::{Change, Disk};
use crate::chain::entry::End;
use crate::chain::framed;
use crate::wal::rest::Rest;

const SLOT: usize = 4096;
/// Runs whose uploads are known as ours.
const RUNS: usize = 16;

/// Where the bucket's copy of the database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The last TXID in the bucket.
    pub txid: Txid,
    /// The database's checksum there.
    pub checksum: Checksum,
    /// Pages in the database there.
    pub page_count: u32,
    /// The place in the source's WAL there, where it is known.
    pub position: Option<Position>,
    /// The last capture that is in it.
    pub sequence: u64,
    /// The timestamp of that file.
    pub timestamp: Timestamp,
}

impl Durable {
    /// The bucket once the file that ends with `end` is in it as `txid`.
    #[must_use]
    pub fn after(txid: Txid, end: &End) -> Self {
        Self {
            txid,
            checksum: end.post_apply,
            page_count: end.page_count,
            position: Some(end.position),
            sequence: end.through,
            timestamp: end.timestamp,
        }
    }
}

/// What must not be forgotten about one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this document: 1.
    pub version: u32,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// The node ids of this run (the last one) and of some before it: files that bear one are ours.
    pub runs: Vec<u64>,
    /// The generation, once it has a name.
    pub generation: Option<GenerationId>,
    /// No file of this generation bears an earlier time: what its predecessor shipped is older.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// Where the bucket stands; `None` until the first snapshot is there.
    pub durable: Option<Durable>,
    /// A TXID that is known to be in the bucket, although the index may not have it yet.
    pub confirmed: Option<Txid>,
    /// The TXID at which the durable index was last forced to the disk: it may be torn in what came after.
    pub index_forced: Option<Txid>,
    /// What the source's file was when it was left without a WAL, and the TXID that it was then.
    #[serde(default)]
    pub rest: Option<(Txid, Rest)>,
    /// Whether the store takes a key twice, so that nothing but a look keeps two writers apart.
    #[serde(default)]
    pub unguarded: bool,
    /// Whether this generation was found in the bucket, which shows that the key may read it.
    #[serde(default)]
    pub found: bool,
}

impl Record {
    /// The record of a chain that begins.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        Self {
            version: 1,
            page_size,
            runs: Vec::new(),
            generation: None,
            not_before: None,
            durable: None,
            confirmed: None,
            index_forced: None,
            rest: None,
            unguarded: false,
            found: false,
        }
    }

    /// Adds a run.
    pub fn begin_run(&mut self, node_id: u64) {
        self.runs.push(node_id);
        let superfluous = self.runs.len().saturating_sub(RUNS);
        self.runs.drain(..superfluous);
    }
}

/// The file of a [`Record`].
#[derive(Debug)]
pub struct RecordFile {
    file: File,
    path: PathBuf,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    number: u64,
    record: Record,
}

impl RecordFile {
    /// Opens (or creates) the file and reads the newest whole record in it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Option<Record>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        let newest =
            [0, 1].into_iter().filter_map(|slot| read_slot(&file, slot)).max_by_key(|s| s.number);
        let number = newest.as_ref().map_or(0, |slot| slot.number);
        let record = newest.map(|slot| slot.record);
        Ok((Self { file, path: path.to_owned(), number }, record))
    }

    /// Writes a record, for a process that dies.
    ///
    /// # Errors
    /// Those of the file system; the record before it is then still there.
    pub fn write(&mut self, record: &Record, disk: &dyn Disk) -> anyhow::Result<()> {
        let number = self.number + 1;
        let content = serde_json::to_vec(&Slot { number, record: record.clone() })?;
        let mut slot = framed::encode(&content);
        anyhow::ensure!(slot.len() <= SLOT, "record of {} bytes", slot.len());
        slot.resize(SLOT, 0);
        disk.before(Change::Write, &self.path)
            .and_then(|()| self.file.write_all_at(&slot, (number % 2) * SLOT as u64))
            .with_context(|| format!("write {}", self.path.display()))?;
        self.number = number;
        Ok(())
    }

    /// Writes a record, for a machine that loses power.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn force(&mut self, record: &Record, disk: &dyn Disk) -> anyhow::Result<()> {
        self.write(record, disk)?;
        disk.sync(&self.file, &self.path)
            .with_context(|| format!("force {} to the disk", self.path.display()))
    }
}

fn read_slot(file: &File, slot: u64) -> Option<Slot> {
    let mut bytes = vec![0; SLOT];
    // A file that ends early has no such slot.
    file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
    let record: Slot = serde_json::from_slice(framed::decode(&bytes)?).ok()?;
    (record.record.version == 1).then_some(record)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chain::disk::SystemDisk;

    #[test]
    fn the_newest_whole_record_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let (mut file, none) = RecordFile::open(&path).unwrap();
        assert_eq!(none, None);
        let mut record = Record::new(PageSize::new(4096).unwrap());
        for run in 0..40 {
            record.begin_run(run);
            file.write(&record, &SystemDisk).unwrap();
        }
        assert_eq!(record.runs, (24..40).collect::<Vec<_>>());
        let (mut file, read) = RecordFile::open(&path).unwrap();
        assert_eq!(read.as_ref(), Some(&record));
        let older = record.clone();
        record.begin_run(40);
        file.write(&record, &SystemDisk).unwrap();
        assert_eq!(RecordFile::open(&path).unwrap().1.unwrap(), record);

        // Torn anywhere, the newest is not believed, and the one before it counts.
        let whole = std::fs::read(&path).unwrap();
        for at in [0, 3, 20, 100] {
            let mut torn = whole.clone();
            torn[SLOT + at] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(RecordFile::open(&path).unwrap().1.as_ref(), Some(&older), "byte {at}");
        }
    }
}
