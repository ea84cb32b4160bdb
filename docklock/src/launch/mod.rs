//! Starts containers: the launcher process, its requests, and the guardian it becomes when the shim dies.
//!
//! libcontainer changes the working directory, dumpability and OOM score of the process that calls it, and clones with raw
//! system calls: poison for a process with threads. So [`Launcher::start`] forks one small process while ours is still single-threaded,
//! and that one forks a child for each container. The container's first process is a child of *this* process (CLONE_PARENT), which
//! therefore reaps it. Always true: nothing outside [`container`] names libcontainer.

mod container;
mod executor;
mod guardian;
mod process;
mod strays;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub use guardian::end_launcher;

use crate::cage::Fences;
use crate::engine::order::{Attach, Order, Word};
use crate::engine::report::Report;
use crate::kernel;

/// Longest request or reply packet in bytes. Specifications travel as files; a packet holds a few paths and flags.
const PACKET_BYTES_MAX: usize = 128 * 1024;

/// Why a container or process could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher has to be forked from a single thread.
    #[error("the launcher must be forked before any thread starts, but {threads} threads run")]
    NotSingleThreaded {
        /// Threads that run.
        threads: usize,
    },
    /// A system call on our side of the launcher failed.
    #[error("could not {deed}: {source}")]
    System {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The launcher or its child ended without an answer.
    #[error("the launcher ended while it was asked to {deed}")]
    LauncherGone {
        /// What was asked.
        deed: &'static str,
    },
    /// The engine ended without a report; its tasks ended with it.
    #[error("the engine of the container died, and the container with it")]
    EngineDied,
    /// libcontainer or the executor refused.
    #[error("could not {deed}: {reason}")]
    Refused {
        /// What was asked.
        deed: &'static str,
        /// The whole chain of causes.
        reason: String,
    },
}

/// What the launcher's child is asked to do.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Create a container and hold it before its first instruction; then wait for one more packet to start it.
    Create { id: String, root: PathBuf, bundle: PathBuf, console: Option<PathBuf>, no_pivot: bool, cage: CageOrder },
    /// Start a further process inside a running container.
    Exec { id: String, root: PathBuf, process: PathBuf, console: Option<PathBuf>, cage: CageOrder },
    /// Be the engine of one process and of all that come from it.
    Engine { order: Box<Order> },
    /// Remove what libcontainer keeps of a container, killing what is left of it.
    Delete { id: String, root: PathBuf },
}

impl Request {
    fn deed(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create the container",
            Self::Exec { .. } => "start a process in the container",
            Self::Engine { .. } => "start the engine",
            Self::Delete { .. } => "remove the container",
        }
    }
}

/// What the executor does last before the program's first instruction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CageOrder {
    /// The fences to put up, in the order the executor documents.
    pub fences: Fences,
    /// Our filter: BPF instructions, 8 bytes each.
    pub filter: PathBuf,
    /// The specification's own filter, stacked after ours.
    pub tenant_filter: Option<PathBuf>,
    /// An engine takes the listener, and traps are set for what no filter sees.
    pub turns: bool,
}

/// An answer of the launcher's child.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    /// The child that serves the request, for this process to reap.
    Child { pid: i32 },
    /// Done; the container process where there is one.
    Done { pid: Option<i32> },
    /// Refused, with the whole chain of causes.
    Refused { reason: String },
}

/// The three standard streams of a new process; `None` is /dev/null.
#[derive(Debug, Default)]
pub struct ContainerStreams {
    /// Read end for descriptor 0.
    pub stdin: Option<OwnedFd>,
    /// Write end for descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Write end for descriptor 2.
    pub stderr: Option<OwnedFd>,
}

/// What to create.
#[derive(Debug)]
pub struct CreateOrder {
    /// Container id; also its directory below `root`.
    pub id: String,
    /// Where libcontainer keeps its state of this container.
    pub root: PathBuf,
    /// Directory that holds the caged config.json.
    pub bundle: PathBuf,
    /// Socket that wants the terminal; then the streams are unused.
    pub console: Option<PathBuf>,
    /// Chroot instead of pivot_root, for a root file system on an initramfs.
    pub no_pivot: bool,
    /// The fences.
    pub cage: CageOrder,
    /// The standard streams.
    pub streams: ContainerStreams,
}

/// What to start inside a running container.
#[derive(Debug)]
pub struct ExecOrder {
    /// Container id.
    pub id: String,
    /// Where libcontainer keeps its state of this container.
    pub root: PathBuf,
    /// File with the caged OCI process.
    pub process: PathBuf,
    /// Socket that wants the terminal; then the streams are unused.
    pub console: Option<PathBuf>,
    /// The fences.
    pub cage: CageOrder,
    /// The standard streams.
    pub streams: ContainerStreams,
}

