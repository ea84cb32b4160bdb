//! Final headers with their seals, by height, in RocksDB.
//!
//! ```text
//! "a" da_root 32, tenant 16
//!                1 | height 8 | index 2              where a batch is attested last
//! "b" height 8   1 | attestations                    those of the header of a height, if it has any and they are known here
//! "c"            chain 32
//! "g" height 8   1 | seal                            the seal by the validators' key, where it was made
//! "h" height 8   1 | header 361 | 0                 the first one, which is trusted without a seal
//!                1 | header 361 | 1 | seal          every later one
//! ```
//!
//! Always true: heights follow one another without a gap, each header names the one before as its parent, and what [`Headers::append`] has
//! returned for is on the medium (a synced write-ahead log). Whether a seal is good was judged before. Absent on purpose: deletion.
//!
//! Memory is bounded by [`WRITE_BUFFER_BYTES`] and [`CACHE_BYTES`]: a validator writes four headers of half a kibibyte in a second.

use std::path::{Path, PathBuf};

use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, HeaderDigest, Height};
use bpi_protocol::consensus::seal::Seal;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRecoveryMode, Direction, IteratorMode, LogLevel, Options, WriteBatch, WriteOptions,
};

use crate::contents::attestations::BatchId;
use crate::contents::body::{read_attestations, write_attestations};
use crate::contents::leaf::TenantId;

/// A table of some 2 000 headers; two of them at most are in memory.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
/// Blocks that were read: what peers ask for is near the tip.
const CACHE_BYTES: usize = 1 << 20;
/// Descriptors of tables; there is one for some 100 000 headers after compaction.
const OPEN_FILES_MAX: i32 = 64;
/// Headers at the end of the chain that are looked into at each start; [`Headers::check`] looks into all of them.
const CHECKED_AT_OPEN: u64 = 256;
const VERSION: u8 = 1;
const CHAIN_KEY: &[u8] = b"c";
/// Before headers, which are the last in the store, as all others.
const BATCH_PREFIX: u8 = b'a';
const ATTESTATIONS_PREFIX: u8 = b'b';
const GROUP_SEAL_PREFIX: u8 = b'g';
const HEIGHT_PREFIX: u8 = b'h';

/// Why a header was not kept, or the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// There is none.
    #[error("there are no headers in {}; restore the data directory, or make a new one and fetch the headers again", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// [`Headers::create`] never replaces one.
    #[error("there are headers in {} already; they are never replaced", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The headers are those of another chain.
    #[error("the headers in {} are of chain {found}, and the configuration names {wanted}; correct data directory or genesis", path.display())]
    OtherChain {
        /// The folder.
        path: PathBuf,
        /// Theirs.
        found: ChainId,
        /// The configured one.
        wanted: ChainId,
    },
    /// A header is not there.
    #[error("the header of height {height} is missing in {}, between others; make a new data directory and fetch the headers again", path.display())]
    Gap {
        /// The folder.
        path: PathBuf,
        /// Which.
        height: Height,
    },
    /// What is kept for a height is no header, or another one's.
    #[error("the header of height {height} in {} is damaged: {reason}; make a new data directory and fetch the headers again", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// Which.
        height: Height,
        /// What is wrong with it.
        reason: HeaderDamage,
    },
    /// Not the height after the tip.
    #[error("a header of height {header} after {tip}")]
    Height {
        /// The header's.
        header: Height,
        /// The last one's.
        tip: Height,
    },
    /// It names another parent.
    #[error("the header of height {height} names the parent {named}, and the tip is {tip}")]
    Parent {
        /// The header's.
        height: Height,
        /// The one named.
        named: HeaderDigest,
        /// The last one's.
        tip: HeaderDigest,
    },
    /// A write failed before: nothing is written until the store is opened again.
    #[error("an earlier write to {} failed; start this process again", path.display())]
    Failed {
        /// The folder.
        path: PathBuf,
    },
    /// RocksDB failed.
    #[error("could not {deed} the headers in {}: {source}", path.display())]
    Store {
        /// What was tried.
        deed: &'static str,
        /// The folder.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
}

/// What is wrong with a header that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderDamage {
    /// Its bytes.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// It is of another height.
    #[error("it says height {found}")]
    Height {
        /// What it says.
        found: Height,
    },
    /// It does not name the header before it.
    #[error("it does not name the header before it as its parent")]
    Parent,
    /// It has no seal, or is the first and has one.
    #[error("only the first header, and it always, is without a seal")]
    Seal,
}

/// A header as it is kept. `None`: the first one.
pub type Kept = (Header, Option<Seal>);

