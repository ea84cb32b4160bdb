//! Where a peer may have datagrams proxied to (MASQUE CONNECT-UDP, RFC 9298): addresses of the public Internet at the ports of the mesh, and
//! what the operator names. A proxy that reached its own loopback or a private network would let every peer in behind the firewall.
//!
//! What is public follows IANA's special-purpose registries (RFC 6890, RFC 9637 for 3fff::/20). IPv4 in IPv6's clothes is judged as IPv4;
//! translation and tunnel prefixes (64:ff9b::/96, 2001::/23 with Teredo, 2002::/16) are refused, they lead to IPv4 addresses unseen.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use bpi_masque::is_public;
use serde::{Deserialize, Serialize};

use crate::peer::Role;

/// A network in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    addr: IpAddr,
    bits: u8,
}

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Why a text names no network or no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not ADDRESS/BITS, or too many bits.
    #[error("{text:?} is no network: write 192.0.2.0/24 or 2001:db8::/32")]
    Net {
        /// The text.
        text: String,
    },
    /// Bits beyond the prefix are set: one of the two was not meant.
    #[error("{text:?} has bits beyond its /{bits}")]
    HostBits {
        /// The text.
        text: String,
        /// The prefix's length.
        bits: u8,
    },
    /// Not PORT or FIRST-LAST.
    #[error("{text:?} is no range of ports: write 443 or 1024-65535")]
    Ports {
        /// The text.
        text: String,
    },
}

fn wide(addr: IpAddr) -> (u128, u8) {
    match addr {
        IpAddr::V4(addr) => (u128::from(u32::from(addr)), 32),
        IpAddr::V6(addr) => (u128::from(addr), 128),
    }
}

fn host_mask(width: u8, bits: u8) -> u128 {
    // A host part of 128 bits would be a shift by the whole width.
    1u128.checked_shl(u32::from(width - bits)).map_or(u128::MAX, |mask| mask - 1)
}

impl Net {
    /// True for an address within.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (wide(self.addr), wide(addr));
        width == other_width && (own ^ other) & !host_mask(width, self.bits) == 0
    }
}

impl FromStr for Net {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Net { text: text.to_owned() };
        let (addr, bits) = text.split_once('/').ok_or_else(wrong)?;
        let (addr, bits): (IpAddr, u8) = (addr.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?);
        let (value, width) = wide(addr);
        if bits > width {
            return Err(wrong());
        }
        if value & host_mask(width, bits) != 0 {
            return Err(TargetError::HostBits { text: text.to_owned(), bits });
        }
        Ok(Self { addr, bits })
    }
}

impl FromStr for Ports {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Ports { text: text.to_owned() };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = TargetError;

            fn try_from(text: String) -> Result<Self, TargetError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

as_text!(Net, Ports);

/// A network that may be reached although it is not public, or at other ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The network.
    pub net: Net,
    /// At these ports.
    pub ports: Ports,
}

/// Who may have what proxied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// Roles that may use the proxy at all; none turns it off.
    pub roles: Vec<Role>,
    /// Ports at which public addresses may be reached; without this only `allowed` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_ports: Option<Ports>,
    /// What may be reached besides.
    pub allowed: Vec<Target>,
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            roles: vec![Role::Agent, Role::Validator, Role::Pinner],
            public_ports: Some(Ports { first: 443, last: 443 }),
            allowed: Vec::new(),
        }
    }
}

impl Targets {
    /// True when a peer of this role may have datagrams proxied there. To be asked with the address that is used, after any name is resolved.
    pub fn allow(&self, role: Role, target: SocketAddr) -> bool {
        let (addr, port) = (target.ip().to_canonical(), target.port());
        let within = |ports: Ports| (ports.first..=ports.last).contains(&port);
        self.roles.contains(&role)
            && (self.allowed.iter().any(|target| target.net.contains(addr) && within(target.ports))
                || (self.public_ports.is_some_and(within) && is_public(addr)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn by_default_a_peer_reaches_public_addresses_at_443_and_nothing_else() {
        let targets = Targets::default();
        for public in ["1.1.1.1:443", "172.32.0.1:443", "[2606:4700::1]:443", "[::ffff:9.9.9.9]:443"] {
            assert!(targets.allow(Role::Agent, public.parse().unwrap()), "{public}");
            assert!(!targets.allow(Role::Relay, public.parse().unwrap()), "a relay has no need of a proxy");
        }
        for other in [
            "1.1.1.1:53",
            "127.0.0.1:443",
            "0.0.0.0:443",
            "10.1.2.3:443",
            "100.64.0.1:443",
            "169.254.169.254:443",
            "172.16.0.1:443",
            "172.31.255.255:443",
            "192.0.0.8:443",
            "192.0.2.1:443",
            "192.168.1.1:443",
            "198.19.0.1:443",
            "203.0.113.7:443",
            "224.0.0.1:443",
            "255.255.255.255:443",
            "[::1]:443",
            "[::]:443",
            "[::ffff:127.0.0.1]:443",
            "[::127.0.0.1]:443",
            "[64:ff9b::7f00:1]:443",
            "[2001::1]:443",
            "[2001:db8::1]:443",
            "[2002:7f00:1::]:443",
            "[3fff::1]:443",
            "[fc00::1]:443",
            "[fe80::1]:443",
            "[ff02::1]:443",
        ] {
            assert!(!targets.allow(Role::Agent, other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn what_the_operator_names_is_reached_at_its_ports() {
        let allowed = vec![Target { net: "10.1.0.0/16".parse().unwrap(), ports: "1000-2000".parse().unwrap() }];
        let targets = Targets { public_ports: None, allowed, ..Targets::default() };
        let allow = |target: &str| targets.allow(Role::Pinner, target.parse().unwrap());
        assert!(allow("10.1.2.3:1000") && allow("10.1.255.255:2000") && allow("[::ffff:10.1.2.3]:1500"));
        assert!(!allow("10.2.0.0:1500") && !allow("10.1.2.3:999") && !allow("10.1.2.3:2001") && !allow("1.1.1.1:443"));
        let everything: Net = "::/0".parse().unwrap();
        assert!(everything.contains("fe80::1".parse().unwrap()) && !everything.contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_or_range_that_is_none_is_refused_with_its_text() {
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1", ""] {
            assert_eq!(text.parse::<Net>(), Err(TargetError::Net { text: text.to_owned() }));
        }
        let host = TargetError::HostBits { text: "10.0.0.1/8".to_owned(), bits: 8 };
        assert_eq!("10.0.0.1/8".parse::<Net>(), Err(host));
        for text in ["0", "2-1", "0-5", "65536", "-", "1-2-3", ""] {
            assert_eq!(text.parse::<Ports>(), Err(TargetError::Ports { text: text.to_owned() }));
        }
    }
}
