//! The 64 bytes before every frame: all that a relay reads, none of which it changes.

use crate::consensus::bytes::{BytesError, Reader, Writer};

use super::key::KeyId;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// What INIT appends to it: an encapsulated key and a commitment.
pub const HANDSHAKE_BYTES: usize = ENC_BYTES + COMMIT_BYTES;
/// Bytes of an X25519 key on the wire.
pub const ENC_BYTES: usize = 32;
/// Bytes of a commitment to a key.
pub const COMMIT_BYTES: usize = 16;
/// Bytes of a Poly1305 tag.
pub const TAG_BYTES: usize = 16;
/// Longest frame with everything: its length fits two bytes.
pub const FRAME_BYTES_MAX: usize = u16::MAX as usize;
/// How far in the future a frame may expire, in s: longer would be remembered longer.
pub const EXPIRY_S_MAX: u64 = 120;
/// How far clocks may be apart, in s.
pub const SKEW_S: u64 = 5;
/// Frames of one message, at most: they fit the window together.
pub const FRAGMENTS_MAX: u16 = 512;

const MAGIC: [u8; 4] = *b"BPC1";
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export-only (RFC 9180), XChaCha20-Poly1305, Ed25519.
const SUITE: u8 = 1;
/// The frame goes from a session's responder to its initiator.
const REVERSE: u16 = 1 << 15;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Opens a session; reversed, it answers that.
    Init = 1,
    /// A message of a session, or a part of one.
    Data = 2,
    /// What of a session has come; always reversed.
    Receipt = 3,
    /// The end of a session.
    Close = 4,
}

/// A session's name, chosen by its initiator by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// From the responder to the initiator.
    pub reverse: bool,
    /// Low 15 bits of the serial of the prekey that an INIT is sealed to; 0 in all else.
    pub serial: u16,
    /// Which network: a frame of another is refused.
    pub network: u64,
    /// Whose: relays go by it.
    pub to: KeyId,
    /// Which session.
    pub session: SessionId,
    /// Which of the session's keys.
    pub phase: u32,
    /// Counter of frames of a session and direction; with the key it makes the nonce.
    pub seq: u64,
    /// Unix time in s after which nobody wants it.
    pub expiry_s: u32,
    /// Which part of a message.
    pub fragment: u16,
    /// Of how many.
    pub fragments: u16,
    /// Bytes of ciphertext without its tag.
    pub payload_bytes: u32,
}

impl Header {
    /// As it goes over the wire.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut writer = Writer::new();
        writer.bytes(&MAGIC).u8(self.kind as u8).u8(SUITE).u16(self.serial | if self.reverse { REVERSE } else { 0 });
        writer.u64(self.network).bytes(&self.to.0).bytes(&self.session.0);
        writer.u32(self.phase).u64(self.seq).u32(self.expiry_s);
        writer.u16(self.fragment).u16(self.fragments).u32(self.payload_bytes);
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&writer.done());
        bytes
    }

    /// Reads the header of a frame that is there as a whole.
    ///
    /// # Errors
    /// [`BytesError`] for what is no header, and for a frame of another length than its header says.
    pub fn of_frame(frame: &[u8]) -> Result<Self, BytesError> {
        let mut reader = Reader::new(frame);
        let magic: [u8; 4] = reader.array()?;
        if magic != MAGIC {
            return Err(BytesError::Value { field: "magic", value: u32::from_be_bytes(magic).into() });
        }
        let kind = match reader.u8()? {
            1 => Kind::Init,
            2 => Kind::Data,
            3 => Kind::Receipt,
            4 => Kind::Close,
            other => return Err(BytesError::Value { field: "type", value: other.into() }),
        };
        let suite = reader.u8()?;
        if suite != SUITE {
            return Err(BytesError::Value { field: "suite", value: suite.into() });
        }
        let flags = reader.u16()?;
        let header = Self {
            kind,
            reverse: flags & REVERSE != 0,
            serial: flags & !REVERSE,
            network: reader.u64()?,
            to: KeyId(reader.array()?),
            session: SessionId(reader.array()?),
            phase: reader.u32()?,
            seq: reader.u64()?,
            expiry_s: reader.u32()?,
            fragment: reader.u16()?,
            fragments: reader.u16()?,
            payload_bytes: reader.u32()?,
        };
        header.check(flags)?;
        let wanted = header.frame_bytes();
        match frame.len().checked_sub(wanted) {
            _ if wanted > FRAME_BYTES_MAX => {
                Err(BytesError::Count { field: "frame", count: wanted, max: FRAME_BYTES_MAX })
            }
            None => Err(BytesError::Short { offset: frame.len(), wanted: wanted - frame.len(), left: 0 }),
            Some(0) => Ok(header),
            Some(extra) => Err(BytesError::Long { extra }),
        }
    }

    /// What a field may be together with others.
    fn check(&self, flags: u16) -> Result<(), BytesError> {
        let value = |field, value| Err(BytesError::Value { field, value });
        let opens = self.kind == Kind::Init && !self.reverse;
        if !opens && self.serial != 0 || self.kind == Kind::Receipt && !self.reverse {
            return value("flags", flags.into());
        }
        if self.kind == Kind::Data && self.reverse {
            return value("flags", flags.into());
        }
        if opens && (self.phase, self.seq) != (0, 0) {
            return value("seq", self.seq);
        }
        let many = self.kind == Kind::Data && self.fragments <= FRAGMENTS_MAX;
        if self.fragment >= self.fragments || self.fragments != 1 && !many {
            return value("frag_count", self.fragments.into());
        }
        if u64::from(self.fragment) > self.seq {
            return value("frag_idx", self.fragment.into());
        }
        Ok(())
    }

    /// Bytes of associated data: the header, and what INIT appends.
    pub fn associated_bytes(&self) -> usize {
        HEADER_BYTES + if self.kind == Kind::Init { HANDSHAKE_BYTES } else { 0 }
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        self.associated_bytes().saturating_add(self.payload_bytes as usize).saturating_add(TAG_BYTES)
    }

    /// Whether anybody wants the frame at a moment (unix time in s).
    pub fn is_timely(&self, unix_s: u64) -> bool {
        let expiry = u64::from(self.expiry_s);
        expiry.saturating_add(SKEW_S) >= unix_s && expiry <= unix_s.saturating_add(EXPIRY_S_MAX + SKEW_S)
    }
}
