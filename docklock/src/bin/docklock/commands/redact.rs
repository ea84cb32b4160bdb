//! `docklock redact`: evidence without what its reader need not see.
//!
//! Whole files beside the receipt and single records of its chain can go; each leaves its digest in redaction.json. Never the receipt, nor
//! a member of anything: the receipt is signed as a whole, and a file is known by the digest of all its bytes (docs/decisions/0110).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bpi_protocol::chain::{Entry, Record};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::evidence::{AVAILABILITY_FILE, BUNDLE_FILE, CHAIN_FILE, FILES, FINALITY_FILE, RUN_FILE};
use bpi_protocol::redaction::{REDACTION_FILE, Redaction};
use clap::Args;
use docklock::rerun::listing::LISTING_BYTES_MAX;
use docklock::rerun::{CONFIG_BYTES_MAX, CONFIG_FILE, OUTPUTS_FILE, TRACE_FILE};

use super::folder::write_files;
use super::verify::{read_bounded, read_evidence, read_redaction};
use crate::failure::Failure;
use crate::output::print;

/// Longest log of decisions that is copied; one of a run with ten million decisions takes less.
const TRACE_BYTES_MAX: usize = 1 << 30;

/// Take parts out of evidence, so that the rest still verifies
#[derive(Args)]
#[command(
    long_about = "Writes evidence to a new folder without the parts that you name. Each leaves its digest in redaction.json, so that whoever is \
shown it later can tell that it is the one; `docklock verify` names it and what it would have shown is NOT CHECKED.

PATH is one of
  config.json, outputs.txt, trace.log    what a repeatable run left: arguments, environment, names of files, decisions
  chain.jsonl                            every record between the intent and the receipt, the intent included
  chain.jsonl#12                         the record at seq 12
  chain.jsonl#others                     every record but the intent: other containers of the same boundary
  finality.bin, availability.bin         where it is anchored

