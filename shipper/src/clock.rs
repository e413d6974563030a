//! The wall clock, injected so that tests can turn it.

use std::fmt::Debug;

use jiff::Timestamp;

/// Tells the time. Durations are measured with [`std::time::Instant`], never with this.
pub trait Clock: Send + Sync + Debug {
    /// The time now, as far as this machine knows it.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
