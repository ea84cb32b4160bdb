//! What nodes send each other, and its bytes as a message of BPCI.
//!
//! ```text
//! kind 1 | body
//! ```

use std::sync::Arc;

use bpi_protocol::availability::attestation::Attestation;
use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::ids::{HeaderDigest, Height};
use bpi_protocol::consensus::message::{MESSAGE_BYTES_MAX, Message};
use bpi_protocol::mesh::validator::WRONG_BYTES_MAX;

use zeroize::Zeroizing;

use crate::beacon::assembly::PartsMessage;
use crate::beacon::message::CeremonyMessage;
use crate::contents::body::{CONTENTS_BYTES_MAX, Contents, read_attestations, write_attestations};
use crate::contents::dealings::LOGS_BYTES_MAX;
use crate::contents::leaf::{LEAF_BYTES, Leaf, LeafHash};
use crate::contents::lists::List;

/// Leaves of one frame, at most.
pub const LEAVES_MAX: usize = 1024;
/// Longest frame.
pub const FRAME_BYTES_MAX: usize = {
    let contents = 1 + 32 + CONTENTS_BYTES_MAX;
    let leaves = 1 + 8 + 2 + LEAVES_MAX * LEAF_BYTES;
    let (message, larger) = (1 + MESSAGE_BYTES_MAX, if contents > leaves { contents } else { leaves });
    if larger > message { larger } else { message }
};

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Of consensus.
    Consensus(Message),
    /// What a header commits to.
    Contents {
        /// Which header.
        digest: HeaderDigest,
        /// What.
        contents: Arc<Contents>,
    },
    /// "I need what this header commits to."
    ContentsWanted {
        /// Which header.
        digest: HeaderDigest,
    },
    /// Leaves that wait for a header.
    Waiting(Vec<Leaf>),
    /// Leaves that the sender has seen for long and wants in the next header.
    List(List),
    /// "I need the leaves of the log from here on."
    LogWanted {
        /// Index of the first.
        from: u64,
    },
    /// The answer to that.
    Log {
        /// Index of the first.
        from: u64,
        /// Some of them, in order.
        leaves: Vec<Leaf>,
    },
    /// Of a ceremony of the validators' key.
    Ceremony(CeremonyMessage),
    /// A dealer's log: one that some header has to carry, or one that was asked for.
    DealerLog(Vec<u8>),
    /// "I need the log that this leaf stands for."
    DealerLogWanted {
        /// The leaf's hash.
        leaf: LeafHash,
    },
    /// Of the signatures by the validators' key of a final height.
    Parts(PartsMessage),
    /// Attestations that wait for a header.
    Attestations(Vec<Attestation>),
    /// "I need the attestations of the header of this height."
    AttestedWanted {
        /// Which height.
        height: Height,
    },
    /// The answer to that.
    Attested {
        /// Which height.
        height: Height,
        /// All of them.
        attestations: Vec<Attestation>,
    },
    /// A proof that a batch is wrongly encoded ([`bpi_protocol::availability::wrong`]).
    WrongEncoding(Vec<u8>),
}

