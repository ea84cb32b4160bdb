//! The containers and execs of one shim, and what is done to them. Everything here blocks; [`crate::service`] calls it from the
//! blocking pool, where a request that its client has given up still runs to its end.
//!
//! Always true: a process's exit is told (event and `wait`) only when docklock calls back, which is after its receipt is durable; an id
//! is taken from the first moment of `create` to the end of `delete`; and a `create` that fails leaves no mount.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest};
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskIO};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use docklock::spans::span;
use docklock::spool::Boundary;
use docklock::task::{CreateRequest, Engine, ExecRequest, Status, Task, TaskError};
use oci_spec::runtime::{LinuxResources, Process as OciProcess};

use crate::arguments::check_identifier;
use crate::bundle::Bundle;
use crate::errors::Refusal;
use crate::events::{Events, ProcessKey};
use crate::image::Question;
use crate::options::{RuntimeOptions, note_config};
use crate::process::{Ended, Kind, Process};
use crate::rootfs::{self, RootFs};
use crate::stdio::ClientIo;
use crate::wire::timestamp;

/// File in a bundle with the first process's id, for the `delete` action.
pub const PID_FILE: &str = "init.pid";
/// Largest signal number, signal(7).
const SIGNAL_MAX: u32 = 64;

/// Where this shim stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub grpc_address: String,
    /// The configuration file in force; `None` for the defaults.
    pub config: Option<PathBuf>,
}

/// All containers of one shim.
pub struct Tasks {
    /// Without an engine every `create` answers why.
    engine: Result<Engine, Refusal>,
    boundary: Boundary,
    place: Place,
    events: Arc<Events>,
    containers: Mutex<HashMap<String, Slot>>,
}

enum Slot {
    /// `create` is under way.
    Taken,
    Live(Arc<Container>),
}

/// One container.
pub struct Container {
    /// Its bundle.
    pub bundle: PathBuf,
    task: Arc<Task>,
    init: Arc<Process>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
}

impl Container {
    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self, exec: &str) -> Result<Arc<Process>, Refusal> {
        if exec.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        let missing = || Refusal::not_found(format_args!("container {} has no process {exec}", self.task.id()));
        self.execs().get(exec).cloned().ok_or_else(missing)
    }

    /// Process ids in its control group, each with the exec it belongs to, or none.
    pub fn pids(&self) -> Vec<(u32, Option<String>)> {
        let named: HashMap<u32, String> =
            self.execs().values().map(|exec| (exec.pid(), exec.key.exec.clone())).collect();
        self.task.pids().into_iter().map(|pid| (pid, named.get(&pid).cloned())).collect()
    }
}

/// Takes an id; gives it back unless the container goes live.
struct Reservation<'a> {
    tasks: &'a Tasks,
    id: &'a str,
    filled: bool,
}

impl Reservation<'_> {
    fn fill(mut self, container: Arc<Container>) {
        self.tasks.slots().insert(self.id.to_owned(), Slot::Live(container));
        self.filled = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.tasks.slots().remove(self.id);
        }
    }
}

/// A mounted root file system; unmounts it unless it is kept.
struct Mounted {
    target: PathBuf,
    kept: bool,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = rootfs::unmount(&self.target)
        {
            tracing::error!(%error, "a root file system is left behind");
        }
    }
}

impl Tasks {
    /// No containers yet.
    pub fn new(engine: Result<Engine, Refusal>, boundary: Boundary, place: Place, events: Arc<Events>) -> Self {
        Self { engine, boundary, place, events, containers: Mutex::default() }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when nothing runs, is held or is being created.
    pub fn is_empty(&self) -> bool {
        self.slots().is_empty()
    }

    /// Ends the engine in peace.
    ///
    /// # Errors
    /// When the launcher had gone before.
    pub fn shut_down(&self) -> Result<(), TaskError> {
        self.engine.as_ref().map_or(Ok(()), Engine::shut_down)
    }

    /// A container that has been created.
    ///
    /// # Errors
    /// NotFound.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, Refusal> {
        match self.slots().get(id) {
            Some(Slot::Live(container)) => Ok(Arc::clone(container)),
            Some(Slot::Taken) | None => {
                Err(Refusal::not_found(format_args!("container {id} has not been created here")))
            }
        }
    }

    /// A container's first process, or one of its execs.
    ///
    /// # Errors
    /// NotFound.
    pub fn process(&self, id: &str, exec: &str) -> Result<Arc<Process>, Refusal> {
        self.container(id)?.process(exec)
    }

