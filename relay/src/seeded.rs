//! Hashing for tables whose keys strangers choose: one multiplication folded with a secret seed, so nobody outside can aim at one bucket.
//!
//! SipHash would cost more than the rest of a look-up. The keys here are at most 8 bytes that count (ids, or the head of a digest), and no
//! order of these tables is ever seen outside.

use std::hash::{BuildHasher, Hasher};

/// Makes hashers of one seed.
#[derive(Clone, Copy)]
pub struct Seeded {
    mask: u64,
    factor: u64,
}

impl std::fmt::Debug for Seeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seeded").finish_non_exhaustive()
    }
}

impl Seeded {
    /// From sixteen bytes of the kernel's randomness, drawn once for a process. They are spread by a hash first: a factor with a pattern in
    /// its bytes would crowd the table.
    pub fn new(seed: [u8; 16]) -> Self {
        let spread = blake3::hash(&seed);
        let word = |at: usize| spread.as_bytes()[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let (mask, factor) = (word(0), word(8));
        // An odd factor loses no bit of the key.
        Self { mask, factor: factor | 1 }
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { mask: self.mask, factor: self.factor, state: 0 }
    }
}

/// The hash in progress.
#[derive(Clone, Copy)]
pub struct Folded {
    mask: u64,
    factor: u64,
    state: u64,
}

impl std::fmt::Debug for Folded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folded").finish_non_exhaustive()
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.write_u64(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word ^ self.mask) * u128::from(self.factor);
        self.state = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_row_spread_over_low_and_high_bits_and_another_seed_spreads_them_otherwise() {
        let hash = |seed: u8, word: u64| {
            let mut hasher = Seeded::new(std::array::from_fn(|at| seed.wrapping_add(97u8.wrapping_mul(at as u8 + 1))))
                .build_hasher();
            hasher.write_u64(word);
            hasher.finish()
        };
        for seed in 0..64 {
            let mut low = [0u32; 256];
            let mut high = [0u32; 128];
            for word in 0..25_600 {
                low[(hash(seed, word) & 255) as usize] += 1;
                high[(hash(seed, word) >> 57) as usize] += 1;
            }
            assert!(low.iter().all(|count| *count < 300), "100 expected: {low:?}");
            assert!(high.iter().all(|count| *count < 600), "200 expected: {high:?}");
        }
        assert_ne!(hash(0x91, 7), hash(0xc3, 7));
    }
}
