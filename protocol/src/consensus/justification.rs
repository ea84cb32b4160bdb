//! Why a proposal of a later round may be accepted: the predicates of the paper's algorithm 4, as the Dafny specification has them.
//!
//! What an earlier round may have made final must be proposed again. So a proposer shows a quorum of round changes, and, if any of these
//! claims that a header was prepared, the PREPARE certificate of the highest claim. Deviation: QBFT changes the round number inside the block
//! when it proposes it again; here a header keeps the round that it was made in, and only votes name the round, so its digest stays.

use thiserror::Error;

use super::bytes::{BytesError, Reader, Writer};
use super::ids::{HeaderDigest, Round, ValidatorIndex};
use super::scheme::{Scheme, Signature};
use super::seal::{Votes, VotesError};
use super::statement::{self, Place, PreparedClaim};
use super::validators::{Signers, VALIDATORS_MAX, ValidatorSet};

/// ROUND-CHANGE as it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignedRoundChange {
    /// Who changes.
    pub sender: ValidatorIndex,
    /// To which round.
    pub round: Round,
    /// What it takes along.
    pub prepared: Option<PreparedClaim>,
    /// Over [`statement::round_change`].
    pub signature: Signature,
}

impl SignedRoundChange {
    /// Appends canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u16(self.sender.0).u32(self.round.0).u8(self.prepared.is_some().into());
        if let Some(claim) = self.prepared {
            out.u32(claim.round.0).bytes(&claim.digest.0);
        }
        out.bytes(&self.signature.0);
    }

    /// Takes one from a reader.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let (sender, round) = (ValidatorIndex(reader.u16()?), Round(reader.u32()?));
        let prepared = match reader.flag("prepared")? {
            false => None,
            true => Some(PreparedClaim { round: Round(reader.u32()?), digest: HeaderDigest(reader.array()?) }),
        };
        Ok(Self { sender, round, prepared, signature: Signature(reader.array()?) })
    }

    /// What it says (`validRoundChange`): prepared in an earlier round or not at all, by a validator. Its certificate is another matter.
    pub fn check(&self, place: Place, set: &ValidatorSet, scheme: &impl Scheme) -> Result<(), JustificationError> {
        let sender = self.sender.0;
        if self.sender.at() >= set.len() {
            return Err(JustificationError::Stranger { sender });
        }
        if self.prepared.is_some_and(|claim| claim.round >= self.round) {
            return Err(JustificationError::PreparedLater { sender });
        }
        let statement = statement::round_change(place, self.round, self.prepared);
        if !scheme.verify(self.sender, &statement, &self.signature) {
            return Err(JustificationError::Signature { sender });
        }
        Ok(())
    }
}

/// The proof that goes with a proposal of a round after the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Justification {
    /// `Q_rc`: round changes of a quorum to the proposal's round, one for each sender.
    pub round_changes: Vec<SignedRoundChange>,
    /// The PREPARE certificate of the highest claim among them, if there is one.
    pub prepared: Option<Votes>,
}

/// Why a round change or a proposal is not justified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JustificationError {
    /// A round change is not by a validator.
    #[error("round change of {sender}, who is no validator")]
    Stranger {
        /// Who.
        sender: u16,
    },
    /// A header would have been prepared in the round that is changed to, or later.
    #[error("validator {sender} claims to have prepared in a later round than it left")]
    PreparedLater {
        /// Who.
        sender: u16,
    },
    /// A round change is not signed by its sender.
    #[error("the round change of validator {sender} is not signed by it")]
    Signature {
        /// Who.
        sender: u16,
    },
    /// A round change is to another round.
    #[error("validator {sender} changes to round {to}, not {round}")]
    OtherRound {
        /// Who.
        sender: u16,
        /// Where to.
        to: u32,
        /// The proposal's.
        round: u32,
    },
    /// One validator is counted twice.
    #[error("two round changes of validator {sender}")]
    Twice {
        /// Who.
        sender: u16,
    },
    /// Too few round changes.
    #[error("{senders} round changes; a quorum is {quorum}")]
    Few {
        /// How many.
        senders: usize,
        /// How many it takes.
        quorum: usize,
    },
    /// There is none, and the round is not the first.
    #[error("a proposal of round {round} without round changes")]
    Absent {
        /// The proposal's.
        round: u32,
    },
    /// There is one, and the round is the first.
    #[error("a proposal of the first round needs no justification")]
    Needless,
    /// A claim has no certificate, or a certificate no claim.
    #[error("the certificate does not belong to the highest claim")]
    Certificate,
    /// The certificate proves nothing.
    #[error("the certificate of the highest claim: {0}")]
    Votes(#[from] VotesError),
    /// Another header was prepared.
    #[error("{prepared} was prepared and must be proposed again, not {proposed}")]
    OtherHeader {
        /// What the highest claim names.
        prepared: HeaderDigest,
        /// What is proposed.
        proposed: HeaderDigest,
    },
}

