//! A header: what a block is to validators. They never see what it commits to.

use super::bytes::{BytesError, Reader, Writer};
use super::ids::{Epoch, HeaderDigest, Height, Round, SetDigest, TimeMs, ValidatorIndex};
use super::scheme::Signature;

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// Bytes of a header, always.
pub const HEADER_BYTES: usize = 1 + 8 + 4 + 32 + 8 + 40 + 32 + 32 + 40 + 40 + 49 + 8 + 32 + 32 + 2;

/// The growing log of receipts after a header: its size and its Merkle tree head (RFC 9162, section 2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogHead {
    /// Leaves.
    pub size: u64,
    /// Root over all of them.
    pub root: [u8; 32],
}

impl Default for LogHead {
    /// Without leaves, as in a genesis: the root is then the hash of no bytes.
    fn default() -> Self {
        Self { size: 0, root: crate::log::EMPTY_ROOT }
    }
}

/// How far the force-inclusion inbox of the first layer has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InboxAnchor {
    /// Height of the first layer's block.
    pub height: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// The end of the chain of hashes that shows order and delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PohEnd {
    /// Hashes since genesis.
    pub count: u64,
    /// The last one.
    pub hash: [u8; 32],
}

/// What the proposers of the next height are drawn by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Seed {
    /// Those who voted on the parent have no group key: each in turn by height.
    #[default]
    RoundRobin,
    /// The unique threshold signature of the parent's validators over [`super::statement::seed`] of this height.
    Threshold(Signature),
}

/// What validators agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// One more than the parent's.
    pub height: Height,
    /// The round in which it was first proposed. It may be sealed in a later one, unchanged.
    pub round: Round,
    /// The header before.
    pub parent: HeaderDigest,
    /// When it was made, later than its parent.
    pub time: TimeMs,
    /// All receipts up to here.
    pub receipts: LogHead,
    /// The availability attestations of this header's data.
    pub da_root: [u8; 32],
    /// The answers to the inclusion list.
    pub inclusion_list_root: [u8; 32],
    /// How far the inbox is served.
    pub inbox: InboxAnchor,
    /// The chain of hashes.
    pub poh: PohEnd,
    /// The seed by which the proposers of the next header are chosen.
    pub seed: Seed,
    /// The epoch of `validators`.
    pub epoch: Epoch,
    /// Who votes on this header.
    pub validators: SetDigest,
    /// Who votes on the next one: another set only at the end of an epoch.
    pub next_validators: SetDigest,
    /// Who made it.
    pub proposer: ValidatorIndex,
}

impl Header {
    /// Canonical bytes, [`HEADER_BYTES`] of them.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).u64(self.height.0).u32(self.round.0).bytes(&self.parent.0).u64(self.time.0);
        out.u64(self.receipts.size).bytes(&self.receipts.root);
        out.bytes(&self.da_root).bytes(&self.inclusion_list_root);
        out.u64(self.inbox.height).bytes(&self.inbox.hash);
        out.u64(self.poh.count).bytes(&self.poh.hash);
        match &self.seed {
            Seed::RoundRobin => out.u8(0).bytes(&[0; 48]),
            Seed::Threshold(signature) => out.u8(1).bytes(&signature.0),
        };
        out.u64(self.epoch.0).bytes(&self.validators.0).bytes(&self.next_validators.0).u16(self.proposer.0);
        out.done()
    }

    /// Takes a header from a reader.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of a header", value: other.into() }),
        }
        Ok(Self {
            height: Height(reader.u64()?),
            round: Round(reader.u32()?),
            parent: HeaderDigest(reader.array()?),
            time: TimeMs(reader.u64()?),
            receipts: LogHead { size: reader.u64()?, root: reader.array()? },
            da_root: reader.array()?,
            inclusion_list_root: reader.array()?,
            inbox: InboxAnchor { height: reader.u64()?, hash: reader.array()? },
            poh: PohEnd { count: reader.u64()?, hash: reader.array()? },
            seed: read_seed(reader)?,
            epoch: Epoch(reader.u64()?),
            validators: SetDigest(reader.array()?),
            next_validators: SetDigest(reader.array()?),
            proposer: ValidatorIndex(reader.u16()?),
        })
    }

    /// Reads canonical bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let header = Self::read(&mut reader)?;
        reader.end()?;
        Ok(header)
    }

    /// What votes are for.
    pub fn digest(self) -> HeaderDigest {
        HeaderDigest::of(&self.to_bytes())
    }
}

fn read_seed(reader: &mut Reader<'_>) -> Result<Seed, BytesError> {
    let (method, bytes) = (reader.u8()?, reader.array::<48>()?);
    match method {
        0 if bytes == [0; 48] => Ok(Seed::RoundRobin),
        1 => Ok(Seed::Threshold(Signature(bytes))),
        value => Err(BytesError::Value { field: "method of a seed", value: value.into() }),
    }
}
