//! What every store promises, on both backends.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use replica::format::Level;
use replica::store::{Body, Chain, Key, LtxKey, PutOutcome, Root, Store, StoreError, read_all};
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::stores::{
    attributes, body, content, file_root, generation, key, ltx, s3_root,
};
use tempfile::TempDir;

/// A root of each kind, and what keeps it alive.
struct Roots {
    server: S3Server,
    dir: TempDir,
}

impl Roots {
    fn new() -> Self {
        Self { server: S3Server::start(), dir: TempDir::new().unwrap() }
    }

    async fn all(&self) -> [Root; 2] {
        [
            s3_root(&self.server, &self.server.endpoint, "backups/web-1").await,
            file_root(&self.dir.path().join("backups/web-1")).await,
        ]
    }

    async fn stores(&self) -> [Arc<dyn Store>; 2] {
        self.all().await.map(|root| root.database("app").unwrap())
    }
}

#[tokio::test]
async fn an_empty_place_lists_as_empty_and_has_no_objects() {
    let roots = Roots::new();
    for root in roots.all().await {
        assert_eq!(root.databases().await.unwrap(), Vec::<String>::new());
        let store = root.database("app").unwrap();
        assert_eq!(store.chains().await.unwrap(), []);
        let chain = Chain::Generation(generation());
        assert_eq!(store.list_ltx(chain, Level::SYNC).await.unwrap(), []);
        for key in [key(1), Key::Heartbeat] {
            let error = store.head(&key).await.unwrap_err();
            assert!(error.is_not_found() && error.is_permanent(), "{error:?}");
            assert!(error.to_string().contains(&store.locate(&key)), "{error}");
            assert!(store.get(&key, None).await.err().unwrap().is_not_found());
        }
    }
}

#[tokio::test]
async fn an_object_is_written_once() {
    let roots = Roots::new();
    for store in roots.stores().await {
        let first = store.put_ltx(&ltx(1), body(7, 5000), attributes(7)).await.unwrap();
        assert_eq!(first, PutOutcome::Created);
        let again = store.put_ltx(&ltx(1), body(7, 5000), attributes(7)).await.unwrap();
        assert_eq!(again, PutOutcome::AlreadyOurs);

        // Other content of the same length, and the same checksum over another length.
        for (seed, len) in [(8, 5000), (7, 5001)] {
            let error =
                store.put_ltx(&ltx(1), body(seed, len), attributes(seed)).await.unwrap_err();
            assert!(error.is_precondition() && error.is_permanent(), "{error:?}");
            assert!(error.to_string().contains(&store.locate(&key(1))), "{error}");
        }
        assert_eq!(read_all(&*store, &key(1), 5000).await.unwrap(), content(7, 5000));
    }
}

#[tokio::test]
async fn of_many_writers_of_one_key_one_wins() {
    let roots = Roots::new();
    for store in roots.stores().await {
        let writers: Vec<_> = (0..8)
            .map(|seed| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    (seed, store.put_ltx(&ltx(1), body(seed, 3000), attributes(seed)).await)
                })
            })
            .collect();
        let mut winner = None;
        for writer in writers {
            match writer.await.unwrap() {
                (seed, Ok(PutOutcome::Created)) => {
                    assert_eq!(winner.replace(seed), None, "two writers created one object");
                }
                (_, Err(error)) => assert!(error.is_precondition(), "{error:?}"),
                (seed, other) => panic!("writer {seed}: {other:?}"),
            }
        }
        let there = read_all(&*store, &key(1), 3000).await.unwrap();
        assert_eq!(there, content(winner.unwrap(), 3000));
    }
}

#[tokio::test]
async fn a_file_is_uploaded_as_it_is() {
    let roots = Roots::new();
    let path = roots.dir.path().join("spooled");
    for (txid, len) in [(1, 8), (2, 100_000), (3, 3 * 1024 * 1024 + 1)] {
        std::fs::write(&path, content(txid, len)).unwrap();
        for store in roots.stores().await {
            let file = Body::File { path: path.clone(), len: len as u64 };
            let outcome = store.put_ltx(&ltx(txid), file, attributes(txid)).await.unwrap();
            assert_eq!(outcome, PutOutcome::Created);
            assert_eq!(read_all(&*store, &key(txid), len).await.unwrap(), content(txid, len));
        }
    }
}

