//! The way to one relay: QUIC while that works, TLS over TCP while it does not, and QUIC again when it does.
//!
//! The new connection is made before the old one is left. What to do is a pure function of what is there ([`decide`]); the task does it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bpi_identity::tls::shown_by;
use bpi_identity::{Identity, Leaf, Role, SpiffeId, client_config, quic_client};
use bpi_protocol::frame::key::{SIGNATURE_BYTES, Signer};
use bpi_protocol::hop::{ALPN, Code, EXPORTER_LABEL, Hello, Hop, LENGTH_BYTES, MESSAGE_BYTES_MAX, relay_id};
use quinn::{ClientConfig, Endpoint};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use crate::detour::{self, Via};
use crate::link::{Carrier, Hear, Link, unix_time};
use crate::settings::transport;

/// How often is looked at what is to be done.
const TICK: Duration = Duration::from_millis(100);
/// QUIC is given so long before TCP is tried beside it.
const HEAD_START_MS: u64 = 400;
/// A QUIC connection that hears nothing for so long is not relied on; a keep-alive is answered within a round trip.
const SILENT_MS: u64 = 900;
/// Longest time to connect.
const DIAL: Duration = Duration::from_secs(3);
/// First and longest pause between two tries.
const PAUSE_MS: u64 = 200;
const PAUSE_MS_MAX: u64 = 5_000;
/// A connection is made anew so long before a certificate ends, at least, in s.
const RENEW_S_MIN: u64 = 5;
/// QUIC must have worked for so long before TCP is left.
const PROVEN_MS: u64 = 1_000;

/// Where a relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Who has to be there.
    pub relay: SpiffeId,
    /// Host and port of UDP.
    pub udp: String,
    /// Host and port of TCP.
    pub tcp: String,
    /// Another relay that QUIC to this one goes through.
    pub via: Option<Via>,
}

/// Who connects.
pub struct Client {
    /// The SVID.
    pub identity: Identity,
    /// The identity that frames are sealed to.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// Which network.
    pub network: u64,
    /// The certificate of the prekey of now.
    pub prekey: Arc<RwLock<Vec<u8>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Why a relay could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Its name has no address.
    #[error("{host} has no address: {reason}")]
    Name {
        /// What was looked up.
        host: String,
        /// What was said.
        reason: String,
    },
    /// QUIC or TLS failed.
    #[error("{carrier:?} to {address} failed: {reason}")]
    Connect {
        /// Which.
        carrier: Carrier,
        /// Where.
        address: String,
        /// What was said.
        reason: String,
    },
    /// Somebody else is there.
    #[error("{found} answers where {wanted} is expected")]
    Other {
        /// Who answers.
        found: String,
        /// Who should.
        wanted: String,
    },
    /// It does not answer.
    #[error("no answer within {} s", DIAL.as_secs())]
    Timeout,
    /// It does not welcome this client.
    #[error("the relay does not welcome this client: {reason}")]
    Unwelcome {
        /// What it said instead.
        reason: String,
    },
}

/// Tells who uses a way of its connection.
pub trait Watch: Send + Sync + 'static {
    /// Frames can be sent, or not any more.
    fn connected(&self, connected: bool);
}

/// The way to one relay.
#[derive(Debug)]
pub struct Way {
    address: Address,
    active: RwLock<Option<Arc<Link>>>,
}

/// What is known of one carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Not connected; not to be tried before.
    Down { not_before_ms: u64 },
    /// Being connected.
    Dialing { since_ms: u64 },
    /// Connected; for how long nothing was heard, and how long it has been heard without a pause.
    Up { silent_ms: u64, heard_for_ms: u64 },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Dial(Carrier),
    Use(Carrier),
    Leave(Carrier),
}

/// What is to be done, given both carriers and how long there has been no way that works.
fn decide(now_ms: u64, quic: Side, tls: Side, waiting_ms: u64) -> Vec<Deed> {
    let mut deeds = Vec::new();
    if matches!(quic, Side::Down { not_before_ms } if now_ms >= not_before_ms) {
        deeds.push(Deed::Dial(Carrier::Quic));
    }
    let quic_works = matches!(quic, Side::Up { silent_ms, .. } if silent_ms < SILENT_MS);
    let late = match quic {
        Side::Up { silent_ms, .. } => silent_ms >= SILENT_MS,
        Side::Down { .. } | Side::Dialing { .. } => waiting_ms >= HEAD_START_MS,
    };
    if late && matches!(tls, Side::Down { not_before_ms } if now_ms >= not_before_ms) {
        deeds.push(Deed::Dial(Carrier::Tls));
    }
    let tls_up = matches!(tls, Side::Up { .. });
    if quic_works {
        deeds.push(Deed::Use(Carrier::Quic));
        if tls_up && matches!(quic, Side::Up { heard_for_ms, .. } if heard_for_ms >= PROVEN_MS) {
            deeds.push(Deed::Leave(Carrier::Tls));
        }
    } else if tls_up {
        deeds.push(Deed::Use(Carrier::Tls));
    } else if matches!(quic, Side::Up { .. }) {
        deeds.push(Deed::Use(Carrier::Quic));
    }
    deeds
}

