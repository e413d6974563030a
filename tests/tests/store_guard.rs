//! Stores that do not keep a second writer off: found out by the probe, written to after a look.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use replica::store::{Body, Guard, LtxAttributes, PutOutcome, Store, StoreError, read_all};
use seaworthy_tests::s3_server::{Conditions, S3Server};
use seaworthy_tests::shipping::{Shipping, same_rows};
use seaworthy_tests::stores::{attributes, body, content, file_root, key, ltx, s3_root};
use seaworthy_tests::writer;
use tempfile::TempDir;

/// Sent in one request, and in parts.
const LENGTHS: [usize; 2] = [5000, 17 << 20];

/// Each kind of store, and a length to try it with.
const UNGUARDED: [(Conditions, usize); 5] = [
    (Conditions::Ignored, LENGTHS[0]),
    (Conditions::Ignored, LENGTHS[1]),
    (Conditions::Refused(501), LENGTHS[0]),
    (Conditions::Refused(501), LENGTHS[1]),
    (Conditions::Refused(400), LENGTHS[0]),
];

async fn store(server: &S3Server) -> Arc<dyn Store> {
    s3_root(server, &server.endpoint, "backups/web-1").await.database("app").unwrap()
}

/// Another writer's object of the same length.
fn other(len: usize) -> (Body, LtxAttributes) {
    (body(8, len), attributes(8))
}

