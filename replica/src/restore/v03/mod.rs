//! Replicas that Litestream v0.3 wrote, read only: a snapshot of the database file, and the bytes of its WALs since.
//!
//! Such a replica knows no TXIDs, no checksum of the database, and no times but those of its objects: restore points
//! are told apart by time alone.

mod apply;
mod plan;
mod select;
mod states;
mod wal;

pub use apply::{V03Restored, apply_v03};
pub use plan::{V03Inventory, V03Plan};
pub use select::V03Selected;
pub use states::V03Point;

pub(super) use select::{inventories, select};
pub(super) use states::states;
