#![allow(clippy::unwrap_used, missing_docs)]
//! Both ends against each other, over loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bpi_masque::{
    Client, DropReason, End, Event, Host, Limits, MasqueError, Page, Refusal, Target, Tunnel, inner_transport,
    outer_transport, serve_h1, serve_h3,
};
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

const NAME: &str = "proxy.example";
/// What takes longer never comes. It is long because machines that build are busy.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A key and both ends of TLS with it.
struct Tls {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        Self {
            chain: vec![made.cert.der().clone()],
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
        }
    }

    fn server(&self, alpn: &str) -> rustls::ServerConfig {
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(self.chain.clone(), self.key.clone_key())
                .unwrap();
        config.alpn_protocols = vec![alpn.into()];
        config
    }

    fn client(&self, alpn: &str) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.chain[0].clone()).unwrap();
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![alpn.into()];
        config
    }

    fn quic_server(&self, alpn: &str, set: impl Fn(&mut quinn::TransportConfig)) -> quinn::ServerConfig {
        let crypto = QuicServerConfig::try_from(self.server(alpn)).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        set(&mut transport);
        config.transport_config(Arc::new(transport));
        config
    }

    fn quic_client(&self, alpn: &str, set: impl Fn(&mut quinn::TransportConfig)) -> quinn::ClientConfig {
        let crypto = QuicClientConfig::try_from(self.client(alpn)).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        set(&mut transport);
        config.transport_config(Arc::new(transport));
        config
    }
}

/// A host that answers as it is told and counts.
struct Counting {
    answer: Option<Refusal>,
    limits: Limits,
    /// So often each kind of event came; of payloads the bytes.
    events: Mutex<BTreeMap<String, usize>>,
}

impl Counting {
    fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { answer: None, limits, events: Mutex::default() })
    }

    fn refusing(refusal: Refusal) -> Arc<Self> {
        Arc::new(Self { answer: Some(refusal), limits: Limits::default(), events: Mutex::default() })
    }

    fn seen(&self, event: &str) -> usize {
        self.events.lock().unwrap().get(event).copied().unwrap_or(0)
    }

    fn dropped(&self, why: DropReason) -> usize {
        self.seen(&format!("{:?}", Event::Dropped(why)))
    }

    /// Waits for what is about to be counted.
    async fn sees(&self, event: Event) {
        let name = format!("{event:?}");
        let seen = async {
            while self.seen(&name) == 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{name} in {:?}", self.events));
    }
}

#[async_trait]
impl Host for Counting {
    async fn authorize(&self, target: &Target) -> Result<SocketAddr, Refusal> {
        match (self.answer, target.ip(), target.host()) {
            (Some(refusal), ..) => Err(refusal),
            (None, Some(ip), _) => Ok((ip, target.port()).into()),
            (None, None, "loopback.example") => Ok((Ipv4Addr::LOCALHOST, target.port()).into()),
            (None, None, "slow.example") => std::future::pending().await,
            (None, None, _) => Err(Refusal::Unresolved),
        }
    }

    fn page(&self, path: &str) -> Option<Page> {
        (path == "/status").then(|| Page { content_type: "text/plain", body: Bytes::from_static(b"well\n") })
    }

