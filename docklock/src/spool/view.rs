//! Reading a chain: one record, all of them, and what is wrong with them.

use std::io;
use std::path::{Path, PathBuf};

use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::key::PublicKey;
use bpi_protocol::receipt::ChainLink;
use serde::Serialize;

use super::chain::RECORD_BYTES_MAX;
use super::{Boundary, Spool, SpoolError};

/// A record as it lies on disk, read and checked by itself.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// Its place.
    pub seq: u64,
    /// Its file.
    pub path: PathBuf,
    /// SHA-256 of its envelope's PAE.
    pub digest: Sha256Digest,
    /// The signed envelope.
    pub envelope: Envelope,
    /// What it says.
    pub record: Record,
}

impl StoredRecord {
    /// Where it says it stands.
    pub fn link(&self) -> &ChainLink {
        self.record.chain()
    }

    /// Container id, as the caller named it.
    pub fn container_id(&self) -> &str {
        self.record.container_id()
    }

    /// Checks the signature if the record names `key`. A key that was replaced since cannot be judged here: `docklock verify` does,
    /// with the keys its user trusts.
    pub(super) fn check_signature(&self, key: &PublicKey) -> Result<(), SpoolError> {
        let keyid = key.keyid();
        if self.record.host().keyid != keyid {
            return Ok(());
        }
        self.envelope.verify(key).map_err(|_| SpoolError::Signature { path: self.path.clone(), keyid })
    }

    /// Checks that it continues `before`, the record with the number before its own.
    pub(super) fn check_follows(&self, before: Option<&StoredRecord>) -> Result<(), SpoolError> {
        let found = self.link().prev;
        let expected = before.map(|before| before.digest);
        if found == expected {
            return Ok(());
        }
        let name = |digest: Option<Sha256Digest>| digest.map_or("nothing".to_owned(), |digest| digest.to_string());
        let reason = format!("it continues {}, but the record before it is {}", name(found), name(expected));
        Err(SpoolError::Link { path: self.path.clone(), reason })
    }
}

/// What a chain lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Gap {
    /// A number without a record.
    Missing {
        /// The number.
        seq: u64,
    },
    /// A record that cannot be read, or does not follow the one before it.
    Broken {
        /// Its number.
        seq: u64,
        /// One sentence that names the file.
        reason: String,
    },
    /// An intent that nothing has closed and whose owner is at work.
    Running {
        /// Its number.
        seq: u64,
        /// The container.
        container_id: String,
        /// The owner.
        pid: u32,
    },
    /// An intent that nothing has closed and nobody will: the next start on this boundary closes it with an abort.
    Orphaned {
        /// Its number.
        seq: u64,
        /// The container.
        container_id: String,
    },
}

impl Gap {
    /// True for what should not be there; a running container is as it should be.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Running { .. })
    }
}

/// The boundaries that have a chain below `dir`, sorted. No folder, no chains.
///
/// # Errors
/// [`SpoolError::Io`] when the folder cannot be listed.
pub fn boundaries(dir: &Path) -> Result<Vec<Boundary>, SpoolError> {
    let failed = |source| SpoolError::io("list", dir, source);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if let Some(Ok(boundary)) = name.to_str().map(Boundary::new)
            && entry.path().join("records").is_dir()
        {
            all.push(boundary);
        }
    }
    all.sort();
    Ok(all)
}

