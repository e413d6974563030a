//! The restore plan against brute force: it exists exactly where some choice of files reaches the target, and then
//! it is contiguous and ends there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;
use replica::format::{Level, Txid, TxidRange};
use replica::restore::{Inventory, Plan, plan};
use replica::store::{Chain, LtxObject};

const LAST: u64 = 12;

fn txid(value: u64) -> Txid {
    Txid::new(value).unwrap()
}

fn file(level: u8, min: u64, max: u64) -> LtxObject {
    LtxObject {
        level: Level::new(level).unwrap(),
        txids: TxidRange::new(txid(min), txid(max)).unwrap(),
        size: 1,
        modified: Timestamp::UNIX_EPOCH,
    }
}

fn inventory(files: impl IntoIterator<Item = (u8, u64, u64)>) -> Inventory {
    let set: BTreeSet<(u8, u64, u64)> = files.into_iter().collect();
    Inventory::new(Chain::Root, set.into_iter().map(|(l, a, b)| file(l, a, b)).collect())
}

fn names(plan: &Plan) -> Vec<String> {
    let span =
        |f: &LtxObject| format!("{}/{:x}-{:x}", f.level, f.txids.min().get(), f.txids.max().get());
    plan.files.iter().map(span).collect()
}

/// Any files, or (so that plans often exist) levels of consecutive files with some left out.
fn inventories() -> impl Strategy<Value = Inventory> {
    let range = (1..=LAST, 0..6_u64).prop_map(|(min, more)| (min, (min + more).min(LAST)));
    let any = prop::collection::vec(((0..=9_u8), range), 0..12)
        .prop_map(|files| inventory(files.into_iter().map(|(l, (a, b))| (l, a, b))));
    let layered = (
        prop::collection::vec(prop::bool::weighted(0.85), 12),
        prop::collection::vec(1..4_u64, 6),
        prop::collection::vec(1..=LAST, 0..3),
    )
        .prop_map(|(kept, widths, snapshots)| {
            let singles = (1..=LAST).zip(kept).filter(|(_, kept)| *kept).map(|(t, _)| (0, t, t));
            let mut start = 1;
            let compacted = widths.into_iter().map(move |width| {
                let from = start;
                start += width;
                (1, from, start - 1)
            });
            let compacted = compacted.filter(|(_, _, end)| *end <= LAST).skip(1);
            let snapshots = snapshots.into_iter().map(|end| (9, 1, end));
            inventory(singles.chain(compacted).chain(snapshots))
        });
    prop_oneof![any, layered]
}

