//! The command line: parse, then run a task.

mod sabotage;
mod suggest;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use replica::operator::{Bar, DatabaseArg, Exit, LogFormat, init_logging, usage};
use replica::store::S3Options;

use crate::config::Config;
use crate::drill::{Asked, ShowProgress};
use crate::tasks::{CompactTask, DrillTask, Tasks, Verifier};

/// Proves a backup by restoring it.
#[derive(Debug, Parser)]
#[command(name = "verifier", version, about, max_term_width = 100)]
struct Cli {
    /// Configuration file; variables like SEAWORTHY_REPLICA__URL win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Restores into a temporary directory, checks the copy, records and alerts
    #[command(
        after_help = "Exit code: 0 PASS, 1 FAIL (the backup), 2 wrong usage or configuration, \
        3 INCONCLUSIVE (its surroundings).\n\n\
        With --json, one named DATABASE answers with its record; several, or none (all), with \
        {\"verdict\": the worst, \"records\": [...]}."
    )]
    Drill(Drill),
    /// Freshness of every database: is it shipped, was it lately proven?
    #[command(
        after_help = "Exit code: 0 all is well, 1 one is stuck or dead or its last proof is too old, \
        2 wrong usage or configuration, 3 it could not be found out."
    )]
    Watch(Watch),
    /// Merges many small files into few, and makes snapshots from proven copies; deletes nothing
    #[command(
        after_help = "Safe at any time, beside a shipper, a drill or another compaction. Exit code: 0 all that can be \
        compacted is, 1 something is wrong with the backup, 2 wrong usage or configuration, 3 something was left \
        (the next run goes on from there)."
    )]
    Compact(Compact),
    /// Damages scratch copies in every way it knows, and shows which check of the drill catches each
    #[command(
        after_help = "Exit code: 0 every damage was caught (or is harmless, or named as not catchable), 1 one was not, \
        2 wrong usage or configuration, 3 there is no healthy backup to damage, or no room.\n\n\
        The replica is only read; nothing is recorded or mailed. Copies stand in TMPDIR."
    )]
    Sabotage(sabotage::Sabotage),
    /// Restores a copy and proposes a commented drill.toml from what is in it, on stdout
    #[command(
        after_help = "Exit code: 0, 1 it could not be restored or read, 2 wrong usage or configuration.\n\n\
        Edit the proposal, and put it beside the database's generations as drill.toml."
    )]
    Suggest(suggest::Suggest),
}

#[derive(Debug, Args)]
struct Drill {
    /// Configured names, or URLs that need no configuration (s3://bucket/prefix/name or
    /// file:///dir/name); none: every database
    #[arg(value_name = "DATABASE")]
    databases: Vec<DatabaseArg>,
    /// The point: latest, oldest, random (any earlier one), a time (the newest state at or before it), or a TXID
    #[arg(long, default_value = "latest", value_name = "latest|oldest|random|T|X")]
    at: Asked,
    /// Draws the random point that a record with this seed has, if the replica is what it was
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..Asked::SEEDS))]
    seed: Option<u64>,
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

#[derive(Debug, Args)]
struct Watch {
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Compact {
    /// Configured names, or URLs that need no configuration (s3://bucket/prefix/name or
    /// file:///dir/name); none: every database
    #[arg(value_name = "DATABASE")]
    databases: Vec<DatabaseArg>,
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

/// Parses the arguments and runs.
///
/// # Errors
/// Those of the task; wrong usage ends the process with exit code 2 before.
pub async fn run() -> anyhow::Result<Exit> {
    let cli = Cli::parse();
    init_logging(LogFormat::Text, "warn");
    let config = Config::load(cli.config.as_deref())?;
    match cli.command {
        Command::Drill(arguments) => drill(config, arguments).await,
        Command::Watch(arguments) => watch(config, &arguments).await,
        Command::Compact(arguments) => compact(config, arguments).await,
        Command::Sabotage(arguments) => sabotage::run(config, arguments).await,
        Command::Suggest(arguments) => suggest::run(config, arguments).await,
    }
}

async fn drill(config: Config, arguments: Drill) -> anyhow::Result<Exit> {
    let given = S3Options {
        endpoint: arguments.endpoint,
        region: arguments.region,
        ..S3Options::default()
    };
    let progress: ShowProgress = Arc::new(|bytes| Bar::new(bytes));
    let verifier = Verifier::new(config, given, progress).await?;
    let asked = match (arguments.at, arguments.seed) {
        (asked, None) => asked,
        (Asked::Random(_), seed) => Asked::Random(seed),
        _ => return Err(usage("--seed is for --at random").into()),
    };
    let task = DrillTask { databases: arguments.databases, asked, deadline: None };
    let answer = verifier.drill(task).await?;
    let text = if arguments.json { document(&answer)? } else { answer.text() };
    print(&text)?;
    Ok(answer.exit())
}

async fn watch(config: Config, arguments: &Watch) -> anyhow::Result<Exit> {
    let verifier = Verifier::new(config, S3Options::default(), Arc::new(|_| Arc::new(()))).await?;
    let answer = verifier.watch().await?;
    let text = if arguments.json { document(&answer)? } else { answer.text() };
    print(&text)?;
    Ok(answer.exit())
}

async fn compact(config: Config, arguments: Compact) -> anyhow::Result<Exit> {
    let given = S3Options {
        endpoint: arguments.endpoint,
        region: arguments.region,
        ..S3Options::default()
    };
    let verifier = Verifier::new(config, given, Arc::new(|bytes| Bar::new(bytes))).await?;
    let task = CompactTask { databases: arguments.databases, deadline: None };
    let answer = verifier.compact(task).await?;
    let text = if arguments.json { document(&answer)? } else { answer.text() };
    print(&text)?;
    Ok(answer.exit())
}

fn document(answer: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(answer)? + "\n")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write answer to stdout")
}
