//! `verifier sabotage` as its operator sees it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use seaworthy_tests::drill_support::{Surroundings, fixture};
use seaworthy_tests::process::run;
use seaworthy_tests::stores::litestreams_bucket;
use serde_json::Value;

/// Every file below a directory, and its content.
fn tree(directory: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            files.insert(path, content);
        }
    }
    files
}

#[test]
fn it_shows_what_caught_each_damage_and_leaves_everything_as_it_was() {
    let world = Surroundings::new().unwrap();
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    let before = tree(&world.replica("app"));

    let output = run(world.verifier().unwrap().args(["sabotage", "app"]), 0).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |damage: &str| text.lines().find(|line| line.contains(damage)).expect(damage);
    assert!(line("the newest file missing").starts_with("caught "), "{text}");
    assert!(line("the newest file missing").contains("  durable_point  "), "{text}");
    assert!(line("stray objects").starts_with("harmless, passes "), "{text}");
    assert!(line("one value changed").starts_with("not catchable "), "{text}");
    assert!(line("one value changed").contains("this chain has no database checksums"), "{text}");
    assert!(text.ends_with("0 missed, 0 false alarm(s)\n"), "{text}");

    let output = run(world.verifier().unwrap().args(["sabotage", "app", "--json"]), 0).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["undamaged"]["verdict"], "PASS");
    let trial = &report["trials"][0];
    assert_eq!(trial["damage"], "a file in the middle missing");
    assert_eq!((&trial["outcome"], &trial["checks"][0]), (&"caught".into(), &"chain".into()));

    world.nothing_left().unwrap();
    assert_eq!(tree(&world.replica("app")), before, "the replica is only read");
    if world.ledger().exists() {
        assert_eq!(world.recorded().unwrap(), Vec::<Value>::new(), "nothing is recorded");
    }
}

#[test]
fn without_a_healthy_backup_nothing_is_found_out() {
    let world = Surroundings::new().unwrap();
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    let level = world.replica("app").join("ltx/0");
    let newest = std::fs::read_dir(&level).unwrap().map(|entry| entry.unwrap().path()).max();
    std::fs::write(newest.unwrap(), "LTX1 and then nothing").unwrap();
    for (name, said) in [("app", "HINT: "), ("absent", "HINT: ")] {
        let output = run(world.verifier().unwrap().args(["sabotage", name]), 3).unwrap();
        let said_all = [output.stdout, output.stderr].concat();
        let said_all = String::from_utf8(said_all).unwrap();
        assert!(said_all.contains(said) && said_all.contains("healthy backup"), "{said_all}");
    }
    world.nothing_left().unwrap();
}

#[test]
fn a_replica_in_a_bucket_is_only_read() {
    let server = litestreams_bucket();
    let before = server.keys();
    // The rights to restore, and no other.
    server.deny(&["PutObject", "CreateMultipartUpload", "DeleteObject", "DeleteObjects"]);
    let world = Surroundings::new().unwrap();
    let mut command = world.verifier().unwrap();
    command.envs(server.environment()).args(["sabotage", &server.url("prod/app.db")]);
    command.args(["--endpoint", &server.endpoint, "--json"]);
    let report: Value = serde_json::from_slice(&run(&mut command, 0).unwrap().stdout).unwrap();
    let trials = report["trials"].as_array().unwrap();
    let caught = trials.iter().filter(|trial| trial["outcome"] == "caught").count();
    assert!(caught > 40, "{report:#}");
    world.nothing_left().unwrap();
    let counts = server.counts();
    assert_eq!(counts.total(), counts.get() + counts.list(), "nothing else was tried: {counts:?}");
    // The plan of 8 files, the newest one's header, and documents: each is fetched once, not once a damage.
    assert!(counts.get() < 20, "{counts:?}");
    assert_eq!(server.keys(), before);
}

#[test]
fn a_replica_of_v03_is_named_as_what_cannot_be_damaged() {
    let world = Surroundings::new().unwrap();
    world.copy_replica(&fixture("v03-file").join("replica"), "app").unwrap();
    let output = run(world.verifier().unwrap().args(["sabotage", "app"]), 3).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("app: a replica of Litestream v0.3, and sabotage knows"), "{said}");
    assert_eq!(said.matches("HINT: ").count(), 1, "{said}");
    assert!(said.contains("\nHINT: drill it as it is"), "{said}");
    world.nothing_left().unwrap();
}
