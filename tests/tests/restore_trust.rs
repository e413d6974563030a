//! A replica is not trusted. Whatever the server's key may put, every state that was durable before stays what it was; and
//! a restore goes around what is damaged, where there is a way.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::format::{
    Checksum, DatabaseChecksum, Encoder, GenerationId, Header, Level, PageNumber, PageSize, Txid,
    TxidRange, page_checksum,
};
use replica::restore::{
    Found, Inventory, RestoreError, Restored, Selected, Target, all_points, find, is_end, restore,
};
use replica::store::{Body, Chain, Key, LtxAttributes, LtxKey, Store};
use seaworthy_tests::made_chain::{MadeChain, Recipe, contents};
use seaworthy_tests::memory_store::{Condition, MemoryStore};
use verifier::compact::{Bench, Report, compact_chain};

const PAGE: u32 = 512;

fn txid(number: u64) -> Txid {
    Txid::new(number).unwrap()
}

fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(txid(min), txid(max)).unwrap()
}

fn key(chain: Chain, level: u8, min: u64, max: u64) -> LtxKey {
    LtxKey { chain, level: Level::new(level).unwrap(), txids: range(min, max) }
}

fn made(seed: u64, txids: u64) -> MadeChain {
    MadeChain::make(Recipe { seed, txids, page_size: PAGE, checksummed: true })
}

/// Puts whatever bytes, as a key may that is allowed to; whether nothing was there.
async fn put(store: &dyn Store, key: &LtxKey, content: Vec<u8>) -> bool {
    let checksum = Checksum::from_raw(1 << 63 | content.len() as u64).unwrap();
    let attributes = LtxAttributes { timestamp: Timestamp::UNIX_EPOCH, checksum };
    store.put_ltx(key, Body::Bytes(Bytes::from(content)), attributes).await.is_ok()
}

async fn beat(store: &dyn Store, chain: Chain, txid: Option<u64>) {
    let txid = txid.map_or("null".to_owned(), |txid| format!("\"{txid:016x}\""));
    let text = format!(
        r#"{{"version":1,"generation":"{chain}","txid":{txid},"page_size":{PAGE},"page_count":1,
            "written_at":"2026-01-01T00:00:00Z","synced_at":null,"last_transaction_at":null,
            "wal_bytes":0,"last_error":null,"shipper_version":"0","sqlite_version":"3","host":"h"}}"#
    );
    store.put_document(&Key::Heartbeat, Bytes::from(text)).await.unwrap();
}

/// A file of other content, with the checksums that would let it pass for one of the chain.
fn forged(random: &mut StdRng, made: &MadeChain, txids: TxidRange, at: Timestamp) -> Vec<u8> {
    let (min, max) = (txids.min().get(), txids.max().get());
    let known = |txid: u64| made.states.get(txid as usize - 1).map(|state| state.checksum);
    let any = Checksum::from_raw(random.random::<u64>() | 1 << 63).unwrap();
    let pages = random.random_range(1..4);
    let header = Header {
        page_size: PageSize::new(PAGE).unwrap(),
        commit: made.states.get(max as usize - 1).map_or(pages, |state| state.pages.max(pages)),
        txids,
        timestamp: at,
        checksummed: true,
        pre_apply: (min > 1).then(|| known(min - 1).unwrap_or(any)),
        wal: None,
        node_id: 7,
    };
    let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
    let pages = if min == 1 { header.commit } else { pages };
    let mut whole = DatabaseChecksum::default();
    for number in 1..=pages {
        let number = PageNumber::new(number).unwrap();
        let page: Vec<u8> = (0..PAGE).map(|_| random.random()).collect();
        whole.toggle(page_checksum(number, &page));
        encoder.page(number, &page).unwrap();
    }
    let post = if min == 1 { whole.value() } else { known(max).unwrap_or(any) };
    encoder.finish(Some(post)).unwrap().out
}

/// Restores a point, as the program does.
async fn restored(
    store: &Arc<dyn Store>,
    chain: Option<Chain>,
    target: Target,
) -> Result<(tempfile::NamedTempFile, Selected, Restored), RestoreError> {
    let Found::Ltx(mut selected) = find(&**store, chain, target).await? else { panic!("v0.3") };
    let output = tempfile::NamedTempFile::new().unwrap();
    let latest = target == Target::Latest;
    let file = output.reopen().unwrap();
    let store = Arc::clone(store);
    let restored = restore(store, &mut selected, latest, &file, Arc::new(())).await?;
    Ok((output, selected, restored))
}

