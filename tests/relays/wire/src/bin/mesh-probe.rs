//! `mesh-probe`: numbered messages from one identity to another over relays, and a line of JSON for all that happens to them.
//!
//! With `--peer` it sends at a steady rate until its input ends, waits until everything is acknowledged or lost, and says a summary; without, it takes
//! what comes until its input ends. Lines go to its output; give it a file, since a pipe that nobody reads would hold it up.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use bpi_protocol::frame::key::Signer as _;
use bpi_protocol::frame::{Refusal, Tag};
use bpi_transport::link::Carrier;
use bpi_transport::mesh::{Event, Mesh, Setup};
use bpi_wire::probe::{Config, message, now_us, read};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use zeroize::Zeroizing;

/// How often carriers and counts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often datagrams by relay are said.
const DATAGRAMS_EVERY: Duration = Duration::from_millis(500);

#[derive(Parser)]
#[command(about = "Sends numbered messages over relays, and says what becomes of them.")]
struct Arguments {
    /// Who it is, and its relays, in TOML.
    #[arg(long)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says this probe's identity in hexadecimal.
    Identity,
    /// Sends, or takes what comes.
    Run {
        /// To whom; nobody: it takes.
        #[arg(long)]
        peer: Option<String>,
        /// Messages a second.
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// Messages at most.
        #[arg(long, default_value_t = u64::MAX)]
        count: u64,
        /// Lengths that messages have in turn, in bytes.
        #[arg(long, value_delimiter = ',', default_value = "300")]
        sizes: Vec<usize>,
        /// How long it waits for what is not acknowledged, in s.
        #[arg(long, default_value_t = 20)]
        patience: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
    log.with_writer(std::io::stderr).with_ansi(false).init();
    let config = Config::load(&arguments.config)?;
    match arguments.command {
        Command::Identity => {
            println!("{}", hex::encode(config.key()?.identity()));
            Ok(())
        }
        Command::Run { peer, rate, count, sizes, patience } => {
            let peer = peer.map(|peer| {
                let mut identity = [0; 32];
                hex::decode_to_slice(&peer, &mut identity).context("--peer has to be 64 hexadecimal digits")?;
                anyhow::Ok(identity)
            });
            let sending = peer.transpose()?.map(|peer| Sending { peer, rate, count, sizes, patience });
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&config, sending))
        }
    }
}

struct Sending {
    peer: [u8; 32],
    rate: u32,
    count: u64,
    sizes: Vec<usize>,
    patience: u64,
}

#[derive(Default)]
struct Sent {
    tags: BTreeMap<Tag, u64>,
    sent: u64,
    acknowledged: u64,
    lost: u64,
}

#[derive(Default)]
struct Taken {
    received: u64,
    damaged: u64,
    bytes: u64,
}

struct Lines(BufWriter<std::io::Stdout>);

impl Lines {
    fn say(&mut self, line: &Value) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        Ok(self.0.write_all(b"\n")?)
    }
}

async fn run(config: &Config, sending: Option<Sending>) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let identity = config.identity.start(&mut tasks).await?;
    let setup = Setup {
        wanted_s: 60,
        identity: Some(identity),
        signer: Arc::new(config.key()?),
        network: config.network,
        relays: bpi_transport::config::relays(&config.relay)?,
        relays_per_frame: config.relays_per_frame,
        allowed: None,
        sessions_max: 16,
        subscribe: false,
    };
    let (mesh, mut events) = Mesh::start(setup, &mut tasks);
    let mut lines = Lines(BufWriter::new(std::io::stdout()));
    let mut look = Look::default();
    let (mut sent, mut taken) = (Sent::default(), Taken::default());
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    let mut ending: Option<Instant> = None;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let gap = Duration::from_secs(1) / sending.as_ref().map_or(1, |sending| sending.rate.max(1));
    let mut beats = interval(gap);
    // A message that is late because this process was is sent late, not left out.
    beats.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => told(event, &mut sent, &mut taken, &mut lines)?,
                None => break,
            },
            _ = looks.tick() => {
                look.at(&mesh, &mut lines)?;
                lines.0.flush()?;
                if let (Some(until), Some(_)) = (ending, &sending)
                    && (sent.tags.is_empty() || Instant::now() >= until)
                {
                    break;
                }
            }
            _ = beats.tick(), if sending.is_some() && ending.is_none() => {
                let Some(sending) = &sending else { continue };
                if sent.sent >= sending.count {
                    continue;
                }
                let bytes = sending.sizes[sent.sent as usize % sending.sizes.len()];
                let at_us = now_us();
                let tag = mesh.send(sending.peer, Arc::new(Zeroizing::new(message(sent.sent, at_us, bytes))));
                lines.say(&json!({"sent": sent.sent, "us": at_us, "bytes": bytes}))?;
                sent.tags.insert(tag, sent.sent);
                sent.sent += 1;
            }
            read = input.read(&mut ignored), if ending.is_none() => {
                if read.unwrap_or(0) == 0 {
                    ending = Some(Instant::now() + Duration::from_secs(sending.as_ref().map_or(0, |sending| sending.patience)));
                    if sending.is_none() {
                        break;
                    }
                }
            }
        }
    }
    let counts = mesh.counts();
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let refused: BTreeMap<&str, u64> = Refusal::ALL
        .iter()
        .map(|refusal| (refusal.name(), count(&counts.refused[*refusal as usize])))
        .filter(|(_, count)| *count > 0)
        .collect();
    lines.say(&json!({"summary": {
        "sent": sent.sent, "acknowledged": sent.acknowledged, "lost": sent.lost, "open": sent.tags.len(),
        "received": taken.received, "damaged": taken.damaged, "bytes": taken.bytes,
        "frames_sent": count(&counts.frames_sent), "frames_again": count(&counts.frames_again),
        "frames_heard": count(&counts.frames_heard), "frames_left": count(&counts.frames_left),
        "suspected": count(&counts.relays_suspected), "evicted": count(&counts.relays_evicted), "refused": refused,
        "round_trip_us": sending.as_ref().and_then(|sending| mesh.round_trip_us(&sending.peer)),
    }}))?;
    lines.0.flush()?;
    Ok(())
}

