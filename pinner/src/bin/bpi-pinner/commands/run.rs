//! `bpi-pinner run`: the pinner, until SIGTERM or SIGINT.

use bpi_pinner::config::Config;
use bpi_pinner::serve;
use clap::Args;

use crate::failure::Failure;

/// Run the pinner
#[derive(Args)]
#[command(
    long_about = "Runs the pinner until SIGTERM or SIGINT, and writes what happens to standard error, a line for each event.

Any error of fsync ends it: what was written before may be gone, and nothing may be acknowledged any more."
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, config: &Config) -> Result<(), Failure> {
    Ok(serve::run(config)?)
}
