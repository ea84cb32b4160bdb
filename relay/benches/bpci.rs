//! BPCI beside raw QUIC, in turn, against a relay of its own: goodput, fan-out, added latency, handshakes, memory, sealing.
//!
//! `scripts/bpi bench bpci` runs it; names of parts (sealing, memory, goodput, latency, fan-out, handshakes) choose some. Figures of this machine, not promises of a test: it fails only when something does not work.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use bpi_identity::devnet::{Folder, Order};
use bpi_identity::{Identity, Role, SpiffeId, Svid, TrustDomain};
use bpi_protocol::frame::cipher::Phase;
use bpi_protocol::frame::header::{Header, Kind, SessionId};
use bpi_protocol::frame::key::{KeyId, PrekeyPair, Signer};
use bpi_protocol::hop::{Code, Hop};
use bpi_transport::link::{Hear, Link, Pace};
use bpi_transport::settings::transport;
use bpi_transport::way::{Address, Client, Way};
use bytes::Bytes;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use ed25519_dalek::Signer as _;
use getrandom::SysRng;
use rand_core::UnwrapErr;

type Failure = Box<dyn Error + Send + Sync>;

const DOMAIN: &str = "bench.test";
const NETWORK: u64 = 7;
/// Bytes of a frame that goes as one datagram.
const DATAGRAM_BYTES: usize = 1150;
/// Bytes of a payload that goes over a stream.
const STREAM_BYTES: usize = 16 * 1024;

struct Key(ed25519_dalek::SigningKey);

impl Signer for Key {
    fn identity(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// A folder, an authority, and a relay process.
struct Site {
    folder: tempfile::TempDir,
    port: u16,
    relay: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(error) = self.relay.kill().and_then(|()| self.relay.wait().map(|_| ())) {
            eprintln!("the relay could not be ended: {error}");
        }
    }
}

fn unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Two ports that nobody has, by UDP or by TCP.
fn free_ports() -> Result<(u16, u16), Failure> {
    loop {
        let (first, second) =
            (std::net::TcpListener::bind("127.0.0.1:0")?, std::net::TcpListener::bind("127.0.0.1:0")?);
        let (first, second) = (first.local_addr()?, second.local_addr()?);
        if std::net::UdpSocket::bind(first).is_ok() {
            return Ok((first.port(), second.port()));
        }
    }
}

impl Site {
    fn new() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let domain: TrustDomain = DOMAIN.parse()?;
        let authority = Folder::at(folder.path().join("ca"));
        authority.init(&domain, unix_s(), 2 * 86_400)?;
        let id = SpiffeId::new(domain, Role::Relay, "r")?;
        authority.issue(&id, &Order::of_life(unix_s(), 86_400), unix_s(), Some(&folder.path().join("relay.pem")))?;
        let (port, status) = free_ports()?;
        let config = folder.path().join("relay.toml");
        std::fs::write(
            &config,
            format!(
                "log_level = \"warn\"\ndrain_s = 0\n[listen]\nudp = \"127.0.0.1:{port}\"\ntcp = \"127.0.0.1:{port}\"\n\
                 status = \"127.0.0.1:{status}\"\n[identity]\nsvid_file = \"relay.pem\"\nbundle_file = \"ca/bundle.pem\"\n\
                 [budget]\nbytes_per_s = 12500000000\nframes_per_s = 100000000\n[limits]\nconnections_per_id = 4096\n\
                 connections_per_prefix = 4096\nconnections_per_asn = 4096\n"
            ),
        )?;
        let relay = Command::new(env!("CARGO_BIN_EXE_bpi-relay"))
            .args([Path::new("--config"), &config, Path::new("run")])
            .stdin(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(Self { folder, port, relay })
    }

    fn client(&self, name: &str, signer: Arc<Key>) -> Result<Arc<Client>, Failure> {
        let identity = self.identity(Role::Validator, name)?;
        let pair = PrekeyPair::generate(&signer, NETWORK, 1, unix_s(), &mut UnwrapErr(SysRng));
        let prekey = Arc::new(RwLock::new(pair.public.to_bytes()));
        Ok(Arc::new(Client { identity, signer, network: NETWORK, prekey }))
    }

    fn identity(&self, role: Role, name: &str) -> Result<Identity, Failure> {
        let authority = Folder::at(self.folder.path().join("ca"));
        let id = SpiffeId::new(DOMAIN.parse()?, role, name)?;
        let path: PathBuf = self.folder.path().join(format!("{name}.pem"));
        authority.issue(&id, &Order::of_life(unix_s(), 86_400), unix_s(), Some(&path))?;
        Ok(Identity::new(Svid::from_pem_files(&path, None)?, authority.bundle()?)?)
    }

