//! What the agent answers on its own host (bpi-agent-api): where a receipt is, its evidence, batches, incidents, and containers to run.
//!
//! Always true: an answer comes from the spool and db.class, so that it says the same after a restart; a stream ends when the agent stops. Bounds: the
//! calls of a connection (bpi-agent-api), and containers that are run at a time.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bpi_agent_api::tonic::{Request, Response, Status};
use bpi_agent_api::v1::agent_server::Agent;
use bpi_agent_api::v1::receipt::Which;
use bpi_agent_api::v1::run_reply::Step;
use bpi_agent_api::v1::{
    Batch as BatchReply, BatchesReply, BatchesRequest, Begun, EvidencePart, EvidenceRequest, Exited, Incident,
    IncidentsReply, IncidentsRequest, Level, Receipt, RunReply, RunRequest, Started, StatusReply, StatusRequest,
    Unpacking, WaitReply, WaitRequest,
};
use bpi_agent_api::{PART_BYTES_MAX, bind};
use bpi_class::{BatchState, Class, ClassError, Record, RecordKind};
use bpi_driver::{Driver, Input, Order, Progress};
use bpi_protocol::chain::Record as Spooled;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use crate::config::Config;
use crate::evidence::{self, MakingError, Shared, Window};
use crate::packing::unix_ms;
use crate::run::RunError;
use crate::spool::{self, Chain, is_name};

/// Records of a boundary that are in no batch and are looked through for a container, at most.
const LOOK_MAX: u64 = 16_384;
/// How often the spool is looked at for a receipt that is in no batch yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Containers that are run at a time.
const RUNS_MAX: usize = 64;
/// Lists are this long when nobody says how long.
const LIMIT: u32 = 100;
/// Replies that wait for a slow reader.
const REPLIES_MAX: usize = 16;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    boundary: String,
    seq: u64,
    /// None while it is in no batch.
    record: Option<Record>,
}

#[derive(Clone)]
struct Served {
    config: Arc<Config>,
    class: Arc<Class>,
    changed: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    driver: Option<Driver>,
    runs: Arc<Semaphore>,
    started_ms: u64,
}

/// Listens at the socket of the configuration.
///
/// # Errors
/// [`RunError::Listen`].
pub async fn serve(
    config: &Arc<Config>,
    class: &Arc<Class>,
    driver: Option<Driver>,
    changed: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), RunError> {
    let address = config.socket.display().to_string();
    let listener = bind(&config.socket).map_err(|error| RunError::Listen {
        address,
        field: "socket",
        source: std::io::Error::other(error),
    })?;
    let served = Served {
        config: Arc::clone(config),
        class: Arc::clone(class),
        changed,
        stopped: stopped.clone(),
        driver,
        runs: Arc::new(Semaphore::new(RUNS_MAX)),
        started_ms: unix_ms(),
    };
    let mut stop = stopped;
    let stopping = async move {
        // Either it is to stop, or nobody is left to say so.
        if stop.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("nobody is left to say when to stop");
        }
    };
    tasks.spawn(async move {
        if let Err(error) = bpi_agent_api::serve(listener, served, stopping).await {
            tracing::error!(%error, "the local API has ended");
        }
    });
    Ok(())
}

fn of_class(error: ClassError) -> Status {
    Status::internal(error.to_string())
}

fn of_making(error: MakingError) -> Status {
    match error {
        MakingError::NotFinal { .. } | MakingError::Evidence(_) => Status::failed_precondition(error.to_string()),
        MakingError::Gone { .. } => Status::not_found(error.to_string()),
        other => Status::internal(other.to_string()),
    }
}

