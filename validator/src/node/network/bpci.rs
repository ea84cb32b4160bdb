//! Peers over relays (bpi-transport): this node dials out, and listens to nobody.
//!
//! A message of the mesh is a frame of a node. Bounds: bytes of one peer that wait to be looked at, what a peer may cost in a second; a message beyond
//! that is dropped, as consensus bears. Agents have bounds of their own, each and all together, and say again what is dropped; pinners answer no more than
//! this node may ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bpi_protocol::frame::fragments::MESSAGE_BYTES_MAX;
use bpi_protocol::mesh::pinner::{self, OPENING_BYTES_MAX};
use bpi_protocol::mesh::validator::{Answer, LEAVES_MAX, Request, WRONG_BYTES_MAX};
use bpi_transport::mesh::{self, Mesh, Setup};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use zeroize::Zeroizing;

use super::score::Score;
use super::{Event, Events, Network};
use crate::core::Peer;
use crate::node::agents::{self, AgentNumber};
use crate::node::frame::{FRAME_BYTES_MAX, Frame};
use crate::node::metrics::Metrics;
use crate::node::now_ms;

/// Bytes of a peer that wait at this node.
const INBOX_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Messages of a peer that wait, at most.
const INBOX_MESSAGES_MAX: usize = 1024;
/// Events that wait, of all peers.
const EVENTS_MAX: usize = 4096;
/// What one peer may cost in a second, in frames or leaves to look up; more is looked at later.
const COST_PER_S: usize = 5_000;
/// Longest message of an agent.
const REQUEST_BYTES_MAX: usize = {
    let (submit, wrong) = (1 + 16 + 2 + 32 * LEAVES_MAX, 1 + 4 + WRONG_BYTES_MAX);
    if submit > wrong { submit } else { wrong }
};
/// What a short one counts as: so many requests wait at most, of all agents 16 384.
const REQUEST_BYTES_MIN: usize = 1024;
/// Bytes of an agent that wait at this node, and of all agents.
const AGENT_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;
const AGENTS_BYTES_MAX: usize = 16 << 20;
/// Messages of an agent that wait, at most.
const AGENT_MESSAGES_MAX: usize = 64;
/// Longest answer to a probe.
const OPENED_BYTES_MAX: usize = 1 + 32 + 1 + 8 + 2 + OPENING_BYTES_MAX;
/// Answers of one pinner in a second, at most: more than there may be probes of all ([`crate::node::config::ProbeConfig`]).
const ANSWERS_PER_S: usize = 128;
/// Proofs of wrong encodings of one pinner in a second, at most.
const PROOFS_PER_S: usize = 4;
/// A peer that has been silent for so long is not there: every height has votes of everybody.
const SILENT_MS: u64 = 10_000;
/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(FRAME_BYTES_MAX < MESSAGE_BYTES_MAX);

type Waiting = (Zeroizing<Vec<u8>>, OwnedSemaphorePermit);

#[derive(Debug)]
struct Link {
    key: [u8; 32],
    score: Mutex<Score>,
    /// When it was heard last; 0: never, or not for too long.
    heard_ms: AtomicU64,
    room: Arc<Semaphore>,
    inbox: mpsc::Sender<Waiting>,
}

type Asking = (Zeroizing<Vec<u8>>, [OwnedSemaphorePermit; 2]);

#[derive(Debug)]
struct AgentLink {
    key: [u8; 32],
    room: Arc<Semaphore>,
    inbox: mpsc::Sender<Asking>,
}

/// Who else than peers there is.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// Agents, by their numbers.
    pub agents: Vec<[u8; 32]>,
    /// Pinners.
    pub pinners: Vec<[u8; 32]>,
}

