//! From a live database to its replica: capture, spool, upload.
//!
//! One runtime thread does all that waits (network, notices, timers); a few blocking threads do the steps of the
//! engines. Between [`engine`] and [`upload`] stands the chain's spool ([`crate::chain`]), so that the application
//! never waits for the network.

mod bounded;
pub mod capture;
mod claims;
mod database;
pub mod engine;
mod fleet;
mod generation;
mod heartbeat;
pub mod limits;
mod names;
mod notify;
mod pages;
pub mod presence;
pub mod registry;
mod rival;
mod roster;
mod run;
mod seen;
pub mod status;
pub mod sweep;
pub mod sync;
mod turns;
pub mod upload;
mod witnesses;

pub use run::run;
