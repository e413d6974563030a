//! One database's life: attach, ship, and when that cannot go on, attach again: its chain is opened anew, and goes on,
//! catches up or ends in favour of a new generation.
//!
//! A database that cannot be attached is reported and tried again; it never stops the others.

mod attached;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::format::PageSize;
use replica::store::Store;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::chain::disk::SystemDisk;
use crate::chain::open::Open;
use crate::chain::roll_forward::{RollForwardError, roll_forward};
use crate::chain::{LocalChain, SpoolFull};
use crate::clock::Clock;
use crate::config::{DatabaseConfig, HeartbeatConfig};
use crate::ship::claims::{Claim, Claims};
use crate::ship::database::attached::make_room;
use crate::ship::engine::{Engine, Pace, hint};
use crate::ship::heartbeat::Pulse;
use crate::ship::notify::Watch;
use crate::ship::seen;
use crate::ship::status::{Phase, Status};
use crate::ship::sync::Syncs;
use crate::ship::turns::{Turn, Turns};
use crate::ship::upload::{Attempt, Ended, Uploader};
use crate::threads::blocking;
use crate::wal::attach;
use crate::wal::files::FileId;
use crate::wal::openers::LeftBehind;

/// Pause before a database that could not be attached is tried again.
const RETRY_ATTACH: Duration = Duration::from_secs(15);
/// Shortest such pause, where somebody asks for the database meanwhile.
const RETRY_ATTACH_ASKED: Duration = Duration::from_secs(1);
/// First and longest pause before a chain that could not go on is opened anew: it may cost reading the whole database.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// Bytes that may always wait for the bucket.
const SPOOL_LEAST: u64 = 1 << 30;
/// How often the final sync looks whether the spool is empty.
const FINAL_LOOK: Duration = Duration::from_millis(20);
/// Work on a database's files that has taken so long is told to hang, and gives up its turn.
const HANGS: Duration = Duration::from_secs(30);
/// How long the final sync may take, attaching anew included; systemd is told to wait 20 s.
pub(super) const FINAL_SYNC: Duration = Duration::from_secs(15);

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
    /// Turns to read a whole database.
    pub turns: Turns,
    /// Whether this process has read back all that the bucket had of earlier ones.
    pub read_back: bool,
    /// Whether the last attachment ended in doubt about what it had captured.
    pub doubt: bool,
    /// Files that it had before, which somebody may still commit into.
    pub left: LeftBehind,
    /// Becomes true when the program is to stop.
    pub stop: watch::Receiver<bool>,
    /// By when the final sync ends, once there is one.
    pub stopped_by: Option<Instant>,
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
    /// What is in the bucket cannot be restored: a new generation begins.
    Lost(String),
    /// What waits for the bucket is given up.
    GiveUp(String),
}

/// An attached database.
struct Attached {
    engine: Engine,
    chain: Arc<LocalChain>,
    /// Bytes of the database.
    size: u64,
    /// Nobody else ships this file meanwhile.
    _claim: Option<Claim>,
}

impl Database {
    /// Ships until told to stop. `settled` is told when the database is attached, or known not to be.
    pub async fn run(mut self, settled: oneshot::Sender<()>) {
        let mut settled = Some(settled);
        let mut backoff = AGAIN.0;
        while !self.is_out_of_time() {
            let attached = self.attach_in_turn(&mut settled).await;
            if let Some(settled) = settled.take() {
                // Nobody waits any more if the program is stopping.
                let _ = settled.send(());
            }
            let (Attached { engine, chain, _claim, .. }, turn) = match attached {
                Ok(Some(attached)) => attached,
                Ok(None) => return,
                Err(refusal) => {
                    let reason = format!("{refusal:#}{}", hint(&refusal));
                    if self.status.not_attached(&reason) {
                        error!("not attached: {reason}");
                    }
                    self.syncs.refuse(&reason);
                    if *self.stop.borrow() {
                        return;
                    }
                    self.pause(RETRY_ATTACH_ASKED).await;
                    self.pause_until_asked(RETRY_ATTACH - RETRY_ATTACH_ASKED).await;
                    continue;
                }
            };
            let began = Instant::now();
            let end = self.ship(engine, &chain, turn).await;
            let stopped = matches!(end, End::Stopped);
            self.syncs.start_over();
            if began.elapsed() > AGAIN.1 || *self.stop.borrow() {
                backoff = AGAIN.0;
            }
            if let Err(failure) = self.after(end, chain, backoff).await {
                error!("{failure:#}");
                self.status.engine_failed(&format!("{failure:#}"));
            }
            if stopped {
                return;
            }
            backoff = (backoff * 2).min(AGAIN.1);
        }
        error!("stopped before everything was in the bucket");
    }

    /// Whether the program stops and the final sync, attaching anew after a doubt included, has had its time.
    fn is_out_of_time(&mut self) -> bool {
        *self.stop.borrow() && self.final_sync_by() <= Instant::now()
    }

