//! A relay in this process, pinners as processes, and an agent's stand-in that speaks BPCI with them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bpi_identity::devnet::{Folder, Order};
use bpi_identity::{Identity, Role, SpiffeId, Svid};
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Request};
use bpi_transport::mesh::{Event, Mesh, Relay, Setup};
use bpi_transport::spread::Place;
use bpi_transport::way::Address;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::site::{CHAIN, Key, TENANT};

const DOMAIN: &str = "pinner.test";

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A port of loopback that nobody has, by UDP or by TCP.
fn free_port() -> u16 {
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

pub struct Site {
    pub folder: tempfile::TempDir,
    relay: u16,
}

impl Site {
    /// An authority and a relay, which goes with the process of the test.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Folder::at(folder.path().join("ca"));
        authority.init(&DOMAIN.parse().unwrap(), unix_s(), 2 * 86_400).unwrap();
        let site = Self { folder, relay: free_port() };
        site.issue(Role::Relay, "r", "relay.pem");
        let config = site.path("relay.toml");
        let (relay, status) = (site.relay, free_port());
        let text = format!(
            "log_level = \"warn\"\ndrain_s = 0\n[listen]\nudp = \"127.0.0.1:{relay}\"\ntcp = \"127.0.0.1:{relay}\"\nstatus = \"127.0.0.1:{status}\"\n\
             [identity]\nsvid_file = \"relay.pem\"\nbundle_file = \"ca/bundle.pem\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let config = bpi_relay::config::Config::load(&config).unwrap();
        std::thread::spawn(move || bpi_relay::serve::run(config).unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", relay)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the relay does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, role: Role, name: &str, to: &str) {
        let id = SpiffeId::new(DOMAIN.parse().unwrap(), role, name).unwrap();
        let order = Order::of_life(unix_s(), 86_400);
        Folder::at(self.path("ca")).issue(&id, &order, unix_s(), Some(&self.path(to))).unwrap();
    }

    /// Configures a pinner. Its key comes from `keygen`.
    pub fn pinner(&self, name: &str, agent: [u8; 32], more: &str) -> Program {
        let folder = self.path(name);
        std::fs::create_dir(&folder).unwrap();
        self.issue(Role::Pinner, name, &format!("{name}/svid.pem"));
        let (api, relay) = (free_port(), self.relay);
        let text = format!(
            "chain = \"{}\"\nkey_file = \"pinner.key\"\ndata_dir = \"data\"\napi = \"127.0.0.1:{api}\"\naccept_any = true\nlog_level = \"info\"\n{more}\n\
             [identity]\nsvid_file = \"svid.pem\"\nbundle_file = \"../ca/bundle.pem\"\n\
             [[relay]]\nid = \"spiffe://{DOMAIN}/relay/r\"\naddress = \"127.0.0.1:{relay}\"\n\
             [[agent]]\nkey = \"{}\"\ntenants = [\"{}\"]\n",
            CHAIN,
            hex::encode(agent),
            hex::encode(TENANT.0)
        );
        let config = folder.join("pinner.toml");
        std::fs::write(&config, text).unwrap();
        let mut program = Program { folder, config, api, identity: [0; 32], child: None };
        let member = program.say(&["keygen", "--region", "here"]);
        let member: BTreeMap<String, String> = toml::from_str(&member).unwrap();
        assert_eq!(member["region"], "here");
        hex::decode_to_slice(&member["identity"], &mut program.identity).unwrap();
        program
    }

    pub fn agent(&self, key: &Arc<Key>) -> Agent {
        self.issue(Role::Agent, "a", "agent.pem");
        let authority = Folder::at(self.path("ca"));
        let svid = Svid::from_pem_files(&self.path("agent.pem"), None).unwrap();
        let identity = Identity::new(svid, authority.bundle().unwrap()).unwrap();
        let address = format!("127.0.0.1:{}", self.relay);
        let relay = SpiffeId::new(DOMAIN.parse().unwrap(), Role::Relay, "r").unwrap();
        let address = Address { relay, udp: address.clone(), tcp: address, via: None };
        let place = Place { asn: None, region: None, operator: None };
        let setup = Setup {
            identity: Some(identity),
            signer: Arc::clone(key) as _,
            network: CHAIN.network(),
            relays: vec![Relay { address, place }],
            relays_per_frame: 1,
            wanted_s: 5,
            allowed: None,
            sessions_max: 16,
            subscribe: false,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut tasks = JoinSet::new();
        let (mesh, told) = runtime.block_on(async { Mesh::start(setup, &mut tasks) });
        Agent { runtime, _tasks: tasks, mesh, told }
    }
}

pub struct Program {
    pub folder: PathBuf,
    pub config: PathBuf,
    pub api: u16,
    pub identity: [u8; 32],
    pub child: Option<Child>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Program {
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bpi-pinner"));
        command.arg("--config").arg(&self.config).args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// What a subcommand prints that has to succeed.
    pub fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bpi-pinner"));
        command.arg("--config").arg(&self.config).arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Adds a member to the configuration.
    pub fn knows(&self, kind: &str, key: &[u8; 32]) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, format!("{text}\n[[{kind}]]\nkey = \"{}\"\n", hex::encode(key))).unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and how it ends.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A request over HTTP/1.0. `None`: nobody answers.
    pub fn http(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// Waits until what is asked says so.
    pub fn until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let (began, mut last) = (Instant::now(), None);
        while began.elapsed() < Duration::from_secs(90) {
            last = self.http("GET", path);
            if let Some(text) = last.as_ref().filter(|text| wanted(text)) {
                return text.clone();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{path} still says {last:?}; the log: {}", self.log());
    }
}

pub struct Agent {
    runtime: Runtime,
    _tasks: JoinSet<()>,
    mesh: Mesh,
    told: mpsc::Receiver<Event>,
}

impl Agent {
    pub fn ask(&self, to: [u8; 32], request: &Request) {
        self.mesh.send(to, Arc::new(Zeroizing::new(request.to_bytes())));
    }

    /// Bytes that wait for a pinner.
    pub fn waiting(&self, to: &[u8; 32]) -> usize {
        self.mesh.waiting_bytes(to)
    }

    /// The next answer, if there is one in time.
    pub fn answer(&mut self, wait: Duration) -> Option<([u8; 32], Answer)> {
        let told = &mut self.told;
        self.runtime.block_on(async {
            let answer = async {
                loop {
                    if let Event::Message { from, message } = told.recv().await? {
                        return Some((from, Answer::from_bytes(&message).unwrap()));
                    }
                }
            };
            tokio::time::timeout(wait, answer).await.ok().flatten()
        })
    }

    /// Asks again until there is an answer that is wanted.
    pub fn until<T>(&mut self, to: [u8; 32], request: &Request, wanted: impl Fn(&Answer) -> Option<T>) -> T {
        let (began, mut last) = (Instant::now(), None);
        while began.elapsed() < Duration::from_secs(90) {
            self.ask(to, request);
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(2) {
                match self.answer(Duration::from_millis(500)) {
                    Some((from, answer)) if from == to => {
                        if let Some(found) = wanted(&answer) {
                            return found;
                        }
                        last = Some(answer);
                    }
                    _ => {}
                }
            }
        }
        panic!("{request:?} is not answered as it should be: {last:?}");
    }
}

/// The file of a shard.
pub fn file_of(pinner: &Program, root: &Hash, shard: u8) -> PathBuf {
    let root = hex::encode(root);
    Path::new(&pinner.folder).join("data/shards").join(&root[..2]).join(format!("{root}.{shard}"))
}
