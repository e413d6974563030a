//! `verifier drill` from the command line, on files: what passes, every kind of damage, and what is not the
//! backup's fault. After each drill nothing of the copy is left, and the ledger has the record that was printed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use seaworthy_tests::drill_support::{
    GENERATION, Surroundings, detail, expected, fixture, ship_snapshot, status, write_heartbeat,
};
use seaworthy_tests::process::{PATIENCE, Process, run};
use serde_json::{Value, json};

const FIELDS: [&str; 18] = [
    "checks",
    "database",
    "finished_at",
    "generation",
    "lag_seconds",
    "other_files",
    "point",
    "restore",
    "schema",
    "size",
    "source_match",
    "started_at",
    "steps",
    "tables",
    "txid",
    "values",
    "verdict",
    "versions",
];

/// The URL of a replica of Litestream's, copied into a new world as `app`.
fn litestream_replica(world: &Surroundings) -> String {
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    world.url("app")
}

#[test]
fn what_litestream_wrote_passes_with_its_row_counts() {
    for name in ["v05-file", "v05-pages512"] {
        let world = Surroundings::new().unwrap();
        world.copy_replica(&fixture(name).join("replica"), "app").unwrap();
        let expected = expected(name).unwrap();
        let record = world.drill(&[&world.url("app")], 0).unwrap();
        assert_eq!(record["verdict"], "PASS", "{record:#}");
        assert_eq!(record["tables"], expected["latest"]["tables"]);
        assert_eq!(record["txid"], expected["max_txid"]);
        assert_eq!(record["point"]["asked"], "latest");
        assert_eq!((&record["generation"], &record["source_match"]), (&Value::Null, &Value::Null));
        let mut fields: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, FIELDS);
        assert_eq!(
            world.recorded().unwrap(),
            std::slice::from_ref(&record),
            "the ledger has what was printed"
        );
        let receipt: Value =
            serde_json::from_slice(&fs::read(world.replica("app").join("receipt.json")).unwrap())
                .unwrap();
        assert_eq!(receipt["txid"], record["txid"]);
        assert_eq!(receipt["finished_at"], record["finished_at"]);
    }
}

#[test]
fn past_points_pass_and_are_no_proof_of_today() {
    let world = Surroundings::new().unwrap();
    let url = litestream_replica(&world);
    let expected = expected("v05-file").unwrap();
    let points = expected["restore_points"].as_array().unwrap();
    let mut drilled = 0;
    for point in points.iter().filter(|point| point["kind"] == "txid" && point["exit"] == 0) {
        let record = world.drill(&[&url, "--at", point["value"].as_str().unwrap()], 0).unwrap();
        assert_eq!(record["tables"], point["tables"]);
        assert_eq!(record["point"]["asked"], point["value"]);
        assert_eq!(record["lag_seconds"], Value::Null);
        drilled += 1;
    }
    assert!(drilled >= 3, "the fixture has past points");
    assert!(!world.replica("app").join("receipt.json").exists());
}

