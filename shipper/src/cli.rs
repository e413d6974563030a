//! The command line. Names and meanings are fixed: scripts rely on them.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use replica::format::{GenerationId, Txid};
use replica::operator::{DatabaseArg, FriendlyDuration};
use replica::store::{S3Options, V03Generation};

/// Where the configuration is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/seaworthy/shipper.toml";

/// Ships live SQLite databases to S3 or to files, and restores them from there.
#[derive(Debug, Parser)]
#[command(
    name = "shipper",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 it holds, 1 it does not (or it failed), 2 wrong usage or configuration.\n\
                  Credentials come the AWS way (environment, profile, instance role), never from the configuration."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ship every configured database until SIGTERM or SIGINT
    Run(RunArgs),
    /// Wait until all that is committed now is in the bucket ("safe to deploy now?")
    Sync(SyncArgs),
    /// Say how every database stands
    Status(StatusArgs),
    /// Restore a database into a file, which appears whole or not at all
    Restore(RestoreArgs),
    /// List the points that a database can be restored to
    Points(PointsArgs),
    /// Begin a new generation with a snapshot, where the chain is damaged; the old one stays
    Reset(ResetArgs),
    /// Check databases, bucket, rights and clock, and say what to do
    Doctor(DoctorArgs),
}

/// `shipper run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `shipper sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Only this database (else all of them)
    pub database: Option<String>,
    /// How long to wait at most (as 500ms, 30s, 5m)
    #[arg(long, default_value = "30s")]
    pub timeout: FriendlyDuration,
    /// The configuration of the running shipper
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `shipper status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The configuration of the running shipper
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `shipper reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Which database
    pub database: String,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// The configuration of the running shipper
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `shipper doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Which database, and how to reach it.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// A name from the configuration, or s3://bucket/prefix/name or file:///dir/name
    pub database: DatabaseArg,
    /// The configuration, where DATABASE is a name
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Base URL of an S3-compatible store
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region of the bucket (else the usual AWS variables and files)
    #[arg(long)]
    pub region: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl DatabaseArgs {
    /// The S3 options given on the command line.
    #[must_use]
    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            ..S3Options::default()
        }
    }
}

/// `shipper restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The file to restore into
    #[arg(long, short, value_name = "PATH")]
    pub output: PathBuf,
    /// The newest state at or before this time (RFC 3339, as 2026-11-22T09:30:00Z)
    #[arg(long, value_name = "TIME", conflicts_with = "txid")]
    pub timestamp: Option<Timestamp>,
    /// Exactly this state (hexadecimal, as `points` prints it)
    #[arg(long)]
    pub txid: Option<Txid>,
    /// From this generation (else the latest that can be restored)
    #[arg(long, value_name = "ID")]
    pub generation: Option<GenerationArg>,
    /// Only say which objects would be fetched
    #[arg(long)]
    pub dry_run: bool,
    /// Replace PATH, and remove a leftover PATH-wal and PATH-shm
    #[arg(long)]
    pub force: bool,
}

/// A generation as `points` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationArg {
    /// One of ours.
    Ltx(GenerationId),
    /// One that Litestream v0.3 wrote.
    V03(V03Generation),
}

impl FromStr for GenerationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let old = || text.parse().map(Self::V03);
        text.parse().map(Self::Ltx).or_else(|_| old()).map_err(|()| {
            "not a generation: a lower-case UUID, or 16 lower-case hexadecimal digits (Litestream v0.3)\n\
             HINT: `shipper points` lists them"
                .to_owned()
        })
    }
}

/// `shipper points`.
#[derive(Debug, Args)]
pub struct PointsArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_definition_holds() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn txids_come_with_or_without_zeros() {
        for text in ["1a", "000000000000001A"] {
            let cli = Cli::parse_from(["shipper", "restore", "app", "-o", "x", "--txid", text]);
            let Command::Restore(args) = cli.command else { unreachable!() };
            assert_eq!(args.txid, Some(Txid::new(26).unwrap()));
        }
    }

    #[test]
    fn generations_are_ours_or_of_litestream_v03() {
        let uuid = "01938c5e-7a00-7000-8000-000000000001";
        assert_eq!(uuid.parse(), Ok(GenerationArg::Ltx(uuid.parse().unwrap())));
        let old = "a28762c50b44d4b1";
        assert_eq!(old.parse(), Ok(GenerationArg::V03(old.parse().unwrap())));
        for other in ["", "a28762c50b44d4b", "A28762C50B44D4B1", "../a28762c50b44d", "latest"] {
            let error = other.parse::<GenerationArg>().unwrap_err();
            assert!(error.contains("\nHINT: `shipper points`"), "{other}: {error}");
        }
    }

    #[test]
    fn timestamp_and_txid_exclude_each_other() {
        let both = ["shipper", "restore", "app", "-o", "x", "--txid", "1", "--timestamp"];
        let both = both.into_iter().chain(["2026-11-22T09:30:00Z"]);
        assert_eq!(Cli::try_parse_from(both).unwrap_err().exit_code(), 2);
    }
}
