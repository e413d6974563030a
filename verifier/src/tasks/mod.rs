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
use crate::drill::{Asked, ShowProgress};
use crate::ledger::{self, Ledger};
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
}

impl Verifier {
    /// Prepares every service; nothing is requested over the network yet.
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
        Ok(Self { config, given, ledger, mailer, progress })
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
