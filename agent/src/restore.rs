//! Everything of all tenants again, from nothing but a snapshot of db.class, a reader's key and any k shards of each batch.
//!
//! ```text
//! snapshot ─► db.class ─► each batch: Describe ─► roots ─► Fetch, k shards ─► rebuild ─► open ─► records ─► a new spool
//! ```
//!
//! Always true: a batch counts as restored when its shards lead to `da_root`, its archive to the CID and the receipts root that db.class has, and each
//! record to its CID; what does not is named, and the others are restored all the same. Nothing that is there is overwritten. Absent on purpose: the
//! host's key, which signs no restored record.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bpi_availability::batch::{BatchError, unpack};
use bpi_availability::car::record_cid;
use bpi_availability::codec::{Rebuild, RebuildError};
use bpi_availability::sealing::{KeySlot, ReaderKey};
use bpi_class::{Batch, Class, ClassError};
use bpi_keyfile::{KeyFileError, PeerKey};
use bpi_protocol::availability::attestation;
use bpi_protocol::availability::coding::{Coding, CodingError};
use bpi_protocol::availability::placement::Identity;
use bpi_protocol::frame::Message;
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::mesh::pinner::{Answer, Described, Request};
use bpi_transport::config::relays;
use bpi_transport::mesh::{Event, Mesh, Setup};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::config::Config;

/// How long one batch may take before it counts as not to be had.
const BATCH_PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Pieces that are asked for at a time, of all pinners: 2 MiB at 4 of n.
const PIECES_MAX: usize = 8;
/// Batches of one page of db.class.
const PAGE: u32 = 1024;
const WANTED_S: u32 = 10;

/// Why nothing is restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The agent's key, or the reader's.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// db.class.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// Relays.
    #[error("relays cannot be connected to: {0}")]
    Relays(#[from] bpi_transport::config::ConfigError),
    /// Files.
    #[error("could not {deed} {}: {source}", path.display())]
    File {
        /// What was tried.
        deed: &'static str,
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is something already.
    #[error("{} is there already, and nothing is overwritten; name a new folder", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
}

/// Why one batch is not restored.
#[derive(Debug, thiserror::Error)]
pub enum LostError {
    /// The reader has no slot in it.
    #[error("no keyslot of this reader opens it")]
    NoSlot,
    /// Nobody describes it.
    #[error("none of {pinners} pinners knows it")]
    Unknown {
        /// How many were asked.
        pinners: usize,
    },
    /// Too few shards came.
    #[error("{found} of its shards came within {} s, and {wanted} are needed", BATCH_PATIENCE.as_secs())]
    Few {
        /// How many came.
        found: u16,
        /// How many are needed.
        wanted: u16,
    },
    /// The numbers of db.class.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// Shards that are none of it.
    #[error(transparent)]
    Rebuild(#[from] Box<RebuildError>),
    /// It does not open, or holds something else.
    #[error(transparent)]
    Batch(#[from] Box<BatchError>),
    /// Another archive than db.class says.
    #[error("its archive is {found}, and db.class has {wanted}")]
    Root {
        /// Its root's CID.
        found: String,
        /// What it would have to be.
        wanted: String,
    },
    /// Other records than db.class says.
    #[error("record {seq} is not the one that db.class has")]
    Record {
        /// Which.
        seq: u64,
    },
    /// The network is gone.
    #[error("the network's tasks have ended")]
    Closed,
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Batches that are not, and why.
    pub lost: Vec<Lost>,
    /// How long it took, in ms.
    pub took_ms: u64,
}

/// A batch that is not restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Which.
    pub da_root: String,
    /// Why.
    pub reason: String,
}

/// What to restore from, and where to.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// A snapshot of db.class.
    pub snapshot: PathBuf,
    /// A reader's key.
    pub reader: PathBuf,
    /// A folder that is not there yet: `class.db` and `spool/` are made in it.
    pub to: PathBuf,
}

struct Asking {
    mesh: Mesh,
    events: mpsc::Receiver<Event>,
    pinners: Vec<Identity>,
}

/// Restores all batches of a snapshot. `tell` hears of each: how many of how many.
///
/// # Errors
/// [`RestoreError`]; batches that are lost are no error of it.
pub async fn restore(
    config: &Config,
    wanted: &Wanted,
    mut tell: impl FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    let began = Instant::now();
    let reader = ReaderKey::load(&wanted.reader)?;
    let key = Arc::new(PeerKey::load(&config.peer_key_file)?);
    if wanted.to.exists() {
        return Err(RestoreError::Exists { path: wanted.to.clone() });
    }
    let file = |deed, path: &Path| {
        let path = path.to_path_buf();
        move |source| RestoreError::File { deed, path, source }
    };
    fs::create_dir_all(&wanted.to).map_err(file("make the folder", &wanted.to))?;
    let class = Class::open(&format!("sqlite:{}", wanted.to.join("class.db").display())).await?;
    class.restore(&wanted.snapshot).await?;
    let mut tasks = JoinSet::new();
    let pinners = config.pinners();
    let setup = Setup {
        identity: Some(config.identity.start(&mut tasks).await?),
        signer: key,
        network: config.chain().network(),
        relays: relays(&config.relay)?,
        relays_per_frame: config.relays_per_frame,
        wanted_s: WANTED_S,
        sessions_max: 4 * pinners.len().max(1),
        allowed: Some(pinners.iter().copied().collect()),
        subscribe: false,
    };
    let (mesh, events) = Mesh::start(setup, &mut tasks);
    pinners.iter().for_each(|pinner| mesh.open(*pinner));
    let mut asking = Asking { mesh, events, pinners };
    let spool = wanted.to.join("spool");
    let (mut restored, mut before, mut done) = (Restored::default(), None, 0);
    let all: u64 = class.figures().await?.batches.iter().sum();
    loop {
        let page = class.batches(before, PAGE).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.number);
        for batch in page {
            let slots = class.keyslots(&batch.da_root).await?;
            let slot = slots.into_iter().filter_map(|slot| KeySlot::from_bytes(&slot.wrapped?).ok());
            let slot = slot.into_iter().find(|slot| slot.reader == reader.id());
            let records = class.records_of_batch(&batch).await?;
            let cids: Vec<(u64, String)> = records.into_iter().map(|record| (record.seq, record.cid)).collect();
            match asking.batch(&batch, slot.as_ref(), &reader, &cids).await {
                Ok(envelopes) => {
                    let folder = spool.join(&batch.boundary).join("records");
                    for (seq, bytes) in envelopes {
                        let path = folder.join(format!("{seq:012}.json"));
                        write_new(&folder, &path, &bytes).map_err(file("write", &path))?;
                        restored.records += 1;
                        restored.bytes += bytes.len() as u64;
                    }
                    sync_folder(&folder).map_err(file("sync the folder", &folder))?;
                    restored.batches += 1;
                }
                Err(error) => {
                    let lost = Lost { da_root: hex::encode(batch.da_root), reason: error.to_string() };
                    restored.lost.push(lost);
                }
            }
            done += 1;
            tell(done, all);
        }
    }
    asking.mesh.close();
    tasks.abort_all();
    class.close().await;
    restored.took_ms = began.elapsed().as_millis() as u64;
    Ok(restored)
}

