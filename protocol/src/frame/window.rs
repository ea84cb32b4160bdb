//! Which frames of a direction have been opened: the last 1 024 counters, as RFC 6479 does it for IPsec.

/// Counters that are remembered.
pub const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;
/// Words of the ring: one more, so that the window moves a word at a time.
const RING: usize = WORDS + 1;

/// Counters that have been seen. Whatever is older than the window counts as seen.
#[derive(Clone, Debug)]
pub struct Window {
    ring: [u64; RING],
    /// One more than the highest that was seen.
    next: u64,
    /// All below have been seen.
    complete: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { ring: [0; RING], next: 0, complete: 0 }
    }
}

fn place(seq: u64) -> (usize, u64) {
    (((seq / 64) % RING as u64) as usize, 1 << (seq % 64))
}

impl Window {
    /// Whether a counter was seen, or is so old that nobody knows.
    pub fn has(&self, seq: u64) -> bool {
        if seq >= self.next {
            return false;
        }
        if self.next - seq > WINDOW {
            return true;
        }
        let (word, bit) = place(seq);
        self.ring[word] & bit != 0
    }

    /// Marks a counter, of a frame that opened. False when it was marked before.
    pub fn mark(&mut self, seq: u64) -> bool {
        if self.has(seq) {
            return false;
        }
        if seq >= self.next {
            let (from, to) = (self.next.div_ceil(64), seq / 64);
            // Words that come into the window hold what was 1 088 counters ago. At most the whole ring is new.
            for word in (from..=to).rev().take(RING) {
                self.ring[(word % RING as u64) as usize] = 0;
            }
            self.next = seq.saturating_add(1);
        }
        let (word, bit) = place(seq);
        self.ring[word] |= bit;
        self.complete = self.complete.max(self.next.saturating_sub(WINDOW));
        while self.complete < self.next && self.has(self.complete) {
            self.complete += 1;
        }
        true
    }

    /// All counters below have been seen (or have left the window).
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// One more than the highest that was seen.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_is_a_set_that_forgets_what_is_old(steps in prop::collection::vec((0_u64..3000, any::<bool>()), 1..400)) {
            let (mut window, mut seen, mut next) = (Window::default(), BTreeSet::new(), 0_u64);
            for (value, near) in steps {
                let seq = if near { next.saturating_sub(value % 80) + value % 7 } else { value };
                let old = next > seq && next - seq > WINDOW;
                prop_assert_eq!(window.has(seq), old || seen.contains(&seq));
                prop_assert_eq!(window.mark(seq), !old && seen.insert(seq));
                next = next.max(if old { 0 } else { seq + 1 });
                prop_assert_eq!(window.next(), next);
                let complete = (next.saturating_sub(WINDOW)..).find(|at| !seen.contains(at)).unwrap_or(0);
                prop_assert_eq!(window.complete(), complete.max(window.complete()));
                prop_assert!(window.complete() >= complete);
            }
        }
    }

    #[test]
    fn a_jump_over_many_windows_leaves_nothing_behind() {
        let mut window = Window::default();
        (0..2000).for_each(|seq| assert!(window.mark(seq)));
        assert!(window.mark(u64::MAX - 1));
        assert!(!window.has(u64::MAX - 3) && window.has(5) && window.has(u64::MAX - 1));
    }
}
