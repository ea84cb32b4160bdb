//! When rounds end. Round `r` of a height lasts from `start + S(r)` to `start + S(r + 1)`, with `S(r)` the sum of the lengths before it;
//! a round is twice as long as the one before, up to a bound (`roundTimeout` of the Dafny specification is 2^r).

use bpi_protocol::consensus::ids::Round;

/// Lengths, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From a header's time to the start of the next height.
    pub block_ms: u64,
    /// Length of round 0.
    pub round_ms: u64,
    /// How often a round is doubled, at most.
    pub doublings_max: u32,
}

impl Timing {
    /// The length of a round.
    pub fn length_ms(&self, round: Round) -> u64 {
        self.round_ms.saturating_mul(1 << round.0.min(self.doublings_max).min(32))
    }

    /// `S(r)`: from the start of the height to that of a round.
    pub fn offset_ms(&self, round: Round) -> u64 {
        let doubled = round.0.min(self.doublings_max.min(32));
        let rest = u64::from(round.0 - doubled).saturating_mul(self.length_ms(round));
        // 1 + 2 + 4 + … + 2^(d-1) = 2^d - 1.
        self.round_ms.saturating_mul((1 << doubled) - 1).saturating_add(rest)
    }

    /// The round that a clock is in.
    pub fn round_at(&self, start_ms: u64, now_ms: u64) -> Round {
        let past = now_ms.saturating_sub(start_ms);
        let capped = Round(self.doublings_max.min(32));
        if past >= self.offset_ms(capped) {
            let more = (past - self.offset_ms(capped)) / self.length_ms(capped).max(1);
            return Round(capped.0.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
        }
        (0..capped.0).map(Round).take_while(|round| self.offset_ms(*round) <= past).last().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_follow_each_other_without_a_gap_and_a_clock_is_in_one_of_them() {
        let timing = Timing { block_ms: 250, round_ms: 1000, doublings_max: 3 };
        let lengths: Vec<_> = (0..6).map(|round| timing.length_ms(Round(round))).collect();
        assert_eq!(lengths, [1000, 2000, 4000, 8000, 8000, 8000]);
        for round in (0..40).map(Round) {
            let (from, to) = (timing.offset_ms(round), timing.offset_ms(round.next()));
            assert_eq!(to - from, timing.length_ms(round));
            assert_eq!(timing.round_at(70, 70 + from), round);
            assert_eq!(timing.round_at(70, 70 + to - 1), round);
        }
        assert_eq!(timing.round_at(70, 0), Round(0));
        assert!(timing.round_at(0, u64::MAX) > Round(1_000_000));
    }
}
