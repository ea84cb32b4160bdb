//! BLS signatures over BLS12-381 by `blst`: keys of 96 bytes in G2, signatures of 48 in G1 (min-sig), with proofs of possession
//! (draft-irtf-cfrg-bls-signature, sections 3.3 and 4.2.3). One pairing check serves any number of signers of one message.

use std::collections::BTreeMap;

use blst::{BLST_ERROR, blst_scalar, min_sig};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::ids::ValidatorIndex;
use super::scheme::{PublicKey, Scheme, Signature, Signer};
use super::validators::{Signers, Validator, ValidatorSet};

/// Domain of signatures.
pub const DST: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// Domain of proofs of possession.
pub const POP_DST: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Bits that each of many proofs is weighed with.
const WEIGHT_BITS: usize = 128;

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

/// The keys of a validator set, looked into once: each a point of the subgroup, each with a proof of possession. Of those that were not wanted none is
/// here, and no signature of theirs holds.
#[derive(Clone, Debug)]
pub struct Keys {
    members: Vec<Option<min_sig::PublicKey>>,
    group: Option<VerifyingKey>,
}

/// Keys and proofs of possession that were looked into, so that a key of many sets is looked into once.
#[derive(Clone, Debug, Default)]
pub struct Proved(BTreeMap<(PublicKey, Signature), min_sig::PublicKey>);

/// A key that is to be looked into, its proof, and whose they are.
struct Claim<'a> {
    index: u16,
    member: &'a Validator,
    key: min_sig::PublicKey,
    proof: min_sig::Signature,
}

impl<'a> Claim<'a> {
    fn of(index: u16, member: &'a Validator) -> Result<Self, KeyError> {
        let key = min_sig::PublicKey::key_validate(&member.key.0).map_err(|_| KeyError::Point { index })?;
        let proof = min_sig::Signature::sig_validate(&member.possession.0, true);
        Ok(Self { index, member, key, proof: proof.map_err(|_| KeyError::Possession { index })? })
    }

    fn is_proved(&self) -> bool {
        self.proof.verify(false, &self.member.key.0, POP_DST, &[], &self.key, false) == BLST_ERROR::BLST_SUCCESS
    }
}

impl Proved {
    /// Looks into those keys of a set that are wanted and were not looked into yet.
    fn look_into(&mut self, set: &ValidatorSet, wanted: Signers) -> Result<(), KeyError> {
        let unknown = (0..).zip(set.members()).filter(|(index, it)| {
            wanted.contains(ValidatorIndex(*index)) && !self.0.contains_key(&(it.key, it.possession))
        });
        let claims: Vec<Claim<'_>> =
            unknown.map(|(index, member)| Claim::of(index, member)).collect::<Result<_, _>>()?;
        // One by one only to name who has none.
        if !are_proved(&claims)
            && let Some(claim) = claims.iter().find(|claim| !claim.is_proved())
        {
            return Err(KeyError::Possession { index: claim.index });
        }
        self.0.extend(claims.into_iter().map(|claim| ((claim.member.key, claim.member.possession), claim.key)));
        Ok(())
    }
}

/// Whether all proofs hold, in one product of pairings: a third of the time that they take one by one. Each is weighed with 128 bits that hang on all keys
/// and proofs, so wrong ones do not make up for each other (Bellare, Garay, Rabin, *Fast batch verification*, 1998, the small exponents test).
fn are_proved(claims: &[Claim<'_>]) -> bool {
    let mut all = Sha256::new();
    for Claim { member, .. } in claims {
        all.update(member.key.0);
        all.update(member.possession.0);
    }
    let all = all.finalize();
    let weight = |claim: &Claim<'_>| {
        let mut scalar = blst_scalar::default();
        let hash = Sha256::new().chain_update(all).chain_update(claim.index.to_be_bytes()).finalize();
        scalar.b[..WEIGHT_BITS / 8].copy_from_slice(&hash[..WEIGHT_BITS / 8]);
        scalar
    };
    let weights: Vec<_> = claims.iter().map(weight).collect();
    let messages: Vec<_> = claims.iter().map(|claim| &claim.member.key.0[..]).collect();
    let (keys, proofs): (Vec<_>, Vec<_>) = claims.iter().map(|claim| (&claim.key, &claim.proof)).unzip();
    let found = min_sig::Signature::verify_multiple_aggregate_signatures(
        &messages,
        POP_DST,
        &keys,
        false,
        &proofs,
        false,
        &weights,
        WEIGHT_BITS,
    );
    found == BLST_ERROR::BLST_SUCCESS
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
        Self::of_signers(set, Signers::EVERYBODY, proved)
    }

    /// The keys of some of a set alone, for a sum of theirs: whoever has not signed cannot spoil it.
    ///
    /// # Errors
    /// As [`Keys::new`], of these.
    pub fn of_signers(set: &ValidatorSet, signers: Signers, proved: &mut Proved) -> Result<Self, KeyError> {
        proved.look_into(set, signers)?;
        let known = |(index, it): (u16, &Validator)| {
            let wanted = signers.contains(ValidatorIndex(index));
            wanted.then(|| proved.0.get(&(it.key, it.possession)).copied()).flatten()
        };
        Ok(Self { members: (0..).zip(set.members()).map(known).collect(), group: None })
    }

    /// The key alone that the threshold signatures of a chain's sets are checked against: no vote of a member holds.
    ///
    /// # Errors
    /// As [`Keys::with_group`].
    pub fn of_group(key: &PublicKey) -> Result<Self, KeyError> {
        Self { members: Vec::new(), group: None }.with_group(key)
    }

    fn member(&self, signer: ValidatorIndex) -> Option<&min_sig::PublicKey> {
        self.members.get(signer.at())?.as_ref()
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
        self.member(signer).is_some_and(|key| holds(key, message, signature))
    }

    fn verify_aggregate(&self, signers: Signers, message: &[u8], bytes: &Signature) -> bool {
        let keys: Option<Vec<_>> = signers.iter().map(|signer| self.member(signer)).collect();
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
