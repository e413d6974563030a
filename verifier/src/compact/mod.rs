//! Compaction: many small files become few, so that a restore reads few objects. Nothing is ever deleted.
//!
//! Each level merges [`FAN_OUT`] files of the level below, in windows that TXIDs alone decide ([`windows()`]): two
//! compactions at once, or one that was killed and one that goes on, choose the same windows and make the same
//! bytes, so that a second upload finds its own object there. Every existing restore point stays, since the files it is
//! restored from stay. A level-9 snapshot is encoded from nothing but a copy that a drill has just proven
//! ([`promote`]).
//!
//! Invariants: only what is listed (and, in the generation that the heartbeat names, durable by its word) is merged,
//! only whole windows, never over a gap. Every input is decoded to its end; one that is damaged stops its own window and
//! nothing else. Memory is bounded by [`FAN_OUT`] inputs of a few pieces each.
//!
//! What a crash leaves behind: whole objects, since each is one upload that is written once; a private directory, which
//! the next run sweeps.

mod chain;
mod error;
mod input;
mod merge;
mod report;
mod snapshot;
mod windows;

pub use chain::{Bench, compact_chain, limit};
pub use error::CompactError;
pub use merge::{Merged, merge_window};
pub use report::{CompactAnswer, DEADLINE, Figures, Report, SnapshotReport};
pub use snapshot::{Promoted, SnapshotState, promote, snapshot_state};
pub use windows::{FAN_OUT, Gap, LEVELS, Planned, Window, windows};

use replica::store::{Body, LtxAttributes, LtxKey, PutOutcome, Store, StoreError};

/// Writes an object once, also where the store knows no condition: then after a look.
async fn put_once(
    store: &dyn Store,
    key: &LtxKey,
    body: Body,
    attributes: LtxAttributes,
) -> Result<PutOutcome, StoreError> {
    match store.put_ltx(key, body.clone(), attributes).await {
        Err(error) if error.is_unguarded() => store.put_ltx_unguarded(key, body, attributes).await,
        outcome => outcome,
    }
}
