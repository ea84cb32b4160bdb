//! What a client and a relay say to each other beside frames, and its bytes on a stream.
//!
//! ```text
//! length 4 (of what follows) | kind 1 | body
//! ```
//!
//! Over QUIC the first stream that a client opens carries these messages in both directions; frames go as datagrams when they fit, and as
//! [`Hop::Frame`] over a stream of their own when they do not. Over TLS all of it shares the one stream. Who a neighbour is, TLS has shown;
//! that a client may take what is sealed to an identity, it shows by signing what the TLS session exports (RFC 8446, section 7.5).

use crate::consensus::bytes::{BytesError, Reader};
use crate::frame::RelayId;
use crate::frame::header::FRAME_BYTES_MAX;
use crate::frame::key::{KeyId, PREKEY_BYTES, SIGNATURE_BYTES, Signer};
use crate::key::PublicKey;

/// The protocol's name in TLS (RFC 7301).
pub const ALPN: &[u8] = b"bpci/1";
/// Label of what is exported for [`Hello`].
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-bpci-hello";
/// Bytes of the length before a message.
pub const LENGTH_BYTES: usize = 4;
/// Longest message without its length.
pub const MESSAGE_BYTES_MAX: usize = 1 + FRAME_BYTES_MAX;
/// Longest body of the feed of headers.
pub const HEADLINE_BYTES_MAX: usize = 4096 - 8;

const HELLO_DOMAIN: &[u8] = b"bpci/1 hello";

/// A client says what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which network.
    pub network: u64,
    /// The identity that frames are sealed to.
    pub identity: [u8; 32],
    /// Its signature over what this TLS session exports.
    pub signature: [u8; SIGNATURE_BYTES],
    /// The certificate of its prekey, for who asks.
    pub prekey: Vec<u8>,
}

impl Hello {
    fn signed(network: u64, exported: &[u8; 32]) -> Vec<u8> {
        [HELLO_DOMAIN, &network.to_be_bytes(), exported].concat()
    }

    /// For a session that exports these bytes.
    pub fn new(signer: &impl Signer, network: u64, exported: &[u8; 32], prekey: Vec<u8>) -> Self {
        let signature = signer.sign(&Self::signed(network, exported));
        Self { network, identity: signer.identity(), signature, prekey }
    }

    /// Whether the identity has signed for the session that exports these bytes.
    pub fn holds(&self, exported: &[u8; 32]) -> bool {
        let message = Self::signed(self.network, exported);
        PublicKey::from_raw(&self.identity).is_ok_and(|key| key.verify(&message, &self.signature).is_ok())
    }
}

/// A message between neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Client: what it takes. The first message.
    Hello(Hello),
    /// Relay: frames come from now on.
    Welcome {
        /// What receipts call this relay.
        relay: RelayId,
    },
    /// Client: its prekey is another one now.
    Announce(Vec<u8>),
    /// Client: the prekey of an identity is wanted.
    Lookup(KeyId),
    /// Relay: the certificate, or nothing.
    Found {
        /// Whose.
        key: KeyId,
        /// Its certificate; empty when the relay has none.
        prekey: Vec<u8>,
    },
    /// Either: a frame.
    Frame(Vec<u8>),
    /// Relay: it ends soon, and another one is to be used.
    Drain {
        /// Seconds that are left.
        seconds: u16,
    },
    /// Client: the feed of final headers is wanted.
    Subscribe,
    /// Validator: a final header for those who want the feed.
    Publish {
        /// Its height.
        height: u64,
        /// The proof of it, as the validator gives it out.
        body: Vec<u8>,
    },
    /// Relay: a header of the feed.
    Headline {
        /// Its height.
        height: u64,
        /// The proof of it.
        body: Vec<u8>,
    },
}

fn framed(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut wire = Vec::with_capacity(LENGTH_BYTES + 1 + length);
    wire.extend_from_slice(&(1 + length as u32).to_be_bytes());
    wire.push(kind);
    parts.iter().for_each(|part| wire.extend_from_slice(part));
    wire
}

