//! All databases of the process: begun when they appear, ended when they are gone for good, each a task of its own.
//!
//! *Invariants*: what happens to one database touches no other; a task that panics is begun anew after a pause. At the
//! end every task is told to stop at once, and waited for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::store::{Root, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use crate::clock::Clock;
use crate::config::{DatabaseConfig, HeartbeatConfig, Match, Patterns};
use crate::ship::bounded::{Moderated, Moderation};
use crate::ship::claims::Claims;
use crate::ship::database::{Database, FINAL_SYNC};
use crate::ship::limits;
use crate::ship::names;
use crate::ship::notify::Watch;
use crate::ship::registry::{Entry, Registry};
use crate::ship::roster::{Change, Roster};
use crate::ship::status::Status;
use crate::ship::sync::{self, Syncs};
use crate::ship::turns::Turns;
use crate::threads::blocking;
use crate::wal::openers::LeftBehind;

/// How long that may keep anybody waiting.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// How often globs are expanded anew.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause before a database whose task panicked is begun anew.
const AFTER_PANIC: Duration = Duration::from_secs(60);
/// How long the final syncs and the last heartbeats may take together, whatever hangs.
const STOPPED_WITHIN: Duration = FINAL_SYNC.saturating_add(Duration::from_secs(3));

/// What every database is begun with.
#[derive(Debug)]
pub struct Common {
    /// The parent of their places in the bucket.
    pub root: Root,
    /// Below it each has a directory of its own.
    pub state_dir: PathBuf,
    /// How often heartbeats are written.
    pub heartbeat: HeartbeatConfig,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// This machine's name.
    pub host: Arc<str>,
    /// For notices of changes; none where the system has no more.
    pub watch: Option<Watch>,
    /// How many files may be open.
    pub files: u64,
}

/// A look under way.
type Looking = JoinHandle<anyhow::Result<Vec<Match>>>;

/// The databases.
#[derive(Debug)]
pub struct Fleet {
    common: Common,
    patterns: Patterns,
    roster: Roster,
    registry: Arc<Registry>,
    looks: mpsc::Receiver<oneshot::Sender<()>>,
    /// A look that has not come back yet.
    looking: Option<Looking>,
    claims: Arc<Claims>,
    turns: Turns,
    moderation: Arc<Moderation>,
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
    stops: HashMap<String, watch::Sender<bool>>,
    begin_anew: Option<Instant>,
    panicked: Option<JoinError>,
    told_of_files: bool,
}

impl Fleet {
    /// No database yet. Blocking: reads what an earlier run left of their names.
    #[must_use]
    pub fn new(common: Common, patterns: Patterns) -> Self {
        let known = names::read(&common.state_dir);
        // One look at a time; whoever else asks waits for the next.
        let (look, looks) = mpsc::channel(1);
        Self {
            common,
            patterns,
            roster: Roster::new(known),
            registry: Arc::new(Registry::new(look)),
            looks,
            looking: None,
            claims: Arc::new(Claims::default()),
            turns: Turns::default(),
            moderation: Arc::new(Moderation::default()),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            stops: HashMap::new(),
            begin_anew: None,
            panicked: None,
            told_of_files: false,
        }
    }

    /// For those who ask about the databases.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// Begins what is there now. Each of what is returned is told when a database that was begun is attached, or known not
    /// to be.
    ///
    /// # Errors
    /// A panic while looking.
    pub async fn look(&mut self) -> anyhow::Result<Vec<oneshot::Receiver<()>>> {
        let Some(found) = self.found().await? else { return Ok(Vec::new()) };
        let mut settled = Vec::new();
        for change in self.roster.update(&found, std::time::Instant::now()) {
            match change {
                Change::Begin(database) => match self.begin(&database) {
                    Ok(told) => settled.push(told),
                    // The configuration refuses every such name first.
                    Err(refusal) => {
                        error!("{}: not shipped: {refusal}", database.path.display());
                    }
                },
                Change::Refuse(path, reason) => {
                    error!("{}: not shipped: {reason}", path.display());
                }
                Change::Gone(name) => {
                    warn!(db = %name, "no file matches any more; it is waited for");
                }
                Change::End(name) => self.end(&name),
            }
        }
        self.registry.set_refused(self.roster.refused().clone());
        if !settled.is_empty() {
            self.keep_names().await;
        }
        let shortage = limits::shortage(self.names.len(), self.common.files);
        if let Some(shortage) = shortage.filter(|_| !self.told_of_files) {
            self.told_of_files = true;
            error!("{shortage}");
        }
        Ok(settled)
    }