    fn count(&self, event: Event) {
        let (name, by) = match event {
            Event::Sent(bytes) => ("Sent".to_owned(), bytes),
            Event::Received(bytes) => ("Received".to_owned(), bytes),
            event => (format!("{event:?}"), 1),
        };
        *self.events.lock().unwrap().entry(name).or_default() += by;
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// A proxy with both ways in, and a client's endpoint.
struct Proxy {
    tls: Tls,
    host: Arc<Counting>,
    server: quinn::Endpoint,
    client: quinn::Endpoint,
    tcp: SocketAddr,
    tasks: tokio::task::JoinSet<()>,
}

impl Proxy {
    async fn start(host: Arc<Counting>) -> Self {
        let tls = Tls::new();
        let server = quinn::Endpoint::server(tls.quic_server("h3", outer_transport), LOOPBACK).unwrap();
        let client = quinn::Endpoint::client(LOOPBACK).unwrap();
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.server("http/1.1")));
        let mut tasks = tokio::task::JoinSet::new();
        let (endpoint, h3_host) = (server.clone(), Arc::clone(&host));
        tasks.spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            while let Some(incoming) = endpoint.accept().await {
                let host = Arc::clone(&h3_host);
                served.spawn(async move {
                    let _ = serve_h3(incoming.await?, host).await;
                    Ok::<_, quinn::ConnectionError>(())
                });
                while served.try_join_next().is_some() {}
            }
        });
        let h1_host = Arc::clone(&host);
        tasks.spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (host, acceptor) = (Arc::clone(&h1_host), acceptor.clone());
                served.spawn(async move {
                    let _ = serve_h1(acceptor.accept(stream).await?, host).await;
                    Ok::<_, std::io::Error>(())
                });
                while served.try_join_next().is_some() {}
            }
        });
        Self { tls, host, server, client, tcp, tasks }
    }

    async fn connect(&self, set: impl Fn(&mut quinn::TransportConfig)) -> quinn::Connection {
        let config = self.tls.quic_client("h3", set);
        self.client.connect_with(config, self.server.local_addr().unwrap(), NAME).unwrap().await.unwrap()
    }

    async fn connect_tcp(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.tls.client("http/1.1")));
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap()
    }

    async fn tunnel(&self, target: SocketAddr) -> Tunnel {
        let connection = self.connect(outer_transport).await;
        Tunnel::open_h3(connection, NAME, &target_of(target)).await.unwrap()
    }
}

fn target_of(address: SocketAddr) -> Target {
    Target::new(&address.ip().to_string(), address.port()).unwrap()
}

/// A QUIC server that sends each stream back.
struct Echo {
    endpoint: quinn::Endpoint,
    tls: Tls,
}

impl Echo {
    fn start() -> Self {
        let tls = Tls::new();
        let endpoint = quinn::Endpoint::server(tls.quic_server("echo", inner_transport), LOOPBACK).unwrap();
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                        tokio::io::copy(&mut receive, &mut send).await.unwrap();
                        send.finish().unwrap();
                    }
                });
            }
        });
        Self { endpoint, tls }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// QUIC through `tunnel`.
    async fn connect(&self, tunnel: &Arc<Tunnel>) -> (quinn::Endpoint, quinn::Connection) {
        let runtime = Arc::new(quinn::TokioRuntime);
        let socket: Arc<dyn quinn::AsyncUdpSocket> = Arc::<Tunnel>::clone(tunnel);
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket, runtime).unwrap();
        let config = self.tls.quic_client("echo", inner_transport);
        let connection = endpoint.connect_with(config, tunnel.peer(), NAME).unwrap().await.unwrap();
        (endpoint, connection)
    }
}

