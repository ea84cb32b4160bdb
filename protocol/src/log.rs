//! The log of receipts: an append-only Merkle tree (RFC 9162, section 2.1) whose head stands in every header.
//!
//! A receipt's hash is a leaf. [`Log`] keeps each complete subtree's hash, 64 bytes for a leaf, so that appending costs two hashes on
//! average and a proof at most two for each level; [`Frontier`] keeps the right edge alone, for who only appends. What others need to
//! check the log is in [`proof`], and how it is made of any store of hashes in [`prove`].
//!
//! Always true: a leaf is hashed after a zero byte and a node after a one, so no leaf passes for a node (section 2.1.1). Leaves are
//! taken hashed: [`leaf_hash`]. Absent on purpose: storage, and any way to remove or change a leaf.

pub mod leaf;
pub mod proof;
pub mod prove;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::consensus::header::LogHead;
use proof::{Consistency, Inclusion};
use prove::Subtrees;

/// A hash of a leaf or of a node.
pub type Hash = [u8; 32];

/// The root without any leaf: the hash of no bytes (section 2.1.1).
pub const EMPTY_ROOT: Hash = *crate::digest::Sha256Digest::EMPTY.as_bytes();

/// Most leaves of a log: a JSON number holds as many exactly, and a million a second fill it in 285 years. So no proof has more than 54 hashes.
pub const LEAVES_MAX: u64 = 1 << 53;

/// Hash of a leaf: SHA-256(0x00 || leaf).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// Hash of a node: SHA-256(0x01 || left || right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Why the log cannot prove something of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// The log never had that many leaves, or has not yet.
    #[error("the log has {leaves} leaves, not {size}")]
    Size {
        /// What was asked for.
        size: u64,
        /// What there is.
        leaves: u64,
    },
    /// The leaf is not in a log of that size.
    #[error("leaf {index} of a log of {size}")]
    Index {
        /// What was asked for, from 0.
        index: u64,
        /// Size of the log in question.
        size: u64,
    },
    /// The earlier log is larger than the later.
    #[error("a log of {second} leaves does not go on from one of {first}")]
    Backwards {
        /// Size of the earlier.
        first: u64,
        /// Size of the later.
        second: u64,
    },
}

/// A log with the hashes of all its complete subtrees.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// `levels[l][i]` is the root over the leaves from `i << l` up to `(i + 1) << l`.
    levels: Vec<Vec<Hash>>,
}

impl Log {
    /// A log without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends a leaf by its [`leaf_hash`] and returns its index. Two hashes on average, one for each level at worst.
    pub fn append(&mut self, leaf: Hash) -> u64 {
        let index = self.size();
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            let left = if nodes.len() % 2 == 1 { nodes.last().copied() } else { None };
            nodes.push(hash);
            match left {
                Some(left) => hash = node_hash(&left, &hash),
                None => break,
            }
        }
        index
    }

    /// Hash of a leaf.
    pub fn leaf(&self, index: u64) -> Option<&Hash> {
        self.levels.first()?.get(usize::try_from(index).ok()?)
    }

    /// The head over all leaves.
    pub fn head(&self) -> LogHead {
        // A level with an odd number of nodes ends with a subtree that is complete and has no sibling yet.
        let peaks = self.levels.iter().filter(|nodes| nodes.len() % 2 == 1).filter_map(|nodes| nodes.last().copied());
        let root = peaks.reduce(|right, left| node_hash(&left, &right));
        LogHead { size: self.size(), root: root.unwrap_or(EMPTY_ROOT) }
    }

    /// The head that the log had when it was `size` leaves long.
    ///
    /// # Errors
    /// [`LogError::Size`] when it never was.
    pub fn head_at(&self, size: u64) -> Result<LogHead, LogError> {
        prove::head_at(self, size)
    }

    /// Proves that a leaf is in the log of `size` leaves (`PATH`, section 2.1.3.1). One hash for each level, and as many more once.
    ///
    /// # Errors
    /// When the log was never that long, or the leaf came later.
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Result<Inclusion, LogError> {
        prove::inclusion(self, index, size)
    }

    /// Proves that the log of `second` leaves goes on from that of `first` (`PROOF`, section 2.1.4.1). From 0 leaves, and from the same size,
    /// there is nothing to prove and the path is empty.
    ///
    /// # Errors
    /// When the log was never that long, or `first` is more than `second`.
    pub fn prove_consistency(&self, first: u64, second: u64) -> Result<Consistency, LogError> {
        prove::consistency(self, first, second)
    }
}

