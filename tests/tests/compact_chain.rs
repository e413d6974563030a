//! Compacting one chain: nothing that could be restored is lost, and nothing is written that another run would not
//! have written.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::format::{Checksum, Decoder, Encoder, Header, Level, Txid, TxidRange};
use replica::restore::Inventory;
use replica::store::{Key, LtxKey, Store};
use seaworthy_tests::faulty_store::{Fault, Faults, FaultyStore, When};
use seaworthy_tests::made_chain::{MadeChain, Recipe, contents, put};
use seaworthy_tests::memory_store::{Condition, MemoryStore};
use seaworthy_tests::seed::seed;
use verifier::compact::{Bench, Report, compact_chain};
use verifier::record::{Status, Verdict};

fn txid(txid: u64) -> Txid {
    Txid::new(txid).unwrap()
}

/// What a run does up to `limit`, from what the store lists now.
async fn compact(store: &Arc<dyn Store>, made: &MadeChain, limit: u64) -> (Report, Inventory) {
    let inventory = Inventory::read(&**store, made.chain).await.unwrap();
    compact_listed(store, inventory, limit).await
}

/// The same from an earlier listing.
async fn compact_listed(
    store: &Arc<dyn Store>,
    mut inventory: Inventory,
    limit: u64,
) -> (Report, Inventory) {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench { store: Arc::clone(store), directory: directory.path(), deadline: None };
    let mut report = Report::new("app");
    compact_chain(&bench, &mut inventory, txid(limit), &mut report).await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "left behind");
    (report, inventory)
}

fn files_out(report: &Report) -> u64 {
    report.levels.values().map(|figures| figures.files_out).sum()
}

/// A store that holds a chain and nothing else.
async fn filled(made: &MadeChain) -> Arc<dyn Store> {
    let store = MemoryStore::new(Condition::Honoured);
    made.put(&store).await;
    Arc::new(store)
}

/// What one undisturbed run makes of a chain.
async fn reference(made: &MadeChain) -> Vec<(LtxKey, Bytes)> {
    let store = filled(made).await;
    let (report, _) = compact(&store, made, made.newest()).await;
    assert_eq!(report.verdict, Verdict::Pass, "{report:?}");
    contents(&*store, made.chain).await
}

/// Gives what was made of the chain at last.
async fn every_restore_point_survives(recipe: Recipe, stride: usize) -> Vec<(LtxKey, Bytes)> {
    let made = MadeChain::make(recipe);
    let store = filled(&made).await;
    let mut random = StdRng::seed_from_u64(recipe.seed);
    let before = Inventory::read(&*store, made.chain).await.unwrap();
    made.restores(&store, &before, recipe.txids).await;
    // A run now and then, as far as was shipped by then.
    let mut limit = 1;
    while limit < recipe.txids {
        limit = (limit + random.random_range(1..recipe.txids)).min(recipe.txids);
        let (report, inventory) = compact(&store, &made, limit).await;
        assert_eq!((report.verdict, report.windows_left), (Verdict::Pass, 0), "{report:?}");
        let listed = Inventory::read(&*store, made.chain).await.unwrap();
        let names = |inventory: &Inventory| {
            let mut names: Vec<_> =
                inventory.files.iter().map(|file| (file.level, file.txids, file.size)).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&inventory), names(&listed), "it knows what it made");
    }
    let (again, inventory) = compact(&store, &made, recipe.txids).await;
    assert_eq!((files_out(&again), again.verdict), (0, Verdict::Pass), "nothing is left to do");
    // A snapshot, then at most 63 files of each level.
    let bound = 1 + 63 * 3;
    let points = (1..=recipe.txids).step_by(stride);
    for point in points.chain([63, 64, 65, recipe.txids - 1, recipe.txids]) {
        let objects = made.restores(&store, &inventory, point).await;
        assert!(objects <= bound, "TXID {point} takes {objects} objects");
    }
    let after = contents(&*store, made.chain).await;
    assert!(made.files.iter().all(|file| after.contains(file)), "what was shipped is untouched");
    assert_eq!(after, reference(&made).await, "in steps or at once, the bytes are the same");
    after
}

#[tokio::test]
async fn every_restore_point_survives_and_few_files_lead_to_it() {
    for (usual, page_size, checksummed) in [(3, 512, true), (4, 1024, false), (5, 4096, true)] {
        let seed = seed(usual);
        let txids = StdRng::seed_from_u64(seed).random_range(130..400);
        let recipe = Recipe { seed, txids, page_size, checksummed };
        every_restore_point_survives(recipe, 3).await;
    }
}