#[test]
fn the_text_shows_verdict_checks_and_counts() {
    let world = Surroundings::new().unwrap();
    litestream_replica(&world);
    let output = run(world.verifier().unwrap().args(["drill", "app"]), 0).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("PASS  app\n"), "{text}");
    for part in [
        "pass       integrity_check    ok",
        "TXID 000000000000001a",
        "customers                   70 rows",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

/// Damages the replica in a directory.
type Damage = fn(&Path);

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

fn shorten(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

const SNAPSHOT: &str = "ltx/9/0000000000000001-000000000000000c.ltx";
const MIDDLE: &str = "ltx/0/0000000000000017-0000000000000017.ltx";

#[test]
fn damage_fails_and_the_object_is_named() {
    let cases: [(&str, Damage, &str); 9] = [
        (
            "missing middle file",
            |app| fs::remove_file(app.join(MIDDLE)).unwrap(),
            "0000000000000017",
        ),
        ("truncated", |app| shorten(&app.join(MIDDLE), 60), MIDDLE),
        ("one byte short", |app| shorten(&app.join(MIDDLE), 1), MIDDLE),
        ("empty file", |app| drop(File::create(app.join(MIDDLE)).unwrap()), MIDDLE),
        ("bit flipped in the header", |app| flip(&app.join(MIDDLE), 20), MIDDLE),
        ("bit flipped in a page", |app| flip(&app.join(SNAPSHOT), 3000), SNAPSHOT),
        (
            "bit flipped in the trailer",
            |app| {
                let path = app.join(SNAPSHOT);
                flip(&path, fs::metadata(&path).unwrap().len() - 3);
            },
            SNAPSHOT,
        ),
        (
            "no snapshot",
            |app| {
                for level in ["0", "1", "2", "9"] {
                    for file in
                        fs::read_dir(app.join("ltx").join(level)).unwrap().map(Result::unwrap)
                    {
                        if file.file_name().to_string_lossy().starts_with("0000000000000001-") {
                            fs::remove_file(file.path()).unwrap();
                        }
                    }
                }
            },
            "app",
        ),
        ("nothing there", |app| fs::remove_dir_all(app).unwrap(), "app"),
    ];
    for (what, damage, named) in cases {
        let world = Surroundings::new().unwrap();
        litestream_replica(&world);
        damage(&world.replica("app"));
        let record = world.drill(&["app"], 1).unwrap();
        assert_eq!(record["verdict"], "FAIL", "{what}");
        assert_eq!(status(&record, "chain"), "fail", "{what}: {record:#}");
        assert!(detail(&record, "chain").contains(named), "{what}: {}", detail(&record, "chain"));
        // Around a damaged snapshot there is another way, and what it gives is looked at, too.
        assert_eq!(record["tables"] == json!({}), named != SNAPSHOT, "{what}: {record:#}");
        assert_eq!(world.recorded().unwrap(), [record], "{what}");
        assert!(!world.replica("app").join("receipt.json").exists(), "{what}");
    }
}

#[test]
fn a_missing_newest_file_fails_once_something_remembers_it() {
    let world = Surroundings::new().unwrap();
    let url = litestream_replica(&world);
    world.drill(&[&url], 0).unwrap();
    fs::remove_file(world.replica("app").join("ltx/0/000000000000001a-000000000000001a.ltx"))
        .unwrap();
    let record = world.drill(&[&url], 1).unwrap();
    assert_eq!(status(&record, "chain"), "pass", "what is left is whole");
    assert_eq!(status(&record, "durable_point"), "fail");
    assert!(detail(&record, "durable_point").contains("000000000000001a durable"), "{record:#}");
}

const PARENT_AND_CHILD: &str =
    "CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1);
    CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id), note TEXT);
    CREATE INDEX child_note ON child(note); INSERT INTO child VALUES (1, 1, 'a note in an index');";

#[test]
fn a_copy_that_restores_but_does_not_hold_fails() {
    let orphan = format!(
        "{PARENT_AND_CHILD} PRAGMA foreign_keys = OFF; INSERT INTO child VALUES (7, 99, '')"
    );
    // What it is, the SQL that makes it, what is then done to its bytes, the check that fails, its words.
    type Case<'a> = (&'a str, &'a str, fn(&mut Vec<u8>), &'a str, &'a str);
    let cases: [Case<'_>; 3] = [
        ("sound", PARENT_AND_CHILD, |_| (), "", ""),
        ("orphan", &orphan, |_| (), "foreign_key_check", "child row 7 references parent"),
        (
            "value changed in a table but not in its index",
            PARENT_AND_CHILD,
            |bytes| {
                let at =
                    bytes.windows(18).position(|window| window == b"a note in an index").unwrap();
                bytes[at] = b'b';
            },
            "integrity_check",
            "child_note",
        ),
    ];
    for (what, sql, damage, check, named) in cases {
        let world = Surroundings::new().unwrap();
        ship_snapshot(&world.replica("app"), sql, damage).unwrap();
        write_heartbeat(&world.replica("app"), "1", 0).unwrap();
        let record = world.drill(&["app"], i32::from(!check.is_empty())).unwrap();
        assert_eq!(record["generation"], GENERATION, "{what}");
        assert_eq!(
            (status(&record, "chain"), status(&record, "durable_point")),
            ("pass", "pass"),
            "{what}"
        );
        assert_eq!(record["versions"]["shipper"], "0.1.0");
        if !check.is_empty() {
            assert_eq!(status(&record, check), "fail", "{what}: {record:#}");
            assert!(detail(&record, check).contains(named), "{what}: {record:#}");
        }
    }
}

