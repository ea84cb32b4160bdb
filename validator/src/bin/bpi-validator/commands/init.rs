//! `bpi-validator init`: an empty data directory for a chain.

use bpi_validator::node::config::Config;
use bpi_validator::node::genesis::Genesis;
use bpi_validator::node::run;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::print;

/// Make the data directory
#[derive(Args)]
#[command(
    long_about = "Makes an empty data directory for the chain of the genesis. One that is there is never touched."
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, config: &Config) -> Result<(), Failure> {
    let genesis = Genesis::load(&config.genesis)?;
    run::init(config, &genesis)?;
    Ok(print(&format!("{} is ready for chain {} ({})\n", config.data_dir.display(), genesis.name, genesis.chain))?)
}
