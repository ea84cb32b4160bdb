//! `silent-relay`: a relay that drops frames and says nothing of it.
//!
//! To its clients it looks like any other: it has an SVID, takes QUIC connections, checks greetings, gives out prekeys. It hands frames on until a line
//! `silent` comes, if it was started with `--carry`; a line `carry` makes it do so again. At the end of its input it says how many frames it has
//! carried and dropped. Only for tests: it has no bounds on clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use bpi_identity::tls::shown_by;
use bpi_identity::{ClientAuth, Identity, Role, quic_server};
use bpi_protocol::frame::{Header, KeyId};
use bpi_protocol::hop::{ALPN, Code, EXPORTER_LABEL, Hop, relay_id};
use bpi_transport::config::IdentityConfig;
use bpi_transport::link::{Hear, Link, Pace};
use bpi_transport::settings::transport;
use bpi_transport::way::read_message;
use bytes::Bytes;
use clap::Parser;
use quinn::{Endpoint, Incoming, ServerConfig};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::task::JoinSet;

#[derive(Parser)]
#[command(about = "A relay that drops frames in silence.")]
struct Arguments {
    /// Where it listens to QUIC.
    #[arg(long)]
    listen: SocketAddr,
    /// Its SVID with key, in PEM.
    #[arg(long)]
    svid: PathBuf,
    /// The authorities, in PEM.
    #[arg(long)]
    bundle: PathBuf,
    /// Hand frames on until it is told to be silent.
    #[arg(long)]
    carry: bool,
}

#[derive(Default)]
struct Clients {
    prekeys: BTreeMap<KeyId, Vec<u8>>,
    links: BTreeMap<KeyId, Arc<Link>>,
}

struct Relay {
    identity: Identity,
    carries: AtomicBool,
    carried: AtomicU64,
    dropped: AtomicU64,
    clients: Mutex<Clients>,
}

impl Relay {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, incoming: Incoming) -> anyhow::Result<()> {
        let connection = incoming.await?;
        let leaf = self.identity.peer_of(&shown_by(&connection))?;
        let (mut say, mut listen) = connection.accept_bi().await?;
        let mut exported = [0; 32];
        if connection.export_keying_material(&mut exported, EXPORTER_LABEL, &[]).is_err() {
            bail!("nothing is exported");
        }
        let Hop::Hello(hello) = read_message(&mut listen).await.map_err(anyhow::Error::msg)? else {
            bail!("it does not begin with a greeting");
        };
        if !hello.holds(&exported) {
            bail!("its greeting is not signed for this session");
        }
        let link = Link::over_quic(connection, Some(leaf));
        say.write_all(&Hop::Welcome { relay: relay_id(&self.identity.id().to_string()) }.to_wire()).await?;
        let key = KeyId::of(&hello.identity);
        {
            let mut clients = self.clients();
            clients.prekeys.insert(key, hello.prekey);
            clients.links.insert(key, Arc::clone(&link));
        }
        let hear: Arc<dyn Hear> = Arc::new(Ears { relay: self, key });
        let ended = link.run_quic((say, listen), &hear).await;
        tracing::info!(%ended, "a client is gone");
        Ok(())
    }
}

struct Ears {
    relay: Arc<Relay>,
    key: KeyId,
}

impl Hear for Ears {
    fn frame(&self, _: &Arc<Link>, frame: Bytes) -> Pace {
        let to = Header::of_frame(&frame).map(|header| header.to);
        let Ok(to) = to else { return Pace::Close(Code::Malformed) };
        let link = self.relay.clients().links.get(&to).cloned();
        match link.filter(|_| self.relay.carries.load(Ordering::Relaxed)) {
            Some(link) => {
                self.relay.carried.fetch_add(1, Ordering::Relaxed);
                link.send(frame);
            }
            None => {
                self.relay.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Pace::Go
    }

    fn message(&self, link: &Arc<Link>, message: Hop) -> Pace {
        match message {
            Hop::Announce(prekey) => {
                self.relay.clients().prekeys.insert(self.key, prekey);
            }
            Hop::Lookup(key) => {
                let prekey = self.relay.clients().prekeys.get(&key).cloned().unwrap_or_default();
                link.say(&Hop::Found { key, prekey });
            }
            _ => {}
        }
        Pace::Go
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let config = IdentityConfig {
        svid_file: Some(arguments.svid),
        bundle_file: Some(arguments.bundle),
        ..IdentityConfig::default()
    };
    let mut tasks = JoinSet::new();
    let identity = config.start(&mut tasks).await?;
    let tls = quic_server(&identity, &[Role::Validator, Role::Agent, Role::Service], &[ALPN], ClientAuth::Required)?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(transport(false));
    let endpoint = Endpoint::server(server, arguments.listen).context("cannot listen")?;
    let relay = Arc::new(Relay {
        identity,
        carries: AtomicBool::new(arguments.carry),
        carried: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        clients: Mutex::default(),
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                let relay = Arc::clone(&relay);
                tasks.spawn(async move {
                    if let Err(error) = relay.serve(incoming).await {
                        tracing::info!(%error, "a client is not let in");
                    }
                });
            }
            line = lines.next_line() => match line? {
                Some(line) => relay.carries.store(line.trim() == "carry", Ordering::Relaxed),
                None => break,
            },
        }
    }
    let (carried, dropped) = (relay.carried.load(Ordering::Relaxed), relay.dropped.load(Ordering::Relaxed));
    println!("{}", serde_json::json!({"carried": carried, "dropped": dropped}));
    Ok(())
}
