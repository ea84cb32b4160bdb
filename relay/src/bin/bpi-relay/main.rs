//! The `bpi-relay` command: one file for each subcommand under `commands/`.

#![deny(unsafe_code)]

mod commands;
mod failure;

use std::path::PathBuf;
use std::process::ExitCode;

use bpi_relay::config::{CONFIG_FILE, CONFIG_VARIABLE, Config};
use clap::{Parser, Subcommand};

use commands::{check, completions, man, run};
use failure::Failure;

const LONG_ABOUT: &str = "\
A relay of the BPI Mesh: it hands sealed frames to those who have shown that a destination key is theirs.

It sees where frames go and how long they are, never what is in them. Peers are known by their X.509-SVIDs; nothing is kept on disk.";

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed; one sentence on standard error says why, with a code that docs/errors.md explains
  2    wrong usage, or a configuration that cannot be used

Files:
  /etc/bpi/relay.toml             configuration; only `identity` has no default

Environment:
  BPI_RELAY_CONFIG                configuration file, when --config is not given

Examples:
  bpi-relay --config relay.toml check --print     every field with its value in force
  bpi-relay --config relay.toml run
  bpi-relay completions bash > /etc/bash_completion.d/bpi-relay";

#[derive(Parser)]
#[command(name = "bpi-relay", version = env!("BPI_RELAY_VERSION"), about = "A relay of the BPI Mesh", long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: $BPI_RELAY_CONFIG, else /etc/bpi/relay.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// The configuration that was asked for.
fn load(asked: Option<PathBuf>) -> Result<Config, Failure> {
    let path = asked
        .or_else(|| std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| CONFIG_FILE.into());
    Ok(Config::load(&path)?)
}

fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    let done = match command {
        Command::Run(arguments) => load(config).and_then(|config| run::run(&arguments, config)),
        Command::Check(arguments) => load(config).and_then(|config| check::run(&arguments, &config)),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bpi-relay: {}: {}", failure.code(), bpi_program::output::plain(&failure.to_string()));
            ExitCode::from(failure.status())
        }
    }
}