/// A container that waits before its first instruction.
#[derive(Debug)]
pub struct Created {
    /// Its first process, a child of ours.
    pub pid: Pid,
    conversation: Conversation,
    executor: OwnedFd,
}

/// The launcher process, and our line to it.
#[derive(Debug)]
pub struct Launcher {
    socket: OwnedFd,
    pid: Pid,
}

impl Launcher {
    /// Forks the launcher. `guard` runs in it, once, if this process ends without [`Launcher::dismiss`].
    ///
    /// # Errors
    /// [`LaunchError::NotSingleThreaded`] when a thread already runs; system errors of socketpair(2) and fork(2).
    pub fn start(guard: impl FnOnce(Pid)) -> Result<Self, LaunchError> {
        let threads = kernel::thread_count().map_err(|source| LaunchError::System { deed: "count threads", source })?;
        if threads != 1 {
            return Err(LaunchError::NotSingleThreaded { threads });
        }
        let (ours, theirs) = packet_pair()?;
        let owner = Pid::this();
        // SAFETY: one thread, counted three lines above, and nothing in between starts one.
        #[allow(unsafe_code)]
        let forked = unsafe { kernel::fork_single_threaded() };
        match forked.map_err(|source| LaunchError::System { deed: "fork the launcher", source })? {
            Some(pid) => Ok(Self { socket: ours, pid }),
            None => {
                drop(ours);
                process::serve(theirs, owner, guard)
            }
        }
    }

    /// The launcher's process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends the launcher in peace: there is nothing left to guard.
    ///
    /// # Errors
    /// When the launcher is already gone.
    pub fn dismiss(&self) -> Result<(), LaunchError> {
        let system = |source| LaunchError::System { deed: "dismiss the launcher", source };
        kernel::send_with_fds(self.socket.as_fd(), process::DISMISS, &[]).map_err(system)?;
        waitpid(self.pid, Some(WaitPidFlag::__WALL)).map_err(|errno| system(errno.into()))?;
        Ok(())
    }

    /// Creates a container and holds it before its first instruction.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] with libcontainer's causes; nothing of the container is left then.
    pub fn create(&self, order: CreateOrder) -> Result<Created, LaunchError> {
        let CreateOrder { id, root, bundle, console, no_pivot, cage, streams } = order;
        let request = Request::Create { id, root, bundle, console, no_pivot, cage };
        let (executor, theirs) = packet_pair()?;
        know_senders(&executor)?;
        let conversation = self.ask(&request, streams, Some(theirs))?;
        let answer = conversation.answer();
        strays::reap()?;
        match answer? {
            Some(pid) => Ok(Created { pid, conversation, executor }),
            None => Err(LaunchError::LauncherGone { deed: request.deed() }),
        }
    }

    /// Starts a process inside a running container. `on_listener` takes its seccomp listener before it runs.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] with libcontainer's or the executor's causes.
    pub fn exec(
        &self,
        order: ExecOrder,
        on_listener: impl FnOnce(Handed) -> Result<(), String>,
    ) -> Result<Pid, LaunchError> {
        let ExecOrder { id, root, process, console, cage, streams } = order;
        let request = Request::Exec { id, root, process, console, cage };
        let deed = request.deed();
        let (executor, theirs) = packet_pair()?;
        know_senders(&executor)?;
        let conversation = self.ask(&request, streams, Some(theirs))?;
        let mut failed = None;
        let handover = take_listener(executor, deed, on_listener, &mut failed);
        let answer = conversation.answer();
        conversation.reap()?;
        if let Some(pid) = failed {
            reap_failed(pid)?;
        }
        strays::reap()?;
        match (handover, answer) {
            (Ok(()), Ok(Some(pid))) => Ok(pid),
            (Ok(()), Ok(None)) => Err(LaunchError::LauncherGone { deed }),
            (Err(reason), Ok(Some(pid))) if failed.is_none() => {
                reap_failed(pid)?;
                Err(reason)
            }
            // The executor was never reached: libcontainer's own reason is the cause.
            (Err(LaunchError::LauncherGone { .. }), Err(reason)) | (Ok(()), Err(reason)) => Err(reason),
            (Err(reason), _) => Err(reason),
        }
    }

