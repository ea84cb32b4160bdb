//! A session as its responder has it: opens DATA, puts messages together, says what has come.

use zeroize::Zeroizing;

use super::cipher::{Chain, Phase};
use super::fragments::{FragmentError, Fragments};
use super::handshake::Accepted;
use super::header::{Header, Kind, SessionId};
use super::key::{KeyId, Signer};
use super::receipt::{Carried, RELAYS_MAX, Receipt, RelayId};
use super::window::Window;
use super::{Moment, Refusal};

/// Frames after which a receipt is sent at once.
const FRAMES_PER_RECEIPT: u32 = 32;
/// How long a receipt waits for more frames, in µs.
const RECEIPT_DELAY_US: u64 = 20_000;
/// How long a receipt waits when a frame is missing, in µs: another relay may bring it.
const RECEIPT_GAP_US: u64 = 2_000;
/// Shortest time between two receipts that are signed, in µs.
const SIGNED_EVERY_US: u64 = 1_000_000;
/// How long keys of the phase before open frames that were under way, in µs.
const PHASE_GRACE_US: u64 = 30_000_000;
/// Tags of frames that are remembered, to know a copy from something else.
const TAGS: usize = 256;

/// Keys of one direction: the one in use, the one before for a while, and the one to come.
#[derive(Debug)]
pub(super) struct Keys {
    number: u32,
    current: Phase,
    before: Option<(Phase, u64)>,
    to_come: (Phase, Chain),
}

impl Keys {
    /// Beginning with phase 1.
    pub fn new(chain: &Chain) -> Self {
        let (current, chain) = chain.next();
        Self { number: 1, current, before: None, to_come: chain.next() }
    }

    /// The key of a phase that may open a frame.
    fn of(&self, number: u32, now_us: u64) -> Option<&Phase> {
        if number == self.number {
            return Some(&self.current);
        }
        if Some(number) == self.number.checked_add(1) {
            return Some(&self.to_come.0);
        }
        let before = self.before.as_ref().filter(|(_, until_us)| now_us < *until_us);
        before.filter(|_| number.checked_add(1) == Some(self.number)).map(|(phase, _)| phase)
    }

    /// Opens a frame, and goes on to the next phase when it is of that.
    pub fn open<'a>(&mut self, header: &Header, frame: &'a mut [u8], now_us: u64) -> Result<&'a mut [u8], Refusal> {
        let phase = self.of(header.phase, now_us).ok_or(Refusal::Phase)?;
        let plain = phase.open(header.seq, frame, header.associated_bytes()).map_err(|_| Refusal::Forged)?;
        if header.phase > self.number {
            let (_, chain) = &self.to_come;
            let after = chain.next();
            let (next, _) = std::mem::replace(&mut self.to_come, after);
            let before = std::mem::replace(&mut self.current, next);
            self.before = Some((before, now_us.saturating_add(PHASE_GRACE_US)));
            self.number = header.phase;
        }
        Ok(plain)
    }
}

/// Keys of one direction for who seals.
#[derive(Debug)]
pub(super) struct Sealer {
    number: u32,
    phase: Phase,
    chain: Chain,
    seq: u64,
    frames: u64,
    bytes: u64,
    since_us: u64,
}

impl Sealer {
    /// Beginning with phase 1 and counter `seq`.
    pub fn new(chain: &Chain, seq: u64, now_us: u64) -> Self {
        let (phase, chain) = chain.next();
        Self { number: 1, phase, chain, seq, frames: 0, bytes: 0, since_us: now_us }
    }

    /// The counter of the frame that is sealed next.
    pub fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Seals a frame; the header's phase, counter and length are set here.
    pub fn seal(&mut self, mut header: Header, payload: &[u8], now_us: u64) -> Vec<u8> {
        use super::cipher::{AGE_US_MAX, BYTES_MAX, FRAMES_MAX};
        let old = now_us.saturating_sub(self.since_us) >= AGE_US_MAX;
        if self.frames >= FRAMES_MAX || self.bytes.saturating_add(payload.len() as u64) > BYTES_MAX || old {
            let (phase, chain) = self.chain.next();
            (self.phase, self.chain) = (phase, chain);
            self.number += 1;
            (self.frames, self.bytes, self.since_us) = (0, 0, now_us);
        }
        header.phase = self.number;
        header.seq = self.seq;
        header.payload_bytes = payload.len() as u32;
        let mut frame = Vec::with_capacity(header.frame_bytes());
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(payload);
        self.phase.seal(self.seq, &mut frame, header.associated_bytes());
        self.seq += 1;
        self.frames += 1;
        self.bytes += payload.len() as u64;
        frame
    }
}

/// A session that somebody else has opened.
#[derive(Debug)]
pub(super) struct Incoming {
    pub identity: [u8; 32],
    pub reply: Vec<u8>,
    pub last_us: u64,
    session: SessionId,
    network: u64,
    digest: [u8; 32],
    forward: Keys,
    reverse: Sealer,
    window: Window,
    fragments: Fragments,
    carried: Vec<Carried>,
    tags: Vec<(u64, [u8; 8])>,
    unreceipted: u32,
    first_us: u64,
    receipt_at_us: Option<u64>,
    signed_at_us: Option<u64>,
}

/// The last bytes of a frame: of its tag.
fn tag_of(frame: &[u8]) -> [u8; 8] {
    frame.last_chunk().copied().unwrap_or_default()
}

