//! Proof that a validator has signed two things of which it may sign one: a file that needs nothing else to be checked but the set.

use thiserror::Error;

use super::bytes::{BytesError, Reader, Writer};
use super::ids::{ChainId, HeaderDigest, Height, Round, ValidatorIndex};
use super::scheme::{Scheme, Signature};
use super::statement::{self, Place, PreparedClaim};

/// What a validator may say once in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// It goes to the round.
    RoundChange(Option<PreparedClaim>),
    /// It proposes this header.
    Proposal(HeaderDigest),
    /// It accepts this header.
    Prepare(HeaderDigest),
    /// It takes this header as prepared.
    Commit(HeaderDigest),
}

/// The order of what is said in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// ROUND-CHANGE to the round comes first.
    RoundChange,
    /// PRE-PREPARE.
    Proposal,
    /// PREPARE.
    Prepare,
    /// COMMIT.
    Commit,
}

impl Said {
    /// Which step of the round.
    pub fn step(&self) -> Step {
        match self {
            Self::RoundChange(_) => Step::RoundChange,
            Self::Proposal(_) => Step::Proposal,
            Self::Prepare(_) => Step::Prepare,
            Self::Commit(_) => Step::Commit,
        }
    }

    /// The bytes that are signed.
    pub fn statement(&self, place: Place, round: Round) -> Vec<u8> {
        match *self {
            Self::RoundChange(prepared) => statement::round_change(place, round, prepared),
            Self::Proposal(digest) => statement::proposal(place, round, digest),
            Self::Prepare(digest) => statement::prepare(place, round, digest),
            Self::Commit(digest) => statement::commit(place, round, digest),
        }
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Self::RoundChange(None) => out.u8(0),
            Self::RoundChange(Some(claim)) => out.u8(1).u32(claim.round.0).bytes(&claim.digest.0),
            Self::Proposal(digest) => out.u8(2).bytes(&digest.0),
            Self::Prepare(digest) => out.u8(3).bytes(&digest.0),
            Self::Commit(digest) => out.u8(4).bytes(&digest.0),
        };
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        Ok(match reader.u8()? {
            0 => Self::RoundChange(None),
            1 => {
                let round = Round(reader.u32()?);
                Self::RoundChange(Some(PreparedClaim { round, digest: HeaderDigest(reader.array()?) }))
            }
            2 => Self::Proposal(HeaderDigest(reader.array()?)),
            3 => Self::Prepare(HeaderDigest(reader.array()?)),
            4 => Self::Commit(HeaderDigest(reader.array()?)),
            value => return Err(BytesError::Value { field: "kind of a statement", value: value.into() }),
        })
    }
}

/// Two statements of one validator for one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// Who.
    pub sender: ValidatorIndex,
    /// At which height.
    pub height: Height,
    /// In which round.
    pub round: Round,
    /// Both, and the signatures.
    pub both: [(Said, Signature); 2],
}

/// Why two statements prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EquivocationError {
    /// They say the same.
    #[error("both statements say the same")]
    Same,
    /// They are for different steps.
    #[error("the statements are of different kinds")]
    Steps,
    /// One of them is not the validator's.
    #[error("the validator has not signed both statements")]
    Signature,
}

impl Equivocation {
    /// Checks that the validator has signed both.
    ///
    /// # Errors
    /// When it need not have.
    pub fn check(&self, chain: ChainId, scheme: &impl Scheme) -> Result<(), EquivocationError> {
        let [(first, _), (second, _)] = &self.both;
        if first == second {
            return Err(EquivocationError::Same);
        }
        if first.step() != second.step() {
            return Err(EquivocationError::Steps);
        }
        let place = Place { chain, height: self.height };
        let signed = |(said, signature): &(Said, Signature)| {
            scheme.verify(self.sender, &said.statement(place, self.round), signature)
        };
        if self.both.iter().all(signed) { Ok(()) } else { Err(EquivocationError::Signature) }
    }

    /// Canonical bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(1).u16(self.sender.0).u64(self.height.0).u32(self.round.0);
        for (said, signature) in &self.both {
            said.write(&mut out);
            out.bytes(&signature.0);
        }
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => {}
            other => return Err(BytesError::Value { field: "version of evidence", value: other.into() }),
        }
        let (sender, height, round) = (ValidatorIndex(reader.u16()?), Height(reader.u64()?), Round(reader.u32()?));
        let mut one = || Ok::<_, BytesError>((Said::read(&mut reader)?, Signature(reader.array()?)));
        let both = [one()?, one()?];
        reader.end()?;
        Ok(Self { sender, height, round, both })
    }
}
