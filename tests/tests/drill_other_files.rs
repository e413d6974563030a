//! Files that the newest state does not need: a drill reads them too, and says what a damaged one costs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use seaworthy_tests::drill_support::{Surroundings, fixture};
use serde_json::Value;

fn world() -> Surroundings {
    let world = Surroundings::new().unwrap();
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    world
}

fn other_files(record: &Value) -> (&str, &str) {
    let checks = record["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "other_files").unwrap();
    (check["status"].as_str().unwrap(), check["detail"].as_str().unwrap())
}

/// Flips a bit in the middle of a file of the replica.
fn damage(world: &Surroundings, name: &str) {
    let path = world.replica("app").join("ltx").join(name);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn all_of_a_few_files_are_read_and_strays_are_harmless() {
    let world = world();
    fs::write(world.replica("app").join("ltx/0/stray.ltx"), b"x").unwrap();
    let record = world.drill(&["app"], 0).unwrap();
    assert_eq!(other_files(&record).0, "pass");
    let counts = &record["other_files"];
    assert!(counts["of"].as_u64().unwrap() > 10 && counts["verified"] == counts["of"], "{counts}");
    assert_eq!(counts["damaged"], Value::Array(Vec::new()));
    // A past point is drilled for its own sake.
    let past = world.drill(&["app", "--at", "oldest"], 0).unwrap();
    assert_eq!(past["other_files"], Value::Null);
}

#[test]
fn a_damaged_file_without_which_a_point_is_lost_fails() {
    let world = world();
    // TXID 2 is in compacted files too, but no other file ends there.
    let name = "0/0000000000000002-0000000000000002.ltx";
    damage(&world, name);
    let record = world.drill(&["app"], 1).unwrap();
    let (status, detail) = other_files(&record);
    assert_eq!((status, record["verdict"].as_str()), ("fail", Some("FAIL")));
    for part in [name, "spoils", "0000000000000002", "offset", "HINT: "] {
        assert!(detail.contains(part), "{part} in {detail}");
    }
    let damaged = &record["other_files"]["damaged"];
    assert_eq!(damaged[0]["first"], "0000000000000002", "{damaged}");
    assert!(damaged[0]["spoiled_points"].as_u64().unwrap() >= 1);
    let chain = record["checks"].as_array().unwrap();
    let chain = chain.iter().find(|check| check["name"] == "chain").unwrap();
    assert_eq!(chain["status"], "pass", "the newest state itself can be restored");
}

#[test]
fn a_damaged_file_that_others_stand_in_for_is_named_and_passes() {
    let world = world();
    // A copy of level 0's first file one level up: the same TXIDs, the same end.
    let first = "0000000000000001-0000000000000001.ltx";
    let levels = world.replica("app").join("ltx");
    fs::copy(levels.join("0").join(first), levels.join("1").join(first)).unwrap();
    damage(&world, &format!("0/{first}"));
    let record = world.drill(&["app"], 0).unwrap();
    let (status, detail) = other_files(&record);
    assert_eq!(status, "pass");
    for part in ["1 damaged", first, "every restore point has another way", "note: ", "HINT: "] {
        assert!(detail.contains(part), "{part} in {detail}");
    }
    assert_eq!(record["other_files"]["damaged"][0]["spoiled_points"], 0);
    // When the other goes too, the point is gone.
    damage(&world, &format!("1/{first}"));
    let record = world.drill(&["app"], 1).unwrap();
    assert_eq!(other_files(&record).0, "fail");
}

#[test]
fn an_older_generation_is_read_too() {
    let world = world();
    let older = world.replica("app").join("0192f0c1-2345-7abc-8def-0123456789ab/ltx/9");
    fs::create_dir_all(&older).unwrap();
    let from = world.replica("app").join("ltx/0/0000000000000001-0000000000000001.ltx");
    let to = older.join("0000000000000001-0000000000000001.ltx");
    let mut bytes = fs::read(from).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&to, bytes).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let times = fs::FileTimes::new().set_modified(long_ago);
    fs::File::options().write(true).open(&to).unwrap().set_times(times).unwrap();
    let record = world.drill(&["app"], 1).unwrap();
    let (status, detail) = other_files(&record);
    assert!(
        status == "fail" && detail.contains("0192f0c1-2345-7abc-8def-0123456789ab"),
        "{detail}"
    );
}
