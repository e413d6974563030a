//! `shipper run`: ships until told to stop.

use replica::operator::{Exit, LogFormat, init_logging};

use crate::cli::RunArgs;
use crate::config::Config;

/// Ships every configured database until SIGTERM or SIGINT.
///
/// # Errors
/// A configuration that cannot work, or a failure that stops every database.
pub fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    init_logging(LogFormat::Text, "info");
    let config = Config::load(&args.config)?;
    crate::ship::run(config)?;
    Ok(Exit::Holds)
}
