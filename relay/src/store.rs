//! Frames that wait for a destination that was here a moment ago.
//!
//! Only a key that was registered within the last minute has a place, so strangers cannot fill it. What always holds: the bytes of a key, of
//! a sender and of all stay within their bounds, and an entry counts what it costs, so many small frames are not cheaper than they are.
//! A sender that is at its bound loses its own oldest frame, never another's; then a key loses its oldest, then the store. Frames are copied
//! into memory of their own: a slice of a receive buffer would hold all of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::envelope::KeyId;
use crate::fingerprint::Fingerprint;

/// What an entry costs beside its frame: itself, its places in five trees, and the allocator's share.
pub const ENTRY_BYTES: usize = 384;

/// Bounds in bytes, and of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreBounds {
    /// For one destination key.
    pub key_bytes: usize,
    /// Of one sender.
    pub sender_bytes: usize,
    /// Of all.
    pub total_bytes: usize,
    /// How long a frame waits, and for how long a key that left has a place, in s.
    pub keep_s: u32,
}

impl Default for StoreBounds {
    fn default() -> Self {
        Self { key_bytes: 1 << 20, sender_bytes: 512 << 10, total_bytes: 32 << 20, keep_s: 60 }
    }
}

#[derive(Debug)]
struct Entry {
    key: KeyId,
    sender: u64,
    until_s: u64,
    print: Fingerprint,
    frame: Bytes,
}

impl Entry {
    fn cost(&self) -> usize {
        self.frame.len() + ENTRY_BYTES
    }
}

/// How many frames went because of which bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Their sender was at its bound.
    pub sender: u64,
    /// Their key was at its bound.
    pub key: u64,
    /// The store was full.
    pub total: u64,
}

/// The frames that wait.
#[derive(Debug)]
pub struct Store {
    bounds: StoreBounds,
    next: u64,
    bytes: usize,
    entries: BTreeMap<u64, Entry>,
    by_key: BTreeSet<(KeyId, u64)>,
    by_sender: BTreeSet<(u64, u64)>,
    by_until: BTreeSet<(u64, u64)>,
    prints: BTreeSet<Fingerprint>,
    key_bytes: BTreeMap<KeyId, usize>,
    sender_bytes: BTreeMap<u64, usize>,
}

/// Takes bytes from a count and the count from its map at zero.
fn lower<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, bytes: usize) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(bytes);
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Store {
    /// Empty.
    pub fn new(bounds: StoreBounds) -> Self {
        Self {
            bounds,
            next: 0,
            bytes: 0,
            entries: BTreeMap::new(),
            by_key: BTreeSet::new(),
            by_sender: BTreeSet::new(),
            by_until: BTreeSet::new(),
            prints: BTreeSet::new(),
            key_bytes: BTreeMap::new(),
            sender_bytes: BTreeMap::new(),
        }
    }

    /// Its bounds.
    pub fn bounds(&self) -> &StoreBounds {
        &self.bounds
    }

    /// True while a frame waits.
    pub fn holds(&self, print: &Fingerprint) -> bool {
        self.prints.contains(print)
    }

    /// Keeps a frame that does not wait yet until `expiry_s`, at most for as long as any. Gives how many went for it.
    /// `None`: it is larger than a bound and nothing was done.
    pub fn keep(
        &mut self,
        now_s: u64,
        (key, sender, expiry_s): (KeyId, u64, u64),
        print: Fingerprint,
        frame: &[u8],
    ) -> Option<Evicted> {
        let StoreBounds { key_bytes, sender_bytes, total_bytes, keep_s } = self.bounds;
        let cost = frame.len() + ENTRY_BYTES;
        if cost > key_bytes.min(sender_bytes).min(total_bytes) {
            return None;
        }
        let mut evicted = Evicted::default();
        // Each turn takes one entry away, so there are at most as many as entries; an empty count is below every bound.
        while self.sender_bytes(sender) + cost > sender_bytes {
            let Some(&(_, oldest)) = self.by_sender.range((sender, 0)..).next() else { break };
            self.remove(oldest);
            evicted.sender += 1;
        }
        while self.key_bytes(key) + cost > key_bytes {
            let Some(&(_, oldest)) = self.by_key.range((key, 0)..).next() else { break };
            self.remove(oldest);
            evicted.key += 1;
        }
        while self.bytes + cost > total_bytes {
            let Some((&oldest, _)) = self.entries.first_key_value() else { break };
            self.remove(oldest);
            evicted.total += 1;
        }
        let until_s = expiry_s.min(now_s.saturating_add(u64::from(keep_s)));
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, Entry { key, sender, until_s, print, frame: Bytes::copy_from_slice(frame) });
        self.prints.insert(print);
        self.by_key.insert((key, number));
        self.by_sender.insert((sender, number));
        self.by_until.insert((until_s, number));
        *self.key_bytes.entry(key).or_default() += cost;
        *self.sender_bytes.entry(sender).or_default() += cost;
        self.bytes += cost;
        Some(evicted)
    }

    /// Takes all frames of a key, oldest first, with their digests; and says how many more there were whose time was up.
    pub fn take(&mut self, now_s: u64, key: KeyId) -> (Vec<(Fingerprint, Bytes)>, u64) {
        let numbers: Vec<u64> = self.by_key.range((key, 0)..=(key, u64::MAX)).map(|(_, number)| *number).collect();
        let (mut frames, mut late) = (Vec::with_capacity(numbers.len()), 0);
        for entry in numbers.into_iter().filter_map(|number| self.remove(number)) {
            if entry.until_s > now_s {
                frames.push((entry.print, entry.frame));
            } else {
                late += 1;
            }
        }
        (frames, late)
    }

    /// Drops up to `count_max` frames whose time is up, and says how many.
    pub fn expire(&mut self, now_s: u64, count_max: usize) -> u64 {
        let mut count = 0;
        while count < count_max as u64 {
            match self.by_until.first() {
                Some(&(until_s, number)) if until_s <= now_s => self.remove(number),
                _ => break,
            };
            count += 1;
        }
        count
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.prints.remove(&entry.print);
        self.by_key.remove(&(entry.key, number));
        self.by_sender.remove(&(entry.sender, number));
        self.by_until.remove(&(entry.until_s, number));
        lower(&mut self.key_bytes, entry.key, entry.cost());
        lower(&mut self.sender_bytes, entry.sender, entry.cost());
        self.bytes = self.bytes.saturating_sub(entry.cost());
        Some(entry)
    }

    /// Bytes that wait for a key.
    pub fn key_bytes(&self, key: KeyId) -> usize {
        self.key_bytes.get(&key).copied().unwrap_or(0)
    }

    /// Bytes that wait of a sender.
    pub fn sender_bytes(&self, sender: u64) -> usize {
        self.sender_bytes.get(&sender).copied().unwrap_or(0)
    }

    /// Bytes that wait in all, with what an entry costs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
