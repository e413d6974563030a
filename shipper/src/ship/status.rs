//! What is known of one database's shipping, for the life of the process: written by the database's own task, its
//! engine and its uploader, read by the heartbeat and by `shipper status`.
//!
//! *Invariant*: reading never waits for a disk or the network, and writing never for a reader: one short lock. It is
//! memory only; a restart begins with nothing known.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use replica::documents::{Heartbeat, OtherHost, ScrubReport};
use replica::format::{GenerationId, PageSize, Txid};
use tokio::sync::Notify;

use crate::chain::record::Durable;
use crate::chain::{LocalChain, Upload};
use crate::ship::engine::Step;
use crate::ship::presence::Looks;
use crate::ship::rival::{Ours, Rival};
use crate::ship::seen::Seen;
use crate::wal::checkpoint::LockReport;

/// What is being done for a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Phase {
    /// It was not looked at yet.
    #[default]
    Starting,
    /// It cannot be shipped at the moment.
    NotAttached {
        /// Why, ending in a `HINT:` line where the operator can act.
        reason: String,
    },
    /// The first snapshot of a generation is on its way.
    Snapshotting,
    /// Compared page by page with what was shipped: what differs is on its way.
    CatchingUp,
    /// Everything that is committed goes up.
    Shipping,
}

/// How long acknowledgements in a generation wait for a heartbeat that names it.
const ANNOUNCE: Duration = Duration::from_secs(2);

/// The state of one database.
#[derive(Debug, Default)]
pub struct Status {
    state: Mutex<State>,
    moved: Notify,
    news: Notify,
    last: Mutex<Option<Seen>>,
    rival: Mutex<Rival>,
    /// Whether the bucket still has the chain.
    pub looks: Looks,
}

/// Everything that is known, at one moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What is being done.
    pub phase: Phase,
    /// The generation that is shipped.
    pub generation: Option<GenerationId>,
    /// Bytes in a page; unknown until it was attached once.
    pub page_size: Option<PageSize>,
    /// Pages at `durable`.
    pub page_count: u32,
    /// The last TXID in the bucket.
    pub durable: Option<Txid>,
    /// The last moment when everything committed was durable.
    pub synced_at: Option<Timestamp>,
    /// Number of the last capture of this attachment.
    pub captured: Option<u64>,
    /// Number of the last capture in the bucket.
    pub durable_capture: Option<u64>,
    /// Everything committed by then is captured; `None` while more is known to be committed.
    pub captured_until: Option<Timestamp>,
    /// When a transaction was last seen.
    pub last_transaction_at: Option<Timestamp>,
    /// When the engine's last step succeeded.
    pub stepped_at: Option<Timestamp>,
    /// Bytes of the WAL file.
    pub wal_bytes: u64,
    /// Files that wait for the bucket.
    pub spool_files: usize,
    /// Their bytes.
    pub spool_bytes: u64,
    /// Why the engine's last step failed.
    pub engine_error: Option<String>,
    /// Why what is captured may not be all that is committed.
    pub unvouched: Option<String>,
    /// Why the last upload failed.
    pub upload_error: Option<String>,
    /// Why the last generation cannot be restored, until the snapshot of another one is in the bucket.
    pub lost: Option<String>,
    /// The store ignores the condition that keeps two writers apart.
    pub unguarded: bool,
    /// A write over an object was refused in this run.
    pub guarded: bool,
    /// What the write lock has cost, all attachments together.
    pub locks: LockReport,
    /// What it had cost before the present attachment.
    pub locks_before: LockReport,
    /// The last comparison of the live database with what was shipped.
    pub scrub: Option<ScrubReport>,
    /// Another host that was seen to ship this database lately.
    pub other_host: Option<OtherHost>,
    /// Why the last heartbeat could not be written.
    pub heartbeat_error: Option<String>,
    /// Since when a heartbeat should name the generation that is in the bucket, until one was tried.
    pub unannounced: Option<Instant>,
    /// Whether the bucket was asked who shipped last: until then no heartbeat may take that one's place.
    pub looked: bool,
}

