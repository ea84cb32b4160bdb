//! `bpi-pinner status`: how the running pinner does.

use bpi_pinner::config::Config;
use clap::Args;
use serde_json::Value;

use crate::ask::ask;
use crate::failure::Failure;
use bpi_program::output::{Format, print};

/// Show how the running pinner does
#[derive(Args)]
pub(crate) struct Arguments {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments, config: &Config) -> Result<(), Failure> {
    let body = ask(&config.api, "GET", "/v1/status")?;
    if arguments.format == Format::Json {
        return Ok(print(&format!("{}\n", body.trim_end()))?);
    }
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    let number = |path: &str| said.pointer(path).map_or_else(|| "-".to_owned(), Value::to_string);
    Ok(print(&format!(
        "batches    {}\nshards     {} kept, {} bad\nbytes      {} used, {} free\nunder way  {} batches, {} bytes\nscrubbed   everything within the last {} s\nlog        {} entries\nrelays     {} connected\n",
        number("/batches"),
        number("/shards/kept"),
        number("/shards/bad"),
        number("/bytes/used"),
        number("/bytes/free"),
        number("/staging/offers"),
        number("/staging/bytes"),
        number("/unscrubbedS"),
        number("/log/length"),
        number("/relays"),
    ))?)
}
