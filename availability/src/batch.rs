//! A batch: records of one tenant, as they are sealed and spread, and back.
//!
//! The order is the caller's, who has the tenant's chain; receipts and aborts stand in `receipts_root` in that order. Always true: what [`unpack`]
//! hands out is what the batch that pinners and headers attest to commits to, by `receipts_root` for what closes and by the archive's root for all.
//! Absent on purpose: signatures and the chain of records, which their readers judge.

use bpi_protocol::availability::attestation::{Batch, RECEIPTS_MAX};
use bpi_protocol::availability::coding::{Coding, CodingError};
use bpi_protocol::chain::{Record, RecordError};
use bpi_protocol::envelope::{Envelope, EnvelopeError};
use bpi_protocol::log::leaf::{Leaf, LeafHash, TenantId};
use bpi_protocol::log::{Frontier, Hash};
use ipld_core::cid::Cid;
use rand_core::CryptoRng;

use crate::car::{self, Block, CarError, Kind};
use crate::codec::{self, CodecError, Encoded};
use crate::sealing::{self, KeySlot, ReaderId, ReaderKey, SealingError};

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// An envelope is none.
    #[error("record {at}: {source}")]
    Envelope {
        /// Which, from 0.
        at: usize,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// An envelope that is not spelled as its leaf in the log has it.
    #[error("record {at} is not the canonical JSON of its envelope")]
    Spelling {
        /// Which, from 0.
        at: usize,
    },
    /// An envelope holds no record.
    #[error("record {at}: {source}")]
    Record {
        /// Which, from 0.
        at: usize,
        /// What is wrong.
        source: RecordError,
    },
    /// A record is another kind than the archive says.
    #[error("record {at} is {found:?}, and the archive says {said:?}")]
    Kind {
        /// Which, from 0.
        at: usize,
        /// What it is.
        found: Kind,
        /// What it is said to be.
        said: Kind,
    },
    /// Nothing closes, or too much.
    #[error("{found} receipts and aborts; a batch has 1 to {RECEIPTS_MAX}")]
    Receipts {
        /// How many.
        found: usize,
    },
    /// The batch is another tenant's.
    #[error("the archive is tenant {found}'s, and the batch tenant {wanted}'s")]
    Tenant {
        /// Whose it is.
        found: TenantId,
        /// Whose it should be.
        wanted: TenantId,
    },
    /// The receipts are not those that the batch commits to.
    #[error("the archive has {found} receipts and aborts with another root than the {wanted} of the batch")]
    Root {
        /// How many there are.
        found: u32,
        /// How many there should be.
        wanted: u32,
    },
    /// No archive.
    #[error(transparent)]
    Car(#[from] CarError),
    /// Not to be sealed or opened.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// Not to be coded.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// Not to be coded here.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// A batch before it is coded.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Whose.
    pub tenant: TenantId,
    /// What is coded and spread.
    pub sealed: Vec<u8>,
    /// The CID of the archive's root.
    pub root_cid: Cid,
    /// The batch's key, wrapped for each reader.
    pub slots: Vec<KeySlot>,
    /// The log's leaves of receipts and aborts, in order: `receipts_root` is over these.
    pub leaves: Vec<LeafHash>,
    /// The root over them.
    pub receipts_root: Hash,
}

/// A batch that was opened.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The CID of the archive's root.
    pub root_cid: Cid,
    /// The records, in order.
    pub records: Vec<(Kind, Envelope)>,
}

impl Packed {
    /// What it is to who cannot read it, once it is coded.
    pub fn batch(&self, encoded: &Encoded) -> Batch {
        Batch {
            tenant: self.tenant,
            coding: encoded.coding,
            da_root: encoded.da_root,
            // At most `RECEIPTS_MAX`.
            receipts: self.leaves.len() as u32,
            receipts_root: self.receipts_root,
        }
    }

    /// Codes it into n shards, any k of which are enough.
    ///
    /// # Errors
    /// [`BatchError`] for numbers that cannot be, and a processor that cannot.
    pub fn encode(&self, k: u16, n: u16) -> Result<(Batch, Encoded), BatchError> {
        let encoded = codec::encode(Coding::new(k, n, self.sealed.len() as u64)?, &self.sealed)?;
        Ok((self.batch(&encoded), encoded))
    }
}