impl State {
    /// The error that keeps the database from being shipped, or what is shipped from being vouched for.
    #[must_use]
    pub fn last_error(&self) -> Option<&String> {
        let errors = [&self.lost, &self.unvouched, &self.engine_error, &self.upload_error];
        errors.into_iter().find_map(Option::as_ref)
    }

    /// Everything committed by then is in the bucket, as far as that can be vouched for.
    fn synced(&mut self, until: Option<Timestamp>) {
        if self.unvouched.is_none() {
            self.synced_at = self.synced_at.max(until);
        }
    }

    /// Whether everything that was seen to be committed is in the bucket.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let captured = self.captured_until.is_some() && self.captured.is_some();
        captured && self.durable_capture >= self.captured
    }

    /// What follows is of `generation`: a comparison with another one says nothing of it.
    fn belongs_to(&mut self, generation: Option<GenerationId>) {
        self.generation = generation;
        self.scrub.take_if(|scrub| generation.is_none() || scrub.generation != generation);
    }
}

impl Status {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// The last TXID in the bucket.
    #[must_use]
    pub fn durable(&self) -> Option<Txid> {
        self.lock().durable
    }

    /// Number of the last capture in the bucket.
    #[must_use]
    pub fn durable_capture(&self) -> Option<u64> {
        self.lock().durable_capture
    }

    /// Number of the last capture that a sync may be answered for, and how long a later one still waits for the first
    /// heartbeat of its generation. Nothing depends on that heartbeat: one that cannot be written holds nobody up.
    #[must_use]
    pub fn acknowledged(&self) -> (Option<u64>, Option<Duration>) {
        let state = self.lock();
        let waits = state.unannounced.map(|since| ANNOUNCE.saturating_sub(since.elapsed()));
        match waits.filter(|left| !left.is_zero()) {
            Some(left) => (None, Some(left)),
            None => (state.durable_capture, None),
        }
    }

    /// The bucket was asked who shipped last, and has `last`.
    pub fn looked(&self, last: Option<Seen>) {
        let mut state = self.lock();
        state.looked = true;
        let named = last.as_ref().map(|last| last.heartbeat.generation);
        if named != state.generation {
            state.unannounced = Some(Instant::now());
        }
        drop(state);
        *lock(&self.last) = last;
        self.news.notify_one();
    }

    /// Whether it was asked.
    #[must_use]
    pub fn has_looked(&self) -> bool {
        self.lock().looked
    }

    /// What it had, once.
    #[must_use]
    pub fn take_last(&self) -> Option<Seen> {
        lock(&self.last).take()
    }

    /// Whether the heartbeat that stands in the bucket must be looked at before another one takes its place.
    #[must_use]
    pub fn suspects_a_rival(&self) -> bool {
        lock(&self.rival).is_suspected()
    }

    /// The bucket has `seen`, and `ours` is about to take its place.
    pub fn judge_rival(&self, seen: Option<&Seen>, ours: &Ours<'_>) {
        let other = lock(&self.rival).judge(seen, ours);
        self.lock().other_host = other;
    }

    /// A heartbeat was written, or could not be. Returns whether a failure is news.
    pub fn heartbeat_tried(&self, beat: &Heartbeat, error: Option<&str>) -> bool {
        let mut state = self.lock();
        if beat.txid.is_some() && Some(beat.generation) == state.generation {
            state.unannounced = None;
        }
        let news = error.is_some_and(|error| Self::note(&mut state.heartbeat_error, error));
        if error.is_none() {
            state.heartbeat_error = None;
        }
        drop(state);
        self.moved.notify_one();
        news
    }

