//! Puts a pinner together, and takes it apart again.
//!
//! ```text
//! relays ═ Mesh ─ Sorter ─┬─► writer (Keeper) ─► shards, catalogue
//!                         ├─► reader (Reader) ─► answers
//!                         └─► repair
//! ```

pub mod api;
pub mod limits;
pub mod network;
pub mod repairing;
pub mod work;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bpi_keyfile::{KeyFileError, PeerKey};
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::mesh::pinner::Answer;
use bpi_transport::config::relays;
use bpi_transport::mesh::{Event, Mesh, Setup};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use crate::answers::Reader;
use crate::catalogue::{Catalogue, CatalogueError};
use crate::config::Config;
use crate::disk::{Disk, HostDisk};
use crate::index::Index;
use crate::keeper::{Keeper, KeeperError};
use crate::metrics::Metrics;
use crate::repair::Repairer;
use crate::store::local::Local;
use crate::store::objects::{BucketError, Objects};
use crate::store::{Shards, StoreError};
use crate::table::TableError;
use bpi_program::api::ApiAddress;

use network::{Channels, Members, Sorter};
use repairing::MeshPeers;
use work::{Orders, Say, Shown, Work};

/// How long a frame to a peer is wanted, in s: whoever was away for longer asks again.
const WANTED_S: u32 = 20;
/// Answers of other pinners that wait, at most: of a MiB at most each.
const ANSWERS_MAX: usize = 16;
/// How long the API has to end.
const GRACE: Duration = Duration::from_secs(2);

/// Why a pinner does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Disk, bucket or index.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Nobody can be listened to.
    #[error("could not listen at {address}: {source}; correct `api`, or end what listens there")]
    Listen {
        /// Where.
        address: ApiAddress,
        /// What the kernel said.
        source: io::Error,
    },
    /// Relays.
    #[error("relays cannot be connected to: {0}")]
    Relays(#[from] bpi_transport::config::ConfigError),
    /// Threads, signals.
    #[error("could not {deed}: {source}")]
    Io {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Keeper(error.into())
    }
}

impl From<CatalogueError> for RunError {
    fn from(error: CatalogueError) -> Self {
        Self::Keeper(error.into())
    }
}

impl From<TableError> for RunError {
    fn from(error: TableError) -> Self {
        CatalogueError::from(error).into()
    }
}

impl RunError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(_) => "BP0201",
            Self::Keeper(KeeperError::Store(StoreError::Disk { source: error })) if error.is_fatal() => "BP0302",
            Self::Keeper(KeeperError::Store(StoreError::Disk { .. })) => "BP0301",
            Self::Keeper(KeeperError::Store(StoreError::Object { .. })) => "BP0303",
            Self::Keeper(KeeperError::Catalogue(CatalogueError::Table(_))) => "BP0304",
            Self::Keeper(KeeperError::Catalogue(CatalogueError::Row { .. })) => "BP0305",
            Self::Keeper(KeeperError::Catalogue(CatalogueError::Log { .. })) => "BP0306",
            Self::Keeper(KeeperError::Catalogue(CatalogueError::Owner { .. })) => "BP0307",
            Self::Bucket(_) => "BP0102",
            Self::Listen { .. } => "BP0401",
            Self::Relays(_) => "BP0402",
            Self::Io { .. } => "BP0403",
        }
    }

    /// True for what the caller has to correct.
    pub fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::Key(_) | Self::Bucket(_) | Self::Keeper(KeeperError::Catalogue(CatalogueError::Owner { .. }))
        )
    }
}

/// Disk, shards and catalogue, of the pinner that a configuration and a key make.
#[derive(Debug)]
pub struct Opened {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The shards.
    pub shards: Arc<dyn Shards>,
    /// What is known of them.
    pub catalogue: Arc<Catalogue>,
}

/// Where the index of a data directory is.
pub fn index_path(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("index")
}

/// Opens what a pinner keeps.
///
/// # Errors
/// [`RunError`].
pub fn open(config: &Config, identity: [u8; 32]) -> Result<Opened, RunError> {
    let disk: Arc<dyn Disk> = Arc::new(HostDisk);
    disk.make_folder(&config.data_dir).map_err(StoreError::from)?;
    let shards = open_shards(config, &disk)?;
    let index = Arc::new(Index::open(&index_path(&config.data_dir))?);
    let owner = [config.chain_id().0, identity].concat();
    Ok(Opened { disk, shards, catalogue: Arc::new(Catalogue::open(index, &owner)?) })
}