impl Frame {
    /// For counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Consensus(message) => message.name(),
            Self::Contents { .. } => "contents",
            Self::ContentsWanted { .. } => "contents-wanted",
            Self::Waiting(_) => "waiting",
            Self::List(_) => "list",
            Self::LogWanted { .. } => "log-wanted",
            Self::Log { .. } => "log",
            Self::Ceremony(_) => "ceremony",
            Self::DealerLog(_) => "dealer-log",
            Self::DealerLogWanted { .. } => "dealer-log-wanted",
            Self::Parts(_) => "parts",
            Self::Attestations(_) => "attestations",
            Self::AttestedWanted { .. } => "attested-wanted",
            Self::Attested { .. } => "attested",
            Self::WrongEncoding(_) => "wrong-encoding",
        }
    }

    /// What it costs to look at, in frames that cost little: a lookup for each leaf, 5 000 of them as much as a second of checking signatures.
    pub fn cost(&self) -> usize {
        match self {
            Self::Waiting(leaves) | Self::Log { leaves, .. } => leaves.len().max(1),
            Self::List(list) => list.leaves.len().max(1),
            Self::Contents { contents, .. } => contents.leaves.len().max(1),
            Self::LogWanted { .. } => LEAVES_MAX / 8,
            Self::Ceremony(_) | Self::DealerLogWanted { .. } => 64,
            Self::DealerLog(_) => 256,
            Self::Parts(_) | Self::AttestedWanted { .. } => 32,
            // Four signatures of Ed25519 are a fifth of a millisecond.
            Self::Attestations(all) => {
                all.iter().map(|attestation| 1 + attestation.acknowledgements.len() / 4).sum::<usize>().max(1)
            }
            Self::Attested { attestations, .. } => attestations.len().max(1),
            // A thousand hashes and, of 64 leaves behind the end of the data, four million multiplications at most: a few ms.
            Self::WrongEncoding(_) => 64,
            Self::Consensus(_) | Self::ContentsWanted { .. } => 1,
        }
    }

    /// Its bytes. Some frames hold a secret for their receiver, so all are wiped.
    pub fn to_message(&self) -> Arc<Zeroizing<Vec<u8>>> {
        // Not through a writer, which would leave copies of a dealing behind.
        if let Self::Ceremony(message) = self {
            return message_of(7, &message.to_bytes());
        }
        let mut out = Writer::new();
        match self {
            Self::Consensus(message) => out.u8(0).bytes(&message.to_bytes()),
            Self::Contents { digest, contents } => out.u8(1).bytes(&digest.0).bytes(&contents.to_bytes()),
            Self::ContentsWanted { digest } => out.u8(2).bytes(&digest.0),
            Self::Waiting(leaves) => write_leaves(out.u8(3), leaves),
            Self::List(list) => out.u8(4).bytes(&list.to_bytes()),
            Self::LogWanted { from } => out.u8(5).u64(*from),
            Self::Log { from, leaves } => write_leaves(out.u8(6).u64(*from), leaves),
            Self::Ceremony(_) => &mut out,
            Self::DealerLog(log) => out.u8(8).bytes(log),
            Self::DealerLogWanted { leaf } => out.u8(9).bytes(&leaf.0),
            Self::Parts(message) => out.u8(10).bytes(&message.to_bytes()),
            Self::Attestations(attestations) => written(out.u8(11), attestations),
            Self::AttestedWanted { height } => out.u8(12).u64(height.0),
            Self::Attested { height, attestations } => written(out.u8(13).u64(height.0), attestations),
            Self::WrongEncoding(proof) => out.u8(14).bytes(proof),
        };
        let body = out.done();
        let (kind, rest) = body.split_first().map_or((0, &body[..]), |(kind, rest)| (*kind, rest));
        message_of(kind, rest)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`BytesError`] for what is none.
    pub fn from_message(bytes: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(bytes);
        let frame = match reader.u8()? {
            0 => return Message::from_bytes(&bytes[1..]).map(Self::Consensus),
            1 => {
                let digest = HeaderDigest(reader.array()?);
                let contents = Arc::new(Contents::from_bytes(&bytes[33..])?);
                return Ok(Self::Contents { digest, contents });
            }
            2 => Self::ContentsWanted { digest: HeaderDigest(reader.array()?) },
            3 => Self::Waiting(read_leaves(&mut reader)?),
            4 => return List::from_bytes(&bytes[1..]).map(Self::List),
            5 => Self::LogWanted { from: reader.u64()? },
            6 => Self::Log { from: reader.u64()?, leaves: read_leaves(&mut reader)? },
            7 => return CeremonyMessage::from_bytes(&bytes[1..]).map(Self::Ceremony),
            8 => {
                let count = bytes.len() - 1;
                if count > LOGS_BYTES_MAX {
                    return Err(BytesError::Count { field: "bytes of a log", count, max: LOGS_BYTES_MAX });
                }
                return Ok(Self::DealerLog(bytes[1..].to_vec()));
            }
            9 => Self::DealerLogWanted { leaf: LeafHash(reader.array()?) },
            10 => return PartsMessage::from_bytes(&bytes[1..]).map(Self::Parts),
            11 => Self::Attestations(read_attestations(&mut reader)?),
            12 => Self::AttestedWanted { height: Height(reader.u64()?) },
            13 => Self::Attested { height: Height(reader.u64()?), attestations: read_attestations(&mut reader)? },
            14 => {
                let count = bytes.len() - 1;
                if count > WRONG_BYTES_MAX {
                    let max = WRONG_BYTES_MAX;
                    return Err(BytesError::Count { field: "bytes of a proof of a wrong encoding", count, max });
                }
                return Ok(Self::WrongEncoding(bytes[1..].to_vec()));
            }
            other => return Err(BytesError::Value { field: "kind of a frame", value: other.into() }),
        };
        reader.end()?;
        Ok(frame)
    }
}

