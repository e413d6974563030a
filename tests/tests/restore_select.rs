//! Which chain and which state a restore takes, on inventories made up for the purpose.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use replica::format::{GenerationId, Header, Level, PageSize, Txid, TxidRange};
use replica::restore::{RestoreError, Selected, Target, select};
use replica::store::{
    Body, Chain, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader, PutOutcome,
    Store, StoreError,
};

/// Chains of files that have nothing but a header.
#[derive(Debug, Default)]
struct Headers {
    files: BTreeMap<LtxKey, (Timestamp, Timestamp)>,
    heartbeat: Option<Vec<u8>>,
    gets: AtomicUsize,
}

fn second(value: i64) -> Timestamp {
    Timestamp::from_second(value).unwrap()
}

fn generation(number: u128) -> Chain {
    Chain::Generation(GenerationId::from_uuid(uuid::Uuid::from_u128(number)))
}

impl Headers {
    /// A file whose header says `time`, written to the store at `modified` (seconds).
    fn add(&mut self, chain: Chain, level: u8, range: (u64, u64), time: i64, modified: i64) {
        let txid = |value| Txid::new(value).unwrap();
        let txids = TxidRange::new(txid(range.0), txid(range.1)).unwrap();
        let key = LtxKey { chain, level: Level::new(level).unwrap(), txids };
        self.files.insert(key, (second(time), second(modified)));
    }

    fn beat(&mut self, chain: Chain) {
        self.beat_at(chain, "null");
    }

    fn beat_at(&mut self, chain: Chain, txid: &str) {
        let text = format!(
            r#"{{"version":1,"generation":"{chain}","txid":{txid},"page_size":4096,"page_count":1,
                "written_at":"2026-01-01T00:00:00Z","synced_at":null,"last_transaction_at":null,
                "wal_bytes":0,"last_error":null,"shipper_version":"0","sqlite_version":"3","host":"h"}}"#
        );
        self.heartbeat = Some(text.into_bytes());
    }

    fn select(&self, target: Target) -> Result<Selected, RestoreError> {
        // Boxed as a Lambda handler would: a future that is not `Send` does not compile here.
        type Work<'a> = Pin<Box<dyn Future<Output = Result<Selected, RestoreError>> + Send + 'a>>;
        let work: Work<'_> = Box::pin(select(self, None, target));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(work)
    }
}

struct Once(Option<Bytes>);

#[async_trait::async_trait]
impl ObjectReader for Once {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.take())
    }
}

#[async_trait::async_trait]
impl Store for Headers {
    fn url(&self) -> String {
        "test:".into()
    }
    fn locate(&self, key: &Key) -> String {
        format!("{key:?}")
    }
    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        let chains: BTreeSet<Chain> = self.files.keys().map(|key| key.chain).collect();
        Ok(chains.into_iter().collect())
    }
    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        let of_level =
            self.files.iter().filter(|(key, _)| key.chain == chain && key.level == level);
        Ok(of_level
            .map(|(key, times)| LtxObject { level, txids: key.txids, size: 100, modified: times.1 })
            .collect())
    }
    async fn head(&self, _: &Key) -> Result<ObjectInfo, StoreError> {
        unreachable!()
    }
    async fn get(
        &self,
        key: &Key,
        _: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let Key::Ltx(key) = key else {
            let found = self.heartbeat.clone().map(Bytes::from);
            let found = found.ok_or(StoreError::NotFound { target: "heartbeat".into() })?;
            return Ok(Box::new(Once(Some(found))));
        };
        let header = Header {
            page_size: PageSize::new(4096).unwrap(),
            commit: 1,
            txids: key.txids,
            timestamp: self.files[key].0,
            checksummed: false,
            pre_apply: None,
            wal: None,
            node_id: 0,
        };
        Ok(Box::new(Once(Some(Bytes::copy_from_slice(&header.encode())))))
    }
    async fn put_ltx(
        &self,
        _: &LtxKey,
        _: Body,
        _: LtxAttributes,
    ) -> Result<PutOutcome, StoreError> {
        unreachable!()
    }
    async fn put_document(&self, _: &Key, _: Bytes) -> Result<(), StoreError> {
        unreachable!()
    }
}

