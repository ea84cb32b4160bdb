//! A leaf: what the log holds of a receipt.
//!
//! ```text
//! in the log:      version 1 | tenant 16 | hash 32      49 bytes, hashed as a leaf of RFC 9162: SHA-256(0x00 || them)
//! on wire, disk:   tenant 16 | hash 32                  48 bytes; the version is that of what is around them
//! ```

use std::fmt;

use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::digest::Sha256Digest;
use crate::envelope::Envelope;

/// Version of the layout, the first byte of what is hashed.
const VERSION: u8 = 1;
/// Bytes of a leaf on wire and disk.
pub const LEAF_BYTES: usize = 16 + 32;

/// Whose receipt it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub [u8; 16]);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A receipt of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf {
    /// Whose.
    pub tenant: TenantId,
    /// SHA-256 of the receipt's envelope ([`Envelope::to_json`]), by which the tenant finds it; validators never see what was hashed.
    pub hash: [u8; 32],
}

/// The log's own name for a leaf: [`super::leaf_hash`] of its canonical bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafHash(pub [u8; 32]);

impl fmt::Display for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LeafHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafHash({})", &hex::encode(&self.0[..4]))
    }
}

impl Leaf {
    /// The leaf of a tenant's receipt.
    pub fn of(tenant: TenantId, receipt: &Envelope) -> Self {
        Self { tenant, hash: *Sha256Digest::of(&receipt.to_json()).as_bytes() }
    }

    /// The log's name for it.
    pub fn leaf_hash(&self) -> LeafHash {
        let mut out = Writer::new();
        out.u8(VERSION);
        self.write(&mut out);
        LeafHash(super::leaf_hash(&out.done()))
    }

    /// Appends it to bytes.
    pub fn write(&self, out: &mut Writer) {
        out.bytes(&self.tenant.0).bytes(&self.hash);
    }

    /// Takes it from a reader.
    ///
    /// # Errors
    /// When the bytes end.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, BytesError> {
        Ok(Self { tenant: TenantId(reader.array()?), hash: reader.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_hashed_as_its_documented_bytes_say() {
        let leaf = Leaf { tenant: TenantId([0xaa; 16]), hash: [0xbb; 32] };
        let bytes = [&[1][..], &[0xaa; 16], &[0xbb; 32]].concat();
        assert_eq!(leaf.leaf_hash().0, crate::log::leaf_hash(&bytes));
        assert_eq!(leaf.leaf_hash().to_string(), "3620a1dfce80c20e851ac339f1deee92c06c57c4033ce300c75482cbe4dc3adb");
    }
}
