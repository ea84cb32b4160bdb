//! Which connections take frames for which destination key, and the announcements (signed prekey certificates) of those keys.
//!
//! A key outlives its connections: for a minute frames are kept for it, for an hour its announcement can be asked for. What always holds: at
//! most four connections a key, the newest; at most `keys_max` keys; of one account at most [`LEFT_PER_ACCOUNT`] keys without a connection,
//! so who registers and leaves without end pushes out only itself.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::envelope::KeyId;
use crate::peer::ConnId;
use crate::seeded::Seeded;

/// Connections that take frames for one key, at most.
pub const CONNECTIONS_PER_KEY: usize = 4;
/// Longest announcement in bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 512;
/// Keys without a connection that are kept for one account.
pub const LEFT_PER_ACCOUNT: usize = 32;
/// What a key costs beside its announcement, in bytes.
const KEY_BYTES: usize = 256;

/// Up to four connections, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    ids: [ConnId; CONNECTIONS_PER_KEY],
    count: u8,
}

impl Recipients {
    /// The connections.
    #[inline]
    pub fn as_slice(&self) -> &[ConnId] {
        &self.ids[..usize::from(self.count)]
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    fn remove(&mut self, conn: ConnId) {
        if let Some(at) = self.as_slice().iter().position(|id| *id == conn) {
            self.ids.copy_within(at + 1.., at);
            self.count -= 1;
        }
    }

    /// Adds a connection as the newest; gives the one that has to go for it.
    fn push(&mut self, conn: ConnId) -> Option<ConnId> {
        self.remove(conn);
        let gone = (self.len() == CONNECTIONS_PER_KEY).then(|| self.ids[0]);
        if let Some(oldest) = gone {
            self.remove(oldest);
        }
        self.ids[self.len()] = conn;
        self.count += 1;
        gone
    }
}

impl<'a> IntoIterator for &'a Recipients {
    type Item = &'a ConnId;
    type IntoIter = std::slice::Iter<'a, ConnId>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

#[derive(Debug)]
struct Key {
    takers: Recipients,
    account: u64,
    left_us: u64,
    announcement: Bytes,
}

/// Where a frame for a key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To these connections.
    Here(Recipients),
    /// Nobody takes it now; it was registered until this moment.
    Left {
        /// In µs.
        at_us: u64,
    },
    /// Nobody knows it.
    Unknown,
}

/// What a registration displaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Displaced {
    /// A connection that takes frames for this key no more.
    pub conn: Option<ConnId>,
    /// A key that is no longer known.
    pub key: Option<KeyId>,
}

/// All keys that are known.
#[derive(Debug)]
pub struct Keys {
    keys: HashMap<KeyId, Key, Seeded>,
    left: BTreeSet<(u64, KeyId)>,
    left_by_account: BTreeSet<(u64, u64, KeyId)>,
    announcement_bytes: usize,
    max: usize,
}

impl Keys {
    /// None, and at most `max`.
    pub fn new(max: usize, seeded: Seeded) -> Self {
        let (left, left_by_account) = (BTreeSet::new(), BTreeSet::new());
        Self { keys: HashMap::with_hasher(seeded), left, left_by_account, announcement_bytes: 0, max }
    }

    /// Where a frame for a key goes.
    #[inline]
    pub fn place(&self, key: KeyId) -> Place {
        match self.keys.get(&key) {
            None => Place::Unknown,
            Some(key) if key.takers.is_empty() => Place::Left { at_us: key.left_us },
            Some(key) => Place::Here(key.takers),
        }
    }

    /// A connection takes frames for a key from now on. `None` when no key can be displaced for it.
    pub fn register(&mut self, conn: ConnId, account: u64, key: KeyId, announcement: Bytes) -> Option<Displaced> {
        let mut displaced = Displaced::default();
        if !self.keys.contains_key(&key) && self.keys.len() >= self.max {
            let (_, oldest) = self.left.first().copied()?;
            self.remove(oldest);
            displaced.key = Some(oldest);
        }
        let entry = self.keys.entry(key).or_insert_with(|| Key {
            takers: Recipients::default(),
            account,
            left_us: 0,
            announcement: Bytes::new(),
        });
        if entry.takers.is_empty() {
            self.left.remove(&(entry.left_us, key));
            self.left_by_account.remove(&(entry.account, entry.left_us, key));
        }
        self.announcement_bytes = self.announcement_bytes - entry.announcement.len() + announcement.len();
        (entry.account, entry.announcement) = (account, announcement);
        displaced.conn = entry.takers.push(conn);
        Some(displaced)
    }

