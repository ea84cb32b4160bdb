//! `docklock config check`: whether the configuration can be used, and what it says.

use std::path::Path;

use clap::{Args, Subcommand};
use docklock::config::Config;

use crate::failure::Failure;
use crate::output::{Format, print, print_json};

/// Look at the configuration
#[derive(Args)]
#[command(
    long_about = "Looks at the configuration: /etc/docklock/docklock.toml, the file that DOCKLOCK_CONFIG names, or --config FILE.

Every field has a default and an unknown field is refused, so a misspelt name never means the default."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say whether the configuration can be used
    ///
    /// Reads it as a run would and names the first thing that is wrong with it: the file, the line, the field, the value. Exit
    /// status 0 when it can be used, 2 when not.
    Check {
        /// Also print every field with the value in force, as TOML
        #[arg(long)]
        print: bool,
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let Action::Check { print: with_values, format } = &arguments.action;
    let (config, source) = Config::load_with_source(config)?;
    match format {
        Format::Json => print_json(&serde_json::json!({ "source": source, "config": config }))?,
        Format::Text => {
            let origin = source
                .map_or("built-in defaults (no configuration file)".to_owned(), |path| path.display().to_string());
            let mut text = format!("# {origin}: can be used\n");
            if *with_values {
                let values = toml::to_string(&config)
                    .map_err(|error| Failure::Stdout { source: std::io::Error::other(error) })?;
                text.push_str(&values);
            }
            print(&text)?;
        }
    }
    Ok(0)
}