#[derive(Debug)]
struct Shared {
    links: Vec<Link>,
    agents: Vec<AgentLink>,
    agents_room: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

/// Peers over relays.
#[derive(Clone, Debug)]
pub struct Bpci {
    mesh: Mesh,
    shared: Arc<Shared>,
}

/// Begins to connect. Peers are numbered as they stand. The tasks end when `tasks` is dropped.
pub fn start(
    setup: Setup,
    peers: &[[u8; 32]],
    others: &Others,
    metrics: Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> (Bpci, Events) {
    let (events, heard) = mpsc::channel(EVENTS_MAX);
    let (links, inboxes): (Vec<Link>, Vec<_>) = peers
        .iter()
        .map(|key| {
            let (inbox, waiting) = mpsc::channel(INBOX_MESSAGES_MAX);
            let room = Arc::new(Semaphore::new(INBOX_BYTES_MAX));
            let link = Link { key: *key, score: Mutex::default(), heard_ms: AtomicU64::new(0), room, inbox };
            (link, waiting)
        })
        .unzip();
    let agent = |key: &[u8; 32]| {
        let (inbox, waiting) = mpsc::channel(AGENT_MESSAGES_MAX);
        (AgentLink { key: *key, room: Arc::new(Semaphore::new(AGENT_BYTES_MAX)), inbox }, waiting)
    };
    let (agents, asking): (Vec<AgentLink>, Vec<_>) = others.agents.iter().map(agent).unzip();
    let agents_room = Arc::new(Semaphore::new(AGENTS_BYTES_MAX));
    let shared = Arc::new(Shared { links, agents, agents_room, events, metrics });
    let (mesh, told) = Mesh::start(setup, tasks);
    tasks.spawn(sort(told, mesh.clone(), others.pinners.clone(), Arc::clone(&shared)));
    for (agent, waiting) in (0..).map(AgentNumber).zip(asking) {
        tasks.spawn(hear_agent(agent, waiting, Arc::clone(&shared)));
    }
    for (peer, waiting) in (0..).map(Peer).zip(inboxes) {
        tasks.spawn(hear(peer, waiting, Arc::clone(&shared)));
    }
    peers.iter().for_each(|peer| mesh.open(*peer));
    (Bpci { mesh, shared }, heard)
}

impl Network for Bpci {
    fn send(&self, to: Peer, frame: &Frame) {
        if let Some(link) = self.shared.link(to) {
            self.mesh.send(link.key, frame.to_message());
            self.shared.metrics.sent(frame.name(), 1);
        }
    }

    fn broadcast(&self, frame: &Frame) {
        let message = frame.to_message();
        for link in &self.shared.links {
            self.mesh.send(link.key, Arc::clone(&message));
        }
        self.shared.metrics.sent(frame.name(), self.shared.links.len() as u64);
    }

    fn blame(&self, peer: Peer, reason: &'static str) {
        self.shared.blame(peer, reason);
    }

    fn answer(&self, agent: AgentNumber, answer: &Answer) {
        if let Some(link) = self.shared.agents.get(agent.0 as usize) {
            self.mesh.send(link.key, Arc::new(Zeroizing::new(answer.to_bytes())));
        }
    }

    fn ask_pinner(&self, pinner: &[u8; 32], request: &pinner::Request) {
        self.mesh.send(*pinner, Arc::new(Zeroizing::new(request.to_bytes())));
    }

    fn publish(&self, height: u64, body: &[u8]) {
        self.mesh.publish(height, body);
    }

    fn connected(&self) -> usize {
        self.shared.metrics.relays.set(self.mesh.relays_connected() as i64);
        self.shared.metrics.carried(self.mesh.counts());
        self.shared.links.iter().filter(|link| link.heard_ms.load(Ordering::Relaxed) > 0).count()
    }
}

impl Shared {
    fn link(&self, peer: Peer) -> Option<&Link> {
        self.links.get(peer.0 as usize)
    }

    fn blame(&self, peer: Peer, reason: &'static str) {
        let Some(link) = self.link(peer) else { return };
        let cut_off = link.score.lock().unwrap_or_else(PoisonError::into_inner).blame(now_ms(), reason);
        self.metrics.refused(reason);
        if cut_off {
            tracing::warn!(peer = peer.0, reason, "a peer has erred too often and is cut off for half a minute");
        }
    }

    fn is_cut_off(&self, peer: Peer) -> bool {
        let score = |link: &Link| *link.score.lock().unwrap_or_else(PoisonError::into_inner);
        self.link(peer).is_none_or(|link| score(link).is_cut_off(now_ms()))
    }

    /// Puts a message where its peer's messages wait, if it has room there.
    fn put(&self, peer: Peer, message: Zeroizing<Vec<u8>>) {
        let Some(link) = self.link(peer) else { return };
        link.heard_ms.store(now_ms(), Ordering::Relaxed);
        if self.is_cut_off(peer) {
            return self.metrics.refused("cut-off");
        }
        if message.len() > FRAME_BYTES_MAX {
            return self.blame(peer, "malformed");
        }
        let room = Arc::clone(&link.room).try_acquire_many_owned(message.len() as u32).ok();
        let put = room.and_then(|room| link.inbox.try_send((message, room)).ok());
        if put.is_none() {
            self.metrics.refused("too-much");
        }
    }
}

/// Who has sent a message.
#[derive(Clone, Copy, Debug)]
enum Sender {
    Agent(usize),
    /// When its second began, and its answers and proofs since.
    Pinner(Instant, usize, usize),
}

impl Shared {
    /// Puts a message where its agent's messages wait, if it has room there.
    fn put_asked(&self, number: usize, message: Zeroizing<Vec<u8>>) {
        let Some(link) = self.agents.get(number) else { return };
        if message.len() > REQUEST_BYTES_MAX {
            return self.metrics.refused("agent-malformed");
        }
        let bytes = message.len().max(REQUEST_BYTES_MIN) as u32;
        let of = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(bytes).ok();
        let room = of(&link.room).zip(of(&self.agents_room)).map(|(own, all)| [own, all]);
        if room.and_then(|room| link.inbox.try_send((message, room)).ok()).is_none() {
            self.metrics.refused("agent-too-much");
        }
    }

    /// Tells of an answer to a probe, the `count`th of its pinner in a second. What finds no room counts as unanswered.
    fn put_opened(&self, pinner: [u8; 32], count: usize, message: &[u8]) {
        if count > ANSWERS_PER_S || message.len() > OPENED_BYTES_MAX {
            return self.metrics.refused("pinner-too-much");
        }
        let told = match pinner::Answer::from_bytes(message) {
            Ok(answer @ (pinner::Answer::Opening { .. } | pinner::Answer::Refused { .. })) => {
                self.events.try_send(Event::Pinner { pinner, answer: Box::new(answer) }).map_err(|_| "pinner-too-much")
            }
            _ => Err("pinner-malformed"),
        };
        if let Err(reason) = told {
            self.metrics.refused(reason);
        }
    }

    /// Tells of a proof, the `count`th of its pinner in a second. One that finds no room is said again by its pinner.
    fn put_wrong(&self, count: usize, message: &[u8]) {
        if count > PROOFS_PER_S || message.len() > REQUEST_BYTES_MAX {
            return self.metrics.refused("pinner-too-much");
        }
        let Ok(Request::Wrong(proof)) = Request::from_bytes(message) else {
            return self.metrics.refused("pinner-malformed");
        };
        let room = Arc::clone(&self.agents_room).try_acquire_many_owned(proof.len().max(REQUEST_BYTES_MIN) as u32).ok();
        let told = room.and_then(|room| self.events.try_send(Event::Wrong { proof, room: Some(room) }).ok());
        if told.is_none() {
            self.metrics.refused("pinner-too-much");
        }
    }
}

/// Gives each message to its peer's inbox, and notices who is there.
async fn sort(mut told: mpsc::Receiver<mesh::Event>, mesh: Mesh, pinners: Vec<[u8; 32]>, shared: Arc<Shared>) {
    let numbers: BTreeMap<[u8; 32], Peer> =
        shared.links.iter().zip(0..).map(|(link, number)| (link.key, Peer(number))).collect();
    let mut others: BTreeMap<[u8; 32], Sender> =
        pinners.into_iter().map(|key| (key, Sender::Pinner(Instant::now(), 0, 0))).collect();
    others.extend(shared.agents.iter().enumerate().map(|(number, agent)| (agent.key, Sender::Agent(number))));
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = told.recv() => event,
            _ = look.tick() => {
                for (link, number) in shared.links.iter().zip(0..) {
                    let heard_ms = link.heard_ms.load(Ordering::Relaxed);
                    if heard_ms > 0 && now_ms().saturating_sub(heard_ms) > SILENT_MS {
                        link.heard_ms.store(0, Ordering::Relaxed);
                        if shared.events.send(Event::Gone { peer: Peer(number) }).await.is_err() {
                            return;
                        }
                    }
                }
                continue;
            }
        };
        match event {
            None => return,
            Some(mesh::Event::Message { from, message }) => {
                if let Some(peer) = numbers.get(&from) {
                    shared.put(*peer, message);
                } else if let Some(sender) = others.get_mut(&from) {
                    match sender {
                        Sender::Agent(number) => shared.put_asked(*number, message),
                        Sender::Pinner(second, answers, proofs) => {
                            if second.elapsed() > Duration::from_secs(1) {
                                (*second, *answers, *proofs) = (Instant::now(), 0, 0);
                            }
                            if Request::is_wrong(&message) {
                                *proofs += 1;
                                shared.put_wrong(*proofs, &message);
                            } else {
                                *answers += 1;
                                shared.put_opened(from, *answers, &message);
                            }
                        }
                    }
                }
            }
            Some(mesh::Event::Opened { peer }) => {
                let Some(peer) = numbers.get(&peer) else { continue };
                tracing::debug!(peer = peer.0, "a peer can be reached");
                if shared.events.send(Event::Connected { peer: *peer }).await.is_err() {
                    return;
                }
            }
            Some(mesh::Event::Met { peer, .. }) => mesh.open(peer),
            Some(mesh::Event::Lost { tags, .. }) => shared.metrics.unsent(tags.len() as u64),
            Some(mesh::Event::Acknowledged { .. } | mesh::Event::Headline { .. }) => {}
        }
    }
}

