//! What becomes of a packet: whose it is, when it comes there, whether it comes.
//!
//! Always true: without delay, lateness and loss every packet with a known destination comes, in order; at most `packets_max` are held, what is
//! beyond is dropped and counted; a seed and the same packets at the same times give the same fate. Pure: time is an argument.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;

/// Longest IPv4 packet.
pub const PACKET_BYTES_MAX: usize = 65_535;
/// Packets that are held, unless the setup says otherwise: 48 MiB of whole Ethernet payloads.
const PACKETS_MAX: usize = 32_768;

/// What is joined, in JSON: the first line of the program's input.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Of chance.
    pub seed: u64,
    /// What is joined.
    pub ports: Vec<Port>,
    /// What happens at first.
    #[serde(default)]
    pub rules: Rules,
    /// Packets that are held at most.
    #[serde(default = "packets_max")]
    pub packets_max: usize,
}

fn packets_max() -> usize {
    PACKETS_MAX
}

/// One namespace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// For messages.
    pub name: String,
    /// Its TUN device, opened without packet information.
    pub fd: i32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its row and column in `delay_us`.
    #[serde(default)]
    pub region: usize,
}

/// What happens to packets. Each line of the program's input replaces all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// One way, from the row's region to the column's; regions that are not in it are at no distance.
    pub delay_us: Vec<Vec<u64>>,
    /// So many of a thousand packets come later than that, so that others overtake them,
    pub late_per_mille: u16,
    /// by at most so much.
    pub late_us: u64,
    /// So many of a thousand packets are lost, in each direction of each port pair.
    pub loss_per_mille: u16,
}

/// What has become of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets that came in.
    pub taken: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that went out.
    pub delivered: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets that were made late.
    pub late: u64,
    /// Packets that went out after one of their pair of ports that had come in later.
    pub overtaken: u64,
    /// Packets that found no room here.
    pub full: u64,
    /// Packets to nobody.
    pub astray: u64,
    /// Packets that their namespace did not take.
    pub refused: u64,
    /// The most that was held at one moment.
    pub held_max: u64,
}

/// A packet that is due.
#[derive(Debug)]
pub struct Due {
    /// Which port it goes out of.
    pub to: usize,
    /// The packet. [`Wire::give_back`] its bytes.
    pub packet: Vec<u8>,
}

/// Why a setup is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Two ports with one address.
    #[error("port {name}: {address} is another port's already")]
    Address {
        /// The second of them.
        name: String,
        /// What both have.
        address: Ipv4Addr,
    },
}

#[derive(Debug)]
struct Held {
    from: usize,
    to: usize,
    packet: Vec<u8>,
}

/// The wire between all ports.
#[derive(Debug)]
pub struct Wire {
    ports: BTreeMap<Ipv4Addr, usize>,
    regions: Vec<usize>,
    rules: Rules,
    chance: Chance,
    packets_max: usize,
    /// When each is due, its number, and where it is held.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    held: Vec<Option<Held>>,
    free: Vec<usize>,
    spare: Vec<Vec<u8>>,
    number: u64,
    /// The number of the newest packet that went out, by pair of ports.
    newest: Vec<u64>,
    /// Counts so far.
    pub counts: Counts,
}

impl Wire {
    /// Joins ports.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(setup: &Setup) -> Result<Self, SetupError> {
        let mut ports = BTreeMap::new();
        for (number, port) in setup.ports.iter().enumerate() {
            if ports.insert(port.address, number).is_some() {
                return Err(SetupError::Address { name: port.name.clone(), address: port.address });
            }
        }
        let count = setup.ports.len();
        Ok(Self {
            ports,
            regions: setup.ports.iter().map(|port| port.region).collect(),
            rules: setup.rules.clone(),
            chance: Chance::new(setup.seed),
            packets_max: setup.packets_max,
            order: BinaryHeap::new(),
            held: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            number: 0,
            newest: vec![0; count * count],
            counts: Counts::default(),
        })
    }

    /// Other rules from now on; what is held comes when it was to come.
    pub fn rule(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Takes a packet that a port has sent.
    pub fn take(&mut self, now_us: u64, from: usize, packet: &[u8]) {
        self.counts.taken += 1;
        self.counts.bytes += packet.len() as u64;
        let Some(to) = destination(packet).and_then(|address| self.ports.get(&address).copied()) else {
            self.counts.astray += 1;
            return;
        };
        if self.chance.per_mille(self.rules.loss_per_mille) {
            self.counts.lost += 1;
            return;
        }
        if self.order.len() >= self.packets_max {
            self.counts.full += 1;
            return;
        }
        let row = self.rules.delay_us.get(self.regions[from]);
        let mut due_us = now_us.saturating_add(row.and_then(|row| row.get(self.regions[to])).copied().unwrap_or(0));
        if self.chance.per_mille(self.rules.late_per_mille) {
            due_us = due_us.saturating_add(1 + self.chance.below(self.rules.late_us));
            self.counts.late += 1;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(packet);
        let held = Some(Held { from, to, packet: bytes });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.held[slot] = held;
                slot
            }
            None => {
                self.held.push(held);
                self.held.len() - 1
            }
        };
        self.number += 1;
        self.order.push(Reverse((due_us, self.number, slot)));
        self.counts.held_max = self.counts.held_max.max(self.order.len() as u64);
    }

    /// When the next packet is due.
    pub fn next_us(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((due_us, ..))| *due_us)
    }

    /// The next packet that is due.
    pub fn due(&mut self, now_us: u64) -> Option<Due> {
        let Reverse((due_us, number, slot)) = *self.order.peek()?;
        if due_us > now_us {
            return None;
        }
        self.order.pop();
        let Held { from, to, packet } = self.held[slot].take()?;
        self.free.push(slot);
        let newest = &mut self.newest[from * self.regions.len() + to];
        if number < *newest {
            self.counts.overtaken += 1;
        }
        *newest = (*newest).max(number);
        Some(Due { to, packet })
    }

    /// Gives back the bytes of a packet, and says whether its namespace took it.
    pub fn give_back(&mut self, mut packet: Vec<u8>, taken: bool) {
        if taken {
            self.counts.delivered += 1;
        } else {
            self.counts.refused += 1;
        }
        packet.clear();
        self.spare.push(packet);
    }
}

