//! The engine: the process that supervises, orders and answers the tasks of one container.
//!
//! Under the schedule `turns` it holds the seccomp listener and traces every task (PTRACE_SEIZE, for exec, clone and SIGSEGV alone). One task
//! runs at a time ([`turns`]); each call of class virtual gets its answer from logical state ([`calls`], [`model`]); every decision goes
//! into one hash ([`trace`]). Under the schedule `host` it only refuses and counts. Its death ends its tasks (PTRACE_O_EXITKILL), so
//! no call ever falls through. Always true: no decision depends on a host thread id, a host clock or host randomness.
//! Absent on purpose: the vDSO clock, and with it logging and every timed wait of the standard library: this thread traps on rdtsc too.

pub mod model;
pub mod order;
pub mod report;
pub mod trace;

mod budget;
mod calls;
mod code;
mod counts;
mod events;
mod exec;
mod guest;
mod hook;
mod signals;
mod start;
mod task;
mod turns;
mod vdso;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use bpi_policies::{Class, Policy};
use nix::sys::stat::fstat;
use nix::unistd::Pid;

pub use start::serve;

use self::counts::{Counters, Counts};
use self::guest::Fault;
use self::model::clock::Clock;
use self::model::futex::Futexes;
use self::model::metadata::Metadata;
use self::model::timers::Timers;
use self::order::{BARRIER, BARRIER_PASSED, Order};
use self::report::{Report, TraceRoot};
use self::task::{Call, ProcessId, Resume, State, TaskId, Tasks};
use self::trace::{Record, Trace};
use crate::kernel::ears::{Ears, Heard};
use crate::kernel::tracee::Outcome;
use crate::kernel::{self, Notification, Reply, tracee};

/// Logical cost of an intercepted call.
const CALL_NS: u64 = 1_000;
/// How often the engine looks whether the task that has the turn still makes calls.
const SPIN_LOOK_S: i64 = 1;
/// CPU time without a call after which a task that keeps others waiting is said to spin.
const SPIN_CPU_MS: u64 = 20_000;
/// Looks at a task that has the turn and sleeps inside the kernel, after which nobody is thought to wake it.
const ASLEEP_LOOKS: u32 = 15;
/// Most escapes a report names; the count goes on.
const ESCAPES_MAX: usize = 32;

