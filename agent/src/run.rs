//! Puts an agent together, and takes it apart again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bpi_availability::codec::{Encoded, encode};
use bpi_class::{Attested, Batch, BatchState, Class, ClassError, Cursor, NewIncident};
use bpi_driver::Driver;
use bpi_keyfile::{KeyFileError, PeerKey};
use bpi_protocol::availability::attestation::{self, Acknowledgement, ShardSet};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::placement::Identity;
use bpi_protocol::consensus::bytes::{Reader, Writer};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::frame::Message;
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::{LeafHash, TenantId};
use bpi_protocol::mesh::{pinner, validator};
use bpi_protocol::trust::{TRUST_BYTES_MAX, Trust, TrustError};
use bpi_transport::config::relays;
use bpi_transport::mesh::{Event, Mesh, Setup};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant as TokioInstant, sleep_until};
use zeroize::Zeroizing;

use crate::config::{Config, ConfigError, SnapshotConfig};
use crate::judge::Trusted;
use crate::metrics::Metrics;
use crate::outbox::{self, Effect, Entry, Input, Opened, Outbox, SPREADING_MAX, SPREADING_MS};
use crate::packing::{Packed, Packer, PackingError, Told, batch_of_file, sealed_path, unix_ms};
use crate::{reconcile, scribe, status};

/// How long a message is wanted, in s: what is not answered is said again anyway.
const WANTED_S: u32 = 10;
/// Bytes that wait for one pinner at a time; BPCI drops the oldest beyond 4 MiB.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes of shards that are kept in memory for who asks for them; those of others are computed again.
const SHARDS_BYTES_MAX: usize = 96 << 20;
/// Open batches that are found again, at most.
const FOUND_MAX: u32 = 4096;
/// Batches that the packing thread may be ahead.
const AHEAD_MAX: usize = 2;
/// How often what waits for room is looked at.
const PUMP_EVERY: Duration = Duration::from_millis(5);
/// How often figures are taken.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// How long the parts have to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why an agent does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The trust file cannot be read.
    #[error("could not read the trust file {}: {source}; correct `trust_file`", path.display())]
    TrustFile {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The trust file is none.
    #[error("{}: {source}", path.display())]
    Trust {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
    /// db.class.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// The thread that packs.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// A folder of the agent.
    #[error("could not {deed} {}: {source}", path.display())]
    Folder {
        /// What was tried.
        deed: &'static str,
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Relays.
    #[error("relays cannot be connected to: {0}")]
    Relays(#[from] bpi_transport::config::ConfigError),
    /// Nobody can be listened to.
    #[error("could not listen at {address}: {source}; correct `{field}`, or end what listens there")]
    Listen {
        /// Where.
        address: String,
        /// Which field says so.
        field: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Threads, signals.
    #[error("could not {deed}: {source}")]
    Io {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The packing thread is gone.
    #[error("the thread that packs batches has ended by itself")]
    PackerGone,
}

impl RunError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "BA0101",
            Self::TrustFile { .. } | Self::Trust { .. } => "BA0102",
            Self::Key(_) => "BA0201",
            Self::Class(_) => "BA0301",
            Self::Packing(_) => "BA0302",
            Self::Folder { .. } => "BA0303",
            Self::Relays(_) => "BA0401",
            Self::Listen { .. } => "BA0402",
            Self::Io { .. } => "BA0403",
            Self::PackerGone => "BA0404",
        }
    }

    /// True for what the caller has to correct.
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::Config(_) | Self::TrustFile { .. } | Self::Trust { .. } | Self::Key(_) | Self::Relays(_))
    }
}

/// Reads the trust file.
///
/// # Errors
/// [`RunError::TrustFile`] and [`RunError::Trust`].
pub fn read_trust(path: &Path) -> Result<Trust, RunError> {
    let failed = |source| RunError::TrustFile { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, TRUST_BYTES_MAX as u64 + 1), &mut bytes).map_err(failed)?;
    Trust::parse(&bytes).map_err(|source| RunError::Trust { path: path.to_path_buf(), source })
}

