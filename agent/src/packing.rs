//! Records become batches, in a thread of its own: it reads chains on, packs what closes, seals and codes it, and makes the sealed bytes durable.
//!
//! One batch holds a stretch of one boundary's chain without a gap, and ends when it has enough receipts, bytes or age. Always true: the sealed bytes
//! are on disk before the batch is handed on; the spool itself is the backlog, so a mesh that is away costs nothing here but the batches that the main
//! loop has not taken. Absent on purpose: the cursor on disk, which moves with the batch in db.class.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bpi_availability::batch::{self, BatchError};
use bpi_availability::car::{Block, Kind};
use bpi_availability::codec::Encoded;
use bpi_availability::sealing::ReaderId;
use bpi_class::{NewBatch, NewKeyslot, NewRecord, RecordKind};
use bpi_protocol::availability::attestation::Batch;
use bpi_protocol::chain::Record;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::log::Hash;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::config::{Config, Tenant};
use crate::outbox::Entry;
use crate::spool::{self, Chain, Found, SpoolError};

/// Bytes of envelopes of a batch, at most: with the archive and the sealing around them they fit what can be coded.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Records of a batch, at most: what an archive holds (`bpi_availability::car::RECORDS_MAX`).
const RECORDS_MAX: usize = bpi_availability::car::RECORDS_MAX;
/// How long to sleep when nothing is there to read, right after there was and later.
const NAP: Duration = Duration::from_millis(5);
const NAP_MAX: Duration = Duration::from_millis(50);
/// How often new boundaries are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a boundary rests whose files cannot be read.
const REST: Duration = Duration::from_secs(5);
/// Ending of the files of sealed bytes.
const SEALED: &str = "sealed";

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    /// Sealed bytes cannot be made durable. Whether they are is not known, so the process ends.
    #[error("could not {deed} {}: {source}; nothing more is acknowledged, and the process ends", path.display())]
    Outbox {
        /// What was tried.
        deed: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A batch cannot be made.
    #[error("records {first} to {last} of boundary {boundary} are no batch: {source}")]
    Batch {
        /// Whose.
        boundary: String,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// Why.
        source: Box<BatchError>,
    },
}

/// A batch whose sealed bytes are on disk.
#[derive(Debug)]
pub struct Packed {
    /// What it is.
    pub batch: Batch,
    /// Its receipts and aborts.
    pub entries: Vec<Entry>,
    /// For db.class.
    pub new: NewBatch,
    /// Its shards.
    pub encoded: Arc<Encoded>,
}

/// What the thread tells.
#[derive(Debug)]
pub enum Told {
    /// A batch.
    Packed(Box<Packed>),
    /// Records up to `next_seq` are in no batch, because one of them is none, or is missing.
    Skipped {
        /// Whose.
        boundary: String,
        /// The first that is in no batch.
        from_seq: u64,
        /// The first after them.
        next_seq: u64,
        /// Why.
        reason: String,
    },
    /// A boundary that no tenant has.
    Nobodys {
        /// Which.
        boundary: String,
    },
    /// It cannot go on.
    Failed(PackingError),
}

/// Where a boundary's chain goes on: the number, and the digest of the record before it, if that is known.
pub type Start = (u64, Option<Sha256Digest>);

struct Gathering {
    chain: Chain,
    tenant: Tenant,
    next_seq: u64,
    digest: Option<Sha256Digest>,
    found: Vec<Found>,
    bytes: usize,
    closing: usize,
    since: Option<Instant>,
    rest_until: Option<Instant>,
}

/// Reads chains on and packs them.
pub struct Packer {
    config: Arc<Config>,
    starts: BTreeMap<String, Start>,
    gathering: BTreeMap<String, Gathering>,
    nobodys: BTreeSet<String>,
    told: mpsc::Sender<Told>,
    stop: Arc<AtomicBool>,
}

/// The main loop is gone.
struct Closed;

impl Packer {
    /// Goes on from where batches end.
    pub fn new(
        config: Arc<Config>,
        starts: BTreeMap<String, Start>,
        told: mpsc::Sender<Told>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { config, starts, gathering: BTreeMap::new(), nobodys: BTreeSet::new(), told, stop }
    }

