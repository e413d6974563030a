//! What does not change in a world, and what is counted of what happened in it.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::memory_store::Condition;
use crate::sim::application::Habits;

/// What does not change in a world.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// How the application treats its database.
    pub habits: Habits,
    /// What the bucket makes of the condition that keeps two writers apart.
    pub condition: Condition,
    /// Most bytes that may wait for the bucket.
    pub spool_limit: u64,
    /// Shortest time between two captures.
    pub sync_interval: Duration,
    /// Most frames in one file of a capture.
    pub most_frames: u32,
}

impl Nature {
    /// One drawn by chance.
    pub fn draw(random: &mut StdRng) -> Self {
        let page_sizes = [512, 512, 512, 1024, 1024, 4096, 65536];
        let habits = Habits {
            page_size: page_sizes[random.random_range(0..page_sizes.len())],
            rows: random.random_range(0..60),
            auto_vacuum: random.random_range(0..3),
            autocheckpoint: [0, 20, 100, 1000][random.random_range(0..4)],
            full: random.random_bool(0.3),
        };
        let condition = match random.random_range(0..10) {
            0 => Condition::Ignored,
            1 => Condition::Refused,
            _ => Condition::Honoured,
        };
        Self {
            habits,
            condition,
            spool_limit: if random.random_bool(0.1) { 300_000 } else { 1 << 30 },
            sync_interval: Duration::from_millis(random.random_range(0..200)),
            most_frames: [7, 60, 1 << 20][random.random_range(0..3)],
        }
    }
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Times a shipper was attached.
    pub attached: u64,
    /// Files that an attempt put into the bucket.
    pub uploaded: u64,
    /// Syncs acknowledged.
    pub synced: u64,
    /// Times that a shipper could not go on as it was.
    pub ended: u64,
    /// Generations in the bucket at the end.
    pub generations: u64,
    /// Restore points in it.
    pub points: u64,
    /// Deaths at a place that the schedule named.
    pub died: u64,
}

impl Tally {
    /// Adds another world's.
    pub fn add(&mut self, other: Self) {
        self.attached += other.attached;
        self.uploaded += other.uploaded;
        self.synced += other.synced;
        self.ended += other.ended;
        self.generations += other.generations;
        self.points += other.points;
        self.died += other.died;
    }
}
