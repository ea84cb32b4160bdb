//! Who is here and who was just here: slots that a connection looks up by number, kept for a while after the last connection has gone.
//!
//! An account that vanished with its connection would give a peer its credit and its debts back for the price of a handshake. So what has
//! left waits among the idle, and goes when the time is up, or earlier, oldest first, when the slot is needed. What always holds: at most
//! `max` slots; a slot with a connection, or with a hold, is never taken.

use std::collections::{BTreeMap, BTreeSet};

/// Number of a slot. It stays valid while a connection holds it.
pub type Index = u32;

#[derive(Debug)]
struct Slot<K, T> {
    key: K,
    connections: u32,
    holds: u32,
    left_us: u64,
    value: T,
}

/// Slots by key.
#[derive(Debug)]
pub struct Roster<K, T> {
    slots: Vec<Option<Slot<K, T>>>,
    free: Vec<Index>,
    index: BTreeMap<K, Index>,
    idle: BTreeSet<(u64, Index)>,
    max: usize,
}

impl<K: Ord + Clone, T> Roster<K, T> {
    /// With at most `max` slots.
    pub fn new(max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: BTreeMap::new(), idle: BTreeSet::new(), max }
    }

    /// The slot of a key, whether or not it has connections.
    pub fn find(&self, key: &K) -> Option<Index> {
        self.index.get(key).copied()
    }

    /// Connections of a key.
    pub fn connections_of(&self, key: &K) -> u32 {
        self.find(key).and_then(|at| self.slot(at)).map_or(0, |slot| slot.connections)
    }

    /// A connection of this key comes. `None` when every slot has connections.
    pub fn enter(&mut self, key: &K, make: impl FnOnce() -> T) -> Option<Index> {
        let at = match self.find(key) {
            Some(at) => at,
            None => self.place(key, make())?,
        };
        let slot = self.slots.get_mut(at as usize)?.as_mut()?;
        self.idle.remove(&(slot.left_us, at));
        slot.connections += 1;
        Some(at)
    }

    fn place(&mut self, key: &K, value: T) -> Option<Index> {
        if self.index.len() >= self.max {
            let (_, oldest) = self.idle.first().copied()?;
            self.remove(oldest);
        }
        let slot = Some(Slot { key: key.clone(), connections: 0, holds: 0, left_us: 0, value });
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                let at = Index::try_from(self.slots.len()).ok()?;
                self.slots.push(slot);
                at
            }
        };
        self.index.insert(key.clone(), at);
        Some(at)
    }

    /// Holds a slot that has a connection as another connection would, without being one that [`Roster::connections_of`] counts.
    pub fn hold(&mut self, at: Index) {
        if let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::as_mut) {
            slot.holds += 1;
        }
    }

    /// Lets go what [`Roster::hold`] held.
    pub fn release(&mut self, at: Index, now_us: u64) {
        if let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::as_mut) {
            slot.holds = slot.holds.saturating_sub(1);
        }
        self.rest(at, now_us);
    }

    fn rest(&mut self, at: Index, now_us: u64) {
        let slot = self.slots.get_mut(at as usize).and_then(Option::as_mut);
        if let Some(slot) = slot.filter(|slot| slot.connections == 0 && slot.holds == 0) {
            self.idle.remove(&(slot.left_us, at));
            slot.left_us = now_us;
            self.idle.insert((now_us, at));
        }
    }

    /// A connection goes. Gives how many are left.
    pub fn leave(&mut self, at: Index, now_us: u64) -> u32 {
        let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::as_mut) else { return 0 };
        slot.connections = slot.connections.saturating_sub(1);
        let left = slot.connections;
        self.rest(at, now_us);
        left
    }

    /// Forgets up to `count_max` of those who left before a moment.
    pub fn sweep(&mut self, before_us: u64, count_max: usize) {
        for _ in 0..count_max {
            match self.idle.first() {
                Some(&(left_us, at)) if left_us < before_us => self.remove(at),
                _ => return,
            }
        }
    }

    fn remove(&mut self, at: Index) {
        if let Some(slot) = self.slots.get_mut(at as usize).and_then(Option::take) {
            self.index.remove(&slot.key);
            self.idle.remove(&(slot.left_us, at));
            self.free.push(at);
        }
    }

    fn slot(&self, at: Index) -> Option<&Slot<K, T>> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// What a slot holds.
    #[inline]
    pub fn get(&self, at: Index) -> Option<&T> {
        self.slot(at).map(|slot| &slot.value)
    }

    /// What a slot holds.
    #[inline]
    pub fn get_mut(&mut self, at: Index) -> Option<&mut T> {
        self.slots.get_mut(at as usize)?.as_mut().map(|slot| &mut slot.value)
    }

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory, roughly: slots with their numbers, and what the trees take for each.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Slot<K, T>>>()
            + self.free.capacity() * size_of::<Index>()
            + self.index.len() * 2 * (size_of::<K>() + size_of::<Index>())
            + self.idle.len() * 2 * size_of::<(u64, Index)>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_comes_back_in_time_finds_its_slot_as_it_was() {
        let mut roster = Roster::new(2);
        let at = roster.enter(&'a', || 1).unwrap();
        *roster.get_mut(at).unwrap() = 7;
        assert_eq!(roster.leave(at, 10), 0);
        roster.sweep(10, 9);
        let again = roster.enter(&'a', || 1).unwrap();
        assert_eq!((again, roster.get(again)), (at, Some(&7)));
    }

    #[test]
    fn a_full_roster_gives_up_who_left_first_and_never_who_is_here() {
        let mut roster = Roster::new(2);
        let a = roster.enter(&'a', || 1).unwrap();
        let b = roster.enter(&'b', || 2).unwrap();
        assert_eq!(roster.enter(&'c', || 3), None);
        roster.leave(b, 5);
        roster.leave(a, 6);
        roster.enter(&'c', || 3).unwrap();
        assert_eq!((roster.find(&'b'), roster.find(&'a'), roster.len()), (None, Some(a), 2));
        roster.sweep(7, 9);
        assert_eq!((roster.find(&'a'), roster.len()), (None, 1));
    }
}
