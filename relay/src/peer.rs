//! Who is at the other end of a connection, as the edge has found out: by certificate, by address, by the signed directory.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

pub use bpi_identity::Role;

/// Longest SPIFFE id that is taken, in bytes. (The standard allows 2 048; ids of the mesh are three short words.)
pub const SPIFFE_BYTES_MAX: usize = 255;
/// Greatest weight of an account.
pub const WEIGHT_MAX: u32 = 64;

/// A connection, as the edge counts them. A number is never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl Hash for ConnId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The SPIFFE id in its certificate.
    pub spiffe: String,
    /// What it is.
    pub role: Role,
    /// Where it comes from.
    pub addr: IpAddr,
    /// Whose network that is, where the directory says so; never what the peer says.
    pub asn: Option<u32>,
    /// Its share of the capacity among the others', 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

/// The neighbourhood of an address: /24 of IPv4, /48 of IPv6, which is what one customer usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// The first 24 bits.
    V4(u32),
    /// The first 48 bits.
    V6(u64),
}

impl Prefix {
    /// Of an address. IPv4 in IPv6's clothes counts as IPv4.
    pub fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => Self::V4(u32::from(addr) >> 8),
            IpAddr::V6(addr) => Self::V6((u128::from(addr) >> 80) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn neighbours_share_a_prefix() {
        let same = |a: &str, b: &str| Prefix::of(a.parse().unwrap()) == Prefix::of(b.parse().unwrap());
        assert!(same("192.0.2.1", "192.0.2.255") && !same("192.0.2.1", "192.0.3.1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.9"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:ffff::9") && !same("2001:db8:1::", "2001:db8:2::"));
        assert!(!same("0.0.0.0", "::"));
    }
}
