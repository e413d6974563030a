//! What happens to a shipper: by time, its application, its operator, its disk, its bucket, the power.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use rand::Rng;

use crate::faulty_store::Fault;
use crate::memory_store::Condition;
use crate::sim::application::{Application, Habits};
use crate::sim::power::{Tail, beside};
use crate::sim::site::Site;
use crate::sim::world::World;

impl World {
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

    /// The application stops, or dies, and is there again at once (`again`) or later.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn restart_application(&mut self, kill: bool, again: bool) -> Result<()> {
        self.note(format!("the application ends (kill: {kill})"));
        if kill {
            self.here.application.kill()?;
        } else {
            self.here.application.close();
        }
        if again { self.open_application() } else { Ok(()) }
    }

    /// The application starts where it does not run.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn open_application(&mut self) -> Result<()> {
        if !self.here.application.is_open() {
            self.here.application.open()?;
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
        let Habits { page_size, full, .. } = self.here.application.habits();
        let tail = Tail::read(&self.here.home.database, page_size, full)?;
        self.here.application.kill()?;
        self.crash()?;
        let lost = match tail {
            Some(tail) => tail.lose(&self.here.home.database, &mut self.fate)?,
            None => 0,
        };
        self.here.disk.shadow().lose(&self.here.home.directory, &mut self.fate)?;
        self.note(format!("power is lost, and {lost} frames of the WAL ({tail:?})"));
        self.here.application.open().context("open the database after a power failure")?;
        let state = self.here.application.state()?.context("not open")?;
        let known = self.history().find(0, state);
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
        Ok(self.here.disk.shadow().everything(&self.here.home.directory)?)
    }

    /// Keeps a copy of the shipper's directory, to be put back later by somebody.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep_state(&mut self) -> Result<()> {
        self.note("a copy of the shipper's directory is kept");
        self.here.old_state = true;
        copy(&self.here.home.directory, &self.here.directory.join("old-state"))
    }

    /// Puts the copy back, under a shipper that died.
    ///
    /// # Errors
    /// Those of the file system, and what [`World::check`] finds.
    pub fn put_state_back(&mut self) -> Result<()> {
        if !self.here.old_state {
            return Ok(());
        }
        self.crash()?;
        self.note("the old copy of the shipper's directory is put back");
        copy(&self.here.directory.join("old-state"), &self.here.home.directory)?;
        self.write_back()
    }

    /// Keeps a copy of the database, to be put back later by somebody.
    ///
    /// # Errors
    /// Those of the file system, and SQLite's.
    pub fn keep_database(&mut self) -> Result<()> {
        if !self.here.application.is_open() {
            return Ok(());
        }
        self.note("a copy of the database is kept");
        let copy = self.here.directory.join("old.db");
        let _ = std::fs::remove_file(&copy);
        self.here.application.copy_to(&copy)?;
        self.here.old_database = true;
        Ok(())
    }

    /// Puts the copy back, as an operator should: application and shipper stopped, the WAL removed. The file is another
    /// one afterwards, or the old one with other content.
    ///
    /// # Errors
    /// Those of the file system, SQLite's, and what [`World::check`] finds.
    pub fn put_database_back(&mut self) -> Result<()> {
        if !self.here.old_database {
            return Ok(());
        }
        self.crash()?;
        self.here.application.close();
        self.note("the old copy of the database is put back");
        let database = &self.here.home.database;
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(database, suffix));
        }
        let old = self.here.directory.join("old.db");
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
        self.here.disk.fail(changes);
        self.note(format!("the next {changes} changes of the disk fail"));
    }

    /// Somebody copies the machine while its shipper is down, and starts the copy beside it: both ship to the same
    /// place, with the same state.
    ///
    /// # Errors
    /// Those of the file system, SQLite's, and what [`World::check`] finds.
    pub fn clone_machine(&mut self) -> Result<()> {
        // Where the store does not keep two writers apart, nothing does.
        if self.there.is_some() || self.nature.condition != Condition::Honoured {
            return Ok(());
        }
        self.note("somebody copies the machine");
        // The copy knows every run that ever was; what a later one wrote it can tell from its own. (A run that goes on
        // after the copy was made is taken for the copy's own, too: nothing on a disk tells those two apart.)
        self.crash()?;
        let directory = self.directory.path().join("copy");
        std::fs::create_dir_all(&directory)?;
        let database = directory.join("app.db");
        std::fs::copy(&self.here.home.database, &database)?;
        let wal = beside(&self.here.home.database, "-wal");
        if wal.exists() {
            std::fs::copy(wal, beside(&database, "-wal"))?;
        }
        copy(&self.here.home.directory, &directory.join("state"))?;
        let application = Application::reopen(&database, self.nature.habits)?;
        let history = self.histories.len();
        let copied = self.history().clone();
        self.histories.push(copied);
        let Self { nature, bucket, faults, clock, .. } = self;
        let site = Site::new(application, directory, history, nature, bucket, faults, clock)?;
        self.there = Some(site);
        self.change_places();
        self.note_state()?;
        self.write_back()
    }

    /// From now on, things happen to the other machine, where there is one.
    pub fn change_places(&mut self) {
        if let Some(there) = &mut self.there {
            std::mem::swap(&mut self.here, there);
            let note = format!("on machine {}", self.here.history);
            self.note(note);
        }
    }
}

/// Replaces the files of `to` by those of `from`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    ensure!(from.is_dir(), "{} is no directory", from.display());
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
