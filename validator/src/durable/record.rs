//! The bytes of what must outlive a crash.
//!
//! ```text
//! 1 | height 8 | round 4 | step 1 | message     a vote
//! 2 | header 361 | votes 68                     a prepared header and its certificate
//! ```
//!
//! Always true: what is read is written the same, and a vote's position is that of its message.

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::equivocation::Step;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Height, Round};
use bpi_protocol::consensus::message::{Body, MESSAGE_BYTES_MAX, Message};
use bpi_protocol::consensus::seal::Votes;

use crate::core::{Position, Record};

/// Most bytes of a record: a vote of the longest message.
pub const RECORD_BYTES_MAX: usize = 1 + POSITION_BYTES + MESSAGE_BYTES_MAX;
/// Bytes of a position, always.
pub(super) const POSITION_BYTES: usize = 8 + 4 + 1;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They are not canonical.
    #[error(transparent)]
    Bytes(#[from] BytesError),
    /// The position is not that of the message beside it.
    #[error("a vote at {claimed:?} is kept beside a message of {found:?}")]
    Position {
        /// The one that is written down.
        claimed: Position,
        /// The message's own; `None` for one that is no vote.
        found: Option<Position>,
    },
    /// A record of another height.
    #[error("a record of height {record} in the log of height {log}")]
    Height {
        /// The record's.
        record: Height,
        /// The log's.
        log: Height,
    },
}

/// Where a message stands among its sender's votes. `None` for one that is no vote.
pub fn position_of(message: &Message) -> Option<Position> {
    let step = match &message.body {
        Body::RoundChange(_) => Step::RoundChange,
        Body::Proposal(_) => Step::Proposal,
        Body::Prepare(_) => Step::Prepare,
        Body::Commit(_) => Step::Commit,
        Body::Status | Body::Request | Body::Final(_) => return None,
    };
    message.round().map(|round| Position { height: message.height, round, step })
}

impl Record {
    /// The height that it is about.
    pub fn height(&self) -> Height {
        match self {
            Self::Vote { position, .. } => position.height,
            Self::Prepared { header, .. } => header.height,
        }
    }

    /// Canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Vote { position, message } => {
                out.u8(1);
                write_position(&mut out, *position);
                out.bytes(&message.to_bytes());
            }
            Self::Prepared { header, votes } => {
                out.u8(2).bytes(&header.to_bytes());
                votes.write(&mut out);
            }
        }
        out.done()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// For what [`Record::to_bytes`] would not have written, and for a vote beside another position.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => {
                let claimed = read_position(&mut reader)?;
                let message = Message::from_bytes(&bytes[1 + POSITION_BYTES..])?;
                match position_of(&message) {
                    Some(found) if found == claimed => Ok(Self::Vote { position: claimed, message: Box::new(message) }),
                    found => Err(RecordError::Position { claimed, found }),
                }
            }
            2 => {
                let (header, votes) = (Box::new(Header::read(&mut reader)?), Votes::read(&mut reader)?);
                reader.end()?;
                Ok(Self::Prepared { header, votes })
            }
            value => Err(BytesError::Value { field: "kind of a record", value: value.into() }.into()),
        }
    }
}

pub(super) fn write_position(out: &mut Writer, position: Position) {
    let step = match position.step {
        Step::RoundChange => 0,
        Step::Proposal => 1,
        Step::Prepare => 2,
        Step::Commit => 3,
    };
    out.u64(position.height.0).u32(position.round.0).u8(step);
}

pub(super) fn read_position(reader: &mut Reader<'_>) -> Result<Position, BytesError> {
    let (height, round) = (Height(reader.u64()?), Round(reader.u32()?));
    let step = match reader.u8()? {
        0 => Step::RoundChange,
        1 => Step::Proposal,
        2 => Step::Prepare,
        3 => Step::Commit,
        value => return Err(BytesError::Value { field: "step of a position", value: value.into() }),
    };
    Ok(Position { height, round, step })
}
