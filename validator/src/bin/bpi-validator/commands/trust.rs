//! `bpi-validator trust`: what a trust file has to say of a chain, from its genesis.

use bpi_validator::node::config::Config;
use bpi_validator::node::genesis::Genesis;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::print;

/// Print the entry of this chain for trust files
#[derive(Args)]
#[command(
    long_about = "Prints the entry of the genesis's chain for a trust file of `docklock verify` and of agents: its id, the digests of its validator \
sets, and its pinners.

Whoever takes it believes this genesis: it has to come from somebody who may be believed."
)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, config: &Config) -> Result<(), Failure> {
    let genesis = Genesis::load(&config.genesis)?;
    let sets: Vec<String> = genesis.periods.iter().map(|period| period.set.digest().to_string()).collect();
    let mut chain = serde_json::json!({ "id": genesis.chain.to_string(), "validatorSets": sets });
    let pinners: Vec<String> = genesis.pinner_keys.iter().map(hex::encode).collect();
    if !pinners.is_empty() {
        chain["pinners"] = pinners.into();
    }
    Ok(print(&format!("{chain}\n"))?)
}
