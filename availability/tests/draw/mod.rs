//! Random sets of shards, for tests and benchmarks.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::Rng as _;

/// A random choice of `count` of `n` shards.
pub fn choose(rng: &mut ChaCha20Rng, n: u16, count: u16) -> Vec<u8> {
    let mut all: Vec<u8> = (0..n).map(|shard| shard as u8).collect();
    for at in 0..usize::from(count) {
        let other = at + rng.next_u32() as usize % (all.len() - at);
        all.swap(at, other);
    }
    all.truncate(count.into());
    all
}
