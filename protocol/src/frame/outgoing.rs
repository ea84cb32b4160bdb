//! A session as its initiator has it: asks for a prekey, opens, seals messages into frames, and sends again what has not come.
//!
//! A frame is sealed once. What is sent again is the same bytes, so no nonce is used twice and a relay cannot make it look like another frame.
//! Loss is seen as QUIC sees it (RFC 9002, sections 5 and 6.1): by what has come later, and by time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::handshake::{self, Opening};
use super::header::{FRAGMENTS_MAX, Header, Kind, SessionId};
use super::incoming::{Keys, Sealer};
use super::key::{KeyId, Prekey, Signer};
use super::receipt::Receipt;
use super::window::{WINDOW, Window};
use super::{Effect, Lost, Moment, Refusal, Tag};

/// A message that is sent. It may go to many, and may hold a secret.
pub type Message = Arc<Zeroizing<Vec<u8>>>;

/// Bytes of a payload that go as one QUIC datagram with header and tag: 1 150 together.
pub const DATAGRAM_PAYLOAD_BYTES: usize = 1070;
/// Bytes of a payload that goes over a stream.
pub const STREAM_PAYLOAD_BYTES: usize = 16 * 1024;
/// Messages that wait for one peer, in bytes: some of the longest.
pub const WAITING_BYTES_MAX: usize = 4 << 20;
/// Bytes that are under way to one peer.
const FLIGHT_BYTES_MAX: usize = 2 << 20;
/// How long an INIT is sent again before another prekey is asked for, in µs.
const OPENING_US_MAX: u64 = 30_000_000;
/// First time before something is sent again, in µs (RFC 9002, section 6.2.2), and the longest.
const RTT_US: u64 = 333_000;
const PROBE_US_MAX: u64 = 4_000_000;
/// Shortest time before something is sent again, in µs: clocks and schedulers are no better.
const PROBE_US_MIN: u64 = 10_000;
/// Frames that have come after one that has not, before it counts as lost.
const REORDER_FRAMES: u64 = 64;
/// Frames that are sent again at a time.
const PROBES: usize = 16;
/// How often a prekey is asked for until the session is open, in µs.
const ASK_EVERY_US: u64 = 500_000;
/// A session that nobody has used is forgotten, in µs.
const IDLE_US_MAX: u64 = 600_000_000;

/// Round-trip times (RFC 9002, section 5.3).
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    smoothed_us: Option<u64>,
    variation_us: u64,
}

impl RoundTrip {
    fn sample(&mut self, sample_us: u64) {
        match self.smoothed_us {
            None => (self.smoothed_us, self.variation_us) = (Some(sample_us), sample_us / 2),
            Some(smoothed_us) => {
                self.variation_us = (3 * self.variation_us + smoothed_us.abs_diff(sample_us)) / 4;
                self.smoothed_us = Some((7 * smoothed_us + sample_us) / 8);
            }
        }
    }

    fn us(self) -> u64 {
        self.smoothed_us.unwrap_or(RTT_US)
    }

    /// After how long something that is lost by others' coming is sent again.
    fn loss_us(self) -> u64 {
        (self.us() + self.variation_us.max(self.us() / 8)).max(PROBE_US_MIN)
    }

    /// After how long without any receipt something is sent again; a receipt may wait as long as its delay.
    fn probe_us(self, times: u32) -> u64 {
        let once = self.us() + (4 * self.variation_us).max(PROBE_US_MIN) + RECEIPT_WAIT_US;
        once.saturating_mul(1 << times.min(10)).min(PROBE_US_MAX)
    }
}

/// How long a receipt may wait at the other side, in µs.
const RECEIPT_WAIT_US: u64 = 25_000;

#[derive(Debug)]
struct Flight {
    frame: Arc<[u8]>,
    tag: Tag,
    sent_us: u64,
    first_sent_us: u64,
    expiry_s: u32,
    times: u32,
}

