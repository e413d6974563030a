//! The uploading end of a chain: what waits is frozen, sent, and then part of what is in the bucket.

use std::path::Path;

use anyhow::Context;
use replica::format::{Header, Level, Txid, TxidRange};

use crate::chain::entry::{Entry, Footer};
use crate::chain::keys::level;
use crate::chain::record::Durable;
use crate::chain::reserve::is_out_of_room;
use crate::chain::spool::{Merged, entry_path, frozen_path, merge_groups};
use crate::chain::{LocalChain, Recorded, lock};

/// Uploads after which the durable index is forced to the disk: a power failure costs at most reading as many files back.
const FORCE_EVERY: u64 = 64;

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

impl LocalChain {
    /// The file to upload: the frozen one, or everything that waits, frozen now.
    ///
    /// # Errors
    /// Those of the file system, and a damaged spool.
    pub fn next_upload(&self) -> anyhow::Result<Option<Upload>> {
        let txid = self.next_txid();
        let (frozen, waiting) = {
            let spool = self.spool();
            (spool.frozen().cloned(), spool.waiting())
        };
        let entry = match frozen {
            Some(entry) => entry,
            None if waiting.is_empty() => return Ok(None),
            None => self.freeze(self.mergeable(&waiting)?, txid).or_else(|error| {
                // The oldest by itself may fit, or is ready as it is.
                if is_out_of_room(&error) { self.freeze(&waiting[..1], txid) } else { Err(error) }
            })?,
        };
        self.verify(&entry)?;
        Ok(Some(Upload { txid, level: level(txid), entry }))
    }

    /// As many of the oldest groups as there is room to merge; one at least.
    fn mergeable<'a>(&self, waiting: &'a [Vec<Entry>]) -> anyhow::Result<&'a [Vec<Entry>]> {
        let room = self.reserve.headroom()?;
        let mut bytes = 0;
        let fit = waiting.iter().take_while(|group| {
            bytes += bytes_of(group);
            bytes <= room
        });
        Ok(&waiting[..fit.count().max(1)])
    }

    /// Reads a file to its end before it is sent: it must continue what is in the bucket, and give the state that it says.
    fn verify(&self, entry: &Entry) -> anyhow::Result<()> {
        let Footer { checksum, end, .. } = entry.footer;
        let mut verified = lock(&self.verified);
        if *verified == Some(checksum) {
            return Ok(());
        }
        let mut durable = self.durable_sums();
        let before = self.record().record.durable.map(|durable| durable.checksum);
        let predicted = entry.decoder().and_then(|file| durable.sums.predict(file, self.page_size));
        let (file, after) = predicted.with_context(|| format!("read {}", entry.path.display()))?;
        anyhow::ensure!(
            end.pre_apply == before && file == checksum && after == end.post_apply,
            "{}: does not give the state that it was captured from",
            entry.path.display()
        );
        *verified = Some(checksum);
        Ok(())
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
        self.reserve.check_merge(waiting.iter().map(|group| bytes_of(group)).sum())?;
        let merged = merge_groups(waiting, &self.directory, path, self.merged(txid), self.disk())?;
        self.spool().freeze(waiting.len(), merged.clone());
        waiting.iter().flatten().for_each(|entry| self.remove(entry));
        Ok(merged)
    }

    fn merged(&self, txid: Txid) -> Merged {
        let (page_size, node_id, not_before) = (self.page_size, self.node_id, self.not_before());
        Merged { page_size, txid, node_id, not_before }
    }

    /// Whether an entry can go up under `txid` as it is.
    fn is_ready(&self, entry: &Entry, txid: Txid) -> bool {
        let Header { checksummed, txids, node_id, pre_apply, .. } = entry.header;
        checksummed
            && entry.footer.end.timestamp >= self.not_before()
            && txids == TxidRange::single(txid)
            && node_id == self.node_id
            && pre_apply == entry.footer.end.pre_apply
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
        self.reserve.check_merge(waiting.iter().map(|group| bytes_of(group)).sum())?;
        // A name of its own until every input is merged; then in the first one's place.
        let path = entry_path(&self.directory, first.footer.sequence);
        let txid = self.expected_txid();
        let merged = merge_groups(&waiting, &self.directory, path, self.merged(txid), self.disk())?;
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
        record.durable = Some(Durable::after(upload.txid, &upload.entry.footer.end));
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
}

fn bytes_of(group: &[Entry]) -> u64 {
    group.iter().map(Entry::bytes).sum()
}
