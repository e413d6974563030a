//! What an earlier run left: believed as far as it proves itself.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use replica::format::{PageSize, Txid, TxidRange};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::chain::disk::Disk;
use crate::chain::entry::Entry;
use crate::chain::record::{Durable, Record, RecordFile};
use crate::chain::reserve::{Reserve, is_out_of_room};
use crate::chain::spool::{Spool, find};
use crate::chain::sums::PageSums;
use crate::chain::{DurableSums, LocalChain, Recorded, Tip, TipState};

/// What a chain is opened with.
#[derive(Debug, Clone)]
pub struct Open {
    /// Bytes in a page of the source.
    pub page_size: PageSize,
    /// This run's number, which no other run has.
    pub node_id: u64,
    /// Most bytes that may wait for the bucket.
    pub spool_limit: u64,
    /// Whether the database is on the same file system.
    pub shared_disk: bool,
    /// What forces files to the disk.
    pub disk: Arc<dyn Disk>,
}

impl LocalChain {
    /// Opens the chain that an earlier run left in `directory`, or begins one where there is none (or one of another page
    /// size). Afterwards [`LocalChain::is_torn`] may say that the bucket must be asked first; and where the tip has no
    /// state, a snapshot must come first.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(directory: &Path, open: Open) -> anyhow::Result<Self> {
        match Self::try_open(directory, open.clone()) {
            Err(error) if is_out_of_room(&error) => {
                // Else a disk that is full of what waits would never let it go.
                warn!("{error:#}\nwhat waits for the bucket is given up, and caught up later");
                give_up_waiting(&directory.join("spool"), open.disk.as_ref())?;
                Self::try_open(directory, open)
            }
            opened => opened,
        }
    }

    fn try_open(directory: &Path, open: Open) -> anyhow::Result<Self> {
        let spool_directory = directory.join("spool");
        std::fs::create_dir_all(&spool_directory)
            .with_context(|| format!("create {}", spool_directory.display()))?;
        let (mut file, record) = RecordFile::open(&directory.join("record"))?;
        let continues = record.filter(|record| {
            let same = record.page_size == open.page_size;
            if !same {
                warn!("the page size changed from {} to {}", record.page_size, open.page_size);
            }
            same
        });
        let Some(mut record) = continues else {
            return Self::begin(directory, file, open);
        };
        record.begin_run(open.node_id);
        file.force(&record, open.disk.as_ref())?;
        let found = find(&spool_directory)?;
        let path = directory.join("durable.sums");
        let sums = durable_sums(&path, &mut record, found.frozen.as_ref(), &open)?;
        let (sums, torn) = match sums {
            Some(sums) => {
                file.write(&record, open.disk.as_ref())?;
                (sums, false)
            }
            None => (PageSums::open_torn(&path, open.disk.clone())?, true),
        };
        let tip = Tip::empty(PageSums::create(&directory.join("tip.sums"), open.disk.clone())?);
        let chain = Self::assemble(
            &spool_directory,
            DurableSums { sums, torn },
            Recorded { record, file },
            tip,
            open,
        );
        if !torn {
            chain.restore_tip(found)?;
        }
        Ok(chain)
    }

    fn begin(directory: &Path, mut file: RecordFile, open: Open) -> anyhow::Result<Self> {
        let spool_directory = directory.join("spool");
        let name = || format!("empty {}", spool_directory.display());
        std::fs::remove_dir_all(&spool_directory).with_context(name)?;
        std::fs::create_dir(&spool_directory).with_context(name)?;
        let mut record = Record::new(open.page_size);
        record.begin_run(open.node_id);
        file.force(&record, open.disk.as_ref())?;
        open.disk.sync_directory(directory).with_context(name)?;
        let sums = PageSums::create(&directory.join("durable.sums"), open.disk.clone())?;
        let tip = Tip::empty(PageSums::create(&directory.join("tip.sums"), open.disk.clone())?);
        Ok(Self::assemble(
            &spool_directory,
            DurableSums { sums, torn: false },
            Recorded { record, file },
            tip,
            open,
        ))
    }

    /// Begins a chain in place of this one, whose generation cannot go on.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn discard(directory: &Path) -> anyhow::Result<()> {
        let name = || format!("discard {}", directory.display());
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(name)
            }
            _ => Ok(()),
        }
    }

    fn assemble(
        spool_directory: &Path,
        durable: DurableSums,
        recorded: Recorded,
        tip: Tip,
        open: Open,
    ) -> Self {
        Self {
            directory: spool_directory.to_owned(),
            page_size: open.page_size,
            node_id: open.node_id,
            reserve: Reserve::new(spool_directory, open.disk.clone(), open.shared_disk),
            verified: Mutex::default(),
            disk: open.disk,
            tip: Mutex::new(tip),
            durable_sums: Mutex::new(durable),
            record: Mutex::new(recorded),
            spool: Mutex::default(),
            spool_limit: open.spool_limit,
            arrived: Notify::new(),
        }
    }

    /// Makes the tip anew: the index of what is in the bucket, then everything in the spool that proves itself.
    fn restore_tip(&self, found: crate::chain::spool::Found) -> anyhow::Result<()> {
        let mut tip = self.tip();
        let mut durable = self.durable_sums();
        let state = self.record().record.durable;
        let mut sums = durable.sums.copy_to(tip.sums.path())?;
        drop(durable);
        let mut spool = Restored {
            last: state.map_or(0, |durable| durable.sequence),
            state: state.map(TipState::from),
            frozen: None,
            waiting: VecDeque::new(),
        };
        let mut whole = true;
        if let Some(frozen) = found.frozen {
            let next = frozen.header.txids.min() == self.next_txid();
            if frozen.footer.sequence == spool.last + 1 && next {
                whole = spool.accept(&mut sums, self.page_size, vec![frozen], self.disk());
                spool.frozen = spool.waiting.pop_front().and_then(|group| group.into_iter().next());
            } else {
                whole = frozen.footer.end.through <= spool.last;
                self.remove(&frozen);
            }
        }
        let mut entries = found.entries;
        let behind = entries.split_off(&(spool.last + 1));
        entries.values().for_each(|entry| self.remove(entry));
        let mut left = behind;
        while whole {
            let next = spool.last + 1;
            let Some(first) = left.remove(&next) else { break };
            let members = first.footer.end.members;
            let others: Vec<Entry> =
                (next + 1..=members).map_while(|number| left.remove(&number)).collect();
            let complete = others.len() as u64 == members - next;
            let through = first.footer.end.through;
            let group: Vec<Entry> = [first].into_iter().chain(others).collect();
            whole = complete && spool.accept(&mut sums, self.page_size, group, self.disk());
            // Merged into the first one, before a crash kept them from being removed.
            let behind = left.split_off(&(through + 1));
            left.values().for_each(|entry| self.remove(entry));
            left = behind;
        }
        if !left.is_empty() || !whole {
            warn!(
                files = left.len(),
                "not everything in the spool is whole: what it held is caught up"
            );
            left.values().for_each(|entry| self.remove(entry));
            // What `accept` applied in part is in the index.
            drop(sums);
            sums = self.durable_sums().sums.copy_to(tip.sums.path())?;
            for entry in spool.frozen.iter().chain(spool.waiting.iter().flatten()) {
                sums.apply(entry.decoder()?, self.page_size, false)?;
            }
        }
        info!(
            txid = state.map_or(0, |durable| durable.txid.get()),
            files = spool.waiting.len() + usize::from(spool.frozen.is_some()),
            "going on with an earlier run's chain"
        );
        let Restored { last, state, frozen, waiting } = spool;
        *tip = Tip { sums, state, next_sequence: last + 1 };
        *self.spool() = Spool::new(frozen, waiting);
        self.arrived.notify_one();
        Ok(())
    }
}

