//! From a replica to a database file: a pure plan (which files, in which order), then an apply that
//! streams them with bounded memory and verifies every checksum it passes.

mod apply;
mod around;
mod believe;
mod canvas;
mod error;
mod fetch;
mod find;
mod in_use;
mod inventory;
mod latest;
mod output;
mod paint;
mod plan;
mod points;
mod publish;
mod refusal;
mod select;
mod states;
mod times;
mod tip;
mod v03;
mod verify;
mod walk;

pub use apply::{Progress, Restored, apply};
pub use around::restore;
pub use believe::{Doubt, doubts};
pub use error::{NoOtherWay, RestoreError};
pub use find::{Found, Points, all_points, find, find_v03};
pub use inventory::Inventory;
pub use plan::{Plan, plan};
pub use points::{RestorePoint, points};
pub use publish::{publish, publish_selected, publish_v03};
pub use refusal::Rival;
pub use select::{Selected, Target, select};
pub use states::States;
pub use v03::{V03Inventory, V03Plan, V03Point, V03Restored, V03Selected, apply_v03};
pub use verify::{is_end, spoiled, verify};
