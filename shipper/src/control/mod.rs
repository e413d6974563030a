//! How an operator asks a running shipper: one JSON line in, one JSON line out, over a Unix socket.
//!
//! *Invariants*: who may open the socket is decided by file modes alone (0600, in a directory of 0700); no client can
//! keep a database from being shipped: lines, clients and waiting times are bounded, and a client is served by a task
//! of its own that holds nothing. Nothing here reaches the bucket but reads of `receipt.json`, at most one a minute
//! for each database.

mod ask;
mod place;
mod protocol;
mod receipts;
mod report;
mod server;

pub use ask::{Unanswered, ask};
pub use place::pointer;
pub use protocol::{Reply, Request, ResetReply, StatusReply, SyncOutcome, SyncReply};
pub use report::{LockCost, Refused, Report, Standing};
pub use server::Server;
