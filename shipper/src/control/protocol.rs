//! What is asked and answered. Both ends are the same program, so that there is no version to agree on: after an
//! update, the shipper is restarted.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{Refused, Report};

/// Longest request, bytes.
pub(super) const REQUEST_MAX: u64 = 4 << 10;
/// Longest reply, bytes: ten thousand databases, each with a long error.
pub(super) const REPLY_MAX: u64 = 64 << 20;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How does it stand?
    Status {},
    /// Tell me when all that is committed now is in the bucket.
    Sync {
        /// Only this database.
        database: Option<String>,
        /// How long to wait at most, milliseconds.
        timeout_ms: u64,
    },
    /// Begin a new generation.
    Reset {
        /// Of this database.
        database: String,
        /// Why, for the log.
        why: String,
    },
}

/// What the shipper answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(StatusReply),
    /// To [`Request::Sync`].
    Sync(SyncReply),
    /// To [`Request::Reset`].
    Reset(ResetReply),
    /// The request was refused.
    Refused(String),
}

/// How everything stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusReply {
    /// The shipper's version.
    pub shipper_version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// Where the databases go.
    pub replica: String,
    /// Every database, by name.
    pub databases: Vec<Report>,
    /// Files that are asked for and not shipped.
    pub refused: Vec<Refused>,
}

/// How a sync ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncReply {
    /// Every database that was asked for, by name.
    pub databases: Vec<(String, SyncOutcome)>,
    /// Files that are asked for and not shipped, where all databases were asked for.
    pub refused: Vec<Refused>,
    /// All known names, where the one asked for is not among them.
    pub known: Option<Vec<String>>,
}

/// What came of a reset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResetReply {
    /// All known names, where the one asked for is not among them.
    pub known: Option<Vec<String>>,
}

/// How one database's sync ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncOutcome {
    /// Everything is in the bucket, up to this TXID.
    Durable {
        /// The last one, 16 hexadecimal digits.
        txid: Option<String>,
    },
    /// It is not shipped at the moment.
    NotAttached {
        /// Why, ending in a `HINT:` line where the operator can act.
        reason: String,
    },
    /// What is in the bucket may not be all that was committed.
    NotVouched {
        /// Why, ending in a `HINT:` line where the operator can act.
        reason: String,
    },
    /// Time was up first.
    TimedOut {
        /// The error that keeps the shipper from shipping, where there is one.
        last_error: Option<String>,
    },
    /// The shipper stopped first.
    Stopped,
    /// Too many wait already.
    Busy,
}

/// Longest time that a client may wait for a sync.
pub(super) const LONGEST_SYNC: Duration = Duration::from_secs(24 * 3600);
