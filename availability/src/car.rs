//! The archive of a batch: CAR version 1 with one root.
//!
//! ```text
//! header        varint length | DAG-CBOR {"roots": [link of the root block], "version": 1}
//! root block    varint length | CID | DAG-CBOR {"kinds": bytes, "tenant": bytes, "records": [link, …], "version": 1}
//! record block  varint length | CID | envelope                                            … in the order of "records"
//! ```
//!
//! A CID is version 1, of SHA-256, and its codec DAG-CBOR (0x71) for the root and raw (0x55) for a record, which is an envelope as canonical JSON: so
//! the digest in a record's CID is the `hash` of its leaf in the log. `kinds` has a byte for each record: 1 intent, 2 receipt, 3 abort.
//!
//! Always true: an archive has one spelling, so its root's CID is the CID of all of it; each block is hashed before it is handed out; nothing is held
//! but the root block and one record. Absent on purpose: what the records say (`batch`).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use bpi_protocol::envelope::ENVELOPE_BYTES_MAX;
use bpi_protocol::log::leaf::TenantId;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Records of a batch, at most: each of 1024 that close has an intent, and twice as many may be open.
pub const RECORDS_MAX: usize = 4096;
/// Bytes of a CID: version, codec, hash and its length, and 32.
const CID_BYTES: usize = 4 + 32;
const DAG_CBOR: u64 = 0x71;
const RAW: u64 = 0x55;
const SHA_256: u64 = 0x12;
/// Bytes of the header's map: its frame, a link and two keys.
const HEADER_BYTES: usize = 58;
/// Bytes of the root block, at most: a link is 41 bytes and a kind 1, and the rest is below 128.
const ROOT_BYTES_MAX: usize = RECORDS_MAX * 42 + 128;
/// The root block's version.
const VERSION: u64 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// What was about to run.
    Intent = 1,
    /// What ran.
    Receipt = 2,
    /// What will never have a receipt.
    Abort = 3,
}

impl Kind {
    /// True for those that the log has a leaf of.
    pub fn closes(self) -> bool {
        self != Self::Intent
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Intent, Self::Receipt, Self::Abort].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// Reading or writing failed.
    #[error("could not {deed} the archive: {source}")]
    Io {
        /// What was tried.
        deed: &'static str,
        /// What the other end said.
        source: io::Error,
    },
    /// It ends before it should.
    #[error("the archive ends within {part}")]
    Short {
        /// Which part.
        part: Part,
    },
    /// It goes on behind the last record.
    #[error("something follows the last of {records} records in the archive")]
    Long {
        /// How many records there are.
        records: usize,
    },
    /// A part is longer or shorter than it can be.
    #[error("{part} of the archive has {bytes} bytes; it can have {min} to {max}")]
    Length {
        /// Which part.
        part: Part,
        /// Its length.
        bytes: u64,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A part has another spelling, or other fields.
    #[error("{part} of the archive is not what it has to be: {reason}")]
    Malformed {
        /// Which part.
        part: Part,
        /// What is wrong.
        reason: String,
    },
    /// A block is not what its CID says.
    #[error("{part} of the archive does not have the hash that its CID says")]
    Hash {
        /// Which.
        part: Part,
    },
    /// A block stands where another one belongs.
    #[error("{part} of the archive has the CID {found}, where {wanted} belongs")]
    Order {
        /// Which.
        part: Part,
        /// What stands there.
        found: Box<Cid>,
        /// What belongs there.
        wanted: Box<Cid>,
    },
    /// The archive would be empty, or too long.
    #[error("{found} records; a batch has 1 to {RECORDS_MAX}")]
    Count {
        /// How many.
        found: usize,
    },
    /// A record comes twice.
    #[error("{part} is in the archive already")]
    Twice {
        /// Which.
        part: Part,
    },
}

/// A part of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header.
    Header,
    /// The root block.
    Root,
    /// A record, from 0.
    Record(usize),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Root => f.write_str("the root block"),
            Self::Record(at) => write!(f, "record {at}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    roots: Vec<Cid>,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    #[serde(with = "serde_bytes")]
    kinds: Vec<u8>,
    #[serde(with = "serde_bytes")]
    tenant: Vec<u8>,
    records: Vec<Cid>,
    version: u64,
}

fn cid(codec: u64, bytes: &[u8]) -> Cid {
    named(codec, Sha256::digest(bytes).into())
}

fn named(codec: u64, digest: [u8; 32]) -> Cid {
    // A multihash of 64 bytes at most has room for 32.
    let hash = Multihash::wrap(SHA_256, &digest).unwrap_or_default();
    Cid::new_v1(codec, hash)
}

/// The CID of a record. Its digest is the hash of the record's leaf.
pub fn record_cid(envelope: &[u8]) -> Cid {
    cid(RAW, envelope)
}

fn to_cbor<T: Serialize>(part: Part, value: &T) -> Result<Vec<u8>, CarError> {
    serde_ipld_dagcbor::to_vec(value).map_err(|error| CarError::Malformed { part, reason: error.to_string() })
}

/// Reads DAG-CBOR in its one spelling.
fn from_cbor<T: Serialize + for<'de> Deserialize<'de>>(part: Part, bytes: &[u8]) -> Result<T, CarError> {
    let malformed = |reason| CarError::Malformed { part, reason };
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    match to_cbor(part, &value)? == bytes {
        true => Ok(value),
        false => Err(malformed("it is not spelled as DAG-CBOR has to be".to_owned())),
    }
}

/// A record as it stands in an archive, hashed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    kind: Kind,
    sha256: [u8; 32],
    bytes: Vec<u8>,
}

