//! One height: who votes, what it follows, who proposes, when it begins.

use std::sync::Arc;

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::statement::Place;
use bpi_protocol::consensus::validators::ValidatorSet;

/// What a height is decided by; it does not change while it is.
#[derive(Clone, Debug)]
pub struct Instance<S> {
    /// The chain.
    pub chain: ChainId,
    /// The final header before.
    pub parent: Header,
    /// Who votes: the set that the parent announces.
    pub set: Arc<ValidatorSet>,
    /// What checks their signatures.
    pub scheme: S,
    /// Proposers by round, again and again from the first. Never empty.
    pub order: Vec<ValidatorIndex>,
}

impl<S> Instance<S> {
    /// Its height.
    pub fn height(&self) -> Height {
        self.parent.height.next()
    }

    /// Its place.
    pub fn place(&self) -> Place {
        Place { chain: self.chain, height: self.height() }
    }

    /// `proposer`: who proposes in a round.
    pub fn proposer(&self, round: Round) -> Option<ValidatorIndex> {
        self.order.get(round.0 as usize % self.order.len().max(1)).copied()
    }
}
