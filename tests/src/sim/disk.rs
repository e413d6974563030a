//! The shipper's disk: told of every change and of everything that is forced; may be where the process dies.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shipper::chain::disk::{Change, Disk};

use crate::faulty_store::Faults;
use crate::sim::power::Shadow;

/// A disk that remembers what was forced, and fails from some change on.
#[derive(Debug)]
pub struct SimDisk {
    shadow: Mutex<Shadow>,
    faults: Faults,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    done: u64,
    stop: Option<u64>,
    /// Steps that fail.
    fail: Range<u64>,
    /// The next so many changes fail, as on a full disk.
    failing: u32,
}

impl SimDisk {
    /// A disk of a process that has this store, too: where the one dies the other does.
    #[must_use]
    pub fn new(faults: Faults) -> Arc<Self> {
        Arc::new(Self { shadow: Mutex::default(), faults, steps: Mutex::default() })
    }

    /// What is on it for certain.
    pub fn shadow(&self) -> MutexGuard<'_, Shadow> {
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Durable steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().done
    }

    /// The process dies just before the step of this number, counted from 1 (so, just after the one before it).
    pub fn stop_at(&self, step: u64) {
        self.state().stop = Some(step);
    }

    /// The step of this number fails, as on a full disk, and the process goes on.
    pub fn fail_at(&self, step: u64) {
        self.full_at(step, 1);
    }

    /// From this step on, the disk is full for so many.
    pub fn full_at(&self, step: u64, steps: u64) {
        self.state().fail = step..step + steps;
    }

    /// The next so many changes fail.
    pub fn fail(&self, changes: u32) {
        self.state().failing = changes;
    }

    fn state(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step begins.
    fn begin(&self) -> io::Result<()> {
        let mut steps = self.state();
        steps.done += 1;
        if steps.stop == Some(steps.done) {
            self.faults.stop();
        }
        if self.faults.is_stopped() {
            return Err(io::Error::other("the process is dead"));
        }
        if steps.failing > 0 || steps.fail.contains(&steps.done) {
            steps.failing = steps.failing.saturating_sub(1);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn before(&self, _change: Change, _path: &Path) -> io::Result<()> {
        self.begin()
    }

    fn sync(&self, _file: &File, path: &Path) -> io::Result<()> {
        self.begin()?;
        self.shadow().file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.begin()?;
        self.shadow().directory(path)
    }
}
