//! Peers, frames and moments for tests.

use std::net::{IpAddr, Ipv4Addr};

use bpi_relay::envelope::{KeyId, NetworkId};
use bpi_relay::peer::{ConnId, Role, Who};
use bpi_relay::switch::{Now, Settings, Switch};
use bytes::Bytes;

pub const NETWORK: NetworkId = NetworkId([8; 8]);
pub const BEGAN_S: u64 = 1_800_000_000;

/// So many milliseconds after the beginning.
pub fn at(ms: u64) -> Now {
    Now { us: ms * 1000, unix_s: BEGAN_S + ms / 1000 }
}

pub fn key(number: u64) -> KeyId {
    KeyId(number.to_be_bytes())
}

/// A DATA frame of so many bytes in all, which no other number gives.
pub fn frame(key: KeyId, number: u64, expiry_s: u64, bytes: usize) -> Bytes {
    let mut frame = vec![0; bytes.max(80)];
    frame[..4].copy_from_slice(b"BPC1");
    // DATA, suite 1, the whole message.
    (frame[4], frame[5], frame[59]) = (2, 1, 1);
    frame[8..16].copy_from_slice(&NETWORK.0);
    frame[16..24].copy_from_slice(&key.0);
    frame[44..52].copy_from_slice(&number.to_be_bytes());
    frame[52..56].copy_from_slice(&(expiry_s as u32).to_be_bytes());
    let payload = (frame.len() - 80) as u32;
    frame[60..64].copy_from_slice(&payload.to_be_bytes());
    frame.into()
}

/// The frame of this number, a minute from its expiry.
pub fn fresh(now: Now, to: u64, number: u64) -> Bytes {
    frame(key(to), number, now.unix_s + 60, 1150)
}

/// An agent in a prefix and an ASN of its own.
pub fn who(number: u32) -> Who {
    Who {
        spiffe: format!("spiffe://mesh.example/agent/{number}"),
        role: Role::Agent,
        addr: IpAddr::V4(Ipv4Addr::from(number << 8 | 1)),
        asn: Some(number),
        weight: 1,
    }
}

/// A switch with these peers, connection `n` of peer `n`.
pub fn switch(settings: Settings, peers: u32) -> Switch {
    let mut switch = Switch::new(settings);
    (0..peers).for_each(|peer| switch.connected(at(0), ConnId(u64::from(peer)), who(peer)).unwrap());
    switch
}