/// One carrier, as the task has it.
#[derive(Debug)]
struct Lane {
    side: Side,
    link: Option<Arc<Link>>,
    tries: u32,
    heard: u64,
    heard_at_ms: u64,
    heard_since_ms: u64,
    /// When its certificate or ours is about to run out: another connection is made then.
    renew_at_s: u64,
    /// The connection that is replaced by one that is being made.
    leaving: Option<Arc<Link>>,
}

impl Lane {
    fn new() -> Self {
        Self {
            side: Side::Down { not_before_ms: 0 },
            link: None,
            tries: 0,
            heard: 0,
            heard_at_ms: 0,
            heard_since_ms: 0,
            renew_at_s: u64::MAX,
            leaving: None,
        }
    }

    fn pause(&mut self, now_ms: u64) {
        let pause_ms = (PAUSE_MS << self.tries.min(8)).min(PAUSE_MS_MAX);
        self.tries = self.tries.saturating_add(1);
        // Clients that lost a relay at one moment must not all come back at one moment.
        let spread_ms = u64::from(unix_time().subsec_nanos()) % (pause_ms / 2 + 1);
        self.side = Side::Down { not_before_ms: now_ms + pause_ms / 2 + spread_ms };
    }
}

enum News {
    Dialed(Carrier, Box<Result<Arc<Link>, DialError>>),
    Over(Carrier, u64, String),
}

