//! What an agent counts, for Prometheus.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bpi_class::{BatchState, Figures};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    included: Counter,
    evidence: Counter,
    troubles: Counter,
    malformed: Counter,
    lost: Counter,
    open: Gauge,
    kept: Gauge,
    records: Gauge,
    incidents: Gauge,
    relays: Gauge,
    oldest_s: Gauge<f64, AtomicU64>,
    snapshot_s: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Arc<Self> {
        let mut made = Self {
            registry: Registry::with_prefix("bpi_agent"),
            included: Counter::default(),
            evidence: Counter::default(),
            troubles: Counter::default(),
            malformed: Counter::default(),
            lost: Counter::default(),
            open: Gauge::default(),
            kept: Gauge::default(),
            records: Gauge::default(),
            incidents: Gauge::default(),
            relays: Gauge::default(),
            oldest_s: Gauge::default(),
            snapshot_s: Gauge::default(),
        };
        let registry = &mut made.registry;
        registry.register("receipts_included", "Receipts and aborts whose inclusion was proved", made.included.clone());
        registry.register("evidence_written", "Folders of evidence", made.evidence.clone());
        registry.register("troubles", "Answers that count for nothing, and refusals", made.troubles.clone());
        registry.register("answers_malformed", "Answers that could not be read", made.malformed.clone());
        registry.register("messages_lost", "Messages that their receiver did not acknowledge", made.lost.clone());
        registry.register("batches_open", "Batches that are not final", made.open.clone());
        registry.register("batches_kept", "Batches that pinners keep and no header commits to yet", made.kept.clone());
        registry.register("records", "Records that are in batches", made.records.clone());
        registry.register("incidents", "Incidents in the chain of them", made.incidents.clone());
        registry.register("relays_connected", "Relays that are connected", made.relays.clone());
        registry.register("oldest_pending_seconds", "Age of the oldest batch that is not final", made.oldest_s.clone());
        registry.register(
            "snapshot_timestamp_seconds",
            "When db.class was copied last, since 1970",
            made.snapshot_s.clone(),
        );
        Arc::new(made)
    }

    /// Leaves that were proved to be in the log.
    pub fn included(&self, count: u64) {
        self.included.inc_by(count);
    }

    /// Evidence that was written.
    pub fn evidence(&self, count: u64) {
        self.evidence.inc_by(count);
    }

    /// An answer that counts for nothing.
    pub fn trouble(&self) {
        self.troubles.inc();
    }

    /// An answer that could not be read.
    pub fn malformed(&self) {
        self.malformed.inc();
    }

    /// Messages that were not acknowledged.
    pub fn lost(&self, count: u64) {
        self.lost.inc_by(count);
    }

    /// Shows figures of db.class and of the network.
    pub fn show(&self, figures: &Figures, now_ms: u64, open: usize, relays: usize) {
        self.open.set(open as i64);
        self.kept.set(figures.batches_of(BatchState::Kept) as i64);
        self.records.set(figures.records as i64);
        self.incidents.set(figures.incidents as i64);
        self.relays.set(relays as i64);
        self.oldest_s.set(oldest_s(figures, now_ms));
    }

    /// db.class was copied.
    pub fn snapshot(&self, now_ms: u64) {
        self.snapshot_s.set(now_ms as f64 / 1000.0);
    }

    /// Relays that are connected.
    pub fn relays(&self) -> i64 {
        self.relays.get()
    }

    /// As Prometheus reads it.
    ///
    /// # Errors
    /// When a number cannot be formatted.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Age of the oldest batch that is not final, in s.
pub fn oldest_s(figures: &Figures, now_ms: u64) -> f64 {
    figures.oldest_pending_ms.map_or(0.0, |made_ms| now_ms.saturating_sub(made_ms) as f64 / 1000.0)
}
