//! Everything at once: an application, a shipper, a bucket, time, a disk; and what may happen to them.
//!
//! One thread does one thing after the other, so that a seed is a schedule. After everything that the application does,
//! its state is noted; whenever something died or was acknowledged, the bucket is held against what was noted.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::faulty_store::Faults;
use crate::memory_store::MemoryStore;
use crate::sim::application::{Application, state};
use crate::sim::clock::SimClock;
use crate::sim::history::History;
use crate::sim::nature::{Nature, Tally};
use crate::sim::oracle::Oracle;
use crate::sim::shipper::{End, Home, Outcome, Shipper};
use crate::sim::site::Site;

/// Rounds in which a world without trouble must come to rest.
const PATIENCE: u32 = 40;

/// The world.
#[derive(Debug)]
pub struct World {
    /// What chance decides.
    pub random: StdRng,
    /// What a power failure leaves.
    pub fate: StdRng,
    /// The machine that things happen to.
    pub here: Site,
    /// A copy of it, made by somebody, that ships to the same place.
    pub(super) there: Option<Site>,
    /// What goes wrong with the bucket.
    pub faults: Faults,
    /// What was done so far, for whoever must understand a failure.
    pub log: Vec<String>,
    /// What happened, for tests that must know that it did.
    pub tally: Tally,
    /// Whether the power fails with the process, where the schedule says where that dies.
    pub power_fails: bool,
    pub(super) nature: Nature,
    pub(super) directory: TempDir,
    pub(super) bucket: MemoryStore,
    pub(super) clock: Arc<SimClock>,
    pub(super) histories: Vec<History>,
    oracle: Oracle,
    /// What a sync acknowledged: history, and place in it.
    acknowledged: Vec<(usize, usize)>,
    runs: u64,
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
        let (bucket, faults) = (MemoryStore::new(nature.condition), Faults::default());
        let clock = Arc::new(SimClock::default());
        let there = directory.path().to_owned();
        let here = Site::new(application, there, 0, &nature, &bucket, &faults, &clock)?;
        std::fs::create_dir_all(&here.home.directory)?;
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            fate: StdRng::seed_from_u64(seed),
            here,
            there: None,
            faults,
            log: vec![format!("{nature:?}")],
            tally: Tally::default(),
            power_fails: false,
            nature,
            directory,
            bucket,
            clock,
            histories: vec![History::default()],
            oracle: Oracle::default(),
            acknowledged: Vec::new(),
            runs: 0,
        };
        world.note_state()?;
        Ok(world)
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    /// What was committed here.
    pub(super) fn history(&mut self) -> &mut History {
        &mut self.histories[self.here.history]
    }

    /// Notes what the application committed.
    pub(super) fn note_state(&mut self) -> Result<()> {
        if let Some(state) = self.here.application.state()?
            && self.history().push(state)
        {
            let newest = self.history().newest();
            self.note(format!("  state {newest}"));
        }
        Ok(())
    }

    /// The application does something.
    ///
    /// # Errors
    /// It was in our way: SQLite refuses.
    pub fn work(&mut self) -> Result<()> {
        let did = self.here.application.work(&mut self.random)?;
        self.note(format!("application: {}", did.get(..60).unwrap_or(did)));
        self.note_state()
    }

    /// The application begins or ends something long: a read, or a transaction.
    ///
    /// # Errors
    /// It was in our way: SQLite refuses.
    pub fn work_long(&mut self) -> Result<()> {
        let did = if self.random.random_bool(0.5) {
            self.here.application.read_on()?
        } else {
            self.here.application.hold_on(&mut self.random)?
        };
        self.note(format!("application: {}", did.get(..60).unwrap_or(did)));
        self.note_state()
    }

    /// Starts a shipper where none runs.
    ///
    /// # Errors
    /// None but a bucket that is not as it must be.
    pub fn start(&mut self) -> Result<()> {
        if self.here.shipper.is_some() {
            return Ok(());
        }
        self.runs += 1;
        // Where a crash before this run left a shorter path, the directory is there again.
        std::fs::create_dir_all(&self.here.home.directory)?;
        match Shipper::attach(&self.here.home, self.runs) {
            Ok(shipper) => {
                self.tally.attached += 1;
                self.note("attached");
                self.here.shipper = Some(shipper);
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
        let second =
            if self.random.random_bool(0.3) { self.here.application.second()? } else { None };
        let Some(db) = second else {
            return self.act("step", |shipper, _| shipper.step(to_the_end));
        };
        let states = Arc::new(Mutex::new(Vec::new()));
        let (committed, mut random) = (states.clone(), StdRng::seed_from_u64(self.random.random()));
        self.clock.interrupt(Some(Box::new(move || {
            // Busy where the lock is held; then nothing happens.
            if random.random_bool(0.4)
                && db.execute_batch("UPDATE tally SET n = n + 1").is_ok()
                && let Ok(state) = state(&db)
            {
                committed.lock().unwrap().push(state);
            }
        })));
        // Noted before the shipper may be found to have shipped them.
        let Some(shipper) = &mut self.here.shipper else {
            self.clock.interrupt(None);
            return Ok(Outcome::Done("not running"));
        };
        let outcome = shipper.step(to_the_end);
        self.clock.interrupt(None);
        for state in states.lock().unwrap().drain(..) {
            self.histories[self.here.history].push(state);
        }
        let newest = self.history().newest();
        self.note(format!("  interrupted, up to state {newest}"));
        self.act("step", |_, _| outcome)
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
        let (own, place) = (self.here.history, self.history().newest());
        let outcome = self.act("sync", Shipper::sync)?;
        if outcome == Outcome::Done("synced") {
            self.tally.synced += 1;
            self.check()?;
            let history = &self.histories[own];
            // Where two ship to one place, the other may have gone on since in the generation that was both's.
            let there = if self.there.is_none() {
                self.oracle.ends_with(history, place)
            } else {
                self.oracle.holds(history, place)
            };
            ensure!(there, "state {place} was acknowledged, and is not in the bucket");
            self.acknowledged.push((own, place));
        }
        Ok(outcome)
    }

    fn act(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Shipper, &Home) -> Outcome,
    ) -> Result<Outcome> {
        let Some(shipper) = &mut self.here.shipper else { return Ok(Outcome::Done("not running")) };
        let outcome = act(shipper, &self.here.home);
        self.note(format!("{what}: {outcome:?}"));
        if self.faults.is_stopped() {
            self.die()?;
        } else if let Outcome::Ended(end, why) = &outcome {
            // Nobody but SQLite touches the files while a shipper runs: there is no reason to lose the thread.
            let own = ["sweep: ", "compare: "].iter().any(|cause| why.contains(cause));
            let lost = what == "step" && *end == End::Again && !own;
            ensure!(!lost, "lost the WAL's thread: {why}");
            self.tally.ended += 1;
            self.end(*end)?;
        }
        Ok(outcome)
    }

    fn end(&mut self, end: End) -> Result<()> {
        let Some(shipper) = self.here.shipper.take() else { return Ok(()) };
        if let Err(error) = shipper.after(end, &self.here.home) {
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
        self.here.shipper = None;
        self.faults.restart();
        self.note("the shipper dies");
        self.check()
    }

    /// The shipper is told to stop.
    ///
    /// # Errors
    /// What [`World::check`] finds.
    pub fn stop(&mut self) -> Result<()> {
        let Some(shipper) = self.here.shipper.take() else { return Ok(()) };
        let stopped = shipper.stop();
        self.note(format!("the shipper stops: {stopped:?}"));
        if self.faults.is_stopped() { self.die() } else { self.check() }
    }

    /// Somebody empties the bucket: what was acknowledged is gone with it.
    pub fn empty_bucket(&mut self) {
        self.bucket.empty();
        self.oracle = Oracle::default();
        self.acknowledged.clear();
        self.note("the bucket is emptied");
    }

    /// Holds the bucket against what was committed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&mut self) -> Result<()> {
        let Self { here, oracle, bucket, histories, .. } = self;
        here.home.runtime.block_on(oracle.check(bucket, histories))
    }

    /// Ends all trouble: what is committed must reach the bucket by itself, and everything in it is looked at anew.
    ///
    /// # Errors
    /// What is wrong.
    pub fn settle(&mut self) -> Result<()> {
        self.faults.heal();
        let mut newest = Vec::new();
        for _ in 0..=usize::from(self.there.is_some()) {
            self.here.disk.fail(0);
            self.open_application()?;
            self.come_to_rest()?;
            newest.push((self.here.history, self.history().newest()));
            self.change_places();
        }
        let mut oracle = Oracle::default();
        self.here.home.runtime.block_on(oracle.check(&self.bucket, &self.histories))?;
        for (own, place) in newest {
            ensure!(oracle.holds(&self.histories[own], place), "the newest state is nowhere");
        }
        for (own, place) in &self.acknowledged {
            let there = oracle.holds(&self.histories[*own], *place);
            ensure!(there, "state {place} was acknowledged, and is gone");
        }
        self.tally.generations = oracle.generations() as u64;
        self.tally.points = oracle.points() as u64;
        Ok(())
    }

    fn come_to_rest(&mut self) -> Result<()> {
        for _ in 0..PATIENCE {
            self.start()?;
            drop(self.attempt()?);
            if self.sync()? == Outcome::Done("synced") {
                return Ok(());
            }
            self.clock.pass(Duration::from_secs(10));
        }
        bail!("does not heal by itself")
    }
}
