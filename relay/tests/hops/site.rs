//! An authority, relays that run as programs, and clients of them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bpi_identity::devnet::{Folder, Order};
use bpi_identity::source::Files;
use bpi_identity::{Identity, Role, Source, SpiffeId};
use bpi_protocol::frame::key::Signer;
use bpi_transport::detour::Via;
use bpi_transport::mesh::{Event, Mesh, Relay, Setup};
use bpi_transport::spread::Place;
use bpi_transport::way::Address;
use ed25519_dalek::Signer as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

pub const DOMAIN: &str = "hops.test";
pub const NETWORK: u64 = 5;
/// What anything takes on a slow day.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Key(pub ed25519_dalek::SigningKey);

impl Signer for Key {
    fn identity(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

pub fn key(seed: u8) -> Arc<Key> {
    Arc::new(Key(ed25519_dalek::SigningKey::from_bytes(&[seed; 32])))
}

pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A relay as a program. It is killed when it goes out of use.
pub struct Program {
    pub id: SpiffeId,
    pub port: u16,
    pub log: PathBuf,
    pub process: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended, as the test wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Site {
    pub folder: tempfile::TempDir,
}

fn free_port() -> u16 {
    // Free for both, as a relay wants it.
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self { folder };
        site.authority().init(&DOMAIN.parse().unwrap(), unix_s(), 86_400).unwrap();
        site
    }

    fn authority(&self) -> Folder {
        Folder::at(self.folder.path().join("ca"))
    }

    pub fn issue(&self, role: Role, name: &str, life_s: u64) -> PathBuf {
        let id = SpiffeId::new(DOMAIN.parse().unwrap(), role, name).unwrap();
        let path = self.folder.path().join(format!("{name}.pem"));
        self.authority().issue(&id, &Order::of_life(unix_s(), life_s), unix_s(), Some(&path)).unwrap();
        path
    }

    pub async fn identity(&self, svid: &Path, tasks: &mut JoinSet<()>) -> Identity {
        let bundle = self.authority().bundle_path();
        let files = Files { svid: svid.into(), key: None, bundle, poll: Duration::from_millis(200) };
        Source::Files(files).start(tasks).await.unwrap()
    }

    pub async fn relay(&self, name: &str) -> Program {
        let (port, status) = (free_port(), free_port());
        self.issue(Role::Relay, name, 3_600);
        let config = self.folder.path().join(format!("{name}.toml"));
        let text = format!(
            "drain_s = 5\nlog_level = \"debug\"\n[listen]\nudp = \"127.0.0.1:{port}\"\ntcp = \"127.0.0.1:{port}\"\n\
             status = \"127.0.0.1:{status}\"\n[identity]\nsvid_file = \"{name}.pem\"\nbundle_file = \"ca/bundle.pem\"\n\
             [[masque.allowed]]\nnet = \"127.0.0.0/8\"\nports = \"1024-65535\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = self.folder.path().join(format!("{name}.log"));
        let process = Command::new(env!("CARGO_BIN_EXE_bpi-relay"))
            .args([Path::new("--config"), &config, Path::new("run")])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let program =
            Program { id: SpiffeId::new(DOMAIN.parse().unwrap(), Role::Relay, name).unwrap(), port, log, process };
        eventually("a relay listens", || program.logged("this relay takes connections")).await;
        program
    }
}

impl Program {
    pub fn logged(&self, what: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(what))
    }

    pub fn address(&self) -> Address {
        let host = format!("127.0.0.1:{}", self.port);
        Address { relay: self.id.clone(), udp: host.clone(), tcp: host, via: None }
    }

    pub fn via(&self) -> Via {
        let Address { relay, udp, tcp, .. } = self.address();
        Via { relay, udp, tcp }
    }
}

/// A client with its mesh and what it is told.
pub struct Client {
    pub mesh: Mesh,
    pub events: mpsc::Receiver<Event>,
    pub key: Arc<Key>,
    _tasks: JoinSet<()>,
}

impl Client {
    pub async fn start(site: &Site, svid: &Path, seed: u8, relays: Vec<Address>) -> Self {
        let mut tasks = JoinSet::new();
        let identity = site.identity(svid, &mut tasks).await;
        let key = key(seed);
        let setup = Setup {
            identity: Some(identity),
            signer: Arc::clone(&key) as _,
            network: NETWORK,
            relays: relays.into_iter().map(|address| Relay { address, place: Place::default() }).collect(),
            relays_per_frame: 3,
            wanted_s: 60,
            allowed: None,
            sessions_max: 8,
            subscribe: true,
        };
        let (mesh, events) = Mesh::start(setup, &mut tasks);
        Self { mesh, events, key, _tasks: tasks }
    }

    pub fn send(&self, to: &Self, number: u64) {
        let message = Zeroizing::new(number.to_be_bytes().to_vec());
        self.mesh.send(to.key.identity(), Arc::new(message));
    }

    /// Waits for so many messages, and gives their numbers.
    pub async fn take(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("a message comes in time").unwrap();
            if let Event::Message { message, .. } = event {
                numbers.push(u64::from_be_bytes(message[..8].try_into().unwrap()));
            }
        }
        numbers
    }
}

pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
