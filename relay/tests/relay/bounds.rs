//! Whatever comes, nothing grows past its bound.

use std::net::{IpAddr, Ipv4Addr};

use bpi_relay::budget::Rates;
use bpi_relay::envelope::NetworkId;
use bpi_relay::fingerprint::Fingerprint;
use bpi_relay::peer::{ConnId, Role, Who};
use bpi_relay::score::Fault;
use bpi_relay::store::StoreBounds;
use bpi_relay::switch::{Limits, Now, Settings, Switch, Verdict};
use bpi_relay::tally::DropReason;
use bytes::Bytes;
use proptest::prelude::{ProptestConfig, any, proptest};

use crate::mesh::{BEGAN_S, frame, key};

/// Chance from a seed (SplitMix64): a step in a few nanoseconds, so that hundreds of thousands fit into a test.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

const LIMITS: Limits = Limits {
    connections: 64,
    per_account: 4,
    per_prefix: 16,
    per_asn: 32,
    keys: 100,
    recent: 500,
    recent_ms: 5_000,
    lifetime_s: 120,
    skew_s: 5,
};
const STORE: StoreBounds = StoreBounds { key_bytes: 20_000, sender_bytes: 30_000, total_bytes: 60_000, keep_s: 60 };
/// What the tables of these bounds take at most, with an allowance for how hash tables and vectors grow.
const BYTES_MAX: usize = 600_000;

fn peer(chance: &mut Chance) -> Who {
    let number = chance.below(100);
    Who {
        spiffe: format!("spiffe://mesh.example/x/{number}"),
        role: Role::ALL[chance.below(5) as usize],
        addr: IpAddr::V4(Ipv4Addr::from((chance.below(300) << 8) as u32)),
        asn: (chance.below(4) > 0).then(|| chance.below(200) as u32),
        weight: chance.below(70) as u32,
    }
}

struct World {
    switch: Switch,
    chance: Chance,
    now: Now,
    next: u64,
    /// Connections that are there, and some that are gone.
    conns: Vec<ConnId>,
}

impl World {
    fn new(seed: u64) -> Self {
        let rates = Rates { bytes_per_s: 10_000_000, ..Rates::default() };
        let settings = Settings { limits: LIMITS, rates, store: STORE, ..Settings::default() };
        Self {
            switch: Switch::new(settings),
            chance: Chance(seed),
            now: Now { us: 0, unix_s: BEGAN_S },
            next: 0,
            conns: vec![ConnId(0)],
        }
    }

    fn conn(&mut self) -> ConnId {
        self.conns[self.chance.below(self.conns.len() as u64) as usize]
    }

    fn frame(&mut self) -> Bytes {
        let (to, number) = (self.chance.below(200), self.chance.below(1_000));
        // By its number, so that many come twice; from late to too early.
        let (bytes, expiry_s) = (80 + number as usize, self.now.unix_s / 60 * 60 + number % 240);
        match self.chance.below(40) {
            0 => Bytes::from(vec![b'B'; bytes]),
            _ => frame(key(to), number, expiry_s, bytes),
        }
    }

    fn step(&mut self) {
        self.now.us += self.chance.below(300);
        if self.chance.below(5_000) == 0 {
            self.now.us += self.chance.below(200_000_000);
        }
        self.now.unix_s = BEGAN_S + self.now.us / 1_000_000;
        let (now, conn) = (self.now, self.conn());
        let network = NetworkId([self.chance.below(30) as u8; 8]);
        match self.chance.below(100) {
            0..6 => {
                self.next += 1;
                let (conn, who) = (ConnId(self.next), peer(&mut self.chance));
                if self.switch.connected(now, conn, who).is_ok() {
                    self.conns.push(conn);
                }
            }
            6..8 => {
                self.switch.disconnected(now, conn);
                // A few stay in the list: what comes over a connection that is gone must do no harm.
                if self.chance.below(20) > 0 || self.conns.len() > 80 {
                    self.conns.retain(|other| *other != conn);
                    self.conns.extend(self.conns.is_empty().then_some(ConnId(0)));
                }
            }
            8..22 => {
                let (to, bytes) = (self.chance.below(200), self.chance.below(600) as usize);
                let _ = self.switch.register(now, conn, key(to), &vec![0; bytes]);
            }
            22..25 => {
                let to = self.chance.below(200);
                self.switch.unregister(now, conn, key(to));
            }
            25..28 => {
                let bytes = self.chance.below(4_200) as usize;
                let height = self.chance.below(u64::MAX);
                let _ = self.switch.publish(now, conn, (network, height), &vec![height as u8; bytes]);
            }
            28 => drop(self.switch.subscribe(conn, network)),
            29 => drop(self.switch.take(conn, network)),
            30 => {
                let _ = self.switch.blame(now, conn, Fault::Signature);
            }
            31 => self.switch.tick(now),
            32 => drop(self.switch.announcement(now, key(self.chance.below(200)))),
            _ => {
                let frame = self.frame();
                if let Verdict::HandOn { print, to } = self.switch.forward(now, conn, &frame) {
                    assert!((1..=4).contains(&to.len()));
                    assert_eq!(print, Fingerprint::of(&frame));
                    if self.chance.below(10) == 0 {
                        self.switch.undelivered(&print);
                    }
                }
            }
        }
    }

    fn check(&self) {
        let sizes = self.switch.sizes();
        assert!(sizes.connections <= LIMITS.connections, "{sizes:?}");
        let remembered = 2 * LIMITS.connections;
        assert!(sizes.accounts <= remembered && sizes.prefixes <= remembered && sizes.asns <= remembered, "{sizes:?}");
        assert!(sizes.keys <= LIMITS.keys && sizes.keys_registered <= sizes.keys, "{sizes:?}");
        assert!(sizes.recent <= 2 * LIMITS.recent, "{sizes:?}");
        assert!(sizes.stored_bytes <= STORE.total_bytes, "{sizes:?}");
        assert!(sizes.headers <= 16 * 64, "{sizes:?}");
        let bytes = self.switch.bytes();
        assert!(bytes <= BYTES_MAX + sizes.headers * 4_288, "{bytes} bytes: {sizes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn after_hundreds_of_thousands_of_random_steps_every_table_is_within_its_bound(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for step in 0..50_000 {
            world.step();
            if step % 64 == 0 {
                world.check();
            }
        }
        world.check();
        let tally = world.switch.take_tally();
        // A test in which nothing came through would prove nothing.
        assert!(tally.frames_out > 1_000 && tally.stored > 20 && tally.published > 10, "{tally:?}");
        assert!(tally.dropped(DropReason::Duplicate) > 20, "{tally:?}");
        // When all have gone and time has passed, nothing is left but tables of digests, whose memory stays, and headers.
        (0..=world.next).for_each(|conn| world.switch.disconnected(world.now, ConnId(conn)));
        world.now.us += 4_000_000_000;
        world.now.unix_s += 4_000;
        world.switch.tick(world.now);
        let sizes = world.switch.sizes();
        assert_eq!((sizes.connections, sizes.accounts, sizes.prefixes, sizes.asns), (0, 0, 0, 0));
        assert_eq!((sizes.keys, sizes.stored, sizes.stored_bytes), (0, 0, 0));
    }
}
