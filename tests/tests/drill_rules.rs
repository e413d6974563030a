//! What a drill compares a copy with: `drill.toml`, the last PASS, and the source.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use replica::store::{Chain, FileStore};
use seaworthy_tests::drill_support::{
    MailServer, Surroundings, UNINTERRUPTIBLE, detail, ship_snapshot, status, write_heartbeat,
};
use seaworthy_tests::made_chain::{MadeChain, Recipe};
use seaworthy_tests::process::{PATIENCE, Process, arguments_of, children_of, run};
use serde_json::{Value, json};

/// Ships a database made from `sql`, in the place of what was there.
fn ship(world: &Surroundings, sql: &str) {
    let replica = world.replica("app");
    let rules = fs::read(replica.join("drill.toml")).ok();
    let _ = fs::remove_dir_all(&replica);
    ship_snapshot(&replica, sql, |_| ()).unwrap();
    write_heartbeat(&replica, "1", 0).unwrap();
    if let Some(rules) = rules {
        fs::write(replica.join("drill.toml"), rules).unwrap();
    }
}

fn rule(world: &Surroundings, text: &str) {
    fs::write(world.replica("app").join("drill.toml"), text).unwrap();
}

const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150)";

fn orders(rows: u32) -> String {
    format!(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, at TEXT); CREATE TABLE queue(x);
         {MANY} INSERT INTO orders SELECT i, datetime('now') FROM n LIMIT {rows};"
    )
}

#[test]
fn rules_are_checked_and_their_values_recorded() {
    let world = Surroundings::new().unwrap();
    ship(&world, &orders(150));
    rule(
        &world,
        "[[assert]]\nname = \"orders keep coming\"\nsql = \"SELECT max(at) FROM orders\"\nmax_age = \"1h\"\n\
         [[assert]]\nname = \"how many\"\nsql = \"SELECT count(*) FROM orders\"\nmin = 150\nmax = 150\n\
         [[assert]]\nname = \"no orphans\"\nsql = \"SELECT 1 FROM orders WHERE id < 0\"\nrows = 0\n\
         [[table]]\nname = \"orders\"\nmin_rows = 1\nmax_change = \"20%\"\n\
         [budget]\nrestore = \"5m\"\nlag = \"1h\"\n",
    );
    let record = world.drill(&["app"], 0).unwrap();
    let names: Vec<_> = record["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    let expected = [
        "chain",
        "source_match",
        "durable_point",
        "point",
        "size",
        "integrity_check",
        "check_constraints",
        "foreign_key_check",
        "schema",
        "tables",
        "assert: orders keep coming",
        "assert: how many",
        "assert: no orphans",
        "table: orders",
        "budget: restore",
        "budget: lag",
    ];
    assert_eq!(names[..expected.len()], expected, "in the record's order");
    for check in expected.iter().filter(|name| **name != "source_match") {
        assert_eq!(status(&record, check), "pass", "{check}: {record:#}");
    }
    assert_eq!(
        (&record["values"]["how many"], &record["values"]["no orphans"]),
        (&json!(150), &json!(0))
    );
    assert!(record["values"]["orders keep coming"].is_string());
    assert_eq!(record["size"]["bytes"].as_u64().unwrap() % 4096, 0);
    assert_eq!(record["schema"].as_str().unwrap().len(), 64);
    assert!(record["steps"].as_array().unwrap().iter().any(|step| step["name"] == "restore"));
    let text = run(world.verifier().unwrap().args(["drill", "app"]), 0).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for part in ["  size        ", "  slowest     ", "    how many            150\n"] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn a_broken_rule_fails_and_one_that_cannot_be_carried_out_accuses_nobody() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let assert = |sql: &str, expects: &str| {
        format!("[[assert]]\nname = \"x\"\nsql = \"{sql}\"\n{expects}\n")
    };
    let cases = [
        (
            assert("SELECT count(*) FROM orders", "min = 151"),
            1,
            "assert: x",
            "fail",
            "at least 151, actual 150",
        ),
        (assert("SELECT 1 FROM gone", "rows = 0"), 1, "assert: x", "fail", "no such table: gone"),
        (
            assert(&format!("{endless} SELECT count(*) FROM n"), "rows = 1\ntimeout = \"100ms\""),
            3,
            "assert: x",
            "error",
            "did not end within 0.1 s\nHINT: ",
        ),
        (
            assert(
                &format!("{endless} SELECT i, zeroblob(1000000) FROM n ORDER BY random()"),
                "rows = 1",
            ),
            3,
            "assert: x",
            "error",
            "out of memory\nHINT: ",
        ),
        (assert("DELETE FROM orders", "rows = 0"), 3, "assert: x", "error", "does not only read"),
        (
            assert("SELECT app_fn()", "rows = 1"),
            0,
            "assert: x",
            "unchecked",
            "no such function: app_fn",
        ),
        ("[[table]]\nname = \"gone\"\n".to_owned(), 1, "table: gone", "fail", "no table \"gone\""),
        ("[budget]\nrestore = \"0s\"\n".to_owned(), 1, "budget: restore", "fail", "budget 0 s"),
        (
            "[[tabel]]\nname = \"orders\"\n".to_owned(),
            3,
            "drill.toml",
            "error",
            "drill.toml:1: unknown key tabel\nHINT: did you mean table?",
        ),
    ];
    let world = Surroundings::new().unwrap();
    ship(&world, &orders(150));
    for (text, exit, check, expected, words) in cases {
        rule(&world, &text);
        let record = world.drill(&["app"], exit).unwrap();
        assert_eq!(status(&record, check), expected, "{text}: {record:#}");
        assert!(detail(&record, check).contains(words), "{text}: {}", detail(&record, check));
        assert_eq!(status(&record, "tables"), "pass", "{text}: the rest was checked");
    }
}

