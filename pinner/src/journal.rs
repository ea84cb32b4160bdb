//! The log of a pinner: what it has kept, lost, mended and let go, each entry chained to the one before.
//!
//! ```text
//! entry    version 1 | number 8 | time (s since 1970) 8 | kind 1 | da_root 32 | shard 2 (65535: the batch) | length 2 | detail
//! digest   SHA-256("bpi/1 log of a pinner" || digest of the entry before || entry); before the first it is 32 zeros
//! ```
//!
//! Always true: an entry is never changed or removed, and the head covers all of them: who has once seen a head can tell whether the log goes on from it.

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::log::Hash;
use sha2::{Digest as _, Sha256};

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"bpi/1 log of a pinner";
/// Bytes of a detail, at most.
pub const DETAIL_BYTES_MAX: usize = 512;
const WHOLE_BATCH: u16 = u16::MAX;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A shard is durable and was acknowledged.
    Kept = 1,
    /// A shard was let go at its time.
    Released = 2,
    /// What is on the medium is not the shard, or there is nothing.
    ScrubbedBad = 3,
    /// A shard was made anew of others.
    Repaired = 4,
    /// A batch is proved to be wrongly encoded.
    RefusedWrong = 5,
}

impl EntryKind {
    const ALL: [Self; 5] = [Self::Kept, Self::Released, Self::ScrubbedBad, Self::Repaired, Self::RefusedWrong];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Released => "released",
            Self::ScrubbedBad => "scrubbed-bad",
            Self::Repaired => "repaired",
            Self::RefusedWrong => "refused-wrong",
        }
    }
}

/// One entry, without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in s since 1970.
    pub time_s: u64,
    /// What.
    pub kind: EntryKind,
    /// Of which batch.
    pub da_root: Hash,
    /// Of which shard. `None`: of the batch.
    pub shard: Option<u8>,
    /// In words.
    pub detail: String,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 0.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// What covers the whole log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Entries.
    pub length: u64,
    /// The digest of the last one; zeros when there is none.
    pub digest: Hash,
}

impl Entry {
    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Event { time_s, kind, da_root, shard, detail } = &self.event;
        let cut = detail.floor_char_boundary(DETAIL_BYTES_MAX);
        let mut out = Writer::new();
        out.u8(VERSION).u64(self.number).u64(*time_s).u8(*kind as u8).bytes(da_root);
        out.u16(shard.map_or(WHOLE_BATCH, u16::from)).u16(cut as u16).bytes(&detail.as_bytes()[..cut]);
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let value = |field, value: u64| BytesError::Value { field, value };
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(value("version of an entry", version.into()));
        }
        let (number, time_s, kind) = (reader.u64()?, reader.u64()?, reader.u8()?);
        let found = EntryKind::ALL.into_iter().find(|each| *each as u8 == kind);
        let kind = found.ok_or(value("kind of an entry", kind.into()))?;
        let (da_root, shard) = (reader.array()?, reader.u16()?);
        let shard = match shard {
            WHOLE_BATCH => None,
            shard => Some(u8::try_from(shard).map_err(|_| value("shard of an entry", shard.into()))?),
        };
        let length = reader.count("bytes of a detail", DETAIL_BYTES_MAX)?;
        let detail = std::str::from_utf8(reader.take(length)?);
        let detail = detail.map_err(|_| value("detail that is no text, of length", length as u64))?.to_owned();
        reader.end()?;
        Ok(Self { number, event: Event { time_s, kind, da_root, shard, detail } })
    }
}

impl Head {
    /// The head after the bytes of one entry more.
    pub fn after(&self, entry: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(self.digest).chain_update(entry).finalize();
        Self { length: self.length + 1, digest: digest.into() }
    }

    /// Its bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u64(self.length).bytes(&self.digest);
        out.done()
    }

    /// Reads its bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let head = Self { length: reader.u64()?, digest: reader.array()? };
        reader.end()?;
        Ok(head)
    }
}
