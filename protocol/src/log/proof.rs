//! What the log's heads prove to who has no log: that a leaf is in it, and that it only grew.
//!
//! Both proofs are siblings on one climb through the tree, from a leaf or from the last whole subtree of the earlier log, so
//! [`Climb`] says for both, maker and judge alike, which hashes there are and on which side. A path that is a hash too long or too short is
//! refused before anything is hashed.
//!
//! ```text
//! version 1 | kind 1 | index or first 8 | size or second 8 | path 32 …
//! ```

use thiserror::Error;

use super::{EMPTY_ROOT, Hash, LEAVES_MAX, node_hash};
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::consensus::header::LogHead;

const VERSION: u8 = 1;
const INCLUSION: u8 = 1;
const CONSISTENCY: u8 = 2;

/// The siblings on the way from a node up to the root of a tree, lowest first. Where a level ends with a lone node there is none.
#[derive(Clone, Debug)]
pub(super) struct Climb {
    pub(super) level: u32,
    pub(super) index: u64,
    /// The level's last node.
    last: u64,
}

/// A node beside the way up.
pub(super) struct Sibling {
    pub(super) level: u32,
    pub(super) index: u64,
    /// On which side of the way.
    left: bool,
}

impl Climb {
    /// From a leaf of a tree of `size` leaves; `index` is below `size`.
    pub(super) fn from_leaf(index: u64, size: u64) -> Self {
        Self { level: 0, index, last: size - 1 }
    }

    /// From the root of the last complete subtree of a tree of `first` leaves, up a tree of `second`; 0 < `first` <= `second`. Its level is
    /// the number of ones that `first - 1` ends with (section 2.1.4.2, step 4).
    pub(super) fn from_edge(first: u64, second: u64) -> Self {
        let level = first.trailing_zeros();
        Self { level, index: (first >> level) - 1, last: (second - 1) >> level }
    }
}

impl Iterator for Climb {
    type Item = Sibling;

    fn next(&mut self) -> Option<Sibling> {
        while self.last > 0 {
            let Self { level, index, last } = *self;
            *self = Self { level: level + 1, index: index >> 1, last: last >> 1 };
            if index % 2 == 1 {
                return Some(Sibling { level, index: index - 1, left: true });
            }
            if index < last {
                return Some(Sibling { level, index: index + 1, left: false });
            }
        }
        None
    }
}

/// Proof that a leaf is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// Which leaf, from 0.
    pub index: u64,
    /// Size of the log.
    pub size: u64,
    /// `inclusion_path`: siblings, from the leaf's own to the root's child.
    pub path: Vec<Hash>,
}

/// Proof that a log goes on from an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// Size of the earlier.
    pub first: u64,
    /// Size of the later.
    pub second: u64,
    /// `consistency_path`.
    pub path: Vec<Hash>,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// Larger than any log.
    #[error("a log of {size} leaves; none has more than {LEAVES_MAX}")]
    Large {
        /// The size.
        size: u64,
    },
    /// No leaf of a log of that size.
    #[error("leaf {index} of a log of {size}")]
    Index {
        /// Which leaf.
        index: u64,
        /// Of how many.
        size: u64,
    },
    /// The earlier log is the larger.
    #[error("a log of {second} leaves does not go on from one of {first}")]
    Backwards {
        /// Size of the earlier.
        first: u64,
        /// Size of the later.
        second: u64,
    },
    /// The head is of a log of another size.
    #[error("the proof is for {proof} leaves, and the head for {head}")]
    Size {
        /// The proof's.
        proof: u64,
        /// The head's.
        head: u64,
    },
    /// The path has not the one length it can have.
    #[error("the path has {found} hashes; it has to have {wanted}")]
    Length {
        /// What it has.
        found: usize,
        /// What it must have.
        wanted: usize,
    },
    /// It leads to another root.
    #[error("the path leads from {size} leaves to another root")]
    Root {
        /// Size of the log whose root it is not.
        size: u64,
    },
}

impl Inclusion {
    /// Checks that the leaf with this [`super::leaf_hash`] is in the log with this head (section 2.1.3.2).
    ///
    /// # Errors
    /// When that is not shown.
    pub fn check(&self, leaf: &Hash, head: &LogHead) -> Result<(), ProofError> {
        let wanted = Self::length(self.index, self.size)?;
        same_size(self.size, head)?;
        exact(&self.path, wanted)?;
        let mut root = *leaf;
        for (sibling, hash) in Climb::from_leaf(self.index, self.size).zip(&self.path) {
            root = if sibling.left { node_hash(hash, &root) } else { node_hash(&root, hash) };
        }
        same_root(&root, head)
    }

