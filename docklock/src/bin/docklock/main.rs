//! The `docklock` command: one file for each subcommand under `commands/`.
//!
//! A subcommand returns its exit status or a [`Failure`], which is reported here, once, as one sentence with its code from
//! docs/errors.md. Nothing is set up that the chosen subcommand does not use: `verify` finishes within 5 ms.

#![deny(unsafe_code)]

mod commands;
mod difference;
mod failure;
mod foreground;
mod output;
mod program;
mod stage;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{
    completion, config, diff, doctor, explain, export, keygen, man, oci, profiles, receipts, redact, rerun, run, verify,
};
use failure::Failure;

const LONG_ABOUT: &str = "\
Runs OCI containers in a cage and seals what happened into a signed receipt that anyone can check.

A tenant's containers come through containerd (`ctr run --runtime io.bpi.docklock …`); this command is for everything beside that: \
running a bundle without containerd, checking and explaining evidence, looking at this host's chains of receipts, and preparing a host.";

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed; one sentence on standard error says why, with a code that docs/errors.md explains
  2    wrong usage, or input that cannot be read as what it should be
  `run`, `oci run` and `oci exec` end with the status of the container's process, and with 125 for a failure of their own.
  `verify`, `diff`, `rerun` and `run --twice` have their own tables: see their --help.

Files:
  /etc/docklock/docklock.toml     configuration; every field has a default
  /etc/docklock/host.key          the host's signing key, mode 0600 (`docklock keygen`)
  /etc/docklock/profiles/         a site's own profiles
  /var/lib/docklock/spool/        the chains of records, one folder for each boundary
  /var/lib/docklock/stage/        temporary folders of `run --rootfs` and `rerun`
  /run/docklock/                  state of running containers

Environment:
  DOCKLOCK_CONFIG                 configuration file, when --config is not given

Examples:
  docklock keygen                              make the host's key
  docklock doctor                              what this kernel can enforce
  docklock run --bundle ./hello                run a bundle and keep its receipt
  docklock run --rootfs ./debian --twice -- make check
                                               run a program two times and compare every decision
  docklock receipts list                       the newest records of this host
  docklock receipts export hello ./evidence    evidence to hand over
  docklock verify ./evidence --trust host.pub.pem
  docklock rerun ./evidence                    do it again and compare";

#[derive(Parser)]
#[command(name = "docklock", version = docklock::seal::VERSION, about = "Runs containers in a cage and seals receipts", long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file [default: $DOCKLOCK_CONFIG, else /etc/docklock/docklock.toml if it exists, else built-in defaults]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Verify(verify::Arguments),
    Explain(explain::Arguments),
    Diff(diff::Arguments),
    Rerun(rerun::Arguments),
    Export(export::Arguments),
    Redact(redact::Arguments),
    Receipts(receipts::Arguments),
    Keygen(keygen::Arguments),
    Doctor(doctor::Arguments),
    Config(config::Arguments),
    Profiles(profiles::Arguments),
    Oci(Box<oci::Arguments>),
    Completion(completion::Arguments),
    Man(man::Arguments),
    /// Judges by a policy that stands on standard input; started by `verify --policy`
    #[command(hide = true)]
    PolicyCell,
}

impl Command {
    fn run(self, config: Option<PathBuf>) -> Result<u8, Failure> {
        match self {
            Self::Run(arguments) => run::run(arguments, config.as_deref()),
            Self::Verify(arguments) => verify::run(&arguments),
            Self::Explain(arguments) => explain::run(&arguments, config.as_deref()),
            Self::Diff(arguments) => diff::run(&arguments, config.as_deref()),
            Self::Rerun(arguments) => rerun::run(&arguments, config.as_deref()),
            Self::Export(arguments) => export::run(&arguments),
            Self::Redact(arguments) => redact::run(&arguments),
            Self::Receipts(arguments) => receipts::run(&arguments, config.as_deref()),
            Self::Keygen(arguments) => keygen::run(&arguments, config.as_deref()),
            Self::Doctor(arguments) => doctor::run(&arguments),
            Self::Config(arguments) => self::config::run(&arguments, config.as_deref()),
            Self::Profiles(arguments) => profiles::run(&arguments, config.as_deref()),
            Self::Oci(arguments) => oci::run(*arguments, config),
            Self::Completion(arguments) => completion::run(&arguments),
            Self::Man(arguments) => man::run(&arguments),
            Self::PolicyCell => verify::policy::cell(),
        }
    }
}

/// Under the name `docklock-oci` (a link) the arguments are those of `docklock oci`.
fn arguments() -> Vec<OsString> {
    let mut all: Vec<OsString> = std::env::args_os().collect();
    if all.first().is_some_and(|name| Path::new(name).file_name() == Some("docklock-oci".as_ref())) {
        all.insert(1, "oci".into());
    }
    all
}

fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse_from(arguments());
    match command.run(config) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.status())
        }
    }
}