    /// Mounts, plans, creates and holds a container; answers its process id.
    ///
    /// # Errors
    /// One sentence; nothing stays mounted or taken.
    pub fn create(&self, request: &CreateTaskRequest) -> Result<u32, Refusal> {
        let _span = span("shim.create");
        let engine = self.engine.as_ref().map_err(Clone::clone)?;
        check_identifier("container id", &request.id)?;
        if !request.checkpoint.is_empty() {
            return Err(Refusal::unimplemented("restoring from a checkpoint is not supported"));
        }
        let reservation = self.reserve(&request.id)?;
        let options = RuntimeOptions::from_any(request.options.as_ref())?;
        options.check_config(self.place.config.as_deref())?;
        for name in &options.without_effect {
            tracing::warn!(container = request.id, option = name, "this option of runc has no effect here");
        }
        let bundle = PathBuf::from(&request.bundle);
        let specification = Bundle::read(&bundle)?;
        note_config(&bundle, self.place.config.as_deref())?;
        let client = ClientIo::new([&request.stdin, &request.stdout, &request.stderr], request.terminal);
        let io = client.open()?;
        let root = RootFs::plan(&request.rootfs)?;
        let mut mounted = Mounted { target: bundle.join("rootfs"), kept: request.rootfs.is_empty() };
        root.mount(&mounted.target)?;

        let task = engine.create(CreateRequest {
            id: request.id.clone(),
            boundary: self.boundary.clone(),
            bundle: bundle.clone(),
            rootfs: specification.root(&bundle),
            layer: root.layer(),
            io,
            profile: options.profile,
            image: self.image_source(request),
            no_pivot: options.no_pivot,
            seed: None,
            trace_log: None,
        })?;
        mounted.kept = true;
        let key = ProcessKey { container: request.id.clone(), exec: String::new() };
        let init = Process::new(key, client, Kind::Init(Arc::clone(&task)));
        let pid = init.pid();
        let container = Arc::new(Container { bundle, task, init, execs: Mutex::default() });
        reservation.fill(Arc::clone(&container));
        self.announce(&container, request, pid);
        note_pid(&container.bundle, pid);
        Ok(pid)
    }

