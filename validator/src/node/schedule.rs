//! Who decides a height, by the genesis, and what checks their votes: with the time it takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bpi_protocol::consensus::bls::Keys;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{SetDigest, ValidatorIndex};
use bpi_protocol::consensus::scheme::{PublicKey, Scheme, Signature};
use bpi_protocol::consensus::validators::Signers;

use super::genesis::{Genesis, Period};
use super::metrics::Metrics;
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

/// Sets by the genesis, proposers in turn by height.
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

    /// The set that a header has to announce: who votes on the height after it.
    pub fn announced(&self, header: &Header) -> SetDigest {
        self.genesis.period(header.height.next()).set.digest()
    }

    /// This node's place among those who vote on the height after a header.
    pub fn place(&self, parent: &Header) -> Option<ValidatorIndex> {
        self.key.as_ref().and_then(|key| self.period(parent).position(key))
    }

    /// This node's place among those who have voted on a header.
    pub fn place_at(&self, header: &Header) -> Option<ValidatorIndex> {
        self.key.as_ref().and_then(|key| self.genesis.period(header.height).position(key))
    }

    /// Who votes on the height after a header.
    pub fn period(&self, parent: &Header) -> &Period {
        self.genesis.period(parent.height.next())
    }
}

impl Schedule<Timed> for Plan {
    fn instance(&self, parent: &Header) -> Option<(Instance<Timed>, Option<ValidatorIndex>)> {
        let period = self.period(parent);
        if period.set.digest() != parent.next_validators {
            return None;
        }
        let validators = period.set.len() as u64;
        let turn = (parent.height.0 % validators) as u16;
        let order = (0..validators as u16).map(|at| ValidatorIndex((turn + at) % validators as u16)).collect();
        let scheme = Timed { keys: Arc::clone(&period.keys), metrics: Arc::clone(&self.metrics) };
        let me = self.place(parent);
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
