//! The commitment to a batch: a tree over the leaves of each shard, and a tree over the shards.
//!
//! ```text
//! shard root    RFC 9162, section 2.1.1, over the shard's leaves of 1 KiB: SHA-256(0x00 || leaf), SHA-256(0x01 || left || right)
//! top           the same over the n shard roots, each of which is a leaf: SHA-256(0x00 || shard root)
//! da_root       SHA-256("bpi/1 da_root" || coding 22 || top)
//! ```
//!
//! The first byte tells the three from each other. Always true: the chunk of a whole stripe has a power of two of leaves, so its root is a node of the
//! shard's tree, and [`join`] makes the shard's root of the chunks' roots, in whatever order the chunks came. Absent on purpose: the shards' bytes.

use sha2::{Digest as _, Sha256};

use super::coding::{Coding, LEAF_BYTES};
use super::opening::Opening;
use crate::log::{Hash, Log, leaf_hash, node_hash};

const DOMAIN: &[u8] = b"bpi/1 da_root";
/// Bytes of a leaf.
pub(super) const LEAF: usize = LEAF_BYTES as usize;
/// Complete subtrees of different sizes that a shard's tree may have: 64 MiB are 2^16 leaves, and some more cost nothing.
const LEVELS: usize = 33;

/// The right edge of a tree that grows leaf by leaf, without anything on the heap: the root of the complete subtree of 2^i leaves at place i.
struct Edge {
    size: u32,
    peaks: [Hash; LEVELS],
}

impl Edge {
    fn new() -> Self {
        Self { size: 0, peaks: [[0; 32]; LEVELS] }
    }

    /// Appends a node of the lowest level.
    fn push(&mut self, mut hash: Hash) {
        let level = self.size.trailing_ones() as usize;
        for left in &self.peaks[..level] {
            hash = node_hash(left, &hash);
        }
        self.peaks[level] = hash;
        self.size = self.size.wrapping_add(1);
    }

    fn root(&self) -> Hash {
        let present = (0..32).filter(|level| self.size >> level & 1 == 1).map(|level| self.peaks[level]);
        present.reduce(|right, left| node_hash(&left, &right)).unwrap_or(crate::log::EMPTY_ROOT)
    }
}

/// The root over the leaves of a shard, or of the chunk of one stripe. A length that is no whole number of leaves gives a root that no shard has.
pub fn shard_root(bytes: &[u8]) -> Hash {
    let mut edge = Edge::new();
    bytes.chunks(LEAF).for_each(|leaf| edge.push(leaf_hash(leaf)));
    edge.root()
}

/// The root of a shard, of the [`shard_root`] of the chunk of each stripe, in order of the stripes.
pub fn join(chunk_roots: &[Hash]) -> Hash {
    let mut joined = ShardRoot::new();
    chunk_roots.iter().for_each(|root| joined.push(*root));
    joined.root()
}

/// The root of a shard whose chunks come in order.
pub struct ShardRoot(Edge);

impl ShardRoot {
    /// Of no chunk.
    pub fn new() -> Self {
        Self(Edge::new())
    }

    /// Goes on by a chunk.
    pub fn chunk(&mut self, bytes: &[u8]) {
        self.push(shard_root(bytes));
    }

    /// Goes on by leaves, for who has no chunk at once. Chunks and leaves do not mix in one tree.
    pub fn leaves(&mut self, bytes: &[u8]) {
        bytes.chunks(LEAF).for_each(|leaf| self.0.push(leaf_hash(leaf)));
    }

    /// Goes on by the [`shard_root`] of a chunk.
    pub fn push(&mut self, chunk_root: Hash) {
        self.0.push(chunk_root);
    }

    /// Over all so far.
    pub fn root(&self) -> Hash {
        self.0.root()
    }
}

impl Default for ShardRoot {
    fn default() -> Self {
        Self::new()
    }
}

/// What commits to a batch that is coded in this way, of its shards' roots.
pub fn da_root(coding: &Coding, roots: &[Hash]) -> Hash {
    let mut edge = Edge::new();
    roots.iter().for_each(|root| edge.push(leaf_hash(root)));
    of_top(coding, &edge.root())
}