/// The final headers of a chain.
pub struct Headers {
    store: DB,
    path: PathBuf,
    chain: ChainId,
    first: Height,
    tip: Header,
    failed: bool,
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Headers").field("path", &self.path).field("tip", &self.tip.height).finish_non_exhaustive()
    }
}

impl Headers {
    /// Makes a store that begins with a trusted header: the genesis.
    ///
    /// # Errors
    /// [`HeadersError::Exists`] when the folder has headers.
    pub fn create(path: &Path, chain: ChainId, first: &Header) -> Result<(), HeadersError> {
        let store = open_store(path, true)?;
        let failed = |deed| move |source| HeadersError::Store { deed, path: path.to_path_buf(), source };
        if store.get(CHAIN_KEY).map_err(failed("read"))?.is_some() {
            return Err(HeadersError::Exists { path: path.to_path_buf() });
        }
        let mut batch = WriteBatch::default();
        batch.put(CHAIN_KEY, chain.0);
        batch.put(key_of(first.height), value_of(first, None));
        store.write_opt(batch, &synced()).map_err(failed("begin"))
    }

    /// Opens the store of a chain.
    ///
    /// # Errors
    /// [`HeadersError`] when it is missing, another chain's, or not a chain: the first header, the last 256 and the links between them are
    /// looked into.
    pub fn open(path: &Path, chain: ChainId) -> Result<Self, HeadersError> {
        let missing = || HeadersError::Missing { path: path.to_path_buf() };
        if !path.join("CURRENT").exists() {
            return Err(missing());
        }
        let store = open_store(path, false)?;
        let failed = |source| HeadersError::Store { deed: "read", path: path.to_path_buf(), source };
        let found = store.get(CHAIN_KEY).map_err(failed)?.ok_or_else(missing)?;
        if found != chain.0 {
            let mut other = ChainId::default();
            found.iter().zip(&mut other.0).for_each(|(from, to)| *to = *from);
            return Err(HeadersError::OtherChain { path: path.to_path_buf(), found: other, wanted: chain });
        }
        let end = |mode| -> Result<Height, HeadersError> {
            let entry = store.iterator(mode).next().transpose().map_err(failed)?;
            entry.and_then(|(key, _)| height_of(&key)).ok_or_else(missing)
        };
        let first = end(IteratorMode::From(&[HEIGHT_PREFIX], Direction::Forward))?;
        let last = end(IteratorMode::End)?;
        let mut headers = Self { store, path: path.to_path_buf(), chain, first, tip: Header::default(), failed: false };
        headers.tip.height = last;
        headers.read(first)?;
        let from = Height(last.0.saturating_sub(CHECKED_AT_OPEN).max(first.0));
        headers.tip = headers.check_from(from)?;
        Ok(headers)
    }

    /// Whose they are.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The height that the store begins with.
    pub fn first(&self) -> Height {
        self.first
    }

    /// The last final header.
    pub fn tip(&self) -> &Header {
        &self.tip
    }

    /// Keeps the next final header, durably.
    ///
    /// # Errors
    /// [`HeadersError::Height`] and [`HeadersError::Parent`] for one that does not follow the tip. After [`HeadersError::Store`] nothing is
    /// kept any more.
    pub fn append(&mut self, header: &Header, seal: &Seal) -> Result<(), HeadersError> {
        if self.failed {
            return Err(HeadersError::Failed { path: self.path.clone() });
        }
        let (height, tip) = (header.height, self.tip.digest());
        if height != self.tip.height.next() || height == self.tip.height {
            return Err(HeadersError::Height { header: height, tip: self.tip.height });
        }
        if header.parent != tip {
            return Err(HeadersError::Parent { height, named: header.parent, tip });
        }
        if let Err(source) = self.store.put_opt(key_of(height), value_of(header, Some(seal)), &synced()) {
            self.failed = true;
            return Err(HeadersError::Store { deed: "append to", path: self.path.clone(), source });
        }
        self.tip = *header;
        Ok(())
    }

    /// Keeps a seal by the validators' key beside the votes, and does not wait for the medium: it can be made again while it is new, and a
    /// header is final without it.
    ///
    /// # Errors
    /// [`HeadersError::Store`]; what was kept before is not touched.
    pub fn keep_group_seal(&self, height: Height, seal: &Seal) -> Result<(), HeadersError> {
        let mut out = Writer::new();
        out.u8(VERSION);
        seal.write(&mut out);
        let failed = |source| HeadersError::Store { deed: "write a seal to", path: self.path.clone(), source };
        self.store.put(group_seal_key_of(height), out.done()).map_err(failed)
    }