impl Incoming {
    pub fn new(accepted: Accepted, header: &Header, now: Moment) -> Self {
        let Accepted { identity, digest, reply, forward, reverse, .. } = accepted;
        let mut window = Window::default();
        window.mark(0);
        Self {
            identity,
            reply,
            last_us: now.us,
            session: header.session,
            network: header.network,
            digest,
            forward: Keys::new(&forward),
            reverse: Sealer::new(&reverse, 1, now.us),
            window,
            fragments: Fragments::default(),
            carried: Vec::new(),
            tags: vec![(0, [0; 8]); TAGS],
            unreceipted: 0,
            first_us: now.us,
            receipt_at_us: None,
            signed_at_us: None,
        }
    }

    /// The INIT that opened it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Bytes of messages that are not complete.
    pub fn incomplete_bytes(&self) -> usize {
        self.fragments.bytes()
    }

    /// Takes a frame of DATA: the message when it is complete by that.
    pub fn take(
        &mut self,
        header: &Header,
        frame: &mut [u8],
        via: RelayId,
        now: Moment,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
        let tag = tag_of(frame);
        let slot = (header.seq % TAGS as u64) as usize;
        if self.window.has(header.seq) {
            // Looked at before, by another relay or once more. Only the same bytes are to a relay's credit.
            if self.tags[slot] == (header.seq, tag) {
                self.carried_by(via);
            }
            self.receipt_within(RECEIPT_DELAY_US, now);
            return Err(Refusal::Duplicate);
        }
        let plain_bytes = header.payload_bytes as usize;
        self.fragments.admits(header.seq, header.fragment, header.fragments, plain_bytes).map_err(
            |error| match error {
                FragmentError::Full => Refusal::NoRoom,
                FragmentError::Count { .. } | FragmentError::Long => Refusal::Malformed,
            },
        )?;
        let plain = self.forward.open(header, frame, now.us)?;
        if plain.is_empty() && header.fragments == 1 {
            return Err(Refusal::Malformed);
        }
        let gap = header.seq != self.window.next();
        self.window.mark(header.seq);
        self.tags[slot] = (header.seq, tag);
        let message = self.fragments.add(header.seq, header.fragment, header.fragments, plain);
        self.carried_by(via);
        self.last_us = now.us;
        self.unreceipted += 1;
        if self.unreceipted >= FRAMES_PER_RECEIPT {
            self.receipt_within(0, now);
        } else {
            self.receipt_within(if gap { RECEIPT_GAP_US } else { RECEIPT_DELAY_US }, now);
        }
        Ok(message)
    }

    /// Whether a CLOSE is the initiator's.
    pub fn closes(&mut self, header: &Header, frame: &mut [u8], now: Moment) -> Result<(), Refusal> {
        if self.window.has(header.seq) {
            return Err(Refusal::Duplicate);
        }
        self.forward.open(header, frame, now.us).map(|_| ())
    }

    fn carried_by(&mut self, via: RelayId) {
        if let Some(carried) = self.carried.iter_mut().find(|carried| carried.relay == via) {
            carried.frames += 1;
        } else if self.carried.len() < RELAYS_MAX {
            self.carried.push(Carried { relay: via, frames: 1 });
        }
    }

    fn receipt_within(&mut self, delay_us: u64, now: Moment) {
        let at_us = now.us.saturating_add(delay_us);
        if self.receipt_at_us.is_none() {
            self.first_us = now.us;
        }
        self.receipt_at_us = Some(self.receipt_at_us.map_or(at_us, |before| before.min(at_us)));
    }

    /// When something is to be done next.
    pub fn deadline_us(&self) -> Option<u64> {
        self.receipt_at_us
    }

    /// The receipt that is due, if one is. `relays`: those this end is connected to.
    pub fn receipt(&mut self, signer: &impl Signer, relays: &[RelayId], now: Moment) -> Option<Vec<u8>> {
        self.receipt_at_us.filter(|at_us| *at_us <= now.us)?;
        self.receipt_at_us = None;
        self.unreceipted = 0;
        let frames_by = |relay: &RelayId| self.carried.iter().find(|carried| carried.relay == *relay);
        let carried: Vec<Carried> = relays
            .iter()
            .take(RELAYS_MAX)
            .map(|relay| Carried { relay: *relay, frames: frames_by(relay).map_or(0, |carried| carried.frames) })
            .collect();
        // Relays of earlier connections make room for those of now.
        self.carried.retain(|before| relays.contains(&before.relay));
        let delay_us = u32::try_from(now.us.saturating_sub(self.first_us)).unwrap_or(u32::MAX);
        let mut receipt = Receipt::of(&self.window, delay_us, &carried);
        if self.signed_at_us.is_none_or(|at_us| now.us.saturating_sub(at_us) >= SIGNED_EVERY_US) {
            self.signed_at_us = Some(now.us);
            receipt.sign(signer, &self.digest);
        }
        Some(self.sealed(Kind::Receipt, &receipt.to_bytes(), now))
    }

    /// A frame that tells the initiator to end the session.
    pub fn close(&mut self, code: u16, now: Moment) -> Vec<u8> {
        self.sealed(Kind::Close, &code.to_be_bytes(), now)
    }

    fn sealed(&mut self, kind: Kind, payload: &[u8], now: Moment) -> Vec<u8> {
        let header = Header {
            kind,
            reverse: true,
            serial: 0,
            network: self.network,
            to: KeyId::of(&self.identity),
            session: self.session,
            phase: 0,
            seq: 0,
            expiry_s: now.expiry_s(super::WANTED_S),
            fragment: 0,
            fragments: 1,
            payload_bytes: 0,
        };
        self.reverse.seal(header, payload, now.us)
    }
}