/// Runs an agent until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub fn run(config: Config) -> Result<(), RunError> {
    let key = Arc::new(PeerKey::load(&config.peer_key_file)?);
    let trust = Arc::new(read_trust(&config.trust_file)?);
    let failed = |deed| move |source| RunError::Io { deed, source };
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed("start the agent's threads"))?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
        let (stop, stopped) = watch::channel(false);
        let mut agent = Agent::start(Arc::new(config), key, trust, stopped, &mut tasks).await?;
        let result = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            result = agent.work() => Some(result),
        };
        tracing::info!("stopping");
        stop.send_replace(true);
        agent.stop();
        // The API's tasks end when their answers are given, the network's never by themselves.
        let ends = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_millis(200), ends).await.is_err() {
            tasks.abort_all();
        }
        agent.end().await;
        result.unwrap_or(Ok(()))
    })
}

/// Pieces of a batch that wait for their pinner to have room. Bytes are not among them: they are those of all open batches, n / k times.
struct Waiting {
    da_root: Hash,
    shards: Vec<u8>,
    /// Pieces that were sent, shard by shard and stripe by stripe.
    sent: usize,
}

impl Waiting {
    /// The next piece; `None` when all were sent.
    fn next(&mut self, encoded: &Encoded) -> Option<pinner::Piece> {
        let stripes = encoded.coding.stripes() as usize;
        let shard = *self.shards.get(self.sent / stripes)?;
        let stripe = (self.sent % stripes) as u32;
        self.sent += 1;
        let begin = encoded.coding.chunk_begin(stripe) as usize;
        let end = begin + encoded.coding.chunk_bytes(stripe) as usize;
        let bytes = encoded.shards.get(usize::from(shard))?.get(begin..end)?.to_vec();
        Some(pinner::Piece { da_root: self.da_root, shard, stripe, bytes })
    }
}

struct Agent {
    config: Arc<Config>,
    class: Arc<Class>,
    outbox: Outbox<Trusted>,
    mesh: Mesh,
    events: mpsc::Receiver<Event>,
    packed: mpsc::Receiver<Told>,
    packer: Option<std::thread::JoinHandle<()>>,
    packer_stop: Arc<AtomicBool>,
    /// Counts batches that have become final.
    finals: watch::Sender<u64>,
    pinners: BTreeSet<Identity>,
    /// Shards of some open batches, the newest last.
    shards: VecDeque<(Hash, Arc<Encoded>)>,
    /// What each pinner has asked for.
    pieces: BTreeMap<Identity, VecDeque<Waiting>>,
    metrics: Arc<Metrics>,
    /// Counts on whenever db.class has something new.
    changes: watch::Sender<u64>,
    began: Instant,
}

