//! Clocks, injected so that tests can turn it.

use std::fmt::Debug;
use std::time::Instant;

use jiff::Timestamp;

/// Tells the time. Durations are measured with [`Clock::monotonic`], never with the time of day.
pub trait Clock: Send + Sync + Debug {
    /// The time now, as far as this machine knows it.
    fn now(&self) -> Timestamp;

    /// The time for measuring durations: never goes back.
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
