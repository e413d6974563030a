//! From a replica to a database file: a pure plan (which files, in which order), then an apply that
//! streams them with bounded memory and verifies every checksum it passes.

mod apply;
mod canvas;
mod error;
mod fetch;
mod inventory;
mod output;
mod paint;
mod plan;
mod points;
mod publish;
mod select;
mod times;

pub use apply::{Progress, Restored, apply};
pub use error::RestoreError;
pub use inventory::Inventory;
pub use plan::{Plan, plan};
pub use points::{RestorePoint, points};
pub use publish::publish;
pub use select::{Selected, Target, select};
