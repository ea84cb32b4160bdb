//! From a seed to the proposers of a height: a weighted shuffle of the set, the same on every machine.
//!
//! Without replacement: each place goes to one of those that are left, with a chance of exactly its weight over their sum. Everybody comes
//! once before anybody comes again, so at most f rounds in a row are led by faulty validators, and a validator of weight w leads w / W of
//! first rounds. Randomness is SHA-256 in counter mode over the seed, and what would make one validator likelier than its weight is drawn
//! again; no float is near.

use bpi_protocol::consensus::header::{Header, Seed};
use bpi_protocol::consensus::ids::{Height, ValidatorIndex};
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::validators::ValidatorSet;
use sha2::{Digest as _, Sha256};

const DOMAIN: &[u8] = b"bpi.proposers.v1\0";

/// Proposers by round of the height after `parent`, by the seed in the parent's header. `set`: who votes on that height.
pub fn proposers(parent: &Header, set: &ValidatorSet) -> Vec<ValidatorIndex> {
    match &parent.seed {
        Seed::RoundRobin => in_turn(parent.height.next(), set.len()),
        Seed::Threshold(signature) => {
            let weights: Vec<_> = set.members().iter().map(|member| member.weight).collect();
            shuffle(signature, &weights)
        }
    }
}

/// Each in turn by height and round.
fn in_turn(height: Height, validators: usize) -> Vec<ValidatorIndex> {
    let count = validators as u64;
    (0..count).map(|round| ValidatorIndex(((height.0 % count + round) % count) as u16)).collect()
}

/// All indices of `weights` in an order that the seed decides. Weights are from 1; a weight of 0 comes last.
pub fn shuffle(seed: &Signature, weights: &[u16]) -> Vec<ValidatorIndex> {
    let mut draws = Draws { seed, block: 0, left: Vec::new() };
    let mut left: Vec<_> =
        (0..).zip(weights).map(|(index, weight)| (ValidatorIndex(index), u64::from(*weight))).collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let total = left.iter().map(|(_, weight)| weight).sum();
        let mut ticket = draws.below(total);
        let holds = left.iter().position(|(_, weight)| match ticket < *weight {
            true => true,
            false => {
                ticket -= weight;
                false
            }
        });
        // Order is kept, so that what is left is the same list everywhere.
        order.push(left.remove(holds.unwrap_or(0)).0);
    }
    order
}

/// Uniform numbers from a seed: SHA-256 of domain, signature and a counter gives four at a time.
struct Draws<'a> {
    seed: &'a Signature,
    block: u64,
    left: Vec<u64>,
}

