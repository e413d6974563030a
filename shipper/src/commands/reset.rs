//! `shipper reset`: asks the running shipper for a new generation with a snapshot.
//!
//! For a chain that is damaged, lost its beginning, or whose replica was emptied on purpose. Nothing is deleted: the old
//! generation stays, and restores as far as it did.

use std::time::Duration;

use anyhow::bail;
use replica::operator::{Exit, LogFormat, init_logging};

use crate::cli::ResetArgs;
use crate::commands::{print, unknown_database};
use crate::config::load_state_dir;
use crate::control::{Reply, Request, ResetReply, ask};

/// Asks.
///
/// # Errors
/// No shipper is running, or it knows no such database.
pub fn run(args: &ResetArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "warn");
    let state_dir = load_state_dir(&args.config)?;
    let why = args.why.as_deref().unwrap_or("no reason given");
    let request = Request::Reset { database: args.database.clone(), why: why.to_owned() };
    match ask(&state_dir, &request, Duration::ZERO)? {
        Reply::Reset(ResetReply { known: None }) => {}
        Reply::Reset(ResetReply { known: Some(known) }) => {
            return Err(unknown_database(&args.database, &known).into());
        }
        Reply::Refused(reason) => bail!(reason),
        Reply::Status(_) | Reply::Sync(_) => bail!("the shipper answered another question"),
    }
    print(&format!(
        "{0}: a new generation begins with a snapshot; the old one stays as it is\n\
         `shipper sync {0}` returns when the snapshot is in the bucket\n",
        args.database
    ))?;
    Ok(Exit::Holds)
}