impl Agent {
    async fn start(
        config: Arc<Config>,
        key: Arc<PeerKey>,
        trust: Arc<Trust>,
        stopped: watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, RunError> {
        let made = |deed, path: &Path| {
            let path = path.to_path_buf();
            move |source| RunError::Folder { deed, path, source }
        };
        fs::create_dir_all(&config.outbox_dir).map_err(made("make the folder", &config.outbox_dir))?;
        let class = Arc::new(Class::open(&config.class).await?);
        let mesh = outbox::Mesh { chain: config.chain(), validators: config.validators(), pinners: config.pinners() };
        let members: BTreeSet<Identity> = mesh.validators.iter().chain(&mesh.pinners).copied().collect();
        let setup = Setup {
            identity: Some(config.identity.start(tasks).await?),
            signer: key,
            network: config.chain().network(),
            relays: relays(&config.relay)?,
            relays_per_frame: config.relays_per_frame,
            wanted_s: WANTED_S,
            sessions_max: 4 * members.len().max(1),
            allowed: Some(members.clone()),
            subscribe: true,
        };
        let pinners = mesh.pinners.iter().copied().collect();
        let outbox = Outbox::new(mesh, Trusted::new(config.chain(), trust));
        let (mesh, events) = Mesh::start(setup, tasks);
        members.iter().for_each(|member| mesh.open(*member));
        let metrics = Metrics::new();
        let (changes, changed) = watch::channel(0);
        let (finals, to_write) = watch::channel(0);
        tasks.spawn(scribe::run(Arc::clone(&config), Arc::clone(&class), to_write, Arc::clone(&metrics)));
        status::serve(&config, &class, &metrics, stopped.clone(), tasks).await?;
        if let Some(snapshot) = config.snapshot.clone() {
            tasks.spawn(take_snapshots(Arc::clone(&class), snapshot, changed.clone(), Arc::clone(&metrics)));
        }
        let driver = containerd(&config).await;
        // Before anybody can ask for more: what is there now is what an agent before has left.
        if let Some(driver) = &driver {
            clear_away(driver, tasks).await;
        }
        crate::api::serve(&config, &class, driver.clone(), changed, stopped, tasks).await?;
        if let Some(driver) = driver {
            tasks.spawn(reconcile::run(Arc::clone(&config), Arc::clone(&class), driver, changes.clone()));
        }

        let (told, packed) = mpsc::channel(AHEAD_MAX);
        let packer_stop = Arc::new(AtomicBool::new(false));
        let mut agent = Self {
            config,
            class,
            outbox,
            mesh,
            events,
            packed,
            packer: None,
            packer_stop,
            finals,
            pinners,
            shards: VecDeque::new(),
            pieces: BTreeMap::new(),
            metrics,
            changes,
            began: Instant::now(),
        };
        agent.find_again().await?;
        let starts = agent.class.cursors().await?.into_iter().map(start_of).collect();
        let packer = Packer::new(Arc::clone(&agent.config), starts, told, Arc::clone(&agent.packer_stop));
        let thread = std::thread::Builder::new().name("packer".to_owned()).spawn(move || packer.run());
        agent.packer = Some(thread.map_err(|source| RunError::Io { deed: "start the packing thread", source })?);
        Ok(agent)
    }

    /// Opens the batches again that were under way, or not at all their pinners, and removes sealed bytes that nobody needs.
    async fn find_again(&mut self) -> Result<(), RunError> {
        let folder = self.config.outbox_dir.clone();
        let failed = |source| RunError::Folder { deed: "look through", path: folder.clone(), source };
        let mut to_spread = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(da_root) = batch_of_file(&path) else { continue };
            match self.class.batch(&da_root).await? {
                Some(batch) if batch.state != BatchState::Final => {}
                Some(batch) if unix_ms().saturating_sub(batch.created_ms) < SPREADING_MS => to_spread.push(batch),
                // One that is not in db.class was never handed on: its records are packed again.
                _ => remove(&path)?,
            }
        }
        to_spread.sort_unstable_by_key(|batch| std::cmp::Reverse(batch.number));
        for batch in to_spread.drain(SPREADING_MAX.min(to_spread.len())..) {
            remove(&sealed_path(&folder, &batch.da_root))?;
        }
        // More than may be open at a time are there only when sealed bytes were lost, which each start tells again.
        let open = self.class.open_batches(FOUND_MAX).await?;
        for batch in open.iter().chain(&to_spread) {
            self.reopen(batch).await?;
        }
        Ok(())
    }

