//! Where a tunnel leads, and how a path says so: `/.well-known/masque/udp/{target_host}/{target_port}/` (RFC 9298, sections 2 and 3.4).
//!
//! A host is an IPv4 or IPv6 literal or a name of letters, digits, hyphens and underscores: what else a path could hold after
//! percent-decoding is refused, so nothing of it reaches a resolver or a log. Scoped addresses (`fe80::1%eth0`) are refused, as the RFC asks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// What a path of this template begins with.
pub const PATH_PREFIX: &str = "/.well-known/masque/udp/";
/// Longest host, bytes (RFC 1035, section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label of a name, bytes.
const LABEL_BYTES_MAX: usize = 63;

/// Why a text is no target.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// The path is not one of the template.
    #[error("the path does not follow {PATH_PREFIX}{{target_host}}/{{target_port}}/")]
    Template,
    /// A percent sign without two hexadecimal digits.
    #[error("a percent sign is not followed by two hexadecimal digits")]
    Percent,
    /// The host is neither an address nor a name.
    #[error("the host of {bytes} bytes is neither an address nor a name of at most {HOST_BYTES_MAX} bytes")]
    Host {
        /// Its length.
        bytes: usize,
    },
    /// The port is no number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// Where the datagrams of a tunnel go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// `host`: an address literal (IPv6 without brackets) or a name; `port` ≥ 1.
    ///
    /// # Errors
    /// When the host is neither, or the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, TargetError> {
        if port == 0 {
            return Err(TargetError::Port);
        }
        // Addresses are kept in one form: a policy that compares texts shall not be evaded by another way to write zeros.
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) if is_name(host) => host.to_ascii_lowercase(),
            Err(_) => return Err(TargetError::Host { bytes: host.len() }),
        };
        Ok(Self { host, port })
    }

    /// What `path` names.
    ///
    /// # Errors
    /// When it is not of the template, or its parts are not a host and a port.
    pub fn from_path(path: &str) -> Result<Self, TargetError> {
        let rest = path.strip_prefix(PATH_PREFIX).ok_or(TargetError::Template)?;
        let (host, port) = rest.strip_suffix('/').and_then(|rest| rest.split_once('/')).ok_or(TargetError::Template)?;
        if host.is_empty() || port.is_empty() || port.contains('/') {
            return Err(TargetError::Template);
        }
        let host = percent_decoded(host)?;
        let port = percent_decoded(port)?;
        // `parse` would take "+80" and "0080" too.
        if port.starts_with('0') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(TargetError::Port);
        }
        Self::new(&host, port.parse().map_err(|_| TargetError::Port)?)
    }

    /// The path that names it; colons of IPv6 are percent-encoded (RFC 9298, section 3.1).
    pub fn to_path(&self) -> String {
        format!("{PATH_PREFIX}{}/{}/", self.host.replace(':', "%3A"), self.port)
    }

    /// An address literal (IPv6 without brackets) or a name in lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// From 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, if the host is one. `None`: it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Labels of letters, digits, hyphens and underscores. A last label of digits alone is refused: resolvers read `127.1` and `0x7f.1` as
/// addresses that no rule on names would have let through.
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(inner)
    };
    let dotted = host.strip_suffix('.').unwrap_or(host);
    let last = dotted.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
    host.len() <= HOST_BYTES_MAX && !numeric && dotted.split('.').all(label)
}

fn percent_decoded(text: &str) -> Result<String, TargetError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(TargetError::Percent);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8,
            plain => plain,
        });
    }
    let bytes = decoded.len();
    String::from_utf8(decoded).map_err(|_| TargetError::Host { bytes })
}

/// Whether `ip` is of the public Internet: not loopback, private, shared, link-local, multicast, reserved or for documentation
/// (the IANA registries of special-purpose addresses). Addresses that carry an IPv4 address are judged by it, or refused (6to4, NAT64, Teredo).
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] => true,
        [100, b, ..] => b & 0xc0 == 64,
        [172, b, ..] => b & 0xf0 == 16,
        // IETF protocol assignments, documentation, the old 6to4 relay.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => true,
        // Benchmarks, documentation.
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        [first, ..] => first >= 224,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // IETF protocol assignments with Teredo and ORCHID, documentation, 6to4, documentation again.
        [0x2001, b, ..] if b < 0x200 || b == 0xdb8 => false,
        [0x2002, ..] => false,
        [0x3fff, b, ..] if b < 0x1000 => false,
        // Global unicast is all that has been handed out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(rest: &str) -> Result<Target, TargetError> {
        Target::from_path(&format!("{PATH_PREFIX}{rest}"))
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        assert_eq!(path("192.0.2.6/443/"), Target::new("192.0.2.6", 443));
        assert_eq!(path("2001%3Adb8%3A%3A42/443/"), Target::new("2001:db8::42", 443));
        assert_eq!(path("2001%3adb8%3A0%3a0%3A0%3A0%3A0%3A42/443/"), Target::new("2001:db8::42", 443));
        assert_eq!(path("target.example.com/8443/"), Target::new("target.example.com", 8443));
        assert_eq!(
            Target::new("2001:db8::42", 443).map(|target| target.to_path()).as_deref(),
            Ok("/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/")
        );
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for rest in ["", "/", "//", "a/", "a/1", "a//", "/1/", "a/1//", "a/1/b/", "a/b/1/", "a/1/?q", "a/1/#f"] {
            assert_eq!(path(rest), Err(TargetError::Template), "{rest}");
        }
        for rest in ["a/0/", "a/65536/", "a/+1/", "a/01/", "a/-1/", "a/1a/", "a/99999999999999999999/"] {
            assert_eq!(path(rest), Err(TargetError::Port), "{rest}");
        }
        for rest in ["a%/1/", "a%2/1/", "a%zz/1/", "a%+1/1/"] {
            assert_eq!(path(rest), Err(TargetError::Percent), "{rest}");
        }
        let long = "a".repeat(64);
        for host in [
            "fe80%3A%3A1%25eth0",
            "%00",
            "a%2Fb",
            "a..b",
            ".",
            "a%0D%0Ab",
            "%FF",
            "1",
            "127.1",
            "0x7f.0",
            "0177.0.0.1",
            "%5B%3A%3A1%5D",
            "a b",
            &long,
        ] {
            assert!(matches!(path(&format!("{host}/1/")), Err(TargetError::Host { .. })), "{host}");
        }
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
            "64:ff9b::7f00:1",
            "3fff::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_judged(rest in "\\PC{0,80}") {
            if let Ok(target) = path(&rest) {
                prop_assert_eq!(Target::from_path(&target.to_path()), Ok(target));
            }
        }

        #[test]
        fn a_path_of_likely_parts_is_judged(rest in "([a-z0-9.:%/_-]|%[0-9A-Fa-f]{2}){0,40}/[0-9]{0,6}/?") {
            if let Ok(target) = path(&rest) {
                prop_assert_eq!(Target::from_path(&target.to_path()), Ok(target));
            }
        }

        #[test]
        fn every_target_has_its_path(ip in any::<IpAddr>(), port in 1..=u16::MAX) {
            let target = Target::new(&ip.to_string(), port).unwrap();
            prop_assert_eq!(Target::from_path(&target.to_path()), Ok(target.clone()));
            prop_assert_eq!(target.ip(), Some(ip));
        }
    }
}
