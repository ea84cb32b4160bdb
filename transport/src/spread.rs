//! Over which relays a frame goes, and which of them are not to be trusted with it.
//!
//! A frame goes over k relays, of as many networks and operators as there are. The only sign of a relay that drops in silence is that receipts do
//! not name it: a relay that has brought less than a quarter of what it was given, while others brought it, is suspected, k grows by one, and after
//! three times it is left out for ten minutes. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use bpi_protocol::frame::{Carried, RelayId};

/// Relays of a frame to begin with, if there are so many (bpci.md).
pub const RELAYS_DEFAULT: usize = 5;
/// Frames that a relay must have been given before it is judged.
const FRAMES_MIN: u64 = 8;
/// Shortest time over which it is judged, in ms: a receipt may be a round trip late.
const WINDOW_MS: u64 = 500;
/// Times in a row that it is suspected before it is left out.
const STRIKES_MAX: u32 = 3;
/// How long it is left out, in ms.
const EVICTED_MS: u64 = 600_000;
/// How long k stays wider after the last suspicion, in ms.
const WIDE_MS: u64 = 60_000;

/// Where a relay is, as the directory or the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Autonomous system.
    pub asn: Option<u32>,
    /// Region.
    pub region: Option<String>,
    /// Who runs it.
    pub operator: Option<String>,
}

/// What was found out about a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It brought too little; k is wider now.
    Suspected(usize),
    /// It did so again and again, and is left out.
    Evicted(usize),
}

#[derive(Debug, Default)]
struct Account {
    given: u64,
    /// Since when, and what both counts were then.
    since_ms: u64,
    given_then: u64,
    brought_then: Option<u64>,
    /// What it brought of what it was given, in the window before, of a thousand.
    share: u64,
}

#[derive(Debug)]
struct Relay {
    id: RelayId,
    place: Place,
    connected: bool,
    strikes: u32,
    evicted_until_ms: u64,
    accounts: BTreeMap<[u8; 32], Account>,
}

/// The relays of a client.
#[derive(Debug)]
pub struct Spread {
    relays: Vec<Relay>,
    k: usize,
    wider: usize,
    suspected_ms: u64,
    order: Vec<usize>,
}

impl Spread {
    /// Of these relays, in the order in which they are preferred: the first ones are pinned.
    pub fn new(relays: Vec<(RelayId, Place)>, k: usize) -> Self {
        let relays = relays
            .into_iter()
            .map(|(id, place)| Relay {
                id,
                place,
                connected: false,
                strikes: 0,
                evicted_until_ms: 0,
                accounts: BTreeMap::new(),
            })
            .collect();
        let mut spread = Self { relays, k: k.max(1), wider: 0, suspected_ms: 0, order: Vec::new() };
        spread.choose(0);
        spread
    }

    /// A relay is connected, or not any more.
    pub fn connected(&mut self, relay: usize, connected: bool, now_ms: u64) {
        let Some(known) = self.relays.get_mut(relay) else { return };
        known.connected = connected;
        // What it was given before the connection was lost is nobody's fault.
        known.accounts.clear();
        self.choose(now_ms);
    }

    /// Relays that frames go over now.
    pub fn chosen(&self) -> &[usize] {
        &self.order
    }

    /// All that are connected, left out or not: receipts tell of them.
    pub fn ids(&self) -> Vec<RelayId> {
        self.relays.iter().filter(|relay| relay.connected).map(|relay| relay.id).collect()
    }

    /// Chooses anew: one of each network, operator and region first, then the others; those left out only when nothing else is there.
    pub fn choose(&mut self, now_ms: u64) {
        if self.wider > 0 && now_ms.saturating_sub(self.suspected_ms) > WIDE_MS {
            self.wider = 0;
        }
        let mut chosen: Vec<usize> = Vec::new();
        let usable = |relay: &Relay| relay.connected && relay.evicted_until_ms <= now_ms;
        let (mut networks, mut operators, mut regions) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let want = self.k + self.wider;
        for distinct in [true, false] {
            for (number, relay) in self.relays.iter().enumerate() {
                if chosen.len() >= want || !usable(relay) || chosen.contains(&number) {
                    continue;
                }
                let place = &relay.place;
                let known = place.asn.is_some_and(|asn| networks.contains(&asn))
                    || place.operator.as_ref().is_some_and(|operator| operators.contains(operator))
                    || place.region.as_ref().is_some_and(|region| regions.contains(region));
                if distinct && known {
                    continue;
                }
                place.asn.map(|asn| networks.insert(asn));
                place.operator.as_ref().map(|operator| operators.insert(operator.clone()));
                place.region.as_ref().map(|region| regions.insert(region.clone()));
                chosen.push(number);
            }
        }
        if chosen.is_empty() {
            chosen.extend((0..self.relays.len()).filter(|number| self.relays[*number].connected).take(want));
        }
        self.order = chosen;
    }

    /// A relay has shown by itself that it is not to be trusted.
    pub fn evict(&mut self, relay: usize, now_ms: u64) {
        if let Some(known) = self.relays.get_mut(relay) {
            known.strikes = 0;
            known.evicted_until_ms = now_ms.saturating_add(EVICTED_MS);
        }
        self.choose(now_ms);
    }

    /// A frame for a peer was given to a relay.
    pub fn given(&mut self, relay: usize, peer: &[u8; 32]) {
        if let Some(known) = self.relays.get_mut(relay) {
            known.accounts.entry(*peer).or_default().given += 1;
        }
    }

