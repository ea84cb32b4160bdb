//! Which headers count: those that a quorum of a trusted validator set has sealed, as `docklock verify` judges them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bpi_protocol::consensus::bls::Keys;
use bpi_protocol::consensus::bytes::Writer;
use bpi_protocol::consensus::ids::{ChainId, SetDigest};
use bpi_protocol::consensus::light::check_final;
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::validator::Sealed;
use bpi_protocol::trust::Trust;
use sha2::{Digest as _, Sha256};

use crate::outbox::Judge;

/// Sealed headers that are remembered, at most: a minute of them.
const SEEN_MAX: usize = 256;
/// Sets whose keys are remembered, at most.
const SETS_MAX: usize = 16;

/// Judges by a trust file.
pub struct Trusted {
    chain: ChainId,
    trust: Arc<Trust>,
    keys: BTreeMap<SetDigest, Keys>,
    /// Digests of sealed headers, all of their bytes, that were judged to be final.
    seen: BTreeSet<Hash>,
}

impl std::fmt::Debug for Trusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trusted").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Trusted {
    /// Believes what the trust file says of a chain.
    pub fn new(chain: ChainId, trust: Arc<Trust>) -> Self {
        Self { chain, trust, keys: BTreeMap::new(), seen: BTreeSet::new() }
    }
}

impl Judge for Trusted {
    fn is_final(&mut self, sealed: &Sealed) -> Result<(), String> {
        let mut bytes = Writer::new();
        sealed.write(&mut bytes);
        let digest: Hash = Sha256::digest(bytes.done()).into();
        if self.seen.contains(&digest) {
            return Ok(());
        }
        let Sealed { header, seal, set } = sealed;
        let of_group;
        let keys = match seal {
            Seal::Votes(_) => {
                let name = set.digest();
                if !self.trust.knows_set(&self.chain, &name) {
                    return Err(format!("the trust file does not know validator set {name}"));
                }
                if !self.keys.contains_key(&name) {
                    if self.keys.len() >= SETS_MAX {
                        self.keys.clear();
                    }
                    self.keys.insert(name, Keys::new(set).map_err(|error| error.to_string())?);
                }
                self.keys.get(&name)
            }
            Seal::Threshold { .. } => {
                of_group = self.trust.group(&self.chain);
                of_group
            }
        };
        let keys = keys.ok_or_else(|| "the trust file has no group key for its seal".to_owned())?;
        check_final(self.chain, header, seal, set, keys).map_err(|error| error.to_string())?;
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(digest);
        Ok(())
    }
}
