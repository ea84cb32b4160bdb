//! Evidence of a receipt: its records from the spool, its proofs from db.class.
//!
//! Always true: what is written is whole (a folder is filled under another name first) and can be made again from the spool and db.class, so it is not
//! synced. Absent on purpose: judging it, which is `docklock verify`'s.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bpi_class::{Attested, Class, ClassError, Inclusion, Record, RecordKind};
use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::availability::proof::Availability;
use bpi_protocol::consensus::bytes::{BytesError, Reader};
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::envelope::Envelope;
use bpi_protocol::evidence::{Evidence, EvidenceError};
use bpi_protocol::finality::Finality;
use bpi_protocol::log::leaf::{LeafHash, TenantId};
use bpi_protocol::log::{self, Log};
use bpi_protocol::mesh::validator::{AnswerError, Sealed};

use crate::spool::{Chain, SpoolError, is_name};

/// Drafts of folders that were begun.
static DRAFTS: AtomicU64 = AtomicU64::new(0);
/// Records between an intent and what closes it, at most.
const STRETCH_MAX: u64 = 65_536;

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
        "record {seq} of boundary {boundary} closes an intent that is not among the {STRETCH_MAX} records before it"
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
    /// A file cannot be written.
    #[error("could not write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The records from the intent up to what closes it.
fn stretch(chain: &Chain, seq: u64) -> Result<Vec<Envelope>, MakingError> {
    let boundary = || chain.boundary().to_owned();
    let gone = |seq| MakingError::Gone { boundary: boundary(), seq };
    let last = chain.record(seq, None)?.ok_or_else(|| gone(seq))?;
    let started = last.record.chain().started_ref;
    let mut back = vec![last.envelope];
    for before in (seq.saturating_sub(STRETCH_MAX)..seq).rev() {
        let found = chain.record(before, None)?.ok_or_else(|| gone(before))?;
        let is_intent = Some(found.digest) == started;
        back.push(found.envelope);
        if is_intent {
            back.reverse();
            return Ok(back);
        }
    }
    Err(MakingError::NoIntent { boundary: boundary(), seq })
}

/// What all receipts of one batch share.
#[derive(Clone, Debug)]
pub struct Shared {
    chain: ChainId,
    tenant: TenantId,
    attestation: Attestation,
    attested: log::proof::Inclusion,
    attested_in: Sealed,
    /// The tree of the batch's receipts, and the leaf of each.
    receipts: Log,
    leaves: Vec<LeafHash>,
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
        let Some(sealed) = class.sealed_header(height).await? else { return Ok(None) };
        let bytes = |error: BytesError| error.to_string();
        let (mut receipts, mut leaves) = (Log::new(), Vec::new());
        for record in class.records_of_batch(&batch).await? {
            if let Some(leaf) = record.leaf {
                receipts.append(leaf);
                leaves.push(LeafHash(leaf));
            }
        }
        Ok(Some(Self {
            chain,
            tenant: TenantId(batch.tenant),
            attestation: Attestation::from_bytes(&attestation).map_err(bytes).map_err(|r| kept("attestation", r))?,
            attested: log::proof::Inclusion::from_bytes(&inclusion).map_err(bytes).map_err(|r| kept("path", r))?,
            attested_in: read_sealed(&sealed).map_err(|error| kept("header", error.to_string()))?,
            receipts,
            leaves,
        }))
    }
}

/// Evidence of a receipt, with its finality and availability.
///
/// # Errors
/// [`MakingError`].
pub async fn make(class: &Class, shared: &Shared, chain: &Chain, record: &Record) -> Result<Evidence, MakingError> {
    let kept = |what, reason: String| {
        let (boundary, seq) = (record.boundary.clone(), record.seq);
        MakingError::Kept { what, boundary, seq, reason }
    };
    let not_final = || MakingError::NotFinal { boundary: record.boundary.clone(), seq: record.seq };
    let leaf = record.leaf.ok_or_else(not_final)?;
    let Inclusion { height, bytes } = class.inclusion(&leaf).await?.ok_or_else(not_final)?;
    let sealed = class.sealed_header(height).await?.ok_or_else(not_final)?;
    let sealed = read_sealed(&sealed).map_err(|error| kept("header", error.to_string()))?;
    let inclusion = log::proof::Inclusion::from_bytes(&bytes).map_err(|error| kept("inclusion", error.to_string()))?;
    let place = shared.leaves.iter().position(|each| each.0 == leaf).ok_or_else(not_final)? as u64;
    let receipt = shared.receipts.prove_inclusion(place, shared.receipts.size());
    let receipt = receipt.map_err(|error| kept("place in its batch", error.to_string()))?;
    let same = shared.attested_in.header == sealed.header;
    let availability = Availability {
        attestation: shared.attestation.clone(),
        attested: shared.attested.clone(),
        receipt,
        sealed: (!same).then(|| Box::new(shared.attested_in.clone())),
    };
    let Sealed { header, seal, set } = sealed;
    let finality = Finality { chain: shared.chain, tenant: shared.tenant, header, seal, set, inclusion };
    let records = stretch(chain, record.seq)?;
    Ok(Evidence::of(&records)?.with_finality(finality).with_availability(availability))
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
    fs::create_dir_all(&draft).map_err(failed(&draft))?;
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
