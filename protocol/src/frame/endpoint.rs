//! All sessions of one identity.
//!
//! Bounds: sessions in either direction, bytes of incomplete messages, handshakes a second, INITs that are remembered.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use rand_core::CryptoRng;

use super::fragments::MESSAGE_BYTES_MAX;
use super::handshake;
use super::header::{ENC_BYTES, HEADER_BYTES, Header, Kind, SessionId};
use super::incoming::Incoming;
use super::key::{KeyId, PREKEY_S, Prekey, PrekeyPair, Signer};
use super::outgoing::Outgoing;
use super::receipt::{RELAYS_MAX, RelayId};
use super::{Effect, Input, Lost, Message, Moment, Refusal, Tag};

/// INITs that are remembered until they expire: 2 MiB.
const INITS_MAX: usize = 65_536;
/// Handshakes a second that are looked at, and how many may come at once: each costs some 200 µs.
const INITS_PER_S: u64 = 200;
const INITS_BURST: u64 = 400;
/// Bytes of incomplete messages of all sessions.
const INCOMPLETE_BYTES_MAX: usize = 64 << 20;
/// Sessions that one peer may have open here: the one in use, and some of openings that came late or were not answered in time.
const SESSIONS_OF_A_PEER: usize = 4;
/// A session from which nothing has come for so long makes room for another, in µs.
const IDLE_US: u64 = 60_000_000;

/// How many, and whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which network.
    pub network: u64,
    /// Sessions in each direction.
    pub sessions_max: usize,
    /// How long a message is wanted before it counts as lost, in s, at most [`EXPIRY_S_MAX`](super::header::EXPIRY_S_MAX).
    pub wanted_s: u32,
    /// Who may open sessions; nobody else. `None`: anybody who is signed.
    pub allowed: Option<BTreeSet<[u8; 32]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Outgoing([u8; 32]),
    Incoming(SessionId),
    Prekey,
}

/// All sessions of one identity.
pub struct Endpoint<S> {
    me: (S, [u8; 8]),
    id: KeyId,
    settings: Settings,
    prekeys: Vec<PrekeyPair>,
    serial: u16,
    outgoing: HashMap<[u8; 32], Outgoing>,
    by_session: HashMap<SessionId, [u8; 32]>,
    incoming: HashMap<SessionId, Incoming>,
    /// The newest session of each initiator, and which life of its process it is of.
    latest: HashMap<[u8; 32], (SessionId, [u8; 8])>,
    inits: BTreeMap<[u8; ENC_BYTES], u32>,
    credit: (u64, u64),
    relays: Vec<RelayId>,
    incomplete_bytes: usize,
    timers: BinaryHeap<Reverse<(u64, Whose)>>,
    earliest: HashMap<Whose, u64>,
}

impl std::hash::Hash for Whose {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Self::Outgoing(identity) => identity.hash(state),
            Self::Incoming(session) => session.0.hash(state),
            Self::Prekey => 0_u8.hash(state),
        }
    }
}

impl<S> std::fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<S: Signer> Endpoint<S> {
    /// A new life of a process: its prekeys are new, so nothing of an earlier life opens.
    pub fn new(signer: S, settings: Settings, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut random = [0; 10];
        rand_core::Rng::fill_bytes(&mut { rng }, &mut random);
        let [serial @ .., a, b, c, d, e, f, g, h] = random;
        let id = KeyId::of(&signer.identity());
        let mut endpoint = Self {
            me: (signer, [a, b, c, d, e, f, g, h]),
            id,
            settings,
            prekeys: Vec::new(),
            serial: u16::from_be_bytes(serial) & 0x7fff,
            outgoing: HashMap::new(),
            by_session: HashMap::new(),
            incoming: HashMap::new(),
            latest: HashMap::new(),
            inits: BTreeMap::new(),
            credit: (INITS_BURST * 1_000_000, 0),
            relays: Vec::new(),
            incomplete_bytes: 0,
            timers: BinaryHeap::new(),
            earliest: HashMap::new(),
        };
        endpoint.wake(Whose::Prekey, Some(0));
        endpoint
    }

