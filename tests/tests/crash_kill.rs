//! `kill -9` of the real program, again and again, under a writer at full speed that never stops.
//!
//! Every state that reached the bucket is a state that the source committed, in commit order; whatever was
//! acknowledged before a kill is there; and at the end the copy is the source, byte for byte. The moments of
//! the kills are drawn from a seed, which is printed; `SEAWORTHY_SEED=n` and `SEAWORTHY_KILLS=n` change them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replica::store::Store;
use seaworthy_tests::application::Application;
use seaworthy_tests::s3_server::S3Server;
use seaworthy_tests::seed::seed;
use seaworthy_tests::shipping::Shipping;
use seaworthy_tests::{bank, history, writer};

fn kills() -> u64 {
    std::env::var("SEAWORTHY_KILLS").map_or(50, |text| text.parse().expect("a number"))
}

#[test]
fn fifty_kills_with_a_directory_as_the_replica() {
    let directory = tempfile::tempdir().unwrap();
    let replica = directory.path().join("replica");
    let shipping =
        Shipping::new(directory.path(), &format!("file://{}", replica.display()), "", Vec::new());
    Killing::new(directory.path(), shipping, seed(1))
        .run(kills(), || history::file_store(&replica, "app").unwrap());
}

#[test]
fn twenty_kills_with_s3() {
    let directory = tempfile::tempdir().unwrap();
    let server = S3Server::start();
    let options = format!("endpoint = \"{}\"\nregion = \"us-east-1\"", server.endpoint);
    let shipping =
        Shipping::new(directory.path(), &server.url("kill"), &options, server.environment());
    Killing::new(directory.path(), shipping, seed(2)).run(20, || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let root = seaworthy_tests::stores::s3_root(&server, &server.endpoint, "kill");
        runtime.block_on(root).database("app").unwrap()
    });
}

/// Durable, said the shipper at `at`, is everything up to transaction `count`.
#[derive(Debug)]
struct Acknowledged {
    count: u64,
    at: Timestamp,
}

struct Killing<'a> {
    directory: &'a Path,
    shipping: Shipping,
    random: StdRng,
    acknowledged: Vec<Acknowledged>,
}

impl<'a> Killing<'a> {
    fn new(directory: &'a Path, shipping: Shipping, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { directory, shipping, random, acknowledged: Vec::new() }
    }

    fn run(mut self, kills: u64, store: impl FnOnce() -> Arc<dyn Store>) {
        let source = self.directory.join("app.db");
        bank::create(&source, 4096, 0).unwrap();
        let application = Application::start(&source, &["spill=1"]).unwrap();
        let databases = [("app", source.as_path())];
        for kill in 0..kills {
            let mut shipper = self.shipping.spawn(&databases, "50ms").unwrap();
            // Most kills come early: while it attaches, reads its state, takes the snapshot.
            let patience = 1 << self.random.random_range(3..11);
            std::thread::sleep(Duration::from_millis(self.random.random_range(0..patience)));
            if kill % 5 == 4 {
                shipper.until_it_says("ready").unwrap();
                let count = bank::count(&source).unwrap();
                self.shipping
                    .sync(&[])
                    .unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
                self.acknowledged.push(Acknowledged { count, at: Timestamp::now() });
            }
            if kill % 11 == 10 {
                shipper.until_it_says("ready").unwrap();
                shipper.stop().unwrap();
            }
            // Whatever it was doing. Already stopped is fine.
            shipper.kill().unwrap();
        }
        let mut shipper = self.shipping.start(&databases, "50ms").unwrap();
        let work = application.stop().unwrap();
        self.shipping.sync(&[]).unwrap_or_else(|error| panic!("{error:#}\n{}", shipper.output()));
        shipper.stop().unwrap();
        println!("{work:?}, {} acknowledgements", self.acknowledged.len());
        assert!(work.commits > 10 * kills, "{work:?}");
        assert!(!self.acknowledged.is_empty(), "nothing was ever acknowledged");
        self.latest_is_the_source(&source, &shipper.output());
        self.every_state_was_committed(store().as_ref(), work.commits);
    }

    fn latest_is_the_source(&self, source: &Path, output: &str) {
        let copy = self.directory.join("copy.db");
        self.shipping.restore("app", &copy).unwrap_or_else(|error| panic!("{error:#}\n{output}"));
        writer::checkpoint_truncate(source).unwrap();
        writer::same_bytes(&copy, source).unwrap_or_else(|error| panic!("{error:#}\n{output}"));
    }

    /// Looks at every state; and restores some of them with the program, too.
    fn every_state_was_committed(&mut self, store: &dyn Store, commits: u64) {
        let mut states: Vec<(Timestamp, u64)> = Vec::new();
        let mut ledger = bank::Ledger::default();
        let mut before = None;
        let restored = self.directory.join("restored.db");
        let generations = history::replay(store, self.directory, |state| {
            let count = ledger.check(state.path)?;
            if let Some((chain, earlier)) = before.replace((state.chain, count)) {
                assert!(chain != state.chain || earlier <= count, "{earlier} before {count}");
            }
            states.push((state.timestamp, count));
            if state.last || self.random.random_ratio(1, 40) {
                let (generation, txid) = (state.chain.to_string(), state.txid.to_string());
                let options = ["--force", "--generation", &generation, "--txid", &txid];
                self.shipping.restore_with("app", &restored, &options)?;
                writer::same_bytes(&restored, state.path)?;
            }
            Ok(())
        })
        .unwrap();
        println!("{} states in {} generations", states.len(), generations.len());
        // No kill is a reason to begin anew with a snapshot of everything.
        assert_eq!(generations.len(), 1, "{generations:?}");
        assert_eq!(states.iter().map(|(_, count)| *count).max(), Some(commits));
        for Acknowledged { count, at } in &self.acknowledged {
            let there = states.iter().filter(|(time, _)| time <= at).map(|(_, count)| *count).max();
            assert!(there >= Some(*count), "{count} was acknowledged at {at}, {there:?} is there");
        }
    }
}
