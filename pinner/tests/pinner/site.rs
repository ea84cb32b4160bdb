//! Pinners in one process, and batches to bring to them.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bpi_availability::codec::{Encoded, encode};
use bpi_pinner::answers::Reader;
use bpi_pinner::catalogue::Catalogue;
use bpi_pinner::disk::Disk;
use bpi_pinner::keeper::{Keeper, KeeperError, Policy, Staging, TenantPolicy, Tenants};
use bpi_pinner::repair::{Peers, Repairer};
use bpi_pinner::store::local::Local;
use bpi_pinner::store::{ShardKey, Shards, StoreError};
use bpi_protocol::availability::attestation::{Acknowledgement, Batch, ShardSet};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::placement::placement;
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::frame::key::Signer;
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::mesh::pinner::{Answer, Described, Piece, Request};

use crate::model::Model;

pub const CHAIN: ChainId = ChainId([9; 32]);
pub const AGENT: [u8; 32] = [0xa; 32];
pub const TENANT: TenantId = TenantId([7; 16]);
pub const NOW_S: u64 = 1_000_000;
pub const DAY_S: u64 = 86_400;

pub struct Key(ed25519_dalek::SigningKey);

impl Key {
    pub fn of(seed: u8) -> Arc<Self> {
        Arc::new(Self(ed25519_dalek::SigningKey::from_bytes(&[seed; 32])))
    }
}

impl Signer for Key {
    fn identity(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(&self.0, message).to_bytes()
    }
}

/// A batch of so many bytes, 4 of 12.
pub fn batch(seed: u8, length: usize) -> (Described, Encoded) {
    batch_of(seed, 4, 12, length)
}

pub fn batch_of(seed: u8, k: u16, n: u16, length: usize) -> (Described, Encoded) {
    let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251 + usize::from(seed) * 13) as u8).collect();
    let encoded = encode(Coding::new(k, n, length as u64).unwrap(), &data).unwrap();
    (described(&encoded), encoded)
}

/// All shards of it.
pub fn described(encoded: &Encoded) -> Described {
    let Encoded { coding, da_root, roots, .. } = encoded;
    let batch = Batch { tenant: TENANT, coding: *coding, da_root: *da_root, receipts: 3, receipts_root: [1; 32] };
    Described { batch, shards: (0..coding.n()).map(|shard| shard as u8).collect(), roots: roots.clone() }
}

/// The pieces of some shards.
pub fn pieces(encoded: &Encoded, shards: ShardSet) -> Vec<Piece> {
    let coding = encoded.coding;
    let of = |shard: u8, stripe: u32| {
        let begin = coding.chunk_begin(stripe) as usize;
        let bytes = encoded.shards[usize::from(shard)][begin..begin + coding.chunk_bytes(stripe) as usize].to_vec();
        Piece { da_root: encoded.da_root, shard, stripe, bytes }
    };
    shards
        .iter()
        .flat_map(|shard| (0..coding.stripes()).map(move |stripe| (shard, stripe)))
        .map(|(shard, stripe)| of(shard, stripe))
        .collect()
}

pub fn policy(pinners: &[[u8; 32]]) -> Policy {
    Policy {
        chain: CHAIN,
        agents: [(AGENT, Tenants::Some([TENANT.0].into()))].into(),
        pinners: pinners.to_vec(),
        accept_any: pinners.is_empty(),
        tenant: TenantPolicy { quota_bytes: 1 << 30, retention_days: 30, legal_hold: false },
        tenants: BTreeMap::new(),
        staging: Staging {
            bytes_max: 1 << 30,
            agent_bytes_max: 1 << 29,
            offers_max: 16,
            agent_offers_max: 8,
            wait_s: 60,
        },
        reserve_bytes: 1 << 20,
    }
}

pub struct Pinner {
    pub model: Model,
    pub key: Arc<Key>,
    pub keeper: Keeper,
    pub reader: Reader,
    pub catalogue: Arc<Catalogue>,
}

impl Pinner {
    pub fn open(model: &Model, policy: Policy, key: &Arc<Key>) -> Result<Self, KeeperError> {
        let disk: Arc<dyn Disk> = Arc::new(model.clone());
        let shards: Arc<dyn Shards> = Arc::new(Local::open(Arc::clone(&disk), Path::new("/data/shards"))?);
        let catalogue = Arc::new(Catalogue::open(Arc::new(model.clone()), &key.identity())?);
        let keeper = Keeper::open(
            policy,
            Arc::clone(key) as _,
            disk,
            Arc::clone(&shards),
            Arc::clone(&catalogue),
            "/data/staging".into(),
        )?;
        let reader = Reader::new(Arc::clone(&shards), Arc::clone(&catalogue));
        Ok(Self { model: model.clone(), key: Arc::clone(key), keeper, reader, catalogue })
    }

