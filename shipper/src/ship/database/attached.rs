//! A database while it is attached: its engine stepped, its files uploaded, its heartbeats written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::format::wal::Position;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::chain::reserve::is_out_of_room;
use crate::chain::{LocalChain, SpoolFull};
use crate::clock::Clock;
use crate::ship::capture::Discontinuity;
use crate::ship::database::{
    Database, End, FINAL_LOOK, Task, in_span, real_path, told_if_it_hangs,
};
use crate::ship::engine::{Engine, POLL, Step, hint};
use crate::ship::notify::Notice;
use crate::ship::status::{Phase, Status};
use crate::ship::sweep::Goal;
use crate::ship::turns::Turn;
use crate::ship::upload::{Ended, Uploader};
use crate::threads::blocking;
use crate::wal::{checkpoint::LockReport, reader::wal_path};

/// Pause after a step that failed.
const RETRY_STEP: Duration = Duration::from_secs(1);
/// First and longest pause before looking again after a notice that nothing was found for.
const RELOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));
/// How long steps may fail before the WAL is let go of.
const FAILING_LONGEST: Duration = Duration::from_secs(60);
/// How long a stop waits for its heartbeat.
const LAST_HEARTBEAT: Duration = Duration::from_secs(2);
/// How far the WAL may grow meanwhile, bytes.
const FAILING_MOST: u64 = 256 << 20;

impl Database {
    /// Ships until something ends it.
    pub(super) async fn ship(
        &mut self,
        engine: Engine,
        chain: &Arc<LocalChain>,
        turn: Option<Turn>,
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
        let notice = self.notice(engine.real_path().to_owned()).await;
        let mut uploads = Task(tokio::spawn(in_span(uploader.run())));
        let pulse = self.pulse();
        let heartbeats = Task(tokio::spawn(in_span(async move { pulse.run().await })));
        let mut driver = Driver {
            engine: Some(engine),
            chain: chain.clone(),
            status,
            clock: self.clock.clone(),
            locks: LockReport::default(),
            turn,
        };
        let mut end = self.drive(&mut driver, notice.as_ref(), &hurry, &mut uploads).await;
        drop(heartbeats);
        let LockReport { taken, longest } = driver.locks;
        info!(taken, ?longest, "write locks held");
        if let End::Stopped = end {
            // A receiver that is gone has nothing left to hurry.
            let _ = hurry.send(true);
            let by = self.final_sync_by();
            match tokio::time::timeout_at(by, driver.finish(&mut uploads)).await {
                Ok(Ok(())) => {
                    info!("stopped, everything is in the bucket");
                    self.close(&mut driver).await;
                    self.last_heartbeat().await;
                    self.syncs.captured(0);
                    self.syncs.durable(u64::MAX, Instant::now());
                }
                Ok(Err(again)) => end = again,
                Err(_) => {
                    let (files, bytes) = chain.backlog();
                    error!(files, bytes, "stopped before everything was in the bucket");
                    self.last_heartbeat().await;
                }
            }
        }
        if let Some(engine) = driver.engine.take() {
            let leaving = blocking(move || engine.leave());
            // Should this fail, then nobody is remembered to have an old file open.
            self.left =
                told_if_it_hangs(&self.status, &mut None, leaving).await.unwrap_or_default();
        }
        end
    }

    /// Says how it ended, where that can be said at once.
    async fn last_heartbeat(&self) {
        let pulse = self.pulse();
        if tokio::time::timeout(LAST_HEARTBEAT, pulse.write()).await.is_err() {
            warn!("write the last heartbeat: out of time");
        }
    }