    /// Works until it is to stop, nobody listens, or it cannot go on.
    pub fn run(mut self) {
        let (mut looked, mut nap) = (None::<Instant>, NAP);
        while !self.stop.load(Ordering::Relaxed) {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                if self.look().is_err() {
                    return;
                }
                looked = Some(Instant::now());
            }
            match self.round() {
                Ok(true) => nap = NAP,
                Ok(false) => {
                    std::thread::sleep(nap);
                    nap = (nap + NAP).min(NAP_MAX);
                }
                Err(Closed) => return,
            }
        }
    }

    fn tell(&self, told: Told) -> Result<(), Closed> {
        self.told.blocking_send(told).map_err(|_| Closed)
    }

    /// Looks for new boundaries.
    fn look(&mut self) -> Result<(), Closed> {
        let names = match spool::boundaries(&self.config.spool_dir) {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "the spool cannot be looked through");
                return Ok(());
            }
        };
        for name in names {
            if self.gathering.contains_key(&name) || self.nobodys.contains(&name) {
                continue;
            }
            let Some(tenant) = self.config.tenant_of(&name) else {
                self.tell(Told::Nobodys { boundary: name.clone() })?;
                self.nobodys.insert(name);
                continue;
            };
            let (next_seq, digest) = self.starts.get(&name).copied().unwrap_or((0, None));
            let chain = Chain::new(&self.config.spool_dir, &name);
            let (found, bytes, closing) = (Vec::new(), 0, 0);
            let gathering =
                Gathering { chain, tenant, next_seq, digest, found, bytes, closing, since: None, rest_until: None };
            self.gathering.insert(name, gathering);
        }
        Ok(())
    }

    /// Reads each boundary on, a batch at most; true when anything was there.
    fn round(&mut self) -> Result<bool, Closed> {
        let mut busy = false;
        let (wanted, wait) = (self.config.batch.receipts as usize, Duration::from_millis(self.config.batch.wait_ms));
        let names: Vec<String> = self.gathering.keys().cloned().collect();
        for name in names {
            let Some(gathering) = self.gathering.get_mut(&name) else { continue };
            if gathering.rest_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            let read = gathering.read_on(wanted, &mut busy);
            let full = gathering.closing >= wanted || gathering.is_large();
            let old = gathering.since.is_some_and(|since| since.elapsed() >= wait);
            if gathering.closing > 0 && (full || old || read.is_err()) {
                busy = true;
                let packed = pack(&self.config, gathering);
                let failed = packed.is_err();
                self.tell(packed.map_or_else(Told::Failed, |packed| Told::Packed(Box::new(packed))))?;
                if failed {
                    return Err(Closed);
                }
            }
            match read {
                Ok(()) => {}
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "a record cannot be read now");
                    if let Some(gathering) = self.gathering.get_mut(&name) {
                        gathering.rest_until = Some(Instant::now() + REST);
                    }
                }
                Err(error) => self.skip(&name, &error)?,
            }
            // A batch cannot hold more, and nothing in it closes: records of containers that all still run.
            if let Some(gathering) = self.gathering.get_mut(&name)
                && gathering.is_large()
                && gathering.closing == 0
            {
                let (boundary, from_seq) = (name.clone(), gathering.first_seq());
                let reason =
                    format!("{} intents stand before the first receipt; they are in no batch", gathering.found.len());
                let next_seq = gathering.next_seq;
                gathering.found.clear();
                gathering.bytes = 0;
                self.tell(Told::Skipped { boundary, from_seq, next_seq, reason })?;
            }
        }
        Ok(busy)
    }

    /// Leaves a record out that is none, and intents before it that nothing in a batch closes.
    fn skip(&mut self, name: &str, error: &SpoolError) -> Result<(), Closed> {
        let Some(gathering) = self.gathering.get_mut(name) else { return Ok(()) };
        let from_seq = gathering.first_seq();
        let next_seq = match error {
            SpoolError::Missing { .. } => match gathering.chain.next_present(gathering.next_seq) {
                Ok(Some(next_seq)) => next_seq,
                // It was there a moment ago: it is looked at again.
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the folder of records cannot be listed now");
                    gathering.rest_until = Some(Instant::now() + REST);
                    return Ok(());
                }
            },
            _ => gathering.next_seq + 1,
        };
        gathering.found.clear();
        (gathering.bytes, gathering.next_seq, gathering.digest) = (0, next_seq, None);
        self.tell(Told::Skipped { boundary: name.to_owned(), from_seq, next_seq, reason: error.to_string() })
    }
}

impl Gathering {
    /// The first record that is in no batch.
    fn first_seq(&self) -> u64 {
        self.next_seq - self.found.len() as u64
    }

    fn is_large(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.found.len() >= RECORDS_MAX
    }