    /// The seal of a height by the validators' key. `None`: none was made here.
    ///
    /// # Errors
    /// [`HeadersError::Damaged`].
    pub fn group_seal(&self, height: Height) -> Result<Option<Seal>, HeadersError> {
        let failed = |source| HeadersError::Store { deed: "read", path: self.path.clone(), source };
        let Some(bytes) = self.store.get(group_seal_key_of(height)).map_err(failed)? else { return Ok(None) };
        read_group_seal(&bytes).map(Some).map_err(|error| self.damaged(height, error.into()))
    }

    /// Keeps the attestations of a header, durably: before the header itself, as leaves of the log, or when they were fetched later.
    ///
    /// # Errors
    /// As [`Headers::append`]; after [`HeadersError::Store`] nothing is kept any more.
    pub fn keep_attestations(&mut self, height: Height, attestations: &[Attestation]) -> Result<(), HeadersError> {
        if self.failed {
            return Err(HeadersError::Failed { path: self.path.clone() });
        }
        let mut batch = WriteBatch::default();
        for (index, attestation) in (0..).zip(attestations) {
            let mut place = Writer::new();
            place.u8(VERSION).u64(height.0).u16(index);
            batch.put(batch_key_of(&BatchId::of(attestation)), place.done());
        }
        let mut all = Writer::new();
        write_attestations(all.u8(VERSION), attestations);
        batch.put(numbered(ATTESTATIONS_PREFIX, height), all.done());
        if let Err(source) = self.store.write_opt(batch, &synced()) {
            self.failed = true;
            let deed = "append attestations to";
            return Err(HeadersError::Store { deed, path: self.path.clone(), source });
        }
        Ok(())
    }

    /// The attestations of the header of a height. `None`: it has none, or they are not known here.
    ///
    /// # Errors
    /// [`HeadersError::Damaged`].
    pub fn attestations(&self, height: Height) -> Result<Option<Vec<Attestation>>, HeadersError> {
        let failed = |source| HeadersError::Store { deed: "read", path: self.path.clone(), source };
        let Some(bytes) = self.store.get(numbered(ATTESTATIONS_PREFIX, height)).map_err(failed)? else {
            return Ok(None);
        };
        parse_attestations(&bytes).map(Some).map_err(|error| self.damaged(height, error.into()))
    }

    /// Where a batch is attested last: the height, and its place there. `None`: nowhere that is known here.
    ///
    /// # Errors
    /// [`HeadersError::Damaged`].
    pub fn attested(&self, batch: &BatchId) -> Result<Option<(Height, u16)>, HeadersError> {
        let failed = |source| HeadersError::Store { deed: "read", path: self.path.clone(), source };
        let found = self.store.get(batch_key_of(batch)).map_err(failed)?;
        let place = found.map(|bytes| parse_place(&bytes)).transpose();
        let place = place.map_err(|error| self.damaged(self.tip.height, error.into()))?;
        // After a crash it may be that of a header which is to be final, and is not yet.
        Ok(place.filter(|(height, _)| *height <= self.tip.height))
    }

    /// The first attested batch from a name on, in the order of names. `None`: there is none.
    ///
    /// # Errors
    /// [`HeadersError::Store`].
    pub fn attested_from(&self, batch: &BatchId) -> Result<Option<BatchId>, HeadersError> {
        let failed = |source| HeadersError::Store { deed: "read", path: self.path.clone(), source };
        let from = batch_key_of(batch);
        let next = self.store.iterator(IteratorMode::From(&from, Direction::Forward)).next();
        Ok(next.transpose().map_err(failed)?.and_then(|(key, _)| batch_of(&key)))
    }

    /// The header of a height. `None`: it is not final yet, or before the first one.
    ///
    /// # Errors
    /// [`HeadersError::Gap`] when it has to be there and is not.
    pub fn get(&self, height: Height) -> Result<Option<Kept>, HeadersError> {
        if height < self.first || height > self.tip.height { Ok(None) } else { self.read(height).map(Some) }
    }

