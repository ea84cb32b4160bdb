//! Everything about one run that its checker needs, as files in memory.
//!
//! `receipt.sigstore.json` is a Sigstore bundle v0.3 around the receipt's envelope, so that programs which know nothing of us can
//! check it; `run.json` holds the bytes whose SHA-256 is the run-hash; `chain.jsonl` holds the envelopes from the intent up to the
//! receipt, one a line (the receipt itself is in the bundle and need not be repeated); `finality.bin` shows that the receipt is in the log
//! of a final header ([`crate::finality`]); `availability.bin` shows who keeps its data ([`crate::availability::proof`]). A bundle or a bare envelope alone is evidence too, of less. Absent on purpose: keys, which
//! nobody should trust for being here, and reading folders, which is the caller's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::availability::proof::{AVAILABILITY_BYTES_MAX, Availability};
use crate::canonical;
use crate::chain::{Entry, Record, RecordError, run_json};
use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, Wire};
use crate::finality::{FINALITY_BYTES_MAX, Finality, FinalityError};
use crate::mesh::validator::AnswerError;

/// Name of the bundle.
pub const BUNDLE_FILE: &str = "receipt.sigstore.json";
/// Name of the deterministic core.
pub const RUN_FILE: &str = "run.json";
/// Name of the stretch of the chain.
pub const CHAIN_FILE: &str = "chain.jsonl";
/// Name of the proof that the receipt is in the log of a final header.
pub const FINALITY_FILE: &str = "finality.bin";
/// Name of the proof that the receipt's data can be had.
pub const AVAILABILITY_FILE: &str = "availability.bin";
/// Media type of a Sigstore bundle v0.3.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Longest stretch of a chain: more than ten thousand records of the usual 4 KiB between an intent and its receipt.
pub const CHAIN_BYTES_MAX: usize = 64 << 20;

/// The files of evidence and the most bytes each may have: what a caller may read, and nothing else.
pub const FILES: [(&str, usize); 5] = [
    (BUNDLE_FILE, ENVELOPE_BYTES_MAX + 4096),
    (RUN_FILE, crate::envelope::PAYLOAD_BYTES_MAX),
    (CHAIN_FILE, CHAIN_BYTES_MAX),
    (FINALITY_FILE, FINALITY_BYTES_MAX),
    (AVAILABILITY_FILE, AVAILABILITY_BYTES_MAX),
];