    async fn reopen(&mut self, batch: &Batch) -> Result<(), RunError> {
        let Some(encoded) = self.encode_again(batch).await? else { return Ok(()) };
        let mut acknowledgements = Vec::new();
        for (_, bytes) in self.class.acknowledgements(&batch.da_root).await? {
            match Acknowledgement::read(&mut Reader::new(&bytes)) {
                Ok(acknowledgement) => acknowledgements.push(acknowledgement),
                // The pinner is asked again.
                Err(error) => tracing::warn!(%error, "an acknowledgement in db.class cannot be read"),
            }
        }
        let pending = self.class.pending_leaves(&batch.da_root, batch.receipts.max(1)).await?;
        let pending: BTreeSet<LeafHash> = pending.into_iter().map(LeafHash).collect();
        let records = self.class.records_of_batch(batch).await?;
        let leaves: Vec<LeafHash> = records.iter().filter_map(|record| record.leaf.map(LeafHash)).collect();
        let mut entries = Vec::new();
        let chain = crate::spool::Chain::new(&self.config.spool_dir, &batch.boundary);
        let tenant = TenantId(batch.tenant);
        for record in records.iter().filter(|record| record.leaf.is_some_and(|leaf| pending.contains(&LeafHash(leaf))))
        {
            match chain.record(record.seq, None) {
                Ok(Some(found)) => {
                    let leaf = bpi_protocol::log::leaf::Leaf::of(tenant, &found.envelope);
                    entries.push(Entry { hash: leaf.hash, leaf: leaf.leaf_hash() });
                }
                Ok(None) | Err(_) => {
                    let detail = format!("record {} of {} is not in the spool any more", record.seq, record.boundary);
                    self.incident("record-gone", &record.boundary, &record.container_id, detail).await?;
                }
            }
        }
        let included = leaves.into_iter().filter(|leaf| !pending.contains(leaf)).collect();
        let attested = self.class.attested(&batch.da_root).await?.is_some();
        let stated = attestation::Batch {
            tenant,
            coding: encoded.coding,
            da_root: batch.da_root,
            receipts: batch.receipts,
            receipts_root: batch.receipts_root,
        };
        let opened =
            Opened { batch: stated, roots: encoded.roots.clone(), entries, acknowledgements, included, attested };
        self.keep_shards(batch.da_root, encoded);
        self.step(Input::Opened(Box::new(opened))).await
    }

    /// Codes the sealed bytes of a batch that was found again; an incident when they are not what they were.
    async fn encode_again(&mut self, batch: &Batch) -> Result<Option<Arc<Encoded>>, RunError> {
        let path = sealed_path(&self.config.outbox_dir, &batch.da_root);
        let wanted = batch.sealed_sha256;
        let encoded = fs::read(&path).map_err(|error| error.to_string()).and_then(|sealed| {
            if Hash::from(Sha256::digest(&sealed)) != wanted {
                return Err("its bytes are not those that were written".to_owned());
            }
            let coding = Coding::new(batch.k, batch.n, sealed.len() as u64).map_err(|error| error.to_string())?;
            encode(coding, &sealed).map_err(|error| error.to_string())
        });
        match encoded {
            Ok(encoded) => Ok(Some(Arc::new(encoded))),
            Err(reason) => {
                let detail = format!("the sealed bytes of batch {} are lost: {reason}", hex::encode(batch.da_root));
                self.incident("outbox", &batch.boundary, "", detail).await?;
                Ok(None)
            }
        }
    }

    fn now_ms(&self) -> u64 {
        // From 1 on: 0 is before everything.
        self.began.elapsed().as_millis() as u64 + 1
    }

