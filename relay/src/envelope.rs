//! What a relay reads of a frame: where it goes, for which network, until when. Nothing else, and nothing behind the header.
//!
//! Offsets are those of the 64-byte header in the BPCI specification, big-endian. A frame that passes has exactly the length that its header
//! says, so two frames of different length never have the same header.

use std::fmt;
use std::hash::{Hash, Hasher};

/// First bytes of every frame.
const MAGIC: [u8; 4] = *b"BPC1";
/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 64;
/// Length of the authentication tag in bytes.
pub const TAG_BYTES: usize = 16;
/// What INIT has between header and ciphertext: the encapsulated key (32) and the commitment (16).
pub const INIT_BYTES: usize = 48;
/// Longest frame in bytes.
pub const FRAME_BYTES_MAX: usize = 65_535;
/// Shortest frame in bytes.
pub const FRAME_BYTES_MIN: usize = HEADER_BYTES + TAG_BYTES;

/// The name of a destination's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

/// The name of a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkId(pub [u8; 8]);

impl Hash for KeyId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_be_bytes(self.0));
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a session.
    Init = 1,
    /// Bytes of a session.
    Data = 2,
    /// A recipient has got something.
    Receipt = 3,
    /// Ends a session.
    Close = 4,
}

/// The part of a header that a relay acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What kind of frame it is.
    pub kind: Kind,
    /// For which network.
    pub network: NetworkId,
    /// For whom.
    pub key: KeyId,
    /// Until when, in seconds since 1970.
    pub expiry_s: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter or longer than any frame.
    #[error("a frame of {bytes} bytes is refused: it has {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}")]
    Size {
        /// Its length.
        bytes: usize,
    },
    /// It does not begin as a frame does.
    #[error("the frame begins with {found:02x?} and not with {MAGIC:02x?}")]
    Magic {
        /// How it begins.
        found: [u8; 4],
    },
    /// No such kind.
    #[error("there is no frame of kind {kind}: 1 to 4 are known")]
    Kind {
        /// The kind it names.
        kind: u8,
    },
    /// Its header says another length.
    #[error("the frame has {bytes} bytes where its header says {said}")]
    Length {
        /// What the header says.
        said: u64,
        /// What it has.
        bytes: usize,
    },
}

/// `N` bytes from `at` on; both are constants within the header at every call.
fn part<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|index| header[at + index])
}

impl Envelope {
    /// Reads the envelope of a whole frame.
    ///
    /// # Errors
    /// [`Malformed`], when the bytes cannot be one frame.
    pub fn read(frame: &[u8]) -> Result<Self, Malformed> {
        let bytes = frame.len();
        let header = match frame.first_chunk::<HEADER_BYTES>() {
            Some(header) if (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes) => header,
            _ => return Err(Malformed::Size { bytes }),
        };
        let found = part(header, 0);
        if found != MAGIC {
            return Err(Malformed::Magic { found });
        }
        let kind = match header[4] {
            1 => Kind::Init,
            2 => Kind::Data,
            3 => Kind::Receipt,
            4 => Kind::Close,
            kind => return Err(Malformed::Kind { kind }),
        };
        let before = if kind == Kind::Init { HEADER_BYTES + INIT_BYTES } else { HEADER_BYTES };
        let said = (before + TAG_BYTES) as u64 + u64::from(u32::from_be_bytes(part(header, 60)));
        if said != bytes as u64 {
            return Err(Malformed::Length { said, bytes });
        }
        Ok(Self {
            kind,
            network: NetworkId(part(header, 8)),
            key: KeyId(part(header, 16)),
            expiry_s: u32::from_be_bytes(part(header, 52)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: u8, payload: u32) -> Vec<u8> {
        let extra = if kind == 1 { INIT_BYTES } else { 0 };
        let mut frame = vec![0u8; FRAME_BYTES_MIN + extra + payload as usize];
        frame[..4].copy_from_slice(b"BPC1");
        frame[4] = kind;
        frame[8..16].copy_from_slice(&[8; 8]);
        frame[16..24].copy_from_slice(&[9; 8]);
        frame[52..56].copy_from_slice(&77u32.to_be_bytes());
        frame[60..64].copy_from_slice(&payload.to_be_bytes());
        frame
    }

    #[test]
    fn a_frame_is_read_at_the_offsets_of_its_specification() {
        for kind in 1..=4 {
            let read = Envelope::read(&frame(kind, 100)).unwrap();
            assert_eq!(read.kind as u8, kind);
            assert_eq!((read.network, read.key, read.expiry_s), (NetworkId([8; 8]), KeyId([9; 8]), 77));
        }
    }

    #[test]
    fn a_frame_has_the_length_that_its_header_says_and_no_other() {
        for kind in 1..=4 {
            let whole = frame(kind, 40);
            assert!((0..whole.len()).all(|end| Envelope::read(&whole[..end]).is_err()));
            assert!(Envelope::read(&[&whole[..], &[0]].concat()).is_err());
        }
        let mut huge = frame(2, 0);
        huge[60..64].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Envelope::read(&huge), Err(Malformed::Length { said: 80 + u64::from(u32::MAX), bytes: 80 }));
        assert!(Envelope::read(&frame(2, 65_535 - 80)).is_ok());
        assert_eq!(Envelope::read(&frame(2, 65_536 - 80)), Err(Malformed::Size { bytes: 65_536 }));
    }

    #[test]
    fn other_magic_and_unknown_kinds_are_refused() {
        let mut other = frame(2, 0);
        other[3] = b'2';
        assert_eq!(Envelope::read(&other), Err(Malformed::Magic { found: *b"BPC2" }));
        for kind in [0, 5, 255] {
            let mut other = frame(2, 0);
            other[4] = kind;
            assert_eq!(Envelope::read(&other), Err(Malformed::Kind { kind }));
        }
    }
}