#[tokio::test]
async fn so_they_do_over_several_levels() {
    let seed = seed(2);
    let recipe = Recipe { seed, txids: 4_400, page_size: 512, checksummed: true };
    let made = every_restore_point_survives(recipe, 173).await;
    let of = |level| made.iter().filter(|(key, _)| key.level.get() == level).count();
    assert_eq!((of(1), of(2), of(3)), (68, 1, 0));
}

const SMALL: Recipe = Recipe { seed: 7, txids: 140, page_size: 512, checksummed: true };

/// Everything that was made is as an undisturbed run makes it.
fn nothing_else(found: &[(LtxKey, Bytes)], reference: &[(LtxKey, Bytes)], what: &str) {
    for file in found {
        assert!(reference.contains(file), "{what}: level {} {}", file.0.level, file.0.txids);
    }
}

#[tokio::test]
async fn a_fault_at_any_call_leaves_whole_files_and_the_next_run_completes() {
    let made = MadeChain::make(SMALL);
    let reference = reference(&made).await;
    let faults = Faults::default();
    let counted: Arc<dyn Store> = Arc::new(FaultyStore::new(filled(&made).await, faults.clone()));
    compact(&counted, &made, SMALL.txids).await;
    let calls = faults.calls();
    assert!(calls > 10 + 126, "{calls}");
    // Not the listings, which only look; of the reads every seventh.
    for call in
        (11..=calls).filter(|call| call % 7 == 0 || *call > calls - 4 || *call > 70 && *call < 80)
    {
        for fault in [Fault::Before, Fault::After, Fault::Truncated, Fault::Late(9), Fault::Denied]
        {
            let what = format!("{fault:?} at call {call}");
            let store = filled(&made).await;
            let faults = Faults::default();
            faults.at(call, fault);
            let faulty: Arc<dyn Store> =
                Arc::new(FaultyStore::new(Arc::clone(&store), faults.clone()));
            let (report, _) = compact(&faulty, &made, SMALL.txids).await;
            assert_eq!(faults.fired(), 1, "{what}");
            assert_eq!(report.verdict, Verdict::Inconclusive, "{what}: {report:?}");
            nothing_else(&contents(&*store, made.chain).await, &reference, &what);
            let (report, _) = compact(&faulty, &made, SMALL.txids).await;
            assert_eq!(report.verdict, Verdict::Pass, "{what}, then: {report:?}");
            assert_eq!(contents(&*store, made.chain).await, reference, "{what}, then");
        }
    }
}

#[tokio::test]
async fn a_death_before_or_after_an_upload_leaves_whole_files() {
    let made = MadeChain::make(SMALL);
    let reference = reference(&made).await;
    // Ten listings, 126 reads, two writes.
    for call in (70..=138).filter(|call| call % 4 == 0 || *call > 134) {
        for when in [When::Before, When::After] {
            let what = format!("death {when:?} call {call}");
            let store = filled(&made).await;
            let faults = Faults::default();
            faults.stop_at(call, when);
            let dying: Arc<dyn Store> =
                Arc::new(FaultyStore::new(Arc::clone(&store), faults.clone()));
            compact(&dying, &made, SMALL.txids).await;
            nothing_else(&contents(&*store, made.chain).await, &reference, &what);
            faults.restart();
            let (report, _) = compact(&dying, &made, SMALL.txids).await;
            assert_eq!(report.verdict, Verdict::Pass, "{what}, then: {report:?}");
            assert_eq!(contents(&*store, made.chain).await, reference, "{what}, then");
        }
    }
}

#[tokio::test]
async fn two_at_once_make_the_same() {
    for condition in [Condition::Honoured, Condition::Ignored, Condition::Refused] {
        let recipe = Recipe { txids: 400, ..SMALL };
        let made = MadeChain::make(recipe);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(condition));
        for (key, content) in &made.files {
            store.put_document(&Key::Ltx(*key), content.clone()).await.unwrap();
        }
        // Both have looked before either has written.
        let listed = Inventory::read(&*store, made.chain).await.unwrap();
        let (one, other) = tokio::join!(
            compact_listed(&store, listed.clone(), recipe.txids),
            compact_listed(&store, listed, recipe.txids)
        );
        for (report, _) in [one, other] {
            assert_eq!(report.verdict, Verdict::Pass, "{condition:?}: {report:?}");
            assert_eq!(files_out(&report), 6);
        }
        assert_eq!(contents(&*store, made.chain).await, reference(&made).await, "{condition:?}");
    }
}

