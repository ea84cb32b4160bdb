//! Handshakes over real QUIC on loopback: who is let in, and who learns why not. Client and server have a thread, a runtime and a log
//! each, so that what one side logs cannot be taken for what the other does.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bpi_identity::devnet::{Ca, Made, Order};
use bpi_identity::tls::{ClientAuth, TlsError, client_config, quic_client, server_config, shown_by};
use bpi_identity::{Identity, Role};
use quinn::{Connection, ConnectionError, Endpoint};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, SanType};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::runtime;
use tokio::time::timeout;

use harness::{ALPN, Clock, DAY_S, Log, NOW_S, bye, ca, dial, id, identity, loopback, serve, svid};

const PATIENCE: Duration = Duration::from_secs(10);

/// Shows whatever it is given, as an attacker would.
#[derive(Debug)]
struct Liar(Arc<CertifiedKey>);

impl Liar {
    fn new(chain: Vec<CertificateDer<'static>>, key: &[u8]) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let signer: Arc<dyn SigningKey> = ring::default_provider().key_provider.load_private_key(key).unwrap();
        Self(Arc::new(CertifiedKey::new(chain, signer)))
    }

    fn of(made: &Made) -> Self {
        Self::new(vec![made.der().clone()], &made.key_der())
    }
}

impl ResolvesClientCert for Liar {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Liar {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A client that believes an honest server and shows what it likes.
fn lying_client(honest: &Identity, liar: Liar) -> ClientConfig {
    let mut config = client_config(honest, &Role::ALL, ALPN).unwrap();
    config.client_auth_cert_resolver = Arc::new(liar);
    config
}

/// A server that takes any honest client and shows what it likes.
fn lying_server(honest: &Identity, liar: Liar) -> ServerConfig {
    let mut config = server_config(honest, &Role::ALL, ALPN, ClientAuth::Required).unwrap();
    config.cert_resolver = Arc::new(liar);
    config
}

struct Outcome {
    /// What each side was told, and what it logged.
    client: (Result<(), String>, String),
    server: (Result<(), String>, String),
}

/// One handshake, and a byte of the server's that only comes when it has let the client in.
fn meet(client: ClientConfig, server: ServerConfig) -> Outcome {
    let (address, addressed) = mpsc::channel::<SocketAddr>();
    let server = thread::spawn(move || {
        alone(async move {
            let crypto: quinn::crypto::rustls::QuicServerConfig = server.try_into().unwrap();
            let endpoint = Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), loopback()).unwrap();
            address.send(endpoint.local_addr().unwrap()).unwrap();
            let ended = match endpoint.accept().await.unwrap().await {
                Ok(connection) => greet(&connection).await,
                Err(error) => Err(error),
            };
            endpoint.wait_idle().await;
            ended
        })
    });
    let address = addressed.recv_timeout(PATIENCE).unwrap();
    let client = thread::spawn(move || {
        alone(async move {
            let crypto: quinn::crypto::rustls::QuicClientConfig = client.try_into().unwrap();
            let endpoint = Endpoint::client(loopback()).unwrap();
            let config = quinn::ClientConfig::new(Arc::new(crypto));
            let ended = match endpoint.connect_with(config, address, "any.invalid").unwrap().await {
                Ok(connection) => listen(&connection).await,
                Err(error) => Err(error),
            };
            bye(&endpoint);
            endpoint.wait_idle().await;
            ended
        })
    });
    Outcome { client: client.join().unwrap(), server: server.join().unwrap() }
}

fn alone(work: impl Future<Output = Result<(), ConnectionError>>) -> (Result<(), String>, String) {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async { timeout(PATIENCE, work).await.unwrap() });
    (ended.map_err(|error| error.to_string()), log.text())
}

async fn greet(connection: &Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.open_uni().await?;
    let _ = stream.write_all(b"!").await;
    let _ = stream.finish();
    match connection.closed().await {
        ConnectionError::ApplicationClosed(_) => Ok(()),
        error => Err(error),
    }
}

async fn listen(connection: &Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.accept_uni().await?;
    match stream.read_to_end(8).await {
        Ok(_) => Ok(()),
        Err(_) => Err(connection.closed().await),
    }
}

