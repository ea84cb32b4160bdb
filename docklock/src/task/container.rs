//! A created container: start, control, wait, delete.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use bpi_protocol::receipt::{Abort, ExecRecord};
use bpi_protocol::run::Image;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use super::create::{self, Home, Parts};
use super::ending;
use super::engine::Shared;
use super::exec::Exec;
use super::orphan::Remains;
use super::{ExecRequest, Exit, Status, TaskError};
use crate::cage::{self, Plan};
use crate::cgroup::{CgroupError, Group, Stats};
use crate::engine::order::{Attach, Order};
use crate::inputs::{self, Mounted};
use crate::launch::Handed;
use crate::launch::{CageOrder, Created};
use crate::spans::span;
use crate::spool::{Appended, Boundary};
use crate::streams::Streams;
use crate::supervisor::Supervisor;
use crate::{clock, kernel, seal};

type ImageThread = JoinHandle<Result<Option<Image>, String>>;

/// A container from its creation to its deletion.
pub struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) id: String,
    pub(super) boundary: Boundary,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) home: Home,
    pub(super) group: Group,
    pub(super) plan: Plan,
    pub(super) cage: CageOrder,
    pub(super) supervisor: Arc<Supervisor>,
    /// The order for an engine; each further process has an engine of its own.
    engine: Mutex<Option<Order>>,
    pub(super) streams: Streams,
    pub(super) rootfs: PathBuf,
    pub(super) layer: Option<PathBuf>,
    pub(super) intent: Intent,
    pub(super) image: Mutex<Option<ImageThread>>,
    /// What is mounted from the host; known before the start.
    pub(super) mounted: OnceLock<Mounted>,
    pub(super) phase: Mutex<Phase>,
    pub(super) execs: Mutex<Vec<ExecRecord>>,
    pub(super) end: End<Exit>,
    pub(super) oom: Mutex<Vec<Box<dyn FnMut() + Send>>>,
}

/// How far a container has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Held before its first instruction.
    Created(Created),
    /// Let go at this time.
    Running { since: SystemTime },
    /// Frozen.
    Paused { since: SystemTime },
    /// It could not be started, or must not be: the reason goes into the abort.
    Failed { reason: String },
    /// Its first process is gone.
    Stopped,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Failed { .. } | Self::Stopped => "stopped",
        }
    }
}

/// Something that happens once, with everybody who waits for it.
pub(super) struct End<T> {
    state: Mutex<EndState<T>>,
    reached: Condvar,
}

struct EndState<T> {
    value: Option<T>,
    waiting: Vec<Box<dyn FnOnce(T) + Send>>,
}

impl<T: Clone> End<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(EndState { value: None, waiting: Vec::new() }), reached: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, EndState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reach(&self, value: T) {
        let mut state = self.lock();
        state.value = Some(value.clone());
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.reached.notify_all();
        for callback in waiting {
            callback(value.clone());
        }
    }

    pub(super) fn value(&self) -> Option<T> {
        self.lock().value.clone()
    }

    pub(super) fn wait(&self) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = &state.value {
                return value.clone();
            }
            state = self.reached.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn then(&self, callback: Box<dyn FnOnce(T) + Send>) {
        let mut state = self.lock();
        match state.value.clone() {
            None => state.waiting.push(callback),
            Some(value) => {
                drop(state);
                callback(value);
            }
        }
    }
}

/// The intent of a container: being made durable, or durable.
pub(super) struct Intent {
    pub(super) boundary: Boundary,
    pub(super) id: String,
    state: Mutex<IntentState>,
}

enum IntentState {
    Pending(JoinHandle<Result<Appended, TaskError>>),
    Durable(Appended),
    Failed(String),
    Closed,
}

impl Intent {
    pub(super) fn spawn(
        boundary: Boundary,
        id: String,
        work: impl FnOnce() -> Result<Appended, TaskError> + Send + 'static,
    ) -> Self {
        Self { boundary, id, state: Mutex::new(IntentState::Pending(std::thread::spawn(work))) }
    }

