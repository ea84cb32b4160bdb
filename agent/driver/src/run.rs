//! One run, from an order to its exit.
//!
//! Always true: what is made is removed, in the opposite order, whether the run ends well or not; what a run before it left under the same id is not
//! touched, but refused. A process that dies in the middle finds its runs by [`Driver::left_behind`], and ends them by [`Driver::finish`].

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateRequest, CreateTaskRequest, DeleteContainerRequest, DeleteImageRequest,
    DeleteRequest, DeleteTaskRequest, GetContainerRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::tonic::Code;

use crate::calls::{PATIENCE, Scope, answer, ms};
use crate::error::DriverError;
use crate::image::run_name;
use crate::order::Order;
use crate::spec::spec;
use crate::{Driver, RUNTIME};

/// On each container that a driver made; its value is the name of the run, which its lease and its snapshot have too.
pub(crate) const LABEL: &str = "io.bpi.agent.run";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// How long a lease keeps what a run made when nobody removes it.
const LEASE: Duration = Duration::from_secs(24 * 3600);
/// How often a wait is tried again while containerd restarts: 600 times a second apart.
const WAITS: u32 = 600;
const SIGKILL: u32 = 9;

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The image is looked for.
    Preparing,
    /// A layer is unpacked that was not.
    Unpacking {
        /// Which, from 1.
        layer: usize,
        /// Of how many.
        of: usize,
    },
    /// The container is there.
    Created,
    /// It runs.
    Started {
        /// The process id of its first process.
        pid: u32,
    },
    /// It ended.
    Exited {
        /// 0 to 255; 128 and the signal's number when a signal ended it.
        code: u32,
    },
    /// What the run made is gone.
    Removed,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255; 128 and the signal's number when a signal ended it.
    pub code: u32,
    /// When, in ms since 1970.
    pub at_ms: u64,
}

/// A container that a driver started.
#[derive(Debug)]
pub struct Run<'d> {
    driver: &'d Driver,
    scope: Scope,
    id: String,
}

impl Driver {
    /// Runs an order to its end and removes what it made. `progress` hears of each step, and must not block.
    ///
    /// # Errors
    /// [`DriverError`] for the first thing that failed; what was made by then is removed.
    pub async fn run(
        &self,
        namespace: &str,
        order: &Order,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Exit, DriverError> {
        let run = self.start(namespace, order, progress).await?;
        run.finish(progress).await
    }

    /// Starts an order. Whoever drops the [`Run`] ends it by [`Driver::finish`] later.
    ///
    /// # Errors
    /// As [`Driver::run`].
    pub async fn start(
        &self,
        namespace: &str,
        order: &Order,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Run<'_>, DriverError> {
        order.check()?;
        let scope = Scope::new(namespace)?;
        for input in &order.inputs {
            std::fs::metadata(&input.host).map_err(|source| DriverError::File { path: input.host.clone(), source })?;
        }
        open_output(&order.stdout)?;
        open_output(&order.stderr)?;
        progress(Progress::Preparing);
        if self.get(&scope, &order.id).await?.is_some() {
            let status = containerd_client::tonic::Status::already_exists("a container of this id is there");
            return Err(DriverError::Call {
                doing: "creating container",
                name: order.id.clone(),
                status: Box::new(status),
            });
        }
        let lease = self.lease(&scope, &order.id).await?;
        let made = match scope.clone().leased(&lease) {
            Ok(leased) => self.make(&leased, order, &lease, progress).await,
            Err(error) => Err(error.into()),
        };
        match made {
            Ok(pid) => {
                progress(Progress::Started { pid });
                Ok(Run { driver: self, scope, id: order.id.clone() })
            }
            Err(error) => {
                // The first error is the one to tell; what stays behind is gone with the lease.
                match self.clear(&scope, &order.id, Some(&lease)).await {
                    Ok(()) | Err(_) => Err(error),
                }
            }
        }
    }

    async fn make(
        &self,
        scope: &Scope,
        order: &Order,
        lease: &str,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<u32, DriverError> {
        let id = &order.id;
        let layer = |layer, of| progress(Progress::Unpacking { layer, of });
        let image = self.unpack(scope, &order.image, lease, layer).await?;
        let spec = spec(&scope.namespace, order, &image.says)?;
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: lease.to_owned(),
            parent: image.chain_id,
            labels: Default::default(),
        };
        answer(("preparing snapshot", lease), PATIENCE, snapshots.prepare(scope.request(request))).await?;
        let container = Container {
            id: id.clone(),
            labels: [(LABEL.to_owned(), lease.to_owned())].into(),
            image: image.name,
            runtime: Some(Runtime { name: RUNTIME.to_owned(), options: None }),
            spec: Some(prost_types::Any { type_url: SPEC_TYPE.to_owned(), value: spec.to_string().into_bytes() }),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: lease.to_owned(),
            ..Container::default()
        };
        let mut containers = ContainersClient::new(self.channel.clone());
        let request = CreateContainerRequest { container: Some(container) };
        answer(("creating container", id), PATIENCE, containers.create(scope.request(request))).await?;
        let request = MountsRequest { snapshotter: self.snapshotter.clone(), key: lease.to_owned() };
        let mounts =
            answer(("mounting snapshot", lease), PATIENCE, snapshots.mounts(scope.request(request))).await?.mounts;
        let mut tasks = TasksClient::new(self.channel.clone());
        let request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs: mounts,
            stdout: format!("file://{}", order.stdout.display()),
            stderr: format!("file://{}", order.stderr.display()),
            ..CreateTaskRequest::default()
        };
        answer(("creating task", id), PATIENCE, tasks.create(scope.request(request))).await?;
        progress(Progress::Created);
        let request = StartRequest { container_id: id.clone(), exec_id: String::new() };
        Ok(answer(("starting task", id), PATIENCE, tasks.start(scope.request(request))).await?.pid)
    }