    fn way(&self) -> Result<Arc<Way>, Failure> {
        let address = format!("127.0.0.1:{}", self.port);
        let relay = SpiffeId::new(DOMAIN.parse()?, Role::Relay, "r")?;
        Ok(Way::new(Address { relay, udp: address.clone(), tcp: address, via: None }))
    }

    /// Processor time of the relay so far, in s.
    fn processor_s(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.relay.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 =
            fields.get(11).ok_or("no utime")?.parse::<f64>()? + fields.get(12).ok_or("no stime")?.parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    fn memory_mib(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.relay.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().next().unwrap_or("0").parse::<f64>()? / 1024.0)
    }
}

/// Counts what comes, and answers it when it is an echo.
#[derive(Default)]
struct Counted {
    frames: AtomicU64,
    bytes: AtomicU64,
    last: tokio::sync::Notify,
}

impl Hear for Counted {
    fn frame(&self, _: &Arc<Link>, frame: Bytes) -> Pace {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.last.notify_one();
        Pace::Go
    }

    fn message(&self, _: &Arc<Link>, _: Hop) -> Pace {
        Pace::Go
    }
}

/// Sends every frame back, as the frame that was prepared for that.
struct Echo(AtomicU64, KeyId);

impl Hear for Echo {
    fn frame(&self, link: &Arc<Link>, _: Bytes) -> Pace {
        link.send(frame_for(self.1, self.0.fetch_add(1, Ordering::Relaxed), 200));
        Pace::Go
    }

    fn message(&self, _: &Arc<Link>, _: Hop) -> Pace {
        Pace::Go
    }
}

/// A frame that a relay takes: its header is sound, what it holds is nothing.
fn frame_for(to: KeyId, seq: u64, bytes: usize) -> Bytes {
    let header = Header {
        kind: Kind::Data,
        reverse: false,
        serial: 0,
        network: NETWORK,
        to,
        session: SessionId([1; 16]),
        phase: 1,
        seq,
        expiry_s: (unix_s() + 60) as u32,
        fragment: 0,
        fragments: 1,
        payload_bytes: (bytes - 80) as u32,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.resize(bytes, seq as u8);
    frame.into()
}

async fn connect(site: &Site, client: &Arc<Client>, hear: Arc<dyn Hear>) -> Result<Arc<Link>, Failure> {
    let (link, control) = site.way()?.dial_quic(client).await?;
    let running = Arc::clone(&link);
    tokio::spawn(async move {
        running.run_quic(control, &hear).await;
    });
    Ok(link)
}

fn key(seed: u8) -> Arc<Key> {
    Arc::new(Key(ed25519_dalek::SigningKey::from_bytes(&[seed; 32])))
}

fn say(what: &str, found: String, goal: &str) {
    println!("{what:<58} {found:>26}   {goal}");
}

/// ns of one call, the best of some rounds.
fn best_ns(times: usize, mut work: impl FnMut()) -> f64 {
    let round = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        (0..times).for_each(|_| work());
        began.elapsed().as_nanos() as f64 / times as f64
    };
    (0..9).map(|_| round(&mut work)).fold(f64::MAX, f64::min)
}

fn sealing() {
    let material = [7; 64];
    let phase = Phase::new(&material);
    let whole = chacha20poly1305::XChaCha20Poly1305::new(&[7; 32].into());
    for bytes in [64, 256, 1200, 8192, 65_000] {
        let times = (4_000_000 / bytes).clamp(50, 20_000);
        let mut frame = vec![1; 64 + bytes];
        let mut seq = 0;
        let seal = best_ns(times, || {
            seq += 1;
            frame.truncate(64 + bytes);
            phase.seal(seq, &mut frame, 64);
        });
        let sealed = frame.clone();
        let mut copy = sealed.clone();
        let open = best_ns(times, || {
            copy.copy_from_slice(&sealed);
            assert!(phase.open(seq, &mut copy, 64).is_ok(), "what was sealed opens");
        });
        let mut text = vec![1; bytes];
        let crate_ns = best_ns(times, || {
            let tag = whole.encrypt_inout_detached(&[7; 24].into(), &[3; 64], text.as_mut_slice().into());
            assert!(tag.is_ok(), "it seals");
        });
        let found = format!("{seal:.0} / {open:.0} ns, {:.2} times", crate_ns / seal);
        say(
            &format!("seal / open {bytes} B, against the crate as a whole"),
            found,
            "4.2 times at 1 200 B measured before",
        );
    }
}

/// Bytes a second over one connection by a raw stream, and by sealed frames over a link, in turn.
async fn goodput(site: &Site, megabytes: usize) -> Result<(), Failure> {
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..5 {
        let raw = raw_stream(site, megabytes).await?;
        let sealed = sealed_frames(site, megabytes).await?;
        ratios.push(sealed / raw);
        rates.push((raw, sealed));
    }
    ratios.sort_by(f64::total_cmp);
    let (raw, sealed) =
        rates.iter().fold((0.0, 0.0), |most: (f64, f64), rate| (most.0.max(rate.0), most.1.max(rate.1)));
    say("raw QUIC stream, best of 5", format!("{:.2} Gbit/s", raw * 8e-9), "–");
    say("sealed frames over one hop, opened, best of 5", format!("{:.2} Gbit/s", sealed * 8e-9), "–");
    say("goodput of BPCI against raw QUIC, median of 5", format!("{:.2}", ratios[ratios.len() / 2]), "goal 0.95");
    Ok(())
}

/// A server and a client of quinn with the SVIDs and the settings of a hop.
async fn raw_pair(site: &Site) -> Result<(quinn::Connection, quinn::Connection, [quinn::Endpoint; 2]), Failure> {
    let server_tls = bpi_identity::quic_server(
        &site.identity(Role::Relay, "raw-server")?,
        &[Role::Validator],
        &[b"raw"],
        bpi_identity::ClientAuth::Required,
    )?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server_tls));
    server.transport_config(transport(false));
    let taking = quinn::Endpoint::server(server, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let tls = bpi_identity::quic_client(&site.identity(Role::Validator, "raw-client")?, &[Role::Relay], &[b"raw"])?;
    let mut client = quinn::ClientConfig::new(Arc::new(tls));
    client.transport_config(transport(true));
    let making = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let connecting = making.connect_with(client, taking.local_addr()?, "raw.invalid")?;
    let (made, taken) =
        tokio::join!(connecting, async { taking.accept().await.ok_or("closed")?.await.map_err(Failure::from) });
    Ok((made?, taken?, [taking, making]))
}