    /// Waits until the intent is durable.
    ///
    /// # Errors
    /// Why it is not, and the container must not run.
    pub(super) fn durable(&self) -> Result<Option<Appended>, TaskError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, IntentState::Closed) {
            IntentState::Pending(thread) => match thread.join().map_err(|_| TaskError::IntentPanicked)? {
                Ok(appended) => {
                    *state = IntentState::Durable(appended.clone());
                    Ok(Some(appended))
                }
                Err(error) => {
                    *state = IntentState::Failed(error.to_string());
                    Err(error)
                }
            },
            IntentState::Durable(appended) => {
                *state = IntentState::Durable(appended.clone());
                Ok(Some(appended))
            }
            IntentState::Failed(reason) => {
                *state = IntentState::Failed(reason);
                Ok(None)
            }
            IntentState::Closed => Ok(None),
        }
    }

    /// Closes the intent with an abort. An intent that never became durable needs none.
    ///
    /// # Errors
    /// When the abort cannot be made durable: the intent stays open then, and the gap can be proved.
    pub(super) fn abort(&self, shared: &Shared, reason: &str) -> Result<Option<Appended>, TaskError> {
        let Ok(Some(intent)) = self.durable() else { return Ok(None) };
        let spool = shared.spool(&self.boundary)?;
        let appended = spool.close(shared.signer.as_ref(), &intent.digest, |chain| {
            seal::abort_statement(&Abort {
                container_id: self.id.clone(),
                reason: reason.to_owned(),
                aborted_on: clock::now(),
                host: shared.identity.clone(),
                chain,
            })
        })?;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = IntentState::Closed;
        Ok(Some(appended))
    }
}

impl Task {
    /// Takes over a created container and begins to wait for its end.
    pub(super) fn adopt(
        shared: &Arc<Shared>,
        parts: Parts,
        intent: Intent,
        home: Home,
    ) -> Result<Arc<Self>, TaskError> {
        let Parts {
            id,
            boundary,
            plan,
            group,
            created,
            pidfd,
            streams,
            supervisor,
            engine,
            image,
            rootfs,
            layer,
            cage,
        } = parts;
        let pid = created.pid;
        let host = shared.host.clone();
        let image = std::thread::spawn(move || {
            // A millisecond under a hypervisor, and needed at the end only.
            drop(seal::host_vector(&host));
            image()
        });
        let task = Arc::new(Self {
            shared: Arc::clone(shared),
            id,
            boundary,
            pid,
            pidfd,
            home,
            group,
            plan,
            cage,
            supervisor,
            engine: Mutex::new(engine),
            streams,
            rootfs,
            layer,
            intent,
            image: Mutex::new(Some(image)),
            mounted: OnceLock::new(),
            phase: Mutex::new(Phase::Created(created)),
            execs: Mutex::default(),
            end: End::new(),
            oom: Mutex::default(),
        });
        match ending::watch(&task) {
            Ok(()) => Ok(task),
            Err(error) => {
                task.undo(&error)?;
                Err(error)
            }
        }
    }

    /// Takes back a container whose end nobody could wait for.
    fn undo(&self, error: &TaskError) -> Result<(), TaskError> {
        if let Phase::Created(created) = std::mem::replace(&mut *self.phase(), Phase::Stopped) {
            create::take_down(created, &self.group)?;
        }
        Remains::new(&self.home.dir, self.group.clone()).remove()?;
        self.intent.abort(&self.shared, &format!("the container could not be watched: {error}"))?;
        Ok(())
    }