impl Way {
    /// To a relay. [`Way::run`] connects.
    pub fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address, active: RwLock::new(None) })
    }

    /// The connection that is used now.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Keeps the relay connected until the task is dropped.
    pub async fn run(self: Arc<Self>, client: Arc<Client>, hear: Arc<dyn Hear>, watch: Arc<dyn Watch>) {
        let (news, mut heard) = mpsc::channel::<News>(64);
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        let (mut quic, mut tls) = (Lane::new(), Lane::new());
        let mut works_ms = 0;
        let mut told = false;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                Some(event) = heard.recv() => {
                    let now_ms = began.elapsed().as_millis() as u64;
                    match event {
                        News::Dialed(carrier, result) => {
                            let lane = if carrier == Carrier::Quic { &mut quic } else { &mut tls };
                            match *result {
                                Ok(link) => {
                                    told = false;
                                    lane.tries = 0;
                                    (lane.heard_at_ms, lane.heard_since_ms) = (now_ms, now_ms);
                                    lane.renew_at_s = renew_at_s(&link, &client.identity);
                                    if let Some(before) = lane.leaving.take() {
                                        before.close(Code::Replaced);
                                    }
                                    lane.side = Side::Up { silent_ms: 0, heard_for_ms: 0 };
                                    lane.link = Some(link);
                                }
                                Err(error) => {
                                    if !std::mem::replace(&mut told, true) {
                                        tracing::info!(relay = %self.address.relay, %error, "a relay cannot be reached; it is tried again");
                                    }
                                    lane.pause(now_ms);
                                    if let Some(before) = lane.leaving.take() {
                                        // The old one still is what there is.
                                        lane.side = Side::Up { silent_ms: 0, heard_for_ms: 0 };
                                        lane.link = Some(before);
                                        lane.renew_at_s = unix_time().as_secs() + 5;
                                    }
                                }
                            }
                        }
                        News::Over(carrier, number, why) => {
                            let lane = if carrier == Carrier::Quic { &mut quic } else { &mut tls };
                            tracing::debug!(relay = %self.address.relay, ?carrier, why, "a connection has ended");
                            if lane.link.as_ref().is_some_and(|link| link.number == number) {
                                lane.link = None;
                                lane.side = Side::Down { not_before_ms: now_ms };
                            }
                            if lane.leaving.as_ref().is_some_and(|link| link.number == number) {
                                lane.leaving = None;
                            }
                        }
                    }
                }
            }
            let now_ms = began.elapsed().as_millis() as u64;
            observe(&mut quic, now_ms);
            observe(&mut tls, now_ms);
            if self.link().is_some() {
                works_ms = now_ms;
            }
            for deed in decide(now_ms, quic.side, tls.side, now_ms - works_ms) {
                match deed {
                    Deed::Dial(carrier) => {
                        let lane = if carrier == Carrier::Quic { &mut quic } else { &mut tls };
                        lane.side = Side::Dialing { since_ms: now_ms };
                        self.dial(carrier, &client, &hear, &news, &mut tasks);
                    }
                    Deed::Use(carrier) => {
                        let lane = if carrier == Carrier::Quic { &quic } else { &tls };
                        self.take(lane.link.clone(), &*watch);
                    }
                    Deed::Leave(carrier) => {
                        let lane = if carrier == Carrier::Quic { &mut quic } else { &mut tls };
                        if let Some(link) = lane.link.take() {
                            link.close(Code::Done);
                        }
                        lane.side = Side::Down { not_before_ms: now_ms };
                    }
                }
            }
            for (carrier, lane) in [(Carrier::Quic, &mut quic), (Carrier::Tls, &mut tls)] {
                if lane.leaving.is_none() && lane.link.is_some() && unix_time().as_secs() >= lane.renew_at_s {
                    lane.leaving = lane.link.clone();
                    lane.renew_at_s = u64::MAX;
                    self.dial(carrier, &client, &hear, &news, &mut tasks);
                }
            }
            let usable = |lane: &Lane| lane.link.is_some() || lane.leaving.is_some();
            if !usable(&quic) && !usable(&tls) {
                self.take(None, &*watch);
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    fn take(&self, link: Option<Arc<Link>>, watch: &dyn Watch) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (active.as_ref().map(|link| link.number), link.as_ref().map(|link| link.number));
        if before == after {
            return;
        }
        if let Some(link) = &link {
            tracing::info!(relay = %self.address.relay, carrier = ?link.carrier, "connected to a relay");
        }
        *active = link;
        drop(active);
        if before.is_some() != after.is_some() {
            if after.is_none() {
                tracing::info!(relay = %self.address.relay, "a relay is not connected any more");
            }
            watch.connected(after.is_some());
        }
    }

    fn dial(
        self: &Arc<Self>,
        carrier: Carrier,
        client: &Arc<Client>,
        hear: &Arc<dyn Hear>,
        news: &mpsc::Sender<News>,
        tasks: &mut JoinSet<()>,
    ) {
        let (way, client, hear, news) = (Arc::clone(self), Arc::clone(client), Arc::clone(hear), news.clone());
        tasks.spawn(async move {
            let dialed = match carrier {
                Carrier::Quic => timeout(DIAL, way.dial_quic(&client))
                    .await
                    .map(|dialed| dialed.map(|(link, control)| (link, Io::Quic(control)))),
                Carrier::Tls if way.address.via.is_some() => timeout(DIAL, way.dial_quic_on(Carrier::Tls, &client))
                    .await
                    .map(|dialed| dialed.map(|(link, control)| (link, Io::Quic(control)))),
                Carrier::Tls => timeout(DIAL, way.dial_tls(&client))
                    .await
                    .map(|dialed| dialed.map(|(link, stream)| (link, Io::Tls(Box::new(stream))))),
            };
            let (link, io) = match dialed.unwrap_or(Err(DialError::Timeout)) {
                Ok(dialed) => dialed,
                Err(error) => {
                    let _ = news.send(News::Dialed(carrier, Box::new(Err(error)))).await;
                    return;
                }
            };
            if news.send(News::Dialed(carrier, Box::new(Ok(Arc::clone(&link))))).await.is_err() {
                return;
            }
            let ended = match io {
                Io::Quic(control) => link.run_quic(control, &hear).await,
                Io::Tls(stream) => link.run_tls(*stream, &hear).await,
            };
            // Nobody listens when the way itself is gone.
            let _ = news.send(News::Over(carrier, link.number, ended.to_string())).await;
        });
    }

    fn failed(carrier: Carrier, address: &str, reason: impl ToString) -> DialError {
        DialError::Connect { carrier, address: address.to_owned(), reason: reason.to_string() }
    }

    /// Whether the relay that was expected is there.
    fn check(&self, leaf: &Leaf) -> Result<(), DialError> {
        if leaf.id == self.address.relay {
            return Ok(());
        }
        Err(DialError::Other { found: leaf.id.to_string(), wanted: self.address.relay.to_string() })
    }

    /// Connects by QUIC and is welcomed: the link, and the stream that [`Link::run_quic`] wants.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_quic(
        &self,
        client: &Client,
    ) -> Result<(Arc<Link>, (quinn::SendStream, quinn::RecvStream)), DialError> {
        self.dial_quic_on(Carrier::Quic, client).await
    }

    /// QUIC straight to the relay over UDP, or through the proxy over what `carrier` says.
    async fn dial_quic_on(
        &self,
        carrier: Carrier,
        client: &Client,
    ) -> Result<(Arc<Link>, (quinn::SendStream, quinn::RecvStream)), DialError> {
        let host = &self.address.udp;
        let failed = |reason: &dyn std::fmt::Display| Self::failed(carrier, host, reason);
        let tls = quic_client(&client.identity, &[Role::Relay], &[ALPN]).map_err(|error| failed(&error))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        let (endpoint, address) = match &self.address.via {
            Some(via) => {
                config.transport_config(detour::transport());
                detour::endpoint(&client.identity, via, carrier, host).await?
            }
            None => {
                config.transport_config(transport(true));
                let address = resolve(host).await?;
                // A socket of its own for each try: one that a middlebox has given up on is not used again. Connected, so that the kernel lets
                // nobody else in: a client listens to nothing.
                (connected_endpoint(address).map_err(|error| failed(&error))?, address)
            }
        };
        let connecting = endpoint.connect_with(config, address, "relay.invalid").map_err(|error| failed(&error))?;
        let connection = connecting.await.map_err(|error| failed(&error))?;
        let leaf = client.identity.peer_of(&shown_by(&connection)).map_err(|error| failed(&error))?;
        self.check(&leaf)?;
        let mut exported = [0; 32];
        connection
            .export_keying_material(&mut exported, EXPORTER_LABEL, &[])
            .map_err(|_| failed(&"it exports nothing"))?;
        let (mut say, mut listen) = connection.open_bi().await.map_err(|error| failed(&error))?;
        let relay = leaf.id.to_string();
        greet(client, &exported, &relay, &mut say, &mut listen).await?;
        Ok((Link::over_quic_on(carrier, connection, Some(leaf)), (say, listen)))
    }

    /// The same by TLS over TCP.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_tls(
        &self,
        client: &Client,
    ) -> Result<(Arc<Link>, tokio_rustls::client::TlsStream<TcpStream>), DialError> {
        let host = &self.address.tcp;
        let failed = |reason: &dyn std::fmt::Display| Self::failed(Carrier::Tls, host, reason);
        let address = resolve(host).await?;
        let tls = client_config(&client.identity, &[Role::Relay], &[ALPN]).map_err(|error| failed(&error))?;
        let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        prepare(&stream);
        let name = ServerName::try_from("relay.invalid").map_err(|error| failed(&error))?;
        let mut stream =
            TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| failed(&error))?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = client.identity.peer_of(shown).map_err(|error| failed(&error))?;
        self.check(&leaf)?;
        let exported =
            stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(|error| failed(&error))?;
        let relay = leaf.id.to_string();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        greet(client, &exported, &relay, &mut writer, &mut reader).await?;
        Ok((Link::over_tls(Some(leaf)), stream))
    }
}

