//! `bpi-validator config`: whether the configuration and all that it names can be used.

use bpi_keyfile::PeerKey;
use bpi_validator::keys::KeyFile;
use bpi_validator::node::config::Config;
use bpi_validator::node::genesis::Genesis;
use bpi_validator::node::run;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{StdoutError, print};

/// Check the configuration, the genesis and the keys
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print every field with its value in force
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    if arguments.print {
        let text = toml::to_string(config).map_err(|error| Failure::Stdout(StdoutError::new(error)))?;
        print(&text)?;
    }
    let genesis = Genesis::load(&config.genesis)?;
    let peer = PeerKey::load(&config.peer_key_file)?;
    let key = if config.observe { None } else { Some(KeyFile::load(&config.key_file)?) };
    let place = run::place(&genesis, key.as_ref().map(KeyFile::public_key), &peer.public())?;
    let agents = run::agents(config, &genesis, &peer.public())?.len();
    Ok(print(&format!(
        "chain {} ({}), {} validators at first, {} pinners; this node {place}, and hears {agents} agents\n",
        genesis.name,
        genesis.chain,
        genesis.periods[0].set.len(),
        genesis.pinners.len()
    ))?)
}
