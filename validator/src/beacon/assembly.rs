//! From votes to what a height leaves behind: the threshold seal of its header, and the seed of the next.
//!
//! Parts ride on COMMIT votes, and mostly that is all. But the core drops votes that come after a quorum, a node that learns of a final
//! header votes on it no more, and up to f of a quorum may have sent bad parts or none. With votes alone the next seed might never be had,
//! and the chain would stand still. So who lacks a signature sends its own parts to all, and who has both answers with them.
//!
//! ```text
//! version 1 | kind 1 | height 8 | body
//! mine (1): sender 2 | part of the seal 48 | part of the seed 48
//! ask (2):  nothing: the node has no share
//! whole (3): seal 48 | seed 48
//! ```
//!
//! The seal that is made here is over the COMMIT statement of the round in which the header was made, whatever round its votes were cast
//! in: the header is final, so signing for that round contradicts nothing, and all nodes sign the same. Nothing is signed for a header that
//! is not final.
//!
//! Bounds: four heights; of each validator one part of each signature; an answer is never longer than what it answers by more than a
//! message.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::message::Partials;
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::Signers;

use super::partials::Collector;
use super::share::Share;
use super::sharing::Sharing;

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// Heights that are worked on at a time: seals that are late by more than that stay votes.
pub const HEIGHTS_MAX: usize = 4;
/// Most bytes of a message.
pub const PARTS_MESSAGE_BYTES_MAX: usize = 1 + 1 + 8 + 2 + 48 + 48;

/// The body of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartsBody {
    /// "I lack a signature of this height; here are my parts."
    Mine {
        /// Whose.
        sender: ValidatorIndex,
        /// Its parts, of the round in which the header was made.
        partials: Partials,
    },
    /// "I lack a signature of this height, and have no share."
    Ask,
    /// "Here are both."
    Whole {
        /// Of the header, by the group.
        seal: Signature,
        /// Of the next height, by the group.
        seed: Signature,
    },
}

/// What nodes tell each other of a height that is final. None of it needs a signature: parts and wholes are ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartsMessage {
    /// Of which height.
    pub height: Height,
    /// What.
    pub body: PartsBody,
}

impl PartsMessage {
    /// Canonical bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        match self.body {
            PartsBody::Mine { sender, partials } => {
                out.u8(1).u64(self.height.0).u16(sender.0).bytes(&partials.seal.0).bytes(&partials.seed.0)
            }
            PartsBody::Ask => out.u8(2).u64(self.height.0),
            PartsBody::Whole { seal, seed } => out.u8(3).u64(self.height.0).bytes(&seal.0).bytes(&seed.0),
        };
        out.done()
    }

    /// Reads canonical bytes of at most [`PARTS_MESSAGE_BYTES_MAX`].
    ///
    /// # Errors
    /// [`BytesError`] for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of parts", value: other.into() }),
        }
        let (kind, height) = (reader.u8()?, Height(reader.u64()?));
        let body = match kind {
            1 => {
                let sender = ValidatorIndex(reader.u16()?);
                let (seal, seed) = (Signature(reader.array()?), Signature(reader.array()?));
                PartsBody::Mine { sender, partials: Partials { seal, seed } }
            }
            2 => PartsBody::Ask,
            3 => PartsBody::Whole { seal: Signature(reader.array()?), seed: Signature(reader.array()?) },
            value => return Err(BytesError::Value { field: "kind of parts", value: value.into() }),
        };
        reader.end()?;
        Ok(Self { height, body })
    }
}

/// What comes of an input, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Send to every other validator.
    Broadcast(PartsMessage),
    /// Send to whoever has just been heard.
    Answer(PartsMessage),
    /// The seed of a height is known, once: for the header of that height ([`super::seed::check_seed`]).
    Drawn {
        /// The height whose header carries it.
        height: Height,
        /// The seed.
        seed: Signature,
    },
    /// The threshold seal of a header is there, once: to be kept beside its votes, and given out as a light proof.
    Sealed {
        /// Of which height.
        height: Height,
        /// The seal.
        seal: Seal,
    },
}

/// The signatures of the last final heights, in the eyes of one node.
#[derive(Clone, Debug)]
pub struct Assembly {
    chain: ChainId,
    heights: BTreeMap<Height, Pair>,
}

/// Both signatures of a height.
#[derive(Clone, Debug)]
struct Pair {
    height: Height,
    round: Round,
    seal: Collector,
    seed: Collector,
    /// This node's parts.
    mine: Option<(ValidatorIndex, Partials)>,
}

impl Assembly {
    /// For a chain.
    pub fn new(chain: ChainId) -> Self {
        Self { chain, heights: BTreeMap::new() }
    }

