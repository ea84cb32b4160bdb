//! The tasks and processes of the cage, by numbers of our own: the host's thread ids differ from run to run and must decide nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

/// A task, counted from the first, in the order of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskId(pub u32);

/// A process, counted likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ProcessId(pub u32);

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Names the notification.
    pub id: u64,
    pub nr: i64,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    /// True for the same call made once more.
    pub fn repeats(&self, other: &Self) -> bool {
        (self.nr, self.arch, self.args) == (other.nr, other.arch, other.args)
    }
}

/// How a ready task is let go when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// It is in a ptrace stop: let it run.
    Unpark,
    /// It is in a ptrace stop on its way out of a call that would have waited: let it make that call again.
    Again,
    /// Its call has this result.
    Return(i64),
    /// Decide about its call again.
    Retry,
    /// A signal is there for it: the kernel runs the call, which ends at once.
    Interrupt,
}

/// A descriptor that a task waits for.
#[derive(Debug)]
pub(super) struct Awaited {
    /// A duplicate of the task's own.
    pub fd: OwnedFd,
    /// What it waits for, as poll(2) says it.
    pub events: i16,
    /// Which of poll's answers end the wait. For poll itself that is every one; select(2) does not hear all of them.
    pub answers: i16,
    /// The signals that make it readable, if it is one of signalfd(2): the kernel would answer for the signals of whoever asks.
    pub signals: Option<u64>,
}

impl Awaited {
    /// A descriptor as poll(2) waits for it.
    pub fn new(fd: OwnedFd, events: i16) -> Self {
        Self { fd, events, answers: !0, signals: None }
    }
}

/// What a call that is made again keeps of its first time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub nr: i64,
    pub deadline: Option<u64>,
    pub timed_out: bool,
}

/// What a blocked task waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// A wake on its futex.
    Futex,
    /// One of these descriptors to become ready.
    Files(Vec<Awaited>),
    /// A child's end.
    Child,
    /// Its deadline alone.
    Sleep,
    /// A signal.
    Signal,
    /// The child it made by vfork(2) to exec or end.
    Vfork,
    /// Anything: the call is tried again after every step of another task. The task is in a ptrace stop.
    Retry,
    /// To be continued after a stop signal, or to be reaped with its process.
    Stopped,
    /// The other end of the FIFO with this device and inode; it opens for `O_ACCMODE & flags`.
    Fifo { device: u64, inode: u64, mode: i32 },
}

impl Wait {
    /// One word for a report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Futex => "futex",
            Self::Files(_) => "descriptor",
            Self::Child => "child",
            Self::Sleep => "sleep",
            Self::Signal => "signal",
            Self::Vfork => "vfork",
            Self::Retry => "lock or queue",
            Self::Stopped => "stopped",
            Self::Fifo { .. } => "fifo",
        }
    }
}

/// Where a task stands.
#[derive(Debug)]
pub(super) enum State {
    /// It has the turn.
    Running,
    /// It could run.
    Ready(Resume),
    /// It cannot.
    Blocked(Wait),
}

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub tid: Pid,
    /// Its number inside the cage.
    pub number: u32,
    pub process: ProcessId,
    pub state: State,
    /// The call it waits in.
    pub call: Option<Call>,
    /// The call that it makes again, because a stop kept the kernel from it.
    pub again: Option<Call>,
    /// True while it is in a ptrace stop and not in a notification.
    pub stopped: bool,
    /// Order of arrival in its queue.
    pub arrival: u64,
    /// Logical time at which its wait ends.
    pub deadline: Option<u64>,
    /// Its deadline has passed while it waited in the present call.
    pub timed_out: bool,
    /// The present call was blocked before, so its deadline is set.
    pub retried: bool,
    /// The task will make its call again, and this goes on with it.
    pub carried: Option<Carried>,
    /// CLONE_CHILD_CLEARTID or set_tid_address(2): cleared and woken at its end.
    pub clear_tid: Option<u64>,
    /// The task that waits in vfork(2) for this one.
    pub vfork_parent: Option<TaskId>,
    pub pidfd: Option<OwnedFd>,
    /// Bytes of the present write(2) that are through.
    pub written: u64,
    /// The open descriptor that makes its FIFO open without waiting.
    pub fifo_holder: Option<OwnedFd>,
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub pid: Pid,
    /// Its number inside the cage.
    pub number: u32,
    pub parent: Option<ProcessId>,
    /// Its address space: the same number for a vfork(2) child until it execs.
    pub memory: u64,
    pub tasks: u32,
    pub zombie: bool,
    /// /proc/pid/maps of its address space, once somebody asked.
    pub maps: Option<File>,
}

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    processes: BTreeMap<ProcessId, Process>,
    by_tid: BTreeMap<i32, TaskId>,
    next_task: u32,
    next_process: u32,
    next_memory: u64,
}

