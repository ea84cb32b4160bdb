//! How much a peer is borne: each fault takes some of its credit, and time gives it back.

/// Credit of a peer without a fault.
const FULL: u32 = 1000;
/// Credit that comes back in a second.
const BACK_PER_S: u64 = 10;
/// How long a peer without credit is cut off, in ms.
pub const CUT_OFF_MS: u64 = 30_000;

/// A peer's credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    credit: u32,
    at_ms: u64,
    cut_off_until_ms: u64,
}

impl Default for Score {
    fn default() -> Self {
        Self { credit: FULL, at_ms: 0, cut_off_until_ms: 0 }
    }
}

/// What a fault costs. A peer that sends nonsense is gone after ten of them; one that errs now and then stays.
fn cost(reason: &str) -> u32 {
    match reason {
        "malformed" | "signature" | "equivocation" => 100,
        _ => 50,
    }
}

impl Score {
    /// The credit at a moment.
    pub fn credit(self, now_ms: u64) -> u32 {
        let back = now_ms.saturating_sub(self.at_ms).saturating_mul(BACK_PER_S) / 1000;
        self.credit.saturating_add(u32::try_from(back).unwrap_or(FULL)).min(FULL)
    }

    /// Takes what a fault costs. True when nothing is left: the peer is to be cut off.
    pub fn blame(&mut self, now_ms: u64, reason: &str) -> bool {
        let credit = self.credit(now_ms).saturating_sub(cost(reason));
        (self.credit, self.at_ms) = (credit, now_ms);
        if credit == 0 {
            (self.credit, self.cut_off_until_ms) = (FULL / 2, now_ms.saturating_add(CUT_OFF_MS));
        }
        credit == 0
    }

    /// True while the peer is cut off.
    pub fn is_cut_off(self, now_ms: u64) -> bool {
        now_ms < self.cut_off_until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_forgeries_in_a_row_cut_a_peer_off_and_one_in_ten_seconds_does_not() {
        let mut score = Score::default();
        assert_eq!((1..=10).find(|_| score.blame(5, "signature")), Some(10));
        assert!(score.is_cut_off(5) && !score.is_cut_off(5 + CUT_OFF_MS));
        let mut score = Score::default();
        assert!((0..100).all(|at| !score.blame(at * 10_000, "signature")));
        assert_eq!(score.credit(u64::MAX), FULL);
    }
}
