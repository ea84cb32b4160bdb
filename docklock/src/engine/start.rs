//! The engine's birth: its order, its one task, its loop, its report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use bpi_policies::Policy;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::model::clock::{Clock, SECOND_NS};
use super::model::futex::Futexes;
use super::model::metadata::Metadata;
use super::model::timers::Timers;
use super::order::{Attach, Order, Word};
use super::task::{State, Tasks};
use super::trace::Trace;
use super::{Engine, EngineError, SPIN_LOOK_S, calls, counts, events, guest, open_log};
use crate::kernel::ears::Ears;
use crate::kernel::{self, tracee};

/// Longest message of the shim.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How often the engine looks for the listener that a task is about to have, and how long it waits in between.
const LISTENER_LOOKS: u32 = 50_000;
const LISTENER_LOOK_US: u64 = 20;

/// Serves one order in a process of its own, to the end of its tasks. What could not be done is told over `socket`.
pub fn serve(order: Order, socket: &OwnedFd) {
    let word = match work(order, socket) {
        Ok(word) => word,
        // The tasks end with this process (PTRACE_O_EXITKILL).
        Err(error) => Word::Failed { reason: error.to_string() },
    };
    tell(socket, &word, &[]);
}

fn tell(socket: &OwnedFd, word: &Word, fds: &[RawFd]) {
    let bytes = serde_json::to_vec(word).unwrap_or_default();
    if kernel::send_with_fds(socket.as_fd(), &bytes, fds).is_err() {
        // The shim is gone, or the message does not fit: it sees the end of the line and makes an abort of it.
        kernel::exit_now(71);
    }
}

fn work(order: Order, socket: &OwnedFd) -> Result<Word, EngineError> {
    // A thread's name that an operator finds in ps.
    let _ = prctl::set_name(c"docklock-engine");
    let (bytes, _) =
        kernel::receive_with_fds(socket.as_fd(), MESSAGE_BYTES_MAX).map_err(EngineError::edge("hear of the task"))?;
    let attach: Attach =
        serde_json::from_slice(&bytes).map_err(|error| EngineError::Message { reason: error.to_string() })?;
    let policy = Policy::parse(&order.profile, &order.profile_text)
        .map_err(|error| EngineError::Policy { name: order.profile.clone(), reason: error.to_string() })?;
    let mut engine = Engine::attach(order, policy, attach)?;
    tell(socket, &Word::Attached, &[engine.ears.listener().as_raw_fd()]);
    engine.run()?;
    Ok(Word::Over(Box::new(engine.report()?)))
}

