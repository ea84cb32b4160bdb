//! DockLock's records on this host's disk, read in the order of their chains.
//!
//! A record is a file that never changes: `<spool>/<boundary>/records/<number, twelve digits>.json`, one DSSE envelope. Always true: what is given out
//! follows the record before it by number and by digest. Absent on purpose: signatures, which evidence is checked for, and writing: the spool is
//! DockLock's.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bpi_protocol::chain::{Record, RecordError};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError};

/// Boundaries that are looked at, at most.
pub const BOUNDARIES_MAX: usize = 4096;

/// Why a chain cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A file or folder cannot be read.
    #[error("could not read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is no envelope.
    #[error("{} is no envelope: {source}", path.display())]
    Envelope {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// An envelope holds no record.
    #[error("{} holds no record: {source}", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// A record of another place.
    #[error("{} holds record {found} of boundary {boundary:?}", path.display())]
    Place {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What it says.
        boundary: String,
    },
    /// It does not follow the record before.
    #[error("{} follows a record of digest {found}, and the one before it has {wanted}", path.display())]
    Unlinked {
        /// Which.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it would have to say.
        wanted: String,
    },
    /// It is not there, and a later one is.
    #[error("{} is missing, and later records are there", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
}

impl SpoolError {
    /// True for what may pass by itself: the kernel did not give the bytes. All else is amiss with the record.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// A record that was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its number.
    pub seq: u64,
    /// As it lies there.
    pub envelope: Envelope,
    /// What it says.
    pub record: Record,
    /// SHA-256 of its PAE, which the next record names.
    pub digest: Sha256Digest,
}

/// One boundary's chain.
#[derive(Clone, Debug)]
pub struct Chain {
    records: PathBuf,
    boundary: String,
}

/// The boundaries that have a chain, in order.
///
/// # Errors
/// [`SpoolError::Read`]; a spool that is not there has none.
pub fn boundaries(spool_dir: &Path) -> Result<Vec<String>, SpoolError> {
    let failed = |source| SpoolError::Read { path: spool_dir.to_path_buf(), source };
    let entries = match fs::read_dir(spool_dir) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut names = Vec::new();
    for entry in entries.take(BOUNDARIES_MAX) {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string()
            && is_name(&name)
            && entry.path().join("records").is_dir()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Chain {
    /// The chain of a boundary; it may not be there yet.
    pub fn new(spool_dir: &Path, boundary: &str) -> Self {
        Self { records: spool_dir.join(boundary).join("records"), boundary: boundary.to_owned() }
    }

    /// Whose it is.
    pub fn boundary(&self) -> &str {
        &self.boundary
    }

    /// The folder of its records.
    pub fn folder(&self) -> &Path {
        &self.records
    }

    fn path(&self, seq: u64) -> PathBuf {
        self.records.join(format!("{seq:012}.json"))
    }

    /// The record of a number; `None` while there is none. With `before`, the digest of the record before it, it has to follow that.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn record(&self, seq: u64, before: Option<&Sha256Digest>) -> Result<Option<Found>, SpoolError> {
        let path = self.path(seq);
        let failed = |source| SpoolError::Read { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return match self.path(seq + 1).try_exists() {
                    Ok(false) => Ok(None),
                    // Records are committed one after another, so it may have come since.
                    Ok(true) if path.try_exists().map_err(failed)? => self.record(seq, before),
                    Ok(true) => Err(SpoolError::Missing { path }),
                    Err(source) => Err(failed(source)),
                };
            }
            Err(source) => return Err(failed(source)),
        };
        let mut bytes = Vec::with_capacity(8 * 1024);
        // One byte more than there may be is refused as too long below.
        file.take(ENVELOPE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let envelope =
            Envelope::from_json(&bytes).map_err(|source| SpoolError::Envelope { path: path.clone(), source })?;
        let record = Record::parse(&envelope).map_err(|source| SpoolError::Record { path: path.clone(), source })?;
        let link = record.chain();
        if link.seq != seq || link.boundary != self.boundary {
            return Err(SpoolError::Place { path, found: link.seq, boundary: link.boundary.clone() });
        }
        if let Some(wanted) = before
            && link.prev.as_ref() != Some(wanted)
        {
            let found = link.prev.map_or_else(|| "none".to_owned(), |prev| prev.to_string());
            return Err(SpoolError::Unlinked { path, found, wanted: wanted.to_string() });
        }
        let digest = envelope.pae_digest();
        Ok(Some(Found { seq, envelope, record, digest }))
    }

    /// The first number from `seq` on that has a record.
    ///
    /// # Errors
    /// [`SpoolError::Read`].
    pub fn next_present(&self, seq: u64) -> Result<Option<u64>, SpoolError> {
        let failed = |source| SpoolError::Read { path: self.records.clone(), source };
        let mut next: Option<u64> = None;
        for entry in fs::read_dir(&self.records).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            next = number.filter(|number| *number >= seq).into_iter().chain(next).min();
        }
        Ok(next)
    }
}

/// True for what can name a folder: a namespace, or a container's id.
pub fn is_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    plain && !text.is_empty() && text.len() <= 128 && !text.starts_with('.')
}
