//! What is known of one database's shipping: written by engine and uploader, read by the heartbeat.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use replica::documents::Heartbeat;
use replica::format::{GenerationId, PageSize, Txid};

use crate::ship::engine::Step;
use crate::ship::spool::Spooled;

/// The state of one attached database.
#[derive(Debug)]
pub struct Status {
    page_size: PageSize,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    generation: Option<GenerationId>,
    durable: Option<Txid>,
    page_count: u32,
    synced_at: Option<Timestamp>,
    captured: Option<Txid>,
    captured_until: Option<Timestamp>,
    last_transaction_at: Option<Timestamp>,
    wal_bytes: u64,
    engine_error: Option<String>,
    upload_error: Option<String>,
}

impl Status {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        Self { page_size, state: Mutex::default() }
    }

    /// The generation was chosen.
    pub fn set_generation(&self, generation: GenerationId) {
        self.lock().generation = Some(generation);
    }

    /// A step of the engine succeeded.
    pub fn stepped(&self, step: &Step, now: Timestamp) {
        let mut state = self.lock();
        state.engine_error = None;
        state.wal_bytes = step.wal_bytes;
        if state.captured.is_some() && step.captured != state.captured {
            state.last_transaction_at = Some(now);
        }
        state.captured = step.captured;
        state.captured_until = step.complete_until;
        if !step.snapshotting && state.durable.is_some() && state.durable == step.captured {
            state.synced_at = state.synced_at.max(step.complete_until);
        }
    }

    /// A file is in the bucket, and all files before it.
    pub fn uploaded(&self, file: &Spooled) {
        let mut state = self.lock();
        state.upload_error = None;
        state.durable = Some(file.txids.max());
        state.page_count = file.page_count;
        state.synced_at = state.synced_at.max(Some(file.complete_until));
        if state.durable == state.captured {
            state.synced_at = state.synced_at.max(state.captured_until);
        }
    }

    /// A step of the engine failed. Returns whether this is news.
    pub fn engine_failed(&self, error: &str) -> bool {
        Self::note(&mut self.lock().engine_error, error)
    }

    /// An upload failed. Returns whether this is news.
    pub fn upload_failed(&self, error: &str) -> bool {
        Self::note(&mut self.lock().upload_error, error)
    }

    /// What would be told of the database now; `None` until it has a generation.
    #[must_use]
    pub fn heartbeat(&self, now: Timestamp, host: &str) -> Option<Heartbeat> {
        let state = self.lock().clone();
        Some(Heartbeat {
            version: 1,
            generation: state.generation?,
            txid: state.durable,
            page_size: self.page_size,
            page_count: state.page_count,
            written_at: now,
            synced_at: state.synced_at,
            last_transaction_at: state.last_transaction_at,
            wal_bytes: state.wal_bytes,
            last_error: state.engine_error.or(state.upload_error),
            shipper_version: env!("CARGO_PKG_VERSION").to_owned(),
            sqlite_version: rusqlite::version().to_owned(),
            host: host.to_owned(),
            scrub: None,
        })
    }

    fn note(slot: &mut Option<String>, error: &str) -> bool {
        let news = slot.as_deref() != Some(error);
        *slot = Some(error.to_owned());
        news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
