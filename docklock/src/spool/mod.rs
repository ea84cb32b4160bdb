//! The chain of records on disk, one for each boundary.
//!
//! ```text
//! <spool_dir>/<boundary>/records/000000000000.json   one DSSE envelope each, never changed
//!                            head.json                   a hint where the chain ends; recovered from records/ when it lies
//!                            open/<intent>.json          intents that nothing has closed yet, and who runs them
//!                            configs/<digest>.json       configurations, to do a run again
//!                            lock, orphans.lock, settled.json
//! ```
//!
//! Always true: a record is durable when [`Spool::intend`] or [`Spool::close`] returns, no sequence number is ever used twice, and a
//! record that does not fit its chain is an error that names its file, never skipped. Absent on purpose: pruning.

mod boundary;
mod chain;
mod disk;
mod error;
mod kept;
mod open;
mod process;
mod recovery;
mod view;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::ChainLink;

pub use boundary::Boundary;
pub use error::SpoolError;
pub use open::{OpenFacts, OpenIntent};
pub use process::ProcessRef;
pub use view::{Gap, StoredRecord, boundaries};

use crate::clock;
use crate::seal::SealError;
use crate::signer::Signer;
use disk::{Disk, HostDisk};

/// A record that is in the chain and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place.
    pub seq: u64,
    /// SHA-256 of its envelope's PAE.
    pub digest: Sha256Digest,
    /// Its file.
    pub path: PathBuf,
}

/// The chain of one boundary.
#[derive(Debug)]
pub struct Spool {
    disk: Box<dyn Disk>,
    folder: PathBuf,
    boundary: Boundary,
    boot_id: String,
    /// The last record that this process has checked or written, so that it is not checked again.
    checked: Mutex<Option<(u64, Sha256Digest)>>,
    /// One change of an open/ entry at a time in this process.
    entries: Mutex<()>,
}

impl Spool {
    /// Opens the chain of `boundary` below `dir`, making its folders (for this user alone) if it is new.
    ///
    /// # Errors
    /// [`SpoolError::Io`] when the folders cannot be made, [`SpoolError::Clock`] when the boot id cannot be read.
    pub fn open(dir: &Path, boundary: &Boundary) -> Result<Self, SpoolError> {
        let spool = Self::on(Box::new(HostDisk), dir, boundary, clock::boot_id()?);
        spool.make_folders()?;
        Ok(spool)
    }

    /// Opens a chain to look at; nothing is made.
    ///
    /// # Errors
    /// [`SpoolError::NoSuchBoundary`] when there is none.
    pub fn open_existing(dir: &Path, boundary: &Boundary) -> Result<Self, SpoolError> {
        let spool = Self::on(Box::new(HostDisk), dir, boundary, clock::boot_id()?);
        let records = spool.records_folder();
        match spool.disk.exists(&records) {
            Ok(true) => Ok(spool),
            Ok(false) => Err(SpoolError::NoSuchBoundary { boundary: boundary.clone(), dir: dir.to_path_buf() }),
            Err(source) => Err(SpoolError::io("look for", &records, source)),
        }
    }

    fn on(disk: Box<dyn Disk>, dir: &Path, boundary: &Boundary, boot_id: String) -> Self {
        Self {
            disk,
            folder: dir.join(boundary.as_str()),
            boundary: boundary.clone(),
            boot_id,
            checked: Mutex::new(None),
            entries: Mutex::new(()),
        }
    }

    fn make_folders(&self) -> Result<(), SpoolError> {
        for folder in [self.records_folder(), self.open_folder()] {
            self.disk.make_folder(&folder).map_err(|source| SpoolError::io("make the folder", &folder, source))?;
        }
        Ok(())
    }

    /// Whose chain it is.
    pub fn boundary(&self) -> &Boundary {
        &self.boundary
    }

    /// Chains an intent. Only when this has returned may the workload start. `build` gets the intent's place in the chain and
    /// returns the statement to sign ([`crate::seal::intent_statement`]).
    ///
    /// Two fsyncs (record, folder) and one rename on the medium. The open/ entry is written before the record but not synced: it
    /// has to survive the end of this process, for which the page cache is enough; after a loss of power every container is gone
    /// anyway and [`Spool::close_orphans`] finds open intents in the records themselves.
    ///
    /// # Errors
    /// Any [`SpoolError`]: the intent is not in force then, and what was written of it is taken back or closed by the next
    /// [`Spool::close_orphans`].
    pub fn intend(
        &self,
        signer: &dyn Signer,
        facts: OpenFacts,
        build: impl FnOnce(ChainLink) -> Result<Vec<u8>, SealError>,
    ) -> Result<Appended, SpoolError> {
        let _held = self.lock_chain()?;
        let draft = self.draft(signer, None, build)?;
        let open = OpenIntent::new(&draft, facts);
        self.write_open(&open)?;
        match self.commit(draft) {
            Ok(appended) => Ok(appended),
            Err(error) => {
                // A record that was named before the failure stays: its number is used. Then the entry is what closes it.
                if !self.has_record(open.seq)? {
                    self.remove_open(&open.intent)?;
                }
                Err(error)
            }
        }
    }

    /// Notes what became known about an open intent (its first process, its control groups). Not synced, as in [`Spool::intend`].
    ///
    /// # Errors
    /// [`SpoolError::NotOpen`] when it is closed already.
    pub fn update(&self, intent: &Sha256Digest, change: impl FnOnce(&mut OpenIntent)) -> Result<(), SpoolError> {
        let _one = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.read_open(intent)?.ok_or(SpoolError::NotOpen { intent: *intent })?;
        change(&mut open);
        self.write_open(&open)
    }

    /// Chains the receipt or the abort that closes `intent`. `build` gets a link whose `startedRef` is the intent and returns
    /// the statement to sign. The record is durable when this returns; after a failure it may be tried again.
    ///
    /// # Errors
    /// [`SpoolError::NotOpen`] when it is closed already; any other [`SpoolError`] leaves it open.
    pub fn close(
        &self,
        signer: &dyn Signer,
        intent: &Sha256Digest,
        build: impl FnOnce(ChainLink) -> Result<Vec<u8>, SealError>,
    ) -> Result<Appended, SpoolError> {
        let _held = self.lock_chain()?;
        self.close_held(signer, intent, build)
    }

    fn close_held(
        &self,
        signer: &dyn Signer,
        intent: &Sha256Digest,
        build: impl FnOnce(ChainLink) -> Result<Vec<u8>, SealError>,
    ) -> Result<Appended, SpoolError> {
        let _one = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.read_open(intent)?.ok_or(SpoolError::NotOpen { intent: *intent })?;
        if let Some(closing) = self.closing_record(&open)? {
            // An earlier attempt got as far as the name; only its durability is in doubt.
            self.sync_records()?;
            self.remove_open(intent)?;
            return Ok(closing);
        }
        let draft = self.draft(signer, Some(*intent), build)?;
        // Written down first, so that a crash right after the record is told from one right before it without a search.
        open.closing = Some(draft.seq);
        self.write_open(&open)?;
        let appended = self.commit(draft)?;
        self.remove_open(intent)?;
        Ok(appended)
    }

    fn records_folder(&self) -> PathBuf {
        self.folder.join("records")
    }

    fn open_folder(&self) -> PathBuf {
        self.folder.join("open")
    }

    /// Where record `seq` is kept.
    pub fn record_path(&self, seq: u64) -> PathBuf {
        self.folder.join(format!("records/{seq:012}.json"))
    }
}
