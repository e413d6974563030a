//! Turns to read a whole database: a thousand first snapshots at once would leave no thread to anybody else.
//!
//! *Invariant*: who only goes on where it was needs none. Short reads have turns of their own, so that two databases that
//! take hours never keep the small ones from being shipped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns of each kind.
const AT_ONCE: usize = 2;
/// Up to this size a database is read in a moment, bytes.
const SHORT: u64 = 64 << 20;

/// The turns.
#[derive(Debug, Clone)]
pub struct Turns {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// One of them, until it is dropped.
pub type Turn = OwnedSemaphorePermit;

impl Default for Turns {
    fn default() -> Self {
        let turns = || Arc::new(Semaphore::new(AT_ONCE));
        Self { short: turns(), long: turns() }
    }
}

impl Turns {
    /// A turn to read so many bytes, if it is to be had at once.
    #[must_use]
    pub fn at_once(&self, bytes: u64) -> Option<Turn> {
        self.of(bytes).clone().try_acquire_owned().ok()
    }

    /// Waits for one; `None` only where there are none any more.
    pub async fn wait(&self, bytes: u64) -> Option<Turn> {
        self.of(bytes).clone().acquire_owned().await.ok()
    }

    fn of(&self, bytes: u64) -> &Arc<Semaphore> {
        if bytes <= SHORT { &self.short } else { &self.long }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reads_keep_only_long_ones_waiting() {
        let turns = Turns::default();
        let long = [24 << 30, SHORT + 1].map(|bytes| turns.at_once(bytes));
        assert!(long.iter().all(Option::is_some));
        assert!(turns.at_once(1 << 30).is_none());
        assert!(turns.at_once(SHORT).is_some());
        drop(long);
        assert!(turns.at_once(1 << 30).is_some());
    }
}
