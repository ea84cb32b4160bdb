//! Keys of the end-to-end layer: whose they are, and for how long.
//!
//! An identity is an Ed25519 key. What is sealed to it is sealed to one of its *prekeys*: X25519 keys that live for an hour, are certified by the
//! identity, and are never written to disk, so that nothing can be opened, or accepted again, by who comes later. Relays know an identity by its
//! [`KeyId`], which stays when prekeys change.

use std::fmt;
use std::hash::{Hash, Hasher};

use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey as ExchangeKey, StaticSecret};
use zeroize::Zeroizing;

use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::key::PublicKey;

/// Bytes of a certificate of a prekey.
pub const PREKEY_BYTES: usize = 4 + 2 + 8 + 32 + 32 + 8 + 8 + SIGNATURE_BYTES;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// How long a prekey is given out, in s.
pub const PREKEY_S: u64 = 3600;
/// How long it opens what was sealed to it before, in s: as long as an INIT may be under way.
pub const PREKEY_GRACE_S: u64 = super::header::EXPIRY_S_MAX + super::header::SKEW_S;
/// Longest life that a certificate may have, in s.
const LIFE_S_MAX: u64 = 2 * PREKEY_S;

const MAGIC: [u8; 4] = *b"BPK1";
const KEY_ID_DOMAIN: &[u8] = b"bpci/1 key id";
const PREKEY_DOMAIN: &[u8] = b"bpci/1 prekey";

/// What relays know a destination by: the first eight bytes of a digest of its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl Hash for KeyId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As one number: relays look it up for every frame.
        state.write_u64(u64::from_be_bytes(self.0));
    }
}

impl KeyId {
    /// Of an Ed25519 identity.
    pub fn of(identity: &[u8; 32]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(identity).finalize()[..8]);
        Self(id)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Signs as an identity: a key in memory, or one behind a device.
pub trait Signer {
    /// The identity.
    fn identity(&self) -> [u8; 32];

    /// An Ed25519 signature (RFC 8032).
    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES];
}

/// A prekey's public half, as its identity has certified it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prekey {
    /// Number of the key, of 15 bits; an INIT says it.
    pub serial: u16,
    /// Which network.
    pub network: u64,
    /// Whose.
    pub identity: [u8; 32],
    /// X25519.
    pub key: [u8; 32],
    /// Unix time in s from which it is given out.
    pub not_before_s: u64,
    /// Unix time in s until which something may be sealed to it.
    pub not_after_s: u64,
    /// The identity's, over all of it.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl fmt::Debug for Prekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prekey({} of {}, until {})", self.serial, KeyId::of(&self.identity), self.not_after_s)
    }
}

/// Why a prekey was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrekeyError {
    /// No certificate.
    #[error("the certificate of a prekey is malformed: {0}")]
    Malformed(#[from] BytesError),
    /// Not signed by its identity.
    #[error("the certificate of a prekey is not signed by its identity")]
    Signature,
    /// Not yet, or not any more.
    #[error("a prekey is good from {not_before_s} to {not_after_s}, and it is {unix_s}")]
    Time {
        /// From.
        not_before_s: u64,
        /// Until.
        not_after_s: u64,
        /// Now.
        unix_s: u64,
    },
    /// Of another network.
    #[error("a prekey is of network {found:016x}; this is {wanted:016x}")]
    Network {
        /// Whose it is.
        found: u64,
        /// This one.
        wanted: u64,
    },
}

impl Prekey {
    fn signed_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&MAGIC).u16(self.serial).u64(self.network).bytes(&self.identity).bytes(&self.key);
        writer.u64(self.not_before_s).u64(self.not_after_s);
        writer.done()
    }

    /// Its bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads and checks a certificate.
    ///
    /// # Errors
    /// [`PrekeyError`]; nothing of a refused one is to be used.
    pub fn from_bytes(bytes: &[u8], network: u64, unix_s: u64) -> Result<Self, PrekeyError> {
        let mut reader = Reader::new(bytes);
        let magic: [u8; 4] = reader.array()?;
        if magic != MAGIC {
            return Err(BytesError::Value { field: "magic", value: u32::from_be_bytes(magic).into() }.into());
        }
        let prekey = Self {
            serial: reader.u16()?,
            network: reader.u64()?,
            identity: reader.array()?,
            key: reader.array()?,
            not_before_s: reader.u64()?,
            not_after_s: reader.u64()?,
            signature: reader.array()?,
        };
        reader.end()?;
        if prekey.serial >= 1 << 15 {
            return Err(BytesError::Value { field: "serial", value: prekey.serial.into() }.into());
        }
        if prekey.network != network {
            return Err(PrekeyError::Network { found: prekey.network, wanted: network });
        }
        if !prekey.is_good_at(unix_s) {
            let Self { not_before_s, not_after_s, .. } = prekey;
            return Err(PrekeyError::Time { not_before_s, not_after_s, unix_s });
        }
        let message = [PREKEY_DOMAIN, &prekey.signed_bytes()].concat();
        PublicKey::from_raw(&prekey.identity)
            .ok()
            .and_then(|key| key.verify(&message, &prekey.signature).ok())
            .ok_or(PrekeyError::Signature)?;
        Ok(prekey)
    }

    /// Whether something may be sealed to it now.
    pub fn is_good_at(&self, unix_s: u64) -> bool {
        let skew = super::header::SKEW_S;
        self.not_before_s <= unix_s.saturating_add(skew)
            && unix_s <= self.not_after_s
            && self.not_after_s.saturating_sub(self.not_before_s) <= LIFE_S_MAX
    }
}

/// Both halves of a prekey. The private one is wiped when it goes out of use.
pub struct PrekeyPair {
    secret: StaticSecret,
    /// What is given out.
    pub public: Prekey,
}

impl fmt::Debug for PrekeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.public.fmt(f)
    }
}

impl PrekeyPair {
    /// A new one that is good for [`PREKEY_S`] from now on.
    pub fn generate(
        signer: &impl Signer,
        network: u64,
        serial: u16,
        unix_s: u64,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let secret = StaticSecret::random_from_rng(rng);
        let mut public = Prekey {
            serial: serial & 0x7fff,
            network,
            identity: signer.identity(),
            key: ExchangeKey::from(&secret).to_bytes(),
            not_before_s: unix_s,
            not_after_s: unix_s.saturating_add(PREKEY_S),
            signature: [0; SIGNATURE_BYTES],
        };
        public.signature = signer.sign(&[PREKEY_DOMAIN, &public.signed_bytes()].concat());
        Self { secret, public }
    }

    /// The private half for the KEM.
    pub(super) fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Whether it still opens what was sealed to it.
    pub fn opens_at(&self, unix_s: u64) -> bool {
        unix_s <= self.public.not_after_s.saturating_add(PREKEY_GRACE_S)
    }
}

impl<S: Signer + ?Sized> Signer for std::sync::Arc<S> {
    fn identity(&self) -> [u8; 32] {
        (**self).identity()
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        (**self).sign(message)
    }
}
