//! The time by the store's clock, and how far this machine's own is from it.
//!
//! Ages (of a heartbeat, a scrub, the newest state) are told to somebody who trusts them, and the machine that drills may
//! have a wrong clock. The store's is the one that dated everything in it.

use jiff::{SignedDuration, Timestamp};
use replica::store::Store;

/// How far two machines' clocks may differ before it is said.
pub const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Less than this is the way there and back, and the whole seconds of an answer.
const NOISE: SignedDuration = SignedDuration::from_secs(5);

/// What was found of the two clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    /// How far this machine's clock is ahead of the store's; zero where they agree, or where the store does not tell.
    ahead: SignedDuration,
}

impl Clock {
    /// Asks the store at the moment that is `ours` by this machine's clock.
    pub async fn of(store: &dyn Store, ours: Timestamp) -> Self {
        match store.time().await {
            Ok(Some(time)) => Self::between(ours, time),
            Ok(None) => Self::default(),
            Err(error) => {
                tracing::debug!(%error, "the store does not tell the time");
                Self::default()
            }
        }
    }

    /// Of two readings at the same moment.
    #[must_use]
    pub fn between(ours: Timestamp, stores: Timestamp) -> Self {
        let ahead = ours.duration_since(stores);
        Self { ahead: if ahead.abs() > NOISE { ahead } else { SignedDuration::ZERO } }
    }

    /// A moment of this machine's clock, by the store's.
    #[must_use]
    pub fn corrected(self, ours: Timestamp) -> Timestamp {
        ours.saturating_sub(self.ahead).unwrap_or(ours)
    }

    /// What to say where one of the two clocks is wrong.
    #[must_use]
    pub fn fault(self) -> Option<String> {
        let side = if self.ahead.is_positive() { "ahead of" } else { "behind" };
        (self.ahead.abs() > TOLERANCE).then(|| {
            format!(
                "this machine's clock is {:#} {side} the store's, by which times are judged here\n\
                 HINT: set the clock (NTP): of the machine that runs the verifier, or of the store",
                self.ahead.abs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ages_are_by_the_stores_clock_and_a_wrong_one_is_said() {
        let store: Timestamp = "2026-11-22T09:00:00Z".parse().unwrap();
        for (ahead, corrected, said) in
            [(0, 0, false), (3, 3, false), (-200, 0, false), (-600, 0, true), (169_200, 0, true)]
        {
            let ours = store + SignedDuration::from_secs(ahead);
            let clock = Clock::between(ours, store);
            assert_eq!(clock.corrected(ours), store + SignedDuration::from_secs(corrected));
            assert_eq!(clock.fault().is_some(), said, "{ahead}");
        }
        let fault = Clock::between(store - SignedDuration::from_mins(10), store).fault().unwrap();
        assert!(fault.contains("10m behind the store's"), "{fault}");
    }
}