    /// The caller's name for it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process, as this process sees it.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub(super) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the first process run, once its intent is durable.
    ///
    /// # Errors
    /// When it is not in state created, the intent cannot be made durable, or a fence or the program fails; it has ended then.
    pub fn start(self: &Arc<Self>) -> Result<(), TaskError> {
        let _span = span("start");
        let mut phase = self.phase();
        let created = match std::mem::replace(&mut *phase, Phase::Stopped) {
            Phase::Created(created) => created,
            other => {
                let state = other.name();
                *phase = other;
                return Err(TaskError::State { deed: "start container", id: self.id.clone(), state });
            }
        };
        let outcome = self.let_go(created);
        *phase = match &outcome {
            Ok(since) => Phase::Running { since: *since },
            Err(error) => Phase::Failed { reason: format!("the container could not be started: {error}") },
        };
        drop(phase);
        let Err(error) = outcome else { return Ok(()) };
        // Nobody must be left who could still run, whatever went wrong.
        self.group.kill_all()?;
        self.end.wait();
        Err(error)
    }

    fn let_go(self: &Arc<Self>, created: Created) -> Result<SystemTime, TaskError> {
        {
            let _span = span("wait-for-intent");
            if let Err(error) = self.intent.durable() {
                created.abandon()?;
                return Err(error);
            }
        }
        {
            let _span = span("inputs");
            self.mounted.get_or_init(|| inputs::measure(&self.plan.spec));
        }
        let since = SystemTime::now();
        created.start(|handed| self.watch(handed).map_err(|error| error.to_string()))?;
        Ok(since)
    }

    /// Answers a listener's calls; if that fails, the container ends without a receipt.
    pub(super) fn watch(self: &Arc<Self>, handed: Handed) -> Result<(), TaskError> {
        let listener = match handed {
            Handed::Listener(listener) => listener,
            Handed::Filter(attach) => return self.supervise(attach),
        };
        let group = self.group.clone();
        let end_it = move || {
            if let Err(error) = group.kill_all() {
                tracing::error!(%error, "a container without a supervisor could not be ended; its intercepted calls fail with ENOSYS");
            }
        };
        Ok(self.supervisor.watch(listener, Box::new(end_it))?)
    }

    /// Gives the process to an engine of its own. The log of decisions is the first process's.
    fn supervise(&self, attach: Attach) -> Result<(), TaskError> {
        let order = {
            let mut order = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            let next = order.as_ref().map(|order| Order { trace_log: None, ..order.clone() });
            std::mem::replace(&mut *order, next)
        };
        let order = order.ok_or_else(|| TaskError::Ended { id: self.id.clone() })?;
        let engine = self.shared.launcher.engine(order, attach)?;
        self.supervisor.keep(engine);
        Ok(())
    }

    /// Prepares a further process inside the running container.
    ///
    /// # Errors
    /// [`TaskError::ExecRefused`] under a profile that forbids it.
    pub fn exec(self: &Arc<Self>, request: ExecRequest) -> Result<Arc<Exec>, TaskError> {
        Exec::prepare(self, request)
    }

    /// Sends a signal to the first process, or with `all` to every process of the container.
    ///
    /// # Errors
    /// When it has ended, or the number is no signal.
    pub fn signal(&self, signum: i32, all: bool) -> Result<(), TaskError> {
        if self.end.value().is_some() {
            return Err(TaskError::Ended { id: self.id.clone() });
        }
        if all && signum == libc::SIGKILL {
            return Ok(self.group.kill_all()?);
        }
        if all {
            for pid in self.group.pids() {
                signal_process(&self.id, Pid::from_raw(pid as i32), signum)?;
            }
            return Ok(());
        }
        send(&self.id, &self.pidfd, signum)?;
        // A v1 freezer holds even a killed task; a frozen container must still die of a SIGKILL.
        if signum == libc::SIGKILL && matches!(*self.phase(), Phase::Paused { .. }) {
            self.resume()?;
        }
        Ok(())
    }

    /// Freezes all tasks of the container.
    ///
    /// # Errors
    /// When it is not running, or the host has no freezer.
    pub fn pause(&self) -> Result<(), TaskError> {
        let mut phase = self.phase();
        let Phase::Running { since } = *phase else { return Err(self.not("pause container", &phase)) };
        self.group.freeze()?;
        *phase = Phase::Paused { since };
        Ok(())
    }

