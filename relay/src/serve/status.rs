//! Figures for who runs the relay, on loopback: it has no lock of its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::hop::Hops;

/// The media type of OpenMetrics 1.0.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn serve(listener: TcpListener, hops: Arc<Hops>) {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .with_state(hops);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the figures are not served any more");
    }
}

async fn health(State(hops): State<Arc<Hops>>) -> (StatusCode, &'static str) {
    match hops.switch().drained(hops.clock.now()) {
        None => (StatusCode::OK, "ok\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics(State(hops): State<Arc<Hops>>) -> Response {
    hops.metrics.look(&mut hops.switch());
    match hops.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What a relay says of itself to whoever asks.
pub(super) fn page(hops: &Hops) -> String {
    let sizes = hops.switch().sizes();
    let draining = hops.switch().drained(hops.clock.now()).is_some();
    let said = serde_json::json!({
        "id": hops.identity.id().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "connections": sizes.connections,
        "keys": sizes.keys_registered,
        "stored_frames": sizes.stored,
        "stored_bytes": sizes.stored_bytes,
        "draining": draining,
    });
    format!("{said}\n")
}

async fn status(State(hops): State<Arc<Hops>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], page(&hops)).into_response()
}
