//! DSSE v1 envelopes: a payload, its type, and one Ed25519 signature over both.
//!
//! Exactly one signature: a second opinion is another statement, and a verifier that stops at the first good one must not be
//! shown a bad one behind it. Payload and signature are standard base64 with padding, in one spelling. The JSON around them may be
//! spelled freely, because what is chained and signed is the PAE, never these bytes. Absent on purpose: any trust in `keyid`, which
//! only says which key to try.

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::canonical;
use crate::digest::Sha256Digest;
use crate::key::{KeyError, PublicKey, SignatureError, base64_decode, base64_encode, check_keyid};

/// DSSE payload type of every record.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Largest payload. A receipt of every Linux system call denied with three errnos each is below 120 KiB.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// Largest envelope as JSON: base64 of the largest payload, and room for its frame.
pub const ENVELOPE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 3 * 4 + 4096;
/// Longest payload type.
pub const PAYLOAD_TYPE_BYTES_MAX: usize = 256;

/// Why bytes are not one of our envelopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than the limit.
    #[error("the envelope has {bytes} bytes, more than the limit of {max}")]
    TooLong {
        /// Length found.
        bytes: usize,
        /// Limit in force.
        max: usize,
    },
    /// Not JSON, or JSON with other members.
    #[error("the envelope is not DSSE JSON: {reason}")]
    Json {
        /// What the reader said.
        reason: String,
    },
    /// The type is too long.
    #[error("payloadType has {bytes} bytes, more than the limit of {max}", max = PAYLOAD_TYPE_BYTES_MAX)]
    TypeTooLong {
        /// Length found.
        bytes: usize,
    },
    /// The payload is not base64.
    #[error("the payload is not standard base64: {reason}")]
    PayloadBase64 {
        /// What the decoder said.
        reason: String,
    },
    /// None or several signatures.
    #[error("the envelope carries {found} signatures; exactly one is allowed")]
    SignatureCount {
        /// How many.
        found: usize,
    },
    /// The signature is not base64.
    #[error("the signature is not standard base64: {reason}")]
    SignatureBase64 {
        /// What the decoder said.
        reason: String,
    },
    /// The signature has the wrong length.
    #[error("the signature has {bytes} bytes; an Ed25519 signature has 64")]
    SignatureLength {
        /// Length found.
        bytes: usize,
    },
    /// The key name has another form.
    #[error(transparent)]
    KeyId(KeyError),
}

/// A signed payload. Serialises as DSSE JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    keyid: Option<String>,
    signature: [u8; 64],
}

/// The JSON form, members in canonical order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// DSSE's pre-authentication encoding: `DSSEv1 <len> <type> <len> <payload>` with lengths in decimal bytes.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = pae_head(payload_type, payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn pae_head(payload_type: &str, payload_len: usize) -> String {
    format!("DSSEv1 {} {payload_type} {payload_len} ", payload_type.len())
}

impl Envelope {
    /// Signs `payload` as [`PAYLOAD_TYPE`]: `sign` gets the PAE and returns the 64 bytes of an Ed25519 signature made by the key
    /// that `keyid` names.
    ///
    /// # Errors
    ///
    /// Only those of `sign`.
    pub fn sign<E>(payload: Vec<u8>, keyid: &str, sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>) -> Result<Self, E> {
        Self::sign_as(PAYLOAD_TYPE, payload, keyid, sign)
    }

    /// Signs `payload` as another type; see [`Envelope::sign`].
    ///
    /// # Errors
    ///
    /// Only those of `sign`.
    pub fn sign_as<E>(
        payload_type: &str,
        payload: Vec<u8>,
        keyid: &str,
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<Self, E> {
        let signature = sign(&pae(payload_type, &payload))?;
        let keyid = Some(keyid.to_owned()).filter(|keyid| !keyid.is_empty());
        Ok(Self { payload_type: payload_type.to_owned(), payload, keyid, signature })
    }

    /// Reads an envelope from JSON.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] names the part that is wrong. Nothing is said about whether the signature holds.
    pub fn from_json(json: &[u8]) -> Result<Self, EnvelopeError> {
        if json.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLong { bytes: json.len(), max: ENVELOPE_BYTES_MAX });
        }
        let wire: Wire =
            serde_json::from_slice(json).map_err(|error| EnvelopeError::Json { reason: error.to_string() })?;
        Self::from_wire(wire)
    }

    pub(crate) fn from_wire(wire: Wire) -> Result<Self, EnvelopeError> {
        if wire.payload_type.len() > PAYLOAD_TYPE_BYTES_MAX {
            return Err(EnvelopeError::TypeTooLong { bytes: wire.payload_type.len() });
        }
        let payload =
            base64_decode(&wire.payload).map_err(|error| EnvelopeError::PayloadBase64 { reason: error.to_string() })?;
        let [WireSignature { keyid, sig }] = &wire.signatures[..] else {
            return Err(EnvelopeError::SignatureCount { found: wire.signatures.len() });
        };
        let keyid = Some(keyid.clone()).filter(|keyid| !keyid.is_empty());
        if let Some(keyid) = &keyid {
            check_keyid(keyid).map_err(EnvelopeError::KeyId)?;
        }
        let signature =
            base64_decode(sig).map_err(|error| EnvelopeError::SignatureBase64 { reason: error.to_string() })?;
        let signature =
            signature.try_into().map_err(|bytes: Vec<u8>| EnvelopeError::SignatureLength { bytes: bytes.len() })?;
        Ok(Self { payload_type: wire.payload_type, payload, keyid, signature })
    }

    fn to_wire(&self) -> Wire {
        let keyid = self.keyid.clone().unwrap_or_default();
        Wire {
            payload: base64_encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: vec![WireSignature { keyid, sig: base64_encode(&self.signature) }],
        }
    }

    /// The envelope as canonical JSON on one line, without a newline.
    pub fn to_json(&self) -> Vec<u8> {
        canonical::to_bytes(self).expect("an envelope holds strings only")
    }

    /// What is signed.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// SHA-256 of the PAE: the name of this record in a chain (`prev`, `startedRef`).
    pub fn pae_digest(&self) -> Sha256Digest {
        let mut hash = Sha256::new();
        hash.update(pae_head(&self.payload_type, self.payload.len()));
        hash.update(&self.payload);
        Sha256Digest::from_bytes(hash.finalize().into())
    }

    /// Checks the signature with `key`, whatever `keyid` says.
    ///
    /// # Errors
    ///
    /// When it does not hold.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        key.verify(&self.pae(), &self.signature)
    }

    /// Media type of the payload.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Which key to try, when the envelope says so.
    pub fn keyid(&self) -> Option<&str> {
        self.keyid.as_deref()
    }

    /// The 64 bytes of the signature.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_wire().serialize(serializer)
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Envelope({}, {} bytes, PAE {})", self.payload_type, self.payload.len(), self.pae_digest())
    }
}