impl Block {
    /// Of a record of that kind. What a record says of its kind is looked at by who reads it (`crate::batch`).
    pub fn new(kind: Kind, bytes: Vec<u8>) -> Self {
        Self { kind, sha256: Sha256::digest(&bytes).into(), bytes }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The record.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the record: what its leaf is of, and its CID.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Its CID: [`record_cid`] of its bytes.
    pub fn cid(&self) -> Cid {
        named(RAW, self.sha256)
    }
}

/// Writes the archive of a tenant's records, in this order, and returns the CID of its root.
///
/// # Errors
/// [`CarError`] when there are no records or too many, one is too long or comes twice, or writing fails.
pub fn write(out: &mut impl Write, tenant: TenantId, records: &[Block]) -> Result<Cid, CarError> {
    if records.is_empty() || records.len() > RECORDS_MAX {
        return Err(CarError::Count { found: records.len() });
    }
    let mut known = BTreeSet::new();
    let mut links = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let part = Part::Record(at);
        fits(part, record.bytes.len() as u64, 1, ENVELOPE_BYTES_MAX)?;
        let link = record.cid();
        if !known.insert(link) {
            return Err(CarError::Twice { part });
        }
        links.push(link);
    }
    let kinds = records.iter().map(|record| record.kind as u8).collect();
    let root = Root { kinds, tenant: tenant.0.to_vec(), records: links, version: VERSION };
    let bytes = to_cbor(Part::Root, &root)?;
    let root_cid = cid(DAG_CBOR, &bytes);
    let header = to_cbor(Part::Header, &Header { roots: vec![root_cid], version: 1 })?;
    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(|source| CarError::Io { deed: "write", source });
    put(&varint(header.len()))?;
    put(&header)?;
    let blocks = root.records.iter().zip(records).map(|(link, record)| (link, &record.bytes[..]));
    for (link, bytes) in std::iter::once((&root_cid, &bytes[..])).chain(blocks) {
        put(&varint(CID_BYTES + bytes.len()))?;
        put(&link.to_bytes())?;
        put(bytes)?;
    }
    Ok(root_cid)
}

/// Bytes of the archive of records of these lengths: what [`write`] writes.
pub fn archive_bytes(records: impl Iterator<Item = usize>) -> usize {
    let (mut count, mut total) = (0, 0);
    for bytes in records {
        count += 1;
        total += CID_BYTES + bytes + 4;
    }
    // At most: lengths are written in 4 bytes or fewer, and the root block has 128 bytes beside what each record takes in it.
    total + count * 42 + 128 + CID_BYTES + 4 + HEADER_BYTES + 4
}

/// An archive that is read from its beginning, record by record.
pub struct Reader<R> {
    from: R,
    root: Cid,
    tenant: TenantId,
    kinds: Vec<Kind>,
    links: Vec<Cid>,
    next: usize,
}

