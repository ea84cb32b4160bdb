//! `docklock man`: the manual pages, from the same text as --help.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::Cli;
use crate::failure::Failure;

/// Write the manual pages
#[derive(Args)]
#[command(
    long_about = "Writes a manual page for docklock and for each of its subcommands, `docklock-verify.1` and so on.

Example:
  docklock man /usr/local/share/man/man1"
)]
pub(crate) struct Arguments {
    /// Folder for the pages; it is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let dir = &arguments.dir;
    fs::create_dir_all(dir).map_err(|source| Failure::File { deed: "make the folder", path: dir.clone(), source })?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(|source| Failure::File {
        deed: "write manual pages in",
        path: dir.clone(),
        source,
    })?;
    Ok(0)
}