    pub fn new(seed: u8) -> Self {
        Self::open(&Model::default(), policy(&[]), &Key::of(seed)).unwrap()
    }

    /// Offers some shards and brings what is missing. What is acknowledged at the end.
    pub fn bring(&mut self, offer: &Described, encoded: &Encoded, now_s: u64) -> Result<ShardSet, KeeperError> {
        let missing = match self.keeper.offer(now_s, AGENT, offer.clone())? {
            Answer::Have { shards, .. } => bpi_pinner::catalogue::without(offer.shards, shards),
            Answer::Kept { acknowledgement, .. } => return Ok(self.checked(offer, &acknowledgement)),
            other => panic!("{other:?}"),
        };
        for piece in pieces(encoded, missing) {
            assert_eq!(self.keeper.piece(now_s, AGENT, &piece)?, None);
        }
        let mut kept = ShardSet::default();
        for (to, answer) in self.keeper.commit(now_s)? {
            let Answer::Kept { acknowledgement, .. } = answer else { panic!("{answer:?}") };
            assert_eq!(to, AGENT);
            kept = self.checked(offer, &acknowledgement);
        }
        Ok(kept)
    }

    fn checked(&self, offer: &Described, acknowledgement: &Acknowledgement) -> ShardSet {
        assert_eq!(acknowledgement.pinner, self.key.identity());
        assert!(acknowledgement.is_signed(CHAIN, &offer.batch));
        acknowledgement.shards
    }

    pub fn path_of(&self, key: &ShardKey) -> std::path::PathBuf {
        let root = hex::encode(key.da_root);
        format!("/data/shards/{}/{root}.{}", &root[..2], key.shard).into()
    }

    /// Looks at everything and remembers what is bad.
    pub fn scrub(&mut self, root: &Hash) -> ShardSet {
        let bad = self.reader.scrub(root, |_| {}).unwrap();
        self.keeper.scrubbed(NOW_S + 1, root, bad, true).unwrap();
        bad
    }
}

/// Bends an answer of a pinner.
pub type Bend = Box<dyn Fn(Answer) -> Option<Answer>>;

/// Other pinners, in one process: they answer at once, some of them not as they should.
#[derive(Default)]
pub struct Neighbours {
    pub readers: BTreeMap<[u8; 32], Reader>,
    pub bends: BTreeMap<[u8; 32], Bend>,
    pub answers: VecDeque<([u8; 32], Answer)>,
}

impl Peers for Neighbours {
    fn ask(&mut self, to: &[u8; 32], request: &Request) {
        let Some(reader) = self.readers.get(to) else { return };
        let read = match *request {
            Request::Describe { da_root } => reader.describe(&da_root),
            Request::Fetch { da_root, shard, stripe } => reader.fetch(&ShardKey { da_root, shard }, stripe),
            _ => panic!("{request:?}"),
        };
        let answer = read.unwrap().answer;
        let answer = match self.bends.get(to) {
            Some(bend) => bend(answer),
            None => Some(answer),
        };
        self.answers.extend(answer.map(|answer| (*to, answer)));
    }

    fn next(&mut self, _: Duration) -> Option<([u8; 32], Answer)> {
        self.answers.pop_front()
    }
}

pub fn repairer(pinner: &Pinner, neighbours: Neighbours) -> Repairer<Neighbours> {
    let known = neighbours.readers.keys().copied().collect();
    let repairer = Repairer {
        peers: neighbours,
        known,
        reader: pinner.reader.clone(),
        disk: Arc::new(pinner.model.clone()),
        folder: "/data/repairs".into(),
        wait: Duration::from_secs(1),
    };
    repairer.begin().unwrap();
    repairer
}

pub fn is_fatal(error: &KeeperError) -> bool {
    matches!(error, KeeperError::Store(StoreError::Disk { source }) if source.is_fatal())
}

/// The shards that placement gives one of some pinners.
pub fn shards_of(root: &Hash, n: u16, pinners: &[[u8; 32]], pinner: &[u8; 32]) -> ShardSet {
    placement(root, n, pinners).into_iter().find(|(each, _)| each == pinner).unwrap().1
}
