//! A frame from a stranger, and a story of two identities whose frames a hostile relay holds back, bends, mixes and repeats as the input says.
//! A header that is read is what we would have written. A frame that no end has made is refused and changes nothing that is told; what is delivered
//! was sent by whom it names and comes once to a life of a process; what is acknowledged has come; and nothing grows past its bound.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bpi_protocol::frame::endpoint::{Endpoint, Settings};
use bpi_protocol::frame::fragments::MESSAGE_BYTES_MAX;
use bpi_protocol::frame::header::{FRAME_BYTES_MAX, HEADER_BYTES, Header};
use bpi_protocol::frame::key::Signer;
use bpi_protocol::frame::{Effect, Input, Moment, RelayId, WAITING_BYTES_MAX, WANTED_S};
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

const NETWORK: u64 = 0x1122_3344_5566_7788;
const UNIX_S: u64 = 1_790_000_000;
/// Steps of a story, and frames that its relay keeps: the oldest go.
const STEPS_MAX: usize = 128;
const FRAMES_MAX: usize = 512;
/// Effects of one step: a window of frames sent again or acknowledged for each end, and some news.
const EFFECTS_MAX: usize = 2 * 1024 + 64;
/// What waits for a peer and what is under way to it, each with a message more than its bound.
const BYTES_MAX: usize = WAITING_BYTES_MAX + (2 << 20) + 2 * MESSAGE_BYTES_MAX;

/// SplitMix64 from a fixed seed: an input is the same story every time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
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
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
        Ok(())
    }
}

impl TryCryptoRng for Chance {}

struct Key(SigningKey);

