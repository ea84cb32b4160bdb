//! Reads a host's chain of records from the spool's files, without the code under test.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Failure, eventually};

/// What a record says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Made before exec.
    Intent,
    /// Closes an intent: the run ended and was sealed.
    Receipt,
    /// Closes an intent: there will be no receipt.
    Abort,
}

/// One record of a chain.
#[derive(Clone, Debug)]
pub struct Record {
    /// Position in the chain, from its file name.
    pub seq: u64,
    /// Which of the three.
    pub kind: Kind,
    /// The predicate of its statement.
    pub predicate: Value,
    /// `sha256` of the first subject.
    pub subject: String,
    /// Digest (hex) of the bytes that were signed: DSSE's pre-authentication encoding.
    pub pae_digest: String,
}

impl Record {
    /// The container it speaks of.
    pub fn container(&self) -> &str {
        let place = if self.kind == Kind::Receipt { "/observed/containerId" } else { "/containerId" };
        self.predicate.pointer(place).and_then(Value::as_str).unwrap_or_default()
    }

    /// A member of the predicate by JSON pointer, as text.
    pub fn text(&self, pointer: &str) -> &str {
        self.predicate.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// How often the receipt says that `syscall` was denied.
    pub fn denied(&self, syscall: &str) -> u64 {
        let list = self.predicate.pointer("/run/denied").and_then(Value::as_array);
        let of_name = list.into_iter().flatten().filter(|entry| entry["syscall"] == syscall);
        of_name.filter_map(|entry| entry["count"].as_u64()).sum()
    }

    /// Digest (hex) of a stream or of the output tree, `stdout`, `stderr` or `outputs`.
    pub fn result_digest(&self, name: &str) -> String {
        let found = self.predicate.pointer(&format!("/run/result/{name}"));
        found.map(|value| find_sha256(value).unwrap_or_default()).unwrap_or_default()
    }
}

fn find_sha256(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim_start_matches("sha256:").to_owned()),
        Value::Object(members) => members.get("sha256").or_else(|| members.get("digest")).and_then(find_sha256),
        _ => None,
    }
}

/// All records of `boundary`, in order of `seq`.
///
/// # Errors
/// When a file is not what a record must be, or the numbers have a gap.
pub fn read(spool: &Path, boundary: &str) -> Result<Vec<Record>, Failure> {
    let folder = spool.join(boundary).join("records");
    let mut records = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "json") {
            records.push(parse(&path)?);
        }
    }
    records.sort_by_key(|record| record.seq);
    for (place, record) in records.iter().enumerate() {
        if record.seq != place as u64 {
            return Err(format!("{}: record {place} is missing, the next is {}", folder.display(), record.seq).into());
        }
    }
    Ok(records)
}

fn parse(path: &Path) -> Result<Record, Failure> {
    let wrong = |what: &str| Failure::from(format!("{}: {what}", path.display()));
    let bytes = fs::read(path).map_err(|error| wrong(&error.to_string()))?;
    let envelope: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
    let payload = envelope["payload"].as_str().ok_or_else(|| wrong("the envelope has no payload"))?;
    let payload = STANDARD.decode(payload).map_err(|error| wrong(&error.to_string()))?;
    let statement: Value = serde_json::from_slice(&payload).map_err(|error| wrong(&error.to_string()))?;
    let kind = match statement["predicateType"].as_str() {
        Some(name) if name.contains("/execution-intent/") => Kind::Intent,
        Some(name) if name.contains("/execution-receipt/") => Kind::Receipt,
        Some(name) if name.contains("/execution-abort/") => Kind::Abort,
        other => return Err(wrong(&format!("unknown predicate type {other:?}"))),
    };
    let seq = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
    let seq = seq.ok_or_else(|| wrong("the file name is no sequence number"))?;
    if statement.pointer("/predicate/chain/seq").and_then(Value::as_u64) != Some(seq) {
        return Err(wrong("the record's seq differs from its file name"));
    }
    let subject = statement.pointer("/subject/0/digest/sha256").and_then(Value::as_str).unwrap_or_default().to_owned();
    let payload_type = envelope["payloadType"].as_str().unwrap_or_default();
    let mut signed = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    signed.extend_from_slice(&payload);
    let pae_digest = hex::encode(Sha256::digest(&signed));
    Ok(Record { seq, kind, predicate: statement["predicate"].clone(), subject, pae_digest })
}

/// The receipt of `container`, which must exist now: `ctr run` returning means that the receipt is on disk.
///
/// # Errors
/// When there is none, or more than one.
pub fn receipt_of(spool: &Path, boundary: &str, container: &str) -> Result<Record, Failure> {
    let all = read(spool, boundary)?;
    let mut found = all.iter().filter(|record| record.kind == Kind::Receipt && record.container() == container);
    let first = found.next().cloned().ok_or_else(|| {
        let seen: Vec<_> = all
            .iter()
            .map(|record| format!("{:?} of {} {}", record.kind, record.container(), record.text("/reason")))
            .collect();
        format!("no receipt of {container} in boundary {boundary}; there are {seen:?}")
    })?;
    if found.next().is_some() { Err(format!("{container} has more than one receipt").into()) } else { Ok(first) }
}

/// Intents that neither a receipt nor an abort has closed.
///
/// # Errors
/// As [`read`].
pub fn open_intents(spool: &Path, boundary: &str) -> Result<Vec<String>, Failure> {
    let all = read(spool, boundary)?;
    let count = |kind: Kind, container: &str| {
        all.iter().filter(|record| record.kind == kind && record.container() == container).count()
    };
    let mut open = Vec::new();
    for record in all.iter().filter(|record| record.kind == Kind::Intent) {
        let id = record.container();
        if count(Kind::Intent, id) != count(Kind::Receipt, id) + count(Kind::Abort, id)
            && !open.contains(&id.to_owned())
        {
            open.push(id.to_owned());
        }
    }
    Ok(open)
}

/// Waits until every intent of `boundary` is closed.
///
/// # Errors
/// Names the containers whose intent stays open.
pub fn all_closed(spool: &Path, boundary: &str, limit: Duration) -> Result<(), Failure> {
    let closed = eventually("every intent closed", limit, || open_intents(spool, boundary).ok().filter(Vec::is_empty));
    match closed {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("intents without receipt or abort: {:?}", open_intents(spool, boundary)?).into()),
    }
}
