//! The file that all nodes of a chain start from, alike: who votes from which height on, and what a header must keep.
//!
//! ```toml
//! version = 1
//! name = "devnet"
//! time_ms = 1764144000000
//!
//! [rules]                      # every field has a default
//! poh_ticks_per_second = 250000
//! kept_s_min = 86400           # counts when there are pinners
//!
//! [[validator]]
//! public_key = "<96 bytes in hex>"
//! possession = "<48 bytes in hex>"
//! peer_key = "<32 bytes in hex>"
//! weight = 1
//!
//! [[pinner]]                   # those whose acknowledgements count; without any, headers attest nothing
//! identity = "<32 bytes in hex>"
//! region = "eu-1"              # and operator, name: for people
//!
//! [[epoch]]                    # later sets, each whole
//! first_height = 100000        # not before; with ceremonies, when one has given it shares
//! [[epoch.validator]]
//! …
//! ```
//!
//! Always true of a [`Genesis`]: each set is sound and its keys are their owners', heights of epochs grow, and no two validators of a set are
//! one peer. The chain is named by the first header, which names the first set, all of `[rules]` and the pinners' identities; a later set is named by the header before
//! its first height, which a quorum of the set before has signed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use bpi_protocol::availability::attestation::PINNERS_MAX;
use bpi_protocol::consensus::bls::{KeyError, Keys, Proved};
use bpi_protocol::consensus::header::{Header, PohEnd};
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height, SetDigest, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light;
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use bpi_protocol::consensus::validators::{SetError, VALIDATORS_MAX, Validator, ValidatorSet};
use bpi_protocol::key;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::contents::application::Rules;
use crate::contents::attestations::PinnerRules;
use crate::contents::inbox::InboxRules;
use crate::contents::lists::ListRules;
use crate::contents::mempool::Bounds;
use crate::contents::poh::Rate;

/// Longest genesis in bytes: a thousand epochs of a few validators, or some of the greatest set.
const GENESIS_BYTES_MAX: u64 = 4 << 20;
const VERSION: u32 = 1;
/// A ceremony needs some heights for each of its parts ([`crate::beacon::plan::Calendar`]).
const CEREMONY_HEIGHTS_MIN: u64 = 8;
/// Longest name of a chain in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Why a file is no genesis.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// It cannot be read.
    #[error("could not read the genesis {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not TOML, or not these fields.
    #[error("the genesis {} is malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A set that cannot be.
    #[error("the validators from height {first_height} on in the genesis {} are no set: {source}", path.display())]
    Set {
        /// The file.
        path: PathBuf,
        /// Which set.
        first_height: u64,
        /// Why.
        source: SetError,
    },
    /// A key that is none, or is not its owner's.
    #[error("a validator from height {first_height} on in the genesis {} has no good key: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Which set.
        first_height: u64,
        /// Why.
        source: KeyError,
    },
}

/// A validator, as the file has it and `bpi-validator keygen` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its BLS key, 96 bytes in hex.
    pub public_key: String,
    /// The proof that its owner has the secret half, 48 bytes in hex.
    pub possession: String,
    /// The Ed25519 key of its connections, 32 bytes in hex.
    pub peer_key: String,
    /// Share of proposals.
    #[serde(default = "one")]
    pub weight: u16,
    /// Where it stands, for the figures of diversity: a region, a provider, as operators agree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
}

/// A pinner, as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinner {
    /// Its Ed25519 key, 32 bytes in hex.
    pub identity: String,
    /// Where its disks stand, as operators agree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

fn one() -> u16 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    name: String,
    time_ms: u64,
    #[serde(default)]
    rules: ChainRules,
    validator: Vec<Member>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pinner: Vec<Pinner>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    epoch: Vec<Later>,
}

/// What a header must keep, the same for all nodes of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainRules {
    /// Ticks a second of the chain of hashes.
    pub poh_ticks_per_second: u64,
    /// How long a leaf waits before a validator asks the others for it, in ms.
    pub list_wait_ms: u64,
    /// How long before a header's time it has to have been asked for, in ms.
    pub list_early_ms: u64,
    /// Blocks of the first layer that a proposer stays behind its own view.
    pub inbox_lag_blocks: u64,
    /// Age in blocks after which an entry of the inbox may not be left out.
    pub inbox_overdue_blocks: u64,
    /// Heights in which a ceremony of the validators' key is held, from its dealings to its first use. 0: there is no such key, proposers take
    /// turns, and an epoch begins at its first height whatever comes.
    pub ceremony_heights: u64,
    /// How long after a header's time the shards of batches that it attests have to be kept, in s. Without pinners it is no part of the chain's name.
    pub kept_s_min: u64,
}

impl Default for ChainRules {
    fn default() -> Self {
        let (rate, lists, inbox) = (Rate::default(), ListRules::default(), InboxRules::default());
        Self {
            poh_ticks_per_second: rate.ticks_per_second,
            list_wait_ms: lists.wait_ms,
            list_early_ms: lists.early_ms,
            inbox_lag_blocks: inbox.lag_blocks,
            inbox_overdue_blocks: inbox.overdue_blocks,
            ceremony_heights: 240,
            kept_s_min: 86_400,
        }
    }
}

