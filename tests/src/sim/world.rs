//! Everything at once: an application, a shipper, a bucket, time, a disk; and what may happen to them.
//!
//! One thread does one thing after the other, so that a seed is a schedule. After everything that the application does,
//! its state is noted; whenever something died or was acknowledged, the bucket is held against what was noted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::faulty_store::{Fault, Faults, FaultyStore};
use crate::memory_store::{Condition, MemoryStore};
use crate::sim::application::{Application, Habits};
use crate::sim::clock::SimClock;
use crate::sim::disk::SimDisk;
use crate::sim::history::History;
use crate::sim::oracle::Oracle;
use crate::sim::power::{Tail, beside};
use crate::sim::shipper::{End, Home, Outcome, Shipper};

/// Rounds in which a world without trouble must come to rest.
const PATIENCE: u32 = 40;

/// The world.
#[derive(Debug)]
pub struct World {
    /// What chance decides.
    pub random: StdRng,
    /// What a power failure leaves.
    pub fate: StdRng,
    /// The application.
    pub application: Application,
    /// What goes wrong with the bucket.
    pub faults: Faults,
    /// What goes wrong with the disk.
    pub disk: Arc<SimDisk>,
    /// What was done so far, for whoever must understand a failure.
    pub log: Vec<String>,
    /// What happened, for tests that must know that it did.
    pub tally: Tally,
    /// Whether the power fails with the process, where the schedule says where that dies.
    pub power_fails: bool,
    directory: TempDir,
    home: Home,
    shipper: Option<Shipper>,
    bucket: MemoryStore,
    clock: Arc<SimClock>,
    history: History,
    oracle: Oracle,
    /// The places in the history that a sync acknowledged.
    acknowledged: Vec<usize>,
    runs: u64,
    /// An older copy of the shipper's directory, of the database.
    old_state: bool,
    old_database: bool,
}

/// What does not change in a world.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// How the application treats its database.
    pub habits: Habits,
    /// What the bucket makes of the condition that keeps two writers apart.
    pub condition: Condition,
    /// Most bytes that may wait for the bucket.
    pub spool_limit: u64,
    /// Shortest time between two captures.
    pub sync_interval: Duration,
}

impl Nature {
    /// One drawn by chance.
    pub fn draw(random: &mut StdRng) -> Self {
        let page_sizes = [512, 512, 512, 1024, 1024, 4096, 65536];
        let habits = Habits {
            page_size: page_sizes[random.random_range(0..page_sizes.len())],
            rows: random.random_range(0..60),
            auto_vacuum: random.random_range(0..3),
            autocheckpoint: [0, 20, 100, 1000][random.random_range(0..4)],
            full: random.random_bool(0.3),
        };
        let condition = match random.random_range(0..10) {
            0 => Condition::Ignored,
            1 => Condition::Refused,
            _ => Condition::Honoured,
        };
        Self {
            habits,
            condition,
            spool_limit: if random.random_bool(0.1) { 300_000 } else { 1 << 30 },
            sync_interval: Duration::from_millis(random.random_range(0..200)),
        }
    }
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Times a shipper was attached.
    pub attached: u64,
    /// Files that an attempt put into the bucket.
    pub uploaded: u64,
    /// Syncs acknowledged.
    pub synced: u64,
    /// Times that a shipper could not go on as it was.
    pub ended: u64,
    /// Generations in the bucket at the end.
    pub generations: u64,
    /// Restore points in it.
    pub points: u64,
    /// Deaths at a place that the schedule named.
    pub died: u64,
}

impl Tally {
    /// Adds another world's.
    pub fn add(&mut self, other: Self) {
        self.attached += other.attached;
        self.uploaded += other.uploaded;
        self.synced += other.synced;
        self.ended += other.ended;
        self.generations += other.generations;
        self.points += other.points;
        self.died += other.died;
    }
}