/// Every state that files can lead to, one file after the other, by trying all.
fn brute_force(inventory: &Inventory) -> BTreeSet<u64> {
    let mut states = BTreeSet::from([0]);
    loop {
        let more: Vec<u64> = inventory
            .files
            .iter()
            .filter(|file| file.level != Level::SNAPSHOT || file.txids.is_snapshot())
            .filter(|file| {
                let (min, max) = (file.txids.min().get(), file.txids.max().get());
                states.iter().any(|state| min <= state + 1 && max > *state)
            })
            .map(|file| file.txids.max().get())
            .filter(|end| !states.contains(end))
            .collect();
        if more.is_empty() {
            states.remove(&0);
            return states;
        }
        states.extend(more);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_exists_exactly_where_files_lead(inventory in inventories()) {
        let states = brute_force(&inventory);
        for target in 1..=LAST {
            let found = plan(&inventory, Some(txid(target)));
            prop_assert_eq!(found.is_ok(), states.contains(&target), "to {:x}: {:?}", target, found);
            let Ok(plan) = found else { continue };
            prop_assert_eq!(plan.txid.get(), target);
            let mut reached = 0;
            for file in plan.files.iter() {
                prop_assert!(inventory.files.contains(file));
                prop_assert!(file.txids.min().get() <= reached + 1, "{:?}", names(&plan));
                prop_assert!(file.txids.max().get() > reached, "{:?}", names(&plan));
                reached = file.txids.max().get();
            }
            prop_assert_eq!(reached, target);
            let snapshot = inventory.files.iter().filter(|file| {
                file.level == Level::SNAPSHOT
                    && file.txids.is_snapshot()
                    && file.txids.max().get() <= target
            });
            if let Some(newest) = snapshot.max_by_key(|file| file.txids.max()) {
                prop_assert_eq!(&plan.files[0], newest);
            }
        }
    }

    #[test]
    fn the_latest_is_the_newest_file_or_nothing(inventory in inventories()) {
        let states = brute_force(&inventory);
        let newest = inventory
            .files
            .iter()
            .filter(|file| file.level != Level::SNAPSHOT || file.txids.is_snapshot())
            .map(|file| file.txids.max().get())
            .max();
        match plan(&inventory, None) {
            Ok(plan) => prop_assert_eq!(Some(plan.txid.get()), newest),
            Err(error) => {
                prop_assert!(newest.is_none_or(|newest| !states.contains(&newest)));
                prop_assert!(error.is_replica_fault());
            }
        }
    }
}

#[test]
fn ties_go_to_the_lower_start_then_the_higher_level() {
    let inventory =
        inventory([(9, 1, 3), (0, 4, 4), (1, 3, 6), (1, 4, 6), (2, 3, 6), (0, 5, 5), (0, 6, 6)]);
    assert_eq!(names(&plan(&inventory, None).unwrap()), ["9/1-3", "2/3-6"]);
}

#[test]
fn a_snapshot_counts_at_any_level() {
    let inventory = inventory([(0, 1, 1), (0, 2, 2), (2, 1, 4), (0, 5, 5)]);
    assert_eq!(names(&plan(&inventory, None).unwrap()), ["2/1-4", "0/5-5"]);
    assert_eq!(names(&plan(&inventory, Some(txid(2))).unwrap()), ["0/1-1", "0/2-2"]);
}

#[test]
fn a_gap_is_named() {
    let gap = inventory([(9, 1, 3), (0, 4, 4), (0, 7, 7), (0, 8, 8)]);
    for target in [None, Some(txid(7)), Some(txid(8))] {
        let error = plan(&gap, target).unwrap_err().to_string();
        assert!(
            error.contains("TXIDs 0000000000000005 to 0000000000000006 are missing"),
            "{error}"
        );
        assert!(error.contains("0000000000000007-0000000000000007.ltx"), "{error}");
        assert!(error.contains("HINT: the newest state before the gap: --txid 0000000000000004"));
    }
    assert!(plan(&gap, Some(txid(4))).is_ok());
    let beyond = plan(&gap, Some(txid(9))).unwrap_err().to_string();
    assert!(beyond.contains("after the newest"), "{beyond}");
    let no_start = plan(&inventory([(0, 2, 2), (0, 3, 3)]), None).unwrap_err().to_string();
    assert!(no_start.contains("no snapshot"), "{no_start}");
    assert!(plan(&inventory([]), None).unwrap_err().to_string().contains("no files"));
}

/// Names are anybody's: the largest TXID that one can hold is a number like any other.
#[test]
fn the_largest_txid_is_planned_for_like_any_other() {
    let files = inventory([(9, 1, 5), (0, 6, u64::MAX), (0, u64::MAX, u64::MAX)]);
    let plan = plan(&files, None).unwrap();
    assert_eq!(names(&plan), ["9/1-5", "0/6-ffffffffffffffff"]);
    let alone = inventory([(0, 1, u64::MAX), (0, 2, 2)]);
    assert_eq!(names(&replica::restore::plan(&alone, None).unwrap()), ["0/1-ffffffffffffffff"]);
}

/// A week of one-second syncs that nobody compacted.
#[test]
fn six_hundred_thousand_files_are_planned_at_once() {
    let many = inventory((1..=600_000).map(|n| (0, n, n)));
    let plan = plan(&many, None).unwrap();
    assert_eq!((plan.files.len(), plan.txid.get()), (600_000, 600_000));
}
