//! One host's chain of records for one boundary: intents, and the receipts and aborts that close them.
//!
//! A record is named by the SHA-256 of its envelope's PAE, and each names the one before. So a record that was left out, added,
//! changed or put elsewhere shows in the next one, and an intent that nothing closes is a provable gap ([`Walk`]). The writer of a
//! record and its readers pass the same checks. Absent on purpose: signatures, which are [`crate::verify`]'s.

mod walk;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::canonical::{self, CanonicalError};
use crate::digest::Sha256Digest;
use crate::envelope::{Envelope, PAYLOAD_BYTES_MAX, PAYLOAD_TYPE};
use crate::receipt::{ABORT_TYPE, Abort, ChainLink, Host, INTENT_TYPE, Intent, RECEIPT_TYPE, Receipt};
use crate::run::Run;
use crate::schema::{self, SchemaError};
use crate::statement::{STATEMENT_TYPE, Statement};

pub use walk::{ChainError, OpenIntent, Walk};

/// Why a payload is not a record, or a record cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Payload of another media type.
    #[error("payloadType is {found:?}; a record is {PAYLOAD_TYPE:?}")]
    PayloadType {
        /// What the envelope says.
        found: String,
    },
    /// Payload that is not a canonical statement of ours.
    #[error("the statement is {0}")]
    Canonical(#[from] CanonicalError),
    /// Another statement version.
    #[error("_type is {found:?}; it must be {STATEMENT_TYPE:?}")]
    StatementType {
        /// What the statement says.
        found: String,
    },
    /// A predicate nobody here knows.
    #[error("predicateType {found:?} is none of execution-receipt/v1, execution-intent/v1 and execution-abort/v1")]
    PredicateType {
        /// What the statement says.
        found: String,
    },
    /// None or several subjects.
    #[error("the statement has {found} subjects; a record has exactly one")]
    SubjectCount {
        /// How many.
        found: usize,
    },
    /// A subject of another name.
    #[error("the subject is named {found:?}; here it must be {wanted:?}")]
    SubjectName {
        /// What the statement says.
        found: String,
        /// What this kind of record wants.
        wanted: &'static str,
    },
    /// The subject of a receipt is not its run.
    #[error("the subject says run-hash {subject}, but the run inside the receipt hashes to {run}")]
    RunHash {
        /// Digest in the subject.
        subject: Sha256Digest,
        /// Digest of the predicate's run.
        run: Sha256Digest,
    },
    /// The subject of an abort is not the intent it closes.
    #[error("the subject of the abort is {subject}, but chain.startedRef is {started_ref}")]
    AbortSubject {
        /// Digest in the subject.
        subject: Sha256Digest,
        /// Digest in the link.
        started_ref: Sha256Digest,
    },
    /// A member breaks a rule.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Larger than any reader accepts.
    #[error("the record has {bytes} bytes, more than the limit of {max}", max = PAYLOAD_BYTES_MAX)]
    TooLong {
        /// Length of the payload.
        bytes: usize,
    },
}

/// Why a record could not be sealed: it is wrong, or the signer failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError<E: std::error::Error + 'static> {
    /// The record breaks a rule; nothing was signed.
    #[error("the record breaks its own rules and was not signed: {0}")]
    Record(#[source] RecordError),
    /// The signer failed.
    #[error("the record could not be signed: {0}")]
    Signer(#[source] E),
}

/// One record of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What is about to run.
    Intent(Box<Intent>),
    /// What ran.
    Receipt(Box<Receipt>),
    /// What will never have a receipt.
    Abort(Box<Abort>),
}

/// A record with its subject and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub record: Record,
    /// What it is about: of a receipt its run-hash, of an intent the digest of the caged configuration (the same as
    /// `run.config.digest` of the receipt that closes it), of an abort the intent.
    pub subject: Sha256Digest,
    /// SHA-256 of the PAE of its envelope: what `prev` and `startedRef` of other records name.
    pub pae_digest: Sha256Digest,
}

/// Digest of the JCS bytes of `run`, and those bytes: `run.json`.
///
/// # Errors
///
/// When the run holds a number beyond 2^53 - 1.
pub fn run_json(run: &Run) -> Result<(Sha256Digest, Vec<u8>), CanonicalError> {
    let bytes = canonical::to_bytes(run)?;
    Ok((Sha256Digest::of(&bytes), bytes))
}

impl Entry {
    /// Reads the record inside `envelope`. Says nothing about its signature.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: each rule that can be broken has its own.
    pub fn read(envelope: &Envelope) -> Result<Self, RecordError> {
        if envelope.payload_type() != PAYLOAD_TYPE {
            return Err(RecordError::PayloadType { found: envelope.payload_type().to_owned() });
        }
        let (subject, record) = Record::from_payload(envelope.payload())?;
        Ok(Self { record, subject, pae_digest: envelope.pae_digest() })
    }
}

impl Record {
    /// Reads the record inside `envelope`; see [`Entry::read`].
    ///
    /// # Errors
    ///
    /// As [`Entry::read`].
    pub fn parse(envelope: &Envelope) -> Result<Self, RecordError> {
        Entry::read(envelope).map(|entry| entry.record)
    }

