//! Retries: which failures are worth another attempt, how often, how long.
//!
//! One [`Budget`] is one operation's: it bounds the attempts and the time, and spaces them with
//! backoff and jitter. It says nothing of what is retried; a backend classifies its own failures.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// How often and how long an operation is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts, the first included.
    pub attempts: u32,
    /// Delay before the second attempt; doubled for each one after it, plus as much again at most
    /// by chance.
    pub first_delay: Duration,
    /// No delay grows above this (nor a longer one that the store asks for).
    pub max_delay: Duration,
    /// No attempt begins later than this after the first.
    pub total: Duration,
    /// How long one attempt may take, apart from the time that its bytes need.
    pub attempt_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            total: Duration::from_secs(120),
            attempt_timeout: Duration::from_secs(20),
        }
    }
}

/// Slower than this, an upload counts as stalled, bytes a second.
const SLOWEST: u64 = 64 * 1024;

impl RetryPolicy {
    /// How long an attempt may take that moves `bytes`.
    pub(super) fn timeout(&self, bytes: u64) -> Duration {
        self.attempt_timeout + Duration::from_secs(bytes / SLOWEST)
    }

    pub(super) fn budget(&self) -> Budget {
        let delays = ExponentialBuilder::default()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(self.attempts.saturating_sub(1) as usize)
            .with_jitter()
            .build();
        Budget { policy: *self, delays, used: 1, started: Instant::now() }
    }
}

/// What is left of one operation's attempts and time.
#[derive(Debug)]
pub(super) struct Budget {
    policy: RetryPolicy,
    delays: ExponentialBackoff,
    used: u32,
    started: Instant,
}

impl Budget {
    /// Attempts begun, the first included.
    pub(super) fn attempts(&self) -> u32 {
        self.used
    }

    /// Waits for the next attempt's turn; `false` where there is none. `asked` is the delay that the
    /// store asked for.
    pub(super) async fn wait(&mut self, asked: Option<Duration>) -> bool {
        let Some(delay) = self.delays.next() else { return false };
        let delay = delay.max(asked.unwrap_or_default().min(self.policy.max_delay));
        if self.started.elapsed() + delay > self.policy.total {
            return false;
        }
        tokio::time::sleep(delay).await;
        self.used += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(4),
            total: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn attempts_are_bounded() {
        let mut budget = policy().budget();
        let mut waits = 0;
        while budget.wait(None).await {
            waits += 1;
        }
        assert_eq!((waits, budget.attempts()), (3, 4));
    }

    #[tokio::test]
    async fn total_time_is_bounded() {
        let mut budget = RetryPolicy { total: Duration::ZERO, ..policy() }.budget();
        assert!(!budget.wait(None).await);
        assert_eq!(budget.attempts(), 1);
    }

    #[tokio::test]
    async fn an_hour_that_the_store_asks_for_is_not_granted() {
        let mut budget = policy().budget();
        assert!(budget.wait(Some(Duration::from_secs(3600))).await);
    }

    #[test]
    fn a_long_upload_has_longer() {
        assert_eq!(policy().timeout(640 * 1024), Duration::from_secs(11));
    }
}
