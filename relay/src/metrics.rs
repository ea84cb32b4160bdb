//! What a relay counts, for Prometheus. No label takes a value from a stranger: all are roles, transports and reasons of this program.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::peer::Role;
use crate::switch::{Sizes, Switch};
use crate::tally::{DropReason, Tally};

/// Seconds of one handshake.
const HANDSHAKE_S: [f64; 12] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    role: &'static str,
    transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// How a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TLS over TCP.
    Tcp,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The peer is in.
    Done,
    /// TLS failed, or the certificate is none of the mesh.
    Failed,
    /// The switch refused the peer.
    Refused,
    /// It took too long.
    TimedOut,
}

impl Handshake {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
        }
    }
}

type Ratio = Gauge<f64, AtomicU64>;

/// All figures of a relay.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    frames_in: Counter,
    bytes_in: Counter,
    frames_taken: Counter,
    frames_out: Counter,
    bytes_out: Counter,
    stored: Counter,
    stored_out: Counter,
    registrations: Counter,
    published: Counter,
    closed: Counter,
    drops: Family<Why, Counter>,
    delivery: Ratio,
    keys: Gauge,
    keys_registered: Gauge,
    waiting_frames: Gauge,
    waiting_bytes: Gauge,
    memory_bytes: Gauge,
    connections: Family<Peer, Gauge>,
    handshakes: Family<Outcome, Counter>,
    /// Seconds from a peer's first bytes to its handshake's end.
    pub handshake: Histogram,
    /// Handshakes that were asked for a token first.
    pub retries: Counter,
    /// Datagrams that the proxy handed on, in either direction.
    pub proxied: Counter,
    /// Targets that the proxy refused.
    pub proxy_refused: Counter,
}

impl Metrics {
    /// All at zero, and every label there from the start: a rate needs a first value.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("bpi_relay");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let frames_in = counter("frames_in", "Frames that came, whatever became of them");
        let bytes_in = counter("frame_bytes_in", "Their bytes");
        let frames_taken = counter("frames_taken", "Frames that came and were handed on or stored");
        let frames_out = counter("frames_out", "Copies of frames handed to connections");
        let bytes_out = counter("frame_bytes_out", "Their bytes");
        let stored = counter("frames_stored", "Frames stored for a destination that was here a moment ago");
        let stored_out = counter("frames_stored_out", "Stored frames that were handed on at last");
        let registrations = counter("registrations", "Registrations of destination keys");
        let published = counter("headers_published", "Headers published by validators");
        let closed = counter("connections_closed", "Connections closed for misbehaviour");
        let retries = counter("retries", "Handshakes that were asked for a token first");
        let proxied = counter("proxied_datagrams", "Datagrams handed on by the proxy");
        let proxy_refused = counter("proxy_refused", "Targets that the proxy refused");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let keys = gauge("keys", "Destination keys that are known");
        let keys_registered = gauge("keys_registered", "Destination keys that somebody takes frames for");
        let waiting_frames = gauge("store_frames", "Frames that wait");
        let waiting_bytes = gauge("store_bytes", "Bytes that wait, with what each frame costs");
        let memory_bytes = gauge("memory_bytes", "Bytes that the tables of the switch take");
        let (drops, delivery) = (Family::<Why, Counter>::default(), Ratio::default());
        let connections = Family::<Peer, Gauge>::default();
        let handshakes = Family::<Outcome, Counter>::default();
        let handshake = Histogram::new(HANDSHAKE_S);
        registry.register("drops", "Frames and copies that were dropped, by reason", drops.clone());
        registry.register(
            "delivery_ratio",
            "Copies that no queue refused, over copies, since the last look",
            delivery.clone(),
        );
        registry.register("connections", "Peers connected, by role and transport", connections.clone());
        registry.register("handshakes", "Handshakes, by how they ended", handshakes.clone());
        registry.register_with_unit("handshake", "Time of a handshake", Unit::Seconds, handshake.clone());
        for reason in DropReason::ALL {
            drop(drops.get_or_create(&Why { reason: reason.name() }));
        }
        for (role, transport) in Role::ALL.iter().flat_map(|role| [(role, Transport::Quic), (role, Transport::Tcp)]) {
            drop(connections.get_or_create(&Peer { role: role.as_str(), transport: transport.name() }));
        }
        for end in [Handshake::Done, Handshake::Failed, Handshake::Refused, Handshake::TimedOut] {
            drop(handshakes.get_or_create(&Outcome { outcome: end.name() }));
        }
        delivery.set(1.0);
        Arc::new(Self {
            registry,
            frames_in,
            bytes_in,
            frames_taken,
            frames_out,
            bytes_out,
            stored,
            stored_out,
            registrations,
            published,
            closed,
            drops,
            delivery,
            keys,
            keys_registered,
            waiting_frames,
            waiting_bytes,
            memory_bytes,
            connections,
            handshakes,
            handshake,
            retries,
            proxied,
            proxy_refused,
        })
    }

    /// Takes what the switch has counted since it was asked last. To be called at each look of Prometheus, with the switch locked.
    pub fn look(&self, switch: &mut Switch) {
        self.count(&switch.take_tally());
        let Sizes { keys, keys_registered, stored, stored_bytes, .. } = switch.sizes();
        self.keys.set(keys as i64);
        self.keys_registered.set(keys_registered as i64);
        self.waiting_frames.set(stored as i64);
        self.waiting_bytes.set(stored_bytes as i64);
        self.memory_bytes.set(switch.bytes() as i64);
    }

    /// Adds a tally.
    pub fn count(&self, tally: &Tally) {
        for (counter, count) in [
            (&self.frames_in, tally.frames_in),
            (&self.bytes_in, tally.bytes_in),
            (&self.frames_taken, tally.frames_taken),
            (&self.frames_out, tally.frames_out),
            (&self.bytes_out, tally.bytes_out),
            (&self.stored, tally.stored),
            (&self.stored_out, tally.stored_out),
            (&self.registrations, tally.registrations),
            (&self.published, tally.published),
            (&self.closed, tally.closed),
        ] {
            counter.inc_by(count);
        }
        for reason in DropReason::ALL {
            self.drops.get_or_create(&Why { reason: reason.name() }).inc_by(tally.dropped(reason));
        }
        if tally.frames_out > 0 {
            let refused = tally.dropped(DropReason::Undelivered).min(tally.frames_out);
            self.delivery.set((tally.frames_out - refused) as f64 / tally.frames_out as f64);
        }
    }

    /// A peer is connected.
    pub fn connected(&self, role: Role, transport: Transport) {
        self.connections.get_or_create(&Peer { role: role.as_str(), transport: transport.name() }).inc();
    }

    /// A peer is gone.
    pub fn disconnected(&self, role: Role, transport: Transport) {
        self.connections.get_or_create(&Peer { role: role.as_str(), transport: transport.name() }).dec();
    }

    /// A handshake has ended.
    pub fn shaken(&self, end: Handshake) {
        self.handshakes.get_or_create(&Outcome { outcome: end.name() }).inc();
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    ///
    /// # Errors
    /// Never in practice: a text grows in memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