impl Spool {
    /// The record at place `seq`, checked by itself: canonical, of this boundary and of this place.
    ///
    /// # Errors
    /// [`SpoolError::NoSuchRecord`], [`SpoolError::Malformed`], [`SpoolError::Io`].
    pub fn record(&self, seq: u64) -> Result<StoredRecord, SpoolError> {
        let path = self.record_path(seq);
        let bytes = match self.disk.read(&path, RECORD_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SpoolError::NoSuchRecord { boundary: self.boundary.clone(), wanted: seq.to_string() });
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(SpoolError::Malformed { path, reason: format!("longer than {RECORD_BYTES_MAX} bytes") });
            }
            Err(source) => return Err(SpoolError::io("read", &path, source)),
        };
        let envelope = Envelope::from_json(&bytes)
            .map_err(|error| SpoolError::Malformed { path: path.clone(), reason: error.to_string() })?;
        self.stored(seq, envelope)
    }

    pub(super) fn stored(&self, seq: u64, envelope: Envelope) -> Result<StoredRecord, SpoolError> {
        let path = self.record_path(seq);
        let record = Record::parse(&envelope)
            .map_err(|error| SpoolError::Malformed { path: path.clone(), reason: error.to_string() })?;
        let link = record.chain();
        if link.seq != seq || link.boundary != self.boundary.as_str() {
            let reason = format!("it says that it is record {} of boundary {}", link.seq, link.boundary);
            return Err(SpoolError::Malformed { path, reason });
        }
        let digest = envelope.pae_digest();
        Ok(StoredRecord { seq, path, digest, envelope, record })
    }

    /// The numbers of all records there are, ascending.
    ///
    /// # Errors
    /// [`SpoolError::Io`] when the folder cannot be listed.
    pub fn seqs(&self) -> Result<Vec<u64>, SpoolError> {
        self.numbers()
    }

    /// The records of one container, oldest first: an intent and what closed it, for each time its id was used. Reads the whole chain.
    ///
    /// # Errors
    /// As [`Spool::record`]: a damaged record is never passed over.
    pub fn records_of(&self, container_id: &str) -> Result<Vec<StoredRecord>, SpoolError> {
        let mut found = Vec::new();
        for seq in self.numbers()? {
            let record = self.record(seq)?;
            if record.container_id() == container_id {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Everything the chain lacks, in the order of its numbers.
    ///
    /// # Errors
    /// [`SpoolError::Io`] when the folders cannot be listed. Damage is not an error here but what is asked for.
    pub fn gaps(&self) -> Result<Vec<Gap>, SpoolError> {
        let mut gaps = Vec::new();
        let mut unclosed: Vec<(u64, Sha256Digest, String)> = Vec::new();
        let mut before: Option<StoredRecord> = None;
        let mut expected = 0;
        for seq in self.numbers()? {
            gaps.extend((expected..seq).take(GAPS_MAX).map(|seq| Gap::Missing { seq }));
            let contiguous = expected == seq;
            expected = seq + 1;
            match self.record(seq) {
                Err(error) => {
                    gaps.push(Gap::Broken { seq, reason: error.to_string() });
                    before = None;
                }
                Ok(record) => {
                    // After a hole or a broken record there is nothing to compare with: the hole is the finding.
                    let comparable = contiguous && (before.is_some() || seq == 0);
                    if comparable && let Err(error) = record.check_follows(before.as_ref()) {
                        gaps.push(Gap::Broken { seq, reason: error.to_string() });
                    }
                    match record.link().started_ref {
                        None => unclosed.push((seq, record.digest, record.container_id().to_owned())),
                        Some(intent) => unclosed.retain(|(_, digest, _)| *digest != intent),
                    }
                    before = Some(record);
                }
            }
        }
        for (seq, digest, container_id) in unclosed {
            gaps.push(self.unclosed_gap(seq, &digest, container_id)?);
        }
        gaps.sort_by_key(|gap| match gap {
            Gap::Missing { seq } | Gap::Broken { seq, .. } | Gap::Running { seq, .. } | Gap::Orphaned { seq, .. } => {
                *seq
            }
        });
        Ok(gaps)
    }

    fn unclosed_gap(&self, seq: u64, digest: &Sha256Digest, container_id: String) -> Result<Gap, SpoolError> {
        match self.read_open(digest)? {
            Some(open) if open.owner.is_alive(&self.boot_id)? => {
                Ok(Gap::Running { seq, container_id, pid: open.owner.pid })
            }
            _ => Ok(Gap::Orphaned { seq, container_id }),
        }
    }
}

/// Most numbers named for one hole: a stray file with a huge number must not list a million million.
const GAPS_MAX: usize = 1000;
