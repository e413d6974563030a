//! `verifier compact` as its operator runs it: beside a shipper, beside itself, and read back by Litestream.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use replica::format::Decoder;
use replica::restore::Inventory;
use replica::store::{Key, LtxKey, Store};
use seaworthy_tests::bank;
use seaworthy_tests::drill_support::{Surroundings, fixture};
use seaworthy_tests::litestream::{Litestream, Replica, S3Server, restore_url, shipper_restore};
use seaworthy_tests::made_chain::{MadeChain, Recipe, contents};
use seaworthy_tests::process::{PATIENCE, Process, run};
use seaworthy_tests::shipping::Shipping;
use seaworthy_tests::stores::{file_root, generation};
use seaworthy_tests::writer::{checkpoint_truncate, same_bytes};
use serde_json::Value;

const CHAIN: Recipe = Recipe { seed: 11, txids: 200, page_size: 4096, checksummed: true };

/// A chain as the replica of `app`.
async fn shipped(world: &Surroundings, recipe: Recipe) -> (MadeChain, Arc<dyn Store>) {
    let store = file_root(world.replica("app").parent().unwrap()).await.database("app").unwrap();
    let made = MadeChain::make(recipe);
    made.put(&*store).await;
    (made, store)
}

/// The answer of a compaction that takes a snapshot whatever the age of the newest.
fn compact(world: &Surroundings, expected: i32) -> Value {
    let mut command = world.verifier().unwrap();
    command.env("SEAWORTHY_COMPACTION__SNAPSHOT_EVERY", "0s");
    let output = run(command.args(["compact", "--json"]), expected).unwrap();
    world.nothing_left().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn litestream_restores(directory: &Path, made: &MadeChain, txids: &[u64]) {
    let replica = directory.join(generation().to_string());
    let scratch = tempfile::tempdir().unwrap();
    let litestream =
        Litestream::new(scratch.path(), &scratch.path().join("app.db"), Replica::File(&replica))
            .unwrap();
    for txid in txids {
        let output = scratch.path().join(format!("{txid}.db"));
        let asked = (*txid != made.newest()).then(|| format!("{txid:016x}"));
        litestream.restore(asked.as_deref(), &output).unwrap();
        made.is_state(&output, *txid);
    }
}

#[tokio::test]
async fn a_snapshot_is_made_of_a_proven_copy_and_litestream_reads_it_all() {
    for checksummed in [true, false] {
        let world = Surroundings::new().unwrap();
        let (made, store) = shipped(&world, Recipe { checksummed, ..CHAIN }).await;
        let answer = compact(&world, 0);
        let report = &answer["databases"][0];
        assert_eq!((&answer["verdict"], &report["database"]), (&"PASS".into(), &"app".into()));
        let level = &report["levels"]["1"];
        assert_eq!((&level["files_in"], &level["files_out"]), (&190.into(), &3.into()), "{answer}");
        assert_eq!(report["snapshot"]["state"], "promoted");
        assert_eq!(report["snapshot"]["txid"], "00000000000000c8");
        assert_eq!(report["restore_objects_before"], 200);
        assert_eq!(report["restore_objects_after"], 1);
        let recorded = world.recorded().unwrap();
        assert_eq!(recorded.len(), 1);
        assert_eq!(
            (&recorded[0]["verdict"], &recorded[0]["txid"]),
            (&"PASS".into(), &"00000000000000c8".into())
        );

        let inventory = Inventory::read(&*store, made.chain).await.unwrap();
        let snapshot = inventory.files.iter().rfind(|file| file.level.get() == 9).unwrap();
        let key = LtxKey { chain: made.chain, level: snapshot.level, txids: snapshot.txids };
        let content = replica::store::read_all(&*store, &Key::Ltx(key), 1 << 30).await.unwrap();
        let decoder = Decoder::new(content.as_ref()).unwrap();
        let header = *decoder.header();
        let newest = Decoder::new(made.files.last().unwrap().1.as_ref()).unwrap();
        assert_eq!(header.timestamp, newest.header().timestamp, "the state's time, not today's");
        let expected = checksummed.then_some(made.state(200).checksum);
        assert_eq!(decoder.finish().unwrap().post_apply, expected);

        // Litestream's `-timestamp` goes by the time beside a file, too.
        for file in &inventory.files {
            let key = LtxKey { chain: made.chain, level: file.level, txids: file.txids };
            let content = replica::store::read_all(&*store, &Key::Ltx(key), 1 << 30).await.unwrap();
            let header = *Decoder::new(content.as_ref()).unwrap().header();
            assert_eq!(file.modified, header.timestamp, "{key:?}");
        }
        for txid in (1..=200).step_by(7) {
            made.restores(&store, &inventory, txid).await;
        }
        litestream_restores(&world.replica("app"), &made, &[200, 199, 128, 127, 64, 63, 5, 1]);

        let before = contents(&*store, made.chain).await;
        let again = compact(&world, 0);
        assert_eq!(again["databases"][0]["snapshot"]["state"], "current");
        assert_eq!(again["databases"][0]["levels"], serde_json::json!({}));
        assert_eq!(contents(&*store, made.chain).await, before);
        assert_eq!(world.recorded().unwrap().len(), 1, "nothing to prove");
    }
}

#[tokio::test]
async fn what_a_drill_does_not_pass_is_no_snapshot() {
    let world = Surroundings::new().unwrap();
    let (made, store) = shipped(&world, Recipe { txids: 10, ..CHAIN }).await;
    // Right by itself, of another database: only the restored copy's checksum tells. Not the last one: a tip that no heartbeat
    // vouches for is left out.
    let other = MadeChain::make(Recipe { txids: 10, seed: 12, ..CHAIN });
    let path = world.replica("app").join(Key::Ltx(made.files[4].0).file_path());
    std::fs::write(path, &other.files[4].1).unwrap();
    let before = contents(&*store, made.chain).await;
    let answer = compact(&world, 1);
    let report = &answer["databases"][0];
    assert_eq!((&answer["verdict"], &report["snapshot"]["state"]), (&"FAIL".into(), &"due".into()));
    assert_eq!(world.recorded().unwrap()[0]["verdict"], "FAIL");
    assert_eq!(contents(&*store, made.chain).await, before, "nothing was written");
}

#[tokio::test]
async fn a_young_snapshot_is_enough() {
    let world = Surroundings::new().unwrap();
    let (_, store) = shipped(&world, Recipe { txids: 70, ..CHAIN }).await;
    // The store's clock is the file's here.
    let key = Inventory::read(&*store, store.chains().await.unwrap()[0]).await.unwrap();
    let snapshot = key.files.iter().find(|file| file.level.get() == 9).unwrap();
    let key = LtxKey { chain: key.chain, level: snapshot.level, txids: snapshot.txids };
    let path = world.replica("app").join(Key::Ltx(key).file_path());
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let output = run(world.verifier().unwrap().args(["compact", "app"]), 0).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("PASS  app  ("), "{text}");
    assert!(text.contains("level 1     62 files of "), "{text}");
    assert!(text.contains("restore     reads 9 objects, 70 before"), "{text}");
    assert!(
        !world.ledger().exists() || world.recorded().unwrap().is_empty(),
        "nothing was drilled"
    );
}

