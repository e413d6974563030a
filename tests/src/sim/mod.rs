//! Deterministic simulation: the real engine, chain and uploader beside a real SQLite application, with everything
//! around them made up: time, the bucket, the disk, crashes, power failures, foreign hands.
//!
//! - [`schedule`]: from a seed to what happens, and [`schedule::run`], which does it.
//! - [`world`], `foreign`: what may happen. [`oracle`], [`history`]: what must be true whatever does.
//! - [`shipper`], [`application`]: who acts, on a [`site`]. [`clock`], [`disk`], [`power`]: what they act in.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod application;
pub mod clock;
pub mod disk;
mod foreign;
pub mod history;
pub mod nature;
pub mod oracle;
pub mod power;
pub mod schedule;
pub mod shipper;
pub mod site;
pub mod world;
