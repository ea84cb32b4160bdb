//! Puts a node together, and takes it apart again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bpi_keyfile::PeerKey;
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::consensus::scheme::PublicKey;
use bpi_transport::config::relays;
use bpi_transport::mesh::Setup;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::agents::Agent;
use super::api;
use super::ceremonies::{Ceremonies, CeremoniesError};
use super::config::{AgentConfig, ApiAddress, Config, ConfigError};
use super::genesis::{Genesis, GenesisError};
use super::host::{Host, HostError, Parts};
use super::inbox_source::InboxSource;
use super::metrics::Metrics;
use super::network::Events;
use super::network::bpci::{self, Bpci, Others};
use super::schedule::Plan;
use crate::beacon::share::ShareBook;
use crate::contents::application::Application;
use crate::contents::inbox::file::InboxFileError;
use crate::contents::ledger::{Ledger, LedgerError};
use crate::contents::mempool::Bounds;
use crate::core::Core;
use crate::durable::watermark::Watermark;
use crate::durable::{Durable, DurableError, Found, headers_path};
use crate::keys::{KeyFile, KeyFileError};

/// Threads that check the chain of hashes of a header.
const HASHING_THREADS: usize = 2;
/// How long a frame to a peer is wanted, in s: one that was away for longer asks for what it missed.
const WANTED_S: u32 = 10;
/// How long the parts of a node have to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why a node does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The log.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Ceremonies.
    #[error(transparent)]
    Ceremonies(#[from] CeremoniesError),
    /// The inbox.
    #[error(transparent)]
    Inbox(#[from] InboxFileError),
    /// The running node.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is nothing to go on from.
    #[error("there is no data in {}; `bpi-validator init` makes an empty directory, and is for a node that never ran: restore what it had otherwise", path.display())]
    NoData {
        /// The data directory.
        path: PathBuf,
    },
    /// The voting key is nobody's.
    #[error("the key of this node is in no validator set of the genesis; correct `key_file`, or set `observe = true`")]
    NotInSet,
    /// The peer key is another one than the genesis has for the voting key.
    #[error(
        "the peer key of this node is {found}, and the genesis has {wanted} for its voting key; correct `peer_key_file`"
    )]
    PeerKey {
        /// In hex.
        found: String,
        /// In hex.
        wanted: String,
    },
    /// An agent is somebody else too.
    #[error("agent {key} is a validator, an observer or a pinner of this chain too; give it a key of its own")]
    Agent {
        /// In hex.
        key: String,
    },
    /// Nobody can be listened to.
    #[error("could not listen at {address}: {source}; correct `{field}`, or end what listens there")]
    Listen {
        /// Where.
        address: ApiAddress,
        /// Which field says so.
        field: &'static str,
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

impl RunError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "BV0101",
            Self::Genesis(_) => "BV0102",
            Self::Key(_) => "BV0201",
            Self::NotInSet => "BV0202",
            Self::PeerKey { .. } => "BV0203",
            Self::Agent { .. } => "BV0204",
            Self::Durable(_) => "BV0302",
            Self::NoData { .. } => "BV0305",
            Self::Ledger(_) => "BV0306",
            Self::Inbox(_) => "BV0307",
            Self::Ceremonies(_) => "BV0308",
            Self::Listen { .. } => "BV0401",
            Self::Relays(_) => "BV0402",
            Self::Io { .. } => "BV0403",
            Self::Host(_) => "BV0404",
        }
    }

    /// True for what the caller has to correct.
    pub fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Genesis(_)
                | Self::Key(_)
                | Self::NotInSet
                | Self::PeerKey { .. }
                | Self::Agent { .. }
                | Self::NoData { .. }
        )
    }
}

/// Where this node stands: its number among the validators, or "observes".
///
/// # Errors
/// [`RunError::NotInSet`] and [`RunError::PeerKey`].
pub fn place(genesis: &Genesis, key: Option<PublicKey>, peer: &[u8; 32]) -> Result<String, RunError> {
    let Some(key) = key else { return Ok("observes".to_owned()) };
    let found = genesis.periods.iter().find_map(|period| Some((period, period.position(&key)?)));
    let Some((period, at)) = found else { return Err(RunError::NotInSet) };
    let wanted = period.peers[at.at()];
    if wanted != *peer {
        return Err(RunError::PeerKey { found: hex::encode(peer), wanted: hex::encode(wanted) });
    }
    Ok(format!("is validator {at} of {} from height {} on", period.set.len(), period.first))
}