    /// Waits for the end of a container that a driver started, of this process or one before, and removes what it made.
    ///
    /// # Errors
    /// [`DriverError`] when it cannot be waited for or removed.
    pub async fn finish(
        &self,
        namespace: &str,
        id: &str,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Exit, DriverError> {
        crate::order::name("the id", id)?;
        Run { driver: self, scope: Scope::new(namespace)?, id: id.to_owned() }.finish(progress).await
    }

    /// Ends a container by SIGKILL, when it runs.
    ///
    /// # Errors
    /// [`DriverError`] when containerd does not do it.
    pub async fn kill(&self, namespace: &str, id: &str) -> Result<(), DriverError> {
        self.kill_in(&Scope::new(namespace)?, id).await
    }

    /// Kills and removes a container that a driver made, whatever of it is there.
    ///
    /// # Errors
    /// [`DriverError`] for the first part that does not go away.
    pub async fn remove(&self, namespace: &str, id: &str) -> Result<(), DriverError> {
        self.clear(&Scope::new(namespace)?, id, None).await
    }

    async fn kill_in(&self, scope: &Scope, id: &str) -> Result<(), DriverError> {
        let mut tasks = TasksClient::new(self.channel.clone());
        let request = KillRequest { container_id: id.to_owned(), signal: SIGKILL, all: true, ..KillRequest::default() };
        gone(answer(("killing task", id), PATIENCE, tasks.kill(scope.request(request))).await)
    }

    pub(crate) async fn get(&self, scope: &Scope, id: &str) -> Result<Option<Container>, DriverError> {
        let mut containers = ContainersClient::new(self.channel.clone());
        let request = GetContainerRequest { id: id.to_owned() };
        match answer(("looking at container", id), PATIENCE, containers.get(scope.request(request))).await {
            Ok(found) => Ok(found.container),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn lease(&self, scope: &Scope, id: &str) -> Result<String, DriverError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| DriverError::Random { reason: error.to_string() })?;
        let lease = format!("bpi-{id}-{}", hex::encode(random));
        let until = SystemTime::now() + LEASE;
        let until = jiff::Timestamp::try_from(until).map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let until = until.map_err(|error| DriverError::Clock { reason: error.to_string() })?;
        let labels = [("containerd.io/gc.expire".to_owned(), until)].into();
        let request = CreateRequest { id: lease.clone(), labels };
        let mut leases = LeasesClient::new(self.channel.clone());
        answer(("making lease", &lease), PATIENCE, leases.create(scope.request(request))).await?;
        Ok(lease)
    }

    /// Removes task, container, snapshot, the image's name and the lease, as far as they are there and a driver made them.
    async fn clear(&self, scope: &Scope, id: &str, lease: Option<&str>) -> Result<(), DriverError> {
        let found = self.get(scope, id).await?;
        let label = |container: &Container| container.labels.get(LABEL).cloned();
        let Some(lease) = lease.map(str::to_owned).or_else(|| found.as_ref().and_then(label)) else { return Ok(()) };
        // One without the label is somebody else's, and one with another is of another run.
        let is_there = found.is_some_and(|container| label(&container).as_ref() == Some(&lease));
        if is_there {
            self.kill_in(scope, id).await?;
            let ended = tokio::time::timeout(PATIENCE, self.wait(scope, id)).await;
            ended.map_err(|_| DriverError::Patience {
                doing: "waiting for task that was killed",
                name: id.to_owned(),
                patience_s: PATIENCE.as_secs(),
            })??;
            let mut tasks = TasksClient::new(self.channel.clone());
            let request = DeleteTaskRequest { container_id: id.to_owned() };
            gone(answer(("deleting task", id), PATIENCE, tasks.delete(scope.request(request))).await.map(|_| ()))?;
        }
        let name = run_name(&lease);
        let mut images = ImagesClient::new(self.channel.clone());
        let request = DeleteImageRequest { name: name.clone(), ..DeleteImageRequest::default() };
        gone(answer(("removing image name", &name), PATIENCE, images.delete(scope.request(request))).await)?;
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: lease.clone() };
        gone(answer(("removing snapshot", &lease), PATIENCE, snapshots.remove(scope.request(request))).await)?;
        if is_there {
            // Last of what is found again, so that who dies in between finds the rest by it.
            let mut containers = ContainersClient::new(self.channel.clone());
            let request = DeleteContainerRequest { id: id.to_owned() };
            gone(answer(("deleting container", id), PATIENCE, containers.delete(scope.request(request))).await)?;
        }
        let mut leases = LeasesClient::new(self.channel.clone());
        let request = DeleteRequest { id: lease.clone(), sync: false };
        gone(answer(("removing lease", &lease), PATIENCE, leases.delete(scope.request(request))).await)
    }

