//! One database of [`crate::bank`], a real shipper beside it, a replica in a directory: what most suites
//! about a hostile world begin with, and what they require at the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use replica::store::{Chain, Store};
use tempfile::TempDir;

use crate::application::Application;
use crate::process::{PATIENCE, Process};
use crate::shipping::Shipping;
use crate::{bank, history, writer};

/// How long an application works at a time.
const TURN: Duration = Duration::from_millis(500);
/// How often it is looked whether the newest state is there.
const LOOK: Duration = Duration::from_millis(200);
/// How often a state that is not the last of its generation is restored with the program, too.
const RESTORE_EVERY: usize = 40;

/// A directory with all that belongs together. Gone when dropped.
#[derive(Debug)]
pub struct Scene {
    directory: TempDir,
    /// The live database.
    pub source: PathBuf,
    /// The configuration of the shipper.
    pub shipping: Shipping,
}

/// One state that the replica holds, found to be one that the source committed.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Its generation.
    pub chain: Chain,
    /// From when on it can be asked for.
    pub timestamp: Timestamp,
    /// How many transactions it holds.
    pub count: u64,
}

impl Scene {
    /// A database with no transaction yet, and a replica in a directory.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new(page_size: u32, auto_vacuum: u32) -> Result<Self> {
        let directory = tempfile::tempdir().context("create directory")?;
        Self::within(directory, page_size, auto_vacuum, Shipping::to_files)
    }

    /// The same with a replica elsewhere.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn with(shipping: impl FnOnce(&Path) -> Shipping) -> Result<Self> {
        let directory = tempfile::tempdir().context("create directory")?;
        Self::within(directory, 4096, 0, shipping)
    }

    fn within(
        directory: TempDir,
        page_size: u32,
        auto_vacuum: u32,
        shipping: impl FnOnce(&Path) -> Shipping,
    ) -> Result<Self> {
        let source = directory.path().join("app.db");
        bank::create(&source, page_size, auto_vacuum)?;
        let shipping = shipping(directory.path());
        Ok(Self { directory, source, shipping })
    }

    /// The application works for half a second, with these options; how many transactions it committed.
    ///
    /// # Errors
    /// It met one.
    pub fn work(&self, options: &[&str]) -> Result<u64> {
        let application = Application::start(&self.source, options)?;
        std::thread::sleep(TURN);
        Ok(application.stop()?.commits)
    }

    /// The database's `-wal` or `-shm`.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.source.display()))
    }

    /// Removes both.
    pub fn remove_log(&self) {
        for suffix in ["-wal", "-shm"] {
            // Nobody may have made it yet.
            let _ = std::fs::remove_file(self.beside(suffix));
        }
    }

    /// A path beside the database.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a shipper that syncs every 50 ms, and waits until it is ready.
    ///
    /// # Errors
    /// It ends instead.
    pub fn start(&self) -> Result<Process> {
        self.shipping.start(&[("app", &self.source)], "50ms")
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self) -> Result<Process> {
        self.shipping.spawn(&[("app", &self.source)], "50ms")
    }

    /// The replica of files.
    ///
    /// # Errors
    /// Never for a Unicode path.
    pub fn store(&self) -> Result<std::sync::Arc<dyn Store>> {
        history::file_store(&self.at("replica"), "app")
    }

    /// Lets a shipper whose application is at rest ship what is left, and stops it as [`Scene::stop_and_check`] does.
    ///
    /// # Errors
    /// As there, or it cannot ship it; the message has the shipper's output.
    pub fn finish(&self, shipper: &mut Process) -> Result<Vec<Found>> {
        self.shipping.sync(&[]).with_context(|| shipper.output())?;
        self.stop_and_check(shipper)
    }

    /// Stops a shipper whose application is at rest, and requires that what it left is the source, byte for
    /// byte, and that every state before was committed by the source. The final sync has 15 s, so little may be left to ship.
    ///
    /// # Errors
    /// Something is not so; the message has the shipper's output.
    pub fn stop_and_check(&self, shipper: &mut Process) -> Result<Vec<Found>> {
        shipper.stop()?;
        let check = || {
            self.latest_is_the_source()?;
            self.states(self.store()?.as_ref())
        };
        check().with_context(|| shipper.output())
    }

    /// Waits until the newest state in the replica is the source, whose application is at rest: a shipper has to
    /// come to that by itself, whatever happened.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`]; the message has the shipper's output.
    pub fn until_shipped(&self, shipper: &mut Process) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.latest_is_the_source() {
            if Instant::now() > deadline {
                return Err(error.context(format!("never shipped\n{}", shipper.output())));
            }
            shipper.check()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Restores the newest state and compares it with the source, byte for byte.
    ///
    /// # Errors
    /// The restore's, or how they differ.
    pub fn latest_is_the_source(&self) -> Result<()> {
        let copy = self.at("copy.db");
        self.shipping.restore_with("app", &copy, &["--force"])?;
        writer::checkpoint_truncate(&self.source)?;
        writer::same_bytes(&copy, &self.source)
    }

    /// Looks at every state that the replica holds, and restores some of them with the program, too.
    ///
    /// # Errors
    /// The first that the source never committed, or that does not restore to the same bytes.
    pub fn states(&self, store: &dyn Store) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut ledger = bank::Ledger::default();
        let restored = self.at("restored.db");
        history::replay(store, self.directory.path(), |state| {
            let count = ledger.check(state.path)?;
            if state.last || found.len() % RESTORE_EVERY == 0 {
                let (generation, txid) = (state.chain.to_string(), state.txid.to_string());
                let options = ["--force", "--generation", &generation, "--txid", &txid];
                self.shipping.restore_with("app", &restored, &options)?;
                writer::same_bytes(&restored, state.path)?;
            }
            found.push(Found { chain: state.chain, timestamp: state.timestamp, count });
            Ok(())
        })?;
        Ok(found)
    }
}

/// Requires that no state holds less than one before it in its generation.
///
/// # Errors
/// One does.
pub fn in_commit_order(states: &[Found]) -> Result<()> {
    for pair in states.windows(2) {
        let [before, after] = pair else { continue };
        ensure!(
            before.chain != after.chain || before.count <= after.count,
            "{}: {} transactions, then {}",
            after.chain,
            before.count,
            after.count
        );
    }
    Ok(())
}

/// The generations that hold a state, each once.
#[must_use]
pub fn generations(states: &[Found]) -> Vec<Chain> {
    let mut chains: Vec<Chain> = states.iter().map(|state| state.chain).collect();
    chains.dedup();
    chains
}
