//! The light client: from a header that is trusted to the next one, by headers and seals alone.

use thiserror::Error;

use super::bls::VerifyingKey;
use super::bytes::{BytesError, Reader, Writer};
use super::header::{HEADER_BYTES, Header, Seed};
use super::ids::{ChainId, Epoch, HeaderDigest, Round, SetDigest};
use super::scheme::{Scheme, Signature};
use super::seal::{Seal, SealError, check_threshold};
use super::statement::Place;
use super::validators::ValidatorSet;

/// Why a header does not follow its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// A height is left out or repeated.
    #[error("height {header} after {parent}")]
    Height {
        /// The header's.
        header: u64,
        /// Its parent's.
        parent: u64,
    },
    /// It names another parent.
    #[error("the parent is {parent}, and the header names {named}")]
    Parent {
        /// The trusted one.
        parent: HeaderDigest,
        /// The one named.
        named: HeaderDigest,
    },
    /// It is not later than its parent.
    #[error("made at {header} ms, its parent at {parent} ms")]
    Time {
        /// The header's.
        header: u64,
        /// The parent's.
        parent: u64,
    },
    /// It is voted on by others than its parent announced.
    #[error("the validators are not those that the parent announced")]
    Validators,
    /// The set in question is not the one that votes on it.
    #[error("the header is voted on by set {header}, not {set}")]
    Set {
        /// The header's.
        header: SetDigest,
        /// The one in question.
        set: SetDigest,
    },
    /// The epoch is not that of the set.
    #[error("epoch {header} of a set of epoch {set}")]
    Epoch {
        /// The header's.
        header: u64,
        /// The set's.
        set: u64,
    },
    /// The log, the inbox or the chain of hashes goes backwards.
    #[error("the {what} goes back from {from} to {to}")]
    Backwards {
        /// Which of them.
        what: &'static str,
        /// The parent's.
        from: u64,
        /// The header's.
        to: u64,
    },
    /// What has not grown has changed.
    #[error("the {what} is another one at the same {at}")]
    Rewritten {
        /// Which of them.
        what: &'static str,
        /// Its size or height.
        at: u64,
    },
    /// The proposer is no member of the set.
    #[error("proposer {proposer} of {validators} validators")]
    Proposer {
        /// Who.
        proposer: u16,
        /// Of how many.
        validators: usize,
    },
    /// It is not final.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What a header alone must keep towards its parent, whoever has signed it.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_continuity(parent: &Header, header: &Header, set: &ValidatorSet) -> Result<(), StepError> {
    if header.height != parent.height.next() {
        return Err(StepError::Height { header: header.height.0, parent: parent.height.0 });
    }
    if header.parent != parent.digest() {
        return Err(StepError::Parent { parent: parent.digest(), named: header.parent });
    }
    if header.time <= parent.time {
        return Err(StepError::Time { header: header.time.0, parent: parent.time.0 });
    }
    if header.validators != parent.next_validators {
        return Err(StepError::Validators);
    }
    check_set(header, set)?;
    let growing = [
        ("log of receipts", (parent.receipts.size, parent.receipts.root), (header.receipts.size, header.receipts.root)),
        ("inbox", (parent.inbox.height, parent.inbox.hash), (header.inbox.height, header.inbox.hash)),
        ("chain of hashes", (parent.poh.count, parent.poh.hash), (header.poh.count, header.poh.hash)),
    ];
    for (what, (from, before), (to, after)) in growing {
        if to < from {
            return Err(StepError::Backwards { what, from, to });
        }
        if to == from && after != before {
            return Err(StepError::Rewritten { what, at: to });
        }
    }
    Ok(())
}

/// What a header must keep towards the set that votes on it.
fn check_set(header: &Header, set: &ValidatorSet) -> Result<(), StepError> {
    if header.validators != set.digest() {
        return Err(StepError::Set { header: header.validators, set: set.digest() });
    }
    if header.epoch != set.epoch() {
        return Err(StepError::Epoch { header: header.epoch.0, set: set.epoch().0 });
    }
    if header.proposer.at() >= set.len() {
        return Err(StepError::Proposer { proposer: header.proposer.0, validators: set.len() });
    }
    Ok(())
}

