//! The verifier: drills a replica (restore, check, record, alert) and watches its freshness.
//!
//! - [`drill`]: one drill, from a store to a [`record::Record`]; [`checks`]: what must hold of the copy.
//! - [`watch`]: pure judgement and alarm states.
//! - [`ledger`], [`alert`]: where it is recorded, who is told. Only they name AWS types.
//! - [`tasks`]: all of it together, for [`cli`] and [`handler`] (Lambda).
//!
//! It never writes to a database's data: only `receipt.json` beside it.

pub mod alert;
mod aws;
pub mod checks;
pub mod cli;
pub mod config;
pub mod databases;
pub mod drill;
pub mod handler;
pub mod heartbeat;
pub mod ledger;
pub mod record;
pub mod tasks;
pub mod watch;
pub mod words;

use std::sync::Arc;

use anyhow::Context;
use replica::operator::{Exit, LogFormat, conclude, init_logging};
use replica::store::S3Options;

use crate::config::Config;
use crate::tasks::Verifier;

/// Runs as the Lambda where its runtime API is there, else from the command line.
#[must_use]
pub fn run() -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    conclude(runtime.context("start runtime").and_then(|runtime| {
        if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
            init_logging(LogFormat::Json, "info");
            runtime.block_on(handler::serve(prepare)).map(Exit::from)
        } else {
            runtime.block_on(cli::run())
        }
    }))
}

/// The tasks of a Lambda: configured by its environment alone, without a progress bar.
async fn prepare() -> anyhow::Result<Verifier> {
    Verifier::new(Config::load(None)?, S3Options::default(), Arc::new(|_| Arc::new(()))).await
}