/// `HighestPrepared` of the paper: the claim of the highest round among round changes.
pub fn highest_prepared<'a>(changes: impl IntoIterator<Item = &'a SignedRoundChange>) -> Option<PreparedClaim> {
    changes.into_iter().filter_map(|change| change.prepared).max_by_key(|claim| claim.round)
}

/// `validRoundChange` with `JustifyRoundChange`: a round change, and the certificate of what it claims.
pub fn check_round_change(
    place: Place,
    change: &SignedRoundChange,
    certificate: Option<&Votes>,
    set: &ValidatorSet,
    scheme: &impl Scheme,
) -> Result<(), JustificationError> {
    change.check(place, set, scheme)?;
    check_certificate(place, change.prepared, certificate, set, scheme)
}

/// `isProposalJustification`: a proposal of a round after the first. `Ok(true)` when its header was prepared before, so it needs no other check.
pub fn check_proposal(
    place: Place,
    round: Round,
    proposed: HeaderDigest,
    justification: &Justification,
    set: &ValidatorSet,
    scheme: &impl Scheme,
) -> Result<bool, JustificationError> {
    let mut senders = Signers::default();
    for change in &justification.round_changes {
        let sender = change.sender.0;
        if change.round != round {
            return Err(JustificationError::OtherRound { sender, to: change.round.0, round: round.0 });
        }
        if senders.contains(change.sender) {
            return Err(JustificationError::Twice { sender });
        }
        change.check(place, set, scheme)?;
        senders = senders.with(change.sender);
    }
    if senders.len() < set.quorum() {
        return Err(JustificationError::Few { senders: senders.len(), quorum: set.quorum() });
    }
    let highest = highest_prepared(&justification.round_changes);
    check_certificate(place, highest, justification.prepared.as_ref(), set, scheme)?;
    match highest {
        Some(claim) if claim.digest != proposed => {
            Err(JustificationError::OtherHeader { prepared: claim.digest, proposed })
        }
        claim => Ok(claim.is_some()),
    }
}

fn check_certificate(
    place: Place,
    claim: Option<PreparedClaim>,
    certificate: Option<&Votes>,
    set: &ValidatorSet,
    scheme: &impl Scheme,
) -> Result<(), JustificationError> {
    match (claim, certificate) {
        (None, None) => Ok(()),
        (Some(claim), Some(votes)) if votes.round == claim.round => {
            Ok(votes.check_prepared(place, claim.digest, set, scheme)?)
        }
        _ => Err(JustificationError::Certificate),
    }
}

impl Justification {
    /// Appends canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u16(self.round_changes.len() as u16);
        for change in &self.round_changes {
            change.write(out);
        }
        out.u8(self.prepared.is_some().into());
        if let Some(votes) = &self.prepared {
            votes.write(out);
        }
    }

    /// Takes one from a reader.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let count = reader.count("round changes", VALIDATORS_MAX)?;
        let mut round_changes = Vec::with_capacity(count);
        for _ in 0..count {
            round_changes.push(SignedRoundChange::read(reader)?);
        }
        let prepared = if reader.flag("certificate")? { Some(Votes::read(reader)?) } else { None };
        Ok(Self { round_changes, prepared })
    }
}