    /// What relays know it by.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// When [`Input::Time`] is wanted next, in µs.
    pub fn deadline_us(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse((at_us, _))| *at_us)
    }

    /// Sessions to others that are open.
    pub fn open_sessions(&self) -> usize {
        self.outgoing.values().filter(|outgoing| outgoing.is_open()).count()
    }

    /// The round-trip time to a peer, in µs, if it is known.
    pub fn round_trip_us(&self, peer: &[u8; 32]) -> Option<u64> {
        self.outgoing.get(peer)?.round_trip_us()
    }

    /// Bytes of messages to a peer that wait or are under way.
    pub fn waiting_bytes(&self, peer: &[u8; 32]) -> usize {
        self.outgoing.get(peer).map_or(0, Outgoing::bytes)
    }

    /// Takes an input, and says what is to be done. It may be called at any time; nothing waits in it.
    pub fn step(&mut self, now: Moment, input: Input<'_>, rng: &mut (impl CryptoRng + ?Sized), out: &mut Vec<Effect>) {
        match input {
            Input::Frame { via, frame } => {
                if let Err(refusal) = self.frame(now, via, frame, rng, out) {
                    out.push(Effect::Refused(refusal));
                }
            }
            Input::Send { to, tag, message } => self.send(now, to, tag, message, rng, out),
            Input::Open { to } => {
                if self.outgoing_of(to, now) {
                    self.outgoing.get_mut(&to).into_iter().for_each(Outgoing::open);
                    self.advance(to, now, rng, out);
                }
            }
            Input::Prekey(prekey) => {
                let known = self.outgoing.get_mut(&prekey.identity).map(|outgoing| outgoing.learn(prekey));
                if known == Some(true) {
                    self.advance(prekey.identity, now, rng, out);
                }
            }
            Input::Relays(relays) => {
                self.relays = relays;
                self.relays.truncate(RELAYS_MAX);
                // A relay that has just come may know the prekeys that are wanted.
                let peers: Vec<[u8; 32]> = self
                    .outgoing
                    .iter_mut()
                    .filter_map(|(peer, outgoing)| outgoing.ask_again().then_some(*peer))
                    .collect();
                peers.into_iter().for_each(|peer| self.advance(peer, now, rng, out));
            }
            Input::Time => {}
        }
        self.time(now, rng, out);
    }

    /// Does whatever is due.
    fn time(&mut self, now: Moment, rng: &mut (impl CryptoRng + ?Sized), out: &mut Vec<Effect>) {
        while let Some(Reverse((at_us, whose))) = self.timers.peek().copied() {
            if at_us > now.us {
                return;
            }
            self.timers.pop();
            if self.earliest.get(&whose) != Some(&at_us) {
                continue;
            }
            self.earliest.remove(&whose);
            match whose {
                Whose::Outgoing(peer) => self.advance(peer, now, rng, out),
                Whose::Incoming(session) => self.receipt(session, now, out),
                Whose::Prekey => self.renew_prekey(now, rng, out),
            }
        }
    }

    fn wake(&mut self, whose: Whose, at_us: Option<u64>) {
        let Some(at_us) = at_us else { return };
        if self.earliest.get(&whose).is_none_or(|before| at_us < *before) {
            self.earliest.insert(whose, at_us);
            self.timers.push(Reverse((at_us, whose)));
        }
    }

    fn renew_prekey(&mut self, now: Moment, rng: &mut (impl CryptoRng + ?Sized), out: &mut Vec<Effect>) {
        self.prekeys.retain(|prekey| prekey.opens_at(now.unix_s));
        self.serial = (self.serial + 1) & 0x7fff;
        let pair = PrekeyPair::generate(&self.me.0, self.settings.network, self.serial, now.unix_s, rng);
        out.push(Effect::Announce(pair.public));
        self.prekeys.push(pair);
        // Before it ends, so that there is always one that is good.
        self.wake(Whose::Prekey, Some(now.us.saturating_add(PREKEY_S * 1_000_000 / 2)));
    }

    /// Makes sure that there is a way to a peer. False when there are too many.
    fn outgoing_of(&mut self, peer: [u8; 32], now: Moment) -> bool {
        if self.outgoing.contains_key(&peer) {
            return true;
        }
        if self.outgoing.len() >= self.settings.sessions_max {
            self.outgoing.retain(|_, outgoing| !outgoing.is_idle(now));
            self.by_session.retain(|_, peer| self.outgoing.contains_key(peer));
        }
        if self.outgoing.len() >= self.settings.sessions_max {
            return false;
        }
        self.outgoing.insert(peer, Outgoing::new(peer, self.settings.wanted_s.min(super::header::EXPIRY_S_MAX as u32)));
        true
    }

    fn send(
        &mut self,
        now: Moment,
        to: [u8; 32],
        tag: Tag,
        message: Message,
        rng: &mut (impl CryptoRng + ?Sized),
        out: &mut Vec<Effect>,
    ) {
        let lost = |why| Effect::Lost { peer: to, tag, why };
        if message.is_empty() || message.len() > MESSAGE_BYTES_MAX {
            return out.push(lost(Lost::TooLong));
        }
        if !self.outgoing_of(to, now) {
            return out.push(lost(Lost::Peers));
        }
        self.outgoing.get_mut(&to).into_iter().for_each(|outgoing| outgoing.add(tag, Arc::clone(&message), now, out));
        self.advance(to, now, rng, out);
    }

    fn advance(&mut self, peer: [u8; 32], now: Moment, rng: &mut (impl CryptoRng + ?Sized), out: &mut Vec<Effect>) {
        let Some(outgoing) = self.outgoing.get_mut(&peer) else { return };
        let before = outgoing.session();
        outgoing.advance(&self.me, now, rng, out);
        let (session, deadline_us) = (outgoing.session(), outgoing.deadline_us());
        if before != session {
            before.map(|before| self.by_session.remove(&before));
            session.map(|session| self.by_session.insert(session, peer));
        }
        self.wake(Whose::Outgoing(peer), deadline_us);
    }

    fn receipt(&mut self, session: SessionId, now: Moment, out: &mut Vec<Effect>) {
        let Some(incoming) = self.incoming.get_mut(&session) else { return };
        if let Some(frame) = incoming.receipt(&self.me.0, &self.relays, now) {
            let (peer, to) = (incoming.identity, KeyId::of(&incoming.identity));
            out.push(Effect::Transmit { to, peer, frame: frame.into(), again: false });
        }
        let deadline_us = incoming.deadline_us();
        self.wake(Whose::Incoming(session), deadline_us);
    }

    fn frame(
        &mut self,
        now: Moment,
        via: RelayId,
        frame: &mut [u8],
        rng: &mut (impl CryptoRng + ?Sized),
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let header = Header::of_frame(frame).map_err(|_| Refusal::Malformed)?;
        if header.network != self.settings.network || header.to != self.id {
            return Err(Refusal::Astray);
        }
        if !header.is_timely(now.unix_s) {
            return Err(Refusal::Untimely);
        }
        match (header.kind, header.reverse) {
            (Kind::Init, false) => self.init(now, &header, frame, rng, out),
            (Kind::Init, true) => self.reply(now, &header, frame, rng, out),
            (Kind::Data, _) => self.data(now, via, &header, frame, out),
            (Kind::Receipt, _) => {
                let peer = self.peer_of(header.session)?;
                let outgoing = self.outgoing.get_mut(&peer).ok_or(Refusal::Session)?;
                outgoing.receipt(&header, frame, now, out)?;
                self.advance(peer, now, rng, out);
                Ok(())
            }
            (Kind::Close, false) => {
                let incoming = self.incoming.get_mut(&header.session).ok_or(Refusal::Session)?;
                incoming.closes(&header, frame, now)?;
                self.forget_incoming(header.session);
                Ok(())
            }
            (Kind::Close, true) => {
                let peer = self.peer_of(header.session)?;
                let outgoing = self.outgoing.get_mut(&peer).ok_or(Refusal::Session)?;
                outgoing.closed(&header, frame, now)?;
                self.by_session.remove(&header.session);
                self.advance(peer, now, rng, out);
                Ok(())
            }
        }
    }

    fn peer_of(&self, session: SessionId) -> Result<[u8; 32], Refusal> {
        self.by_session.get(&session).copied().ok_or(Refusal::Session)
    }

    fn init(
        &mut self,
        now: Moment,
        header: &Header,
        frame: &mut [u8],
        rng: &mut (impl CryptoRng + ?Sized),
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let enc: [u8; ENC_BYTES] = frame[HEADER_BYTES..].first_chunk().copied().ok_or(Refusal::Malformed)?;
        if self.inits.contains_key(&enc) {
            // Sent again, or by another relay: whoever has sent it may have missed the reply. What is answered is only what was answered.
            if let Some(known) = self.incoming.get(&header.session)
                && known.digest() == &sha(frame)
            {
                let (peer, to) = (known.identity, KeyId::of(&known.identity));
                out.push(Effect::Transmit { to, peer, frame: known.reply.as_slice().into(), again: true });
            }
            return Err(Refusal::Duplicate);
        }
        // What costs nothing to refuse comes before what is counted.
        let known = |pair: &PrekeyPair| pair.public.serial == header.serial && pair.opens_at(now.unix_s);
        if !self.prekeys.iter().any(known) {
            return Err(Refusal::Handshake);
        }
        self.spend_handshake(now)?;
        if self.inits.len() >= INITS_MAX {
            self.inits.retain(|_, expiry_s| u64::from(*expiry_s) + super::header::SKEW_S >= now.unix_s);
        }
        if self.inits.len() >= INITS_MAX || !self.has_room(now) {
            return Err(Refusal::NoRoom);
        }
        let prekey = self.prekeys.iter().find(|pair| pair.public.serial == header.serial).ok_or(Refusal::Handshake)?;
        if self.incoming.contains_key(&header.session) {
            return Err(Refusal::Session);
        }
        let accepted =
            handshake::accept(&self.me.0, self.me.1, prekey, header, frame, rng).map_err(|_| Refusal::Handshake)?;
        let peer = accepted.identity;
        let stranger = self.settings.allowed.as_ref().is_some_and(|allowed| !allowed.contains(&peer));
        if stranger || KeyId::of(&peer) == self.id {
            return Err(Refusal::Stranger);
        }
        self.inits.insert(enc, header.expiry_s);
        let instance = accepted.instance;
        out.push(Effect::Transmit {
            to: KeyId::of(&peer),
            peer,
            frame: accepted.reply.as_slice().into(),
            again: false,
        });
        self.incoming.insert(header.session, Incoming::new(accepted, header, now));
        let before = self.latest.insert(peer, (header.session, instance));
        self.make_room_of(&peer);
        let new = before.is_none_or(|(_, known)| known != instance);
        out.push(Effect::Met { peer, new });
        let restarted = self.outgoing.get_mut(&peer).map(|outgoing| (outgoing.session(), outgoing.restart(instance)));
        if let Some((session, true)) = restarted {
            session.map(|session| self.by_session.remove(&session));
            self.advance(peer, now, rng, out);
        }
        Ok(())
    }

    fn spend_handshake(&mut self, now: Moment) -> Result<(), Refusal> {
        let (credit, at_us) = self.credit;
        let back = now.us.saturating_sub(at_us).saturating_mul(INITS_PER_S);
        let credit = credit.saturating_add(back).min(INITS_BURST * 1_000_000);
        let left = credit.checked_sub(1_000_000);
        self.credit = (left.unwrap_or(credit), now.us);
        left.map(|_| ()).ok_or(Refusal::NoRoom)
    }

    /// Whether one more session may be opened by others; sessions that nobody uses make room.
    fn has_room(&mut self, now: Moment) -> bool {
        if self.incoming.len() >= self.settings.sessions_max {
            let idle = |incoming: &Incoming| now.us.saturating_sub(incoming.last_us) > IDLE_US;
            let stale: Vec<SessionId> =
                self.incoming.iter().filter(|(_, incoming)| idle(incoming)).map(|(session, _)| *session).collect();
            stale.into_iter().for_each(|session| self.forget_incoming(session));
        }
        self.incoming.len() < self.settings.sessions_max
    }

    /// Of many sessions of one peer the least used goes. Not all but the newest: an opening of a life that is over may come late, and must not end
    /// the session of the one that is there.
    fn make_room_of(&mut self, peer: &[u8; 32]) {
        let theirs = self.incoming.iter().filter(|(_, incoming)| incoming.identity == *peer);
        let mut theirs: Vec<(u64, SessionId)> =
            theirs.map(|(session, incoming)| (incoming.last_us, *session)).collect();
        theirs.sort_unstable();
        let more = theirs.len().saturating_sub(SESSIONS_OF_A_PEER);
        theirs.into_iter().take(more).for_each(|(_, session)| self.forget_incoming(session));
    }

    fn forget_incoming(&mut self, session: SessionId) {
        let Some(incoming) = self.incoming.remove(&session) else { return };
        self.incomplete_bytes -= incoming.incomplete_bytes();
        if self.latest.get(&incoming.identity).is_some_and(|(latest, _)| *latest == session) {
            self.latest.remove(&incoming.identity);
        }
    }

    fn reply(
        &mut self,
        now: Moment,
        header: &Header,
        frame: &mut [u8],
        rng: &mut (impl CryptoRng + ?Sized),
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let peer = self.peer_of(header.session)?;
        let outgoing = self.outgoing.get_mut(&peer).ok_or(Refusal::Session)?;
        outgoing.complete(header, frame, now, out)?;
        out.push(Effect::Opened { peer });
        self.advance(peer, now, rng, out);
        Ok(())
    }

    fn data(
        &mut self,
        now: Moment,
        via: RelayId,
        header: &Header,
        frame: &mut [u8],
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let incoming = self.incoming.get_mut(&header.session).ok_or(Refusal::Session)?;
        let before = incoming.incomplete_bytes();
        if header.fragments > 1 && self.incomplete_bytes + frame.len() > INCOMPLETE_BYTES_MAX {
            return Err(Refusal::NoRoom);
        }
        let taken = incoming.take(header, frame, via, now);
        self.incomplete_bytes = self.incomplete_bytes + incoming.incomplete_bytes() - before;
        let (from, deadline_us) = (incoming.identity, incoming.deadline_us());
        self.wake(Whose::Incoming(header.session), deadline_us);
        if let Some(message) = taken? {
            out.push(Effect::Deliver { from, message });
        }
        Ok(())
    }

    /// Ends all sessions with a code; the frames that say so are among the effects.
    pub fn close(&mut self, now: Moment, code: u16, out: &mut Vec<Effect>) {
        for (peer, outgoing) in &mut self.outgoing {
            if let Some(frame) = outgoing.close(code, now) {
                out.push(Effect::Transmit { to: KeyId::of(peer), peer: *peer, frame: frame.into(), again: false });
            }
        }
        for incoming in self.incoming.values_mut() {
            let (peer, to) = (incoming.identity, KeyId::of(&incoming.identity));
            let frame = incoming.close(code, now);
            out.push(Effect::Transmit { to, peer, frame: frame.into(), again: false });
        }
        self.by_session.clear();
        self.incoming.clear();
        self.latest.clear();
        self.incomplete_bytes = 0;
    }

    /// Its prekey of now.
    pub fn prekey(&self) -> Option<Prekey> {
        self.prekeys.last().map(|pair| pair.public)
    }
}

fn sha(frame: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(frame).into()
}
