//! Everything of all tenants again, from nothing but a snapshot of db.class, a reader's key and any k shards of each batch.
//!
//! ```text
//! snapshot ─► db.class ─► each batch: Describe ─► roots ─► Fetch, k shards ─► rebuild ─► open ─► records ─► a new spool
//! ```
//!
//! Always true: a batch counts as restored when its shards lead to `da_root`, its archive to the CID and the receipts root that db.class has, and each
//! record to its CID; what does not is named, and the others are restored all the same. Nothing that is there is overwritten. Absent on purpose: the
//! host's key, which signs no restored record.

use std::collections::{BTreeMap, BTreeSet};
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
    #[error("{found} of its shards came, and {wanted} are needed")]
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
        let mut rebuild = self.collect(&stated, until).await?;
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

    /// Collects pieces of a batch until k shards are whole, nobody is left to be asked, or time is over.
    async fn collect(&mut self, batch: &attestation::Batch, until: Instant) -> Result<Rebuild, LostError> {
        let (da_root, k) = (batch.da_root, batch.coding.k());
        let mut retrieval = Retrieval::default();
        let mut described = None::<Instant>;
        loop {
            if retrieval.rebuild.as_ref().is_some_and(Rebuild::is_enough) || Instant::now() >= until {
                break;
            }
            let silent = self.pinners.iter().filter(|pinner| !retrieval.heard.contains(*pinner));
            let silent: Vec<Identity> = silent.copied().collect();
            if described.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                silent.iter().for_each(|pinner| self.ask(*pinner, &Request::Describe { da_root }));
                described = Some(Instant::now());
            }
            for (key, pinner) in retrieval.due() {
                self.ask(pinner, &Request::Fetch { da_root, shard: key.0, stripe: key.1 });
            }
            if retrieval.is_at_its_end() && silent.is_empty() {
                break;
            }
            let Some((from, answer)) = self.next(until.min(Instant::now() + ASK_AGAIN)).await? else { continue };
            retrieval.hear(batch, from, answer);
        }
        match retrieval.rebuild {
            Some(rebuild) if rebuild.is_enough() => Ok(rebuild),
            Some(rebuild) => Err(LostError::Few { found: rebuild.whole().len(), wanted: k }),
            None => Err(LostError::Unknown { pinners: self.pinners.len() }),
        }
    }
}

/// The chunk of a stripe of a shard.
type Key = (u8, u32);

/// One batch on its way back.
#[derive(Default)]
struct Retrieval {
    rebuild: Option<Rebuild>,
    /// Who has said what it has, or that it has nothing.
    heard: BTreeSet<Identity>,
    /// Pieces to ask for, the next last.
    wanted: Vec<(Key, Identity)>,
    /// Pieces that were asked for: of whom, when, how often.
    asked: BTreeMap<Key, (Identity, Instant, u32)>,
}

impl Retrieval {
    /// What is to be asked for now: what nobody has answered, once more, and what comes next.
    fn due(&mut self) -> Vec<(Key, Identity)> {
        let mut due = Vec::new();
        self.asked.retain(|key, (pinner, at, times)| {
            if at.elapsed() < ASK_AGAIN {
                return true;
            }
            if *times < 2 {
                (*at, *times) = (Instant::now(), *times + 1);
                due.push((*key, *pinner));
                return true;
            }
            false
        });
        while self.asked.len() < PIECES_MAX
            && let Some((key, pinner)) = self.wanted.pop()
        {
            self.asked.insert(key, (pinner, Instant::now(), 1));
            due.push((key, pinner));
        }
        due
    }

    fn is_at_its_end(&self) -> bool {
        self.asked.is_empty() && self.wanted.is_empty()
    }

    fn hear(&mut self, batch: &attestation::Batch, from: Identity, answer: Answer) {
        match answer {
            Answer::Described(described) => {
                let Described { batch: found, shards, roots } = *described;
                // Whose receipts they are was signed for by the tenant's own agent; what counts here is what the bytes are.
                if found.da_root != batch.da_root || found.coding != batch.coding || !self.heard.insert(from) {
                    return;
                }
                if self.rebuild.is_none() {
                    self.rebuild = Rebuild::new(batch.coding, batch.da_root, roots).ok();
                }
                let keys =
                    shards.iter().flat_map(|shard| (0..batch.coding.stripes()).map(move |stripe| (shard, stripe)));
                self.wanted.extend(keys.map(|key| (key, from)));
                // Data before what is computed of them: nothing has to be decoded then.
                self.wanted.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
            }
            Answer::Piece(piece) if piece.da_root == batch.da_root => {
                self.asked.remove(&(piece.shard, piece.stripe));
                let Some(rebuild) = &mut self.rebuild else { return };
                if let Err(error) = rebuild.add_piece(piece.shard, piece.stripe, &piece.bytes) {
                    tracing::warn!(%error, shard = piece.shard, "a shard that is not what it should be");
                }
            }
            // It does not say which piece: others are asked for instead of all of its, and what comes all the same is taken.
            Answer::Refused { da_root, sentence, .. } if da_root == batch.da_root => {
                tracing::debug!(sentence, "a pinner refuses");
                self.heard.insert(from);
                self.asked.retain(|_, (pinner, ..)| *pinner != from);
            }
            _ => {}
        }
    }
}