/// Why files are not evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The one file that must be there is not.
    #[error("there is no {BUNDLE_FILE}; it is the one file that evidence cannot do without")]
    NoBundle,
    /// A file that nothing here would check.
    #[error(
        "{name:?} is no part of evidence; it may hold {BUNDLE_FILE}, {RUN_FILE}, {CHAIN_FILE}, {FINALITY_FILE} and {AVAILABILITY_FILE}"
    )]
    UnknownFile {
        /// Its name.
        name: String,
    },
    /// A file is too long.
    #[error("{name} is longer than the limit of {max} bytes")]
    TooLong {
        /// Its name.
        name: &'static str,
        /// Limit in force.
        max: usize,
    },
    /// The bundle is not one.
    #[error("{BUNDLE_FILE} is neither a Sigstore bundle v0.3 nor a DSSE envelope: {reason}")]
    Bundle {
        /// What the reader said.
        reason: String,
    },
    /// A bundle of another version.
    #[error("the bundle's mediaType is {found:?}; it must be {BUNDLE_TYPE:?}")]
    BundleType {
        /// What the bundle says.
        found: String,
    },
    /// The bundle carries proofs of a log or a time stamp.
    #[error("the bundle carries a {what}; this version cannot check one and will not pass over it")]
    Unchecked {
        /// `log entry` or `time stamp`.
        what: &'static str,
    },
    /// The bundle hints at one key and its envelope at another.
    #[error("the bundle hints at key {hint:?}, its envelope names {keyid:?}")]
    Hint {
        /// What the bundle says.
        hint: String,
        /// What the envelope says.
        keyid: String,
    },
    /// The envelope is malformed.
    #[error("receipt: {0}")]
    Envelope(#[source] EnvelopeError),
    /// A line of the chain is malformed.
    #[error("{CHAIN_FILE}, line {line}: {source}")]
    ChainLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: EnvelopeError,
    },
    /// The chain has no line.
    #[error("{CHAIN_FILE} is empty; it begins with the intent")]
    ChainEmpty,
    /// The last line of the chain is not ended.
    #[error("{CHAIN_FILE} is cut off: it does not end with a whole line")]
    ChainCutOff,
    /// The proof of finality is none.
    #[error("{FINALITY_FILE}: {0}")]
    Finality(#[source] FinalityError),
    /// The proof of availability is none.
    #[error("{AVAILABILITY_FILE}: {0}")]
    Availability(#[source] AnswerError),
    /// Nothing to make evidence of.
    #[error("the last record is no receipt: {reason}")]
    NotAReceipt {
        /// What it is.
        reason: String,
    },
}

/// Evidence whose files have the right form. Nothing is said about whether they are true: that is [`crate::verify::verify`]'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub(crate) receipt: Envelope,
    pub(crate) run: Option<Vec<u8>>,
    pub(crate) chain: Option<Vec<Envelope>>,
    pub(crate) finality: Option<Finality>,
    pub(crate) availability: Option<Availability>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle<E> {
    dsse_envelope: E,
    media_type: String,
    verification_material: Material,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: Hint,
    #[serde(default)]
    timestamp_verification_data: Timestamps,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hint {
    #[serde(default)]
    hint: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Timestamps {
    #[serde(default)]
    rfc3161_timestamps: Vec<serde_json::Value>,
}

impl Evidence {
    /// Makes evidence of the records from an intent to its receipt, in the order of the chain.
    ///
    /// # Errors
    ///
    /// [`EvidenceError::NotAReceipt`] when the last of them is none.
    pub fn of(records: &[Envelope]) -> Result<Self, EvidenceError> {
        let not = |reason: String| EvidenceError::NotAReceipt { reason };
        let (receipt, before) = records.split_last().ok_or_else(|| not("there are no records".to_owned()))?;
        let run = match Record::parse(receipt).map_err(|error| not(error.to_string()))? {
            Record::Receipt(receipt) => run_json(&receipt.run).map_err(|error| not(error.to_string()))?.1,
            other => return Err(not(format!("it is an {}", other.kind()))),
        };
        Ok(Self {
            receipt: receipt.clone(),
            run: Some(run),
            chain: Some(before.to_vec()),
            finality: None,
            availability: None,
        })
    }

    /// Reads the files of a folder, by name.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names the file and what is wrong with its form.
    pub fn from_files(mut files: BTreeMap<String, Vec<u8>>) -> Result<Self, EvidenceError> {
        let mut take = |name: &'static str, max: usize| match files.remove(name) {
            Some(content) if content.len() > max => Err(EvidenceError::TooLong { name, max }),
            content => Ok(content),
        };
        let [
            (bundle, bundle_max),
            (run, run_max),
            (chain, chain_max),
            (finality, finality_max),
            (availability, availability_max),
        ] = FILES;
        let bundle = take(bundle, bundle_max)?;
        let run = take(run, run_max)?;
        let chain = take(chain, chain_max)?;
        let finality = take(finality, finality_max)?;
        let availability = take(availability, availability_max)?;
        if let Some(name) = files.into_keys().next() {
            return Err(EvidenceError::UnknownFile { name: name.chars().take(100).collect() });
        }
        let receipt = read_receipt(&bundle.ok_or(EvidenceError::NoBundle)?)?;
        let chain = chain.map(|lines| read_chain(&lines, &receipt)).transpose()?;
        let finality =
            finality.map(|bytes| Finality::from_bytes(&bytes)).transpose().map_err(EvidenceError::Finality)?;
        let availability = availability.map(|bytes| Availability::from_bytes(&bytes)).transpose();
        let availability = availability.map_err(EvidenceError::Availability)?;
        Ok(Self { receipt, run, chain, finality, availability })
    }

    /// With the proof that the receipt is in the log of a final header.
    #[must_use]
    pub fn with_finality(mut self, finality: Finality) -> Self {
        self.finality = Some(finality);
        self
    }

    /// With the proof that the receipt's data can be had.
    #[must_use]
    pub fn with_availability(mut self, availability: Availability) -> Self {
        self.availability = Some(availability);
        self
    }

    /// Reads a bundle or an envelope that stands alone.
    ///
    /// # Errors
    ///
    /// As [`Evidence::from_files`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EvidenceError> {
        Self::from_files(BTreeMap::from([(BUNDLE_FILE.to_owned(), bytes.to_vec())]))
    }

    /// The files, by name.
    pub fn to_files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::from([(BUNDLE_FILE.to_owned(), self.bundle_json())]);
        if let Some(run) = &self.run {
            files.insert(RUN_FILE.to_owned(), run.clone());
        }
        if let Some(chain) = &self.chain {
            let mut lines = Vec::new();
            for envelope in chain {
                lines.extend(envelope.to_json());
                lines.push(b'\n');
            }
            files.insert(CHAIN_FILE.to_owned(), lines);
        }
        if let Some(finality) = &self.finality {
            files.insert(FINALITY_FILE.to_owned(), finality.to_bytes());
        }
        if let Some(availability) = &self.availability {
            files.insert(AVAILABILITY_FILE.to_owned(), availability.to_bytes());
        }
        files
    }

    fn bundle_json(&self) -> Vec<u8> {
        let bundle = Bundle {
            dsse_envelope: &self.receipt,
            media_type: BUNDLE_TYPE.to_owned(),
            verification_material: Material {
                public_key: Hint { hint: self.receipt.keyid().unwrap_or_default().to_owned() },
                timestamp_verification_data: Timestamps::default(),
                tlog_entries: Vec::new(),
            },
        };
        canonical::to_bytes(&bundle).expect("a bundle holds strings and empty lists only")
    }

    /// The proof that the receipt is in the log of a final header, unverified.
    pub fn finality(&self) -> Option<&Finality> {
        self.finality.as_ref()
    }

    /// The proof that the receipt's data can be had, unverified.
    pub fn availability(&self) -> Option<&Availability> {
        self.availability.as_ref()
    }

    /// The receipt's envelope.
    pub fn receipt(&self) -> &Envelope {
        &self.receipt
    }

    /// What the receipt says, unverified.
    ///
    /// # Errors
    ///
    /// When its payload is no record.
    pub fn entry(&self) -> Result<Entry, RecordError> {
        Entry::read(&self.receipt)
    }
}