#[test]
fn a_past_point_is_not_measured_by_todays_rules() {
    let world = Surroundings::new().unwrap();
    ship(&world, &orders(150));
    rule(&world, "[[table]]\nname = \"gone\"\n[budget]\nlag = \"0s\"\n");
    let record = world.drill(&["app", "--at", "1"], 0).unwrap();
    assert_eq!(status(&record, "table: gone"), "unchecked", "{record:#}");
    assert_eq!(status(&record, "budget: lag"), "absent");
}

#[test]
fn a_loss_since_the_last_pass_fails_until_it_is_said_to_be_meant() {
    let world = Surroundings::new().unwrap();
    ship(&world, &orders(150));
    let first = world.drill(&["app"], 0).unwrap();
    assert!(detail(&first, "schema").contains("no earlier PASS"), "{first:#}");

    ship(&world, &format!("{} CREATE TABLE more(x); INSERT INTO queue VALUES (1);", orders(149)));
    let changed = world.drill(&["app"], 0).unwrap();
    assert!(detail(&changed, "schema").contains("changed since the PASS"), "{changed:#}");
    assert!(detail(&changed, "tables").contains("orders 149 (-1)"), "{changed:#}");
    assert_ne!(changed["schema"], first["schema"]);

    ship(&world, &orders(0));
    let emptied = world.drill(&["app"], 1).unwrap();
    assert_eq!(status(&emptied, "tables"), "fail", "{emptied:#}");
    assert!(detail(&emptied, "tables").contains("orders: expected some of 149 rows, actual 0"));

    ship(&world, "CREATE TABLE queue(x); INSERT INTO queue VALUES (1);");
    let dropped = world.drill(&["app"], 1).unwrap();
    assert_eq!(status(&dropped, "schema"), "fail", "{dropped:#}");
    assert!(detail(&dropped, "schema").contains("are gone: orders (149 rows)"), "{dropped:#}");

    rule(&world, "[schema]\ndropped = [\"ord*\"]\n");
    let meant = world.drill(&["app"], 0).unwrap();
    assert!(meant["tables"].get("orders").is_none());
    rule(&world, "");
    world.drill(&["app"], 0).unwrap();
}

#[test]
fn the_mail_says_since_when_and_how_to_restore_what_was_proven() {
    let world = Surroundings::new().unwrap();
    let server = MailServer::start().unwrap();
    ship(&world, &orders(150));
    world.drill(&["app"], 0).unwrap();
    ship(&world, "CREATE TABLE other(x);");
    let mailed = || {
        let mut command = world.verifier().unwrap();
        server.configure(&mut command);
        run(command.args(["drill", "app", "--json"]), 1).unwrap();
        server.take()[0].form("Message.Body.Text.Data").unwrap()
    };
    let first = mailed();
    assert!(!first.contains("has passed since"), "{first}");
    assert!(first.contains("orders (150 rows)"), "{first}");
    let url = world.url("app");
    let command =
        format!("shipper restore {url} --output app.db --txid 0000000000000001 --generation ");
    assert!(first.contains(&command), "{first}");
    let started = world.recorded().unwrap()[1]["started_at"].as_str().unwrap().to_owned();
    let second = mailed();
    assert!(second.contains(&format!("has passed since the one of {started}")), "{second}");
}

/// A checksummed chain of four states, and a heartbeat at its end.
async fn checksummed(world: &Surroundings, scrub: Value) {
    let made = MadeChain::make(Recipe { seed: 1, txids: 4, page_size: 4096, checksummed: true });
    let replica = world.replica("app");
    if !replica.exists() {
        made.put(&FileStore::new(replica.clone())).await;
    }
    let chains: Vec<_> = fs::read_dir(&replica).unwrap().map(|e| e.unwrap().file_name()).collect();
    let generation = chains.iter().map(|name| name.to_string_lossy()).find(|name| name.len() == 36);
    let now = Timestamp::now();
    let heartbeat = json!({
        "version": 1, "generation": generation.unwrap(), "txid": "4", "page_size": 4096,
        "page_count": made.state(4).pages, "written_at": now, "synced_at": now,
        "last_transaction_at": now, "wal_bytes": 0, "last_error": null,
        "shipper_version": "0.1.0", "sqlite_version": "3.54.1", "host": "web-1", "scrub": scrub,
    });
    assert!(matches!(made.chain, Chain::Generation(_)));
    fs::write(replica.join("heartbeat.json"), heartbeat.to_string()).unwrap();
}

