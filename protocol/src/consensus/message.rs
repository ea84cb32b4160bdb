//! What validators send each other, and its bytes.
//!
//! ```text
//! version 1 | kind 1 | height 8 | body
//! ```

use super::bytes::{BytesError, Reader, Writer};
use super::header::Header;
use super::ids::{ChainId, HeaderDigest, Height, Round, ValidatorIndex};
use super::justification::{Justification, SignedRoundChange};
use super::scheme::Signature;
use super::seal::{Seal, Votes};
use super::statement::Place;

const VERSION: u8 = 1;
/// Most bytes of a message: a proposal of 128 validators with all their claims is the longest.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// PRE-PREPARE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// Who proposes: the proposer of the round.
    pub sender: ValidatorIndex,
    /// In which round.
    pub round: Round,
    /// What.
    pub header: Header,
    /// Why it may, in every round but the first.
    pub justification: Option<Justification>,
    /// Over [`super::statement::proposal`].
    pub signature: Signature,
}

/// PREPARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// Who votes.
    pub sender: ValidatorIndex,
    /// In which round.
    pub round: Round,
    /// For what.
    pub digest: HeaderDigest,
    /// Over the statement of the vote's kind.
    pub signature: Signature,
}

/// A validator's shares of the two threshold signatures of a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partials {
    /// Of the seal, over the COMMIT statement.
    pub seal: Signature,
    /// Of the seed of the next height.
    pub seed: Signature,
}

/// COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The vote.
    pub vote: Vote,
    /// Shares, while there is a group key.
    pub partials: Option<Partials>,
}

/// ROUND-CHANGE with what proves its claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoundChange {
    /// As it is signed.
    pub signed: SignedRoundChange,
    /// The prepared header and its certificate.
    pub prepared: Option<(Header, Votes)>,
}

/// A final header, for who has missed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Final {
    /// The header.
    pub header: Header,
    /// What makes it final.
    pub seal: Seal,
}

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// PRE-PREPARE.
    Proposal(Box<Proposal>),
    /// PREPARE.
    Prepare(Vote),
    /// COMMIT.
    Commit(Commit),
    /// ROUND-CHANGE.
    RoundChange(Box<RoundChange>),
    /// "This is the height I work on."
    Status,
    /// "I need the final header of this height."
    Request,
    /// The answer to that.
    Final(Box<Final>),
}

/// A message about a height.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The height.
    pub height: Height,
    /// What about it.
    pub body: Body,
}

impl Message {
    /// The instance that its signatures are for.
    pub fn place(&self, chain: ChainId) -> Place {
        Place { chain, height: self.height }
    }

    /// Who says to have signed it, if anybody.
    pub fn sender(&self) -> Option<ValidatorIndex> {
        match &self.body {
            Body::Proposal(proposal) => Some(proposal.sender),
            Body::Prepare(vote) | Body::Commit(Commit { vote, .. }) => Some(vote.sender),
            Body::RoundChange(change) => Some(change.signed.sender),
            Body::Status | Body::Request | Body::Final(_) => None,
        }
    }

