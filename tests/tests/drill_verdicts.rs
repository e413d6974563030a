//! What keeps a drill from finding out is INCONCLUSIVE, says what to do, and is recorded: rights that are missing at the
//! store, and too little room for the copy.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use replica::restore::Progress;
use seaworthy_tests::drill_support::{GENERATION, Surroundings, detail, ship_snapshot, status};
use seaworthy_tests::process::run;
use seaworthy_tests::progress::Fetched;
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::stores::{file_root, litestreams_bucket};
use serde_json::Value;
use verifier::drill::{Asked, InProcess, Request, drill};
use verifier::record::{Status, Verdict};

/// `verifier drill --json` of what is below `prod`.
fn drilling(world: &Surroundings, server: &S3Server, databases: &[&str]) -> Command {
    let mut command = world.verifier().unwrap();
    command
        .envs(server.environment())
        .env("SEAWORTHY_REPLICA__URL", server.url("prod"))
        .env("SEAWORTHY_REPLICA__ENDPOINT", &server.endpoint)
        .args(["drill", "--json"])
        .args(databases);
    command
}

fn answer(mut command: Command, exit: i32) -> Value {
    serde_json::from_slice(&run(&mut command, exit).unwrap().stdout).unwrap()
}

#[test]
fn a_right_that_is_missing_is_named_and_accuses_nobody() {
    let server = litestreams_bucket();
    for (denied, right, advice) in [
        (
            "ListObjectsV2",
            "s3:ListBucket",
            "grant s3:ListBucket on this prefix (the restore policy)",
        ),
        ("GetObject", "s3:GetObject", "grant s3:GetObject (the restore policy)"),
    ] {
        server.deny(&[denied]);
        let world = Surroundings::new().unwrap();
        let record = answer(drilling(&world, &server, &["app.db"]), 3);
        world.nothing_left().unwrap();
        assert_eq!(
            (record["verdict"].as_str(), status(&record, "chain")),
            (Some("INCONCLUSIVE"), "error"),
            "{denied}: {record:#}"
        );
        let detail = detail(&record, "chain");
        assert!(detail.contains(&format!("access denied ({right}: ")), "{denied}: {detail}");
        assert!(detail.contains(&format!("\nHINT: {advice}")), "{denied}: {detail}");
        assert_eq!(world.recorded().unwrap(), [record]);
    }
    assert_eq!(server.counts().put(), 0, "no receipt for what was not proven");
}

#[test]
fn which_databases_there_are_cannot_be_told_without_the_right_to_list() {
    let server = litestreams_bucket();
    server.deny(&["ListObjectsV2"]);
    let world = Surroundings::new().unwrap();
    let answer = answer(drilling(&world, &server, &[]), 3);
    let record = &answer["records"][0];
    assert_eq!(
        (&answer["verdict"], &record["verdict"]),
        (&"INCONCLUSIVE".into(), &"INCONCLUSIVE".into())
    );
    assert!(detail(record, "chain").contains("\nHINT: grant s3:ListBucket"), "{answer:#}");
    assert_eq!(world.recorded().unwrap(), std::slice::from_ref(record));
}

/// Who restores may not write: a drill with just these rights passes, and only its receipt is missing.
#[test]
fn the_rights_to_restore_are_enough() {
    let server = litestreams_bucket();
    server.deny(&["PutObject"]);
    let world = Surroundings::new().unwrap();
    let record = answer(drilling(&world, &server, &["app.db"]), 0);
    assert_eq!(record["verdict"], "PASS", "{record:#}");
    assert!(server.counts().of("PutObject") > 0, "the receipt was tried");
    assert_eq!(world.recorded().unwrap(), [record]);
}

#[tokio::test]
async fn a_copy_that_has_no_room_is_refused_by_its_size_before_it_is_fetched() {
    const PAGES: u32 = 4_000_000_000;
    const PAGE_BYTES: u32 = 65536;
    /// As many as so many pages take at least.
    const OBJECT_BYTES: u64 = 41_000_000_000;
    let world = Surroundings::new().unwrap();
    ship_snapshot(&world.replica("app"), "CREATE TABLE t(x)", |_| ()).unwrap();
    // A snapshot of 262 TB, as far as its header can tell; the rest of it is a hole.
    let name = "0000000000000001-0000000000000001.ltx";
    let path = world.replica("app").join(GENERATION).join("ltx/9").join(name);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&PAGE_BYTES.to_be_bytes(), 8).unwrap();
    file.write_all_at(&PAGES.to_be_bytes(), 12).unwrap();
    file.set_len(OBJECT_BYTES).unwrap();

    let fetched = Arc::new(Fetched::default());
    let shown = Arc::clone(&fetched);
    let store = file_root(&world.replica("app")).await.as_database();
    let temporary = world.temporary();
    let request = Request {
        progress: Arc::new(move |_| -> Arc<dyn Progress> { shown.clone() }),
        ..Request::new("app", store, &Asked::LATEST, &temporary, Arc::new(InProcess))
    };
    let record = drill(&request).await.record;
    world.nothing_left().unwrap();
    assert_eq!(record.verdict, Verdict::Inconclusive, "{record:#?}");
    let check = &record.checks[0];
    assert_eq!((check.name.as_str(), check.status), ("chain", Status::Error));
    let needed = u64::from(PAGES) * u64::from(PAGE_BYTES);
    let words = format!("no room for the restored database: {needed} bytes needed, ");
    let available = check.detail.strip_prefix(&words).expect(&check.detail);
    let (available, hint) = available.split_once(" available\nHINT: ").expect(&check.detail);
    assert!(available.parse::<u64>().unwrap() < needed, "{}", check.detail);
    assert!(hint.starts_with("give the temporary directory room (TMPDIR; in Lambda"), "{hint}");
    let fetched = fetched.bytes();
    assert!(fetched < OBJECT_BYTES / 1000, "{fetched} bytes were fetched for nothing");
}
