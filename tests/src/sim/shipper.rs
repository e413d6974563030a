//! The real engine, chain and uploader, driven step by step on one thread, as `ship::database` drives them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use replica::format::PageSize;
use replica::store::Store;
use shipper::chain::disk::Disk;
use shipper::chain::open::Open;
use shipper::chain::reserve::is_out_of_room;
use shipper::chain::roll_forward::{RollForwardError, roll_forward};
use shipper::chain::{LocalChain, SpoolFull};
use shipper::clock::Clock;
use shipper::ship::capture::Discontinuity;
use shipper::ship::engine::{Engine, Pace};
use shipper::ship::status::{Phase, Status};
use shipper::ship::sweep::Goal;
use shipper::ship::upload::{Attempt, Ended, Uploader};
use shipper::wal::attach;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

/// Rounds after which what should settle has not.
const PATIENCE: u32 = 60;

/// Where a shipper lives, whether it runs or not.
#[derive(Debug)]
pub struct Home {
    /// The source.
    pub database: PathBuf,
    /// `<state_dir>/db/<name>`.
    pub directory: PathBuf,
    /// The bucket.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// What the uploader waits with.
    pub runtime: Runtime,
    /// Most bytes that may wait for the bucket.
    pub spool_limit: u64,
    /// Shortest time between two captures.
    pub sync_interval: Duration,
    /// Most frames in one file of a capture.
    pub most_frames: u32,
}

/// A running shipper of one database.
#[derive(Debug)]
pub struct Shipper {
    engine: Engine,
    uploader: Uploader,
    chain: Arc<LocalChain>,
    status: Arc<Status>,
    /// The last capture that was complete.
    captured: u64,
    _hurry: watch::Sender<bool>,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it could.
    Done(&'static str),
    /// It failed, and may be repeated.
    Failed(String),
    /// This shipper cannot go on as it is.
    Ended(End, String),
}

/// What must be done before it is attached again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    Again,
    /// The chain must be read back from the bucket.
    Stale,
    /// A new generation begins.
    NewGeneration,
    /// What waits for the bucket is given up.
    GiveUp,
}

impl Shipper {
    /// Attaches, as a process that starts does, and one whose chain cannot go on.
    ///
    /// # Errors
    /// It cannot be attached now.
    pub fn attach(home: &Home, node_id: u64) -> Result<Self> {
        let attachable = attach::check(&home.database)?;
        let chain = open_chain(home, attachable.page_size, node_id)?;
        let clock = home.clock.clone();
        let pace = Pace {
            sync_interval: home.sync_interval,
            slice: Duration::ZERO,
            most_frames: home.most_frames,
            ..Pace::new(Duration::ZERO)
        };
        let engine =
            Engine::attach(&home.database, attachable, pace, chain.clone(), clock.clone())?;
        let status = Arc::new(Status::new());
        let page_size = engine.page_size();
        let phase = match engine.sweeping() {
            Some(Goal::Snapshot) => Phase::Snapshotting,
            Some(Goal::CatchUp) => Phase::CatchingUp,
            None => Phase::Shipping,
        };
        status.attached(page_size, phase, &chain);
        let (hurry, hurried) = watch::channel(false);
        let uploader = Uploader::new(
            home.store.clone(),
            chain.clone(),
            status.clone(),
            Duration::ZERO,
            clock,
            hurried,
        );
        Ok(Self { engine, uploader, chain, status, captured: 0, _hurry: hurry })
    }

