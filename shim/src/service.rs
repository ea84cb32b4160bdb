//! The task API's ttrpc face: requests in, [`Tasks`] asked, answers out. One service under the names of versions 2 and 3, which have the
//! same messages.
//!
//! Work runs to its end on the blocking pool even when its client hangs up. Checkpoints are refused by name.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::ttrpc::Result as Answer;
use containerd_shim_protos::ttrpc::r#async::{Service as Methods, TtrpcContext};
use docklock::task::Status;
use tokio::sync::Notify;

use crate::errors::Refusal;
use crate::tasks::Tasks;
use crate::wire::{any, timestamp};

const NAME_V3: &str = "containerd.task.v3.Task";
const NAME_V2: &str = "containerd.task.v2.Task";

/// The service.
pub struct Service {
    tasks: Arc<Tasks>,
    end: Arc<Shutdown>,
}

/// The way to the end of this process.
pub struct Shutdown {
    socket: Option<std::path::PathBuf>,
    asked: Notify,
}

impl Shutdown {
    /// For a shim that listens at `address`.
    pub fn new(address: &str) -> Self {
        Self { socket: address.strip_prefix("unix://").map(Into::into), asked: Notify::new() }
    }

    /// Gives the address up and asks for the end. The socket goes first: the next `start` of this name must not find a shim that is
    /// about to end.
    pub fn ask(&self) {
        if let Some(socket) = &self.socket
            && let Err(error) = std::fs::remove_file(socket)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(socket = %socket.display(), %error, "could not remove the socket");
        }
        self.asked.notify_one();
    }

    /// Waits until somebody has asked.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }
}

impl Service {
    /// Its methods, under both names.
    pub fn methods(tasks: Arc<Tasks>, end: Arc<Shutdown>) -> HashMap<String, Methods> {
        let service: Arc<dyn Task + Send + Sync> = Arc::new(Self { tasks, end });
        let v3 = create_task(Arc::clone(&service));
        let v2 = create_task(service).into_iter().map(|(name, methods)| (name.replace(NAME_V3, NAME_V2), methods));
        let mut methods: HashMap<_, _> = v2.collect();
        methods.extend(v3);
        methods
    }

    /// Runs `work` on the blocking pool, to its end whatever becomes of the client.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tasks) -> Result<T, Refusal> + Send + 'static,
    ) -> Answer<T> {
        let tasks = Arc::clone(&self.tasks);
        let outcome = tokio::task::spawn_blocking(move || work(&tasks)).await;
        let outcome = outcome.unwrap_or_else(|panic| Err(Refusal::internal(format_args!("the shim failed: {panic}"))));
        outcome.map_err(|refusal| {
            tracing::debug!(%refusal, "refused");
            refusal.into()
        })
    }
}

fn empty() -> api::Empty {
    api::Empty::default()
}