    /// The create event goes before the callbacks are set, so that no exit can overtake it.
    fn announce(&self, container: &Container, request: &CreateTaskRequest, pid: u32) {
        let init = &container.init;
        let event = TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: Some(TaskIO {
                stdin: init.client.stdin.clone(),
                stdout: init.client.stdout.clone(),
                stderr: init.client.stderr.clone(),
                terminal: init.client.terminal,
                ..TaskIO::default()
            })
            .into(),
            pid,
            ..TaskCreate::default()
        };
        self.events.created(&init.key, &event);
        let (events, id) = (Arc::clone(&self.events), request.id.clone());
        container.task.on_oom(Box::new(move || events.out_of_memory(id.clone())));
        init.when_it_ends(&self.events);
    }

    fn reserve<'a>(&'a self, id: &'a str) -> Result<Reservation<'a>, Refusal> {
        let mut slots = self.slots();
        if slots.contains_key(id) {
            return Err(Refusal::already_exists(format_args!("container {id} exists already")));
        }
        slots.insert(id.to_owned(), Slot::Taken);
        Ok(Reservation { tasks: self, id, filled: false })
    }

    fn image_source(&self, request: &CreateTaskRequest) -> docklock::task::ImageSource {
        let question = Question {
            address: self.place.grpc_address.clone(),
            namespace: self.place.namespace.clone(),
            container: request.id.clone(),
            rootfs: request.rootfs.clone(),
        };
        Box::new(move || question.ask().map_err(|error| error.to_string()))
    }

    /// Starts a container or an exec; answers its process id.
    ///
    /// # Errors
    /// docklock's; who waits for an exec that could not start is told so.
    pub fn start(&self, id: &str, exec: &str) -> Result<u32, Refusal> {
        let _span = span("shim.start");
        let process = self.process(id, exec)?;
        self.events.starting(&process.key);
        match process.start() {
            Ok(()) => {
                let pid = process.pid();
                self.events.started(&process.key, pid);
                Ok(pid)
            }
            Err(error) => {
                self.events.not_started(&process.key);
                // A container that fails to start is reaped and told like any other; an exec that never ran has nobody to reap.
                if process.pid() == 0 {
                    process.never_ran();
                }
                Err(error.into())
            }
        }
    }

    /// Adds an exec to a container, without starting it.
    ///
    /// # Errors
    /// A taken id, a process that is none, a profile that refuses.
    pub fn exec(&self, request: &ExecProcessRequest) -> Result<(), Refusal> {
        check_identifier("exec id", &request.exec_id)?;
        let container = self.container(&request.id)?;
        let process: OciProcess = from_json("process", request.spec.as_ref())?;
        let client = ClientIo::new([&request.stdin, &request.stdout, &request.stderr], request.terminal);
        let io = client.open()?;
        // The table stays locked, so that of two execs with one id only one is prepared.
        let mut execs = container.execs();
        if execs.contains_key(&request.exec_id) {
            let taken = format_args!("container {} has a process {} already", request.id, request.exec_id);
            return Err(Refusal::already_exists(taken));
        }
        let exec = container.task.exec(ExecRequest { exec_id: request.exec_id.clone(), process, io })?;
        let key = ProcessKey { container: request.id.clone(), exec: request.exec_id.clone() };
        self.events.exec_added(&key);
        let process = Process::new(key, client, Kind::Exec(exec));
        process.when_it_ends(&self.events);
        execs.insert(request.exec_id.clone(), process);
        Ok(())
    }

    /// Sends a signal to a process, or to all of a container.
    ///
    /// # Errors
    /// NotFound when it has ended, which containerd takes for success.
    pub fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Refusal> {
        let process = self.process(id, exec)?;
        let signum = i32::try_from(signal).ok().filter(|_| signal <= SIGNAL_MAX);
        let signum = signum.ok_or_else(|| Refusal::invalid(format_args!("signal {signal} is above {SIGNAL_MAX}")))?;
        if process.ended().is_some() {
            return Err(Refusal::not_found(format_args!("process {} has ended already", process.name())));
        }
        Ok(match &process.kind {
            Kind::Init(task) => task.signal(signum, all),
            Kind::Exec(exec) => exec.signal(signum),
        }?)
    }

    /// Tells a terminal its size in characters.
    ///
    /// # Errors
    /// A size no terminal has.
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Result<(), Refusal> {
        let process = self.process(id, exec)?;
        let side = |side: u32| {
            u16::try_from(side).map_err(|_| {
                Refusal::invalid(format_args!("a terminal is at most {} wide or high, not {side}", u16::MAX))
            })
        };
        let (columns, rows) = (side(width)?, side(height)?);
        Ok(match &process.kind {
            Kind::Init(task) => task.resize(columns, rows),
            Kind::Exec(exec) => exec.resize(columns, rows),
        }?)
    }

    /// Ends a process's standard input.
    ///
    /// # Errors
    /// docklock's.
    pub fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Refusal> {
        Ok(match &self.process(id, exec)?.kind {
            Kind::Init(task) => task.close_stdin(),
            Kind::Exec(exec) => exec.close_stdin(),
        }?)
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// docklock's.
    pub fn pause(&self, id: &str) -> Result<(), Refusal> {
        self.container(id)?.task.pause()?;
        self.events.paused(id.to_owned());
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// docklock's.
    pub fn resume(&self, id: &str) -> Result<(), Refusal> {
        self.container(id)?.task.resume()?;
        self.events.resumed(id.to_owned());
        Ok(())
    }

    /// Sets new limits.
    ///
    /// # Errors
    /// Resources that are none, or that the host refuses.
    pub fn update(&self, id: &str, resources: Option<&Any>) -> Result<(), Refusal> {
        let container = self.container(id)?;
        let resources: LinuxResources = from_json("resources", resources)?;
        Ok(container.task.update(&resources)?)
    }

    /// A container's counters, packed for containerd.
    ///
    /// # Errors
    /// When the control group cannot be read.
    pub fn stats(&self, id: &str) -> Result<Any, Refusal> {
        let stats = self.container(id)?.task.stats().map_err(TaskError::from)?;
        Ok(crate::metrics::pack(&stats))
    }

    /// Forgets a process that has ended or never ran; of a container, everything. Answers its process id and end.
    ///
    /// # Errors
    /// While it runs; and what could not be removed: then it can be asked for again.
    pub fn delete(&self, id: &str, exec: &str) -> Result<(u32, Option<Ended>), Refusal> {
        let _span = span("shim.delete");
        let container = self.container(id)?;
        let process = container.process(exec)?;
        if let Status::Running | Status::Paused = process.status() {
            return Err(Refusal::precondition(format_args!(
                "process {} runs; kill it before deleting it",
                process.name()
            )));
        }
        let pid = process.pid();
        match &process.kind {
            Kind::Exec(exec) => {
                exec.delete()?;
                container.execs().remove(exec.id());
                Ok((pid, process.ended()))
            }
            Kind::Init(task) => {
                task.delete()?;
                let ended = process.wait_until_told();
                rootfs::unmount(&container.bundle.join("rootfs"))?;
                self.slots().remove(id);
                self.tell_deleted(&process, pid, ended);
                Ok((pid, ended))
            }
        }
    }

    fn tell_deleted(&self, process: &Process, pid: u32, ended: Option<Ended>) {
        let event = TaskDelete {
            container_id: process.key.container.clone(),
            pid,
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: ended.map(|ended| timestamp(ended.at)).into(),
            ..TaskDelete::default()
        };
        self.events.deleted(&process.key, &event);
    }
}

/// For the `delete` action's answer, which is for people: a container is not ended for want of it.
fn note_pid(bundle: &Path, pid: u32) {
    let path = bundle.join(PID_FILE);
    if let Err(error) = std::fs::write(&path, pid.to_string()) {
        tracing::warn!(path = %path.display(), %error, "could not note the process id");
    }
}

/// containerd wraps OCI types as JSON; the message's own bound (4 MiB, ttrpc) is theirs too.
fn from_json<T: serde::de::DeserializeOwned>(what: &str, any: Option<&Any>) -> Result<T, Refusal> {
    let any = any.ok_or_else(|| Refusal::invalid(format_args!("the request has no {what}")))?;
    serde_json::from_slice(&any.value)
        .map_err(|error| Refusal::invalid(format_args!("the {what} is not an OCI {what}: {error}")))
}
