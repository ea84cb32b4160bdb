//! BPCI between its ends: frames that relays carry and cannot read (docs/specs/bpci.md).
//!
//! ```text
//! message ─seal─► frames ─► k relays ─► frames ─open, once─► message
//!                   ▲                        │
//!                   └──────── receipt ◄──────┘
//! ```
//!
//! A frame is sealed once and its same bytes go over every relay. Each direction between two identities is a session of its own, opened by who sends:
//! [`endpoint::Endpoint`] holds all of a process. Always true: what is delivered was sent by the identity that is named, once, and is delivered once to one life of a
//! process; a frame that proves nothing changes nothing but a counter. Absent on purpose: sockets, clocks and randomness, which are arguments.

pub mod cipher;
pub mod endpoint;
pub mod fragments;
pub mod handshake;
pub mod header;
mod incoming;
pub mod key;
mod outgoing;
pub mod receipt;
pub mod window;

use std::sync::Arc;

pub use endpoint::Endpoint;
pub use header::Header;
pub use key::KeyId;
pub use outgoing::{DATAGRAM_PAYLOAD_BYTES, Message, STREAM_PAYLOAD_BYTES, WAITING_BYTES_MAX};
pub use receipt::{Carried, RelayId};

use zeroize::Zeroizing;

use key::Prekey;

/// How long a message is wanted unless settings say otherwise, in s.
pub const WANTED_S: u32 = 60;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Of a clock that only goes forward, in µs.
    pub us: u64,
    /// Unix time in s.
    pub unix_s: u64,
}

impl Moment {
    /// When a frame of now expires that is wanted for so long.
    fn expiry_s(self, wanted_s: u32) -> u32 {
        u32::try_from(self.unix_s.saturating_add(wanted_s.into())).unwrap_or(u32::MAX)
    }
}

/// What a message is called by who sends it, until it is acknowledged or lost.
pub type Tag = u64;

/// Why a message is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// More waits for that peer than may.
    TooMuch,
    /// It is longer than a message may be.
    TooLong,
    /// No receipt of it has come for as long as it was wanted, or before its session ended: it may have come or not.
    Unacknowledged,
    /// No session could be opened for as long as it was wanted: it has not come.
    Late,
    /// There are more peers than may be.
    Peers,
}

/// Why a frame was refused. The names are those of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No frame, or one whose plaintext is none.
    Malformed,
    /// Of another network, or for somebody else.
    Astray,
    /// Too old, or too far in the future.
    Untimely,
    /// Of a session that is not known.
    Session,
    /// Of keys that are not in use.
    Phase,
    /// It does not open, or a signature does not hold.
    Forged,
    /// It has come before.
    Duplicate,
    /// A handshake that does not hold.
    Handshake,
    /// From somebody who is not let in.
    Stranger,
    /// There is no room for it now.
    NoRoom,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Astray,
        Self::Untimely,
        Self::Session,
        Self::Phase,
        Self::Forged,
        Self::Duplicate,
        Self::Handshake,
        Self::Stranger,
        Self::NoRoom,
    ];

    /// For counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Astray => "astray",
            Self::Untimely => "untimely",
            Self::Session => "session",
            Self::Phase => "phase",
            Self::Forged => "forged",
            Self::Duplicate => "duplicate",
            Self::Handshake => "handshake",
            Self::Stranger => "stranger",
            Self::NoRoom => "no-room",
        }
    }
}

/// What an endpoint is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// A frame has come by a relay.
    Frame {
        /// Which relay.
        via: RelayId,
        /// The frame, which is opened in place.
        frame: &'a mut [u8],
    },
    /// A message is to be sent.
    Send {
        /// Whose identity.
        to: [u8; 32],
        /// What the sender calls it: tags of one endpoint rise.
        tag: Tag,
        /// What, of 1 byte to [`fragments::MESSAGE_BYTES_MAX`].
        message: Message,
    },
    /// A session with a peer is wanted, though there is nothing to send yet.
    Open {
        /// Whose identity.
        to: [u8; 32],
    },
    /// A peer's prekey is known.
    Prekey(Prekey),
    /// Relays that this process is connected to.
    Relays(Vec<RelayId>),
    /// Nothing but time.
    Time,
}

/// What an endpoint wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A frame is to be sent over the relays.
    Transmit {
        /// Whose.
        to: KeyId,
        /// The peer's identity.
        peer: [u8; 32],
        /// The frame.
        frame: Arc<[u8]>,
        /// It was sent before.
        again: bool,
    },
    /// A peer's prekey is needed.
    PrekeyWanted {
        /// Whose.
        peer: [u8; 32],
    },
    /// This endpoint's prekey, for relays to give out.
    Announce(Prekey),
    /// A message has come.
    Deliver {
        /// Whose.
        from: [u8; 32],
        /// What; wiped when it goes.
        message: Zeroizing<Vec<u8>>,
    },
    /// A message has come to its peer.
    Acknowledged {
        /// Which peer.
        peer: [u8; 32],
        /// Which message.
        tag: Tag,
    },
    /// A message will not be sent again.
    Lost {
        /// Which peer.
        peer: [u8; 32],
        /// Which message.
        tag: Tag,
        /// Why.
        why: Lost,
    },
    /// A session to a peer is open.
    Opened {
        /// Which peer.
        peer: [u8; 32],
    },
    /// A peer has opened a session: it is there, and there for the first time or again when `new`.
    Met {
        /// Which peer.
        peer: [u8; 32],
        /// A life of its process that was not known.
        new: bool,
    },
    /// What a peer says of relays.
    Carried {
        /// Which peer.
        peer: [u8; 32],
        /// Frames by relay, of the session to that peer.
        carried: Vec<Carried>,
        /// It has signed that.
        signed: bool,
    },
    /// A frame was refused.
    Refused(Refusal),
}