fn read_receipt(bytes: &[u8]) -> Result<Envelope, EvidenceError> {
    let malformed = |error: serde_json::Error| EvidenceError::Bundle { reason: error.to_string() };
    // Each of the two forms has members that the other never has, so the error that is shown is that of the form it claims to be.
    if !has_member(bytes, "mediaType").map_err(malformed)? {
        return Envelope::from_json(bytes).map_err(EvidenceError::Envelope);
    }
    let bundle: Bundle<Wire> = serde_json::from_slice(bytes).map_err(malformed)?;
    if bundle.media_type != BUNDLE_TYPE {
        return Err(EvidenceError::BundleType { found: bundle.media_type.chars().take(200).collect() });
    }
    let material = bundle.verification_material;
    if !material.tlog_entries.is_empty() {
        return Err(EvidenceError::Unchecked { what: "log entry" });
    }
    if !material.timestamp_verification_data.rfc3161_timestamps.is_empty() {
        return Err(EvidenceError::Unchecked { what: "time stamp" });
    }
    let envelope = Envelope::from_wire(bundle.dsse_envelope).map_err(EvidenceError::Envelope)?;
    let (hint, keyid) = (material.public_key.hint, envelope.keyid().unwrap_or_default().to_owned());
    if !hint.is_empty() && hint != keyid {
        return Err(EvidenceError::Hint { hint: hint.chars().take(200).collect(), keyid });
    }
    Ok(envelope)
}

fn has_member(bytes: &[u8], name: &str) -> Result<bool, serde_json::Error> {
    let members: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(bytes)?;
    Ok(members.contains_key(name))
}

/// The envelopes before the receipt; a last line that repeats the receipt is left out.
fn read_chain(lines: &[u8], receipt: &Envelope) -> Result<Vec<Envelope>, EvidenceError> {
    if lines.is_empty() {
        return Err(EvidenceError::ChainEmpty);
    }
    let Some((b'\n', lines)) = lines.split_last() else { return Err(EvidenceError::ChainCutOff) };
    let mut chain = Vec::new();
    for (index, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        let envelope =
            Envelope::from_json(line).map_err(|source| EvidenceError::ChainLine { line: index + 1, source })?;
        chain.push(envelope);
    }
    if chain.last() == Some(receipt) {
        chain.pop();
    }
    Ok(chain)
}
