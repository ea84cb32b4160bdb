//! What members of a ceremony tell each other, and its bytes.
//!
//! ```text
//! version 1 | kind 1 | ceremony 32 | body
//! dealing (1): share 32 | the commitment to the dealer's polynomial
//! acknowledgement (2): signature 48
//! ```
//!
//! A dealing holds a secret: it goes over an encrypted connection to one member, whose key the connection has shown.

use std::fmt;

use bpi_protocol::consensus::bytes::{BytesError, Reader, Writer};
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::validators::{VALIDATORS_MAX, quorum};
use zeroize::{Zeroize as _, Zeroizing};

/// Version of the layout, the first byte.
const VERSION: u8 = 1;
/// Most bytes of a commitment: a length of two bytes, and a point of G2 for each coefficient.
pub(super) const COMMITMENT_BYTES_MAX: usize = 2 + 96 * quorum(VALIDATORS_MAX);
/// Most bytes of a message: 8 324.
pub const CEREMONY_MESSAGE_BYTES_MAX: usize = HEAD + 32 + COMMITMENT_BYTES_MAX;
const HEAD: usize = 1 + 1 + 32;

/// Names a ceremony: the digest of its plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CeremonyId(pub [u8; 32]);

impl fmt::Debug for CeremonyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CeremonyId({})", hex::encode(&self.0[..4]))
    }
}

/// What a dealer gives one member. Wiped when dropped; the share is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Dealing {
    /// The member's value of the dealer's polynomial.
    pub share: Zeroizing<[u8; 32]>,
    /// What everybody may know of that polynomial.
    pub commitment: Vec<u8>,
}

impl fmt::Debug for Dealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dealing").field("commitment_bytes", &self.commitment.len()).finish_non_exhaustive()
    }
}

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CeremonyBody {
    /// "Here is your share of my polynomial."
    Dealing(Dealing),
    /// "I have it, and have kept it": the receiver's signature over the dealer and its commitment.
    Ack(Signature),
}

/// A message of a ceremony.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeremonyMessage {
    /// Of which.
    pub ceremony: CeremonyId,
    /// What.
    pub body: CeremonyBody,
}

impl CeremonyMessage {
    /// Canonical bytes. Those of a dealing are secret: they are wiped when dropped.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Reserved up front: growing would leave unwiped copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(CEREMONY_MESSAGE_BYTES_MAX));
        let kind = match &self.body {
            CeremonyBody::Dealing(_) => 1,
            CeremonyBody::Ack(_) => 2,
        };
        out.extend_from_slice(&[VERSION, kind]);
        out.extend_from_slice(&self.ceremony.0);
        match &self.body {
            CeremonyBody::Dealing(dealing) => {
                out.extend_from_slice(dealing.share.as_ref());
                out.extend_from_slice(&dealing.commitment);
            }
            CeremonyBody::Ack(signature) => out.extend_from_slice(&signature.0),
        }
        out
    }

    /// Reads canonical bytes of at most [`CEREMONY_MESSAGE_BYTES_MAX`]. The commitment is looked into by the ceremony.
    ///
    /// # Errors
    /// [`BytesError`] for what is none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BytesError> {
        let (count, max) = (bytes.len(), CEREMONY_MESSAGE_BYTES_MAX);
        if count > max {
            return Err(BytesError::Count { field: "message of a ceremony", count, max });
        }
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(BytesError::Value { field: "version of a message", value: other.into() }),
        }
        let (kind, ceremony) = (reader.u8()?, CeremonyId(reader.array()?));
        let body = match kind {
            1 => {
                let mut share = reader.array::<32>()?;
                let commitment = reader.take(count.saturating_sub(HEAD + 32))?.to_vec();
                let dealing = Dealing { share: Zeroizing::new(share), commitment };
                share.zeroize();
                CeremonyBody::Dealing(dealing)
            }
            2 => CeremonyBody::Ack(Signature(reader.array()?)),
            value => return Err(BytesError::Value { field: "kind of a message", value: value.into() }),
        };
        reader.end()?;
        Ok(Self { ceremony, body })
    }
}

/// Bytes of a ceremony's plan.
pub(super) fn plan_bytes(chain: &[u8; 32], start: u64, sets: [&[u8; 32]; 2], previous: Option<[u8; 32]>) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(chain).u64(start).bytes(sets[0]).bytes(sets[1]).u8(previous.is_some().into());
    out.bytes(&previous.unwrap_or_default());
    out.done()
}