#[test]
fn the_heartbeat_is_a_witness() {
    let world = Surroundings::new().unwrap();
    ship_snapshot(&world.replica("app"), PARENT_AND_CHILD, |_| ()).unwrap();
    write_heartbeat(&world.replica("app"), "2", 0).unwrap();
    let record = world.drill(&["app"], 1).unwrap();
    assert!(detail(&record, "durable_point").contains("0000000000000002 durable"), "{record:#}");
    // Half of one, or far too much of one, is no witness, and is said; the chain proves itself.
    for content in ["{".to_owned(), format!("{{\"x\": \"{}\"}}", "y".repeat(70_000))] {
        fs::write(world.replica("app").join("heartbeat.json"), content).unwrap();
        let record = world.drill(&["app"], 0).unwrap();
        let found = detail(&record, "durable_point");
        assert!(found.contains("heartbeat.json: not a heartbeat"), "{record:#}");
        assert!(found.contains("\nHINT: "), "{record:#}");
    }
}

#[test]
fn a_heartbeat_of_the_future_keeps_nobody_from_looking() {
    let world = Surroundings::new().unwrap();
    let app = world.replica("app");
    ship_snapshot(&app, PARENT_AND_CHILD, |_| ()).unwrap();
    write_heartbeat(&app, "1", 0).unwrap();
    let text = fs::read_to_string(app.join("heartbeat.json")).unwrap();
    let mut beat: Value = serde_json::from_str(&text).unwrap();
    let future = "2099-01-01T00:00:00Z";
    for time in ["written_at", "synced_at", "last_transaction_at"] {
        beat[time] = json!(future);
    }
    beat["scrub"] = json!({"finished_at": future, "txid": "1", "mismatches": 0});
    // Stored an hour ago, as the store knows; and by a clock that came back since.
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    for (stored, words) in
        [(hour_ago, "the last heartbeat is of"), (future.parse().unwrap(), "yet to come")]
    {
        let file = File::create(app.join("heartbeat.json")).unwrap();
        file.write_all_at(beat.to_string().as_bytes(), 0).unwrap();
        file.set_modified(stored.into()).unwrap();
        let record = world.drill(&["app"], 0).unwrap();
        assert_eq!(record["source_match"], Value::Null, "{record:#}");
        let mut command = world.verifier().unwrap();
        let output = run(command.args(["watch", "--json"]), 1).unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["databases"][0]["state"], "dead", "{answer:#}");
        assert!(answer["databases"][0]["detail"].as_str().unwrap().contains(words), "{answer:#}");
    }
}

/// The first LTX file below a directory.
fn ltx_file(directory: &Path) -> Option<std::path::PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        let is_ltx = path.extension().is_some_and(|end| end == "ltx");
        if path.is_dir() { ltx_file(&path) } else { Some(path).filter(|_| is_ltx) }
    })
}

#[test]
fn a_damaged_chain_asks_the_shipper_for_another_and_keeps_the_last_pass() {
    let world = Surroundings::new().unwrap();
    let app = world.replica("app");
    let receipt = || -> Value {
        serde_json::from_slice(&fs::read(app.join("receipt.json")).unwrap()).unwrap()
    };
    ship_snapshot(&app, PARENT_AND_CHILD, |_| ()).unwrap();
    write_heartbeat(&app, "1", 0).unwrap();
    let pass = world.drill(&["app"], 0).unwrap();
    assert_eq!(receipt()["txid"], pass["txid"]);
    // A rule that does not hold is no damage: a new snapshot would not mend it.
    let rule = "[[assert]]\nname = \"never\"\nsql = \"SELECT 1\"\nrows = 0\n";
    fs::write(app.join("drill.toml"), rule).unwrap();
    world.drill(&["app"], 1).unwrap();
    assert_eq!(receipt()["repair_wanted"], Value::Null);
    fs::remove_file(app.join("drill.toml")).unwrap();
    flip(&ltx_file(&app).unwrap(), 120);
    let record = world.drill(&["app"], 1).unwrap();
    assert_eq!(status(&record, "chain"), "fail", "{record:#}");
    let wanted = receipt()["repair_wanted"].clone();
    assert_eq!(
        (&wanted["generation"], &wanted["at"]),
        (&json!(GENERATION), &record["finished_at"])
    );
    assert!(detail(&record, "chain").starts_with(wanted["why"].as_str().unwrap()), "{wanted}");
    assert_eq!(receipt()["txid"], pass["txid"], "the last PASS stays");
}

