//! Peers over TCP and TLS: one connection for each pair, made by the one with the smaller key, and made again when it is lost.
//!
//! Bounds: handshakes at a time, a handshake's time, bytes that wait in either direction, frames a second.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zeroize::Zeroize as _;

use super::identity::Identity;
use super::outbox::Outbox;
use super::score::Score;
use super::{Event, Events, Network};
use crate::core::Peer;
use crate::node::frame::{FRAME_BYTES_MAX, Frame, LENGTH_BYTES, Wire};
use crate::node::metrics::Metrics;
use crate::node::now_ms;

/// Handshakes at a time; strangers must not take all memory.
const HANDSHAKES_MAX: usize = 64;
/// Longest handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// First and longest pause before a lost connection is made again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Bytes that a peer may have waiting at this node.
const INBOX_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Events that wait, of all peers.
const EVENTS_MAX: usize = 4096;
/// What one peer may cost in a second, in frames or leaves to look up; more is read later.
const COST_PER_S: usize = 5_000;
/// Silence after which TCP asks whether the peer is there, and how often it may stay silent.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// One peer, as the configuration has it.
#[derive(Clone, Debug)]
pub struct PeerAddress {
    /// Its key.
    pub key: [u8; 32],
    /// Where it listens. `None`: it comes by itself.
    pub address: Option<String>,
    /// This node connects to it. Otherwise it is waited for.
    pub dial: bool,
}

#[derive(Debug, Default)]
struct Link {
    outbox: Outbox,
    connected: AtomicBool,
    /// Connections so far: a newer one ends the one before.
    generation: AtomicU64,
    replaced: Notify,
    score: Mutex<Score>,
}

#[derive(Debug)]
struct Shared {
    links: Vec<Link>,
    connected: AtomicUsize,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

/// Peers over TLS.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Shared>);

/// Begins to listen and to connect. The tasks end when `tasks` is dropped.
///
/// # Errors
/// When the address cannot be listened at.
pub async fn start(
    listen: SocketAddr,
    identity: Identity,
    peers: &[PeerAddress],
    metrics: Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> io::Result<(Tls, Events)> {
    let listener = TcpListener::bind(listen).await?;
    let (events, heard) = mpsc::channel(EVENTS_MAX);
    let links = peers.iter().map(|_| Link::default()).collect();
    let shared = Arc::new(Shared { links, connected: AtomicUsize::new(0), events, metrics });
    tasks.spawn(accept(listener, identity.clone(), Arc::clone(&shared)));
    for (peer, known) in (0..).map(Peer).zip(peers) {
        if let (true, Some(address)) = (known.dial, known.address.clone()) {
            tasks.spawn(keep_connected(peer, address, identity.clone(), Arc::clone(&shared)));
        }
    }
    Ok((Tls(shared), heard))
}

impl Network for Tls {
    fn send(&self, to: Peer, frame: &Frame) {
        self.0.put(to, frame.to_wire());
        self.0.metrics.sent(frame.name(), 1);
    }

    fn broadcast(&self, frame: &Frame) {
        let wire = frame.to_wire();
        for peer in 0..self.0.links.len() as u32 {
            self.0.put(Peer(peer), Arc::clone(&wire));
        }
        self.0.metrics.sent(frame.name(), self.0.connected.load(Ordering::Relaxed) as u64);
    }

    fn blame(&self, peer: Peer, reason: &'static str) {
        self.0.blame(peer, reason);
    }

    fn connected(&self) -> usize {
        self.0.connected.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn link(&self, peer: Peer) -> Option<&Link> {
        self.links.get(peer.0 as usize)
    }

    fn put(&self, to: Peer, wire: Wire) {
        let Some(link) = self.link(to).filter(|link| link.connected.load(Ordering::Acquire)) else { return };
        let dropped = link.outbox.push(wire);
        if dropped > 0 {
            self.metrics.unsent(dropped);
        }
    }

    fn blame(&self, peer: Peer, reason: &'static str) {
        let Some(link) = self.link(peer) else { return };
        let cut_off = link.score.lock().unwrap_or_else(PoisonError::into_inner).blame(now_ms(), reason);
        self.metrics.refused(reason);
        if cut_off {
            tracing::warn!(peer = peer.0, reason, "a peer has erred too often and is cut off for half a minute");
            link.replaced.notify_waiters();
        }
    }

    fn is_cut_off(&self, peer: Peer) -> bool {
        let score = |link: &Link| *link.score.lock().unwrap_or_else(PoisonError::into_inner);
        self.link(peer).is_none_or(|link| score(link).is_cut_off(now_ms()))
    }
}

async fn accept(listener: TcpListener, identity: Identity, shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let acceptor = TlsAcceptor::from(Arc::clone(&identity.server));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: it passes.
                tracing::warn!(%error, "a connection could not be taken");
                sleep(PAUSE_MIN).await;
                continue;
            }
        };
        let (acceptor, identity, shared) = (acceptor.clone(), identity.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            prepare(&stream);
            let secured = timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await;
            drop(permit);
            let stream = match secured {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::info!(%from, %error, "a connection was refused"),
                Err(_) => return tracing::info!(%from, "a connection took too long to say who it is"),
            };
            let Some(peer) = identity.peer_of(stream.get_ref().1.peer_certificates()) else { return };
            talk(peer, TlsStream::Server(stream), &shared).await;
        });
    }
}

