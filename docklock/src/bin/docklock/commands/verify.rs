//! `docklock verify`: the ladder of what is true about a piece of evidence.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bpi_protocol::evidence::{BUNDLE_FILE, Evidence, FILES};
use bpi_protocol::trust::{TRUST_BYTES_MAX, Trust};
use bpi_protocol::verify::{Level, Report, verify};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::failure::Failure;
use crate::output::{Format, plain, print, print_json};

/// Check evidence, offline
#[derive(Args)]
#[command(
    long_about = "Checks evidence of a run and prints a ladder: signature, identity, schema and run-hash, chain without gaps, and so on. \
Each row is PASS, FAIL or NOT CHECKED with the reason; the line before the last says what determinism the receipt claims and which \
sources nothing controlled, the last one is the verdict. It never touches the network, and a key found \
inside the evidence is never trusted for being there.

EVIDENCE is a folder with receipt.sigstore.json (and run.json, chain.jsonl, finality.bin), or one bundle or DSSE envelope by itself.

The trust file is a public key in PEM, believed for whatever host it names, or a registry:
  {\"hosts\": [{\"id\": \"spiffe://bpi.local/host/a\", \"publicKey\": \"-----BEGIN PUBLIC KEY-----\\n…\"}]}

Inclusion and finality are checked for chains that the registry names, each by the digest of its genesis, with the digests of the
validator sets that are believed, or with the group key of threshold seals:
  {\"hosts\": […], \"chains\": [{\"id\": \"64 hex digits\", \"validatorSets\": [\"64 hex digits\"], \"groupKey\": \"192 hex digits\"}]}",
    after_long_help = "\
Exit status:
  0  all that the level requires passes
  1  the evidence is false
  2  malformed evidence or trust file, or wrong usage
  3  incomplete: something that the level requires could not be checked
  4  refused by policy
  5  the rerun differs

Examples:
  docklock verify ./evidence --trust host.key.pub.pem
  docklock verify receipt.sigstore.json --trust hosts.json --level signed --format json"
)]
pub(crate) struct Arguments {
    /// Folder, bundle or envelope
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// Whom to believe; without it no signature can be checked
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// How much must be true
    #[arg(long, value_name = "LEVEL", default_value = "chained", value_parser = PossibleValuesParser::new(["signed", "chained", "included", "final", "rerun"]))]
    level: String,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    // The parser above lets only levels pass; were one missing here, the strictest would be asked for.
    let level = arguments.level.parse().unwrap_or(Level::Final);
    let trust = match &arguments.trust {
        Some(path) => read_trust(path)?,
        None => Trust::none(),
    };
    let report = verify(&read_evidence(&arguments.evidence)?, &trust, level);
    match arguments.format {
        Format::Text => print(&plain(&report.to_string()))?,
        Format::Json => print_json(&as_json(&report))?,
    }
    Ok(report.exit_code())
}

fn as_json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "level": report.level,
        "rows": report.rows,
        "claimed": report.claimed,
        "verdict": report.verdict(),
        "exitCode": report.exit_code(),
    })
}

/// Reads the files that evidence may have, each up to its limit.
pub(crate) fn read_evidence(path: &Path) -> Result<Evidence, Failure> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Failure::EvidenceRead { path, source }
    };
    let is_folder = fs::metadata(path).map_err(unreadable(path))?.is_dir();
    let mut files = BTreeMap::new();
    if is_folder {
        for entry in fs::read_dir(path).map_err(unreadable(path))? {
            let name = entry.map_err(unreadable(path))?.file_name();
            // A file that evidence does not know is not read; keys and notes may lie beside it.
            if let Some((known, bytes_max)) = FILES.iter().find(|(known, _)| name == **known) {
                let file = path.join(known);
                files.insert((*known).to_owned(), read_bounded(&file, *bytes_max).map_err(unreadable(&file))?);
            }
        }
    } else {
        let bytes_max = FILES.iter().find(|(known, _)| *known == BUNDLE_FILE).map_or(0, |(_, bytes_max)| *bytes_max);
        files.insert(BUNDLE_FILE.to_owned(), read_bounded(path, bytes_max).map_err(unreadable(path))?);
    }
    Evidence::from_files(files)
        .map_err(|error| Failure::EvidenceMalformed { path: path.to_path_buf(), reason: error.to_string() })
}

fn read_trust(path: &Path) -> Result<Trust, Failure> {
    let bytes = read_bounded(path, TRUST_BYTES_MAX)
        .map_err(|source| Failure::TrustRead { path: path.to_path_buf(), source })?;
    Trust::parse(&bytes)
        .map_err(|error| Failure::TrustMalformed { path: path.to_path_buf(), reason: error.to_string() })
}

/// A regular file's bytes, and one more than the limit at most: the reader that gets them names the limit.
fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // O_NONBLOCK: a pipe in the evidence must not wait for its writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(usize::MAX).min(bytes_max) + 1);
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
