//! Proof that a receipt is in the log of a final header: `finality.bin` of evidence.
//!
//! ```text
//! version 1 | chain 32 | tenant 16 | header 360 | seal 53 or 69 | validator set 10 + 146 each | inclusion 18 + 32 each
//! ```
//!
//! Some 2.5 KiB with nine validators and a million receipts, 4.8 KiB with twenty-five, and no larger however long the chain is: the set is
//! that of the header's epoch, and nothing of what came before is needed by who trusts it.
//!
//! Always true: what is read is the canonical form of what it says, no longer than [`FINALITY_BYTES_MAX`]. Absent on purpose: trust. Chain,
//! set and header are a stranger's words until [`crate::verify`] has found the chain and its set in the trust file.

use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::consensus::header::{HEADER_BYTES, Header};
use crate::consensus::ids::ChainId;
use crate::consensus::seal::{Seal, Votes};
use crate::consensus::validators::{SET_BYTES_MAX, SetError, ValidatorSet};
use crate::envelope::Envelope;
use crate::log::leaf::{Leaf, LeafHash, TenantId};
use crate::log::proof::{Inclusion, ProofError};

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// Hashes of an inclusion path, at most: one for each level of a log of [`crate::log::LEAVES_MAX`] leaves.
const PATH_MAX: usize = 53;

/// Bytes of a proof, at most.
pub const FINALITY_BYTES_MAX: usize =
    1 + 32 + 16 + HEADER_BYTES + (1 + Votes::BYTES) + SET_BYTES_MAX + (1 + 1 + 8 + 8 + PATH_MAX * 32);

/// Why bytes are no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FinalityError {
    /// Of header, seal or inclusion, or of their order.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// The validators are no set.
    #[error("the validators: {0}")]
    Set(#[from] SetError),
}

/// Where a receipt stands in the log of a chain, and what makes that final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finality {
    /// The chain that the seal is for.
    pub chain: ChainId,
    /// Whose receipt the leaf says it is.
    pub tenant: TenantId,
    /// The header whose log the leaf is in.
    pub header: Header,
    /// What makes it final.
    pub seal: Seal,
    /// Who votes on it.
    pub set: ValidatorSet,
    /// The way from the leaf to `header.receipts`.
    pub inclusion: Inclusion,
}

impl Finality {
    /// The log's name for a receipt of the tenant.
    pub fn leaf_hash(&self, receipt: &Envelope) -> LeafHash {
        Leaf::of(self.tenant, receipt).leaf_hash()
    }

    /// Checks that the receipt is in the header's log; whether the header is final is another question.
    ///
    /// # Errors
    /// When that is not shown.
    pub fn check_inclusion(&self, receipt: &Envelope) -> Result<(), ProofError> {
        self.inclusion.check(&self.leaf_hash(receipt).0, &self.header.receipts)
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).bytes(&self.chain.0).bytes(&self.tenant.0).bytes(&self.header.to_bytes());
        self.seal.write(&mut out);
        self.set.write(&mut out);
        out.bytes(&self.inclusion.to_bytes());
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FinalityError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => {
                return Err(BytesError::Value { field: "version of a proof of finality", value: other.into() }.into());
            }
        }
        let (chain, tenant) = (ChainId(reader.array()?), TenantId(reader.array()?));
        let (header, seal) = (Header::read(&mut reader)?, Seal::read(&mut reader)?);
        let set = ValidatorSet::read(&mut reader)?;
        let inclusion = Inclusion::from_bytes(reader.rest())?;
        Ok(Self { chain, tenant, header, seal, set, inclusion })
    }
}
