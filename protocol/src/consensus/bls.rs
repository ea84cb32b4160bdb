//! BLS signatures over BLS12-381 by `blst`: keys of 96 bytes in G2, signatures of 48 in G1 (min-sig), with proofs of possession
//! (draft-irtf-cfrg-bls-signature, sections 3.3 and 4.2.3). One pairing check serves any number of signers of one message.

use std::collections::BTreeMap;

use blst::BLST_ERROR;
use blst::min_sig;
use thiserror::Error;
use zeroize::Zeroizing;

use super::ids::ValidatorIndex;
use super::scheme::{PublicKey, Scheme, Signature, Signer};
use super::validators::{Signers, Validator, ValidatorSet};

/// Domain of signatures.
pub const DST: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// Domain of proofs of possession.
pub const POP_DST: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Why a key or a set is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The bytes are no scalar of the group's order, or zero.
    #[error("the 32 bytes are no secret key")]
    Secret,
    /// The bytes are no point of the right subgroup, or the point at infinity.
    #[error("the key of validator {index} is no point of G2")]
    Point {
        /// Whose.
        index: u16,
    },
    /// Nobody has shown to own the secret half.
    #[error("validator {index} has no proof of possession of its key")]
    Possession {
        /// Whose.
        index: u16,
    },
}

/// A validator's secret key. Wiped when dropped; never printed.
pub struct SecretKey(min_sig::SecretKey);

impl SecretKey {
    /// From at least 32 bytes of entropy (KeyGen, section 2.3).
    ///
    /// # Errors
    /// [`KeyError::Secret`] for less.
    pub fn generate(entropy: &[u8; 32]) -> Result<Self, KeyError> {
        min_sig::SecretKey::key_gen(entropy, &[]).map(Self).map_err(|_| KeyError::Secret)
    }

    /// Reads a scalar, big-endian.
    ///
    /// # Errors
    /// [`KeyError::Secret`] for zero or what is not below the order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        min_sig::SecretKey::from_bytes(bytes).map(Self).map_err(|_| KeyError::Secret)
    }

    /// The scalar, big-endian, for a file that only its owner reads.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.sk_to_pk().compress())
    }

    /// Shows that the secret half is known (PopProve, section 3.3.2).
    pub fn prove_possession(&self) -> Signature {
        Signature(self.0.sign(&self.public_key().0, POP_DST, &[]).compress())
    }
}

impl Signer for SecretKey {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message, DST, &[]).compress())
    }
}

/// A public key that was looked into once: a point of the subgroup, not at infinity. A group's key, or that of one share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(min_sig::PublicKey);

impl VerifyingKey {
    /// Looks into a key.
    ///
    /// # Errors
    /// [`KeyError::Point`] (of no validator: 65 535) for what is no key.
    pub fn new(key: &PublicKey) -> Result<Self, KeyError> {
        min_sig::PublicKey::key_validate(&key.0).map(Self).map_err(|_| KeyError::Point { index: u16::MAX })
    }

    /// As it travels.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.compress())
    }

    /// True when `signature` is the key's own over `message`.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        holds(&self.0, message, signature)
    }

    /// True when the sum of `signatures` is that of all `keys` over one `message`: then each of them has signed it, if each has shown to
    /// know its secret half. False without any.
    pub fn verify_sum(keys: &[Self], message: &[u8], signatures: &[Signature]) -> bool {
        let Some(sum) = sum(signatures) else { return false };
        let keys: Vec<_> = keys.iter().map(|key| &key.0).collect();
        keys.len() == signatures.len()
            && sum.fast_aggregate_verify(true, message, DST, &keys) == BLST_ERROR::BLST_SUCCESS
    }
}

/// The keys of a validator set, looked into once: each a point of the subgroup, each with a proof of possession.
#[derive(Clone, Debug)]
pub struct Keys {
    members: Vec<min_sig::PublicKey>,
    group: Option<VerifyingKey>,
}

/// Keys and proofs of possession that were looked into, so that a key of many sets is looked into once: a set of nine takes 10 ms.
#[derive(Clone, Debug, Default)]
pub struct Proved(BTreeMap<(PublicKey, Signature), min_sig::PublicKey>);