impl<R: Read> Reader<R> {
    /// Reads header and root block. Whoever knows which root it has to be compares [`Reader::root`].
    ///
    /// # Errors
    /// [`CarError`] when it is no such archive.
    pub fn new(mut from: R) -> Result<Self, CarError> {
        let length = read_length(&mut from, Part::Header)?;
        fits(Part::Header, length, HEADER_BYTES, HEADER_BYTES)?;
        let header: Header = from_cbor(Part::Header, &read_bytes(&mut from, Part::Header, length)?)?;
        let malformed = |part, reason: &str| CarError::Malformed { part, reason: reason.to_owned() };
        let root = match header.roots[..] {
            [root] if header.version == 1 => root,
            [_] => return Err(malformed(Part::Header, "it is not of version 1")),
            _ => return Err(malformed(Part::Header, "it does not have one root")),
        };
        if !is_ours(&root, DAG_CBOR) {
            return Err(malformed(Part::Header, "its root is not DAG-CBOR by SHA-256"));
        }
        let bytes = read_block(&mut from, Part::Root, &root, ROOT_BYTES_MAX)?;
        let Root { kinds, tenant, records, version } = from_cbor(Part::Root, &bytes)?;
        if version != VERSION {
            return Err(malformed(Part::Root, "it is not of version 1"));
        }
        let tenant = tenant.try_into().map_err(|_| malformed(Part::Root, "its tenant does not have 16 bytes"))?;
        if records.is_empty() || records.len() > RECORDS_MAX {
            return Err(CarError::Count { found: records.len() });
        }
        let kinds: Option<Vec<Kind>> = kinds.into_iter().map(Kind::of).collect();
        let Some(kinds) = kinds.filter(|kinds| kinds.len() == records.len()) else {
            return Err(malformed(Part::Root, "it does not say of each record what it is"));
        };
        let mut known = BTreeSet::new();
        for (at, link) in records.iter().enumerate() {
            let part = Part::Record(at);
            if !is_ours(link, RAW) {
                return Err(malformed(part, "its CID is not raw by SHA-256"));
            }
            if !known.insert(link) {
                return Err(CarError::Twice { part });
            }
        }
        Ok(Self { from, root, tenant: TenantId(tenant), kinds, links: records, next: 0 })
    }

    /// The CID of the root block, and so of all that the archive holds.
    pub fn root(&self) -> &Cid {
        &self.root
    }

    /// Whose.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Records in it.
    pub fn records(&self) -> usize {
        self.links.len()
    }

    /// The next record. None behind the last one, where the archive ends.
    ///
    /// # Errors
    /// [`CarError`] when it is bent, another one, or does not end there.
    pub fn next_record(&mut self) -> Result<Option<(Kind, Vec<u8>)>, CarError> {
        let (Some(link), Some(kind)) = (self.links.get(self.next), self.kinds.get(self.next)) else {
            return self.end();
        };
        let bytes = read_block(&mut self.from, Part::Record(self.next), link, ENVELOPE_BYTES_MAX)?;
        self.next += 1;
        Ok(Some((*kind, bytes)))
    }

    fn end(&mut self) -> Result<Option<(Kind, Vec<u8>)>, CarError> {
        match read_byte(&mut self.from)? {
            None => Ok(None),
            Some(_) => Err(CarError::Long { records: self.links.len() }),
        }
    }
}

fn is_ours(cid: &Cid, codec: u64) -> bool {
    let hash = cid.hash();
    cid.version() == ipld_core::cid::Version::V1
        && cid.codec() == codec
        && hash.code() == SHA_256
        && usize::from(hash.size()) == 32
}

fn fits(part: Part, bytes: u64, min: usize, max: usize) -> Result<(), CarError> {
    match bytes >= min as u64 && bytes <= max as u64 {
        true => Ok(()),
        false => Err(CarError::Length { part, bytes, min, max }),
    }
}

/// A length as unsigned LEB128.
fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(4);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn read_byte(from: &mut impl Read) -> Result<Option<u8>, CarError> {
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(CarError::Io { deed: "read", source }),
        }
    }
}

/// A length of at most four bytes, 2^28, in its shortest spelling.
fn read_length(from: &mut impl Read, part: Part) -> Result<u64, CarError> {
    let mut value = 0;
    for at in 0..4 {
        let byte = read_byte(from)?.ok_or(CarError::Short { part })?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                break;
            }
            return Ok(value);
        }
    }
    Err(CarError::Malformed { part, reason: "its length is no short varint".to_owned() })
}

fn read_bytes(from: &mut impl Read, part: Part, length: u64) -> Result<Vec<u8>, CarError> {
    // Grows with what is there, whatever the length says.
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes).map_err(|source| CarError::Io { deed: "read", source })?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(CarError::Short { part }) }
}

/// The block that belongs here.
fn read_block(from: &mut impl Read, part: Part, wanted: &Cid, max: usize) -> Result<Vec<u8>, CarError> {
    let length = read_length(from, part)?;
    fits(part, length, CID_BYTES + 1, CID_BYTES + max)?;
    let found = read_bytes(from, part, CID_BYTES as u64)?;
    if found != wanted.to_bytes() {
        let found = Cid::try_from(&found[..])
            .map_err(|error| CarError::Malformed { part, reason: format!("its CID is none: {error}") })?;
        return Err(CarError::Order { part, found: Box::new(found), wanted: Box::new(*wanted) });
    }
    let bytes = read_bytes(from, part, length - CID_BYTES as u64)?;
    if cid(wanted.codec(), &bytes) == *wanted { Ok(bytes) } else { Err(CarError::Hash { part }) }
}
