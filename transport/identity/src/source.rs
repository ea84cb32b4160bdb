//! Where SVIDs come from: files that somebody replaces, or the SPIFFE Workload API.
//!
//! One task keeps an identity fresh. Always true: what is refused is logged, once for each reason, and changes nothing; the SVID held
//! stays until its notAfter, also when the source says that there is none any more, since handshakes judge it by its time. Bounds: one
//! stream, pauses between attempts from 100 ms to 30 s, messages below tonic's 4 MiB. Absent on purpose: the Workload API over TCP,
//! where nobody knows who asks, and its bundles of other domains.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use spiffe::constants::DEFAULT_SVID;
use spiffe::transport::Endpoint;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_stream::{Stream, StreamExt as _};
use zeroize::Zeroizing;

use crate::bundle::{Bundle, BundleError};
use crate::identity::{Identity, IdentityError};
use crate::spiffe::SpiffeId;
use crate::svid::{Svid, SvidError};

/// The variable that names the socket (SPIFFE Workload Endpoint, section 4).
pub const SOCKET_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// How often files are looked at, unless said otherwise.
pub const POLL: Duration = Duration::from_secs(5);
/// How long a start waits for a first SVID, unless said otherwise.
pub const FIRST_WAIT: Duration = Duration::from_secs(30);

/// First and longest pause before the socket is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the socket to be opened.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest time between two looks at the age of the SVID.
const AGE_LOOK_MAX_S: u64 = 60;

/// Why there is no SVID from a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The SVID is refused.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The two together are refused.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No socket is named.
    #[error("no socket of the Workload API is configured, and {SOCKET_VARIABLE} is not set")]
    NoSocket,
    /// The socket is named in a way that is not understood.
    #[error("the Workload API at {found:?} is no unix socket: {reason}")]
    Socket {
        /// The refused name.
        found: String,
        /// What is wrong.
        reason: String,
    },
    /// The Workload API failed, or sent what is no SVID.
    #[error("the Workload API: {reason}")]
    Workload {
        /// What the client said.
        reason: String,
    },
    /// The socket is not opened in time.
    #[error("the Workload API does not answer within {limit_ms} ms")]
    Silent {
        /// The limit in force.
        limit_ms: u128,
    },
    /// Other SVIDs only.
    #[error("the Workload API has {found} SVIDs, and none is that of {wanted}")]
    NoneWanted {
        /// The id that is wanted.
        wanted: String,
        /// How many it sent.
        found: usize,
    },
    /// Nothing usable came in time.
    #[error("no usable SVID within {waited_ms} ms; the last reason: {reason}")]
    Late {
        /// How long was waited.
        waited_ms: u128,
        /// The last refusal, or that there was none.
        reason: String,
    },
    /// The reader of files was ended.
    #[error("the files are no longer read: the runtime is closing")]
    Closing,
}

impl From<WorkloadApiError> for SourceError {
    fn from(error: WorkloadApiError) -> Self {
        Self::Workload { reason: error.to_string() }
    }
}

/// PEM files, each replaced by a rename.
#[derive(Debug, Clone)]
pub struct Files {
    /// Chain, leaf first, and the key when `key` is `None`: then a reader never sees one without the other. Mode 0600 with a key in it.
    pub svid: PathBuf,
    /// The key, mode 0600. Two files may be seen between two renames; such a pair is refused and read again.
    pub key: Option<PathBuf>,
    /// The roots.
    pub bundle: PathBuf,
    /// How often the files are looked at.
    pub poll: Duration,
}

/// The SPIFFE Workload API.
#[derive(Debug, Clone)]
pub struct WorkloadApi {
    /// `unix:///path` or `/path`. `None`: what [`SOCKET_VARIABLE`] says.
    pub socket: Option<String>,
    /// Which SVID to take when there are several. `None`: the first of the first answer, and that id from then on.
    pub id: Option<SpiffeId>,
    /// How long a start waits for a first SVID.
    pub first_wait: Duration,
}

/// Where SVIDs come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Files.
    Files(Files),
    /// The Workload API.
    WorkloadApi(WorkloadApi),
}

impl Source {
    /// Gets the first SVID and begins to keep it fresh. The task ends when `tasks` is dropped.
    ///
    /// # Errors
    ///
    /// When the files hold no usable SVID, or the Workload API has none in time.
    pub async fn start(self, tasks: &mut JoinSet<()>) -> Result<Identity, SourceError> {
        self.start_with_time(Arc::new(DefaultTimeProvider), tasks).await
    }