fn open_shards(config: &Config, disk: &Arc<dyn Disk>) -> Result<Arc<dyn Shards>, RunError> {
    let Some(url) = &config.store.url else {
        return Ok(Arc::new(Local::open(Arc::clone(disk), &config.data_dir.join("shards"))?));
    };
    let mut options = config.store.options.clone();
    if let Some(path) = &config.store.options_file {
        let refused = |reason: String| BucketError::Options { path: path.clone(), reason };
        let text = bpi_keyfile::read_private(path)?;
        let more: BTreeMap<String, String> =
            toml::from_str(&text).map_err(|error| refused(error.message().to_owned()))?;
        options.extend(more);
    }
    let timeout = Duration::from_secs(config.store.timeout_s.into());
    Ok(Arc::new(Objects::new(Arc::clone(disk), url, &options, timeout)?))
}

/// Runs a pinner until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub fn run(config: &Config) -> Result<(), RunError> {
    bpi_program::log::start(&config.log_level);
    let key = Arc::new(PeerKey::load(&config.key_file)?);
    let identity = key.identity();
    let Opened { disk, shards, catalogue } = open(config, identity)?;
    let policy = config.policy(identity);
    let staging = config.data_dir.join("staging");
    let keeper = Keeper::open(
        policy.clone(),
        Arc::clone(&key) as _,
        Arc::clone(&disk),
        Arc::clone(&shards),
        Arc::clone(&catalogue),
        staging,
    )?;
    let reader = Reader::new(Arc::clone(&shards), Arc::clone(&catalogue));
    let (metrics, shown, orders) = (Metrics::new(), Arc::new(Shown::default()), Arc::new(Orders::default()));

    let failed = |deed| move |source| RunError::Io { deed, source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed("start the network's thread"))?;
    let (stop, stopped) = watch::channel(false);
    let (work, to_do) = mpsc::channel(work::WORK_MAX);
    let (questions, asked) = mpsc::channel(work::QUESTIONS_MAX);
    let (answers, heard) = std::sync::mpsc::sync_channel(ANSWERS_MAX);
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let connected = connect(config, &key, &mut tasks).await?;
        let mesh = connected.as_ref().map(|(mesh, _)| mesh.clone());
        let say = say_over(mesh.clone());
        let facts = Arc::new(api::Facts {
            identity,
            policy,
            catalogue: Arc::clone(&catalogue),
            shards,
            shown: Arc::clone(&shown),
            mesh,
            orders: Arc::clone(&orders),
            metrics: Arc::clone(&metrics),
        });
        let refused = |source| RunError::Listen { address: config.api.clone(), source };
        bpi_program::api::serve(&config.api, api::router(facts), stopped, &mut tasks).await.map_err(refused)?;
        tracing::info!(identity = hex::encode(identity), chain = config.chain, "this pinner keeps shards");
        let mut threads = Threads::default();
        threads.spawn("writer", {
            let (say, shown, metrics) = (Arc::clone(&say), Arc::clone(&shown), Arc::clone(&metrics));
            move || work::write(keeper, to_do, &say, &shown, &metrics)
        })?;
        threads.spawn("reader", {
            let (reader, work, say, metrics) = (reader.clone(), work.clone(), Arc::clone(&say), Arc::clone(&metrics));
            move || work::answer(&reader, asked, &work, &say, &metrics)
        })?;
        threads.spawn("scrubber", {
            let (catalogue, work, orders) = (Arc::clone(&catalogue), work.clone(), Arc::clone(&orders));
            let (config, metrics) = (config.scrub, Arc::clone(&metrics));
            let reader = reader.clone();
            move || work::scrub(&reader, &catalogue, config, &work, &orders, &metrics)
        })?;
        if let Some((mesh, told)) = connected {
            let repairer = Repairer {
                peers: MeshPeers { mesh: mesh.clone(), answers: heard, orders: Arc::clone(&orders) },
                known: config.members()[1].clone(),
                reader: reader.clone(),
                disk,
                folder: config.data_dir.join("repairs"),
                wait: Duration::from_secs(config.repair.answer_s),
            };
            let setup = repairing::Setup {
                catalogue: Arc::clone(&catalogue),
                work: work.clone(),
                orders: Arc::clone(&orders),
                metrics: Arc::clone(&metrics),
                validators: config.members()[2].clone(),
                proofs: config.data_dir.join("wrong"),
                every: Duration::from_secs(config.repair.every_s),
                reserve_bytes: config.store.reserve_bytes,
            };
            threads.spawn("repairer", move || repairing::run(repairer, &setup))?;
            let channels = Channels { work: work.clone(), questions: questions.clone(), answers };
            tasks.spawn(Sorter::new(members(config), channels, mesh, config.answers, Arc::clone(&metrics)).run(told));
        }
        drop(questions);
        tasks.spawn(tick(work));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
        let ended = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            ended = threads.ended() => Some(ended),
        };
        if ended.is_none() {
            tracing::info!("asked to stop");
        }
        stop.send_replace(true);
        orders.stop.store(true, Ordering::Relaxed);
        // Who brings work and questions ends, so that the threads do when they have done what they were given.
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => {}
            () = tokio::time::sleep(GRACE.min(Duration::from_millis(200))) => {}
        }
        drop(tasks);
        match ended {
            Some(ended) => ended,
            None => threads.join().await,
        }
    })
}

