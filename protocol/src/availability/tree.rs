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
/// Bytes of a shard whose leaves are hashed side by side: the widest vectors take 32 leaves, and the more, the fewer nodes are left to hash one by one.
const GROUP_BYTES: usize = 64 * LEAF;
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
    fn push(&mut self, hash: Hash) {
        self.push_subtree(0, hash);
    }

    /// Appends the root of 2^level nodes of the lowest level. The size has to be a multiple of that.
    fn push_subtree(&mut self, level: u32, mut hash: Hash) {
        let top = level + (self.size >> level).trailing_ones();
        for left in &self.peaks[level as usize..top as usize] {
            hash = node_hash(left, &hash);
        }
        self.peaks[top as usize] = hash;
        self.size = self.size.wrapping_add(1 << level);
    }

    fn root(&self) -> Hash {
        let present = (0..32).filter(|level| self.size >> level & 1 == 1).map(|level| self.peaks[level]);
        present.reduce(|right, left| node_hash(&left, &right)).unwrap_or(crate::log::EMPTY_ROOT)
    }
}

/// SHA-256(prefix || body) of each. Bodies are alike in length, and hashed side by side: one message alone leaves most of a processor's vectors idle.
fn side_by_side(prefix: u8, bodies: &[&[u8]]) -> Vec<Hash> {
    let mut hashes = vec![[0; 32]; bodies.len()];
    tape_sha256::hash_many_prefixed(&[prefix], bodies, &mut hashes);
    hashes
}

/// The hash of each leaf.
fn leaf_hashes(bytes: &[u8]) -> impl Iterator<Item = Hash> {
    bytes.chunks(GROUP_BYTES).flat_map(|group| side_by_side(0, &group.chunks(LEAF).collect::<Vec<_>>()))
}

/// Goes on by leaves of several trees, as many of each.
fn go_on(edges: &mut [&mut Edge], pieces: &[&[u8]]) {
    debug_assert!(edges.len() == pieces.len() && pieces.windows(2).all(|pair| pair[0].len() == pair[1].len()));
    let leaves: Vec<&[u8]> = pieces.iter().flat_map(|piece| piece.chunks(LEAF)).collect();
    let mut hashes = side_by_side(0, &leaves);
    let count = hashes.len() / edges.len().max(1);
    let together = count.is_power_of_two() && edges.iter().all(|edge| (edge.size as usize).is_multiple_of(count));
    if !together {
        let of_each = hashes.chunks(count.max(1));
        edges.iter_mut().zip(of_each).for_each(|(edge, hashes)| hashes.iter().for_each(|hash| edge.push(*hash)));
        return;
    }
    while hashes.len() > edges.len() {
        let nodes: Vec<&[u8]> = hashes.as_flattened().chunks(2 * size_of::<Hash>()).collect();
        hashes = side_by_side(1, &nodes);
    }
    edges.iter_mut().zip(hashes).for_each(|(edge, hash)| edge.push_subtree(count.trailing_zeros(), hash));
}

/// The root over the leaves of a shard, or of the chunk of one stripe. A length that is no whole number of leaves gives a root that no shard has.
pub fn shard_root(bytes: &[u8]) -> Hash {
    let mut root = ShardRoot::new();
    root.leaves(bytes);
    root.root()
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
        bytes.chunks(GROUP_BYTES).for_each(|group| go_on(&mut [&mut self.0], &[group]));
    }

    /// Goes on by leaves of several shards, as many of each: faster than one after another.
    pub fn leaves_of_all(roots: &mut [Self], pieces: &[&[u8]]) {
        go_on(&mut roots.iter_mut().map(|root| &mut root.0).collect::<Vec<_>>(), pieces);
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
        Self::of_leaves(leaf_hashes(shard))
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
    fn leaves_of_several_shards_at_a_time_have_the_roots_of_each() {
        let all = bytes(7 * 96 * LEAF);
        let shards: Vec<&[u8]> = all.chunks(96 * LEAF).collect();
        for steps in [&[8, 8, 16, 32, 32][..], &[1, 8, 4, 2, 1, 64, 16], &[3, 5, 8, 80], &[96]] {
            let mut roots: Vec<ShardRoot> = shards.iter().map(|_| ShardRoot::new()).collect();
            let mut at = 0;
            for leaves in steps {
                let pieces: Vec<&[u8]> = shards.iter().map(|shard| &shard[at * LEAF..(at + leaves) * LEAF]).collect();
                ShardRoot::leaves_of_all(&mut roots, &pieces);
                at += leaves;
            }
            assert_eq!(at, 96);
            for (shard, root) in shards.iter().zip(&roots) {
                let mut edge = Edge::new();
                shard.chunks(LEAF).for_each(|leaf| edge.push(leaf_hash(leaf)));
                assert_eq!(root.root(), edge.root(), "{steps:?}");
            }
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
