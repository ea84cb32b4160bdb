//! Which pinner keeps which shard of a batch: everybody computes the same, and nobody has to be asked.

use sha2::{Digest as _, Sha256};

use super::attestation::ShardSet;
use crate::log::Hash;

/// An Ed25519 identity.
pub type Identity = [u8; 32];

const DOMAIN: &[u8] = b"bpi/1 placement";

/// The shards of each pinner: shard i belongs to the pinner of rank i mod P, by ascending SHA-256 of `domain || da_root || identity`.
pub fn placement(da_root: &Hash, n: u16, pinners: &[Identity]) -> Vec<(Identity, ShardSet)> {
    let rank = |pinner: &Identity| -> Hash {
        Sha256::new().chain_update(DOMAIN).chain_update(da_root).chain_update(pinner).finalize().into()
    };
    let mut ranked = pinners.to_vec();
    ranked.sort_by_key(rank);
    let count = ranked.len().max(1);
    let shards_of = |at: usize| (0..n).skip(at).step_by(count).filter_map(|shard| u8::try_from(shard).ok()).collect();
    ranked.into_iter().enumerate().map(|(at, pinner)| (pinner, shards_of(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_one_place_whoever_is_named_first() {
        let pinners: Vec<Identity> = (0..5).map(|byte| [byte; 32]).collect();
        let placed = placement(&[7; 32], 12, &pinners);
        let reversed: Vec<Identity> = pinners.iter().rev().copied().collect();
        assert_eq!(placed, placement(&[7; 32], 12, &reversed));
        let all = placed.iter().fold(ShardSet::default(), |all, (_, shards)| all.union(*shards));
        let sum: u16 = placed.iter().map(|(_, shards)| shards.len()).sum();
        assert_eq!((all.len(), sum), (12, 12));
        assert!(placed.iter().all(|(_, shards)| (2..=3).contains(&shards.len())));
        assert_ne!(placed, placement(&[8; 32], 12, &pinners));
    }
}
