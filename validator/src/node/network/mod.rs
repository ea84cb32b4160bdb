//! How a node reaches its peers, agents and pinners: a trait, over relays between hosts ([`bpci`]) and in memory between nodes of one process ([`memory`]).
//!
//! Always true: sending never waits; what a peer does not take is dropped, oldest first, and counted; what a peer has sent and nobody has
//! looked at is bounded by bytes. Consensus bears loss, and says again what matters.

pub mod bpci;
pub mod memory;
pub mod score;

use bpi_protocol::mesh::{pinner, validator};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::agents::AgentNumber;
use super::frame::Frame;
use crate::core::Peer;

/// What a peer has sent.
#[derive(Debug)]
pub enum Event {
    /// A frame.
    Frame {
        /// Whose.
        from: Peer,
        /// What.
        frame: Box<Frame>,
        /// Room in the peer's budget, given back when the frame has been looked at.
        room: Option<OwnedSemaphorePermit>,
    },
    /// What is sent to a peer now comes; what was sent to an earlier life of its process may not have.
    Connected {
        /// Who.
        peer: Peer,
    },
    /// A peer is gone.
    Gone {
        /// Who.
        peer: Peer,
    },
    /// An agent asks something.
    Asked {
        /// Who.
        agent: AgentNumber,
        /// What.
        request: Box<validator::Request>,
        /// Room in its budget and in that of all agents, given back when it is answered.
        room: Option<[OwnedSemaphorePermit; 2]>,
    },
    /// A pinner has answered.
    Pinner {
        /// Its identity.
        pinner: [u8; 32],
        /// What.
        answer: Box<pinner::Answer>,
    },
    /// A pinner says that a batch is wrongly encoded.
    Wrong {
        /// The proof, as it came.
        proof: Vec<u8>,
        /// Room in the budget of all who are no validators, given back when it has been looked at.
        room: Option<OwnedSemaphorePermit>,
    },
}

/// Where events come from.
pub type Events = mpsc::Receiver<Event>;

/// Reaches peers by their numbers.
pub trait Network: Send {
    /// Sends to one peer, if it is connected.
    fn send(&self, to: Peer, frame: &Frame);

    /// Sends to every connected peer.
    fn broadcast(&self, frame: &Frame);

    /// Lowers a peer's score; one that has fallen too low is cut off for a while.
    fn blame(&self, peer: Peer, reason: &'static str);

    /// Answers an agent.
    fn answer(&self, agent: AgentNumber, answer: &validator::Answer);

    /// Asks a pinner.
    fn ask_pinner(&self, pinner: &[u8; 32], request: &pinner::Request);

    /// Gives a final header and its seal to who follows headers without being a peer.
    fn publish(&self, height: u64, body: &[u8]);

    /// Peers that are connected now.
    fn connected(&self) -> usize;
}
