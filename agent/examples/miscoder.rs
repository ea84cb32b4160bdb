//! An agent that lies about its coding, for `tests/mesh/miscoded.py`: `miscoder CONFIG BOUNDARY`.
//!
//! It packs the records of a boundary's chain into one batch whose other shards are not those that belong to its data, though all roots are right, and
//! spreads it. When enough pinners keep it, it says `kept <da_root>` and waits for a line on standard input; then it asks all validators to commit to the
//! batch, and says what each of them answers.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpi_agent::config::Config;
use bpi_agent::judge::Trusted;
use bpi_agent::outbox::{self, Effect, Entry, Input, Opened, Outbox};
use bpi_agent::run::read_trust;
use bpi_agent::spool::Chain;
use bpi_availability::batch::{self, Packed};
use bpi_availability::codec::Encoded;
use bpi_availability::sealing::ReaderId;
use bpi_keyfile::PeerKey;
use bpi_protocol::availability::attestation::Batch;
use bpi_protocol::availability::tree::{ShardRoot, da_root};
use bpi_protocol::log::leaf::Leaf;
use bpi_protocol::mesh::{pinner, validator};
use bpi_transport::config::relays;
use bpi_transport::mesh::{Event, Mesh, Setup};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

const PATIENCE: Duration = Duration::from_secs(60);

struct Miscoder {
    outbox: Outbox<Trusted>,
    mesh: Mesh,
    events: Receiver<Event>,
    pinners: Vec<[u8; 32]>,
    encoded: Encoded,
    began: Instant,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [config, boundary] = &words[..] else { return Err("usage: miscoder CONFIG BOUNDARY".into()) };
    let config = Config::load(Path::new(config))?;
    let (opened, encoded) = miscoded(&config, boundary)?;
    let mut tasks = JoinSet::new();
    let members = outbox::Mesh { chain: config.chain(), validators: config.validators(), pinners: config.pinners() };
    let validators = members.validators.clone();
    let allowed: BTreeSet<_> = members.validators.iter().chain(&members.pinners).copied().collect();
    let (mesh, events) = Mesh::start(setup(&config, &allowed, &mut tasks).await?, &mut tasks);
    allowed.iter().for_each(|member| mesh.open(*member));
    let pinners = members.pinners.clone();
    let outbox = Outbox::new(members, Trusted::new(config.chain(), Arc::new(read_trust(&config.trust_file)?)));
    let mut miscoder = Miscoder { outbox, mesh, events, pinners, encoded, began: Instant::now() };
    let request = miscoder.spread(opened).await?;
    println!("kept {}", hex::encode(miscoder.encoded.da_root));
    // Blocks: nobody else has anything to do here.
    std::io::stdin().read_line(&mut String::new())?;
    miscoder.attest(&request, &validators).await
}

/// The batch of a chain with all of its parity bent.
fn miscoded(config: &Config, boundary: &str) -> Result<(Opened, Encoded), Box<dyn Error>> {
    let tenant = config.tenant_of(boundary).ok_or("no tenant has the boundary")?;
    let (chain, mut envelopes) = (Chain::new(&config.spool_dir, boundary), Vec::new());
    while let Some(found) = chain.record(envelopes.len() as u64, None)? {
        envelopes.push(found.envelope);
    }
    let readers: Vec<ReaderId> = tenant.readers.iter().map(|reader| ReaderId(*reader)).collect();
    let packed: Packed = batch::pack(tenant.id, &envelopes, &readers, &mut UnwrapErr(SysRng))?;
    let (honest, mut encoded) = packed.encode(config.coding.k, config.coding.n)?;
    if encoded.coding.stripes() != 1 {
        return Err("the batch is too large for one piece a shard".into());
    }
    let k = usize::from(encoded.coding.k());
    for (shard, root) in encoded.shards.iter_mut().zip(&mut encoded.roots).skip(k) {
        shard[0] ^= 1;
        let mut bent = ShardRoot::new();
        shard.chunks(encoded.coding.chunk_bytes(0) as usize).for_each(|chunk| bent.chunk(chunk));
        *root = bent.root();
    }
    encoded.da_root = da_root(&encoded.coding, &encoded.roots);
    let closing = envelopes.iter().filter(|envelope| batch::kind(envelope).is_ok_and(|kind| kind.closes()));
    let leaves = closing.map(|envelope| Leaf::of(tenant.id, envelope));
    let entries = leaves.map(|leaf| Entry { hash: leaf.hash, leaf: leaf.leaf_hash() }).collect();
    let opened = Opened {
        batch: Batch { da_root: encoded.da_root, ..honest },
        roots: encoded.roots.clone(),
        entries,
        acknowledgements: Vec::new(),
        included: BTreeSet::new(),
        attested: false,
    };
    Ok((opened, encoded))
}

