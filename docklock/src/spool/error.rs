//! Why a record was not chained, or a chain cannot be read.

use std::io;
use std::path::{Path, PathBuf};

use bpi_protocol::digest::Sha256Digest;

use super::Boundary;
use super::chain::RECORD_BYTES_MAX;
use crate::clock::ClockError;
use crate::seal::SealError;
use crate::signer::SignerError;

/// Each names the file or the record it is about.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Not a boundary's name.
    #[error(
        "{name:?} is not a boundary: it has to be 1 to 76 characters of A-Z a-z 0-9 . _ - and must not start with a dot"
    )]
    Boundary {
        /// The refused name.
        name: String,
    },
    /// There is no such chain on this host.
    #[error("there is no chain of boundary {boundary} in {}; `docklock receipts list` names those there are", dir.display())]
    NoSuchBoundary {
        /// The boundary.
        boundary: Boundary,
        /// The spool's folder.
        dir: PathBuf,
    },
    /// The medium is full.
    #[error("no space is left to write {}; nothing may run whose record cannot be kept: free space or move spool_dir", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("could not {deed} {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A record or entry that cannot be read as one.
    #[error("{} is not a record of this chain: {reason}; it was changed or torn, restore it from a copy", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A record whose signature is not by the key it names.
    #[error("the signature in {} is not by the host key {keyid}; the record was changed, restore it from a copy", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// The host's key.
        keyid: String,
    },
    /// A record that does not continue the one before it.
    #[error("{} does not follow the record before it: {reason}; one of the two was replaced, restore them from a copy", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A record that must be there is not.
    #[error("{} is missing although {evidence}; restore it from a copy: its number is never used again", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// How its existence is known.
        evidence: String,
    },
    /// Longer than any record is.
    #[error("a record of {bytes} bytes for boundary {boundary} is longer than {RECORD_BYTES_MAX}")]
    TooLong {
        /// The boundary.
        boundary: Boundary,
        /// Its length.
        bytes: usize,
    },
    /// The builder did not put the link it was given into its record.
    #[error("the record for place {seq} of boundary {boundary} was built for another place")]
    Misplaced {
        /// The boundary.
        boundary: Boundary,
        /// Where it should stand.
        seq: u64,
    },
    /// Nothing open has this digest.
    #[error("no open intent has the digest {intent}: it was closed already")]
    NotOpen {
        /// Digest of the intent's PAE.
        intent: Sha256Digest,
    },
    /// No such record, by number or container id.
    #[error(
        "no record of boundary {boundary} answers to {wanted:?}; `docklock receipts list --boundary {boundary}` shows those there are"
    )]
    NoSuchRecord {
        /// The boundary.
        boundary: Boundary,
        /// What was asked for.
        wanted: String,
    },
    /// A process cannot be looked at.
    #[error("could not look at process {pid}: {source}")]
    Process {
        /// Its number.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is left of a container whose shim is gone could not be ended, so its intent stays open.
    #[error("what is left of container {container_id:?} could not be ended, so its intent stays open: {reason}")]
    Kill {
        /// The container.
        container_id: String,
        /// Why.
        reason: String,
    },
    /// The record could not be built.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The record could not be signed.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The host cannot be dated.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

impl SpoolError {
    /// A failed system call; a full medium has its own sentence.
    pub(crate) fn io(deed: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_path_buf() },
            _ => Self::Io { deed, path: path.to_path_buf(), source },
        }
    }

    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Boundary { .. } => "DL0301",
            Self::NoSuchBoundary { .. } => "DL0302",
            Self::Full { .. } => "DL0303",
            Self::Io { .. } => "DL0304",
            Self::Malformed { .. } => "DL0305",
            Self::Signature { .. } => "DL0306",
            Self::Link { .. } => "DL0307",
            Self::Missing { .. } => "DL0308",
            Self::TooLong { .. } => "DL0309",
            Self::Misplaced { .. } => "DL0310",
            Self::NotOpen { .. } => "DL0311",
            Self::NoSuchRecord { .. } => "DL0312",
            Self::Process { .. } => "DL0313",
            Self::Kill { .. } => "DL0314",
            Self::Seal(error) => error.code(),
            Self::Signer(error) => error.code(),
            Self::Clock(error) => error.code(),
        }
    }
}
