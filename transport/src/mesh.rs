//! Messages between identities: sealed once, sent over several relays, delivered once.
//!
//! Everything happens where it begins: who sends steps the endpoint, and so does a frame that comes; a task does what time wants. What is delivered waits
//! in a channel; while that is full, frames are left unopened, and their sender sends them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bpi_identity::Identity;
use bpi_protocol::frame::endpoint::{Endpoint, Settings};
use bpi_protocol::frame::key::{KeyId, Prekey, Signer};
use bpi_protocol::frame::{Effect, Input, Lost, Message, Moment, Refusal, RelayId, Tag};
use bpi_protocol::hop::{Hop, relay_id};
use bytes::{Bytes, BytesMut};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use zeroize::{Zeroize as _, Zeroizing};

use crate::link::{Hear, Link, Pace, unix_time};
use crate::spread::{Finding, Place, Spread};
use crate::way::{Address, Client, Watch, Way};

/// What is delivered waits for so many to be taken.
const EVENTS_MAX: usize = 1024;
/// Room that one step may need: a frame completes one message at most, and tells of some others.
const EVENTS_PER_STEP: usize = 16;
/// Frames that no relay hands on, from one relay, before it is left out.
const ABSURD_MAX: u64 = 64;
/// How often relays are chosen anew though nothing has happened.
const CHOOSE_EVERY: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A message has come.
    Message {
        /// Whose identity.
        from: [u8; 32],
        /// What; wiped when it goes.
        message: Zeroizing<Vec<u8>>,
    },
    /// A session to a peer is open: what is sent now can come.
    Opened {
        /// Whose identity.
        peer: [u8; 32],
    },
    /// A peer is there; `new`: for the first time, or as another life of its process.
    Met {
        /// Whose identity.
        peer: [u8; 32],
        /// Nothing that it was told before is known to it.
        new: bool,
    },
    /// Messages have come to their peer.
    Acknowledged {
        /// Whose identity.
        peer: [u8; 32],
        /// Which.
        tags: Vec<Tag>,
    },
    /// Messages will not be sent again.
    Lost {
        /// Whose identity.
        peer: [u8; 32],
        /// Which, and why.
        tags: Vec<(Tag, Lost)>,
    },
    /// A header of the feed.
    Headline {
        /// Its height.
        height: u64,
        /// The proof of it.
        body: Vec<u8>,
    },
}

/// Counts of all that happens, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that were refused, by [`Refusal::ALL`].
    pub refused: [AtomicU64; Refusal::ALL.len()],
    /// Frames that were sent, one for each relay.
    pub frames_sent: AtomicU64,
    /// Frames among them that were sent before.
    pub frames_again: AtomicU64,
    /// Frames that have come.
    pub frames_heard: AtomicU64,
    /// Frames that were left unopened because nobody takes what is delivered.
    pub frames_left: AtomicU64,
    /// Events that found no room, because nobody takes them.
    pub events_lost: AtomicU64,
    /// Relays that were suspected, and left out.
    pub relays_suspected: AtomicU64,
    /// Relays that were left out.
    pub relays_evicted: AtomicU64,
}

/// A relay and where it is.
#[derive(Clone, Debug)]
pub struct Relay {
    /// How it is reached.
    pub address: Address,
    /// Where it is.
    pub place: Place,
}

/// Who takes part, and over what.
pub struct Setup {
    /// The SVID of this process; needed when there are relays.
    pub identity: Option<Identity>,
    /// What messages are signed with.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// Which network.
    pub network: u64,
    /// Relays, those first that are preferred.
    pub relays: Vec<Relay>,
    /// Relays of each frame.
    pub relays_per_frame: usize,
    /// How long a message is wanted before it counts as lost, in s.
    pub wanted_s: u32,
    /// Who may open sessions; `None`: anybody.
    pub allowed: Option<BTreeSet<[u8; 32]>>,
    /// Sessions in each direction.
    pub sessions_max: usize,
    /// The feed of headers is wanted.
    pub subscribe: bool,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("network", &self.network).field("relays", &self.relays).finish_non_exhaustive()
    }
}

