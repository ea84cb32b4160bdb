//! What the switch costs for frames of 1 150 bytes: to one recipient and to three, a duplicate, a flood over its budget; each with the digest
//! made on the way and, where there is one, with the digest made before, which is what is spent while the switch is locked.
//! All in processor time of the thread: on a shared machine wall time says how busy the others are.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bpi_relay::budget::Rates;
use bpi_relay::envelope::KeyId;
use bpi_relay::fingerprint::Fingerprint;
use bpi_relay::peer::{ConnId, Role, Who};
use bpi_relay::switch::{Now, Settings, Switch};
use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

const FRAME_BYTES: usize = 1_150;
/// Peers that are connected and have a key each: a relay's tables are never hot with one entry.
const PEERS: u32 = 1_000;
const UNIX_S: u64 = 1_800_000_000;

/// Processor time of the thread that measures, shown as wall time is.
struct ProcessorTime;

fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("this clock never goes below zero")
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        spent()
    }

    fn end(&self, start: Duration) -> Duration {
        spent().saturating_sub(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn key(number: u32) -> KeyId {
    KeyId((u64::from(number) << 32 | 0x5eed).to_be_bytes())
}

fn frame(to: u32) -> Bytes {
    let mut frame = vec![0x5a; FRAME_BYTES];
    frame[..4].copy_from_slice(b"BPC1");
    // DATA, suite 1, the whole message.
    (frame[4], frame[5], frame[6], frame[7]) = (2, 1, 0, 0);
    frame[56..60].copy_from_slice(&[0, 0, 0, 1]);
    frame[16..24].copy_from_slice(&key(to).0);
    frame[52..56].copy_from_slice(&(UNIX_S as u32 + 60).to_be_bytes());
    frame[60..64].copy_from_slice(&(FRAME_BYTES as u32 - 80).to_be_bytes());
    frame.into()
}

/// `PEERS` peers; key `n` is taken by `fan_out` of them.
fn switch(fan_out: u32, bytes_per_s: u64) -> Switch {
    let rates = Rates { bytes_per_s, frames_per_s: bytes_per_s, ..Rates::default() };
    let mut switch = Switch::new(Settings { rates, seed: [0x39; 16], ..Settings::default() });
    for peer in 0..PEERS {
        let who = Who {
            spiffe: format!("spiffe://mesh.example/agent/{peer}"),
            role: Role::Agent,
            addr: IpAddr::V4(Ipv4Addr::from(peer << 8)),
            asn: Some(peer % 50),
            weight: 1,
        };
        switch.connected(Now::default(), ConnId(u64::from(peer)), who).expect("there is room");
    }
    for peer in 0..PEERS {
        for next in 0..fan_out {
            let conn = ConnId(u64::from((peer + next) % PEERS));
            switch.register(Now { us: 0, unix_s: UNIX_S }, conn, key(peer), b"certificate").expect("there is room");
        }
    }
    switch
}

/// Frames in turn, from and to peers in turn. Each is in the processor's cache, as it is when it has just been decrypted.
struct Turns {
    frames: Vec<Bytes>,
    /// Digests for when they are given: more than two generations remember, so that none is a duplicate. None: frames stay as they are.
    prints: Vec<Fingerprint>,
    turn: u64,
}

impl Turns {
    fn new(distinct: bool) -> Self {
        let frames = (0..100).map(|number| frame(number * 10)).collect();
        let prints = if distinct { 1_000_000 } else { 100 };
        let prints = (0..prints).map(|number: u32| Fingerprint::of(&number.to_be_bytes())).collect();
        Self { frames, prints, turn: 0 }
    }

    fn next(&mut self, fresh: bool) -> (Now, ConnId, &Bytes, Fingerprint) {
        self.turn += 1;
        let at = self.turn as usize;
        let (place, print) = (at % self.frames.len(), self.prints[at % self.prints.len()]);
        let frame = &mut self.frames[place];
        if fresh {
            let mut bytes = std::mem::take(frame).try_into_mut().expect("nobody else holds it");
            bytes[44..52].copy_from_slice(&self.turn.to_be_bytes());
            *frame = bytes.freeze();
        }
        let from = ConnId(self.turn * 7 % u64::from(PEERS));
        (Now { us: 1_000_000 + self.turn, unix_s: UNIX_S }, from, frame, print)
    }
}

fn both(group: &mut BenchmarkGroup<'_, ProcessorTime>, name: &str, switch: &mut Switch, distinct: bool) {
    let turns = &mut Turns::new(distinct);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let (now, from, frame, _) = turns.next(distinct);
            black_box(switch.forward(now, from, frame))
        });
    });
    group.bench_function(format!("{name}, digest given"), |bencher| {
        bencher.iter(|| {
            let (now, from, frame, print) = turns.next(false);
            black_box(switch.admit(now, from, frame).map(|admitted| switch.hand_on(now, admitted, print, frame)))
        });
    });
    let tally = switch.take_tally();
    eprintln!("{name}: {} in, {} taken, {} copies", tally.frames_in, tally.frames_taken, tally.frames_out);
}

fn forward(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("forward");
    group.throughput(Throughput::Elements(1)).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    group.bench_function("digest alone", |bencher| {
        let frame = frame(1);
        bencher.iter(|| Fingerprint::of(black_box(&frame)));
    });
    both(&mut group, "fan-out 1", &mut switch(1, 1_000_000_000_000), true);
    both(&mut group, "fan-out 3", &mut switch(3, 1_000_000_000_000), true);
    both(&mut group, "duplicate", &mut switch(1, 1_000_000_000_000), false);
    both(&mut group, "flood over its budget", &mut switch(1, 65_536), false);
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = forward
}
criterion_main!(benches);