    /// Thaws them.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn resume(&self) -> Result<(), TaskError> {
        let mut phase = self.phase();
        let Phase::Paused { since } = *phase else { return Err(self.not("resume container", &phase)) };
        self.group.thaw()?;
        *phase = Phase::Running { since };
        Ok(())
    }

    fn not(&self, deed: &'static str, phase: &Phase) -> TaskError {
        TaskError::State { deed, id: self.id.clone(), state: phase.name() }
    }

    /// Sets new limits on the running container.
    ///
    /// # Errors
    /// The first controller's that refuses.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), TaskError> {
        Ok(self.group.apply(&cage::plan_update(&self.plan, resources))?)
    }

    /// Process ids of the container, as this process sees them.
    pub fn pids(&self) -> Vec<u32> {
        self.group.pids()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When the control groups cannot be read.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        self.group.stats()
    }

    /// Tells its terminal a new size in characters.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), TaskError> {
        Ok(self.streams.resize(columns, rows)?)
    }

    /// Ends its standard input once what the client wrote is through.
    ///
    /// # Errors
    /// When the relay cannot be told.
    pub fn close_stdin(&self) -> Result<(), TaskError> {
        Ok(self.streams.close_stdin()?)
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        if self.end.value().is_some() {
            return Status::Stopped;
        }
        match *self.phase() {
            Phase::Created(_) => Status::Created,
            Phase::Paused { .. } => Status::Paused,
            // The end is told only when the receipt is durable; until then the container has not stopped for anybody outside.
            Phase::Running { .. } | Phase::Failed { .. } | Phase::Stopped => Status::Running,
        }
    }

    /// How it ended, once that is known and its receipt is durable.
    pub fn exit(&self) -> Option<Exit> {
        self.end.value()
    }

    /// Calls back when it has ended and its receipt is durable; at once if that is so already.
    pub fn on_exit(&self, callback: Box<dyn FnOnce(Exit) + Send>) {
        self.end.then(callback);
    }

    /// Calls back each time the container runs out of memory. Register before the start.
    pub fn on_oom(&self, callback: Box<dyn FnMut() + Send>) {
        self.oom.lock().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    /// Waits for that moment.
    pub fn wait(&self) -> Exit {
        self.end.wait()
    }

    /// Removes the container: ends it first if it has not ended.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn delete(&self) -> Result<Exit, TaskError> {
        let _span = span("delete");
        if self.end.value().is_none() {
            // Held containers know no receipt; running ones are ended here, and their receipt says by which signal.
            self.group.kill_all()?;
        }
        let exit = self.end.wait();
        if self.plan.spec.hooks().is_some() {
            self.shared.launcher.delete(&self.id, self.home.oci_root())?;
        }
        Remains::new(&self.home.dir, self.group.clone()).remove()?;
        Ok(exit)
    }

    pub(super) fn take_image(&self) -> Result<Option<Image>, String> {
        match self.image.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(None),
            Some(thread) => thread.join().map_err(|_| "the image's look-up panicked".to_owned())?,
        }
    }
}

/// Sends a signal through a descriptor that cannot come to mean another process.
pub(super) fn send(id: &str, pidfd: &OwnedFd, signum: i32) -> Result<(), TaskError> {
    kernel::pidfd_send_signal(pidfd.as_fd(), signum).map_err(|source| match source.raw_os_error() {
        Some(libc::ESRCH) => TaskError::Ended { id: id.to_owned() },
        _ => TaskError::System { deed: "send the signal", source },
    })
}

fn signal_process(id: &str, pid: Pid, signum: i32) -> Result<(), TaskError> {
    match kernel::pidfd_open(pid) {
        Ok(pidfd) => match send(id, &pidfd, signum) {
            Err(TaskError::Ended { .. }) => Ok(()),
            other => other,
        },
        // It left between the listing and now.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        Err(source) => Err(TaskError::System { deed: "find the process", source }),
    }
}