impl Engine {
    fn attach(order: Order, policy: Policy, attach: Attach) -> Result<Self, EngineError> {
        let pid = Pid::from_raw(attach.pid);
        let listener = listener_of(pid, attach.listener)?;
        // Faster by half where the kernel has it; without it calls are only slower.
        drop(kernel::notify_sync_wake_up(listener.as_fd()));
        share_one_processor(pid)?;
        tracee::set_plain_priority(pid).map_err(EngineError::edge("give a task the plain priority"))?;
        have_descriptors()?;
        let ears = Ears::new(listener, SPIN_LOOK_S).map_err(EngineError::edge("hear of children"))?;
        tracee::seize(pid).map_err(EngineError::edge("become the task's tracer"))?;
        kernel::leave_rseq();
        // The task traps on rdtsc; a switch between two threads of one mind costs half.
        tracee::trap_tsc().map_err(EngineError::edge("trap the time stamp counter"))?;
        let mut tasks = Tasks::default();
        let number = events::cage_number(pid)?;
        let memory = tasks.new_memory();
        let root = tasks.add_process(pid, number, None, memory);
        let first = tasks.add_task(pid, number, root, State::Running);
        let epoch_ns = policy.profile().epoch * SECOND_NS;
        let mut random = calls::random::Random::new(&order.seed);
        let boot_id = random.uuid();
        let trace = Trace::new(open_log(&order)?).map_err(EngineError::edge("begin the log of decisions"))?;
        Ok(Self {
            ears,
            numbers: File::open(format!("/proc/{pid}/ns/pid")).ok().map(Into::into),
            policy,
            tasks,
            current: Some(first),
            root: Some(root),
            started: false,
            clock: Clock::new(epoch_ns),
            timers: Timers::default(),
            timerfds: calls::timerfd::TimerDescriptors::default(),
            signal_descriptors: false,
            socket_limits: calls::limit::Limits::default(),
            futexes: Futexes::new(),
            metadata: Metadata::new(order.since_ns, epoch_ns),
            random,
            boot_id,
            folders: calls::folder::Folders::default(),
            names: calls::path::Names::of(pid)?,
            hosts_mounts: false,
            sys_device: None,
            afterwards: None,
            trace,
            counts: counts::Counts::new(),
            counters: counts::Counters { tasks_most: 1, ..Default::default() },
            escapes: Vec::new(),
            ended_by: None,
            crash: None,
            socket_names: calls::name::Names::default(),
            fallen: BTreeMap::new(),
            doomed: BTreeSet::new(),
            outside: Vec::new(),
            shares_users: same_namespace(pid, "user"),
            outside_input: false,
            library: super::code::Library::default(),
            early: Vec::new(),
            vforked: BTreeMap::new(),
            arrivals: 0,
            file_bytes: 0,
            calls_in_turn: 0,
            no_deadline_before: u64::MAX,
            jumps: 0,
            signals_sent: false,
            signals_to: BTreeSet::new(),
            killer: None,
            progress: false,
            spin_since: None,
            asleep: None,
            order,
        })
    }
}

/// True when the task is known to live in the engine's own namespace of this kind (/proc/pid/ns, namespaces(7)).
fn same_namespace(pid: Pid, kind: &str) -> bool {
    let own = std::fs::read_link(format!("/proc/self/ns/{kind}"));
    let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    own.is_ok_and(|own| theirs.is_ok_and(|theirs| own == theirs))
}

/// The listener, as soon as the task has loaded its filter: it said its number before, and can say nothing after.
fn listener_of(pid: Pid, number: i32) -> Result<OwnedFd, EngineError> {
    let pidfd = kernel::pidfd_open(pid).map_err(EngineError::edge("find the task"))?;
    for _ in 0..LISTENER_LOOKS {
        match tracee::pidfd_getfd(pidfd.as_fd(), number) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                std::thread::sleep(std::time::Duration::from_micros(LISTENER_LOOK_US));
            }
            Err(source) => return Err(EngineError::Edge { deed: "take the task's listener", source }),
        }
    }
    Err(EngineError::Edge { deed: "take the task's listener", source: std::io::Error::from_raw_os_error(libc::ETIME) })
}

/// Raises the engine's own limit of descriptors as far as a host lets it: every wait of a task is held by duplicates.
fn have_descriptors() -> Result<(), EngineError> {
    let failed =
        |errno: nix::errno::Errno| EngineError::Edge { deed: "set the limit of descriptors", source: errno.into() };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let limit = hard.min(guest::DESCRIPTORS_MAX);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).map_err(failed)
}

/// Engine and tasks run on one processor, one at a time: a call and its answer are then two switches and no wake-up of another core.
fn share_one_processor(pid: Pid) -> Result<(), EngineError> {
    let failed = |errno: nix::errno::Errno| EngineError::Edge { deed: "share a processor", source: errno.into() };
    let allowed = sched_getaffinity(pid).map_err(failed)?;
    let numbers: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let Some(chosen) = numbers.get(pid.as_raw() as usize % numbers.len().max(1)) else { return Ok(()) };
    let mut one = CpuSet::new();
    one.set(*chosen).map_err(failed)?;
    sched_setaffinity(pid, &one).map_err(failed)?;
    sched_setaffinity(Pid::from_raw(0), &one).map_err(failed)
}