/// Reads the messages of one peer, no faster than it may cost.
async fn hear(peer: Peer, mut waiting: mpsc::Receiver<Waiting>, shared: Arc<Shared>) {
    let (mut second, mut cost) = (Instant::now(), 0);
    while let Some((message, room)) = waiting.recv().await {
        let Ok(frame) = Frame::from_message(&message) else {
            shared.blame(peer, "malformed");
            continue;
        };
        drop(message);
        shared.metrics.heard(frame.name());
        cost += frame.cost();
        let frame = Box::new(frame);
        if shared.events.send(Event::Frame { from: peer, frame, room: Some(room) }).await.is_err() {
            return;
        }
        if cost >= COST_PER_S {
            sleep_until(second + Duration::from_secs(1)).await;
            (second, cost) = (Instant::now(), 0);
        } else if second.elapsed() > Duration::from_secs(1) {
            (second, cost) = (Instant::now(), 0);
        }
    }
}

/// Reads the messages of one agent, no faster than it may cost.
async fn hear_agent(agent: AgentNumber, mut waiting: mpsc::Receiver<Asking>, shared: Arc<Shared>) {
    let (mut second, mut cost) = (Instant::now(), 0);
    while let Some((message, room)) = waiting.recv().await {
        let Ok(request) = Request::from_bytes(&message) else {
            shared.metrics.refused("agent-malformed");
            continue;
        };
        shared.metrics.heard(agents::name_of(&request));
        cost += agents::cost_of(&request);
        let request = Box::new(request);
        if shared.events.send(Event::Asked { agent, request, room: Some(room) }).await.is_err() {
            return;
        }
        if cost >= COST_PER_S {
            sleep_until(second + Duration::from_secs(1)).await;
            (second, cost) = (Instant::now(), 0);
        } else if second.elapsed() > Duration::from_secs(1) {
            (second, cost) = (Instant::now(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bpi_protocol::consensus::ids::Height;
    use bpi_protocol::consensus::message::{Body, Message};

    use super::*;

    /// An agent, what waits of it, and what is told of it.
    fn agent() -> (Arc<Shared>, mpsc::Receiver<Asking>, Events) {
        let (inbox, waiting) = mpsc::channel(AGENT_MESSAGES_MAX);
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let agent = AgentLink { key: [1; 32], room: Arc::new(Semaphore::new(AGENT_BYTES_MAX)), inbox };
        let agents_room = Arc::new(Semaphore::new(AGENTS_BYTES_MAX));
        let shared = Shared { links: Vec::new(), agents: vec![agent], agents_room, events, metrics: Metrics::new() };
        (Arc::new(shared), waiting, heard)
    }

    fn message(request: &Request) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(request.to_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_has_its_room_and_gets_it_back_when_it_is_answered() {
        let (shared, waiting, mut events) = agent();
        let wrong = Request::Wrong(vec![0; WRONG_BYTES_MAX]);
        (0..3).for_each(|_| shared.put_asked(0, message(&wrong)));
        shared.put_asked(0, Zeroizing::new(vec![0; REQUEST_BYTES_MAX + 1]));
        shared.put_asked(7, message(&wrong));
        assert_eq!(waiting.len(), 2, "one agent has room for two of the longest");
        let text = shared.metrics.text().unwrap();
        assert!(text.contains("agent-too-much\"} 1") && text.contains("agent-malformed\"} 1"), "{text}");
        let task = tokio::spawn(hear_agent(AgentNumber(0), waiting, Arc::clone(&shared)));
        for _ in 0..2 {
            let Some(Event::Asked { request, room, .. }) = events.recv().await else { panic!() };
            assert_eq!(*request, wrong);
            assert!(shared.agents[0].room.available_permits() < AGENT_BYTES_MAX);
            drop(room);
        }
        assert_eq!(shared.agents[0].room.available_permits(), AGENT_BYTES_MAX);
        assert_eq!(shared.agents_room.available_permits(), AGENTS_BYTES_MAX);
        shared.put_asked(0, Zeroizing::new(vec![99]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(shared.agents[0].room.available_permits(), AGENT_BYTES_MAX, "nonsense takes none");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_costs_no_more_in_a_second_than_it_may() {
        let (shared, waiting, mut events) = agent();
        let wanted = Request::Wanted { leaves: vec![Default::default(); 250], batches: vec![] };
        (0..8).for_each(|_| shared.put_asked(0, message(&wanted)));
        let began = Instant::now();
        let task = tokio::spawn(hear_agent(AgentNumber(0), waiting, Arc::clone(&shared)));
        for at in 0..8 {
            assert!(matches!(events.recv().await, Some(Event::Asked { .. })));
            assert_eq!(began.elapsed() >= Duration::from_secs(1), at >= 5, "{at}");
        }
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pinner_is_heard_no_more_often_than_it_can_have_been_asked() {
        let (shared, _waiting, mut events) = agent();
        let (da_root, reason, sentence) = ([3; 32], pinner::Reason::Missing, String::new());
        let refused = pinner::Answer::Refused { da_root, reason, sentence };
        shared.put_opened([9; 32], ANSWERS_PER_S, &refused.to_bytes());
        shared.put_opened([9; 32], ANSWERS_PER_S + 1, &refused.to_bytes());
        shared.put_opened([9; 32], 1, &pinner::Answer::Have { da_root, shards: Default::default() }.to_bytes());
        assert!(matches!(events.recv().await, Some(Event::Pinner { answer, .. }) if *answer == refused));
        assert!(events.try_recv().is_err());
        let text = shared.metrics.text().unwrap();
        assert!(text.contains("pinner-too-much\"} 1") && text.contains("pinner-malformed\"} 1"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pinner_that_proves_a_batch_wrong_is_heard_within_its_bounds() {
        let (shared, _waiting, mut events) = agent();
        let said = Request::Wrong(vec![7; 100]).to_bytes();
        assert!(Request::is_wrong(&said));
        shared.put_wrong(PROOFS_PER_S, &said);
        shared.put_wrong(PROOFS_PER_S + 1, &said);
        shared.put_wrong(1, &said[..50]);
        let Some(Event::Wrong { proof, room }) = events.recv().await else { panic!("it is heard") };
        assert_eq!(proof, [7; 100]);
        assert_eq!(shared.agents_room.available_permits(), AGENTS_BYTES_MAX - REQUEST_BYTES_MIN);
        drop(room);
        assert_eq!(shared.agents_room.available_permits(), AGENTS_BYTES_MAX);
        assert!(events.try_recv().is_err());
        let text = shared.metrics.text().unwrap();
        assert!(text.contains("pinner-too-much\"} 1") && text.contains("pinner-malformed\"} 1"), "{text}");
    }

    /// One peer, what waits of it, and what is told of it.
    fn shared() -> (Arc<Shared>, mpsc::Receiver<Waiting>, Events) {
        let (inbox, waiting) = mpsc::channel(INBOX_MESSAGES_MAX);
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let room = Arc::new(Semaphore::new(INBOX_BYTES_MAX));
        let link = Link { key: [1; 32], score: Mutex::default(), heard_ms: AtomicU64::new(0), room, inbox };
        let agents_room = Arc::new(Semaphore::new(AGENTS_BYTES_MAX));
        let shared = Shared { links: vec![link], agents: Vec::new(), agents_room, events, metrics: Metrics::new() };
        (Arc::new(shared), waiting, heard)
    }

    #[tokio::test(start_paused = true)]
    async fn nonsense_is_counted_and_too_much_of_it_cuts_the_peer_off() {
        let (shared, waiting, mut events) = shared();
        let status = Frame::Consensus(Message { height: Height(9), body: Body::Status });
        shared.put(Peer(0), Zeroizing::new(status.to_message().to_vec()));
        (0..10).for_each(|_| shared.put(Peer(0), Zeroizing::new(vec![99, 0])));
        let task = tokio::spawn(hear(Peer(0), waiting, Arc::clone(&shared)));
        assert!(matches!(events.recv().await.unwrap(), Event::Frame { frame, .. } if *frame == status));
        while !shared.is_cut_off(Peer(0)) {
            tokio::task::yield_now().await;
        }
        shared.put(Peer(0), Zeroizing::new(status.to_message().to_vec()));
        let text = shared.metrics.text().unwrap();
        assert!(text.contains("reason=\"malformed\"} 10"), "{text}");
        assert!(text.contains("reason=\"cut-off\"} 1"), "{text}");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_peer_sends_beyond_its_room_is_dropped_and_counted() {
        let (shared, waiting, _events) = shared();
        let long = vec![0; FRAME_BYTES_MAX];
        (0..5).for_each(|_| shared.put(Peer(0), Zeroizing::new(long.clone())));
        assert_eq!(waiting.len(), 4);
        shared.put(Peer(0), Zeroizing::new(vec![0; FRAME_BYTES_MAX + 1]));
        let text = shared.metrics.text().unwrap();
        assert!(text.contains("reason=\"too-much\"} 1") && text.contains("reason=\"malformed\"} 1"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_costs_no_more_in_a_second_than_it_may() {
        let (shared, waiting, mut events) = shared();
        let wanted = Frame::LogWanted { from: 0 };
        let in_a_second = COST_PER_S.div_ceil(wanted.cost());
        for _ in 0..2 * in_a_second {
            shared.put(Peer(0), Zeroizing::new(wanted.to_message().to_vec()));
        }
        let began = Instant::now();
        let task = tokio::spawn(hear(Peer(0), waiting, Arc::clone(&shared)));
        for at in 0..2 * in_a_second {
            assert!(matches!(events.recv().await, Some(Event::Frame { .. })));
            assert_eq!(began.elapsed() >= Duration::from_secs(1), at >= in_a_second, "{at}");
        }
        task.abort();
    }
}
