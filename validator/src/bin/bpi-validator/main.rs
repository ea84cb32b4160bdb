//! The `bpi-validator` command: one file for each subcommand under `commands/`.

#![deny(unsafe_code)]

mod commands;
mod failure;

use std::path::PathBuf;
use std::process::ExitCode;

use bpi_validator::node::config::{CONFIG_FILE, CONFIG_VARIABLE, Config};
use clap::{Parser, Subcommand};

use commands::{completion, config, genesis, headers, init, keygen, man, run, status, trust};
use failure::Failure;

const LONG_ABOUT: &str = "\
A validator of a mainnet-mini: it agrees with its peers on headers that commit receipts, and keeps them.

It sees hashes of receipts and never what they are of. A chain is named by its genesis, a file that all its nodes have alike.";

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed; one sentence on standard error says why, with a code that docs/errors.md explains
  2    wrong usage, or a configuration, genesis or key that cannot be read as what it should be

Files:
  /etc/bpi/validator.toml         configuration; only `genesis` has no default
  /etc/bpi/validator.key          the key that votes, mode 0600; <key>.watermark is how far it has spoken: never copy that back
  /etc/bpi/peer.key               the key that peers know this node by, mode 0600
  /var/lib/bpi/validator/         headers, votes, the log of receipts

Environment:
  BPI_VALIDATOR_CONFIG            configuration file, when --config is not given

Examples:
  bpi-validator --config a/validator.toml keygen > a/member.toml
  bpi-validator genesis --name devnet a/member.toml b/member.toml > genesis.toml
  bpi-validator --config a/validator.toml init       make the data directory
  bpi-validator --config a/validator.toml run
  bpi-validator --config a/validator.toml trust      the chain, for trust files
  bpi-validator --config a/validator.toml status     what the running node says";

#[derive(Parser)]
#[command(name = "bpi-validator", version = env!("BPI_VALIDATOR_VERSION"), about = "A validator of a mainnet-mini", long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: $BPI_VALIDATOR_CONFIG, else /etc/bpi/validator.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Keygen(keygen::Arguments),
    Genesis(genesis::Arguments),
    Init(init::Arguments),
    Run(run::Arguments),
    Status(status::Arguments),
    Trust(trust::Arguments),
    Headers(headers::Arguments),
    Config(config::Arguments),
    Completion(completion::Arguments),
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
        Command::Keygen(arguments) => load(config).and_then(|config| keygen::run(&arguments, &config)),
        Command::Genesis(arguments) => genesis::run(&arguments),
        Command::Init(arguments) => load(config).and_then(|config| init::run(&arguments, &config)),
        Command::Run(arguments) => load(config).and_then(|config| run::run(&arguments, config)),
        Command::Status(arguments) => load(config).and_then(|config| status::run(&arguments, &config)),
        Command::Trust(arguments) => load(config).and_then(|config| trust::run(&arguments, &config)),
        Command::Headers(arguments) => load(config).and_then(|config| headers::run(&arguments, &config)),
        Command::Config(arguments) => load(config).and_then(|config| self::config::run(&arguments, &config)),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bpi-validator: {}: {}", failure.code(), bpi_program::output::plain(&failure.to_string()));
            ExitCode::from(failure.status())
        }
    }
}