const LOGGED: &str = "a peer's SVID is refused";
const TOLD: &str = "ApplicationVerificationFailure";

/// Checks that the refusing side logs `reason`, and that the other side learns nothing.
fn check_refusal(refusing: &(Result<(), String>, String), other: &(Result<(), String>, String), reason: &str) {
    let (told, logged) = (refusing.0.as_ref().unwrap_err(), &refusing.1);
    assert!(logged.contains(LOGGED) && logged.contains(reason), "{reason:?} is not in the log {logged:?}");
    assert!(told.contains(TOLD), "{told}");
    let (told, logged) = (other.0.as_ref().unwrap_err(), &other.1);
    assert!(!told.contains(reason) && !logged.contains(reason) && !logged.contains(LOGGED), "{told} {logged}");
    // 49 is access_denied; the rest of the text is the same for every reason.
    assert!(told.contains("49") && told.contains(TOLD), "{told}");
    for word in ["spiffe", "bpi.test", "root", "expire", "not valid", "keyUsage"] {
        assert!(!told.contains(word), "{told}");
    }
}

fn both_ways(ca: &Ca, reason: &str, liar: impl Fn() -> Liar) {
    let honest = identity(ca, "agent/honest");
    let as_client = meet(
        lying_client(&honest, liar()),
        server_config(&honest, &[Role::Agent], ALPN, ClientAuth::Required).unwrap(),
    );
    check_refusal(&as_client.server, &as_client.client, reason);
    let as_server = meet(client_config(&honest, &[Role::Agent], ALPN).unwrap(), lying_server(&honest, liar()));
    check_refusal(&as_server.client, &as_server.server, reason);
}

fn bent(ca: &Ca, bend: impl FnOnce(&mut CertificateParams)) -> Liar {
    Liar::of(&ca.issue_bent(&id("agent/a1"), &Order::of_life(NOW_S, DAY_S), bend).unwrap())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn peers_with_svids_of_allowed_roles_meet() {
    let ca = ca();
    let (agent, relay) = (identity(&ca, "agent/a1"), identity(&ca, "relay/r1"));
    let outcome = meet(
        client_config(&agent, &[Role::Relay], ALPN).unwrap(),
        server_config(&relay, &[Role::Agent, Role::Validator], ALPN, ClientAuth::Required).unwrap(),
    );
    assert_eq!((outcome.client, outcome.server), ((Ok(()), String::new()), (Ok(()), String::new())));
}

#[test]
fn another_trust_domain_is_refused_at_both_ends() {
    let ca = ca();
    both_ways(&ca, "of another trust domain", || {
        bent(&ca, |p| p.subject_alt_names = vec![uri("spiffe://other.test/agent/a1")])
    });
}

#[test]
fn two_uris_are_refused_at_both_ends() {
    let ca = ca();
    both_ways(&ca, "has 2 URI names", || bent(&ca, |p| p.subject_alt_names.push(uri("spiffe://bpi.test/agent/a2"))));
}

#[test]
fn no_uri_is_refused_at_both_ends() {
    let ca = ca();
    both_ways(&ca, "has no URI name", || {
        bent(&ca, |p| p.subject_alt_names = vec![SanType::DnsName("any.invalid".try_into().unwrap())])
    });
}

#[test]
fn an_authority_as_leaf_is_refused_at_both_ends() {
    let ca = ca();
    both_ways(&ca, "CA:TRUE", || bent(&ca, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)));
}

#[test]
fn a_leaf_that_may_sign_certificates_is_refused_at_both_ends() {
    let ca = ca();
    both_ways(&ca, "keyCertSign", || bent(&ca, |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)));
}

#[test]
fn an_expired_svid_is_refused_at_both_ends() {
    let ca = ca();
    let order = Order { not_before_s: NOW_S - 20, not_after_s: NOW_S - 1, dns: Vec::new() };
    both_ways(&ca, "expired at", || Liar::of(&ca.issue(&id("agent/a1"), &order).unwrap()));
}