    /// The headers from a height on, in order, up to the tip.
    pub fn iter(&self, from: Height) -> impl Iterator<Item = Result<Kept, HeadersError>> + '_ {
        (from.max(self.first).0..=self.tip.height.0).map(|height| self.read(Height(height)))
    }

    /// Looks into every header and every link. It reads the whole store: some 430 bytes for each header.
    ///
    /// # Errors
    /// For the first height that does not fit.
    pub fn check(&self) -> Result<(), HeadersError> {
        self.check_from(self.first).map(drop)
    }

    fn check_from(&self, from: Height) -> Result<Header, HeadersError> {
        let mut before: Option<Header> = None;
        for kept in self.iter(from) {
            let (header, _) = kept?;
            if before.is_some_and(|before| header.parent != before.digest()) {
                return Err(self.damaged(header.height, HeaderDamage::Parent));
            }
            before = Some(header);
        }
        before.ok_or(HeadersError::Gap { path: self.path.clone(), height: from })
    }

    fn read(&self, height: Height) -> Result<Kept, HeadersError> {
        let failed = |source| HeadersError::Store { deed: "read", path: self.path.clone(), source };
        let bytes = self.store.get_pinned(key_of(height)).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| HeadersError::Gap { path: self.path.clone(), height })?;
        let (header, seal) = parse_value(&bytes).map_err(|error| self.damaged(height, error.into()))?;
        if header.height != height {
            return Err(self.damaged(height, HeaderDamage::Height { found: header.height }));
        }
        if seal.is_none() != (height == self.first) {
            return Err(self.damaged(height, HeaderDamage::Seal));
        }
        Ok((header, seal))
    }

    fn damaged(&self, height: Height, reason: HeaderDamage) -> HeadersError {
        HeadersError::Damaged { path: self.path.clone(), height, reason }
    }
}

fn group_seal_key_of(height: Height) -> [u8; 9] {
    numbered(GROUP_SEAL_PREFIX, height)
}

fn read_group_seal(bytes: &[u8]) -> Result<Seal, BytesError> {
    let mut reader = Reader::new(bytes);
    version(&mut reader, "version of a kept seal")?;
    let seal = Seal::read(&mut reader)?;
    reader.end()?;
    Ok(seal)
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn open_store(path: &Path, create: bool) -> Result<DB, HeadersError> {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    // Indices count towards the cache instead of staying in memory for each open table.
    tables.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_block_based_table_factory(&tables);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_db_write_buffer_size(2 * WRITE_BUFFER_BYTES);
    options.set_arena_block_size(64 * 1024);
    options.set_max_write_buffer_number(2);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(4 * WRITE_BUFFER_BYTES as u64);
    options.set_paranoid_checks(true);
    // A write-ahead log may end in a torn write, and may have no other damage: the default would drop what follows it in silence.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_log_level(LogLevel::Fatal);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    DB::open(&options, path).map_err(|source| HeadersError::Store { deed: "open", path: path.to_path_buf(), source })
}

fn key_of(height: Height) -> [u8; 9] {
    numbered(HEIGHT_PREFIX, height)
}

fn numbered(prefix: u8, height: Height) -> [u8; 9] {
    let mut key = [prefix; 9];
    key[1..].copy_from_slice(&height.0.to_be_bytes());
    key
}

fn batch_key_of(batch: &BatchId) -> [u8; 49] {
    let mut key = [BATCH_PREFIX; 49];
    key[1..33].copy_from_slice(&batch.da_root);
    key[33..].copy_from_slice(&batch.tenant.0);
    key
}

fn batch_of(key: &[u8]) -> Option<BatchId> {
    let (da_root, tenant) = key.strip_prefix(&[BATCH_PREFIX])?.split_first_chunk()?;
    Some(BatchId { da_root: *da_root, tenant: TenantId(tenant.try_into().ok()?) })
}

fn parse_place(bytes: &[u8]) -> Result<(Height, u16), BytesError> {
    let mut reader = Reader::new(bytes);
    version(&mut reader, "version of a batch's place")?;
    let place = (Height(reader.u64()?), reader.u16()?);
    reader.end()?;
    Ok(place)
}

fn parse_attestations(bytes: &[u8]) -> Result<Vec<Attestation>, BytesError> {
    let mut reader = Reader::new(bytes);
    version(&mut reader, "version of kept attestations")?;
    let attestations = read_attestations(&mut reader)?;
    reader.end()?;
    Ok(attestations)
}

fn version(reader: &mut Reader<'_>, field: &'static str) -> Result<(), BytesError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(BytesError::Value { field, value: other.into() }),
    }
}

fn height_of(key: &[u8]) -> Option<Height> {
    let (prefix, height) = key.split_first()?;
    (*prefix == HEIGHT_PREFIX).then_some(Height(u64::from_be_bytes(height.try_into().ok()?)))
}

fn value_of(header: &Header, seal: Option<&Seal>) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(VERSION).bytes(&header.to_bytes()).u8(seal.is_some().into());
    if let Some(seal) = seal {
        seal.write(&mut out);
    }
    out.done()
}

/// Reads what is kept for a height.
///
/// # Errors
/// For bytes that are not canonical.
pub fn parse_value(bytes: &[u8]) -> Result<Kept, BytesError> {
    let mut reader = Reader::new(bytes);
    version(&mut reader, "version of a kept header")?;
    let header = Header::read(&mut reader)?;
    let seal = if reader.flag("seal")? { Some(Seal::read(&mut reader)?) } else { None };
    reader.end()?;
    Ok((header, seal))
}
