//! `verifier sabotage`: what it takes and how it ends.

use std::sync::Arc;

use clap::Args;
use replica::operator::{Bar, DatabaseArg, Exit, Steps, Stopped, explain};
use replica::store::S3Options;

use crate::cli::{document, print};
use crate::config::Config;
use crate::sabotage::{NoRoom, NotLtx};
use crate::tasks::Verifier;

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct Sabotage {
    /// A configured name, or a URL (s3://bucket/prefix/name or file:///dir/name)
    #[arg(value_name = "DATABASE")]
    database: DatabaseArg,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
    /// Base URL of an S3-compatible store
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Region, else the AWS defaults
    #[arg(long)]
    region: Option<String>,
}

/// Tries every damage. Where there is nothing to damage, nothing was found out about the checks: exit 1 would say that
/// one of them missed something.
pub(super) async fn run(config: Config, arguments: Sabotage) -> anyhow::Result<Exit> {
    let given = S3Options {
        endpoint: arguments.endpoint,
        region: arguments.region,
        ..S3Options::default()
    };
    let verifier = Verifier::new(config, given, Arc::new(|bytes| Bar::new(bytes))).await?;
    let steps = Steps::new();
    let trial = Arc::new(move |number, of, damage: &str| steps.at(number, of, damage));
    let report = match verifier.sabotage(&arguments.database, trial).await {
        Ok(report) => report,
        Err(error) if Exit::of(&error) == Exit::Usage || error.is::<Stopped>() => {
            return Err(error);
        }
        Err(error) => {
            let mut told = explain(&error);
            if !error.is::<NoRoom>() && !error.is::<NotLtx>() {
                told.push_str("\nHINT: sabotage needs a healthy backup: drill it first");
            }
            eprintln!("{told}");
            return Ok(Exit::Inconclusive);
        }
    };
    let text = if arguments.json { document(&report)? } else { report.text() };
    print(&text)?;
    Ok(report.exit())
}
