//! Connections: who is let in, and what comes over them.
//!
//! ```text
//! QUIC Initial ─(busy? Retry)─► handshake ─► "bpci/1": Hello ─► Link ⇄ Switch
//! TCP accept ──────────────────► handshake ─►                 "h3": MASQUE, pages
//! ```
//!
//! Bounds: handshakes at a time, their time, what the switch bounds. A client is let in with an SVID of the trust domain; frames for an identity are given only to
//! who signs for it over this TLS session.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bpi_identity::tls::shown_by;
use bpi_identity::{Identity, Leaf, SpiffeId};
use bpi_protocol::frame::KeyId;
use bpi_protocol::frame::key::Prekey;
use bpi_protocol::hop::{ALPN, Code, EXPORTER_LABEL, Hello, Hop, relay_id};
use bpi_transport::link::{Carrier, Hear, Link, Pace};
use bpi_transport::way::{prepare, read_message};
use bytes::Bytes;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Endpoint, Incoming};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::http::Http;
use super::{Clock, Places};
use crate::config::Config;
use crate::envelope::NetworkId;
use crate::metrics::{Handshake, Metrics, Transport};
use crate::peer::{ConnId, Who};
use crate::score::{Fault, Then};
use crate::switch::{Switch, Verdict};

/// Handshakes at a time: each takes some 60 KiB and 300 µs.
const HANDSHAKES_MAX: usize = 512;
/// The same over TCP, of their own: who opens TCP connections and says nothing keeps nobody from QUIC.
const HANDSHAKES_TLS_MAX: usize = 256;
/// Handshakes at a time after which an address has to be proven first (RFC 9000, section 8.1.2).
const HANDSHAKES_BUSY: usize = 64;
/// HTTP connections with an SVID at a time, and of one SPIFFE id: each may have its tunnels.
const HTTP_MAX: usize = 256;
const HTTP_PER_ID: usize = 8;
/// HTTP connections without one, which may read pages, and how long they may take for that.
const READERS_MAX: usize = 64;
const READING_TIME: Duration = Duration::from_secs(30);
/// The protocol's name in TLS (RFC 9114, section 3.1).
pub(super) const HTTP3: &[u8] = b"h3";
/// The same of HTTP/1.1 (RFC 7301, section 6), which a tunnel begins with where UDP is blocked.
pub(super) const HTTP1: &[u8] = b"http/1.1";
/// How often is looked whether a certificate has run out.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest handshake, with the greeting.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Messages beside frames that a client may send in a second.
const MESSAGES_PER_S: u32 = 200;
/// Pause after a failure to take a connection: descriptors are out, mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// All connections.
pub(super) struct Hops {
    switch: Mutex<Switch>,
    links: RwLock<HashMap<u64, Arc<Link>>>,
    pub clock: Clock,
    pub identity: Identity,
    pub metrics: Arc<Metrics>,
    pub config: Config,
    places: Places,
    handshakes: Arc<Semaphore>,
    handshakes_tls: Arc<Semaphore>,
    https: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    https_by_id: Mutex<HashMap<SpiffeId, usize>>,
}