impl ChainRules {
    /// What the chain of hashes starts from, so that the chain's name covers the rules and the pinners. A chain without pinners has the name that it had
    /// before there were any.
    fn digest(self, pinners: &BTreeSet<[u8; 32]>) -> [u8; 32] {
        let numbers = [
            self.poh_ticks_per_second,
            self.list_wait_ms,
            self.list_early_ms,
            self.inbox_lag_blocks,
            self.inbox_overdue_blocks,
            self.ceremony_heights,
        ];
        let hash = Sha256::new().chain_update("bpi.rules.v1").chain_update([0]);
        let hash = numbers.iter().fold(hash, |hash, number| hash.chain_update(number.to_be_bytes()));
        if pinners.is_empty() {
            return hash.finalize().into();
        }
        let hash = hash.chain_update("bpi.pinners.v1").chain_update([0]).chain_update(self.kept_s_min.to_be_bytes());
        pinners.iter().fold(hash, |hash, pinner| hash.chain_update(pinner)).finalize().into()
    }

    /// How fast the chain of hashes may go.
    pub fn rate(self) -> Rate {
        Rate { ticks_per_second: self.poh_ticks_per_second }
    }

    /// For what is made and checked; who counts as a pinner is not among them ([`Genesis::rules`]).
    fn rules(self, bounds: Bounds, threads: usize) -> Rules {
        Rules {
            rate: self.rate(),
            lists: ListRules { wait_ms: self.list_wait_ms, early_ms: self.list_early_ms },
            inbox: InboxRules { lag_blocks: self.inbox_lag_blocks, overdue_blocks: self.inbox_overdue_blocks },
            bounds,
            threads,
            ..Rules::default()
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    first_height: u64,
    validator: Vec<Member>,
}

/// A set, what checks its votes, and from which height on it votes.
#[derive(Clone, Debug)]
pub struct Period {
    /// It does not vote before this height; from it on, unless a ceremony has to come first.
    pub first: Height,
    /// Who votes.
    pub set: Arc<ValidatorSet>,
    /// Their keys, looked into.
    pub keys: Arc<Keys>,
    /// The peer key of each.
    pub peers: Vec<[u8; 32]>,
    /// Where each stands, by the file.
    pub regions: Vec<String>,
}

/// What a chain starts from.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// For people.
    pub name: String,
    /// The first header, which needs no seal.
    pub header: Header,
    /// Names the chain.
    pub chain: ChainId,
    /// What headers must keep.
    pub rules: ChainRules,
    /// By first height; never empty.
    pub periods: Vec<Period>,
    /// Whose acknowledgements count, in the order of the file.
    pub pinners: Vec<Pinner>,
    /// Their identities.
    pub pinner_keys: BTreeSet<[u8; 32]>,
}

impl Genesis {
    /// Reads a file.
    ///
    /// # Errors
    /// [`GenesisError`], which names it.
    pub fn load(path: &Path) -> Result<Self, GenesisError> {
        let failed = |source| GenesisError::Read { path: path.to_path_buf(), source };
        if fs::metadata(path).map_err(failed)?.len() > GENESIS_BYTES_MAX {
            let reason = format!("it is longer than {GENESIS_BYTES_MAX} bytes");
            return Err(GenesisError::Malformed { path: path.to_path_buf(), reason });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(failed)?)
    }

    /// Reads a file's text; `path` is for errors.
    ///
    /// # Errors
    /// [`GenesisError`] but for [`GenesisError::Read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, GenesisError> {
        let malformed = |reason: String| GenesisError::Malformed { path: path.to_path_buf(), reason };
        let file: File = toml::from_str(text).map_err(|error| malformed(error.to_string().trim_end().to_owned()))?;
        if file.version != VERSION {
            return Err(malformed(format!("version {} is unknown; this program reads {VERSION}", file.version)));
        }
        if file.name.is_empty() || file.name.len() > NAME_BYTES_MAX || !file.name.bytes().all(|c| c.is_ascii_graphic())
        {
            return Err(malformed(format!("name has to be 1 to {NAME_BYTES_MAX} visible ASCII characters")));
        }
        let first = Later { first_height: 0, validator: file.validator };
        let (mut periods, mut proved): (Vec<Period>, _) = (Vec::new(), Proved::default());
        for (epoch, later) in (0..).zip([first].into_iter().chain(file.epoch)) {
            if let Some(last) = periods.last()
                && later.first_height <= last.first.0
            {
                let (this, last) = (later.first_height, last.first.0);
                return Err(malformed(format!("an epoch of height {this} follows one of height {last}")));
            }
            periods.push(period(path, Epoch(epoch), later, &mut proved)?);
        }
        let Some(first) = periods.first() else { return Err(malformed("it has no validators".to_owned())) };
        if file.rules.inbox_overdue_blocks <= file.rules.inbox_lag_blocks {
            return Err(malformed("inbox_overdue_blocks has to be more than inbox_lag_blocks".to_owned()));
        }
        if (1..CEREMONY_HEIGHTS_MIN).contains(&file.rules.ceremony_heights) {
            return Err(malformed(format!("ceremony_heights has to be 0 or at least {CEREMONY_HEIGHTS_MIN}")));
        }
        let first = light::genesis(&first.set, TimeMs(file.time_ms));
        let pinner_keys = pinner_keys(&file.pinner, &periods).map_err(malformed)?;
        let header = Header { poh: PohEnd { count: 0, hash: file.rules.digest(&pinner_keys) }, ..first };
        let (chain, pinners) = (light::chain_of(&header), file.pinner);
        Ok(Self { name: file.name, header, chain, rules: file.rules, periods, pinners, pinner_keys })
    }