    /// The canonical bytes of the statement: the payload to sign. `config` is the digest of the caged configuration, which is the
    /// subject of an intent; a receipt's and an abort's subject follow from themselves.
    ///
    /// # Errors
    ///
    /// When the record would be refused by its readers.
    pub fn payload(&self, config: Sha256Digest) -> Result<Vec<u8>, RecordError> {
        self.check()?;
        let bytes = match self {
            Self::Intent(intent) => statement_bytes("config.json", config, INTENT_TYPE, intent)?,
            Self::Receipt(receipt) => {
                let (run_hash, _) = run_json(&receipt.run)?;
                statement_bytes("run.json", run_hash, RECEIPT_TYPE, receipt)?
            }
            Self::Abort(abort) => {
                // The check above refused an abort without one.
                let intent = abort.chain.started_ref.unwrap_or(Sha256Digest::EMPTY);
                statement_bytes("intent", intent, ABORT_TYPE, abort)?
            }
        };
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Writes and signs the record: `sign` gets the PAE and returns the signature made by the key that `host.keyid` names.
    ///
    /// # Errors
    ///
    /// When the record breaks a rule (then nothing is signed) or the signer fails.
    pub fn seal<E: std::error::Error + 'static>(
        &self,
        config: Sha256Digest,
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<Envelope, SealError<E>> {
        let payload = self.payload(config).map_err(SealError::Record)?;
        Envelope::sign(payload, &self.host().keyid, sign).map_err(SealError::Signer)
    }

    /// Subject and record of the statement `payload`.
    fn from_payload(payload: &[u8]) -> Result<(Sha256Digest, Self), RecordError> {
        let statement: Statement<&RawValue> = canonical::from_bytes(payload, PAYLOAD_BYTES_MAX)?;
        if statement.type_ != STATEMENT_TYPE {
            return Err(RecordError::StatementType { found: statement.type_.chars().take(200).collect() });
        }
        let (subject, record) = match statement.predicate_type.as_str() {
            RECEIPT_TYPE => read_receipt(&statement)?,
            INTENT_TYPE => (subject(&statement, "config.json")?, Self::Intent(Box::new(predicate(&statement)?))),
            ABORT_TYPE => read_abort(&statement)?,
            found => return Err(RecordError::PredicateType { found: found.chars().take(200).collect() }),
        };
        record.check()?;
        Ok((subject, record))
    }

    fn check(&self) -> Result<(), SchemaError> {
        match self {
            Self::Intent(intent) => schema::intent(intent),
            Self::Receipt(receipt) => schema::receipt(receipt),
            Self::Abort(abort) => schema::abort(abort),
        }
    }

    /// `intent`, `receipt` or `abort`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Intent(_) => "intent",
            Self::Receipt(_) => "receipt",
            Self::Abort(_) => "abort",
        }
    }

    /// Where it stands.
    pub fn chain(&self) -> &ChainLink {
        match self {
            Self::Intent(intent) => &intent.chain,
            Self::Receipt(receipt) => &receipt.chain,
            Self::Abort(abort) => &abort.chain,
        }
    }

    /// Who signs.
    pub fn host(&self) -> &Host {
        match self {
            Self::Intent(intent) => &intent.host,
            Self::Receipt(receipt) => &receipt.host,
            Self::Abort(abort) => &abort.host,
        }
    }

    /// Container id, as the caller named it.
    pub fn container_id(&self) -> &str {
        match self {
            Self::Intent(intent) => &intent.container_id,
            Self::Receipt(receipt) => &receipt.observed.container_id,
            Self::Abort(abort) => &abort.container_id,
        }
    }
}

fn statement_bytes<P: Serialize>(
    name: &str,
    digest: Sha256Digest,
    type_: &str,
    p: &P,
) -> Result<Vec<u8>, CanonicalError> {
    canonical::to_bytes(&Statement::new(name, digest, type_, p))
}

/// The one subject, if it has the name that this kind of record wants.
fn subject(statement: &Statement<&RawValue>, wanted: &'static str) -> Result<Sha256Digest, RecordError> {
    match &statement.subject[..] {
        [subject] if subject.name == wanted => Ok(subject.digest),
        [subject] => Err(RecordError::SubjectName { found: subject.name.chars().take(200).collect(), wanted }),
        subjects => Err(RecordError::SubjectCount { found: subjects.len() }),
    }
}

/// The predicate, part of bytes that are known to be canonical.
fn predicate<'a, P: Deserialize<'a>>(statement: &Statement<&'a RawValue>) -> Result<P, CanonicalError> {
    canonical::interpret(statement.predicate.get().as_bytes())
}

fn read_receipt(statement: &Statement<&RawValue>) -> Result<(Sha256Digest, Record), RecordError> {
    /// A part of canonical bytes is canonical, so the member as it stands is run.json.
    #[derive(Deserialize)]
    struct RunAlone<'a> {
        #[serde(borrow)]
        run: &'a RawValue,
    }
    let receipt: Receipt = predicate(statement)?;
    let subject = subject(statement, "run.json")?;
    let run = Sha256Digest::of(predicate::<RunAlone<'_>>(statement)?.run.get().as_bytes());
    if subject != run {
        return Err(RecordError::RunHash { subject, run });
    }
    Ok((subject, Record::Receipt(Box::new(receipt))))
}

fn read_abort(statement: &Statement<&RawValue>) -> Result<(Sha256Digest, Record), RecordError> {
    let abort: Abort = predicate(statement)?;
    let subject = subject(statement, "intent")?;
    if let Some(started_ref) = abort.chain.started_ref.filter(|started_ref| *started_ref != subject) {
        return Err(RecordError::AbortSubject { subject, started_ref });
    }
    Ok((subject, Record::Abort(Box::new(abort))))
}
