//! The ledger: the growing log (RFC 9162) over the leaves of all final headers, on disk.
//!
//! ```text
//! <folder>/leaves    48 bytes for each leaf                    what is served to who has missed a header
//! <folder>/nodes     32 bytes for each complete subtree        2n - popcount(n) of them, each where appending makes it: a leaf, then what
//!                                                              it completes, from the smallest
//! <folder>/index/    where a leaf is: derived, see `index`
//! ```
//!
//! In memory is the right edge alone, at most 53 hashes: a head or a proof reads one hash for each level, and memory does not grow with the
//! log.
//!
//! **Finality.** Leaves and nodes are written and synced before the header is kept ([`Ledger::append`], then `Headers::append`), so after a
//! crash the ledger has all leaves of the last final header, and perhaps more: the tail beyond its size is cut. What is left has to have the
//! header's root; if not, the ledger is refused.
//!
//! Always true: what [`Ledger::append`] has returned for is on the medium and has the root that a quorum has sealed; no proof leaves that does
//! not hold. Absent on purpose: repair. A ledger that is damaged is made anew of the leaves that peers have.

mod index;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bpi_protocol::checkpoint::{Checkpoint, NoteError};
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::header::LogHead;
use bpi_protocol::log::proof::{Consistency, Inclusion};
use bpi_protocol::log::prove::{self, Subtrees};
use bpi_protocol::log::{Frontier, Hash, LogError, node_hash};

use super::body::ANSWERS_MAX;
use super::leaf::{LEAF_BYTES, Leaf, LeafHash};
use crate::durable::folder_of;
use index::Index;

/// Leaves at the end of the log that are looked into at each start; [`Ledger::check`] looks into all of them.
const CHECKED_AT_OPEN: u64 = 4_096;
/// Leaves that are read at once, as many as a header appends at most: 240 KiB.
const BATCH: u64 = ANSWERS_MAX as u64;
const HASH_BYTES: u64 = 32;

/// Why leaves were not appended, or the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is none.
    #[error("there is no ledger in {}; restore the data directory, or make a new one and fetch the leaves again", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// [`Ledger::create`] never replaces one.
    #[error("there is a ledger in {} already; it is never replaced", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// It ends before the last final header does.
    #[error("the ledger in {} has {found} leaves, and the last final header {wanted}; make a new data directory and fetch the leaves again", path.display())]
    Short {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: u64,
        /// What has to be.
        wanted: u64,
    },
    /// It has another root than the header.
    #[error("the ledger in {} has another root than the header at {size} leaves; make a new data directory and fetch the leaves again", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// At which size.
        size: u64,
    },
    /// A leaf and its hash do not fit, or a node and its children.
    #[error("the ledger in {} is damaged at leaf {leaf}; make a new data directory and fetch the leaves again", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// The leaf, or one near it.
        leaf: u64,
    },
    /// These leaves do not lead to the head that is final.
    #[error("after {count} leaves more the log has not the head of {size} leaves that the header names")]
    Head {
        /// Leaves to append.
        count: usize,
        /// Size that the header names.
        size: u64,
    },
    /// The log never was that long, or has no such leaf.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A write failed before: nothing is written until the ledger is opened again.
    #[error("an earlier write to the ledger in {} failed; start this process again", path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
    },
    /// The disk.
    #[error("could not {deed} {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The log of a chain, on disk.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    leaves: File,
    nodes: File,
    index: Index,
    frontier: Frontier,
    failed: bool,
}

