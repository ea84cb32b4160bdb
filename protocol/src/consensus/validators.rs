//! A validator set: who votes, and how many votes are enough.

use thiserror::Error;

use super::bytes::{BytesError, Reader, Writer};
use super::ids::{Epoch, SetDigest, ValidatorIndex};
use super::scheme::{PublicKey, Signature};

/// Most validators of a set: the bits of [`Signers`].
pub const VALIDATORS_MAX: usize = 128;

/// Votes that decide: ceil(2N/3) (`quorum` in the Dafny specification). Any two such sets share more than [`faults`] validators, for every N;
/// 2f+1 does that only where N = 3f+1.
pub const fn quorum(validators: usize) -> usize {
    (2 * validators).div_ceil(3)
}

/// Faulty validators that are borne: floor((N-1)/3) (`f` in the Dafny specification).
pub const fn faults(validators: usize) -> usize {
    validators.saturating_sub(1) / 3
}

/// A validator: its key, the proof that its owner has the secret half, and how often it proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    /// What its votes are checked against.
    pub key: PublicKey,
    /// A signature over the key itself (draft-irtf-cfrg-bls-signature, section 3.3): without it a key could be made from others' keys.
    pub possession: Signature,
    /// Share of proposals, from 1. Votes are equal.
    pub weight: u16,
}

/// Bytes of a set, at most.
pub const SET_BYTES_MAX: usize = 8 + 2 + VALIDATORS_MAX * (96 + 48 + 2);

/// Validators of an epoch, in the order that indices mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    epoch: Epoch,
    members: Vec<Validator>,
}

/// Why a list of validators is no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// It is empty.
    #[error("a set has at least one validator")]
    Empty,
    /// It has more than [`VALIDATORS_MAX`].
    #[error("{count} validators; a set has at most {VALIDATORS_MAX}")]
    Large {
        /// How many.
        count: usize,
    },
    /// One of them never proposes.
    #[error("validator {index} has weight 0")]
    Weightless {
        /// Which.
        index: usize,
    },
    /// Two have one key: their votes would count twice.
    #[error("validators {first} and {second} have the same key")]
    Twice {
        /// One.
        first: usize,
        /// The other.
        second: usize,
    },
    /// The bytes are none of a set.
    #[error(transparent)]
    Bytes(#[from] BytesError),
}

impl ValidatorSet {
    /// A set of an epoch.
    pub fn new(epoch: Epoch, members: Vec<Validator>) -> Result<Self, SetError> {
        match members.len() {
            0 => return Err(SetError::Empty),
            count if count > VALIDATORS_MAX => return Err(SetError::Large { count }),
            _ => {}
        }
        for (second, member) in members.iter().enumerate() {
            if member.weight == 0 {
                return Err(SetError::Weightless { index: second });
            }
            if let Some(first) = members[..second].iter().position(|other| other.key == member.key) {
                return Err(SetError::Twice { first, second });
            }
        }
        Ok(Self { epoch, members })
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its validators.
    pub fn members(&self) -> &[Validator] {
        &self.members
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Never: a set has at least one validator.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Votes that decide.
    pub fn quorum(&self) -> usize {
        quorum(self.len())
    }

    /// Faulty validators that are borne.
    pub fn faults(&self) -> usize {
        faults(self.len())
    }

    /// One validator.
    pub fn get(&self, index: ValidatorIndex) -> Option<&Validator> {
        self.members.get(index.at())
    }

    /// Where a key stands.
    pub fn position(&self, key: &PublicKey) -> Option<ValidatorIndex> {
        self.indices().find(|index| self.members[index.at()].key == *key)
    }

    /// All indices in order.
    pub fn indices(&self) -> impl Iterator<Item = ValidatorIndex> + use<> {
        (0..self.members.len() as u16).map(ValidatorIndex)
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.done()
    }

    /// Appends canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u64(self.epoch.0).u16(self.members.len() as u16);
        for member in &self.members {
            out.bytes(&member.key.0).bytes(&member.possession.0).u16(member.weight);
        }
    }

    /// Reads canonical bytes. Keys and proofs are not looked into: [`super::bls::Keys::new`] does that.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SetError> {
        let mut reader = Reader::new(bytes);
        let set = Self::read(&mut reader)?;
        reader.end()?;
        Ok(set)
    }

