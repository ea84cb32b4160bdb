//! How much is answered to one who asks, and to all: buckets that fill with time. Time is an argument.

use std::collections::BTreeMap;

/// Strangers that are remembered: beyond, those whose bucket is full again are forgotten, and if there are none, nobody new is answered for a while.
const STRANGERS_MAX: usize = 4096;

/// So much in a second, and as much at once.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u64,
    at_ms: u64,
}

impl Bucket {
    fn take(&mut self, now_ms: u64, per_s: u64, cost: u64) -> bool {
        let more = now_ms.saturating_sub(self.at_ms).saturating_mul(per_s) / 1000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(per_s);
            self.at_ms = now_ms;
        }
        let enough = self.left >= cost;
        if enough {
            self.left -= cost;
        }
        enough
    }

    fn is_full(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= 1000
    }
}

/// Answers of one kind.
#[derive(Debug)]
pub struct Limits {
    per_s: u64,
    per_s_in_all: u64,
    all: Bucket,
    each: BTreeMap<[u8; 32], Bucket>,
}

impl Limits {
    /// So much for each in a second, and for all of them together.
    pub fn new(per_s: u64, per_s_in_all: u64) -> Self {
        Self { per_s, per_s_in_all, all: Bucket { left: per_s_in_all, at_ms: 0 }, each: BTreeMap::new() }
    }

    /// True when one may have so much now.
    pub fn take(&mut self, now_ms: u64, who: &[u8; 32], cost: u64) -> bool {
        if self.each.len() >= STRANGERS_MAX && !self.each.contains_key(who) {
            self.each.retain(|_, bucket| !bucket.is_full(now_ms));
            if self.each.len() >= STRANGERS_MAX {
                return false;
            }
        }
        let fresh = Bucket { left: self.per_s, at_ms: now_ms };
        let own = self.each.entry(*who).or_insert(fresh).take(now_ms, self.per_s, cost);
        own && self.all.take(now_ms, self.per_s_in_all, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_no_more_than_its_part_and_all_no_more_than_theirs() {
        let mut limits = Limits::new(3, 5);
        let taken =
            |limits: &mut Limits, now_ms, who: u8| (0..9).filter(|_| limits.take(now_ms, &[who; 32], 1)).count();
        assert_eq!((taken(&mut limits, 1000, 1), taken(&mut limits, 1000, 2)), (3, 2));
        assert_eq!((taken(&mut limits, 2000, 1), taken(&mut limits, 2000, 3)), (3, 2));
        assert_eq!(taken(&mut limits, 9000, 2), 3);
    }
}
