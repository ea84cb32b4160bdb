//! Signatures of a quorum over one statement: the certificate of a prepared header, and the seal of a final one.

use thiserror::Error;

use super::bytes::{BytesError, Reader, Writer};
use super::header::Header;
use super::ids::{HeaderDigest, Round};
use super::scheme::{Scheme, Signature};
use super::statement::{self, Place};
use super::validators::{Signers, ValidatorSet};

/// The sum of signatures of validators over one statement, and whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Votes {
    /// The round of the statement.
    pub round: Round,
    /// Who signed.
    pub signers: Signers,
    /// The sum.
    pub signature: Signature,
}

/// Why votes prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VotesError {
    /// Somebody voted who is not in the set.
    #[error("a signer is not among the {validators} validators")]
    Stranger {
        /// Size of the set.
        validators: usize,
    },
    /// Too few.
    #[error("{signers} signers; a quorum is {quorum}")]
    Few {
        /// How many signed.
        signers: usize,
        /// How many must.
        quorum: usize,
    },
    /// The sum is not that of the signers over the statement.
    #[error("the signature is not that of the signers")]
    Signature,
}

impl Votes {
    /// Bytes of votes, always.
    pub const BYTES: usize = 4 + 16 + 48;

    /// Appends canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        out.u32(self.round.0).u128(self.signers.0).bytes(&self.signature.0);
    }

    /// Takes votes from a reader.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        let (round, signers) = (Round(reader.u32()?), Signers(reader.u128()?));
        Ok(Self { round, signers, signature: Signature(reader.array()?) })
    }

    fn check(&self, statement: &[u8], set: &ValidatorSet, scheme: &impl Scheme) -> Result<(), VotesError> {
        if !self.signers.within(set.len()) {
            return Err(VotesError::Stranger { validators: set.len() });
        }
        if self.signers.len() < set.quorum() {
            return Err(VotesError::Few { signers: self.signers.len(), quorum: set.quorum() });
        }
        match scheme.verify_aggregate(self.signers, statement, &self.signature) {
            true => Ok(()),
            false => Err(VotesError::Signature),
        }
    }

    /// True for a quorum of PREPARE votes for a header in the round: a prepared certificate.
    pub fn check_prepared(
        &self,
        place: Place,
        digest: HeaderDigest,
        set: &ValidatorSet,
        scheme: &impl Scheme,
    ) -> Result<(), VotesError> {
        self.check(&statement::prepare(place, self.round, digest), set, scheme)
    }

    /// The same for COMMIT votes: a seal.
    pub fn check_committed(
        &self,
        place: Place,
        digest: HeaderDigest,
        set: &ValidatorSet,
        scheme: &impl Scheme,
    ) -> Result<(), VotesError> {
        self.check(&statement::commit(place, self.round, digest), set, scheme)
    }
}

/// What makes a header final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seal {
    /// COMMIT votes of a quorum: says who, and needs the set.
    Votes(Votes),
    /// One signature by the key that all validators share: says only that a quorum did, and needs no more than that key, at any height.
    Threshold {
        /// The round of the COMMIT votes.
        round: Round,
        /// By the group's key, over the COMMIT statement.
        signature: Signature,
    },
}

impl Seal {
    /// The round in which the header became final.
    pub fn round(&self) -> Round {
        match self {
            Self::Votes(votes) => votes.round,
            Self::Threshold { round, .. } => *round,
        }
    }

    /// Appends canonical bytes.
    pub fn write(&self, out: &mut Writer) {
        match self {
            Self::Votes(votes) => {
                out.u8(1);
                votes.write(out);
            }
            Self::Threshold { round, signature } => {
                out.u8(2).u32(round.0).bytes(&signature.0);
            }
        }
    }

    /// Takes a seal from a reader.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        match reader.u8()? {
            1 => Ok(Self::Votes(Votes::read(reader)?)),
            2 => Ok(Self::Threshold { round: Round(reader.u32()?), signature: Signature(reader.array()?) }),
            value => Err(BytesError::Value { field: "kind of a seal", value: value.into() }),
        }
    }

    /// Checks that a header is final under a validator set. A header is sealed in the round it was made in, or later.
    pub fn check(
        &self,
        place: Place,
        header: &Header,
        set: &ValidatorSet,
        scheme: &impl Scheme,
    ) -> Result<(), SealError> {
        if header.height != place.height {
            return Err(SealError::Height { header: header.height.0, place: place.height.0 });
        }
        check_round(self.round(), header)?;
        match self {
            Self::Votes(votes) => Ok(votes.check_committed(place, header.digest(), set, scheme)?),
            Self::Threshold { round, signature } => {
                check_threshold(place, header, *round, |statement| scheme.verify_group(statement, signature))
            }
        }
    }
}

/// The rule of a threshold seal, whoever verifies its signature.
pub(super) fn check_threshold(
    place: Place,
    header: &Header,
    round: Round,
    verify: impl FnOnce(&[u8]) -> bool,
) -> Result<(), SealError> {
    check_round(round, header)?;
    match verify(&statement::commit(place, round, header.digest())) {
        true => Ok(()),
        false => Err(VotesError::Signature.into()),
    }
}

fn check_round(round: Round, header: &Header) -> Result<(), SealError> {
    match round < header.round {
        true => Err(SealError::Early { seal: round.0, header: header.round.0 }),
        false => Ok(()),
    }
}

/// Why a header is not shown to be final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The header is of another height.
    #[error("the header is of height {header}, not {place}")]
    Height {
        /// The header's.
        header: u64,
        /// The one in question.
        place: u64,
    },
    /// The seal's round came before the header was made.
    #[error("sealed in round {seal}, but made in round {header}")]
    Early {
        /// The seal's.
        seal: u32,
        /// The header's.
        header: u32,
    },
    /// The votes are none.
    #[error(transparent)]
    Votes(#[from] VotesError),
}
