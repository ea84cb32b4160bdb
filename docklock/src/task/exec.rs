//! A further process inside a running container. It taints the receipt: somebody else had a hand in the run.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bpi_protocol::canonical;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::ExecRecord;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::Process;

use super::container::{End, Phase, Task, send};
use super::create::{is_file_name, write_private};
use super::{ExecRequest, Exit, Io, Status, TaskError};
use crate::cage::{self, ExecRule};
use crate::clock;
use crate::kernel;
use crate::launch::ExecOrder;
use crate::seal::Ending;
use crate::spans::span;
use crate::streams::{Prepared, Streams};

/// Most argument arrays that a receipt tells apart.
const ARGVS_MAX: usize = 64;

/// A prepared, running or ended process inside a container.
pub struct Exec {
    task: Arc<Task>,
    id: String,
    process: Process,
    state: Mutex<State>,
    end: End<Exit>,
}

enum State {
    Prepared(Io),
    Running { pid: Pid, pidfd: OwnedFd, streams: Arc<Streams> },
    Failed,
}

impl Exec {
    pub(super) fn prepare(task: &Arc<Task>, request: ExecRequest) -> Result<Arc<Self>, TaskError> {
        let ExecRequest { exec_id, process, io } = request;
        if !is_file_name(&exec_id) {
            return Err(TaskError::ExecId { id: exec_id });
        }
        if task.plan.exec == ExecRule::Refuse {
            return Err(TaskError::ExecRefused { id: task.id.clone(), profile: task.plan.cage.profile.clone() });
        }
        let process = cage::plan_exec(&task.plan, &process)?;
        Ok(Arc::new(Self {
            task: Arc::clone(task),
            id: exec_id,
            process,
            state: Mutex::new(State::Prepared(io)),
            end: End::new(),
        }))
    }

    /// The caller's name for it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its process id as this process sees it; 0 before it runs.
    pub fn pid(&self) -> u32 {
        match &*self.state() {
            State::Running { pid, .. } => pid.as_raw().unsigned_abs(),
            State::Prepared(_) | State::Failed => 0,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the container does not run, or a fence or the program fails.
    pub fn start(self: &Arc<Self>) -> Result<(), TaskError> {
        let _span = span("exec");
        let mut state = self.state();
        let io = match std::mem::replace(&mut *state, State::Failed) {
            State::Prepared(io) => io,
            other => {
                *state = other;
                return Err(TaskError::State { deed: "start process", id: self.id.clone(), state: "already started" });
            }
        };
        // The container's phase is held, so that its end cannot be sealed between our taint and our process.
        let phase = self.task.phase();
        if !matches!(*phase, Phase::Running { .. }) {
            return Err(TaskError::State {
                deed: "start a process in container",
                id: self.task.id.clone(),
                state: "not running",
            });
        }
        self.taint()?;
        let (pid, streams) = self.launch(io)?;
        drop(phase);
        let pidfd =
            kernel::pidfd_open(pid).map_err(|source| TaskError::System { deed: "watch the process", source })?;
        let streams = Arc::new(streams);
        *state = State::Running { pid, pidfd, streams: Arc::clone(&streams) };
        drop(state);
        self.reap_later(pid, streams)
    }

    fn launch(&self, io: Io) -> Result<(Pid, Streams), TaskError> {
        let task = &self.task;
        let file = task.home.file(&format!("exec-{}.json", self.id));
        let bytes = serde_json::to_vec(&self.process)
            .map_err(|error| TaskError::Spec { path: file.clone(), reason: error.to_string() })?;
        write_private(&file, &bytes)?;
        let mut prepared = Prepared::open(io, &task.home.file(&format!("exec-{}.tty", self.id)))?;
        let order = ExecOrder {
            id: task.id.clone(),
            root: task.home.oci_root(),
            process: file.clone(),
            console: prepared.console_socket(),
            cage: task.cage.clone(),
            streams: prepared.take_container_streams(),
        };
        let launched = task.shared.launcher.exec(order, |handed| task.watch(handed).map_err(|error| error.to_string()));
        std::fs::remove_file(&file).map_err(|source| TaskError::File { deed: "remove", path: file, source })?;
        let pid = launched?;
        Ok((pid, prepared.run()?))
    }

    /// Writes the exec into what the receipt will say, before it can do anything.
    fn taint(&self) -> Result<(), TaskError> {
        let argv = canonical::to_bytes(&self.process.args().clone().unwrap_or_default())
            .map_err(crate::seal::SealError::from)?;
        let mut execs = self.task.execs.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut execs, Sha256Digest::of(&argv), clock::now());
        Ok(())
    }

    fn reap_later(self: &Arc<Self>, pid: Pid, streams: Arc<Streams>) -> Result<(), TaskError> {
        let exec = Arc::clone(self);
        std::thread::Builder::new()
            .name("exec-reaper".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                let status = status_of(reap(pid));
                let at = SystemTime::now();
                let drained = streams.finish();
                let reason = drained.err().map_or_else(
                    || "a process that was started by exec has no receipt of its own".to_owned(),
                    |error| error.to_string(),
                );
                exec.end.reach(Exit { status, at, seal: Err(reason) });
            })
            .map_err(|source| TaskError::System { deed: "start a reaper thread", source })?;
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signum: i32) -> Result<(), TaskError> {
        match &*self.state() {
            State::Running { pidfd, .. } => send(&self.id, pidfd, signum),
            State::Prepared(_) | State::Failed => Err(TaskError::Ended { id: self.id.clone() }),
        }
    }