#[derive(Debug)]
struct Sending {
    message: Message,
    frames: usize,
    added_us: u64,
}

/// A message that has not been sealed in this session.
#[derive(Debug)]
struct Waiting {
    tag: Tag,
    message: Message,
    added_us: u64,
    /// The life of the peer's process to which it was under way before: it may have come there.
    given_to: Option<[u8; 8]>,
}

enum State {
    /// No session, and nothing that needs one.
    Closed,
    /// A prekey is needed.
    Keyless { asked_us: Option<u64> },
    /// The INIT is under way.
    Opening {
        opening: Box<Opening>,
        session: SessionId,
        frame: Arc<[u8]>,
        since_us: u64,
        sent_us: u64,
        times: u32,
        asked_us: u64,
    },
    /// Messages may go.
    Open(Box<Open>),
}

struct Open {
    session: SessionId,
    network: u64,
    /// The life of the peer's process that has answered.
    instance: [u8; 8],
    digest: [u8; 32],
    forward: Sealer,
    reverse: Keys,
    reverse_window: Window,
    flights: BTreeMap<u64, Flight>,
    flight_bytes: usize,
    last_us: u64,
    probes: u32,
    probed_us: u64,
    /// Receipt with the highest count so far: an older one that comes late says nothing.
    receipted: u64,
}

impl Open {
    /// Of a frame that the initiator sends; phase, counter and length come with the sealing.
    fn header(&self, kind: Kind, to: KeyId, expiry_s: u32, fragments: u16) -> Header {
        let (network, session) = (self.network, self.session);
        Header {
            kind,
            reverse: false,
            serial: 0,
            network,
            to,
            session,
            phase: 0,
            seq: 0,
            expiry_s,
            fragment: 0,
            fragments,
            payload_bytes: 0,
        }
    }
}

/// The way to one peer.
pub(super) struct Outgoing {
    identity: [u8; 32],
    to: KeyId,
    state: State,
    prekey: Option<Prekey>,
    /// The life of the peer's process that is known.
    instance: Option<[u8; 8]>,
    waiting: VecDeque<Waiting>,
    /// How long a message is wanted, in s.
    wanted_s: u32,
    waiting_bytes: usize,
    sending: BTreeMap<Tag, Sending>,
    round_trip: RoundTrip,
}

impl Outgoing {
    /// To a peer, with messages that are wanted for so many seconds.
    pub fn new(identity: [u8; 32], wanted_s: u32) -> Self {
        Self {
            identity,
            wanted_s,
            to: KeyId::of(&identity),
            state: State::Closed,
            prekey: None,
            instance: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sending: BTreeMap::new(),
            round_trip: RoundTrip::default(),
        }
    }