/// One of the PUTs that the ship policy allows, or as many as make sense together.
async fn break_in(random: &mut StdRng, store: &dyn Store, made: &MadeChain) {
    let newest = made.newest();
    let at = |random: &mut StdRng| {
        let hours = SignedDuration::from_hours(random.random_range(-20_000..20_000));
        Timestamp::from_second(1_764_000_000).unwrap() + hours
    };
    let of = |random: &mut StdRng, txids: TxidRange, at: Timestamp| match random.random_range(0..3)
    {
        0 => b"0123456789".to_vec(),
        1 => (0..random.random_range(0..400)).map(|_| random.random()).collect(),
        _ => forged(random, made, txids, at),
    };
    let at = at(random);
    match random.random_range(0..6) {
        // Beyond the tip, also far beyond it.
        0 => {
            let far = if random.random() { 3 } else { 500 };
            let number = newest + random.random_range(1..far);
            let content = of(random, range(number, number), at);
            put(store, &key(made.chain, 0, number, number), content).await;
        }
        // Names that are not of level 0.
        1 => {
            let min = random.random_range(1..newest);
            let max = random.random_range(min + 1..=newest + 3);
            let content = of(random, range(min, max), at);
            put(store, &key(made.chain, 0, min, max), content).await;
        }
        2 => {
            let content = of(random, range(1, 1), at);
            put(store, &key(made.chain, 0, 1, 1), content).await;
        }
        // What is there stays.
        3 => {
            let number = random.random_range(2..=newest);
            let content = of(random, range(number, number), at);
            assert!(!put(store, &key(made.chain, 0, number, number), content).await);
            let content = of(random, range(1, 1), at);
            assert!(!put(store, &key(made.chain, 9, 1, 1), content).await);
        }
        // A generation of their own, with a name that sorts before or behind.
        4 => {
            let name = uuid::Uuid::from_u128(random.random());
            let chain = Chain::Generation(GenerationId::from_uuid(name));
            if random.random() {
                let content = of(random, range(1, 1), at);
                put(store, &key(chain, 9, 1, 1), content).await;
            }
            for number in 2..random.random_range(2..6) {
                let content = of(random, range(number, number), at);
                put(store, &key(chain, 0, number, number), content).await;
            }
        }
        _ => match random.random_range(0..4) {
            0 => beat(store, made.chain, Some(random.random_range(1..2 * newest))).await,
            1 => {
                let name = uuid::Uuid::from_u128(random.random());
                let other = Chain::Generation(GenerationId::from_uuid(name));
                beat(store, other, Some(7)).await;
            }
            2 => store.put_document(&Key::Heartbeat, Bytes::from_static(b"{\"ver")).await.unwrap(),
            _ => {
                let large = Bytes::from(vec![b' '; 70_000]);
                store.put_document(&Key::Heartbeat, large).await.unwrap();
            }
        },
    }
}

/// Compacts up to a TXID; gives what was made.
async fn compacted(store: &Arc<dyn Store>, chain: Chain, limit: u64) -> Vec<(LtxKey, Bytes)> {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench { store: Arc::clone(store), directory: directory.path(), deadline: None };
    let mut inventory = Inventory::read(&**store, chain).await.unwrap();
    compact_chain(&bench, &mut inventory, txid(limit), &mut Report::new("app")).await;
    let mut made = contents(&**store, chain).await;
    made.retain(|(key, _)| (1..=3).contains(&key.level.get()));
    made
}

/// A store that has the chain, and a heartbeat that vouches for all of it.
async fn shipped(made: &MadeChain) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Condition::Honoured));
    made.put(&*store).await;
    beat(&*store, made.chain, Some(made.newest())).await;
    store
}