/// A snapshot of TXID 1 and then single files, one a second.
fn chain_of(store: &mut Headers, chain: Chain, start: i64, txids: impl Iterator<Item = u64>) {
    store.add(chain, 9, (1, 1), start + 1, start + 1);
    for txid in txids {
        let time = start + i64::try_from(txid).unwrap();
        store.add(chain, 0, (txid, txid), time, time);
    }
}

#[test]
fn the_heartbeat_s_generation_wins_over_a_later_one_with_a_remark() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, 2..=5);
    let selected = store.select(Target::Latest).unwrap();
    assert_eq!(selected.plan.chain, generation(2));
    assert!(selected.remarks.is_empty());
    store.beat(generation(1));
    let selected = store.select(Target::Latest).unwrap();
    assert_eq!(selected.plan.chain, generation(1));
    assert!(selected.remarks[0].contains("was written to later"), "{:?}", selected.remarks);
}

#[test]
fn the_most_recently_updated_wins_whatever_its_name() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(9), 0, 2..=5);
    chain_of(&mut store, generation(1), 100, 2..=5);
    assert_eq!(store.select(Target::Latest).unwrap().plan.chain, generation(1));
}

#[test]
fn a_generation_whose_snapshot_is_on_its_way_is_no_failure() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    store.beat(generation(2));
    let selected = store.select(Target::Latest).unwrap();
    assert_eq!(selected.plan.chain, generation(1));
    assert_eq!(selected.remarks.len(), 1);
}

/// Nothing is uploaded before the snapshot, so whatever is there without one has lost it.
#[test]
fn a_latest_generation_without_its_snapshot_does_not_fall_back_to_older_data() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    store.add(generation(2), 0, (2, 2), 200, 200);
    store.add(generation(2), 0, (3, 3), 201, 201);
    for named in [None, Some(generation(2))] {
        if let Some(named) = named {
            store.beat(named);
        }
        let damaged = [Target::Latest, Target::Txid(Txid::new(3).unwrap())];
        let at = [200, 500].map(|at| Target::AtOrBefore(second(at)));
        for target in damaged.into_iter().chain(at) {
            let error = store.select(target).unwrap_err();
            assert!(error.is_replica_fault(), "{error:?}");
            let error = error.to_string();
            assert!(error.contains("no snapshot") && error.contains("--generation"), "{error}");
        }
        let before = store.select(Target::AtOrBefore(second(199))).unwrap();
        assert_eq!((before.plan.chain, before.plan.txid.get()), (generation(1), 5));
    }
    // The heartbeat's is the latest, also where a damaged one was written to later.
    store.beat(generation(1));
    let selected = store.select(Target::Latest).unwrap();
    assert_eq!(selected.plan.chain, generation(1));
    assert!(selected.remarks[0].contains("was written to later"), "{:?}", selected.remarks);
}

#[test]
fn a_shipped_generation_of_which_nothing_is_left_does_not_fall_back_to_older_data() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    // Made at second 100, by its name.
    let name = uuid::Uuid::from_u128((100_000 << 80) | (7 << 76) | (2 << 62) | 1);
    store.beat_at(Chain::Generation(GenerationId::from_uuid(name)), r#""0000000000000007""#);
    for target in [Target::Latest, Target::AtOrBefore(second(100))] {
        let error = store.select(target).unwrap_err();
        assert!(error.is_replica_fault() && error.to_string().contains("lost"), "{error:?}");
    }
    let before = store.select(Target::AtOrBefore(second(99))).unwrap();
    assert_eq!(before.plan.chain, generation(1));
}

#[test]
fn an_unreadable_heartbeat_never_stops_a_restore() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    store.heartbeat = Some(b"{".to_vec());
    let selected = store.select(Target::Latest).unwrap();
    assert!(selected.remarks[0].contains("heartbeat cannot be read"));
}

#[test]
fn a_hole_in_the_latest_generation_does_not_fall_back_to_older_data() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, (2..=5).chain(7..=9));
    for target in [Target::Latest, Target::AtOrBefore(second(108))] {
        let error = store.select(target).unwrap_err().to_string();
        assert!(error.contains("TXID 0000000000000006 is missing"), "{error}");
    }
    assert_eq!(store.select(Target::AtOrBefore(second(106))).unwrap().plan.txid.get(), 5);
}

