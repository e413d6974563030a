//! A clock that only moves when it is told to.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use shipper::clock::Clock;

/// Time as a schedule has it.
#[derive(Debug)]
pub struct SimClock {
    times: Mutex<(Timestamp, Instant)>,
}

impl Default for SimClock {
    fn default() -> Self {
        let begin = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000);
        Self { times: Mutex::new((begin, Instant::now())) }
    }
}

impl SimClock {
    /// Time passes.
    pub fn pass(&self, time: Duration) {
        let mut times = self.times();
        times.0 += time;
        times.1 += time;
    }

    /// The time of day is set, forwards or backwards.
    pub fn jump(&self, by: SignedDuration) {
        self.times().0 += by;
    }

    fn times(&self) -> MutexGuard<'_, (Timestamp, Instant)> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.times().0
    }

    fn monotonic(&self) -> Instant {
        // Looking at it takes time, too: long work sees its bounds.
        let mut times = self.times();
        times.1 += Duration::from_micros(50);
        times.1
    }
}