#[tokio::test]
async fn whatever_the_servers_key_puts_the_past_stays() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let made = made(seed, random.random_range(66..80));
        let store = shipped(&made).await;
        let early = random.random();
        let honest = if early {
            compacted(&store, made.chain, made.newest()).await
        } else {
            compacted(&shipped(&made).await, made.chain, made.newest()).await
        };
        assert_eq!(honest.len(), 1, "seed {seed}");
        let before = all_points(&*store).await.unwrap().ltx;
        for _ in 0..random.random_range(1..12) {
            break_in(&mut random, &*store, &made).await;
        }
        let after = compacted(&store, made.chain, made.newest()).await;
        assert_eq!(after, honest, "seed {seed}");
        let points = all_points(&*store).await.unwrap().ltx;
        for point in &before {
            let same =
                points.iter().find(|other| (other.chain, other.txid) == (point.chain, point.txid));
            assert!(same.is_some(), "seed {seed}: {point:?} is no longer listed");
        }
        for number in [1, 2, random.random_range(3..63), 63, 64, made.newest()] {
            let point = Target::Txid(txid(number));
            let (copy, ..) = restored(&store, Some(made.chain), point).await.unwrap();
            made.is_state(copy.path(), number);
            // As of a time before the break-in, whatever generations came to be since.
            let was = before.iter().find(|point| point.txid == txid(number)).unwrap();
            let point = Target::AtOrBefore(was.timestamp);
            for chain in [None, Some(made.chain)] {
                let (copy, ..) = restored(&store, chain, point).await.unwrap();
                made.is_state(copy.path(), number);
            }
        }
    }
}

/// Cuts an object, or changes it.
fn damaged(content: &Bytes) -> Vec<u8> {
    content[..content.len() / 2].to_vec()
}

/// The chain in a store of its own, with `change` made to each object (`None`: left out).
async fn with(
    made: &MadeChain,
    files: &[(LtxKey, Bytes)],
    change: impl Fn(&LtxKey, &Bytes) -> Option<Vec<u8>>,
) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Condition::Honoured));
    for (key, content) in files {
        if let Some(content) = change(key, content) {
            assert!(put(&*store, key, content).await);
        }
    }
    beat(&*store, made.chain, Some(made.newest())).await;
    store
}