#[test]
fn what_is_not_the_backups_fault_is_inconclusive() {
    let world = Surroundings::new().unwrap();
    // Nobody listens there.
    let endpoint = "http://127.0.0.1:1";
    let record = world.drill(&["s3://acme/web-1/app", "--endpoint", endpoint], 3).unwrap();
    assert_eq!(
        (record["verdict"].as_str(), status(&record, "chain")),
        (Some("INCONCLUSIVE"), "error")
    );
    assert!(detail(&record, "chain").contains("s3://acme/web-1/app"), "{record:#}");
    assert!(detail(&record, "chain").contains("\nHINT: "), "{record:#}");
    assert_eq!(world.recorded().unwrap(), [record]);
}

#[test]
fn a_pass_that_cannot_be_recorded_is_none() {
    let world = Surroundings::new().unwrap();
    litestream_replica(&world);
    let mut command = world.verifier().unwrap();
    command
        .env("SEAWORTHY_LEDGER__URL", "sqlite:///proc/nowhere/ledger.db")
        .args(["drill", "app", "--json"]);
    let output = run(&mut command, 3).unwrap();
    world.nothing_left().unwrap();
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status(&record, "integrity_check"), "pass");
    assert_eq!(status(&record, "ledger"), "error");
    assert!(detail(&record, "ledger").contains("/proc/nowhere"), "{record:#}");
    assert!(!world.replica("app").join("receipt.json").exists());
}

#[test]
fn every_database_is_drilled_and_the_worst_verdict_counts() {
    let world = Surroundings::new().unwrap();
    for name in ["app", "broken"] {
        world.copy_replica(&fixture("v05-file").join("replica"), name).unwrap();
    }
    fs::remove_file(world.replica("broken").join(MIDDLE)).unwrap();
    let answer = world.drill(&[], 1).unwrap();
    assert_eq!(answer["verdict"], "FAIL");
    let verdicts: Vec<_> = answer["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (&r["database"], &r["verdict"]))
        .collect();
    assert_eq!(verdicts, [(&json!("app"), &json!("PASS")), (&json!("broken"), &json!("FAIL"))]);
    let empty = Surroundings::new().unwrap();
    let answer = empty.drill(&[], 1).unwrap();
    assert!(detail(&answer["records"][0], "chain").contains("no database is there"), "{answer:#}");
}

#[test]
fn a_database_that_was_wiped_fails() {
    let world = Surroundings::new().unwrap();
    for name in ["app", "second"] {
        world.copy_replica(&fixture("v05-file").join("replica"), name).unwrap();
    }
    assert_eq!(world.drill(&[], 0).unwrap()["verdict"], "PASS");
    fs::remove_dir_all(world.replica("app")).unwrap();
    let answer = world.drill(&[], 1).unwrap();
    let record = &answer["records"][0];
    assert_eq!(
        (&record["database"], status(record, "chain")),
        (&json!("app"), "fail"),
        "{answer:#}"
    );
    assert_eq!(answer["records"][1]["verdict"], "PASS");
}

#[test]
fn two_replicas_with_a_database_of_one_name_share_no_alarm_and_no_proof() {
    let world = Surroundings::new().unwrap();
    ship_snapshot(&world.replica("a/app"), PARENT_AND_CHILD, |_| ()).unwrap();
    write_heartbeat(&world.replica("a/app"), "1", 0).unwrap();
    write_heartbeat(&world.replica("b/app"), "1", 3600).unwrap();
    assert_eq!(world.drill(&[&world.url("a/app")], 0).unwrap()["verdict"], "PASS");
    let watch = |replica: &str, exit| -> Value {
        let mut command = world.verifier().unwrap();
        command.env("SEAWORTHY_REPLICA__URL", world.url(replica));
        let output = run(command.args(["watch", "--json"]), exit).unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["databases"][0].clone()
    };
    for (round, mail) in [(0, "sent"), (1, "none")] {
        let (a, b) = (watch("a", 0), watch("b", 1));
        assert_eq!((&a["mail"], &b["mail"]), (&json!("none"), &json!(mail)), "{round}: {a} {b}");
        assert!(a["last_pass"].is_string() && b["last_pass"].is_null(), "{a} {b}");
    }
    // However the URL is spelled.
    let root = world.url("").replace("replicas", "./replicas");
    let again = world.drill(&[&format!("{root}/a//app/")], 0).unwrap();
    assert!(detail(&again, "tables").contains("since the PASS of"), "{again:#}");
}

#[test]
fn a_watch_without_anything_to_watch_says_what_to_check() {
    let world = Surroundings::new().unwrap();
    let mut command = world.verifier().unwrap();
    let output = run(command.arg("watch"), 3).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no database is there\nHINT: check [replica] url"), "{said}");
}

/// A store that takes the request and never answers; 1 would say that the backup failed.
#[test]
fn a_signal_stops_a_drill_without_a_verdict() {
    let world = Surroundings::new().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut command = world.verifier().unwrap();
    command.args(["drill", "s3://acme/web-1/app", "--endpoint", &endpoint]);
    let mut process = Process::start(command).unwrap();
    let (_stream, _) = silent.accept().unwrap();
    process.terminate().unwrap();
    let status = process.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(3), "{}", process.output());
    assert!(process.output().contains("stopped by SIGTERM"), "{}", process.output());
    world.nothing_left().unwrap();
}

