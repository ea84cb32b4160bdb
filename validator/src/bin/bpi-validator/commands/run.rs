//! `bpi-validator run`: the node, until SIGTERM or SIGINT.

use bpi_validator::node::config::Config;
use bpi_validator::node::run;
use clap::Args;

use crate::failure::Failure;

/// Run the node
#[derive(Args)]
#[command(
    long_about = "Runs the node until SIGTERM or SIGINT, and writes what happens to standard error, a line for each event."
)]
pub(crate) struct Arguments {
    /// Make the data directory first, if there is none
    #[arg(long)]
    init: bool,
}

pub(crate) fn run(arguments: &Arguments, config: Config) -> Result<(), Failure> {
    Ok(run::run(config, arguments.init)?)
}