/// Makes an empty data directory.
///
/// # Errors
/// When there is one, or it cannot be made.
pub fn init(config: &Config, genesis: &Genesis) -> Result<(), RunError> {
    Durable::create(&config.data_dir, genesis.chain, &genesis.header)?;
    Ok(Ledger::create(&ledger_path(&config.data_dir))?)
}

fn ledger_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger")
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub fn run(config: Config, may_init: bool) -> Result<(), RunError> {
    let genesis = Arc::new(Genesis::load(&config.genesis)?);
    bpi_program::log::start(&config.log_level);
    let peer_key = PeerKey::load(&config.peer_key_file)?;
    let key = if config.observe { None } else { Some(KeyFile::load(&config.key_file)?) };
    let stands = place(&genesis, key.as_ref().map(KeyFile::public_key), &peer_key.public())?;
    if !headers_path(&config.data_dir).exists() {
        if !may_init {
            return Err(RunError::NoData { path: config.data_dir });
        }
        init(&config, &genesis)?;
    }
    tracing::info!(chain = %genesis.chain, name = genesis.name, "this node {stands}");
    let metrics = Metrics::new();
    let public = key.as_ref().map(KeyFile::public_key);
    let plan = Plan::new(Arc::clone(&genesis), public, Arc::clone(&metrics));
    let (durable, found) = open(&config, &genesis, key.as_ref())?;
    let contents = open_contents(&config, &genesis, &durable)?;
    let timing = config.timing.into();
    let (key, book) = (key.map(|key| Arc::new(key.into_secret())), ShareBook::default());
    let core = match &key {
        Some(key) => Core::validator(timing, Arc::clone(key) as Arc<_>, Some(Arc::new(book.clone()))),
        None => Core::observer(timing),
    };
    let ceremonies = Ceremonies::open(&config.data_dir.join("ceremonies"), Arc::clone(&genesis), key, book)?;
    let peers = peers(&config, &genesis, &peer_key.public());
    let agents = agents(&config, &genesis, &peer_key.public())?;
    let peer_key = Arc::new(peer_key);
    let evidence = config.data_dir.join("evidence");

    let failed = |deed| move |source| RunError::Io { deed, source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed("start the network's thread"))?;
    let (stop, stopped) = watch::channel(false);
    let (asks, asked) = mpsc::channel(api::ASKS_MAX);
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let signer = Arc::clone(&peer_key);
        let others = Others {
            agents: agents.iter().map(|agent| agent.key).collect(),
            pinners: genesis.pinner_keys.iter().copied().collect(),
        };
        let (network, events) = connect(&config, &genesis, signer, &peers, &others, &metrics, &mut tasks).await?;
        let refused = |source| RunError::Listen { address: config.api.clone(), field: "api", source };
        let router = api::router(asks, Arc::clone(&metrics));
        bpi_program::api::serve(&config.api, router, stopped.clone(), &mut tasks).await.map_err(refused)?;
        let parts = Parts {
            genesis,
            plan,
            durable,
            found,
            contents,
            held: config.data_dir.join("contents.log"),
            ceremonies,
            core,
            network,
            peers,
            agents,
            probe: config.probe,
            peer_key,
            evidence,
            metrics,
        };
        let (done, ended) = tokio::sync::oneshot::channel();
        let host = std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || drop(done.send(work(parts, events, asked, stopped))))
            .map_err(failed("start the host's thread"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
        let mut ended = ended;
        let result = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            result = &mut ended => Some(result),
        };
        let result = match result {
            Some(result) => result,
            None => {
                tracing::info!("asked to stop");
                stop.send_replace(true);
                ended.await
            }
        };
        stop.send_replace(true);
        if host.join().is_err() {
            tracing::error!("the host's thread panicked");
        }
        let over = tokio::time::timeout(GRACE, async { while tasks.join_next().await.is_some() {} });
        tasks_end(over).await;
        match result {
            Ok(result) => result.map_err(RunError::Host),
            Err(_) => Err(RunError::Io { deed: "run the host", source: io::Error::other("its thread panicked") }),
        }
    })
}

