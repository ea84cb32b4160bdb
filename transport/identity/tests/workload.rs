//! The Workload API over a unix socket, against a small server that speaks the published proto: it rotates, closes streams, goes away,
//! sends nonsense and says no; the source follows.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bpi_identity::devnet::{Ca, Order};
use bpi_identity::source::{Source, SourceError, WorkloadApi};
use bpi_identity::svid::SvidError;
use bpi_identity::{Identity, SpiffeId};
use rustls::pki_types::CertificateDer;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use harness::{Clock, DAY_S, Log, NOW_S, ca, domain, id, svid};

const PATIENCE: Duration = Duration::from_secs(10);

/// `X509SVIDRequest` of the Workload API.
#[derive(Clone, PartialEq, prost::Message)]
struct X509SvidRequest {}

/// `X509SVIDResponse`; revocation lists (2) and other domains' bundles (3) are not sent.
#[derive(Clone, PartialEq, prost::Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, prost::Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}

fn entry(ca: &Ca, me: &SpiffeId, order: &Order, roots: &[&CertificateDer<'static>]) -> X509Svid {
    let made = ca.issue(me, order).unwrap();
    X509Svid {
        spiffe_id: me.to_string(),
        x509_svid: made.der().to_vec(),
        x509_svid_key: made.key_der().to_vec(),
        bundle: roots.iter().flat_map(|root| root.to_vec()).collect(),
        hint: String::new(),
    }
}

fn today(ca: &Ca, me: &str) -> X509SvidResponse {
    X509SvidResponse { svids: vec![entry(ca, &id(me), &Order::of_life(NOW_S, DAY_S), &[ca.root()])] }
}

/// What the agent says to whoever asks: the newest of these, and again whenever it changes; an error ends the stream.
#[derive(Clone)]
struct Agent {
    says: watch::Sender<Result<X509SvidResponse, Code>>,
    asked: Arc<AtomicU64>,
    /// Ends every stream when it is bumped.
    cut: watch::Sender<u64>,
}

impl Agent {
    fn new(first: X509SvidResponse) -> Self {
        Self { says: watch::Sender::new(Ok(first)), asked: Arc::default(), cut: watch::Sender::new(0) }
    }

    fn say(&self, what: X509SvidResponse) -> Vec<u8> {
        let leaf = what.svids[0].x509_svid.clone();
        self.set(Ok(what));
        leaf
    }

    fn set(&self, what: Result<X509SvidResponse, Code>) {
        drop(self.says.send_replace(what));
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn serve(&self, path: &Path, tasks: &mut JoinSet<()>) {
        let incoming = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        let agent = self.clone();
        tasks.spawn(async move {
            let mut cut = agent.cut.subscribe();
            let ended = async move { while *cut.borrow_and_update() != u64::MAX && cut.changed().await.is_ok() {} };
            Server::builder().add_service(agent).serve_with_incoming_shutdown(incoming, ended).await.unwrap();
        });
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;

impl ServerStreamingService<X509SvidRequest> for Agent {
    type Response = X509SvidResponse;
    type ResponseStream = Messages;
    type Future = std::future::Ready<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // The header that keeps browsers and proxies out (Workload Endpoint, section 5).
        if request.metadata().get("workload.spiffe.io").map(|value| value.as_bytes()) != Some(b"true") {
            return std::future::ready(Err(Status::invalid_argument("security header missing")));
        }
        let said = WatchStream::new(self.says.subscribe());
        let said = said.map(|said| Some(said.map_err(|code| Status::new(code, "the agent says no"))));
        let cut = WatchStream::from_changes(self.cut.subscribe()).map(|_| None);
        let messages = said.merge(cut).take_while(Option::is_some).map_while(|message| message);
        std::future::ready(Ok(Response::new(Box::pin(messages))))
    }
}

impl NamedService for Agent {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<http::Request<Body>> for Agent {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let agent = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::unimplemented("only FetchX509SVID").into_http());
            }
            let codec = ProstCodec::<X509SvidResponse, X509SvidRequest>::default();
            Ok(Grpc::new(codec).server_streaming(agent, request).await)
        })
    }
}

struct Site {
    _place: tempfile::TempDir,
    path: PathBuf,
    ca: Ca,
    agent: Agent,
    clock: Clock,
    log: Log,
    _logging: tracing::subscriber::DefaultGuard,
    tasks: JoinSet<()>,
    served: JoinSet<()>,
}