/// Removes what waits, but not the frozen file, which may have been sent.
fn give_up_waiting(directory: &Path, disk: &dyn Disk) -> anyhow::Result<()> {
    find(directory)?.entries.values().for_each(|entry| disk.remove(&entry.path));
    Ok(())
}

/// The spool while it is read back.
struct Restored {
    last: u64,
    state: Option<TipState>,
    frozen: Option<Entry>,
    waiting: VecDeque<Vec<Entry>>,
}

impl Restored {
    /// Applies a group; `false` where it does not prove itself, and then its files are gone.
    fn accept(
        &mut self,
        sums: &mut PageSums,
        page_size: PageSize,
        group: Vec<Entry>,
        disk: &dyn Disk,
    ) -> bool {
        let Some(footer) = group.first().map(|entry| entry.footer) else { return false };
        let verified = self.verify(sums, page_size, &group);
        if let Err(error) = verified {
            warn!("spooled file {}: {error:#}", footer.sequence);
            group.iter().for_each(|entry| disk.remove(&entry.path));
            return false;
        }
        self.last = footer.end.through;
        self.state = Some(TipState::from(&footer.end));
        self.waiting.push_back(group);
        true
    }

    fn verify(
        &self,
        sums: &mut PageSums,
        page_size: PageSize,
        group: &[Entry],
    ) -> anyhow::Result<()> {
        let footer = group.first().context("empty group")?.footer;
        anyhow::ensure!(
            footer.end.pre_apply == self.state.map(|state| state.checksum),
            "continues {:?}, not {:?}",
            footer.end.pre_apply,
            self.state
        );
        for entry in group {
            let applied = sums.apply(entry.decoder()?, page_size, false)?;
            anyhow::ensure!(
                applied.trailer.file == entry.footer.checksum,
                "another file than its footer's"
            );
        }
        sums.truncate(footer.end.page_count)?;
        let actual = sums.checksum();
        anyhow::ensure!(
            actual == footer.end.post_apply,
            "database checksum {actual}, not {}",
            footer.end.post_apply
        );
        Ok(())
    }
}

