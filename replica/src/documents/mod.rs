//! The small JSON objects beside the generations: written by one binary, read by the other.

mod heartbeat;
mod receipt;

pub use heartbeat::{Heartbeat, OtherHost, ScrubReport};
pub use receipt::{Receipt, ReceiptDocument, RepairWanted};
