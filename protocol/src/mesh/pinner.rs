//! What is asked of a pinner, and its answers.
//!
//! ```text
//! 1 Offer      batch 106 | shards 32 | root of each of the n shards, 32 each      "keep these shards of this batch"
//! 2 Piece      da_root 32 | shard 1 | stripe 4 | bytes                            the chunk of one stripe
//! 3 Probe      da_root 32 | shard 1 | leaf 8                                      "show me that leaf"
//! 4 Fetch      da_root 32 | shard 1 | stripe 4                                    "give me that chunk"
//! 5 Describe   da_root 32                                                         "what is this batch, and what have you of it?"
//! 17 Have      da_root 32 | shards 32                                             of an offer, the shards that are durable already
//! 18 Kept      da_root 32 | acknowledgement 136
//! 19 Refused   da_root 32 | reason 1 | length 2 | sentence
//! 20 Opening   da_root 32 | shard 1 | leaf 8 | length 2 | opening                 a leaf and its path (availability::opening)
//! 21 Piece     as 2
//! 22 Described batch 106 | shards 32 | root of each of the n shards, 32 each      what it keeps
//! ```
//!
//! An offer is answered by what is durable; then the pieces that are missing are sent, in any order, and when a shard's last one is durable and its root
//! holds, the pinner acknowledges all it keeps of the batch. Whoever offers again, after any silence, is answered again.

use crate::availability::attestation::{Acknowledgement, Batch, ShardSet};
use crate::availability::coding::STRIPE_BYTES;
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::log::Hash;

/// Bytes of a piece, at most: a stripe when k is 1.
pub const PIECE_BYTES_MAX: usize = STRIPE_BYTES as usize - 1024;
/// Bytes of an opening, at most: a leaf, and hashes to the roots of the largest batch.
pub const OPENING_BYTES_MAX: usize = 4096;
/// Bytes of the sentence of a refusal, at most.
pub const SENTENCE_BYTES_MAX: usize = 512;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// "Keep these shards."
    Offer(Box<Described>),
    /// A chunk of one of them.
    Piece(Piece),
    /// "Show me that leaf."
    Probe {
        /// Of which batch.
        da_root: Hash,
        /// Of which shard.
        shard: u8,
        /// Which.
        leaf: u64,
    },
    /// "Give me that chunk."
    Fetch {
        /// Of which batch.
        da_root: Hash,
        /// Of which shard.
        shard: u8,
        /// Of which stripe.
        stripe: u32,
    },
    /// "What is this batch, and what have you of it?"
    Describe {
        /// Which.
        da_root: Hash,
    },
}

/// A batch, some of its shards, and the roots of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Which batch.
    pub batch: Batch,
    /// Which shards.
    pub shards: ShardSet,
    /// The root of each shard, n of them; they lead to `da_root`.
    pub roots: Vec<Hash>,
}

/// The chunk of one stripe of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of which batch.
    pub da_root: Hash,
    /// Of which shard.
    pub shard: u8,
    /// Of which stripe.
    pub stripe: u32,
    /// All its bytes.
    pub bytes: Vec<u8>,
}

/// Why a pinner does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The tenant has as much here as it may.
    Quota = 1,
    /// The disk is full, or too much is under way.
    Full = 2,
    /// Who asks may not.
    Stranger = 3,
    /// The roots do not lead to `da_root`, a piece is of the wrong length, a shard has another root.
    False = 4,
    /// Such a batch or shard is not here.
    Missing = 5,
    /// It is proved to be wrongly encoded.
    Wrong = 6,
}

impl Reason {
    fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        match reader.u8()? {
            1 => Ok(Self::Quota),
            2 => Ok(Self::Full),
            3 => Ok(Self::Stranger),
            4 => Ok(Self::False),
            5 => Ok(Self::Missing),
            6 => Ok(Self::Wrong),
            value => Err(BytesError::Value { field: "reason of a pinner", value: value.into() }),
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of what is offered, this is durable already.
    Have {
        /// Which batch.
        da_root: Hash,
        /// Which shards.
        shards: ShardSet,
    },
    /// This is durable, and stays so.
    Kept {
        /// Which batch.
        da_root: Hash,
        /// What is signed.
        acknowledgement: Box<Acknowledgement>,
    },
    /// No.
    Refused {
        /// Which batch.
        da_root: Hash,
        /// Why.
        reason: Reason,
        /// In a sentence, with the figure.
        sentence: String,
    },
    /// A leaf and its path.
    Opening {
        /// Of which batch.
        da_root: Hash,
        /// Of which shard.
        shard: u8,
        /// Which.
        leaf: u64,
        /// [`crate::availability::opening::Opening`].
        opening: Vec<u8>,
    },
    /// A chunk.
    Piece(Piece),
    /// What is kept.
    Described(Box<Described>),
}

impl Described {
    fn write(&self, out: &mut Writer) {
        self.batch.write(out);
        self.shards.write(out);
        out.bytes(self.roots.as_flattened());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let (batch, shards) = (Batch::read(reader)?, ShardSet::read(reader)?);
        let n = batch.coding.n();
        if !shards.within(n) {
            return Err(BytesError::Value { field: "shard beyond the last of so many", value: n.into() });
        }
        let roots = (0..n).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self { batch, shards, roots })
    }
}

