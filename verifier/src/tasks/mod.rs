//! The tasks: drill, watch and compact databases. Command line and Lambda run the same ones.

mod answer;
mod compact;
mod drill;
mod sabotage;
mod suggest;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use async_trait::async_trait;
use replica::operator::{DatabaseArg, usage};
use replica::store::S3Options;

use crate::alert::{self, Mailer};
use crate::compact::CompactAnswer;
use crate::config::Config;
use crate::databases::{Database, Databases, databases};
use crate::drill::{Asked, ChildProcess, Inspector, ShowProgress};
use crate::ledger::{self, Adopt, Ledger, LedgerError};
use crate::watch::WatchAnswer;

pub use answer::DrillAnswer;

/// A drill task.
#[derive(Debug, Clone)]
pub struct DrillTask {
    /// The databases; none: all.
    pub databases: Vec<DatabaseArg>,
    /// The point.
    pub asked: Asked,
    /// When it must have ended.
    pub deadline: Option<Instant>,
}

/// A compaction task.
#[derive(Debug, Clone)]
pub struct CompactTask {
    /// The databases; none: all.
    pub databases: Vec<DatabaseArg>,
    /// When it must have ended.
    pub deadline: Option<Instant>,
}

/// What an event or a command can ask for. One thread runs it (both programs of this workspace have one).
#[async_trait(?Send)]
pub trait Tasks: Send + Sync {
    /// Drills databases one after the other.
    async fn drill(&self, task: DrillTask) -> anyhow::Result<DrillAnswer>;

    /// Looks at the freshness of every database.
    async fn watch(&self) -> anyhow::Result<WatchAnswer>;

    /// Compacts databases one after the other, and makes snapshots that are due.
    async fn compact(&self, task: CompactTask) -> anyhow::Result<CompactAnswer>;
}

/// The tasks on real services.
pub struct Verifier {
    config: Config,
    given: S3Options,
    ledger: Arc<dyn Ledger>,
    mailer: Arc<dyn Mailer>,
    progress: ShowProgress,
    inspector: Arc<dyn Inspector>,
}

impl Verifier {
    /// Prepares every service; nothing is requested over the network yet. Checks are made by child processes of this program,
    /// which must be `verifier`.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub async fn new(
        config: Config,
        given: S3Options,
        progress: ShowProgress,
    ) -> anyhow::Result<Self> {
        let ledger = ledger::open(&config.ledger_url()?).await.context(usage("configuration"))?;
        let mailer = alert::mailer(config.alert.from.as_deref(), &config.alert.to).await;
        let inspector = Arc::new(ChildProcess::of_this_program());
        Ok(Self { config, given, ledger, mailer, progress, inspector })
    }

    /// When a command must have ended that nothing else gives an end to.
    fn default_deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.config.drill.deadline.get())
    }

    /// At the first sight of a database's place: takes over what an older version of the ledger kept under its name
    /// alone, as far as it is this one's.
    async fn settle(&self, database: &Database) -> Result<(), LedgerError> {
        let place = database.place();
        let Some(by_name) = self.ledger.by_name(&place).await? else { return Ok(()) };
        // Not decided without having seen the generations.
        let Ok(chains) = database.store.chains().await else { return Ok(()) };
        let adopt = by_name.of(&place, &chains, &self.ledger.known_databases().await?);
        self.ledger.adopt(&place, adopt).await?;
        let (db, url) = (place.name(), place.url());
        match adopt {
            Adopt::Everything => {
                tracing::info!(db, url, "the ledger's rows of this name are now those of this URL")
            }
            Adopt::Pass => tracing::info!(
                db,
                url,
                "the ledger's last PASS of this name is now that of this URL; its alarms begin anew, since others have the name too"
            ),
            Adopt::Nothing => tracing::warn!(
                db,
                url,
                "the ledger has rows of this name that are not known to be of this URL: they stay as they are, and this \
                 database begins anew\nHINT: drill it once"
            ),
        }
        Ok(())
    }

    /// The one database that was named.
    async fn only(&self, named: &DatabaseArg) -> anyhow::Result<Database> {
        let named = std::slice::from_ref(named);
        let found = match databases(&self.config, named, &self.given, &*self.ledger).await? {
            Databases::Found(found) => found,
            Databases::Unlisted { .. } => Vec::new(),
        };
        found.into_iter().next().context("no such database")
    }
}

#[async_trait(?Send)]
impl Tasks for Verifier {
    async fn drill(&self, task: DrillTask) -> anyhow::Result<DrillAnswer> {
        self.drill_all(task).await
    }

    async fn watch(&self) -> anyhow::Result<WatchAnswer> {
        self.watch_all().await
    }

    async fn compact(&self, task: CompactTask) -> anyhow::Result<CompactAnswer> {
        self.compact_all(task).await
    }
}
