//! `bpi-validator keygen`: the two keys of a node, and what the genesis has to know of them.

use bpi_keyfile::PeerKey;
use bpi_protocol::consensus::ids::Height;
use bpi_validator::durable::watermark::Watermark;
use bpi_validator::keys::KeyFile;
use bpi_validator::node::config::Config;
use bpi_validator::node::genesis::Member;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{StdoutError, print};

/// Make this node's keys and print its part of a genesis
#[derive(Args)]
#[command(
    long_about = "Makes the voting key with its watermark and the peer key, and prints what a genesis has to know of them.

Nothing is overwritten. The watermark says how far the key has spoken; without it, or with an old copy of it, the key must never be used."
)]
pub(crate) struct Arguments {
    /// Share of proposals
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    weight: u16,
    /// Where it stands, for the figures of diversity
    #[arg(long, default_value = "")]
    region: String,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let key = KeyFile::create(&config.key_file)?;
    Watermark::create(&Watermark::path_beside(&config.key_file), key.fingerprint(), Height(0))?;
    let peer = PeerKey::create(&config.peer_key_file)?;
    let member = Member {
        public_key: hex::encode(key.public_key().0),
        possession: hex::encode(key.possession().0),
        peer_key: hex::encode(peer.public()),
        weight: arguments.weight,
        region: arguments.region.clone(),
    };
    let text = toml::to_string(&member).map_err(|error| Failure::Stdout(StdoutError::new(error)))?;
    Ok(print(&text)?)
}