    /// Hashes in the path of a leaf.
    fn length(index: u64, size: u64) -> Result<usize, ProofError> {
        if size > LEAVES_MAX {
            return Err(ProofError::Large { size });
        }
        if index >= size {
            return Err(ProofError::Index { index, size });
        }
        Ok(Climb::from_leaf(index, size).count())
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(INCLUSION, self.index, self.size, &self.path)
    }

    /// Reads canonical bytes: as many hashes as the leaf's path has.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let (index, size, path) = read(bytes, INCLUSION, "index of a leaf", Self::length)?;
        Ok(Self { index, size, path })
    }
}

impl Consistency {
    /// Checks that the log with the head `second` begins with the one of head `first` (section 2.1.4.2). Every log begins with the one without
    /// leaves, and with itself.
    ///
    /// # Errors
    /// When that is not shown.
    pub fn check(&self, first: &LogHead, second: &LogHead) -> Result<(), ProofError> {
        let wanted = Self::length(self.first, self.second)?;
        same_size(self.first, first)?;
        same_size(self.second, second)?;
        exact(&self.path, wanted)?;
        if self.first == 0 {
            same_root(&EMPTY_ROOT, first)?;
            return if self.second == 0 { same_root(&EMPTY_ROOT, second) } else { Ok(()) };
        }
        if self.first == self.second {
            return same_root(&first.root, second);
        }
        let mut path = self.path.iter();
        // Step 2: where the earlier log is one complete subtree, its root is the first hash and left out.
        let seed = if self.first.is_power_of_two() { None } else { path.next() };
        let mut earlier = *seed.unwrap_or(&first.root);
        let mut later = earlier;
        for (sibling, hash) in Climb::from_edge(self.first, self.second).zip(path) {
            if sibling.left {
                earlier = node_hash(hash, &earlier);
                later = node_hash(hash, &later);
            } else {
                later = node_hash(&later, hash);
            }
        }
        same_root(&earlier, first)?;
        same_root(&later, second)
    }

    /// Hashes in the path between two sizes.
    fn length(first: u64, second: u64) -> Result<usize, ProofError> {
        if second > LEAVES_MAX {
            return Err(ProofError::Large { size: second });
        }
        if first > second {
            return Err(ProofError::Backwards { first, second });
        }
        if first == 0 || first == second {
            return Ok(0);
        }
        Ok(usize::from(!first.is_power_of_two()) + Climb::from_edge(first, second).count())
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(CONSISTENCY, self.first, self.second, &self.path)
    }

    /// Reads canonical bytes: as many hashes as the path between the two sizes has.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let (first, second, path) = read(bytes, CONSISTENCY, "size of the earlier log", Self::length)?;
        Ok(Self { first, second, path })
    }
}

fn same_size(proof: u64, head: &LogHead) -> Result<(), ProofError> {
    if proof == head.size { Ok(()) } else { Err(ProofError::Size { proof, head: head.size }) }
}

fn exact(path: &[Hash], wanted: usize) -> Result<(), ProofError> {
    if path.len() == wanted { Ok(()) } else { Err(ProofError::Length { found: path.len(), wanted }) }
}

fn same_root(root: &Hash, head: &LogHead) -> Result<(), ProofError> {
    if *root == head.root { Ok(()) } else { Err(ProofError::Root { size: head.size }) }
}

fn write(kind: u8, start: u64, size: u64, path: &[Hash]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(VERSION).u8(kind).u64(start).u64(size).bytes(path.as_flattened());
    out.done()
}

fn read(
    bytes: &[u8],
    kind: u8,
    field: &'static str,
    length: impl FnOnce(u64, u64) -> Result<usize, ProofError>,
) -> Result<(u64, u64, Vec<Hash>), BytesError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => {}
        other => return Err(BytesError::Value { field: "version of a proof", value: other.into() }),
    }
    match reader.u8()? {
        found if found == kind => {}
        other => return Err(BytesError::Value { field: "kind of a proof", value: other.into() }),
    }
    let (start, size) = (reader.u64()?, read_size(&mut reader)?);
    // At most 54 (`LEAVES_MAX`), whatever the numbers say.
    let length = length(start, size).map_err(|_| BytesError::Value { field, value: start })?;
    let path = (0..length).map(|_| reader.array()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok((start, size, path))
}

pub(super) fn read_size(reader: &mut Reader<'_>) -> Result<u64, BytesError> {
    match reader.u64()? {
        size if size <= LEAVES_MAX => Ok(size),
        value => Err(BytesError::Value { field: "size of a log", value }),
    }
}
