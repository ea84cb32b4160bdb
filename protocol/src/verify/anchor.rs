//! Whether the receipt is in the log of a final header. The path says where it is, the seal that a quorum of a trusted set says so.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::Falsehood;
use super::report::Finding;
use crate::availability::attestation::{Attestation, AttestationError};
use crate::consensus::bls::{Keys, Proved};
use crate::consensus::bytes::Writer;
use crate::consensus::header::Header;
use crate::consensus::ids::{ChainId, HeaderDigest};
use crate::consensus::light::check_final;
use crate::consensus::seal::Seal;
use crate::consensus::validators::ValidatorSet;
use crate::evidence::Evidence;
use crate::finality::Finality;
use crate::log::Hash;
use crate::trust::Trust;

const NO_PROOF: &str = "not anchored: no finality.bin is part of this evidence";
const NO_CHAIN: &str =
    "the trust file names no chain, and validators inside the evidence are never trusted for being there";
const NO_GROUP: &str = "the seal is by threshold, and the trust file names no groupKey of its chain";

/// Seals that are remembered, at most.
const FOUND_MAX: usize = 4096;

/// What was found of sets and seals: looking into a set's keys and checking a seal take milliseconds, and many receipts share both.
#[derive(Debug, Default)]
pub(super) struct Seals {
    /// Of members of sets that the trust file knows, so they are as many at most.
    proved: Proved,
    /// By chain, header, set and seal.
    found: BTreeMap<Vec<u8>, Finding>,
    /// What pinners have signed for a batch and was found good: a batch has many receipts, too.
    attested: BTreeSet<(ChainId, HeaderDigest, Hash)>,
}

/// A header of a chain, and by whom it is said to be final.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed<'a> {
    pub(super) chain: ChainId,
    pub(super) header: &'a Header,
    pub(super) seal: &'a Seal,
    pub(super) set: &'a ValidatorSet,
}

/// What is found about inclusion and about finality.
pub(super) fn findings(evidence: &Evidence, trust: &Trust, seals: &mut Seals) -> (Finding, Finding) {
    let Some(proof) = &evidence.finality else {
        return (Finding::Unknown(NO_PROOF.to_owned()), Finding::Unknown(NO_PROOF.to_owned()));
    };
    let Finality { chain, header, seal, set, .. } = proof;
    let finality = seals.final_header(Sealed { chain: *chain, header, seal, set }, trust);
    (inclusion(proof, evidence, &finality), finality)
}

/// A path leads to the log of whatever header it was made for, so it proves something of a final one only.
fn inclusion(proof: &Finality, evidence: &Evidence, finality: &Finding) -> Finding {
    let (leaf, leaves, height) = (proof.inclusion.index, proof.inclusion.size, proof.header.height);
    if let Err(source) = proof.check_inclusion(&evidence.receipt) {
        return Finding::False(Falsehood::NotInLog { height: height.0, source });
    }
    match finality {
        Finding::True(_) => Finding::True(format!("leaf {leaf} of {leaves} in the log, for tenant {}", proof.tenant)),
        _ => Finding::Unknown(format!("leaf {leaf} of {leaves} in the log of a header that is not shown to be final")),
    }
}

impl Seals {
    /// Checks that pinners who count have signed for a batch when a header was made.
    pub(super) fn check_attestation(
        &mut self,
        chain: ChainId,
        header: &Header,
        attestation: &Attestation,
        counts: impl Fn(&[u8; 32]) -> bool,
    ) -> Result<(), AttestationError> {
        let key = (chain, header.digest(), attestation.leaf_hash());
        if self.attested.contains(&key) {
            return Ok(());
        }
        attestation.check(chain, header.time.0 / 1000, counts)?;
        if self.attested.len() >= FOUND_MAX {
            self.attested.clear();
        }
        self.attested.insert(key);
        Ok(())
    }

    /// Whether a header is final, by whom the trust file names.
    pub(super) fn final_header(&mut self, sealed: Sealed<'_>, trust: &Trust) -> Finding {
        let Sealed { chain, header, seal, set } = sealed;
        let mut key = Writer::new();
        key.bytes(&chain.0).bytes(&header.digest().0).bytes(&set.digest().0);
        seal.write(&mut key);
        let key = key.done();
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let found = self.look_into(sealed, trust);
        if self.found.len() >= FOUND_MAX {
            self.found.clear();
        }
        self.found.insert(key, found.clone());
        found
    }

    fn look_into(&mut self, sealed: Sealed<'_>, trust: &Trust) -> Finding {
        let Sealed { chain, header, seal, set } = sealed;
        if !trust.has_chains() {
            return Finding::Unknown(NO_CHAIN.to_owned());
        }
        let Some(trusted) = trust.chain(&chain) else { return Finding::False(Falsehood::UnknownChain { chain }) };
        let (keys, by) = match seal {
            Seal::Votes(votes) => {
                // Before its keys are looked into: who is not trusted makes nobody check 128 proofs of possession.
                let digest = set.digest();
                if !trusted.sets.contains(&digest) {
                    return Finding::Unknown(format!(
                        "it is sealed by validator set {digest}, which the trust file does not know"
                    ));
                }
                match Keys::of_signers(set, votes.signers, &mut self.proved) {
                    Ok(keys) => (Cow::Owned(keys), format!("{} of {} validators", votes.signers.len(), set.len())),
                    Err(error) => return Finding::False(Falsehood::SetKeys(error)),
                }
            }
            Seal::Threshold { .. } => match &trusted.group {
                Some(keys) => (Cow::Borrowed(keys), format!("the key that its {} validators share", set.len())),
                None => return Finding::Unknown(NO_GROUP.to_owned()),
            },
        };
        match check_final(chain, header, seal, set, &*keys) {
            Ok(()) => Finding::True(format!("final at height {} of chain {chain} by {by}", header.height)),
            Err(source) => Finding::False(Falsehood::NotFinal { height: header.height.0, source }),
        }
    }
}