    /// By when the final sync, which begins now if it did not before, must end.
    fn final_sync_by(&mut self) -> Instant {
        *self.stopped_by.get_or_insert_with(|| Instant::now() + FINAL_SYNC)
    }

    /// Attaches; where the whole database must be read, in its turn. Until then nothing of it is held, so that its WAL
    /// does not grow for our sake. `None` where the program stops first.
    async fn attach_in_turn(
        &mut self,
        settled: &mut Option<oneshot::Sender<()>>,
    ) -> anyhow::Result<Option<(Attached, Option<Turn>)>> {
        let attached = self.attach(&mut None).await?;
        if attached.engine.sweeping().is_none() {
            return Ok(Some((attached, None)));
        }
        let size = attached.size;
        if let Some(turn) = self.turns.at_once(size) {
            return Ok(Some((attached, Some(turn))));
        }
        if let Some(settled) = settled.take() {
            // Its turn will come: nobody need wait for that.
            let _ = settled.send(());
        }
        let Attached { engine, _claim, .. } = attached;
        self.left = blocking(move || engine.leave()).await?;
        drop(_claim);
        let mut turn = tokio::select! {
            turn = self.turns.wait(size) => turn,
            _ = self.stop.wait_for(|stop| *stop) => return Ok(None),
        };
        let attached = self.attach(&mut turn).await?;
        Ok(Some((attached, turn)))
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
                self.doubt = true;
                warn!("{reason}\nwhat differs is caught up in {pause:?}");
                self.status.engine_failed(&reason);
            }
            // An earlier run is dead, so once everything of it was read back, more from it is from a clone that lives.
            End::Stale(reason) if self.read_back => {
                self.begin_anew(chain, &format!("another writer has this state: {reason}"), pause)
                    .await?;
            }
            End::Stale(reason) => {
                warn!("{reason}\nreading back what this machine has forgotten");
                if let Err(error) = self.read_chain_back(&chain).await {
                    self.status.engine_failed(&format!("{error:#}"));
                    error!("read back from the bucket: {error:#}");
                }
            }
            End::NewGeneration(reason) => self.begin_anew(chain, &reason, pause).await?,
            End::Lost(reason) => {
                self.status.lost(&reason);
                self.begin_anew(chain, &reason, pause).await?;
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

    /// Leaves the generation to whoever has it now: the next attachment begins another one.
    async fn begin_anew(
        &mut self,
        chain: Arc<LocalChain>,
        reason: &str,
        pause: Duration,
    ) -> anyhow::Result<()> {
        error!("{reason}\na new generation begins in {pause:?}");
        self.status.engine_failed(reason);
        drop(chain);
        let directory = self.state.clone();
        blocking(move || LocalChain::discard(&directory)).await?
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
        while !*self.stop.borrow() && !self.is_reachable().await {
            self.pause(RETRY_ATTACH).await;
        }
    }

    async fn is_reachable(&self) -> bool {
        if self.status.has_looked() {
            return self.pulse().write().await.is_some();
        }
        // The heartbeat that is there may be a later generation's: it is only read.
        seen::look(self.store.as_ref()).await.is_ok()
    }

    async fn attach(&mut self, turn: &mut Option<Turn>) -> anyhow::Result<Attached> {
        let status = self.status.clone();
        told_if_it_hangs(&status, turn, self.try_attach()).await
    }

    async fn try_attach(&mut self) -> anyhow::Result<Attached> {
        let path = self.config.path.clone();
        let (at, claims, name) = (path.clone(), self.claims.clone(), self.config.name.clone());
        let mut left = std::mem::take(&mut self.left);
        let (left, checked) = blocking(move || {
            let checked = claims
                .claim(&at, &name)
                .map_err(anyhow::Error::from)
                .and_then(|claim| {
                    let attachable = attach::check(&at)?;
                    let size = std::fs::metadata(&at).map_or(0, |file| file.len());
                    Ok((claim, attachable, size))
                })
                .map_err(|refusal| {
                    let now = std::fs::metadata(&at).ok().map(|file| FileId::from(&file));
                    match left.reason(now) {
                        Some(reason) => anyhow::anyhow!("{refusal:#}\n{reason}"),
                        None => refusal,
                    }
                });
            (left, checked)
        })
        .await?;
        self.left = left;
        let (claim, attachable, size) = checked?;
        if let Some(warning) = attachable.warning() {
            warn!("{}: {warning}", path.display());
        }
        let chain = self.open_chain(attachable.page_size, size).await?;
        if self.doubt {
            chain.doubt();
        }
        let pace = Pace::new(self.config.sync_interval);
        let clock = self.clock.clone();
        let shared = chain.clone();
        let mut left = std::mem::take(&mut self.left);
        let (left, attached) = blocking(move || {
            left.take_up(attachable.file);
            let attached = Engine::attach(&path, attachable, pace, shared, clock)
                .with_context(|| format!("attach {}", path.display()));
            (left, attached)
        })
        .await?;
        self.left = left;
        let mut engine = match attached {
            Err(error) if error.is::<SpoolFull>() => {
                if let Some(ended) = self.relieve(&chain).await? {
                    self.after(attached::why(Ok(ended)), chain, AGAIN.0).await?;
                }
                // There is room for the next try.
                return Err(error);
            }
            attached => attached?,
        };
        engine.remember(std::mem::take(&mut self.left));
        self.doubt = false;
        Ok(Attached { engine, chain, size, _claim: claim })
    }

    /// Uploads what waits where there is no room for what an attachment captures: nobody else does before it is attached.
    /// What ended the chain, where something did.
    async fn relieve(&self, chain: &Arc<LocalChain>) -> anyhow::Result<Option<Ended>> {
        if make_room(chain.clone()).await.is_ok() {
            return Ok(None);
        }
        self.status.attached(chain.page_size(), Phase::CatchingUp, chain);
        let (_hurry, hurried) = watch::channel(true);
        let mut uploader = Uploader::new(
            self.store.clone(),
            chain.clone(),
            self.status.clone(),
            self.config.sync_interval,
            self.clock.clone(),
            hurried,
        );
        loop {
            match uploader.attempt().await {
                Ok(Attempt::Uploaded(_)) => {}
                Ok(Attempt::Nothing) => return Ok(None),
                Ok(Attempt::Failed(error)) => {
                    return Err(error).context("the spool is full, and cannot be uploaded");
                }
                Err(ended) => return Ok(Some(ended)),
            }
        }
    }

    /// Opens the chain, and reads back from the bucket what a crash took from it.
    async fn open_chain(
        &mut self,
        page_size: PageSize,
        size: u64,
    ) -> anyhow::Result<Arc<LocalChain>> {
        let open = Open {
            page_size,
            node_id: node_id(),
            // About twice the database.
            spool_limit: SPOOL_LEAST.max(size.saturating_mul(2)),
            shared_disk: self.shares_disk().await?,
            disk: Arc::new(SystemDisk),
        };
        let (directory, again) = (self.state.clone(), open.clone());
        let chain = Arc::new(blocking(move || LocalChain::open(&directory, open)).await??);
        if !chain.is_torn() {
            return Ok(chain);
        }
        warn!("the page index does not prove itself: reading back from the bucket what it lacks");
        match self.read_chain_back(&chain).await {
            Ok(()) => return Ok(chain),
            Err(RollForwardError::Ended(why)) => {
                error!("a new generation begins: {why}");
            }
            Err(error) => return Err(error).context("read back from the bucket"),
        }
        // What was there is gone by now.
        drop(chain);
        let directory = self.state.clone();
        Ok(Arc::new(blocking(move || LocalChain::open(&directory, again)).await??))
    }

    async fn read_chain_back(&mut self, chain: &Arc<LocalChain>) -> Result<(), RollForwardError> {
        let read = roll_forward(chain, self.store.as_ref()).await;
        self.read_back |= read.is_ok();
        if let Err(RollForwardError::Ended(_)) = read {
            let directory = self.state.clone();
            blocking(move || LocalChain::discard(&directory))
                .await
                .flatten()
                .map_err(RollForwardError::Local)?;
        }
        read.map(|_| ())
    }

    /// Whether what waits is on the file system of the database; where it cannot be told, it is.
    async fn shares_disk(&self) -> anyhow::Result<bool> {
        let (state, database) = (self.state.clone(), self.config.path.clone());
        blocking(move || {
            let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
            let of = |path: &Path| path.ancestors().find_map(device);
            of(&state) == of(&database)
        })
        .await
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

    /// Pauses; a stop ends a pause that began before it.
    async fn pause(&mut self, pause: Duration) {
        if *self.stop.borrow() {
            tokio::time::sleep(pause).await;
        } else {
            // Either way the loop looks at `stop` next.
            let _ = tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await;
        }
    }
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

/// The database itself: SQLite keeps `-wal` and `-shm` beside the file that a link leads to. Blocking.
fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Waits for work on the database's files. Where it hangs, that is told, and the turn is somebody else's.
async fn told_if_it_hangs<T>(
    status: &Status,
    turn: &mut Option<Turn>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(HANGS, &mut work).await {
        return done;
    }
    *turn = None;
    let text = format!(
        "a step has taken longer than {HANGS:?}\n\
         HINT: see whether the file system of the database, or of state_dir, hangs (a dead mount, a failing disk)"
    );
    if status.engine_failed(&text) {
        warn!("{text}");
    }
    let done = work.await;
    warn!("the step that took long has ended");
    done
}
