//! Replicas of Litestream v0.3: restored as Litestream restores them, stricter where it is silent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use replica::restore::{
    Found, RestoreError, Target, V03Restored, all_points, find, find_v03, publish_v03,
};
use replica::store::{FileStore, Store};
use seaworthy_tests::drill_support::{copy_tree, expected, fixture};
use seaworthy_tests::process::{program, run};
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::stores::s3_root;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A copy of the fixture, with the modification times that git does not keep.
fn replica() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy_tree(&fixture("v03-file").join("replica"), directory.path()).unwrap();
    for file in expected("v03-file").unwrap()["files"].as_array().unwrap() {
        let path = directory.path().join(file["path"].as_str().unwrap());
        let time = UNIX_EPOCH + Duration::from_nanos(file["mtime_ns"].as_u64().unwrap());
        let file = File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    directory
}

const GENERATION: &str = "generations/a28762c50b44d4b1";

fn object(replica: &TempDir, name: &str) -> PathBuf {
    replica.path().join(GENERATION).join(name)
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn restore(
    store: Arc<dyn Store>,
    target: Target,
    output: &Path,
) -> Result<V03Restored, RestoreError> {
    let Found::V03(selected) = find(store.as_ref(), None, target).await? else {
        panic!("not a v0.3 replica");
    };
    publish_v03(store, &selected.plan, output, true, Arc::new(())).await
}

async fn latest(replica: &TempDir) -> Result<V03Restored, RestoreError> {
    let output = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::new(replica.path().to_owned()));
    restore(store, Target::Latest, &output.path().join("app.db")).await
}

fn file_store(replica: &TempDir) -> Arc<dyn Store> {
    Arc::new(FileStore::new(replica.path().to_owned()))
}

#[tokio::test]
async fn latest_and_past_points_are_what_litestream_restores() {
    let (replica, expected) = (replica(), expected("v03-file").unwrap());
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("app.db");
    let restored = restore(file_store(&replica), Target::Latest, &output).await.unwrap();
    assert_eq!(sha256(&output), expected["latest"]["file_sha256"]);
    assert_eq!(u64::from(restored.page_count), expected["latest"]["page_count"]);
    assert_eq!(restored.objects, 24);
    let mut by_index = 0;
    for point in expected["restore_points"].as_array().unwrap() {
        let value = point["value"].as_str().unwrap();
        let time: Timestamp = match point["kind"].as_str().unwrap() {
            "timestamp" => value.parse().unwrap(),
            // The end of a WAL has a time, too.
            _ => {
                by_index += 1;
                let index = u32::from_str_radix(value, 16).unwrap();
                let points = all_points(file_store(&replica).as_ref()).await.unwrap().v03;
                points.iter().rfind(|point| point.position.0 == index).unwrap().timestamp
            }
        };
        restore(file_store(&replica), Target::AtOrBefore(time), &output).await.unwrap();
        assert_eq!(sha256(&output), point["file_sha256"], "{value}");
    }
    assert_eq!(by_index, 4);
}

#[tokio::test]
async fn every_listed_point_restores_to_a_sound_database() {
    let replica = replica();
    let store = file_store(&replica);
    let points = all_points(store.as_ref()).await.unwrap();
    assert!(points.ltx.is_empty());
    assert_eq!(points.v03.len(), 24, "the snapshot, and the end of each segment");
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("app.db");
    for point in points.v03 {
        restore(store.clone(), Target::AtOrBefore(point.timestamp), &output).await.unwrap();
        let copy = rusqlite::Connection::open(&output).unwrap();
        let sound: String = copy.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok", "{point:?}");
    }
    let before = Target::AtOrBefore("2026-11-22T09:13:50Z".parse().unwrap());
    let error = find(store.as_ref(), None, before).await.unwrap_err();
    assert!(error.to_string().contains("no restore point at or before"), "{error}");
    let error = find(store.as_ref(), None, Target::Txid("1".parse().unwrap())).await.unwrap_err();
    assert!(error.to_string().contains("ask for a time"), "{error}");
}