async fn raw_stream(site: &Site, megabytes: usize) -> Result<f64, Failure> {
    let (made, taken, _ends) = raw_pair(site).await?;
    let piece = Bytes::from(vec![1; STREAM_BYTES]);
    let pieces = megabytes * (1 << 20) / STREAM_BYTES;
    let began = Instant::now();
    let sending = async {
        let mut stream = made.open_uni().await?;
        for _ in 0..pieces {
            stream.write_chunk(piece.clone()).await?;
        }
        stream.finish()?;
        Ok::<_, Failure>(())
    };
    let taking = async {
        let mut stream = taken.accept_uni().await?;
        let mut bytes = 0;
        while let Some(chunk) = stream.read_chunk(1 << 20, true).await? {
            bytes += chunk.bytes.len();
        }
        Ok::<_, Failure>(bytes)
    };
    let (sent, bytes) = tokio::join!(sending, taking);
    sent?;
    Ok(bytes? as f64 / began.elapsed().as_secs_f64())
}

/// Opens every frame that comes.
struct Opening {
    phase: Phase,
    bytes: AtomicU64,
    last: tokio::sync::Notify,
}

impl Hear for Opening {
    fn frame(&self, _: &Arc<Link>, frame: Bytes) -> Pace {
        let mut frame = frame.to_vec();
        let seq = u64::from_be_bytes(frame[44..52].try_into().unwrap_or_default());
        if let Ok(plain) = self.phase.open(seq, &mut frame, 64) {
            self.bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
            self.last.notify_one();
        }
        Pace::Go
    }

    fn message(&self, _: &Arc<Link>, _: Hop) -> Pace {
        Pace::Go
    }
}

