//! `bpi-pinner check`: whether the configuration and the key can be used.

use bpi_keyfile::PeerKey;
use bpi_pinner::config::Config;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{Format, StdoutError, print};

/// Check the configuration and the key
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print every field with its value in force
    #[arg(long)]
    print: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let unprintable = |error: String| Failure::Stdout(StdoutError::new(error));
    match (arguments.print, arguments.format) {
        (true, Format::Text) => print(&toml::to_string(config).map_err(|error| unprintable(error.to_string()))?)?,
        (_, Format::Json) => {
            let json = serde_json::to_string_pretty(config).map_err(|error| unprintable(error.to_string()))?;
            print(&format!("{json}\n"))?;
        }
        (false, Format::Text) => {}
    }
    let key = PeerKey::load(&config.key_file)?;
    if arguments.format == Format::Json {
        return Ok(());
    }
    let [agents, peers, validators] = config.members().map(|members| members.len());
    Ok(print(&format!(
        "pinner {} of chain {}: {agents} agents, {peers} other pinners, {validators} validators, {} relays\n",
        hex::encode(key.public()),
        config.chain,
        config.relay.len()
    ))?)
}
