//! Compaction while the store or the disk fails: whatever happens when, every state restores to what it was, and a
//! later run completes with the bytes of an undisturbed one.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::format::{Decoder, Level, Txid, TxidRange};
use replica::restore::Inventory;
use replica::store::{Key, LtxKey, PutOutcome, Store};
use seaworthy_tests::drill_support::Surroundings;
use seaworthy_tests::faulty_store::{Fault, Faults, FaultyStore};
use seaworthy_tests::made_chain::{MadeChain, Recipe, contents};
use seaworthy_tests::memory_store::{Condition, MemoryStore};
use seaworthy_tests::mount::Mount;
use seaworthy_tests::seed::seed;
use seaworthy_tests::stores::file_root;
use serde_json::Value;
use verifier::compact::{Bench, Report, compact_chain, promote};
use verifier::drill::{Asked, InProcess, Proven, Request, drill};
use verifier::record::{Status, Verdict};

const FAULTS: [Fault; 6] =
    [Fault::Before, Fault::After, Fault::Late(3), Fault::Late(90), Fault::Denied, Fault::Truncated];
const CONDITIONS: [Condition; 3] = [Condition::Honoured, Condition::Ignored, Condition::Refused];

async fn filled(made: &MadeChain, condition: Condition) -> Arc<dyn Store> {
    let store = MemoryStore::new(condition);
    for (key, content) in &made.files {
        store.put_document(&Key::Ltx(*key), content.clone()).await.unwrap();
    }
    Arc::new(store)
}

/// A run; `None` where the store could not be listed.
async fn compact(store: &Arc<dyn Store>, made: &MadeChain) -> Option<Report> {
    let mut inventory = Inventory::read(&**store, made.chain).await.ok()?;
    Some(compact_listed(store, &mut inventory, made).await)
}

/// A run on an earlier listing.
async fn compact_listed(
    store: &Arc<dyn Store>,
    inventory: &mut Inventory,
    made: &MadeChain,
) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench { store: Arc::clone(store), directory: directory.path(), deadline: None };
    let mut report = Report::new("app");
    let limit = Txid::new(made.newest()).unwrap();
    compact_chain(&bench, inventory, limit, &mut report).await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "left behind");
    report
}

/// What there is now is what was shipped and some of what an undisturbed run makes, and states restore as ever.
async fn holds(
    store: &Arc<dyn Store>,
    made: &MadeChain,
    reference: &[(LtxKey, Bytes)],
    points: impl IntoIterator<Item = u64>,
) {
    let found = contents(&**store, made.chain).await;
    assert!(made.files.iter().all(|file| found.contains(file)), "what was shipped is untouched");
    for file in &found {
        assert!(reference.contains(file), "half-written: level {} {}", file.0.level, file.0.txids);
    }
    let inventory = Inventory::read(&**store, made.chain).await.unwrap();
    for point in points {
        made.restores(store, &inventory, point).await;
    }
}

#[tokio::test]
async fn however_often_the_store_fails_every_state_restores_and_a_later_run_completes() {
    let mut random = StdRng::seed_from_u64(seed(1));
    let mut disturbed = 0;
    for round in 0..12 {
        let recipe = Recipe {
            seed: random.random(),
            txids: random.random_range(130..260),
            page_size: 512,
            checksummed: round % 3 > 0,
        };
        let made = MadeChain::make(recipe);
        let undisturbed = filled(&made, Condition::Honoured).await;
        assert_eq!(compact(&undisturbed, &made).await.unwrap().verdict, Verdict::Pass);
        let reference = contents(&*undisturbed, made.chain).await;
        let store = filled(&made, CONDITIONS[round % 3]).await;
        let faults = Faults::default();
        faults.random(random.random(), [3, 10, 30][round / 4], &FAULTS);
        let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&store), faults.clone()));
        for _ in 0..6 {
            if let Some(report) = compact(&faulty, &made).await {
                assert_ne!(report.verdict, Verdict::Fail, "not the backup's fault: {report:?}");
                disturbed += u32::from(report.verdict == Verdict::Inconclusive);
            }
            let points = [(); 4].map(|()| random.random_range(1..=recipe.txids));
            holds(&store, &made, &reference, points).await;
        }
        assert!(faults.fired() > 0, "round {round}: no fault");
        faults.heal();
        let report = compact(&faulty, &made).await.unwrap();
        assert_eq!((report.verdict, report.windows_left), (Verdict::Pass, 0), "{report:?}");
        assert_eq!(contents(&*store, made.chain).await, reference);
        holds(&store, &made, &reference, (1..=recipe.txids).step_by(9)).await;
    }
    assert!(disturbed > 0, "no run was ever disturbed");
}

