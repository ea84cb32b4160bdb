//! Signatures that cost next to nothing: a keyed hash of the message. Nobody in a simulation knows another's key, so nobody forges;
//! a sum is the exclusive or, and is checked by making it again.

use std::hash::{Hash, Hasher};
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

    fn mark(self, message: &[u8]) -> u128 {
        // DefaultHasher::new() is SipHash-1-3 with fixed keys: the same in every run.
        let half = |salt: u64| {
            #[allow(deprecated)]
            let mut hasher = std::hash::SipHasher::new_with_keys(self.0, salt);
            message.hash(&mut hasher);
            hasher.finish()
        };
        u128::from(half(1)) << 64 | u128::from(half(2))
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
        let marks: Option<Vec<_>> = signers.iter().map(|signer| Some(self.0.get(signer.at())?.mark(message))).collect();
        let sum = marks.filter(|marks| !marks.is_empty()).map(|marks| marks.iter().fold(0, |sum, mark| sum ^ mark));
        sum.is_some() && sum == unpack(signature)
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        let marks: Vec<_> = signatures.iter().map(unpack).collect::<Option<_>>()?;
        (!marks.is_empty()).then(|| pack(marks.iter().fold(0, |sum, mark| sum ^ mark)))
    }

    fn verify_group(&self, _: &[u8], _: &Signature) -> bool {
        false
    }
}