impl Subtrees for Log {
    type Error = LogError;

    fn size(&self) -> u64 {
        self.size()
    }

    fn subtree(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        let node = self.levels.get(level as usize).and_then(|nodes| nodes.get(usize::try_from(index).ok()?));
        node.copied().ok_or(LogError::Size { size: index.saturating_add(1) << level, leaves: self.size() })
    }
}

/// The right edge of a log: what appending and heads need, at most 53 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, one for each bit that is set in `size`, the largest first.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Of a log without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its [`leaf_hash`] and returns its index. `size` cannot overflow: nobody appends 2^63 leaves, and reading refuses more
    /// than [`LEAVES_MAX`].
    pub fn append(&mut self, leaf: Hash) -> u64 {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
        self.size - 1
    }

    /// The head over all leaves.
    pub fn head(&self) -> LogHead {
        let root = self.peaks.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        LogHead { size: self.size, root: root.unwrap_or(EMPTY_ROOT) }
    }

    /// Roots of the complete subtrees, one for each bit that is set in the size, the largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Canonical bytes: the size in 8, then the peaks.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u64(self.size).bytes(self.peaks.as_flattened());
        out.done()
    }

    /// Reads canonical bytes. Whether it is the frontier of a certain log only its head tells.
    ///
    /// # Errors
    /// When they are none, or of a log larger than [`LEAVES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let size = proof::read_size(&mut reader)?;
        let peaks = (0..size.count_ones()).map(|_| reader.array()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { size, peaks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves and roots of the tests of Certificate Transparency's reference implementation (`merkle_tree_test.cc`).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn known() -> Log {
        let mut log = Log::new();
        for leaf in LEAVES {
            log.append(leaf_hash(&hex::decode(leaf).unwrap()));
        }
        log
    }

    fn hashes(path: &[Hash]) -> Vec<String> {
        path.iter().map(hex::encode).collect()
    }

    #[test]
    fn the_roots_of_the_reference_implementation_come_out_of_log_and_frontier() {
        let (log, mut frontier) = (known(), Frontier::new());
        assert_eq!((Log::new().head(), hex::encode(EMPTY_ROOT).as_str()), (frontier.head(), ROOTS[0]));
        for (size, root) in (0..).zip(ROOTS) {
            assert_eq!(hex::encode(log.head_at(size).unwrap().root), root, "{size}");
            assert_eq!(frontier.head(), log.head_at(size).unwrap());
            if let Some(leaf) = log.leaf(size) {
                assert_eq!(frontier.append(*leaf), size);
            }
        }
        assert_eq!(log.head_at(9), Err(LogError::Size { size: 9, leaves: 8 }));
    }

    #[test]
    fn the_proofs_of_the_reference_implementation_come_out() {
        let log = known();
        let path = |index, size| hashes(&log.prove_inclusion(index, size).unwrap().path);
        assert!(path(0, 1).is_empty());
        assert_eq!(
            path(0, 8),
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        assert_eq!(
            path(5, 8),
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        let proof = |first, second| hashes(&log.prove_consistency(first, second).unwrap().path);
        assert!(proof(1, 1).is_empty());
        assert_eq!(
            proof(6, 8),
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
        assert_eq!(
            proof(2, 5),
            [
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ]
        );
    }

    #[test]
    fn a_log_proves_nothing_beyond_its_end() {
        let log = known();
        assert_eq!(log.prove_inclusion(8, 8), Err(LogError::Index { index: 8, size: 8 }));
        assert_eq!(log.prove_inclusion(0, 9), Err(LogError::Size { size: 9, leaves: 8 }));
        assert_eq!(log.prove_inclusion(0, 0), Err(LogError::Index { index: 0, size: 0 }));
        assert_eq!(log.prove_consistency(8, 9), Err(LogError::Size { size: 9, leaves: 8 }));
        assert_eq!(log.prove_consistency(5, 4), Err(LogError::Backwards { first: 5, second: 4 }));
    }

    #[test]
    fn a_frontier_is_read_as_it_was_written_and_goes_on() {
        let (log, mut frontier) = (known(), Frontier::new());
        for index in 0..8 {
            let bytes = frontier.to_bytes();
            frontier = Frontier::from_bytes(&bytes).unwrap();
            assert!(Frontier::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            assert!(Frontier::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
            frontier.append(*log.leaf(index).unwrap());
        }
        assert_eq!(frontier.head(), log.head());
        assert!(Frontier::from_bytes(&(LEAVES_MAX + 1).to_be_bytes()).is_err());
    }
}
