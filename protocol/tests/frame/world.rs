//! Endpoints and relays in one thread, with a clock that is stepped and faults that come from a seed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use bpi_protocol::frame::endpoint::{Endpoint, Settings};
use bpi_protocol::frame::key::{KeyId, Prekey, Signer};
use bpi_protocol::frame::{Effect, Input, Message, Moment, Refusal, RelayId, WANTED_S};
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

pub const NETWORK: u64 = 0x1122_3344_5566_7788;
pub const UNIX_S: u64 = 1_790_000_000;

/// SplitMix64: the same everywhere for a seed, and good for nothing else.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        bound > 0 && self.below(bound) == 0
    }
}

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let next = self.next().to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Chance {}

#[derive(Clone)]
pub struct Key(pub SigningKey);

impl Key {
    pub fn of(number: u8) -> Self {
        Self(SigningKey::from_bytes(&[number; 32]))
    }
}

impl Signer for Key {
    fn identity(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

#[derive(Clone, Debug)]
pub struct Relay {
    pub alive: bool,
    /// Takes frames and drops them.
    pub silent: bool,
    /// One in so many frames is lost; 0: none.
    pub loss_one_in: u64,
    pub delay_us: (u64, u64),
    pub copies_one_in: u64,
    pub carried: u64,
}

impl Default for Relay {
    fn default() -> Self {
        Self { alive: true, silent: false, loss_one_in: 0, delay_us: (1_000, 1_000), copies_one_in: 0, carried: 0 }
    }
}

/// Whose message, what, and when in µs.
pub type Delivered = ([u8; 32], Vec<u8>, u64);
/// When, in which order, over which relay, to which node, which frame.
type Flight = (u64, u64, usize, usize, usize);

pub struct World {
    pub chance: Chance,
    pub us: u64,
    pub nodes: Vec<Endpoint<Key>>,
    pub relays: Vec<Relay>,
    /// Relays that each frame goes over.
    pub relays_per_frame: usize,
    pub delivered: Vec<Vec<Delivered>>,
    pub refused: HashMap<Refusal, u64>,
    pub acknowledged: BTreeSet<(usize, u64)>,
    pub lost: Vec<(usize, u64)>,
    pub effects: Vec<(usize, Effect)>,
    /// Every frame that was sent, for who replays.
    pub sent: Vec<(usize, Arc<[u8]>)>,
    pub keep_sent: bool,
    prekeys: HashMap<[u8; 32], Prekey>,
    by_id: HashMap<KeyId, usize>,
    flights: BinaryHeap<Reverse<Flight>>,
    frames: Vec<Arc<[u8]>>,
    number: u64,
    tag: u64,
}

pub fn settings() -> Settings {
    Settings { network: NETWORK, sessions_max: 64, wanted_s: WANTED_S, allowed: None }
}

impl World {
    pub fn new(seed: u64, nodes: u8, relays: usize) -> Self {
        let mut chance = Chance(seed);
        let nodes: Vec<_> = (1..=nodes).map(|node| Endpoint::new(Key::of(node), settings(), &mut chance)).collect();
        let by_id = nodes.iter().enumerate().map(|(node, endpoint)| (endpoint.id(), node)).collect();
        let mut world = Self {
            chance,
            us: 0,
            delivered: nodes.iter().map(|_| Vec::new()).collect(),
            nodes,
            relays: vec![Relay::default(); relays],
            relays_per_frame: relays,
            refused: HashMap::new(),
            acknowledged: BTreeSet::new(),
            lost: Vec::new(),
            effects: Vec::new(),
            sent: Vec::new(),
            keep_sent: false,
            prekeys: HashMap::new(),
            by_id,
            flights: BinaryHeap::new(),
            frames: Vec::new(),
            number: 0,
            tag: 0,
        };
        for node in 0..world.nodes.len() {
            let relays = (0..relays).map(relay_id).collect();
            world.input(node, Input::Relays(relays));
        }
        world
    }

    pub fn now(&self) -> Moment {
        Moment { us: self.us, unix_s: UNIX_S + self.us / 1_000_000 }
    }

    pub fn identity(&self, node: usize) -> [u8; 32] {
        Key::of(node as u8 + 1).identity()
    }

    /// Its process ends, and another begins.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node] = Endpoint::new(Key::of(node as u8 + 1), settings(), &mut self.chance);
        let relays = (0..self.relays.len()).map(relay_id).collect();
        self.input(node, Input::Relays(relays));
    }

    pub fn send(&mut self, from: usize, to: usize, message: Vec<u8>) -> u64 {
        self.tag += 1;
        let message: Message = Arc::new(Zeroizing::new(message));
        let to = self.identity(to);
        self.input(from, Input::Send { to, tag: self.tag, message });
        self.tag
    }

    pub fn input(&mut self, node: usize, input: Input<'_>) {
        let mut out = Vec::new();
        let now = self.now();
        self.nodes[node].step(now, input, &mut self.chance, &mut out);
        out.into_iter().for_each(|effect| self.effect(node, effect));
    }

    fn effect(&mut self, node: usize, effect: Effect) {
        match &effect {
            Effect::Transmit { to, frame, .. } => {
                if self.keep_sent {
                    self.sent.push((node, Arc::clone(frame)));
                }
                let Some(to) = self.by_id.get(to).copied() else { return };
                for relay in 0..self.relays_per_frame {
                    self.carry(relay, to, Arc::clone(frame));
                }
            }
            Effect::PrekeyWanted { peer } => {
                if let Some(prekey) = self.prekeys.get(peer).copied() {
                    self.input(node, Input::Prekey(prekey));
                }
            }
            Effect::Announce(prekey) => {
                self.prekeys.insert(prekey.identity, *prekey);
            }
            Effect::Deliver { from, message } => self.delivered[node].push((*from, message.to_vec(), self.us)),
            Effect::Acknowledged { tag, .. } => {
                assert!(self.acknowledged.insert((node, *tag)), "a message is acknowledged once");
            }
            Effect::Lost { tag, .. } => self.lost.push((node, *tag)),
            Effect::Refused(refusal) => *self.refused.entry(*refusal).or_default() += 1,
            Effect::Opened { .. } | Effect::Met { .. } | Effect::Carried { .. } => {}
        }
        if !matches!(effect, Effect::Transmit { .. } | Effect::Deliver { .. }) {
            self.effects.push((node, effect));
        }
    }

    fn carry(&mut self, number: usize, to: usize, frame: Arc<[u8]>) {
        let relay = &mut self.relays[number];
        if !relay.alive || relay.silent || self.chance.one_in(relay.loss_one_in) {
            return;
        }
        relay.carried += 1;
        let copies = if self.chance.one_in(relay.copies_one_in) { 2 } else { 1 };
        let (least, most) = relay.delay_us;
        for _ in 0..copies {
            let at = self.us + least + self.chance.below(most - least + 1);
            self.number += 1;
            self.frames.push(Arc::clone(&frame));
            self.flights.push(Reverse((at, self.number, number, to, self.frames.len() - 1)));
        }
    }

    /// Goes on until a moment, or until nothing is left to do.
    pub fn run_until(&mut self, until_us: u64) {
        loop {
            let timer = (0..self.nodes.len()).filter_map(|node| Some((self.nodes[node].deadline_us()?, node))).min();
            let flight = self.flights.peek().map(|Reverse((at, ..))| *at);
            let next = flight.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= until_us) else { break };
            self.us = self.us.max(next);
            if flight == Some(next) {
                let Reverse((_, _, relay, to, frame)) = self.flights.pop().unwrap();
                let mut frame = self.frames[frame].to_vec();
                if self.relays[relay].alive {
                    self.input(to, Input::Frame { via: relay_id(relay), frame: &mut frame });
                }
            } else if let Some((_, node)) = timer {
                self.input(node, Input::Time);
            }
        }
        self.us = self.us.max(until_us);
    }

    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.get(&refusal).copied().unwrap_or(0)
    }
}

pub fn relay_id(relay: usize) -> RelayId {
    RelayId((relay as u64).to_be_bytes())
}
