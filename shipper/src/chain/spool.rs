//! What was captured and is not known to be in the bucket, in order.
//!
//! The engine appends groups at the end; the uploader takes everything that waits as one *frozen* file, which stays
//! the same byte for byte until it is known to be in the bucket: an attempt whose effect is unknown can be told from
//! another writer's only by its content. So an outage costs two files, about the database's own size each.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use replica::format::{Header, PageSize, Txid, TxidRange};

use crate::chain::disk::Disk;
use crate::chain::entry::{Entry, merge_entries};

/// Files merged at once: bounds descriptors and buffers.
pub const MERGE_WIDTH: usize = 32;
/// Waiting groups from which they are merged although nothing can be uploaded.
const CROWDED: usize = 64;

/// The spool of one chain.
#[derive(Debug, Default)]
pub struct Spool {
    /// The file being uploaded.
    frozen: Option<Entry>,
    /// Groups behind it; each is a state of the database once merged.
    waiting: VecDeque<Vec<Entry>>,
}

/// What an earlier run left, by what can be believed at first sight.
#[derive(Debug, Default)]
pub struct Found {
    /// The frozen file, where there is one.
    pub frozen: Option<Entry>,
    /// Entries by number.
    pub entries: BTreeMap<u64, Entry>,
}

/// Where entry number `sequence` stands.
#[must_use]
pub fn entry_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016x}.ltx"))
}

/// Where the frozen file of a TXID stands.
#[must_use]
pub fn frozen_path(directory: &Path, txid: Txid) -> PathBuf {
    directory.join(format!("upload-{txid}.ltx"))
}

/// Looks through a directory; what is no whole entry is removed.
///
/// # Errors
/// Those of the file system.
pub fn find(directory: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let name = || format!("read spool {}", directory.display());
    for file in std::fs::read_dir(directory).with_context(name)? {
        let path = file.with_context(name)?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let whole = path.extension().is_some_and(|extension| extension == "ltx");
        let entry = if whole { Entry::open(&path)? } else { None };
        match entry {
            Some(entry) if stem.starts_with("upload-") => {
                let newer = |old: &Entry| old.footer.end.through < entry.footer.end.through;
                if found.frozen.as_ref().is_none_or(newer) {
                    found.frozen = Some(entry);
                }
            }
            Some(entry) => {
                found.entries.insert(entry.footer.sequence, entry);
            }
            None => {
                tracing::debug!(path = %path.display(), "not a whole spooled file");
                // One that stays behind is looked at again at the next start.
                let _ = std::fs::remove_file(&path);
            }
        }
    }
    Ok(found)
}

impl Spool {
    /// A spool of what an earlier run left.
    #[must_use]
    pub fn new(frozen: Option<Entry>, waiting: VecDeque<Vec<Entry>>) -> Self {
        Self { frozen, waiting }
    }

    /// Puts a group behind the others.
    pub fn append(&mut self, group: Vec<Entry>) {
        self.waiting.push_back(group);
    }

    /// The frozen file.
    #[must_use]
    pub fn frozen(&self) -> Option<&Entry> {
        self.frozen.as_ref()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frozen.is_none() && self.waiting.is_empty()
    }

    /// Whether it is time to merge what waits.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.waiting.len() >= CROWDED
    }

    /// Every file in it, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.frozen.iter().chain(self.waiting.iter().flatten()).cloned().collect()
    }

    /// What waits, group by group.
    #[must_use]
    pub fn waiting(&self) -> Vec<Vec<Entry>> {
        self.waiting.iter().cloned().collect()
    }

    /// Files, and their bytes.
    #[must_use]
    pub fn backlog(&self) -> (usize, u64) {
        let files = || self.frozen.iter().chain(self.waiting.iter().flatten());
        (files().count(), files().map(Entry::bytes).sum())
    }

    /// `merged` stands for the first `groups` groups now, as the frozen file.
    pub fn freeze(&mut self, groups: usize, merged: Entry) {
        self.waiting.drain(..groups);
        self.frozen = Some(merged);
    }

    /// `merged` stands for the first `groups` groups now.
    pub fn replace(&mut self, groups: usize, merged: Entry) {
        self.waiting.drain(..groups);
        self.waiting.push_front(vec![merged]);
    }

    /// Forgets the frozen file.
    pub fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Takes out what waits, and with `frozen` the frozen file.
    pub fn drain(&mut self, frozen: bool) -> Vec<Entry> {
        let first = if frozen { self.frozen.take() } else { None };
        first.into_iter().chain(self.waiting.drain(..).flatten()).collect()
    }
}

/// What a merged file says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Merged {
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Its TXID.
    pub txid: Txid,
    /// The run that made it.
    pub node_id: u64,
    /// The earliest time that it may bear.
    pub not_before: Timestamp,
}

/// Merges groups, oldest first, into one entry at `path`. The inputs stay.
///
/// # Errors
/// Those of the file system, and damaged entries.
pub fn merge_groups(
    groups: &[Vec<Entry>],
    directory: &Path,
    path: PathBuf,
    merged: Merged,
    disk: &dyn Disk,
) -> anyhow::Result<Entry> {
    let Merged { page_size, txid, node_id, not_before } = merged;
    let first = groups.first().and_then(|group| group.first()).context("merge of no group")?.footer;
    let last = groups.last().and_then(|group| group.first()).context("merge of no group")?.footer;
    let mut end = last.end;
    end.pre_apply = first.end.pre_apply;
    end.members = first.sequence;
    end.timestamp = end.timestamp.max(not_before);
    let all_complete = groups.iter().flat_map(|group| group.first());
    end.complete_until = all_complete
        .map(|entry| entry.footer.end.complete_until)
        .max()
        .unwrap_or(last.end.complete_until);
    let header = Header {
        page_size,
        commit: end.page_count,
        txids: TxidRange::single(txid),
        timestamp: end.timestamp,
        checksummed: true,
        pre_apply: end.pre_apply,
        wal: None,
        node_id,
    };
    let mut entries: Vec<Entry> = groups.iter().flatten().cloned().collect();
    let mut temporary: Vec<Entry> = Vec::new();
    let mut round = 0;
    while entries.len() > MERGE_WIDTH {
        round += 1;
        let mut merged = Vec::new();
        let done = entries.chunks(MERGE_WIDTH).enumerate().try_for_each(|(number, chunk)| {
            merged.push(merge_part(chunk, directory, header, (round, number), disk)?);
            anyhow::Ok(())
        });
        temporary.iter().for_each(|entry| disk.remove(&entry.path));
        // A full disk needs the room of those that came to nothing.
        done.inspect_err(|_| merged.iter().for_each(|entry| disk.remove(&entry.path)))?;
        entries.clone_from(&merged);
        temporary = merged;
    }
    let merged = merge_entries(&entries, path, header, end, disk);
    temporary.iter().for_each(|entry| disk.remove(&entry.path));
    merged
}

/// Merges some entries into one that is no state of its own; `header` is the whole's.
fn merge_part(
    entries: &[Entry],
    directory: &Path,
    header: Header,
    (round, number): (u32, usize),
    disk: &dyn Disk,
) -> anyhow::Result<Entry> {
    let last = entries.last().context("merge of no entry")?;
    let header = Header {
        commit: last.header.commit,
        // Not that of a snapshot: not every page must be there yet.
        txids: TxidRange::single(Txid::FIRST.next()),
        checksummed: false,
        pre_apply: None,
        ..header
    };
    let path = directory.join(format!("merge-{round}-{number}.part"));
    merge_entries(entries, path, header, last.footer.end, disk)
}
