//! Nodes of one process, connected by channels. Frames are written and read as between hosts.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bpi_protocol::mesh::{pinner, validator};
use tokio::sync::mpsc;

use super::{Event, Events, Network};
use crate::core::Peer;
use crate::node::agents::AgentNumber;
use crate::node::frame::Frame;

/// Events that wait at a node, at most.
const EVENTS_MAX: usize = 4096;

/// What agents and pinners have been told that nobody has taken, at most.
const TOLD_MAX: usize = 4096;

/// What a node has told an agent, or asked a pinner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An answer to an agent.
    Agent(AgentNumber, validator::Answer),
    /// A request to a pinner, by its identity.
    Pinner([u8; 32], pinner::Request),
}

/// Where nodes meet: for each the way to it, if it runs.
#[derive(Clone, Debug)]
pub struct Hub {
    nodes: Arc<RwLock<Vec<Option<mpsc::Sender<Event>>>>>,
    /// By node.
    told: Arc<Mutex<Vec<(u32, Told)>>>,
}

/// One node's side. Peer `p` of node `n` is node `p`; a node is no peer of itself.
#[derive(Clone, Debug)]
pub struct Memory {
    me: u32,
    hub: Hub,
}

/// Connects `count` nodes with each other.
pub fn cluster(count: u32) -> Vec<(Memory, Events)> {
    let hub = Hub::new(count);
    (0..count).map(|me| hub.join(me)).collect()
}

impl Hub {
    /// For so many nodes, none of which runs.
    pub fn new(count: u32) -> Self {
        Self { nodes: Arc::new(RwLock::new((0..count).map(|_| None).collect())), told: Arc::default() }
    }

    /// A node that begins, or begins again.
    pub fn join(&self, me: u32) -> (Memory, Events) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        if let Some(node) = self.nodes.write().unwrap_or_else(PoisonError::into_inner).get_mut(me as usize) {
            *node = Some(sender);
        }
        (Memory { me, hub: self.clone() }, events)
    }

    /// Gives a node an event. A full channel, or a node that does not run, loses it as a network does, and says so.
    fn put(&self, to: u32, event: Event) {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let put = nodes.get(to as usize).and_then(Option::as_ref).map(|node| node.try_send(event));
        if let Some(Err(error)) = put {
            tracing::debug!(%error, "an event was lost in memory");
        }
    }

    /// Asks a node as an agent does. Its answer is among [`Hub::told`].
    pub fn ask(&self, node: u32, agent: AgentNumber, request: validator::Request) {
        self.put(node, Event::Asked { agent, request: Box::new(request), room: None });
    }

    /// Answers a node as a pinner does.
    pub fn answer(&self, node: u32, pinner: [u8; 32], answer: pinner::Answer) {
        self.put(node, Event::Pinner { pinner, answer: Box::new(answer) });
    }

    /// Takes what a node has told agents and pinners.
    pub fn told(&self, node: u32) -> Vec<Told> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (its, others) = std::mem::take(&mut *told).into_iter().partition(|(from, _)| *from == node);
        *told = others;
        let its: Vec<(u32, Told)> = its;
        its.into_iter().map(|(_, told)| told).collect()
    }

    fn tell(&self, node: u32, what: Told) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX {
            told.push((node, what));
        }
    }

    fn nodes(&self) -> u32 {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len() as u32
    }
}

impl Memory {
    /// Tells this node and all others that they are connected, as a new connection does.
    pub fn announce(&self) {
        for number in self.others() {
            self.hub.put(number, Event::Connected { peer: Peer(self.me) });
            self.hub.put(self.me, Event::Connected { peer: Peer(number) });
        }
    }

    fn others(&self) -> impl Iterator<Item = u32> {
        let me = self.me;
        (0..self.hub.nodes()).filter(move |number| *number != me)
    }
}

impl Network for Memory {
    fn send(&self, to: Peer, frame: &Frame) {
        let Ok(frame) = Frame::from_message(&frame.to_message()) else { return };
        self.hub.put(to.0, Event::Frame { from: Peer(self.me), frame: Box::new(frame), room: None });
    }

    fn broadcast(&self, frame: &Frame) {
        self.others().for_each(|to| self.send(Peer(to), frame));
    }

    fn blame(&self, _: Peer, _: &'static str) {}

    fn answer(&self, agent: AgentNumber, answer: &validator::Answer) {
        self.hub.tell(self.me, Told::Agent(agent, answer.clone()));
    }

    fn ask_pinner(&self, pinner: &[u8; 32], request: &pinner::Request) {
        self.hub.tell(self.me, Told::Pinner(*pinner, request.clone()));
    }

    fn publish(&self, _: u64, _: &[u8]) {}

    fn connected(&self) -> usize {
        self.others().count()
    }
}