#[tokio::test]
async fn what_litestream_wrote_is_left_to_it() {
    let world = Surroundings::new().unwrap();
    world.copy_replica(&fixture("v05-file").join("replica"), "app").unwrap();
    let store = file_root(world.replica("app").parent().unwrap()).await.database("app").unwrap();
    let before = contents(&*store, replica::store::Chain::Root).await;
    let answer = compact(&world, 0);
    let finding = &answer["databases"][0]["findings"][0];
    assert_eq!(
        (&finding["status"], &answer["databases"][0]["snapshot"]),
        (&"unchecked".into(), &Value::Null)
    );
    assert_eq!(contents(&*store, replica::store::Chain::Root).await, before);
}

#[test]
fn nothing_there_fails_and_a_store_out_of_reach_is_inconclusive() {
    let world = Surroundings::new().unwrap();
    let answer = compact(&world, 1);
    assert!(answer["databases"][0]["findings"][0]["detail"].as_str().unwrap().contains("HINT:"));
    let mut command = world.verifier().unwrap();
    command.args(["compact", "--json", "s3://nowhere/x/app", "--endpoint", "http://127.0.0.1:1"]);
    run(&mut command, 3).unwrap();
    let mut command = world.verifier().unwrap();
    run(command.args(["compact"]).env("SEAWORTHY_RETENTION__KEEP", "7d"), 2).unwrap();
}

