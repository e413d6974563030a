//! Which files are merged into which. Pure.
//!
//! Level 1 has a file for every 64 TXIDs, level 2 for every 4,096, level 3 for every 262,144 (a week of one-second syncs
//! is 604,800): the windows `k * size ..= (k + 1) * size - 1`, so that they follow from the TXIDs alone, whoever looks, and
//! whenever. The first one begins at TXID 2: TXID 1 is the generation's first snapshot, and a file that begins with it would be
//! one more copy of the whole database in each level. At any time a restore needs a snapshot, the files of level 3 after it, and
//! at most 63 of each level below.

use replica::format::{Level, Txid, TxidRange};
use replica::restore::Inventory;
use replica::store::LtxObject;

/// Files of one level in a file of the next.
pub const FAN_OUT: u64 = 64;
/// The levels that are made, lowest first.
pub const LEVELS: [u8; 3] = [1, 2, 3];

/// Files to be merged into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window<'a> {
    /// The level of the result.
    pub level: Level,
    /// The TXIDs of the result.
    pub txids: TxidRange,
    /// The files, oldest first: each begins where the one before it ends.
    pub inputs: Vec<&'a LtxObject>,
}

impl Window<'_> {
    /// Size of the inputs together, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.size).sum()
    }
}

/// A whole window that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The TXIDs of the window.
    pub txids: TxidRange,
    /// The first one that no file of the level below begins at.
    pub missing: Txid,
}

/// What is to be done at one level.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Planned<'a> {
    /// The windows, oldest first.
    pub windows: Vec<Window<'a>>,
    /// Those that have a gap. Above level 1, a window that could not be made below is one.
    pub gaps: Vec<Gap>,
}

/// The windows of `level` (1 to 3) that end at or before `limit` and that no file of it or of a level above has yet.
#[must_use]
pub fn windows(inventory: &Inventory, level: Level, limit: Txid) -> Planned<'_> {
    let mut planned = Planned::default();
    let size = FAN_OUT.pow(u32::from(level.get()));
    let below = below(inventory, level);
    let done = done(inventory, level);
    for index in 0.. {
        let Some(txids) = window(index, size) else { break };
        if txids.max() > limit {
            break;
        }
        if is_done(&done, txids) {
            continue;
        }
        match inputs(&below, txids) {
            Ok(inputs) => planned.windows.push(Window { level, txids, inputs }),
            Err(missing) => planned.gaps.push(Gap { txids, missing }),
        }
    }
    planned
}

/// The TXIDs of the window with this number, counted from 0.
fn window(index: u64, size: u64) -> Option<TxidRange> {
    let min = index.checked_mul(size)?;
    let max = min.checked_add(size - 1)?;
    TxidRange::new(Txid::new(min.max(2)).ok()?, Txid::new(max).ok()?).ok()
}

/// The files of the level below, by ascending start; of several that begin together, the longest last.
fn below(inventory: &Inventory, level: Level) -> Vec<&LtxObject> {
    let mut files: Vec<&LtxObject> =
        inventory.files.iter().filter(|file| file.level.get() + 1 == level.get()).collect();
    files.sort_unstable_by_key(|file| (file.txids.min(), file.txids.max()));
    files
}

/// What the files of `level` and those above it cover, by ascending start; snapshots are not meant.
fn done(inventory: &Inventory, level: Level) -> Vec<TxidRange> {
    let made = |file: &&LtxObject| file.level >= level && file.level != Level::SNAPSHOT;
    let mut ranges: Vec<TxidRange> =
        inventory.files.iter().filter(made).map(|file| file.txids).collect();
    ranges.sort_unstable();
    // One that lies in another says nothing more, and without them the ends ascend, too.
    let mut widest: Vec<TxidRange> = Vec::new();
    for range in ranges {
        widest.pop_if(|last| TxidRange::min(*last) == range.min());
        if widest.last().is_none_or(|last| TxidRange::max(*last) < range.max()) {
            widest.push(range);
        }
    }
    widest
}

fn is_done(done: &[TxidRange], txids: TxidRange) -> bool {
    let after = done.partition_point(|range| TxidRange::min(*range) <= txids.min());
    done[..after].last().is_some_and(|range| TxidRange::max(*range) >= txids.max())
}

