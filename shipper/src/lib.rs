//! Ships live SQLite databases to a replica, and restores them from it.
//!
//! - [`cli`]: what an operator types. [`config`]: what an operator configures.
//! - [`commands`]: one module for each command.
//! - [`control`]: how an operator asks a running shipper.
//! - [`wal`]: reading a live database without hurting it. [`ship`]: from there to the bucket.
//! - [`threads`]: where everything that may block runs.

pub mod chain;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod ship;
pub mod threads;
pub mod wal;

use replica::operator::Exit;

use crate::cli::{Cli, Command};

/// Runs one command.
///
/// # Errors
/// The command's; those that carry [`replica::operator::Usage`] are the operator's to fix.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Sync(args) => commands::sync::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Reset(args) => commands::reset::run(&args),
        Command::Restore(args) => commands::restore::run(args),
        Command::Points(args) => commands::points::run(args),
        Command::Doctor(args) => commands::doctor::run(&args),
    }
}
