//! What consensus asks of a signature scheme. [`super::bls`] is the real one; the simulator has one that costs nothing.

use super::ids::ValidatorIndex;
use super::validators::Signers;

/// A public key as it travels: a compressed point of G2, 96 bytes (min-sig).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 96]);

/// A signature as it travels, of one validator or of several: a compressed point of G1, 48 bytes (min-sig).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 48]);

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", hex::encode(&self.0[..6]))
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({})", hex::encode(&self.0[..6]))
    }
}

/// Checks signatures of one validator set.
pub trait Scheme {
    /// True when `signature` is the validator's own over `message`.
    fn verify(&self, signer: ValidatorIndex, message: &[u8], signature: &Signature) -> bool;

    /// True when `signature` is the sum of those of all `signers` over one `message`. False without signers.
    fn verify_aggregate(&self, signers: Signers, message: &[u8], signature: &Signature) -> bool;

    /// The sum of signatures, of which nothing is known before it is checked. `None` without any, or if one of them is no point of the curve.
    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature>;

    /// True when `signature` is the set's own, by the key that all share. False while there is none.
    fn verify_group(&self, message: &[u8], signature: &Signature) -> bool;
}

/// Makes signatures of one validator.
pub trait Signer {
    /// A signature over `message`; the same each time.
    fn sign(&self, message: &[u8]) -> Signature;
}

impl<S: Scheme + ?Sized> Scheme for std::sync::Arc<S> {
    fn verify(&self, signer: ValidatorIndex, message: &[u8], signature: &Signature) -> bool {
        (**self).verify(signer, message, signature)
    }

    fn verify_aggregate(&self, signers: Signers, message: &[u8], signature: &Signature) -> bool {
        (**self).verify_aggregate(signers, message, signature)
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        (**self).aggregate(signatures)
    }

    fn verify_group(&self, message: &[u8], signature: &Signature) -> bool {
        (**self).verify_group(message, signature)
    }
}