    /// A header is final. `seal`: why; the first header of a chain has none. `partials`: what came with its COMMIT votes; after a restart,
    /// for the last header, none. `sharing`, `share`: of those who voted on it; without a sharing there is nothing to do.
    pub fn finalise(
        &mut self,
        header: &Header,
        seal: Option<&Seal>,
        partials: &[(ValidatorIndex, Partials)],
        sharing: Option<&Arc<Sharing>>,
        share: Option<&Share>,
    ) -> Vec<Act> {
        let Some(sharing) = sharing.filter(|sharing| sharing.set() == header.validators) else { return Vec::new() };
        let share = share.filter(|share| share.set() == sharing.set());
        let place = Place { chain: self.chain, height: header.height };
        let next = Place { height: header.height.next(), ..place };
        let (commit, seed) =
            (statement::commit(place, header.round, header.digest()), statement::seed(next, header.epoch));
        let mine = share.map(|share| (share.index(), share.partials(place, header.round, header.digest())));
        let mut pair = Pair {
            height: header.height,
            round: header.round,
            seal: Collector::new(sharing.clone(), commit),
            seed: Collector::new(sharing.clone(), seed),
            mine,
        };
        let mut acts = pair.change(|pair| {
            if let Some(Seal::Threshold { round, signature }) = seal
                && *round == header.round
            {
                pair.seal.take_whole(signature);
            }
            // Parts of votes of a later round are of another statement.
            let same = seal.is_some_and(|seal| seal.round() == header.round);
            for (sender, partials) in partials {
                pair.seed.add(*sender, partials.seed);
                if same {
                    pair.seal.add(*sender, partials.seal);
                }
            }
            if let Some((me, partials)) = mine {
                pair.seed.add(me, partials.seed);
                pair.seal.add(me, partials.seal);
            }
        });
        acts.extend(pair.call());
        self.heights.insert(header.height, pair);
        while self.heights.len() > HEIGHTS_MAX {
            self.heights.pop_first();
        }
        acts
    }

    /// A message of another node. What is of a height that is not final here, or long past, is dropped: its sender says it again.
    pub fn hear(&mut self, message: PartsMessage) -> Vec<Act> {
        let Some(pair) = self.heights.get_mut(&message.height) else { return Vec::new() };
        match message.body {
            PartsBody::Whole { seal, seed } => pair.change(|pair| {
                pair.seal.take_whole(&seal);
                pair.seed.take_whole(&seed);
            }),
            PartsBody::Mine { sender, partials } => {
                let mut acts = pair.change(|pair| {
                    pair.seed.add(sender, partials.seed);
                    pair.seal.add(sender, partials.seal);
                });
                acts.extend(pair.answer());
                acts
            }
            PartsBody::Ask => pair.answer().into_iter().collect(),
        }
    }

    /// Whether a height is worked on, or was a moment ago.
    pub fn holds(&self, height: Height) -> bool {
        self.heights.contains_key(&height)
    }

    /// Asks again for what is lacking. To be called from time to time.
    pub fn tick(&self) -> Vec<Act> {
        self.heights.values().filter_map(Pair::call).collect()
    }

    /// The seed for the header after one of the last final ones.
    pub fn seed_after(&self, height: Height) -> Option<&Signature> {
        self.heights.get(&height)?.seed.whole()
    }

    /// Who has sent parts of a height's signatures that are none.
    pub fn wrong(&self, height: Height) -> Signers {
        let Some(pair) = self.heights.get(&height) else { return Signers::default() };
        pair.seed.wrong().iter().fold(pair.seal.wrong(), Signers::with)
    }
}

impl Pair {
    /// Does something, and says which signatures are there now that were not before.
    fn change(&mut self, change: impl FnOnce(&mut Self)) -> Vec<Act> {
        let had = (self.seed.whole().is_some(), self.seal.whole().is_some());
        change(self);
        let seed = self.seed.whole().filter(|_| !had.0).copied();
        let seal = self.seal.whole().filter(|_| !had.1).copied();
        let drawn = seed.map(|seed| Act::Drawn { height: self.height.next(), seed });
        let sealed = seal.map(|signature| Act::Sealed {
            height: self.height,
            seal: Seal::Threshold { round: self.round, signature },
        });
        drawn.into_iter().chain(sealed).collect()
    }

    fn whole(&self) -> Option<PartsMessage> {
        let (seal, seed) = (*self.seal.whole()?, *self.seed.whole()?);
        Some(PartsMessage { height: self.height, body: PartsBody::Whole { seal, seed } })
    }

    /// What this node says of itself while it lacks one of them.
    fn call(&self) -> Option<Act> {
        let body = match self.mine {
            _ if self.whole().is_some() => return None,
            Some((sender, partials)) => PartsBody::Mine { sender, partials },
            None => PartsBody::Ask,
        };
        Some(Act::Broadcast(PartsMessage { height: self.height, body }))
    }

    fn answer(&self) -> Option<Act> {
        self.whole().map(Act::Answer)
    }
}