impl Tasks {
    pub fn add_process(&mut self, pid: Pid, number: u32, parent: Option<ProcessId>, memory: u64) -> ProcessId {
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        let process = Process { pid, number, parent, memory, tasks: 0, zombie: false, maps: None };
        self.processes.insert(id, process);
        id
    }

    pub fn new_memory(&mut self) -> u64 {
        self.next_memory += 1;
        self.next_memory
    }

    pub fn add_task(&mut self, tid: Pid, number: u32, process: ProcessId, state: State) -> TaskId {
        let id = TaskId(self.next_task);
        self.next_task += 1;
        let task = Task {
            tid,
            number,
            process,
            state,
            call: None,
            again: None,
            stopped: false,
            arrival: 0,
            deadline: None,
            timed_out: false,
            retried: false,
            carried: None,
            clear_tid: None,
            vfork_parent: None,
            pidfd: None,
            written: 0,
            fifo_holder: None,
        };
        self.tasks.insert(id, task);
        self.by_tid.insert(tid.as_raw(), id);
        if let Some(process) = self.processes.get_mut(&process) {
            process.tasks += 1;
        }
        id
    }

    /// Takes a task out; its process stays.
    pub fn remove_task(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        if self.by_tid.get(&task.tid.as_raw()) == Some(&id) {
            self.by_tid.remove(&task.tid.as_raw());
        }
        if let Some(process) = self.processes.get_mut(&task.process) {
            process.tasks = process.tasks.saturating_sub(1);
        }
        Some(task)
    }

    pub fn remove_process(&mut self, id: ProcessId) {
        self.processes.remove(&id);
    }

    /// A task that calls execve(2) outside of the first thread gets the first thread's id.
    pub fn rename(&mut self, id: TaskId, tid: Pid, number: u32) {
        if let Some(task) = self.tasks.get_mut(&id) {
            self.by_tid.remove(&task.tid.as_raw());
            task.tid = tid;
            task.number = number;
            task.pidfd = None;
            self.by_tid.insert(tid.as_raw(), id);
        }
    }

    pub fn by_tid(&self, tid: Pid) -> Option<TaskId> {
        self.by_tid.get(&tid.as_raw()).copied()
    }

    pub fn get(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    pub fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(&id)
    }

    pub fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(&id)
    }

    pub fn process_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.processes.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().map(|(id, task)| (*id, task))
    }

    pub fn processes(&self) -> impl Iterator<Item = (ProcessId, &Process)> {
        self.processes.iter().map(|(id, process)| (*id, process))
    }

    pub fn processes_mut(&mut self) -> impl Iterator<Item = (ProcessId, &mut Process)> {
        self.processes.iter_mut().map(|(id, process)| (*id, process))
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks of one process, oldest first.
    pub fn of_process(&self, process: ProcessId) -> Vec<TaskId> {
        self.tasks.iter().filter(|(_, task)| task.process == process).map(|(id, _)| *id).collect()
    }
}
