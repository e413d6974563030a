//! What must be true of the bucket at any moment, whatever happened: every restore point is a state that the
//! application committed, in commit order, each file proves itself and its predecessor, nothing written once changes.
//!
//! Independent of the restore code: files are applied page by page in the order of their names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use anyhow::{Context, Result, bail, ensure};
use replica::format::{
    Checksum, DatabaseChecksum, Decoder, Level, PageNumber, Txid, page_checksum,
};
use replica::store::{Chain, Key, LtxKey, LtxObject, Store, read_all};

use crate::sim::history::{History, Pages};

const LARGEST_FILE: usize = 64 << 20;

/// What was seen of a bucket so far.
#[derive(Debug, Default)]
pub struct Oracle {
    chains: BTreeMap<Chain, Copy>,
    /// Every object that was ever seen.
    seen: BTreeMap<Key, u64>,
    /// Every state that can be restored.
    states: BTreeSet<u64>,
}

/// A generation's database, as far as its files lead.
#[derive(Debug, Default)]
struct Copy {
    pages: Pages,
    sums: BTreeMap<u32, Checksum>,
    checksum: DatabaseChecksum,
    txid: Option<Txid>,
    /// The place in each history that it can be of.
    places: Vec<Option<usize>>,
    timestamp: Option<jiff::Timestamp>,
}

impl Oracle {
    /// Looks at everything that is new; `store` must not fail.
    ///
    /// # Errors
    /// What is wrong with the bucket.
    pub async fn check(&mut self, store: &dyn Store, histories: &[History]) -> Result<()> {
        for chain in store.chains().await? {
            let snapshots = store.list_ltx(chain, Level::SNAPSHOT).await?;
            let syncs = store.list_ltx(chain, Level::SYNC).await?;
            ensure!(snapshots.len() < 2, "{chain}: {} snapshots", snapshots.len());
            ensure!(syncs.is_empty() || !snapshots.is_empty(), "{chain}: files, but no snapshot");
            for object in snapshots.into_iter().chain(syncs) {
                self.look(store, chain, &object, histories).await.with_context(|| {
                    format!("{chain}: level {}, {}", object.level, object.txids)
                })?;
            }
        }
        Ok(())
    }

    async fn look(
        &mut self,
        store: &dyn Store,
        chain: Chain,
        object: &LtxObject,
        histories: &[History],
    ) -> Result<()> {
        let key = Key::Ltx(LtxKey { chain, level: object.level, txids: object.txids });
        let checksum = store.head(&key).await?.checksum.context("no checksum beside it")?.raw();
        if let Some(before) = self.seen.insert(key, checksum) {
            ensure!(before == checksum, "was written over");
            return Ok(());
        }
        let content = read_all(store, &key, LARGEST_FILE).await?;
        let copy = self.chains.entry(chain).or_default();
        copy.apply(object, checksum, &content, histories)?;
        self.states.insert(copy.pages.state());
        Ok(())
    }

    /// Whether some generation ends with the state at `place` (which may have been there at other times, too).
    #[must_use]
    pub fn ends_with(&self, history: &History, place: usize) -> bool {
        let ends = self.chains.values().filter(|copy| copy.txid.is_some());
        ends.map(|copy| copy.pages.state()).any(|state| history.at(place) == Some(state))
    }

    /// Whether some restore point is the state at `place`.
    #[must_use]
    pub fn holds(&self, history: &History, place: usize) -> bool {
        history.at(place).is_some_and(|state| self.states.contains(&state))
    }

    /// Restore points seen.
    #[must_use]
    pub fn points(&self) -> usize {
        self.seen.len()
    }

    /// Generations seen.
    #[must_use]
    pub fn generations(&self) -> usize {
        self.chains.len()
    }
}

impl Copy {
    fn apply(
        &mut self,
        object: &LtxObject,
        checksum: u64,
        content: &[u8],
        histories: &[History],
    ) -> Result<()> {
        let mut decoder = Decoder::new(Cursor::new(content))?;
        let header = *decoder.header();
        ensure!(header.txids == object.txids, "holds TXIDs {}", header.txids);
        ensure!(header.txids.min() == header.txids.max(), "more than one TXID");
        ensure!(header.checksummed, "no database checksum");
        match self.txid {
            None => ensure!(object.txids.is_snapshot(), "the first one, and no snapshot"),
            Some(txid) => {
                ensure!(object.txids.min() == txid.next(), "follows {txid}: a gap or a fork");
                let pre = header.pre_apply.context("no checksum to continue")?;
                ensure!(pre == self.checksum.value(), "continues {pre}: another state");
            }
        }
        ensure!(self.timestamp <= Some(header.timestamp), "older than the one before it");
        let mut page = vec![0; header.page_size.len()];
        while let Some(number) = decoder.next_page(&mut page)? {
            self.set(number, &page);
        }
        let trailer = decoder.finish()?;
        ensure!(trailer.file.raw() == checksum, "another checksum beside it");
        self.truncate(header.commit);
        ensure!(self.pages.are_complete(header.commit), "pages are missing");
        let post = trailer.post_apply.context("no checksum of the database")?;
        ensure!(post == self.checksum.value(), "says that it leads to {post}, which is not so");
        self.txid = Some(object.txids.max());
        self.timestamp = Some(header.timestamp);
        self.find_place(histories)
    }

    /// The state must follow the one before it in the history of the one machine that this generation is of.
    fn find_place(&mut self, histories: &[History]) -> Result<()> {
        // A machine that was copied since has the same past.
        let past = self.places.first().copied().unwrap_or(Some(0));
        self.places.resize(histories.len(), past);
        let state = self.pages.state();
        let before = self.places.clone();
        for (place, history) in self.places.iter_mut().zip(histories) {
            *place = place.and_then(|place| history.find(place, state));
        }
        if self.places.iter().any(Option::is_some) {
            return Ok(());
        }
        let known: Vec<_> = histories.iter().map(|history| history.find(0, state)).collect();
        bail!("state {known:?} (by history) after state {before:?}");
    }

    fn set(&mut self, number: PageNumber, page: &[u8]) {
        self.pages.set(number.get(), page);
        let sum = page_checksum(number, page);
        self.checksum.toggle(sum);
        if let Some(before) = self.sums.insert(number.get(), sum) {
            self.checksum.toggle(before);
        }
    }

    fn truncate(&mut self, page_count: u32) {
        self.pages.truncate(page_count);
        for (_, sum) in self.sums.split_off(&(page_count + 1)) {
            self.checksum.toggle(sum);
        }
    }
}
