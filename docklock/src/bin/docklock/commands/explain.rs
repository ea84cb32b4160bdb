//! `docklock explain`: a receipt in plain words.

use std::path::PathBuf;

use bpi_protocol::explain::explain;
use clap::Args;

use super::verify::read_evidence;
use crate::failure::Failure;
use crate::output::{plain, print};

/// Say in plain words what a receipt claims
#[derive(Args)]
#[command(
    long_about = "Says in plain words, on one page, what a receipt claims: what ran, under which cage, what came out, what was refused, and what \
it does not claim. Whether any of it is true is what `docklock verify` says.

Example:
  docklock explain ./evidence"
)]
pub(crate) struct Arguments {
    /// Folder, bundle or envelope
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let page = explain(&read_evidence(&arguments.evidence)?)
        .map_err(|error| Failure::EvidenceMalformed { path: arguments.evidence.clone(), reason: error.to_string() })?;
    print(&plain(&page))?;
    Ok(0)
}
