//! Which frames were taken lately: two generations of digests, so that forgetting costs nothing and never stops the relay for long.
//!
//! A digest stands here only after a copy of its frame was handed to a live connection (what waits, the store knows). So nobody can have a
//! frame dropped as a duplicate by making the relay lose the first copy. What always holds: neither generation exceeds its count, and a digest is
//! remembered for at most two periods. The digest covers the whole frame: over a part of it, a hostile relay could send a spoilt copy first.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::seeded::Seeded;

/// Bytes that one remembered digest takes: digest, count, and the table's control byte, at its fullest 7 of 8.
pub(crate) const ENTRY_BYTES: usize = 21;

/// The first half of a frame's BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of a whole frame. At 1 150 bytes this is by far the dearest step of forwarding, so it is made once.
    pub fn of(frame: &[u8]) -> Self {
        let digest = blake3::hash(frame);
        Self(std::array::from_fn(|at| digest.as_bytes()[at]))
    }
}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Frames of which copies are on their way, by digest.
#[derive(Debug)]
pub struct Recent {
    young: HashMap<Fingerprint, u8, Seeded>,
    old: HashMap<Fingerprint, u8, Seeded>,
    count_max: usize,
    period_us: u64,
    began_us: u64,
}

impl Recent {
    /// With two generations of at most `count_max` digests and `period_ms` each. Their memory is taken at once: a table that grows under
    /// load would stop every connection while it is copied.
    pub fn new(count_max: usize, period_ms: u64, seeded: Seeded) -> Self {
        let table = || HashMap::with_capacity_and_hasher(count_max, seeded);
        Self { young: table(), old: table(), count_max, period_us: period_ms.saturating_mul(1000), began_us: 0 }
    }

    /// How many copies of a frame are out. `None`: it is not known.
    pub fn copies(&mut self, now_us: u64, print: &Fingerprint) -> Option<u8> {
        self.turn(now_us);
        self.young.get(print).or_else(|| self.old.get(print)).copied()
    }

    /// Remembers a frame of which so many copies are out.
    pub fn remember(&mut self, now_us: u64, print: Fingerprint, copies: u8) {
        self.turn(now_us);
        if self.young.len() >= self.count_max {
            self.age(now_us);
        }
        self.young.insert(print, copies);
    }

    /// One copy was lost after all. Gives how many are left; at none the frame is forgotten and its next copy is welcome.
    pub fn lost(&mut self, print: &Fingerprint) -> u8 {
        let Some(copies) = self.young.get_mut(print).or_else(|| self.old.get_mut(print)) else { return 0 };
        *copies = copies.saturating_sub(1);
        let left = *copies;
        if left == 0 {
            self.forget(print);
        }
        left
    }

    /// Forgets a frame.
    pub fn forget(&mut self, print: &Fingerprint) {
        self.young.remove(print);
        self.old.remove(print);
    }

    /// Digests remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// True when nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that both generations take, full or not.
    pub fn bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) * ENTRY_BYTES
    }

    fn turn(&mut self, now_us: u64) {
        let age_us = now_us.saturating_sub(self.began_us);
        if age_us >= self.period_us {
            self.age(now_us);
            if age_us >= self.period_us.saturating_mul(2) {
                self.old.clear();
            }
        }
    }

    fn age(&mut self, now_us: u64) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
        self.began_us = now_us;
    }
}