#[test]
fn a_time_before_the_latest_generation_is_found_in_an_older_one() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, 2..=5);
    let selected = store.select(Target::AtOrBefore(second(50))).unwrap();
    assert_eq!((selected.plan.chain, selected.plan.txid.get()), (generation(1), 5));
    assert_eq!(selected.timestamp, second(5));
    assert!(store.select(Target::AtOrBefore(second(0))).is_err());
}

#[test]
fn retention_is_no_hole() {
    let mut store = Headers::default();
    store.add(generation(1), 9, (1, 10), 10, 10);
    store.add(generation(1), 1, (11, 20), 20, 20);
    for txid in 18..=20 {
        let time = i64::try_from(txid).unwrap();
        store.add(generation(1), 0, (txid, txid), time, time);
    }
    assert_eq!(store.select(Target::AtOrBefore(second(19))).unwrap().plan.txid.get(), 10);
    assert_eq!(store.select(Target::AtOrBefore(second(20))).unwrap().plan.txid.get(), 20);
}

#[test]
fn a_snapshot_taken_late_does_not_hide_when_its_data_was_committed() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=9);
    store.add(generation(1), 9, (1, 5), 1000, 1000);
    let selected = store.select(Target::AtOrBefore(second(5))).unwrap();
    assert_eq!(selected.plan.txid.get(), 5);
    assert_eq!(selected.timestamp, second(5));
    // Where the snapshot is all there is, its time is the one that is known.
    let mut store = Headers::default();
    store.add(generation(1), 9, (1, 5), 1000, 1000);
    store.add(generation(1), 0, (6, 6), 1001, 1001);
    assert!(store.select(Target::AtOrBefore(second(999))).is_err());
    assert_eq!(store.select(Target::AtOrBefore(second(1000))).unwrap().plan.txid.get(), 5);
}

#[test]
fn a_time_is_found_in_few_requests() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5000);
    let selected = store.select(Target::AtOrBefore(second(3777))).unwrap();
    assert_eq!(selected.plan.txid.get(), 3777);
    assert!(store.gets.load(Ordering::Relaxed) < 40, "{:?}", store.gets);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Single files and snapshots with some lost: rounding down gives the newest state that was committed by then
    /// and can be reached; and a refusal where a later one, committed by then too, was lost.
    #[test]
    fn rounding_down_is_exact(
        kept in prop::collection::vec(prop::bool::weighted(0.9), 30),
        snapshots in prop::collection::btree_set(1..=30_u64, 1..4),
        asked in 0..40_i64,
    ) {
        let mut store = Headers::default();
        let chain = generation(1);
        let present: BTreeSet<u64> = (1..=30).zip(kept).filter(|(_, kept)| *kept).map(|(t, _)| t).collect();
        for txid in &present {
            let time = i64::try_from(*txid).unwrap();
            store.add(chain, 0, (*txid, *txid), time, time);
        }
        for end in &snapshots {
            let time = i64::try_from(*end).unwrap();
            store.add(chain, 9, (1, *end), time, time);
        }
        let mut reached: BTreeSet<u64> = snapshots.clone();
        for txid in &present {
            if *txid == 1 || reached.contains(&(txid - 1)) {
                reached.insert(*txid);
            }
        }
        let by_then = |txid: &&u64| i64::try_from(**txid).unwrap() <= asked;
        let best = reached.iter().rfind(by_then);
        let covered = |txid: u64| present.contains(&txid) || snapshots.iter().any(|end| *end >= txid);
        let lost = best.is_some_and(|best| {
            !covered(best + 1) && present.iter().filter(by_then).any(|txid| txid > best)
        });
        match store.select(Target::AtOrBefore(second(asked))) {
            Ok(selected) => {
                prop_assert!(!lost);
                prop_assert_eq!(Some(&selected.plan.txid.get()), best);
            }
            Err(error) => prop_assert!(lost || best.is_none(), "{}", error),
        }
    }
}
