//! The figures of a pinner, for Prometheus. What is counted elsewhere is set when somebody asks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bpi_protocol::frame::Refusal;
use bpi_transport::mesh::Counts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Something and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whose {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// All figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    repairs: Family<Outcome, Counter>,
    shards: Family<State, Gauge>,
    used: Family<Whose, Gauge>,
    quota: Family<Whose, Gauge>,
    bpci_refused: Family<Why, Counter>,
    /// Bytes that were scrubbed.
    pub scrubbed: Counter,
    /// Batches.
    pub batches: Gauge,
    /// Bytes of shards and their trees.
    pub disk_used: Gauge,
    /// Bytes that are free; -1: nobody says.
    pub disk_free: Gauge,
    /// Entries of the log.
    pub log: Gauge,
    /// Age of the oldest scrub.
    pub unscrubbed: Gauge,
    /// Batches that wait for their pieces.
    pub staging_offers: Gauge,
    /// Bytes of them.
    pub staging_bytes: Gauge,
    /// Relays connected.
    pub relays: Gauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("bpi_pinner");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64, std::sync::atomic::AtomicI64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let batches = gauge("batches", "Batches of which shards are kept");
        let disk_used = gauge("disk_used_bytes", "Bytes of shards and their trees");
        let disk_free = gauge("disk_free_bytes", "Bytes that are free where shards are; -1 when nobody says");
        let log = gauge("log_entries", "Entries of the log");
        let unscrubbed = gauge("unscrubbed_seconds", "How long ago the batch was scrubbed that was not for longest");
        let staging_offers = gauge("staging_offers", "Batches that wait for their pieces");
        let staging_bytes = gauge("staging_bytes", "Bytes of batches that wait for their pieces");
        let relays = gauge("relays", "Relays connected");
        let (scrubbed, requests, repairs) =
            (Counter::<u64, AtomicU64>::default(), Family::default(), Family::default());
        let (shards, used, quota, bpci_refused) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        registry.register_with_unit("scrubbed", "Bytes that were scrubbed", Unit::Bytes, scrubbed.clone());
        registry.register("requests", "What was asked, and what became of it", Family::clone(&requests));
        registry.register(
            "repairs",
            "Shards that were to be made anew, and what became of it",
            Family::clone(&repairs),
        );
        registry.register("shards", "Shards by state", Family::clone(&shards));
        registry.register("tenant_used_bytes", "Bytes of a tenant's shards and their trees", Family::clone(&used));
        registry.register("tenant_quota_bytes", "Bytes that a tenant may have", Family::clone(&quota));
        registry.register("bpci_refused", "Frames of BPCI that were refused, by reason", Family::clone(&bpci_refused));
        Arc::new(Self {
            registry,
            requests,
            repairs,
            shards,
            used,
            quota,
            bpci_refused,
            scrubbed,
            batches,
            disk_used,
            disk_free,
            log,
            unscrubbed,
            staging_offers,
            staging_bytes,
            relays,
        })
    }

    /// Something was asked.
    pub fn request(&self, kind: &'static str, result: &'static str) {
        self.requests.get_or_create(&Outcome { kind, result }).inc();
    }

    /// A shard was made anew, or could not be.
    pub fn repair(&self, result: &'static str) {
        self.repairs.get_or_create(&Outcome { kind: "shard", result }).inc();
    }

    /// How often repairs ended so.
    pub fn repairs(&self, result: &'static str) -> u64 {
        self.repairs.get_or_create(&Outcome { kind: "shard", result }).get()
    }

    /// Shards of a state.
    pub fn set_shards(&self, state: &'static str, count: u64) {
        self.shards.get_or_create(&State { state }).set(count as i64);
    }

    /// What a tenant has and may have.
    pub fn set_tenant(&self, tenant: &[u8; 16], used: u64, quota: u64) {
        let whose = Whose { tenant: hex::encode(tenant) };
        self.used.get_or_create(&whose).set(used as i64);
        self.quota.get_or_create(&whose).set(i64::try_from(quota).unwrap_or(i64::MAX));
    }

    /// What a mesh has counted so far.
    pub fn carried(&self, counts: &Counts) {
        for (refusal, total) in Refusal::ALL.iter().zip(&counts.refused) {
            let counter = self.bpci_refused.get_or_create(&Why { reason: refusal.name() });
            let total = total.load(std::sync::atomic::Ordering::Relaxed);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
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