#[test]
fn wrong_usage_says_what_to_do() {
    let world = Surroundings::new().unwrap();
    let refused = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = world.verifier().unwrap();
        command.args(arguments);
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        String::from_utf8(run(&mut command, 2).unwrap().stderr).unwrap()
    };
    for (arguments, variable, said) in [
        (&["drill", "--at", "yesterday"][..], None, "\"yesterday\" is no point"),
        (&["drill", "a/b"], None, "neither a configured name nor a URL"),
        (
            &["drill", "app"],
            Some(("SEAWORTHY_REPLICA__URL", "")),
            "replica.url: not configured\nHINT: ",
        ),
        (&["drill"], Some(("SEAWORTHY_REPLICA__URL", "ftp://x/y")), "replica.url"),
        (&["drill"], Some(("SEAWORTHY_LEDGER__URL", "mysql://x")), "names no ledger\nHINT: "),
        (
            &["drill"],
            Some(("SEAWORTHY_STALE__AFTR", "1m")),
            "unknown key stale.aftr\nHINT: did you mean after?",
        ),
        (&["watch"], Some(("SEAWORTHY_ALERT__TO", "a@b")), "alert.from: missing"),
        (&["drill", "--config", "/nowhere.toml"], None, "read configuration /nowhere.toml"),
    ] {
        let stderr = refused(arguments, variable);
        assert!(stderr.contains(said), "{arguments:?} {variable:?}: {stderr}");
    }
}

#[test]
fn a_full_disk_is_inconclusive_and_leaves_nothing() {
    let world = Surroundings::new().unwrap();
    let megabyte = format!("{PARENT_AND_CHILD} INSERT INTO child VALUES (2, 1, zeroblob(1000000))");
    ship_snapshot(&world.replica("app"), &megabyte, |_| ()).unwrap();
    // No file may grow beyond some 100 KiB, which the ledger does not reach.
    let verifier = world.verifier().unwrap();
    let mut limited = seaworthy_tests::process::command("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"])
        .arg(verifier.get_program());
    limited.args(["drill", "app", "--json"]);
    for (name, value) in verifier.get_envs() {
        if let Some(value) = value {
            limited.env(name, value);
        }
    }
    let output = run(&mut limited, 3).unwrap();
    world.nothing_left().unwrap();
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status(&record, "chain"), "error");
    assert!(
        detail(&record, "chain").starts_with("no room for the restored database"),
        "{record:#}"
    );
    assert!(
        detail(&record, "chain").contains("\nHINT: give the temporary directory room"),
        "{record:#}"
    );
    assert_eq!(world.recorded().unwrap(), [record]);
}