    async fn work(&mut self) -> Result<(), RunError> {
        let mut figures = tokio::time::interval(FIGURES_EVERY);
        loop {
            let deadline = self.outbox.deadline_ms().map(|at_ms| self.began + Duration::from_millis(at_ms));
            let pump = (!self.pieces.is_empty()).then(|| Instant::now() + PUMP_EVERY);
            let wake = deadline.into_iter().chain(pump).min().unwrap_or_else(|| Instant::now() + GRACE);
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.hear(event).await?,
                    None => return Ok(()),
                },
                told = self.packed.recv(), if self.outbox.has_room() => self.take(told.ok_or(RunError::PackerGone)?).await?,
                () = sleep_until(TokioInstant::from_std(wake)) => self.step(Input::Time).await?,
                _ = figures.tick() => self.take_figures().await?,
            }
            self.pump().await?;
        }
    }

    async fn take_figures(&self) -> Result<(), RunError> {
        let figures = self.class.figures().await?;
        self.metrics.show(&figures, unix_ms(), self.outbox.len(), self.mesh.relays_connected());
        Ok(())
    }

    async fn hear(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Message { from, message } => {
                if self.pinners.contains(&from) {
                    match pinner::Answer::from_bytes(&message) {
                        Ok(answer) => self.step(Input::Pinner(from, answer)).await?,
                        Err(error) => self.malformed(&from, &error.to_string()),
                    }
                } else {
                    match validator::Answer::from_bytes(&message) {
                        Ok(answer) => self.step(Input::Validator(from, answer)).await?,
                        Err(error) => self.malformed(&from, &error.to_string()),
                    }
                }
            }
            Event::Headline { .. } => self.step(Input::Header).await?,
            Event::Met { peer, .. } => self.mesh.open(peer),
            Event::Lost { tags, .. } => self.metrics.lost(tags.len() as u64),
            Event::Opened { .. } | Event::Acknowledged { .. } => {}
        }
        Ok(())
    }

    fn malformed(&self, from: &Identity, error: &str) {
        self.metrics.malformed();
        tracing::debug!(from = hex::encode(&from[..6]), error, "an answer is none");
    }

    async fn take(&mut self, told: Told) -> Result<(), RunError> {
        match told {
            Told::Packed(packed) => {
                let Packed { batch, entries, new, encoded } = *packed;
                let (boundary, records) = (new.boundary.clone(), new.records.len());
                let number = self.class.add_batch(new).await?;
                self.changed();
                let da_root = hex::encode(batch.da_root);
                tracing::info!(number, boundary, records, receipts = batch.receipts, da_root, "batch");
                let roots = encoded.roots.clone();
                self.keep_shards(batch.da_root, encoded);
                let (acknowledgements, included) = (Vec::new(), BTreeSet::new());
                let opened = Opened { batch, roots, entries, acknowledgements, included, attested: false };
                self.step(Input::Opened(Box::new(opened))).await
            }
            Told::Skipped { boundary, from_seq, next_seq, reason } => {
                let detail = format!("records {from_seq} to {} are in no batch: {reason}", next_seq - 1);
                self.incident("skipped", &boundary, "", detail).await?;
                Ok(self.class.skip(&boundary, from_seq, next_seq, &[0; 32]).await?)
            }
            Told::Nobodys { boundary } => {
                let detail = format!("no tenant of the configuration has the boundary {boundary}; its records wait");
                self.incident("nobodys", &boundary, "", detail).await
            }
            Told::Failed(error) => Err(error.into()),
        }
    }

    async fn incident(&self, kind: &str, boundary: &str, container_id: &str, detail: String) -> Result<(), RunError> {
        self.record(format!("{kind} {boundary} {container_id} {detail}"), kind, boundary, container_id, detail).await
    }

    /// Records an incident, unless `what` was recorded before.
    async fn record(
        &self,
        what: String,
        kind: &str,
        boundary: &str,
        container_id: &str,
        detail: String,
    ) -> Result<(), RunError> {
        tracing::warn!(kind, boundary, container_id, detail, "incident");
        let (kind, boundary, container_id) = (kind.to_owned(), boundary.to_owned(), container_id.to_owned());
        let new = NewIncident { what, time_ms: unix_ms(), kind, boundary, container_id, detail };
        self.class.record_incident(new).await?;
        self.changed();
        Ok(())
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    async fn step(&mut self, input: Input) -> Result<(), RunError> {
        let effects = self.outbox.step(self.now_ms(), input);
        for effect in effects {
            self.carry_out(effect).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), RunError> {
        match effect {
            Effect::AskPinner(to, request) => self.send(to, request.to_bytes()),
            Effect::AskValidator(to, request) => {
                if let validator::Request::Attest(attestation) = &request {
                    self.class.set_kept(&attestation.batch.da_root, &attestation.to_bytes()).await?;
                    self.changed();
                }
                self.send(to, request.to_bytes());
            }
            Effect::SendPieces(to, da_root, shards) => self.queue(to, da_root, shards),
            Effect::KeepAcknowledgement(da_root, acknowledgement) => {
                let mut bytes = Writer::new();
                acknowledgement.write(&mut bytes);
                self.class.acknowledge(&da_root, &acknowledgement.pinner, &bytes.done()).await?;
            }
            Effect::KeepInclusions(_, sealed, leaves) => {
                let mut bytes = Writer::new();
                sealed.write(&mut bytes);
                let proofs = leaves.into_iter().map(|(leaf, inclusion)| (leaf.0, inclusion.to_bytes())).collect();
                let included = self.class.add_inclusions(sealed.header.height.0, &bytes.done(), proofs).await?;
                self.metrics.included(included.added);
                self.changed();
            }
            Effect::KeepAttested(da_root, attested) => {
                let mut bytes = Writer::new();
                attested.sealed.write(&mut bytes);
                let (height, inclusion) = (attested.sealed.header.height.0, attested.inclusion.to_bytes());
                let kept = Attested { height, attestation: attested.attestation.to_bytes(), inclusion };
                self.class.set_attested(&da_root, &bytes.done(), &kept).await?;
                self.changed();
            }
            Effect::Final(da_root) => {
                tracing::info!(da_root = hex::encode(da_root), "final");
                self.finals.send_modify(|count| *count += 1);
                self.changed();
            }
            Effect::Closed(da_root) => {
                self.forget(&da_root);
                let path = sealed_path(&self.config.outbox_dir, &da_root);
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "sealed bytes that are not needed any more stay");
                }
            }
            Effect::Trouble(trouble) => {
                self.metrics.trouble();
                let (kind, what) = trouble.name();
                self.record(format!("{kind} {what}"), kind, "", "", trouble.to_string()).await?;
            }
        }
        Ok(())
    }

    fn send(&self, to: Identity, bytes: Vec<u8>) {
        let message: Message = Arc::new(Zeroizing::new(bytes));
        self.mesh.send(to, message);
    }

    /// Remembers shards; those of the oldest batches are forgotten when they are too many bytes.
    fn keep_shards(&mut self, da_root: Hash, encoded: Arc<Encoded>) {
        let bytes = |encoded: &Encoded| encoded.shards.iter().map(Vec::len).sum::<usize>();
        self.shards.push_back((da_root, encoded));
        let mut held: usize = self.shards.iter().map(|(_, encoded)| bytes(encoded)).sum();
        while held > SHARDS_BYTES_MAX && self.shards.len() > 1 {
            held -= self.shards.pop_front().map_or(0, |(_, encoded)| bytes(&encoded));
        }
    }

    /// Nothing more of a batch is sent.
    fn forget(&mut self, da_root: &Hash) {
        self.shards.retain(|(each, _)| each != da_root);
        self.pieces.values_mut().for_each(|queue| queue.retain(|waiting| waiting.da_root != *da_root));
    }

    fn queue(&mut self, to: Identity, da_root: Hash, wanted: ShardSet) {
        let queue = self.pieces.entry(to).or_default();
        // Asked for again: what waits of it is enough.
        queue.retain(|waiting| waiting.da_root != da_root);
        queue.push_back(Waiting { da_root, shards: wanted.iter().collect(), sent: 0 });
    }

    /// Sends pieces, as far as their pinners have room: those first of batches whose shards are in memory. When a pinner wants none of these, the shards of
    /// the batch that it has waited for longest are computed again, one batch at a time.
    async fn pump(&mut self) -> Result<(), RunError> {
        let Self { pieces, mesh, shards, .. } = self;
        let mut wanted = None;
        for (to, queue) in pieces.iter_mut() {
            while mesh.waiting_bytes(to) < WINDOW_BYTES {
                let found = queue.iter_mut().enumerate().find_map(|(at, waiting)| {
                    let (_, encoded) = shards.iter().find(|(each, _)| *each == waiting.da_root)?;
                    Some((at, waiting.next(encoded)))
                });
                match found {
                    Some((_, Some(piece))) => {
                        let message: Message = Arc::new(Zeroizing::new(pinner::Request::Piece(piece).to_bytes()));
                        mesh.send(*to, message);
                    }
                    Some((at, None)) => drop(queue.remove(at)),
                    None => {
                        wanted = wanted.or_else(|| queue.front().map(|waiting| waiting.da_root));
                        break;
                    }
                }
            }
        }
        pieces.retain(|_, queue| !queue.is_empty());
        let Some(da_root) = wanted else { return Ok(()) };
        let encoded = match self.class.batch(&da_root).await? {
            Some(batch) => self.encode_again(&batch).await?,
            None => None,
        };
        match encoded {
            Some(encoded) => self.keep_shards(da_root, encoded),
            None => self.forget(&da_root),
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.packer_stop.store(true, Ordering::Relaxed);
        // The thread may wait to hand a batch over; it is packed again from the spool.
        self.packed.close();
        self.mesh.close();
    }

    async fn end(mut self) {
        if let Some(packer) = self.packer.take()
            && packer.join().is_err()
        {
            tracing::error!("the packing thread panicked");
        }
        if let Ok(class) = Arc::try_unwrap(self.class) {
            class.close().await;
        }
    }
}

