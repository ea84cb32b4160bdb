//! Ed25519 public keys and the names they go by.
//!
//! A key is named by its OpenSSH fingerprint, because that is the one spelling of a DSSE `keyid` that the Go, JavaScript and
//! Python verifiers all leave alone (with a hexadecimal digest the Go tools skip the signature). Always true: a [`PublicKey`] is
//! a point of large order, and [`PublicKey::verify`] accepts what RFC 8032 accepts and nothing that two verifiers could judge
//! differently. Absent on purpose: private keys, which only a signer holds.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _, spki::der::pem::LineEnding};
use ed25519_dalek::{Signature, VerifyingKey};

use crate::digest::Sha256Digest;

/// Longest PEM text that is looked at; one Ed25519 key takes 113 bytes.
pub const PEM_BYTES_MAX: usize = 4096;

/// Why something is not a usable public key or key name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is longer than any key.
    #[error("{bytes} bytes are more than the {max} that one public key may take", max = PEM_BYTES_MAX)]
    TooLong {
        /// Length of the refused text.
        bytes: usize,
    },
    /// The text is a private key.
    #[error(
        "this is a private key; a public key (\"BEGIN PUBLIC KEY\") is wanted, and the private one should not leave its host"
    )]
    Private,
    /// The text is no Ed25519 key in PEM.
    #[error("this is not an Ed25519 public key in PEM (\"BEGIN PUBLIC KEY\"): {reason}")]
    NotPem {
        /// What the decoder said.
        reason: String,
    },
    /// 32 bytes that are not a point, or a point of small order.
    #[error("the 32 bytes {raw} are not a sound Ed25519 public key")]
    Unsound {
        /// The bytes, in hexadecimal.
        raw: String,
    },
    /// A key name of another form.
    #[error("keyid {found:?} is neither empty nor an OpenSSH fingerprint (\"SHA256:\" and 43 characters of base64)")]
    KeyId {
        /// The refused name.
        found: String,
    },
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The second half is not below the group order (RFC 8032, 5.1.7, step 1), so the same signature could have two spellings.
    #[error("the signature is not in the one form that RFC 8032 allows: its scalar is not below the group order")]
    Scalar,
    /// The equation does not hold.
    #[error("the signature does not hold for these bytes and this key")]
    Mismatch,
}

/// Checks that `keyid` is an OpenSSH fingerprint: `SHA256:` and 43 characters of base64 without padding.
///
/// # Errors
///
/// [`KeyError::KeyId`] for any other form, the empty one included.
pub fn check_keyid(keyid: &str) -> Result<(), KeyError> {
    let digest = keyid.strip_prefix("SHA256:").and_then(|tail| STANDARD_NO_PAD.decode(tail).ok());
    if digest.is_some_and(|bytes| bytes.len() == 32) {
        return Ok(());
    }
    Err(KeyError::KeyId { found: keyid.chars().take(100).collect() })
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032, 5.1.5.
    ///
    /// # Errors
    ///
    /// When they are not a point of the curve, or one of small order (such a key accepts signatures nobody made).
    pub fn from_raw(raw: &[u8; 32]) -> Result<Self, KeyError> {
        match VerifyingKey::from_bytes(raw) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(KeyError::Unsound { raw: hex::encode(raw) }),
        }
    }

    /// Takes a key whose secret half the caller holds; such a key is never of small order.
    pub fn from_verifying_key(key: VerifyingKey) -> Self {
        Self(key)
    }

    /// Reads a SubjectPublicKeyInfo in PEM (RFC 8410), as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    ///
    /// When it is too long, a private key, another kind of key or no PEM.
    pub fn from_spki_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > PEM_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: pem.len() });
        }
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let key =
            VerifyingKey::from_public_key_pem(pem.trim()).map_err(|e| KeyError::NotPem { reason: e.to_string() })?;
        Self::from_raw(key.as_bytes())
    }

    /// The key as SubjectPublicKeyInfo in PEM, with a final newline.
    pub fn to_spki_pem(self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("32 bytes always have a DER form")
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The OpenSSH fingerprint, `SHA256:<base64 without padding>`: SHA-256 over the SSH wire form (RFC 8709, section 4) of the key.
    pub fn keyid(&self) -> String {
        let mut wire = Vec::with_capacity(51);
        for part in [&b"ssh-ed25519"[..], self.as_bytes()] {
            // 11 and 32, so the length fits.
            wire.extend_from_slice(&(part.len() as u32).to_be_bytes());
            wire.extend_from_slice(part);
        }
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256Digest::of(&wire).as_bytes()))
    }

    /// Checks `signature` over `message`.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Scalar`] for the second spelling of a signature, [`SignatureError::Mismatch`] for all else.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureError> {
        if !scalar_is_reduced(signature) {
            return Err(SignatureError::Scalar);
        }
        self.0.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| SignatureError::Mismatch)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519 {}", self.keyid())
    }
}

/// Whether S < L = 2^252 + 27742317777372353535851937790883648493, both little-endian.
fn scalar_is_reduced(signature: &[u8; 64]) -> bool {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    signature[32..].iter().rev().lt(ORDER.iter().rev())
}

/// Standard base64 with padding, the one spelling that is accepted wherever this crate reads base64.
pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Inverse of [`base64_encode`]; refuses missing padding and stray bits, so that bytes have one spelling.
pub(crate) fn base64_decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}
