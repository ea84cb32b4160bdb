//! `bpi-relay man`: the manual page.

use clap::{Args, CommandFactory};

use crate::Cli;
use crate::failure::Failure;
use bpi_program::output::{StdoutError, print};

/// Print the manual page
#[derive(Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(StdoutError::new)?;
    Ok(print(&String::from_utf8_lossy(&page))?)
}