fn remove(path: &Path) -> Result<(), RunError> {
    fs::remove_file(path).map_err(|source| RunError::Folder { deed: "remove", path: path.to_path_buf(), source })
}

/// Sees containers to their end that an agent before was asked to run, and removes what it made.
async fn clear_away(driver: &Driver, tasks: &mut JoinSet<()>) {
    let left = match driver.left_behind().await {
        Ok(left) => left,
        Err(error) => return tracing::warn!(%error, "what an agent before has left cannot be listed"),
    };
    for container in left {
        let driver = driver.clone();
        tasks.spawn(async move {
            tracing::info!(boundary = container.namespace, container_id = container.id, "left by an agent before");
            if let Err(error) = driver.finish(&container.namespace, &container.id, &mut |_| {}).await {
                tracing::warn!(%error, container_id = container.id, "it cannot be seen to its end");
            }
        });
    }
}

/// Copies db.class after each change, when the last copy is old enough.
async fn take_snapshots(
    class: Arc<Class>,
    config: SnapshotConfig,
    mut changed: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
) {
    while changed.changed().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(config.every_ms)).await;
        changed.mark_unchanged();
        match class.snapshot(&config.file, unix_ms()).await {
            Ok(_) => metrics.snapshot(unix_ms()),
            Err(error) => tracing::error!(%error, "db.class cannot be copied; it is alone"),
        }
    }
}

