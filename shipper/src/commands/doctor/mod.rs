//! `shipper doctor`: everything that has to be right before shipping can be, each with what to do about it.
//!
//! *Invariant*: it changes nothing: no database is opened (only its first bytes are read), nothing is written to the
//! bucket, and nothing is deleted to find out whether it could be. What only a write would tell, the running shipper
//! is asked for.

mod bucket;
mod databases;
mod findings;
mod machine;
mod shipper;

use replica::operator::{Exit, LogFormat, block_on, init_logging};

use self::findings::Findings;
use crate::cli::DoctorArgs;
use crate::commands::print;
use crate::config::Config;

/// Examines, and prints. Exit code 1 where anything keeps a database from being shipped.
///
/// # Errors
/// A configuration that cannot work.
pub fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "error");
    let config = Config::load(&args.config)?;
    let found = config.databases.look();
    let mut findings = Findings::default();
    findings.ok(format!("configuration {}", args.config.display()));
    let running = shipper::examine(&config, &mut findings);
    databases::examine(&config, &found, &mut findings);
    machine::examine(&config, &found, running.as_ref(), &mut findings);
    let outcome = block_on(bucket::examine(&config, &found, running.as_ref(), &mut findings));
    print(&findings.to_string())?;
    outcome?;
    Ok(if findings.any_failure() { Exit::Fails } else { Exit::Holds })
}
