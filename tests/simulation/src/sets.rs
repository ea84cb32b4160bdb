//! The validator sets of a simulated chain: one key more than a set has members, and each epoch leaves out another one.

use std::sync::{Arc, OnceLock};

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height, SetDigest, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light;
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use bpi_validator::core::Instance;
use bpi_validator::replica::Schedule;

use crate::scheme::{ToyKey, ToyScheme};

/// Header time of a genesis, ms.
pub const GENESIS_MS: u64 = 1_000_000;

/// Epochs with a set of their own; the last set stays.
const EPOCHS: usize = 64;

/// A set, what checks it, and its name.
type Member = (Arc<ValidatorSet>, ToyScheme, SetDigest);

/// All sets, and the rule of which follows which. A set is made when it is first asked for.
#[derive(Clone)]
pub struct Sets {
    keys: Arc<Vec<ToyKey>>,
    sets: Arc<[OnceLock<Member>]>,
    epoch_heights: u64,
    /// The chain that they are for.
    pub chain: ChainId,
    /// Its first header.
    pub genesis: Header,
}

impl Sets {
    /// Sets of so many validators that change every `epoch_heights`.
    pub fn new(validators: usize, epoch_heights: u64) -> Self {
        let keys: Arc<Vec<ToyKey>> =
            Arc::new((1..=validators as u64 + 1).map(|n| ToyKey(n * 0x1234_5678_9abc_def1)).collect());
        let first = set_of(&keys, 0);
        let genesis = light::genesis(&first.0, TimeMs(GENESIS_MS));
        let sets: Arc<[OnceLock<Member>]> =
            std::iter::once(OnceLock::from(first)).chain((1..EPOCHS).map(|_| OnceLock::new())).collect();
        Self { keys, sets, epoch_heights, chain: light::chain_of(&genesis), genesis }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.keys.len()
    }

    /// The key of a node.
    pub fn key(&self, node: usize) -> ToyKey {
        self.keys[node]
    }

    /// The set that votes on a height, and what checks it.
    pub fn at(&self, height: Height) -> &Member {
        let epoch = (height.0.saturating_sub(1) / self.epoch_heights.max(1)) as usize;
        let epoch = epoch.min(EPOCHS - 1);
        self.sets[epoch].get_or_init(|| set_of(&self.keys, epoch))
    }

    /// Where a node stands in a set.
    pub fn place_of(&self, node: usize, set: &ValidatorSet) -> Option<ValidatorIndex> {
        set.position(&self.keys[node].public())
    }

    /// Which node a validator is.
    pub fn node_of(&self, height: Height, index: ValidatorIndex) -> Option<usize> {
        let key = self.at(height).0.get(index)?.key;
        self.keys.iter().position(|other| other.public() == key)
    }

    /// Who proposes in the rounds of a height.
    pub fn order(&self, height: Height) -> Vec<ValidatorIndex> {
        let set = &self.at(height).0;
        (0..set.len()).map(|round| ValidatorIndex(((height.0 as usize + round) % set.len()) as u16)).collect()
    }

    /// A new header over a parent, whose contents are `nonce`.
    pub fn header(
        &self,
        parent: &Header,
        round: bpi_protocol::consensus::ids::Round,
        proposer: ValidatorIndex,
        now_ms: u64,
        nonce: u64,
    ) -> Header {
        let height = parent.height.next();
        let (set, _, digest) = self.at(height);
        let mut da_root = [0; 32];
        da_root[..8].copy_from_slice(&nonce.to_be_bytes());
        Header {
            height,
            round,
            parent: parent.digest(),
            time: TimeMs(now_ms.max(parent.time.0 + 1)),
            da_root,
            epoch: set.epoch(),
            validators: *digest,
            next_validators: self.at(height.next()).2,
            proposer,
            ..Header::default()
        }
    }
}

/// The set of an epoch.
fn set_of(keys: &[ToyKey], epoch: usize) -> Member {
    let left_out = epoch % keys.len();
    let chosen: Vec<ToyKey> = keys.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, key)| *key).collect();
    let member = |key: &ToyKey| Validator { key: key.public(), possession: Signature([0; 48]), weight: 1 };
    match ValidatorSet::new(Epoch(epoch as u64), chosen.iter().map(member).collect()) {
        Ok(set) => {
            let digest = set.digest();
            (Arc::new(set), ToyScheme(Arc::new(chosen)), digest)
        }
        Err(error) => unreachable!("between one and 128 different keys are a set: {error}"),
    }
}

/// True for contents that no honest validator accepts: the mark, or a next set that is not the schedule's.
pub fn is_wrong(sets: &Sets, header: &Header) -> bool {
    header.da_root[0] == WRONG || header.next_validators != sets.at(header.height.next()).2
}

/// Marks contents that no honest validator accepts.
pub const WRONG: u8 = 0xbd;

/// The schedule of one node.
pub struct NodeSchedule {
    /// The sets.
    pub sets: Sets,
    /// Which node.
    pub node: usize,
}

impl Schedule<ToyScheme> for NodeSchedule {
    fn instance(&self, parent: &Header) -> Option<(Instance<ToyScheme>, Option<ValidatorIndex>)> {
        let height = parent.height.next();
        let (set, scheme, digest) = self.sets.at(height);
        if parent.next_validators != *digest {
            return None;
        }
        let me = self.sets.place_of(self.node, set);
        let instance = Instance {
            chain: self.sets.chain,
            parent: *parent,
            set: set.clone(),
            scheme: scheme.clone(),
            order: self.sets.order(height),
        };
        Some((instance, me))
    }
}
