//! `shipper sync`: waits until all that was committed before the call is in the bucket.
//!
//! *Invariant*: exit code 0 only if the running shipper says so of every database that was asked for, and with no name
//! given, only if nothing that is asked for is refused.

use std::fmt::Write;

use anyhow::bail;
use replica::operator::{Exit, LogFormat, init_logging};

use crate::cli::SyncArgs;
use crate::commands::{print, unknown_database};
use crate::config::load_state_dir;
use crate::control::{Reply, Request, SyncOutcome, SyncReply, ask};

/// Asks, and waits.
///
/// # Errors
/// Not everything is in the bucket: each database with its reason.
pub fn run(args: &SyncArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "warn");
    let state_dir = load_state_dir(&args.config)?;
    let timeout = args.timeout.get();
    let request = Request::Sync {
        database: args.database.clone(),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    match ask(&state_dir, &request, timeout)? {
        Reply::Sync(reply) => conclude(args, &reply),
        Reply::Refused(reason) => bail!(reason),
        Reply::Status(_) | Reply::Reset(_) => bail!("the shipper answered another question"),
    }
}

fn conclude(args: &SyncArgs, reply: &SyncReply) -> anyhow::Result<Exit> {
    if let (Some(known), Some(name)) = (&reply.known, &args.database) {
        return Err(unknown_database(name, known).into());
    }
    let mut done = String::new();
    let mut failures: Vec<String> = Vec::new();
    for (name, outcome) in &reply.databases {
        match outcome {
            SyncOutcome::Durable { txid } => {
                let txid = txid.as_deref().unwrap_or("-");
                let _ = writeln!(done, "{name}: in the bucket up to TXID {txid}");
            }
            _ => failures.push(format!("{name}: {}", reason(args, outcome))),
        }
    }
    for refused in &reply.refused {
        failures.push(format!("{}: not shipped: {}", refused.path, refused.reason));
    }
    if done.is_empty() && failures.is_empty() {
        bail!(
            "no database is shipped\nHINT: no file matches [[database]] path; see `shipper doctor`"
        );
    }
    print(&done)?;
    if failures.is_empty() {
        return Ok(Exit::Holds);
    }
    bail!(failures.join("\n"))
}

fn reason(args: &SyncArgs, outcome: &SyncOutcome) -> String {
    match outcome {
        SyncOutcome::Durable { .. } => String::new(),
        SyncOutcome::NotAttached { reason } => format!("not attached: {reason}"),
        SyncOutcome::NotVouched { reason } => format!("not vouched for: {reason}"),
        SyncOutcome::TimedOut { last_error: Some(error) } => {
            format!("not in the bucket after {:?}: {error}", args.timeout.get())
        }
        SyncOutcome::TimedOut { last_error: None } => format!(
            "not in the bucket after {:?}\nHINT: wait longer with --timeout; `shipper status` shows how far it is",
            args.timeout.get()
        ),
        SyncOutcome::Stopped => {
            "the shipper stopped first\nHINT: start it again; it continues where it stopped"
                .to_owned()
        }
        SyncOutcome::Busy => {
            "too many wait for this database already\nHINT: try again when they are done".to_owned()
        }
    }
}
