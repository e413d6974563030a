//! Interoperability with Litestream, live: it restores what our shipper wrote, and we restore what it
//! wrote, through files and through an S3 server that neither side wrote.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seaworthy_tests::litestream::{Litestream, Replica, S3Server, restore_url, shipper_restore};
use seaworthy_tests::seed::seed;
use seaworthy_tests::shipping::Shipping;
use seaworthy_tests::writer::{Writer, checkpoint_truncate, create, same_bytes};

/// How many past points are compared, beside the oldest and the newest.
const PAST_POINTS: usize = 8;

// --- Litestream reads what we wrote ---

/// Ships `database` as `app` below `root` while a writer works, until all is in the replica.
fn ship_under_writes(
    directory: &Path,
    database: &Path,
    root: &str,
    s3: Option<&S3Server>,
    seed: u64,
) -> Result<()> {
    let options = s3.map_or_else(String::new, |server| {
        format!("endpoint = \"{}\"\nregion = \"us-east-1\"", server.endpoint())
    });
    let environment = s3.map_or_else(Vec::new, S3Server::environment);
    let shipping = Shipping::new(directory, root, &options, environment);
    let mut shipper = shipping.start(&[("app", database)], "200ms")?;
    let writer = Writer::start(database, seed, Duration::from_millis(5));
    std::thread::sleep(Duration::from_secs(6));
    ensure!(writer.stop()? > 0, "no commits");
    shipping.sync(&[])?;
    shipper.stop()
}

fn generations(names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| name.len() == 36 && name.matches('-').count() == 4).collect()
}

#[test]
fn litestream_restores_our_generation_from_files() {
    for page_size in [4096, 512, 65_536] {
        let seed = seed(u64::from(page_size));
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("app.db");
        create(&database, page_size, 300).unwrap();
        let root = directory.path().join("replica");
        let url = format!("file://{}", root.display());
        ship_under_writes(directory.path(), &database, &url, None, seed)
            .unwrap_or_else(|error| panic!("page size {page_size}, seed {seed}: {error:#}"));
        checkpoint_truncate(&database).unwrap();

        let names = std::fs::read_dir(root.join("app"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let found = generations(names);
        assert_eq!(found.len(), 1, "generations: {found:?}");
        let restored = directory.path().join("restored.db");
        restore_url(Replica::File(&root.join("app").join(&found[0])), &restored).unwrap();
        same_bytes(&restored, &database)
            .unwrap_or_else(|error| panic!("page size {page_size}, seed {seed}: {error:#}"));
    }
}

#[test]
fn litestream_restores_our_generation_from_s3() {
    let seed = seed(1);
    let server = S3Server::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("app.db");
    create(&database, 4096, 300).unwrap();
    let url = format!("s3://{}/web-1", S3Server::BUCKET);
    ship_under_writes(directory.path(), &database, &url, Some(&server), seed)
        .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    checkpoint_truncate(&database).unwrap();

    let found = generations(server.names_below("web-1/app").unwrap().into_iter());
    assert_eq!(found.len(), 1, "generations: {found:?}");
    let restored = directory.path().join("restored.db");
    restore_url(Replica::S3(&server, &format!("web-1/app/{}", found[0])), &restored).unwrap();
    same_bytes(&restored, &database).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
}

// --- we read what Litestream wrote ---

/// Lets Litestream replicate `database` while a writer works, until it has compacted twice and taken
/// a snapshot that is not its first.
fn replicate_under_writes(litestream: &Litestream<'_>, database: &Path, seed: u64) -> Result<()> {
    let writer = Writer::start(database, seed, Duration::from_millis(20));
    let mut process = litestream.replicate()?;
    let several_levels = || {
        let files = litestream.files().unwrap_or_default();
        let count = |level| files.iter().filter(|(at, _)| *at == level).count();
        count(0) > 20 && count(1) > 2 && count(2) > 1 && count(9) > 1
    };
    process.until(several_levels).context("wait for several levels")?;
    ensure!(writer.stop()? > 0, "no commits");
    process.stop()
}

/// Compares both programs' restores at the latest TXID, the oldest and some between.
fn compare_restores(
    directory: &Path,
    litestream: &Litestream<'_>,
    replica: Replica<'_>,
) -> Result<usize> {
    let pair = |name: &str| -> (PathBuf, PathBuf) {
        (directory.join(format!("ours-{name}")), directory.join(format!("theirs-{name}")))
    };
    let (ours, theirs) = pair("latest");
    litestream.restore(None, &theirs)?;
    shipper_restore(replica, None, &ours)?;
    same_bytes(&ours, &theirs).context("at the latest TXID")?;

    let txids: BTreeSet<String> = litestream.files()?.into_iter().map(|(_, txid)| txid).collect();
    let step = (txids.len() / PAST_POINTS).max(1);
    let mut compared = 1;
    for txid in txids.iter().step_by(step) {
        let (ours, theirs) = pair(txid);
        // Where Litestream itself cannot go (its compactions swallowed the TXID) nothing is compared.
        if litestream.restore(Some(txid), &theirs).is_err() {
            continue;
        }
        shipper_restore(replica, Some(txid), &ours).with_context(|| format!("at TXID {txid}"))?;
        same_bytes(&ours, &theirs).with_context(|| format!("at TXID {txid}"))?;
        compared += 1;
    }
    Ok(compared)
}

fn restores_are_equal(directory: &Path, replica: Replica<'_>, page_size: u32) {
    let seed = seed(u64::from(page_size));
    let database = directory.join("app.db");
    create(&database, page_size, 300).unwrap();
    let litestream = Litestream::new(directory, &database, replica).unwrap();
    replicate_under_writes(&litestream, &database, seed)
        .and_then(|()| compare_restores(directory, &litestream, replica))
        .and_then(|compared| {
            ensure!(compared > PAST_POINTS / 2, "only {compared} points compared");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("page size {page_size}, seed {seed}: {error:#}"));
}

#[test]
fn we_restore_what_litestream_wrote_to_files() {
    for page_size in [4096, 1024] {
        let directory = tempfile::tempdir().unwrap();
        restores_are_equal(
            directory.path(),
            Replica::File(&directory.path().join("replica")),
            page_size,
        );
    }
}

#[test]
fn we_restore_what_litestream_wrote_to_s3() {
    let server = S3Server::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    restores_are_equal(directory.path(), Replica::S3(&server, "litestream/app"), 4096);
}
