//! `bpi-relay run`: the relay, until SIGTERM or SIGINT.

use bpi_relay::config::Config;
use bpi_relay::serve;
use clap::Args;

use crate::failure::Failure;

/// Run the relay
#[derive(Args)]
#[command(
    long_about = "Runs the relay until SIGTERM or SIGINT, and writes what happens to standard error, a line for each event.

At the first signal it takes nothing new and gives its peers `drain_s` seconds to go elsewhere."
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, config: Config) -> Result<(), Failure> {
    Ok(serve::run(config)?)
}
