//! What a chain has: its files by level.
//!
//! A generation of ours has level 0 from `2-2` on, one TXID a file, and at level 9 what begins at TXID 1. Another name there was
//! written by nobody of ours, but whoever holds the server's key may put one: such a file is left out before anything looks
//! at it (a plan would prefer the longest), and named. Litestream's chains have other names, and are taken as they are.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::format::{Level, Txid};
use crate::restore::RestoreError;
use crate::store::{Chain, LtxObject, Store};

/// Listings under way at once.
const CONCURRENT_LISTINGS: usize = 5;

/// The files of one chain.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The chain.
    pub chain: Chain,
    /// Its files, by level, then name.
    pub files: Vec<LtxObject>,
    /// Files under names that nobody of ours gives: no part of the chain, whatever is in them.
    pub strays: Vec<LtxObject>,
}

/// How many strays a remark names.
const STRAYS_NAMED: usize = 5;

impl Inventory {
    /// The inventory of a chain that has these files.
    #[must_use]
    pub fn new(chain: Chain, mut files: Vec<LtxObject>) -> Self {
        let strays = match chain {
            Chain::Root => Vec::new(),
            Chain::Generation(_) => {
                files.extract_if(.., |file| !has_a_name_of_ours(file)).collect()
            }
        };
        Self { chain, files, strays }
    }

    /// Lists every level of a chain.
    ///
    /// # Errors
    /// Those of a listing.
    pub async fn read(store: &dyn Store, chain: Chain) -> Result<Self, RestoreError> {
        // One level (the lowest, where nobody compacts) has nearly all of the files: it is taken over, not copied.
        let files = stream::iter(Level::all())
            .map(|level| store.list_ltx(chain, level))
            .buffered(CONCURRENT_LISTINGS)
            .try_fold(Vec::new(), |mut files: Vec<LtxObject>, mut level| async move {
                if files.is_empty() {
                    return Ok(level);
                }
                files.append(&mut level);
                Ok(files)
            })
            .await?;
        Ok(Self::new(chain, files))
    }

    /// The strays in words, for an operator.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let named: Vec<String> = self
            .strays
            .iter()
            .take(STRAYS_NAMED)
            .map(|file| format!("level {} {}", file.level, file.txids.file_name()))
            .collect();
        let more = match self.strays.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| {
            format!(
                "generation {}: ignored, since neither shipper nor verifier writes such names: {}{more}; find out who did",
                self.chain,
                named.join(", ")
            )
        })
    }

    /// What is left without some files.
    pub(super) fn without(&self, files: &[LtxObject]) -> Self {
        let left = self.files.iter().filter(|file| !files.contains(file)).copied().collect();
        Self { chain: self.chain, files: left, strays: self.strays.clone() }
    }

    /// The file by which a state of ours came into the bucket: of level 0, or the snapshot that the chain begins with.
    pub(super) fn origin(&self, txid: Txid) -> Option<&LtxObject> {
        if txid == Txid::FIRST {
            let first = |file: &&LtxObject| {
                file.level == Level::SNAPSHOT && file.txids.max() == Txid::FIRST
            };
            return self.files.iter().find(first);
        }
        let syncs = self.files.partition_point(|file| file.level == Level::SYNC);
        let at = self.files[..syncs].binary_search_by_key(&txid, |file| file.txids.max()).ok()?;
        Some(&self.files[at])
    }

    /// Whether it holds a whole database: any file that starts at TXID 1 does.
    pub(super) fn has_snapshot(&self) -> bool {
        self.files.iter().any(|file| file.txids.is_snapshot())
    }

    /// The file that the chain begins with, as far as it is there.
    pub(super) fn first(&self) -> Option<&LtxObject> {
        self.files.iter().min_by_key(|file| (file.txids.min(), file.txids.max()))
    }

    /// The file that knows best when `txid` was committed: a level-9 snapshot may be taken long after.
    pub(super) fn witness(&self, txid: Txid) -> Option<&LtxObject> {
        self.files
            .iter()
            .filter(|file| file.txids.max() == txid)
            .min_by_key(|file| (file.level, std::cmp::Reverse(file.txids.min())))
    }
}

/// Whether a file of a generation has a name that the shipper or the verifier gives.
fn has_a_name_of_ours(file: &LtxObject) -> bool {
    let txids = file.txids;
    match file.level {
        Level::SYNC => txids.min() == txids.max() && !txids.is_snapshot(),
        Level::SNAPSHOT => txids.is_snapshot(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;

    use super::*;
    use crate::format::TxidRange;

    /// Files by level, first and last TXID.
    fn files(of: &[(u8, u64, u64)]) -> Vec<LtxObject> {
        let txid = |number| Txid::new(number).unwrap();
        let file = |(level, min, max)| LtxObject {
            level: Level::new(level).unwrap(),
            txids: TxidRange::new(txid(min), txid(max)).unwrap(),
            size: 1,
            modified: Timestamp::UNIX_EPOCH,
        };
        of.iter().copied().map(file).collect()
    }

    #[test]
    fn names_that_nobody_of_ours_gives_are_no_part_of_a_generation() {
        let ours = [(0, 2, 2), (0, 3, 3), (1, 2, 3), (2, 2, 3), (9, 1, 1), (9, 1, 3)];
        let strays = [(0, 1, 1), (0, 1, 3), (0, 2, 0x28), (0, 4, u64::MAX), (9, 2, 2), (9, 2, 4)];
        let generation = Chain::Generation("0192f0c1-2345-7abc-8def-01234567890a".parse().unwrap());
        let all = || files(&[&ours[..], &strays[..]].concat());
        let inventory = Inventory::new(generation, all());
        assert_eq!(
            (inventory.files.clone(), inventory.strays.clone()),
            (files(&ours), files(&strays))
        );
        let remark = inventory.remark().unwrap();
        assert!(remark.contains("level 0 0000000000000002-0000000000000028.ltx"), "{remark}");
        assert!(remark.contains(" and 1 more; "), "{remark}");
        assert_eq!(Inventory::new(generation, files(&ours)).remark(), None);
        // Litestream's own compactions are anything.
        let foreign = Inventory::new(Chain::Root, all());
        assert_eq!((foreign.files.len(), foreign.strays.len()), (12, 0));
    }
}