async fn sealed_frames(site: &Site, megabytes: usize) -> Result<f64, Failure> {
    let (made, taken, _ends) = raw_pair(site).await?;
    let pieces = megabytes * (1 << 20) / STREAM_BYTES;
    let opening =
        Arc::new(Opening { phase: Phase::new(&[5; 64]), bytes: AtomicU64::new(0), last: tokio::sync::Notify::new() });
    let sender = Link::over_quic(made.clone(), None);
    let receiver = Link::over_quic(taken.clone(), None);
    let control = made.open_bi().await?;
    sender.say(&Hop::Subscribe);
    let (hear, ears): (Arc<dyn Hear>, Arc<dyn Hear>) = (Arc::new(Counted::default()), Arc::clone(&opening) as _);
    let running = Arc::clone(&sender);
    tokio::spawn(async move { running.run_quic(control, &hear).await });
    let listening = Arc::clone(&receiver);
    let accepted = taken.accept_bi().await?;
    tokio::spawn(async move { listening.run_quic(accepted, &ears).await });
    let phase = Phase::new(&[5; 64]);
    let payload = vec![1; STREAM_BYTES];
    let header = frame_for(KeyId([0; 8]), 0, 80 + STREAM_BYTES);
    let want = (pieces * STREAM_BYTES) as u64;
    let began = Instant::now();
    let mut sent = 0;
    let mut seq = 0;
    while opening.bytes.load(Ordering::Relaxed) < want {
        // No more under way than the outbox holds, as a session's window does.
        while sent < want && sent - opening.bytes.load(Ordering::Relaxed) < (1 << 20) {
            seq += 1_u64;
            let mut frame = Vec::with_capacity(80 + STREAM_BYTES);
            frame.extend_from_slice(&header[..64]);
            frame[44..52].copy_from_slice(&seq.to_be_bytes());
            frame.extend_from_slice(&payload);
            phase.seal(seq, &mut frame, 64);
            sender.send(frame.into());
            sent += STREAM_BYTES as u64;
        }
        opening.last.notified().await;
    }
    let rate = want as f64 / began.elapsed().as_secs_f64();
    sender.close(Code::Done);
    receiver.close(Code::Done);
    Ok(rate)
}