    /// One step of the engine.
    pub fn step(&mut self, to_the_end: bool) -> Outcome {
        match self.engine.step(to_the_end) {
            Ok(step) if step.sweeping.is_some() => Outcome::Done("sweeping"),
            Ok(step) if step.complete_until.is_some() => {
                self.captured = step.captured;
                Outcome::Done("complete")
            }
            Ok(_) => Outcome::Done("behind"),
            Err(error) if error.is::<Discontinuity>() => {
                Outcome::Ended(End::Again, format!("{error:#}"))
            }
            Err(error) if error.is::<SpoolFull>() => {
                match self.chain.compact(true).and_then(|()| Ok(self.chain.check_room()?)) {
                    Ok(()) => Outcome::Done("made room"),
                    Err(still) => Outcome::Ended(End::GiveUp, format!("{still:#}")),
                }
            }
            Err(error) if is_out_of_room(&error) => {
                Outcome::Ended(End::GiveUp, format!("{error:#}"))
            }
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }

    /// One try to upload one file.
    pub fn attempt(&mut self, home: &Home) -> Outcome {
        match home.runtime.block_on(self.uploader.attempt()) {
            Ok(Attempt::Nothing) => Outcome::Done("nothing"),
            Ok(Attempt::Uploaded(_)) => Outcome::Done("uploaded"),
            Ok(Attempt::Failed(error)) => Outcome::Failed(error.to_string()),
            Err(ended) => {
                let end = match &ended {
                    Ended::OtherWriter(_) | Ended::Superseded { .. } | Ended::Lost(_) => {
                        End::NewGeneration
                    }
                    Ended::Stale(_) => End::Stale,
                    Ended::Full(_) => End::GiveUp,
                    Ended::Local(_) => End::Again,
                };
                Outcome::Ended(end, format!("{:#}", anyhow::Error::new(ended)))
            }
        }
    }

    /// Captures to the end and uploads it: `true` is what `shipper sync` acknowledges.
    pub fn sync(&mut self, home: &Home) -> Outcome {
        for round in 0.. {
            match self.step(true) {
                Outcome::Done("complete") => break,
                Outcome::Done(_) if round < PATIENCE => {}
                Outcome::Done(_) => return Outcome::Failed("is never complete".to_owned()),
                other => return other,
            }
        }
        let since = Instant::now();
        self.status.looks.want(since);
        for _ in 0..PATIENCE {
            let durable = self.status.durable_capture();
            if durable >= Some(self.captured) && self.status.looks.found_at() >= Some(since) {
                return Outcome::Done("synced");
            }
            match self.attempt(home) {
                Outcome::Done(_) => {}
                other => return other,
            }
        }
        Outcome::Failed("is never durable".to_owned())
    }
}

impl Shipper {
    /// Ends as a process does that is told to.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stop(self) -> Result<()> {
        let Self { engine, uploader, chain, .. } = self;
        engine.close().1?;
        drop(uploader);
        chain.force()
    }

    /// Does what an end asks for.
    ///
    /// # Errors
    /// It cannot be done now.
    pub fn after(self, end: End, home: &Home) -> Result<()> {
        let Self { engine, uploader, chain, .. } = self;
        drop((engine, uploader));
        match end {
            End::Again => Ok(()),
            End::Stale => read_back(home, &chain).context("read back"),
            End::NewGeneration => {
                drop(chain);
                LocalChain::discard(&home.directory)
            }
            End::GiveUp => chain.drop_spool(false),
        }
    }
}

fn read_back(home: &Home, chain: &Arc<LocalChain>) -> Result<(), RollForwardError> {
    let read = home.runtime.block_on(roll_forward(chain, home.store.as_ref()));
    if let Err(RollForwardError::Ended(_)) = read {
        LocalChain::discard(&home.directory).map_err(RollForwardError::Local)?;
    }
    read.map(|_| ())
}

/// Opens the chain, and reads back from the bucket what a crash took from it.
fn open_chain(home: &Home, page_size: PageSize, node_id: u64) -> Result<Arc<LocalChain>> {
    let open = Open {
        page_size,
        node_id,
        spool_limit: home.spool_limit,
        shared_disk: true,
        disk: home.disk.clone(),
    };
    let chain = Arc::new(LocalChain::open(&home.directory, open.clone())?);
    if !chain.is_torn() {
        return Ok(chain);
    }
    match read_back(home, &chain) {
        Ok(()) => return Ok(chain),
        Err(RollForwardError::Ended(_)) => drop(chain),
        Err(error) => return Err(error).context("read back from the bucket"),
    }
    LocalChain::discard(&home.directory)?;
    Ok(Arc::new(LocalChain::open(&home.directory, open)?))
}
