//! `bpi-agent check`: whether the configuration and all that it names can be used.

use bpi_agent::config::Config;
use bpi_agent::run::read_trust;
use bpi_keyfile::PeerKey;
use clap::Args;

use crate::failure::Failure;
use bpi_program::output::{Format, StdoutError, print};

/// Check the configuration and the files it names
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
    let key = PeerKey::load(&config.peer_key_file)?;
    read_trust(&config.trust_file)?;
    if arguments.format == Format::Json {
        return Ok(());
    }
    Ok(print(&format!(
        "agent {} of {} tenants, for {} validators, {} pinners and {} relays; shards {} of {}\n",
        hex::encode(key.public()),
        config.tenant.len(),
        config.validator.len(),
        config.pinner.len(),
        config.relay.len(),
        config.coding.k,
        config.coding.n,
    ))?)
}
