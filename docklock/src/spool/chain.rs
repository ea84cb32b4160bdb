//! Appending: where the chain ends, the draft of the next record, and making it durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::envelope::{ENVELOPE_BYTES_MAX, Envelope};
use bpi_protocol::key::PublicKey;
use bpi_protocol::receipt::ChainLink;
use serde::{Deserialize, Serialize};

use super::disk::Held;
use super::{Appended, OpenIntent, Spool, SpoolError, StoredRecord};
use crate::seal::SealError;
use crate::signer::Signer;

/// Longest record in bytes: what every reader accepts.
pub(super) const RECORD_BYTES_MAX: usize = ENVELOPE_BYTES_MAX;
/// Longest head.json or settled.json in bytes.
const HINT_BYTES_MAX: u64 = 4096;
/// How far behind its chain head.json may be before records/ is listed instead. Each append writes it, so it is behind by one for
/// each process that died between its record and its hint.
const HINT_LAG_MAX: u64 = 1024;
/// How many records go by between two looks at which intents are settled.
const SETTLE_EVERY: u64 = 1024;

/// A signed record with its place, not yet written.
pub(super) struct Draft {
    pub(super) seq: u64,
    pub(super) digest: Sha256Digest,
    bytes: Vec<u8>,
}

/// head.json: the last record and its digest, which is `prev` of the next.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    seq: u64,
    prev: Sha256Digest,
}

/// settled.json: every intent below `seq` was closed when boot `boot_id` looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settled {
    pub(super) boot_id: String,
    pub(super) seq: u64,
}

impl Spool {
    /// Waits for the right to append.
    pub(super) fn lock_chain(&self) -> Result<Held, SpoolError> {
        self.lock_file("lock")
    }

    pub(super) fn lock_file(&self, name: &str) -> Result<Held, SpoolError> {
        let path = self.folder.join(name);
        self.disk.lock(&path).map_err(|source| SpoolError::io("lock", &path, source))
    }

