//! Entry point: parse, run, exit.

use clap::Parser;
use replica::operator::{Exit, conclude};

fn main() -> Exit {
    conclude(shipper::run(shipper::cli::Cli::parse()))
}