impl Hop {
    /// As it goes over a stream, length and all.
    pub fn to_wire(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => {
                let network = hello.network.to_be_bytes();
                framed(1, &[&network, &hello.identity, &hello.signature, &hello.prekey])
            }
            Self::Welcome { relay } => framed(2, &[&relay.0]),
            Self::Announce(prekey) => framed(3, &[prekey]),
            Self::Lookup(key) => framed(4, &[&key.0]),
            Self::Found { key, prekey } => framed(5, &[&key.0, prekey]),
            Self::Frame(frame) => framed(FRAME_KIND, &[frame]),
            Self::Drain { seconds } => framed(7, &[&seconds.to_be_bytes()]),
            Self::Subscribe => framed(8, &[]),
            Self::Publish { height, body } => framed(9, &[&height.to_be_bytes(), body]),
            Self::Headline { height, body } => framed(10, &[&height.to_be_bytes(), body]),
        }
    }

    /// Reads what follows the length.
    ///
    /// # Errors
    /// [`BytesError`] for anything that is none.
    pub fn from_body(body: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        let message = match kind {
            1 => {
                let (network, identity, signature) = (reader.u64()?, reader.array()?, reader.array()?);
                let prekey = reader.take(PREKEY_BYTES)?.to_vec();
                Self::Hello(Hello { network, identity, signature, prekey })
            }
            2 => Self::Welcome { relay: RelayId(reader.array()?) },
            3 => Self::Announce(reader.take(PREKEY_BYTES)?.to_vec()),
            4 => Self::Lookup(KeyId(reader.array()?)),
            5 => {
                let key = KeyId(reader.array()?);
                let prekey = match body.len() - 1 - key.0.len() {
                    0 => Vec::new(),
                    _ => reader.take(PREKEY_BYTES)?.to_vec(),
                };
                Self::Found { key, prekey }
            }
            FRAME_KIND => return Ok(Self::Frame(rest(reader, "frame", FRAME_BYTES_MAX)?)),
            7 => Self::Drain { seconds: reader.u16()? },
            8 => Self::Subscribe,
            9 => {
                let height = reader.u64()?;
                return Ok(Self::Publish { height, body: rest(reader, "body", HEADLINE_BYTES_MAX)? });
            }
            10 => {
                let height = reader.u64()?;
                return Ok(Self::Headline { height, body: rest(reader, "body", HEADLINE_BYTES_MAX)? });
            }
            other => return Err(BytesError::Value { field: "kind", value: other.into() }),
        };
        reader.end()?;
        Ok(message)
    }
}

/// Kind of [`Hop::Frame`], for who writes a frame without copying it.
pub const FRAME_KIND: u8 = 6;

/// What goes before a frame on a stream.
pub fn frame_head(frame_bytes: usize) -> [u8; LENGTH_BYTES + 1] {
    let [a, b, c, d] = (1 + frame_bytes as u32).to_be_bytes();
    [a, b, c, d, FRAME_KIND]
}

fn rest(reader: Reader<'_>, field: &'static str, max: usize) -> Result<Vec<u8>, BytesError> {
    let rest = reader.rest();
    if rest.len() > max { Err(BytesError::Count { field, count: rest.len(), max }) } else { Ok(rest.to_vec()) }
}

/// What ends of a session call a relay: the first eight bytes of a digest of its SPIFFE id.
pub fn relay_id(spiffe: &str) -> RelayId {
    use sha2::Digest as _;
    let mut id = [0; 8];
    id.copy_from_slice(&sha2::Sha256::new().chain_update(b"bpci/1 relay id").chain_update(spiffe).finalize()[..8]);
    RelayId(id)
}

/// Why a neighbour was closed, as it is told: application codes of QUIC and, over TLS, nothing but the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// The work is done.
    Done = 0,
    /// What was sent is no message.
    Malformed = 1,
    /// What was shown does not hold.
    Refused = 2,
    /// Too much of it.
    Limit = 3,
    /// A certificate has run out.
    Expired = 4,
    /// The relay ends.
    Drained = 5,
    /// A newer connection takes its place.
    Replaced = 6,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(body in prop::collection::vec(any::<u8>(), 0..600), kind in 0_u8..12) {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&body);
            if let Ok(message) = Hop::from_body(&bytes) {
                prop_assert_eq!(&message.to_wire()[LENGTH_BYTES..], &bytes[..]);
            }
        }
    }
}
