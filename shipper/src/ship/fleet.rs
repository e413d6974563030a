//! All databases of the process: begun when they appear, ended when they are gone for good, each a task of its own.
//!
//! *Invariants*: what happens to one database touches no other; a task that panics is begun anew after a pause. At the
//! end every task is told to stop at once, and waited for.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use replica::store::{Root, StoreError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use crate::clock::Clock;
use crate::config::{DatabaseConfig, HeartbeatConfig, Match, Patterns};
use crate::ship::bounded::{Moderated, Moderation};
use crate::ship::claims::Claims;
use crate::ship::database::Database;
use crate::ship::limits;
use crate::ship::notify::Watch;
use crate::ship::registry::{Entry, Registry};
use crate::ship::roster::{Change, Roster};
use crate::ship::status::Status;
use crate::ship::sync::{self, Syncs};
use crate::wal::openers::LeftBehind;

/// How often globs are expanded anew.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause before a database whose task panicked is begun anew.
const AFTER_PANIC: Duration = Duration::from_secs(60);
/// How many databases are read as a whole at once: leaves threads to the others.
const SNAPSHOTS_AT_ONCE: usize = 2;

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

/// The databases.
#[derive(Debug)]
pub struct Fleet {
    common: Common,
    patterns: Patterns,
    roster: Roster,
    registry: Arc<Registry>,
    looks: mpsc::Receiver<oneshot::Sender<()>>,
    claims: Arc<Claims>,
    turns: Arc<Semaphore>,
    moderation: Arc<Moderation>,
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
    stops: HashMap<String, watch::Sender<bool>>,
    begin_anew: Option<Instant>,
    panicked: Option<JoinError>,
    told_of_files: bool,
    /// Files whose name the store does not take.
    unnamed: BTreeMap<PathBuf, String>,
}

/// What came of a look.
#[derive(Debug, Default)]
pub struct Looked {
    /// Each is told when a database that was begun is attached, or known not to be.
    pub settled: Vec<oneshot::Receiver<()>>,
    /// Names that the store does not take.
    pub refused: Vec<StoreError>,
}

impl Fleet {
    /// No database yet.
    #[must_use]
    pub fn new(common: Common, patterns: Patterns) -> Self {
        // One look at a time; whoever else asks waits for the next.
        let (look, looks) = mpsc::channel(1);
        Self {
            common,
            patterns,
            roster: Roster::default(),
            registry: Arc::new(Registry::new(look)),
            looks,
            claims: Arc::new(Claims::default()),
            turns: Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE)),
            moderation: Arc::new(Moderation::default()),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            stops: HashMap::new(),
            begin_anew: None,
            panicked: None,
            told_of_files: false,
            unnamed: BTreeMap::new(),
        }
    }

    /// For those who ask about the databases.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// Begins what is there now.
    ///
    /// # Errors
    /// A panic while looking.
    pub async fn look(&mut self) -> anyhow::Result<Looked> {
        let patterns = self.patterns.clone();
        let found: Vec<Match> = tokio::task::spawn_blocking(move || patterns.look())
            .await
            .context("look for databases")?;
        let mut looked = Looked::default();
        for change in self.roster.update(&found, std::time::Instant::now()) {
            match change {
                Change::Begin(database) => match self.begin(&database) {
                    Ok(told) => looked.settled.push(told),
                    Err(refusal) => {
                        error!("{}: not shipped: {refusal}", database.path.display());
                        self.unnamed.insert(database.path, refusal.to_string());
                        looked.refused.push(refusal);
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
        let unnamed = self.unnamed.iter().map(|(path, reason)| (path.clone(), reason.clone()));
        self.registry
            .set_refused(self.roster.refused().clone().into_iter().chain(unnamed).collect());
        let shortage = limits::shortage(self.names.len(), self.common.files);
        if let Some(shortage) = shortage.filter(|_| !self.told_of_files) {
            self.told_of_files = true;
            error!("{shortage}");
        }
        Ok(looked)
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

    /// Tells every database to stop, and waits for the last.
    ///
    /// # Errors
    /// One of them panicked, now or before.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for stop in self.stops.values() {
            stop.send_replace(true);
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            // One that panicked must not cut the others' final sync short.
            self.ended(ended);
        }
        match self.panicked {
            Some(panic) => Err(panic).context("ship a database"),
            None => Ok(()),
        }
    }

    fn begin(&mut self, config: &DatabaseConfig) -> Result<oneshot::Receiver<()>, StoreError> {
        let name = config.name.clone();
        let store = self.common.root.database(&name)?;
        let store = Arc::new(Moderated::new(store, self.moderation.clone()));
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