/// Who cannot be let in, and why; the peer hears only that it was refused.
#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error("it has shown no SVID")]
    NoSvid,
    #[error("{0}")]
    Svid(#[from] bpi_identity::SvidError),
    #[error("its greeting is none: {reason}")]
    Greeting { reason: String },
    #[error("it has not signed for this session with the identity that it names")]
    Signature,
    #[error("its prekey is refused: {reason}")]
    Prekey { reason: String },
    #[error("{0}")]
    Switch(#[from] crate::switch::Refusal),
    #[error("there are as many HTTP connections as there may be, in all or of its id")]
    Busy,
    #[error("the connection has ended: {reason}")]
    Gone { reason: String },
}

impl Hops {
    pub fn new(switch: Switch, identity: Identity, metrics: Arc<Metrics>, config: Config, places: Places) -> Arc<Self> {
        Arc::new(Self {
            switch: Mutex::new(switch),
            links: RwLock::default(),
            clock: Clock::new(),
            identity,
            metrics,
            config,
            places,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            handshakes_tls: Arc::new(Semaphore::new(HANDSHAKES_TLS_MAX)),
            https: Arc::new(Semaphore::new(HTTP_MAX)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            https_by_id: Mutex::default(),
        })
    }

    pub fn switch(&self) -> MutexGuard<'_, Switch> {
        // A panic inside would be a fault of ours; its tables are bounded whatever it left.
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to everybody.
    pub fn say_all(&self, message: &Hop) {
        self.links.read().unwrap_or_else(PoisonError::into_inner).values().for_each(|link| link.say(message));
    }

    /// Ends all connections.
    pub fn close_all(&self, code: Code) {
        self.links.read().unwrap_or_else(PoisonError::into_inner).values().for_each(|link| link.close(code));
    }

    fn link(&self, conn: ConnId) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&conn.0).cloned()
    }

    /// Takes QUIC connections until the endpoint is closed.
    pub async fn accept_quic(self: Arc<Self>, endpoint: Endpoint) {
        let mut connections = JoinSet::new();
        while let Some(incoming) = endpoint.accept().await {
            while connections.try_join_next().is_some() {}
            let busy = HANDSHAKES_MAX - self.handshakes.available_permits() >= HANDSHAKES_BUSY;
            if busy && incoming.may_retry() && !incoming.remote_address_validated() {
                // Costs nothing to remember: who spoofs an address never sees the token.
                self.metrics.retries.inc();
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "a token was not asked for");
                }
                continue;
            }
            let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
                incoming.refuse();
                self.metrics.shaken(Handshake::Refused);
                continue;
            };
            let hops = Arc::clone(&self);
            // What is long over in a connection's life is boxed: a task is as large as its largest step.
            connections.spawn(async move {
                let from = incoming.remote_address();
                let began = Instant::now();
                let shaken = timeout(HANDSHAKE_TIME, Box::pin(hops.shake_quic(incoming))).await;
                drop(permit);
                hops.metrics.handshake.observe(began.elapsed().as_secs_f64());
                match shaken {
                    Ok(Ok(Shaken::Hop(link, control, hello))) => {
                        let hear = hops.ears(&link, &hello);
                        let ended = link.run_quic(control, &hear).await;
                        hops.left(&link, &ended.to_string());
                    }
                    Ok(Ok(Shaken::Http(connection, peer, place))) => {
                        let host = Arc::new(Http { hops, peer });
                        let until = over(host.peer.as_ref());
                        let closing = connection.clone();
                        tokio::select! {
                            served = Box::pin(bpi_masque::serve_h3(connection, host)) => {
                                if let Err(error) = served {
                                    tracing::debug!(%from, %error, "HTTP has ended");
                                }
                            }
                            () = until => closing.close(quinn::VarInt::from_u32(Code::Expired as u32), b""),
                        }
                        drop(place);
                    }
                    Ok(Err(error)) => hops.refused(from, &error),
                    Err(_) => hops.late(from),
                }
            });
        }
    }

    async fn shake_quic(self: &Arc<Self>, incoming: Incoming) -> Result<Shaken, Unwelcome> {
        let gone = |error: quinn::ConnectionError| Unwelcome::Gone { reason: error.to_string() };
        let from = incoming.remote_address();
        let connection = incoming.await.map_err(gone)?;
        let refuse = |error| {
            connection.close(quinn::VarInt::from_u32(Code::Refused as u32), b"");
            error
        };
        let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let protocol = data.and_then(|data| data.protocol);
        let shown = shown_by(&connection);
        if protocol.as_deref() == Some(HTTP3) {
            let peer = if shown.is_empty() { None } else { Some(self.leaf(&shown).map_err(refuse)?) };
            let place = self.http_place(peer.as_ref()).map_err(refuse)?;
            self.metrics.shaken(Handshake::Done);
            return Ok(Shaken::Http(connection, peer, place));
        }
        if protocol.as_deref() != Some(ALPN) {
            return Err(refuse(Unwelcome::Greeting { reason: "another protocol".to_owned() }));
        }
        let leaf = self.leaf(&shown).map_err(refuse)?;
        let (mut say, mut listen) = connection.accept_bi().await.map_err(gone)?;
        let mut exported = [0; 32];
        let exports = connection.export_keying_material(&mut exported, EXPORTER_LABEL, &[]);
        exports.map_err(|_| refuse(Unwelcome::Signature))?;
        let hello = read_message(&mut listen).await.map_err(|reason| refuse(Unwelcome::Greeting { reason }))?;
        let hello = self.judge(hello, &exported).map_err(refuse)?;
        let link = Link::over_quic(connection.clone(), Some(leaf.clone()));
        self.enter(&link, &leaf, from.ip(), Transport::Quic).map_err(refuse)?;
        if let Err(error) = say.write_all(&self.welcome()).await {
            self.left(&link, "it has not waited for the welcome");
            return Err(Unwelcome::Gone { reason: error.to_string() });
        }
        self.metrics.shaken(Handshake::Done);
        Ok(Shaken::Hop(link, (say, listen), hello))
    }

    /// Takes TLS connections.
    pub async fn accept_tls(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&self.handshakes_tls).acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (hops, acceptor) = (Arc::clone(&self), acceptor.clone());
            connections.spawn(async move {
                prepare(&stream);
                let began = Instant::now();
                let shaken = timeout(HANDSHAKE_TIME, Box::pin(hops.shake_tls(stream, from, acceptor))).await;
                drop(permit);
                hops.metrics.handshake.observe(began.elapsed().as_secs_f64());
                match shaken {
                    Ok(Ok(ShakenTls::Http(stream, peer, place))) => {
                        let until = over(Some(&peer));
                        let host = Arc::new(Http { hops, peer: Some(peer) });
                        tokio::select! {
                            served = Box::pin(bpi_masque::serve_h1(*stream, host)) => {
                                if let Err(error) = served {
                                    tracing::debug!(%from, %error, "HTTP has ended");
                                }
                            }
                            () = until => {}
                        }
                        drop(place);
                    }
                    Ok(Ok(ShakenTls::Hop(link, stream, hello))) => {
                        let hear = hops.ears(&link, &hello);
                        let ended = link.run_tls(*stream, &hear).await;
                        hops.left(&link, &ended.to_string());
                    }
                    Ok(Err(error)) => hops.refused(from, &error),
                    Err(_) => hops.late(from),
                }
            });
        }
    }

    async fn shake_tls(
        self: &Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        acceptor: TlsAcceptor,
    ) -> Result<ShakenTls, Unwelcome> {
        let gone = |error: std::io::Error| Unwelcome::Gone { reason: error.to_string() };
        let mut stream = acceptor.accept(stream).await.map_err(gone)?;
        let leaf = self.leaf(stream.get_ref().1.peer_certificates().unwrap_or_default())?;
        if stream.get_ref().1.alpn_protocol() == Some(HTTP1) {
            let place = self.http_place(Some(&leaf))?;
            self.metrics.shaken(Handshake::Done);
            return Ok(ShakenTls::Http(Box::new(stream), leaf, place));
        }
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Unwelcome::Greeting { reason: "another protocol".to_owned() });
        }
        let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None);
        let exported = exported.map_err(|_| Unwelcome::Signature)?;
        let hello = read_message(&mut stream).await.map_err(|reason| Unwelcome::Greeting { reason })?;
        let hello = self.judge(hello, &exported)?;
        let link = Link::over_tls(Some(leaf.clone()));
        self.enter(&link, &leaf, from.ip(), Transport::Tcp)?;
        let welcomed = async {
            stream.write_all(&self.welcome()).await?;
            stream.flush().await
        };
        if let Err(error) = welcomed.await {
            self.left(&link, "it has not waited for the welcome");
            return Err(gone(error));
        }
        self.metrics.shaken(Handshake::Done);
        Ok(ShakenTls::Hop(link, Box::new(stream), hello))
    }

    /// A place for an HTTP connection; it is given back when it is dropped.
    fn http_place(self: &Arc<Self>, peer: Option<&Leaf>) -> Result<HttpPlace, Unwelcome> {
        let places = if peer.is_some() { &self.https } else { &self.readers };
        let permit = Arc::clone(places).try_acquire_owned().map_err(|_| Unwelcome::Busy)?;
        let id = peer.map(|peer| peer.id.clone());
        if let Some(id) = &id {
            let mut by_id = self.https_by_id.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_id.entry(id.clone()).or_default();
            if *count >= HTTP_PER_ID {
                return Err(Unwelcome::Busy);
            }
            *count += 1;
        }
        Ok(HttpPlace { hops: Arc::clone(self), id, _permit: permit })
    }

    fn leaf(&self, shown: &[rustls::pki_types::CertificateDer<'_>]) -> Result<Leaf, Unwelcome> {
        if shown.is_empty() {
            return Err(Unwelcome::NoSvid);
        }
        Ok(self.identity.peer_of(shown)?)
    }

    fn welcome(&self) -> Vec<u8> {
        Hop::Welcome { relay: relay_id(&self.identity.id().to_string()) }.to_wire()
    }

    /// Whether a greeting holds for the session that exports these bytes.
    fn judge(&self, message: Hop, exported: &[u8; 32]) -> Result<Hello, Unwelcome> {
        let Hop::Hello(hello) = message else {
            return Err(Unwelcome::Greeting { reason: "it begins with something else".to_owned() });
        };
        if !hello.holds(exported) {
            return Err(Unwelcome::Signature);
        }
        self.check_prekey(&hello.prekey, hello.network, &hello.identity)?;
        Ok(hello)
    }

    fn check_prekey(&self, bytes: &[u8], network: u64, identity: &[u8; 32]) -> Result<(), Unwelcome> {
        let prekey = Prekey::from_bytes(bytes, network, self.clock.now().unix_s)
            .map_err(|error| Unwelcome::Prekey { reason: error.to_string() })?;
        if prekey.identity != *identity {
            return Err(Unwelcome::Prekey { reason: "it is another identity's".to_owned() });
        }
        Ok(())
    }

    fn enter(&self, link: &Arc<Link>, leaf: &Leaf, addr: IpAddr, transport: Transport) -> Result<(), Unwelcome> {
        let role = leaf.id.role();
        let who = Who {
            spiffe: leaf.id.to_string(),
            role,
            addr,
            asn: self.places.asn_of(leaf, self.clock.now().unix_s),
            weight: self.config.budget.weights.of(role),
        };
        self.switch().connected(self.clock.now(), ConnId(link.number), who)?;
        self.links.write().unwrap_or_else(PoisonError::into_inner).insert(link.number, Arc::clone(link));
        self.metrics.connected(role, transport);
        tracing::debug!(peer = %leaf.id, ?transport, "connected");
        Ok(())
    }

    fn left(&self, link: &Arc<Link>, why: &str) {
        self.switch().disconnected(self.clock.now(), ConnId(link.number));
        self.links.write().unwrap_or_else(PoisonError::into_inner).remove(&link.number);
        let Some(leaf) = &link.peer else { return };
        let transport = if link.carrier == Carrier::Quic { Transport::Quic } else { Transport::Tcp };
        self.metrics.disconnected(leaf.id.role(), transport);
        tracing::debug!(peer = %leaf.id, why, "gone");
    }

    fn refused(&self, from: SocketAddr, error: &Unwelcome) {
        let end = if matches!(error, Unwelcome::Switch(_)) { Handshake::Refused } else { Handshake::Failed };
        self.metrics.shaken(end);
        tracing::info!(%from, %error, "a connection was refused");
    }

    fn late(&self, from: SocketAddr) {
        self.metrics.shaken(Handshake::TimedOut);
        tracing::info!(%from, "a connection took too long to say who it is");
    }

    /// Registers what a client takes, gives it what has waited, and hears it from then on.
    fn ears(self: &Arc<Self>, link: &Arc<Link>, hello: &Hello) -> Arc<dyn Hear> {
        let key = KeyId::of(&hello.identity);
        let registered = self.switch().register(self.clock.now(), ConnId(link.number), key, &hello.prekey);
        match registered {
            Ok(waited) => waited.into_iter().for_each(|frame| {
                link.send(frame);
            }),
            Err(error) => {
                tracing::info!(%error, "a registration was refused");
                link.close(Code::Limit);
            }
        }
        Arc::new(Ears {
            hops: Arc::clone(self),
            network: hello.network,
            identity: hello.identity,
            key,
            messages: AtomicU32::new(0),
            since: Mutex::new(Instant::now()),
        })
    }

    fn pace(then: Then) -> Pace {
        match then {
            Then::Go => Pace::Go,
            Then::Slow { delay_ms } => Pace::Wait(Duration::from_millis(delay_ms)),
            Then::Close { .. } => Pace::Close(Code::Limit),
        }
    }
}

