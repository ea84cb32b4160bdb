//! Heads and proofs of a log, whoever keeps its hashes: in memory ([`super::Log`]) or on a disk.
//!
//! A log of `n` leaves has `2n - popcount(n)` complete subtrees, and all that is proved of it is put together of them: one for each level, and
//! as many more once for the ragged edge. Always true: only subtrees of leaves that the log had at the size in question are asked for.

use super::proof::{Climb, Consistency, Inclusion};
use super::{EMPTY_ROOT, Hash, LogError, node_hash};
use crate::consensus::header::LogHead;

/// Where the hashes of complete subtrees are kept.
pub trait Subtrees {
    /// Why a hash is not had.
    type Error: From<LogError>;

    /// Leaves.
    fn size(&self) -> u64;

    /// The root over the leaves from `index << level` up to `(index + 1) << level`, all of which there are.
    ///
    /// # Errors
    /// Those of the store.
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The head that the log had when it was `size` leaves long.
///
/// # Errors
/// [`LogError::Size`] when it never was, and those of the store.
pub fn head_at<S: Subtrees>(log: &S, size: u64) -> Result<LogHead, S::Error> {
    had(log, size)?;
    Ok(LogHead { size, root: edge(log, 0, size)?.unwrap_or(EMPTY_ROOT) })
}

/// Proves that a leaf is in the log of `size` leaves (`PATH`, section 2.1.3.1).
///
/// # Errors
/// When the log was never that long, or the leaf came later, and those of the store.
pub fn inclusion<S: Subtrees>(log: &S, index: u64, size: u64) -> Result<Inclusion, S::Error> {
    had(log, size)?;
    if index >= size {
        return Err(LogError::Index { index, size }.into());
    }
    let path = Climb::from_leaf(index, size).map(|sibling| node(log, sibling.level, sibling.index, size));
    Ok(Inclusion { index, size, path: path.collect::<Result<_, _>>()? })
}

/// Proves that the log of `second` leaves goes on from that of `first` (`PROOF`, section 2.1.4.1). From 0 leaves, and from the same size, there
/// is nothing to prove and the path is empty.
///
/// # Errors
/// When the log was never that long, or `first` is more than `second`, and those of the store.
pub fn consistency<S: Subtrees>(log: &S, first: u64, second: u64) -> Result<Consistency, S::Error> {
    had(log, second)?;
    if first > second {
        return Err(LogError::Backwards { first, second }.into());
    }
    let mut path = Vec::new();
    if first > 0 && first < second {
        let climb = Climb::from_edge(first, second);
        if !first.is_power_of_two() {
            path.push(node(log, climb.level, climb.index, second)?);
        }
        for sibling in climb {
            path.push(node(log, sibling.level, sibling.index, second)?);
        }
    }
    Ok(Consistency { first, second, path })
}

fn had<S: Subtrees>(log: &S, size: u64) -> Result<(), LogError> {
    let leaves = log.size();
    if size <= leaves { Ok(()) } else { Err(LogError::Size { size, leaves }) }
}

/// The node at a place of the tree of `size` leaves, of which it covers at least one: stored, or at the ragged edge put together.
fn node<S: Subtrees>(log: &S, level: u32, index: u64, size: u64) -> Result<Hash, S::Error> {
    if index < size >> level {
        return log.subtree(level, index);
    }
    Ok(edge(log, index << level, size)?.unwrap_or(EMPTY_ROOT))
}

/// The root over the leaves from `start`, which is a multiple of a power of two above the rest, up to `size`: of complete subtrees, from the
/// smallest, rightmost one. `None` for no leaves.
fn edge<S: Subtrees>(log: &S, start: u64, size: u64) -> Result<Option<Hash>, S::Error> {
    let (mut end, mut root) = (size, None);
    while end > start {
        let level = end.trailing_zeros();
        let left = log.subtree(level, (end >> level) - 1)?;
        root = Some(root.map_or(left, |right| node_hash(&left, &right)));
        end -= 1 << level;
    }
    Ok(root)
}