fn told(event: Event, sent: &mut Sent, taken: &mut Taken, lines: &mut Lines) -> anyhow::Result<()> {
    let us = now_us();
    match event {
        Event::Message { message, .. } => {
            taken.bytes += message.len() as u64;
            match read(&message) {
                Some((number, sent_us)) => {
                    taken.received += 1;
                    lines.say(&json!({"received": number, "us": us, "sent_us": sent_us, "bytes": message.len()}))
                }
                None => {
                    taken.damaged += 1;
                    lines.say(&json!({"damaged": message.len(), "us": us}))
                }
            }
        }
        Event::Acknowledged { tags, .. } => {
            let known: Vec<u64> = tags.iter().filter_map(|tag| sent.tags.remove(tag)).collect();
            sent.acknowledged += known.len() as u64;
            lines.say(&json!({"acknowledged": known, "us": us}))
        }
        Event::Lost { tags, .. } => {
            let why: Vec<String> = tags.iter().map(|(_, why)| format!("{why:?}")).collect();
            let known: Vec<u64> = tags.iter().filter_map(|(tag, _)| sent.tags.remove(tag)).collect();
            sent.lost += known.len() as u64;
            lines.say(&json!({"lost": known, "why": why, "us": us}))
        }
        Event::Opened { .. } => lines.say(&json!({"opened": true, "us": us})),
        Event::Met { new, .. } => lines.say(&json!({"met": true, "new": new, "us": us})),
        Event::Headline { .. } => Ok(()),
    }
}

/// What was there when it was looked at last.
#[derive(Default)]
struct Look {
    carriers: Vec<(Option<Carrier>, u64)>,
    found: (u64, u64),
    datagrams_at: Option<Instant>,
}

impl Look {
    fn at(&mut self, mesh: &Mesh, lines: &mut Lines) -> anyhow::Result<()> {
        let us = now_us();
        let ways = mesh.ways();
        self.carriers.resize(ways.len(), (None, 0));
        for (way, known) in ways.iter().zip(&mut self.carriers) {
            let link = way.link();
            let now = (link.as_ref().map(|link| link.carrier), link.as_ref().map_or(0, |link| link.number));
            if *known != now {
                *known = now;
                let carrier = match now.0 {
                    Some(Carrier::Quic) => "quic",
                    Some(Carrier::Tls) => "tls",
                    None => "none",
                };
                lines
                    .say(&json!({"carrier": carrier, "relay": way.address().relay.name(), "link": now.1, "us": us}))?;
            }
        }
        let counts = mesh.counts();
        let found = (counts.relays_suspected.load(Ordering::Relaxed), counts.relays_evicted.load(Ordering::Relaxed));
        if found != self.found {
            self.found = found;
            lines.say(&json!({"suspected": found.0, "evicted": found.1, "us": us}))?;
        }
        if self.datagrams_at.is_none_or(|at| at.elapsed() >= DATAGRAMS_EVERY) {
            self.datagrams_at = Some(Instant::now());
            let by_relay: BTreeMap<String, u64> = ways
                .iter()
                .filter_map(|way| {
                    let datagrams = way.link()?.quic()?.stats().frame_tx.datagram;
                    Some((way.address().relay.name().to_owned(), datagrams))
                })
                .collect();
            lines.say(&json!({"datagrams": by_relay, "us": us}))?;
        }
        Ok(())
    }
}
