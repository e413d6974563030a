//! Replicas that Litestream wrote, drilled as they are: the record says what Litestream itself restores from them, at the
//! latest and at past points, and what it refuses is no PASS.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{File, FileTimes};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use replica::restore::Progress;
use seaworthy_tests::drill_support::{Surroundings, copy_tree, expected, fixture};
use seaworthy_tests::dump::{dump, sha256_of_lines};
use seaworthy_tests::stores::file_root;
use serde_json::{Map, Value};
use verifier::drill::{Asked, InProcess, Request, drill};
use verifier::record::{Record, Verdict};

/// The fixtures, and where in their folders the replica stands.
const FIXTURES: [(&str, &str); 4] = [
    ("v05-file", "replica"),
    ("v05-pages512", "replica"),
    ("v05-s3", "objects/prod/app.db"),
    ("v03-file", "replica"),
];

/// A world with the fixture as the database `app`, with the modification times that git does not keep.
fn world(name: &str, replica: &str) -> (Surroundings, Value) {
    let (world, expected) = (Surroundings::new().unwrap(), expected(name).unwrap());
    let from = fixture(name).join(replica);
    if name != "v05-s3" {
        copy_tree(&from, &world.replica("app")).unwrap();
        for file in expected["files"].as_array().unwrap() {
            let path = world.replica("app").join(file["path"].as_str().unwrap());
            let time = UNIX_EPOCH + Duration::from_nanos(file["mtime_ns"].as_u64().unwrap());
            let file = File::options().write(true).open(path).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        return (world, expected);
    }
    // A bucket's tree as a directory's: levels in decimal.
    for level in 0..10 {
        let below = from.join(format!("{level:04x}"));
        if below.is_dir() {
            let to = world.replica("app").join("ltx").join(level.to_string());
            copy_tree(&below, &to).unwrap();
        }
    }
    (world, expected)
}

fn status<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    let checks = record["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name)?["status"].as_str()
}

fn assert_restored(record: &Value, point: &Value, what: &str) {
    assert_eq!(record["verdict"], "PASS", "{what}: {record:#}");
    let tables: &Map<String, Value> = point["tables"].as_object().unwrap();
    assert_eq!(record["tables"].as_object().unwrap(), tables, "{what}");
    for name in ["chain", "integrity_check", "foreign_key_check", "tables"] {
        assert_eq!(status(record, name), Some("pass"), "{what}: {name}");
    }
    assert!(record["restore"]["objects"].as_u64().unwrap() > 0);
}

#[test]
fn each_fixture_drills_to_what_litestream_restores() {
    for (name, replica) in FIXTURES {
        let (world, expected) = world(name, replica);
        let record = world.drill(&["app"], 0).unwrap();
        assert_restored(&record, &expected["latest"], name);
        // Nobody beats there, and no chain carries the database's checksum.
        assert_eq!(status(&record, "durable_point"), Some("unchecked"), "{name}: {record:#}");
        assert_eq!(record["source_match"], Value::Null, "{name}");
        assert_eq!(record["generation"], Value::Null, "{name}");
        assert_eq!(record["txid"], expected.get("max_txid").cloned().unwrap_or_default(), "{name}");
        // A PASS is a witness from then on.
        let again = world.drill(&["app"], 0).unwrap();
        assert_eq!(status(&again, "durable_point"), Some("pass"), "{name}: {again:#}");
    }
}

#[test]
fn past_points_drill_to_what_litestream_restores() {
    for (name, replica) in FIXTURES {
        let (world, expected) = world(name, replica);
        let mut drilled = 0;
        for point in expected["restore_points"].as_array().unwrap() {
            // A WAL index of v0.3 is no point that can be asked for; its end has a time.
            if point["kind"] == "index" {
                continue;
            }
            let at = point["value"].as_str().unwrap();
            let record = world.drill(&["app", "--at", at], 0).unwrap();
            assert_restored(&record, point, &format!("{name} at {at}"));
            assert_eq!(record["lag_seconds"], Value::Null);
            drilled += 1;
        }
        assert!(drilled >= 3, "{name}");
    }
}

/// Drills in this process, and keeps the very file that was checked as `kept`: a second name for it, given when the restore
/// into it begins.
async fn drill_and_keep(world: &Surroundings, asked: &Asked, kept: &Path) -> Record {
    let (temporary, to) = (world.temporary(), kept.to_owned());
    let keep = move |_bytes| -> Arc<dyn Progress> {
        let workspace = std::fs::read_dir(&temporary).unwrap().next().unwrap().unwrap();
        std::fs::hard_link(workspace.path().join("copy.db"), &to).unwrap();
        Arc::new(())
    };
    let store = file_root(&world.replica("app")).await.as_database();
    let temporary = world.temporary();
    let request = Request::new("app", store, asked, &temporary, Arc::new(InProcess));
    drill(&Request { progress: Arc::new(keep), ..request }).await.record
}

/// Every row and every statement of the schema, not only the counts.
#[tokio::test]
async fn what_is_drilled_has_the_dump_of_what_litestream_restores() {
    for (name, replica) in FIXTURES {
        let (world, expected) = world(name, replica);
        let mut points = vec![(Asked::LATEST, &expected["latest"])];
        for point in expected["restore_points"].as_array().unwrap() {
            if point["kind"] != "index" {
                points.push((point["value"].as_str().unwrap().parse().unwrap(), point));
            }
        }
        assert!(points.len() >= 4, "{name}");
        for (asked, point) in points {
            let kept = world.ledger().with_file_name("kept.db");
            let record = drill_and_keep(&world, &asked, &kept).await;
            assert_eq!(record.verdict, Verdict::Pass, "{name} at {asked}: {record:#?}");
            let all = dump(&kept).unwrap();
            assert_eq!(sha256_of_lines(&all), point["dump_sha256"], "{name} at {asked}");
            let users: Vec<String> =
                all.into_iter().filter(|line| !line.contains("_litestream_")).collect();
            assert_eq!(sha256_of_lines(&users), point["user_dump_sha256"], "{name} at {asked}");
            std::fs::remove_file(kept).unwrap();
            world.nothing_left().unwrap();
        }
    }
}

#[test]
fn refused_points_fail() {
    let mut refused = 0;
    for (name, replica) in FIXTURES {
        let (world, expected) = world(name, replica);
        let others = expected["other_points"].as_array().cloned().unwrap_or_default();
        for point in &others {
            let why = point["why"].as_str().unwrap();
            // Ours is at or before a time, Litestream's strictly before.
            if why.contains("comparison is strict") || why.contains("after the newest file") {
                continue;
            }
            let record =
                world.drill(&["app", "--at", point["value"].as_str().unwrap()], 1).unwrap();
            assert_eq!(record["verdict"], "FAIL", "{name}: {why}");
            assert_eq!(status(&record, "chain"), Some("fail"), "{name}: {why}");
            refused += 1;
        }
    }
    assert!(refused >= 6, "{refused}");
}

#[test]
fn the_oldest_point_is_the_first_that_is_advertised() {
    for (name, first) in [
        ("v05-file", Some("0000000000000001")),
        ("v05-s3", Some("0000000000000031")),
        ("v03-file", None),
    ] {
        let replica = FIXTURES.iter().find(|fixture| fixture.0 == name).unwrap().1;
        let (world, _) = world(name, replica);
        let record = world.drill(&["app", "--at", "oldest"], 0).unwrap();
        assert_eq!(
            (record["verdict"].as_str(), record["point"]["asked"].as_str()),
            (Some("PASS"), Some("oldest"))
        );
        assert_eq!(record["txid"].as_str(), first, "{name}");
        if name == "v03-file" {
            // The snapshot alone.
            assert_eq!(record["restore"]["objects"], 1);
        }
    }
}

#[test]
fn a_random_point_is_a_past_one_and_its_seed_repeats_it() {
    for (name, replica) in [FIXTURES[0], FIXTURES[3]] {
        let (world, expected) = world(name, replica);
        let record = world.drill(&["app", "--at", "random"], 0).unwrap();
        let seed = record["point"]["seed"].as_u64().unwrap().to_string();
        assert_eq!(record["verdict"], "PASS", "{name} seed {seed}: {record:#}");
        assert!(record["txid"].is_null() || record["txid"] != expected["max_txid"]);
        let again = world.drill(&["app", "--at", "random", "--seed", &seed], 0).unwrap();
        assert_eq!(again["point"], record["point"], "{name} seed {seed}");
        assert_eq!(again["tables"], record["tables"], "{name} seed {seed}");
        let by_event = world.drill(&["app", "--at", &format!("random:{seed}")], 0).unwrap();
        assert_eq!(by_event["point"], record["point"]);
        let points: std::collections::BTreeSet<String> = (0..6)
            .map(|seed| {
                world.drill(&["app", "--at", "random", "--seed", &seed.to_string()], 0).unwrap()
            })
            .map(|record| record["point"]["restored_at"].to_string())
            .collect();
        assert!(points.len() > 2, "{name}: {points:?}");
    }
    let world = Surroundings::new().unwrap();
    world.drill(&["app", "--seed", "7"], 2).unwrap_err();
}

#[test]
fn a_v03_replica_that_lost_its_newest_objects_fails() {
    let (world, _) = world("v03-file", "replica");
    world.drill(&["app"], 0).unwrap();
    let wal = world.replica("app").join("generations/a28762c50b44d4b1/wal");
    std::fs::remove_file(Path::new(&wal).join("00000004_0000d158.wal.lz4")).unwrap();
    let record = world.drill(&["app"], 1).unwrap();
    assert_eq!(status(&record, "durable_point"), Some("fail"), "{record:#}");
}

#[test]
fn an_encrypted_replica_is_inconclusive_and_named_as_such() {
    let (world, _) = world("v03-file", "replica");
    let object = "generations/a28762c50b44d4b1/snapshots/00000001.snapshot.lz4";
    std::fs::write(world.replica("app").join(object), b"age-encryption.org/v1\n-> X25519 x\n")
        .unwrap();
    let record = world.drill(&["app"], 3).unwrap();
    let detail = record["checks"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("encrypted with age") && detail.contains("HINT: "), "{detail}");
}