const SMALL: Recipe = Recipe { seed: 7, txids: 40, page_size: 4096, checksummed: true };

#[tokio::test]
async fn a_merged_file_bears_the_time_of_its_last_input() {
    let made = MadeChain::make(Recipe { txids: 130, ..SMALL });
    let store = filled(&made, Condition::Honoured).await;
    compact(&store, &made).await.unwrap();
    let time = |content: &Bytes| Decoder::new(content.as_ref()).unwrap().header().timestamp;
    let after = contents(&*store, made.chain).await;
    let merged: Vec<_> = after.iter().filter(|(key, _)| key.level.get() == 1).collect();
    assert_eq!(merged.len(), 2);
    for (key, content) in merged {
        let last = &made.files[usize::try_from(key.txids.max().get()).unwrap() - 1];
        assert_eq!(time(content), time(&last.1), "a restore to a time would choose another state");
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_window_stops_no_other_one() {
    let made = MadeChain::make(Recipe { txids: 800, page_size: 512, ..SMALL });
    let store = filled(&made, Condition::Honoured).await;
    let mut inventory = Inventory::read(&*store, made.chain).await.unwrap();
    // The first is damaged; of the second one input is longer than listed; the third's place is taken since.
    let mut damaged = made.files[20].1.to_vec();
    damaged[200] ^= 1;
    store.put_document(&Key::Ltx(made.files[20].0), damaged.into()).await.unwrap();
    let longer = [made.files[80].1.as_ref(), b"more"].concat();
    store.put_document(&Key::Ltx(made.files[80].0), longer.into()).await.unwrap();
    let txids = TxidRange::new(Txid::new(128).unwrap(), Txid::new(191).unwrap()).unwrap();
    let taken = LtxKey { chain: made.chain, level: Level::new(1).unwrap(), txids };
    store.put_document(&Key::Ltx(taken), made.files[9].1.clone()).await.unwrap();
    let report = compact_listed(&store, &mut inventory, &made).await;
    assert_eq!((report.levels[&1].files_out, report.windows_left), (9, 3), "{report:?}");
    let mut found: Vec<_> =
        report.findings.iter().map(|finding| (finding.name.as_str(), finding.status)).collect();
    found.sort_by_key(|(name, _)| *name);
    let window = "window: level 1 0000000000000";
    assert_eq!(found.len(), 3, "{found:?}");
    for ((name, status), (txid, expected)) in
        found.iter().zip([("002", Status::Fail), ("040", Status::Error), ("080", Status::Error)])
    {
        assert!(name.starts_with(&format!("{window}{txid}")), "{found:?}");
        assert_eq!(*status, expected, "{found:?}");
    }
}

#[tokio::test]
async fn a_store_out_of_reach_is_not_asked_for_every_window() {
    let made = MadeChain::make(Recipe { txids: 800, page_size: 512, ..SMALL });
    let store = filled(&made, Condition::Honoured).await;
    let mut inventory = Inventory::read(&*store, made.chain).await.unwrap();
    let faults = Faults::default();
    faults.outage(true);
    let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(store, faults.clone()));
    let report = compact_listed(&faulty, &mut inventory, &made).await;
    assert_eq!((report.verdict, report.windows_left), (Verdict::Inconclusive, 12));
    assert!(faults.calls() <= 4 * 64, "{} calls", faults.calls());
}

/// A copy of the newest state that a drill has passed.
async fn proven(store: &Arc<dyn Store>, temporary: &Path) -> Proven {
    let (store, inspector) = (Arc::clone(store), Arc::new(InProcess));
    let request = Request::new("app", store, &Asked::LATEST, temporary, inspector);
    drill(&request).await.proven.unwrap()
}

#[tokio::test]
async fn a_snapshot_whose_upload_fails_is_whole_or_not_there_and_the_next_one_is_the_same() {
    let made = MadeChain::make(SMALL);
    let temporary = tempfile::tempdir().unwrap();
    let store = filled(&made, Condition::Honoured).await;
    promote(&store, proven(&store, temporary.path()).await).await.unwrap();
    let reference = contents(&*store, made.chain).await;
    assert_eq!(reference.len(), made.files.len() + 1);
    for condition in CONDITIONS {
        // A store that knows no condition is asked twice.
        for call in 1..=if condition == Condition::Refused { 2 } else { 1 } {
            for fault in [Fault::Before, Fault::After, Fault::Late(1), Fault::Denied] {
                println!("{condition:?}: {fault:?} at call {call}");
                let store = filled(&made, condition).await;
                let faults = Faults::default();
                faults.at(call, fault);
                let faulty: Arc<dyn Store> =
                    Arc::new(FaultyStore::new(Arc::clone(&store), faults.clone()));
                let copy = proven(&store, temporary.path()).await;
                let failed = promote(&faulty, copy).await.unwrap_err();
                assert!(!failed.is_replica_fault(), "{failed:?}");
                assert_eq!(faults.fired(), 1);
                holds(&store, &made, &reference, (1..=SMALL.txids).step_by(9)).await;
                promote(&faulty, proven(&store, temporary.path()).await).await.unwrap();
                assert_eq!(contents(&*store, made.chain).await, reference);
                let left = std::fs::read_dir(temporary.path()).unwrap().count();
                assert_eq!(left, 0, "left behind");
            }
        }
    }
}

#[tokio::test]
async fn two_that_promote_at_once_write_one_snapshot() {
    let made = MadeChain::make(SMALL);
    let temporary = tempfile::tempdir().unwrap();
    let store = filled(&made, Condition::Honoured).await;
    let copies = (proven(&store, temporary.path()).await, proven(&store, temporary.path()).await);
    let (one, other) = tokio::join!(promote(&store, copies.0), promote(&store, copies.1));
    let outcomes = [one.unwrap().outcome, other.unwrap().outcome];
    assert!(outcomes.contains(&PutOutcome::Created), "{outcomes:?}");
    assert!(outcomes.contains(&PutOutcome::AlreadyOurs), "{outcomes:?}");
    let inventory = Inventory::read(&*store, made.chain).await.unwrap();
    assert_eq!(inventory.files.len(), made.files.len() + 1);
    assert_eq!(made.restores(&store, &inventory, SMALL.txids).await, 1);
}

/// Runs `verifier compact`, which takes a snapshot whatever the age of the newest; the exit code and the report.
fn verifier_compact(world: &Surroundings) -> (Option<i32>, Value) {
    let mut command = world.verifier().unwrap();
    command.env("SEAWORTHY_COMPACTION__SNAPSHOT_EVERY", "0s").args(["compact", "--json"]);
    let output = command.output().unwrap();
    world.nothing_left().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), answer["databases"][0].clone())
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_written_and_says_what_to_do() {
    let made = MadeChain::make(Recipe { txids: 140, ..SMALL });
    let mut worlds = Vec::new();
    for _ in 0..2 {
        let world = Surroundings::new().unwrap();
        let root = file_root(world.replica("app").parent().unwrap()).await;
        let store = root.database("app").unwrap();
        made.put(&*store).await;
        worlds.push((world, store));
    }
    let (undisturbed, store) = &worlds[0];
    let (code, report) = verifier_compact(undisturbed);
    assert_eq!((code, &report["snapshot"]["state"]), (Some(0), &"promoted".into()), "{report}");
    let reference = contents(&**store, made.chain).await;

    let (world, store) = &worlds[1];
    // Two files of a page each need not meet in one page, so the names run out first: at the directories' number none fits.
    let room = |pages: u32| format!("size={}k,nr_inodes={}", pages * 4, pages + 1);
    let mount = Mount::new(&world.temporary(), &format!("{},mode=700", room(1)));
    let (mut while_merging, mut while_promoting) = (0, 0);
    let mut completed = false;
    for pages in 1..400 {
        mount.become_like(&room(pages));
        let (code, report) = verifier_compact(world);
        if code == Some(0) {
            completed = true;
            break;
        }
        assert_eq!(code, Some(3), "not the backup's fault: {report}");
        let findings = report["findings"].as_array().unwrap();
        for finding in findings {
            let (name, detail) =
                (finding["name"].as_str().unwrap(), finding["detail"].as_str().unwrap());
            let full = detail.contains("\nHINT: room for") && detail.contains("os error 28");
            while_merging += u32::from(full && name.starts_with("window: level 1"));
            while_promoting += u32::from(full && name == "snapshot");
        }
        holds(store, &made, &reference, [1, 70, 140]).await;
    }
    assert!(completed && while_merging > 0, "{while_merging} and {while_promoting}");
    assert!(while_promoting > 0, "the copy had room, and what was made of it, too");
    assert_eq!(contents(&**store, made.chain).await, reference);
}
