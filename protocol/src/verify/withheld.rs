//! What redaction leaves to be said: each withheld part by name, and a falsehood where a signed record knows it by another digest.
//!
//! A signed receipt commits to the configuration and to the listing of outputs by the SHA-256 of their bytes, and a record of the chain
//! to the one before it. What has no such commitment is withheld by the word of whoever did so, and the report says that.

use std::collections::BTreeSet;

use super::Falsehood;
use super::report::{Finding, Withheld};
use crate::chain::{Entry, Record, RecordError};
use crate::digest::Sha256Digest;
use crate::evidence::Evidence;
use crate::redaction::Redaction;

/// Files beside the evidence to whose bytes a receipt commits.
const COMMITTED: [&str; 3] = ["config.json", "outputs.txt", "run.json"];

/// The digest by which the receipt knows a file.
fn commitment(name: &str, entry: &Entry) -> Option<Sha256Digest> {
    let Record::Receipt(receipt) = &entry.record else { return None };
    match name {
        "config.json" => Some(receipt.run.config.digest),
        // Of no bytes where nothing was measured: then a listing that lies there is not this run's.
        "outputs.txt" => Some(receipt.run.result.outputs.digest),
        "run.json" => Some(entry.subject),
        _ => None,
    }
}

/// `found` about the schema, unless redaction gives a part another digest than the receipt does.
pub(super) fn schema(redaction: Option<&Redaction>, found: Finding, entry: &Result<Entry, RecordError>) -> Finding {
    let (Some(redaction), Ok(entry), Finding::True(detail)) = (redaction, entry, &found) else { return found };
    for name in COMMITTED {
        if let (Some(withheld), Some(signed)) = (redaction.file(name), commitment(name, entry))
            && *withheld != signed
        {
            return Finding::False(Falsehood::WithheldOther { name, found: *withheld, signed });
        }
    }
    Finding::True(detail.clone())
}

/// `found`, or that the file which would show it was withheld.
pub(super) fn unless(redaction: Option<&Redaction>, name: &str, found: Finding) -> Finding {
    match found {
        Finding::Unknown(_) if redaction.is_some_and(|redaction| redaction.file(name).is_some()) => {
            Finding::Unknown(format!("withheld: {name} was taken out of this evidence"))
        }
        found => found,
    }
}

/// Everything that was withheld.
pub(super) fn parts(redaction: &Redaction, evidence: &Evidence, entry: &Result<Entry, RecordError>) -> Vec<Withheld> {
    let files = redaction.files().iter().map(|file| {
        let signed = entry.as_ref().ok().and_then(|entry| commitment(&file.name, entry));
        Withheld { part: file.name.clone(), digest: file.digest, committed: signed == Some(file.digest) }
    });
    let shown = evidence.chain.iter().flatten().chain([&evidence.receipt]);
    let links = shown.filter_map(|envelope| Some(Record::parse(envelope).ok()?.chain().clone()));
    let named: BTreeSet<Sha256Digest> = links.flat_map(|link| [link.prev, link.started_ref]).flatten().collect();
    let records = redaction.records().iter().map(|record| {
        let committed = named.contains(&record.digest);
        Withheld { part: format!("chain.jsonl, seq {}", record.seq), digest: record.digest, committed }
    });
    files.chain(records).collect()
}
