//! From partial signatures to the group's: taken on trust, checked once, looked into one by one only when that fails.
//!
//! The first quorum makes a signature, and one check of it stands for all of them. If it does not hold, each part that was not checked
//! before is, and those that are wrong are named. They are not looked for by sums over halves, as votes are: two liars can make theirs
//! wrong in opposite ways, so that sums of both hold and what is recovered does not.
//!
//! A wrong part does not convict its validator: parts ride on votes and are not covered by a vote's signature. Whoever passed the vote on
//! may have bent it. So a right one is still taken afterwards, at the price of a check.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpi_protocol::consensus::ids::ValidatorIndex;
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::validators::Signers;

use super::sharing::Sharing;

/// A validator's part.
#[derive(Clone, Copy, Debug)]
struct Part {
    signature: Signature,
    verified: bool,
}

/// Partial signatures over one statement, one of each validator.
#[derive(Clone, Debug)]
pub struct Collector {
    sharing: Arc<Sharing>,
    statement: Vec<u8>,
    parts: BTreeMap<ValidatorIndex, Part>,
    wrong: Signers,
    whole: Option<Signature>,
}

impl Collector {
    /// For a statement.
    pub fn new(sharing: Arc<Sharing>, statement: Vec<u8>) -> Self {
        Self { sharing, statement, parts: BTreeMap::new(), wrong: Signers::default(), whole: None }
    }

    /// The group's signature, once it is there.
    pub fn whole(&self) -> Option<&Signature> {
        self.whole.as_ref()
    }

    /// Who has sent a part that is none.
    pub fn wrong(&self) -> Signers {
        self.wrong
    }

    /// How many parts there are that are not known to be wrong.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes the group's signature from somebody who has it already. False if it is none.
    pub fn take_whole(&mut self, signature: &Signature) -> bool {
        if self.whole.is_none() && self.sharing.group().verify(&self.statement, signature) {
            self.whole = Some(*signature);
        }
        self.whole.as_ref() == Some(signature)
    }

    /// Takes a validator's part. The group's signature, if there is one now.
    pub fn add(&mut self, sender: ValidatorIndex, signature: Signature) -> Option<&Signature> {
        if self.whole.is_none() && self.sharing.key(sender).is_some() && self.put(sender, signature) {
            self.whole = self.recover();
        }
        self.whole.as_ref()
    }

    /// True when there is a new part.
    fn put(&mut self, sender: ValidatorIndex, signature: Signature) -> bool {
        let first = self.parts.get(&sender).copied();
        if first.is_some_and(|first| first.verified || first.signature == signature) {
            return false;
        }
        // One was wrong already, or of two different ones at least one is.
        let doubtful = first.is_some() || self.wrong.contains(sender);
        if doubtful && !self.holds(sender, &signature) {
            return false;
        }
        self.parts.insert(sender, Part { signature, verified: doubtful });
        true
    }

    fn holds(&self, sender: ValidatorIndex, signature: &Signature) -> bool {
        self.sharing.key(sender).is_some_and(|key| key.verify(&self.statement, signature))
    }

    fn recover(&mut self) -> Option<Signature> {
        while self.parts.len() >= self.sharing.quorum() {
            let parts: Vec<_> = self.parts.iter().map(|(sender, part)| (*sender, part.signature)).collect();
            let whole = self.sharing.recover(&parts);
            if let Some(whole) = whole.filter(|whole| self.sharing.group().verify(&self.statement, whole)) {
                return Some(whole);
            }
            if self.throw_out() == 0 {
                // Each holds and their sum does not: no such sharing.
                return None;
            }
        }
        None
    }

    /// Checks each part that was not. How many were wrong.
    fn throw_out(&mut self) -> usize {
        let mut parts = std::mem::take(&mut self.parts);
        let before = parts.len();
        parts.retain(|sender, part| {
            part.verified = part.verified || self.holds(*sender, &part.signature);
            if !part.verified {
                self.wrong = self.wrong.with(*sender);
            }
            part.verified
        });
        let thrown = before - parts.len();
        self.parts = parts;
        thrown
    }
}