/// A copy of the replica under another generation, with the same times.
fn twin(replica: &TempDir, name: &str) {
    for kind in ["snapshots", "wal"] {
        let to = replica.path().join("generations").join(name).join(kind);
        copy_tree(&object(replica, kind), &to).unwrap();
        for file in fs::read_dir(object(replica, kind)).unwrap() {
            let file = file.unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            let copy = File::options().write(true).open(to.join(file.file_name())).unwrap();
            copy.set_modified(time).unwrap();
        }
    }
}

#[tokio::test]
async fn a_generation_is_restored_by_its_name_whichever_is_newer() {
    let replica = replica();
    let (named, newer) = ("a28762c50b44d4b1", "b28762c50b44d4b2");
    twin(&replica, newer);
    // Another database than the one that is asked for.
    let lost = replica.path().join("generations").join(newer).join("wal");
    fs::remove_dir_all(lost).unwrap();
    let latest_expected = expected("v03-file").unwrap()["latest"]["file_sha256"].clone();
    let directory = tempfile::tempdir().unwrap();
    let restored = |name: &str| {
        let output = directory.path().join(name);
        let mut command = program("shipper").unwrap();
        let url = format!("file://{}", replica.path().display());
        command.args(["restore", &url, "--generation", name, "--json", "--output"]).arg(&output);
        let answer = run(&mut command, 0).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(answer["generation"], name);
        sha256(&output)
    };
    assert_eq!(restored(named), latest_expected);
    assert_ne!(restored(newer), latest_expected);

    let store = file_store(&replica);
    let other = "a28762c50b44d4b0".parse().unwrap();
    let error = find_v03(store.as_ref(), other, Target::Latest).await.unwrap_err().to_string();
    assert!(error.starts_with("no Litestream v0.3 generation a28762c50b44d4b0 at file://"));
    assert!(error.contains("\nHINT: there is b28762c50b44d4b2"), "{error}");
    let empty = TempDir::new().unwrap();
    let error = find_v03(file_store(&empty).as_ref(), other, Target::Latest).await.unwrap_err();
    assert!(error.to_string().contains("\nHINT: no Litestream v0.3 replica"), "{error}");
    let before = Target::AtOrBefore("2001-01-01T00:00:00Z".parse().unwrap());
    let error = find_v03(store.as_ref(), named.parse().unwrap(), before).await.unwrap_err();
    assert!(error.to_string().contains("no restore point at or before"), "{error}");
}

#[tokio::test]
async fn a_bucket_is_read_as_a_directory_is() {
    let (replica, server) = (replica(), S3Server::start());
    for kind in ["snapshots", "wal"] {
        for file in fs::read_dir(object(&replica, kind)).unwrap() {
            let file = file.unwrap();
            let key = format!("prod/app.db/{GENERATION}/{kind}/{}", file.file_name().display());
            server.replace(&key, fs::read(file.path()).unwrap());
        }
    }
    server.replace("prod/app.db/generations/stray/x", b"x".to_vec());
    let store = s3_root(&server, &server.endpoint, "prod/app.db").await.as_database();
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("app.db");
    restore(store, Target::Latest, &output).await.unwrap();
    let expected = expected("v03-file").unwrap();
    assert_eq!(sha256(&output), expected["latest"]["file_sha256"]);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    for (name, expected) in [
        ("snapshots/00000001.snapshot.lz4", "no snapshot"),
        ("wal/00000002_00000000.wal.lz4", "WAL 00000002 begins at offset 00001038"),
        ("wal/00000003_00004080.wal.lz4", "expected 00004080, actual 000070c8"),
    ] {
        let replica = replica();
        fs::remove_file(object(&replica, name)).unwrap();
        let error = latest(&replica).await.unwrap_err();
        assert!(error.is_replica_fault() && error.to_string().contains(expected), "{error}");
    }
    let replica = replica();
    for segment in fs::read_dir(object(&replica, "wal")).unwrap() {
        let path = segment.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("00000002_") {
            fs::remove_file(path).unwrap();
        }
    }
    let error = latest(&replica).await.unwrap_err().to_string();
    assert!(error.contains("WAL 00000002 is missing before WAL 00000003"), "{error}");
}

