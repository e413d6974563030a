//! One database's life: attach, ship, and when that cannot go on, attach again: its chain is opened anew, and goes on,
//! catches up or ends in favour of a new generation.
//!
//! A database that cannot be attached is reported and tried again; it never stops the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::format::PageSize;
use replica::store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::chain::disk::SystemDisk;
use crate::chain::open::Open;
use crate::chain::roll_forward::{RollForwardError, roll_forward};
use crate::chain::{LocalChain, SpoolFull};
use crate::clock::Clock;
use crate::config::{DatabaseConfig, HeartbeatConfig};
use crate::ship::capture::Discontinuity;
use crate::ship::claims::{Claim, Claims};
use crate::ship::engine::{Engine, POLL, Pace, Step};
use crate::ship::heartbeat::Pulse;
use crate::ship::notify::{Notice, Watch};
use crate::ship::status::{Phase, Status};
use crate::ship::sweep::Goal;
use crate::ship::sync::Syncs;
use crate::ship::upload::{Ended, Uploader};
use crate::wal::{attach, bytes::Position, checkpoint::LockReport, reader::wal_path};

/// Pause before a database that could not be attached is tried again.
const RETRY_ATTACH: Duration = Duration::from_secs(15);
/// Shortest such pause, where somebody asks for the database meanwhile.
const RETRY_ATTACH_ASKED: Duration = Duration::from_secs(1);
/// Pause after a step that failed.
const RETRY_STEP: Duration = Duration::from_secs(1);
/// First and longest pause before a chain that could not go on is opened anew: it may cost reading the whole database.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// First and longest pause before looking again after a notice that nothing was found for.
const RELOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));
/// How long steps may fail before the WAL is let go of.
const FAILING_LONGEST: Duration = Duration::from_secs(60);
/// How far the WAL may grow meanwhile, bytes.
const FAILING_MOST: u64 = 256 << 20;
/// Bytes that may always wait for the bucket.
const SPOOL_LEAST: u64 = 1 << 30;
/// How long the final sync may take; systemd is told to wait 20 s.
const FINAL_SYNC: Duration = Duration::from_secs(15);
/// How often the final sync looks whether the spool is empty.
const FINAL_LOOK: Duration = Duration::from_millis(20);

/// What one database needs.
#[derive(Debug)]
pub struct Database {
    /// Its configuration.
    pub config: DatabaseConfig,
    /// Its place in the bucket.
    pub store: Arc<dyn Store>,
    /// Its directory for what must not be forgotten, and for captured files.
    pub state: PathBuf,
    /// How often its heartbeat is written.
    pub heartbeat: HeartbeatConfig,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// This machine's name.
    pub host: Arc<str>,
    /// For notices of changes; none where the system has no more.
    pub watch: Option<Watch>,
    /// What is known of it, whatever becomes of its generations.
    pub status: Arc<Status>,
    /// Who wants to know when everything is in the bucket.
    pub syncs: Syncs,
    /// Who ships which file.
    pub claims: Arc<Claims>,
    /// Turns to read a whole database: a thousand first snapshots at once would leave no thread to anybody else.
    pub turns: Arc<Semaphore>,
    /// Becomes true when the program is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Why a database is not shipped any more.
enum End {
    /// The program stops.
    Stopped,
    /// The chain must be opened anew.
    Again(String),
    /// The chain must be read back from the bucket first.
    Stale(String),
    /// The generation is another writer's, or cannot be believed: a new one begins.
    NewGeneration(String),
    /// What waits for the bucket is given up.
    GiveUp(String),
}

/// An attached database.
struct Attached {
    engine: Engine,
    chain: Arc<LocalChain>,
    /// Nobody else ships this file meanwhile.
    _claim: Option<Claim>,
}

impl Database {
    /// Ships until told to stop. `settled` is told when the database is attached, or known not to be.
    pub async fn run(mut self, settled: oneshot::Sender<()>) {
        let mut settled = Some(settled);
        let mut backoff = AGAIN.0;
        while !*self.stop.borrow() {
            let Some(turn) = self.turn(&mut settled).await else { return };
            let attached = self.attach().await;
            if let Some(settled) = settled.take() {
                // Nobody waits any more if the program is stopping.
                let _ = settled.send(());
            }
            let Attached { engine, chain, _claim } = match attached {
                Ok(attached) => attached,
                Err(refusal) => {
                    drop(turn);
                    let reason = format!("{refusal:#}");
                    if self.status.not_attached(&reason) {
                        error!("not attached: {reason}");
                    }
                    self.syncs.refuse(&reason);
                    self.pause(RETRY_ATTACH_ASKED).await;
                    self.pause_until_asked(RETRY_ATTACH - RETRY_ATTACH_ASKED).await;
                    continue;
                }
            };
            let began = Instant::now();
            let end = self.ship(engine, &chain, turn).await;
            self.syncs.start_over();
            if began.elapsed() > AGAIN.1 {
                backoff = AGAIN.0;
            }
            if let Err(failure) = self.after(end, chain, backoff).await {
                error!("{failure:#}");
                self.status.engine_failed(&format!("{failure:#}"));
            }
            backoff = (backoff * 2).min(AGAIN.1);
        }
    }

