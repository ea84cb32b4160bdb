//! A switch that strangers use as the input says: connections, keys, frames, headers, faults and time in any order. Every table stays within its
//! bound, a frame goes only to who has shown that its key is theirs, bytes that are no timely frame go nowhere, and what waited is handed out
//! once, as it came, to its own key. When all have left and time has passed, nothing is left of them.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bpi_relay::budget::Rates;
use bpi_relay::envelope::{Envelope, KeyId, NetworkId};
use bpi_relay::fingerprint::Fingerprint;
use bpi_relay::keys::{ANNOUNCEMENT_BYTES_MAX, CONNECTIONS_PER_KEY};
use bpi_relay::peer::{ConnId, Role, Who};
use bpi_relay::score::Fault;
use bpi_relay::store::StoreBounds;
use bpi_relay::switch::{Limits, Now, Settings, Switch, Verdict};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const BEGAN_S: u64 = 1_790_000_000;
const NETWORK: NetworkId = NetworkId([8; 8]);
const LIMITS: Limits = Limits {
    connections: 12,
    per_account: 3,
    per_prefix: 6,
    per_asn: 8,
    keys: 20,
    recent: 16,
    recent_ms: 25,
    lifetime_s: 120,
    skew_s: 5,
};
const STORE: StoreBounds = StoreBounds { key_bytes: 4_000, sender_bytes: 5_000, total_bytes: 9_000, keep_s: 60 };
/// Bytes of the tables with these bounds, without headers, and of one header.
const BYTES_MAX: usize = 100_000;
const HEADER_BYTES: usize = 4_288;
/// Feeds, and headers of each.
const HEADERS_MAX: usize = 16 * 64;
const FAULTS: [Fault; 6] =
    [Fault::Malformed, Fault::Signature, Fault::NotAllowed, Fault::WrongNetwork, Fault::FarExpiry, Fault::Expired];

struct World {
    switch: Switch,
    now: Now,
    /// Who is connected, and the keys that each has registered and not given up. The switch may have fewer: newer connections take their place.
    keys: BTreeMap<u64, BTreeSet<u64>>,
    /// Frames that wait by their keys, each as often as it was stored.
    waiting: BTreeMap<(u64, Bytes), u32>,
    draining: bool,
}

fn key(number: u64) -> KeyId {
    KeyId(number.to_be_bytes())
}

impl World {
    fn check(&self) {
        let sizes = self.switch.sizes();
        assert_eq!(sizes.connections, self.keys.len());
        let remembered = 2 * LIMITS.connections;
        assert!(sizes.connections <= LIMITS.connections, "{sizes:?}");
        assert!(sizes.accounts <= remembered && sizes.prefixes <= remembered && sizes.asns <= remembered, "{sizes:?}");
        assert!(sizes.keys <= LIMITS.keys && sizes.keys_registered <= sizes.keys, "{sizes:?}");
        assert!(sizes.recent <= 2 * LIMITS.recent && sizes.headers <= HEADERS_MAX, "{sizes:?}");
        assert!(sizes.stored_bytes <= STORE.total_bytes, "{sizes:?}");
        let bytes = self.switch.bytes();
        assert!(bytes <= BYTES_MAX + sizes.headers * HEADER_BYTES, "{bytes} bytes: {sizes:?}");
    }

    fn forward(&mut self, from: u64, frame: &Bytes) {
        let verdict = self.switch.forward(self.now, ConnId(from), frame);
        let to = match verdict {
            Verdict::Dropped(_) => return,
            Verdict::HandOn { .. } | Verdict::Stored => Envelope::read(frame).expect("what is no frame goes nowhere"),
        };
        assert!(self.keys.contains_key(&from), "of nobody who is here");
        let unix_s = self.now.unix_s;
        assert!(to.network == NETWORK && u64::from(to.expiry_s) > unix_s && u64::from(to.expiry_s) <= unix_s + 125);
        let number = u64::from_be_bytes(to.key.0);
        match verdict {
            Verdict::HandOn { to, print } => {
                assert!((1..=CONNECTIONS_PER_KEY).contains(&to.len()));
                assert_eq!(print, Fingerprint::of(frame));
                let unique: BTreeSet<ConnId> = to.as_slice().iter().copied().collect();
                assert_eq!(unique.len(), to.len());
                for conn in unique {
                    assert!(self.keys.get(&conn.0).is_some_and(|keys| keys.contains(&number)), "to nobody else");
                }
                // The same bytes by another way are a copy.
                assert!(matches!(self.switch.forward(self.now, ConnId(from), frame), Verdict::Dropped(_)));
                if frame.last().is_some_and(|byte| byte % 4 == 0) {
                    self.switch.undelivered(&print);
                }
            }
            _ => *self.waiting.entry((number, frame.clone())).or_default() += 1,
        }
    }

