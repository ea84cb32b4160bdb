//! Peers over relays (bpi-transport): this node dials out, and listens to nobody.
//!
//! A message of the mesh is a frame of a node. Bounds: bytes of one peer that wait to be looked at, what a peer may cost in a second; a message beyond
//! that is dropped, as consensus bears.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bpi_protocol::frame::fragments::MESSAGE_BYTES_MAX;
use bpi_protocol::frame::key::{SIGNATURE_BYTES, Signer};
use bpi_transport::mesh::{self, Mesh, Setup};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use zeroize::Zeroizing;

use super::score::Score;
use super::{Event, Events, Network};
use crate::core::Peer;
use crate::node::frame::{FRAME_BYTES_MAX, Frame};
use crate::node::metrics::Metrics;
use crate::node::now_ms;
use crate::peer_key::PeerKey;

/// Bytes of a peer that wait at this node.
const INBOX_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Messages of a peer that wait, at most.
const INBOX_MESSAGES_MAX: usize = 1024;
/// Events that wait, of all peers.
const EVENTS_MAX: usize = 4096;
/// What one peer may cost in a second, in frames or leaves to look up; more is looked at later.
const COST_PER_S: usize = 5_000;
/// A peer that has been silent for so long is not there: every height has votes of everybody.
const SILENT_MS: u64 = 10_000;
/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(FRAME_BYTES_MAX < MESSAGE_BYTES_MAX);

impl Signer for PeerKey {
    fn identity(&self) -> [u8; 32] {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        Self::sign(self, message)
    }
}

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

#[derive(Debug)]
struct Shared {
    links: Vec<Link>,
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
pub fn start(setup: Setup, peers: &[[u8; 32]], metrics: Arc<Metrics>, tasks: &mut JoinSet<()>) -> (Bpci, Events) {
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
    let shared = Arc::new(Shared { links, events, metrics });
    let (mesh, told) = Mesh::start(setup, tasks);
    tasks.spawn(sort(told, mesh.clone(), Arc::clone(&shared)));
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

/// Gives each message to its peer's inbox, and notices who is there.
async fn sort(mut told: mpsc::Receiver<mesh::Event>, mesh: Mesh, shared: Arc<Shared>) {
    let numbers: BTreeMap<[u8; 32], Peer> =
        shared.links.iter().zip(0..).map(|(link, number)| (link.key, Peer(number))).collect();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bpi_protocol::consensus::ids::Height;
    use bpi_protocol::consensus::message::{Body, Message};

    use super::*;

    /// One peer, what waits of it, and what is told of it.
    fn shared() -> (Arc<Shared>, mpsc::Receiver<Waiting>, Events) {
        let (inbox, waiting) = mpsc::channel(INBOX_MESSAGES_MAX);
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let room = Arc::new(Semaphore::new(INBOX_BYTES_MAX));
        let link = Link { key: [1; 32], score: Mutex::default(), heard_ms: AtomicU64::new(0), room, inbox };
        (Arc::new(Shared { links: vec![link], events, metrics: Metrics::new() }), waiting, heard)
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