/// A byte changed anywhere in any object is refused, and so is an object cut short.
#[tokio::test]
async fn damage_is_refused_wherever_it_is() {
    for name in [
        "snapshots/00000001.snapshot.lz4",
        "wal/00000001_00000000.wal.lz4",
        "wal/00000002_00004080.wal.lz4",
        "wal/00000004_0000d158.wal.lz4",
    ] {
        let whole =
            fs::read(fixture("v03-file").join("replica").join(GENERATION).join(name)).unwrap();
        let mut damaged: Vec<Vec<u8>> = (0..whole.len())
            .step_by(whole.len() / 7)
            .map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                bytes
            })
            .collect();
        damaged.extend(
            [0, 7, whole.len() / 2, whole.len() - 8, whole.len() - 1].map(|n| whole[..n].to_vec()),
        );
        damaged.push([whole.as_slice(), b"x"].concat());
        for bytes in damaged {
            let replica = replica();
            fs::write(object(&replica, name), &bytes).unwrap();
            let error = latest(&replica).await.unwrap_err();
            assert!(error.is_replica_fault(), "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

/// What Litestream's restore takes for the end of a WAL, and drops without a word.
#[tokio::test]
async fn a_frame_of_other_bytes_is_refused_where_litestream_stops_silently() {
    let replica = replica();
    let path = object(&replica, "wal/00000003_00004080.wal.lz4");
    let mut wal = Vec::new();
    let compressed = fs::read(&path).unwrap();
    let mut reader = replica::format::FrameReader::new(compressed.as_slice()).unwrap();
    while let Some(block) = reader.next_block().unwrap() {
        wal.extend_from_slice(block);
    }
    wal[24 + 100] ^= 1;
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut encoder, &wal).unwrap();
    fs::write(&path, encoder.finish().unwrap()).unwrap();
    let error = latest(&replica).await.unwrap_err();
    assert!(matches!(error, RestoreError::DamagedWal { .. }), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("WAL frame 5: checksum"), "{source}");
}

#[tokio::test]
async fn an_encrypted_replica_is_named_as_such_and_not_called_damaged() {
    let replica = replica();
    let path = object(&replica, "snapshots/00000001.snapshot.lz4");
    fs::write(&path, b"age-encryption.org/v1\n-> X25519 aGVsbG8\n").unwrap();
    let error = latest(&replica).await.unwrap_err();
    assert!(matches!(error, RestoreError::Encrypted { .. }) && !error.is_replica_fault());
    let text = error.to_string();
    assert!(text.contains("00000001.snapshot.lz4: encrypted with age") && text.contains("HINT: "));
}

/// An upgrade leaves the v0.3 replica where it was; copying it anywhere makes it look newer than the chain.
#[tokio::test]
async fn a_chain_beside_it_wins_whatever_the_modification_times_say() {
    let replica = replica();
    copy_tree(&fixture("v05-file").join("replica"), replica.path()).unwrap();
    let store = file_store(&replica);
    let Found::Ltx(selected) = find(store.as_ref(), None, Target::Latest).await.unwrap() else {
        panic!("the v0.3 replica was chosen");
    };
    assert_eq!(selected.plan.txid.to_string(), expected("v05-file").unwrap()["max_txid"]);
    let note = "a Litestream v0.3 replica stands beside the chain";
    assert!(selected.remarks.iter().any(|remark| remark.contains(note)), "{:?}", selected.remarks);
    for kind in ["snapshots", "wal"] {
        for file in fs::read_dir(object(&replica, kind)).unwrap() {
            let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let file = File::options().write(true).open(file.unwrap().path()).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
    }
    let Found::Ltx(selected) = find(store.as_ref(), None, Target::Latest).await.unwrap() else {
        panic!("the v0.3 replica was chosen");
    };
    assert_eq!(selected.remarks, Vec::<String>::new());
    // What was before the chain is only in the older one.
    let past = Target::AtOrBefore("2010-01-01T00:00:00Z".parse().unwrap());
    let Found::V03(selected) = find(store.as_ref(), None, past).await.unwrap() else {
        panic!("there was no chain then");
    };
    assert!(selected.remarks[0].contains("no chain reaches back"), "{:?}", selected.remarks);
    let points = all_points(store.as_ref()).await.unwrap();
    assert!(points.ltx.len() > 5 && points.v03.len() == 1, "{points:?}");
}