async fn setup(
    config: &Config,
    allowed: &BTreeSet<[u8; 32]>,
    tasks: &mut JoinSet<()>,
) -> Result<Setup, Box<dyn Error>> {
    Ok(Setup {
        identity: Some(config.identity.start(tasks).await?),
        signer: Arc::new(PeerKey::load(&config.peer_key_file)?),
        network: config.chain().network(),
        relays: relays(&config.relay)?,
        relays_per_frame: config.relays_per_frame,
        wanted_s: 10,
        sessions_max: 64,
        allowed: Some(allowed.clone()),
        subscribe: true,
    })
}

impl Miscoder {
    /// Spreads the batch until enough pinners have signed for it; the request that validators are owed then.
    async fn spread(&mut self, opened: Opened) -> Result<validator::Request, Box<dyn Error>> {
        let mut effects = self.step(Input::Opened(Box::new(opened)));
        while self.began.elapsed() < PATIENCE {
            for effect in effects {
                match effect {
                    Effect::AskValidator(_, request @ validator::Request::Attest(_)) => return Ok(request),
                    Effect::AskPinner(to, request) => self.send(to, request.to_bytes()),
                    Effect::SendPieces(to, da_root, shards) => {
                        for shard in shards.iter() {
                            let bytes = self.encoded.shards.get(usize::from(shard)).cloned().unwrap_or_default();
                            let piece = pinner::Piece { da_root, shard, stripe: 0, bytes };
                            self.send(to, pinner::Request::Piece(piece).to_bytes());
                        }
                    }
                    _ => {}
                }
            }
            effects = match tokio::time::timeout(Duration::from_millis(50), self.events.recv()).await {
                Ok(Some(Event::Message { from, message })) if self.pinners.contains(&from) => {
                    self.step(Input::Pinner(from, pinner::Answer::from_bytes(&message)?))
                }
                Ok(None) => return Err("the mesh is gone".into()),
                _ => self.step(Input::Time),
            };
        }
        Err("not enough pinners keep the batch".into())
    }

    /// Asks all validators to commit to it, and says what they answer.
    async fn attest(&mut self, request: &validator::Request, validators: &[[u8; 32]]) -> Result<(), Box<dyn Error>> {
        let mut wanted: BTreeSet<_> = validators.iter().copied().collect();
        let asked = Instant::now();
        wanted.iter().for_each(|validator| self.send(*validator, request.to_bytes()));
        while !wanted.is_empty() && asked.elapsed() < PATIENCE {
            let Ok(event) = tokio::time::timeout(Duration::from_secs(1), self.events.recv()).await else { continue };
            let Some(Event::Message { from, message }) = event else { continue };
            if let Ok(validator::Answer::Attest { da_root, reason }) = validator::Answer::from_bytes(&message)
                && da_root == self.encoded.da_root
                && wanted.remove(&from)
            {
                println!("{} {reason:?}", hex::encode(&from[..6]));
            }
        }
        if wanted.is_empty() { Ok(()) } else { Err(format!("{} validators did not answer", wanted.len()).into()) }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.outbox.step(self.began.elapsed().as_millis() as u64 + 1, input)
    }

    fn send(&self, to: [u8; 32], bytes: Vec<u8>) {
        self.mesh.send(to, Arc::new(Zeroizing::new(bytes)));
    }
}