/// Sends 256 KiB there and back.
async fn there_and_back(connection: &quinn::Connection) {
    let sent: Vec<u8> = (0_u32..1 << 16).flat_map(|number| number.to_le_bytes()).collect();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let writing = async {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
    };
    let (back, ()) =
        timeout(PATIENCE, async { tokio::join!(async { receive.read_to_end(1 << 18).await.unwrap() }, writing) })
            .await
            .unwrap();
    assert!(back == sent, "what comes back is what was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_runs_end_to_end_in_a_tunnel_of_http_3() {
    let (proxy, echo) = (Proxy::start(Counting::new(Limits::default())).await, Echo::start());
    let tunnel = Arc::new(proxy.tunnel(echo.address()).await);
    let (_endpoint, connection) = echo.connect(&tunnel).await;
    there_and_back(&connection).await;
    assert_eq!(tunnel.drops().too_large, 0);
    assert_eq!(proxy.host.dropped(DropReason::TooLarge), 0);
    assert!(proxy.host.seen("Sent") > 1 << 18 && proxy.host.seen("Received") > 1 << 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_runs_end_to_end_in_a_tunnel_of_http_1_1() {
    let (proxy, echo) = (Proxy::start(Counting::new(Limits::default())).await, Echo::start());
    let opened = Tunnel::open_h1(proxy.connect_tcp().await, NAME, &target_of(echo.address())).await;
    let tunnel = Arc::new(opened.unwrap());
    let (_endpoint, connection) = echo.connect(&tunnel).await;
    there_and_back(&connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_quic_datagrams_capsules_carry_the_tunnel() {
    let (proxy, echo) = (Proxy::start(Counting::new(Limits::default())).await, Echo::start());
    let outer = proxy
        .connect(|transport| {
            outer_transport(transport);
            transport.datagram_receive_buffer_size(None);
        })
        .await;
    let tunnel = Arc::new(Tunnel::open_h3(outer, NAME, &target_of(echo.address())).await.unwrap());
    let (_endpoint, connection) = echo.connect(&tunnel).await;
    there_and_back(&connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_carries_tunnels_that_do_not_mix() {
    let proxy = Proxy::start(Counting::new(Limits { tunnels: 3, ..Limits::default() })).await;
    let client = Client::new(proxy.connect(outer_transport).await).await.unwrap();
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        let target = UdpSocket::bind(LOOPBACK).await.unwrap();
        let named = Target::new("Loopback.Example", target.local_addr().unwrap().port()).unwrap();
        tunnels.push((client.open(NAME, &named).await.unwrap(), target));
    }
    let (one_more, _) = (client.open(NAME, &Target::new("127.0.0.1", 9).unwrap()).await, ());
    assert!(matches!(one_more, Err(MasqueError::Refused { status: 429, .. })), "{one_more:?}");
    for (number, (tunnel, target)) in (0_u8..).zip(&tunnels) {
        tunnel.send(&[number]).await.unwrap();
        let mut buffer = [0; 9];
        let (bytes, from) = target.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[..bytes], [number]);
        target.send_to(&[number, number], from).await.unwrap();
        assert_eq!(tunnel.receive().await.unwrap(), [number, number].as_slice());
        // From a stranger nothing comes through.
        UdpSocket::bind(LOOPBACK).await.unwrap().send_to(b"stranger", from).await.unwrap();
        target.send_to(b"after", from).await.unwrap();
        assert_eq!(tunnel.receive().await.unwrap(), b"after".as_slice());
    }
    // A place that is given back can be taken.
    tunnels.pop();
    proxy.host.sees(Event::Ended(End::Closed)).await;
    client.open(NAME, &Target::new("127.0.0.1", 9).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_its_status() {
    for (refusal, status, error) in [
        (Refusal::Malformed, 400, None),
        (Refusal::Forbidden, 403, Some("http_request_denied")),
        (Refusal::Prohibited, 403, Some("destination_ip_prohibited")),
        (Refusal::Unauthenticated, 407, None),
        (Refusal::TooMany, 429, None),
        (Refusal::Unresolved, 502, Some("dns_error")),
        (Refusal::Unavailable, 503, Some("destination_unavailable")),
    ] {
        let proxy = Proxy::start(Counting::refusing(refusal)).await;
        let target = Target::new("192.0.2.7", 443).unwrap();
        let over_h3 = Tunnel::open_h3(proxy.connect(outer_transport).await, NAME, &target).await;
        let over_h1 = Tunnel::open_h1(proxy.connect_tcp().await, NAME, &target).await;
        for refused in [over_h3, over_h1] {
            let Err(MasqueError::Refused { status: told, error: why }) = refused else { panic!("{refused:?}") };
            assert_eq!((told, why.as_deref()), (status, error));
        }
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_not_waited_for() {
    let limits = Limits { request: Duration::from_millis(100), ..Limits::default() };
    let proxy = Proxy::start(Counting::new(limits)).await;
    let target = Target::new("slow.example", 443).unwrap();
    let slow = Tunnel::open_h3(proxy.connect(outer_transport).await, NAME, &target).await;
    assert!(matches!(slow, Err(MasqueError::Refused { status: 504, .. })), "{slow:?}");
    // Nor is a client that does not ask.
    let mut silent = proxy.connect_tcp().await;
    assert!(matches!(timeout(PATIENCE, silent.read(&mut [0; 9])).await, Ok(Ok(0) | Err(_))));
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let limits = Limits { idle: Duration::from_millis(150), ..Limits::default() };
    let proxy = Proxy::start(Counting::new(limits)).await;
    let tunnel = proxy.tunnel((Ipv4Addr::LOCALHOST, 9).into()).await;
    let ended = timeout(PATIENCE, tunnel.ended()).await.unwrap();
    assert!(matches!(ended, MasqueError::Closed), "{ended:?}");
    proxy.host.sees(Event::Ended(End::Idle)).await;
    assert!(tunnel.send(b"late").await.is_err());
}

#[tokio::test]
async fn a_tunnel_nobody_reads_keeps_no_more_than_its_bound() {
    let proxy = Proxy::start(Counting::new(Limits::default())).await;
    let target = UdpSocket::bind(LOOPBACK).await.unwrap();
    let tunnel = proxy.tunnel(target.local_addr().unwrap()).await;
    tunnel.send(b"here").await.unwrap();
    let (_, from) = target.recv_from(&mut [0; 9]).await.unwrap();
    let bound = (256 << 10) + 1500;
    let flood = async {
        while tunnel.drops().full < 200 {
            target.send_to(&[7; 1200], from).await.unwrap();
            assert!(tunnel.queued().1 <= bound);
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    // It still works: what waited is read, and then what comes.
    let after = async {
        loop {
            // Sent again and again, for it may be dropped as long as the flood lasts.
            target.send_to(b"after", from).await.unwrap();
            while let Ok(received) = timeout(Duration::from_millis(50), tunnel.receive()).await {
                if received.unwrap() == b"after".as_slice() {
                    return;
                }
            }
        }
    };
    timeout(PATIENCE, after).await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_costs_the_proxy_no_more_than_its_bound() {
    let host = Counting::new(Limits { queue_bytes: 32 << 10, ..Limits::default() });
    let target = UdpSocket::bind(LOOPBACK).await.unwrap();
    // A stream with room for 4 KiB, which nobody empties.
    let (mut near, far) = tokio::io::duplex(4 << 10);
    let served = tokio::spawn(serve_h1(far, Arc::<Counting>::clone(&host)));
    let path = target_of(target.local_addr().unwrap()).to_path();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n");
    near.write_all(request.as_bytes()).await.unwrap();
    near.write_all(&[0, 3, 0, b'h', b'i']).await.unwrap();
    let mut buffer = [0; 9];
    let (bytes, from) = target.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..bytes], b"hi");
    let flood = async {
        while host.dropped(DropReason::Full) < 100 {
            target.send_to(&[7; 1000], from).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    // The queue, what is being written, the stream's room, and one datagram more.
    assert!(host.seen("Received") <= (32 << 10) + (17 << 10) + (4 << 10) + 1000, "{}", host.seen("Received"));
    drop(near);
    served.await.unwrap().unwrap();
    // Whether reading or writing notices first.
    assert_eq!(host.seen("Ended(Closed)") + host.seen("Ended(Lost)"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_connection_ends_its_tunnels_and_leaves_no_task() {
    let (proxy, echo) = (Proxy::start(Counting::new(Limits::default())).await, Echo::start());
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let outer = proxy.connect(outer_transport).await;
    let tunnel = Arc::new(Tunnel::open_h3(outer.clone(), NAME, &target_of(echo.address())).await.unwrap());
    let (endpoint, connection) = echo.connect(&tunnel).await;
    there_and_back(&connection).await;
    outer.close(quinn::VarInt::from_u32(0), b"enough");
    assert!(matches!(timeout(PATIENCE, tunnel.ended()).await, Ok(MasqueError::Lost(_))));
    timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(matches!(tunnel.receive().await, Err(MasqueError::Lost(_))));
    proxy.host.sees(Event::Ended(End::Lost)).await;

    // And the other way round: what is dropped ends the connection.
    let second = Arc::new(proxy.tunnel(echo.address()).await);
    let (second_endpoint, second_connection) = echo.connect(&second).await;
    drop((tunnel, endpoint, connection, outer));
    drop((second, second_endpoint, second_connection));
    // The tasks of the echo's connections stay until it learns of their end, by silence.
    echo.endpoint.close(quinn::VarInt::from_u32(0), b"");
    let gone = async {
        while metrics.num_alive_tasks() > before {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "{} tasks before, {} now", before, metrics.num_alive_tasks());
    assert_eq!(proxy.tasks.len(), 2);
}

/// What a server answers on `stream`: the status of HTTP/1.1 and all that follows.
async fn asked(host: &Arc<Counting>, request: &[u8]) -> (String, Result<(), MasqueError>) {
    let (mut near, far) = tokio::io::duplex(64 << 10);
    let served = tokio::spawn(serve_h1(far, Arc::<Counting>::clone(host)));
    near.write_all(request).await.unwrap();
    near.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, near.read_to_end(&mut answer)).await.unwrap().unwrap();
    (String::from_utf8_lossy(&answer).into_owned(), served.await.unwrap())
}

#[tokio::test]
async fn http_1_1_is_answered_and_closed() {
    let host = Counting::new(Limits::default());
    let (page, served) = asked(&host, b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("\r\n\r\nwell\n") && served.is_ok(), "{page}");
    let (page, _) = asked(&host, b"HEAD /status HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        page.starts_with("HTTP/1.1 200 ") && page.ends_with("\r\n\r\n") && page.contains("Content-Length: 5\r\n"),
        "{page}"
    );
    let long = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 20_000]].concat();
    for (request, status) in [
        (b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), "404"),
        (b"GET /status HTTP/1.1\r\n\r\n", "400"),
        (b"POST /status HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400"),
        (b"GET /.well-known/masque/udp/127.0.0.1/0/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: connect-udp\r\n\r\n", "400"),
        (&long, "431"),
    ] {
        let (answer, _) = asked(&host, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn capsules_of_unknown_contexts_are_counted_and_a_broken_one_ends_the_tunnel() {
    let host = Counting::new(Limits::default());
    let target = UdpSocket::bind(LOOPBACK).await.unwrap();
    let path = target_of(target.local_addr().unwrap()).to_path();
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n");
    // A context nobody registered, a capsule nobody knows, and one in order.
    let (answer, served) =
        asked(&host, &[head.as_bytes(), &[0, 2, 2, 9, 0x2b, 1, 9, 0, 3, 0, b'h', b'i']].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && served.is_ok(), "{answer} {served:?}");
    assert_eq!(host.dropped(DropReason::UnknownContext), 1);
    assert_eq!(target.recv_from(&mut [0; 9]).await.unwrap().0, 2);
    // Longer than UDP has: 65,536 after the context; then cut off; then without a context.
    for broken in [&[0, 0x80, 1, 0, 1, 0][..], &[0, 9, 0], &[0, 0]] {
        let (_, served) = asked(&host, &[head.as_bytes(), broken].concat()).await;
        assert!(matches!(served, Err(MasqueError::Capsule(_) | MasqueError::Datagram)), "{served:?}");
    }
    assert_eq!(host.seen("Ended(Fault)"), 3);
}

/// A connection on which the test speaks HTTP/3 itself.
async fn raw(proxy: &Proxy, control: &[u8]) -> (quinn::Connection, quinn::SendStream) {
    let connection = proxy.connect(outer_transport).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(control).await.unwrap();
    (connection, stream)
}

const SETTINGS: [u8; 5] = [0, 4, 2, 0x33, 1];

async fn code_of(connection: &quinn::Connection) -> u64 {
    match timeout(PATIENCE, connection.closed()).await.unwrap() {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_client_that_breaks_http_3_loses_its_connection() {
    let proxy = Proxy::start(Counting::new(Limits::default())).await;
    for (control, code) in [
        (&[0, 7, 1, 0][..], 0x10a),
        (&[0, 4, 0, 4, 0], 0x105),
        (&[0, 4, 2, 0x33, 2], 0x109),
        (&[0, 4, 0, 0, 1, 0], 0x105),
        (&[0, 4, 0x50, 0], 0x107),
        (&[1], 0x103),
        (&[2, 0x3f, 0xe1, 0x1f], 0x201),
    ] {
        let (connection, _control) = raw(&proxy, control).await;
        assert_eq!(code_of(&connection).await, code, "{control:?}");
    }
    let (connection, mut control) = raw(&proxy, &SETTINGS).await;
    control.finish().unwrap();
    assert_eq!(code_of(&connection).await, 0x104);

    // Requests: content first, an unreadable section, a frame of HTTP/2.
    for (request, code) in [(&[0, 1, 0][..], 0x105), (&[1, 3, 0, 0, 0x80], 0x200), (&[8, 0], 0x105)] {
        let (connection, _control) = raw(&proxy, &SETTINGS).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(request).await.unwrap();
        assert_eq!(code_of(&connection).await, code, "{request:?}");
    }
    // A datagram without a quarter stream id.
    let (connection, _control) = raw(&proxy, &SETTINGS).await;
    connection.send_datagram(Bytes::from_static(&[0xff])).unwrap();
    assert_eq!(code_of(&connection).await, 0x33);
}

#[tokio::test]
async fn a_request_that_is_too_large_or_never_ends_is_answered_all_the_same() {
    let limits = Limits { request: Duration::from_millis(200), ..Limits::default() };
    let proxy = Proxy::start(Counting::new(limits)).await;
    let (connection, _control) = raw(&proxy, &SETTINGS).await;
    // HEADERS of a gigabyte, of which nothing comes.
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[1, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
    let answer = timeout(PATIENCE, receive.read_to_end(1000)).await.unwrap().unwrap();
    assert!(answer.windows(3).any(|status| status == b"431"), "{answer:?}");
    // A byte, and then nothing.
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    let ended = timeout(PATIENCE, receive.read_to_end(1000)).await.unwrap();
    assert!(
        matches!(ended, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) if code.into_inner() == 0x10d)
    );
    // A datagram to no tunnel is dropped.
    connection.send_datagram(Bytes::from_static(&[7, 0, 1])).unwrap();
    proxy.host.sees(Event::Dropped(DropReason::NoTunnel)).await;
    assert!(connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_clients_send_others_are_served() {
    let limits = Limits { request: Duration::from_millis(200), ..Limits::default() };
    let proxy = Proxy::start(Counting::new(limits)).await;
    // Numbers that look random (Knuth's generator), small more often than not, as types and lengths are.
    let mut state = 7_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let byte = (state >> 56) as u8;
            if state >> 40 & 3 == 0 { byte } else { byte & 0x0f }
        };
        (0..bytes).map(|_| next()).collect()
    };
    for round in 0..60 {
        let (connection, mut control) = raw(&proxy, if round % 3 == 0 { &[] } else { &SETTINGS }).await;
        let _ = control.write_all(&noise(round)).await;
        for _ in 0..4 {
            let Ok((mut send, _receive)) = connection.open_bi().await else { break };
            let head = if round % 2 == 0 { vec![1, 20, 0, 0] } else { Vec::new() };
            let _ = send.write_all(&[head, noise(60)].concat()).await;
            let _ = connection.send_datagram(noise(round % 9).into());
        }
        connection.close(quinn::VarInt::from_u32(0), b"");
    }
    let target = UdpSocket::bind(LOOPBACK).await.unwrap();
    let tunnel = proxy.tunnel(target.local_addr().unwrap()).await;
    tunnel.send(b"still here").await.unwrap();
    assert_eq!(timeout(PATIENCE, target.recv_from(&mut [0; 99])).await.unwrap().unwrap().0, 10);
    assert_eq!(proxy.tasks.len(), 2);
}