    /// Waits for the end of a task; none when there is none (any more).
    async fn wait(&self, scope: &Scope, id: &str) -> Result<Option<Exit>, DriverError> {
        let mut tries = 0;
        loop {
            let mut tasks = TasksClient::new(self.channel.clone());
            let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
            let error = match tasks.wait(scope.request(request)).await {
                Ok(said) => {
                    let said = said.into_inner();
                    return Ok(Some(Exit { code: said.exit_status, at_ms: ms(said.exited_at.as_ref()) }));
                }
                Err(status) => status,
            };
            match error.code() {
                Code::NotFound => return Ok(None),
                // containerd restarts, and the container lives on.
                Code::Unavailable | Code::Unknown | Code::Cancelled if tries < WAITS => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => return Err(crate::calls::refused("waiting for task", id)(error)),
            }
        }
    }
}

impl Run<'_> {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for its end and removes what it made.
    ///
    /// # Errors
    /// [`DriverError`] when it cannot be waited for or removed.
    pub async fn finish(self, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Exit, DriverError> {
        let exit = self.driver.wait(&self.scope, &self.id).await?;
        if let Some(exit) = exit {
            progress(Progress::Exited { code: exit.code });
        }
        self.driver.clear(&self.scope, &self.id, None).await?;
        progress(Progress::Removed);
        exit.ok_or_else(|| DriverError::Call {
            doing: "waiting for task",
            name: self.id.clone(),
            status: Box::new(containerd_client::tonic::Status::not_found("its task was removed by somebody else")),
        })
    }
}

/// What is not there any more is removed.
fn gone<T: Default>(result: Result<T, DriverError>) -> Result<T, DriverError> {
    match result {
        Err(error) if error.is_not_found() => Ok(T::default()),
        other => other,
    }
}

/// Makes the file that output is added to, for its owner alone, so that a folder that is missing is told before anything runs.
fn open_output(path: &Path) -> Result<(), DriverError> {
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    opened.map(|_| ()).map_err(|source| DriverError::File { path: path.to_owned(), source })
}