#[test]
fn an_svid_of_tomorrow_is_refused_at_both_ends() {
    let ca = ca();
    let order = Order { not_before_s: NOW_S + 1, not_after_s: NOW_S + 20, dns: Vec::new() };
    both_ways(&ca, "not valid before", || Liar::of(&ca.issue(&id("agent/a1"), &order).unwrap()));
}

#[test]
fn a_role_that_is_not_allowed_is_refused_at_both_ends() {
    let ca = ca();
    both_ways(&ca, "has the role relay, and only agent may be", || {
        Liar::of(&ca.issue(&id("relay/r1"), &Order::of_life(NOW_S, DAY_S)).unwrap())
    });
}

#[test]
fn an_unknown_root_is_refused_at_both_ends() {
    let (ours, theirs) = (ca(), ca());
    both_ways(&ours, "no root of the trust bundle", || bent(&theirs, |_| {}));
}

#[test]
fn garbage_is_refused_at_both_ends() {
    let ca = ca();
    let key = ca.issue(&id("agent/a1"), &Order::of_life(NOW_S, DAY_S)).unwrap().key_der();
    both_ways(&ca, "not an X.509 certificate", || {
        Liar::new(vec![CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])], &key)
    });
}

#[test]
fn who_does_not_hold_the_key_is_refused_at_both_ends() {
    let ca = ca();
    let honest = identity(&ca, "agent/honest");
    let liar = || {
        let stolen = svid(&ca, "agent/a1").chain().to_vec();
        Liar::new(stolen, &ca.issue(&id("agent/a2"), &Order::of_life(NOW_S, DAY_S)).unwrap().key_der())
    };
    let outcome = meet(
        lying_client(&honest, liar()),
        server_config(&honest, &[Role::Agent], ALPN, ClientAuth::Required).unwrap(),
    );
    assert!(outcome.server.1.contains("does not hold the key") && outcome.client.1.is_empty());
    assert!(outcome.client.0.unwrap_err().contains(TOLD));
    let outcome = meet(client_config(&honest, &[Role::Agent], ALPN).unwrap(), lying_server(&honest, liar()));
    assert!(outcome.client.1.contains("does not hold the key") && outcome.server.1.is_empty());
    assert!(outcome.server.0.unwrap_err().contains(TOLD));
}