    /// Waits for something that a heartbeat should tell at once. For one waiter: who writes them.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The database is attached, and `durable` of its chain is in the bucket; what was captured before says nothing any
    /// more.
    pub fn attached(&self, page_size: PageSize, phase: Phase, chain: &LocalChain) {
        let durable = chain.durable_state();
        self.looks.forget();
        let mut state = self.lock();
        if durable.is_none() {
            state.synced_at = None;
        }
        state.belongs_to(chain.generation());
        state.durable = durable.map(|durable| durable.txid);
        // Until the bucket was asked, it may have something else.
        state.durable_capture = None;
        state.page_count = durable.map_or(0, |durable| durable.page_count);
        state.unguarded = chain.is_unguarded();
        state.phase = phase;
        state.page_size = Some(page_size);
        state.captured = None;
        state.captured_until = None;
        state.unannounced = None;
        state.looked = false;
        state.engine_error = None;
        state.locks_before = state.locks;
    }

    /// The bucket has nothing behind the last TXID that is known here.
    pub fn confirmed(&self, durable: &Durable) {
        let mut state = self.lock();
        state.durable = Some(durable.txid);
        state.page_count = durable.page_count;
        state.durable_capture = state.durable_capture.max(Some(durable.sequence));
        if state.durable_capture >= state.captured {
            let until = state.captured_until;
            state.synced(until);
        }
        drop(state);
        self.moved.notify_one();
    }

    /// The database cannot be shipped at the moment. Returns whether this is news.
    pub fn not_attached(&self, reason: &str) -> bool {
        let mut state = self.lock();
        let phase = Phase::NotAttached { reason: reason.to_owned() };
        let news = state.phase != phase;
        state.phase = phase;
        state.captured_until = None;
        news
    }

    /// Something else is done for it from now on.
    pub fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// The generation was chosen.
    pub fn set_generation(&self, generation: GenerationId) {
        let mut state = self.lock();
        state.belongs_to(Some(generation));
        state.upload_error = None;
    }

    /// A step of the engine succeeded. Returns whether what keeps it from being vouched for is news.
    pub fn stepped(&self, step: &Step, now: Timestamp) -> bool {
        let mut state = self.lock();
        let news = state.unvouched != step.unvouched;
        state.engine_error = None;
        state.unvouched.clone_from(&step.unvouched);
        state.stepped_at = Some(now);
        state.wal_bytes = step.wal_bytes;
        state.locks = LockReport {
            taken: state.locks_before.taken + step.locks.taken,
            longest: state.locks_before.longest.max(step.locks.longest),
        };
        if state.captured.is_some_and(|captured| captured != step.captured) {
            state.last_transaction_at = Some(now);
        }
        state.captured = Some(step.captured);
        state.captured_until = step.complete_until;
        if step.clock_set {
            // What the old clock dated cannot be compared with what the new one will.
            state.scrub = None;
            state.synced_at = state.synced_at.map(|at| at.min(now));
            state.last_transaction_at = state.last_transaction_at.map(|at| at.min(now));
        }
        if let Some(report) = &step.scrubbed {
            state.scrub = Some(report.clone());
        }
        if step.sweeping.is_none() {
            if state.durable_capture >= state.captured {
                state.synced(step.complete_until);
            }
            if state.phase == Phase::CatchingUp && state.durable_capture >= state.captured {
                state.phase = Phase::Shipping;
            }
        }
        news
    }

    /// A file is in the bucket, and all files before it.
    pub fn uploaded(&self, file: &Upload) {
        let footer = &file.entry.footer;
        let mut state = self.lock();
        state.upload_error = None;
        state.lost = None;
        state.durable = Some(file.txid);
        state.durable_capture = Some(footer.end.through);
        state.page_count = footer.end.page_count;
        state.synced(Some(footer.end.complete_until));
        if state.durable_capture >= state.captured {
            let until = state.captured_until;
            state.synced(until);
        }
        if state.phase == Phase::Snapshotting {
            state.phase = Phase::Shipping;
        }
        if file.txid == Txid::FIRST {
            state.unannounced = Some(Instant::now());
            self.news.notify_one();
        }
        drop(state);
        self.moved.notify_one();
    }

