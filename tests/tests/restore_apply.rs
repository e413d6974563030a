//! Carrying a plan out: what the copy must be, what is refused although every file is valid by itself, and
//! what is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

use std::fs;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use replica::format::{
    Checksum, DatabaseChecksum, Encoder, Header, Level, PageNumber, PageSize, Txid, TxidRange,
    page_checksum,
};
use replica::restore::{Progress, RestoreError, Restored, Target, publish, select};
use replica::store::{
    Body, Chain, FileStore, Key, LtxAttributes, LtxKey, LtxObject, ObjectInfo, ObjectReader,
    PutOutcome, Store, StoreError,
};
use seaworthy_tests::process::repository;
use seaworthy_tests::progress::Fetched;

const PAGE: u32 = 512;

/// A file to be made: its pages are (number, fill byte).
struct Ltx {
    level: u8,
    txids: (u64, u64),
    page_size: u32,
    commit: u32,
    pages: Vec<(u32, u8)>,
    pre: Option<Checksum>,
    post: Option<Checksum>,
}

fn page(fill: u8, page_size: u32) -> Vec<u8> {
    // Not all alike, so that pages take some room.
    (0..page_size).map(|at| fill ^ (at as u8)).collect()
}

fn sum(pages: &[(u32, u8)]) -> Checksum {
    let mut sum = DatabaseChecksum::default();
    for (number, fill) in pages {
        sum.toggle(page_checksum(PageNumber::new(*number).unwrap(), &page(*fill, PAGE)));
    }
    sum.value()
}

fn plain(txids: (u64, u64), commit: u32, pages: &[(u32, u8)]) -> Ltx {
    let pages = pages.to_vec();
    Ltx { level: 0, txids, page_size: PAGE, commit, pages, pre: None, post: None }
}

fn checksummed(
    txids: (u64, u64),
    commit: u32,
    pages: &[(u32, u8)],
    pre: Option<Checksum>,
    post: Checksum,
) -> Ltx {
    Ltx { pre, post: Some(post), ..plain(txids, commit, pages) }
}

fn write(replica: &Path, files: &[Ltx]) {
    for ltx in files {
        let txid = |value| Txid::new(value).unwrap();
        let header = Header {
            page_size: PageSize::new(ltx.page_size).unwrap(),
            commit: ltx.commit,
            txids: TxidRange::new(txid(ltx.txids.0), txid(ltx.txids.1)).unwrap(),
            timestamp: Timestamp::from_second(i64::try_from(ltx.txids.1).unwrap()).unwrap(),
            checksummed: ltx.post.is_some(),
            pre_apply: ltx.pre,
            wal: None,
            node_id: 0,
        };
        let mut encoder = Encoder::new(Vec::new(), Cursor::new(Vec::new()), header).unwrap();
        for (number, fill) in &ltx.pages {
            encoder.page(PageNumber::new(*number).unwrap(), &page(*fill, ltx.page_size)).unwrap();
        }
        let directory = replica.join(format!("ltx/{}", ltx.level));
        fs::create_dir_all(&directory).unwrap();
        let bytes = encoder.finish(ltx.post).unwrap().out;
        fs::write(directory.join(header.txids.file_name()), bytes).unwrap();
    }
}

/// Restores the latest into `<dir>/out/app.db`.
async fn restore(store: Arc<dyn Store>, dir: &Path) -> Result<Restored, RestoreError> {
    let out = dir.join("out");
    fs::create_dir_all(&out).unwrap();
    let selected = select(store.as_ref(), None, Target::Latest).await?;
    publish(store, &selected.plan, &out.join("app.db"), true, Arc::new(())).await
}

async fn restored(files: &[Ltx]) -> (tempfile::TempDir, Result<Restored, RestoreError>) {
    let dir = tempfile::tempdir().unwrap();
    let replica = dir.path().join("replica");
    write(&replica, files);
    let outcome = restore(Arc::new(FileStore::new(replica)), dir.path()).await;
    (dir, outcome)
}

