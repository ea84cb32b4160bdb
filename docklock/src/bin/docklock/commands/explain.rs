//! `docklock explain`: a receipt in plain words, with what its reader could change.

mod advice;

use std::path::{Path, PathBuf};

use bpi_protocol::explain::explain;
use clap::Args;
use serde_json::json;

use super::receipts;
use crate::failure::Failure;
use crate::output::{Format, plain, print, print_json};
use advice::FromProfiles;

/// Say in plain words what a receipt claims
#[derive(Args)]
#[command(
    long_about = "Says in plain words, on one page, what a receipt claims: what ran, under which cage, what came out, what was refused and what \
to change if it should not be, how its tasks were ordered, what the cage controlled of each source of nondeterminism, and why it claims no more. \
Whether any of it is true is what `docklock verify` says.

EVIDENCE is a folder, a bundle or a record, or the container id or number of a record of this host; an abort is explained as well.

Examples:
  docklock explain ./evidence
  docklock explain hello"
)]
pub(crate) struct Arguments {
    /// Folder, bundle or envelope; or a container id or record number of this host
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let evidence = receipts::evidence(&arguments.evidence, config)?;
    let page = explain(&evidence, &FromProfiles)
        .map_err(|error| Failure::EvidenceMalformed { path: arguments.evidence.clone(), reason: error.to_string() })?;
    match arguments.format {
        Format::Text => print(&plain(&page))?,
        Format::Json => print_json(&json!({ "evidence": arguments.evidence, "page": page }))?,
    }
    Ok(0)
}