#[tokio::test]
async fn another_file_in_the_place_is_reported_and_left() {
    let made = MadeChain::make(SMALL);
    let store = filled(&made).await;
    let listed = Inventory::read(&*store, made.chain).await.unwrap();
    let txids = TxidRange::new(txid(2), txid(63)).unwrap();
    let key = LtxKey { chain: made.chain, level: Level::new(1).unwrap(), txids };
    let foreign = made.files[5].1.clone();
    put(&*store, &key, foreign.clone()).await;
    let (report, _) = compact_listed(&store, listed, SMALL.txids).await;
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    assert!(finding.detail.contains("exists already with other content"), "{finding:?}");
    assert_eq!((report.verdict, report.windows_left), (Verdict::Inconclusive, 1));
    let after = contents(&*store, made.chain).await;
    assert!(after.contains(&(key, foreign)), "it is left as it is");
    assert_eq!(files_out(&report), 1, "the other window is made");
}

#[tokio::test]
async fn a_damaged_input_stops_its_own_window_and_is_named() {
    for at in [30, 200, -20] {
        let made = MadeChain::make(Recipe { txids: 200, ..SMALL });
        let store = filled(&made).await;
        let (key, content) = &made.files[99];
        let mut bytes = content.to_vec();
        let at = usize::try_from(at).unwrap_or(bytes.len() - 20);
        bytes[at] ^= 0x10;
        store.put_document(&Key::Ltx(*key), bytes.into()).await.unwrap();
        let (report, inventory) = compact(&store, &made, 200).await;
        let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
        assert_eq!((finding.status, report.verdict), (Status::Fail, Verdict::Fail), "{finding:?}");
        let named = store.locate(&Key::Ltx(*key));
        assert!(
            finding.detail.contains(&named) && finding.detail.contains("offset "),
            "{finding:?}"
        );
        assert_eq!((report.windows_left, files_out(&report)), (1, 2), "{report:?}");
        made.restores(&store, &inventory, 63).await;
        made.restores(&store, &inventory, 99).await;
    }
}

#[tokio::test]
async fn one_that_is_right_but_not_of_this_chain_is_named() {
    let made = MadeChain::make(Recipe { txids: 200, ..SMALL });
    let store = filled(&made).await;
    let (key, content) = &made.files[99];
    let mut decoder = Decoder::new(content.as_ref()).unwrap();
    let header = Header { pre_apply: Checksum::from_raw(1 << 63 | 5), ..*decoder.header() };
    let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
    let mut page = vec![0; header.page_size.len()];
    while let Some(number) = decoder.next_page(&mut page).unwrap() {
        encoder.page(number, &page).unwrap();
    }
    let content = encoder.finish(decoder.finish().unwrap().post_apply).unwrap().out;
    store.put_document(&Key::Ltx(*key), content.into()).await.unwrap();
    let (report, _) = compact(&store, &made, 200).await;
    assert_eq!((report.verdict, files_out(&report)), (Verdict::Fail, 2));
    let detail = &report.findings[0].detail;
    assert!(detail.contains(&store.locate(&Key::Ltx(*key))), "{detail}");
    assert!(detail.contains("pre-apply checksum: expected"), "{detail}");
}

#[tokio::test]
async fn nothing_is_made_over_a_gap() {
    let made = MadeChain::make(Recipe { txids: 200, ..SMALL });
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Condition::Honoured));
    for (key, content) in made.files.iter().filter(|(key, _)| key.txids.min().get() != 100) {
        put(&*store, key, content.clone()).await;
    }
    let (report, inventory) = compact(&store, &made, 200).await;
    assert_eq!((report.verdict, files_out(&report)), (Verdict::Fail, 2), "{report:?}");
    assert!(report.findings[0].detail.contains("TXID 0000000000000064 is in no file: a gap"));
    let over = |file: &&replica::store::LtxObject| {
        file.txids.min().get() < 100 && file.txids.max().get() > 100
    };
    assert_eq!(inventory.files.iter().find(over), None);
}

#[tokio::test]
async fn what_the_deadline_leaves_is_said() {
    let made = MadeChain::make(Recipe { txids: 200, ..SMALL });
    let store = filled(&made).await;
    let directory = tempfile::tempdir().unwrap();
    let deadline = Some(Instant::now());
    let bench = Bench { store: Arc::clone(&store), directory: directory.path(), deadline };
    let mut inventory = Inventory::read(&*store, made.chain).await.unwrap();
    let mut report = Report::new("app");
    compact_chain(&bench, &mut inventory, txid(200), &mut report).await;
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    assert!(finding.detail.starts_with("deadline reached with 3 windows of level 1 left"));
    assert_eq!((report.verdict, report.windows_left), (Verdict::Inconclusive, 3), "{report:?}");
}
