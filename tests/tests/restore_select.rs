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
    /// Files without a valid header.
    junk: BTreeSet<LtxKey>,
    /// As a directory does: what the store says of times counts for nothing.
    timeless: bool,
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
        self.beat_written(chain, txid, 1_767_225_600);
    }

    fn beat_written(&mut self, chain: Chain, txid: &str, written: i64) {
        let written = second(written);
        let text = format!(
            r#"{{"version":1,"generation":"{chain}","txid":{txid},"page_size":4096,"page_count":1,
                "written_at":"{written}","synced_at":null,"last_transaction_at":null,
                "wal_bytes":0,"last_error":null,"shipper_version":"0","sqlite_version":"3","host":"h"}}"#
        );
        self.heartbeat = Some(text.into_bytes());
    }

    fn select(&self, target: Target) -> Result<Selected, RestoreError> {
        self.select_in(None, target)
    }

    fn select_in(&self, chain: Option<Chain>, target: Target) -> Result<Selected, RestoreError> {
        // Boxed as a Lambda handler would: a future that is not `Send` does not compile here.
        type Work<'a> = Pin<Box<dyn Future<Output = Result<Selected, RestoreError>> + Send + 'a>>;
        let work: Work<'_> = Box::pin(select(self, chain, target));
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
    fn keeps_time(&self) -> bool {
        !self.timeless
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
        if self.junk.contains(key) {
            return Ok(Box::new(Once(Some(Bytes::from(vec![7; 100])))));
        }
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

/// What `sync` acknowledged is in the chain that was written to last, whatever became of the heartbeat.
#[test]
fn the_generation_written_last_is_the_latest_whatever_the_heartbeat_says() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, 2..=5);
    for timeless in [false, true] {
        store.timeless = timeless;
        store.heartbeat = None;
        let selected = store.select(Target::Latest).unwrap();
        assert_eq!(selected.plan.chain, generation(2));
        assert!(selected.remarks.is_empty());
        store.beat(generation(1));
        let selected = store.select(Target::Latest).unwrap();
        assert_eq!(selected.plan.chain, generation(2));
        assert!(selected.remarks[0].contains("was written to later"), "{:?}", selected.remarks);
    }
}

#[test]
fn a_heartbeat_too_large_or_cut_short_or_of_nothing_is_a_remark() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    store.beat_at(generation(1), r#""0000000000000005""#);
    let whole = store.heartbeat.clone().unwrap();
    let mut large = whole.clone();
    large.resize(70_000, b' ');
    for bad in [large, whole[..whole.len() / 2].to_vec(), Vec::new(), vec![0xff; 9]] {
        store.heartbeat = Some(bad);
        let selected = store.select(Target::Latest).unwrap();
        assert_eq!(selected.plan.txid.get(), 5);
        assert!(selected.remarks[0].contains("heartbeat cannot be read"), "{selected:?}");
    }
}

/// A copy has the times of the copying: the heartbeat, which tells that, says which chain was the latest.
#[test]
fn in_a_copied_bucket_the_heartbeat_names_the_latest() {
    let mut store = Headers::default();
    let chains = [(1, 0, 9000), (2, 100, 8000)];
    for (number, start, copied) in chains {
        store.add(generation(number), 9, (1, 1), start + 1, copied);
        store.add(generation(number), 0, (2, 2), start + 2, copied + 1);
    }
    store.beat_written(generation(2), r#""0000000000000002""#, 150);
    let selected = store.select(Target::Latest).unwrap();
    assert_eq!(selected.plan.chain, generation(2));
    assert!(selected.remarks[0].contains("copied"), "{:?}", selected.remarks);
    assert!(selected.rivals.is_empty());
    let past = store.select(Target::AtOrBefore(second(50))).unwrap();
    assert_eq!((past.plan.chain, past.plan.txid.get()), (generation(1), 2));
    assert!(past.remarks.iter().any(|remark| remark.contains("copied")), "{:?}", past.remarks);
    // One that claims to be old in a bucket that is no copy says nothing.
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 1000, 2..=5);
    chain_of(&mut store, generation(2), 2000, 2..=5);
    store.beat_written(generation(1), "null", 3);
    assert_eq!(store.select(Target::Latest).unwrap().plan.chain, generation(2));
}