impl Proved {
    fn key(&mut self, index: u16, member: &Validator) -> Result<min_sig::PublicKey, KeyError> {
        if let Some(key) = self.0.get(&(member.key, member.possession)) {
            return Ok(*key);
        }
        let key = min_sig::PublicKey::key_validate(&member.key.0).map_err(|_| KeyError::Point { index })?;
        let proof = min_sig::Signature::sig_validate(&member.possession.0, true);
        let proof = proof.map_err(|_| KeyError::Possession { index })?;
        if proof.verify(false, &member.key.0, POP_DST, &[], &key, false) != BLST_ERROR::BLST_SUCCESS {
            return Err(KeyError::Possession { index });
        }
        self.0.insert((member.key, member.possession), key);
        Ok(key)
    }
}

impl Keys {
    /// Checks a set.
    ///
    /// # Errors
    /// For the first key that is no key, or is not its owner's.
    pub fn new(set: &ValidatorSet) -> Result<Self, KeyError> {
        Self::of_proved(set, &mut Proved::default())
    }

    /// The same, for one of many sets.
    ///
    /// # Errors
    /// As [`Keys::new`].
    pub fn of_proved(set: &ValidatorSet, proved: &mut Proved) -> Result<Self, KeyError> {
        let members = (0..).zip(set.members()).map(|(index, member)| proved.key(index, member));
        Ok(Self { members: members.collect::<Result<_, _>>()?, group: None })
    }

    /// The key alone that the threshold signatures of a chain's sets are checked against: no vote of a member holds.
    ///
    /// # Errors
    /// As [`Keys::with_group`].
    pub fn of_group(key: &PublicKey) -> Result<Self, KeyError> {
        Self { members: Vec::new(), group: None }.with_group(key)
    }

    /// With the key that the set's threshold signatures are checked against.
    ///
    /// # Errors
    /// [`KeyError::Point`] (of no validator: 65 535) for what is no key.
    pub fn with_group(mut self, key: &PublicKey) -> Result<Self, KeyError> {
        self.group = Some(VerifyingKey::new(key)?);
        Ok(self)
    }
}

fn signature(bytes: &Signature) -> Option<min_sig::Signature> {
    min_sig::Signature::sig_validate(&bytes.0, true).ok()
}

/// The sum of points of the curve. **Whether it is in the subgroup is left to who checks it**: one look instead of one for each, which is most
/// of what a sum costs. Points outside whose sum is inside are signatures of those who made them, together.
fn sum(signatures: &[Signature]) -> Option<min_sig::Signature> {
    let point = |signature: &Signature| min_sig::Signature::uncompress(&signature.0).ok();
    let points: Vec<_> = signatures.iter().map(point).collect::<Option<_>>()?;
    let sum = min_sig::AggregateSignature::aggregate(&points.iter().collect::<Vec<_>>(), false).ok()?;
    Some(sum.to_signature())
}

fn holds(key: &min_sig::PublicKey, message: &[u8], bytes: &Signature) -> bool {
    signature(bytes).is_some_and(|point| point.verify(false, message, DST, &[], key, false) == BLST_ERROR::BLST_SUCCESS)
}

impl Scheme for Keys {
    fn verify(&self, signer: ValidatorIndex, message: &[u8], signature: &Signature) -> bool {
        self.members.get(signer.at()).is_some_and(|key| holds(key, message, signature))
    }

    fn verify_aggregate(&self, signers: Signers, message: &[u8], bytes: &Signature) -> bool {
        let keys: Option<Vec<_>> = signers.iter().map(|signer| self.members.get(signer.at())).collect();
        let Some((keys, point)) = keys.filter(|keys| !keys.is_empty()).zip(signature(bytes)) else { return false };
        point.fast_aggregate_verify(false, message, DST, &keys) == BLST_ERROR::BLST_SUCCESS
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        sum(signatures).map(|sum| Signature(sum.compress()))
    }

    fn verify_group(&self, message: &[u8], signature: &Signature) -> bool {
        self.group.is_some_and(|key| key.verify(message, signature))
    }
}