    /// The same with another clock, which handshakes then use too.
    ///
    /// # Errors
    ///
    /// As [`Source::start`].
    pub async fn start_with_time(
        self,
        time: Arc<dyn TimeProvider>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Identity, SourceError> {
        match self {
            Self::Files(files) => {
                let seen = files.prints();
                let (svid, bundle) = files.clone().read().await?;
                let identity = Identity::with_time(svid, bundle, time)?;
                tasks.spawn(keep(files, seen, identity.clone()));
                Ok(identity)
            }
            Self::WorkloadApi(api) => {
                let mut follower = Follower::new(&api, time)?;
                let first = timeout(api.first_wait, follower.first()).await;
                let Ok(identity) = first else {
                    let reason = follower.news.told.unwrap_or_else(|| "nothing was sent".to_owned());
                    return Err(SourceError::Late { waited_ms: api.first_wait.as_millis(), reason });
                };
                tasks.spawn(follower.run());
                Ok(identity)
            }
        }
    }
}

/// How far an SVID's life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Fresh,
    Half,
    ThreeQuarters,
    Expired,
}

impl Age {
    fn of(svid: &Svid, now_s: u64) -> Self {
        let late_s = late_s(svid);
        match now_s {
            _ if now_s > svid.not_after_s() => Self::Expired,
            _ if now_s >= late_s => Self::ThreeQuarters,
            _ if now_s >= svid.half_life_s() => Self::Half,
            _ => Self::Fresh,
        }
    }
}

fn late_s(svid: &Svid) -> u64 {
    svid.half_life_s() + (svid.not_after_s() - svid.half_life_s()) / 2
}

/// What has been said about the SVID, so that nothing is said twice.
struct News {
    age: Age,
    told: Option<String>,
}

impl News {
    fn new() -> Self {
        Self { age: Age::Fresh, told: None }
    }

    fn refused(&mut self, reason: &SourceError) {
        let reason = reason.to_string();
        if self.told.as_ref() != Some(&reason) {
            tracing::warn!(reason, "no new SVID is taken; the one held stays until its notAfter");
            self.told = Some(reason);
        }
    }

    fn taken(&mut self, identity: &Identity, is_new: bool) {
        self.told = None;
        if is_new {
            let current = identity.current();
            let (svid, roots) = (current.svid(), current.bundle().roots().len());
            tracing::info!(id = %svid.id(), not_after_s = svid.not_after_s(), roots, "the own SVID is replaced");
        }
    }

    /// Says when the SVID has grown old. Returns whether it has since the last look, so that the source is asked again.
    fn look(&mut self, identity: &Identity) -> bool {
        let current = identity.current();
        let (svid, Ok(now_s)) = (current.svid(), identity.now_s()) else { return false };
        let (before, age) = (self.age, Age::of(svid, now_s));
        self.age = age;
        let (id, not_after_s) = (svid.id(), svid.not_after_s());
        if age > before && age == Age::ThreeQuarters {
            tracing::warn!(%id, not_after_s, "three quarters of the own SVID's life are over, and there is no new one");
        } else if age > before && age == Age::Expired {
            tracing::error!(%id, not_after_s, "the own SVID has expired, and there is no new one: no handshake succeeds");
        }
        age > before
    }
}

/// What tells a replaced file from the one before.
type Print = (u64, u64, u64, i64, i64);

fn print(path: &Path) -> Option<Print> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

impl Files {
    fn prints(&self) -> [Option<Print>; 3] {
        [print(&self.svid), self.key.as_deref().and_then(print), print(&self.bundle)]
    }

    async fn read(self) -> Result<(Svid, Bundle), SourceError> {
        let read = move || {
            // In this order: a new root is in the bundle before it has signed anything.
            let svid = Svid::from_pem_files(&self.svid, self.key.as_deref())?;
            let bundle = Bundle::from_pem_file(svid.id().domain().clone(), &self.bundle)?;
            Ok((svid, bundle))
        };
        spawn_blocking(read).await.unwrap_or(Err(SourceError::Closing))
    }
}

async fn keep(files: Files, mut seen: [Option<Print>; 3], identity: Identity) {
    let mut news = News::new();
    loop {
        sleep(files.poll).await;
        let has_aged = news.look(&identity);
        // Taken before the files are read: a file replaced in between is read once more.
        let prints = files.prints();
        if prints == seen && !has_aged && news.told.is_none() {
            continue;
        }
        seen = prints;
        let read = files.clone().read().await;
        match read.and_then(|(svid, bundle)| Ok(identity.replace(svid, bundle)?)) {
            Ok(is_new) => news.taken(&identity, is_new),
            Err(reason) => news.refused(&reason),
        }
    }
}

type Contexts = Pin<Box<dyn Stream<Item = Result<X509Context, WorkloadApiError>> + Send>>;

