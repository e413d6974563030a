//! Clocks, injected so that tests can turn it.

use std::fmt::Debug;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// What the time of day may differ from the time that passed before it counts as set.
const SET: SignedDuration = SignedDuration::from_mins(1);

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

/// Notices that the time of day was set: that it went otherwise than the time that passed. (A machine that slept looks
/// the same.)
#[derive(Debug)]
pub struct ClockWatch {
    last: (Timestamp, Instant),
    set: bool,
}

impl ClockWatch {
    /// Watches from this moment on.
    #[must_use]
    pub fn new(now: Timestamp, monotonic: Instant) -> Self {
        Self { last: (now, monotonic), set: false }
    }

    /// Looks at both; `true` where the time of day was set since the last look.
    pub fn look(&mut self, now: Timestamp, monotonic: Instant) -> bool {
        let (then, since) = self.last;
        self.last = (now, monotonic);
        let passed = SignedDuration::try_from(monotonic.saturating_duration_since(since));
        let passed = passed.unwrap_or(SignedDuration::MAX);
        let was_set = now.duration_since(then).saturating_sub(passed).abs() > SET;
        self.set |= was_set;
        was_set
    }

    /// Whether it was set since this was last asked.
    pub fn take(&mut self) -> bool {
        std::mem::take(&mut self.set)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_is_corrected_is_not() {
        let (now, monotonic) =
            ("2026-11-20T00:00:00Z".parse::<Timestamp>().unwrap(), Instant::now());
        let mut watch = ClockWatch::new(now, monotonic);
        let (mut day, mut passed) = (0, 0);
        for (by_day, by_time, was_set) in [
            (3600, 3600, false),
            (10, 1, false),
            (6 * 86_400, 1, true),
            (1, 1, false),
            (-30, 1, false),
            (-86_400, 1, true),
        ] {
            (day, passed) = (day + by_day, passed + by_time);
            let seen = watch.look(
                now + SignedDuration::from_secs(day),
                monotonic + Duration::from_secs(passed),
            );
            assert_eq!(seen, was_set, "{by_day}");
            assert!(watch.take() == was_set && !watch.take());
        }
    }
}
