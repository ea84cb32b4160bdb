//! Validators with real keys, made from the number of each.

use bpi_protocol::consensus::bls::{Keys, SecretKey};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Epoch, Round, ValidatorIndex};
use bpi_protocol::consensus::scheme::{Scheme as _, Signature, Signer as _};
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::{Signers, Validator, ValidatorSet};

/// The secret key that a number stands for.
pub fn secret(number: u8) -> SecretKey {
    SecretKey::generate(&[number; 32]).expect("keys of this chain")
}

/// A validator with that key.
pub fn validator(number: u8) -> Validator {
    let secret = secret(number);
    Validator { key: secret.public_key(), possession: secret.prove_possession(), weight: 1 }
}

/// Indices as a bitmap.
pub fn signers(indices: impl IntoIterator<Item = u16>) -> Signers {
    indices.into_iter().map(ValidatorIndex).collect()
}

/// A validator set whose secret keys are known.
pub struct Cluster {
    /// The secret key of each.
    pub secrets: Vec<SecretKey>,
    /// Who they are.
    pub set: ValidatorSet,
    /// Their public keys, looked into.
    pub keys: Keys,
}

impl Cluster {
    /// So many validators, the first with the key of `number`.
    pub fn new(epoch: u64, number: u8, validators: u8) -> Self {
        let numbers = number..number + validators;
        let set =
            ValidatorSet::new(Epoch(epoch), numbers.clone().map(validator).collect()).expect("keys of this chain");
        Self { secrets: numbers.map(secret).collect(), keys: Keys::new(&set).expect("keys of this chain"), set }
    }

    /// One validator's signature.
    pub fn sign(&self, index: u16, statement: &[u8]) -> Signature {
        self.secrets[usize::from(index)].sign(statement)
    }

    /// The signatures of some as one.
    pub fn aggregate(&self, signers: Signers, statement: &[u8]) -> Signature {
        let parts: Vec<_> = signers.iter().map(|index| self.sign(index.0, statement)).collect();
        self.keys.aggregate(&parts).expect("keys of this chain")
    }

    /// COMMIT votes of some as a seal.
    pub fn seal(&self, place: Place, round: Round, header: &Header, signers: Signers) -> Seal {
        let signature = self.aggregate(signers, &statement::commit(place, round, header.digest()));
        Seal::Votes(Votes { round, signers, signature })
    }
}