impl Piece {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.da_root).u8(self.shard).u32(self.stripe).bytes(&self.bytes);
    }

    fn read(mut reader: Reader<'_>) -> Result<Self, BytesError> {
        let (da_root, shard, stripe) = (reader.array()?, reader.u8()?, reader.u32()?);
        let bytes = reader.rest();
        if bytes.len() > PIECE_BYTES_MAX {
            return Err(BytesError::Count { field: "bytes of a piece", count: bytes.len(), max: PIECE_BYTES_MAX });
        }
        Ok(Self { da_root, shard, stripe, bytes: bytes.to_vec() })
    }
}

impl Request {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Offer(offer) => offer.write(out.u8(1)),
            Self::Piece(piece) => piece.write(out.u8(2)),
            Self::Probe { da_root, shard, leaf } => {
                out.u8(3).bytes(da_root).u8(*shard).u64(*leaf);
            }
            Self::Fetch { da_root, shard, stripe } => {
                out.u8(4).bytes(da_root).u8(*shard).u32(*stripe);
            }
            Self::Describe { da_root } => {
                out.u8(5).bytes(da_root);
            }
        }
        out.done()
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`BytesError`] for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let request = match reader.u8()? {
            1 => Self::Offer(Box::new(Described::read(&mut reader)?)),
            2 => return Piece::read(reader).map(Self::Piece),
            3 => Self::Probe { da_root: reader.array()?, shard: reader.u8()?, leaf: reader.u64()? },
            4 => Self::Fetch { da_root: reader.array()?, shard: reader.u8()?, stripe: reader.u32()? },
            5 => Self::Describe { da_root: reader.array()? },
            value => return Err(BytesError::Value { field: "kind of a request to a pinner", value: value.into() }),
        };
        reader.end()?;
        Ok(request)
    }
}

impl Answer {
    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Have { da_root, shards } => shards.write(out.u8(17).bytes(da_root)),
            Self::Kept { da_root, acknowledgement } => acknowledgement.write(out.u8(18).bytes(da_root)),
            Self::Refused { da_root, reason, sentence } => {
                let cut = sentence.floor_char_boundary(SENTENCE_BYTES_MAX);
                out.u8(19).bytes(da_root).u8(*reason as u8).u16(cut as u16).bytes(&sentence.as_bytes()[..cut]);
            }
            Self::Opening { da_root, shard, leaf, opening } => {
                out.u8(20).bytes(da_root).u8(*shard).u64(*leaf).u16(opening.len() as u16).bytes(opening);
            }
            Self::Piece(piece) => piece.write(out.u8(21)),
            Self::Described(described) => described.write(out.u8(22)),
        }
        out.done()
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`BytesError`] for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8()? {
            17 => Self::Have { da_root: reader.array()?, shards: ShardSet::read(&mut reader)? },
            18 => {
                let da_root = reader.array()?;
                Self::Kept { da_root, acknowledgement: Box::new(Acknowledgement::read(&mut reader)?) }
            }
            19 => {
                let (da_root, reason) = (reader.array()?, Reason::read(&mut reader)?);
                let length = reader.count("bytes of a sentence", SENTENCE_BYTES_MAX)?;
                let sentence = std::str::from_utf8(reader.take(length)?);
                let not_text =
                    |_| BytesError::Value { field: "sentence that is no text, of length", value: length as u64 };
                Self::Refused { da_root, reason, sentence: sentence.map_err(not_text)?.to_owned() }
            }
            20 => {
                let (da_root, shard, leaf) = (reader.array()?, reader.u8()?, reader.u64()?);
                let length = reader.count("bytes of an opening", OPENING_BYTES_MAX)?;
                Self::Opening { da_root, shard, leaf, opening: reader.take(length)?.to_vec() }
            }
            21 => return Piece::read(reader).map(Self::Piece),
            22 => Self::Described(Box::new(Described::read(&mut reader)?)),
            value => return Err(BytesError::Value { field: "kind of an answer of a pinner", value: value.into() }),
        };
        reader.end()?;
        Ok(answer)
    }
}