#[tokio::test]
async fn a_restore_goes_around_what_is_damaged_and_says_so() {
    let made = made(3, 70);
    let whole = shipped(&made).await;
    compacted(&whole, made.chain, 70).await;
    let files = contents(&*whole, made.chain).await;
    let merged = key(made.chain, 1, 2, 63);
    let mut random = StdRng::seed_from_u64(1);
    let forged = forged(&mut random, &made, range(2, 63), Timestamp::UNIX_EPOCH);
    let snapshot = foreign(&mut random, &made, range(1, 68));
    type Change<'a> = Box<dyn Fn(&LtxKey, &Bytes) -> Option<Vec<u8>> + 'a>;
    let changes: [(&str, Change<'_>); 4] = [
        ("cut", Box::new(|_, content| Some(damaged(content)))),
        ("empty", Box::new(|_, _| Some(Vec::new()))),
        ("forged", Box::new(|_, _| Some(forged.clone()))),
        (
            "of another chain",
            Box::new(|_, _| {
                let other = self::made(4, 2);
                Some(other.files[1].1.to_vec())
            }),
        ),
    ];
    for (what, change) in &changes {
        let store = with(&made, &files, |key, content| {
            if *key == merged { change(key, content) } else { Some(content.to_vec()) }
        })
        .await;
        let (copy, _, restored) = restored(&store, None, Target::Latest).await.unwrap();
        made.is_state(copy.path(), 70);
        let said = restored.passed_over.join("\n");
        assert!(said.contains("/0001/0000000000000002-"), "{what}: {said}");
    }
    // A snapshot of another content, all its checksums right but those that level 0 has.
    let store = with(&made, &files, |_, content| Some(content.to_vec())).await;
    assert!(put(&*store, &key(made.chain, 9, 1, 68), snapshot).await);
    for target in [Target::Latest, Target::Txid(txid(68)), Target::Txid(txid(69))] {
        let (copy, selected, restored) = restored(&store, Some(made.chain), target).await.unwrap();
        made.is_state(copy.path(), selected.plan.txid.get());
        assert!(restored.passed_over[0].contains("0009/"), "{:?}", restored.passed_over);
    }
}

/// A file of somebody else's database, valid by itself.
fn foreign(random: &mut StdRng, made: &MadeChain, txids: TxidRange) -> Vec<u8> {
    let empty = MadeChain { chain: made.chain, states: Vec::new(), files: Vec::new() };
    forged(random, &empty, txids, Timestamp::UNIX_EPOCH)
}

#[tokio::test]
async fn without_a_way_around_the_newest_point_that_can_be_had_is_named() {
    let made = made(5, 70);
    let whole = shipped(&made).await;
    compacted(&whole, made.chain, 70).await;
    let files = contents(&*whole, made.chain).await;
    let lost = |number: u64| {
        let lost = key(made.chain, 0, number, number);
        with(&made, &files, move |key, content| {
            Some(if *key == lost { damaged(content) } else { content.to_vec() })
        })
    };
    // Level 1 has what TXID 30 brought, but does not end there.
    let store = lost(30).await;
    let (copy, ..) = restored(&store, None, Target::Latest).await.unwrap();
    made.is_state(copy.path(), 70);
    for (damaged, asked, instead) in [(30, 30, 29), (30, 41, 29), (70, 70, 69), (66, 70, 65)] {
        let store = lost(damaged).await;
        let error = restored(&store, None, Target::Txid(txid(asked))).await.unwrap_err();
        assert!(error.is_replica_fault(), "{error}");
        let RestoreError::NoOtherWay(stuck) = &error else { panic!("{error:?}") };
        assert_eq!(stuck.instead, Some(txid(instead)));
        let command = format!("--txid {:016x} --generation {}", instead, made.chain);
        assert!(error.to_string().contains(&command), "{error}");
        let (copy, ..) =
            restored(&store, Some(made.chain), Target::Txid(txid(instead))).await.unwrap();
        made.is_state(copy.path(), instead);
    }
    // What the heartbeat vouches for is not left out by itself.
    for vouched in [66, 70] {
        assert!(restored(&lost(vouched).await, None, Target::Latest).await.is_err());
    }
}

#[tokio::test]
async fn a_tip_that_nobody_vouches_for_does_not_stop_what_was_durable() {
    let made = made(6, 20);
    let tip = key(made.chain, 0, 20, 20);
    let cut = |key: &LtxKey, content: &Bytes| {
        Some(if *key == tip { damaged(content) } else { content.to_vec() })
    };
    for heartbeat in [Some(Some(19)), Some(Some(5)), Some(None), None] {
        let store = with(&made, &made.files, cut).await;
        match heartbeat {
            Some(txid) => beat(&*store, made.chain, txid).await,
            None => store.put_document(&Key::Heartbeat, Bytes::from_static(b"{")).await.unwrap(),
        }
        let (copy, selected, _) = restored(&store, None, Target::Latest).await.unwrap();
        made.is_state(copy.path(), 19);
        assert_eq!(selected.plan.txid, txid(19));
        assert!(selected.remarks.iter().any(|remark| remark.contains("no heartbeat vouches")));
        // A point that was named is had, or is not.
        assert!(restored(&store, None, Target::Txid(txid(20))).await.is_err());
    }
    // Files behind a gap, and a file of another history.
    let store = with(&made, &made.files, |_, content| Some(content.to_vec())).await;
    assert!(put(&*store, &key(made.chain, 0, 25, 25), b"0123456789".to_vec()).await);
    let (copy, selected, _) = restored(&store, None, Target::Latest).await.unwrap();
    made.is_state(copy.path(), 20);
    assert!(selected.remarks.iter().any(|remark| remark.contains("vouches for no TXID after")));
    let mut random = StdRng::seed_from_u64(1);
    let other = foreign(&mut random, &made, range(21, 21));
    assert!(put(&*store, &key(made.chain, 0, 21, 21), other).await);
    let (copy, ..) = restored(&store, None, Target::Latest).await.unwrap();
    made.is_state(copy.path(), 20);
    // A hole in the middle, with most of the chain behind it, is damage, whoever vouches for it.
    let hole = key(made.chain, 0, 10, 10);
    let store = with(&made, &made.files, |key, content| {
        Some(if *key == hole { damaged(content) } else { content.to_vec() })
    })
    .await;
    store.put_document(&Key::Heartbeat, Bytes::from_static(b"{")).await.unwrap();
    assert!(restored(&store, None, Target::Latest).await.is_err());
}

#[tokio::test]
async fn only_what_nothing_sound_comes_after_is_the_end() {
    let made = made(7, 8);
    let store = shipped(&made).await;
    let inventory = Inventory::read(&*store, made.chain).await.unwrap();
    let ends = |lost: &[u64]| is_end(&inventory, |file| lost.contains(&file.txids.max().get()));
    assert!(ends(&[8]) && ends(&[7, 8]) && ends(&[]));
    assert!(!ends(&[7]) && !ends(&[5, 8]) && !ends(&[1, 2, 3, 4, 5, 6, 7, 8]));
}