    /// Leaves the database without a WAL, where nobody else has it open.
    async fn close(&mut self, driver: &mut Driver) {
        let Some(engine) = driver.engine.take() else { return };
        let closing = blocking(move || engine.close());
        match told_if_it_hangs(&self.status, &mut None, closing).await {
            Ok((left, noted)) => {
                self.left = left;
                if let Err(error) = noted {
                    // The next start compares every page.
                    warn!("close the database: {error:#}");
                }
            }
            Err(error) => warn!("close the database: {error:#}"),
        }
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
            if let Some(why) = driver.status.looks.take_reset() {
                return End::NewGeneration(format!("an operator asked for it: {why}"));
            }
            let to_the_end = self.syncs.want_capture();
            let step = driver.step(to_the_end).await;
            if let (true, Ok(Step { complete_until: Some(_), captured, .. })) = (to_the_end, &step)
            {
                self.syncs.captured(*captured);
            }
            if let Ok(Step { unvouched: Some(reason), .. }) = &step {
                self.syncs.not_vouched(reason);
            }
            let (durable, waits) = driver.status.acknowledged();
            if let (Some(durable), Some(found)) = (durable, driver.status.looks.found_at()) {
                self.syncs.durable(durable, found);
            }
            if let Some(newest) = self.syncs.newest() {
                driver.status.looks.want(newest);
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
                // What waits goes before the application's commits fail.
                Err(error) if is_out_of_room(&error) => {
                    return End::GiveUp(format!("{error:#}"));
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    // What cannot be captured keeps the application's WAL from being reused.
                    let bytes = self.wal_bytes().await;
                    if since.elapsed() > FAILING_LONGEST || bytes > FAILING_MOST {
                        return End::GiveUp(format!("{error:#}"));
                    }
                    // A busy writer's notices must not turn the pause into a hot loop.
                    (RETRY_STEP, None)
                }
            };
            let next = waits.map_or(next, |waits| waits.min(next));
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
                ended = &mut uploads.0 => return why(ended),
            }
        }
    }

    async fn wal_bytes(&self) -> u64 {
        let path = self.config.path.clone();
        let bytes = blocking(move || {
            std::fs::metadata(wal_path(&real_path(&path))).map_or(0, |file| file.len())
        });
        bytes.await.unwrap_or(0)
    }

    async fn notice(&self, database: PathBuf) -> Option<Notice> {
        let watch = self.watch.clone()?;
        let watched = blocking(move || watch.file(&wal_path(&database))).await.ok()?;
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
        // A WAL that was only restarted is about to get its first frame.
        if self.seen.replace(seen) != Some(seen) && seen.frame > 0 {
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
    turn: Option<Turn>,
}

impl Driver {
    async fn step(&mut self, to_the_end: bool) -> anyhow::Result<Step> {
        let mut engine = self.engine.take().context("the engine was lost in an earlier step")?;
        let stepped = blocking(move || {
            let step = engine.step(to_the_end);
            (engine, step)
        });
        let stepped = told_if_it_hangs(&self.status, &mut self.turn, stepped).await;
        let (engine, step) = stepped.map_err(|error| Discontinuity(format!("{error:#}")))?;
        self.engine = Some(engine);
        self.status.spooled(self.chain.backlog());
        if !matches!(&step, Ok(Step { sweeping: Some(_), .. })) {
            // What was read is in the spool, or stuck: somebody else's turn.
            self.turn = None;
        }
        match &step {
            Ok(step) => {
                self.locks = step.locks;
                if self.status.stepped(step, self.clock.now())
                    && let Some(reason) = &step.unvouched
                {
                    error!("{reason}");
                }
            }
            Err(failure) => {
                let text = format!("{failure:#}{}", hint(failure));
                let news = self.status.engine_failed(&text);
                // The end of a generation is told by the one who begins the next.
                if news && !failure.is::<Discontinuity>() {
                    error!("{text}");
                }
            }
        }
        step
    }

    /// Captures everything that is committed, and waits until it is in the bucket. An error where that cannot be without
    /// attaching anew.
    async fn finish(&mut self, uploads: &mut Task<Ended>) -> Result<(), End> {
        loop {
            match self.step(true).await {
                Ok(step) if step.complete_until.is_some() => break,
                Ok(_) => {}
                Err(error) if error.is::<Discontinuity>() => {
                    return Err(End::Again(format!("{error:#}")));
                }
                Err(_) => tokio::time::sleep(FINAL_LOOK).await,
            }
        }
        while self.chain.backlog().0 > 0 {
            tokio::select! {
                ended = &mut uploads.0 => return Err(why(ended)),
                () = tokio::time::sleep(FINAL_LOOK) => {}
            }
        }
        Ok(())
    }
}

/// Why a database whose uploads ended is not shipped any more.
pub(super) fn why(ended: Result<Ended, JoinError>) -> End {
    match ended {
        Ok(ended @ (Ended::OtherWriter(_) | Ended::Superseded { .. })) => {
            End::NewGeneration(format!("{:#}", anyhow::Error::new(ended)))
        }
        Ok(ended @ Ended::Lost(_)) => End::Lost(format!("{ended}")),
        Ok(ended @ Ended::Stale(_)) => End::Stale(format!("{ended}")),
        Ok(ended @ Ended::Full(_)) => End::GiveUp(format!("{ended}")),
        Ok(ended @ Ended::Local(_)) => End::Again(format!("{ended}")),
        Err(panic) => End::Again(format!("upload task: {panic}")),
    }
}

/// Merges everything that waits; an error where that is still too much.
pub(super) async fn make_room(chain: Arc<LocalChain>) -> anyhow::Result<()> {
    blocking(move || {
        chain.compact(true)?;
        Ok(chain.check_room()?)
    })
    .await?
}
