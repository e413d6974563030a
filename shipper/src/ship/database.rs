//! One database's life: attach, ship a generation, and when that cannot go on, another one.
//!
//! A database that cannot be attached is reported and tried again; it never stops the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{DatabaseConfig, HeartbeatConfig};
use crate::ship::capture::Discontinuity;
use crate::ship::claims::{Claim, Claims};
use crate::ship::engine::{Engine, Pace, Step};
use crate::ship::heartbeat::Pulse;
use crate::ship::notify::{Notice, Watch};
use crate::ship::spool::Spool;
use crate::ship::status::{Phase, Status};
use crate::ship::sync::Syncs;
use crate::ship::upload::{Ended, Uploader};
use crate::wal::{attach, checkpoint::LockReport, reader::wal_path};

/// Pause before a database that could not be attached is tried again.
const RETRY_ATTACH: Duration = Duration::from_secs(15);
/// Shortest such pause, where somebody asks for the database meanwhile.
const RETRY_ATTACH_ASKED: Duration = Duration::from_secs(1);
/// Pause after a step that failed.
const RETRY_STEP: Duration = Duration::from_secs(1);
/// First and longest pause before a new generation: each costs a whole snapshot.
const NEW_GENERATION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
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
    /// Its directory for captured files.
    pub spool: PathBuf,
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

/// Why a generation ended.
enum End {
    Stopped,
    Discontinuity(String),
}

