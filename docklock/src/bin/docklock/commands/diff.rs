//! `docklock diff`: what two runs have in common, and where they part.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bpi_protocol::canonical;
use bpi_protocol::chain::Record;
use bpi_protocol::run::Run;
use clap::Args;
use docklock::rerun::trace_diff::MAGIC;
use docklock::rerun::{OUTPUTS_FILE, TRACE_FILE};

use super::receipts;
use crate::difference::{Difference, Side};
use crate::failure::Failure;
use crate::output::{Format, print, print_json};

/// Compare two runs
#[derive(Args)]
#[command(
    long_about = "Compares two runs: image, configuration, cage, inputs, parameters, limits, result, the calls that were refused or answered; and, \
where both are at hand, the files that they left and the first decision of the cage that differs, with its call, task, arguments and logical time.

A and B are evidence (a folder, bundle or record), the container id or number of a receipt of this host, a run.json, a log of decisions (`docklock run --trace`), or a listing of outputs; both of a kind. \
A folder written with --repeatable holds all of them. Nothing is believed or verified: that is what `docklock verify` does.",
    after_long_help = "\
Exit status:
  0  nothing differs
  5  something differs
  2  wrong usage, or something that cannot be read as what it should be

Examples:
  docklock diff ./evidence-monday ./evidence-tuesday
  docklock diff run-00c0ffee run-00c0ffef
  docklock diff one.trace other.trace --format json"
)]
pub(crate) struct Arguments {
    /// Evidence, run.json, log of decisions or listing of outputs
    #[arg(value_name = "A")]
    left: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    right: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Longest run.json: as long as a payload may be.
const RUN_BYTES_MAX: usize = bpi_protocol::envelope::PAYLOAD_BYTES_MAX;
/// Exit status when something differs.
const DIFFERS: u8 = 5;

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let (left, right) = (side(&arguments.left, config)?, side(&arguments.right, config)?);
    let comparable = (left.run.is_some() && right.run.is_some())
        || (left.trace.is_some() && right.trace.is_some())
        || (left.listing.is_some() && right.listing.is_some());
    if !comparable {
        let reason = format!("{} is something of another kind", arguments.right.display());
        return Err(Failure::Incomparable { path: arguments.left.clone(), reason });
    }
    let difference = Difference::between(&left, &right)?;
    match arguments.format {
        Format::Text => print(&difference.text())?,
        Format::Json => print_json(&difference)?,
    }
    Ok(if difference.is_none() { 0 } else { DIFFERS })
}

/// Whatever `path` is.
pub(crate) fn side(path: &Path, config: Option<&Path>) -> Result<Side, Failure> {
    let unreadable = |source| Failure::EvidenceRead { path: path.to_path_buf(), source };
    let name = path.display().to_string();
    let nothing = Side { name, run: None, trace: None, listing: None };
    if !path.exists() {
        return Ok(Side { run: Some(run_of_evidence(path, config)?), ..nothing });
    }
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        let at_hand = |file: &str| Some(path.join(file)).filter(|file| file.is_file());
        return Ok(Side {
            run: Some(run_of_evidence(path, config)?),
            trace: at_hand(TRACE_FILE),
            listing: at_hand(OUTPUTS_FILE),
            ..nothing
        });
    }
    let mut head = Vec::new();
    File::open(path).map_err(unreadable)?.take(4096).read_to_end(&mut head).map_err(unreadable)?;
    if head.starts_with(&MAGIC) {
        return Ok(Side { trace: Some(path.to_path_buf()), ..nothing });
    }
    if !head.starts_with(b"{") {
        // An empty listing is one of no files.
        return Ok(Side { listing: Some(path.to_path_buf()), ..nothing });
    }
    let is_run = head.starts_with(b"{\"cage\":");
    let run = if is_run { run_alone(path)? } else { run_of_evidence(path, config)? };
    Ok(Side { run: Some(run), ..nothing })
}

/// A run.json by itself: its first member tells it from an envelope and from a bundle.
fn run_alone(path: &Path) -> Result<Run, Failure> {
    let malformed = |reason: String| Failure::EvidenceMalformed { path: path.to_path_buf(), reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| Failure::EvidenceRead { path: path.to_path_buf(), source })?;
    file.take(RUN_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Failure::EvidenceRead { path: path.to_path_buf(), source })?;
    canonical::from_bytes(&bytes, RUN_BYTES_MAX).map_err(|error| malformed(error.to_string()))
}

/// The run that evidence tells of.
fn run_of_evidence(path: &Path, config: Option<&Path>) -> Result<Run, Failure> {
    let malformed = |reason: String| Failure::EvidenceMalformed { path: path.to_path_buf(), reason };
    let entry = receipts::evidence(path, config)?.entry().map_err(|error| malformed(error.to_string()))?;
    match entry.record {
        Record::Receipt(receipt) => Ok(receipt.run),
        other => Err(malformed(format!("it is an {}, which says nothing of how a run went", other.kind()))),
    }
}
