//! What an agent tells over HTTP: for this host, or a private network.
//!
//! ```text
//! GET /health      200 while batches become final, else 503, with the reason
//! GET /metrics     for Prometheus
//! GET /v1/status   figures of db.class
//! ```

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bpi_class::{BatchState, Class};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics::{Metrics, oldest_s};
use crate::packing::unix_ms;
use crate::run::RunError;

/// Age of the oldest open batch from which on something is wrong, in s.
const OLD_S: f64 = 60.0;

#[derive(Clone)]
struct Shared {
    class: Arc<Class>,
    metrics: Arc<Metrics>,
}

/// Listens, if the configuration says where.
///
/// # Errors
/// [`RunError::Listen`].
pub async fn serve(
    config: &Config,
    class: &Arc<Class>,
    metrics: &Arc<Metrics>,
    stopped: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), RunError> {
    let Some(address) = &config.status else { return Ok(()) };
    let refused = |source| RunError::Listen { address: address.to_string(), field: "status", source };
    let shared = Shared { class: Arc::clone(class), metrics: Arc::clone(metrics) };
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(text))
        .route("/v1/status", get(status))
        .with_state(shared);
    bpi_program::api::serve(address, router, stopped, tasks).await.map_err(refused)
}

fn failed(error: impl std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(serde_json::json!({ "error": error.to_string() }))).into_response()
}

async fn health(State(shared): State<Shared>) -> Response {
    let figures = match shared.class.figures().await {
        Ok(figures) => figures,
        Err(error) => return failed(error),
    };
    let oldest = oldest_s(&figures, unix_ms());
    let reason = match (shared.metrics.relays(), oldest) {
        (0, _) => "no relay is connected".to_owned(),
        (_, oldest) if oldest > OLD_S => format!("the oldest batch has not become final for {oldest:.0} s"),
        _ => String::new(),
    };
    let code = if reason.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let said = serde_json::json!({ "healthy": reason.is_empty(), "reason": reason, "oldestPendingS": oldest });
    (code, Json(said)).into_response()
}

async fn text(State(shared): State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => failed(error),
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    match shared.class.figures().await {
        Ok(figures) => {
            let of = |state| figures.batches_of(state);
            Json(serde_json::json!({
                "batches": {
                    "packed": of(BatchState::Packed), "kept": of(BatchState::Kept),
                    "attested": of(BatchState::Attested), "final": of(BatchState::Final),
                },
                "records": figures.records,
                "receipts": figures.receipts,
                "included": figures.included,
                "incidents": figures.incidents,
                "oldestPendingS": oldest_s(&figures, unix_ms()),
                "relays": shared.metrics.relays(),
            }))
            .into_response()
        }
        Err(error) => failed(error),
    }
}
