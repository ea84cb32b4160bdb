//! Nodes of one process, connected by channels. Frames are written and read as between hosts.

use tokio::sync::mpsc;

use super::{Event, Events, Network};
use crate::core::Peer;
use crate::node::frame::{Frame, LENGTH_BYTES};

/// Events that wait at a node, at most.
const EVENTS_MAX: usize = 4096;

/// One node's side. Peer `p` of node `n` is node `p`; a node is no peer of itself.
#[derive(Clone, Debug)]
pub struct Memory {
    me: u32,
    nodes: Vec<mpsc::Sender<Event>>,
}

/// Connects `count` nodes with each other.
pub fn cluster(count: u32) -> Vec<(Memory, Events)> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(EVENTS_MAX)).unzip();
    let nodes = (0..count).map(|me| Memory { me, nodes: senders.clone() });
    nodes.zip(receivers).collect()
}

impl Memory {
    /// Tells this node and all others that they are connected, as a new connection does.
    pub fn announce(&self) {
        for (number, node) in (0..).zip(&self.nodes) {
            if number != self.me {
                put(node, Event::Connected { peer: Peer(self.me) });
                put(&self.nodes[self.me as usize], Event::Connected { peer: Peer(number) });
            }
        }
    }
}

/// Gives a node an event. A full channel, or a node that is gone, loses it as a network does, and says so.
fn put(node: &mpsc::Sender<Event>, event: Event) {
    if let Err(error) = node.try_send(event) {
        tracing::debug!(%error, "an event was lost in memory");
    }
}

impl Network for Memory {
    fn send(&self, to: Peer, frame: &Frame) {
        let wire = frame.to_wire();
        let Ok(frame) = Frame::from_body(&wire[LENGTH_BYTES..]) else { return };
        if let Some(node) = self.nodes.get(to.0 as usize) {
            put(node, Event::Frame { from: Peer(self.me), frame: Box::new(frame), room: None });
        }
    }

    fn broadcast(&self, frame: &Frame) {
        (0..self.nodes.len() as u32).filter(|to| *to != self.me).for_each(|to| self.send(Peer(to), frame));
    }

    fn blame(&self, _: Peer, _: &'static str) {}

    fn connected(&self) -> usize {
        self.nodes.len() - 1
    }
}
