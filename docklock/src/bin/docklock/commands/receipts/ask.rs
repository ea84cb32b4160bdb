//! What this host's agent knows of receipts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use bpi_agent_api::v1::{IncidentsRequest, Level, Receipt};
use bpi_agent_api::{AskError, Client, connect, of_container, of_record};
use docklock::spool::Boundary;
use serde::Serialize;

use crate::failure::Failure;

/// Words for how far a receipt has come.
pub(super) const LEVELS: [&str; 5] = ["seen", "packed", "kept", "included", FINAL];
/// The last of them.
pub(super) const FINAL: &str = "final";

/// How far a receipt has come.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reached {
    pub(super) level: &'static str,
    pub(super) boundary: String,
    pub(super) seq: u64,
    height: u64,
    /// The folder of its evidence; empty when the agent writes none.
    pub(super) evidence: String,
}

/// Something that somebody has to know.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) id: u64,
    time_ms: u64,
    pub(super) kind: String,
    pub(super) boundary: String,
    pub(super) container_id: String,
    pub(super) detail: String,
}

fn asked<T>(socket: &Path, ask: impl AsyncFnOnce(Client) -> Result<T, AskError>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Failure::System { deed: "start a thread that asks the agent", source })?;
    Ok(runtime.block_on(async { ask(connect(socket).await?).await })?)
}

fn receipt(boundary: Option<&Boundary>, wanted: &str) -> Receipt {
    let boundary = boundary.map(Boundary::as_str).unwrap_or_default();
    match wanted.parse() {
        Ok(seq) => of_record(boundary, seq),
        Err(_) => of_container(boundary, wanted),
    }
}

/// Waits until a receipt has come so far; each level is told on standard error.
pub(super) fn wait(socket: &Path, boundary: Option<&Boundary>, wanted: &str, level: &str) -> Result<Reached, Failure> {
    // The parser lets only levels pass.
    let level = Level::of_word(level).unwrap_or(Level::Final);
    let last = asked(socket, async |mut client| {
        let tell = |reply: &bpi_agent_api::v1::WaitReply| {
            // Who does not listen to how far it is has nothing to lose.
            writeln!(std::io::stderr(), "{}", reply.level().word()).unwrap_or_default();
        };
        client.wait(receipt(boundary, wanted), level, tell).await
    })?;
    Ok(Reached {
        level: last.level().word(),
        boundary: last.boundary,
        seq: last.seq,
        height: last.height,
        evidence: last.evidence,
    })
}

/// The files of its evidence.
pub(super) fn evidence(socket: &Path, reached: &Reached) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let wanted = of_record(&reached.boundary, reached.seq);
    Ok(asked(socket, async |mut client| client.evidence(wanted).await)?.into_iter().collect())
}

/// The newest incidents.
pub(super) fn incidents(socket: &Path) -> Result<Vec<Told>, Failure> {
    let reply =
        asked(socket, async |mut client| Ok(client.raw().incidents(IncidentsRequest::default()).await?.into_inner()))?;
    let told = reply.incidents.into_iter().map(|incident| Told {
        id: incident.id,
        time_ms: incident.time_ms,
        kind: incident.kind,
        boundary: incident.boundary,
        container_id: incident.container_id,
        detail: incident.detail,
    });
    Ok(told.collect())
}
