//! Proof that a receipt's data can be had: `availability.bin` of evidence.
//!
//! ```text
//! version 1 | attestation | length 2, its path to da_root | length 2, the receipt's path to receipts_root | 0, or 1 and a sealed header
//! ```
//!
//! The header is that of `finality.bin` (0), or one of its own (1). Some 700 bytes with three pinners and a thousand receipts.
//!
//! Always true: what is read is the canonical form of what it says, no longer than [`AVAILABILITY_BYTES_MAX`]. Absent on purpose: trust, which is
//! [`crate::verify`]'s; and the size of the tree under `da_root`, which no header says: a path proves that the attestation is under the root, and where is
//! nobody's concern.

use crate::availability::attestation::{ATTESTATION_BYTES_MAX, Attestation};
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::consensus::header::{HEADER_BYTES, Header, LogHead};
use crate::consensus::seal::Votes;
use crate::consensus::validators::SET_BYTES_MAX;
use crate::log::leaf::LeafHash;
use crate::log::proof::{Inclusion, ProofError};
use crate::mesh::validator::{AnswerError, Sealed};

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// Bytes of a path with its place and size, at most.
const INCLUSION_BYTES_MAX: usize = 18 + 53 * 32;

/// Bytes of a proof, at most.
pub const AVAILABILITY_BYTES_MAX: usize =
    1 + ATTESTATION_BYTES_MAX + 2 * (2 + INCLUSION_BYTES_MAX) + 1 + HEADER_BYTES + (1 + Votes::BYTES) + SET_BYTES_MAX;

/// What shows that a receipt's data can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    /// The batch, and who keeps it.
    pub attestation: Attestation,
    /// The way from [`Attestation::leaf_hash`] to the header's `da_root`.
    pub attested: Inclusion,
    /// The way from the receipt's leaf to the batch's `receipts_root`.
    pub receipt: Inclusion,
    /// The header that commits to it, unless that is the one of `finality.bin`.
    pub sealed: Option<Box<Sealed>>,
}

impl Availability {
    /// Checks that a header commits to the attestation; whether the header is final is another question.
    ///
    /// # Errors
    /// When that is not shown.
    pub fn check_attested(&self, header: &Header) -> Result<(), ProofError> {
        let head = LogHead { size: self.attested.size, root: header.da_root };
        self.attested.check(&self.attestation.leaf_hash(), &head)
    }

    /// Checks that a receipt is in the batch.
    ///
    /// # Errors
    /// When that is not shown.
    pub fn check_receipt(&self, leaf: &LeafHash) -> Result<(), ProofError> {
        let batch = &self.attestation.batch;
        self.receipt.check(&leaf.0, &LogHead { size: batch.receipts.into(), root: batch.receipts_root })
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.attestation.write(out.u8(VERSION));
        for inclusion in [&self.attested, &self.receipt] {
            let bytes = inclusion.to_bytes();
            out.u16(bytes.len() as u16).bytes(&bytes);
        }
        match &self.sealed {
            None => {
                out.u8(0);
            }
            Some(sealed) => sealed.write(out.u8(1)),
        }
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnswerError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => {
                let value = other.into();
                return Err(BytesError::Value { field: "version of a proof of availability", value }.into());
            }
        }
        let attestation = Attestation::read(&mut reader)?;
        let mut inclusion = || {
            let count = reader.count("bytes of an inclusion", INCLUSION_BYTES_MAX)?;
            Inclusion::from_bytes(reader.take(count)?)
        };
        let (attested, receipt) = (inclusion()?, inclusion()?);
        let sealed = match reader.flag("header of its own")? {
            true => Some(Box::new(Sealed::read(&mut reader)?)),
            false => None,
        };
        reader.end()?;
        Ok(Self { attestation, attested, receipt, sealed })
    }
}
