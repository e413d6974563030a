//! What both programs share towards the person who runs them: exit codes, messages, configuration
//! files, logs, the `DATABASE` argument and progress bars.
//!
//! Invariants: stdout carries results only (logs, progress and errors go to stderr); an error ends
//! in its `HINT:` lines; a wrong word in a configuration is refused, never ignored.

mod bar;
mod database;
mod duration;
mod exit;
mod load;
mod logging;
mod stop;

pub use bar::{Bar, Steps};
pub use database::DatabaseArg;
pub use duration::FriendlyDuration;
pub use exit::{Exit, Usage, conclude, explain, usage};
pub use load::{from_toml, load, nearest};
pub use logging::{LogFormat, init_logging};
pub use stop::{Stopped, block_on};