impl Site {
    fn new() -> Self {
        let log = Log::default();
        let logging = tracing::subscriber::set_default(log.subscriber());
        let place = tempfile::tempdir().unwrap();
        let (path, ca) = (place.path().join("api.sock"), ca());
        let agent = Agent::new(today(&ca, "relay/r1"));
        let mut served = JoinSet::new();
        agent.serve(&path, &mut served);
        let (clock, tasks) = (Clock::at(NOW_S), JoinSet::new());
        Self { _place: place, path, ca, agent, clock, log, _logging: logging, tasks, served }
    }

    fn source(&self, wanted: Option<SpiffeId>, first_wait: Duration) -> Source {
        let socket = Some(format!("unix://{}", self.path.display()));
        Source::WorkloadApi(WorkloadApi { socket, id: wanted, first_wait })
    }

    async fn start(&mut self) -> Identity {
        let source = self.source(None, PATIENCE);
        source.start_with_time(self.clock.shared(), &mut self.tasks).await.unwrap()
    }

    async fn logged(&self, what: &str) {
        let seen = async {
            while !self.log.text().contains(what) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{what:?} is not in {}", self.log.text()));
    }
}

async fn shows(identity: &Identity, leaf: &[u8]) {
    let mut changed = identity.changed();
    let followed = changed.wait_for(|current| *current.svid().chain()[0] == *leaf);
    timeout(PATIENCE, followed).await.expect("the source follows").unwrap();
}

#[tokio::test]
async fn a_source_follows_rotations_over_one_stream() {
    let mut site = Site::new();
    let identity = site.start().await;
    assert_eq!(identity.id(), id("relay/r1"));
    for _ in 0..50 {
        let leaf = site.agent.say(today(&site.ca, "relay/r1"));
        shows(&identity, &leaf).await;
    }
    assert_eq!(site.agent.asked(), 1);
    // An authority is replaced: both roots, then an SVID of the new one.
    let next = ca();
    let order = Order::of_life(NOW_S, DAY_S);
    let both = entry(&next, &id("relay/r1"), &order, &[site.ca.root(), next.root()]);
    let leaf = site.agent.say(X509SvidResponse { svids: vec![both] });
    shows(&identity, &leaf).await;
    assert!(identity.peer_of(svid(&site.ca, "agent/a1").chain()).is_ok());
}

#[tokio::test]
async fn a_source_opens_the_stream_again_when_it_is_closed_or_the_agent_goes_away() {
    let mut site = Site::new();
    let identity = site.start().await;
    for number in 1..=3 {
        site.agent.cut.send_replace(number);
        let again = async {
            while site.agent.asked() != number + 1 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, again).await.unwrap();
        let leaf = site.agent.say(today(&site.ca, "relay/r1"));
        shows(&identity, &leaf).await;
    }
    // The agent ends, and another one comes on the same path.
    site.served.shutdown().await;
    std::fs::remove_file(&site.path).unwrap();
    // The server is gone, its streams are tasks of their own.
    site.agent.cut.send_replace(4);
    site.logged("the Workload API").await;
    let agent = Agent::new(today(&site.ca, "relay/r1"));
    let leaf = agent.say(today(&site.ca, "relay/r1"));
    agent.serve(&site.path, &mut site.served);
    shows(&identity, &leaf).await;
}

#[tokio::test]
async fn what_the_agent_should_not_send_is_refused_and_the_old_svid_stays() {
    let mut site = Site::new();
    let identity = site.start().await;
    let before = identity.current().svid().chain().to_vec();
    let mut broken = today(&site.ca, "relay/r1");
    broken.svids[0].x509_svid.truncate(100);
    site.agent.say(broken);
    site.logged("failed to parse X.509").await;

    let other = site.agent.say(today(&site.ca, "relay/r2"));
    site.logged("none is that of spiffe://bpi.test/relay/r1").await;
    assert_ne!(*identity.current().svid().chain()[0], *other);

    let order = Order { not_before_s: NOW_S - 10, not_after_s: NOW_S - 5, dns: Vec::new() };
    let old = entry(&site.ca, &id("relay/r1"), &order, &[site.ca.root()]);
    site.agent.say(X509SvidResponse { svids: vec![old] });
    site.logged("expired at").await;

    let stranger = ca();
    let foreign = entry(&stranger, &id("relay/r1"), &Order::of_life(NOW_S, DAY_S), &[site.ca.root()]);
    site.agent.say(X509SvidResponse { svids: vec![foreign] });
    site.logged("no root of the trust bundle").await;

    let mut torn = today(&site.ca, "relay/r1");
    torn.svids[0].x509_svid_key = today(&site.ca, "relay/r1").svids[0].x509_svid_key.clone();
    site.agent.say(torn);
    site.logged("is not the one of the certificate").await;

    site.agent.set(Ok(X509SvidResponse { svids: Vec::new() }));
    site.logged("missing required field").await;
    site.agent.set(Err(Code::PermissionDenied));
    site.logged("the agent says no").await;
    assert_eq!(identity.current().svid().chain(), before);

    let leaf = site.agent.say(today(&site.ca, "relay/r1"));
    shows(&identity, &leaf).await;
}

#[tokio::test]
async fn an_svid_among_several_is_chosen_by_its_id() {
    let mut site = Site::new();
    let several = |ca: &Ca| X509SvidResponse {
        svids: vec![today(ca, "agent/a1").svids.remove(0), today(ca, "relay/r1").svids.remove(0)],
    };
    site.agent.say(several(&site.ca));
    let source = site.source(Some(id("relay/r1")), PATIENCE);
    let identity = source.start_with_time(site.clock.shared(), &mut site.tasks).await.unwrap();
    assert_eq!(identity.id(), id("relay/r1"));
    // Without a wish it is the first one, and stays that one.
    let first = site.start().await;
    assert_eq!(first.id(), id("agent/a1"));
    let mut turned = several(&site.ca);
    turned.svids.reverse();
    let leaf = turned.svids[1].x509_svid.clone();
    site.agent.say(turned);
    shows(&first, &leaf).await;
}

#[tokio::test]
async fn a_start_without_a_usable_svid_ends_with_the_reason() {
    let mut site = Site::new();
    site.agent.set(Err(Code::PermissionDenied));
    let wait = Duration::from_millis(300);
    let late = site.source(None, wait).start_with_time(site.clock.shared(), &mut site.tasks).await.unwrap_err();
    assert!(matches!(&late, SourceError::Late { waited_ms: 300, reason } if reason.contains("says no")), "{late}");

    let api = |socket: &str| WorkloadApi { socket: Some(socket.to_owned()), id: None, first_wait: wait };
    let mut start = async |socket: &str| Source::WorkloadApi(api(socket)).start(&mut site.tasks).await.unwrap_err();
    assert!(matches!(start("/nowhere/api.sock").await, SourceError::Late { .. }));
    assert!(matches!(start("tcp://127.0.0.1:1").await, SourceError::Socket { .. }));
    assert!(matches!(start("https://a").await, SourceError::Socket { .. }));
}

#[tokio::test]
async fn a_silent_agent_is_asked_again_at_half_life() {
    let mut site = Site::new();
    // A life of four seconds, so that the look at the half of it is near.
    let order = Order { not_before_s: NOW_S, not_after_s: NOW_S + 4, dns: Vec::new() };
    let short = entry(&site.ca, &id("relay/r1"), &order, &[site.ca.root()]);
    site.agent.say(X509SvidResponse { svids: vec![short] });
    let identity = site.start().await;
    site.clock.set(NOW_S + 2);
    let asked = async {
        while site.agent.asked() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
    site.clock.set(NOW_S + 5);
    site.logged("the own SVID has expired").await;
    assert!(matches!(identity.peer_of(identity.current().svid().chain()), Err(SvidError::Expired { .. })));
    assert_eq!(identity.domain(), domain());
}

/// Everything the task logged is in order; nothing of a key is in it.
#[tokio::test]
async fn no_key_is_logged() {
    let mut site = Site::new();
    let said = Mutex::new(today(&site.ca, "relay/r1"));
    let identity = site.start().await;
    let said = said.into_inner().unwrap();
    let key = said.svids[0].x509_svid_key.clone();
    let leaf = site.agent.say(said);
    shows(&identity, &leaf).await;
    site.logged("the own SVID is replaced").await;
    let text = site.log.text();
    assert!(!text.contains(&format!("{}, {}, {}", key[60], key[61], key[62])), "{text}");
    assert!(!text.to_lowercase().contains("private"), "{text}");
}