struct State {
    endpoint: Endpoint<Arc<dyn Signer + Send + Sync>>,
    spread: Spread,
    tag: Tag,
}

struct Shared {
    state: Mutex<State>,
    network: u64,
    /// The certificate of the prekey of now.
    prekey: Arc<RwLock<Vec<u8>>>,
    ways: Vec<Arc<Way>>,
    events: mpsc::Sender<Event>,
    /// The time that the task sleeps to has come nearer.
    sooner: Notify,
    began: Instant,
    subscribe: bool,
    counts: Counts,
}

/// Sends and takes messages of one identity.
#[derive(Clone)]
pub struct Mesh(Arc<Shared>);

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").finish_non_exhaustive()
    }
}

/// Hears one relay.
struct Ear {
    mesh: Arc<Shared>,
    relay: usize,
    id: RelayId,
    absurd: AtomicU64,
}

impl Mesh {
    /// Begins to connect. The tasks end when `tasks` is dropped.
    pub fn start(setup: Setup, tasks: &mut JoinSet<()>) -> (Self, mpsc::Receiver<Event>) {
        let settings = Settings {
            network: setup.network,
            sessions_max: setup.sessions_max,
            wanted_s: setup.wanted_s,
            allowed: setup.allowed,
        };
        let endpoint = Endpoint::new(Arc::clone(&setup.signer), settings, &mut UnwrapErr(SysRng));
        let ids: Vec<RelayId> = setup.relays.iter().map(|relay| relay_id(&relay.address.relay.to_string())).collect();
        let places = ids.iter().copied().zip(setup.relays.iter().map(|relay| relay.place.clone())).collect();
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { endpoint, spread: Spread::new(places, setup.relays_per_frame), tag: 0 }),
            network: setup.network,
            prekey: Arc::default(),
            ways: setup.relays.into_iter().map(|relay| Way::new(relay.address)).collect(),
            events,
            sooner: Notify::new(),
            began: Instant::now(),
            subscribe: setup.subscribe,
            counts: Counts::default(),
        });
        // The first prekey is there before anybody is greeted.
        shared.step(Input::Time);
        let client = setup.identity.map(|identity| Client {
            identity,
            signer: setup.signer,
            network: setup.network,
            prekey: Arc::clone(&shared.prekey),
        });
        let client = client.map(Arc::new);
        for (client, (relay, (way, id))) in client.iter().cycle().zip(shared.ways.iter().zip(ids).enumerate()) {
            let ear = Arc::new(Ear { mesh: Arc::clone(&shared), relay, id, absurd: AtomicU64::new(0) });
            let (hear, watch): (Arc<dyn Hear>, Arc<dyn Watch>) = (Arc::clone(&ear) as _, ear);
            tasks.spawn(Arc::clone(way).run(Arc::clone(client), hear, watch));
        }
        tasks.spawn(keep_time(Arc::clone(&shared)));
        (Self(shared), heard)
    }

    /// Sends a message, and says what events call it. It never waits: what is too much loses the oldest, and an event says so.
    pub fn send(&self, to: [u8; 32], message: Message) -> Tag {
        let tag = {
            let mut state = self.0.lock();
            state.tag += 1;
            state.tag
        };
        self.0.step(Input::Send { to, tag, message });
        tag
    }

    /// Opens a session with a peer, so that it knows of this process.
    pub fn open(&self, to: [u8; 32]) {
        self.0.step(Input::Open { to });
    }

    /// Gives a final header to the feed of all relays.
    pub fn publish(&self, height: u64, body: &[u8]) {
        self.0.say(&Hop::Publish { height, body: body.to_vec() });
    }

    /// Ends all sessions, as far as relays can still be told.
    pub fn close(&self) {
        let mut out = Vec::new();
        self.0.lock().endpoint.close(self.0.now(), 0, &mut out);
        self.0.perform(out);
    }

    /// Relays that are connected.
    pub fn relays_connected(&self) -> usize {
        self.0.ways.iter().filter(|way| way.link().is_some()).count()
    }

    /// The ways to relays, in the order of the setup.
    pub fn ways(&self) -> &[Arc<Way>] {
        &self.0.ways
    }

    /// Peers to whom a session is open.
    pub fn open_sessions(&self) -> usize {
        self.0.lock().endpoint.open_sessions()
    }

    /// Bytes to a peer that wait or are under way.
    pub fn waiting_bytes(&self, peer: &[u8; 32]) -> usize {
        self.0.lock().endpoint.waiting_bytes(peer)
    }

    /// The round-trip time to a peer, in µs, if it is known.
    pub fn round_trip_us(&self, peer: &[u8; 32]) -> Option<u64> {
        self.0.lock().endpoint.round_trip_us(peer)
    }

    /// Counts since the start.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside would be a fault of ours; sessions are then as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment { us: self.began.elapsed().as_micros() as u64, unix_s: unix_time().as_secs() }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Takes an input, does what it wants done, and says whether a relay that brought it is to blame: relays hand on nothing that is no frame, or
    /// somebody else's.
    fn step(&self, input: Input<'_>) -> bool {
        let mut out = Vec::new();
        let nearer = {
            let mut state = self.lock();
            let before = state.endpoint.deadline_us();
            state.endpoint.step(self.now(), input, &mut UnwrapErr(SysRng), &mut out);
            let after = state.endpoint.deadline_us();
            after.is_some_and(|after| before.is_none_or(|before| after < before))
        };
        if nearer {
            self.sooner.notify_one();
        }
        let absurd = |effect: &Effect| matches!(effect, Effect::Refused(Refusal::Malformed | Refusal::Astray));
        let to_blame = out.iter().any(absurd);
        self.perform(out);
        to_blame
    }

    fn perform(&self, effects: Vec<Effect>) {
        // One receipt may tell of a thousand messages, and the room was made sure of for some events.
        let (mut acknowledged, mut lost) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for effect in effects {
            match effect {
                Effect::Transmit { peer, frame, again, .. } => self.transmit(&peer, frame, again),
                Effect::PrekeyWanted { peer } => self.say(&Hop::Lookup(KeyId::of(&peer))),
                Effect::Announce(prekey) => {
                    let bytes = prekey.to_bytes();
                    *self.prekey.write().unwrap_or_else(PoisonError::into_inner) = bytes.clone();
                    self.say(&Hop::Announce(bytes));
                }
                Effect::Deliver { from, message } => self.tell(Event::Message { from, message }),
                Effect::Acknowledged { peer, tag } => acknowledged.entry(peer).or_default().push(tag),
                Effect::Lost { peer, tag, why } => lost.entry(peer).or_default().push((tag, why)),
                Effect::Opened { peer } => {
                    self.lock().spread.opened(&peer);
                    self.tell(Event::Opened { peer });
                }
                Effect::Met { peer, new } => self.tell(Event::Met { peer, new }),
                Effect::Carried { peer, carried, .. } => {
                    let findings = self.lock().spread.carried(&peer, &carried, self.now_ms());
                    findings.into_iter().for_each(|finding| self.found(finding));
                }
                Effect::Refused(refusal) => {
                    self.counts.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        acknowledged.into_iter().for_each(|(peer, tags)| self.tell(Event::Acknowledged { peer, tags }));
        lost.into_iter().for_each(|(peer, tags)| self.tell(Event::Lost { peer, tags }));
    }

    fn found(&self, finding: Finding) {
        let name = |relay: usize| self.ways.get(relay).map(|way| way.address().relay.to_string()).unwrap_or_default();
        match finding {
            Finding::Suspected(relay) => {
                self.counts.relays_suspected.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(relay = name(relay), "a relay does not bring what it is given; more relays are used");
            }
            Finding::Evicted(relay) => {
                self.counts.relays_evicted.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(relay = name(relay), "a relay drops what it is given, and is left out for ten minutes");
            }
        }
    }

    fn tell(&self, event: Event) {
        // Room was made sure of before a frame was opened; what does not come from frames may find none, and is not worth waiting for.
        if let Err(error) = self.events.try_send(event) {
            self.counts.events_lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "an event finds no room, and is lost");
        }
    }

    fn transmit(&self, peer: &[u8; 32], frame: Arc<[u8]>, again: bool) {
        let frame = Bytes::from_owner(frame);
        let chosen = {
            let mut state = self.lock();
            let chosen = state.spread.chosen().to_vec();
            chosen.iter().for_each(|relay| state.spread.given(*relay, peer));
            chosen
        };
        for relay in chosen {
            let Some(link) = self.ways.get(relay).and_then(|way| way.link()) else { continue };
            link.send(frame.clone());
            self.counts.frames_sent.fetch_add(1, Ordering::Relaxed);
            self.counts.frames_again.fetch_add(again.into(), Ordering::Relaxed);
        }
    }

    fn say(&self, message: &Hop) {
        self.ways.iter().filter_map(|way| way.link()).for_each(|link| link.say(message));
    }
}

impl Hear for Ear {
    fn frame(&self, _: &Arc<Link>, frame: Bytes) -> Pace {
        self.mesh.counts.frames_heard.fetch_add(1, Ordering::Relaxed);
        if self.mesh.events.capacity() < EVENTS_PER_STEP {
            self.mesh.counts.frames_left.fetch_add(1, Ordering::Relaxed);
            return Pace::Go;
        }
        let mut frame = match frame.try_into_mut() {
            Ok(frame) => frame,
            Err(frame) => BytesMut::from(frame.as_ref()),
        };
        let to_blame = self.mesh.step(Input::Frame { via: self.id, frame: &mut frame });
        frame.zeroize();
        if to_blame && self.absurd.fetch_add(1, Ordering::Relaxed) >= ABSURD_MAX {
            self.absurd.store(0, Ordering::Relaxed);
            self.mesh.lock().spread.evict(self.relay, self.mesh.now_ms());
            self.mesh.found(Finding::Evicted(self.relay));
            return Pace::Close(bpi_protocol::hop::Code::Malformed);
        }
        Pace::Go
    }

    fn message(&self, _: &Arc<Link>, message: Hop) -> Pace {
        match message {
            Hop::Found { prekey, .. } if prekey.is_empty() => {}
            Hop::Found { prekey, .. } => match Prekey::from_bytes(&prekey, self.mesh.network, unix_time().as_secs()) {
                Ok(prekey) => drop(self.mesh.step(Input::Prekey(prekey))),
                Err(error) => tracing::info!(%error, "a relay gives a prekey that does not hold"),
            },
            Hop::Headline { height, body } => self.mesh.tell(Event::Headline { height, body }),
            Hop::Drain { seconds } => {
                tracing::info!(relay = %self.mesh.ways[self.relay].address().relay, seconds, "a relay is about to end");
            }
            _ => return Pace::Close(bpi_protocol::hop::Code::Malformed),
        }
        Pace::Go
    }
}

impl Watch for Ear {
    fn connected(&self, connected: bool) {
        let relays = {
            let mut state = self.mesh.lock();
            state.spread.connected(self.relay, connected, self.mesh.now_ms());
            state.spread.ids()
        };
        self.mesh.step(Input::Relays(relays));
        if connected && self.mesh.subscribe {
            self.mesh.say(&Hop::Subscribe);
        }
    }
}

async fn keep_time(shared: Arc<Shared>) {
    loop {
        let deadline_us = shared.lock().endpoint.deadline_us();
        let now_us = shared.now().us;
        let left = deadline_us.map_or(CHOOSE_EVERY, |at_us| Duration::from_micros(at_us.saturating_sub(now_us)));
        tokio::select! {
            () = shared.sooner.notified() => continue,
            () = tokio::time::sleep(left.min(CHOOSE_EVERY)) => {}
        }
        let now_ms = shared.now_ms();
        shared.lock().spread.choose(now_ms);
        shared.step(Input::Time);
    }
}