    /// The session that is open or being opened.
    pub fn session(&self) -> Option<SessionId> {
        match &self.state {
            State::Opening { session, .. } => Some(*session),
            State::Open(open) => Some(open.session),
            State::Closed | State::Keyless { .. } => None,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether anything is kept of it that would be missed.
    pub fn is_idle(&self, now: Moment) -> bool {
        let unused = match &self.state {
            State::Open(open) => now.us.saturating_sub(open.last_us) > IDLE_US_MAX,
            State::Closed => true,
            State::Keyless { .. } | State::Opening { .. } => false,
        };
        unused && self.waiting.is_empty() && self.sending.is_empty()
    }

    /// The smoothed round-trip time, in µs.
    pub fn round_trip_us(&self) -> Option<u64> {
        self.round_trip.smoothed_us
    }

    /// Adds a message to what waits. The oldest that wait are lost when it is too much.
    pub fn add(&mut self, tag: Tag, message: Message, now: Moment, out: &mut Vec<Effect>) {
        self.waiting_bytes += message.len();
        self.waiting.push_back(Waiting { tag, message, added_us: now.us, given_to: None });
        while self.waiting_bytes > WAITING_BYTES_MAX && self.waiting.len() > 1 {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= oldest.message.len();
            out.push(Effect::Lost { peer: self.identity, tag: oldest.tag, why: Lost::TooMuch });
        }
        if matches!(self.state, State::Closed) {
            self.state = State::Keyless { asked_us: None };
        }
    }

    /// Opens a session if there is none, though nothing waits.
    pub fn open(&mut self) {
        if matches!(self.state, State::Closed) {
            self.state = State::Keyless { asked_us: None };
        }
    }

    /// Asks for the prekey at once. True when one is wanted.
    pub fn ask_again(&mut self) -> bool {
        let State::Keyless { asked_us } = &mut self.state else { return false };
        *asked_us = None;
        true
    }

    /// Learns of a prekey. True when it is a newer one. What is being opened with an older one begins again: nobody may hold that any more.
    pub fn learn(&mut self, prekey: Prekey) -> bool {
        let used = match &self.state {
            State::Opening { opening, .. } => Some(*opening.prekey()),
            State::Closed | State::Keyless { .. } | State::Open(_) => self.prekey,
        };
        let newer = used.is_none_or(|known| known.not_after_s <= prekey.not_after_s && known.key != prekey.key);
        if newer {
            self.prekey = Some(prekey);
            if matches!(self.state, State::Opening { .. }) {
                self.state = State::Keyless { asked_us: None };
            }
        }
        newer
    }

    /// The peer's process began again: it knows of no session, and what it had not acknowledged is sent anew.
    pub fn restart(&mut self, instance: [u8; 8]) -> bool {
        if self.instance.replace(instance) == Some(instance) || matches!(self.state, State::Closed) {
            return false;
        }
        if !matches!(self.state, State::Keyless { .. }) {
            self.again();
        }
        true
    }

    /// Goes back to no session; what is under way waits again, in its order.
    fn again(&mut self) {
        self.prekey = None;
        let state = std::mem::replace(&mut self.state, State::Keyless { asked_us: None });
        let given_to = if let State::Open(open) = state { Some(open.instance) } else { None };
        for (tag, sending) in std::mem::take(&mut self.sending).into_iter().rev() {
            let Sending { message, added_us, .. } = sending;
            self.waiting_bytes += message.len();
            self.waiting.push_front(Waiting { tag, message, added_us, given_to });
        }
    }

    /// Does what is due.
    pub fn advance(
        &mut self,
        me: &(impl Signer, [u8; 8]),
        now: Moment,
        rng: &mut (impl CryptoRng + ?Sized),
        out: &mut Vec<Effect>,
    ) {
        self.drop_late(now, out);
        if let State::Opening { since_us, .. } = &self.state
            && now.us.saturating_sub(*since_us) >= OPENING_US_MAX
        {
            // Whoever holds that prekey does not answer: it may have begun again, with others.
            self.prekey = None;
            self.state = State::Keyless { asked_us: None };
        }
        if let State::Keyless { asked_us } = &mut self.state {
            match self.prekey.filter(|prekey| prekey.is_good_at(now.unix_s)) {
                Some(prekey) => self.initiate(me, &prekey, now, rng, out),
                None if asked_us.is_none_or(|at_us| now.us.saturating_sub(at_us) >= ASK_EVERY_US) => {
                    *asked_us = Some(now.us);
                    out.push(Effect::PrekeyWanted { peer: self.identity });
                }
                None => {}
            }
        }
        match &mut self.state {
            State::Opening { frame, sent_us, times, asked_us, .. } => {
                if now.us.saturating_sub(*asked_us) >= ASK_EVERY_US {
                    // The peer may have begun again, with a prekey that a relay has by now.
                    *asked_us = now.us;
                    out.push(Effect::PrekeyWanted { peer: self.identity });
                }
                if now.us.saturating_sub(*sent_us) >= self.round_trip.probe_us(*times) {
                    *sent_us = now.us;
                    *times += 1;
                    out.push(Effect::Transmit {
                        to: self.to,
                        peer: self.identity,
                        frame: Arc::clone(frame),
                        again: true,
                    });
                }
            }
            State::Open(_) => {
                self.send_waiting(now, out);
                self.send_again(now, out);
            }
            State::Closed | State::Keyless { .. } => {}
        }
    }

    /// Gives up what has waited for longer than it is wanted.
    fn drop_late(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let wanted_us = u64::from(self.wanted_s) * 1_000_000;
        while self.waiting.front().is_some_and(|waiting| now.us.saturating_sub(waiting.added_us) > wanted_us) {
            let Some(late) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= late.message.len();
            out.push(Effect::Lost { peer: self.identity, tag: late.tag, why: Lost::Late });
        }
    }

    fn initiate(
        &mut self,
        (signer, instance): &(impl Signer, [u8; 8]),
        prekey: &Prekey,
        now: Moment,
        rng: &mut (impl CryptoRng + ?Sized),
        out: &mut Vec<Effect>,
    ) {
        let mut session = SessionId([0; 16]);
        let mut filled = &mut *rng;
        rand_core::Rng::fill_bytes(&mut filled, &mut session.0);
        match handshake::initiate(signer, *instance, prekey, session, now.expiry_s(self.wanted_s), rng) {
            Ok((opening, frame)) => {
                let frame: Arc<[u8]> = frame.into();
                let transmitted = Arc::clone(&frame);
                out.push(Effect::Transmit { to: self.to, peer: self.identity, frame: transmitted, again: false });
                let opening = Box::new(opening);
                let (since_us, sent_us, asked_us) = (now.us, now.us, now.us);
                self.state = State::Opening { opening, session, frame, since_us, sent_us, times: 0, asked_us };
            }
            Err(_) => {
                self.prekey = None;
                out.push(Effect::Refused(Refusal::Handshake));
            }
        }
    }

    fn send_waiting(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let State::Open(open) = &mut self.state else { return };
        while let Some(Waiting { tag, message, added_us, .. }) = self.waiting.front() {
            let part_bytes =
                if message.len() <= DATAGRAM_PAYLOAD_BYTES { DATAGRAM_PAYLOAD_BYTES } else { STREAM_PAYLOAD_BYTES };
            let fragments = message.len().div_ceil(part_bytes).max(1);
            let Some(count) = u16::try_from(fragments).ok().filter(|count| *count <= FRAGMENTS_MAX) else {
                out.push(Effect::Lost { peer: self.identity, tag: *tag, why: Lost::TooLong });
                self.waiting_bytes -= message.len();
                self.waiting.pop_front();
                continue;
            };
            let first = open.flights.first_key_value().map_or(open.forward.next_seq(), |(seq, _)| *seq);
            let span = open.forward.next_seq() + u64::from(count) - first;
            // A window's half, so that a frame that is late is still in the other side's window.
            let full = span > WINDOW - 64 || open.flight_bytes + message.len() > FLIGHT_BYTES_MAX;
            if full && !open.flights.is_empty() {
                return;
            }
            let (tag, message, added_us) = (*tag, Arc::clone(message), *added_us);
            self.waiting.pop_front();
            self.waiting_bytes -= message.len();
            let header = open.header(Kind::Data, self.to, now.expiry_s(self.wanted_s), count);
            for (fragment, part) in (0..).zip(message.chunks(part_bytes)) {
                let seq = open.forward.next_seq();
                let frame: Arc<[u8]> = open.forward.seal(Header { fragment, ..header }, part, now.us).into();
                out.push(Effect::Transmit {
                    to: self.to,
                    peer: self.identity,
                    frame: Arc::clone(&frame),
                    again: false,
                });
                open.flight_bytes += frame.len();
                let expiry_s = header.expiry_s;
                let flight = Flight { frame, tag, sent_us: now.us, first_sent_us: now.us, expiry_s, times: 0 };
                open.flights.insert(seq, flight);
            }
            if open.flights.len() == fragments {
                open.probed_us = now.us;
            }
            open.last_us = now.us;
            self.sending.insert(tag, Sending { message, frames: fragments, added_us });
        }
    }

    /// Sends again what no receipt has told of for too long, and gives up what nobody would take any more.
    fn send_again(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let State::Open(open) = &mut self.state else { return };
        let expired = open.flights.values().any(|flight| u64::from(flight.expiry_s) < now.unix_s);
        if expired {
            // No receipt of it for as long as it was wanted: whether it has come is not known, and what follows goes over a new session.
            for (tag, _) in std::mem::take(&mut self.sending) {
                out.push(Effect::Lost { peer: self.identity, tag, why: Lost::Unacknowledged });
            }
            self.again();
            return;
        }
        let Some(oldest_us) = open.flights.values().map(|flight| flight.sent_us).min() else { return };
        let since_us = oldest_us.max(open.probed_us);
        if now.us.saturating_sub(since_us) < self.round_trip.probe_us(open.probes) {
            return;
        }
        open.probes += 1;
        open.probed_us = now.us;
        for flight in open.flights.values_mut().take(PROBES) {
            flight.sent_us = now.us;
            flight.times += 1;
            let frame = Arc::clone(&flight.frame);
            out.push(Effect::Transmit { to: self.to, peer: self.identity, frame, again: true });
        }
    }

    /// When something is to be done next.
    pub fn deadline_us(&self) -> Option<u64> {
        match &self.state {
            State::Closed => None,
            State::Keyless { asked_us } => Some(asked_us.map_or(0, |at_us| at_us.saturating_add(ASK_EVERY_US))),
            State::Opening { since_us, sent_us, times, asked_us, .. } => {
                let again_us = sent_us.saturating_add(self.round_trip.probe_us(*times));
                let ask_us = asked_us.saturating_add(ASK_EVERY_US);
                Some(again_us.min(ask_us).min(since_us.saturating_add(OPENING_US_MAX)))
            }
            State::Open(open) => {
                let oldest_us = open.flights.values().map(|flight| flight.sent_us).min()?;
                let since_us = oldest_us.max(open.probed_us);
                Some(since_us.saturating_add(self.round_trip.probe_us(open.probes)))
            }
        }
    }

    /// Takes the reply to the INIT. What was under way to the very life that answers may have come there, and is not sent to it twice.
    pub fn complete(
        &mut self,
        header: &Header,
        frame: &mut [u8],
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let State::Opening { opening, session, sent_us, times, .. } = &self.state else {
            return Err(Refusal::Duplicate);
        };
        let opened = opening.complete(header, frame).map_err(|_| Refusal::Handshake)?;
        if *times == 0 {
            self.round_trip.sample(now.us.saturating_sub(*sent_us));
        }
        let mut reverse_window = Window::default();
        reverse_window.mark(0);
        self.state = State::Open(Box::new(Open {
            session: *session,
            network: header.network,
            instance: opened.instance,
            digest: opening.digest(),
            forward: Sealer::new(&opened.forward, 1, now.us),
            reverse: Keys::new(&opened.reverse),
            reverse_window,
            flights: BTreeMap::new(),
            flight_bytes: 0,
            last_us: now.us,
            probes: 0,
            probed_us: now.us,
            receipted: 0,
        }));
        self.instance = Some(opened.instance);
        let (peer, waiting_bytes) = (self.identity, &mut self.waiting_bytes);
        self.waiting.retain(|waiting| {
            let again = waiting.given_to != Some(opened.instance);
            if !again {
                *waiting_bytes -= waiting.message.len();
                out.push(Effect::Lost { peer, tag: waiting.tag, why: Lost::Unacknowledged });
            }
            again
        });
        Ok(())
    }

    /// Opens a frame of the other direction.
    fn open_reverse<'a>(
        open: &mut Open,
        header: &Header,
        frame: &'a mut [u8],
        now: Moment,
    ) -> Result<&'a mut [u8], Refusal> {
        if open.reverse_window.has(header.seq) {
            return Err(Refusal::Duplicate);
        }
        let plain = open.reverse.open(header, frame, now.us)?;
        open.reverse_window.mark(header.seq);
        Ok(plain)
    }

