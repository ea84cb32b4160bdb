//! The watermark, the log and the headers, written to in the order that keeps them true.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, Height};
use bpi_protocol::consensus::seal::Seal;

use super::folder_of;
use super::headers::{Headers, HeadersError, Kept};
use super::log::{self, Log, LogError};
use super::watermark::{Watermark, WatermarkError};
use crate::core::{Record, Recovered};
use crate::keys::KeyFingerprint;

/// Why something was not kept, or a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// By the watermark.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// By the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// By the headers.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// The key has said things at this height that this node does not know of.
    #[error(
        "at height {height} nothing is signed: up to height {through} this key has said what this node does not know of"
    )]
    Forgetful {
        /// Of what was to be kept.
        height: Height,
        /// The last such height.
        through: Height,
    },
    /// This node has no key here to vote with.
    #[error("this node observes and keeps no votes")]
    Observes,
    /// A folder could not be made.
    #[error("could not {deed} {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a start finds.
#[derive(Debug)]
pub struct Found {
    /// The last final header.
    pub tip: Header,
    /// What was said and prepared at the height after it.
    pub recovered: Recovered,
    /// Slots of the log that an unfinished append left behind and that were cut: to be told, not to be feared.
    pub torn_slots: usize,
}

/// A validator's disk.
#[derive(Debug)]
pub struct Durable {
    /// `None`: this node observes.
    votes: Option<(Watermark, Log)>,
    headers: Headers,
    silent_through: Option<Height>,
}

impl Durable {
    /// Makes a data directory for a chain. The watermark is made apart, once in the life of a key ([`Watermark::create`]).
    ///
    /// # Errors
    /// [`DurableError`] when there is one already.
    pub fn create(data_dir: &Path, chain: ChainId, genesis: &Header) -> Result<(), DurableError> {
        let failed = |deed| move |source| DurableError::Io { deed, path: data_dir.to_path_buf(), source };
        fs::create_dir_all(data_dir).map_err(failed("make the folder"))?;
        Headers::create(&headers_path(data_dir), chain, genesis)?;
        Log::create(&log_path(data_dir))?;
        fs::File::open(folder_of(data_dir)).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))
    }

    /// Opens a data directory and a watermark, and says where to go on.
    ///
    /// # Errors
    /// [`DurableError`] for what is missing, held by another process, damaged, of another key or chain, or contradictory.
    pub fn open(
        data_dir: &Path,
        watermark: &Path,
        chain: ChainId,
        key: KeyFingerprint,
    ) -> Result<(Self, Found), DurableError> {
        let mut watermark = Watermark::open(watermark, key)?;
        let headers = Headers::open(&headers_path(data_dir), chain)?;
        let mut log = Log::open(&log_path(data_dir))?;
        let tip = *headers.tip();
        let (recovered, torn_slots) = log.recover(tip.height.next(), &mut watermark)?;
        let silent_through = recovered.silent_through;
        Ok((Self { votes: Some((watermark, log)), headers, silent_through }, Found { tip, recovered, torn_slots }))
    }

    /// Opens a data directory for a node that votes on nothing.
    ///
    /// # Errors
    /// [`DurableError::Headers`] for what is missing, held by another process, damaged or of another chain.
    pub fn open_to_observe(data_dir: &Path, chain: ChainId) -> Result<(Self, Found), DurableError> {
        let headers = Headers::open(&headers_path(data_dir), chain)?;
        let found = Found { tip: *headers.tip(), recovered: Recovered::default(), torn_slots: 0 };
        Ok((Self { votes: None, headers, silent_through: None }, found))
    }

    /// The last height at which nothing is signed, because something is forgotten. `None`: nothing is.
    pub fn silent_through(&self) -> Option<Height> {
        self.silent_through
    }

    /// Keeps a record, durably: only then may the effects after it be carried out. The last vote may be kept again.
    ///
    /// # Errors
    /// [`DurableError`]: the record is not to be sent, and the core is to be told ([`crate::core::Input::Failed`]).
    pub fn persist(&mut self, record: &Record) -> Result<(), DurableError> {
        self.persist_all(std::slice::from_ref(record))
    }

    /// Keeps records in order, durably, with one fdatasync of the log and one of the watermark for each vote among them.
    ///
    /// # Errors
    /// As [`Durable::persist`]; records before the refused one may have been kept.
    pub fn persist_all(&mut self, records: &[Record]) -> Result<(), DurableError> {
        records.split_inclusive(|record| matches!(record, Record::Vote { .. })).try_for_each(|part| self.keep(part))
    }

    /// Records of which at most the last one is a vote.
    fn keep(&mut self, records: &[Record]) -> Result<(), DurableError> {
        let Some(last) = records.last() else { return Ok(()) };
        if let Some(through) = self.silent_through.filter(|through| last.height() <= *through) {
            return Err(DurableError::Forgetful { height: last.height(), through });
        }
        let Some((watermark, log)) = &mut self.votes else { return Err(DurableError::Observes) };
        let Some(mark) = log::mark_of(last) else { return Ok(log.append(records)?) };
        if watermark.allows(mark)? {
            log.append(records)?;
            watermark.advance(mark.position, mark.digest)?;
        } else {
            // Said before, and in the log.
            log.append(&records[..records.len() - 1])?;
        }
        Ok(())
    }

    /// Keeps the next final header, durably, and begins the height after it.
    ///
    /// # Errors
    /// [`DurableError::Headers`].
    pub fn append(&mut self, header: &Header, seal: &Seal) -> Result<(), DurableError> {
        self.headers.append(header, seal)?;
        if let Some((_, log)) = &mut self.votes {
            log.begin_height(header.height.next());
        }
        Ok(())
    }

    /// The last final header.
    pub fn tip(&self) -> &Header {
        self.headers.tip()
    }

    /// A final header. `None`: it is not final yet.
    ///
    /// # Errors
    /// [`DurableError::Headers`] when it should be there.
    pub fn get(&self, height: Height) -> Result<Option<Kept>, DurableError> {
        Ok(self.headers.get(height)?)
    }

    /// Keeps a seal by the validators' key beside the votes ([`Headers::keep_group_seal`]).
    ///
    /// # Errors
    /// [`DurableError::Headers`].
    pub fn keep_group_seal(&self, height: Height, seal: &Seal) -> Result<(), DurableError> {
        Ok(self.headers.keep_group_seal(height, seal)?)
    }

    /// The seal of a height by the validators' key, if it was made here.
    ///
    /// # Errors
    /// [`DurableError::Headers`].
    pub fn group_seal(&self, height: Height) -> Result<Option<Seal>, DurableError> {
        Ok(self.headers.group_seal(height)?)
    }

    /// Keeps the attestations of a header, durably: before the header ([`Headers::keep_attestations`]).
    ///
    /// # Errors
    /// [`DurableError::Headers`].
    pub fn keep_attestations(&mut self, height: Height, attestations: &[Attestation]) -> Result<(), DurableError> {
        Ok(self.headers.keep_attestations(height, attestations)?)
    }

    /// All final headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// How far the key has spoken. `None`: this node observes.
    pub fn watermark(&self) -> Option<&Watermark> {
        self.votes.as_ref().map(|(watermark, _)| watermark)
    }
}

/// Where the log of a data directory is.
pub fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("votes.log")
}

/// Where the headers of a data directory are.
pub fn headers_path(data_dir: &Path) -> PathBuf {
    data_dir.join("headers")
}

#[cfg(test)]
mod tests;