    /// Takes a set from a reader, as [`Self::from_bytes`] does.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, SetError> {
        let epoch = Epoch(reader.u64()?);
        let count = reader.count("validators", VALIDATORS_MAX)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, possession) = (PublicKey(reader.array()?), Signature(reader.array()?));
            members.push(Validator { key, possession, weight: reader.u16()? });
        }
        Self::new(epoch, members)
    }

    /// Names the set.
    pub fn digest(&self) -> SetDigest {
        SetDigest::of(&self.to_bytes())
    }
}

/// Some validators of a set, one bit each: validator 0 is the lowest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signers(pub u128);

impl Signers {
    /// Whoever there is.
    pub const EVERYBODY: Self = Self(u128::MAX);

    /// One validator.
    pub fn one(index: ValidatorIndex) -> Self {
        Self(1_u128.checked_shl(index.0.into()).unwrap_or(0))
    }

    /// With one more.
    #[must_use]
    pub fn with(self, index: ValidatorIndex) -> Self {
        Self(self.0 | Self::one(index).0)
    }

    /// True for one of them.
    pub fn contains(self, index: ValidatorIndex) -> bool {
        self.0 & Self::one(index).0 != 0
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Nobody.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when nobody beyond a set of so many is among them.
    pub fn within(self, validators: usize) -> bool {
        validators >= VALIDATORS_MAX || self.0 >> validators == 0
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = ValidatorIndex> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let next = ValidatorIndex(rest.trailing_zeros() as u16);
            (rest != 0).then(|| {
                rest &= rest - 1;
                next
            })
        })
    }
}

impl FromIterator<ValidatorIndex> for Signers {
    fn from_iter<I: IntoIterator<Item = ValidatorIndex>>(indices: I) -> Self {
        indices.into_iter().fold(Self::default(), Self::with)
    }
}

impl std::fmt::Debug for Signers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|index| index.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_quorums_share_an_honest_validator_in_a_set_of_any_size() {
        for n in 1..=VALIDATORS_MAX {
            assert!(2 * quorum(n) - n > faults(n), "{n}");
            assert!(quorum(n) <= n - faults(n), "{n}: the honest alone are enough");
        }
        assert_eq!([1, 2, 3, 4, 7, 9, 10, 25].map(quorum), [1, 2, 2, 3, 5, 6, 7, 17]);
        assert_eq!([1, 2, 3, 4, 7, 9, 10, 25].map(faults), [0, 0, 0, 1, 2, 2, 3, 8]);
    }

    fn member(seed: u8) -> Validator {
        Validator { key: PublicKey([seed; 96]), possession: Signature([seed; 48]), weight: 1 }
    }

    #[test]
    fn a_set_is_read_as_it_was_written_and_refused_when_it_is_none() {
        let set = ValidatorSet::new(Epoch(7), (0..10).map(member).collect()).unwrap();
        let bytes = set.to_bytes();
        assert_eq!(ValidatorSet::from_bytes(&bytes), Ok(set));
        assert!(ValidatorSet::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(ValidatorSet::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        assert_eq!(ValidatorSet::new(Epoch(0), Vec::new()), Err(SetError::Empty));
        let twins = vec![member(1), member(2), member(1)];
        assert_eq!(ValidatorSet::new(Epoch(0), twins), Err(SetError::Twice { first: 0, second: 2 }));
        let idle = vec![Validator { weight: 0, ..member(1) }];
        assert_eq!(ValidatorSet::new(Epoch(0), idle), Err(SetError::Weightless { index: 0 }));
    }

    #[test]
    fn signers_are_counted_once_and_told_in_order() {
        let signers: Signers = [5, 0, 127, 5].map(ValidatorIndex).into_iter().collect();
        assert_eq!((signers.len(), signers.within(128), signers.within(127)), (3, true, false));
        assert_eq!(signers.iter().map(|index| index.0).collect::<Vec<_>>(), [0, 5, 127]);
        assert!(Signers::one(ValidatorIndex(128)).is_empty());
    }
}