/// Follows the stream of the Workload API, and opens it again whenever it ends.
struct Follower {
    endpoint: Endpoint,
    wanted: Option<String>,
    time: Arc<dyn TimeProvider>,
    identity: Option<Identity>,
    stream: Option<Contexts>,
    pause: Duration,
    news: News,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Follower {
    fn new(api: &WorkloadApi, time: Arc<dyn TimeProvider>) -> Result<Self, SourceError> {
        let socket = api.socket.clone().or_else(|| std::env::var(SOCKET_VARIABLE).ok());
        let endpoint = endpoint(&socket.ok_or(SourceError::NoSocket)?)?;
        let wanted = api.id.as_ref().map(ToString::to_string);
        Ok(Self { endpoint, wanted, time, identity: None, stream: None, pause: PAUSE_MIN, news: News::new() })
    }

    async fn first(&mut self) -> Identity {
        loop {
            self.step().await;
            if let Some(identity) = &self.identity {
                return identity.clone();
            }
        }
    }

    async fn run(mut self) {
        loop {
            self.step().await;
        }
    }

    /// Opens the stream, or waits for what it brings next.
    async fn step(&mut self) {
        if self.identity.as_ref().is_some_and(|identity| self.news.look(identity)) {
            // It should have sent a new one by now; perhaps nobody is at the other end.
            self.stream = None;
        }
        let next_look = self.next_look();
        let Some(stream) = &mut self.stream else {
            match connect(self.endpoint.clone()).await {
                Ok(stream) => self.stream = Some(stream),
                Err(reason) => {
                    self.news.refused(&reason);
                    self.rest().await;
                }
            }
            return;
        };
        tokio::select! {
            item = stream.next() => match item {
                Some(Ok(context)) => self.take(&context),
                Some(Err(error)) => self.news.refused(&error.into()),
                None => {
                    self.stream = None;
                    self.rest().await;
                }
            },
            () = sleep(next_look) => {}
        }
    }

    async fn rest(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn take(&mut self, context: &X509Context) {
        match self.judge(context) {
            Ok(is_new) => {
                self.pause = PAUSE_MIN;
                if let Some(identity) = &self.identity {
                    self.news.taken(identity, is_new);
                }
            }
            Err(reason) => self.news.refused(&reason),
        }
    }

    fn judge(&mut self, context: &X509Context) -> Result<bool, SourceError> {
        let (svid, bundle) = pick(context, self.wanted.as_deref())?;
        if let Some(identity) = &self.identity {
            return Ok(identity.replace(svid, bundle)?);
        }
        let identity = Identity::with_time(svid, bundle, Arc::clone(&self.time))?;
        self.wanted = Some(identity.id().to_string());
        self.identity = Some(identity);
        Ok(true)
    }

    /// Until the SVID's age may have changed.
    fn next_look(&self) -> Duration {
        let until = self.identity.as_ref().and_then(|identity| {
            let (current, now_s) = (identity.current(), identity.now_s().ok()?);
            let svid = current.svid();
            let ages = [svid.half_life_s(), late_s(svid), svid.not_after_s() + 1];
            ages.into_iter().find(|&at_s| at_s > now_s).map(|at_s| at_s - now_s)
        });
        Duration::from_secs(until.unwrap_or(AGE_LOOK_MAX_S).clamp(1, AGE_LOOK_MAX_S))
    }
}

async fn connect(endpoint: Endpoint) -> Result<Contexts, SourceError> {
    let opened = async {
        let client = WorkloadApiClient::connect(endpoint).await?;
        let stream: Contexts = Box::pin(client.stream_x509_contexts().await?);
        Ok(stream)
    };
    timeout(CONNECT_TIME, opened).await.unwrap_or(Err(SourceError::Silent { limit_ms: CONNECT_TIME.as_millis() }))
}

/// A unix socket, whose other end knows by the kernel who asks.
fn endpoint(socket: &str) -> Result<Endpoint, SourceError> {
    let refused = |reason: String| SourceError::Socket { found: socket.chars().take(200).collect(), reason };
    if socket.starts_with('/') {
        return Ok(Endpoint::Unix(socket.into()));
    }
    match Endpoint::parse(socket) {
        Ok(found @ Endpoint::Unix(_)) => Ok(found),
        Ok(_) => Err(refused("only unix: is spoken here".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// The SVID that is wanted, otherwise the first (Workload API, section 5.3), and the bundle of its domain.
fn pick(context: &X509Context, wanted: Option<&str>) -> Result<(Svid, Bundle), SourceError> {
    let found = match wanted {
        Some(wanted) => context.svids().iter().find(|svid| svid.spiffe_id().to_string() == wanted),
        None => context.svids().get(DEFAULT_SVID),
    };
    let none =
        || SourceError::NoneWanted { wanted: wanted.unwrap_or("anybody").to_owned(), found: context.svids().len() };
    let found = found.ok_or_else(none)?;
    let der = |certificate: &spiffe::Certificate| CertificateDer::from(certificate.as_bytes().to_vec());
    let chain = found.cert_chain().iter().map(der).collect();
    let svid = Svid::from_der(chain, Zeroizing::new(found.private_key().as_bytes().to_vec()))?;
    let roots = context.bundle_set().get(found.spiffe_id().trust_domain());
    let roots = roots.map(|bundle| bundle.authorities().iter().map(der).collect()).unwrap_or_default();
    let bundle = Bundle::from_der(svid.id().domain().clone(), roots)?;
    Ok((svid, bundle))
}