/// The restore fails with this, and leaves nothing.
async fn refused(files: &[Ltx]) -> String {
    let (dir, outcome) = restored(files).await;
    let error = outcome.expect_err("restored what it must refuse");
    assert!(error.is_replica_fault(), "{error:?}");
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[tokio::test]
async fn the_newest_copy_of_each_page_wins_and_the_last_commit_counts() {
    let files = [
        plain((1, 1), 5, &[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]),
        plain((2, 2), 7, &[(2, 2), (6, 2), (7, 2)]),
        plain((3, 3), 4, &[(2, 3), (4, 3)]),
    ];
    let (dir, outcome) = restored(&files).await;
    let outcome = outcome.unwrap();
    assert_eq!((outcome.page_count, outcome.objects, outcome.post_apply), (4, 3, None));
    let expected: Vec<u8> = [1, 3, 1, 3].iter().flat_map(|fill| page(*fill, PAGE)).collect();
    assert_eq!(fs::read(dir.path().join("out/app.db")).unwrap(), expected);
}

#[tokio::test]
async fn pages_out_of_order_over_many_buffers_land_where_they_belong() {
    let pages: Vec<(u32, u8)> = (1..=5000).map(|number| (number, number as u8)).collect();
    let odd: Vec<(u32, u8)> =
        (1..=5000).filter(|number| number % 3 == 1).map(|number| (number, 7)).collect();
    let (dir, outcome) = restored(&[plain((1, 1), 5000, &pages), plain((2, 2), 5000, &odd)]).await;
    outcome.unwrap();
    let copy = fs::read(dir.path().join("out/app.db")).unwrap();
    assert_eq!(copy.len(), 5000 * 512);
    for (number, found) in (1_u32..).zip(copy.chunks(512)) {
        let fill = if number % 3 == 1 { 7 } else { number as u8 };
        assert_eq!(found, page(fill, PAGE), "page {number}");
    }
}

#[tokio::test]
async fn a_checksummed_chain_proves_the_copy() {
    let (first, second) = ([(1, 1), (2, 1)], [(1, 1), (2, 2)]);
    let good = [
        checksummed((1, 1), 2, &first, None, sum(&first)),
        checksummed((2, 2), 2, &[(2, 2)], Some(sum(&first)), sum(&second)),
    ];
    let (_dir, outcome) = restored(&good).await;
    assert_eq!(outcome.unwrap().post_apply, Some(sum(&second)));

    // One value changed inside a page, and every file valid by itself.
    let other = [
        checksummed((1, 1), 2, &first, None, sum(&first)),
        checksummed((2, 2), 2, &[(2, 9)], Some(sum(&first)), sum(&second)),
    ];
    let error = refused(&other).await;
    assert!(error.contains(&format!("expected {}", sum(&second))), "{error}");
    assert!(error.contains("0000000000000002-0000000000000002.ltx"), "{error}");
}

#[tokio::test]
async fn a_file_from_another_history_is_refused() {
    let (first, second) = ([(1, 1), (2, 1)], [(1, 1), (2, 2)]);
    let files = [
        checksummed((1, 1), 2, &first, None, sum(&first)),
        checksummed((2, 2), 2, &[(2, 2)], Some(sum(&[(1, 5)])), sum(&second)),
    ];
    let error = refused(&files).await;
    assert!(error.contains("pre-apply checksum: expected"), "{error}");
}

#[tokio::test]
async fn a_page_in_no_file_is_refused() {
    let files = [plain((1, 1), 2, &[(1, 1), (2, 1)]), plain((2, 2), 5, &[(3, 2), (5, 2)])];
    let error = refused(&files).await;
    assert!(error.contains("has 5 pages, and 1 of them are in no file"), "{error}");
    assert!(error.contains("the first is page 4"), "{error}");
}

/// The database shrank and grew again: what was cut off does not come back. Where the files are Litestream's
/// own it does, as it does for Litestream.
#[tokio::test]
async fn a_page_that_was_cut_off_is_not_taken_from_an_older_file() {
    let all = |fill| (1..=10).map(|number| (number, fill)).collect::<Vec<(u32, u8)>>();
    let mut regrown = all(3);
    regrown.retain(|(number, _)| *number > 3);
    let first = Ltx { level: 9, ..plain((1, 1), 10, &all(1)) };
    let whole = [first, plain((2, 2), 3, &[(1, 2)]), plain((3, 3), 10, &regrown)];
    let dir = tempfile::tempdir().unwrap();
    let replica = dir.path().join("replica");
    let chain = replica.join("0198c0de-0000-7000-8000-000000000001");
    write(&chain, &whole);
    let store: Arc<dyn Store> = Arc::new(FileStore::new(replica.clone()));
    restore(Arc::clone(&store), dir.path()).await.unwrap();
    let expected: Vec<u8> =
        [2, 1, 1, 3, 3, 3, 3, 3, 3, 3].iter().flat_map(|fill| page(*fill, PAGE)).collect();
    assert_eq!(fs::read(dir.path().join("out/app.db")).unwrap(), expected);

    regrown.retain(|(number, _)| *number != 7);
    let files = [plain((3, 3), 10, &regrown)];
    write(&chain, &files);
    let error = restore(store, dir.path()).await.unwrap_err();
    assert!(
        matches!(&error, RestoreError::Incomplete { missing: 1, first, .. } if first.get() == 7),
        "{error:?}"
    );

    let [first, cut, _] = whole;
    let [grown] = files;
    restored(&[first, cut, grown]).await.1.unwrap();
}

/// Makes the final rename fail: the output becomes a directory meanwhile.
struct InTheWay(std::path::PathBuf);

impl Progress for InTheWay {
    fn fetched(&self, _: u64) {
        fs::create_dir_all(self.0.join("full")).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_old_wal_goes_only_when_the_new_database_is_in_place() {
    let fixture = repository().join("tests/fixtures/v05-file/replica");
    let store: Arc<dyn Store> = Arc::new(FileStore::new(fixture));
    let plan = select(store.as_ref(), None, Target::Latest).await.unwrap().plan;
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("app.db");
    for end in ["-journal", "-shm", "-wal"] {
        fs::write(dir.path().join(format!("app.db{end}")), end).unwrap();
    }
    let in_the_way = Arc::new(InTheWay(output.clone()));
    let error = publish(Arc::clone(&store), &plan, &output, true, in_the_way).await.unwrap_err();
    assert!(matches!(error, RestoreError::Io { action: "rename restored file", .. }), "{error:?}");
    assert_eq!(names(dir.path()), ["app.db", "app.db-journal", "app.db-shm", "app.db-wal"]);
    for end in ["-journal", "-shm", "-wal"] {
        assert_eq!(fs::read_to_string(dir.path().join(format!("app.db{end}"))).unwrap(), end);
    }
    fs::remove_dir_all(&output).unwrap();
    fs::write(&output, "old").unwrap();
    publish(store, &plan, &output, true, Arc::new(())).await.unwrap();
    assert_eq!(names(dir.path()), ["app.db"]);
    assert!(fs::read(&output).unwrap().starts_with(b"SQLite format 3"));
}

#[tokio::test]
async fn page_sizes_must_agree() {
    let mut files = [plain((1, 1), 1, &[(1, 1)]), plain((2, 2), 1, &[(1, 2)])];
    files[1].page_size = 1024;
    let error = refused(&files).await;
    assert!(error.contains("page size: expected 1024, actual 512"), "{error}");
}

#[tokio::test]
async fn an_impossible_size_is_refused_before_room_is_made() {
    let files = [plain((1, 1), 1, &[(1, 1)]), plain((2, 2), u32::MAX, &[(1, 2)])];
    let error = refused(&files).await;
    assert!(error.contains("pages in the database: expected at most"), "{error}");
}

/// Each file that the plan needs, damaged in its first and last bytes and in between.
#[tokio::test]
async fn any_damage_in_any_file_of_the_plan_is_found() {
    let fixture = repository().join("tests/fixtures/v05-pages512/replica");
    let store = FileStore::new(fixture.clone());
    let plan = select(&store, None, Target::Latest).await.unwrap().plan;
    assert!(plan.files.len() > 5);
    for file in plan.files.iter() {
        let name = format!("ltx/{}/{}", file.level, file.txids.file_name());
        let good = fs::read(fixture.join(&name)).unwrap();
        let last = good.len() - 1;
        for at in [0, 20, 99, 100, 104, last / 2, last - 20, last - 8, last] {
            let dir = tempfile::tempdir().unwrap();
            let replica = dir.path().join("replica");
            for file in plan.files.iter() {
                let name = format!("ltx/{}/{}", file.level, file.txids.file_name());
                fs::create_dir_all(replica.join(&name).parent().unwrap()).unwrap();
                fs::copy(fixture.join(&name), replica.join(&name)).unwrap();
            }
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(replica.join(&name), &bad).unwrap();
            let outcome = restore(Arc::new(FileStore::new(replica.clone())), dir.path()).await;
            let error = outcome.expect_err(&format!("{name} at {at}"));
            assert!(error.is_replica_fault() && error.to_string().contains(&name), "{error}");
            fs::write(replica.join(&name), &good[..at]).unwrap();
            let outcome = restore(Arc::new(FileStore::new(replica)), dir.path()).await;
            let error = outcome.expect_err(&format!("{name} cut at {at}"));
            assert!(error.is_replica_fault() && error.to_string().contains(&name), "{error}");
            assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
        }
    }
}

/// A store whose objects never come.
#[derive(Debug)]
struct Stuck(FileStore);

struct Never;

#[async_trait::async_trait]
impl ObjectReader for Never {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        std::future::pending().await
    }
}

#[async_trait::async_trait]
impl Store for Stuck {
    fn url(&self) -> String {
        self.0.url()
    }
    fn locate(&self, key: &Key) -> String {
        self.0.locate(key)
    }
    async fn chains(&self) -> Result<Vec<Chain>, StoreError> {
        self.0.chains().await
    }
    async fn list_ltx(&self, chain: Chain, level: Level) -> Result<Vec<LtxObject>, StoreError> {
        self.0.list_ltx(chain, level).await
    }
    async fn head(&self, key: &Key) -> Result<ObjectInfo, StoreError> {
        self.0.head(key).await
    }
    async fn get(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn ObjectReader>, StoreError> {
        match key {
            Key::Ltx(ltx) if ltx.level == Level::SNAPSHOT => Ok(Box::new(Never)),
            _ => self.0.get(key, range).await,
        }
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

#[tokio::test]
async fn a_cancelled_restore_leaves_nothing() {
    let fixture = repository().join("tests/fixtures/v05-file/replica");
    let store: Arc<dyn Store> = Arc::new(Stuck(FileStore::new(fixture)));
    let plan = select(store.as_ref(), None, Target::Latest).await.unwrap().plan;
    let dir = tempfile::tempdir().unwrap();
    let progress = Arc::new(Fetched::default());
    let output = dir.path().join("app.db");
    let work = publish(store, &plan, &output, false, Arc::clone(&progress) as Arc<dyn Progress>);
    let half_way = async {
        // Everything but the snapshot, which is the oldest and so the last.
        while progress.bytes() < plan.bytes() - plan.files[0].size {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file");
    };
    tokio::select! {
        _ = work => panic!("the snapshot never came"),
        () = half_way => {}
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn progress_adds_up_to_the_plan() {
    let fixture = repository().join("tests/fixtures/v05-file/replica");
    let store: Arc<dyn Store> = Arc::new(FileStore::new(fixture));
    let plan = select(store.as_ref(), None, Target::Latest).await.unwrap().plan;
    let dir = tempfile::tempdir().unwrap();
    let progress = Arc::new(Fetched::default());
    let told = Arc::clone(&progress) as Arc<dyn Progress>;
    let output = dir.path().join("app.db");
    publish(Arc::clone(&store), &plan, &output, false, told).await.unwrap();
    assert_eq!(progress.bytes(), plan.bytes());
    // Quicker than somebody else is not enough: the output must not be there at the end either.
    let again = publish(store, &plan, &output, false, Arc::new(())).await;
    assert!(matches!(again, Err(RestoreError::OutputExists { .. })));
}