async fn keep_connected(peer: Peer, address: String, identity: Identity, shared: Arc<Shared>) {
    let connector = TlsConnector::from(Arc::clone(&identity.client));
    let mut pause = PAUSE_MIN;
    let mut told = false;
    loop {
        if !shared.is_cut_off(peer) {
            match timeout(HANDSHAKE_TIME, connect(peer, &address, &connector, &identity)).await {
                Ok(Ok(stream)) => {
                    (pause, told) = (PAUSE_MIN, false);
                    talk(peer, TlsStream::Client(stream), &shared).await;
                }
                failed => {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "it does not answer".to_owned(),
                    };
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(peer = peer.0, address, error, "a peer cannot be reached; it is tried again");
                    }
                }
            }
        }
        // Peers that lost each other at one moment must not meet at one moment again.
        sleep(pause.mul_f64(0.75 + 0.5 * fraction(now_ms() ^ u64::from(peer.0)))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A number from 0 to 1 that differs from moment to moment.
fn fraction(seed: u64) -> f64 {
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24)
}

async fn connect(
    peer: Peer,
    address: &str,
    connector: &TlsConnector,
    identity: &Identity,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    prepare(&stream);
    let name = ServerName::try_from("validator.invalid").map_err(io::Error::other)?;
    let stream = connector.connect(name, stream).await?;
    if identity.peer_of(stream.get_ref().1.peer_certificates()) == Some(peer) {
        Ok(stream)
    } else {
        Err(io::Error::other("another peer answers there"))
    }
}

/// Votes are small and urgent, and a peer without power is to be noticed.
fn prepare(stream: &TcpStream) {
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, KEEPALIVE_AFTER)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?));
    if let Err(error) = set {
        tracing::warn!(%error, "an option of a connection could not be set");
    }
}

/// Sends and hears until the connection ends or a newer one takes its place.
async fn talk(peer: Peer, stream: TlsStream<TcpStream>, shared: &Shared) {
    let Some(link) = shared.link(peer).filter(|_| !shared.is_cut_off(peer)) else { return };
    let generation = link.generation.fetch_add(1, Ordering::AcqRel) + 1;
    link.replaced.notify_waiters();
    // Waited for from here on: a newer connection may come before this one has said anything.
    let replaced = link.replaced.notified();
    tokio::pin!(replaced);
    replaced.as_mut().enable();
    link.outbox.clear();
    if !link.connected.swap(true, Ordering::AcqRel) {
        shared.connected.fetch_add(1, Ordering::Relaxed);
    }
    tracing::debug!(peer = peer.0, "connected");
    if shared.events.send(Event::Connected { peer }).await.is_err() {
        return;
    }
    let (reader, writer) = tokio::io::split(stream);
    let why = tokio::select! {
        ended = hear(peer, reader, shared) => ended,
        ended = say(writer, &link.outbox) => ended,
        () = replaced => Err(io::Error::other("a newer connection takes its place, or it is cut off")),
    };
    tracing::debug!(peer = peer.0, why = %why.err().map_or_else(String::new, |error| error.to_string()), "gone");
    if link.generation.load(Ordering::Acquire) == generation && link.connected.swap(false, Ordering::AcqRel) {
        shared.connected.fetch_sub(1, Ordering::Relaxed);
        // The host is closing when nobody listens.
        let _ = shared.events.send(Event::Gone { peer }).await;
    }
}

async fn say(mut writer: impl AsyncWrite + Unpin, outbox: &Outbox) -> io::Result<()> {
    loop {
        for frame in outbox.take().await {
            writer.write_all(&frame).await?;
        }
        writer.flush().await?;
    }
}

async fn hear(peer: Peer, mut reader: impl AsyncRead + Unpin, shared: &Shared) -> io::Result<()> {
    let budget = Arc::new(Semaphore::new(INBOX_BYTES_MAX));
    let (mut second, mut frames) = (Instant::now(), 0);
    let mut body = Vec::new();
    loop {
        let length = reader.read_u32().await? as usize;
        if length == 0 || length > FRAME_BYTES_MAX {
            shared.blame(peer, "malformed");
            return Err(io::Error::other("a frame has no length that any has"));
        }
        let room = Arc::clone(&budget).acquire_many_owned((length + LENGTH_BYTES) as u32).await;
        body.resize(length, 0);
        reader.read_exact(&mut body).await?;
        let Ok(frame) = Frame::from_body(&body) else {
            shared.blame(peer, "malformed");
            return Err(io::Error::other("a frame is malformed"));
        };
        if matches!(frame, Frame::Ceremony(_)) {
            body.zeroize();
        }
        shared.metrics.heard(frame.name());
        frames += frame.cost();
        let frame = Box::new(frame);
        if shared.events.send(Event::Frame { from: peer, frame, room: room.ok() }).await.is_err() {
            return Ok(());
        }
        if frames >= COST_PER_S {
            tokio::time::sleep_until(second + Duration::from_secs(1)).await;
            (second, frames) = (Instant::now(), 0);
        } else if second.elapsed() > Duration::from_secs(1) {
            (second, frames) = (Instant::now(), 0);
        }
    }
}

/// The peers of a node by number, from their keys.
pub fn numbered(peers: &[PeerAddress]) -> BTreeMap<[u8; 32], Peer> {
    peers.iter().zip(0..).map(|(peer, number)| (peer.key, Peer(number))).collect()
}
