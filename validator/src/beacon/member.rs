//! A validator in the eyes of `commonware-cryptography`: the same key that it votes with, under a domain of its own.
//!
//! That library is generic over who takes part; this is the part that it is given. A member's bytes are those of its key, so members sort
//! by key, and that order gives each its point of the polynomial ([`super::sharing`]).

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bpi_protocol::consensus::bls::{SecretKey, VerifyingKey};
use bpi_protocol::consensus::bytes::Writer;
use bpi_protocol::consensus::scheme::{PublicKey, Signature, Signer as _};
use bpi_protocol::consensus::validators::quorum;
use commonware_codec::{Buf, FixedSize, Read, ReadExt as _, Write};
use commonware_cryptography::{BatchEntry, BatchVerifier, Signer, Verifier};
use commonware_math::algebra::Random;
use commonware_parallel::Strategy;
use commonware_utils::{Array, Faults, Span};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// What a ceremony's signatures are over, so that none is a vote: this, the length of a namespace in two bytes, the namespace, the message.
const DOMAIN: &[u8] = b"bpi.dkg.v1";

/// How many dealings and shares it takes, and how many may be missing: our quorum, ceil(2N/3), and the rest.
///
/// The library's own model has N - floor((N-1)/3), which is one more wherever 3 divides N, and then a seal would need more shares than
/// votes. `max_faults` is what may be *absent* here, floor(N/3); of revealed shares [`super::ceremony`] allows fewer.
#[derive(Clone)]
pub(super) struct Absent;

impl Faults for Absent {
    fn max_faults(n: impl num_traits::ToPrimitive) -> u32 {
        let n = n.to_usize().unwrap_or(0);
        u32::try_from(n - quorum(n)).unwrap_or(u32::MAX)
    }
}

macro_rules! array {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) struct $name(pub [u8; $size]);

        impl FixedSize for $name {
            const SIZE: usize = $size;
        }

        impl Write for $name {
            fn write(&self, out: &mut impl bytes::BufMut) {
                self.0.write(out);
            }
        }

        impl Read for $name {
            type Cfg = ();

            fn read_cfg(from: &mut impl Buf, _: &()) -> Result<Self, commonware_codec::Error> {
                Ok(Self(<[u8; $size]>::read(from)?))
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..6]))
            }
        }

        impl Span for $name {}
        impl Array for $name {}
    };
}

array! {
    /// A validator, by its key. Whether that is a point is looked into where it is used; a set's keys have been before.
    Member, 96
}

array! {
    /// A member's signature.
    Autograph, 48
}

impl Member {
    /// Of a key.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.0)
    }

    /// The key.
    pub fn key(&self) -> PublicKey {
        PublicKey(self.0)
    }

    fn verifying_key(&self) -> Option<VerifyingKey> {
        VerifyingKey::new(&self.key()).ok()
    }
}

impl commonware_cryptography::Signature for Autograph {}

impl Verifier for Member {
    type Signature = Autograph;

    fn verify(&self, namespace: &[u8], message: &[u8], signature: &Autograph) -> bool {
        let statement = statement(namespace, message);
        self.verifying_key().is_some_and(|key| key.verify(&statement, &Signature(signature.0)))
    }
}

impl commonware_cryptography::PublicKey for Member {}

impl BatchVerifier for Member {
    /// All at once when they are over one message, as the acknowledgements of one dealing are: the sum of such signatures holds only if
    /// every member has signed, since each has shown to own its key.
    fn verify_batch<'a, R, T, F>(_: &mut R, items: &'a [T], project: F, _: &impl Strategy) -> bool
    where
        R: CryptoRng,
        T: Sync,
        F: Fn(usize, &'a T) -> BatchEntry<'a, Self> + Sync,
    {
        let entries: Vec<_> = items.iter().enumerate().map(|(index, item)| project(index, item)).collect();
        let Some(first) = entries.first() else { return false };
        if entries.iter().any(|entry| (entry.namespace, entry.message) != (first.namespace, first.message)) {
            return entries
                .iter()
                .all(|entry| entry.public_key.verify(entry.namespace, entry.message, entry.signature));
        }
        let keys: Option<Vec<_>> = entries.iter().map(|entry| entry.public_key.verifying_key()).collect();
        let signatures: Vec<_> = entries.iter().map(|entry| Signature(entry.signature.0)).collect();
        let statement = statement(first.namespace, first.message);
        keys.is_some_and(|keys| VerifyingKey::verify_sum(&keys, &statement, &signatures))
    }
}

fn statement(namespace: &[u8], message: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(DOMAIN).u16(namespace.len() as u16).bytes(namespace).bytes(message);
    out.done()
}

/// What a validator signs a ceremony's messages with.
#[derive(Clone)]
pub(super) struct MemberKey(pub Arc<SecretKey>);

impl Random for MemberKey {
    fn random(mut rng: impl CryptoRng) -> Self {
        let mut entropy = Zeroizing::new([0; 32]);
        loop {
            rng.fill_bytes(entropy.as_mut());
            if let Ok(secret) = SecretKey::generate(&entropy) {
                return Self(Arc::new(secret));
            }
        }
    }
}

impl Signer for MemberKey {
    type Signature = Autograph;
    type PublicKey = Member;

    fn public_key(&self) -> Member {
        Member::of(&self.0.public_key())
    }

    fn sign(&self, namespace: &[u8], message: &[u8]) -> Autograph {
        Autograph(self.0.sign(&statement(namespace, message)).0)
    }
}