/// A client that has nothing to show.
fn nobody(honest: &Identity) -> ClientConfig {
    #[derive(Debug)]
    struct Nobody;
    impl ResolvesClientCert for Nobody {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
    let mut config = client_config(honest, &Role::ALL, ALPN).unwrap();
    config.client_auth_cert_resolver = Arc::new(Nobody);
    config
}

#[test]
fn a_client_without_svid_is_let_in_only_where_that_is_allowed() {
    let ca = ca();
    let relay = identity(&ca, "relay/r1");
    let server = |auth| server_config(&relay, &[Role::Agent], ALPN, auth).unwrap();
    let outcome = meet(nobody(&relay), server(ClientAuth::Required));
    assert!(outcome.client.0.is_err() && outcome.server.0.is_err());
    let outcome = meet(nobody(&relay), server(ClientAuth::Optional));
    assert_eq!((outcome.client.0, outcome.server.0), (Ok(()), Ok(())));
    // One that is shown must hold all the same.
    let liar = bent(&ca, |p| p.subject_alt_names.clear());
    let outcome = meet(lying_client(&relay, liar), server(ClientAuth::Optional));
    check_refusal(&outcome.server, &outcome.client, "has no URI name");
}

#[test]
fn another_protocol_is_refused() {
    let ca = ca();
    let me = identity(&ca, "relay/r1");
    let outcome = meet(
        client_config(&me, &Role::ALL, &[b"h3"]).unwrap(),
        server_config(&me, &Role::ALL, ALPN, ClientAuth::Required).unwrap(),
    );
    assert!(outcome.client.0.is_err() && outcome.server.0.is_err());
}

#[test]
fn an_own_svid_that_has_expired_is_not_shown() {
    let ca = ca();
    let clock = Clock::at(NOW_S);
    let bundle = ca.bundle().unwrap();
    let old = Identity::with_time(svid(&ca, "relay/r1"), bundle, clock.shared()).unwrap();
    let server = server_config(&old, &Role::ALL, ALPN, ClientAuth::Required).unwrap();
    clock.set(NOW_S + DAY_S + 1);
    let outcome = meet(client_config(&identity(&ca, "agent/a1"), &Role::ALL, ALPN).unwrap(), server);
    assert!(outcome.client.0.is_err() && outcome.server.0.is_err());
    assert!(outcome.server.1.contains("the own one has expired"), "{}", outcome.server.1);
}

#[test]
fn no_config_has_early_data_or_tickets() {
    let me = identity(&ca(), "relay/r1");
    let server = server_config(&me, &Role::ALL, ALPN, ClientAuth::Required).unwrap();
    assert_eq!((server.max_early_data_size, server.send_tls13_tickets), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    let client = client_config(&me, &Role::ALL, ALPN).unwrap();
    assert!(!client.enable_early_data);
    assert_eq!(client_config(&me, &[], ALPN).unwrap_err(), TlsError::NoRole);
    assert_eq!(quic_client(&me, &Role::ALL, &[b""]).err(), Some(TlsError::Protocol { bytes: 0 }));
}

/// Lets two ends without a network talk until neither has anything to say.
fn talk(client: &mut rustls::ClientConnection, server: &mut rustls::ServerConnection) {
    while client.wants_write() || server.wants_write() {
        for to_server in [true, false] {
            let mut bytes = Vec::new();
            if to_server {
                while client.wants_write() {
                    client.write_tls(&mut bytes).unwrap();
                }
                while !bytes.is_empty() {
                    let read = server.read_tls(&mut bytes.as_slice()).unwrap();
                    bytes.drain(..read);
                    server.process_new_packets().unwrap();
                }
            } else {
                while server.wants_write() {
                    server.write_tls(&mut bytes).unwrap();
                }
                while !bytes.is_empty() {
                    let read = client.read_tls(&mut bytes.as_slice()).unwrap();
                    bytes.drain(..read);
                    client.process_new_packets().unwrap();
                }
            }
        }
    }
}

#[test]
fn a_client_does_not_resume_even_where_tickets_are_given() {
    let ca = ca();
    let (agent, relay) = (identity(&ca, "agent/a1"), identity(&ca, "relay/r1"));
    let mut generous = server_config(&relay, &Role::ALL, ALPN, ClientAuth::Required).unwrap();
    generous.send_tls13_tickets = 2;
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(32);
    let (generous, config) = (Arc::new(generous), Arc::new(client_config(&agent, &Role::ALL, ALPN).unwrap()));
    for _ in 0..2 {
        let name = "relay.invalid".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(&generous)).unwrap();
        talk(&mut client, &mut server);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }
}

#[tokio::test]
async fn a_second_connection_is_a_full_handshake_and_early_data_is_not_offered() {
    let ca = ca();
    let (agent, relay) = (identity(&ca, "agent/a1"), identity(&ca, "relay/r1"));
    let server = serve(&relay, &[Role::Agent], ClientAuth::Required);
    let client = dial(&agent, &[Role::Relay]);
    let address = server.local_addr().unwrap();
    let served = tokio::spawn({
        let server = server.clone();
        async move {
            let mut peers = Vec::new();
            for _ in 0..3 {
                let connection = server.accept().await.unwrap().await.unwrap();
                peers.push(relay.peer_of(&shown_by(&connection)).unwrap());
                connection.closed().await;
            }
            peers
        }
    });
    for _ in 0..3 {
        let connecting = client.connect(address, "relay.invalid").unwrap();
        let connection = connecting.into_0rtt().err().unwrap().await.unwrap();
        let peer = agent.peer_of(&shown_by(&connection)).unwrap();
        assert_eq!((peer.id, peer.not_after_s), (id("relay/r1"), NOW_S + DAY_S));
        connection.close(0u32.into(), b"");
    }
    assert!(served.await.unwrap().iter().all(|peer| peer.id == id("agent/a1")));
    bye(&client);
}