/// The containerd of the configuration. The agent starts without it: receipts come by the spool.
async fn containerd(config: &Config) -> Option<Driver> {
    let named = config.containerd.as_ref()?;
    match Driver::connect(&named.socket, &named.snapshotter).await {
        Ok(driver) => Some(driver),
        Err(error) => {
            tracing::warn!(%error, "containerd does not answer; nothing is run by this agent");
            None
        }
    }
}

fn start_of(cursor: Cursor) -> (String, (u64, Option<Sha256Digest>)) {
    let digest = (cursor.digest != [0; 32]).then(|| Sha256Digest::from_bytes(cursor.digest));
    (cursor.boundary, (cursor.next_seq, digest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_piece_of_what_is_wanted_is_sent_once() {
        let data: Vec<u8> = (0..3 << 20).map(|at: u32| at as u8).collect();
        let encoded = encode(Coding::new(2, 4, data.len() as u64).unwrap(), &data).unwrap();
        let mut waiting = Waiting { da_root: encoded.da_root, shards: vec![0, 3], sent: 0 };
        let mut sent = BTreeMap::<u8, Vec<u8>>::new();
        while let Some(piece) = waiting.next(&encoded) {
            sent.entry(piece.shard).or_default().extend(piece.bytes);
        }
        assert!(encoded.coding.stripes() > 1);
        assert_eq!(sent, BTreeMap::from([(0, encoded.shards[0].clone()), (3, encoded.shards[3].clone())]));
        assert!(Waiting { da_root: encoded.da_root, shards: Vec::new(), sent: 0 }.next(&encoded).is_none());
    }
}