    /// Waits for a turn to read the whole database; `None` where the program stops first.
    async fn turn(
        &mut self,
        settled: &mut Option<oneshot::Sender<()>>,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Some(turn);
        }
        if let Some(settled) = settled.take() {
            // Its turn will come: nobody need wait for that.
            let _ = settled.send(());
        }
        tokio::select! {
            turn = self.turns.clone().acquire_owned() => turn.ok(),
            _ = self.stop.wait_for(|stop| *stop) => None,
        }
    }

    /// Does what the end asks for, and waits until it is time to attach again.
    async fn after(
        &mut self,
        end: End,
        chain: Arc<LocalChain>,
        pause: Duration,
    ) -> anyhow::Result<()> {
        // Work on the chain that is still under way ends first.
        let chain = self.sole(chain).await;
        match end {
            End::Stopped => {
                blocking(move || chain.force()).await??;
                return Ok(());
            }
            End::Again(reason) => {
                warn!("{reason}\nwhat differs is caught up in {pause:?}");
                self.status.engine_failed(&reason);
            }
            End::Stale(reason) => {
                warn!("{reason}\nreading back what this machine has forgotten");
                if let Err(error) = self.read_back(&chain).await {
                    self.status.engine_failed(&format!("{error:#}"));
                    error!("read back from the bucket: {error:#}");
                }
            }
            End::NewGeneration(reason) => {
                error!("{reason}\na new generation begins in {pause:?}");
                self.status.engine_failed(&reason);
                drop(chain);
                let directory = self.state.clone();
                blocking(move || LocalChain::discard(&directory)).await??;
            }
            End::GiveUp(reason) => {
                error!(
                    "{reason}\ncatch-up needed: what waits for the bucket is given up, and read from the database when the bucket takes files again"
                );
                self.status.engine_failed(&format!("catch-up needed: {reason}"));
                blocking(move || chain.drop_spool(false)).await??;
                self.until_reachable().await;
            }
        }
        self.pause(pause).await;
        Ok(())
    }

    /// Waits until nothing works on the chain any more.
    async fn sole(&self, chain: Arc<LocalChain>) -> Arc<LocalChain> {
        while Arc::strong_count(&chain) > 1 {
            tokio::time::sleep(FINAL_LOOK).await;
        }
        chain
    }

    /// Waits until the store takes a document, or the program stops.
    async fn until_reachable(&mut self) {
        while !*self.stop.borrow() && self.pulse().write().await.is_none() {
            self.pause(RETRY_ATTACH).await;
        }
    }