    /// What is asked for now; `None` while a directory that a glob names hangs, but for a start, where what is named by its
    /// own path is known all the same.
    async fn found(&mut self) -> anyhow::Result<Option<Vec<Match>>> {
        let within = if self.looking.is_some() { Duration::ZERO } else { LOOK_WITHIN };
        let patterns = self.patterns.clone();
        let looking =
            self.looking.get_or_insert_with(|| tokio::spawn(blocking(move || patterns.look())));
        if let Ok(found) = tokio::time::timeout(within, looking).await {
            self.looking = None;
            return found.context("look for databases")?.map(Some);
        }
        if !within.is_zero() {
            error!(
                "looking for databases takes longer than {LOOK_WITHIN:?}: new ones are not found meanwhile\n\
                 HINT: see whether a directory in a [[database]] path hangs (a dead mount)"
            );
        }
        Ok(self.stops.is_empty().then(|| self.patterns.literal()))
    }

    async fn keep_names(&self) {
        let (directory, known) = (self.common.state_dir.clone(), self.roster.known().clone());
        let kept = blocking(move || names::write(&directory, &known)).await.flatten();
        if let Err(failure) = kept {
            warn!("{failure:#}");
        }
    }

    /// Begins and ends databases as they come and go, for as long as it is polled.
    pub async fn follow(&mut self) {
        let mut next = Instant::now() + LOOK_EVERY;
        loop {
            let due = match self.begin_anew {
                Some(at) if self.patterns.has_globs() => at.min(next),
                Some(at) => at,
                None => next,
            };
            let idle = !self.patterns.has_globs() && self.begin_anew.is_none();
            let mut asked = None;
            tokio::select! {
                () = tokio::time::sleep_until(due), if !idle => {}
                Some(done) = self.looks.recv() => asked = Some(done),
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(ended);
                    continue;
                }
            }
            if self.begin_anew.is_some_and(|at| at <= Instant::now()) {
                self.begin_anew = None;
            }
            if let Err(failure) = self.look().await {
                error!("{failure:#}");
            }
            next = Instant::now() + LOOK_EVERY;
            if let Some(done) = asked {
                // Who asked may have given up.
                let _ = done.send(());
            }
        }
    }

    /// Tells every database to stop, and waits for the last, but not for one that hangs.
    ///
    /// # Errors
    /// One of them panicked, now or before.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for stop in self.stops.values() {
            stop.send_replace(true);
        }
        let by = Instant::now() + STOPPED_WITHIN;
        // One that panicked must not cut the others' final sync short.
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(by, self.tasks.join_next_with_id()).await
        {
            self.ended(ended);
        }
        for name in self.names.values() {
            error!(db = %name, "stopped before everything was in the bucket: a step or a call of the store hangs");
        }
        match self.panicked {
            Some(panic) => Err(panic).context("ship a database"),
            None => Ok(()),
        }
    }

    fn begin(&mut self, config: &DatabaseConfig) -> Result<oneshot::Receiver<()>, StoreError> {
        let name = config.name.clone();
        let mut store = self.common.root.database(&name)?;
        // One that hangs must not keep a permit that others need.
        if !self.common.root.is_directory() {
            store = Arc::new(Moderated::new(store, self.moderation.clone()));
        }
        let status = Arc::new(Status::new());
        let (syncs, requests) = mpsc::channel(sync::MOST_WAITING);
        let (stop, stopped) = watch::channel(false);
        let entry =
            Entry { config: config.clone(), status: status.clone(), syncs, store: store.clone() };
        self.registry.insert(entry);
        let database = Database {
            state: self.common.state_dir.join("db").join(&name),
            config: config.clone(),
            store,
            heartbeat: self.common.heartbeat,
            clock: self.common.clock.clone(),
            host: self.common.host.clone(),
            watch: self.common.watch.clone(),
            status,
            syncs: Syncs::new(requests),
            claims: self.claims.clone(),
            turns: self.turns.clone(),
            read_back: false,
            doubt: false,
            stop: stopped,
            left: LeftBehind::default(),
            stopped_by: None,
        };
        let (tell, told) = oneshot::channel();
        let span = info_span!("ship", db = %name);
        let task = self.tasks.spawn(database.run(tell).instrument(span));
        self.names.insert(task.id(), name.clone());
        self.stops.insert(name, stop);
        Ok(told)
    }

    fn end(&mut self, name: &str) {
        warn!(db = %name, "gone for long: not waited for any more");
        self.registry.remove(name);
        if let Some(stop) = self.stops.remove(name) {
            stop.send_replace(true);
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(panic) => panic.id(),
        };
        let Some(name) = self.names.remove(&id) else { return };
        match ended {
            Ok(_) => info!(db = %name, "ended"),
            Err(panic) => {
                error!(db = %name, "{panic}\nit begins anew in {AFTER_PANIC:?}");
                if let Some(entry) = self.registry.entry(&name) {
                    entry.status.not_attached(&format!("its task ended: {panic}"));
                }
                self.panicked = Some(panic);
                self.stops.remove(&name);
                self.roster.forget(&name);
                self.begin_anew.get_or_insert(Instant::now() + AFTER_PANIC);
            }
        }
    }
}