/// The last step to `da_root`.
pub(super) fn of_top(coding: &Coding, top: &Hash) -> Hash {
    let mut out = crate::consensus::bytes::Writer::new();
    coding.write(&mut out);
    Sha256::new().chain_update(DOMAIN).chain_update(out.done()).chain_update(top).finalize().into()
}

/// All hashes of a shard's tree, 64 bytes for a leaf, for who answers probes.
#[derive(Clone, Debug)]
pub struct ShardTree(Log);

impl ShardTree {
    /// Over the bytes of a shard.
    pub fn of(shard: &[u8]) -> Self {
        Self::of_leaves(shard.chunks(LEAF).map(leaf_hash))
    }

    /// Over hashes that were kept ([`ShardTree::leaves`]): 32 bytes for a leaf spare reading the shard again.
    pub fn of_leaves(hashes: impl IntoIterator<Item = Hash>) -> Self {
        let mut log = Log::new();
        for hash in hashes {
            log.append(hash);
        }
        Self(log)
    }

    /// Hashes of its leaves, in order.
    pub fn leaves(&self) -> impl Iterator<Item = &Hash> {
        (0..self.0.size()).map_while(|index| self.0.leaf(index))
    }

    /// The shard's root.
    pub fn root(&self) -> Hash {
        self.0.head().root
    }

    /// The opening of a leaf: `shard` is the shard's number, `roots` those of all shards, `bytes` those of the leaf. None when there is no such leaf
    /// or shard, or `bytes` are not that leaf.
    pub fn open(&self, shard: u8, roots: &[Hash], leaf: u64, bytes: &[u8]) -> Option<Opening> {
        if self.0.leaf(leaf)? != &leaf_hash(bytes) || roots.get(usize::from(shard))? != &self.root() {
            return None;
        }
        let mut top = Log::new();
        for root in roots {
            top.append(leaf_hash(root));
        }
        Some(Opening {
            shard,
            leaf: u32::try_from(leaf).ok()?,
            bytes: Box::new(bytes.try_into().ok()?),
            in_shard: self.0.prove_inclusion(leaf, self.0.size()).ok()?.path,
            in_batch: top.prove_inclusion(shard.into(), top.size()).ok()?.path,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::log::Frontier;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 1024 * 7) as u8).collect()
    }

    #[test]
    fn the_root_of_a_shard_is_that_of_the_log() {
        for leaves in (0..70).chain([127, 128, 129, 1000]) {
            let shard = bytes(leaves * LEAF);
            let mut frontier = Frontier::new();
            for leaf in shard.chunks(LEAF) {
                frontier.append(leaf_hash(leaf));
            }
            assert_eq!(shard_root(&shard), frontier.head().root);
            assert_eq!(ShardTree::of(&shard).root(), frontier.head().root);
        }
    }

    #[test]
    fn the_root_of_a_shard_follows_from_those_of_its_chunks() {
        for (k, length) in [(1, 3 << 20), (4, (5 << 20) + 70_000), (16, (2 << 20) + 1), (64, (9 << 20) + 1_000_000)] {
            let coding = Coding::new(k, 2 * k, length).unwrap();
            let shard = bytes(coding.shard_bytes() as usize);
            let chunks: Vec<_> = (0..coding.stripes())
                .map(|stripe| {
                    let begin = coding.chunk_begin(stripe) as usize;
                    shard_root(&shard[begin..begin + coding.chunk_bytes(stripe) as usize])
                })
                .collect();
            assert_eq!(join(&chunks), shard_root(&shard));
        }
    }

    #[test]
    fn coding_and_each_root_and_their_order_count() {
        let (one, other) = (Coding::new(1, 2, 5).unwrap(), Coding::new(1, 2, 6).unwrap());
        let (a, b) = ([1; 32], [2; 32]);
        let roots = [da_root(&one, &[a, b]), da_root(&one, &[b, a]), da_root(&other, &[a, b]), da_root(&one, &[a, a])];
        for (at, root) in roots.iter().enumerate() {
            assert!(!roots[..at].contains(root));
        }
    }
}