    /// A session with a peer is a new one: its counts begin again.
    pub fn opened(&mut self, peer: &[u8; 32]) {
        self.relays.iter_mut().for_each(|relay| {
            relay.accounts.remove(peer);
        });
    }

    /// What a peer says that relays have brought.
    pub fn carried(&mut self, peer: &[u8; 32], carried: &[Carried], now_ms: u64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut shares = Vec::new();
        for (number, relay) in self.relays.iter_mut().enumerate() {
            // A relay that the peer is not connected to cannot bring it anything.
            let Some(brought) = carried.iter().find(|carried| carried.relay == relay.id) else {
                relay.accounts.remove(peer);
                continue;
            };
            let Some(account) = relay.accounts.get_mut(peer) else { continue };
            let Some(brought_then) = account.brought_then else {
                (account.since_ms, account.given_then, account.brought_then) =
                    (now_ms, account.given, Some(brought.frames));
                continue;
            };
            let (given, brought_now) =
                (account.given - account.given_then, brought.frames.saturating_sub(brought_then));
            if given < FRAMES_MIN || now_ms.saturating_sub(account.since_ms) < WINDOW_MS {
                continue;
            }
            (account.since_ms, account.given_then, account.brought_then) =
                (now_ms, account.given, Some(brought.frames));
            account.share = (1000 * brought_now / given).min(1000);
            shares.push((number, account.share));
        }
        // Held against the best of about the same time: when all bring little, it is the peer that is away, or slow.
        let fresh = |account: &&Account| now_ms.saturating_sub(account.since_ms) < 2 * WINDOW_MS;
        let accounts = self.relays.iter().filter_map(|relay| relay.accounts.get(peer));
        let best = accounts.filter(fresh).map(|account| account.share).max().unwrap_or(0);
        for (number, share) in shares {
            let relay = &mut self.relays[number];
            if 4 * share >= best {
                relay.strikes = 0;
                continue;
            }
            relay.strikes += 1;
            self.suspected_ms = now_ms;
            if relay.strikes >= STRIKES_MAX {
                relay.strikes = 0;
                relay.evicted_until_ms = now_ms.saturating_add(EVICTED_MS);
                findings.push(Finding::Evicted(number));
            } else {
                self.wider = (self.wider + 1).min(self.relays.len());
                findings.push(Finding::Suspected(number));
            }
        }
        if !findings.is_empty() {
            self.choose(now_ms);
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: [u8; 32] = [7; 32];

    fn id(number: u64) -> RelayId {
        RelayId(number.to_be_bytes())
    }

    fn spread(count: u64, k: usize) -> Spread {
        let mut spread = Spread::new((0..count).map(|number| (id(number), Place::default())).collect(), k);
        (0..count).for_each(|number| spread.connected(number as usize, true, 0));
        spread
    }

    /// Gives frames to all chosen relays and lets only some of them bring any.
    fn round(spread: &mut Spread, brought: &mut [u64], silent: &[usize], now_ms: u64) -> Vec<Finding> {
        for _ in 0..10 {
            for relay in spread.chosen().to_vec() {
                spread.given(relay, &PEER);
                if !silent.contains(&relay) {
                    brought[relay] += 1;
                }
            }
        }
        let carried: Vec<Carried> =
            (0..).zip(brought.iter()).map(|(number, frames)| Carried { relay: id(number), frames: *frames }).collect();
        spread.carried(&PEER, &carried, now_ms)
    }

    #[test]
    fn relays_that_drop_in_silence_are_suspected_then_left_out_and_others_take_their_place() {
        let (mut spread, mut brought) = (spread(5, 3), [0; 5]);
        assert_eq!(spread.chosen(), [0, 1, 2]);
        let findings: Vec<Finding> =
            (0..6).flat_map(|at| round(&mut spread, &mut brought, &[0, 1], at * 1000)).collect();
        assert!(findings.contains(&Finding::Suspected(0)) && findings.contains(&Finding::Evicted(1)));
        assert_eq!(spread.chosen(), [2, 3, 4]);
        // After ten minutes they are tried again.
        spread.choose(EVICTED_MS + 10_000);
        assert_eq!(spread.chosen(), [0, 1, 2]);
    }

    #[test]
    fn relays_that_lose_some_are_not_suspected_and_a_peer_that_is_away_accuses_nobody() {
        let mut spread = spread(3, 3);
        let mut brought = [0; 3];
        assert!((0..20).all(|at| round(&mut spread, &mut brought, &[], at * 1000).is_empty()));
        let mut nothing = [0; 3];
        let mut spread = self::spread(3, 3);
        assert!((0..20).all(|at| round(&mut spread, &mut nothing, &[0, 1, 2], at * 1000).is_empty()));
    }

    #[test]
    fn when_all_bring_too_little_nobody_is_suspected() {
        let (mut spread, mut brought) = (spread(3, 3), [0; 3]);
        for at in 0..20 {
            // A peer that falls behind says so of all of them, whatever they brought before.
            let silent: &[usize] = if at < 5 { &[] } else { &[0, 1, 2] };
            assert_eq!(round(&mut spread, &mut brought, silent, at * 1000), []);
        }
    }

    #[test]
    fn one_of_each_network_comes_first() {
        let place = |asn| Place { asn: Some(asn), ..Place::default() };
        let mut spread =
            Spread::new(vec![(id(0), place(1)), (id(1), place(1)), (id(2), place(2)), (id(3), place(3))], 3);
        (0..4).for_each(|number| spread.connected(number, true, 0));
        assert_eq!(spread.chosen(), [0, 2, 3]);
        spread.connected(3, false, 0);
        assert_eq!(spread.chosen(), [0, 2, 1]);
    }
}
