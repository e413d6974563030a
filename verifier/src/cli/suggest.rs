//! `verifier suggest`: what it takes and how it ends.

use std::sync::Arc;

use clap::Args;
use replica::operator::{Bar, DatabaseArg, Exit};
use replica::store::S3Options;

use crate::cli::print;
use crate::config::Config;
use crate::tasks::Verifier;

/// The arguments.
#[derive(Debug, Args)]
pub(super) struct Suggest {
    /// A configured name, or a URL (s3://bucket/prefix/name or file:///dir/name)
    #[arg(value_name = "DATABASE")]
    database: DatabaseArg,
    /// Base URL of an S3-compatible store
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Region, else the AWS defaults
    #[arg(long)]
    region: Option<String>,
}

/// Prints the proposal.
pub(super) async fn run(config: Config, arguments: Suggest) -> anyhow::Result<Exit> {
    let given = S3Options {
        endpoint: arguments.endpoint,
        region: arguments.region,
        ..S3Options::default()
    };
    let verifier = Verifier::new(config, given, Arc::new(|bytes| Bar::new(bytes))).await?;
    let survey = verifier.suggest(&arguments.database).await?;
    print(&survey.to_toml())?;
    Ok(Exit::Holds)
}