/// One HTTP connection among those that may be.
struct HttpPlace {
    hops: Arc<Hops>,
    id: Option<SpiffeId>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for HttpPlace {
    fn drop(&mut self) {
        let Some(id) = &self.id else { return };
        let mut by_id = self.hops.https_by_id.lock().unwrap_or_else(PoisonError::into_inner);
        match by_id.get_mut(id) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_id.remove(id)),
        }
    }
}

enum Shaken {
    Hop(Arc<Link>, (quinn::SendStream, quinn::RecvStream), Hello),
    Http(quinn::Connection, Option<Leaf>, HttpPlace),
}

enum ShakenTls {
    Hop(Arc<Link>, Box<TlsStream<TcpStream>>, Hello),
    Http(Box<TlsStream<TcpStream>>, Leaf, HttpPlace),
}

/// Ends when a peer's certificate does, since TLS never looks again; who has none has a while to read pages.
fn over(peer: Option<&Leaf>) -> impl Future<Output = ()> + use<> {
    let not_after_s = peer.map(|peer| peer.not_after_s);
    async move {
        loop {
            match not_after_s {
                None => return sleep(READING_TIME).await,
                Some(not_after_s) if Clock::new().now().unix_s > not_after_s => return,
                Some(_) => sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// Hears one client.
struct Ears {
    hops: Arc<Hops>,
    network: u64,
    identity: [u8; 32],
    key: KeyId,
    messages: AtomicU32,
    since: Mutex<Instant>,
}

impl Ears {
    /// Whether one more message fits this second.
    fn may_ask(&self) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.elapsed() >= Duration::from_secs(1) {
            *since = Instant::now();
            self.messages.store(0, Ordering::Relaxed);
        }
        self.messages.fetch_add(1, Ordering::Relaxed) < MESSAGES_PER_S
    }

    fn blame(&self, link: &Link, fault: Fault) -> Pace {
        let then = self.hops.switch().blame(self.hops.clock.now(), ConnId(link.number), fault);
        Hops::pace(then)
    }

    fn network_id(&self) -> NetworkId {
        NetworkId(self.network.to_be_bytes())
    }

    fn feed(&self, link: &Link, body: &[u8]) {
        if let Some((height, body)) = body.split_first_chunk() {
            link.say(&Hop::Headline { height: u64::from_be_bytes(*height), body: body.to_vec() });
        }
    }
}

impl Hear for Ears {
    fn frame(&self, link: &Arc<Link>, frame: Bytes) -> Pace {
        let hops = &self.hops;
        let verdict = hops.switch().forward(hops.clock.now(), ConnId(link.number), &frame);
        match verdict {
            Verdict::HandOn { to, print } => {
                for conn in to.as_slice() {
                    let taken = hops.link(*conn).is_some_and(|link| link.send(frame.clone()));
                    if !taken {
                        hops.switch().undelivered(&print);
                    }
                }
                Pace::Go
            }
            Verdict::Stored => Pace::Go,
            Verdict::Dropped(dropped) => Hops::pace(dropped.then),
        }
    }

    fn message(&self, link: &Arc<Link>, message: Hop) -> Pace {
        let (hops, conn) = (&self.hops, ConnId(link.number));
        if !self.may_ask() {
            return Pace::Wait(Duration::from_millis(100));
        }
        match message {
            Hop::Announce(prekey) => {
                if let Err(error) = hops.check_prekey(&prekey, self.network, &self.identity) {
                    tracing::info!(%error, "a prekey was refused");
                    return self.blame(link, Fault::Signature);
                }
                // A drain refuses what is new: the client goes elsewhere.
                if let Err(error) = hops.switch().register(hops.clock.now(), conn, self.key, &prekey) {
                    tracing::debug!(%error, "an announcement was refused");
                }
                Pace::Go
            }
            Hop::Lookup(key) => {
                let found = hops.switch().announcement(hops.clock.now(), key);
                link.say(&Hop::Found { key, prekey: found.map(|found| found.to_vec()).unwrap_or_default() });
                Pace::Go
            }
            Hop::Subscribe => {
                match hops.switch().subscribe(conn, self.network_id()) {
                    Ok(kept) => kept.iter().for_each(|body| self.feed(link, body)),
                    Err(error) => tracing::debug!(%error, "a subscription was refused"),
                }
                Pace::Go
            }
            Hop::Publish { height, body } => {
                let entry = [height.to_be_bytes().as_slice(), &body].concat();
                let published = hops.switch().publish(hops.clock.now(), conn, (self.network_id(), height), &entry);
                match published {
                    Ok(followers) => {
                        for follower in followers {
                            let Some(link) = hops.link(follower) else { continue };
                            let taken = hops.switch().take(follower, self.network_id());
                            taken.bodies.iter().for_each(|body| self.feed(&link, body));
                        }
                        Pace::Go
                    }
                    Err(dropped) => Hops::pace(dropped.then),
                }
            }
            Hop::Hello(_)
            | Hop::Welcome { .. }
            | Hop::Found { .. }
            | Hop::Frame(_)
            | Hop::Drain { .. }
            | Hop::Headline { .. } => self.blame(link, Fault::Malformed),
        }
    }
}