    /// Builds and signs the next record. The lock is held from here to the end of [`Spool::commit`].
    pub(super) fn draft(
        &self,
        signer: &dyn Signer,
        started_ref: Option<Sha256Digest>,
        build: impl FnOnce(ChainLink) -> Result<Vec<u8>, SealError>,
    ) -> Result<Draft, SpoolError> {
        let public_key = signer.public_key();
        let tail = self.tail(Some(&public_key))?;
        let (seq, prev) = match tail {
            Some((seq, digest)) => (seq + 1, Some(digest)),
            None => (0, None),
        };
        let link = ChainLink { boundary: self.boundary.to_string(), seq, prev, started_ref };
        let payload = build(link.clone())?;
        let envelope = Envelope::sign(payload, &public_key.keyid(), |pae| signer.sign(pae))?;
        let record = self.stored(seq, envelope)?;
        if *record.link() != link {
            return Err(SpoolError::Misplaced { boundary: self.boundary.clone(), seq });
        }
        let bytes = record.envelope.to_json();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(SpoolError::TooLong { boundary: self.boundary.clone(), bytes: bytes.len() });
        }
        Ok(Draft { seq, digest: record.digest, bytes })
    }

    /// Writes the record: file, fsync, rename, fsync of the folder. Then the hint, whose loss costs only a search.
    pub(super) fn commit(&self, draft: Draft) -> Result<Appended, SpoolError> {
        let Draft { seq, digest, bytes } = draft;
        let path = self.record_path(seq);
        // One name for all: what a crash leaves here is overwritten by the next append.
        let aside = self.records_folder().join("next.tmp");
        if let Err(source) = self.disk.write_durable(&aside, &bytes) {
            self.discard(&aside)?;
            return Err(SpoolError::io("write", &aside, source));
        }
        self.disk.rename(&aside, &path).map_err(|source| SpoolError::io("rename into", &path, source))?;
        self.sync_records()?;
        if seq == 0 {
            self.sync_new_folders()?;
        }
        self.remember(seq, digest);
        if let Err(error) = self.write_head(Head { seq, prev: digest }) {
            tracing::warn!(boundary = %self.boundary, seq, %error, "head.json was not written; the next append will search");
        }
        if seq % SETTLE_EVERY == SETTLE_EVERY - 1
            && let Err(error) = self.settle_while_running(seq + 1)
        {
            tracing::warn!(boundary = %self.boundary, seq, %error, "settled.json was not moved; the next boot will search longer");
        }
        Ok(Appended { seq, digest, path })
    }

    pub(super) fn sync_records(&self) -> Result<(), SpoolError> {
        let folder = self.records_folder();
        self.disk.sync_folder(&folder).map_err(|source| SpoolError::io("make durable", &folder, source))
    }

    /// The names of the folders themselves, once for each chain.
    fn sync_new_folders(&self) -> Result<(), SpoolError> {
        for folder in self.folder.ancestors().take(3).filter(|folder| !folder.as_os_str().is_empty()) {
            self.disk.sync_folder(folder).map_err(|source| SpoolError::io("make durable", folder, source))?;
        }
        Ok(())
    }

    /// The last record and its digest, checked against the record before it and, where `key` made it, its signature.
    pub(super) fn tail(&self, key: Option<&PublicKey>) -> Result<Option<(u64, Sha256Digest)>, SpoolError> {
        let head = self.read_head()?;
        let Some(seq) = self.last_seq(head)? else { return Ok(None) };
        let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(checked), Some(head)) = (checked, head)
            && checked == (seq, head.prev)
            && head.seq == seq
        {
            return Ok(Some(checked));
        }
        let last = self.record(seq)?;
        if let Some(key) = key {
            last.check_signature(key)?;
        }
        let before = seq.checked_sub(1).map(|before| self.record(before)).transpose()?;
        last.check_follows(before.as_ref())?;
        self.remember(seq, last.digest);
        Ok(Some((seq, last.digest)))
    }

    fn remember(&self, seq: u64, digest: Sha256Digest) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some((seq, digest));
    }

    /// The highest number in use. From the hint it is a step or two; without one, or one far behind, records/ is listed.
    fn last_seq(&self, head: Option<Head>) -> Result<Option<u64>, SpoolError> {
        let Some(Head { seq: hinted, .. }) = head else { return self.listed_last_seq() };
        if !self.has_record(hinted)? {
            let evidence = "head.json says that it was written".to_owned();
            return Err(SpoolError::Missing { path: self.record_path(hinted), evidence });
        }
        for seq in hinted..hinted.saturating_add(HINT_LAG_MAX) {
            if !self.has_record(seq + 1)? {
                return Ok(Some(seq));
            }
        }
        self.listed_last_seq()
    }

    fn listed_last_seq(&self) -> Result<Option<u64>, SpoolError> {
        let numbers = self.numbers()?;
        match numbers.iter().zip(0..).find(|(number, expected)| *number != expected) {
            None => Ok(numbers.last().copied()),
            Some((number, missing)) => {
                let evidence = format!("record {number} comes after it");
                Err(SpoolError::Missing { path: self.record_path(missing), evidence })
            }
        }
    }

    /// The numbers of all records, ascending.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, SpoolError> {
        let folder = self.records_folder();
        let names = self.disk.names(&folder).map_err(|source| SpoolError::io("list", &folder, source))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn has_record(&self, seq: u64) -> Result<bool, SpoolError> {
        let path = self.record_path(seq);
        self.disk.exists(&path).map_err(|source| SpoolError::io("look for", &path, source))
    }

    /// The record that closes `open`, if an earlier attempt got as far as giving it its name.
    pub(super) fn closing_record(&self, open: &OpenIntent) -> Result<Option<Appended>, SpoolError> {
        let Some(seq) = open.closing else { return Ok(None) };
        if !self.has_record(seq)? {
            return Ok(None);
        }
        let StoredRecord { seq, path, digest, .. } = match self.record(seq)? {
            record if record.link().started_ref == Some(open.intent) => record,
            _ => return Ok(None),
        };
        Ok(Some(Appended { seq, digest, path }))
    }

    fn read_head(&self) -> Result<Option<Head>, SpoolError> {
        self.read_hint("head.json")
    }

    fn write_head(&self, head: Head) -> Result<(), SpoolError> {
        let (path, bytes) = self.hint("head.json", &head)?;
        self.replace(&path, |aside| self.disk.write(aside, &bytes))
    }

    /// settled.json; `None` when there is none or it cannot be read as one.
    pub(super) fn read_settled(&self) -> Result<Option<Settled>, SpoolError> {
        self.read_hint("settled.json")
    }

    pub(super) fn write_settled(&self, settled: &Settled) -> Result<(), SpoolError> {
        let (path, bytes) = self.hint("settled.json", settled)?;
        self.replace(&path, |aside| self.disk.write_durable(aside, &bytes))
    }

    /// Moves the mark up to the oldest open intent. Only within the boot that set it: across boots the records are searched.
    fn settle_while_running(&self, end: u64) -> Result<(), SpoolError> {
        match self.read_settled()? {
            Some(settled) if settled.boot_id == self.boot_id => {
                let seq = self.open_intents()?.iter().map(|open| open.seq).min().unwrap_or(end);
                self.write_settled(&Settled { seq, ..settled })
            }
            _ => Ok(()),
        }
    }

    /// A hint is never believed further than it can be checked, so one that is torn or garbled is as good as none.
    fn read_hint<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, SpoolError> {
        let path = self.folder.join(name);
        match self.disk.read(&path, HINT_BYTES_MAX) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => Ok(None),
            Err(source) => Err(SpoolError::io("read", &path, source)),
        }
    }

    fn hint<T: Serialize>(&self, name: &str, value: &T) -> Result<(PathBuf, Vec<u8>), SpoolError> {
        let path = self.folder.join(name);
        match serde_json::to_vec(value) {
            Ok(bytes) => Ok((path, bytes)),
            Err(error) => Err(SpoolError::Malformed { path, reason: error.to_string() }),
        }
    }

    fn replace(&self, path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), SpoolError> {
        let aside = path.with_extension("tmp");
        if let Err(source) = write(&aside) {
            self.discard(&aside)?;
            return Err(SpoolError::io("write", &aside, source));
        }
        self.disk.rename(&aside, path).map_err(|source| SpoolError::io("rename into", path, source))
    }

    /// Takes a file away; one that is not there is no error.
    pub(super) fn discard(&self, path: &Path) -> Result<(), SpoolError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SpoolError::io("remove", path, error)),
            _ => Ok(()),
        }
    }
}

/// The number in the name of a record's file.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    if digits.len() < 12 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
