//! A clock that only moves when it is told to.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use shipper::clock::Clock;

/// Happens when somebody looks at the clock.
type Interruption = Box<dyn FnMut() + Send>;

/// Time as a schedule has it.
pub struct SimClock {
    times: Mutex<(Timestamp, Instant)>,
    interruption: Mutex<Option<Interruption>>,
}

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimClock").field("times", &self.times).finish_non_exhaustive()
    }
}

impl Default for SimClock {
    fn default() -> Self {
        let begin = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000);
        Self { times: Mutex::new((begin, Instant::now())), interruption: Mutex::default() }
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

    /// From now on this happens whenever somebody looks at the clock: in the middle of whatever they do.
    pub fn interrupt(&self, interruption: Option<Interruption>) {
        *self.interruption.lock().unwrap_or_else(PoisonError::into_inner) = interruption;
    }

    fn interrupted(&self) {
        let mut slot = self.interruption.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interruption) = slot.as_mut() {
            interruption();
        }
    }

    fn times(&self) -> MutexGuard<'_, (Timestamp, Instant)> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.interrupted();
        self.times().0
    }

    fn monotonic(&self) -> Instant {
        self.interrupted();
        // Looking at it takes time, too: long work sees its bounds.
        let mut times = self.times();
        times.1 += Duration::from_micros(50);
        times.1
    }
}
