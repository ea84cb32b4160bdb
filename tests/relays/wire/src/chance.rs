//! Seeded chance: SplitMix64 (Steele, Lea, Flood 2014). Good enough to lose packets, and the same for one seed everywhere.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 for 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product instead of a remainder: no division, and a bias below 2⁻⁴⁰ for bounds below 2²⁴.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Happens so many times of a thousand.
    pub fn per_mille(&mut self, times: u16) -> bool {
        times > 0 && self.below(1000) < u64::from(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_of_a_thousand_is_one_in_twenty() {
        let mut chance = Chance::new(7);
        let times = (0..100_000).filter(|_| chance.per_mille(50)).count();
        assert!((4_700..5_300).contains(&times), "{times}");
        assert!((0..1000).all(|_| !chance.per_mille(0)));
    }

    #[test]
    fn one_seed_gives_one_stream() {
        let (mut one, mut other) = (Chance::new(3), Chance::new(3));
        assert!((0..100).all(|_| one.below(1000) == other.below(1000)));
    }
}