    /// For what is made and checked.
    pub fn rules(&self, bounds: Bounds, threads: usize) -> Rules {
        let (chain, kept_s_min, pinners) = (self.chain, self.rules.kept_s_min, self.pinner_keys.clone());
        Rules { pinners: PinnerRules { chain, kept_s_min, pinners }, ..self.rules.rules(bounds, threads) }
    }

    /// Writes a file's text.
    ///
    /// # Errors
    /// What cannot be told in TOML.
    pub fn text(
        name: &str,
        time_ms: u64,
        rules: ChainRules,
        validators: Vec<Member>,
        pinners: Vec<Pinner>,
    ) -> Result<String, toml::ser::Error> {
        let (name, epoch) = (name.to_owned(), Vec::new());
        let file = File { version: VERSION, name, time_ms, rules, validator: validators, pinner: pinners, epoch };
        toml::to_string(&file)
    }

    /// A set by its digest, as headers name it.
    pub fn period(&self, set: &SetDigest) -> Option<&Period> {
        self.periods.iter().find(|period| period.set.digest() == *set)
    }

    /// The set of the epoch after a set's, if the file has it.
    pub fn period_after(&self, set: &SetDigest) -> Option<&Period> {
        let at = self.periods.iter().position(|period| period.set.digest() == *set)?;
        self.periods.get(at + 1)
    }
}

/// The identities of pinners; what is wrong with one.
fn pinner_keys(pinners: &[Pinner], periods: &[Period]) -> Result<BTreeSet<[u8; 32]>, String> {
    if pinners.len() > PINNERS_MAX {
        return Err(format!("{} pinners; {PINNERS_MAX} are the most", pinners.len()));
    }
    let mut keys = BTreeSet::new();
    for (at, pinner) in pinners.iter().enumerate() {
        let mut key = [0; 32];
        let read = hex::decode_to_slice(&pinner.identity, &mut key);
        read.map_err(|_| format!("identity of pinner {at} is not 32 bytes in hex"))?;
        key::PublicKey::from_raw(&key).map_err(|error| format!("identity of pinner {at}: {error}"))?;
        if periods.iter().any(|period| period.peers.contains(&key)) {
            return Err(format!("pinner {at} has the peer_key of a validator"));
        }
        if !keys.insert(key) {
            return Err(format!("pinner {at} has the identity of another one"));
        }
    }
    Ok(keys)
}

impl Period {
    /// Where a key stands in the set.
    pub fn position(&self, key: &PublicKey) -> Option<ValidatorIndex> {
        self.set.position(key)
    }
}

fn period(path: &Path, epoch: Epoch, later: Later, proved: &mut Proved) -> Result<Period, GenesisError> {
    let Later { first_height, validator: members } = later;
    let malformed = |reason: String| GenesisError::Malformed { path: path.to_path_buf(), reason };
    if members.len() > VALIDATORS_MAX {
        let source = SetError::Large { count: members.len() };
        return Err(GenesisError::Set { path: path.to_path_buf(), first_height, source });
    }
    let (mut validators, mut peers, mut regions) = (Vec::new(), Vec::new(), Vec::new());
    for (index, member) in members.into_iter().enumerate() {
        let bytes = |name: &str, text: &str, out: &mut [u8]| {
            hex::decode_to_slice(text, out).map_err(|_| {
                malformed(format!(
                    "{name} of validator {index} from height {first_height} on is not {} bytes in hex",
                    out.len()
                ))
            })
        };
        let (mut key, mut possession, mut peer) = ([0; 96], [0; 48], [0; 32]);
        bytes("public_key", &member.public_key, &mut key)?;
        bytes("possession", &member.possession, &mut possession)?;
        bytes("peer_key", &member.peer_key, &mut peer)?;
        if let Some(other) = peers.iter().position(|other| *other == peer) {
            return Err(malformed(format!("validators {other} and {index} have the same peer_key")));
        }
        validators.push(Validator { key: PublicKey(key), possession: Signature(possession), weight: member.weight });
        peers.push(peer);
        regions.push(member.region);
    }
    let set = ValidatorSet::new(epoch, validators).map_err(|source| GenesisError::Set {
        path: path.to_path_buf(),
        first_height,
        source,
    })?;
    let keys = Keys::of_proved(&set, proved).map_err(|source| GenesisError::Key {
        path: path.to_path_buf(),
        first_height,
        source,
    })?;
    Ok(Period { first: Height(first_height), set: Arc::new(set), keys: Arc::new(keys), peers, regions })
}
