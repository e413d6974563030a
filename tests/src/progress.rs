//! What a restore tells of its progress, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use replica::restore::Progress;

/// Bytes that were handed to the decoder.
#[derive(Debug, Default)]
pub struct Fetched(AtomicU64);

impl Fetched {
    /// How many so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Progress for Fetched {
    fn fetched(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}