/// The index of what is in the bucket, if it proves itself. A run that died between the index and the record left
/// the index ahead: then the frozen file, if the record says that it is in the bucket, leads there, too. (That the index
/// gives the right sum with it proves nothing about the bucket: a power failure may have torn just those pages.)
fn durable_sums(
    path: &Path,
    record: &mut Record,
    frozen: Option<&Entry>,
    open: &Open,
) -> anyhow::Result<Option<PageSums>> {
    let durable = record.durable;
    let (page_count, checksum, next) = match durable {
        Some(durable) if path.exists() => {
            let sums = PageSums::open(path, durable.page_count, open.disk.clone())?;
            if sums.checksum() == durable.checksum {
                return Ok(Some(sums));
            }
            (durable.page_count, Some(durable.checksum), durable.txid.next())
        }
        Some(_) => return Ok(None),
        None => (0, None, Txid::FIRST),
    };
    let known = frozen.filter(|entry| {
        entry.footer.end.pre_apply == checksum
            && record.confirmed == Some(next)
            && entry.header.txids == TxidRange::single(next)
    });
    let Some(frozen) = known else {
        // A chain that has nothing in the bucket has an empty index.
        let empty = durable.is_none().then(|| PageSums::create(path, open.disk.clone()));
        return empty.transpose();
    };
    let mut sums = match durable {
        Some(_) => {
            PageSums::open(path, page_count.max(frozen.footer.end.page_count), open.disk.clone())?
        }
        None => PageSums::create(path, open.disk.clone())?,
    };
    let applied = sums.apply(frozen.decoder()?, open.page_size, false);
    sums.truncate(frozen.footer.end.page_count)?;
    if applied.is_err() || sums.checksum() != frozen.footer.end.post_apply {
        return Ok(None);
    }
    sums.flush()?;
    record.durable = Some(Durable::after(next, &frozen.footer.end));
    Ok(Some(sums))
}
