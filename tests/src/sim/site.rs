//! One machine of a world.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::faulty_store::{Faults, FaultyStore};
use crate::memory_store::MemoryStore;
use crate::sim::application::Application;
use crate::sim::clock::SimClock;
use crate::sim::disk::SimDisk;
use crate::sim::nature::Nature;
use crate::sim::shipper::{Home, Shipper};

/// A machine: an application, a shipper, and the disk that both are on.
#[derive(Debug)]
pub struct Site {
    /// The application.
    pub application: Application,
    /// What goes wrong with the disk.
    pub disk: Arc<SimDisk>,
    /// What its shipper needs.
    pub home: Home,
    /// Its shipper, where one runs.
    pub shipper: Option<Shipper>,
    /// Where everything of it stands.
    pub directory: PathBuf,
    /// Which of the histories is its own.
    pub history: usize,
    /// Whether there is an older copy of the shipper's directory.
    pub old_state: bool,
    /// Whether there is one of the database.
    pub old_database: bool,
}

impl Site {
    /// A machine with everything in `directory`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(
        application: Application,
        directory: PathBuf,
        history: usize,
        nature: &Nature,
        bucket: &MemoryStore,
        faults: &Faults,
        clock: &Arc<SimClock>,
    ) -> Result<Self> {
        let disk = SimDisk::new(faults.clone());
        let home = Home {
            database: application.path().to_owned(),
            directory: directory.join("state"),
            store: Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults.clone())),
            clock: clock.clone(),
            disk: disk.clone(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            spool_limit: nature.spool_limit,
            sync_interval: nature.sync_interval,
            most_frames: nature.most_frames,
        };
        let (old_state, old_database) = (false, false);
        Ok(Self {
            application,
            disk,
            home,
            shipper: None,
            directory,
            history,
            old_state,
            old_database,
        })
    }
}
