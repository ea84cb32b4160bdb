//! The `bpi-pinner` command: one file for each subcommand under `commands/`.

#![deny(unsafe_code)]

mod ask;
mod commands;
mod failure;

use std::path::PathBuf;
use std::process::ExitCode;

use bpi_pinner::config::{CONFIG_FILE, CONFIG_VARIABLE, Config};
use clap::{Parser, Subcommand};

use commands::{check, completion, keygen, log, run, scrub, status};
use failure::Failure;

const LONG_ABOUT: &str = "\
A pinner of the BPI Mesh: it keeps shards of sealed batches of receipts, shows to whoever asks that it has them, and makes anew what has gone bad.

It acknowledges what is durable and nothing else. It cannot read what it keeps.";

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed; one sentence on standard error says why, with a code that docs/errors.md explains
  2    wrong usage, or a configuration or key that cannot be used

Files:
  /etc/bpi/pinner.toml            configuration; only `chain` has no default
  /etc/bpi/pinner.key             the key that signs acknowledgements, mode 0600
  /var/lib/bpi/pinner/index       what is kept, and the log (RocksDB)
  /var/lib/bpi/pinner/shards      shards, unless `store.url` names a bucket
  /var/lib/bpi/pinner/staging     shards whose pieces are still coming
  /var/lib/bpi/pinner/wrong       proofs of batches that are wrongly encoded

Environment:
  BPI_PINNER_CONFIG               configuration file, when --config is not given

Examples:
  bpi-pinner --config pinner.toml keygen            a key, and what agents and peers have to know of it
  bpi-pinner --config pinner.toml check --print     every field with its value in force
  bpi-pinner --config pinner.toml run
  bpi-pinner --config pinner.toml log verify
  bpi-pinner --config pinner.toml log export --parquet log.parquet
  bpi-pinner completion bash > /etc/bash_completion.d/bpi-pinner";

#[derive(Parser)]
#[command(name = "bpi-pinner", version = env!("BPI_PINNER_VERSION"), about = "A pinner of the BPI Mesh", long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: $BPI_PINNER_CONFIG, else /etc/bpi/pinner.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Keygen(keygen::Arguments),
    Status(status::Arguments),
    Log(log::Arguments),
    Scrub(scrub::Arguments),
    Completion(completion::Arguments),
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
        Command::Run(arguments) => load(config).and_then(|config| run::run(&arguments, &config)),
        Command::Check(arguments) => load(config).and_then(|config| check::run(&arguments, &config)),
        Command::Keygen(arguments) => load(config).and_then(|config| keygen::run(&arguments, &config)),
        Command::Status(arguments) => load(config).and_then(|config| status::run(&arguments, &config)),
        Command::Log(arguments) => load(config).and_then(|config| log::run(&arguments, &config)),
        Command::Scrub(arguments) => load(config).and_then(|config| scrub::run(&arguments, &config)),
        Command::Completion(arguments) => completion::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bpi-pinner: {}: {}", failure.code(), bpi_program::output::plain(&failure.to_string()));
            ExitCode::from(failure.status())
        }
    }
}
