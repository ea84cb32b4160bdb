//! The file of a shard: its bytes, then all hashes of its tree, so that a leaf is proved by reading it and one hash for each level.
//!
//! ```text
//! shard_bytes of the coding | level 0: hash of each leaf | level 1: of each pair | … | the root
//! ```
//!
//! A level of m hashes is followed by one of ⌈m / 2⌉; the last of an odd level stands in the next as it is, which gives the tree of RFC 9162, section 2.1.1.
//! The hashes are 1/16 of a shard. Always true: nothing that was read is good before it has led to the root that the batch's `da_root` commits to.

use bpi_protocol::availability::coding::{Coding, LEAF_BYTES};
use bpi_protocol::log::{Hash, leaf_hash, node_hash};

use crate::disk::Span;

const HASH_BYTES: usize = 32;
const LEAF: usize = LEAF_BYTES as usize;

/// Where things are in the file of a shard.
#[derive(Clone, Debug)]
pub struct Layout {
    shard_bytes: u64,
    /// Hashes of each level, the leaves' first.
    levels: Vec<u64>,
}

/// Leaves of a shard that stand one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaves {
    /// The first.
    pub begin: u64,
    /// How many.
    pub count: u64,
}

impl Layout {
    /// Of a shard of a batch that is coded so.
    pub fn of(coding: &Coding) -> Self {
        let mut levels = vec![coding.leaves()];
        while let Some(last) = levels.last().copied().filter(|last| *last > 1) {
            levels.push(last.div_ceil(2));
        }
        Self { shard_bytes: coding.shard_bytes(), levels }
    }

    /// Bytes of the shard alone.
    pub fn shard_bytes(&self) -> u64 {
        self.shard_bytes
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.shard_bytes + HASH_BYTES as u64 * self.levels.iter().sum::<u64>()
    }

    /// The leaves of the chunk of a stripe.
    pub fn chunk(coding: &Coding, stripe: u32) -> Leaves {
        let leaf = u64::from(LEAF_BYTES);
        Leaves { begin: coding.chunk_begin(stripe) / leaf, count: u64::from(coding.chunk_bytes(stripe)) / leaf }
    }

    /// All leaves.
    pub fn leaves(&self) -> u64 {
        self.levels[0]
    }

    /// What has to be read to prove leaves: their bytes, then the hashes beside the way to the root.
    pub fn spans(&self, leaves: Leaves) -> Vec<Span> {
        let (mut begin, mut end) = (leaves.begin, leaves.begin + leaves.count);
        let mut spans = vec![Span { offset: begin * u64::from(LEAF_BYTES), length: leaves.count as usize * LEAF }];
        let mut before = self.shard_bytes;
        for size in &self.levels[..self.levels.len() - 1] {
            let mut beside = |at: u64| {
                spans.push(Span { offset: before + at * HASH_BYTES as u64, length: HASH_BYTES });
            };
            if begin % 2 == 1 {
                begin -= 1;
                beside(begin);
            }
            if end % 2 == 1 && end < *size {
                beside(end);
                end += 1;
            }
            (begin, end) = (begin / 2, end.div_ceil(2));
            before += size * HASH_BYTES as u64;
        }
        spans
    }

    /// The root that leaves and the hashes beside their way lead to, as [`Layout::spans`] orders them. `None`: there are not as many.
    pub fn root(&self, leaves: Leaves, bytes: &[u8], beside: &[Hash]) -> Option<Hash> {
        let mut row: Vec<Hash> = bytes.chunks(LEAF).map(leaf_hash).collect();
        if row.is_empty() || row.len() as u64 != leaves.count || !bytes.len().is_multiple_of(LEAF) {
            return None;
        }
        let (mut begin, mut beside) = (leaves.begin, beside.iter());
        for size in &self.levels[..self.levels.len() - 1] {
            if begin % 2 == 1 {
                row.insert(0, *beside.next()?);
                begin -= 1;
            }
            let end = begin + row.len() as u64;
            if end % 2 == 1 && end < *size {
                row.push(*beside.next()?);
            }
            row = row
                .chunks(2)
                .map(|pair| if let [left, right] = pair { node_hash(left, right) } else { pair[0] })
                .collect();
            begin /= 2;
        }
        (beside.next().is_none() && row.len() == 1).then(|| row[0])
    }

    /// All hashes of a tree, as they stand in the file, of those of its leaves. The last is the root.
    pub fn hashes(&self, leaves: Vec<Hash>) -> Vec<Hash> {
        let (mut all, mut row) = (Vec::with_capacity(2 * leaves.len() + self.levels.len()), leaves);
        while row.len() > 1 {
            let above = row
                .chunks(2)
                .map(|pair| if let [left, right] = pair { node_hash(left, right) } else { pair[0] })
                .collect();
            all.append(&mut row);
            row = above;
        }
        all.append(&mut row);
        all
    }
}

/// Hashes of the leaves of a chunk.
pub fn leaf_hashes(bytes: &[u8]) -> impl Iterator<Item = Hash> {
    bytes.chunks(LEAF).map(leaf_hash)
}

/// Hashes that were read, each as a span of its own. `None`: one is none.
pub fn hashes_of(spans: &[Vec<u8>]) -> Option<Vec<Hash>> {
    spans.iter().map(|span| span.as_slice().try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bpi_protocol::availability::tree::shard_root;

    use super::*;

    /// Some coding with shards of so many leaves, the shard and its file.
    fn file_of(leaves: u64) -> (Coding, Vec<u8>, Vec<u8>) {
        let coding = Coding::new(1, 2, leaves * 1024).unwrap();
        let shard: Vec<u8> = (0..leaves * 1024).map(|at| (at * 31 + at / 1024 * 7) as u8).collect();
        let hashes = Layout::of(&coding).hashes(leaf_hashes(&shard).collect());
        let file = [shard.as_slice(), hashes.as_flattened()].concat();
        (coding, shard, file)
    }

    #[test]
    fn any_leaves_lead_to_the_root_with_what_is_read_and_with_nothing_else() {
        for size in (1..=20).chain([63, 64, 65]) {
            let (coding, shard, file) = file_of(size);
            let layout = Layout::of(&coding);
            assert_eq!(file.len() as u64, layout.file_bytes());
            for begin in 0..size {
                for count in 1..=size - begin {
                    let leaves = Leaves { begin, count };
                    let read = |span: &Span| file[span.offset as usize..span.offset as usize + span.length].to_vec();
                    let mut parts: Vec<_> = layout.spans(leaves).iter().map(read).collect();
                    let bytes = parts.remove(0);
                    let beside = hashes_of(&parts).unwrap();
                    assert_eq!(layout.root(leaves, &bytes, &beside), Some(shard_root(&shard)));
                    let mut other = bytes.clone();
                    other[7] ^= 1;
                    assert_ne!(layout.root(leaves, &other, &beside), Some(shard_root(&shard)));
                    assert_eq!(layout.root(leaves, &bytes[1024..], &beside), None);
                    if !beside.is_empty() {
                        assert_eq!(layout.root(leaves, &bytes, &beside[1..]), None);
                    }
                }
            }
        }
    }
}
