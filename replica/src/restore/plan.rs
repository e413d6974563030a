//! The plan: which files lead from nothing to a TXID. Pure.
//!
//! The rule is Litestream's, so that both restore the same bytes: the newest level-9 snapshot at or
//! below the target, then repeatedly the file of a lower level that starts at most one TXID after what
//! is there and ends last; of two that end together the one that starts first, then the higher level.
//! A file past the target is never used. This greedy choice reaches every TXID that any choice of
//! files reaches. Unlike Litestream, a hole in the chain is refused whatever was asked for.

use std::sync::Arc;

use crate::format::{Level, Txid};
use crate::restore::{Inventory, RestoreError};
use crate::store::{Chain, Key, LtxKey, LtxObject};

/// Files to apply, oldest first: the first is a snapshot, each further one starts at most one TXID
/// after the end of those before it and ends later.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The chain.
    pub chain: Chain,
    /// The files, oldest first; never empty. There may be hundreds of thousands: shared, not copied.
    pub files: Arc<Vec<LtxObject>>,
    /// The TXID that the copy will have.
    pub txid: Txid,
}

impl Plan {
    /// Bytes to fetch.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The key of one of its files.
    #[must_use]
    pub fn key(&self, file: &LtxObject) -> Key {
        Key::Ltx(LtxKey { chain: self.chain, level: file.level, txids: file.txids })
    }
}

/// Plans a restore of the newest state (`None`), or of exactly `txid`.
///
/// # Errors
/// [`RestoreError::Chain`]: no snapshot, a gap before a later file, or a TXID that no set of files ends at.
pub fn plan(inventory: &Inventory, txid: Option<Txid>) -> Result<Plan, RestoreError> {
    let planner = Planner::new(inventory);
    let newest = planner.newest().ok_or_else(|| no_files(inventory.chain))?;
    let target = txid.unwrap_or(newest);
    let files = planner.files_to(target);
    match files.last() {
        Some(last) if last.txids.max() == target => {
            Ok(Plan { chain: inventory.chain, files: Arc::new(files), txid: target })
        }
        reached => Err(unreachable(inventory, target, reached.map(|file| file.txids.max()))),
    }
}

/// A chain's files in the order in which a plan looks at them.
struct Planner<'a> {
    /// Snapshots of level 9, by ascending end.
    snapshots: Vec<&'a LtxObject>,
    /// Files of the levels below 9, by ascending start.
    files: Vec<&'a LtxObject>,
}

impl<'a> Planner<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        let (mut snapshots, mut files): (Vec<&LtxObject>, Vec<&LtxObject>) =
            inventory.files.iter().partition(|file| file.level == Level::SNAPSHOT);
        snapshots.retain(|file| file.txids.is_snapshot());
        snapshots.sort_by_key(|file| file.txids.max());
        files.sort_by_key(|file| file.txids.min());
        Self { snapshots, files }
    }

    /// The newest TXID in any file.
    fn newest(&self) -> Option<Txid> {
        self.snapshots.iter().chain(&self.files).map(|file| file.txids.max()).max()
    }

    /// The files that come nearest to `target` from below, oldest first.
    fn files_to(&self, target: Txid) -> Vec<LtxObject> {
        let before = self.snapshots.partition_point(|file| file.txids.max() <= target);
        let mut chosen: Vec<LtxObject> =
            self.snapshots[..before].last().map(|file| **file).into_iter().collect();
        let mut best: Option<&LtxObject> = None;
        let mut next = 0;
        loop {
            let reached = chosen.last().map_or(0, |file| file.txids.max().get());
            while let Some(file) = self
                .files
                .get(next)
                .filter(|file| file.txids.min().get() <= reached.saturating_add(1))
            {
                next += 1;
                if file.txids.max() <= target && best.is_none_or(|best| is_better(file, best)) {
                    best = Some(file);
                }
            }
            match best {
                Some(file) if file.txids.max().get() > reached => chosen.push(*file),
                _ => return chosen,
            }
        }
    }
}

fn is_better(file: &LtxObject, than: &LtxObject) -> bool {
    let rank =
        |file: &LtxObject| (file.txids.max(), std::cmp::Reverse(file.txids.min()), file.level);
    rank(file) > rank(than)
}

/// The first TXIDs past `reached` that no file has, although a file after them exists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// First missing.
    pub(super) from: Txid,
    /// Last missing.
    pub(super) to: Txid,
    /// The first file after the hole.
    pub(super) before: LtxObject,
}

/// Looks for a hole right after `reached` (0: from the beginning).
pub(super) fn gap_after(inventory: &Inventory, reached: Option<Txid>) -> Option<Gap> {
    let from = reached.map_or(Txid::FIRST, Txid::next);
    let covers = |file: &&LtxObject| file.txids.min() <= from && from <= file.txids.max();
    if inventory.files.iter().any(|file| covers(&file)) {
        return None;
    }
    let before = *inventory
        .files
        .iter()
        .filter(|file| file.txids.min() > from)
        .min_by_key(|file| (file.txids.min(), file.txids.max(), file.level))?;
    let to = Txid::new(before.txids.min().get() - 1).ok()?;
    Some(Gap { from, to, before })
}

impl Gap {
    /// The hole as an error, for somebody who asked for a point past it.
    pub(super) fn refusal(&self, inventory: &Inventory, reached: Option<Txid>) -> RestoreError {
        let chain = inventory.chain;
        let missing = if self.from == self.to {
            format!("TXID {} is", self.from)
        } else {
            format!("TXIDs {} to {} are", self.from, self.to)
        };
        let hint = match reached {
            Some(txid) => format!("the newest state before the gap: --txid {txid}"),
            None => "the chain's oldest files are lost; look for another generation".to_owned(),
        };
        RestoreError::Chain {
            message: format!(
                "generation {chain}: {missing} missing before level {} file {}\nHINT: {hint}",
                self.before.level,
                self.before.txids.file_name(),
            ),
        }
    }
}

fn no_files(chain: Chain) -> RestoreError {
    RestoreError::Chain { message: format!("generation {chain}: no files") }
}

fn unreachable(inventory: &Inventory, target: Txid, reached: Option<Txid>) -> RestoreError {
    let chain = inventory.chain;
    if reached.is_none() && !inventory.files.iter().any(|file| file.txids.is_snapshot()) {
        return RestoreError::Chain {
            message: format!(
                "generation {chain}: no snapshot (no file starts at TXID {})",
                Txid::FIRST
            ),
        };
    }
    let newest = inventory.files.iter().map(|file| file.txids.max()).max();
    if newest.is_some_and(|newest| target <= newest)
        && let Some(gap) = gap_after(inventory, reached).filter(|gap| gap.from <= target)
    {
        return gap.refusal(inventory, reached);
    }
    let message = match newest {
        Some(newest) if target > newest => {
            format!("generation {chain}: TXID {target} is after the newest, {newest}")
        }
        _ => format!(
            "generation {chain}: TXID {target} cannot be reached: no file ends there, or its predecessors are gone"
        ),
    };
    RestoreError::Chain {
        message: format!("{message}\nHINT: `shipper points` lists the TXIDs that can be restored"),
    }
}