/// Agents, pinners and validators.
fn members(config: &Config) -> Members {
    let [agents, peers, validators] = config.members().map(|members| members.into_iter().collect());
    Members { agents, peers, validators }
}

/// Says answers over the mesh. Without one there is nobody to say anything to.
fn say_over(mesh: Option<Mesh>) -> Say {
    Arc::new(move |to: [u8; 32], answer: &Answer| {
        if let Some(mesh) = &mesh {
            mesh.send(to, Arc::new(Zeroizing::new(answer.to_bytes())));
        }
    })
}

/// Threads that end with a result.
#[derive(Debug)]
struct Threads {
    threads: Vec<std::thread::JoinHandle<()>>,
    ends: mpsc::Sender<Result<(), RunError>>,
    ended: mpsc::Receiver<Result<(), RunError>>,
}

impl Default for Threads {
    fn default() -> Self {
        let (ends, ended) = mpsc::channel(8);
        Self { threads: Vec::new(), ends, ended }
    }
}

impl Threads {
    fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), KeeperError> + Send + 'static,
    ) -> Result<(), RunError> {
        let ends = self.ends.clone();
        let body = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let panicked = || RunError::Io { deed: "go on", source: io::Error::other("a thread panicked") };
            let result = result.map_or_else(|_| Err(panicked()), |result| result.map_err(RunError::from));
            // Nobody listens any more when the process ends for another reason.
            drop(ends.try_send(result));
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(started.map_err(|source| RunError::Io { deed: "start a thread", source })?);
        Ok(())
    }

    /// The first that ends: each only does when something has failed.
    async fn ended(&mut self) -> Result<(), RunError> {
        self.ended.recv().await.unwrap_or(Ok(()))
    }

    /// All of them.
    async fn join(mut self) -> Result<(), RunError> {
        for _ in 0..self.threads.len() {
            self.ended().await?;
        }
        Ok(())
    }
}

async fn tick(work: mpsc::Sender<Work>) {
    let mut look = interval(work::TICK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if work.send(Work::Tick).await.is_err() {
            return;
        }
    }
}

/// Begins to connect to relays.
async fn connect(
    config: &Config,
    key: &Arc<PeerKey>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<(Mesh, mpsc::Receiver<Event>)>, RunError> {
    if config.relay.is_empty() {
        return Ok(None);
    }
    let setup = Setup {
        identity: Some(config.identity.start(tasks).await?),
        signer: Arc::clone(key) as _,
        network: config.chain_id().network(),
        relays: relays(&config.relay)?,
        relays_per_frame: config.relays_per_frame,
        wanted_s: WANTED_S,
        // Anybody may probe.
        allowed: None,
        sessions_max: config.answers.sessions,
        subscribe: false,
    };
    Ok(Some(Mesh::start(setup, tasks)))
}