    fn read_on(&mut self, wanted: usize, busy: &mut bool) -> Result<(), SpoolError> {
        while self.closing < wanted && !self.is_large() {
            let Some(found) = self.chain.record(self.next_seq, self.digest.as_ref())? else { break };
            *busy = true;
            self.next_seq += 1;
            self.digest = Some(found.digest);
            self.bytes += found.envelope.payload().len() * 4 / 3 + 512;
            if !matches!(found.record, Record::Intent(_)) {
                self.closing += 1;
                self.since.get_or_insert_with(Instant::now);
            }
            self.found.push(found);
        }
        Ok(())
    }
}

fn pack(config: &Config, gathering: &mut Gathering) -> Result<Packed, PackingError> {
    let first_seq = gathering.first_seq();
    let found = std::mem::take(&mut gathering.found);
    (gathering.bytes, gathering.closing, gathering.since) = (0, 0, None);
    let (boundary, last) = (gathering.chain.boundary().to_owned(), gathering.next_seq - 1);
    let refused =
        |source| PackingError::Batch { boundary: boundary.clone(), first: first_seq, last, source: Box::new(source) };
    let tenant = gathering.tenant.id;
    let readers: Vec<ReaderId> = gathering.tenant.readers.iter().map(|reader| ReaderId(*reader)).collect();
    let last_digest = found.last().map_or([0; 32], |found| *found.digest.as_bytes());
    let (mut entries, mut records, mut blocks) = (Vec::new(), Vec::new(), Vec::with_capacity(found.len()));
    for Found { envelope, record, .. } in found {
        let block = Block::new(Kind::from(&record), envelope.to_json());
        let leaf = batch::leaf(tenant, &block).map(|leaf| {
            entries.push(Entry { hash: leaf.hash, leaf: leaf.leaf_hash() });
            leaf.leaf_hash().0
        });
        let kind = match block.kind() {
            Kind::Intent => RecordKind::Intent,
            Kind::Receipt => RecordKind::Receipt,
            Kind::Abort => RecordKind::Abort,
        };
        let (cid, container_id) = (block.cid().to_string(), record.container_id().to_owned());
        records.push(NewRecord { cid, kind, container_id, leaf });
        blocks.push(block);
    }
    let packed = batch::pack_blocks(tenant, &blocks, &readers, &mut UnwrapErr(SysRng)).map_err(refused)?;
    drop(blocks);
    let (batch, encoded) = packed.encode(config.coding.k, config.coding.n).map_err(refused)?;
    write_sealed(&config.outbox_dir, &batch.da_root, &packed.sealed)?;
    let slots = packed.slots.iter();
    let new = NewBatch {
        tenant: tenant.0,
        boundary,
        first_seq,
        da_root: batch.da_root,
        k: batch.coding.k(),
        n: batch.coding.n(),
        length: batch.coding.length(),
        receipts_root: batch.receipts_root,
        root_cid: packed.root_cid.to_string(),
        sealed_sha256: Sha256::digest(&packed.sealed).into(),
        created_ms: unix_ms(),
        records,
        slots: slots.map(|slot| NewKeyslot { reader: hex::encode(slot.reader.0), wrapped: slot.to_bytes() }).collect(),
        last_digest,
    };
    Ok(Packed { batch, entries, new, encoded: Arc::new(encoded) })
}

/// Now, in ms since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The file of a batch's sealed bytes.
pub fn sealed_path(outbox_dir: &Path, da_root: &Hash) -> PathBuf {
    outbox_dir.join(format!("{}.{SEALED}", hex::encode(da_root)))
}

/// The batch whose sealed bytes a file holds, by its name.
pub fn batch_of_file(path: &Path) -> Option<Hash> {
    let name = path.file_name()?.to_str()?.strip_suffix(SEALED)?.strip_suffix('.')?;
    hex::decode(name).ok()?.try_into().ok()
}

/// Makes sealed bytes durable: file, name, folder.
fn write_sealed(outbox_dir: &Path, da_root: &Hash, bytes: &[u8]) -> Result<(), PackingError> {
    let (path, draft) = (sealed_path(outbox_dir, da_root), outbox_dir.join("draft"));
    let failed = |deed| {
        let path = path.clone();
        move |source| PackingError::Outbox { deed, path, source }
    };
    let mut file = File::create(&draft).map_err(failed("begin"))?;
    file.write_all(bytes).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    fs::rename(&draft, &path).map_err(failed("name"))?;
    File::open(outbox_dir).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))
}
