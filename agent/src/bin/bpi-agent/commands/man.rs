//! `bpi-agent man`: the manual page.

use clap::{Args, CommandFactory};

use crate::Cli;
use crate::failure::Failure;
use crate::output::print;

/// Print the manual page
#[derive(Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|source| Failure::Stdout { source })?;
    print(&String::from_utf8_lossy(&page))
}