    /// Starts an engine and gives it its first task. When this returns, every call of the task is supervised.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] with the engine's reason; it has ended then.
    pub fn engine(&self, order: Order, attach: Attach) -> Result<EngineProcess, LaunchError> {
        let request = Request::Engine { order: Box::new(order) };
        let deed = request.deed();
        let conversation = self.ask(&request, ContainerStreams::default(), None)?;
        let message =
            serde_json::to_vec(&attach).map_err(|source| LaunchError::System { deed, source: source.into() })?;
        kernel::send_with_fds(conversation.socket.as_fd(), &message, &[])
            .map_err(|source| LaunchError::System { deed, source })?;
        let (word, listener) = conversation.word_with_listener()?;
        match word {
            Some(Word::Attached) => Ok(EngineProcess { conversation, listener }),
            Some(Word::Failed { reason }) => {
                conversation.reap()?;
                Err(LaunchError::Refused { deed, reason })
            }
            Some(Word::Over(_)) | None => {
                conversation.reap()?;
                Err(LaunchError::EngineDied)
            }
        }
    }

    /// Removes what libcontainer keeps of a container, with its control group.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] with libcontainer's causes.
    pub fn delete(&self, id: &str, root: PathBuf) -> Result<(), LaunchError> {
        let request = Request::Delete { id: id.to_owned(), root };
        let conversation = self.ask(&request, ContainerStreams::default(), None)?;
        let answer = conversation.answer();
        conversation.reap()?;
        answer.map(|_| ())
    }

    fn ask(
        &self,
        request: &Request,
        streams: ContainerStreams,
        executor: Option<OwnedFd>,
    ) -> Result<Conversation, LaunchError> {
        let deed = request.deed();
        let (ours, theirs) = packet_pair()?;
        let present = [executor.is_some(), streams.stdin.is_some(), streams.stdout.is_some(), streams.stderr.is_some()];
        let fds: Vec<RawFd> = [
            Some(&theirs),
            executor.as_ref(),
            streams.stdin.as_ref(),
            streams.stdout.as_ref(),
            streams.stderr.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(AsRawFd::as_raw_fd)
        .collect();
        let packet = serde_json::to_vec(&(present, request))
            .map_err(|source| LaunchError::System { deed: "write a request", source: source.into() })?;
        kernel::send_with_fds(self.socket.as_fd(), &packet, &fds)
            .map_err(|source| LaunchError::System { deed, source })?;
        drop(theirs);
        match receive(&ours, deed)? {
            Some(Reply::Child { pid }) => Ok(Conversation { socket: ours, child: Pid::from_raw(pid), deed }),
            Some(Reply::Refused { reason }) => Err(LaunchError::Refused { deed, reason }),
            Some(Reply::Done { .. }) | None => Err(LaunchError::LauncherGone { deed }),
        }
    }
}

impl Created {
    /// Lets the container's first process run. `on_listener` takes its seccomp listener before it does.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] when a fence could not be put up or the program could not be executed; the process has ended then.
    pub fn start(self, on_listener: impl FnOnce(Handed) -> Result<(), String>) -> Result<(), LaunchError> {
        let Self { conversation, executor, .. } = self;
        let deed = "start the container";
        kernel::send_with_fds(conversation.socket.as_fd(), process::START, &[])
            .map_err(|source| LaunchError::System { deed, source })?;
        let answer = conversation.answer();
        conversation.reap()?;
        answer?;
        // The task reaps its first process, however it ends.
        take_listener(executor, deed, on_listener, &mut None)
    }

    /// Gives up a container that was never started; the caller deletes it.
    ///
    /// # Errors
    /// When the launcher's child cannot be reaped.
    pub fn abandon(self) -> Result<(), LaunchError> {
        let Conversation { socket, child, .. } = self.conversation;
        drop(socket);
        reap(child, "abandon the container")
    }
}

/// A request under way: the child that serves it, and its answers.
#[derive(Debug)]
struct Conversation {
    socket: OwnedFd,
    child: Pid,
    deed: &'static str,
}

impl Conversation {
    fn answer(&self) -> Result<Option<Pid>, LaunchError> {
        let deed = self.deed;
        match receive(&self.socket, deed)? {
            Some(Reply::Done { pid }) => Ok(pid.map(Pid::from_raw)),
            Some(Reply::Refused { reason }) => {
                reap(self.child, deed)?;
                Err(LaunchError::Refused { deed, reason })
            }
            Some(Reply::Child { .. }) | None => Err(LaunchError::LauncherGone { deed }),
        }
    }

    /// The next word of an engine; `None` at its end.
    fn word(&self) -> Result<Option<Word>, LaunchError> {
        self.word_with_listener().map(|(word, _)| word)
    }

    /// The same, and the listener that comes with [`Word::Attached`].
    fn word_with_listener(&self) -> Result<(Option<Word>, Option<OwnedFd>), LaunchError> {
        let deed = self.deed;
        let (bytes, fds) = kernel::receive_with_fds(self.socket.as_fd(), PACKET_BYTES_MAX)
            .map_err(|source| LaunchError::System { deed, source })?;
        if bytes.is_empty() {
            return Ok((None, None));
        }
        let word = serde_json::from_slice(&bytes);
        let word = word.map_err(|source| LaunchError::System { deed, source: source.into() })?;
        Ok((Some(word), fds.into_iter().next()))
    }

