//! PREPARE or COMMIT votes of a height, by round: one of each validator in each round, checked when a quorum has come.

use std::collections::BTreeMap;

use bpi_protocol::consensus::ids::{HeaderDigest, Round, ValidatorIndex};
use bpi_protocol::consensus::message::{Partials, Vote};
use bpi_protocol::consensus::scheme::{Scheme, Signature};
use bpi_protocol::consensus::seal::Votes;
use bpi_protocol::consensus::validators::Signers;

/// A vote as it is kept.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Ballot {
    pub digest: HeaderDigest,
    pub signature: Signature,
    pub partials: Option<Partials>,
    /// Its signature has been checked.
    pub verified: bool,
}

/// Votes of one kind.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Ballots(BTreeMap<Round, BTreeMap<ValidatorIndex, Ballot>>);

impl Ballots {
    pub fn get(&self, round: Round, sender: ValidatorIndex) -> Option<&Ballot> {
        self.0.get(&round)?.get(&sender)
    }

    pub fn put(&mut self, vote: &Vote, partials: Option<Partials>, verified: bool) {
        let ballot = Ballot { digest: vote.digest, signature: vote.signature, partials, verified };
        self.0.entry(vote.round).or_default().insert(vote.sender, ballot);
    }

    pub fn remove(&mut self, round: Round, sender: ValidatorIndex) {
        if let Some(ballots) = self.0.get_mut(&round) {
            ballots.remove(&sender);
        }
    }

    /// Forgets rounds before one.
    pub fn forget_before(&mut self, round: Round) {
        self.0 = self.0.split_off(&round);
    }

    /// What a quorum of a round has voted for, as far as is known without checking.
    pub fn leader(&self, round: Round, quorum: usize) -> Option<HeaderDigest> {
        let mut counts = BTreeMap::<HeaderDigest, usize>::new();
        for ballot in self.0.get(&round)?.values() {
            let count = counts.entry(ballot.digest).or_default();
            *count += 1;
            if *count >= quorum {
                return Some(ballot.digest);
            }
        }
        None
    }

    /// Rounds with votes.
    pub fn rounds(&self) -> Vec<Round> {
        self.0.keys().copied().collect()
    }

    /// The votes of a quorum for a header in a round, checked at once. Votes that are none are thrown out and told in `bad`; then there may be
    /// too few.
    pub fn certify<S: Scheme>(
        &mut self,
        round: Round,
        digest: HeaderDigest,
        statement: &[u8],
        quorum: usize,
        scheme: &S,
        bad: &mut Vec<ValidatorIndex>,
    ) -> Option<Votes> {
        let ballots = self.0.get_mut(&round)?;
        loop {
            let chosen: Vec<_> = ballots
                .iter()
                .filter(|(_, ballot)| ballot.digest == digest)
                .map(|(sender, ballot)| (*sender, ballot.signature, ballot.verified))
                .collect();
            if chosen.len() < quorum {
                return None;
            }
            let signers: Signers = chosen.iter().map(|(sender, ..)| *sender).collect();
            let signatures: Vec<_> = chosen.iter().map(|(_, signature, _)| *signature).collect();
            let sum = scheme.aggregate(&signatures);
            if let Some(signature) = sum.filter(|sum| scheme.verify_aggregate(signers, statement, sum)) {
                for (sender, ..) in &chosen {
                    if let Some(ballot) = ballots.get_mut(sender) {
                        ballot.verified = true;
                    }
                }
                return Some(Votes { round, signers, signature });
            }
            let doubtful: Vec<_> = chosen
                .iter()
                .filter(|(.., verified)| !verified)
                .map(|(sender, signature, _)| (*sender, *signature))
                .collect();
            let found = invalid(&doubtful, statement, scheme);
            if found.is_empty() {
                // Each holds alone and the sum does not: no such scheme.
                return None;
            }
            for sender in &found {
                ballots.remove(sender);
            }
            bad.extend(found);
        }
    }

    /// The shares that came with the votes for a header.
    pub fn partials(&self, round: Round, digest: HeaderDigest) -> Vec<(ValidatorIndex, Partials)> {
        let ballots = self.0.get(&round).into_iter().flatten();
        ballots
            .filter(|(_, ballot)| ballot.digest == digest)
            .filter_map(|(sender, ballot)| ballot.partials.map(|partials| (*sender, partials)))
            .collect()
    }
}

/// Whose signatures do not hold, found by halves: the check of n signatures with b bad ones takes about b log n of one.
fn invalid<S: Scheme>(votes: &[(ValidatorIndex, Signature)], statement: &[u8], scheme: &S) -> Vec<ValidatorIndex> {
    match votes {
        [] => return Vec::new(),
        [(sender, signature)] => {
            let holds = scheme.verify(*sender, statement, signature);
            return if holds { Vec::new() } else { vec![*sender] };
        }
        _ => {}
    }
    let signers: Signers = votes.iter().map(|(sender, _)| *sender).collect();
    let signatures: Vec<_> = votes.iter().map(|(_, signature)| *signature).collect();
    if scheme.aggregate(&signatures).is_some_and(|sum| scheme.verify_aggregate(signers, statement, &sum)) {
        return Vec::new();
    }
    let (left, right) = votes.split_at(votes.len() / 2);
    [invalid(left, statement, scheme), invalid(right, statement, scheme)].concat()
}
