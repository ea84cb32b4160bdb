//! `docklock completion`: a completion script for a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Cli;
use crate::failure::Failure;
use crate::output::print;

/// Print a completion script
#[derive(Args)]
#[command(long_about = "Prints a completion script for a shell.

Examples:
  docklock completion bash > /etc/bash_completion.d/docklock
  docklock completion zsh > \"${fpath[1]}/_docklock\"")]
pub(crate) struct Arguments {
    /// For which shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "docklock", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