/// Where an IPv4 packet goes (RFC 791, section 3.1).
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let version = packet.first()? >> 4;
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (version == 4).then(|| address.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn packet(to: u8, number: u32) -> Vec<u8> {
        let mut packet = vec![0; 24];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 0, 0, to]);
        packet[20..].copy_from_slice(&number.to_be_bytes());
        packet
    }

    fn wire(rules: Rules) -> Wire {
        let port = |number: u8| Port {
            name: format!("p{number}"),
            fd: 0,
            address: [10, 0, 0, number].into(),
            region: number.into(),
        };
        let setup = Setup { seed: 1, ports: (0..3).map(port).collect(), rules, packets_max: 10_000 };
        Wire::new(&setup).unwrap()
    }

    /// Numbers of the packets that are due, in order.
    fn drain(wire: &mut Wire, now_us: u64) -> Vec<u32> {
        let mut numbers = Vec::new();
        while let Some(due) = wire.due(now_us) {
            numbers.push(u32::from_be_bytes(due.packet[20..24].try_into().unwrap()));
            wire.give_back(due.packet, true);
        }
        numbers
    }

    #[test]
    fn without_rules_everything_comes_at_once_and_in_order() {
        let mut wire = wire(Rules::default());
        (0..1000).for_each(|number| wire.take(5, 0, &packet(1, number)));
        assert_eq!(drain(&mut wire, 5), (0..1000).collect::<Vec<_>>());
        assert_eq!((wire.counts.delivered, wire.counts.overtaken, wire.counts.lost), (1000, 0, 0));
    }

    #[test]
    fn a_packet_comes_after_the_delay_of_its_regions() {
        let delay_us = vec![vec![0, 20, 40], vec![20, 0, 20], vec![40, 20, 0]];
        let mut wire = wire(Rules { delay_us, ..Rules::default() });
        wire.take(100, 0, &packet(2, 1));
        wire.take(100, 1, &packet(2, 2));
        assert_eq!(wire.next_us(), Some(120));
        assert!(drain(&mut wire, 119).is_empty());
        assert_eq!(drain(&mut wire, 120), [2]);
        assert_eq!(drain(&mut wire, 140), [1]);
    }

    #[test]
    fn loss_and_lateness_are_as_many_as_they_should_be_and_the_same_for_one_seed() {
        let rules = Rules { late_per_mille: 100, late_us: 5_000, loss_per_mille: 50, ..Rules::default() };
        let run = || {
            let mut wire = wire(rules.clone());
            let mut come = Vec::new();
            for number in 0..10_000 {
                wire.take(u64::from(number) * 100, 0, &packet(1, number));
                come.extend(drain(&mut wire, u64::from(number) * 100));
            }
            come.extend(drain(&mut wire, u64::MAX));
            (come, wire.counts)
        };
        let (come, counts) = run();
        assert!((400..600).contains(&counts.lost) && (800..1100).contains(&counts.late), "{counts:?}");
        assert!((700..1100).contains(&counts.overtaken), "{counts:?}");
        assert_eq!(come.len() as u64, 10_000 - counts.lost);
        assert_eq!(run(), (come, counts));
    }

    #[test]
    fn what_has_no_room_or_no_destination_is_dropped_and_counted() {
        let mut wire = wire(Rules { delay_us: vec![vec![10; 3]; 3], ..Rules::default() });
        wire.take(0, 0, &packet(9, 0));
        wire.take(0, 0, &[0x60; 40]);
        wire.take(0, 0, &[]);
        (0..10_001).for_each(|number| wire.take(0, 0, &packet(1, number)));
        assert_eq!((wire.counts.astray, wire.counts.full, wire.counts.held_max), (3, 1, 10_000));
    }
}