/// Connects and registers `count` clients with one identity, so that the relay hands each frame to all of them.
async fn fan_out(site: &Site, copies: usize, frames: u64) -> Result<(), Failure> {
    let to = key(40 + copies as u8);
    let id = KeyId::of(&to.identity());
    let counted: Vec<Arc<Counted>> = (0..copies).map(|_| Arc::default()).collect();
    let mut links = Vec::new();
    for (number, counted) in counted.iter().enumerate() {
        let client = site.client(&format!("taker{copies}-{number}"), Arc::clone(&to))?;
        links.push(connect(site, &client, Arc::clone(counted) as _).await?);
    }
    let sender = connect(site, &site.client("giver", key(1))?, Arc::new(Counted::default())).await?;
    let (began, before) = (Instant::now(), site.processor_s()?);
    let mut seq = 0;
    while seq < frames {
        let heard = counted[0].frames.load(Ordering::Relaxed);
        // As many under way as a session of each of some senders has.
        if seq > heard + 2048 {
            if tokio::time::timeout(Duration::from_millis(20), counted[0].last.notified()).await.is_err()
                && seq > heard + 4096
            {
                break;
            }
            if began.elapsed() > Duration::from_secs(30) {
                break;
            }
            // Some are lost when buffers are full, and are not waited for.
            if counted[0].frames.load(Ordering::Relaxed) == heard {
                sender.send(frame_for(id, seq, DATAGRAM_BYTES));
                seq += 1;
            }
            continue;
        }
        for _ in 0..64 {
            sender.send(frame_for(id, seq, DATAGRAM_BYTES));
            seq += 1;
        }
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (took, used) = (began.elapsed().as_secs_f64() - 0.2, site.processor_s()? - before);
    let delivered: u64 = counted.iter().map(|counted| counted.frames.load(Ordering::Relaxed)).sum();
    let what = format!("relay, {DATAGRAM_BYTES} B to {copies}: copies a second of its processor");
    let goal = if copies == 3 { "goal 300 k" } else { "–" };
    say(&what, format!("{:.0} k ({:.0} k/s real)", delivered as f64 / used / 1e3, delivered as f64 / took / 1e3), goal);
    say(
        "  delivered of what was sent",
        format!("{:.2} %", 100.0 * delivered as f64 / (seq * copies as u64) as f64),
        "–",
    );
    links.iter().for_each(|link| link.close(Code::Done));
    sender.close(Code::Done);
    Ok(())
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted.get(((sorted.len() as f64 - 1.0) * share) as usize).copied().unwrap_or(f64::NAN)
}

/// Round trips by raw datagrams, and by frames through the relay, in turn.
async fn latency(site: &Site, rounds: usize) -> Result<(), Failure> {
    let (ping, pong) = (key(60), key(61));
    let (ping_id, pong_id) = (KeyId::of(&ping.identity()), KeyId::of(&pong.identity()));
    let counted: Arc<Counted> = Arc::default();
    let link = connect(site, &site.client("ping", ping)?, Arc::clone(&counted) as _).await?;
    let other = connect(site, &site.client("pong", pong)?, Arc::new(Echo(AtomicU64::new(0), ping_id))).await?;
    let (made, taken, _ends) = raw_pair(site).await?;
    let echo = taken.clone();
    tokio::spawn(async move {
        while let Ok(datagram) = echo.read_datagram().await {
            if echo.send_datagram(datagram).is_err() {
                return;
            }
        }
    });
    let (mut raw, mut relayed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let began = Instant::now();
        made.send_datagram(Bytes::from(vec![1; 200]))?;
        made.read_datagram().await?;
        raw.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        link.send(frame_for(pong_id, round as u64, 200));
        if tokio::time::timeout(Duration::from_secs(1), counted.last.notified()).await.is_ok() {
            relayed.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    raw.sort_by(f64::total_cmp);
    relayed.sort_by(f64::total_cmp);
    say(
        "round trip of a raw datagram, p50 / p99",
        format!("{:.0} / {:.0} µs", percentile(&raw, 0.5), percentile(&raw, 0.99)),
        "–",
    );
    let found = format!("{:.0} / {:.0} µs", percentile(&relayed, 0.5), percentile(&relayed, 0.99));
    say("round trip of a frame through the relay, p50 / p99", found, "–");
    // A frame goes two hops each way, a datagram one.
    let added = |share| percentile(&relayed, share) / 2.0 - percentile(&raw, share);
    say("a relay adds, one way, p50 / p99", format!("{:.0} / {:.0} µs", added(0.5), added(0.99)), "goal p99 50 µs");
    [link, other].iter().for_each(|link| link.close(Code::Done));
    Ok(())
}

async fn handshakes(site: &Site, count: usize) -> Result<(), Failure> {
    let client = site.client("shaker", key(70))?;
    let (began, before) = (Instant::now(), site.processor_s()?);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        while tasks.len() >= 32 {
            tasks.join_next().await.ok_or("nothing")???;
        }
        let (way, client) = (site.way()?, Arc::clone(&client));
        tasks.spawn(async move {
            let (link, _control) = way.dial_quic(&client).await?;
            link.quic().inspect(|quic| quic.close(quinn::VarInt::from_u32(0), b""));
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let (took, used) = (began.elapsed().as_secs_f64(), site.processor_s()? - before);
    let found = format!("{:.0} ({:.0}/s real)", count as f64 / used, count as f64 / took);
    say("mutual handshakes with greeting, a second of its processor", found, "goal 3 000");
    Ok(())
}

async fn memory(site: &Site, counts: &[usize]) -> Result<(), Failure> {
    let client = site.client("crowd", key(80))?;
    let mut links = Vec::new();
    say("relay memory with nobody, after all of the above", format!("{:.1} MiB", site.memory_mib()?), "–");
    for count in counts {
        while links.len() < *count {
            let ears: Arc<dyn Hear> = Arc::new(Counted::default());
            links.push(connect(site, &client, ears).await?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let goal = if *count == 1000 { "goal 60 MiB" } else { "goal 120 MiB" };
        say(&format!("relay memory with {count} connections"), format!("{:.1} MiB", site.memory_mib()?), goal);
    }
    links.iter().for_each(|link| link.close(Code::Done));
    Ok(())
}

/// Whether a part is wanted: all are, unless some are named.
fn is_wanted(part: &str) -> bool {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    named.is_empty() || named.iter().any(|name| name == part)
}

fn main() -> Result<(), Failure> {
    // `cargo test` builds and runs benches too: a look whether it still works is enough then.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let scale = |full: usize, short: usize| if quick { short } else { full };
    if is_wanted("sealing") {
        sealing();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if is_wanted("memory") {
        let site = Site::new()?;
        runtime.block_on(memory(&site, &[scale(1000, 50), scale(3000, 100)]))?;
    }
    let site = Site::new()?;
    runtime.block_on(async {
        if is_wanted("goodput") {
            goodput(&site, scale(256, 8)).await?;
        }
        if is_wanted("latency") {
            latency(&site, scale(5000, 100)).await?;
        }
        if is_wanted("fan-out") {
            fan_out(&site, 1, scale(400_000, 2_000) as u64).await?;
            fan_out(&site, 3, scale(400_000, 2_000) as u64).await?;
        }
        if is_wanted("handshakes") {
            handshakes(&site, scale(2000, 50)).await?;
        }
        Ok(())
    })
}
