//! Freshness: is every database still being shipped, and was it proven lately?
//!
//! Two pure parts: [`mod@standing`] judges the evidence, [`WatchState`] decides which mails are due. A mail
//! is *claimed* in the ledger (compare-and-swap, with a lease) before it is sent and marked as sent after: two
//! watchers never send the same one, and a watcher that dies between loses nothing, since its lease ends. What
//! remains possible is a second copy of a mail, when a watcher dies after sending and before marking.

mod alarms;
mod report;
mod standing;

pub use alarms::{Alarm, Claim, Findings, Notice, Raised, Stage, WatchState};
pub use report::{MailOutcome, WatchAnswer, WatchReport};
pub use standing::{Evidence, Life, Standing, standing};