impl Served {
    /// The record that a request means: what closes the last run of a container, or the record of a number.
    async fn find(&self, wanted: &Receipt) -> Result<Found, Status> {
        let which = wanted.which.as_ref().ok_or_else(|| Status::invalid_argument("which receipt?"))?;
        let boundaries = match wanted.boundary.as_str() {
            "" => spool::boundaries(&self.config.spool_dir).map_err(|error| Status::internal(error.to_string()))?,
            boundary if is_name(boundary) => vec![boundary.to_owned()],
            boundary => return Err(Status::invalid_argument(format!("{boundary:?} is no namespace"))),
        };
        for boundary in boundaries {
            let found = match which {
                Which::ContainerId(id) => self.last_of(&boundary, id).await?,
                Which::Seq(seq) => {
                    let record = self.class.record(&boundary, *seq).await.map_err(of_class)?;
                    let chain = Chain::new(&self.config.spool_dir, &boundary);
                    let is_there = record.is_some() || matches!(chain.record(*seq, None), Ok(Some(_)));
                    is_there.then_some(Found { boundary, seq: *seq, record })
                }
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(Status::not_found("no record here is of that container or number"))
    }

    async fn last_of(&self, boundary: &str, id: &str) -> Result<Option<Found>, Status> {
        // The newest may be in no batch yet.
        let next = self.class.cursor(boundary).await.map_err(of_class)?.map_or(0, |cursor| cursor.next_seq);
        let chain = Chain::new(&self.config.spool_dir, boundary);
        let mut last = None;
        for seq in next..next.saturating_add(LOOK_MAX) {
            let Ok(Some(found)) = chain.record(seq, None) else { break };
            if found.record.container_id() == id && !matches!(found.record, Spooled::Intent(_)) {
                last = Some(Found { boundary: boundary.to_owned(), seq, record: None });
            }
        }
        if last.is_some() {
            return Ok(last);
        }
        let records = self.class.records_of_container(id).await.map_err(of_class)?;
        let closing = |record: &Record| record.boundary == boundary && record.kind != RecordKind::Intent;
        Ok(records.into_iter().find(closing).map(|record| Found {
            boundary: record.boundary.clone(),
            seq: record.seq,
            record: Some(record),
        }))
    }

    /// How far a record has come.
    async fn level(&self, found: &mut Found) -> Result<WaitReply, Status> {
        if found.record.is_none() {
            found.record = self.class.record(&found.boundary, found.seq).await.map_err(of_class)?;
        }
        let (boundary, seq) = (found.boundary.clone(), found.seq);
        let mut reply = WaitReply { boundary, seq, at_ms: unix_ms(), ..WaitReply::default() };
        reply.set_level(Level::Seen);
        let Some(record) = &found.record else { return Ok(reply) };
        reply.set_level(Level::Packed);
        reply.da_root = record.da_root.to_vec();
        let Some(batch) = self.class.batch(&record.da_root).await.map_err(of_class)? else { return Ok(reply) };
        if batch.state == BatchState::Packed {
            return Ok(reply);
        }
        reply.set_level(Level::Kept);
        let inclusion = match record.leaf {
            Some(leaf) => self.class.inclusion(&leaf).await.map_err(of_class)?,
            None => None,
        };
        let Some(inclusion) = inclusion else { return Ok(reply) };
        reply.set_level(Level::Included);
        reply.height = inclusion.height;
        if let Some(attested) = batch.attested_height {
            reply.set_level(Level::Final);
            reply.height = inclusion.height.max(attested);
        }
        Ok(reply)
    }

    /// Evidence of a record, in its folder if there is one for it.
    async fn evidence_of(&self, record: &Record) -> Result<bpi_protocol::evidence::Evidence, MakingError> {
        let not_final = || MakingError::NotFinal { boundary: record.boundary.clone(), seq: record.seq };
        let shared = Shared::of(&self.class, self.config.chain(), record).await?.ok_or_else(not_final)?;
        shared.evidence(&mut Window::of(Chain::new(&self.config.spool_dir, &record.boundary)), record)
    }

    async fn written(&self, record: &Record) -> Result<Option<PathBuf>, MakingError> {
        let Some(dir) = self.config.evidence_dir.as_ref().filter(|_| evidence::is_receipt(record)) else {
            return Ok(None);
        };
        let folder = evidence::folder(dir, record);
        if !folder.exists() {
            evidence::write(&folder, &self.evidence_of(record).await?)?;
        }
        Ok(Some(folder))
    }

    /// Tells each new level of a record, up to `wanted`, and the evidence with the last.
    async fn follow<T: Send>(
        &self,
        mut found: Found,
        wanted: Level,
        replies: &mpsc::Sender<Result<T, Status>>,
        reply_of: fn(WaitReply) -> T,
    ) -> Result<(), Status> {
        let (mut changed, mut stopped) = (self.changed.clone(), self.stopped.clone());
        let mut told = Level::Unspecified;
        loop {
            changed.mark_unchanged();
            let mut reply = self.level(&mut found).await?;
            let level = reply.level();
            if level as i32 > told as i32 {
                let is_last = level as i32 >= wanted as i32;
                if is_last
                    && level == Level::Final
                    && let Some(record) = &found.record
                {
                    let folder = self.written(record).await.map_err(of_making)?;
                    reply.evidence = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
                }
                if replies.send(Ok(reply_of(reply))).await.is_err() || is_last {
                    return Ok(());
                }
                told = level;
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() {
                    return Err(Status::unavailable("the agent stops; ask again"));
                },
                () = tokio::time::sleep(LOOK_EVERY), if told == Level::Seen => {}
                _ = stopped.wait_for(|stop| *stop) => return Err(Status::unavailable("the agent stops; ask again")),
            }
        }
    }

    async fn work_off(
        &self,
        request: RunRequest,
        replies: &mpsc::Sender<Result<RunReply, Status>>,
    ) -> Result<(), Status> {
        let (driver, config) = match (&self.driver, &self.config.containerd) {
            (Some(driver), Some(config)) => (driver, config),
            _ => {
                return Err(Status::failed_precondition(
                    "the configuration names no containerd; it needs [containerd]",
                ));
            }
        };
        let boundary = if request.boundary.is_empty() { config.namespace.clone() } else { request.boundary.clone() };
        let id = match request.container_id.as_str() {
            "" => format!("run-{}-{}", unix_ms(), std::process::id()),
            id => id.to_owned(),
        };
        if !is_name(&boundary) || !is_name(&id) {
            return Err(Status::invalid_argument(format!("{boundary:?} and {id:?} have to be names")));
        }
        if self.config.tenant_of(&boundary).is_none() {
            return Err(Status::failed_precondition(format!(
                "no tenant of the configuration has namespace {boundary:?}"
            )));
        }
        let folder = self.config.outbox_dir.join("runs").join(&boundary);
        std::fs::create_dir_all(&folder).map_err(|error| Status::internal(format!("{}: {error}", folder.display())))?;
        let output = |name: &str| folder.join(format!("{id}.{name}"));
        let order = Order {
            id: id.clone(),
            image: request.image.clone(),
            argv: request.argv.clone(),
            env: request.env.clone(),
            inputs: request
                .inputs
                .iter()
                .map(|input| Input { host: PathBuf::from(&input.host), inside: PathBuf::from(&input.inside) })
                .collect(),
            profile: (!request.profile.is_empty()).then(|| request.profile.clone()),
            outputs: request.outputs.iter().map(PathBuf::from).collect(),
            stdout: output("stdout"),
            stderr: output("stderr"),
        };
        order.check().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let begun = Begun {
            boundary: boundary.clone(),
            container_id: id.clone(),
            stdout: order.stdout.display().to_string(),
            stderr: order.stderr.display().to_string(),
        };
        let say = |step: Step| {
            // Who hung up does not end the container: it is run to its end, and its receipt can be asked for.
            if replies.try_send(Ok(RunReply { step: Some(step) })).is_err() {
                tracing::debug!("nobody hears how a run goes");
            }
        };
        say(Step::Begun(begun));
        let mut progress = |progress: Progress| match progress {
            Progress::Unpacking { layer, of } => {
                say(Step::Unpacking(Unpacking { layer: layer as u32, of: of as u32 }));
            }
            Progress::Started { pid } => say(Step::Started(Started { pid })),
            Progress::Exited { code } => say(Step::Exited(Exited { code })),
            Progress::Preparing | Progress::Created | Progress::Removed => {}
        };
        driver.run(&boundary, &order, &mut progress).await.map_err(|error| Status::internal(error.to_string()))?;
        let wanted = match Level::try_from(request.level) {
            Ok(Level::Unspecified) | Err(_) => Level::Final,
            Ok(level) => level,
        };
        let receipt = bpi_agent_api::of_container(&boundary, &id);
        let found = self.find(&receipt).await?;
        self.follow(found, wanted, replies, |reply| RunReply { step: Some(Step::Receipt(reply)) }).await
    }
}

#[bpi_agent_api::tonic::async_trait]
impl Agent for Served {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let figures = self.class.figures().await.map_err(of_class)?;
        Ok(Response::new(StatusReply {
            version: env!("BPI_AGENT_VERSION").to_owned(),
            started_ms: self.started_ms,
            chain: self.config.chain.clone(),
            class_engine: self.class.engine().to_owned(),
            batches_packed: figures.batches_of(BatchState::Packed),
            batches_kept: figures.batches_of(BatchState::Kept),
            batches_attested: figures.batches_of(BatchState::Attested),
            batches_final: figures.batches_of(BatchState::Final),
            receipts: figures.receipts,
            receipts_included: figures.included,
            oldest_pending_ms: figures.oldest_pending_ms.unwrap_or_default(),
            incidents: figures.incidents,
            containerd: self.driver.is_some(),
            ..StatusReply::default()
        }))
    }

    type WaitStream = Replies<WaitReply>;

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<Self::WaitStream>, Status> {
        let request = request.into_inner();
        let wanted = Level::try_from(request.level).map_err(|_| Status::invalid_argument("no such level"))?;
        let found = self.find(&request.receipt.unwrap_or_default()).await?;
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        let served = self.clone();
        tokio::spawn(async move {
            if let Err(status) = served.follow(found, wanted, &replies, |reply| reply).await
                && replies.send(Err(status)).await.is_err()
            {
                tracing::debug!("nobody waits any more");
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    type EvidenceStream = Replies<EvidencePart>;

    async fn evidence(&self, request: Request<EvidenceRequest>) -> Result<Response<Self::EvidenceStream>, Status> {
        let found = self.find(&request.into_inner().receipt.unwrap_or_default()).await?;
        let record = found.record.ok_or_else(|| Status::failed_precondition("it is in no batch yet"))?;
        let evidence = self.evidence_of(&record).await.map_err(of_making)?;
        let parts: Vec<Result<EvidencePart, Status>> = evidence
            .to_files()
            .into_iter()
            .flat_map(|(name, bytes)| {
                let parts: Vec<_> = bytes.chunks(PART_BYTES_MAX).map(<[u8]>::to_vec).collect();
                parts.into_iter().map(move |bytes| Ok(EvidencePart { name: name.clone(), bytes }))
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    type RunStream = Replies<RunReply>;

    async fn run(&self, request: Request<RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        let request = request.into_inner();
        let busy = |_| Status::resource_exhausted(format!("{RUNS_MAX} containers are run already; ask again"));
        let permit = Arc::clone(&self.runs).try_acquire_owned().map_err(busy)?;
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        let served = self.clone();
        tokio::spawn(async move {
            if let Err(status) = served.work_off(request, &replies).await
                && replies.send(Err(status)).await.is_err()
            {
                tracing::debug!("nobody hears how a run ended");
            }
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn batches(&self, request: Request<BatchesRequest>) -> Result<Response<BatchesReply>, Status> {
        let BatchesRequest { open, before, limit } = request.into_inner();
        let limit = if limit == 0 { LIMIT } else { limit };
        let batches = match open {
            true => self.class.open_batches(limit).await,
            false => self.class.batches((before > 0).then_some(before), limit).await,
        };
        let batches = batches.map_err(of_class)?.into_iter().map(|batch| BatchReply {
            number: batch.number,
            tenant: batch.tenant.to_vec(),
            boundary: batch.boundary,
            first_seq: batch.first_seq,
            last_seq: batch.last_seq,
            da_root: batch.da_root.to_vec(),
            k: batch.k.into(),
            n: batch.n.into(),
            length: batch.length,
            receipts: batch.receipts,
            included: batch.included,
            root_cid: batch.root_cid,
            created_ms: batch.created_ms,
            state: batch.state.name().to_owned(),
            attested_height: batch.attested_height.unwrap_or_default(),
            final_height: batch.final_height.unwrap_or_default(),
        });
        Ok(Response::new(BatchesReply { batches: batches.collect() }))
    }

    async fn incidents(&self, request: Request<IncidentsRequest>) -> Result<Response<IncidentsReply>, Status> {
        let IncidentsRequest { before, limit } = request.into_inner();
        let limit = if limit == 0 { LIMIT } else { limit };
        let incidents = self.class.incidents((before > 0).then_some(before), limit).await.map_err(of_class)?;
        let incidents = incidents.into_iter().map(|found| Incident {
            id: found.id,
            time_ms: found.incident.time_ms,
            kind: found.incident.kind,
            boundary: found.incident.boundary,
            container_id: found.incident.container_id,
            detail: found.incident.detail,
            digest: found.digest.to_vec(),
        });
        Ok(Response::new(IncidentsReply { incidents: incidents.collect() }))
    }
}