/// Neither a clock nor a forger moves a state to a time at which the store did not have it.
#[test]
fn the_store_s_time_bounds_every_header() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 100, 2..=5);
    // Of the past, of the future, and a whole generation of the past.
    store.add(generation(1), 0, (6, 6), 3, 106);
    store.add(generation(1), 0, (7, 7), 9_000_000, 107);
    store.add(generation(2), 9, (1, 1), 3, 200);
    for (asked, chain, txid) in [(105, 1, 5), (106, 1, 6), (108, 1, 7), (199, 1, 7), (200, 2, 1)] {
        let selected = store.select(Target::AtOrBefore(second(asked))).unwrap();
        let found = (selected.plan.chain, selected.plan.txid.get());
        assert_eq!(found, (generation(chain), txid), "at {asked}");
        assert!(selected.timestamp <= second(asked));
    }
    assert!(store.select(Target::AtOrBefore(second(50))).is_err());
}

/// A server was rolled back: an older chain goes on, but at that time another one was the newest.
#[test]
fn a_time_is_looked_for_in_every_generation() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, 2..=5);
    store.add(generation(1), 0, (6, 6), 200, 200);
    store.add(generation(1), 0, (7, 7), 201, 201);
    for timeless in [false, true] {
        store.timeless = timeless;
        for (asked, chain, txid) in [(99, 1, 5), (150, 2, 5), (200, 1, 6)] {
            let selected = store.select(Target::AtOrBefore(second(asked))).unwrap();
            let found = (selected.plan.chain, selected.plan.txid.get());
            assert_eq!(found, (generation(chain), txid), "at {asked}");
            assert!(selected.remarks.iter().any(|remark| remark.contains("newest state at")));
        }
    }
}

#[test]
fn generations_that_were_alive_at_once_are_named_with_a_command_each() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=50);
    store.add(generation(2), 9, (1, 1), 40, 40);
    store.add(generation(2), 0, (2, 2), 60, 60);
    for timeless in [false, true] {
        store.timeless = timeless;
        let selected = store.select(Target::Latest).unwrap();
        let found = selected.rivals.iter().map(|rival| (rival.chain, rival.txid.get()));
        assert_eq!(found.collect::<Vec<_>>(), [(generation(2), 2), (generation(1), 50)]);
        for rival in &selected.rivals {
            let named = format!("--generation {} --txid {}", rival.chain, rival.txid);
            assert!(rival.command.contains(&named), "{rival:?}");
        }
        // Before the second one began, the first was alone. Who names one has chosen.
        assert!(store.select(Target::AtOrBefore(second(39))).unwrap().rivals.is_empty());
        assert!(!store.select(Target::AtOrBefore(second(55))).unwrap().rivals.is_empty());
        assert!(store.select_in(Some(generation(2)), Target::Latest).unwrap().rivals.is_empty());
    }
    // Another one after both: somebody has chosen.
    store.add(generation(3), 9, (1, 1), 90, 90);
    assert!(store.select(Target::Latest).unwrap().rivals.is_empty());
}

#[test]
fn one_upload_that_was_under_way_for_long_makes_no_rival() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, 2..=5);
    store.add(generation(1), 0, (6, 6), 6, 103);
    assert!(store.select(Target::Latest).unwrap().rivals.is_empty());
    // But what was committed there later does.
    store.add(generation(1), 0, (6, 6), 102, 103);
    assert_eq!(store.select(Target::Latest).unwrap().rivals.len(), 2);
}

#[test]
fn a_generation_of_junk_is_passed_over() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    chain_of(&mut store, generation(2), 100, 2..=5);
    store.junk = store.files.keys().filter(|key| key.chain == generation(2)).copied().collect();
    let time = Target::AtOrBefore(second(500));
    for target in [Target::Latest, Target::Txid(Txid::new(5).unwrap()), time] {
        let selected = store.select(target).unwrap();
        assert_eq!((selected.plan.chain, selected.plan.txid.get()), (generation(1), 5));
        let told = |remark: &String| remark.contains("none of its files is valid");
        assert!(selected.remarks.iter().any(told), "{:?}", selected.remarks);
    }
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
    for named in [None, Some(generation(1)), Some(generation(2))] {
        store.heartbeat = None;
        if let Some(named) = named {
            store.beat(named);
        }
        let error = store.select(Target::Latest).unwrap_err();
        assert!(error.is_replica_fault(), "{error:?}");
        let error = error.to_string();
        let command = format!("--generation {} --txid 0000000000000005", generation(1));
        assert!(error.contains("no snapshot") && error.contains(&command), "{error}");
        // Who asks for a point gets the one that there is, and is told.
        let at = [200, 500].map(|at| Target::AtOrBefore(second(at)));
        for target in [Target::Txid(Txid::new(3).unwrap())].into_iter().chain(at) {
            let selected = store.select(target).unwrap();
            assert_eq!(selected.plan.chain, generation(1));
            let told = |remark: &String| remark.contains("lost its snapshot");
            assert!(selected.remarks.iter().any(told), "{:?}", selected.remarks);
        }
        let before = store.select(Target::AtOrBefore(second(199))).unwrap();
        assert_eq!((before.plan.chain, before.plan.txid.get()), (generation(1), 5));
        assert!(!before.remarks.iter().any(|remark| remark.contains("lost its snapshot")));
    }
}

