//! The feed of headers of a network: what validators publish, to whoever follows.
//!
//! A relay cannot judge a header, so a validator that lies may fill only its own part: when the feed is full, the publisher with the most
//! entries loses its lowest height. A body that is there already is not taken again, whoever publishes it. There is no queue for a follower,
//! only its place in the feed: who is slow loses the oldest and is told how many.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::fingerprint::Fingerprint;
use crate::peer::ConnId;

/// Entries that are kept of a network.
pub const KEPT: usize = 64;
/// Longest body in bytes.
pub const BODY_BYTES_MAX: usize = 4096;
/// Feeds at one relay.
pub const FEEDS_MAX: usize = 16;
/// What an entry costs beside its body, in bytes.
const ENTRY_BYTES: usize = 192;

#[derive(Debug)]
struct Entry {
    publisher: u64,
    height: u64,
    print: Fingerprint,
    body: Bytes,
}

/// What a follower takes at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bodies in the order in which they were published.
    pub bodies: Vec<Bytes>,
    /// How many more there were, which are gone.
    pub lost: u64,
}

/// The feed of one network.
#[derive(Debug, Default)]
pub struct Feed {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    followers: BTreeMap<ConnId, u64>,
    bytes: usize,
}

impl Feed {
    /// Adds a body. False: it is there already, or its publisher has only higher ones in a full feed.
    pub fn publish(&mut self, publisher: u64, height: u64, body: &[u8]) -> bool {
        let print = Fingerprint::of(body);
        if self.entries.values().any(|entry| entry.print == print && entry.height == height) {
            return false;
        }
        let number = self.next;
        self.next += 1;
        self.bytes += body.len() + ENTRY_BYTES;
        self.entries.insert(number, Entry { publisher, height, print, body: Bytes::copy_from_slice(body) });
        if self.entries.len() <= KEPT {
            return true;
        }
        let mut counts = BTreeMap::<u64, usize>::new();
        self.entries.values().for_each(|entry| *counts.entry(entry.publisher).or_default() += 1);
        let most = counts.values().max().copied().unwrap_or(0);
        let lowest = self
            .entries
            .iter()
            .filter(|(_, entry)| counts.get(&entry.publisher) == Some(&most))
            .min_by_key(|(number, entry)| (entry.height, **number))
            .map(|(number, _)| *number);
        if let Some(entry) = lowest.and_then(|number| self.entries.remove(&number)) {
            self.bytes -= entry.body.len() + ENTRY_BYTES;
        }
        lowest != Some(number)
    }

    /// A connection follows from here on, and takes what there is.
    pub fn follow(&mut self, conn: ConnId) -> Vec<Bytes> {
        self.followers.insert(conn, self.next);
        self.entries.values().map(|entry| entry.body.clone()).collect()
    }

    /// A connection follows no more.
    pub fn leave(&mut self, conn: ConnId) {
        self.followers.remove(&conn);
    }

    /// What a follower has not had yet.
    pub fn take(&mut self, conn: ConnId) -> Taken {
        let Some(place) = self.followers.get_mut(&conn) else { return Taken::default() };
        let bodies: Vec<Bytes> = self.entries.range(*place..).map(|(_, entry)| entry.body.clone()).collect();
        let lost = self.next - *place - bodies.len() as u64;
        *place = self.next;
        Taken { bodies, lost }
    }

    /// Who follows.
    pub fn followers(&self) -> impl Iterator<Item = ConnId> {
        self.followers.keys().copied()
    }

    /// Entries that are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes + self.followers.len() * 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(height: u64) -> Vec<u8> {
        height.to_be_bytes().to_vec()
    }

    #[test]
    fn a_feed_keeps_the_last_and_a_slow_follower_is_told_what_it_lost() {
        let mut feed = Feed::default();
        assert!(feed.follow(ConnId(1)).is_empty());
        assert!((0..100).all(|height| feed.publish(7, height, &body(height))));
        let taken = feed.take(ConnId(1));
        assert_eq!((taken.bodies.len(), taken.lost), (KEPT, 36));
        assert_eq!(taken.bodies[0], body(36));
        assert_eq!(feed.take(ConnId(1)), Taken::default());
        assert_eq!(feed.follow(ConnId(2)).len(), KEPT);
        assert_eq!(feed.take(ConnId(2)), Taken::default(), "what was given at first is not given again");
    }

    #[test]
    fn a_validator_that_publishes_heights_without_end_pushes_out_only_its_own() {
        let mut feed = Feed::default();
        (0..20).for_each(|height| assert!(feed.publish(1, height, &body(height))));
        (0..10_000).for_each(|height| {
            feed.publish(2, u64::MAX - height, &body(u64::MAX - height));
        });
        let kept = feed.follow(ConnId(1));
        assert_eq!(kept.len(), KEPT);
        assert!((0..20).all(|height| kept.contains(&Bytes::from(body(height)))));
        assert!(feed.bytes() < KEPT * 256);
    }

    #[test]
    fn the_same_header_from_nine_validators_is_told_once() {
        let mut feed = Feed::default();
        assert_eq!((0..9).filter(|publisher| feed.publish(*publisher, 5, b"header")).count(), 1);
    }
}
