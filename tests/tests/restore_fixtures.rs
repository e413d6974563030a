//! Replicas that Litestream wrote: we restore what Litestream itself restores from them, to the byte,
//! by the same plan, and refuse what it refuses.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use replica::restore::{Plan, Restored, Selected, Target, points, publish, select};
use replica::store::{FileStore, Store};
use seaworthy_tests::stores::{litestreams_bucket, s3_root};
use serde_json::Value;
use sha2::{Digest, Sha256};

const FIXTURES: [&str; 3] = ["v05-file", "v05-pages512", "v05-s3"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn expected(name: &str) -> Value {
    let file = File::open(fixture(name).join("expected.json")).unwrap();
    serde_json::from_reader(file).unwrap()
}

/// A fixture as a file store. An S3 tree is laid out as files first.
fn open(name: &str, scratch: &Path) -> Arc<dyn Store> {
    let replica = fixture(name).join("replica");
    if replica.is_dir() {
        return Arc::new(FileStore::new(replica));
    }
    let tree = fixture(name).join("objects/prod/app.db");
    for level in fs::read_dir(tree).unwrap() {
        let level = level.unwrap();
        let number =
            u8::from_str_radix(level.file_name().to_str().unwrap(), 16).unwrap().to_string();
        let to = scratch.join("ltx").join(number);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(level.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    Arc::new(FileStore::new(scratch.to_owned()))
}

fn target(point: &Value) -> Target {
    let value = point["value"].as_str().unwrap();
    match point["kind"].as_str().unwrap() {
        "txid" => Target::Txid(value.parse().unwrap()),
        "timestamp" => Target::AtOrBefore(value.parse().unwrap()),
        other => panic!("{other}"),
    }
}

fn plan_names(plan: &Plan) -> Vec<String> {
    plan.files.iter().map(|f| format!("{}/{}", f.level, f.txids.file_name())).collect()
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn restore(store: &Arc<dyn Store>, target: Target, output: &Path) -> (Selected, Restored) {
    let selected = select(store.as_ref(), None, target).await.unwrap();
    let restored =
        publish(Arc::clone(store), &selected.plan, output, true, Arc::new(())).await.unwrap();
    (selected, restored)
}

#[tokio::test]
async fn latest_is_what_litestream_restores() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let (store, expected) = (open(name, &dir.path().join("replica")), expected(name));
        let output = dir.path().join("app.db");
        let (selected, restored) = restore(&store, Target::Latest, &output).await;
        let latest = &expected["latest"];
        assert_eq!(sha256(&output), latest["file_sha256"], "{name}");
        assert_eq!(u64::from(restored.page_count), latest["page_count"], "{name}");
        assert_eq!(restored.txid.to_string(), expected["max_txid"], "{name}");
        assert_eq!(Value::from(plan_names(&selected.plan)), latest["plan"], "{name}");
    }
}

#[tokio::test]
async fn past_points_are_what_litestream_restores() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let (store, expected) = (open(name, &dir.path().join("replica")), expected(name));
        let output = dir.path().join("app.db");
        let all = expected["restore_points"].as_array().unwrap();
        assert!(all.len() >= 6, "{name}");
        for point in all {
            let (selected, _) = restore(&store, target(point), &output).await;
            assert_eq!(sha256(&output), point["file_sha256"], "{name} {}", point["value"]);
            // For a timestamp Litestream leaves out snapshots that were taken after it, whatever they
            // hold: it gets to the same state by more files.
            if point["kind"] == "txid" {
                let plan = Value::from(plan_names(&selected.plan));
                assert_eq!(plan, point["plan"], "{name} {}", point["value"]);
            }
        }
    }
}

/// What Litestream refuses, we refuse too, except where our `--timestamp` means something else: at the
/// time of the oldest file that file counts, and after the newest the newest does.
#[tokio::test]
async fn refused_points_are_refused() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let (store, expected) = (open(name, &dir.path().join("replica")), expected(name));
        let mut refused = 0;
        for point in expected["other_points"].as_array().unwrap() {
            let why = point["why"].as_str().unwrap();
            let outcome = select(store.as_ref(), None, target(point)).await;
            if why.contains("comparison is strict") && name != "v05-s3" {
                assert_eq!(outcome.unwrap().plan.txid.get(), 1, "{name}: {why}");
            } else if why.contains("after the newest file") {
                let txid = outcome.unwrap().plan.txid.to_string();
                assert_eq!(txid, expected["max_txid"], "{name}: {why}");
            } else {
                let error = outcome.expect_err(why);
                assert!(error.is_replica_fault(), "{name}: {why}: {error}");
                refused += 1;
            }
        }
        assert!(refused >= 2, "{name}");
    }
}

#[tokio::test]
async fn every_listed_point_is_restored_by_its_timestamp() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let store = open(name, &dir.path().join("replica"));
        let points = points(store.as_ref()).await.unwrap();
        let (first, last) = (points.first().unwrap(), points.last().unwrap());
        assert!(first.txid < last.txid, "{name}");
        assert_eq!(last.txid.to_string(), expected(name)["max_txid"], "{name}");
        for point in &points {
            let by_time =
                select(store.as_ref(), None, Target::AtOrBefore(point.timestamp)).await.unwrap();
            let by_txid = select(store.as_ref(), None, Target::Txid(point.txid)).await.unwrap();
            assert_eq!(by_txid.plan.bytes(), point.bytes, "{name} {}", point.txid);
            assert_eq!(by_time.plan.txid, point.txid, "{name} {}", point.timestamp);
        }
        let before = first.timestamp - jiff::SignedDuration::from_millis(1);
        select(store.as_ref(), None, Target::AtOrBefore(before)).await.unwrap_err();
        select(store.as_ref(), None, Target::AtOrBefore(Timestamp::MAX)).await.unwrap();
    }
}

/// The tree as Litestream left it in a bucket, over the real protocol.
#[tokio::test]
async fn an_s3_tree_is_restored_over_s3() {
    let server = litestreams_bucket();
    let store = s3_root(&server, &server.endpoint, "prod/app.db").await.as_database();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("app.db");
    let expected = expected("v05-s3");
    let (selected, _) = restore(&store, Target::Latest, &output).await;
    assert_eq!(sha256(&output), expected["latest"]["file_sha256"]);
    assert_eq!(Value::from(plan_names(&selected.plan)), expected["latest"]["plan"]);
    for point in expected["restore_points"].as_array().unwrap() {
        restore(&store, target(point), &output).await;
        assert_eq!(sha256(&output), point["file_sha256"], "{}", point["value"]);
    }
    let restored = server.counts();
    assert!(restored.list() > 0 && restored.get() > 0);
    server.deny(&["ListObjectsV2"]);
    let error = select(store.as_ref(), None, Target::Latest).await.unwrap_err();
    assert!(!error.is_replica_fault() && error.to_string().contains("restore policy"), "{error}");
}
