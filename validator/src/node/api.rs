//! What a node tells and takes over HTTP: for this host, or a private network behind something that knows its users.
//!
//! ```text
//! GET  /health                              200 while heights move, else 503, with the reason
//! GET  /metrics                             for Prometheus
//! GET  /v1/status                           chain, height, round, peers, leaves
//! GET  /v1/headers/{height}                 a final header and its seal; "latest" for the last one
//! GET  /v1/light/{height}                   the same by the one signature of the validators' key, if it was made here; "latest" makes it
//! GET  /v1/checkpoint                       the log's head, signed by the peer key (C2SP tlog-checkpoint)
//! GET  /v1/proofs/inclusion?tenant=&leaf=   where a leaf is in the log, and its proof (RFC 9162); &size= for an older head
//! GET  /v1/proofs/finality?tenant=&leaf=    that, the last header, its seal and its validators, as one file: `finality.bin` of evidence
//! GET  /v1/proofs/consistency?first=&second=
//! GET  /v1/proofs/availability?da_root=     where a batch is attested, as bytes: an answer `Proofs` to an agent (protocol::mesh::validator); &tenant= for whose
//! POST /v1/leaves                           {"tenant": "<16 bytes in hex>", "leaves": ["<32 bytes in hex>", …]}
//! ```
//!
//! A leaf that is taken (202) waits in memory and may be lost with this node: it is kept for good when its proof can be had.

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bpi_protocol::consensus::header::{LogHead, Seed};
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::log::Hash;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use crate::contents::leaf::{Leaf, TenantId};
use crate::durable::headers::Kept;

/// Leaves of one request, at most.
const LEAVES_MAX: usize = 1024;
/// Bytes of a request, at most: so many leaves in JSON.
const REQUEST_BYTES_MAX: usize = 128 * 1024;
const NOT_LOGGED: &str = "the leaf is not in the log; it may still wait";
const NOT_ATTESTED: &str = "no final header that is known here attests the batch; its attestation may still wait";
/// Questions that wait for the host, at most; more are answered 503.
pub const ASKS_MAX: usize = 64;

/// What the API asks of the host.
#[derive(Debug)]
pub enum Ask {
    /// How it goes.
    Status(oneshot::Sender<Status>),
    /// Take these leaves.
    Submit(Vec<Leaf>, oneshot::Sender<Submitted>),
    /// A final header; the last one for `None`.
    Header(Option<Height>, oneshot::Sender<Result<Option<Kept>, String>>),
    /// A header that is final by one signature; the last such one for `None`.
    Light(Option<Height>, oneshot::Sender<Result<Option<Light>, String>>),
    /// The signed head of the log.
    Checkpoint(oneshot::Sender<Result<String, String>>),
    /// Where a leaf is, in the log of a size.
    Inclusion(Leaf, Option<u64>, oneshot::Sender<Result<Option<Inclusion>, String>>),
    /// The same with what makes it final, as bytes ([`bpi_protocol::finality`]).
    Finality(Leaf, oneshot::Sender<Result<Option<Vec<u8>>, String>>),
    /// Where a batch is attested, as bytes of [`bpi_protocol::mesh::validator::Answer::Proofs`].
    Availability(Hash, Option<TenantId>, oneshot::Sender<Result<Option<Vec<u8>>, String>>),
    /// That the log of one size is the beginning of that of another.
    Consistency(u64, u64, oneshot::Sender<Result<Consistency, String>>),
}

/// How a node does.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Heights move.
    pub healthy: bool,
    /// If they do not, why.
    pub reason: String,
    /// The chain, in hex.
    pub chain: String,
    /// Its name.
    pub name: String,
    /// The last final height.
    pub height: u64,
    /// Its digest, in hex.
    pub digest: String,
    /// Its time, in ms since 1970.
    pub time_ms: u64,
    /// The round of the height in progress.
    pub round: u32,
    /// Whether this node signs, and if not, why.
    pub votes: &'static str,
    /// Validators of the height in progress.
    pub validators: usize,
    /// The epoch of the last header.
    pub epoch: u64,
    /// The key that they share, in hex. `None`: they have none yet.
    pub group_key: Option<String>,
    /// The ceremony in progress. `None`: there is none.
    pub ceremony: Option<&'static str>,
    /// Peers connected.
    pub peers: usize,
    /// Leaves that wait.
    pub waiting: usize,
    /// Leaves of the log that this node has, and of that of the last header.
    pub log: [u64; 2],
    /// Attestations that wait.
    pub attestations: usize,
    /// What came of this node's probes of each pinner of the genesis.
    pub pinners: Vec<Pinned>,
}

/// What came of probes of a pinner.
#[derive(Clone, Debug, Serialize)]
pub struct Pinned {
    /// Its identity, in hex.
    pub identity: String,
    /// Where it stands, by the genesis.
    pub region: String,
    /// Leaves that came and are of their batch.
    pub right: u64,
    /// Something else came.
    pub wrong: u64,
    /// It said no.
    pub refused: u64,
    /// Nothing came in time.
    pub unanswered: u64,
}

