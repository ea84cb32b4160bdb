//! What pinners say of a batch, and what a header may commit to.
//!
//! ```text
//! batch            tenant 16 | coding 22 | da_root 32 | receipts count 4, root 32                      106
//! acknowledgement  pinner 32 | shards 32 | until (s since 1970) 8 | signature 64                       136
//! attestation      version 1 | batch | count 1 | acknowledgement …, ascending by pinner, at most 64
//! ```
//!
//! A pinner signs `"bpi/1 shards are kept" || chain 32 || batch 106 || shards 32 || until 8` when the shards are durable, never before. `receipts` is the
//! tree (RFC 9162, section 2.1.1) over the log's leaves of the batch's receipts and aborts, in their order in the CAR.

use crate::availability::coding::Coding;
use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::consensus::ids::ChainId;
use crate::key::PublicKey;
use crate::log::leaf::TenantId;
use crate::log::{Hash, leaf_hash};

/// Version of the layout of an attestation, the first byte.
const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"bpi/1 shards are kept";
/// Receipts of a batch, at most.
pub const RECEIPTS_MAX: u32 = 1024;
/// Pinners of an attestation, at most.
pub const PINNERS_MAX: usize = 64;
/// Bytes of a batch.
pub const BATCH_BYTES: usize = 16 + 22 + 32 + 4 + 32;
/// Bytes of an acknowledgement.
pub const ACKNOWLEDGEMENT_BYTES: usize = 32 + 32 + 8 + 64;
/// Bytes of an attestation, at most.
pub const ATTESTATION_BYTES_MAX: usize = 1 + BATCH_BYTES + 1 + PINNERS_MAX * ACKNOWLEDGEMENT_BYTES;

/// What a batch is to who cannot read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Whose.
    pub tenant: TenantId,
    /// How it is coded.
    pub coding: Coding,
    /// The commitment to its shards.
    pub da_root: Hash,
    /// Receipts and aborts in it, at least one and at most [`RECEIPTS_MAX`].
    pub receipts: u32,
    /// The root over their leaves.
    pub receipts_root: Hash,
}

/// Numbers of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    /// Adds a shard.
    #[must_use]
    pub fn with(mut self, shard: u8) -> Self {
        self.0[usize::from(shard / 64)] |= 1 << (shard % 64);
        self
    }

    /// True when it is in.
    pub fn contains(&self, shard: u8) -> bool {
        self.0[usize::from(shard / 64)] >> (shard % 64) & 1 == 1
    }

    /// Those of both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// How many.
    pub fn len(&self) -> u16 {
        self.0.iter().map(|word| word.count_ones() as u16).sum()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=255).filter(move |shard| self.contains(*shard))
    }

    /// True when all are below n.
    pub fn within(self, n: u16) -> bool {
        self.iter().all(|shard| u16::from(shard) < n)
    }

    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        self.0.iter().for_each(|word| {
            out.u64(*word);
        });
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        Ok(Self([reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?]))
    }
}

impl FromIterator<u8> for ShardSet {
    fn from_iter<I: IntoIterator<Item = u8>>(shards: I) -> Self {
        shards.into_iter().fold(Self::default(), Self::with)
    }
}

/// "These shards of this batch are on my disk, and stay there until then."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Acknowledgement {
    /// The Ed25519 identity of who says so.
    pub pinner: [u8; 32],
    /// Which.
    pub shards: ShardSet,
    /// Until when, in s since 1970.
    pub until_s: u64,
    /// Over [`Acknowledgement::statement`].
    pub signature: [u8; 64],
}

impl Batch {
    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.bytes(&self.tenant.0);
        self.coding.write(out);
        out.bytes(&self.da_root).u32(self.receipts).bytes(&self.receipts_root);
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end, or say what no batch is.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let (tenant, coding, da_root) = (TenantId(reader.array()?), Coding::read(reader)?, reader.array()?);
        let receipts = reader.u32()?;
        if receipts == 0 || receipts > RECEIPTS_MAX {
            return Err(BytesError::Value { field: "receipts of a batch", value: receipts.into() });
        }
        Ok(Self { tenant, coding, da_root, receipts, receipts_root: reader.array()? })
    }
}

impl Acknowledgement {
    /// What a pinner signs.
    pub fn statement(chain: ChainId, batch: &Batch, shards: ShardSet, until_s: u64) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(DOMAIN).bytes(&chain.0);
        batch.write(&mut out);
        shards.write(&mut out);
        out.u64(until_s);
        out.done()
    }

    /// True when the signature is its pinner's.
    pub fn is_signed(&self, chain: ChainId, batch: &Batch) -> bool {
        let statement = Self::statement(chain, batch, self.shards, self.until_s);
        PublicKey::from_raw(&self.pinner).is_ok_and(|key| key.verify(&statement, &self.signature).is_ok())
    }

    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.bytes(&self.pinner);
        self.shards.write(out);
        out.u64(self.until_s).bytes(&self.signature);
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let (pinner, shards) = (reader.array()?, ShardSet::read(reader)?);
        Ok(Self { pinner, shards, until_s: reader.u64()?, signature: reader.array()? })
    }
}