    fn register(&mut self, conn: u64, number: u64, announcement: &[u8]) {
        let Ok(frames) = self.switch.register(self.now, ConnId(conn), key(number), announcement) else { return };
        assert!(!self.draining && announcement.len() <= ANNOUNCEMENT_BYTES_MAX);
        let keys = self.keys.get_mut(&conn).expect("only who is here registers");
        keys.insert(number);
        assert_eq!(self.switch.announcement(self.now, key(number)).as_deref(), Some(announcement));
        for frame in frames {
            let count = self.waiting.get_mut(&(number, frame)).expect("it waited for this key");
            *count = count.checked_sub(1).expect("and is handed out once");
        }
        self.waiting.retain(|(waits_for, _), count| *waits_for != number && *count > 0);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let rates = Rates { bytes_per_s: 1_000_000, frames_per_s: 10_000, ..Rates::default() };
    let settings = Settings { networks: vec![NETWORK], limits: LIMITS, rates, store: STORE, seed: [3; 16] };
    let now = Now { us: 0, unix_s: BEGAN_S };
    let (keys, waiting) = (BTreeMap::new(), BTreeMap::new());
    let mut world = World { switch: Switch::new(settings), now, keys, waiting, draining: false };
    let mut rest = bytes;
    let mut connected = 0;
    while let Some((step, after)) = rest.split_first() {
        let (head, after) = after.split_at(after.len().min(3));
        rest = after;
        let byte = |at: usize| head.get(at).copied().unwrap_or(0);
        let (conn, number, size) = (u64::from(byte(0) % 24), u64::from(byte(1) % 32), usize::from(byte(2)));
        // A network that is not served comes now and then.
        let network = if number == 31 { NetworkId([9; 8]) } else { NETWORK };
        match step & 0x0f {
            0 => world.now.us += u64::from(byte(0)) * 1_000 + u64::from(byte(1)),
            1 => world.now.us += u64::from(byte(0)) * 1_000_000,
            2 => {
                let who = Who {
                    spiffe: format!("spiffe://mesh.example/agent/{}", byte(1) % 40),
                    role: Role::ALL[usize::from(byte(1) % 5)],
                    addr: IpAddr::V4(Ipv4Addr::from(u32::from(byte(2) % 30) << 8)),
                    asn: (byte(2) % 4 > 0).then(|| u32::from(byte(2) % 30)),
                    weight: size as u32,
                };
                if world.switch.connected(world.now, ConnId(conn), who).is_ok() {
                    assert!(!world.draining && world.keys.insert(conn, BTreeSet::new()).is_none());
                    connected += 1;
                }
            }
            3 => {
                world.switch.disconnected(world.now, ConnId(conn));
                world.keys.remove(&conn);
            }
            4 | 5 => world.register(conn, number, &vec![byte(1); size * 3]),
            6 => {
                world.switch.unregister(world.now, ConnId(conn), key(number));
                world.keys.get_mut(&conn).map(|keys| keys.remove(&number));
            }
            // Bytes of the input, whatever they are; those of a seed are a frame.
            7 => {
                let (frame, after) = rest.split_at(rest.len().min(size * 4));
                rest = after;
                world.forward(conn, &Bytes::copy_from_slice(frame));
            }
            8..=11 => {
                let mut frame = vec![byte(0); 80 + size * 4 * usize::from(step & 3)];
                frame[..64].fill(0);
                frame[..6].copy_from_slice(b"BPC1\x02\x01");
                frame[51] = byte(0);
                frame[59] = 1;
                frame[8..16].copy_from_slice(&network.0);
                frame[16..24].copy_from_slice(&key(number).0);
                let expiry_s = world.now.unix_s / 8 * 8 + u64::from(step >> 4) * 10;
                frame[52..56].copy_from_slice(&(expiry_s as u32).to_be_bytes());
                let payload_bytes = frame.len() as u32 - 80;
                frame[60..64].copy_from_slice(&payload_bytes.to_be_bytes());
                world.forward(conn, &Bytes::from(frame));
            }
            12 => {
                let height = u64::from(byte(1)) << (step >> 4);
                if let Ok(followers) =
                    world.switch.publish(world.now, ConnId(conn), (network, height), &vec![byte(2); size * 20])
                {
                    assert!(network == NETWORK && size * 20 <= 4096);
                    followers.iter().for_each(|follower| assert!(world.keys.contains_key(&follower.0), "who is gone"));
                }
            }
            13 => {
                if let Ok(kept) = world.switch.subscribe(ConnId(conn), network) {
                    assert!(kept.len() <= 64 && world.keys.contains_key(&conn));
                }
                assert!(world.switch.take(ConnId(conn), network).bodies.len() <= 64);
            }
            14 => drop(world.switch.blame(world.now, ConnId(conn), FAULTS[usize::from(byte(1) % 6)])),
            _ if *step == 0xff => {
                world.switch.drain(world.now, 30_000);
                world.draining = true;
            }
            _ => world.switch.tick(world.now),
        }
        world.now.unix_s = BEGAN_S + world.now.us / 1_000_000;
        world.check();
    }
    assert_eq!(world.switch.drained(world.now).is_some(), world.draining);
    let tally = world.switch.take_tally();
    assert!(tally.frames_taken <= tally.frames_in && tally.stored_out <= tally.stored, "{tally:?}");
    assert!(connected > 0 || tally.frames_taken == 0);
    (0..24).for_each(|conn| world.switch.disconnected(world.now, ConnId(conn)));
    world.now.us += 4_000_000_000;
    world.now.unix_s += 4_000;
    world.switch.tick(world.now);
    let sizes = world.switch.sizes();
    assert_eq!((sizes.connections, sizes.accounts, sizes.prefixes, sizes.asns), (0, 0, 0, 0));
    assert_eq!((sizes.keys, sizes.stored, sizes.stored_bytes), (0, 0, 0));
});
