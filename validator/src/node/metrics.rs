//! What a node counts, for Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bpi_protocol::frame::Refusal;
use bpi_transport::mesh::Counts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds from a header's time to its finality here.
const FINALITY_S: [f64; 14] = [0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0];
/// Seconds of one check or one write.
const SHORT_S: [f64; 12] = [0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Probed {
    pinner: String,
    verdict: &'static str,
}

type Share = Gauge<f64, AtomicU64>;

/// All figures of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The last final height.
    pub height: Gauge,
    /// The round of the height in progress.
    pub round: Gauge,
    /// The epoch of the last header.
    pub epoch: Gauge,
    /// Peers connected.
    pub peers: Gauge,
    /// Relays that are connected.
    pub relays: Gauge,
    /// Leaves that wait.
    pub mempool: Gauge,
    /// Tenants that have leaves waiting.
    pub tenants: Gauge,
    /// Attestations that wait.
    pub attestations: Gauge,
    /// Blocks of the first layer between what is known and what is served.
    pub inbox_lag: Gauge,
    /// Leaves of the log.
    pub log: Gauge,
    /// Votes in the last seal over validators.
    pub participation: Share,
    /// Regions with a vote in the last seal over regions of the set.
    pub diversity: Share,
    /// Ticks a second of the chain of hashes, as agreed.
    pub poh_rate: Gauge,
    /// Ticks a second that one core makes.
    pub poh_capacity: Gauge,
    /// Headers that became final while this node ran.
    pub headers: Counter,
    /// Of them its own.
    pub proposed: Counter,
    /// Rounds that ended without a header.
    pub round_changes: Counter,
    /// Proofs that a validator has signed two things.
    pub evidence: Counter,
    /// Batches that final headers attest, while this node ran.
    pub attested: Counter,
    /// Batches that were proved to be wrongly encoded.
    pub wrong_encodings: Counter,
    /// Of them those that a final header attests.
    pub wrong_attested: Counter,
    /// From a header's time to its finality here.
    pub finality: Histogram,
    /// One check of a signature or an aggregate.
    pub bls: Histogram,
    /// One durable write.
    pub durable: Histogram,
    sent: Family<Kind, Counter>,
    heard: Family<Kind, Counter>,
    unsent: Counter,
    refused: Family<Why, Counter>,
    bpci: Family<Kind, Counter>,
    bpci_refused: Family<Why, Counter>,
    probes: Family<Probed, Counter>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("bpi_validator");
        let finality = Histogram::new(FINALITY_S);
        let (bls, durable) = (Histogram::new(SHORT_S), Histogram::new(SHORT_S));
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let (height, round) = (gauge("height", "Last final height"), gauge("round", "Round of the height in progress"));
        let epoch = gauge("epoch", "Epoch of the last header");
        let peers = gauge("peers", "Peers connected");
        let relays = gauge("relays", "Relays connected");
        let mempool = gauge("mempool_leaves", "Leaves that wait for a header");
        let tenants = gauge("mempool_tenants", "Tenants that have leaves waiting");
        let attestations = gauge("attestations", "Attestations that wait for a header");
        let inbox_lag = gauge("inbox_lag_blocks", "Blocks of the first layer between what is known and what is served");
        let log = gauge("log_leaves", "Leaves of the log of receipts");
        let poh_rate = gauge("poh_ticks_per_second", "Agreed rate of the chain of hashes");
        let poh_capacity = gauge("poh_capacity_ticks_per_second", "Ticks a second that one core of this machine makes");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let headers = counter("headers", "Headers that became final");
        let proposed = counter("headers_proposed", "Headers of this node that became final");
        let round_changes = counter("round_changes", "Rounds that ended without a header");
        let evidence = counter("equivocations", "Proofs that a validator has signed two things for one step");
        let attested = counter("attested_batches", "Batches that final headers attest");
        let wrong_encodings = counter("wrong_encodings", "Batches that were proved to be wrongly encoded");
        let wrong_attested = counter("wrong_encodings_attested", "Of them those that a final header attests");
        let unsent = counter("frames_dropped", "Frames that a peer was too slow to take");
        let (participation, diversity) = (Share::default(), Share::default());
        let (sent, heard, refused) = (Family::default(), Family::default(), Family::default());
        registry.register("participation", "Votes in the last seal, over validators", participation.clone());
        registry.register("diversity", "Regions with a vote in the last seal, over regions", diversity.clone());
        registry.register("frames_sent", "Frames sent by kind", Family::clone(&sent));
        registry.register("frames_heard", "Frames heard by kind", Family::clone(&heard));
        registry.register("refused", "What was refused, by reason", Family::clone(&refused));
        let probes = Family::default();
        registry.register("probes", "Probes of pinners, by what came of them", Family::clone(&probes));
        let (bpci, bpci_refused) = (Family::default(), Family::default());
        registry.register(
            "bpci_frames",
            "Frames of BPCI, one for each relay that they went over",
            Family::clone(&bpci),
        );
        registry.register("bpci_refused", "Frames of BPCI that were refused, by reason", Family::clone(&bpci_refused));
        registry.register_with_unit(
            "finality",
            "From a header's time to its finality here",
            Unit::Seconds,
            finality.clone(),
        );
        registry.register_with_unit("bls_verify", "One check of a signature or a sum", Unit::Seconds, bls.clone());
        registry.register_with_unit("durable_write", "One durable write", Unit::Seconds, durable.clone());
        Arc::new(Self {
            registry,
            height,
            round,
            epoch,
            peers,
            relays,
            mempool,
            tenants,
            attestations,
            inbox_lag,
            log,
            participation,
            diversity,
            poh_rate,
            poh_capacity,
            headers,
            proposed,
            round_changes,
            evidence,
            attested,
            wrong_encodings,
            wrong_attested,
            finality,
            bls,
            durable,
            sent,
            heard,
            unsent,
            refused,
            bpci,
            bpci_refused,
            probes,
        })
    }

    /// Frames of a kind went out.
    pub fn sent(&self, kind: &'static str, frames: u64) {
        self.sent.get_or_create(&Kind { kind }).inc_by(frames);
    }

    /// A frame of a kind came in.
    pub fn heard(&self, kind: &'static str) {
        self.heard.get_or_create(&Kind { kind }).inc();
    }

    /// Frames were dropped because their peer was slow.
    pub fn unsent(&self, frames: u64) {
        self.unsent.inc_by(frames);
    }

    /// Something was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Why { reason }).inc();
    }

    /// Something came of a probe of a pinner.
    pub fn probed(&self, pinner: &[u8; 32], verdict: &'static str) {
        self.probes.get_or_create(&Probed { pinner: hex::encode(pinner), verdict }).inc();
    }

    /// What a mesh has counted so far.
    pub fn carried(&self, counts: &Counts) {
        let up_to = |counter: &Counter, total: &AtomicU64| {
            counter.inc_by(total.load(Ordering::Relaxed).saturating_sub(counter.get()));
        };
        for (kind, total) in [
            ("sent", &counts.frames_sent),
            ("again", &counts.frames_again),
            ("heard", &counts.frames_heard),
            ("left", &counts.frames_left),
            ("event-lost", &counts.events_lost),
            ("relay-suspected", &counts.relays_suspected),
            ("relay-evicted", &counts.relays_evicted),
        ] {
            up_to(&self.bpci.get_or_create(&Kind { kind }), total);
        }
        for (refusal, total) in Refusal::ALL.iter().zip(&counts.refused) {
            up_to(&self.bpci_refused.get_or_create(&Why { reason: refusal.name() }), total);
        }
    }

    /// How long something took.
    pub fn timed<T>(histogram: &Histogram, work: impl FnOnce() -> T) -> T {
        let began = std::time::Instant::now();
        let result = work();
        histogram.observe(began.elapsed().as_secs_f64());
        result
    }

    /// Seconds from a header's time to its finality.
    pub fn finalised(&self, after: Duration) {
        self.finality.observe(after.as_secs_f64());
        self.headers.inc();
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
