//! Who decides a height, by the genesis and the last header, and what checks their votes: with the time it takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bpi_protocol::consensus::bls::Keys;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{SetDigest, ValidatorIndex};
use bpi_protocol::consensus::scheme::{PublicKey, Scheme, Signature};
use bpi_protocol::consensus::validators::Signers;

use super::genesis::{Genesis, Period};
use super::metrics::Metrics;
use crate::beacon::order::proposers;
use crate::core::Instance;
use crate::replica::Schedule;

/// The keys of a set, timed.
#[derive(Clone, Debug)]
pub struct Timed {
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
}

impl Scheme for Timed {
    fn verify(&self, signer: ValidatorIndex, message: &[u8], signature: &Signature) -> bool {
        Metrics::timed(&self.metrics.bls, || self.keys.verify(signer, message, signature))
    }

    fn verify_aggregate(&self, signers: Signers, message: &[u8], signature: &Signature) -> bool {
        Metrics::timed(&self.metrics.bls, || self.keys.verify_aggregate(signers, message, signature))
    }

    fn aggregate(&self, signatures: &[Signature]) -> Option<Signature> {
        self.keys.aggregate(signatures)
    }

    fn verify_group(&self, message: &[u8], signature: &Signature) -> bool {
        Metrics::timed(&self.metrics.bls, || self.keys.verify_group(message, signature))
    }
}

/// Sets by the genesis, proposers by the seed of the last header, or in turn while it has none.
#[derive(Clone, Debug)]
pub struct Plan {
    genesis: Arc<Genesis>,
    /// The key that votes here, if any.
    key: Option<PublicKey>,
    metrics: Arc<Metrics>,
}

impl Plan {
    /// Of a node that votes with `key`.
    pub fn new(genesis: Arc<Genesis>, key: Option<PublicKey>, metrics: Arc<Metrics>) -> Self {
        Self { genesis, key, metrics }
    }

    /// This node's place in a set.
    pub fn place(&self, set: &SetDigest) -> Option<ValidatorIndex> {
        self.key.as_ref().and_then(|key| self.genesis.period(set)?.position(key))
    }

    /// Who votes on the height after a header. `None`: the genesis here does not know them.
    pub fn period(&self, parent: &Header) -> Option<&Period> {
        self.genesis.period(&parent.next_validators)
    }
}

impl Schedule<Timed> for Plan {
    fn instance(&self, parent: &Header) -> Option<(Instance<Timed>, Option<ValidatorIndex>)> {
        let period = self.period(parent)?;
        let order = proposers(parent, &period.set);
        let scheme = Timed { keys: Arc::clone(&period.keys), metrics: Arc::clone(&self.metrics) };
        let me = self.place(&parent.next_validators);
        let set = Arc::clone(&period.set);
        Some((Instance { chain: self.genesis.chain, parent: *parent, set, scheme, order }, me))
    }
}

impl Period {
    /// Of the regions of the set, how many these validators stand in: from 0 to 1.
    pub fn diversity(&self, signers: Signers) -> f64 {
        let all: BTreeSet<_> = self.regions.iter().collect();
        let seen: BTreeSet<_> = signers.iter().filter_map(|signer| self.regions.get(signer.at())).collect();
        seen.len() as f64 / all.len().max(1) as f64
    }
}
