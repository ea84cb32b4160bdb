//! What a pinner tells over HTTP: for this host alone.
//!
//! ```text
//! GET  /health                  200 while it can be reached, else 503, with the reason
//! GET  /metrics                 for Prometheus
//! GET  /v1/status               shards, bytes, tenants, the log's head
//! GET  /v1/batches/{da_root}    what is kept of a batch
//! POST /v1/scrub                all that is kept is to be read again, from now on
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bpi_transport::mesh::Mesh;
use serde_json::{Value, json};

use super::work::{Orders, Shown, now_s};
use crate::catalogue::{Catalogue, CatalogueError, Usage};
use crate::keeper::Policy;
use crate::metrics::Metrics;
use crate::store::Shards;

/// Tenants that are shown, at most.
const TENANTS_MAX: usize = 1024;

/// What is asked.
#[derive(Debug)]
pub struct Facts {
    /// Its identity.
    pub identity: [u8; 32],
    /// What holds here.
    pub policy: Policy,
    /// What is kept.
    pub catalogue: Arc<Catalogue>,
    /// Where.
    pub shards: Arc<dyn Shards>,
    /// What waits.
    pub shown: Arc<Shown>,
    /// The mesh. `None`: there are no relays.
    pub mesh: Option<Mesh>,
    /// What the scrubber is told.
    pub orders: Arc<Orders>,
    /// The figures.
    pub metrics: Arc<Metrics>,
}

/// Why a request got no answer.
enum Trouble {
    Bad(String),
    Unknown(String),
    Failed(String),
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Bad(error) => (StatusCode::BAD_REQUEST, error),
            Self::Unknown(error) => (StatusCode::NOT_FOUND, error),
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
        };
        (status, Json(json!({ "error": error }))).into_response()
    }
}

impl From<CatalogueError> for Trouble {
    fn from(error: CatalogueError) -> Self {
        Self::Failed(error.to_string())
    }
}

type Shared = State<Arc<Facts>>;

/// The routes.
pub fn router(facts: Arc<Facts>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/batches/{da_root}", get(batch))
        .route("/v1/scrub", post(scrub))
        .with_state(facts)
}

impl Facts {
    fn relays(&self) -> Option<usize> {
        self.mesh.as_ref().map(Mesh::relays_connected)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.shards.free_bytes().ok().flatten()
    }

    fn unscrubbed_s(&self) -> Result<u64, CatalogueError> {
        let oldest = self.catalogue.longest_unscrubbed()?;
        Ok(oldest.map_or(0, |(scrubbed_s, _)| now_s().saturating_sub(scrubbed_s)))
    }

    fn status(&self) -> Result<Value, CatalogueError> {
        let Usage { batches, shards, bad, bytes } = self.catalogue.total();
        let (head, under_way) = (self.catalogue.head(), self.shown.under_way());
        let tenant = |(tenant, usage): &(bpi_protocol::log::leaf::TenantId, Usage)| {
            let policy = self.policy.of(*tenant);
            json!({
                "tenant": hex::encode(tenant.0),
                "batches": usage.batches,
                "bytes": usage.bytes,
                "quotaBytes": policy.quota_bytes,
                "retentionDays": policy.retention_days,
                "legalHold": policy.legal_hold,
            })
        };
        let tenants: Vec<Value> = self.catalogue.usage().iter().take(TENANTS_MAX).map(tenant).collect();
        Ok(json!({
            "identity": hex::encode(self.identity),
            "chain": self.policy.chain.to_string(),
            "relays": self.relays(),
            "batches": batches,
            "shards": { "kept": shards - bad, "bad": bad },
            "bytes": { "used": bytes, "free": self.free_bytes() },
            "staging": { "offers": under_way.offers, "bytes": under_way.bytes },
            "unscrubbedS": self.unscrubbed_s()?,
            "log": { "length": head.length, "digest": hex::encode(head.digest) },
            "tenants": tenants,
        }))
    }

    fn fill_metrics(&self) -> Result<(), CatalogueError> {
        let Usage { batches, shards, bad, bytes } = self.catalogue.total();
        let (metrics, under_way) = (&self.metrics, self.shown.under_way());
        metrics.batches.set(batches as i64);
        metrics.set_shards("kept", shards - bad);
        metrics.set_shards("bad", bad);
        metrics.disk_used.set(bytes as i64);
        metrics.disk_free.set(self.free_bytes().map_or(-1, |free| free as i64));
        metrics.log.set(self.catalogue.head().length as i64);
        metrics.unscrubbed.set(self.unscrubbed_s()? as i64);
        metrics.staging_offers.set(under_way.offers as i64);
        metrics.staging_bytes.set(under_way.bytes as i64);
        metrics.relays.set(self.relays().unwrap_or(0) as i64);
        for (tenant, usage) in self.catalogue.usage().into_iter().take(TENANTS_MAX) {
            metrics.set_tenant(&tenant.0, usage.bytes, self.policy.of(tenant).quota_bytes);
        }
        if let Some(mesh) = &self.mesh {
            metrics.carried(mesh.counts());
        }
        Ok(())
    }
}

async fn health(State(facts): Shared) -> Result<Response, Trouble> {
    let bad = facts.catalogue.total().bad;
    let reason = match facts.relays() {
        Some(0) => "no relay is connected",
        None => "no relay is configured",
        Some(_) => "",
    };
    let code = if reason.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, Json(json!({ "healthy": reason.is_empty(), "reason": reason, "badShards": bad }))).into_response())
}

async fn metrics(State(facts): Shared) -> Result<Response, Trouble> {
    facts.fill_metrics()?;
    let text = facts.metrics.text().map_err(|error| Trouble::Failed(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn status(State(facts): Shared) -> Result<Json<Value>, Trouble> {
    Ok(Json(facts.status()?))
}

async fn batch(State(facts): Shared, Path(text): Path<String>) -> Result<Json<Value>, Trouble> {
    let mut root = [0; 32];
    hex::decode_to_slice(&text, &mut root)
        .map_err(|_| Trouble::Bad(format!("da_root has to be 32 bytes in hex, not {} characters", text.len())))?;
    let wrong = facts.catalogue.wrong(&root)?.is_some();
    let record = facts.catalogue.record(&root)?;
    let Some(record) = record else {
        let sentence = if wrong { "the batch is proved to be wrongly encoded" } else { "nothing is kept of the batch" };
        return Err(Trouble::Unknown(sentence.to_owned()));
    };
    let coding = record.batch.coding;
    Ok(Json(json!({
        "daRoot": text,
        "tenant": hex::encode(record.batch.tenant.0),
        "coding": { "k": coding.k(), "n": coding.n(), "length": coding.length() },
        "receipts": { "count": record.batch.receipts, "root": hex::encode(record.batch.receipts_root) },
        "kept": record.kept.iter().collect::<Vec<_>>(),
        "bad": record.bad.iter().collect::<Vec<_>>(),
        "bytes": record.bytes(),
        "agent": hex::encode(record.agent),
        "acceptedS": record.accepted_s,
        "untilS": record.until_s,
        "scrubbedS": record.scrubbed_s,
        "wrong": wrong,
    })))
}

async fn scrub(State(facts): Shared) -> Response {
    facts.orders.before_s.fetch_max(now_s(), Ordering::Relaxed);
    (StatusCode::ACCEPTED, Json(json!({ "batches": facts.catalogue.total().batches }))).into_response()
}