#[tokio::test]
async fn the_copy_is_the_source_where_checksum_and_scrub_say_so() {
    let world = Surroundings::new().unwrap();
    let scrub = |mismatches: u64, hours: i64| {
        let at = Timestamp::from_second(Timestamp::now().as_second() - hours * 3600).unwrap();
        json!({"finished_at": at, "txid": "3", "mismatches": mismatches})
    };
    for (scrub, exit, expected, matched) in [
        (scrub(0, 1), 0, "pass", json!(true)),
        (Value::Null, 0, "unchecked", Value::Null),
        (scrub(2, 1), 1, "fail", json!(false)),
        (scrub(0, 49), 1, "fail", json!(false)),
    ] {
        checksummed(&world, scrub.clone()).await;
        let record = world.drill(&["app"], exit).unwrap();
        assert_eq!(status(&record, "source_match"), expected, "{scrub}: {record:#}");
        assert_eq!(record["source_match"], matched, "{scrub}");
        assert!(
            detail(&record, "source_match").contains("at TXID 0000000000000003") || scrub.is_null()
        );
    }
    checksummed(&world, scrub(0, 1)).await;
    let record = world.drill(&["app", "--at", "2"], 0).unwrap();
    assert_eq!(
        (status(&record, "source_match"), &record["source_match"]),
        ("unchecked", &Value::Null)
    );
    assert!(detail(&record, "source_match").contains("has the database checksum of TXID"));
}

/// Two assertions, of which the first computes for hours, for as long as it may.
fn rule_uninterruptible(world: &Surroundings, timeout: &str) {
    ship(world, "CREATE TABLE t(x)");
    rule(
        world,
        &format!(
            "[[assert]]\nname = \"slow\"\nsql = \"SELECT {UNINTERRUPTIBLE}\"\nequals = 0\ntimeout = \"{timeout}\"\n\
             [[assert]]\nname = \"other\"\nsql = \"SELECT 1\"\nequals = 1\n"
        ),
    );
}

#[test]
fn what_sqlite_does_not_interrupt_ends_at_its_timeout_and_the_rest_is_answered() {
    let world = Surroundings::new().unwrap();
    rule_uninterruptible(&world, "1s");
    let record = world.drill(&["app"], 3).unwrap();
    assert_eq!(record["verdict"], "INCONCLUSIVE");
    assert_eq!(status(&record, "assert: slow"), "error", "{record:#}");
    let said = detail(&record, "assert: slow");
    assert!(said.starts_with("did not end within 1 s, and was killed"), "{said}");
    for check in ["integrity_check", "tables", "assert: other"] {
        assert_eq!(status(&record, check), "pass", "{record:#}");
    }
}

#[test]
fn the_checks_process_is_confined_and_its_death_is_no_pass() {
    let world = Surroundings::new().unwrap();
    rule_uninterruptible(&world, "1h");
    let mut command = world.verifier().unwrap();
    command.args(["drill", "app", "--json"]);
    let mut drill = Process::start(command).unwrap();
    let read = |id: u32, file: &str| fs::read_to_string(format!("/proc/{id}/{file}"));
    let (id, mut seen) = (drill.id(), None);
    drill
        .until(|| {
            seen = children_of(id).into_iter().find_map(|id| {
                let limits = read(id, "limits").ok()?;
                let is_confined = limits.lines().any(|line| {
                    line.starts_with("Max file size") && line.split_whitespace().nth(3) == Some("0")
                });
                is_confined.then(|| read(id, "environ").ok()).flatten()
            });
            seen.is_some()
        })
        .unwrap();
    let environment = seen.unwrap();
    assert!(!environment.contains("AWS_"), "it has no credentials: {environment}");
    // As a fault of SQLite's would end it, whatever it is doing, until nothing is left to do.
    while drill.check().is_ok() {
        for id in children_of(id) {
            let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
            let _ = rustix::process::kill_process(id, rustix::process::Signal::SEGV);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = drill.output();
    assert!(output.contains("\"verdict\": \"INCONCLUSIVE\""), "{output}");
    assert!(output.contains("ended in the middle of this one (signal: 11 (SIGSEGV)"), "{output}");
    world.nothing_left().unwrap();
}

#[test]
fn a_killed_drill_takes_the_checks_process_with_it() {
    let world = Surroundings::new().unwrap();
    rule_uninterruptible(&world, "1h");
    let mut command = world.verifier().unwrap();
    command.args(["drill", "app"]);
    let mut drill = Process::start(command).unwrap();
    let (id, mut child) = (drill.id(), None);
    // Its limits come before it asks to die with the drill, and its answer after: by then it asks SQLite.
    drill
        .until(|| {
            child = children_of(id).first().copied();
            child.is_some_and(|child| {
                arguments_of(child).starts_with(b"verifier\0inspect-copy\0")
                    && fs::read_dir(format!("/proc/{child}/fd")).is_ok_and(|open| open.count() > 3)
            })
        })
        .unwrap();
    drill.kill().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !arguments_of(child.unwrap()).is_empty() {
        assert!(Instant::now() < deadline, "it lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}
