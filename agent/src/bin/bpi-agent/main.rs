//! The `bpi-agent` command: one file for each subcommand under `commands/`.

#![deny(unsafe_code)]

mod commands;
mod failure;

use std::path::PathBuf;
use std::process::ExitCode;

use bpi_agent::config::{CONFIG_FILE, CONFIG_VARIABLE, Config};
use clap::{Parser, Subcommand};

use commands::{check, completions, evidence, keygen, man, order, restore, run};
use failure::Failure;

const LONG_ABOUT: &str = "\
The agent of a host: it carries DockLock's records to the mesh, and brings back what makes evidence of them.

Records are packed for each tenant, sealed for the tenant's readers, spread over pinners as shards, and named to validators by hashes alone.";

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed; one sentence on standard error says why, with a code that docs/errors.md explains
  2    wrong usage, or a configuration, key or trust file that cannot be used

Files:
  /etc/bpi/agent.toml             configuration
  /etc/bpi/agent.key              the key that the mesh knows this agent by, mode 0600
  /var/lib/docklock/spool/        DockLock's records, which the agent only reads
  /var/lib/bpi/agent/             db.class and sealed batches under way
  /run/bpi/agent.sock             the local API

Environment:
  BPI_AGENT_CONFIG                configuration file, when --config is not given

Examples:
  bpi-agent keygen /etc/bpi/agent.key              prints the agent's identity, for validators and pinners
  bpi-agent keygen --reader tenant.key             prints a reader, for the tenant's configuration
  bpi-agent check --print                          every field with its value in force
  bpi-agent run
  bpi-agent order sha256:… --input ./data:/data -- /app/report /data
  bpi-agent restore --snapshot class.snapshot --reader tenant.key --to restored";

#[derive(Parser)]
#[command(name = "bpi-agent", version = env!("BPI_AGENT_VERSION"), about = "The agent of a host", long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: $BPI_AGENT_CONFIG, else /etc/bpi/agent.toml]
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
    Order(order::Arguments),
    Restore(restore::Arguments),
    Evidence(evidence::Arguments),
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
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Evidence(arguments) => load(config).and_then(|config| evidence::run(&arguments, &config)),
        Command::Order(arguments) => {
            return match load(config).and_then(|config| order::run(&arguments, &config)) {
                Ok(code) => ExitCode::from(code),
                Err(failure) => report(&failure),
            };
        }
        Command::Restore(arguments) => load(config).and_then(|config| restore::run(&arguments, &config)),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("bpi-agent: {}: {}", failure.code(), bpi_program::output::plain(&failure.to_string()));
    ExitCode::from(failure.status())
}