    fn reap(&self) -> Result<(), LaunchError> {
        reap(self.child, self.deed)
    }
}

/// Waits for the end of one child of the launcher. One that was reaped before is no error.
fn reap(child: Pid, deed: &'static str) -> Result<(), LaunchError> {
    loop {
        match waitpid(child, Some(WaitPidFlag::__WALL)) {
            Ok(_) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(LaunchError::System { deed, source: errno.into() }),
        }
    }
}

/// Reaps a container process whose executor failed: it has ended or is about to.
fn reap_failed(pid: Pid) -> Result<(), LaunchError> {
    reap(pid, "reap a process that failed to start")
}

/// Receives the executor's messages up to its end of file, which says that execve(2) succeeded. `failed` gets the process that says it
/// could not, where the socket tells senders.
fn take_listener(
    socket: OwnedFd,
    deed: &'static str,
    on_listener: impl FnOnce(Handed) -> Result<(), String>,
    failed: &mut Option<Pid>,
) -> Result<(), LaunchError> {
    let mut take = Some(on_listener);
    loop {
        let (bytes, fds, sender) = kernel::receive_with_sender(socket.as_fd(), PACKET_BYTES_MAX)
            .map_err(|source| LaunchError::System { deed: "hear from the executor", source })?;
        if bytes.is_empty() && fds.is_empty() {
            // End of file: with a listener handed over the program runs; without one the executor was never reached.
            return if take.is_none() { Ok(()) } else { Err(LaunchError::LauncherGone { deed }) };
        }
        let handed = match (fds.into_iter().next(), filter_number(&bytes), sender) {
            (Some(listener), ..) => Some(Handed::Listener(listener)),
            (None, Some(listener), Some(pid)) => Some(Handed::Filter(Attach { pid: pid.as_raw(), listener })),
            _ => None,
        };
        match handed {
            Some(handed) => {
                let Some(take) = take.take() else { continue };
                if let Err(reason) = take(handed) {
                    // It waits for somebody who will not come.
                    if let Some(pid) = sender {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                    return Err(LaunchError::Refused { deed, reason });
                }
            }
            None => {
                let reason = String::from_utf8_lossy(&bytes).into_owned();
                *failed = sender;
                return Err(LaunchError::Refused { deed, reason });
            }
        }
    }
}

/// What the executor hands over.
#[derive(Debug)]
pub enum Handed {
    /// The listener of a filter that is loaded.
    Listener(OwnedFd),
    /// Where an engine finds the listener that is about to be.
    Filter(Attach),
}

/// The number in the executor's word that it is about to load its filter.
fn filter_number(bytes: &[u8]) -> Option<i32> {
    std::str::from_utf8(bytes.strip_prefix(executor::ABOUT_TO_LOAD)?).ok()?.parse().ok()
}

fn know_senders(socket: &OwnedFd) -> Result<(), LaunchError> {
    setsockopt(socket, sockopt::PassCred, &true)
        .map_err(|errno| LaunchError::System { deed: "ask for the sender of messages", source: errno.into() })
}

/// An engine at work.
#[derive(Debug)]
pub struct EngineProcess {
    conversation: Conversation,
    /// Held while the engine lives: a dying process closes its descriptors before its tasks are killed (PTRACE_O_EXITKILL), and without
    /// any listener left the kernel answers the calls that wait with ENOSYS.
    listener: Option<OwnedFd>,
}

impl EngineProcess {
    /// Waits for the end of its tasks, and for what it has to tell.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] with its reason when it could not go on, [`LaunchError::LauncherGone`] when it died.
    pub fn finish(self) -> Result<Report, LaunchError> {
        let word = self.conversation.word();
        self.conversation.reap()?;
        // The engine is a zombie, so its tasks have their SIGKILL.
        drop(self.listener);
        match word? {
            Some(Word::Over(report)) => Ok(*report),
            Some(Word::Failed { reason }) => Err(LaunchError::Refused { deed: "supervise the container", reason }),
            Some(Word::Attached) | None => Err(LaunchError::EngineDied),
        }
    }
}

fn receive(socket: &OwnedFd, deed: &'static str) -> Result<Option<Reply>, LaunchError> {
    let (bytes, _) = kernel::receive_with_fds(socket.as_fd(), PACKET_BYTES_MAX)
        .map_err(|source| LaunchError::System { deed, source })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|source| LaunchError::System { deed, source: source.into() })
}

fn packet_pair() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| LaunchError::System { deed: "make a socket pair", source: errno.into() })
}
