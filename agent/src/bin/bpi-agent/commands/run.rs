//! `bpi-agent run`: the agent, until SIGTERM or SIGINT.

use bpi_agent::config::Config;
use clap::Args;

use crate::failure::Failure;

/// Run the agent
#[derive(Args)]
#[command(
    long_about = "Runs the agent until SIGTERM or SIGINT, and writes what happens to standard error, a line for each event.

What it has acknowledged to itself is on disk: it may be ended at any moment, by kill -9 too, and goes on from there."
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, config: Config) -> Result<(), Failure> {
    bpi_program::log::start(&config.log_level);
    Ok(bpi_agent::run::run(config)?)
}
