//! The edge: sockets, TLS, the clock and the kernel's randomness, around one [`Switch`].
//!
//! It listens to QUIC and to TLS, and on loopback to who wants figures. At the first signal it drains: nothing new is taken, clients are told, and
//! it ends when all are gone or the time is up.

mod hop;
mod http;
mod status;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bpi_identity::directory::{Directory, DirectoryError, LiveDirectory};
use bpi_identity::{ClientAuth, Identity, Leaf, Role, quic_server, server_config};
use bpi_protocol::hop::{ALPN, Code, Hop};
use bpi_protocol::key::PublicKey;
use bpi_transport::config::ConfigError as IdentityError;
use bpi_transport::settings::transport;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::switch::{Drain, Now, Switch};

use hop::{HTTP1, HTTP3, Hops};

/// How often tables are cleared of what is over.
const TICK: Duration = Duration::from_millis(100);
/// How often the directory is read again.
const DIRECTORY_EVERY: Duration = Duration::from_secs(60);
/// QUIC connections that wait to be taken, and bytes that they may have sent by then: 1 024 of 8 KiB.
const INCOMING_MAX: usize = 1024;
const INCOMING_BYTES_MAX: u64 = 8 * 1024;
/// Roles that are let in.
const CLIENTS: [Role; 5] = [Role::Validator, Role::Agent, Role::Pinner, Role::Service, Role::Relay];

/// Why the relay ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its SVID.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS.
    #[error("TLS cannot be set up: {reason}")]
    Tls {
        /// What was said.
        reason: String,
    },
    /// The directory.
    #[error("the directory {} cannot be used: {source}", path.display())]
    Directory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<DirectoryError>,
    },
    /// The key of the directory.
    #[error("directory.key is no Ed25519 key")]
    DirectoryKey,
    /// An address cannot be listened at.
    #[error("could not listen at {address}: {source}; correct `listen.{field}`, or end what listens there")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which field says so.
        field: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Threads, signals, randomness.
    #[error("could not {deed}: {source}")]
    Io {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ServeError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Identity(_) => "BR0301",
            Self::Tls { .. } => "BR0302",
            Self::Directory { .. } | Self::DirectoryKey => "BR0303",
            Self::Listen { .. } => "BR0304",
            Self::Io { .. } => "BR0305",
        }
    }
}

/// The two clocks of a switch.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn now(&self) -> Now {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Now { us: self.0.elapsed().as_micros() as u64, unix_s }
    }
}

/// What the signed directory says of members. Without one, nobody's network is known.
#[derive(Clone, Debug, Default)]
struct Places(Option<LiveDirectory>);

impl Places {
    fn asn_of(&self, leaf: &Leaf, now_s: u64) -> Option<u32> {
        let directory = self.0.as_ref()?.current();
        directory.lookup(&leaf.id, now_s).ok().map(|member| member.asn)
    }
}

/// Runs the relay until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`].
pub fn run(config: Config) -> Result<(), ServeError> {
    let failed = |deed| move |source| ServeError::Io { deed, source };
    bpi_program::log::start(&config.log_level);
    // A relay is sized for one processor; one thread hands frames on without waking another.
    let mut builder = match config.threads {
        1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads as usize);
            builder
        }
    };
    let runtime = builder.enable_all().build().map_err(failed("start threads"))?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let identity = config.identity.start(&mut tasks).await?;
        let places = open_directory(&config, &identity, &mut tasks)?;
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)
            .map_err(|error| ServeError::Io { deed: "get randomness", source: io::Error::other(error) })?;
        let switch = Switch::new(config.settings(seed));
        let metrics = Metrics::new();
        let listen = config.listen;
        let hops = Hops::new(switch, identity.clone(), metrics, config, places);
        let endpoint = listen_quic(&identity, listen.udp)?;
        let (listener, acceptor) = listen_tls(&identity, listen.tcp).await?;
        let refused = |source| ServeError::Listen { address: listen.status, field: "status", source };
        let status = TcpListener::bind(listen.status).await.map_err(refused)?;
        tracing::info!(id = %identity.id(), udp = %listen.udp, tcp = %listen.tcp, "this relay takes connections");
        tasks.spawn(Arc::clone(&hops).accept_quic(endpoint.clone()));
        tasks.spawn(Arc::clone(&hops).accept_tls(listener, acceptor));
        tasks.spawn(status::serve(status, Arc::clone(&hops)));
        tasks.spawn(tick(Arc::clone(&hops)));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        drain(&hops, &mut terminate, &mut interrupt).await;
        endpoint.close(quinn::VarInt::from_u32(Code::Drained as u32), b"");
        // So that the last close leaves the socket; a peer that does not answer is not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
        Ok(())
    })
}