/// The network's tasks never end by themselves; the API's do, when its answers are given.
async fn tasks_end(over: impl Future<Output = Result<(), tokio::time::error::Elapsed>>) {
    tokio::select! {
        _ = over => {}
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
}

fn work(
    parts: Parts<Bpci>,
    events: Events,
    asked: mpsc::Receiver<api::Ask>,
    stopped: watch::Receiver<bool>,
) -> Result<(), HostError> {
    let runtime = Builder::new_current_thread().enable_time().build().map_err(HostError::Thread)?;
    runtime.block_on(async { Host::start(parts)?.run(events, asked, stopped).await })
}

fn open(config: &Config, genesis: &Genesis, key: Option<&KeyFile>) -> Result<(Durable, Found), RunError> {
    match key {
        Some(key) => {
            let watermark = Watermark::path_beside(&config.key_file);
            Ok(Durable::open(&config.data_dir, &watermark, genesis.chain, key.fingerprint())?)
        }
        None => Ok(Durable::open_to_observe(&config.data_dir, genesis.chain)?),
    }
}

/// Opens what headers commit to. The log may be behind the headers, when the leaves of the last ones had not come yet.
///
/// # Errors
/// [`RunError::Ledger`], [`RunError::Durable`] or [`RunError::Inbox`].
pub fn open_contents(
    config: &Config,
    genesis: &Genesis,
    durable: &Durable,
) -> Result<Application<InboxSource>, RunError> {
    let pool = config.mempool;
    let bounds = Bounds { leaves_max: pool.leaves, tenant_leaves_max: pool.leaves_per_tenant };
    let rules = genesis.rules(bounds, HASHING_THREADS);
    let folder = ledger_path(&config.data_dir);
    let mut header = *durable.tip();
    loop {
        let inbox = InboxSource::open(config.inbox_file.as_deref())?;
        match Application::open(&folder, rules.clone(), inbox, &header) {
            Err(LedgerError::Short { found, .. }) if header.height > Height(0) => {
                while header.receipts.size > found {
                    let before = Height(header.height.0.saturating_sub(1));
                    let Some((earlier, _)) = durable.get(before)? else { break };
                    header = earlier;
                }
            }
            opened => return Ok(opened?),
        }
    }
}

/// Everybody of every set but this node, then the observers, by their keys.
fn peers(config: &Config, genesis: &Genesis, own: &[u8; 32]) -> Vec<[u8; 32]> {
    let observers = config.observers.iter().filter_map(|text| <[u8; 32]>::try_from(hex::decode(text).ok()?).ok());
    let mut peers: Vec<[u8; 32]> = Vec::new();
    for key in genesis.periods.iter().flat_map(|period| period.peers.iter().copied()).chain(observers) {
        if key != *own && !peers.contains(&key) {
            peers.push(key);
        }
    }
    peers
}

/// Agents, none of whom is anybody else.
///
/// # Errors
/// [`RunError::Agent`].
pub fn agents(config: &Config, genesis: &Genesis, own: &[u8; 32]) -> Result<Vec<Agent>, RunError> {
    let (peers, agents) = (peers(config, genesis, own), config.agent.iter().filter_map(AgentConfig::agent));
    let agents: Vec<Agent> = agents.collect();
    let is_other = |key: &[u8; 32]| key == own || peers.contains(key) || genesis.pinner_keys.contains(key);
    match agents.iter().find(|agent| is_other(&agent.key)) {
        Some(agent) => Err(RunError::Agent { key: hex::encode(agent.key) }),
        None => Ok(agents),
    }
}

/// Begins to connect to relays. A chain of one validator needs none.
async fn connect(
    config: &Config,
    genesis: &Genesis,
    signer: Arc<PeerKey>,
    peers: &[[u8; 32]],
    others: &Others,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> Result<(Bpci, Events), RunError> {
    let identity = match config.relay.is_empty() {
        false => Some(config.identity.start(tasks).await?),
        true => None,
    };
    let setup = Setup {
        identity,
        signer,
        network: genesis.chain.network(),
        relays: relays(&config.relay)?,
        relays_per_frame: config.relays_per_frame,
        wanted_s: WANTED_S,
        allowed: Some(peers.iter().chain(&others.agents).chain(&others.pinners).copied().collect()),
        sessions_max: 4 * (peers.len() + others.agents.len() + others.pinners.len()).max(1),
        subscribe: false,
    };
    Ok(bpci::start(setup, peers, others, Arc::clone(metrics), tasks))
}