    /// Waits until something was uploaded since the last call. For one waiter: the database's own task.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// So many files of so many bytes wait for the bucket.
    pub fn spooled(&self, (files, bytes): (usize, u64)) {
        let mut state = self.lock();
        state.spool_files = files;
        state.spool_bytes = bytes;
    }

    /// The store was found to refuse a key that is taken.
    pub fn guarded(&self) {
        self.lock().guarded = true;
    }

    /// The store was found to ignore the condition that keeps two writers apart, or not.
    pub fn set_unguarded(&self, unguarded: bool) {
        let mut state = self.lock();
        state.unguarded = unguarded;
        state.guarded &= !unguarded;
    }

    /// What was in the bucket cannot be restored; another generation begins.
    pub fn lost(&self, reason: &str) {
        let mut state = self.lock();
        state.lost = Some(reason.to_owned());
        state.synced_at = None;
        state.durable = None;
        state.durable_capture = None;
    }

    /// A look that began at `began` found the chain in the bucket; `all` where nothing waits, either.
    pub fn found(&self, began: tokio::time::Instant, all: bool) {
        self.looks.found(began);
        if all {
            self.lock().upload_error = None;
        }
        self.moved.notify_one();
    }

    /// An operator asks for a new generation.
    pub fn ask_reset(&self, why: String) {
        self.looks.ask_reset(why);
        self.moved.notify_one();
    }

    /// A step of the engine failed. Returns whether this is news.
    pub fn engine_failed(&self, error: &str) -> bool {
        Self::note(&mut self.lock().engine_error, error)
    }

    /// An upload failed. Returns whether this is news.
    pub fn upload_failed(&self, error: &str) -> bool {
        Self::note(&mut self.lock().upload_error, error)
    }

    /// What would be told of the database now; `None` until it has a generation and the bucket was asked for the last
    /// heartbeat.
    #[must_use]
    pub fn heartbeat(&self, now: Timestamp, host: &str) -> Option<Heartbeat> {
        let state = self.state();
        if !state.looked {
            return None;
        }
        Some(Heartbeat {
            version: 1,
            generation: state.generation?,
            txid: state.durable,
            page_size: state.page_size?,
            page_count: state.page_count,
            written_at: now,
            synced_at: state.synced_at,
            last_transaction_at: state.last_transaction_at,
            wal_bytes: state.wal_bytes,
            last_error: state.last_error().cloned(),
            shipper_version: env!("CARGO_PKG_VERSION").to_owned(),
            sqlite_version: rusqlite::version().to_owned(),
            host: host.to_owned(),
            scrub: state.scrub,
            other_host: state.other_host,
        })
    }

    fn note(slot: &mut Option<String>, error: &str) -> bool {
        let news = slot.as_deref() != Some(error);
        *slot = Some(error.to_owned());
        news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scrubbed(generation: Option<GenerationId>) -> Status {
        let status = Status::new();
        status.lock().scrub = Some(ScrubReport {
            finished_at: Timestamp::UNIX_EPOCH,
            generation,
            txid: Txid::FIRST,
            mismatches: 0,
        });
        status
    }

    #[test]
    fn a_comparison_ends_with_its_generation() {
        let new = || GenerationId::from_uuid(uuid::Uuid::now_v7());
        let (ours, another) = (new(), new());
        let status = scrubbed(Some(ours));
        status.set_generation(ours);
        assert!(status.state().scrub.is_some(), "the same generation goes on");
        status.set_generation(another);
        assert_eq!(status.state().scrub, None, "it says nothing of another one");
        let status = scrubbed(None);
        status.set_generation(ours);
        assert_eq!(status.state().scrub, None, "of which one is not known");
    }
}