/// A forged heartbeat can name what never was: it must not stop a restore. That a shipped generation is gone
/// is for the drill to say, which has witnesses outside the replica.
#[test]
fn a_heartbeat_of_a_generation_of_which_nothing_is_there_is_a_remark() {
    let mut store = Headers::default();
    chain_of(&mut store, generation(1), 0, 2..=5);
    store.beat_at(generation(7), r#""0000000000000007""#);
    let selected = store.select(Target::Latest).unwrap();
    assert_eq!((selected.plan.chain, selected.plan.txid.get()), (generation(1), 5));
    assert!(selected.remarks[0].contains("nothing is there"), "{:?}", selected.remarks);
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
            let level = if *txid == 1 { 9 } else { 0 };
            store.add(chain, level, (*txid, *txid), time, time);
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

/// What one shipper did, second by second, and what it acknowledged.
#[derive(Default)]
struct History {
    store: Headers,
    acknowledged: Vec<(i64, Chain, u64)>,
    /// Of each generation its last TXID and the time in that file.
    generations: Vec<(u64, i64)>,
    current: usize,
    now: i64,
    ahead: i64,
}

impl History {
    fn chain(&self) -> Chain {
        generation(self.current as u128 + 1)
    }

    fn put(&mut self, level: u8, txid: u64) {
        let (chain, header) =
            (self.chain(), self.generations[self.current].1.max(self.now + self.ahead));
        self.store.add(chain, level, (txid, txid), header, self.now);
        self.generations[self.current] = (txid, header);
        self.acknowledged.push((self.now, chain, txid));
    }

    fn step(&mut self, (event, value): (u8, i64)) {
        self.now += 1 + value.rem_euclid(3);
        let some = usize::try_from(value.rem_euclid(64)).unwrap() % self.generations.len().max(1);
        match event {
            // Its state is lost.
            0 => {
                self.generations.push((0, i64::MIN));
                self.current = self.generations.len() - 1;
                self.put(9, 1);
            }
            // Its state directory comes back from a backup, and nobody notices.
            1 => self.current = some,
            2 => self.ahead = value,
            3 => self.store.beat_written(self.chain(), "null", self.now + self.ahead),
            4 => self.store.heartbeat = None,
            5 => self.store.heartbeat = Some(vec![b' '; 70_000]),
            6 => self.store.beat_written(
                generation(some as u128 + 1),
                r#""0000000000000001""#,
                value,
            ),
            7 => self.store.beat_at(generation(99), r#""0000000000000009""#),
            _ => self.put(0, self.generations[self.current].0 + 1),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of state directories, clocks and the heartbeat: a plain restore gives what was acknowledged last,
    /// and one at a time what had been acknowledged last by then.
    #[test]
    fn histories_restore_to_what_was_acknowledged(
        events in prop::collection::vec((0..16_u8, -5_000..5_000_i64), 1..50),
    ) {
        let mut history = History { now: 10_000, ..History::default() };
        history.step((0, 0));
        for event in events {
            history.step(event);
        }
        let found = |target| {
            let selected = history.store.select(target).unwrap();
            (selected.plan.chain, selected.plan.txid.get())
        };
        let acknowledged = &history.acknowledged;
        let last = acknowledged.last().unwrap();
        prop_assert_eq!(found(Target::Latest), (last.1, last.2));
        for at in acknowledged[0].0..=history.now {
            let (_, chain, txid) = acknowledged.iter().rfind(|(time, ..)| *time <= at).unwrap();
            let limit = Timestamp::from_millisecond(at * 1000 + 999).unwrap();
            prop_assert_eq!(found(Target::AtOrBefore(limit)), (*chain, *txid), "at {}", at);
        }
    }
}