#[tokio::test]
async fn the_probe_tells_a_store_that_guards_its_objects() {
    let server = S3Server::start();
    let dir = TempDir::new().unwrap();
    let file = file_root(dir.path()).await.database("app").unwrap();
    for (txid, len) in (1..).zip(LENGTHS) {
        for store in [store(&server).await, file.clone()] {
            store.put_ltx(&ltx(txid), body(7, len), attributes(7)).await.unwrap();
            let guard = store.probe_guard(&ltx(txid), body(7, len), attributes(7)).await.unwrap();
            assert_eq!(guard, Guard::Guarded);
            assert_eq!(read_all(&*store, &key(txid), len).await.unwrap(), content(7, len));
        }
    }
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn the_probe_tells_a_store_that_ignores_or_refuses_the_condition() {
    for (conditions, len) in UNGUARDED {
        let server = S3Server::start();
        let store = store(&server).await;
        store.put_ltx(&ltx(1), body(7, len), attributes(7)).await.unwrap();
        server.conditions(conditions);
        let guard = store.probe_guard(&ltx(1), body(7, len), attributes(7)).await.unwrap();
        assert_eq!(guard, Guard::Unguarded, "{conditions:?}");
        assert_eq!(read_all(&*store, &key(1), len).await.unwrap(), content(7, len));
        assert_eq!(server.open_uploads(), 0, "{conditions:?}");
    }
}

#[tokio::test]
async fn the_probe_never_touches_an_object_of_another_writer() {
    let server = S3Server::start();
    server.conditions(Conditions::Ignored);
    let store = store(&server).await;
    let error = store.probe_guard(&ltx(1), body(7, 100), attributes(7)).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    store.put_ltx(&ltx(1), body(8, 100), attributes(8)).await.unwrap();
    let error = store.probe_guard(&ltx(1), body(7, 100), attributes(7)).await.unwrap_err();
    assert!(error.is_precondition(), "{error:?}");
    assert_eq!(read_all(&*store, &key(1), 100).await.unwrap(), content(8, 100));
}

#[tokio::test]
async fn the_probe_costs_a_head_and_a_put() {
    let server = S3Server::start();
    let store = store(&server).await;
    store.put_ltx(&ltx(1), body(7, 100), attributes(7)).await.unwrap();
    let before = server.counts();
    store.probe_guard(&ltx(1), body(7, 100), attributes(7)).await.unwrap();
    let after = server.counts();
    assert_eq!((after.head() - before.head(), after.put() - before.put()), (1, 1));
    assert_eq!(after.total() - before.total(), 2);
}

#[tokio::test]
async fn a_condition_that_the_store_refuses_is_told_from_other_refusals_and_not_repeated() {
    for (conditions, len) in UNGUARDED {
        if conditions != Conditions::Ignored {
            let server = S3Server::start();
            let store = store(&server).await;
            server.conditions(conditions);
            let error = store.put_ltx(&ltx(1), body(7, len), attributes(7)).await.unwrap_err();
            assert!(error.is_unguarded() && error.is_permanent(), "{error:?}");
            assert!(error.to_string().contains("If-None-Match"), "{error}");
            let counts = server.counts();
            assert_eq!(
                counts.of("PutObject") + counts.of("CompleteMultipartUpload"),
                1,
                "{counts:?}"
            );
            assert_eq!((server.keys().len(), server.open_uploads()), (0, 0));
        }
    }
}

#[tokio::test]
async fn without_a_guard_an_object_is_written_after_a_look_and_never_replaced() {
    for (conditions, len) in UNGUARDED {
        let server = S3Server::start();
        server.conditions(conditions);
        let store = store(&server).await;
        let put =
            async |seed| store.put_ltx_unguarded(&ltx(1), body(seed, len), attributes(seed)).await;
        assert_eq!(put(7).await.unwrap(), PutOutcome::Created);
        assert_eq!(server.counts().head(), 1, "one look for one object");
        assert_eq!(put(7).await.unwrap(), PutOutcome::AlreadyOurs);
        let error = put(8).await.unwrap_err();
        assert!(error.is_precondition(), "{error:?}");
        let there = read_all(&*store, &key(1), len).await.unwrap();
        assert_eq!(there, content(7, len), "{conditions:?}");
    }
}

#[tokio::test]
async fn without_a_guard_what_cannot_be_looked_at_is_not_written() {
    let server = S3Server::start();
    let store = store(&server).await;
    server.deny(&["ListObjectsV2"]);
    let error = store.put_ltx_unguarded(&ltx(1), body(7, 100), attributes(7)).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { action: "s3:GetObject", .. }), "{error:?}");
    assert_eq!(server.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn an_object_in_parts_is_looked_for_before_it_is_sent() {
    let server = S3Server::start();
    let store = store(&server).await;
    let len = LENGTHS[1];
    store.put_ltx(&ltx(1), body(7, len), attributes(7)).await.unwrap();
    // Even where the condition holds for single requests only, nobody's object is replaced.
    server.conditions(Conditions::IgnoredForParts);
    let parts = server.counts().of("UploadPart");
    let again = store.put_ltx(&ltx(1), body(7, len), attributes(7)).await.unwrap();
    assert_eq!(again, PutOutcome::AlreadyOurs);
    let (body, attributes) = other(len);
    let error = store.put_ltx(&ltx(1), body, attributes).await.unwrap_err();
    assert!(error.is_precondition(), "{error:?}");
    assert_eq!(server.counts().of("UploadPart"), parts, "nothing was sent in vain");
}

/// The program itself, with everything that stands between it and the store.
#[test]
fn a_shipper_finds_out_says_so_and_ships() {
    for conditions in [Conditions::Ignored, Conditions::Refused(501)] {
        let server = S3Server::start();
        server.conditions(conditions);
        let directory = TempDir::new().unwrap();
        let options = format!("endpoint = \"{}\"\nregion = \"us-east-1\"", server.endpoint);
        let shipping =
            Shipping::new(directory.path(), &server.url("web-1"), &options, server.environment());
        let source = directory.path().join("app.db");
        writer::create(&source, 4096, 100).unwrap();
        let mut shipper = shipping.start(&[("app", &source)], "50ms").unwrap();
        let application = rusqlite::Connection::open(&source).unwrap();
        for _ in 0..2 {
            application.execute("INSERT INTO item (name) VALUES ('one more')", []).unwrap();
            shipping.sync(&[]).unwrap();
        }
        let told = shipping.status(0).unwrap();
        assert_eq!(told["databases"][0]["unguarded"], true, "{conditions:?}: {told}");
        let looks = server.counts().head();
        application.execute("INSERT INTO item (name) VALUES ('the last')", []).unwrap();
        shipping.sync(&[]).unwrap();
        assert!(server.counts().head() > looks, "{conditions:?}: written without a look");
        shipper.stop().unwrap();
        let copy = directory.path().join("copy.db");
        shipping.restore("app", &copy).unwrap();
        same_rows(&copy, &source).unwrap();
    }
}