/// The files that make up exactly `txids`, or the first TXID that none begins at.
fn inputs<'a>(below: &[&'a LtxObject], txids: TxidRange) -> Result<Vec<&'a LtxObject>, Txid> {
    let mut inputs: Vec<&LtxObject> = Vec::new();
    let mut at = txids.min();
    loop {
        let from = below.partition_point(|file| file.txids.min() < at);
        let begin_here = below[from..].iter().take_while(|file| file.txids.min() == at);
        let fits = begin_here.filter(|file| file.txids.max() <= txids.max());
        let file = *fits.last().ok_or(at)?;
        inputs.push(file);
        if file.txids.max() == txids.max() {
            return Ok(inputs);
        }
        at = file.txids.max().next();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;
    use replica::store::Chain;

    use super::*;

    fn txid(txid: u64) -> Txid {
        Txid::new(txid).unwrap()
    }

    fn file(level: u8, min: u64, max: u64) -> LtxObject {
        LtxObject {
            level: Level::new(level).unwrap(),
            txids: TxidRange::new(txid(min), txid(max)).unwrap(),
            size: 100,
            modified: Timestamp::UNIX_EPOCH,
        }
    }

    fn inventory(files: impl IntoIterator<Item = LtxObject>) -> Inventory {
        Inventory::new(Chain::Root, files.into_iter().collect())
    }

    fn planned(inventory: &Inventory, level: u8, limit: u64) -> (Vec<(u64, u64, usize)>, Vec<u64>) {
        let planned = windows(inventory, Level::new(level).unwrap(), txid(limit));
        let shown = |window: &Window<'_>| {
            let txids = window.txids;
            (txids.min().get(), txids.max().get(), window.inputs.len())
        };
        let gaps = planned.gaps.iter().map(|gap| gap.missing.get()).collect();
        (planned.windows.iter().map(shown).collect(), gaps)
    }

    #[test]
    fn only_whole_windows_and_none_beyond_the_limit() {
        let syncs = inventory((1..=200).map(|txid| file(0, txid, txid)));
        assert_eq!(planned(&syncs, 1, 62).0, []);
        assert_eq!(planned(&syncs, 1, 63).0, [(2, 63, 62)]);
        assert_eq!(planned(&syncs, 1, 200).0, [(2, 63, 62), (64, 127, 64), (128, 191, 64)]);
        assert_eq!(planned(&syncs, 2, 200), (vec![], vec![]));
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let mut files: Vec<_> = (1..=200).map(|txid| file(0, txid, txid)).collect();
        files.push(file(1, 64, 127));
        assert_eq!(planned(&inventory(files.clone()), 1, 200).0, [(2, 63, 62), (128, 191, 64)]);
        // A level above has it, and a snapshot has not: it is one state only.
        files.extend([file(3, 2, 127), file(9, 1, 200)]);
        assert_eq!(planned(&inventory(files), 1, 200).0, [(128, 191, 64)]);
    }

    #[test]
    fn a_gap_stops_its_own_window() {
        let syncs = (1..=200).filter(|txid| *txid != 70).map(|txid| file(0, txid, txid));
        let (windows, gaps) = planned(&inventory(syncs), 1, 200);
        assert_eq!(windows, [(2, 63, 62), (128, 191, 64)]);
        assert_eq!(gaps, [70]);
    }

    #[test]
    fn files_of_more_than_one_txid_are_taken_where_they_line_up() {
        let syncs = [file(0, 2, 40), file(0, 2, 41), file(0, 42, 63), file(0, 64, 130)];
        let (windows, gaps) = planned(&inventory(syncs), 1, 127);
        assert_eq!(windows, [(2, 63, 2)]);
        assert_eq!(gaps, [64], "a file that reaches beyond the window is no part of it");
    }

    #[test]
    fn a_week_of_one_second_syncs_is_few_files() {
        let newest = 7 * 24 * 3600 + 1;
        let mut all = inventory((1..=newest).map(|txid| file(0, txid, txid)));
        all.files[0].level = Level::SNAPSHOT;
        for level in LEVELS {
            let planned = windows(&all, Level::new(level).unwrap(), txid(newest));
            assert!(planned.gaps.is_empty() && planned.windows.len() > 1);
            let made = planned.windows.iter().map(|window| {
                assert!(window.inputs.len() as u64 <= FAN_OUT);
                LtxObject { level: window.level, txids: window.txids, ..all.files[0] }
            });
            let made: Vec<LtxObject> = made.collect();
            all.files.extend(made);
        }
        let plan = replica::restore::plan(&all, None).unwrap();
        assert_eq!(plan.files.len(), 1 + 2 + 19 + 42 + 2, "{newest:x}");
        // Any point in between, too.
        for past in [newest / 3, 262_143, 262_142, 4_095 * 63, 65] {
            let plan = replica::restore::plan(&all, Some(txid(past))).unwrap();
            assert!(plan.files.len() < 4 + 3 * 63, "{past}: {}", plan.files.len());
        }
    }
}