impl Draws<'_> {
    fn next(&mut self) -> u64 {
        if let Some(number) = self.left.pop() {
            return number;
        }
        let hash = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(self.seed.0)
            .chain_update(self.block.to_be_bytes())
            .finalize();
        self.block += 1;
        let number = |at: usize| hash[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.left = vec![number(24), number(16), number(8)];
        number(0)
    }

    /// Below `bound`, each number as likely as the other; 0 for a bound of 0.
    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // The last, incomplete run of `bound` numbers is thrown away. With weights of 16 bits and 128 validators one in 2^41 is.
        let whole = u64::MAX - u64::MAX % bound;
        loop {
            let number = self.next();
            if number < whole {
                return number % bound;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(number: u64) -> Signature {
        let mut bytes = [0; 48];
        bytes[40..].copy_from_slice(&number.to_be_bytes());
        Signature(bytes)
    }

    fn indices(order: &[ValidatorIndex]) -> Vec<u16> {
        order.iter().map(|index| index.0).collect()
    }

    /// Sum of (seen - expected)² / expected.
    fn chi_square(seen: &[u64], weights: &[u16]) -> f64 {
        let (count, total) =
            (seen.iter().sum::<u64>() as f64, weights.iter().map(|weight| f64::from(*weight)).sum::<f64>());
        seen.iter().zip(weights).fold(0.0, |sum, (seen, weight)| {
            let expected = count * f64::from(*weight) / total;
            sum + (*seen as f64 - expected).powi(2) / expected
        })
    }

    const DRAWS: u64 = 20_000;

    #[test]
    fn the_order_of_a_seed_is_the_one_that_was_pinned() {
        assert_eq!(indices(&shuffle(&seed(1), &[1; 9])), PINNED_9);
        assert_eq!(indices(&shuffle(&seed(1), &[1, 2, 3, 4])), PINNED_WEIGHTED);
        assert_eq!(indices(&shuffle(&Signature([0xff; 48]), &[7; 25])), PINNED_25);
        assert_eq!(indices(&shuffle(&seed(1), &[5])), [0]);
        assert!(shuffle(&seed(1), &[]).is_empty());
    }

    // Also by twenty lines of Python that know only the text above.
    const PINNED_9: [u16; 9] = [8, 0, 3, 7, 4, 2, 5, 6, 1];
    const PINNED_WEIGHTED: [u16; 4] = [0, 2, 1, 3];
    const PINNED_25: [u16; 25] =
        [19, 22, 12, 15, 3, 11, 1, 6, 21, 20, 13, 10, 0, 5, 24, 23, 8, 7, 17, 9, 14, 18, 16, 4, 2];

    #[test]
    fn everybody_comes_once_whatever_the_seed_and_the_weights() {
        let mut weights = vec![1_u16; 128];
        (weights[3], weights[77], weights[127]) = (u16::MAX, 0, 500);
        for number in 0..200 {
            let mut order = indices(&shuffle(&seed(number), &weights));
            assert_eq!(order.last(), Some(&77), "no weight, no turn before the others");
            order.sort_unstable();
            assert_eq!(order, (0..128).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_leads_the_first_round_is_as_often_as_its_weight_says() {
        // With 8 and 3 degrees of freedom a fair shuffle is below 26.1 and 16.3 in 999 of 1000 sets of seeds; these seeds are fixed.
        for (weights, limit) in [(vec![1_u16; 9], 26.1), (vec![1, 2, 3, 4], 16.3), (vec![1, 1, 1, 5000], 16.3)] {
            let mut seen = vec![0; weights.len()];
            (0..DRAWS).for_each(|number| seen[shuffle(&seed(number), &weights)[0].at()] += 1);
            let distance = chi_square(&seen, &weights);
            assert!(distance < limit, "{weights:?}: {seen:?} is {distance}");
        }
    }

    #[test]
    fn each_place_of_the_order_is_as_likely_for_each_validator_of_one_weight() {
        let mut seen = vec![vec![0; 7]; 7];
        for number in 0..DRAWS {
            for (place, index) in shuffle(&seed(number), &[3; 7]).iter().enumerate() {
                seen[place][index.at()] += 1;
            }
        }
        for (place, seen) in seen.iter().enumerate() {
            // 6 degrees of freedom, one in ten thousand: seven places are looked at.
            assert!(chi_square(seen, &[1; 7]) < 27.9, "place {place}: {seen:?}");
        }
    }

    #[test]
    fn the_second_place_is_drawn_from_those_that_are_left_by_their_weights() {
        // After validator 3 (weight 4), the others have 1, 2 and 3 of 6.
        let mut seen = vec![0; 3];
        for number in 0..DRAWS {
            let order = shuffle(&seed(number), &[1, 2, 3, 4]);
            if order[0].0 == 3 {
                seen[order[1].at()] += 1;
            }
        }
        assert!(chi_square(&seen, &[1, 2, 3]) < 13.8, "{seen:?}");
    }

    #[test]
    fn a_draw_below_a_bound_that_does_not_divide_two_to_the_64_is_not_skewed() {
        // Two thirds of 2^64: without throwing away, numbers below a third would come twice as often as the others.
        let bound = u64::MAX / 3 * 2;
        let seed = seed(1);
        let mut draws = Draws { seed: &seed, block: 0, left: Vec::new() };
        let low = (0..DRAWS).filter(|_| draws.below(bound) < bound / 2).count() as u64;
        assert!(chi_square(&[low, DRAWS - low], &[1, 1]) < 10.8, "{low}");
    }

    #[test]
    fn without_a_seed_each_comes_in_turn() {
        assert_eq!(indices(&in_turn(Height(7), 4)), [3, 0, 1, 2]);
        assert_eq!(indices(&in_turn(Height(u64::MAX), 3)), [0, 1, 2]);
        assert_eq!(indices(&in_turn(Height(1), 1)), [0]);
    }
}
