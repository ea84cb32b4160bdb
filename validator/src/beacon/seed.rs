//! Which seed a header must carry: there is exactly one right answer, so a proposer has nothing to choose.
//!
//! A threshold signature is unique: whichever quorum makes it, it comes out the same, and it is over nothing but chain, epoch and height.
//! Its parts ride on the COMMIT votes of the height before, so nobody knows it before a quorum less the faulty has voted there, and the
//! header that carries it decides who proposes the one after. A proposer that does not like it can only be silent, and loses its turn;
//! whoever proposes instead must carry the same.

use bpi_protocol::consensus::bls::VerifyingKey;
use bpi_protocol::consensus::header::{Header, Seed};
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::consensus::statement::{self, Place};
use thiserror::Error;

/// Why a header's seed is not the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SeedError {
    /// The signature is not the group's for this height.
    #[error("the seed of height {height} is not the group's signature")]
    Signature {
        /// The header's.
        height: u64,
    },
    /// There is a group key and no signature by it: its proposer would have chosen the order of the next height.
    #[error("height {height} has no seed, and the validators of its parent have a group key")]
    Missing {
        /// The header's.
        height: u64,
    },
    /// There is a signature and no group key.
    #[error("height {height} has a seed, and the validators of its parent have no group key")]
    Early {
        /// The header's.
        height: u64,
    },
}

/// Whether a header's seed is right. `group`: the key shared by those who voted on its parent; `None` before the first ceremony.
///
/// # Errors
/// [`SeedError`] otherwise. The header does not follow its parent then, whoever has signed it.
pub fn check_seed(
    chain: ChainId,
    parent: &Header,
    header: &Header,
    group: Option<&VerifyingKey>,
) -> Result<(), SeedError> {
    let height = header.height.0;
    match (&header.seed, group) {
        (Seed::RoundRobin, None) => Ok(()),
        (Seed::RoundRobin, Some(_)) => Err(SeedError::Missing { height }),
        (Seed::Threshold(_), None) => Err(SeedError::Early { height }),
        (Seed::Threshold(signature), Some(group)) => {
            let statement = statement::seed(Place { chain, height: header.height }, parent.epoch);
            if group.verify(&statement, signature) { Ok(()) } else { Err(SeedError::Signature { height }) }
        }
    }
}

#[cfg(test)]
mod tests {
    use bpi_protocol::consensus::bls::SecretKey;
    use bpi_protocol::consensus::ids::{Epoch, Height};
    use bpi_protocol::consensus::scheme::{Signature, Signer as _};

    use super::*;

    #[test]
    fn a_seed_is_the_groups_signature_over_the_height_and_the_parents_epoch_and_nothing_else() {
        let secret = SecretKey::generate(&[7; 32]).unwrap();
        let group = VerifyingKey::new(&secret.public_key()).unwrap();
        let chain = ChainId([1; 32]);
        let parent = Header { height: Height(41), epoch: Epoch(3), ..Header::default() };
        // At the end of an epoch the header is of the next one; those of the parent's have signed.
        let header = Header { height: Height(42), epoch: Epoch(4), ..Header::default() };
        let over = |chain, height, epoch| {
            let place = Place { chain, height: Height(height) };
            Header { seed: Seed::Threshold(secret.sign(&statement::seed(place, Epoch(epoch)))), ..header }
        };
        let check = |header: &Header| check_seed(chain, &parent, header, Some(&group));
        assert_eq!(check(&over(chain, 42, 3)), Ok(()));
        let refused = Err(SeedError::Signature { height: 42 });
        assert_eq!(check(&over(chain, 41, 3)), refused);
        assert_eq!(check(&over(chain, 42, 4)), refused);
        assert_eq!(check(&over(ChainId([2; 32]), 42, 3)), refused);
        assert_eq!(check(&Header { seed: Seed::Threshold(Signature([0xc0; 48])), ..header }), refused);

        assert_eq!(check(&header), Err(SeedError::Missing { height: 42 }), "no way to choose");
        assert_eq!(check_seed(chain, &parent, &header, None), Ok(()));
        assert_eq!(check_seed(chain, &parent, &over(chain, 42, 3), None), Err(SeedError::Early { height: 42 }));
    }
}
