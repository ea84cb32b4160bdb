//! Evidence of a receipt: its records from the spool, its proofs from db.class.
//!
//! Always true: what is written is whole (a folder is filled under another name first) and can be made again from the spool and db.class, so it is not
//! synced. Absent on purpose: judging it, which is `docklock verify`'s.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bpi_class::{Attested, Class, ClassError, Inclusion, Record, RecordKind};
use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::availability::proof::Availability;
use bpi_protocol::consensus::bytes::{BytesError, Reader};
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::evidence::{CHAIN_BYTES_MAX, Evidence, EvidenceError};
use bpi_protocol::finality::Finality;
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::log::{self, Hash, Log};
use bpi_protocol::mesh::validator::{AnswerError, Sealed};

use crate::spool::{Chain, Found, SpoolError, is_name};

/// Drafts of folders that were begun.
static DRAFTS: AtomicU64 = AtomicU64::new(0);
/// Records between an intent and what closes it, at most.
const STRETCH_MAX: u64 = 65_536;
/// Bytes of records that are kept of a chain, as they are counted.
const WINDOW_BYTES_MAX: usize = 16 << 20;

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum MakingError {
    /// db.class cannot be asked.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// A record cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A record is gone.
    #[error("record {seq} of boundary {boundary} is not in the spool any more; restore it from the pinners")]
    Gone {
        /// Whose.
        boundary: String,
        /// Which.
        seq: u64,
    },
    /// Nothing in reach is the intent that it closes.
    #[error(
        "record {seq} of boundary {boundary} closes an intent that is not among the {STRETCH_MAX} records and {CHAIN_BYTES_MAX} bytes before it"
    )]
    NoIntent {
        /// Whose.
        boundary: String,
        /// Which.
        seq: u64,
    },
    /// It is not final yet.
    #[error("record {seq} of boundary {boundary} is not final yet")]
    NotFinal {
        /// Whose.
        boundary: String,
        /// Which.
        seq: u64,
    },
    /// What db.class holds is not what was put there.
    #[error("the {what} of record {seq} of boundary {boundary}, as kept in db.class, cannot be read: {reason}")]
    Kept {
        /// Which part.
        what: &'static str,
        /// Whose.
        boundary: String,
        /// Which.
        seq: u64,
        /// What is wrong.
        reason: String,
    },
    /// It is no receipt.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The thread that was to make it is gone.
    #[error("who was to make it has ended: {0}")]
    Ended(String),
    /// A file cannot be written.
    #[error("could not write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What was read of a chain and may be needed again: what ran at the same time has its stretch of the chain in common.
#[derive(Debug)]
pub struct Window {
    chain: Chain,
    read: BTreeMap<u64, Arc<Found>>,
    bytes: usize,
}

impl Window {
    /// Of a chain of which nothing was read.
    pub fn of(chain: Chain) -> Self {
        Self { chain, read: BTreeMap::new(), bytes: 0 }
    }

    fn record(&mut self, seq: u64) -> Result<Arc<Found>, MakingError> {
        if let Some(found) = self.read.get(&seq) {
            return Ok(Arc::clone(found));
        }
        let gone = || MakingError::Gone { boundary: self.chain.boundary().to_owned(), seq };
        let found = Arc::new(self.chain.record(seq, None)?.ok_or_else(gone)?);
        self.bytes += bytes_of(&found);
        self.read.insert(seq, Arc::clone(&found));
        // The oldest are needed least: receipts are asked for in their order.
        while self.bytes > WINDOW_BYTES_MAX
            && let Some((_, oldest)) = self.read.pop_first()
        {
            self.bytes -= bytes_of(&oldest);
        }
        Ok(found)
    }

    /// The records from the intent up to what closes it.
    fn stretch(&mut self, seq: u64) -> Result<Vec<Envelope>, MakingError> {
        let last = self.record(seq)?;
        let started = last.record.chain().started_ref;
        let (mut back, mut bytes) = (vec![last.envelope.clone()], 0);
        for before in (seq.saturating_sub(STRETCH_MAX)..seq).rev() {
            let found = self.record(before)?;
            // In Base64, with signature and names: what `chain.jsonl` may hold.
            bytes += found.envelope.payload().len() * 4 / 3 + 512;
            if bytes > CHAIN_BYTES_MAX {
                break;
            }
            back.push(found.envelope.clone());
            if Some(found.digest) == started {
                back.reverse();
                return Ok(back);
            }
        }
        Err(MakingError::NoIntent { boundary: self.chain.boundary().to_owned(), seq })
    }
}

fn bytes_of(found: &Found) -> usize {
    // The payload is there once more, as a record.
    2 * found.envelope.payload().len()
}

/// What all receipts of one batch share.
#[derive(Clone, Debug)]
pub struct Shared {
    chain: ChainId,
    tenant: TenantId,
    attestation: Attestation,
    attested: log::proof::Inclusion,
    attested_in: Sealed,
    /// The tree of the batch's receipts, and the place of each.
    receipts: Log,
    places: BTreeMap<Hash, u64>,
    proofs: BTreeMap<Hash, Inclusion>,
    /// The headers that the proofs lead to, by height.
    sealed: BTreeMap<u64, Sealed>,
}

fn read_sealed(bytes: &[u8]) -> Result<Sealed, AnswerError> {
    let mut reader = Reader::new(bytes);
    let sealed = Sealed::read(&mut reader)?;
    reader.end()?;
    Ok(sealed)
}

