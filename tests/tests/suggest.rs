//! `verifier suggest`: what it proposes is a `drill.toml` that the same replica passes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use seaworthy_tests::drill_support::{Surroundings, fixture, ship_snapshot};
use seaworthy_tests::process::run;

fn suggest(world: &Surroundings) -> String {
    let mut command = world.verifier().unwrap();
    let output = run(command.args(["suggest", "app"]), 0).unwrap();
    world.nothing_left().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_drill_with_the_proposed_rules_passes() {
    let world = Surroundings::new().unwrap();
    ship_snapshot(
        &world.replica("app"),
        "CREATE TABLE customers(id INTEGER PRIMARY KEY, name);
         CREATE TABLE orders(id INTEGER PRIMARY KEY, customer REFERENCES customers, created_at TEXT);
         INSERT INTO customers VALUES (1, 'a'), (2, 'b');
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO orders SELECT i, 1 + i % 2, datetime('now', '-' || (300 - i) || ' minutes') FROM n;",
        |_| {},
    )
    .unwrap();
    let proposed = suggest(&world);
    for part in [
        "name = \"orders\"",
        "min_rows = 100",
        "sql = \"SELECT max(\\\"created_at\\\") FROM \\\"orders\\\"\"",
        "max_age = \"",
        "has 1 foreign key(s)",
        "[budget]",
    ] {
        assert!(proposed.contains(part), "{part} in\n{proposed}");
    }
    fs::write(world.replica("app").join("drill.toml"), &proposed).unwrap();
    let record = world.drill(&["app"], 0).unwrap();
    assert_eq!(record["verdict"], "PASS", "{record:#}");
}

#[test]
fn a_replica_that_litestream_wrote_can_be_asked() {
    for (name, replica) in [("v05-file", "replica"), ("v03-file", "replica")] {
        let world = Surroundings::new().unwrap();
        world.copy_replica(&fixture(name).join(replica), "app").unwrap();
        let proposed = suggest(&world);
        assert!(proposed.contains("name = \"order_items\""), "{proposed}");
        assert!(!proposed.contains("_litestream"), "Litestream's own tables are nobody's business");
        fs::write(world.replica("app").join("drill.toml"), &proposed).unwrap();
        let record = world.drill(&["app"], 0).unwrap();
        assert_eq!(record["verdict"], "PASS", "{record:#}");
    }
}

#[test]
fn nothing_to_restore_is_said_so() {
    let world = Surroundings::new().unwrap();
    fs::create_dir_all(world.replica("app")).unwrap();
    let mut command = world.verifier().unwrap();
    let output = run(command.args(["suggest", "app"]), 1).unwrap();
    assert!(output.stdout.is_empty());
}