impl World {
    /// A world in which nothing runs but the application.
    ///
    /// # Errors
    /// Those of the file system, and SQLite's.
    pub fn new(seed: u64, nature: Nature) -> Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }?;
        let application = Application::create(&directory.path().join("app.db"), nature.habits)?;
        let bucket = MemoryStore::new(nature.condition);
        let faults = Faults::default();
        let disk = SimDisk::new(faults.clone());
        let clock = Arc::new(SimClock::default());
        let home = Home {
            database: application.path().to_owned(),
            directory: directory.path().join("state"),
            store: Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults.clone())),
            clock: clock.clone(),
            disk: disk.clone(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            spool_limit: nature.spool_limit,
            sync_interval: nature.sync_interval,
        };
        std::fs::create_dir_all(&home.directory)?;
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            fate: StdRng::seed_from_u64(seed),
            application,
            faults,
            disk,
            log: vec![format!("{nature:?}")],
            tally: Tally::default(),
            power_fails: false,
            directory,
            home,
            shipper: None,
            bucket,
            clock,
            history: History::default(),
            oracle: Oracle::default(),
            acknowledged: Vec::new(),
            runs: 0,
            old_state: false,
            old_database: false,
        };
        world.note_state()?;
        Ok(world)
    }

    fn note(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    /// Notes what the application committed.
    fn note_state(&mut self) -> Result<()> {
        if let Some(state) = self.application.state()?
            && self.history.push(state)
        {
            self.note(format!("  state {}", self.history.newest()));
        }
        Ok(())
    }

    /// The application does something.
    ///
    /// # Errors
    /// It was in our way: SQLite refuses.
    pub fn work(&mut self) -> Result<()> {
        let did = self.application.work(&mut self.random)?;
        self.note(format!("application: {}", did.get(..60).unwrap_or(did)));
        self.note_state()
    }

    /// Time passes, mostly a little.
    pub fn pass(&mut self) {
        let time = match self.random.random_range(0..20) {
            0 => Duration::from_secs(6),
            1 => Duration::from_secs(25 * 60 * 60),
            2..6 => Duration::from_millis(1500),
            _ => Duration::from_millis(self.random.random_range(1..150)),
        };
        self.clock.pass(time);
        self.note(format!("{time:?} later"));
    }

    /// Exactly this time passes.
    pub fn wait(&mut self, time: Duration) {
        self.clock.pass(time);
        self.note(format!("{time:?} later"));
    }

    /// Somebody sets the clock.
    pub fn jump(&mut self) {
        let by = SignedDuration::from_secs(self.random.random_range(-90_000..90_000));
        self.clock.jump(by);
        self.note(format!("the clock is set by {by:?}"));
    }

    /// Starts a shipper where none runs.
    ///
    /// # Errors
    /// None but a bucket that is not as it must be.
    pub fn start(&mut self) -> Result<()> {
        if self.shipper.is_some() {
            return Ok(());
        }
        self.runs += 1;
        // Where a crash before this run left a shorter path, the directory is there again.
        std::fs::create_dir_all(&self.home.directory)?;
        match Shipper::attach(&self.home, self.runs) {
            Ok(shipper) => {
                self.tally.attached += 1;
                self.note("attached");
                self.shipper = Some(shipper);
            }
            Err(error) => self.note(format!("not attached: {error:#}")),
        }
        if self.faults.is_stopped() { self.die() } else { Ok(()) }
    }

    /// One step of the engine.
    ///
    /// # Errors
    /// What [`World::check`] finds.
    pub fn step(&mut self, to_the_end: bool) -> Result<Outcome> {
        self.act("step", |shipper, _| shipper.step(to_the_end))
    }

    /// One try to upload.
    ///
    /// # Errors
    /// What [`World::check`] finds.
    pub fn attempt(&mut self) -> Result<Outcome> {
        let outcome = self.act("attempt", Shipper::attempt)?;
        self.tally.uploaded += u64::from(outcome == Outcome::Done("uploaded"));
        Ok(outcome)
    }

    /// `shipper sync`: what is acknowledged is in the bucket.
    ///
    /// # Errors
    /// It is not.
    pub fn sync(&mut self) -> Result<Outcome> {
        // The power may fail in the same moment, and put the source back.
        let place = self.history.newest();
        let outcome = self.act("sync", Shipper::sync)?;
        if outcome == Outcome::Done("synced") {
            self.tally.synced += 1;
            self.check()?;
            ensure!(
                self.oracle.ends_with(&self.history, place),
                "acknowledged, but state {place} is not the last one of any generation"
            );
            self.acknowledged.push(place);
        }
        Ok(outcome)
    }

    fn act(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Shipper, &Home) -> Outcome,
    ) -> Result<Outcome> {
        let Some(shipper) = &mut self.shipper else { return Ok(Outcome::Done("not running")) };
        let outcome = act(shipper, &self.home);
        self.note(format!("{what}: {outcome:?}"));
        if self.faults.is_stopped() {
            self.die()?;
        } else if let Outcome::Ended(end, _) = &outcome {
            self.tally.ended += 1;
            self.end(*end)?;
        }
        Ok(outcome)
    }

    fn end(&mut self, end: End) -> Result<()> {
        let Some(shipper) = self.shipper.take() else { return Ok(()) };
        if let Err(error) = shipper.after(end, &self.home) {
            self.note(format!("after {end:?}: {error:#}"));
        }
        if self.faults.is_stopped() {
            return self.die();
        }
        self.start()
    }

    fn die(&mut self) -> Result<()> {
        self.tally.died += 1;
        if self.power_fails { self.lose_power() } else { self.crash() }
    }

    /// The shipper's process dies.
    ///
    /// # Errors
    /// What [`World::check`] finds.
    pub fn crash(&mut self) -> Result<()> {
        // Whatever is dropped now has no effect any more.
        self.faults.stop();
        self.shipper = None;
        self.faults.restart();
        self.note("the shipper dies");
        self.check()
    }

    /// The shipper is told to stop.
    ///
    /// # Errors
    /// What [`World::check`] finds.
    pub fn stop(&mut self) -> Result<()> {
        let Some(shipper) = self.shipper.take() else { return Ok(()) };
        let stopped = shipper.stop();
        self.note(format!("the shipper stops: {stopped:?}"));
        if self.faults.is_stopped() { self.die() } else { self.check() }
    }

    /// The application stops, or dies, and is there again at once (`again`) or later.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn restart_application(&mut self, kill: bool, again: bool) -> Result<()> {
        self.note(format!("the application ends (kill: {kill})"));
        if kill {
            self.application.kill()?;
        } else {
            self.application.close();
        }
        if again { self.open_application() } else { Ok(()) }
    }

    /// The application starts where it does not run.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn open_application(&mut self) -> Result<()> {
        if !self.application.is_open() {
            self.application.open()?;
            self.note("the application starts");
            self.note_state()?;
        }
        Ok(())
    }

    /// The machine loses power.
    ///
    /// # Errors
    /// What [`World::check`] finds, or a source in a state that never was (an error of the simulation).
    pub fn lose_power(&mut self) -> Result<()> {
        let Habits { page_size, full, .. } = self.application.habits();
        let tail = Tail::read(&self.home.database, page_size, full)?;
        self.application.kill()?;
        self.crash()?;
        let lost = match tail {
            Some(tail) => tail.lose(&self.home.database, &mut self.fate)?,
            None => 0,
        };
        self.disk.shadow().lose(&self.home.directory, &mut self.fate)?;
        self.note(format!("power is lost, and {lost} frames of the WAL ({tail:?})"));
        self.application.open().context("open the database after a power failure")?;
        let state = self.application.state()?.context("not open")?;
        let known = self.history.find(0, state);
        let known = known.context("SQLite recovered a state that never was")?;
        self.note(format!("recovered as state {known}"));
        self.note_state()
    }

    /// The system writes back what the shipper wrote.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_back(&mut self) -> Result<()> {
        self.note("the system writes everything back");
        Ok(self.disk.shadow().everything(&self.home.directory)?)
    }

    /// Keeps a copy of the shipper's directory, to be put back later by somebody.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep_state(&mut self) -> Result<()> {
        self.note("a copy of the shipper's directory is kept");
        self.old_state = true;
        copy(&self.home.directory, &self.directory.path().join("old-state"))
    }

    /// Puts the copy back, under a shipper that died.
    ///
    /// # Errors
    /// Those of the file system, and what [`World::check`] finds.
    pub fn put_state_back(&mut self) -> Result<()> {
        if !self.old_state {
            return Ok(());
        }
        self.crash()?;
        self.note("the old copy of the shipper's directory is put back");
        copy(&self.directory.path().join("old-state"), &self.home.directory)?;
        self.write_back()
    }

    /// Keeps a copy of the database, to be put back later by somebody.
    ///
    /// # Errors
    /// Those of the file system, and SQLite's.
    pub fn keep_database(&mut self) -> Result<()> {
        if !self.application.is_open() {
            return Ok(());
        }
        self.note("a copy of the database is kept");
        let copy = self.directory.path().join("old.db");
        let _ = std::fs::remove_file(&copy);
        self.application.copy_to(&copy)?;
        self.old_database = true;
        Ok(())
    }

    /// Puts the copy back, as an operator should: application and shipper stopped, the WAL removed. The file is another
    /// one afterwards, or the old one with other content.
    ///
    /// # Errors
    /// Those of the file system, SQLite's, and what [`World::check`] finds.
    pub fn put_database_back(&mut self) -> Result<()> {
        if !self.old_database {
            return Ok(());
        }
        self.crash()?;
        self.application.close();
        self.note("the old copy of the database is put back");
        let database = &self.home.database;
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(database, suffix));
        }
        let old = self.directory.path().join("old.db");
        if self.random.random_bool(0.5) {
            std::fs::write(database, std::fs::read(old)?)?;
        } else {
            std::fs::remove_file(database)?;
            std::fs::copy(old, database)?;
        }
        self.open_application()
    }

    /// From now on some calls of the bucket fail.
    pub fn trouble(&mut self) {
        let seed = self.random.random();
        let one_in = self.random.random_range(2..8);
        let calls = self.random.random_range(1..6);
        let faults = [
            Fault::Before,
            Fault::Before,
            Fault::After,
            Fault::After,
            Fault::Denied,
            Fault::Truncated,
            Fault::Late(calls),
        ];
        self.faults.random(seed, one_in, &faults);
        self.note(format!("one call in {one_in} fails from now on"));
    }

    /// Takes the bucket away, or gives it back, or ends all trouble with it.
    pub fn outage(&mut self, outage: bool) {
        if outage {
            self.faults.outage(true);
        } else {
            self.faults.heal();
        }
        self.note(if outage { "the bucket is gone" } else { "the bucket is well" });
    }

    /// The disk is full for a moment.
    pub fn fill_disk(&mut self) {
        let changes = self.random.random_range(1..4);
        self.disk.fail(changes);
        self.note(format!("the next {changes} changes of the disk fail"));
    }

    /// Holds the bucket against what was committed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&mut self) -> Result<()> {
        let Self { home, oracle, bucket, history, .. } = self;
        home.runtime.block_on(oracle.check(bucket, history))
    }

    /// Ends all trouble: what is committed must reach the bucket by itself, and everything in it is looked at anew.
    ///
    /// # Errors
    /// What is wrong.
    pub fn settle(&mut self) -> Result<()> {
        self.faults.heal();
        self.disk.fail(0);
        self.open_application()?;
        let mut synced = false;
        for _ in 0..PATIENCE {
            self.start()?;
            drop(self.attempt()?);
            synced = self.sync()? == Outcome::Done("synced");
            if synced {
                break;
            }
            self.clock.pass(Duration::from_secs(10));
        }
        ensure!(synced, "does not heal by itself");
        let mut oracle = Oracle::default();
        self.home.runtime.block_on(oracle.check(&self.bucket, &self.history))?;
        let newest = self.history.newest();
        ensure!(oracle.ends_with(&self.history, newest), "the newest state is nowhere");
        for place in &self.acknowledged {
            ensure!(
                oracle.holds(&self.history, *place),
                "state {place} was acknowledged, and is gone"
            );
        }
        self.tally.generations = oracle.generations() as u64;
        self.tally.points = oracle.points() as u64;
        Ok(())
    }
}

/// Replaces the files of `to` by those of `from`.
fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    if !from.is_dir() {
        bail!("{} is no directory", from.display());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