    /// A connection takes frames for a key no more. Gives a key that is forgotten for it.
    pub fn unregister(&mut self, now_us: u64, conn: ConnId, key: KeyId) -> Option<KeyId> {
        let entry = self.keys.get_mut(&key)?;
        let had = entry.takers.len();
        entry.takers.remove(conn);
        if had == 0 || !entry.takers.is_empty() {
            return None;
        }
        entry.left_us = now_us;
        let account = entry.account;
        self.left.insert((now_us, key));
        self.left_by_account.insert((account, now_us, key));
        let mut own = self.left_by_account.range((account, 0, KeyId([0; 8]))..).take_while(|left| left.0 == account);
        let oldest = own.next()?.2;
        // Two more than the bound never come together: each departure is followed by this look.
        if own.count() < LEFT_PER_ACCOUNT {
            return None;
        }
        self.remove(oldest);
        Some(oldest)
    }

    /// Forgets up to `count_max` keys that were left before a moment.
    pub fn sweep(&mut self, before_us: u64, count_max: usize) {
        for _ in 0..count_max {
            match self.left.first() {
                Some(&(left_us, key)) if left_us < before_us => self.remove(key),
                _ => return,
            }
        }
    }

    fn remove(&mut self, key: KeyId) {
        if let Some(entry) = self.keys.remove(&key) {
            self.left.remove(&(entry.left_us, key));
            self.left_by_account.remove(&(entry.account, entry.left_us, key));
            self.announcement_bytes -= entry.announcement.len();
        }
    }

    /// The announcement of a key, while it is known.
    pub fn announcement(&self, key: KeyId) -> Option<Bytes> {
        self.keys.get(&key).map(|key| key.announcement.clone())
    }

    /// Keys that are known.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Keys that somebody takes frames for.
    pub fn registered(&self) -> usize {
        self.keys.len() - self.left.len()
    }

    /// True when no key is known.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.keys.capacity() * (size_of::<(KeyId, Key)>() + 1)
            + self.len() * (KEY_BYTES - 128)
            + self.announcement_bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(max: usize) -> Keys {
        Keys::new(max, Seeded::new([5; 16]))
    }

    fn key(number: u64) -> KeyId {
        KeyId(number.to_be_bytes())
    }

    #[test]
    fn of_five_connections_for_a_key_the_newest_four_take_its_frames() {
        let mut keys = keys(9);
        let displaced: Vec<_> =
            (0..5).map(|conn| keys.register(ConnId(conn), 1, key(1), Bytes::new()).unwrap().conn).collect();
        assert_eq!(displaced, [None, None, None, None, Some(ConnId(0))]);
        keys.register(ConnId(2), 1, key(1), Bytes::new()).unwrap();
        let Place::Here(takers) = keys.place(key(1)) else { panic!("somebody is here") };
        assert_eq!(takers.as_slice(), [1, 3, 4, 2].map(ConnId), "who registers again is the newest");
        (1..5).for_each(|conn| assert_eq!(keys.unregister(7, ConnId(conn), key(1)), None));
        assert_eq!(keys.place(key(1)), Place::Left { at_us: 7 });
        keys.unregister(9, ConnId(1), key(1));
        assert_eq!(keys.place(key(1)), Place::Left { at_us: 7 }, "a key is left once");
    }

    #[test]
    fn who_registers_and_leaves_without_end_pushes_out_only_itself() {
        let mut keys = keys(1000);
        keys.register(ConnId(0), 7, key(0), Bytes::from_static(b"kept")).unwrap();
        keys.unregister(0, ConnId(0), key(0));
        for number in 1..10_000 {
            keys.register(ConnId(1), 8, key(number), Bytes::new()).unwrap();
            keys.unregister(number, ConnId(1), key(number));
        }
        assert_eq!(keys.len(), 1 + LEFT_PER_ACCOUNT);
        assert_eq!(keys.announcement(key(0)).unwrap(), "kept");
    }

    #[test]
    fn a_full_table_gives_up_the_key_that_was_left_first_and_never_one_in_use() {
        let mut keys = keys(2);
        keys.register(ConnId(0), 1, key(0), Bytes::new()).unwrap();
        keys.register(ConnId(1), 2, key(1), Bytes::new()).unwrap();
        assert_eq!(keys.register(ConnId(2), 3, key(2), Bytes::new()), None);
        keys.unregister(5, ConnId(1), key(1));
        let displaced = keys.register(ConnId(2), 3, key(2), Bytes::new()).unwrap();
        assert_eq!(displaced.key, Some(key(1)));
        assert_eq!((keys.place(key(1)), keys.registered()), (Place::Unknown, 2));
    }
}