#[tokio::test]
async fn a_missing_or_short_file_is_an_error_and_leaves_nothing() {
    let roots = Roots::new();
    let short = roots.dir.path().join("short");
    std::fs::write(&short, content(1, 100)).unwrap();
    let missing = roots.dir.path().join("missing");
    for store in roots.stores().await {
        for path in [&short, &missing] {
            let file = Body::File { path: path.clone(), len: 101 };
            let error = store.put_ltx(&ltx(1), file, attributes(1)).await.unwrap_err();
            let named = error.to_string().contains(path.to_str().unwrap());
            assert!(named && matches!(error, StoreError::Io { .. }), "{error:?}");
        }
        assert!(store.head(&key(1)).await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn head_knows_size_and_checksum() {
    let roots = Roots::new();
    for store in roots.stores().await {
        store.put_ltx(&ltx(1), body(7, 5000), attributes(7)).await.unwrap();
        let info = store.head(&key(1)).await.unwrap();
        assert_eq!((info.size, info.checksum), (5000, Some(attributes(7).checksum)));
        store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();
        let info = store.head(&Key::Heartbeat).await.unwrap();
        assert_eq!((info.size, info.checksum), (2, None));
    }
}

#[tokio::test]
async fn a_range_of_an_object_is_read() {
    let roots = Roots::new();
    let len = 700_000;
    let whole = content(1, len);
    for store in roots.stores().await {
        store.put_ltx(&ltx(1), body(1, len), attributes(1)).await.unwrap();
        let read = async |range: std::ops::Range<u64>| {
            let mut reader = store.get(&key(1), Some(range)).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = reader.next().await? {
                assert!(!piece.is_empty() && piece.len() <= 1024 * 1024);
                bytes.extend_from_slice(&piece);
            }
            Ok::<_, StoreError>(bytes)
        };
        for range in [0..1, 0..100, 99..700_000, 5..300_005, 10..10] {
            let expected =
                &whole[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert_eq!(read(range.clone()).await.unwrap(), expected, "{range:?}");
        }
        assert_eq!(
            read(699_990..800_000).await.unwrap(),
            &whole[699_990..],
            "reaching beyond the end"
        );
        let error = read(700_000..700_001).await.unwrap_err();
        assert!(matches!(error, StoreError::OutOfRange { start: 700_000, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn read_all_refuses_an_object_above_the_limit() {
    let roots = Roots::new();
    for store in roots.stores().await {
        store.put_ltx(&ltx(1), body(1, 5000), attributes(1)).await.unwrap();
        assert_eq!(read_all(&*store, &key(1), 5000).await.unwrap().len(), 5000);
        let error = read_all(&*store, &key(1), 4999).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { limit: 4999, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn each_tells_the_time() {
    let roots = Roots::new();
    for store in roots.stores().await {
        store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();
        let before = Timestamp::now().as_second();
        let time = store.time().await.unwrap().unwrap().as_second();
        let after = Timestamp::now().as_second();
        // In whole seconds, and a file system's is a little behind.
        assert!(before - 1 <= time && time <= after, "{before} {time} {after} {}", store.url());
    }
}

#[tokio::test]
async fn documents_are_overwritten() {
    let roots = Roots::new();
    for store in roots.stores().await {
        for (document, text) in [
            (Key::Heartbeat, "1"),
            (Key::Heartbeat, "22"),
            (Key::Receipt, "333"),
            (Key::DrillConfig, ""),
        ] {
            store.put_document(&document, Bytes::from_static(text.as_bytes())).await.unwrap();
            assert_eq!(read_all(&*store, &document, 10).await.unwrap(), text);
        }
        assert_eq!(read_all(&*store, &Key::Heartbeat, 10).await.unwrap(), "22");
    }
}

#[tokio::test]
async fn a_listing_is_sorted_by_name_and_kept_apart_by_level_and_chain() {
    let roots = Roots::new();
    let other = Chain::Generation("01938c5e-7a00-7000-8000-00000000000b".parse().unwrap());
    let level = Level::SNAPSHOT;
    for store in roots.stores().await {
        for txid in [0x10, 2, 0xff, 1] {
            store.put_ltx(&ltx(txid), body(txid, 100), attributes(txid)).await.unwrap();
        }
        for key in [
            LtxKey { level, ..ltx(3) },
            LtxKey { chain: other, ..ltx(4) },
            LtxKey { chain: Chain::Root, ..ltx(5) },
        ] {
            store.put_ltx(&key, body(9, 200), attributes(9)).await.unwrap();
        }
        store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();

        let names = async |chain, level| -> Vec<u64> {
            let objects = store.list_ltx(chain, level).await.unwrap();
            assert!(objects.iter().all(|object| object.level == level));
            objects.iter().map(|object| object.txids.min().get()).collect()
        };
        let ours = Chain::Generation(generation());
        assert_eq!(names(ours, Level::SYNC).await, [1, 2, 0x10, 0xff]);
        assert_eq!(names(ours, level).await, [3]);
        assert_eq!(names(other, Level::SYNC).await, [4]);
        assert_eq!(names(Chain::Root, Level::SYNC).await, [5]);
        assert_eq!(store.chains().await.unwrap(), [Chain::Root, ours, other]);
        let listed = store.list_ltx(ours, level).await.unwrap()[0];
        assert_eq!(listed.size, 200);
    }
}

#[tokio::test]
async fn a_root_lists_its_databases_and_nothing_else() {
    let roots = Roots::new();
    for root in roots.all().await {
        for name in ["web", "app", "app.v2"] {
            let store = root.database(name).unwrap();
            store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap();
        }
        // Objects of a database that stands at the root itself.
        let store = root.as_database();
        store.put_ltx(&ltx(1), body(1, 100), attributes(1)).await.unwrap();
        store
            .put_ltx(&LtxKey { chain: Chain::Root, ..ltx(1) }, body(1, 100), attributes(1))
            .await
            .unwrap();
        store.put_document(&Key::Heartbeat, Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(root.databases().await.unwrap(), ["app", "app.v2", "web"]);
        assert_eq!(store.chains().await.unwrap(), [Chain::Root, Chain::Generation(generation())]);
    }
}

#[tokio::test]
async fn a_database_name_that_leads_elsewhere_is_refused() {
    let roots = Roots::new();
    for root in roots.all().await {
        for name in
            ["", "..", "a/b", ".tmp", "0000", "ltx", "generations", &generation().to_string()]
        {
            let error = root.database(name).unwrap_err();
            let hinted = error.to_string().contains("\nHINT: ");
            assert!(
                hinted && matches!(error, StoreError::Configuration { .. }),
                "{name}: {error:?}"
            );
        }
    }
}