impl Database {
    /// Ships until told to stop. `settled` is told when the database is attached, or known not to be.
    pub async fn run(mut self, settled: oneshot::Sender<()>) {
        let mut settled = Some(settled);
        let mut pause_after_end = NEW_GENERATION.0;
        while !*self.stop.borrow() {
            let Some(turn) = self.turn(&mut settled).await else { return };
            let attached = self.attach().await;
            if let Some(settled) = settled.take() {
                // Nobody waits any more if the program is stopping.
                let _ = settled.send(());
            }
            match attached {
                Ok((engine, spool, _claim)) => {
                    let began = Instant::now();
                    let End::Discontinuity(reason) = self.ship(engine, spool, turn).await else {
                        return;
                    };
                    if began.elapsed() > NEW_GENERATION.1 {
                        pause_after_end = NEW_GENERATION.0;
                    }
                    let pause = pause_after_end;
                    pause_after_end = (pause * 2).min(NEW_GENERATION.1);
                    error!("{reason}\na new generation begins in {pause:?}");
                    self.status.engine_failed(&reason);
                    self.syncs.start_over();
                    self.pause(pause).await;
                }
                Err(refusal) => {
                    drop(turn);
                    let reason = format!("{refusal:#}");
                    if self.status.not_attached(&reason) {
                        error!("not attached: {reason}");
                    }
                    self.syncs.refuse(&reason);
                    self.pause(RETRY_ATTACH_ASKED).await;
                    self.pause_until_asked(RETRY_ATTACH - RETRY_ATTACH_ASKED).await;
                }
            }
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

    async fn attach(&self) -> anyhow::Result<(Engine, Arc<Spool>, Option<Claim>)> {
        let sync_interval = self.config.sync_interval;
        let (spool, clock) = (self.spool.clone(), self.clock.clone());
        let path = self.path();
        let (claims, name) = (self.claims.clone(), self.config.name.clone());
        blocking(move || {
            let claim = claims.claim(&path, &name)?;
            let attachable = attach::check(&path)?;
            if let Some(warning) = attachable.warning() {
                warn!("{}: {warning}", path.display());
            }
            let spool = Arc::new(Spool::create(&spool)?);
            let engine =
                Engine::attach(&path, attachable, Pace::new(sync_interval), spool.clone(), clock)
                    .with_context(|| format!("attach {}", path.display()))?;
            Ok((engine, spool, claim))
        })
        .await?
    }

    /// Ships one generation.
    async fn ship(&mut self, engine: Engine, spool: Arc<Spool>, turn: OwnedSemaphorePermit) -> End {
        let status = self.status.clone();
        status.attached(engine.page_size(), Phase::Snapshotting);
        let (hurry, hurried) = watch::channel(false);
        let uploader = Uploader {
            store: self.store.clone(),
            spool: spool.clone(),
            status: status.clone(),
            interval: self.config.sync_interval,
            clock: self.clock.clone(),
            hurry: hurried,
        };
        let pulse = Pulse {
            store: self.store.clone(),
            status: status.clone(),
            config: self.heartbeat,
            clock: self.clock.clone(),
            host: self.host.clone(),
        };
        let notice = self.notice();
        info!(page_size = %engine.page_size(), "attached");
        let mut uploads = Task(tokio::spawn(in_span(uploader.run())));
        let heartbeats = pulse.clone();
        let heartbeats = Task(tokio::spawn(in_span(async move { heartbeats.run().await })));
        let mut driver = Driver {
            engine: Some(engine),
            spool: spool.clone(),
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
            let synced = tokio::time::timeout(FINAL_SYNC, driver.finish(&spool, &mut uploads));
            match synced.await {
                Ok(true) => {
                    info!("stopped, everything is in the bucket");
                    self.syncs.captured(0);
                    self.syncs.durable(u64::MAX);
                }
                Ok(false) | Err(_) => {
                    let (files, bytes) = spool.backlog();
                    error!(files, bytes, "stopped before everything was in the bucket");
                }
            }
            let written = tokio::time::timeout(Duration::from_secs(2), pulse.write());
            if written.await.is_err() {
                warn!("write the last heartbeat: out of time");
            }
        }
        end
    }

    /// Steps the engine until something ends the generation.
    async fn drive(
        &mut self,
        driver: &mut Driver,
        notice: Option<&Notice>,
        hurry: &watch::Sender<bool>,
        uploads: &mut Task<Ended>,
    ) -> End {
        loop {
            let to_the_end = self.syncs.want_capture();
            let step = driver.step(to_the_end).await;
            if let (true, Ok(Step { complete_until: Some(_), captured: Some(captured), .. })) =
                (to_the_end, &step)
            {
                self.syncs.captured(captured.get());
            }
            if let Some(durable) = driver.status.durable() {
                self.syncs.durable(durable.get());
            }
            hurry.send_replace(self.syncs.in_a_hurry());
            let (next, notice) = match step {
                Ok(step) if notice.is_none() => (step.next.min(self.config.sync_interval), None),
                Ok(step) => (step.next, notice),
                Err(error) if error.is::<Discontinuity>() => {
                    return End::Discontinuity(format!("{error:#}"));
                }
                // A busy writer's notices must not turn the pause into a hot loop.
                Err(_) => (RETRY_STEP, None),
            };
            let changed = async {
                match notice {
                    Some(notice) => notice.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(next) => {}
                () = self.syncs.arrived() => {}
                () = driver.status.moved() => {}
                _ = self.stop.wait_for(|stop| *stop) => return End::Stopped,
                ended = &mut uploads.0 => return End::Discontinuity(match ended {
                    Ok(other) => format!("{:#}", anyhow::Error::new(other)),
                    Err(panic) => format!("upload task: {panic}"),
                }),
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

/// The engine, on its way to a blocking thread and back.
struct Driver {
    engine: Option<Engine>,
    spool: Arc<Spool>,
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
        self.status.spooled(self.spool.backlog());
        if !matches!(&step, Ok(Step { snapshotting: true, .. })) {
            // The snapshot is in the spool, or stuck: somebody else's turn.
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
    async fn finish(&mut self, spool: &Spool, uploads: &mut Task<Ended>) -> bool {
        loop {
            match self.step(true).await {
                Ok(step) if !step.snapshotting && step.complete_until.is_some() => break,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(FINAL_LOOK).await,
            }
        }
        let deadline = Instant::now() + FINAL_SYNC;
        while spool.backlog().0 > 0 && !uploads.0.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(FINAL_LOOK).await;
        }
        spool.backlog().0 == 0
    }
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