/// A header that is final by one signature.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Light {
    /// Its height.
    pub height: u64,
    /// Its digest, in hex.
    pub digest: String,
    /// Header, round and signature, in hex ([`bpi_protocol::consensus::light::LightProof`]).
    pub proof: String,
    /// The key that it is checked with, in hex: whoever checks must know it from elsewhere.
    pub group_key: String,
}

/// What became of leaves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Submitted {
    /// Taken.
    pub accepted: usize,
    /// Not taken, by reason.
    pub refused: Vec<Refused>,
}

/// A leaf that was not taken.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Which, in hex.
    pub leaf: String,
    /// Why.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// Where a leaf is, and that it is there.
#[derive(Clone, Debug, Serialize)]
pub struct Inclusion {
    /// Its place.
    pub index: u64,
    /// Leaves of the log.
    pub size: u64,
    /// The root, in hex.
    pub root: String,
    /// Hashes from the leaf up, in hex.
    pub path: Vec<String>,
}

/// That a log has only grown.
#[derive(Clone, Debug, Serialize)]
pub struct Consistency {
    /// The sizes.
    pub sizes: [u64; 2],
    /// The roots, in hex.
    pub roots: [String; 2],
    /// Hashes, in hex.
    pub path: Vec<String>,
}

#[derive(Clone)]
struct Shared {
    asks: mpsc::Sender<Ask>,
    metrics: Arc<Metrics>,
}

/// Why a request got no answer.
enum Trouble {
    Bad(String),
    Unknown(String),
    Busy,
    Failed(String),
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Bad(error) => (StatusCode::BAD_REQUEST, error),
            Self::Unknown(error) => (StatusCode::NOT_FOUND, error),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too many questions wait; ask again".to_owned()),
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
        };
        (status, Json(serde_json::json!({ "error": error }))).into_response()
    }
}

/// The routes.
pub fn router(asks: mpsc::Sender<Ask>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .route("/v1/headers/{height}", get(header_of))
        .route("/v1/light/{height}", get(light))
        .route("/v1/checkpoint", get(checkpoint))
        .route("/v1/proofs/inclusion", get(inclusion))
        .route("/v1/proofs/finality", get(finality))
        .route("/v1/proofs/consistency", get(consistency))
        .route("/v1/proofs/availability", get(availability))
        .route("/v1/leaves", post(submit))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(Shared { asks, metrics })
}

impl Shared {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Trouble> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(question(answer)).map_err(|_| Trouble::Busy)?;
        answered.await.map_err(|_| Trouble::Failed("the node is closing".to_owned()))
    }
}

async fn health(State(shared): State<Shared>) -> Result<Response, Trouble> {
    let status = shared.ask(Ask::Status).await?;
    let code = if status.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let said = serde_json::json!({ "healthy": status.healthy, "height": status.height, "reason": status.reason });
    Ok((code, Json(said)).into_response())
}