impl Ledger {
    /// Makes a ledger without leaves: that of a genesis.
    ///
    /// # Errors
    /// [`LedgerError::Exists`] when the folder has one.
    pub fn create(folder: &Path) -> Result<(), LedgerError> {
        std::fs::create_dir_all(folder).map_err(failed("create", folder))?;
        for path in [leaves_path(folder), nodes_path(folder)] {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            made.and_then(|file| file.sync_all()).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => LedgerError::Exists { path: folder.to_path_buf() },
                _ => failed("create", &path)(source),
            })?;
        }
        for folder in [folder, folder_of(folder)] {
            sync_folder(folder)?;
        }
        Ok(())
    }

    /// Opens the ledger as it was at the last final header: what lies beyond is cut.
    ///
    /// # Errors
    /// [`LedgerError`] when it is missing, ends before, or has another root; the last 4 096 leaves are looked into.
    pub fn open(folder: &Path, head: &LogHead) -> Result<Self, LedgerError> {
        let file = |path: PathBuf| {
            OpenOptions::new().read(true).write(true).open(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => LedgerError::Missing { path: folder.to_path_buf() },
                _ => failed("open", &path)(source),
            })
        };
        let (leaves, nodes) = (file(leaves_path(folder))?, file(nodes_path(folder))?);
        let size = head.size;
        for (file, path, length) in [
            (&leaves, leaves_path(folder), size.saturating_mul(LEAF_BYTES as u64)),
            (&nodes, nodes_path(folder), nodes_before(size).saturating_mul(HASH_BYTES)),
        ] {
            let found = file.metadata().map_err(failed("stat", &path))?.len();
            if found < length {
                // Of the nodes that are there, about two are of a leaf.
                let found = if path.ends_with("leaves") { found / LEAF_BYTES as u64 } else { found / HASH_BYTES / 2 };
                return Err(LedgerError::Short { path: folder.to_path_buf(), found, wanted: size });
            }
            if found > length {
                file.set_len(length).and_then(|()| file.sync_all()).map_err(failed("cut the tail of", &path))?;
            }
        }
        let frontier = read_frontier(&nodes, &nodes_path(folder), size)?;
        if frontier.head() != *head {
            return Err(LedgerError::Root { path: folder.to_path_buf(), size });
        }
        let index = Index::open(&folder.join("index"))?;
        let mut ledger = Self { folder: folder.to_path_buf(), leaves, nodes, index, frontier, failed: false };
        ledger.check_leaves(size.saturating_sub(CHECKED_AT_OPEN))?;
        ledger.index_the_rest()?;
        Ok(ledger)
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The head over all leaves.
    pub fn head(&self) -> LogHead {
        self.frontier.head()
    }

    /// The head that the log would have after these leaves: two hashes for each of them on average.
    pub fn head_with<'a>(&self, leaves: impl IntoIterator<Item = &'a LeafHash>) -> LogHead {
        let mut frontier = self.frontier.clone();
        for hash in leaves {
            frontier.append(hash.0);
        }
        frontier.head()
    }

    /// Appends the leaves of a final header, durably: two fdatasyncs. Nothing is written if they do not lead to its head.
    ///
    /// # Errors
    /// [`LedgerError::Head`] for other leaves than the header's. After [`LedgerError::Io`] nothing is appended any more.
    pub fn append(&mut self, leaves: &[(Leaf, LeafHash)], head: &LogHead) -> Result<(), LedgerError> {
        if self.failed {
            return Err(LedgerError::Failed { path: self.folder.clone() });
        }
        let size = self.size();
        if self.head_with(leaves.iter().map(|(_, hash)| hash)) != *head {
            return Err(LedgerError::Head { count: leaves.len(), size: head.size });
        }
        if leaves.is_empty() {
            return Ok(());
        }
        let written = self.write(size, leaves);
        self.failed = written.is_err();
        written
    }

    fn write(&mut self, size: u64, leaves: &[(Leaf, LeafHash)]) -> Result<(), LedgerError> {
        let (mut lines, mut nodes, mut frontier) = (Writer::new(), Vec::new(), self.frontier.clone());
        for (leaf, hash) in leaves {
            leaf.write(&mut lines);
            let completed = completed_by(&frontier, *hash);
            nodes.extend_from_slice(completed.as_flattened());
            frontier.append(hash.0);
        }
        for (file, path, bytes, offset) in [
            (&self.leaves, leaves_path(&self.folder), lines.done(), size * LEAF_BYTES as u64),
            (&self.nodes, nodes_path(&self.folder), nodes, nodes_before(size) * HASH_BYTES),
        ] {
            let done = file.write_all_at(&bytes, offset).and_then(|()| file.sync_data());
            done.map_err(failed("append to", &path))?;
        }
        for (at, (_, hash)) in (size..).zip(leaves) {
            self.index.insert(hash, at)?;
        }
        self.frontier = frontier;
        Ok(())
    }

    /// Where a leaf is in the log. `None`: nowhere.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn find(&self, hash: &LeafHash) -> Result<Option<u64>, LedgerError> {
        // A slot of a tail that was cut may name a place that another leaf has now, or none.
        self.index.find(hash, |at| Ok(at < self.size() && self.subtree(0, at)? == hash.0))
    }

    /// Proves that a leaf is in the log of `size` leaves. `None`: it is nowhere in the log.
    ///
    /// # Errors
    /// When the log was never that long, the leaf came later, or the hashes on disk do not prove it.
    pub fn prove_inclusion(&self, hash: &LeafHash, size: u64) -> Result<Option<Inclusion>, LedgerError> {
        let Some(index) = self.find(hash)? else { return Ok(None) };
        let proof = prove::inclusion(self, index, size)?;
        let holds = proof.check(&hash.0, &self.head_at(size)?);
        holds.map_err(|_| self.damaged(index)).map(|()| Some(proof))
    }

    /// Proves that the log of `second` leaves goes on from that of `first`.
    ///
    /// # Errors
    /// When the log was never that long, the sizes go back, or the hashes on disk do not prove it.
    pub fn prove_consistency(&self, first: u64, second: u64) -> Result<Consistency, LedgerError> {
        let proof = prove::consistency(self, first, second)?;
        let holds = proof.check(&self.head_at(first)?, &self.head_at(second)?);
        holds.map_err(|_| self.damaged(first)).map(|()| proof)
    }

    /// The head that the log had when it was `size` leaves long.
    ///
    /// # Errors
    /// When it never was, or the disk fails.
    pub fn head_at(&self, size: u64) -> Result<LogHead, LedgerError> {
        prove::head_at(self, size)
    }

    /// The text of a checkpoint of the log that `origin` names: what its key signs.
    ///
    /// # Errors
    /// When the name cannot stand in a line.
    pub fn checkpoint(&self, origin: &str) -> Result<Checkpoint, NoteError> {
        Checkpoint::new(origin, self.head())
    }

    /// Leaves from a place up to another, in order, at most as many as a header appends ([`ANSWERS_MAX`]): what a peer asks for that has missed a header.
    ///
    /// # Errors
    /// When the log has not as many, or the disk fails.
    pub fn leaves(&self, from: u64, upto: u64) -> Result<Vec<Leaf>, LedgerError> {
        if upto > self.size() {
            return Err(LogError::Size { size: upto, leaves: self.size() }.into());
        }
        let count = upto.saturating_sub(from).min(BATCH) as usize;
        let mut bytes = vec![0; count * LEAF_BYTES];
        let read = self.leaves.read_exact_at(&mut bytes, from * LEAF_BYTES as u64);
        read.map_err(failed("read", &leaves_path(&self.folder)))?;
        let mut reader = Reader::new(&bytes);
        let leaves = (0..count).map(|_| Leaf::read(&mut reader)).collect::<Result<_, BytesError>>();
        leaves.map_err(|_| self.damaged(from))
    }

    /// Looks into every leaf and every node: some 112 bytes are read for a leaf.
    ///
    /// # Errors
    /// For the first batch that does not fit.
    pub fn check(&self) -> Result<(), LedgerError> {
        self.check_leaves(0)
    }

    /// Looks into leaves from one on, and all nodes that they complete.
    fn check_leaves(&self, from: u64) -> Result<(), LedgerError> {
        let mut frontier = read_frontier(&self.nodes, &nodes_path(&self.folder), from)?;
        for start in (from..self.size()).step_by(BATCH as usize) {
            let leaves = self.leaves(start, self.size())?;
            let mut nodes = Vec::with_capacity(2 * leaves.len());
            for leaf in &leaves {
                let completed = completed_by(&frontier, leaf.leaf_hash());
                frontier.append(completed[0]);
                nodes.extend(completed);
            }
            let mut found = vec![[0; 32]; nodes.len()];
            let read = self.nodes.read_exact_at(found.as_flattened_mut(), nodes_before(start) * HASH_BYTES);
            read.map_err(failed("read", &nodes_path(&self.folder)))?;
            if let Some(at) = found.iter().zip(&nodes).position(|(found, made)| found != made) {
                return Err(self.damaged(start + at as u64 / 2));
            }
        }
        if frontier == self.frontier { Ok(()) } else { Err(self.damaged(self.size().saturating_sub(1))) }
    }

    /// Puts into the index what a crash has kept it from, or all if it was lost.
    fn index_the_rest(&mut self) -> Result<(), LedgerError> {
        self.index.cut(self.size())?;
        let mut start = self.index.through();
        while start < self.size() {
            let leaves = self.leaves(start, self.size())?;
            for (at, leaf) in (start..).zip(&leaves) {
                self.index.insert(&leaf.leaf_hash(), at)?;
            }
            start += leaves.len() as u64;
        }
        Ok(())
    }

    fn damaged(&self, leaf: u64) -> LedgerError {
        LedgerError::Damaged { path: self.folder.clone(), leaf }
    }
}