fn status(status: Status) -> api::Status {
    match status {
        Status::Created => api::Status::CREATED,
        Status::Running => api::Status::RUNNING,
        Status::Paused => api::Status::PAUSED,
        Status::Stopped => api::Status::STOPPED,
    }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: api::CreateTaskRequest) -> Answer<api::CreateTaskResponse> {
        let pid = self.run(move |tasks| tasks.create(&request)).await?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> Answer<api::StartResponse> {
        let pid = self.run(move |tasks| tasks.start(&request.id, &request.exec_id)).await?;
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> Answer<api::WaitResponse> {
        // No thread waits: there may be as many waiters as containerd likes.
        let process = self.tasks.process(&request.id, &request.exec_id)?;
        let mut watch = process.watch();
        let ended = watch.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        let ended = ended.ok_or_else(|| Refusal::internal("the process was forgotten while it was waited for"))?;
        Ok(api::WaitResponse {
            exit_status: ended.status,
            exited_at: Some(timestamp(ended.at)).into(),
            ..Default::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> Answer<api::Empty> {
        self.run(move |tasks| tasks.kill(&request.id, &request.exec_id, request.signal, request.all)).await?;
        Ok(empty())
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> Answer<api::Empty> {
        self.run(move |tasks| tasks.exec(&request)).await?;
        Ok(empty())
    }

    async fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> Answer<api::StateResponse> {
        self.run(move |tasks| {
            let container = tasks.container(&request.id)?;
            let process = tasks.process(&request.id, &request.exec_id)?;
            let ended = process.ended();
            let client = process.client.clone();
            Ok(api::StateResponse {
                id: request.id,
                bundle: container.bundle.display().to_string(),
                pid: process.pid(),
                status: status(process.status()).into(),
                stdin: client.stdin,
                stdout: client.stdout,
                stderr: client.stderr,
                terminal: client.terminal,
                exit_status: ended.map_or(0, |ended| ended.status),
                exited_at: ended.map(|ended| timestamp(ended.at)).into(),
                exec_id: request.exec_id,
                ..Default::default()
            })
        })
        .await
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> Answer<api::PidsResponse> {
        let pids = self.run(move |tasks| Ok(tasks.container(&request.id)?.pids())).await?;
        let info = |(pid, exec): (u32, Option<String>)| api::ProcessInfo {
            pid,
            info: exec.map(|exec_id| any(&ProcessDetails { exec_id, ..Default::default() })).into(),
            ..Default::default()
        };
        Ok(api::PidsResponse { processes: pids.into_iter().map(info).collect(), ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> Answer<api::StatsResponse> {
        let stats = self.run(move |tasks| tasks.stats(&request.id)).await?;
        Ok(api::StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> Answer<api::Empty> {
        self.run(move |tasks| tasks.pause(&request.id)).await?;
        Ok(empty())
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> Answer<api::Empty> {
        self.run(move |tasks| tasks.resume(&request.id)).await?;
        Ok(empty())
    }

    async fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> Answer<api::Empty> {
        self.run(move |tasks| tasks.update(&request.id, request.resources.as_ref())).await?;
        Ok(empty())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: api::ResizePtyRequest) -> Answer<api::Empty> {
        self.run(move |tasks| tasks.resize(&request.id, &request.exec_id, request.width, request.height)).await?;
        Ok(empty())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> Answer<api::Empty> {
        if request.stdin {
            self.run(move |tasks| tasks.close_stdin(&request.id, &request.exec_id)).await?;
        }
        Ok(empty())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: api::CheckpointTaskRequest) -> Answer<api::Empty> {
        let sentence = format_args!(
            "container {} cannot be checkpointed: its receipt speaks of one uninterrupted run",
            request.id
        );
        Err(Refusal::unimplemented(sentence).into())
    }

    async fn delete(&self, _: &TtrpcContext, request: api::DeleteRequest) -> Answer<api::DeleteResponse> {
        let (pid, ended) = self.run(move |tasks| tasks.delete(&request.id, &request.exec_id)).await?;
        Ok(api::DeleteResponse {
            pid,
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: ended.map(|ended| timestamp(ended.at)).into(),
            ..Default::default()
        })
    }

    async fn connect(&self, _: &TtrpcContext, request: api::ConnectRequest) -> Answer<api::ConnectResponse> {
        // A shim that has no such task yet still answers who it is.
        let task_pid = self.tasks.process(&request.id, "").map_or(0, |process| process.pid());
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> Answer<api::Empty> {
        // A pod's shim is asked once for each of its containers; the last one ends it.
        if self.tasks.is_empty() {
            self.end.ask();
        }
        Ok(empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::Events;
    use crate::tasks::Place;
    use containerd_shim_protos::protobuf::Message;
    use containerd_shim_protos::shim_async::{Client, TaskClient};
    use containerd_shim_protos::ttrpc::r#async::Server;
    use containerd_shim_protos::ttrpc::{Code, Error, Request, context};
    use docklock::spool::Boundary;

    /// A served shim that has no key, and a client of it.
    struct Shim {
        folder: tempfile::TempDir,
        end: Arc<Shutdown>,
        client: Client,
        _server: Server,
    }

    impl Shim {
        async fn without_a_key() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let address = format!("unix://{}", folder.path().join("socket").display());
            let place = Place { namespace: "default".into(), grpc_address: "/nonexistent".into(), config: None };
            let events = Arc::new(Events::new("default".into()));
            let engine = Err(Refusal::unavailable("there is no host key"));
            let tasks = Arc::new(Tasks::new(engine, Boundary::new("default").unwrap(), place, events));
            let end = Arc::new(Shutdown::new(&address));
            let methods = Service::methods(tasks, Arc::clone(&end));
            let mut server = Server::new().bind(&address).unwrap().register_service(methods);
            server.start().await.unwrap();
            let client = Client::connect(&address).await.unwrap();
            Self { folder, end, client, _server: server }
        }

        fn tasks(&self) -> TaskClient {
            TaskClient::new(self.client.clone())
        }
    }

    fn code<T>(answer: Answer<T>) -> (Code, String) {
        match answer.err().unwrap() {
            Error::RpcStatus(status) => (status.code(), status.message),
            other => (Code::UNKNOWN, other.to_string()),
        }
    }

    #[tokio::test]
    async fn a_shim_without_a_key_serves_and_says_why_it_cannot_create() {
        let shim = Shim::without_a_key().await;
        let request = api::CreateTaskRequest { id: "demo".into(), ..Default::default() };
        for _ in 0..2 {
            let refused = code(shim.tasks().create(context::Context::default(), &request).await);
            assert_eq!(refused, (Code::UNAVAILABLE, "there is no host key".into()));
        }
    }

    #[tokio::test]
    async fn the_service_answers_under_both_names() {
        let shim = Shim::without_a_key().await;
        for service in [NAME_V2, NAME_V3] {
            let payload = api::ConnectRequest::default().write_to_bytes().unwrap();
            let method = "Connect".to_owned();
            let request = Request { service: service.into(), method, payload, ..Default::default() };
            let answer = shim.client.request(request).await.unwrap();
            let answer = api::ConnectResponse::parse_from_bytes(&answer.payload).unwrap();
            assert_eq!(answer.shim_pid, std::process::id(), "{service}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found_and_a_checkpoint_is_not_done() {
        let shim = Shim::without_a_key().await;
        let (tasks, context) = (shim.tasks(), context::Context::default());
        let id = "demo".to_owned();
        let state = api::StateRequest { id: id.clone(), ..Default::default() };
        assert_eq!(code(tasks.state(context.clone(), &state).await).0, Code::NOT_FOUND);
        let delete = api::DeleteRequest { id: id.clone(), ..Default::default() };
        assert_eq!(code(tasks.delete(context.clone(), &delete).await).0, Code::NOT_FOUND);
        let wait = api::WaitRequest { id: id.clone(), ..Default::default() };
        assert_eq!(code(tasks.wait(context.clone(), &wait).await).0, Code::NOT_FOUND);
        let checkpoint = api::CheckpointTaskRequest { id, ..Default::default() };
        assert_eq!(code(tasks.checkpoint(context, &checkpoint).await).0, Code::UNIMPLEMENTED);
    }

    #[tokio::test]
    async fn an_idle_shim_that_is_shut_down_gives_up_its_address_before_it_answers() {
        let shim = Shim::without_a_key().await;
        let socket = shim.folder.path().join("socket");
        assert!(socket.exists());
        shim.tasks().shutdown(context::Context::default(), &api::ShutdownRequest::default()).await.unwrap();
        assert!(!socket.exists());
        shim.end.asked().await;
    }
}