    async fn attach(&self) -> anyhow::Result<Attached> {
        let path = self.path();
        let (at, claims, name) = (path.clone(), self.claims.clone(), self.config.name.clone());
        let (claim, attachable) = blocking(move || {
            let claim = claims.claim(&at, &name)?;
            anyhow::Ok((claim, attach::check(&at)?))
        })
        .await??;
        if let Some(warning) = attachable.warning() {
            warn!("{}: {warning}", path.display());
        }
        let chain = self.open_chain(attachable.page_size).await?;
        let pace = Pace::new(self.config.sync_interval);
        let clock = self.clock.clone();
        let shared = chain.clone();
        let attached = blocking(move || {
            Engine::attach(&path, attachable, pace, shared, clock)
                .with_context(|| format!("attach {}", path.display()))
        })
        .await?;
        Ok(Attached { engine: attached?, chain, _claim: claim })
    }

    /// Opens the chain, and reads back from the bucket what a crash took from it.
    async fn open_chain(&self, page_size: PageSize) -> anyhow::Result<Arc<LocalChain>> {
        let open = Open {
            page_size,
            node_id: node_id(),
            spool_limit: self.spool_limit(),
            disk: Arc::new(SystemDisk),
        };
        let (directory, again) = (self.state.clone(), open.clone());
        let chain = Arc::new(blocking(move || LocalChain::open(&directory, open)).await??);
        if !chain.is_torn() {
            return Ok(chain);
        }
        warn!("the page index does not prove itself: reading back from the bucket what it lacks");
        match self.read_back(&chain).await {
            Ok(()) => return Ok(chain),
            Err(RollForwardError::Ended(why)) => {
                error!("a new generation begins: {why}");
            }
            Err(error) => return Err(error).context("read back from the bucket"),
        }
        drop(self.sole(chain).await);
        let directory = self.state.clone();
        let chain = blocking(move || {
            LocalChain::discard(&directory)?;
            LocalChain::open(&directory, again)
        });
        Ok(Arc::new(chain.await??))
    }

    async fn read_back(&self, chain: &Arc<LocalChain>) -> Result<(), RollForwardError> {
        let read = roll_forward(chain, self.store.as_ref()).await;
        if let Err(RollForwardError::Ended(_)) = read {
            let directory = self.state.clone();
            blocking(move || LocalChain::discard(&directory))
                .await
                .flatten()
                .map_err(RollForwardError::Local)?;
        }
        read.map(|_| ())
    }

    /// Bytes that may wait for the bucket: about twice the database, and never less than [`SPOOL_LEAST`].
    fn spool_limit(&self) -> u64 {
        let database = std::fs::metadata(self.path()).map_or(0, |file| file.len());
        SPOOL_LEAST.max(database.saturating_mul(2))
    }

    fn pulse(&self) -> Pulse {
        Pulse {
            store: self.store.clone(),
            status: self.status.clone(),
            config: self.heartbeat,
            clock: self.clock.clone(),
            host: self.host.clone(),
        }
    }

    /// Ships until something ends it.
    async fn ship(
        &mut self,
        engine: Engine,
        chain: &Arc<LocalChain>,
        turn: OwnedSemaphorePermit,
    ) -> End {
        let status = self.status.clone();
        let phase = match engine.sweeping() {
            Some(Goal::Snapshot) => Phase::Snapshotting,
            Some(Goal::CatchUp) => Phase::CatchingUp,
            None => Phase::Shipping,
        };
        info!(page_size = %engine.page_size(), ?phase, "attached");
        status.attached(engine.page_size(), phase, chain);
        let (hurry, hurried) = watch::channel(false);
        let uploader = Uploader::new(
            self.store.clone(),
            chain.clone(),
            status.clone(),
            self.config.sync_interval,
            self.clock.clone(),
            hurried,
        );
        let notice = self.notice();
        let mut uploads = Task(tokio::spawn(in_span(uploader.run())));
        let pulse = self.pulse();
        let heartbeats = Task(tokio::spawn(in_span(async move { pulse.run().await })));
        let mut driver = Driver {
            engine: Some(engine),
            chain: chain.clone(),
            status,
            clock: self.clock.clone(),
            locks: LockReport::default(),
            turn: Some(turn),
        };
        let end = self.drive(&mut driver, notice.as_ref(), &hurry, &mut uploads).await;
        drop(heartbeats);
        let LockReport { taken, longest } = driver.locks;
        info!(taken, ?longest, "write locks held");
        if let End::Stopped = end {
            // A receiver that is gone has nothing left to hurry.
            let _ = hurry.send(true);
            let synced = tokio::time::timeout(FINAL_SYNC, driver.finish(&mut uploads));
            match synced.await {
                Ok(true) => {
                    info!("stopped, everything is in the bucket");
                    self.syncs.captured(0);
                    self.syncs.durable(u64::MAX);
                }
                Ok(false) | Err(_) => {
                    let (files, bytes) = chain.backlog();
                    error!(files, bytes, "stopped before everything was in the bucket");
                }
            }
            let pulse = self.pulse();
            let written = tokio::time::timeout(Duration::from_secs(2), pulse.write());
            if written.await.is_err() {
                warn!("write the last heartbeat: out of time");
            }
        }
        end
    }

