//! What containerd says has ended must have a record that closes it: a container without one is an incident, reported and chained.
//!
//! Events are hints: who was away hears none of what happened then, so after each subscription all containers are looked at. Always true: a container is
//! told of once for each of its ends. Absent on purpose: containers that were removed while nobody listened; their intents, without anything that
//! closes them, are told of by `docklock receipts gaps`.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpi_class::{Class, ClassError, NewIncident, RecordKind};
use bpi_driver::{Driver, DriverError, Event, Happening};
use bpi_protocol::chain::Record;
use tokio::sync::watch;

use crate::config::Config;
use crate::packing::unix_ms;
use crate::spool::{Chain, SpoolError};

/// How long a record may take after containerd has told of an end. DockLock makes it durable before it tells of the end itself.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait before containerd is asked again.
const PAUSE: Duration = Duration::from_secs(2);
/// Ends that wait to be looked into, at most; more are found when all containers are looked at again.
const ENDS_MAX: usize = 65_536;
/// Records of a boundary that are in no batch and are looked through, at most.
const LOOK_MAX: u64 = 16_384;

/// Why containers cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// containerd.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// db.class.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// An end that has to have a record.
#[derive(Clone, Debug)]
struct End {
    boundary: String,
    id: String,
    at_ms: u64,
    due: Instant,
}

/// What the records of a container say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// The last intent has what closes it.
    Closed,
    /// The last intent has nothing.
    Open { seq: u64 },
    /// There is not even an intent.
    Nothing,
}

/// Looks into what ends, until the task is ended. Each change of db.class is counted in `changes`.
pub async fn run(config: Arc<Config>, class: Arc<Class>, driver: Driver, changes: watch::Sender<u64>) {
    loop {
        if let Err(error) = listen(&config, &class, &driver, &changes).await {
            tracing::warn!(%error, "containerd cannot be followed now");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(
    config: &Config,
    class: &Class,
    driver: &Driver,
    changes: &watch::Sender<u64>,
) -> Result<(), ReconcileError> {
    let mut events = driver.events().await?;
    let mut ends = VecDeque::new();
    for container in driver.containers().await?.into_iter().filter(|container| !container.is_running) {
        // One that was made and never started has no task, and needs no record.
        if let Some(exit) = container.exit {
            let (boundary, id, at_ms) = (container.namespace, container.id, exit.at_ms);
            ends.push_back(End { boundary, id, at_ms, due: Instant::now() + GRACE });
        }
    }
    loop {
        // One future until something comes: half of an answer must not be forgotten when an end is due.
        let mut next = pin!(events.next());
        let event = loop {
            let due = ends.front().map_or_else(|| Instant::now() + GRACE, |end: &End| end.due);
            tokio::select! {
                event = &mut next => break event?,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            while let Some(end) = ends.pop_front_if(|end| end.due <= Instant::now()) {
                look_into(config, class, &end, changes).await?;
            }
        };
        let Some(event) = event else { return Ok(()) };
        if let Event { namespace: boundary, id, at_ms, happening: Happening::Exited { .. }, is_known: true } = event
            && ends.len() < ENDS_MAX
        {
            ends.push_back(End { boundary, id, at_ms, due: Instant::now() + GRACE });
        }
    }
}

async fn look_into(
    config: &Config,
    class: &Class,
    end: &End,
    changes: &watch::Sender<u64>,
) -> Result<(), ReconcileError> {
    let detail = match said(config, class, &end.boundary, &end.id).await? {
        Said::Closed => return Ok(()),
        Said::Open { seq } => format!("it ended, and nothing closes its intent, record {seq}"),
        Said::Nothing => "it ended, and there is neither an intent nor a receipt of it".to_owned(),
    };
    tracing::warn!(boundary = end.boundary, container_id = end.id, detail, "incident");
    let new = NewIncident {
        what: format!("no-receipt {}/{} {}", end.boundary, end.id, end.at_ms),
        time_ms: unix_ms(),
        kind: "no-receipt".to_owned(),
        boundary: end.boundary.clone(),
        container_id: end.id.clone(),
        detail,
    };
    if class.record_incident(new).await?.is_some() {
        changes.send_modify(|count| *count += 1);
    }
    Ok(())
}

/// What the records say, those of db.class and those that are in no batch yet.
async fn said(config: &Config, class: &Class, boundary: &str, id: &str) -> Result<Said, ReconcileError> {
    let (mut intent, mut closing) = (None, None);
    for record in class.records_of_container(id).await?.into_iter().filter(|record| record.boundary == boundary) {
        let last = if record.kind == RecordKind::Intent { &mut intent } else { &mut closing };
        *last = Some(record.seq).max(*last);
    }
    let next = class.cursor(boundary).await?.map_or(0, |cursor| cursor.next_seq);
    let chain = Chain::new(&config.spool_dir, boundary);
    for seq in next..next.saturating_add(LOOK_MAX) {
        let found = match chain.record(seq, None) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            // The packing thread tells of it.
            Err(error) if !error.may_pass() => continue,
            Err(error) => return Err(error.into()),
        };
        if found.record.container_id() == id {
            let last = if matches!(found.record, Record::Intent(_)) { &mut intent } else { &mut closing };
            *last = Some(seq).max(*last);
        }
    }
    Ok(match (intent, closing) {
        (Some(seq), closing) if closing.is_none_or(|closing| closing < seq) => Said::Open { seq },
        (None, None) => Said::Nothing,
        _ => Said::Closed,
    })
}