fn write_new(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Asking {
    fn ask(&self, pinner: Identity, request: &Request) {
        let message: Message = Arc::new(Zeroizing::new(request.to_bytes()));
        self.mesh.send(pinner, message);
    }

    /// The next answer of a pinner; `None` when there is none until then.
    async fn next(&mut self, until: Instant) -> Result<Option<(Identity, Answer)>, LostError> {
        loop {
            match timeout_at(until, self.events.recv()).await {
                Err(_) => return Ok(None),
                Ok(None) => return Err(LostError::Closed),
                Ok(Some(Event::Message { from, message })) => {
                    if let Ok(answer) = Answer::from_bytes(&message) {
                        return Ok(Some((from, answer)));
                    }
                }
                Ok(Some(Event::Met { peer, .. })) => self.mesh.open(peer),
                Ok(Some(_)) => {}
            }
        }
    }

    /// The records of a batch: their numbers, and their envelopes.
    async fn batch(
        &mut self,
        batch: &Batch,
        slot: Option<&KeySlot>,
        reader: &ReaderKey,
        cids: &[(u64, String)],
    ) -> Result<Vec<(u64, Vec<u8>)>, LostError> {
        let slot = slot.ok_or(LostError::NoSlot)?;
        let until = Instant::now() + BATCH_PATIENCE;
        let coding = Coding::new(batch.k, batch.n, batch.length)?;
        let stated = attestation::Batch {
            tenant: TenantId(batch.tenant),
            coding,
            da_root: batch.da_root,
            receipts: batch.receipts,
            receipts_root: batch.receipts_root,
        };
        let (mut rebuild, places) = self.describe(&stated, until).await?;
        self.fetch(&stated, &mut rebuild, &places, until).await?;
        if !rebuild.is_enough() {
            return Err(LostError::Few { found: rebuild.whole().len(), wanted: coding.k() });
        }
        let rebuilt = rebuild.finish().map_err(Box::new)?;
        let unpacked = unpack(&stated, &rebuilt.data, slot, reader).map_err(Box::new)?;
        let (found, wanted) = (unpacked.root_cid.to_string(), &batch.root_cid);
        if found != *wanted || unpacked.records.len() != cids.len() {
            return Err(LostError::Root { found, wanted: wanted.clone() });
        }
        let mut envelopes = Vec::with_capacity(cids.len());
        for ((_, envelope), (seq, cid)) in unpacked.records.iter().zip(cids) {
            let bytes = envelope.to_json();
            if record_cid(&bytes).to_string() != *cid {
                return Err(LostError::Record { seq: *seq });
            }
            envelopes.push((*seq, bytes));
        }
        Ok(envelopes)
    }

    /// Asks all pinners what they have of a batch, until those that have answered have enough of it.
    async fn describe(
        &mut self,
        batch: &attestation::Batch,
        until: Instant,
    ) -> Result<(Rebuild, BTreeMap<u8, Identity>), LostError> {
        let (mut rebuild, mut places) = (None, BTreeMap::new());
        let mut asked = None::<Instant>;
        while places.len() < usize::from(batch.coding.k()) {
            if Instant::now() >= until {
                return Err(LostError::Unknown { pinners: self.pinners.len() });
            }
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
                self.pinners.iter().for_each(|pinner| self.ask(*pinner, &Request::Describe { da_root: batch.da_root }));
                asked = Some(Instant::now());
            }
            let Some((from, answer)) = self.next(until.min(Instant::now() + ASK_AGAIN)).await? else { continue };
            let Answer::Described(described) = answer else { continue };
            let Described { batch: found, shards, roots } = *described;
            // Whose receipts they are was signed for by the tenant's own agent; what counts here is what the bytes are.
            if found.da_root != batch.da_root || found.coding != batch.coding {
                continue;
            }
            if rebuild.is_none() {
                rebuild = Rebuild::new(batch.coding, batch.da_root, roots).ok();
            }
            if rebuild.is_some() {
                shards.iter().for_each(|shard| {
                    places.insert(shard, from);
                });
            }
        }
        rebuild.map(|rebuild| (rebuild, places)).ok_or(LostError::Unknown { pinners: self.pinners.len() })
    }

    /// Asks for pieces, a few at a time, until k shards are whole.
    async fn fetch(
        &mut self,
        batch: &attestation::Batch,
        rebuild: &mut Rebuild,
        places: &BTreeMap<u8, Identity>,
        until: Instant,
    ) -> Result<(), LostError> {
        let da_root = batch.da_root;
        let stripes = batch.coding.stripes();
        let mut wanted: Vec<(u8, u32)> =
            places.keys().rev().flat_map(|shard| (0..stripes).rev().map(|stripe| (*shard, stripe))).collect();
        let mut asked: BTreeMap<(u8, u32), (Instant, u32)> = BTreeMap::new();
        while !rebuild.is_enough() && Instant::now() < until {
            let late: Vec<_> =
                asked.iter().filter(|(_, (at, _))| at.elapsed() >= ASK_AGAIN).map(|(key, _)| *key).collect();
            for key in late {
                let Some((_, times)) = asked.remove(&key) else { continue };
                // One who does not answer is asked once more, and then the next shard is tried.
                if times < 2 {
                    self.fetch_one(da_root, key, places);
                    asked.insert(key, (Instant::now(), times + 1));
                }
            }
            while asked.len() < PIECES_MAX
                && let Some(key) = wanted.pop()
            {
                self.fetch_one(da_root, key, places);
                asked.insert(key, (Instant::now(), 1));
            }
            if asked.is_empty() {
                break;
            }
            let Some((_, answer)) = self.next(until.min(Instant::now() + ASK_AGAIN)).await? else { continue };
            match answer {
                Answer::Piece(piece) if piece.da_root == da_root => {
                    asked.remove(&(piece.shard, piece.stripe));
                    if let Err(error) = rebuild.add_piece(piece.shard, piece.stripe, &piece.bytes) {
                        tracing::warn!(%error, shard = piece.shard, "a shard that is not what it should be");
                    }
                }
                Answer::Refused { da_root: of, sentence, .. } if of == da_root => {
                    tracing::debug!(sentence, "a pinner refuses a piece");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn fetch_one(&self, da_root: Hash, (shard, stripe): (u8, u32), places: &BTreeMap<u8, Identity>) {
        if let Some(pinner) = places.get(&shard) {
            self.ask(*pinner, &Request::Fetch { da_root, shard, stripe });
        }
    }
}
