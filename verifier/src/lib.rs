//! The verifier: drills a replica (restore, check, record, alert) and watches its freshness.
//!
//! - [`drill`]: one drill, from a store to a [`record::Record`]; [`checks`]: what must hold of the copy.
//! - [`sabotage`]: drills of copies that were damaged on purpose.
//! - [`watch`]: pure judgement and alarm states.
//! - [`compact`]: many small files become few; snapshots from a proven copy.
//! - [`ledger`], [`alert`]: where it is recorded, who is told. Only they name AWS types.
//! - [`tasks`]: all of it together, for [`cli`] and [`handler`] (Lambda).
//!
//! It never changes or deletes what was shipped. It adds `receipt.json`, and compactions (levels 1 to 3 and 9).

pub mod alert;
mod aws;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod compact;
pub mod config;
pub mod databases;
pub mod drill;
pub mod handler;
pub mod heartbeat;
pub mod ledger;
pub mod record;
pub mod rules;
pub mod sabotage;
pub mod suggest;
pub mod tasks;
pub mod watch;
pub mod words;

use std::sync::Arc;

use anyhow::Context;
use replica::operator::{Exit, LogFormat, Stopped, block_on, conclude, init_logging};
use replica::store::S3Options;

use crate::config::Config;
use crate::tasks::Verifier;

/// Makes checks where a drill started this as its child ([`drill::ChildProcess`]), runs as the Lambda where its runtime API is there, else from the command line.
#[must_use]
pub fn run() -> Exit {
    // A child of a drill: before anything is configured, logged, or asked of anybody.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(subcommand), Some(copy), None) =
        (arguments.next(), arguments.next(), arguments.next())
        && subcommand == drill::SUBCOMMAND
    {
        return conclude(drill::answer(copy.as_ref()).map(|()| Exit::Holds));
    }
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        init_logging(LogFormat::Json, "info");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime
            .context("start runtime")
            .and_then(|runtime| runtime.block_on(handler::serve(prepare)));
        return conclude(served);
    }
    // A signal drops the drill, and with it the restored copy.
    let outcome = block_on(cli::run());
    let stopped = outcome.as_ref().is_err_and(|error| error.is::<Stopped>());
    let exit = conclude(outcome);
    // Exit 1 would say that the backup failed.
    if stopped { Exit::Inconclusive } else { exit }
}

/// The tasks of a Lambda: configured by its environment alone, without a progress bar.
async fn prepare() -> anyhow::Result<Verifier> {
    Verifier::new(Config::load(None)?, S3Options::default(), Arc::new(|_| Arc::new(()))).await
}