pub(crate) async fn resolve(host: &str) -> Result<std::net::SocketAddr, DialError> {
    let name = |reason: String| DialError::Name { host: host.to_owned(), reason };
    let mut found = lookup_host(host).await.map_err(|error| name(error.to_string()))?;
    found.next().ok_or_else(|| name("the answer is empty".to_owned()))
}

pub(crate) fn connected_endpoint(address: std::net::SocketAddr) -> std::io::Result<Endpoint> {
    let local: std::net::SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(local)?;
    socket.connect(address)?;
    Endpoint::new(quinn::EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))
}

enum Io {
    Quic((quinn::SendStream, quinn::RecvStream)),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Notices what a lane's connection has heard.
fn observe(lane: &mut Lane, now_ms: u64) {
    let Some(link) = lane.link.as_ref() else { return };
    if let Some(heard) = link.datagrams_heard() {
        if heard != lane.heard {
            if now_ms.saturating_sub(lane.heard_at_ms) >= SILENT_MS {
                lane.heard_since_ms = now_ms;
            }
            (lane.heard, lane.heard_at_ms) = (heard, now_ms);
        }
    } else {
        lane.heard_at_ms = now_ms;
    }
    let silent_ms = now_ms.saturating_sub(lane.heard_at_ms);
    lane.side = Side::Up { silent_ms, heard_for_ms: now_ms.saturating_sub(lane.heard_since_ms) };
}

/// When another connection is to be made: at nine tenths of what is left of the certificate that ends first, and some seconds before.
fn renew_at_s(link: &Link, identity: &Identity) -> u64 {
    let now_s = unix_time().as_secs();
    let ours = identity.current().svid().not_after_s();
    let theirs = link.peer.as_ref().map_or(u64::MAX, |peer| peer.not_after_s);
    let left = ours.min(theirs).saturating_sub(now_s);
    now_s.saturating_add(left - (left / 10).max(RENEW_S_MIN).min(left / 2))
}

/// Says who takes frames here, and waits for the welcome.
async fn greet(
    client: &Client,
    exported: &[u8; 32],
    relay: &str,
    say: &mut (impl AsyncWrite + Unpin),
    listen: &mut (impl AsyncRead + Unpin),
) -> Result<(), DialError> {
    let unwelcome = |reason: String| DialError::Unwelcome { reason };
    let prekey = client.prekey.read().unwrap_or_else(PoisonError::into_inner).clone();
    let hello = Hop::Hello(Hello::new(&client.signer, client.network, exported, prekey));
    let failed = |error: std::io::Error| unwelcome(error.to_string());
    say.write_all(&hello.to_wire()).await.map_err(failed)?;
    say.flush().await.map_err(failed)?;
    match read_message(listen).await.map_err(unwelcome)? {
        Hop::Welcome { relay: said } if said == relay_id(relay) => Ok(()),
        other => Err(unwelcome(format!("it says {other:?}"))),
    }
}

/// Reads one message, for who greets.
///
/// # Errors
/// What went wrong, in words.
pub async fn read_message(listen: &mut (impl AsyncRead + Unpin)) -> Result<Hop, String> {
    let mut length = [0; LENGTH_BYTES];
    listen.read_exact(&mut length).await.map_err(|error| error.to_string())?;
    let length = u32::from_be_bytes(length) as usize;
    // A greeting is short.
    if length == 0 || length > MESSAGE_BYTES_MAX.min(2 * SIGNATURE_BYTES + 512) {
        return Err(format!("a greeting of {length} bytes"));
    }
    let mut body = vec![0; length];
    listen.read_exact(&mut body).await.map_err(|error| error.to_string())?;
    Hop::from_body(&body).map_err(|error| error.to_string())
}

/// Frames are small and urgent, and a neighbour without power is to be noticed.
pub fn prepare(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, Duration::from_secs(5))?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, Duration::from_secs(2))?))
        .and_then(|()| Ok(sockopt::set_tcp_keepcnt(stream, 3)?))
        .and_then(|()| Ok(sockopt::set_tcp_user_timeout(stream, 10_000)?));
    if let Err(error) = set {
        tracing::warn!(%error, "an option of a connection could not be set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Side = Side::Up { silent_ms: 0, heard_for_ms: 0 };
    const DOWN: Side = Side::Down { not_before_ms: 0 };
    const DIALING: Side = Side::Dialing { since_ms: 0 };

    #[test]
    fn quic_comes_first_and_tcp_after_a_head_start() {
        assert_eq!(decide(0, DOWN, DOWN, 0), [Deed::Dial(Carrier::Quic)]);
        assert_eq!(decide(100, DIALING, DOWN, 100), []);
        assert_eq!(decide(500, DIALING, DOWN, 500), [Deed::Dial(Carrier::Tls)]);
        assert_eq!(decide(600, DIALING, UP, 600), [Deed::Use(Carrier::Tls)]);
    }

    #[test]
    fn quic_that_falls_silent_is_kept_until_tcp_is_there_and_used_again_when_it_is_heard() {
        let silent = Side::Up { silent_ms: 1_000, heard_for_ms: 50_000 };
        assert_eq!(decide(0, silent, DOWN, 0), [Deed::Dial(Carrier::Tls), Deed::Use(Carrier::Quic)]);
        assert_eq!(decide(0, silent, UP, 0), [Deed::Use(Carrier::Tls)]);
        let heard = Side::Up { silent_ms: 10, heard_for_ms: 200 };
        assert_eq!(decide(0, heard, UP, 0), [Deed::Use(Carrier::Quic)]);
        let proven = Side::Up { silent_ms: 10, heard_for_ms: 2_000 };
        assert_eq!(decide(0, proven, UP, 0), [Deed::Use(Carrier::Quic), Deed::Leave(Carrier::Tls)]);
    }

    #[test]
    fn tcp_is_used_while_quic_is_tried_again_and_again() {
        let waits = Side::Down { not_before_ms: 900 };
        assert_eq!(decide(100, waits, UP, 0), [Deed::Use(Carrier::Tls)]);
        assert_eq!(decide(900, waits, UP, 0), [Deed::Dial(Carrier::Quic), Deed::Use(Carrier::Tls)]);
    }
}
