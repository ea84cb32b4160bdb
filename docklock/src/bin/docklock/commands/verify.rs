//! `docklock verify`: the ladder of what is true about a piece of evidence.

mod html;
mod ocsf;
mod oscal;
pub(crate) mod policy;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bpi_protocol::evidence::{BUNDLE_FILE, Evidence, FILES};
use bpi_protocol::redaction::{REDACTION_BYTES_MAX, REDACTION_FILE, Redaction};
use bpi_protocol::trust::{TRUST_BYTES_MAX, Trust};
use bpi_protocol::verify::{Level, Report, Verifier};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::output::{plain, print, print_json};

/// Check evidence, offline
#[derive(Args)]
#[command(
    long_about = "Checks evidence of a run and prints a ladder: signature, identity, schema and run-hash, chain without gaps, and so on. \
Each row is PASS, FAIL or NOT CHECKED with the reason; the line before the last says what determinism the receipt claims and which \
sources nothing controlled, the last one is the verdict. It never touches the network, and a key found \
inside the evidence is never trusted for being there.

With --policy a policy in Rego says whether the evidence is also what you want: `package bpi`, `accept` (true or false) and `reasons` (a set \
of strings). It sees input.rows, input.run, input.receipt, input.runHash, input.level and, of a final header, input.final; what else it has \
to know comes with --policy-data. It has no clock, no network, no files. Starters: policies/acceptance.

EVIDENCE is a folder with receipt.sigstore.json (and run.json, chain.jsonl, finality.bin, availability.bin), or one bundle or DSSE envelope by itself.

The trust file is a public key in PEM, believed for whatever host it names, or a registry:
  {\"hosts\": [{\"id\": \"spiffe://bpi.local/host/a\", \"publicKey\": \"-----BEGIN PUBLIC KEY-----\\n…\"}]}

Inclusion and finality are checked for chains that the registry names, each by the digest of its genesis, with the digests of the
validator sets that are believed, or with the group key of threshold seals:
  {\"hosts\": […], \"chains\": [{\"id\": \"64 hex digits\", \"validatorSets\": [\"64 hex digits\"], \"groupKey\": \"192 hex digits\"}]}",
    after_long_help = "\
Exit status:
  0  all that the level requires passes
  1  the evidence is false
  2  malformed evidence, trust file or policy, or wrong usage
  3  incomplete: something that the level requires could not be checked
  4  refused by policy
  5  the rerun differs

Examples:
  docklock verify ./evidence --trust host.key.pub.pem
  docklock verify receipt.sigstore.json --trust hosts.json --level signed --format json
  docklock verify ./evidence --trust hosts.json --policy only-these-images.rego --policy-data images.json
  docklock verify ./evidence --trust hosts.json --format html > report.html"
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
    /// Policy that has to accept it as well
    #[arg(long, value_name = "FILE.rego")]
    policy: Option<PathBuf>,
    /// What the policy knows as `data`: a JSON object
    #[arg(long, value_name = "FILE.json", requires = "policy")]
    policy_data: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: ReportFormat,
}

/// How a ladder is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
    /// One page that needs nothing beside it.
    Html,
    /// NIST OSCAL 1.1.2 assessment results, JSON.
    Oscal,
    /// OCSF 1.3.0 compliance finding (class 2003), JSON.
    Ocsf,
}

/// A ladder with what it is about and when it was made.
pub(crate) struct Judged<'a> {
    pub(crate) evidence: &'a Evidence,
    pub(crate) report: Report,
    /// RFC 3339, UTC.
    pub(crate) judged_on: String,
    /// Milliseconds since 1970.
    pub(crate) judged_ms: u64,
}

impl<'a> Judged<'a> {
    /// Judged at this moment.
    pub(crate) fn now(evidence: &'a Evidence, report: Report) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let judged_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { evidence, report, judged_on: docklock::clock::now(), judged_ms }
    }

    /// As JSON of one of the two standards.
    pub(crate) fn as_oscal(&self) -> serde_json::Value {
        oscal::document(self)
    }

    /// As [`Judged::as_oscal`].
    pub(crate) fn as_ocsf(&self) -> serde_json::Value {
        ocsf::event(self)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    // The parser above lets only levels pass; were one missing here, the strictest would be asked for.
    let level = arguments.level.parse().unwrap_or(Level::Final);
    let trust = trusted(arguments.trust.as_deref())?;
    let evidence = read_evidence(&arguments.evidence)?;
    let mut report = judge(&arguments.evidence, &evidence, &trust, level)?;
    if let Some(policy) = &arguments.policy {
        let ruling = policy::judge(policy, arguments.policy_data.as_deref(), &evidence, &report)?;
        report = report.with_ruling(ruling);
    }
    let exit_code = report.exit_code();
    match arguments.format {
        ReportFormat::Text => print(&plain(&report.to_string()))?,
        ReportFormat::Json => print_json(&as_json(&report))?,
        ReportFormat::Html => print(&html::page(&Judged::now(&evidence, report)))?,
        ReportFormat::Oscal => print_json(&Judged::now(&evidence, report).as_oscal())?,
        ReportFormat::Ocsf => print_json(&Judged::now(&evidence, report).as_ocsf())?,
    }
    Ok(exit_code)
}

/// Whom to believe; nobody, where no file is named.
pub(crate) fn trusted(path: Option<&Path>) -> Result<Trust, Failure> {
    path.map_or_else(|| Ok(Trust::none()), read_trust)
}

/// The ladder of the evidence that was read from `path`.
pub(crate) fn judge(path: &Path, evidence: &Evidence, trust: &Trust, level: Level) -> Result<Report, Failure> {
    let redaction = read_redaction(path)?;
    Ok(Verifier::new(trust).judge(evidence, redaction.as_ref(), level))
}

pub(crate) fn as_json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "level": report.level,
        "rows": report.rows,
        "claimed": report.claimed,
        "withheld": report.withheld,
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

/// What was withheld of the evidence in a folder. What it names must not lie beside it: one of the two would be a lie.
pub(crate) fn read_redaction(folder: &Path) -> Result<Option<Redaction>, Failure> {
    let path = folder.join(REDACTION_FILE);
    let bytes = match read_bounded(&path, REDACTION_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(Failure::EvidenceRead { path, source }),
    };
    let malformed = |reason: String| Failure::EvidenceMalformed { path: path.clone(), reason };
    let redaction = Redaction::from_bytes(&bytes).map_err(|error| malformed(error.to_string()))?;
    for file in redaction.files() {
        if folder.join(&file.name).symlink_metadata().is_ok() {
            return Err(malformed(format!("it says that {} was withheld, and that lies beside it", file.name)));
        }
    }
    Ok(Some(redaction))
}

fn read_trust(path: &Path) -> Result<Trust, Failure> {
    let bytes = read_bounded(path, TRUST_BYTES_MAX)
        .map_err(|source| Failure::TrustRead { path: path.to_path_buf(), source })?;
    Trust::parse(&bytes)
        .map_err(|error| Failure::TrustMalformed { path: path.to_path_buf(), reason: error.to_string() })
}

/// A regular file's bytes, and one more than the limit at most: the reader that gets them names the limit.
pub(crate) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
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
