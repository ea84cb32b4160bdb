//! What a relay reads of a frame: where it goes, for which network, until when. Nothing else, and nothing behind the header.
//!
//! The header is read by the code of its ends ([`bpi_protocol::frame::Header`]): a frame that passes has exactly the length that its header says.

use std::fmt;

use bpi_protocol::consensus::bytes::BytesError;
use bpi_protocol::frame::Header;
pub use bpi_protocol::frame::KeyId;
pub use bpi_protocol::frame::header::{FRAME_BYTES_MAX, HEADER_BYTES, TAG_BYTES};

/// The name of a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkId(pub [u8; 8]);

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The part of a header that a relay acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// For which network.
    pub network: NetworkId,
    /// For whom.
    pub key: KeyId,
    /// Until when, in seconds since 1970.
    pub expiry_s: u32,
}

impl Envelope {
    /// Reads the envelope of a whole frame.
    ///
    /// # Errors
    /// [`BytesError`], when the bytes cannot be one frame.
    pub fn read(frame: &[u8]) -> Result<Self, BytesError> {
        let Header { network, to, expiry_s, .. } = Header::of_frame(frame)?;
        Ok(Self { network: NetworkId(network.to_be_bytes()), key: to, expiry_s })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_is_read_at_the_offsets_of_its_specification() {
        let mut frame = vec![0_u8; HEADER_BYTES + TAG_BYTES + 100];
        frame[..6].copy_from_slice(b"BPC1\x02\x01");
        frame[8..16].copy_from_slice(&[8; 8]);
        frame[16..24].copy_from_slice(&[9; 8]);
        frame[52..56].copy_from_slice(&77_u32.to_be_bytes());
        frame[58..60].copy_from_slice(&1_u16.to_be_bytes());
        frame[60..64].copy_from_slice(&100_u32.to_be_bytes());
        let read = Envelope::read(&frame).unwrap();
        assert_eq!((read.network, read.key, read.expiry_s), (NetworkId([8; 8]), KeyId([9; 8]), 77));
        assert!(Envelope::read(&frame[..frame.len() - 1]).is_err());
    }
}
