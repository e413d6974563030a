//! Every state of a chain with the size of its plan, in one pass over the files. Pure.
//!
//! The plan for a target is the one for the TXID before it, unless a file ends at the target: then it is that plan cut off
//! behind the first file from whose end such a file can start, and that file. (The greedy choice of [`plan`](super::plan())
//! differs only from there on, and a file that ends at the target is the best there is.) So the plan is kept as a stack, on
//! which every end is put once: near-linear, where a plan of its own for each state takes the square.

use std::cmp::Reverse;

use crate::format::{Level, Txid};
use crate::restore::Inventory;
use crate::store::LtxObject;

/// A state that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State<'a> {
    /// Which.
    pub(super) txid: Txid,
    /// Size of the files of its plan, bytes.
    pub(super) bytes: u64,
    /// The file that knows best when it was committed ([`Inventory::witness`]).
    pub(super) witness: &'a LtxObject,
}

/// The states of a chain, ascending.
pub(super) struct Walk<'a> {
    /// By end; of those that end together the best witness first.
    files: Vec<&'a LtxObject>,
    /// How many of them were passed.
    passed: usize,
    /// The plan of the last state: after each file its end, and the bytes so far.
    plan: Vec<(Txid, u64)>,
    /// The first of them is a snapshot of level 9, from which every later plan starts.
    based: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(inventory: &'a Inventory) -> Self {
        let mut files: Vec<&LtxObject> = inventory.files.iter().collect();
        files
            .sort_unstable_by_key(|file| (file.txids.max(), file.level, Reverse(file.txids.min())));
        Self { files, passed: 0, plan: Vec::new(), based: false }
    }

    /// How many files of the plan a file that starts at `min` goes on from; `None` where it starts behind its end.
    fn kept(&self, min: Txid) -> Option<usize> {
        let before = min.get() - 1;
        if before == 0 && !self.based {
            return Some(0);
        }
        let short = self.plan.partition_point(|(end, _)| end.get() < before);
        (short < self.plan.len()).then_some(short + 1)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = State<'a>;

    fn next(&mut self) -> Option<State<'a>> {
        loop {
            let left = &self.files[self.passed..];
            let witness = *left.first()?;
            let txid = witness.txids.max();
            let together = left.iter().take_while(|file| file.txids.max() == txid).count();
            let ending = &left[..together];
            self.passed += together;
            let snapshot =
                |file: &&&LtxObject| file.level == Level::SNAPSHOT && file.txids.is_snapshot();
            let (kept, file) = if let Some(file) = ending.iter().find(snapshot) {
                self.based = true;
                (0, file)
            } else {
                let usable = ending.iter().filter(|file| file.level != Level::SNAPSHOT);
                let first = usable.min_by_key(|file| (file.txids.min(), Reverse(file.level)));
                let Some(file) = first else { continue };
                let Some(kept) = self.kept(file.txids.min()) else { continue };
                (kept, file)
            };
            self.plan.truncate(kept);
            let bytes = self.plan.last().map_or(0, |(_, bytes)| *bytes) + file.size;
            self.plan.push((txid, bytes));
            return Some(State { txid, bytes, witness });
        }
    }
}

/// Every TXID that a plan can end at, ascending.
pub(super) fn reachable(inventory: &Inventory) -> Vec<Txid> {
    Walk::new(inventory).map(|state| state.txid).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::format::TxidRange;
    use crate::restore::plan;
    use crate::store::Chain;

    const LAST: u64 = 14;

    fn inventory(files: impl IntoIterator<Item = (u8, u64, u64)>) -> Inventory {
        let txid = |number| Txid::new(number).unwrap();
        let file = |(number, (level, min, max))| LtxObject {
            level: Level::new(level).unwrap(),
            txids: TxidRange::new(txid(min), txid(max)).unwrap(),
            // Each sum of sizes says which files it is of.
            size: 1_u64 << number,
            modified: Timestamp::UNIX_EPOCH,
        };
        Inventory::new(Chain::Root, (0_u32..).zip(files).map(file).collect())
    }

    /// What every state is by definition: a plan of its own.
    fn planned_one_by_one(inventory: &Inventory) -> Vec<State<'_>> {
        let state = |number| {
            let txid = Txid::new(number).unwrap();
            let bytes = plan(inventory, Some(txid)).ok()?.bytes();
            Some(State { txid, bytes, witness: inventory.witness(txid).unwrap() })
        };
        (1..=LAST).filter_map(state).collect()
    }

    #[test]
    fn the_states_and_their_sizes_are_those_of_a_plan_each() {
        let mut random = StdRng::seed_from_u64(1);
        let mut seen = BTreeSet::new();
        for _ in 0..20_000 {
            let syncs = random.random_bool(0.7);
            let lost = random.random_range(0.0..0.3);
            let mut files: BTreeSet<(u8, u64, u64)> = (1..=LAST)
                .filter(|_| syncs && !random.random_bool(lost))
                .map(|number| (0, number, number))
                .collect();
            for _ in 0..random.random_range(0..14) {
                let min = if random.random_bool(0.3) { 1 } else { random.random_range(1..=LAST) };
                let max = random.random_range(min..=LAST);
                let levels: &[u8] = if random.random_bool(0.5) { &[0, 1, 2] } else { &[8, 9] };
                files.insert((levels[random.random_range(0..levels.len())], min, max));
            }
            let inventory = inventory(files.iter().copied());
            let walked: Vec<State<'_>> = Walk::new(&inventory).collect();
            assert_eq!(walked, planned_one_by_one(&inventory), "{files:?}");
            seen.insert(walked.len());
        }
        assert!(seen.len() > 10, "the chains are all alike: {seen:?}");
    }

    #[test]
    fn a_week_of_syncs_is_walked_at_once() {
        let mut many = inventory([(9, 1, 1)]);
        let first = many.files[0];
        for number in 2..=600_000 {
            let txids = TxidRange::single(Txid::new(number).unwrap());
            many.files.push(LtxObject { level: Level::SYNC, txids, ..first });
        }
        let last = Walk::new(&many).last().unwrap();
        assert_eq!((last.txid.get(), last.bytes), (600_000, 600_000));
    }
}