/// What a record is.
///
/// # Errors
/// When the envelope holds no record.
pub fn kind(envelope: &Envelope) -> Result<Kind, RecordError> {
    Record::parse(envelope).map(|record| Kind::from(&record))
}

impl From<&Record> for Kind {
    fn from(record: &Record) -> Self {
        match record {
            Record::Intent(_) => Self::Intent,
            Record::Receipt(_) => Self::Receipt,
            Record::Abort(_) => Self::Abort,
        }
    }
}

/// The root over leaves in this order (RFC 9162, section 2.1.1).
pub fn receipts_root(leaves: &[LeafHash]) -> Hash {
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|leaf| {
        frontier.append(leaf.0);
    });
    frontier.head().root
}

/// Packs records of a tenant and seals them for its readers.
///
/// # Errors
/// [`BatchError`]; it names the record.
pub fn pack(
    tenant: TenantId,
    envelopes: &[Envelope],
    readers: &[ReaderId],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Packed, BatchError> {
    let block = |(at, envelope)| match kind(envelope) {
        Ok(kind) => Ok(Block::new(kind, envelope.to_json())),
        Err(source) => Err(BatchError::Record { at, source }),
    };
    let records: Vec<Block> = envelopes.iter().enumerate().map(block).collect::<Result<_, _>>()?;
    pack_blocks(tenant, &records, readers, rng)
}

/// The same, for who has read the records: each block is the [`Envelope::to_json`] of one, with the kind that it has.
///
/// # Errors
/// [`BatchError`].
pub fn pack_blocks(
    tenant: TenantId,
    records: &[Block],
    readers: &[ReaderId],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Packed, BatchError> {
    let leaves: Vec<LeafHash> =
        records.iter().filter_map(|record| leaf(tenant, record)).map(|it| it.leaf_hash()).collect();
    closes(leaves.len())?;
    let mut archive = Vec::with_capacity(car::archive_bytes(records.iter().map(|record| record.bytes().len())));
    let root_cid = car::write(&mut archive, tenant, records)?;
    let (sealed, slots) = sealing::seal(&archive, tenant, readers, rng)?;
    Ok(Packed { tenant, sealed, root_cid, slots, receipts_root: receipts_root(&leaves), leaves })
}

/// What the log holds of a record: nothing of an intent.
pub fn leaf(tenant: TenantId, record: &Block) -> Option<Leaf> {
    record.kind().closes().then(|| Leaf { tenant, hash: record.sha256() })
}

fn closes(found: usize) -> Result<(), BatchError> {
    let fits = (1..=RECEIPTS_MAX as usize).contains(&found);
    if fits { Ok(()) } else { Err(BatchError::Receipts { found }) }
}

/// Opens a batch and checks that it holds what it commits to.
///
/// # Errors
/// [`BatchError`]; nothing of it is handed out then.
pub fn unpack(batch: &Batch, sealed: &[u8], slot: &KeySlot, reader: &ReaderKey) -> Result<Unpacked, BatchError> {
    let archive = sealing::open(sealed, batch.tenant, slot, reader)?;
    let mut reader = car::Reader::new(&archive[..])?;
    if reader.tenant() != batch.tenant {
        return Err(BatchError::Tenant { found: reader.tenant(), wanted: batch.tenant });
    }
    let (mut records, mut leaves) = (Vec::with_capacity(reader.records()), Vec::new());
    while let Some((said, bytes)) = reader.next_record()? {
        let at = records.len();
        let envelope = Envelope::from_json(&bytes).map_err(|source| BatchError::Envelope { at, source })?;
        if envelope.to_json() != bytes {
            return Err(BatchError::Spelling { at });
        }
        let found = kind(&envelope).map_err(|source| BatchError::Record { at, source })?;
        if found != said {
            return Err(BatchError::Kind { at, found, said });
        }
        if found.closes() {
            leaves.push(Leaf::of(batch.tenant, &envelope).leaf_hash());
        }
        records.push((found, envelope));
    }
    closes(leaves.len())?;
    if leaves.len() != batch.receipts as usize || receipts_root(&leaves) != batch.receipts_root {
        return Err(BatchError::Root { found: leaves.len() as u32, wanted: batch.receipts });
    }
    Ok(Unpacked { root_cid: *reader.root(), records })
}
