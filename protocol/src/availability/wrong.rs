//! Proof that a batch is wrongly encoded: leaves of its own shards, at one offset, that no data can give.
//!
//! ```text
//! version 1 | coding 22 | da_root 32 | count 1 | opening …, ascending by shard
//! ```
//!
//! The chunk of a stripe is a whole number of leaves, so the leaves at one offset of all shards are of one stripe, and the code works on them byte by
//! byte. There are two ways to be wrong. With k + 1 openings, the last is not what the others say of it. With k, they are a code word whose data are
//! not zeros behind the end of the batch: without this rule one batch would have many encodings. Always true: an honest batch has no proof, whoever
//! looks for one. Absent on purpose: any word about who encoded it.

use std::fmt;

use super::coding::{Coding, LEAF_BYTES, STRIPE_BYTES};
use super::field::{coefficients, combine};
use super::opening::{self, Opening, OpeningError};
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::log::Hash;

const VERSION: u8 = 1;
/// Shards that are enough, at most ([`Coding::new`]).
const K_MAX: usize = 64;
/// Bytes of a proof, at most: 117 KiB.
pub const BYTES_MAX: usize = 1 + 22 + 32 + 1 + (K_MAX + 1) * opening::BYTES_MAX;

/// What shows that a batch is wrongly encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct WrongEncoding {
    /// How the batch says that it is coded.
    pub coding: Coding,
    /// What commits to it.
    pub da_root: Hash,
    /// k + 1 leaves that are no code word, or k whose data do not end where they should.
    pub openings: Vec<Opening>,
}

impl fmt::Debug for WrongEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrongEncoding({}, {:?})", hex::encode(self.da_root), self.openings)
    }
}

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongError {
    /// Neither k nor k + 1 openings.
    #[error("{found} openings; it has to be {k} or one more")]
    Count {
        /// There are.
        found: usize,
        /// Shards that are enough.
        k: u16,
    },
    /// Openings that are not of different shards in ascending order.
    #[error("shard {shard} stands at a place where it does not ascend")]
    Order {
        /// Which.
        shard: u8,
    },
    /// Openings at different offsets.
    #[error("leaf {found} of shard {shard} beside leaves {wanted}")]
    Offset {
        /// Which shard.
        shard: u8,
        /// Its leaf.
        found: u32,
        /// The others'.
        wanted: u32,
    },
    /// One is not of the batch.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// They are as they should be.
    #[error("leaf {leaf} of the shards is rightly encoded, as far as the openings show")]
    Right {
        /// Which leaf.
        leaf: u32,
    },
}

impl WrongEncoding {
    /// Checks that it shows the batch to be wrongly encoded.
    ///
    /// # Errors
    /// [`WrongError`] when it does not.
    pub fn check(&self) -> Result<(), WrongError> {
        let (k, found) = (self.coding.k(), self.openings.len());
        let extra = match found.checked_sub(k.into()) {
            Some(extra @ (0 | 1)) => extra,
            _ => return Err(WrongError::Count { found, k }),
        };
        // There is one at least, since k is.
        let wanted = self.openings.first().map_or(0, |first| first.leaf);
        // Comparing costs nothing and hashing does.
        for pair in self.openings.windows(2) {
            let Opening { shard, leaf: found, .. } = pair[1];
            if pair[0].shard >= shard {
                return Err(WrongError::Order { shard });
            }
            if found != wanted {
                return Err(WrongError::Offset { shard, found, wanted });
            }
        }
        self.openings.iter().try_for_each(|opening| opening.check(&self.coding, &self.da_root))?;
        match if extra == 1 { self.is_no_code_word() } else { self.goes_on_behind_the_end() } {
            true => Ok(()),
            false => Err(WrongError::Right { leaf: wanted }),
        }
    }

    /// True when the last leaf is not what the others say of it.
    fn is_no_code_word(&self) -> bool {
        self.openings.split_last().is_some_and(|(last, others)| said_by(others, last.shard) != last.bytes[..])
    }

    /// True when a data shard holds something behind the end of the data.
    fn goes_on_behind_the_end(&self) -> bool {
        let leaf = self.openings.first().map_or(0, |first| first.leaf);
        (0..=255u8).take(self.coding.k().into()).any(|shard| {
            let used = data_bytes(&self.coding, shard, leaf);
            used < LEAF_BYTES as usize && said_by(&self.openings, shard)[used..].iter().any(|byte| *byte != 0)
        })
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        self.coding.write(&mut out);
        out.bytes(&self.da_root).u8(self.openings.len() as u8);
        self.openings.iter().for_each(|opening| opening.write(&mut out));
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none, or hold another number of openings than a proof can have.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => {
                return Err(BytesError::Value { field: "version of a proof of a wrong encoding", value: other.into() });
            }
        }
        let (coding, da_root, count) = (Coding::read(&mut reader)?, reader.array()?, reader.u8()?);
        if ![coding.k(), coding.k() + 1].contains(&count.into()) {
            return Err(BytesError::Value { field: "number of openings", value: count.into() });
        }
        let openings = (0..count).map(|_| Opening::read(&mut reader)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { coding, da_root, openings })
    }
}

/// What leaves of k shards say of the leaf of another.
fn said_by(openings: &[Opening], shard: u8) -> Vec<u8> {
    let points: Vec<u8> = openings.iter().map(|opening| opening.shard).collect();
    combine(&coefficients(&points, shard), openings.iter().map(|opening| &opening.bytes[..]))
}

/// Bytes of a leaf of a data shard that are data, and not the zeros behind the end.
pub fn data_bytes(coding: &Coding, shard: u8, leaf: u32) -> usize {
    let at = u64::from(leaf) * u64::from(LEAF_BYTES);
    let stripe = (at * u64::from(coding.k()) / u64::from(STRIPE_BYTES)) as u32;
    let in_chunk = at - coding.chunk_begin(stripe);
    let chunk = u64::from(coding.chunk_bytes(stripe));
    let begin = u64::from(stripe) * u64::from(STRIPE_BYTES) + u64::from(shard) * chunk + in_chunk;
    coding.length().saturating_sub(begin).min(u64::from(LEAF_BYTES)) as usize
}

const _: () = assert!(BYTES_MAX <= crate::mesh::validator::WRONG_BYTES_MAX);
