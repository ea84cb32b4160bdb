//! One true piece of evidence, made false in many ways.
//!
//! [`Layer::Envelope`]: bytes were changed by somebody without the key, so every verifier of signatures must refuse. [`Layer::Record`],
//! [`Layer::Chain`] and [`Layer::File`]: the signature holds or is beside the point, and only a verifier that knows our rules can tell;
//! there a trusted host itself lies or errs, or somebody rearranged what it said.

mod chain;
mod envelope;
mod file;
mod record;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bpi_protocol::envelope::{Envelope, pae};
use bpi_protocol::evidence::{BUNDLE_FILE, BUNDLE_TYPE, Evidence};
use bpi_protocol::trust::Trust;
use bpi_protocol::verify::{Level, verify};
use serde_json::json;

use crate::story::{Signer, long};

/// Who must refuse a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Every verifier of DSSE signatures.
    Envelope,
    /// Ours: the statement is false although it is signed.
    Record,
    /// Ours: the chain is false.
    Chain,
    /// Ours: the files do not have the form that they must have.
    File,
}

impl Layer {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Record => "record",
            Self::Chain => "chain",
            Self::File => "file",
        }
    }
}

/// An envelope whose parts may be anything.
#[derive(Clone)]
pub struct Raw {
    /// Media type.
    pub payload_type: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Name of the key.
    pub keyid: String,
    /// Signature of any length.
    pub signature: Vec<u8>,
}

impl Raw {
    /// The parts of a true one.
    pub fn of(envelope: &Envelope) -> Self {
        Self {
            payload_type: envelope.payload_type().to_owned(),
            payload: envelope.payload().to_vec(),
            keyid: envelope.keyid().unwrap_or_default().to_owned(),
            signature: envelope.signature().to_vec(),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "payload": STANDARD.encode(&self.payload),
            "payloadType": self.payload_type,
            "signatures": [{ "keyid": self.keyid, "sig": STANDARD.encode(&self.signature) }],
        })
    }

    /// As DSSE JSON.
    pub fn envelope(&self) -> Vec<u8> {
        self.json().to_string().into_bytes()
    }

    /// As a Sigstore bundle.
    pub fn bundle(&self) -> Vec<u8> {
        let bundle = json!({
            "dsseEnvelope": self.json(),
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "publicKey": { "hint": self.keyid },
                "timestampVerificationData": { "rfc3161Timestamps": [] },
                "tlogEntries": [],
            },
        });
        bundle.to_string().into_bytes()
    }

    /// What its signature should be over.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }
}

/// Evidence that is false.
pub struct Mutant {
    /// What was done to it.
    pub name: String,
    /// Who must refuse it.
    pub layer: Layer,
    /// Level at which ours must refuse it.
    pub level: Level,
    /// The evidence.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The envelope alone, for those who read nothing else.
    pub raw: Option<Raw>,
}

/// The true evidence, and what mutants are made from.
pub struct Truth {
    /// The host that signs and is trusted.
    pub host: Signer,
    /// A host that nobody trusts.
    pub stranger: Signer,
    /// From the intent to the receipt.
    pub records: Vec<Envelope>,
}

impl Default for Truth {
    fn default() -> Self {
        let host = Signer::new("a");
        let records = long(&host);
        Self { host, stranger: Signer::new("stranger"), records }
    }
}

impl Truth {
    /// The receipt's envelope.
    pub fn receipt(&self) -> &Envelope {
        self.records.last().expect("the story ends with a receipt")
    }

    /// The files of the true evidence.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        Evidence::of(&self.records).expect("the story ends with a receipt").to_files()
    }

    /// A trust file that lists the host.
    pub fn trust_json(&self) -> Vec<u8> {
        let host = json!({ "id": self.host.host().id, "publicKey": self.host.public_key().to_spki_pem() });
        json!({ "hosts": [host] }).to_string().into_bytes()
    }

    fn with_bundle(&self, bundle: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files();
        files.insert(BUNDLE_FILE.to_owned(), bundle);
        files
    }

    /// Every mutant.
    pub fn mutants(&self) -> Vec<Mutant> {
        let mut all = envelope::mutants(self);
        all.extend(record::mutants(self));
        all.extend(chain::mutants(self));
        all.extend(file::mutants(self));
        all
    }
}

/// How ours judges evidence: exit code and sentence, as `docklock verify` has them.
pub fn judge(files: &BTreeMap<String, Vec<u8>>, trust: &Trust, level: Level) -> (u8, String) {
    match Evidence::from_files(files.clone()) {
        Err(error) => (2, error.to_string()),
        Ok(evidence) => {
            let report = verify(&evidence, trust, level);
            (report.exit_code(), report.verdict())
        }
    }
}