    /// Takes a receipt.
    pub fn receipt(
        &mut self,
        header: &Header,
        frame: &mut [u8],
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let State::Open(open) = &mut self.state else { return Err(Refusal::Session) };
        let plain = Self::open_reverse(open, header, frame, now)?;
        let receipt = Receipt::from_bytes(plain).map_err(|_| Refusal::Malformed)?;
        if receipt.signature.is_some() && !receipt.is_signed_by(&self.identity, &open.digest) {
            return Err(Refusal::Forged);
        }
        if receipt.next() > open.forward.next_seq() {
            return Err(Refusal::Malformed);
        }
        let newest = receipt.next().saturating_sub(1);
        let come: Vec<u64> =
            open.flights.range(..=newest).map(|(seq, _)| *seq).filter(|seq| receipt.has(*seq)).collect();
        for seq in &come {
            let Some(flight) = open.flights.remove(seq) else { continue };
            open.flight_bytes -= flight.frame.len();
            if *seq == newest && flight.times == 0 {
                let delay_us = u64::from(receipt.delay_us);
                let whole_us = now.us.saturating_sub(flight.first_sent_us);
                self.round_trip.sample(whole_us.saturating_sub(delay_us).max(1));
            }
            if let Some(sending) = self.sending.get_mut(&flight.tag) {
                sending.frames -= 1;
                if sending.frames == 0 {
                    self.sending.remove(&flight.tag);
                    out.push(Effect::Acknowledged { peer: self.identity, tag: flight.tag });
                }
            }
        }
        if !come.is_empty() {
            open.probes = 0;
            open.probed_us = now.us;
        }
        open.receipted = open.receipted.max(receipt.next());
        let (loss_us, highest) = (self.round_trip.loss_us(), open.receipted);
        // Older frames that others have overtaken: by many, or by time.
        for (_, flight) in open.flights.range_mut(..highest).take(PROBES) {
            let overtaken = now.us.saturating_sub(flight.sent_us) >= loss_us;
            let far = flight.times == 0 && come.len() as u64 > REORDER_FRAMES;
            if overtaken || far {
                flight.sent_us = now.us;
                flight.times += 1;
                let frame = Arc::clone(&flight.frame);
                out.push(Effect::Transmit { to: self.to, peer: self.identity, frame, again: true });
            }
        }
        out.push(Effect::Carried {
            peer: self.identity,
            carried: receipt.carried,
            signed: receipt.signature.is_some(),
        });
        Ok(())
    }

    /// Takes the responder's word that the session has ended.
    pub fn closed(&mut self, header: &Header, frame: &mut [u8], now: Moment) -> Result<(), Refusal> {
        let State::Open(open) = &mut self.state else { return Err(Refusal::Session) };
        Self::open_reverse(open, header, frame, now)?;
        self.again();
        if self.waiting.is_empty() {
            self.state = State::Closed;
        }
        Ok(())
    }

    /// The frame that ends the session, if it is open.
    pub fn close(&mut self, code: u16, now: Moment) -> Option<Vec<u8>> {
        let State::Open(open) = &mut self.state else { return None };
        let header = open.header(Kind::Close, self.to, now.expiry_s(self.wanted_s), 1);
        let frame = open.forward.seal(header, &code.to_be_bytes(), now.us);
        self.again();
        self.state = State::Closed;
        Some(frame)
    }

    /// Bytes of messages that wait or are under way.
    pub fn bytes(&self) -> usize {
        self.waiting_bytes + self.sending.values().map(|sending| sending.message.len()).sum::<usize>()
    }
}