impl Signer for Key {
    fn identity(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

fn key(end: usize) -> Key {
    Key(SigningKey::from_bytes(&[end as u8 + 1; 32]))
}

fn begin(end: usize, chance: &mut Chance) -> Endpoint<Key> {
    let allowed = Some([key(0).identity(), key(1).identity()].into());
    Endpoint::new(key(end), Settings { network: NETWORK, sessions_max: 4, wanted_s: WANTED_S, allowed }, chance)
}

struct Story {
    ends: [Endpoint<Key>; 2],
    identities: [[u8; 32]; 2],
    chance: Chance,
    now: Moment,
    /// Frames that an end has made: for which end, and the bytes.
    frames: Vec<(usize, Arc<[u8]>)>,
    made: BTreeSet<Arc<[u8]>>,
    /// Messages by sender and tag; those that have come to the life of their receiver that is now, and to any.
    sent: BTreeMap<(usize, Vec<u8>), u64>,
    come: [BTreeSet<Vec<u8>>; 2],
    ever: BTreeSet<(usize, u64)>,
    tag: u64,
}

impl Story {
    fn new() -> Self {
        let mut chance = Chance(0x00b1_c1b1);
        let ends = [begin(0, &mut chance), begin(1, &mut chance)];
        let mut story = Self {
            ends,
            identities: [key(0).identity(), key(1).identity()],
            chance,
            now: Moment { us: 0, unix_s: UNIX_S },
            frames: Vec::new(),
            made: BTreeSet::new(),
            sent: BTreeMap::new(),
            come: [BTreeSet::new(), BTreeSet::new()],
            ever: BTreeSet::new(),
            tag: 0,
        };
        (0..2).for_each(|end| drop(story.input(end, Input::Time)));
        story
    }

    /// An open session with one message, over an honest relay. Then it is the input's.
    fn opened() -> Self {
        let mut story = Self::new();
        story.send(0, 40);
        for _ in 0..6 {
            let mut left = story.frames.clone();
            story.frames.clear();
            left.drain(..).for_each(|(end, frame)| drop(story.frame(end, &frame)));
            story.pass(25_000);
        }
        assert_eq!((story.come[1].len(), story.ends[0].open_sessions()), (1, 1));
        story
    }

    fn pass(&mut self, us: u64) {
        self.now.us += us;
        self.now.unix_s = UNIX_S + self.now.us / 1_000_000;
        (0..2).for_each(|end| drop(self.input(end, Input::Time)));
    }

    fn input(&mut self, end: usize, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.ends[end].step(self.now, input, &mut self.chance, &mut effects);
        self.take(end, &effects);
        effects
    }

    /// Takes note of what an end wants done.
    fn take(&mut self, end: usize, effects: &[Effect]) {
        assert!(effects.len() <= EFFECTS_MAX, "{} effects of one step", effects.len());
        let other = 1 - end;
        let mut asked = false;
        for effect in effects {
            match effect {
                Effect::Transmit { to, peer, frame, .. } => {
                    assert!((*to, *peer) == (self.ends[other].id(), self.identities[other]), "for nobody else");
                    assert!(Header::of_frame(frame).is_ok() && frame.len() <= FRAME_BYTES_MAX);
                    if self.frames.len() >= FRAMES_MAX {
                        self.frames.remove(0);
                    }
                    self.frames.push((other, Arc::clone(frame)));
                    self.made.insert(Arc::clone(frame));
                }
                Effect::Deliver { from, message } => {
                    assert_eq!(*from, self.identities[other]);
                    let tag = self.sent.get(&(other, message.to_vec())).expect("somebody has sent it");
                    assert!(self.come[end].insert(message.to_vec()), "it comes once");
                    self.ever.insert((other, *tag));
                }
                Effect::Acknowledged { peer, tag } => {
                    assert_eq!(*peer, self.identities[other]);
                    assert!(self.ever.contains(&(end, *tag)), "what is acknowledged has come");
                }
                Effect::PrekeyWanted { .. } => asked = true,
                _ => {}
            }
        }
        assert!(self.ends[end].waiting_bytes(&self.identities[other]) <= BYTES_MAX);
        assert!(self.ends[end].open_sessions() <= 1);
        if asked && let Some(prekey) = self.ends[other].prekey() {
            drop(self.input(end, Input::Prekey(prekey)));
        }
    }

    /// Sends a message that no other is like.
    fn send(&mut self, end: usize, bytes: usize) {
        self.tag += 1;
        let mut message = self.tag.to_be_bytes().to_vec();
        message.resize(bytes.max(8), self.tag as u8);
        self.sent.insert((end, message.clone()), self.tag);
        let (to, tag) = (self.identities[1 - end], self.tag);
        drop(self.input(end, Input::Send { to, tag, message: Arc::new(Zeroizing::new(message)) }));
    }

    /// Gives an end a frame, and looks at what follows when nobody has made it.
    fn frame(&mut self, end: usize, frame: &[u8]) -> Vec<Effect> {
        let is_made = self.made.contains(frame);
        if let Ok(header) = Header::of_frame(frame) {
            assert_eq!(header.to_bytes(), frame[..HEADER_BYTES]);
        }
        let mut opened = frame.to_vec();
        let effects = self.input(end, Input::Frame { via: RelayId(*b"relay-01"), frame: &mut opened });
        if !is_made {
            assert!(effects.iter().any(|effect| matches!(effect, Effect::Refused(_))), "nobody has made this frame");
            let told = effects.iter().find(|effect| {
                matches!(
                    effect,
                    Effect::Deliver { .. }
                        | Effect::Acknowledged { .. }
                        | Effect::Opened { .. }
                        | Effect::Met { .. }
                        | Effect::Carried { .. }
                )
            });
            assert!(told.is_none(), "{told:?} of a frame that nobody has made");
        }
        effects
    }

    /// A life of a process ends, in order or not, and another one begins.
    fn restart(&mut self, end: usize, in_order: bool) {
        if in_order {
            let mut effects = Vec::new();
            self.ends[end].close(self.now, 0, &mut effects);
            self.take(end, &effects);
        }
        self.ends[end] = begin(end, &mut self.chance);
        self.come[end].clear();
        drop(self.input(end, Input::Time));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::of_frame(bytes) {
        assert_eq!(header.to_bytes(), bytes[..HEADER_BYTES]);
        assert_eq!(header.frame_bytes(), bytes.len());
    }
    let mut story = Story::opened();
    // As it is: the seeds of a session are of another one.
    (0..2).for_each(|end| drop(story.frame(end, bytes)));
    let mut rest = bytes.iter().copied();
    for _ in 0..STEPS_MAX {
        let Some(step) = rest.next() else { return };
        let mut next = || rest.next().unwrap_or(0);
        let end = usize::from(step >> 7);
        let at = usize::from(u16::from_be_bytes([next(), next()]));
        let known = match story.frames.len() {
            0 => None,
            count => Some(story.frames[(count - 1).saturating_sub(at % count)].clone()),
        };
        match (step & 0x0f, known) {
            (0, _) => story.pass(at as u64 * 1_000),
            (1, _) => story.pass(at as u64),
            (2, _) => story.send(end, at),
            (3, _) => story.restart(end, at % 2 == 0),
            (4, _) => {
                let relays = (0..at % 12).map(|relay| RelayId([relay as u8; 8])).collect();
                drop(story.input(end, Input::Relays(relays)));
            }
            (5, _) => drop(story.input(end, Input::Open { to: story.identities[1 - end] })),
            // What looks like a frame for this end, of what the input says.
            (6, _) => {
                let mut frame: Vec<u8> = (0..at % 400).map(|_| next()).collect();
                frame.resize(frame.len().max(HEADER_BYTES + 16), 0);
                frame[..4].copy_from_slice(b"BPC1");
                frame[5] = 1;
                frame[8..16].copy_from_slice(&NETWORK.to_be_bytes());
                frame[16..24].copy_from_slice(&story.ends[end].id().0);
                frame[52..56].copy_from_slice(&(story.now.unix_s as u32 + 30).to_be_bytes());
                let before = if frame[4] == 1 { HEADER_BYTES + 64 } else { HEADER_BYTES + 16 };
                let payload_bytes = frame.len().saturating_sub(before) as u32;
                frame[60..64].copy_from_slice(&payload_bytes.to_be_bytes());
                drop(story.frame(end, &frame));
            }
            (_, None) => {}
            // Some of what was made, in the order in which it was made.
            (7, _) => {
                let from = story.frames.len().saturating_sub(at % 64 + 1);
                let some = story.frames[from..].to_vec();
                some.into_iter().for_each(|(end, frame)| drop(story.frame(end, &frame)));
            }
            (8, Some((end, frame))) => drop(story.frame(end, &frame)),
            (9, Some((end, frame))) => drop(story.frame(1 - end, &frame)),
            // Some bytes are others.
            (10, Some((end, frame))) => {
                let mut frame = frame.to_vec();
                let place = usize::from(u16::from_be_bytes([next(), next()])) % frame.len();
                for at in place..(place + usize::from(next() % 9)).min(frame.len()) {
                    frame[at] ^= next();
                }
                drop(story.frame(end, &frame));
            }
            // It is cut, or longer, and says so.
            (11, Some((end, frame))) => {
                let (mut frame, was) = (frame.to_vec(), frame.len() as u32);
                frame.resize(usize::from(u16::from_be_bytes([next(), next()])).max(HEADER_BYTES + 16), next());
                let said = u32::from_be_bytes([frame[60], frame[61], frame[62], frame[63]]);
                let payload_bytes = (said + frame.len() as u32).saturating_sub(was);
                frame[60..64].copy_from_slice(&payload_bytes.to_be_bytes());
                drop(story.frame(end, &frame));
            }
            // The body of another frame.
            (12, Some((end, frame))) => {
                let (_, other) = story.frames[usize::from(next()) % story.frames.len()].clone();
                let mut frame = frame.to_vec();
                frame[HEADER_BYTES..].iter_mut().zip(&other[HEADER_BYTES..]).for_each(|(byte, theirs)| *byte = *theirs);
                drop(story.frame(end, &frame));
            }
            // Another counter, phase, session or expiry.
            (13.., Some((end, frame))) => {
                let mut frame = frame.to_vec();
                let place = [24, 40, 44, 48, 52, 56][usize::from(next() % 6)];
                frame[place..place + 4].iter_mut().for_each(|byte| *byte = next());
                drop(story.frame(end, &frame));
            }
        }
    }
});