    /// Tells its terminal a new size in characters.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), TaskError> {
        match &*self.state() {
            State::Running { streams, .. } => Ok(streams.resize(columns, rows)?),
            State::Prepared(_) | State::Failed => Ok(()),
        }
    }

    /// Ends its standard input once what the client wrote is through.
    ///
    /// # Errors
    /// When the relay cannot be told.
    pub fn close_stdin(&self) -> Result<(), TaskError> {
        match &*self.state() {
            State::Running { streams, .. } => Ok(streams.close_stdin()?),
            State::Prepared(_) | State::Failed => Ok(()),
        }
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        if self.end.value().is_some() {
            return Status::Stopped;
        }
        match &*self.state() {
            State::Prepared(_) => Status::Created,
            State::Running { .. } => Status::Running,
            State::Failed => Status::Stopped,
        }
    }

    /// How it ended, once that is known.
    pub fn exit(&self) -> Option<Exit> {
        self.end.value()
    }

    /// Calls back when it has ended and its streams are through.
    pub fn on_exit(&self, callback: Box<dyn FnOnce(Exit) + Send>) {
        self.end.then(callback);
    }

    /// Waits for that moment.
    pub fn wait(&self) -> Exit {
        self.end.wait()
    }

    /// Forgets it. A running process is refused.
    ///
    /// # Errors
    /// [`TaskError::State`] while it runs.
    pub fn delete(&self) -> Result<Option<Exit>, TaskError> {
        match self.status() {
            Status::Running | Status::Paused => {
                Err(TaskError::State { deed: "delete process", id: self.id.clone(), state: "running" })
            }
            Status::Created | Status::Stopped => Ok(self.end.value()),
        }
    }
}

/// Adds a process to the records: to that of its arguments, to a new one, or, beyond [`ARGVS_MAX`], to the one for all others. A pod that
/// is probed for years has a receipt of the same size.
fn note(execs: &mut Vec<ExecRecord>, argv: Sha256Digest, now: String) {
    let known = execs.iter().position(|exec| exec.argv == Some(argv));
    let others = || execs.iter().position(|exec| exec.argv.is_none());
    let index = known.or_else(|| if execs.len() < ARGVS_MAX { None } else { others() });
    match index {
        Some(index) => execs[index].count += 1,
        None => execs.push(ExecRecord { argv: (execs.len() < ARGVS_MAX).then_some(argv), started_on: now, count: 1 }),
    }
}

/// Waits for a child's end.
pub(super) fn reap(pid: Pid) -> Ending {
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            // wait(2): an exit status has eight bits.
            Ok(WaitStatus::Exited(_, code)) => return Ending::Exited(code as u8),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ending::Signaled(signal as i32 as u8),
            Ok(_) | Err(Errno::EINTR) => {}
            // Not our child any more: nobody can know how it ended. 255 is what a shell says of what it cannot know.
            Err(_) => return Ending::Exited(255),
        }
    }
}

/// The status as a shell says it: 128 + the signal that ended it.
pub(super) fn status_of(ending: Ending) -> u32 {
    match ending {
        Ending::Exited(code) => code.into(),
        Ending::Signaled(signal) => 128 + u32::from(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_comes_again_and_again_is_one_record() {
        let mut execs = Vec::new();
        for _ in 0..1000 {
            note(&mut execs, Sha256Digest::of(b"probe"), String::new());
        }
        assert_eq!(execs.iter().map(|exec| exec.count).collect::<Vec<_>>(), [1000]);
    }

    #[test]
    fn arguments_that_never_repeat_do_not_grow_the_receipt() {
        let mut execs = Vec::new();
        for number in 0..10_000_u32 {
            note(&mut execs, Sha256Digest::of(&number.to_be_bytes()), String::new());
        }
        assert_eq!(execs.len(), ARGVS_MAX + 1);
        assert_eq!(execs.iter().map(|exec| exec.count).sum::<u64>(), 10_000);
        assert_eq!(execs.iter().filter(|exec| exec.argv.is_none()).count(), 1);
    }
}
