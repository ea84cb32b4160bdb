//! `docklock export`: evidence in the forms that other people's programs take.
//!
//! What the signature of a receipt already proves is only written differently: cosign and npm take the bundle, signify the same 64 bytes
//! in a file of its own. A form that has another thing signed (COSE signs its own structure, not DSSE's) needs the host's key and is
//! refused without; no other key is taken, because the statement speaks in the host's name. Absent on purpose: any judgment, except in
//! the two forms that are nothing else (oscal, ocsf).

mod cose;
mod signify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bpi_protocol::chain::{Entry, Record};
use bpi_protocol::evidence::{BUNDLE_FILE, Evidence, RUN_FILE};
use bpi_protocol::key::{PEM_BYTES_MAX, PublicKey};
use bpi_protocol::verify::Level;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use docklock::signer::{FileKey, Signer};

use super::folder::write_files;
use super::verify::{Judged, judge, read_bounded, read_evidence, trusted};
use crate::failure::Failure;
use crate::output::{print, print_json};

/// Write evidence in the form of another program
#[derive(Args)]
#[command(
    long_about = "Writes evidence in a form that other people's programs take:

  cosign   receipt.sigstore.json and run.json:  cosign verify-blob-attestation --bundle receipt.sigstore.json --key KEY --insecure-ignore-tlog \\
           --type https://bpi.io/attestation/execution-receipt/v1 run.json
  npm      the same bundle, for bundleFromJSON of @sigstore/bundle and the Verifier of @sigstore/verify
  signify  receipt.pae, what was signed, and receipt.pae.sig, the receipt's own signature; with --trust KEY the key as host.pub as well:
           signify -V -p host.pub -m receipt.pae
  scitt    receipt.scitt.cose, a signed statement of COSE (RFC 9052) over the SHA-256 of the receipt's statement, for a transparency
           service. COSE signs other bytes than a receipt's signature does, so it needs the key of the host that sealed the receipt (--key)
  oscal    NIST OSCAL assessment results, and
  ocsf     an OCSF compliance finding: what `docklock verify --trust FILE --level LEVEL` finds

Nothing is judged but for oscal and ocsf.",
    after_long_help = "\
Examples:
  docklock export ./evidence --for cosign --to ./for-cosign
  docklock export ./evidence --for signify --trust host.key.pub.pem --to ./for-signify
  docklock export ./evidence --for scitt --key /etc/docklock/host.key --to ./for-scitt
  docklock export ./evidence --for ocsf --trust hosts.json > finding.json"
)]
pub(crate) struct Arguments {
    /// Folder, bundle or envelope
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// Whose form
    #[arg(long = "for", value_enum, value_name = "FORM")]
    form: Form,
    /// New folder for the files [default for one file of text: standard output]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Key of the host that sealed the receipt, for scitt
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Whom to believe (oscal, ocsf), or the host's public key (signify)
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// How much must be true, for oscal and ocsf
    #[arg(long, value_name = "LEVEL", default_value = "chained", value_parser = PossibleValuesParser::new(["signed", "chained", "included", "final", "rerun"]))]
    level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Cosign,
    Npm,
    Scitt,
    Signify,
    Oscal,
    Ocsf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let evidence = read_evidence(&arguments.evidence)?;
    let files = match arguments.form {
        Form::Cosign => bundle(&evidence, true),
        Form::Npm => bundle(&evidence, false),
        Form::Signify => {
            let key = arguments.trust.as_ref().map(|path| public_key(path, &evidence)).transpose()?;
            signify::files(&evidence, key.as_ref())
        }
        Form::Scitt => scitt(arguments, &evidence)?,
        Form::Oscal | Form::Ocsf => {
            let level = arguments.level.parse().unwrap_or(Level::Final);
            let trust = trusted(arguments.trust.as_deref())?;
            let report = judge(&arguments.evidence, &evidence, &trust, level)?;
            let judged = Judged::now(&evidence, report);
            let (name, document) = match arguments.form {
                Form::Oscal => ("assessment-results.json", judged.as_oscal()),
                _ => ("compliance-finding.json", judged.as_ocsf()),
            };
            let Some(_) = &arguments.to else {
                print_json(&document)?;
                return Ok(0);
            };
            BTreeMap::from([(name.to_owned(), document.to_string().into_bytes())])
        }
    };
    match &arguments.to {
        Some(dir) => write_files(dir, &files)?,
        None if matches!(arguments.form, Form::Cosign | Form::Npm) => {
            print(&String::from_utf8_lossy(files.get(BUNDLE_FILE).map_or(&[][..], Vec::as_slice)))?;
        }
        None => {
            let form = if arguments.form == Form::Scitt { "--for scitt" } else { "--for signify" };
            return Err(Failure::ExportNeeds { format: form, what: "a new folder for its files: --to DIR" });
        }
    }
    Ok(0)
}

/// The bundle, and what cosign calls the blob beside it.
fn bundle(evidence: &Evidence, with_run: bool) -> BTreeMap<String, Vec<u8>> {
    let mut files = evidence.to_files();
    files.retain(|name, _| name == BUNDLE_FILE || (with_run && name == RUN_FILE));
    files
}

/// The one key of a PEM file, which has to have signed the receipt.
fn public_key(path: &Path, evidence: &Evidence) -> Result<PublicKey, Failure> {
    let malformed = |reason: String| Failure::TrustMalformed { path: path.to_path_buf(), reason };
    let bytes =
        read_bounded(path, PEM_BYTES_MAX).map_err(|source| Failure::TrustRead { path: path.to_path_buf(), source })?;
    let pem = String::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    let key = PublicKey::from_spki_pem(&pem).map_err(|error| malformed(error.to_string()))?;
    check_signer(path, &key, evidence)?;
    Ok(key)
}

fn check_signer(path: &Path, key: &PublicKey, evidence: &Evidence) -> Result<(), Failure> {
    if evidence.receipt().verify(key).is_ok() {
        return Ok(());
    }
    let wanted = evidence.receipt().keyid().unwrap_or("a key that the envelope does not name").to_owned();
    Err(Failure::ExportKey { path: path.to_path_buf(), found: key.keyid(), wanted })
}

fn scitt(arguments: &Arguments, evidence: &Evidence) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let Some(path) = &arguments.key else {
        let what = "the key of the host that sealed the receipt (--key FILE): COSE signs other bytes than a receipt's signature does, and nobody else may speak in the host's name";
        return Err(Failure::ExportNeeds { format: "--for scitt", what });
    };
    let entry: Entry = evidence
        .entry()
        .map_err(|error| Failure::EvidenceMalformed { path: arguments.evidence.clone(), reason: error.to_string() })?;
    let Record::Receipt(receipt) = &entry.record else {
        let link = entry.record.chain();
        return Err(Failure::NotAReceipt { boundary: link.boundary.clone(), seq: link.seq, kind: entry.record.kind() });
    };
    let key = FileKey::load(path)?;
    check_signer(path, &key.public_key(), evidence)?;
    let claims = cose::Claims {
        keyid: &key.public_key().keyid(),
        issuer: &receipt.host.id,
        subject: &format!("sha256:{}", entry.subject),
        content_type: evidence.receipt().payload_type(),
    };
    let statement = cose::sign1(&claims, evidence.receipt().payload(), |message| key.sign(message))?;
    Ok(BTreeMap::from([("receipt.scitt.cose".to_owned(), statement)]))
}
