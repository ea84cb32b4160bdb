//! Entries of open/: who runs what, until a record closes it.

use std::io;
use std::path::PathBuf;

use bpi_protocol::digest::Sha256Digest;
use serde::{Deserialize, Serialize};

use super::chain::Draft;
use super::{ProcessRef, Spool, SpoolError};

/// Longest entry in bytes: two processes and a few paths of at most 4096.
const ENTRY_BYTES_MAX: u64 = 128 * 1024;

/// What is known of a run when it is intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFacts {
    /// Container id, as the caller named it.
    pub container_id: String,
    /// The process that will close it.
    pub owner: ProcessRef,
    /// Where the engine keeps this container's state.
    pub state_dir: PathBuf,
    /// Its control groups, as far as they are known.
    pub cgroups: Vec<PathBuf>,
}

/// An intent that nothing has closed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenIntent {
    /// SHA-256 of the intent's PAE.
    pub intent: Sha256Digest,
    /// Its place in the chain.
    pub seq: u64,
    /// Container id, as the caller named it.
    pub container_id: String,
    /// The process that will close it.
    pub owner: ProcessRef,
    /// The container's first process, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessRef>,
    /// Where the engine keeps this container's state.
    pub state_dir: PathBuf,
    /// Its control groups.
    pub cgroups: Vec<PathBuf>,
    /// Place that the closing record is about to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) closing: Option<u64>,
}

impl OpenIntent {
    pub(super) fn new(draft: &Draft, facts: OpenFacts) -> Self {
        let OpenFacts { container_id, owner, state_dir, cgroups } = facts;
        Self {
            intent: draft.digest,
            seq: draft.seq,
            container_id,
            owner,
            init: None,
            state_dir,
            cgroups,
            closing: None,
        }
    }
}

impl Spool {
    /// The intents that nothing has closed yet, oldest first.
    ///
    /// # Errors
    /// [`SpoolError::Malformed`] for an entry that cannot be read as one.
    pub fn open_intents(&self) -> Result<Vec<OpenIntent>, SpoolError> {
        let mut all = Vec::new();
        for intent in self.open_digests()? {
            // One that was closed since the folder was listed is no longer open.
            all.extend(self.read_open(&intent)?);
        }
        all.sort_by_key(|open| open.seq);
        Ok(all)
    }

    pub(super) fn open_digests(&self) -> Result<Vec<Sha256Digest>, SpoolError> {
        let names = self.open_names()?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json").and_then(Sha256Digest::from_hex)).collect())
    }

    pub(super) fn open_names(&self) -> Result<Vec<String>, SpoolError> {
        let folder = self.open_folder();
        self.disk.names(&folder).map_err(|source| SpoolError::io("list", &folder, source))
    }

    pub(super) fn open_path(&self, intent: &Sha256Digest) -> PathBuf {
        self.folder.join(format!("open/{intent}.json"))
    }

    pub(super) fn read_open(&self, intent: &Sha256Digest) -> Result<Option<OpenIntent>, SpoolError> {
        let path = self.open_path(intent);
        let bytes = match self.disk.read(&path, ENTRY_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SpoolError::io("read", &path, source)),
        };
        let open: OpenIntent = serde_json::from_slice(&bytes)
            .map_err(|error| SpoolError::Malformed { path: path.clone(), reason: error.to_string() })?;
        if open.intent != *intent {
            return Err(SpoolError::Malformed { path, reason: format!("it speaks of intent {}", open.intent) });
        }
        Ok(Some(open))
    }

    /// Replaces the entry in one step: a reader, and a successor of this process, sees the old one or the new one.
    pub(super) fn write_open(&self, open: &OpenIntent) -> Result<(), SpoolError> {
        let path = self.open_path(&open.intent);
        let aside = path.with_extension("tmp");
        let bytes = serde_json::to_vec(open)
            .map_err(|error| SpoolError::Malformed { path: path.clone(), reason: error.to_string() })?;
        if let Err(source) = self.disk.write(&aside, &bytes) {
            self.discard(&aside)?;
            return Err(SpoolError::io("write", &aside, source));
        }
        self.disk.rename(&aside, &path).map_err(|source| SpoolError::io("rename into", &path, source))
    }

    pub(super) fn remove_open(&self, intent: &Sha256Digest) -> Result<(), SpoolError> {
        self.discard(&self.open_path(intent))
    }
}
