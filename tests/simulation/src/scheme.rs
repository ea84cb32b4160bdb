//! Signatures that cost next to nothing: a keyed hash of the message. Nobody in a simulation knows another's key, so nobody forges;
//! a sum is the exclusive or, and is checked by making it again.

use std::sync::Arc;

use bpi_protocol::consensus::ids::ValidatorIndex;
use bpi_protocol::consensus::scheme::{PublicKey, Scheme, Signature, Signer};
use bpi_protocol::consensus::validators::Signers;

/// The secret of one key.
#[derive(Clone, Copy, Debug)]
pub struct ToyKey(pub u64);

impl ToyKey {
    /// What stands for the public key.
    pub fn public(self) -> PublicKey {
        let mut bytes = [0; 96];
        bytes[..8].copy_from_slice(&self.0.to_be_bytes());
        PublicKey(bytes)
    }

    /// Two lanes of multiplications whose halves are folded, one for each eight bytes: most of a history's work is signing and checking.
    fn mark(self, message: &[u8]) -> u128 {
        let fold = |one: u64, other: u64| {
            let product = u128::from(one) * u128::from(other);
            product as u64 ^ (product >> 64) as u64
        };
        let (mut left, mut right) = (self.0, self.0.rotate_left(32) ^ message.len() as u64);
        for chunk in message.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            left = fold(left ^ word ^ 0x9e37_79b9_7f4a_7c15, 0xa076_1d64_78bd_642f);
            right = fold(right.rotate_left(23) ^ word ^ 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3);
        }
        u128::from(left) << 64 | u128::from(right)
    }
}

fn pack(mark: u128) -> Signature {
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(&mark.to_be_bytes());
    Signature(bytes)
}

fn unpack(signature: &Signature) -> Option<u128> {
    let (mark, rest) = signature.0.split_at(16);
    let mark = mark.try_into().ok().map(u128::from_be_bytes)?;
    rest.iter().all(|byte| *byte == 0).then_some(mark)
}

impl Signer for ToyKey {
    fn sign(&self, message: &[u8]) -> Signature {
        pack(self.mark(message))
    }
}

/// The keys of a set.
#[derive(Clone, Debug)]
pub struct ToyScheme(pub Arc<Vec<ToyKey>>);

impl Scheme for ToyScheme {
    fn verify(&self, signer: ValidatorIndex, message: &[u8], signature: &Signature) -> bool {
        self.0.get(signer.at()).is_some_and(|key| unpack(signature) == Some(key.mark(message)))
    }

    fn verify_aggregate(&self, signers: Signers, message: &[u8], signature: &Signature) -> bool {
        let sum = signers.iter().try_fold(0, |sum, signer| Some(sum ^ self.0.get(signer.at())?.mark(message)));
        !signers.is_empty() && sum.is_some() && sum == unpack(signature)
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        let marks: Vec<_> = signatures.iter().map(unpack).collect::<Option<_>>()?;
        (!marks.is_empty()).then(|| pack(marks.iter().fold(0, |sum, mark| sum ^ mark)))
    }

    fn verify_group(&self, _: &[u8], _: &Signature) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_key_and_one_message() {
        let messages: Vec<Vec<u8>> =
            (0..=255).map(|byte| vec![byte; 9]).chain((0..40).map(|size| vec![0; size])).collect();
        let marks: Vec<u128> =
            (1..9).flat_map(|key| messages.iter().map(move |message| ToyKey(key).mark(message))).collect();
        // Nine zero bytes are there twice.
        let different: std::collections::BTreeSet<_> = marks.iter().collect();
        assert_eq!(different.len(), marks.len() - 8);
    }
}