fn message_of(kind: u8, rest: &[u8]) -> Arc<Zeroizing<Vec<u8>>> {
    let mut message = Zeroizing::new(Vec::with_capacity(1 + rest.len()));
    message.push(kind);
    message.extend_from_slice(rest);
    Arc::new(message)
}

fn write_leaves<'a>(out: &'a mut Writer, leaves: &[Leaf]) -> &'a mut Writer {
    out.u16(leaves.len() as u16);
    leaves.iter().for_each(|leaf| leaf.write(out));
    out
}

fn written<'a>(out: &'a mut Writer, attestations: &[Attestation]) -> &'a mut Writer {
    write_attestations(out, attestations);
    out
}

fn read_leaves(reader: &mut Reader<'_>) -> Result<Vec<Leaf>, BytesError> {
    let count = reader.count("leaves of a frame", LEAVES_MAX)?;
    (0..count).map(|_| Leaf::read(reader)).collect()
}

#[cfg(test)]
mod tests {
    use bpi_protocol::consensus::ids::Height;
    use bpi_protocol::consensus::message::Body;

    use super::*;
    use crate::contents::attestations::sample;

    #[test]
    fn frames_are_read_as_they_were_written_and_not_a_byte_short_or_long() {
        let digest = HeaderDigest([7; 32]);
        let leaves = vec![Leaf { hash: [1; 32], ..Leaf::default() }, Leaf { hash: [2; 32], ..Leaf::default() }];
        let frames = [
            Frame::Consensus(Message { height: Height(3), body: Body::Status }),
            Frame::Contents { digest, contents: Arc::new(Contents { leaves: leaves.clone(), ..Contents::default() }) },
            Frame::ContentsWanted { digest },
            Frame::Waiting(leaves.clone()),
            Frame::List(List { height: Height(9), leaves: leaves.clone() }),
            Frame::LogWanted { from: 5 },
            Frame::Log { from: 5, leaves },
            Frame::Attestations(vec![sample::attestation(1, 2, &[1, 2], 3)]),
            Frame::AttestedWanted { height: Height(7) },
            Frame::Attested { height: Height(7), attestations: vec![sample::attestation(1, 2, &[1, 2], 3)] },
        ];
        for frame in frames {
            let body = frame.to_message();
            let body = body.as_slice();
            assert!(body.len() <= FRAME_BYTES_MAX);
            assert_eq!(Frame::from_message(body), Ok(frame.clone()), "{}", frame.name());
            assert!(Frame::from_message(&body[..body.len() - 1]).is_err(), "{}", frame.name());
            assert!(Frame::from_message(&[body, &[0]].concat()).is_err(), "{}", frame.name());
        }
        assert!(Frame::from_message(&[]).is_err() && Frame::from_message(&[99]).is_err());
    }
}
