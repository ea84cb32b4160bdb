//! A leaf of a shard and its way to `da_root`: the answer to a probe.
//!
//! ```text
//! version 1 | shard 1 | leaf 4 | bytes 1024 | count 1 | hash 32 … to the shard's root | count 1 | hash 32 … to the top
//! ```
//!
//! Always true: a path has the one length that the coding gives it, and which shard and leaf it is decides on which side each hash stands. Absent on
//! purpose: whether it is the leaf that was asked for, which who asked has to compare ([`Opening::shard`], [`Opening::leaf`]).

use std::fmt;

use super::coding::Coding;
use super::tree::{LEAF, of_top};
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::log::proof::ProofError;
use crate::log::{Hash, leaf_hash, node_hash};

const VERSION: u8 = 1;
/// Hashes to a shard's root, at most: 64 MiB in one shard are 2^16 leaves.
const IN_SHARD_MAX: usize = 16;
/// Hashes from a shard's root to the top, at most: 256 shards.
const IN_BATCH_MAX: usize = 8;
/// Bytes of an opening, at most: 1800.
pub const BYTES_MAX: usize = 1 + 1 + 4 + LEAF + 1 + IN_SHARD_MAX * 32 + 1 + IN_BATCH_MAX * 32;

/// A leaf and its path.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// Of which shard.
    pub shard: u8,
    /// Which, from 0.
    pub leaf: u32,
    /// Its bytes.
    pub bytes: Box<[u8; LEAF]>,
    /// Siblings up to the shard's root, the leaf's own first.
    pub in_shard: Vec<Hash>,
    /// Siblings from there to the top.
    pub in_batch: Vec<Hash>,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening(leaf {} of shard {})", self.leaf, self.shard)
    }
}

/// Why an opening shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// There is no such shard.
    #[error("an opening of shard {shard}, of {n}")]
    Shard {
        /// Which.
        shard: u8,
        /// How many there are.
        n: u16,
    },
    /// It is no leaf of the shard.
    #[error("an opening of leaf {leaf} of shard {shard}: {reason}")]
    Leaf {
        /// Which shard.
        shard: u8,
        /// Which leaf.
        leaf: u32,
        /// What is wrong with it.
        reason: ProofError,
    },
    /// It leads to another root.
    #[error("leaf {leaf} of shard {shard} leads to another da_root")]
    Root {
        /// Which shard.
        shard: u8,
        /// Which leaf.
        leaf: u32,
    },
}

impl Opening {
    /// Checks that this leaf is in this shard of the batch that is coded so and committed to by `da_root`.
    ///
    /// # Errors
    /// [`OpeningError`] when that is not shown.
    pub fn check(&self, coding: &Coding, da_root: &Hash) -> Result<(), OpeningError> {
        let &Self { shard, leaf, .. } = self;
        if u16::from(shard) >= coding.n() {
            return Err(OpeningError::Shard { shard, n: coding.n() });
        }
        let wrong = |reason| OpeningError::Leaf { shard, leaf, reason };
        let root = climb(leaf.into(), coding.leaves(), &self.in_shard, leaf_hash(&self.bytes[..])).map_err(wrong)?;
        let top = climb(shard.into(), coding.n().into(), &self.in_batch, leaf_hash(&root)).map_err(wrong)?;
        match of_top(coding, &top) == *da_root {
            true => Ok(()),
            false => Err(OpeningError::Root { shard, leaf }),
        }
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.done()
    }

    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u8(VERSION).u8(self.shard).u32(self.leaf).bytes(&self.bytes[..]);
        for path in [&self.in_shard, &self.in_batch] {
            out.u8(path.len() as u8).bytes(path.as_flattened());
        }
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end, or a path is longer than any is.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of an opening", value: other.into() }),
        }
        let (shard, leaf, bytes) = (reader.u8()?, reader.u32()?, Box::new(reader.array()?));
        let mut path = |field, max| {
            let count = usize::from(reader.u8()?);
            if count > max {
                return Err(BytesError::Count { field, count, max });
            }
            (0..count).map(|_| reader.array()).collect::<Result<Vec<Hash>, _>>()
        };
        let in_shard = path("path of a leaf", IN_SHARD_MAX)?;
        Ok(Self { shard, leaf, bytes, in_shard, in_batch: path("path of a shard", IN_BATCH_MAX)? })
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// As [`Opening::read`], and when bytes are left.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let opening = Self::read(&mut reader)?;
        reader.end()?;
        Ok(opening)
    }
}

/// The root that a path leads to from a leaf of a tree of `size` (RFC 9162, section 2.1.3.2).
fn climb(index: u64, size: u64, path: &[Hash], leaf: Hash) -> Result<Hash, ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let (mut root, mut hashes, mut wanted) = (leaf, path.iter(), 0);
    let (mut node, mut last) = (index, size - 1);
    while last > 0 {
        // Where a level ends with a lone node there is no sibling.
        if node % 2 == 1 || node < last {
            wanted += 1;
            root = match hashes.next() {
                Some(left) if node % 2 == 1 => node_hash(left, &root),
                Some(right) => node_hash(&root, right),
                None => root,
            };
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if path.len() == wanted { Ok(root) } else { Err(ProofError::Length { found: path.len(), wanted }) }
}

const _: () = {
    assert!(BYTES_MAX <= crate::mesh::pinner::OPENING_BYTES_MAX);
    assert!(super::coding::LENGTH_MAX <= (LEAF as u64) << IN_SHARD_MAX);
    assert!(super::coding::SHARDS_MAX as usize <= 1 << IN_BATCH_MAX);
};