/// Checks that a header is final by its seal and the set that votes on it, without its parent: for who trusts that set for other reasons.
///
/// # Errors
/// The first rule that the header or its seal breaks.
pub fn check_final(
    chain: ChainId,
    header: &Header,
    seal: &Seal,
    set: &ValidatorSet,
    scheme: &impl Scheme,
) -> Result<(), StepError> {
    check_set(header, set)?;
    Ok(seal.check(Place { chain, height: header.height }, header, set, scheme)?)
}

/// A trusted header, and the set that votes on the next one.
#[derive(Clone, Debug)]
pub struct LightClient<S> {
    chain: ChainId,
    trusted: Header,
    set: ValidatorSet,
    scheme: S,
}

impl<S: Scheme> LightClient<S> {
    /// Starts from a header that is trusted for other reasons, and the set that it announces.
    ///
    /// # Errors
    /// [`StepError::Validators`] for another set.
    pub fn new(chain: ChainId, trusted: Header, set: ValidatorSet, scheme: S) -> Result<Self, StepError> {
        if trusted.next_validators != set.digest() {
            return Err(StepError::Validators);
        }
        Ok(Self { chain, trusted, set, scheme })
    }

    /// The last header that is known to be final.
    pub fn trusted(&self) -> &Header {
        &self.trusted
    }

    /// Goes on by one header. `next` is the set that it announces with what checks its signatures, where that is another one.
    ///
    /// # Errors
    /// For the first rule that the header or its seal breaks; then nothing has changed.
    pub fn step(&mut self, header: Header, seal: &Seal, next: Option<(ValidatorSet, S)>) -> Result<(), StepError> {
        check_continuity(&self.trusted, &header, &self.set)?;
        check_final(self.chain, &header, seal, &self.set, &self.scheme)?;
        match next {
            None if header.next_validators == header.validators => {}
            Some((set, scheme)) if set.digest() == header.next_validators && set.epoch() == self.set.epoch().next() => {
                (self.set, self.scheme) = (set, scheme);
            }
            _ => return Err(StepError::Validators),
        }
        self.trusted = header;
        Ok(())
    }
}

/// A header and the signature of its validators' group: what a relay or another chain needs who knows that group's key, at any height, with
/// no header and no set in between. It says that a quorum of whoever then held the key has sealed it, not who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LightProof {
    /// The header.
    pub header: Header,
    /// The round of the COMMIT votes.
    pub round: Round,
    /// By the group's key, over the COMMIT statement.
    pub signature: Signature,
}

impl LightProof {
    /// Bytes of a proof, always.
    pub const BYTES: usize = HEADER_BYTES + 4 + 48;

    /// Of a final header. `None` when its seal is votes.
    pub fn new(header: Header, seal: &Seal) -> Option<Self> {
        match seal {
            Seal::Votes(_) => None,
            Seal::Threshold { round, signature } => Some(Self { header, round: *round, signature: *signature }),
        }
    }

    /// Canonical bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(&self.header.to_bytes()).u32(self.round.0).bytes(&self.signature.0);
        out.done()
    }

    /// Reads canonical bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let (header, round) = (Header::read(&mut reader)?, Round(reader.u32()?));
        let proof = Self { header, round, signature: Signature(reader.array()?) };
        reader.end()?;
        Ok(proof)
    }

    /// Checks that the header is final.
    ///
    /// # Errors
    /// [`SealError`] when the signature is another one, or of a round before the header's.
    pub fn check(&self, chain: ChainId, group: &VerifyingKey) -> Result<&Header, SealError> {
        let place = Place { chain, height: self.header.height };
        check_threshold(place, &self.header, self.round, |statement| group.verify(statement, &self.signature))?;
        Ok(&self.header)
    }
}

/// The header of height 0, which is agreed on beforehand.
pub fn genesis(set: &ValidatorSet, time: super::ids::TimeMs) -> Header {
    Header {
        time,
        seed: Seed::RoundRobin,
        epoch: Epoch(0),
        validators: set.digest(),
        next_validators: set.digest(),
        ..Header::default()
    }
}

/// Names the chain of a genesis.
pub fn chain_of(genesis: &Header) -> ChainId {
    ChainId::of(&genesis.to_bytes())
}