    /// The round that it is about, if any.
    pub fn round(&self) -> Option<Round> {
        match &self.body {
            Body::Proposal(proposal) => Some(proposal.round),
            Body::Prepare(vote) | Body::Commit(Commit { vote, .. }) => Some(vote.round),
            Body::RoundChange(change) => Some(change.signed.round),
            Body::Status | Body::Request | Body::Final(_) => None,
        }
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION).u8(self.kind()).u64(self.height.0);
        match &self.body {
            Body::Proposal(proposal) => {
                out.u16(proposal.sender.0).u32(proposal.round.0).bytes(&proposal.header.to_bytes());
                out.u8(proposal.justification.is_some().into());
                if let Some(justification) = &proposal.justification {
                    justification.write(&mut out);
                }
                out.bytes(&proposal.signature.0);
            }
            Body::Prepare(vote) => write_vote(&mut out, vote),
            Body::Commit(commit) => {
                write_vote(&mut out, &commit.vote);
                out.u8(commit.partials.is_some().into());
                if let Some(partials) = &commit.partials {
                    out.bytes(&partials.seal.0).bytes(&partials.seed.0);
                }
            }
            Body::RoundChange(change) => {
                change.signed.write(&mut out);
                out.u8(change.prepared.is_some().into());
                if let Some((header, votes)) = &change.prepared {
                    out.bytes(&header.to_bytes());
                    votes.write(&mut out);
                }
            }
            Body::Status | Body::Request => {}
            Body::Final(last) => {
                out.bytes(&last.header.to_bytes());
                last.seal.write(&mut out);
            }
        }
        out.done()
    }

    /// Reads canonical bytes of at most [`MESSAGE_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(BytesError::Count { field: "message", count: bytes.len(), max: MESSAGE_BYTES_MAX });
        }
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of a message", value: other.into() }),
        }
        let (kind, height) = (reader.u8()?, Height(reader.u64()?));
        let body = match kind {
            1 => Body::Proposal(Box::new(read_proposal(&mut reader)?)),
            2 => Body::Prepare(read_vote(&mut reader)?),
            3 => Body::Commit(read_commit(&mut reader)?),
            4 => Body::RoundChange(Box::new(read_round_change(&mut reader)?)),
            5 => Body::Status,
            6 => Body::Request,
            7 => Body::Final(Box::new(Final { header: Header::read(&mut reader)?, seal: Seal::read(&mut reader)? })),
            value => return Err(BytesError::Value { field: "kind of a message", value: value.into() }),
        };
        reader.end()?;
        Ok(Self { height, body })
    }

    fn kind(&self) -> u8 {
        match self.body {
            Body::Proposal(_) => 1,
            Body::Prepare(_) => 2,
            Body::Commit(_) => 3,
            Body::RoundChange(_) => 4,
            Body::Status => 5,
            Body::Request => 6,
            Body::Final(_) => 7,
        }
    }

    /// The kind's name, for logs and counters.
    pub fn name(&self) -> &'static str {
        ["proposal", "prepare", "commit", "round-change", "status", "request", "final"][usize::from(self.kind()) - 1]
    }
}

fn write_vote(out: &mut Writer, vote: &Vote) {
    out.u16(vote.sender.0).u32(vote.round.0).bytes(&vote.digest.0).bytes(&vote.signature.0);
}

fn read_vote(reader: &mut Reader<'_>) -> Result<Vote, BytesError> {
    let (sender, round) = (ValidatorIndex(reader.u16()?), Round(reader.u32()?));
    Ok(Vote { sender, round, digest: HeaderDigest(reader.array()?), signature: Signature(reader.array()?) })
}

fn read_commit(reader: &mut Reader<'_>) -> Result<Commit, BytesError> {
    let vote = read_vote(reader)?;
    let partials = match reader.flag("partials")? {
        false => None,
        true => Some(Partials { seal: Signature(reader.array()?), seed: Signature(reader.array()?) }),
    };
    Ok(Commit { vote, partials })
}

fn read_proposal(reader: &mut Reader<'_>) -> Result<Proposal, BytesError> {
    let (sender, round) = (ValidatorIndex(reader.u16()?), Round(reader.u32()?));
    let header = Header::read(reader)?;
    let justification = if reader.flag("justification")? { Some(Justification::read(reader)?) } else { None };
    Ok(Proposal { sender, round, header, justification, signature: Signature(reader.array()?) })
}

fn read_round_change(reader: &mut Reader<'_>) -> Result<RoundChange, BytesError> {
    let signed = SignedRoundChange::read(reader)?;
    let prepared =
        if reader.flag("prepared header")? { Some((Header::read(reader)?, Votes::read(reader)?)) } else { None };
    Ok(RoundChange { signed, prepared })
}
