//! Writes evidence as a new folder. Part of `receipts export`, `run --receipt-dir`, `export` and `redact`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use bpi_protocol::chain::Record;
use bpi_protocol::evidence::{CHAIN_BYTES_MAX, Evidence, EvidenceError};
use docklock::spool::{Spool, SpoolError};

use crate::failure::Failure;

/// Writes the evidence of the receipt at `seq` to the new folder `dir`. A failure leaves no folder.
pub(crate) fn write(spool: &Spool, seq: u64, dir: &Path) -> Result<(), Failure> {
    write_files(dir, &gather(spool, seq)?.to_files())
}

/// Writes these files to the new folder `dir`. A failure leaves no folder.
pub(crate) fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Failure> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Failure::Exists { path: dir.to_path_buf() });
        }
        other => other.map_err(|source| Failure::File { deed: "make the folder", path: dir.to_path_buf(), source })?,
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        if let Err(source) = fs::write(&path, bytes) {
            fs::remove_dir_all(dir).map_err(|source| Failure::File {
                deed: "remove",
                path: dir.to_path_buf(),
                source,
            })?;
            return Err(Failure::File { deed: "write", path, source });
        }
    }
    Ok(())
}

/// Writes the configuration of the receipt at `seq` to a new file, where the spool has kept it.
pub(crate) fn write_config(spool: &Spool, seq: u64, path: &Path) -> Result<(), Failure> {
    let stored = spool.record(seq)?;
    let Record::Receipt(receipt) = &stored.record else {
        let boundary = spool.boundary().to_string();
        return Err(Failure::NotAReceipt { boundary, seq, kind: stored.record.kind() });
    };
    let digest = receipt.run.config.digest;
    let Some(config) = spool.config(&digest)? else {
        return Err(Failure::NoConfig { looked: format!("the spool has not kept {digest}") });
    };
    fs::write(path, config).map_err(|source| Failure::File { deed: "write", path: path.to_path_buf(), source })
}

/// The envelopes from the intent to its receipt, both included.
fn gather(spool: &Spool, seq: u64) -> Result<Evidence, Failure> {
    let receipt = spool.record(seq)?;
    let boundary = spool.boundary().to_string();
    let Some(started_ref) = receipt.link().started_ref else {
        return Err(Failure::NotAReceipt { boundary, seq, kind: receipt.record.kind() });
    };
    let kind = receipt.record.kind();
    let mut bytes = receipt.envelope.to_json().len();
    let mut backwards = vec![receipt.envelope];
    for before in (0..seq).rev() {
        let record = spool.record(before)?;
        let is_intent = record.digest == started_ref;
        bytes += record.envelope.to_json().len() + 1;
        if bytes > CHAIN_BYTES_MAX {
            return Err(Failure::TooFar { boundary, seq, limit: CHAIN_BYTES_MAX });
        }
        backwards.push(record.envelope);
        if is_intent {
            backwards.reverse();
            return Evidence::of(&backwards).map_err(|error: EvidenceError| match error {
                EvidenceError::NotAReceipt { .. } => Failure::NotAReceipt { boundary, seq, kind },
                other => Failure::EvidenceMalformed { path: spool.record_path(seq), reason: other.to_string() },
            });
        }
    }
    let evidence = format!("record {seq} closes an intent that is nowhere before it");
    Err(SpoolError::Missing { path: spool.record_path(seq), evidence }.into())
}