async fn metrics_text(State(shared): State<Shared>) -> Result<Response, Trouble> {
    let text = shared.metrics.text().map_err(|error| Trouble::Failed(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn status(State(shared): State<Shared>) -> Result<Json<Status>, Trouble> {
    shared.ask(Ask::Status).await.map(Json)
}

async fn header_of(State(shared): State<Shared>, Path(height): Path<String>) -> Result<Response, Trouble> {
    let wanted = wanted(&height)?;
    let kept = shared.ask(|answer| Ask::Header(wanted, answer)).await?.map_err(Trouble::Failed)?;
    let Some(kept) = kept else { return Err(Trouble::Unknown(format!("height {height} is not final here"))) };
    Ok(Json(header_json(&kept)).into_response())
}

/// `None`: the latest.
fn wanted(text: &str) -> Result<Option<Height>, Trouble> {
    match text {
        "latest" => Ok(None),
        text => match text.parse() {
            Ok(height) => Ok(Some(Height(height))),
            Err(_) => Err(Trouble::Bad(format!("{text:?} is no height; give a number or \"latest\""))),
        },
    }
}

async fn light(State(shared): State<Shared>, Path(height): Path<String>) -> Result<Json<Light>, Trouble> {
    let wanted = wanted(&height)?;
    let found = shared.ask(|answer| Ask::Light(wanted, answer)).await?.map_err(Trouble::Failed)?;
    let unknown = || Trouble::Unknown(format!("height {height} has no seal by the validators' key here"));
    found.map(Json).ok_or_else(unknown)
}

fn header_json((header, seal): &Kept) -> serde_json::Value {
    let seal_bytes = seal.as_ref().map(|seal| {
        let mut out = bpi_protocol::consensus::bytes::Writer::new();
        seal.write(&mut out);
        hex::encode(out.done())
    });
    serde_json::json!({
        "height": header.height.0,
        "digest": hex::encode(header.digest().0),
        "parent": hex::encode(header.parent.0),
        "round": header.round.0,
        "timeMs": header.time.0,
        "proposer": header.proposer.0,
        "receipts": { "size": header.receipts.size, "root": hex::encode(header.receipts.root) },
        "inclusionListRoot": hex::encode(header.inclusion_list_root),
        "inbox": { "height": header.inbox.height, "hash": hex::encode(header.inbox.hash) },
        "poh": { "count": header.poh.count, "hash": hex::encode(header.poh.hash) },
        "epoch": header.epoch.0,
        "validators": hex::encode(header.validators.0),
        "nextValidators": hex::encode(header.next_validators.0),
        "seed": match header.seed {
            Seed::RoundRobin => None,
            Seed::Threshold(signature) => Some(hex::encode(signature.0)),
        },
        "header": hex::encode(header.to_bytes()),
        "seal": seal_bytes,
    })
}

async fn checkpoint(State(shared): State<Shared>) -> Result<String, Trouble> {
    shared.ask(Ask::Checkpoint).await?.map_err(Trouble::Failed)
}

#[derive(Deserialize)]
struct InclusionQuery {
    tenant: String,
    leaf: String,
    size: Option<u64>,
}

async fn inclusion(
    State(shared): State<Shared>,
    Query(query): Query<InclusionQuery>,
) -> Result<Json<Inclusion>, Trouble> {
    let leaf = leaf_of(tenant_of(&query.tenant)?, &query.leaf)?;
    let found = shared.ask(|answer| Ask::Inclusion(leaf, query.size, answer)).await?.map_err(Trouble::Bad)?;
    found.map(Json).ok_or_else(|| Trouble::Unknown(NOT_LOGGED.to_owned()))
}

#[derive(Deserialize)]
struct FinalityQuery {
    tenant: String,
    leaf: String,
}

async fn finality(State(shared): State<Shared>, Query(query): Query<FinalityQuery>) -> Result<Response, Trouble> {
    let leaf = leaf_of(tenant_of(&query.tenant)?, &query.leaf)?;
    let found = shared.ask(|answer| Ask::Finality(leaf, answer)).await?.map_err(Trouble::Failed)?;
    let Some(proof) = found else { return Err(Trouble::Unknown(NOT_LOGGED.to_owned())) };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], proof).into_response())
}

#[derive(Deserialize)]
struct AvailabilityQuery {
    da_root: String,
    tenant: Option<String>,
}

async fn availability(
    State(shared): State<Shared>,
    Query(query): Query<AvailabilityQuery>,
) -> Result<Response, Trouble> {
    let mut da_root = [0; 32];
    hex::decode_to_slice(&query.da_root, &mut da_root).map_err(|_| {
        Trouble::Bad(format!("da_root has to be 32 bytes in hex, not {} characters", query.da_root.len()))
    })?;
    let tenant = query.tenant.as_deref().map(tenant_of).transpose()?;
    let found = shared.ask(|answer| Ask::Availability(da_root, tenant, answer)).await?.map_err(Trouble::Failed)?;
    let Some(proof) = found else { return Err(Trouble::Unknown(NOT_ATTESTED.to_owned())) };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], proof).into_response())
}

#[derive(Deserialize)]
struct ConsistencyQuery {
    first: u64,
    second: u64,
}

async fn consistency(
    State(shared): State<Shared>,
    Query(query): Query<ConsistencyQuery>,
) -> Result<Json<Consistency>, Trouble> {
    let ask = |answer| Ask::Consistency(query.first, query.second, answer);
    shared.ask(ask).await?.map(Json).map_err(Trouble::Bad)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    tenant: String,
    leaves: Vec<String>,
}

async fn submit(State(shared): State<Shared>, Json(said): Json<Submission>) -> Result<Response, Trouble> {
    if said.leaves.len() > LEAVES_MAX {
        return Err(Trouble::Bad(format!("{} leaves; a request has at most {LEAVES_MAX}", said.leaves.len())));
    }
    let tenant = tenant_of(&said.tenant)?;
    let leaves = said.leaves.iter().map(|text| leaf_of(tenant, text)).collect::<Result<_, _>>()?;
    let submitted = shared.ask(|answer| Ask::Submit(leaves, answer)).await?;
    let full = submitted.accepted == 0 && submitted.refused.iter().any(|refused| refused.reason.ends_with("full"));
    let status = if full { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::ACCEPTED };
    Ok((status, Json(submitted)).into_response())
}

fn tenant_of(text: &str) -> Result<TenantId, Trouble> {
    let mut tenant = [0; 16];
    hex::decode_to_slice(text, &mut tenant)
        .map_err(|_| Trouble::Bad(format!("tenant has to be 16 bytes in hex, not {} characters", text.len())))?;
    Ok(TenantId(tenant))
}

fn leaf_of(tenant: TenantId, text: &str) -> Result<Leaf, Trouble> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash)
        .map_err(|_| Trouble::Bad(format!("a leaf has to be 32 bytes in hex, not {} characters", text.len())))?;
    Ok(Leaf { tenant, hash })
}

/// A root in hex.
pub(super) fn root_of(head: &LogHead) -> String {
    hex::encode(head.root)
}
