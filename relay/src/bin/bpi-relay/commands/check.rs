//! `bpi-relay check`: whether the configuration and all that it names can be used.

use bpi_relay::config::Config;
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
    config.check_files()?;
    if arguments.format == Format::Json {
        return Ok(());
    }
    let networks = if config.networks.is_empty() { "all networks".to_owned() } else { config.networks.join(", ") };
    Ok(print(&format!(
        "listens at UDP {} and TCP {} for {networks}; up to {} connections, {} bytes and {} frames a second\n",
        config.listen.udp,
        config.listen.tcp,
        config.limits.connections,
        config.budget.bytes_per_s,
        config.budget.frames_per_s
    ))?)
}