/// A batch that enough of its pinners keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Which.
    pub batch: Batch,
    /// Who says so, ascending by pinner.
    pub acknowledgements: Vec<Acknowledgement>,
}

/// Why an attestation shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// A pinner that does not count.
    #[error("pinner {} is none that the chain knows", hex::encode(pinner))]
    Stranger {
        /// Which.
        pinner: [u8; 32],
    },
    /// A shard that there is none of.
    #[error("pinner {} acknowledges a shard beyond the {n} that there are", hex::encode(pinner))]
    Shard {
        /// Who says so.
        pinner: [u8; 32],
        /// How many there are.
        n: u16,
    },
    /// It is kept for too short a time.
    #[error("pinner {} keeps its shards until {until_s}, and {wanted_s} is wanted", hex::encode(pinner))]
    Short {
        /// Who says so.
        pinner: [u8; 32],
        /// Until when.
        until_s: u64,
        /// Until when it has to be.
        wanted_s: u64,
    },
    /// A signature that is none.
    #[error("the signature of pinner {} does not hold", hex::encode(pinner))]
    Signature {
        /// Whose.
        pinner: [u8; 32],
    },
    /// Not enough of them.
    #[error("{found} of {n} shards are acknowledged, and {wanted} are needed")]
    Few {
        /// Acknowledged.
        found: u16,
        /// Needed.
        wanted: u16,
        /// There are.
        n: u16,
    },
}

impl Attestation {
    /// The leaf that stands for it in the tree of a header's `da_root` (RFC 9162, section 2.1.1).
    pub fn leaf_hash(&self) -> Hash {
        leaf_hash(&self.to_bytes())
    }

    /// Shards that are acknowledged by anybody.
    pub fn shards(&self) -> ShardSet {
        self.acknowledgements.iter().fold(ShardSet::default(), |all, each| all.union(each.shards))
    }

    /// Checks that enough shards are kept until `wanted_s` (in s since 1970), by pinners that `is_pinner` lets count.
    ///
    /// # Errors
    /// [`AttestationError`] for the first thing that does not hold.
    pub fn check(
        &self,
        chain: ChainId,
        wanted_s: u64,
        is_pinner: impl Fn(&[u8; 32]) -> bool,
    ) -> Result<(), AttestationError> {
        let (n, wanted) = (self.batch.coding.n(), self.batch.coding.acknowledged_min());
        // Counting costs nothing and signatures do, so those who send nonsense are refused before.
        for &Acknowledgement { pinner, shards, until_s, .. } in &self.acknowledgements {
            if !is_pinner(&pinner) {
                return Err(AttestationError::Stranger { pinner });
            }
            if !shards.within(n) {
                return Err(AttestationError::Shard { pinner, n });
            }
            if until_s < wanted_s {
                return Err(AttestationError::Short { pinner, until_s, wanted_s });
            }
        }
        let found = self.shards().len();
        if found < wanted {
            return Err(AttestationError::Few { found, wanted, n });
        }
        match self.acknowledgements.iter().find(|each| !each.is_signed(chain, &self.batch)) {
            Some(Acknowledgement { pinner, .. }) => Err(AttestationError::Signature { pinner: *pinner }),
            None => Ok(()),
        }
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.done()
    }

    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u8(VERSION);
        self.batch.write(out);
        out.u8(self.acknowledgements.len() as u8);
        self.acknowledgements.iter().for_each(|each| each.write(out));
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end or are none, a list is longer than it may be, or the pinners do not ascend.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of an attestation", value: other.into() }),
        }
        let batch = Batch::read(reader)?;
        let count = usize::from(reader.u8()?);
        if count > PINNERS_MAX {
            return Err(BytesError::Count { field: "pinners of an attestation", count, max: PINNERS_MAX });
        }
        let acknowledgements = (0..count).map(|_| Acknowledgement::read(reader)).collect::<Result<Vec<_>, _>>()?;
        match acknowledgements.windows(2).position(|pair| pair[0].pinner >= pair[1].pinner) {
            Some(at) => {
                Err(BytesError::Value { field: "place of a pinner that does not ascend", value: at as u64 + 1 })
            }
            None => Ok(Self { batch, acknowledgements }),
        }
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// As [`Attestation::read`], and when bytes are left.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let attestation = Self::read(&mut reader)?;
        reader.end()?;
        Ok(attestation)
    }
}
