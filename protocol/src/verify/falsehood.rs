//! Every way in which well-formed evidence can be false, one sentence each.

use crate::availability::attestation::AttestationError;
use crate::canonical::CanonicalError;
use crate::chain::{ChainError, RecordError};
use crate::consensus::bls;
use crate::consensus::ids::ChainId;
use crate::consensus::light::StepError;
use crate::digest::Sha256Digest;
use crate::key::SignatureError;
use crate::log::leaf::TenantId;
use crate::log::proof::ProofError;

/// What is false.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Falsehood {
    /// The signer is nobody the caller trusts.
    #[error("wrong key: the envelope names key {keyid}, which the trust file does not hold")]
    UnknownKey {
        /// Name of the key.
        keyid: String,
    },
    /// The envelope names no key, and no trusted one made the signature.
    #[error(
        "wrong key or altered content: the envelope names no key, and none of the {tried} trusted keys made its signature"
    )]
    NoKeyFits {
        /// How many were tried.
        tried: usize,
    },
    /// The envelope names one key, another one signed.
    #[error("keyid was changed: the envelope names key {named}, but its signature is by {actual}")]
    KeyIdChanged {
        /// Key named.
        named: String,
        /// Key that signed.
        actual: String,
    },
    /// The signature would hold with the right payload type.
    #[error("payloadType was changed to {found:?} after signing; the signature was made for a statement")]
    TypeChanged {
        /// What the envelope says.
        found: String,
    },
    /// The signature is one of another record's.
    #[error("the signature is not this receipt's: it belongs to the record at seq {seq} of the same chain")]
    SignatureOfAnother {
        /// Position of that record.
        seq: u64,
    },
    /// The signature has a second spelling.
    #[error("signature {signature} is of no allowed form: {source}")]
    SignatureForm {
        /// The signature, in hexadecimal.
        signature: String,
        /// Why.
        source: SignatureError,
    },
    /// The payload cannot be what was signed.
    #[error("the payload was changed after signing: {0}")]
    PayloadChanged(RecordError),
    /// The payload is another than the one in the run.json beside it.
    #[error(
        "the signature does not hold, and the payload is of another run than the run.json beside it: one was changed"
    )]
    PayloadOfAnotherRun,
    /// The signature is over the payload alone.
    #[error(
        "the signature is over the bare payload, not over its DSSE encoding, so it does not bind the payload's type"
    )]
    SignedWithoutType,
    /// The payload is sound in itself.
    #[error(
        "the signature does not hold for this payload, which is sound in itself: one of them was changed \
         (signature {signature}, payload {payload})"
    )]
    SignatureChanged {
        /// Digest of the payload.
        payload: Sha256Digest,
        /// The signature, in hexadecimal.
        signature: String,
    },

    /// The statement names another key than the one that signed.
    #[error("the statement says it is signed by key {claimed}, but key {actual} signed it")]
    OtherKey {
        /// Key in the statement.
        claimed: String,
        /// Key that signed.
        actual: String,
    },
    /// The key belongs to another host.
    #[error("the statement says it is from host {claimed:?}, but the trust file gives the signing key to {actual:?}")]
    OtherHost {
        /// Host in the statement.
        claimed: String,
        /// Host in the trust file.
        actual: String,
    },

    /// The statement breaks a rule.
    #[error("{0}")]
    Record(RecordError),
    /// The record is not a receipt.
    #[error("the record is an {kind}, not a receipt: it proves no run")]
    NotAReceipt {
        /// What it is.
        kind: &'static str,
    },
    /// run.json is not canonical.
    #[error("run.json is {0}")]
    RunForm(CanonicalError),
    /// run.json is another run.
    #[error("run.json was changed: it hashes to {found}, but the statement's run-hash is {signed}")]
    RunHash {
        /// Digest of the file.
        found: Sha256Digest,
        /// Digest in the statement.
        signed: Sha256Digest,
    },

    /// A record of the chain breaks a rule.
    #[error("chain.jsonl, line {line}: {source}")]
    ChainRecord {
        /// Counted from 1.
        line: usize,
        /// Which rule.
        source: RecordError,
    },
    /// A record of the chain is signed by nobody the caller trusts.
    #[error("chain.jsonl, line {line}: no trusted key made the signature of the record at seq {seq}")]
    ChainSigner {
        /// Counted from 1.
        line: usize,
        /// Its position.
        seq: u64,
    },
    /// A record of the chain was changed.
    #[error("chain.jsonl, line {line}: the record at seq {seq} was changed after signing")]
    ChainSignature {
        /// Counted from 1.
        line: usize,
        /// Its position.
        seq: u64,
    },
    /// The records do not follow each other.
    #[error("{0}")]
    Chain(ChainError),
    /// The receipt's intent is not there.
    #[error("chain.jsonl does not hold the intent {started_ref} that the receipt closes")]
    IntentMissing {
        /// What the receipt names.
        started_ref: Sha256Digest,
    },

    /// redaction.json names a record that is no part of the stretch.
    #[error("redaction.json says that the record at seq {seq} was withheld, which is not before the receipt")]
    WithheldAfter {
        /// Its position.
        seq: u64,
    },
    /// redaction.json gives a part another digest than the signer did.
    #[error("redaction.json says that {name} was {found}, but the receipt commits to {signed}")]
    WithheldOther {
        /// Name of the file.
        name: &'static str,
        /// Digest in redaction.json.
        found: Sha256Digest,
        /// Digest in the receipt.
        signed: Sha256Digest,
    },

    /// The receipt is not where the proof says.
    #[error("finality.bin does not show that this receipt is in the log of its header of height {height}: {source}")]
    NotInLog {
        /// The header's.
        height: u64,
        /// What is wrong with the proof.
        source: ProofError,
    },
    /// The header is of a chain that the caller does not trust.
    #[error("wrong chain: finality.bin is of chain {chain}, which the trust file does not hold")]
    UnknownChain {
        /// Which.
        chain: ChainId,
    },
    /// The batch is another tenant's.
    #[error("availability.bin is of a batch of tenant {batch}, and the receipt is of tenant {receipt}")]
    OtherTenant {
        /// The batch's.
        batch: TenantId,
        /// The receipt's.
        receipt: TenantId,
    },
    /// The receipt is not in the batch.
    #[error("availability.bin does not show that this receipt is in its batch: {0}")]
    NotInBatch(#[source] ProofError),
    /// The header does not commit to the batch.
    #[error("availability.bin does not show that the header of height {height} commits to its batch: {source}")]
    NotAttested {
        /// The header's.
        height: u64,
        /// What is wrong with the proof.
        source: ProofError,
    },
    /// Too few pinners, or none that count, keep the batch.
    #[error("availability.bin: {0}")]
    Attestation(#[source] AttestationError),
    /// The trusted set has a key that is none.
    #[error("the validator set of finality.bin cannot be used: {0}")]
    SetKeys(bls::KeyError),
    /// The seal does not make the header final.
    #[error("the header of height {height} in finality.bin is not final: {source}")]
    NotFinal {
        /// The header's.
        height: u64,
        /// Which rule it breaks.
        source: StepError,
    },

    /// The caller's own policy does not accept it.
    #[error("{policy} does not accept it: {}", reasons.join("; "))]
    Refused {
        /// Name of the policy.
        policy: String,
        /// Why, sorted.
        reasons: Vec<String>,
    },
    /// The run was done again, and something else came out.
    #[error("another run-hash came out when it was done again: {found}, and the receipt's is {signed}")]
    RerunDiffers {
        /// Of the rerun.
        found: Sha256Digest,
        /// Of the receipt.
        signed: Sha256Digest,
    },
}
