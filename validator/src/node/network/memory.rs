//! Nodes of one process, connected by channels. Frames are written and read as between hosts.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::{Event, Events, Network};
use crate::core::Peer;
use crate::node::frame::Frame;

/// Events that wait at a node, at most.
const EVENTS_MAX: usize = 4096;

/// Where nodes meet: for each the way to it, if it runs.
#[derive(Clone, Debug)]
pub struct Hub(Arc<RwLock<Vec<Option<mpsc::Sender<Event>>>>>);

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
        Self(Arc::new(RwLock::new((0..count).map(|_| None).collect())))
    }

    /// A node that begins, or begins again.
    pub fn join(&self, me: u32) -> (Memory, Events) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        if let Some(node) = self.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(me as usize) {
            *node = Some(sender);
        }
        (Memory { me, hub: self.clone() }, events)
    }

    /// Gives a node an event. A full channel, or a node that does not run, loses it as a network does, and says so.
    fn put(&self, to: u32, event: Event) {
        let nodes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let put = nodes.get(to as usize).and_then(Option::as_ref).map(|node| node.try_send(event));
        if let Some(Err(error)) = put {
            tracing::debug!(%error, "an event was lost in memory");
        }
    }

    fn nodes(&self) -> u32 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u32
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

    fn publish(&self, _: u64, _: &[u8]) {}

    fn connected(&self) -> usize {
        self.others().count()
    }
}