Nothing inside the receipt can be hidden: it is signed as a whole. It holds digests of arguments, environment, inputs and outputs, never \
their text; but names of mounts, the container's id, the host and the calls that were refused stand there in plain.",
    after_long_help = "\
Examples:
  docklock redact ./evidence --hide config.json --hide chain.jsonl#others --to ./for-them
  docklock verify ./for-them --trust host.key.pub.pem --level signed"
)]
pub(crate) struct Arguments {
    /// Folder
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// What to take out
    #[arg(long, value_name = "PATH", required = true)]
    hide: Vec<String>,
    /// New folder
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// What is in the folder, and what is taken out of it.
struct Cut {
    files: BTreeMap<String, Vec<u8>>,
    hidden_files: BTreeMap<String, Sha256Digest>,
    hidden_records: BTreeMap<u64, Sha256Digest>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let folder = &arguments.evidence;
    // Evidence of the right form, before any of it is copied.
    let evidence = read_evidence(folder)?;
    if !folder.is_dir() {
        let part = folder.display().to_string();
        return Err(Failure::Redact { part, reason: "it is one file; name the folder".to_owned() });
    }
    let malformed = |reason: String| Failure::EvidenceMalformed { path: folder.clone(), reason };
    let receipt = evidence.entry().map_err(|error| malformed(error.to_string()))?;
    let mut cut = read(folder)?;
    for part in &arguments.hide {
        hide(&mut cut, part, &receipt)?;
    }
    let redaction = Redaction::new(cut.hidden_files, cut.hidden_records)
        .map_err(|error| Failure::Redact { part: arguments.hide.join(", "), reason: error.to_string() })?;
    let bytes = redaction.to_bytes().map_err(|error| malformed(error.to_string()))?;
    cut.files.insert(REDACTION_FILE.to_owned(), bytes);
    write_files(&arguments.to, &cut.files)?;
    print(&format!("{}\n", arguments.to.display()))?;
    Ok(0)
}

/// The files of evidence, those of a repeatable run, and what an earlier cut took out.
fn read(folder: &Path) -> Result<Cut, Failure> {
    let siblings = [(CONFIG_FILE, CONFIG_BYTES_MAX), (OUTPUTS_FILE, LISTING_BYTES_MAX), (TRACE_FILE, TRACE_BYTES_MAX)];
    let mut files = BTreeMap::new();
    for (name, bytes_max) in FILES.into_iter().chain(siblings) {
        let path = folder.join(name);
        match read_bounded(&path, bytes_max) {
            Ok(bytes) if bytes.len() > bytes_max => {
                let reason = format!("it is longer than the limit of {bytes_max} bytes");
                return Err(Failure::EvidenceMalformed { path, reason });
            }
            Ok(bytes) => {
                files.insert(name.to_owned(), bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Failure::EvidenceRead { path, source }),
        }
    }
    let earlier = read_redaction(folder)?;
    let hidden_files = earlier.iter().flat_map(Redaction::files).map(|file| (file.name.clone(), file.digest)).collect();
    let hidden_records = earlier.iter().flat_map(Redaction::records).map(|one| (one.seq, one.digest)).collect();
    Ok(Cut { files, hidden_files, hidden_records })
}

fn hide(cut: &mut Cut, part: &str, receipt: &Entry) -> Result<(), Failure> {
    let refused = |reason: &str| Failure::Redact { part: part.to_owned(), reason: reason.to_owned() };
    let (name, member) = part.split_once('#').map_or((part, None), |(name, member)| (name, Some(member)));
    match (name, member) {
        (BUNDLE_FILE, _) => {
            Err(refused("the receipt is signed as a whole: without any of it nobody can check the signature"))
        }
        (RUN_FILE, _) => Err(refused("the receipt holds the run itself, so leaving run.json out would hide nothing")),
        (CHAIN_FILE, None) => hide_records(cut, part, |_| true),
        (CHAIN_FILE, Some("others")) => {
            let intent = receipt.record.chain().started_ref;
            hide_records(cut, part, |entry| Some(entry.pae_digest) != intent)
        }
        (CHAIN_FILE, Some(seq)) => {
            let seq: u64 = seq.parse().map_err(|_| refused("after # stands the seq of a record, or `others`"))?;
            hide_records(cut, part, |entry| entry.record.chain().seq == seq)
        }
        (CONFIG_FILE | OUTPUTS_FILE | TRACE_FILE | FINALITY_FILE | AVAILABILITY_FILE, Some(_)) => Err(refused(
            "it is known by the digest of all its bytes, so a part of it cannot be hidden and the rest still be checked; hide the file",
        )),
        (CONFIG_FILE | OUTPUTS_FILE | TRACE_FILE | FINALITY_FILE | AVAILABILITY_FILE, None) => {
            let bytes = cut.files.remove(name).ok_or_else(|| refused("the folder has no such file"))?;
            cut.hidden_files.insert(name.to_owned(), Sha256Digest::of(&bytes));
            Ok(())
        }
        _ => Err(refused(
            "it is no part that can be hidden; `docklock redact --help` lists them, and a member of the receipt is none",
        )),
    }
}

/// Takes the records that `hidden` names out of the chain; with the last of them goes the file.
fn hide_records(cut: &mut Cut, part: &str, hidden: impl Fn(&Entry) -> bool) -> Result<(), Failure> {
    let refused = |reason: &str| Failure::Redact { part: part.to_owned(), reason: reason.to_owned() };
    let lines = cut.files.remove(CHAIN_FILE).ok_or_else(|| refused("the folder has no chain.jsonl"))?;
    let (mut kept, mut found) = (Vec::new(), BTreeSet::new());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let envelope = Envelope::from_json(line).map_err(|error| refused(&error.to_string()))?;
        let entry = Entry::read(&envelope).map_err(|error| refused(&error.to_string()))?;
        // The receipt may be repeated at the end of its chain; it stays in the bundle either way.
        if matches!(entry.record, Record::Receipt(_))
            && cut.files.get(BUNDLE_FILE).is_some_and(|bundle| is_in(bundle, line))
        {
            continue;
        }
        if hidden(&entry) {
            let seq = entry.record.chain().seq;
            found.insert(seq);
            cut.hidden_records.insert(seq, entry.pae_digest);
        } else {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
    }
    if found.is_empty() {
        return Err(refused("the chain has no such record"));
    }
    if !kept.is_empty() {
        cut.files.insert(CHAIN_FILE.to_owned(), kept);
    }
    Ok(())
}

/// Whether the bundle holds this very envelope.
fn is_in(bundle: &[u8], line: &[u8]) -> bool {
    let of =
        |bytes: &[u8]| bpi_protocol::evidence::Evidence::from_bytes(bytes).ok().map(|one| one.receipt().pae_digest());
    of(bundle).is_some() && of(bundle) == of(line)
}