/// The verifier on the bucket.
fn verifier(world: &Surroundings, server: &S3Server) -> Command {
    let mut command = world.verifier().unwrap();
    server.authorize(&mut command);
    command
        .env("SEAWORTHY_REPLICA__URL", format!("s3://{}/web-1", S3Server::BUCKET))
        .env("SEAWORTHY_REPLICA__ENDPOINT", server.endpoint())
        .env("SEAWORTHY_COMPACTION__SNAPSHOT_EVERY", "2s");
    command
}

#[test]
fn compactions_beside_a_shipper_and_each_other_change_nothing() {
    let server = S3Server::start().unwrap();
    let world = Surroundings::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("app.db");
    bank::create(&source, 4096, 0).unwrap();
    let url = format!("s3://{}/web-1", S3Server::BUCKET);
    let options = format!(
        "endpoint = \"{}\"\nregion = \"us-east-1\"\n[heartbeat]\nevery = \"1s\"",
        server.endpoint()
    );
    let shipping = Shipping::new(directory.path(), &url, &options, server.environment());
    let mut shipper = shipping.start(&[("app", &source)], "20ms").unwrap();
    let writing = Arc::new(AtomicBool::new(true));
    let writer = std::thread::spawn({
        let (source, writing) = (source.clone(), Arc::clone(&writing));
        move || {
            let mut db = rusqlite::Connection::open(source).unwrap();
            db.busy_timeout(PATIENCE).unwrap();
            while writing.load(Ordering::Relaxed) {
                bank::transact(&mut db).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    // The generation's first snapshot is there, and two windows' worth of changes.
    let level = |level: &str| {
        let generation = server
            .names_below("web-1/app")
            .unwrap_or_default()
            .into_iter()
            .find(|name| name.len() == 36);
        generation.map_or(0, |generation| {
            server.names_below(&format!("web-1/app/{generation}/{level}")).unwrap_or_default().len()
        })
    };
    shipper.until(|| level("0000") > 140).unwrap();
    let mut rounds = 0;
    shipper
        .until(|| {
            rounds += 1;
            let pair = [(); 2].map(|()| {
                let mut command = verifier(&world, &server);
                command.arg("compact");
                Process::start(command).unwrap()
            });
            for mut compaction in pair {
                let ended = compaction.wait(PATIENCE).unwrap();
                assert_eq!(ended.code(), Some(0), "{}", compaction.output());
            }
            rounds >= 4 && level("0001") >= 3 && level("0009") >= 2
        })
        .unwrap();
    writing.store(false, Ordering::Relaxed);
    writer.join().unwrap();
    shipping.sync(&[]).unwrap();
    shipper.stop().unwrap();
    run(verifier(&world, &server).arg("compact"), 0).unwrap();
    checkpoint_truncate(&source).unwrap();

    let generation =
        server.names_below("web-1/app").unwrap().into_iter().find(|name| name.len() == 36).unwrap();
    let prefix = format!("web-1/app/{generation}");
    let (theirs, ours) = (directory.path().join("theirs.db"), directory.path().join("ours.db"));
    restore_url(Replica::S3(&server, &prefix), &theirs).unwrap();
    same_bytes(&theirs, &source).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let litestream = Litestream::new(
        scratch.path(),
        &scratch.path().join("app.db"),
        Replica::S3(&server, &prefix),
    )
    .unwrap();
    for txid in [2_u64, 63, 64, 100, 127, 128, 131] {
        let txid = format!("{txid:016x}");
        let _ = (std::fs::remove_file(&theirs), std::fs::remove_file(&ours));
        litestream.restore(Some(&txid), &theirs).unwrap();
        shipper_restore(Replica::S3(&server, "web-1/app"), Some(&txid), &ours).unwrap();
        same_bytes(&ours, &theirs).unwrap_or_else(|error| panic!("{txid}: {error:#}"));
    }
    run(verifier(&world, &server).args(["drill", "app"]), 0).unwrap();
    world.nothing_left().unwrap();
}