/// Why the engine cannot go on. The tasks end with it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A call of the engine's own failed.
    #[error("could not {deed}: {source}")]
    Edge {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The policy in the order cannot be read.
    #[error("the order's policy {name} cannot be read: {reason}")]
    Policy {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A task called that the engine does not know.
    #[error("task {tid} of the host made a call under this filter and was never seen to be born")]
    Stranger {
        /// Its thread id on the host.
        tid: i32,
    },
    /// A message of the shim makes no sense.
    #[error("a message of the shim cannot be read: {reason}")]
    Message {
        /// Why.
        reason: String,
    },
    /// Something between the executor and the program has made addresses random again.
    #[error("the addresses of a program are random, though the policy says that they are not")]
    Random,
    /// The vDSO of a program cannot be taken away: its clocks would be the host's.
    #[error("the vDSO of a program cannot be taken away: {reason}")]
    Vdso {
        /// Why.
        reason: String,
    },
}

impl EngineError {
    fn edge(deed: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Edge { deed, source }
    }
}

/// Why a call got no answer on its straight path: the guest's own mistake, or ours.
#[derive(Debug)]
enum Trouble {
    Guest(Fault),
    Engine(EngineError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Guest(fault)
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// What was decided about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It returns this; the kernel does not run it.
    Return(i64),
    /// The kernel runs it.
    Continue,
    /// Its task is parked, or the answer is given already.
    Settled,
}

/// A file that leads out of the cage: one of the first process's standard streams.
type FileKey = (u64, u64);

/// The engine and all it knows.
pub(crate) struct Engine {
    ears: Ears,
    /// The cage's process namespace, which knows the numbers of its tasks; a kernel may not say.
    numbers: Option<OwnedFd>,
    policy: Policy,
    order: Order,
    tasks: Tasks,
    current: Option<TaskId>,
    root: Option<ProcessId>,
    /// The first program has been executed: from here on everything is decided and recorded.
    started: bool,
    clock: Clock,
    timers: Timers,
    timerfds: calls::timerfd::TimerDescriptors,
    /// Somebody has a descriptor of signalfd(2).
    signal_descriptors: bool,
    socket_limits: calls::limit::Limits,
    futexes: Futexes,
    metadata: Metadata,
    random: calls::random::Random,
    boot_id: String,
    folders: calls::folder::Folders,
    names: calls::path::Names,
    /// A file system is mounted in the cage that shows the host's kernel or machine.
    hosts_mounts: bool,
    /// The memory file system that stands for /sys.
    sys_device: Option<u64>,
    /// What is to be noted when a call that was let through has returned.
    afterwards: Option<calls::change::Afterwards>,
    trace: Trace,
    counts: Counts,
    counters: Counters,
    escapes: Vec<String>,
    ended_by: Option<String>,
    /// The signal of the first process's crash.
    crash: Option<u8>,
    /// Processes whose ends are awaited, one after the other.
    doomed: BTreeSet<ProcessId>,
    /// Threads that ended while the task that has the turn executes a program or dies: both end its siblings, in an order of the kernel's.
    fallen: BTreeMap<TaskId, Outcome>,
    socket_names: calls::name::Names,
    outside: Vec<FileKey>,
    /// The cage's users are the host's: no user namespace lies between.
    shares_users: bool,
    /// Standard input is a pipe or socket whose writer is outside.
    outside_input: bool,
    library: code::Library,
    /// Newborn tasks that stopped before their parent told of them.
    early: Vec<Pid>,
    /// Children of vfork(2) that have neither executed nor ended, by the host's number, and who waits for them.
    vforked: BTreeMap<i32, TaskId>,
    arrivals: u64,
    /// Bytes that calls asked to write to files, if there is a budget for them.
    file_bytes: u64,
    calls_in_turn: u32,
    /// No blocked task has an earlier deadline; perhaps none has this one either.
    no_deadline_before: u64,
    /// Times the clock jumped since a task was ready.
    jumps: u32,
    /// A signal may have come to any task that waits.
    signals_sent: bool,
    /// A signal may have come to these, and to nobody else.
    signals_to: BTreeSet<ProcessId>,
    /// The task that just sends SIGKILL: its own process may be the one that dies of it.
    killer: Option<TaskId>,
    /// Something happened since tasks in [`task::Wait::Retry`] tried last.
    progress: bool,
    /// CPU time of the task that has the turn when it was last seen to make no call.
    spin_since: Option<(TaskId, u64, u64)>,
    /// The task that has the turn and sleeps in the kernel: at which call of the run, and for how many looks.
    asleep: Option<(TaskId, u64, u32)>,
}

impl Engine {
    /// Runs the cage until its last task is gone.
    fn run(&mut self) -> Result<(), EngineError> {
        while !self.tasks.is_empty() {
            if self.ended_by.is_some() {
                self.reap_everybody()?;
                break;
            }
            if self.current.is_none() && self.started {
                self.pick()?;
                continue;
            }
            self.hear_one()?;
        }
        Ok(())
    }

    /// Waits for the next thing the running task does.
    fn hear_one(&mut self) -> Result<(), EngineError> {
        match self.ears.hear().map_err(EngineError::edge("receive a call"))? {
            Heard::Call(notification) => self.on_call(notification),
            Heard::News => {
                self.drain_events()?;
                if self.ears.ticked() { self.look_for_spin() } else { Ok(()) }
            }
            // A caller that was killed in between: its death is told by waitpid.
            Heard::Nobody if self.drain_events()? || !self.ears.hung_up() => Ok(()),
            // The last task under the filter is dying and not yet a zombie.
            Heard::Nobody => match self.wait_blocking()? {
                Some((pid, outcome)) => self.on_event(pid, outcome),
                None => Ok(()),
            },
        }
    }

    fn on_call(&mut self, notification: Notification) -> Result<(), EngineError> {
        let tid = Pid::from_raw(notification.pid as i32);
        if self.tasks.by_tid(tid).is_none() {
            self.drain_events()?;
        }
        let Some(id) = self.tasks.by_tid(tid) else { return Err(EngineError::Stranger { tid: tid.as_raw() }) };
        let call = Call {
            id: notification.id,
            nr: i64::from(notification.nr),
            arch: notification.arch,
            args: notification.args,
        };
        if !self.started {
            return self.before_start(&call);
        }
        self.finish_change(id);
        let again = self.tasks.get(id).and_then(|task| task.again).is_some_and(|former| former.repeats(&call));
        if let Some(task) = self.tasks.get_mut(id) {
            task.call = Some(call);
            task.again = task.again.filter(|_| again);
            let carried = task.carried.take().filter(|carried| carried.nr == call.nr);
            task.timed_out = carried.is_some_and(|carried| carried.timed_out);
            task.retried = carried.is_some();
            task.deadline = carried.and_then(|carried| carried.deadline);
            task.written = 0;
        }
        if self.current != Some(id) {
            // A task ran without the turn. It is parked now, and the receipt tells.
            let sentence = format!("task {} ran out of turn", self.number_of(id));
            self.ready(id, Resume::Retry);
            return self.give_up_or_escape(self.is_strict(), sentence);
        }
        if again {
            // One call to the guest: it costs once.
            return self.decide(id);
        }
        self.counters.calls += 1;
        self.clock.advance(CALL_NS);
        self.fire()?;
        if self.signals_are_due() && self.tasks.len() > 1 {
            self.scan_signals()?;
        }
        if !self.within_budget(id, &call)? {
            return Ok(());
        }
        self.calls_in_turn += 1;
        if self.calls_in_turn > self.policy.profile().quantum && self.tasks.len() > 1 {
            self.look_at_files();
            if self.somebody_is_ready() {
                self.ready(id, Resume::Retry);
                return Ok(());
            }
            self.calls_in_turn = 0;
        }
        let before = std::mem::replace(&mut self.progress, true);
        self.decide(id)?;
        // A call that was tried in vain is no progress: two that wait for each other would try for ever.
        if self.tasks.get(id).is_some_and(|task| matches!(task.state, State::Blocked(task::Wait::Retry))) {
            self.progress = before;
        }
        Ok(())
    }

    /// Before the first program: the executor's own last calls. Only the policy decides about them.
    fn before_start(&mut self, call: &Call) -> Result<(), EngineError> {
        let listener = self.ears.listener();
        let told = if call.nr == BARRIER {
            tracee::notify_return(listener, call.id, BARRIER_PASSED)
        } else {
            match self.policy.decide(&call.of_policy()) {
                Class::Deny(errno) => kernel::notify_reply(listener, call.id, Reply::Errno(errno.number())),
                Class::Virtual | Class::Allow => kernel::notify_reply(listener, call.id, Reply::Continue),
            }
        };
        self.forgiving(told, "answer a call of the executor")
    }

    /// Decides about the call that a task waits in. Called again for a call that was blocked.
    fn decide(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some(call) = self.tasks.get(id).and_then(|task| task.call) else { return Ok(()) };
        match self.policy.decide(&call.of_policy()) {
            Class::Deny(errno) => return self.refuse(id, &call, errno.number(), errno.name()),
            // A call of class allow passes the filter unseen. One that arrives here disagrees with its own filter: fail closed.
            Class::Allow => return self.refuse(id, &call, libc::ENOSYS, "ENOSYS"),
            Class::Virtual => {}
        }
        let verdict = match self.dispatch(id, &call) {
            Ok(verdict) => verdict,
            Err(Trouble::Guest(Fault(value))) => Verdict::Return(value),
            Err(Trouble::Engine(error)) => return Err(error),
        };
        match verdict {
            Verdict::Return(value) => self.answer(id, value),
            Verdict::Continue => self.let_through(id),
            Verdict::Settled => Ok(()),
        }
    }

    /// Refuses a call and counts it.
    fn refuse(&mut self, id: TaskId, call: &Call, errno: i32, name: &'static str) -> Result<(), EngineError> {
        self.counts.denied(self.policy.name_of(&call.of_policy()), name);
        let Some(call) = self.take_call(id, -i64::from(errno))? else { return Ok(()) };
        self.forgiving(kernel::notify_reply(self.ears.listener(), call.id, Reply::Errno(errno)), "refuse a call")
    }

    fn record(&mut self, task: u32, call: i32, result: i64, args: [u64; 2]) -> Result<(), EngineError> {
        let record = Record { task, call, at_ns: self.clock.now(), result, args };
        self.trace.add(record).map_err(EngineError::edge("write the log of decisions"))
    }

    fn number_of(&self, id: TaskId) -> u32 {
        self.tasks.get(id).map_or(0, |task| task.number)
    }

    /// A task that is gone is no error: its death is told by waitpid.
    fn forgiving(&self, told: io::Result<()>, deed: &'static str) -> Result<(), EngineError> {
        match told {
            Err(error) if !is_gone(&error) => Err(EngineError::Edge { deed, source: error }),
            _ => Ok(()),
        }
    }

    fn is_strict(&self) -> bool {
        self.policy.profile().on_spin == bpi_policies::Spin::End
    }

    fn ends_on_deadlock(&self) -> bool {
        self.policy.profile().on_deadlock == bpi_policies::Outcome::End
    }

    /// Ends the run with a sentence, or notes that it left the deterministic path.
    fn give_up_or_escape(&mut self, end: bool, sentence: String) -> Result<(), EngineError> {
        if end {
            self.end_run(sentence);
            return Ok(());
        }
        self.escape(sentence);
        Ok(())
    }

    fn escape(&mut self, sentence: String) {
        self.counters.escapes += 1;
        if self.escapes.len() < ESCAPES_MAX {
            self.escapes.push(sentence);
        }
    }

    /// Kills every task. The run gets no receipt but this sentence.
    fn end_run(&mut self, sentence: String) {
        self.ended_by.get_or_insert(sentence);
        for (_, process) in self.tasks.processes() {
            if !process.zombie {
                match nix::sys::signal::kill(process.pid, nix::sys::signal::Signal::SIGKILL) {
                    // One that is gone already needs no signal.
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    // The engine's own end takes every task with it (PTRACE_O_EXITKILL).
                    Err(_) => kernel::exit_now(72),
                }
            }
        }
    }

    /// True when `fd` is one of the streams that lead out of the cage.
    fn leads_outside(&self, fd: &OwnedFd) -> bool {
        fstat(fd).is_ok_and(|stat| self.outside.contains(&(stat.st_dev, stat.st_ino)))
    }

    /// A task that has the turn, makes no calls and uses the processor, while others wait.
    fn look_for_spin(&mut self) -> Result<(), EngineError> {
        let Some(id) = self.current else { return Ok(()) };
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(()) };
        self.look_for_sleep(id, tid)?;
        let Ok(used) = tracee::thread_cpu_ns(tid) else { return Ok(()) };
        let since = match self.spin_since {
            Some((spinner, calls, since)) if spinner == id && calls == self.counters.calls => since,
            _ => {
                self.spin_since = Some((id, self.counters.calls, used));
                return Ok(());
            }
        };
        self.look_at_files();
        let others = self.somebody_is_ready() || self.timers.next_deadline().is_some() || self.somebody_sleeps();
        if !others || used.saturating_sub(since) < SPIN_CPU_MS * 1_000_000 {
            return Ok(());
        }
        self.spin_since = None;
        self.preempt(id)
    }

    /// A task that was let through into a call that sleeps: whoever could wake it waits for its turn, or there is nobody.
    fn look_for_sleep(&mut self, id: TaskId, tid: Pid) -> Result<(), EngineError> {
        let Some(call) = tracee::sleeps_in(tid) else {
            self.asleep = None;
            return Ok(());
        };
        let looks = match self.asleep {
            Some((sleeper, calls, looks)) if sleeper == id && calls == self.counters.calls => looks.saturating_add(1),
            _ => 1,
        };
        self.asleep = Some((id, self.counters.calls, looks));
        if looks != ASLEEP_LOOKS {
            return Ok(());
        }
        let call = Call { id: 0, nr: call.0, arch: bpi_policies::AUDIT_ARCH_X86_64, args: call.1 };
        if self.waits_for_the_world(id, &call) {
            return Ok(());
        }
        let name = self.policy.name_of(&call.of_policy());
        let sentence =
            format!("deadlock: task {} waits inside the kernel in {name}, and nobody can end that", self.number_of(id));
        self.give_up_or_escape(self.ends_on_deadlock(), sentence)
    }

    /// True when a call waits for one of the streams that lead out of the cage.
    fn waits_for_the_world(&mut self, id: TaskId, call: &Call) -> bool {
        // Whether standard input is among what an epoll descriptor watches is not seen from outside.
        let epoll = matches!(call.nr, libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2);
        if epoll && self.outside_input {
            return true;
        }
        let files = self.waited_for(id, call);
        files.iter().any(|fd| self.leads_outside(fd))
    }

    fn somebody_sleeps(&self) -> bool {
        self.tasks.iter().any(|(_, task)| matches!(task.state, State::Blocked(_)) && task.deadline.is_some())
    }

    /// What the shim gets.
    fn report(self) -> Result<Report, EngineError> {
        let (sources, reasons) = self.sources();
        let Self { trace, counts, counters, escapes, ended_by, crash, policy, .. } = self;
        let (digest, events) = trace.finish().map_err(EngineError::edge("finish the log of decisions"))?;
        let schedule = if counters.tasks_most > 1 { "serial-syscall" } else { "single" };
        Ok(Report {
            trace: Some(TraceRoot { alg: "blake3".into(), digest, events, format: "docklock-trace/1".into() }),
            denied: counts.denied_calls(),
            answered: counts.answered_calls(&policy),
            sources,
            reasons,
            schedule: schedule.into(),
            counters: counters.to_map(),
            escapes,
            crash,
            ended_by,
        })
    }
}

impl Call {
    /// As a policy sees it.
    fn of_policy(&self) -> bpi_policies::Call {
        bpi_policies::Call { arch: self.arch, nr: self.nr as i32, args: self.args }
    }
}

/// The errnos by which the kernel says that a task is gone, or its wait was broken off.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT | libc::EINTR))
}

/// Opens the file that keeps the log, if one is wanted.
fn open_log(order: &Order) -> Result<Option<File>, EngineError> {
    order
        .trace_log
        .as_ref()
        .map(|path| File::options().write(true).create_new(true).open(path))
        .transpose()
        .map_err(EngineError::edge("make the log of decisions"))
}