impl Subtrees for Ledger {
    type Error = LedgerError;

    fn size(&self) -> u64 {
        self.size()
    }

    fn subtree(&self, level: u32, index: u64) -> Result<Hash, LedgerError> {
        read_node(&self.nodes, &nodes_path(&self.folder), level, index)
    }
}

/// Nodes of the complete subtrees of so many leaves: a tree over 2^k has 2^(k+1) - 1.
fn nodes_before(leaves: u64) -> u64 {
    leaves.saturating_mul(2) - u64::from(leaves.count_ones())
}

/// The hash of a leaf and those of the subtrees that it completes, from the smallest.
fn completed_by(frontier: &Frontier, leaf: LeafHash) -> Vec<Hash> {
    let mut completed = vec![leaf.0];
    let mut hash = leaf.0;
    for left in frontier.peaks().iter().rev().take(frontier.size().trailing_ones() as usize) {
        hash = node_hash(left, &hash);
        completed.push(hash);
    }
    completed
}

fn read_frontier(nodes: &File, path: &Path, size: u64) -> Result<Frontier, LedgerError> {
    let mut bytes = Writer::new();
    bytes.u64(size);
    // The largest subtree is the leftmost.
    for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
        bytes.bytes(&read_node(nodes, path, level, (size >> level) - 1)?);
    }
    let large = |_| LogError::Size { size, leaves: bpi_protocol::log::LEAVES_MAX };
    Ok(Frontier::from_bytes(&bytes.done()).map_err(large)?)
}

fn read_node(nodes: &File, path: &Path, level: u32, index: u64) -> Result<Hash, LedgerError> {
    // It was made after its last leaf, above those that it completed first.
    let last = ((index + 1) << level) - 1;
    let mut hash = [0; 32];
    let read = nodes.read_exact_at(&mut hash, (nodes_before(last) + u64::from(level)) * HASH_BYTES);
    read.map_err(failed("read", path))?;
    Ok(hash)
}

fn leaves_path(folder: &Path) -> PathBuf {
    folder.join("leaves")
}

fn nodes_path(folder: &Path) -> PathBuf {
    folder.join("nodes")
}

fn sync_folder(folder: &Path) -> Result<(), LedgerError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", folder))
}

fn failed(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    move |source| LedgerError::Io { deed, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests;
