//! Where drills are recorded: one row a drill, and one small state row a database.
//!
//! Rows are keyed by the database's [`Place`], never by its name alone: two servers may both have an `app`.
//! The rows of drills expire; the state row does not. It holds the last PASS (so that watching costs one
//! read, whatever the history) and the state of the alarms, which changes only by compare-and-swap:
//! two watchers that run at once cannot both claim one mail. One more item holds the databases ever listed, so that
//! one whose objects are all gone is still asked for.

mod dynamodb;
mod fit;
mod place;
mod sqlite;
mod unopened;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use replica::documents::Receipt;

use crate::record::{Record, Verdict};
use crate::watch::WatchState;

pub use dynamodb::DynamoDbLedger;
pub use place::{Adopt, ByName, Place, normalized};
pub use sqlite::SqliteLedger;
pub use unopened::UnopenedLedger;

/// How long the row of a drill is kept: long enough to compare with the same season last year.
const KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It cannot be reached, refused, or failed.
    #[error("ledger {ledger}: {action}")]
    Unavailable {
        /// Its URL.
        ledger: String,
        /// What was tried.
        action: &'static str,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row cannot be understood.
    #[error("ledger {ledger}: row of {database}: not understood")]
    Content {
        /// Its URL.
        ledger: String,
        /// The database of the row.
        database: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The URL cannot work.
    #[error("{0}")]
    Configuration(String),
}

/// One drill for the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// A UUIDv7.
    pub id: String,
    /// Where the database is.
    pub place: Place,
    /// The record.
    pub record: Record,
    /// Whether the newest state was asked for: only such drills tell since when it fails.
    pub latest: bool,
    /// Becomes the database's last PASS, together with the row or not at all.
    pub last_pass: Option<Receipt>,
}

impl Entry {
    /// `started_at` in the fixed width that sorts by time.
    fn sortable_start(&self) -> String {
        format!("{:.3}", self.record.started_at)
    }

    /// Whether the newest state was not proven, whosever fault that is.
    fn is_failing(&self) -> bool {
        self.latest && self.record.verdict != Verdict::Pass
    }

    /// When the row may go.
    fn expires_at(&self) -> Timestamp {
        self.record.started_at.saturating_add(KEPT).unwrap_or(Timestamp::MAX)
    }
}

/// The state of a database's alarms and its version, for the compare-and-swap (0: no row yet).
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    /// The version that was read.
    pub version: u64,
    /// The state; `None` at first sight.
    pub state: Option<WatchState>,
}

/// The ledger.
#[async_trait]
pub trait Ledger: Send + Sync + Debug {
    /// Its URL, for messages.
    fn url(&self) -> String;

    /// Records a drill.
    async fn append(&self, entry: &Entry) -> Result<(), LedgerError>;

    /// The last PASS of a database's newest state.
    async fn last_pass(&self, place: &Place) -> Result<Option<Receipt>, LedgerError>;

    /// The record of the last PASS of a database's newest state; `None` where there is none, or where it expired.
    async fn last_pass_record(&self, place: &Place) -> Result<Option<Record>, LedgerError>;

    /// When the first drill of the newest state began that did not pass, since the last one that did.
    async fn failing_since(&self, place: &Place) -> Result<Option<Timestamp>, LedgerError>;

    /// The state of a database's alarms.
    async fn watch_state(&self, place: &Place) -> Result<Versioned, LedgerError>;

    /// Replaces the state if its version is still `seen`; whether it was.
    async fn replace_watch_state(
        &self,
        place: &Place,
        seen: u64,
        next: &WatchState,
    ) -> Result<bool, LedgerError>;

    /// What an older version kept under the name of a place that has no state of its own yet, unless another place
    /// adopted it.
    async fn by_name(&self, place: &Place) -> Result<Option<ByName>, LedgerError>;

    /// Gives a place without a state its first one: what was kept under its name, as far as it is adopted. The old
    /// rows stay. Changes nothing where the place has a state by now.
    async fn adopt(&self, place: &Place, adopt: Adopt) -> Result<(), LedgerError>;

    /// URLs of the databases that were ever listed, of whatever replica.
    async fn known_databases(&self) -> Result<BTreeSet<String>, LedgerError>;

    /// Adds to the known databases; those known already stay, whoever adds at the same time.
    async fn remember_databases(&self, urls: &[String]) -> Result<(), LedgerError>;
}

/// Opens the ledger that a URL names: `sqlite:///path` or `dynamodb://table`. A file that cannot be opened
/// becomes an [`UnopenedLedger`]: drills still run, and say so. DynamoDB is not requested yet.
///
/// # Errors
/// Another scheme.
pub async fn open(url: &str) -> Result<Arc<dyn Ledger>, LedgerError> {
    if let Some(table) = url.strip_prefix("dynamodb://")
        && !table.is_empty()
        && !table.contains('/')
    {
        return Ok(Arc::new(DynamoDbLedger::new(table).await));
    }
    if let Some(path) = url.strip_prefix("sqlite://")
        && path.starts_with('/')
    {
        return Ok(match SqliteLedger::open(&PathBuf::from(path)) {
            Ok(ledger) => Arc::new(ledger),
            Err(error) => Arc::new(UnopenedLedger::new(url, crate::words::in_words(error))),
        });
    }
    Err(LedgerError::Configuration(format!(
        "ledger.url: {url:?} names no ledger\nHINT: sqlite:///absolute/path/ledger.db or dynamodb://table"
    )))
}