/// Takes nothing new, tells everybody, and waits until all are gone, the time is up, or a second signal comes.
async fn drain(
    hops: &Arc<Hops>,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) {
    let seconds = hops.config.drain_s;
    tracing::info!(seconds, "asked to stop; peers are told to go elsewhere");
    hops.switch().drain(hops.clock.now(), u64::from(seconds) * 1000);
    hops.say_all(&Hop::Drain { seconds: u16::try_from(seconds).unwrap_or(u16::MAX) });
    let mut look = interval(TICK);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        let drained = hops.switch().drained(hops.clock.now());
        match drained {
            Some(Drain::Waiting { .. }) => {}
            Some(Drain::Deadline { connections }) => {
                tracing::info!(connections, "the time is up; who is still here is cut off");
                break;
            }
            Some(Drain::Empty) | None => break,
        }
    }
    hops.close_all(Code::Drained);
}

async fn tick(hops: Arc<Hops>) {
    let mut look = interval(TICK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        hops.switch().tick(hops.clock.now());
    }
}

fn listen_quic(identity: &Identity, address: SocketAddr) -> Result<Endpoint, ServeError> {
    let tls = quic_server(identity, &CLIENTS, &[ALPN, HTTP3], ClientAuth::Optional)
        .map_err(|error| ServeError::Tls { reason: error.to_string() })?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server
        .transport_config(transport(false))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_MAX as u64 * INCOMING_BYTES_MAX);
    let refused = |source| ServeError::Listen { address, field: "udp", source };
    let socket = std::net::UdpSocket::bind(address).map_err(refused)?;
    // Bursts of some thousand connections arrive between two looks of one thread. The kernel gives what net.core.rmem_max allows.
    let sized = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES)
        .and_then(|()| rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES));
    if let Err(error) = sized {
        tracing::warn!(%error, "the buffers of the UDP socket stay as they are");
    }
    Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime)).map_err(refused)
}

/// Buffers of the UDP socket in the kernel.
const SOCKET_BYTES: usize = 4 << 20;

async fn listen_tls(identity: &Identity, address: SocketAddr) -> Result<(TcpListener, TlsAcceptor), ServeError> {
    let tls = server_config(identity, &CLIENTS, &[ALPN, HTTP1], ClientAuth::Required)
        .map_err(|error| ServeError::Tls { reason: error.to_string() })?;
    let refused = |source| ServeError::Listen { address, field: "tcp", source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    Ok((listener, TlsAcceptor::from(Arc::new(tls))))
}

/// Opens the directory, and reads it again from time to time.
fn open_directory(config: &Config, identity: &Identity, tasks: &mut JoinSet<()>) -> Result<Places, ServeError> {
    let Some(directory) = &config.directory else { return Ok(Places::default()) };
    let raw: [u8; 32] =
        hex::decode(&directory.key).ok().and_then(|key| key.try_into().ok()).ok_or(ServeError::DirectoryKey)?;
    let key = PublicKey::from_raw(&raw).map_err(|_| ServeError::DirectoryKey)?;
    let (path, domain) = (directory.file.clone(), identity.domain());
    let refused = |source| ServeError::Directory { path: path.clone(), source: Box::new(source) };
    let clock = Clock::new();
    let first = Directory::open_file(&path, &[key], &domain, clock.now().unix_s).map_err(refused)?;
    let live = LiveDirectory::new(first, 0).map_err(refused)?;
    let places = Places(Some(live.clone()));
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(DIRECTORY_EVERY).await;
            let read = Directory::open_file(&path, &[key], &domain, clock.now().unix_s);
            if let Err(error) = read.and_then(|read| live.replace(read)) {
                tracing::warn!(%error, "the directory could not be read again; the one before stays");
            }
        }
    });
    Ok(places)
}