    /// Steps the engine until something ends it.
    async fn drive(
        &mut self,
        driver: &mut Driver,
        notice: Option<&Notice>,
        hurry: &watch::Sender<bool>,
        uploads: &mut Task<Ended>,
    ) -> End {
        let mut failing_since: Option<Instant> = None;
        let mut relook = Relook::default();
        loop {
            let to_the_end = self.syncs.want_capture();
            let step = driver.step(to_the_end).await;
            if let (true, Ok(Step { complete_until: Some(_), captured, .. })) = (to_the_end, &step)
            {
                self.syncs.captured(*captured);
            }
            if let Some(durable) = driver.status.durable_capture() {
                self.syncs.durable(durable);
            }
            hurry.send_replace(self.syncs.in_a_hurry());
            let (next, notice) = match step {
                Ok(step) => {
                    failing_since = None;
                    let often = if notice.is_none() { self.config.sync_interval } else { POLL };
                    (step.next.min(often).min(relook.pause(step.seen)), notice)
                }
                Err(error) if error.is::<Discontinuity>() => {
                    return End::Again(format!("{error:#}"));
                }
                Err(error) if error.is::<SpoolFull>() => {
                    match make_room(driver.chain.clone()).await {
                        Ok(()) => (Duration::ZERO, None),
                        Err(still) => return End::GiveUp(format!("{still:#}")),
                    }
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    // What cannot be captured keeps the application's WAL from being reused.
                    let wal = std::fs::metadata(wal_path(&self.path()));
                    let bytes = wal.map_or(0, |file| file.len());
                    if since.elapsed() > FAILING_LONGEST || bytes > FAILING_MOST {
                        return End::GiveUp(format!("{error:#}"));
                    }
                    // A busy writer's notices must not turn the pause into a hot loop.
                    (RETRY_STEP, None)
                }
            };
            let changed = async {
                match notice {
                    Some(notice) => notice.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => relook.noticed(),
                () = tokio::time::sleep(next) => {}
                () = self.syncs.arrived() => {}
                () = driver.status.moved() => {}
                _ = self.stop.wait_for(|stop| *stop) => return End::Stopped,
                ended = &mut uploads.0 => return match ended {
                    Ok(ended @ Ended::OtherWriter(_)) => {
                        End::NewGeneration(format!("{:#}", anyhow::Error::new(ended)))
                    }
                    Ok(ended @ Ended::Stale(_)) => End::Stale(format!("{ended}")),
                    Ok(ended @ Ended::Local(_)) => End::Again(format!("{ended}")),
                    Err(panic) => End::Again(format!("upload task: {panic}")),
                },
            }
        }
    }

    /// The database itself: SQLite keeps `-wal` and `-shm` beside the file that a link leads to.
    fn path(&self) -> PathBuf {
        std::fs::canonicalize(&self.config.path).unwrap_or_else(|_| self.config.path.clone())
    }

    fn notice(&self) -> Option<Notice> {
        let watched = self.watch.as_ref()?.file(&wal_path(&self.path()));
        watched
            .inspect_err(|error| {
                warn!(
                    %error,
                    "no notices of changes, looking once per sync interval instead\n\
                     HINT: raise fs.inotify.max_user_watches"
                );
            })
            .ok()
    }

    /// Pauses, at most until somebody asks for a sync.
    async fn pause_until_asked(&mut self, pause: Duration) {
        let asked = async {
            while !self.syncs.in_a_hurry() {
                self.syncs.arrived().await;
            }
        };
        tokio::select! {
            () = asked => {}
            () = tokio::time::sleep(pause) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn pause(&mut self, pause: Duration) {
        // Either way the loop looks at `stop` next.
        let _ = tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await;
    }
}

/// When to look again after a notice that nothing was found for: the WAL's bytes change (and are noticed) before the
/// commit is published, and that is not noticed at all.
#[derive(Debug, Default)]
struct Relook {
    seen: Option<Position>,
    pause: Option<Duration>,
}

impl Relook {
    fn noticed(&mut self) {
        self.pause = Some(RELOOK.0);
    }

    /// How long the next look may wait, after one that saw the WAL end at `seen`.
    fn pause(&mut self, seen: Position) -> Duration {
        if self.seen.replace(seen) != Some(seen) {
            self.pause = None;
        }
        let pause = self.pause.unwrap_or(POLL);
        self.pause = self.pause.map(|pause| pause * 2).filter(|pause| *pause <= RELOOK.1);
        pause
    }
}

/// The engine, on its way to a blocking thread and back.
struct Driver {
    engine: Option<Engine>,
    chain: Arc<LocalChain>,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
    locks: LockReport,
    turn: Option<OwnedSemaphorePermit>,
}

impl Driver {
    async fn step(&mut self, to_the_end: bool) -> anyhow::Result<Step> {
        let mut engine = self.engine.take().context("the engine was lost in an earlier step")?;
        let (engine, step) = blocking(move || {
            let step = engine.step(to_the_end);
            (engine, step)
        })
        .await
        .map_err(|error| Discontinuity(format!("{error:#}")))?;
        self.engine = Some(engine);
        self.status.spooled(self.chain.backlog());
        if !matches!(&step, Ok(Step { sweeping: Some(_), .. })) {
            // What was read is in the spool, or stuck: somebody else's turn.
            self.turn = None;
        }
        match &step {
            Ok(step) => {
                self.locks = step.locks;
                self.status.stepped(step, self.clock.now());
            }
            Err(failure) => {
                let text = format!("{failure:#}");
                let news = self.status.engine_failed(&text);
                // The end of a generation is told by the one who begins the next.
                if news && !failure.is::<Discontinuity>() {
                    error!("{text}");
                }
            }
        }
        step
    }

    /// Captures everything that is committed, and waits until it is in the bucket; `false` where it is not.
    async fn finish(&mut self, uploads: &mut Task<Ended>) -> bool {
        loop {
            match self.step(true).await {
                Ok(step) if step.complete_until.is_some() => break,
                Ok(_) => {}
                Err(error) if error.is::<Discontinuity>() => return false,
                Err(_) => tokio::time::sleep(FINAL_LOOK).await,
            }
        }
        let deadline = Instant::now() + FINAL_SYNC;
        while self.chain.backlog().0 > 0 && !uploads.0.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(FINAL_LOOK).await;
        }
        self.chain.backlog().0 == 0
    }
}

/// Merges everything that waits; an error where that is still too much.
async fn make_room(chain: Arc<LocalChain>) -> anyhow::Result<()> {
    blocking(move || {
        chain.compact(true)?;
        Ok(chain.check_room()?)
    })
    .await?
}

/// A number that no other run has: files that this run uploads bear it.
fn node_id() -> u64 {
    let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
    (high ^ low).max(1)
}

/// A task that ends with its owner.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn in_span<F: Future>(future: F) -> tracing::instrument::Instrumented<F> {
    tracing::Instrument::instrument(future, tracing::Span::current())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.context("blocking step")
}
