//! What the application committed, in order: the states that a replica may hold.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One page's share of a state: states are told apart by these, combined. (Not the file format's own checksum, so
/// that the one cannot hide an error of the other.)
#[must_use]
pub fn page_hash(number: u32, page: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (number, page).hash(&mut hasher);
    hasher.finish()
}

/// A database as pages, and its state kept up to date.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    hashes: BTreeMap<u32, u64>,
    sum: u64,
}

impl Pages {
    /// Sets a page.
    pub fn set(&mut self, number: u32, page: &[u8]) {
        let hash = page_hash(number, page);
        self.sum ^= hash ^ self.hashes.insert(number, hash).unwrap_or_default();
    }

    /// Cuts pages off.
    pub fn truncate(&mut self, page_count: u32) {
        for (_, hash) in self.hashes.split_off(&(page_count + 1)) {
            self.sum ^= hash;
        }
    }

    /// Whether it is exactly pages 1 to `page_count` (the lock page is beyond what is tested with this).
    #[must_use]
    pub fn are_complete(&self, page_count: u32) -> bool {
        self.hashes.len() == page_count as usize
            && self.hashes.last_key_value().is_none_or(|(last, _)| *last == page_count)
    }

    /// What stands for all of it.
    #[must_use]
    pub fn state(&self) -> u64 {
        self.sum
    }
}

/// Every state since the beginning; one comes again where power was lost or an old file was put back.
#[derive(Debug, Clone, Default)]
pub struct History {
    states: Vec<u64>,
}

impl History {
    /// The application's database is in this state now. Returns whether that is news.
    pub fn push(&mut self, state: u64) -> bool {
        let news = self.states.last() != Some(&state);
        if news {
            self.states.push(state);
        }
        news
    }

    /// The place of the newest state.
    #[must_use]
    pub fn newest(&self) -> usize {
        self.states.len().saturating_sub(1)
    }

    /// The state at a place.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<u64> {
        self.states.get(place).copied()
    }

    /// The first place from `from` on at which the database was in this state.
    #[must_use]
    pub fn find(&self, from: usize, state: u64) -> Option<usize> {
        self.states.iter().skip(from).position(|known| *known == state).map(|at| from + at)
    }
}