impl Shared {
    /// Of the batch that a record is in; `None` while no header commits to it.
    ///
    /// # Errors
    /// [`MakingError::Class`] and [`MakingError::Kept`].
    pub async fn of(class: &Class, chain: ChainId, record: &Record) -> Result<Option<Self>, MakingError> {
        let kept = |what, reason: String| {
            let (boundary, seq) = (record.boundary.clone(), record.seq);
            MakingError::Kept { what, boundary, seq, reason }
        };
        let Some(batch) = class.batch(&record.da_root).await? else { return Ok(None) };
        let Some(Attested { height, attestation, inclusion }) = class.attested(&record.da_root).await? else {
            return Ok(None);
        };
        let Some(attested_in) = class.sealed_header(height).await? else { return Ok(None) };
        let bytes = |error: BytesError| error.to_string();
        let (mut receipts, mut places) = (Log::new(), BTreeMap::new());
        for leaf in class.records_of_batch(&batch).await?.into_iter().filter_map(|record| record.leaf) {
            places.insert(leaf, receipts.size());
            receipts.append(leaf);
        }
        let header = |sealed: Vec<u8>| read_sealed(&sealed).map_err(|error| kept("header", error.to_string()));
        let (mut proofs, mut sealed) = (BTreeMap::new(), BTreeMap::new());
        for (leaf, inclusion) in class.inclusions_of_batch(&batch).await? {
            if !sealed.contains_key(&inclusion.height)
                && let Some(found) = class.sealed_header(inclusion.height).await?
            {
                sealed.insert(inclusion.height, header(found)?);
            }
            proofs.insert(leaf, inclusion);
        }
        Ok(Some(Self {
            chain,
            tenant: TenantId(batch.tenant),
            attestation: Attestation::from_bytes(&attestation).map_err(bytes).map_err(|r| kept("attestation", r))?,
            attested: log::proof::Inclusion::from_bytes(&inclusion).map_err(bytes).map_err(|r| kept("path", r))?,
            attested_in: header(attested_in)?,
            receipts,
            places,
            proofs,
            sealed,
        }))
    }

    /// Evidence of a receipt of the batch, with its finality and availability.
    ///
    /// # Errors
    /// [`MakingError`].
    pub fn evidence(&self, window: &mut Window, record: &Record) -> Result<Evidence, MakingError> {
        let kept = |what, reason: String| {
            let (boundary, seq) = (record.boundary.clone(), record.seq);
            MakingError::Kept { what, boundary, seq, reason }
        };
        let not_final = || MakingError::NotFinal { boundary: record.boundary.clone(), seq: record.seq };
        let leaf = record.leaf.ok_or_else(not_final)?;
        let Inclusion { height, bytes } = self.proofs.get(&leaf).ok_or_else(not_final)?;
        let inclusion =
            log::proof::Inclusion::from_bytes(bytes).map_err(|error| kept("inclusion", error.to_string()))?;
        let Sealed { header, seal, set } = self.sealed.get(height).ok_or_else(not_final)?.clone();
        let place = *self.places.get(&leaf).ok_or_else(not_final)?;
        let receipt = self.receipts.prove_inclusion(place, self.receipts.size());
        let receipt = receipt.map_err(|error| kept("place in its batch", error.to_string()))?;
        let same = self.attested_in.header == header;
        let availability = Availability {
            attestation: self.attestation.clone(),
            attested: self.attested.clone(),
            receipt,
            sealed: (!same).then(|| Box::new(self.attested_in.clone())),
        };
        let finality = Finality { chain: self.chain, tenant: self.tenant, header, seal, set, inclusion };
        let records = window.stretch(record.seq)?;
        Ok(Evidence::of(&records)?.with_finality(finality).with_availability(availability))
    }
}

/// The folder of a record's evidence below `evidence_dir`. A container's id is what its record says; one that could lead elsewhere is left out.
pub fn folder(evidence_dir: &Path, record: &Record) -> PathBuf {
    let id = if is_name(&record.container_id) { &record.container_id } else { "record" };
    evidence_dir.join(&record.boundary).join(format!("{id}-{}", record.seq))
}

/// Writes evidence to its folder, whole or not at all; one that is there stays.
///
/// # Errors
/// [`MakingError::Write`].
pub fn write(folder: &Path, evidence: &Evidence) -> Result<(), MakingError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| MakingError::Write { path, source }
    };
    if folder.exists() {
        return Ok(());
    }
    // Several may write the same at once.
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{number}.part", std::process::id()));
    let draft = folder.with_file_name(name);
    match fs::create_dir(&draft) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&draft),
        made => made,
    }
    .map_err(failed(&draft))?;
    for (name, bytes) in evidence.to_files() {
        let path = draft.join(name);
        fs::write(&path, bytes).map_err(failed(&path))?;
    }
    match fs::rename(&draft, folder) {
        Err(_) if folder.exists() => fs::remove_dir_all(&draft).map_err(failed(&draft)),
        done => done.map_err(failed(folder)),
    }
}

/// True for what evidence can be made of.
pub fn is_receipt(record: &Record) -> bool {
    record.kind == RecordKind::Receipt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_containers_id_leads_out_of_the_folder() {
        let record = |container_id: &str| Record {
            boundary: "demo".to_owned(),
            seq: 7,
            da_root: [0; 32],
            position: 0,
            cid: String::new(),
            kind: RecordKind::Receipt,
            container_id: container_id.to_owned(),
            leaf: None,
        };
        let of = |id: &str| folder(Path::new("/e"), &record(id));
        assert_eq!(of("hello.1"), Path::new("/e/demo/hello.1-7"));
        for id in ["../../etc/x", "/etc/x", "", "..", "a/b", "a\0b"] {
            assert_eq!(of(id), Path::new("/e/demo/record-7"), "{id:?}");
        }
    }
}
