//! `bpi-pinner keygen`: the key of a pinner, and what others have to know of it.

use bpi_keyfile::PeerKey;
use bpi_pinner::config::Config;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::print;

/// Make this pinner's key and print its entry for agents, validators and other pinners
#[derive(Args)]
#[command(
    long_about = "Makes the key that signs acknowledgements and prints its identity and region: what the genesis, agents and \
other pinners name this one by. Nothing is overwritten."
)]
pub(crate) struct Arguments {
    /// Where it stands, for the figures of diversity [default: `region` of the configuration]
    #[arg(long)]
    region: Option<String>,
    /// Print what belongs to the key that is there, and make none
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let key = if arguments.print { PeerKey::load(&config.key_file)? } else { PeerKey::create(&config.key_file)? };
    let region = arguments.region.as_ref().unwrap_or(&config.region).clone();
    Ok(print(&format!("identity = \"{}\"\nregion = {}\n", hex::encode(key.public()), toml::Value::String(region)))?)
}
