//! What the tracer hears: births, programs, ends, signals, stops, time stamp counters.
//!
//! Two orders are the kernel's choice and must not show: a newborn's stop may come before its parent's word of it, and a vfork parent's
//! release before or after its child's exec. Early news is kept; what may have been heard already is never waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use nix::unistd::Pid;

use super::guest;
use super::hook::EVENT_STOP;
use super::task::{ProcessId, Resume, State, TaskId, Wait};
use super::trace::Event;
use super::{Engine, EngineError};
use crate::kernel::facts;
use crate::kernel::tracee::{self, Outcome, Who};

/// How long the engine sleeps between looks at a thread that is about to be a zombie, or to stop, in microseconds.
const ZOMBIE_LOOK_US: u64 = 20;
/// How often a parent is looked at that is on its way to a stop: some seconds.
const PARENT_LOOKS_MAX: u32 = 100_000;
/// The number of the first process of a namespace, whose end is everybody's (pid_namespaces(7)).
const FIRST_NUMBER: u32 = 1;
/// Signals by which the kernel tells of a fault, signal(7).
const FAULTS: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
/// PF_EXITING, one of a task's flags in proc_pid_stat(5) (include/linux/sched.h).
const EXITING: u64 = 0x4;
/// FUTEX_OWNER_DIED, futex(2).
const OWNER_DIED: u32 = 0x4000_0000;

impl Engine {
    /// The next news of the tasks. A child's end after vfork(2) is heard only when its parent has stopped: the kernel gives SIGCHLD to a thread
    /// that is not in a stop, so which one gets it would depend on how far the parent has come.
    pub(super) fn hear(&mut self, who: Who, block: bool) -> std::io::Result<Option<(Pid, Outcome)>> {
        if self.vforked.is_empty() {
            return tracee::wait(who, block);
        }
        let Some((pid, ended)) = tracee::peek(who, block)? else { return Ok(None) };
        if ended
            && let Some(parent) = self.vforked.remove(&pid.as_raw())
            && let Some(news) = self.settle(parent)?
        {
            return Ok(Some(news));
        }
        tracee::wait(Who::Task(pid), true)
    }

    /// Waits for the stop of a parent whose vfork(2) is over. `None`: it has been heard, or will never come.
    fn settle(&self, parent: TaskId) -> std::io::Result<Option<(Pid, Outcome)>> {
        for _ in 0..PARENT_LOOKS_MAX {
            let Some(task) = self.tasks.get(parent).filter(|task| !task.stopped) else { return Ok(None) };
            let comes = is_on_its_way(task.tid);
            let news = tracee::wait(Who::Task(task.tid), false)?;
            if news.is_some() || !comes {
                return Ok(news);
            }
            std::thread::sleep(std::time::Duration::from_micros(ZOMBIE_LOOK_US));
        }
        Ok(None)
    }

    /// Hears everything there is to hear. True when there was anything.
    pub(super) fn drain_events(&mut self) -> Result<bool, EngineError> {
        let mut heard = false;
        loop {
            match self.hear(Who::Any, false) {
                Ok(Some((pid, outcome))) => {
                    heard = true;
                    self.on_event(pid, outcome)?;
                }
                Ok(None) => return Ok(heard),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    self.forget_everybody()?;
                    return Ok(heard);
                }
                Err(source) => return Err(EngineError::Edge { deed: "hear of the tasks", source }),
            }
        }
    }

    pub(super) fn wait_blocking(&mut self) -> Result<Option<(Pid, Outcome)>, EngineError> {
        match self.hear(Who::Any, true) {
            Ok(news) => Ok(news),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                self.forget_everybody()?;
                Ok(None)
            }
            Err(source) => Err(EngineError::Edge { deed: "hear of the tasks", source }),
        }
    }

    /// Nobody is traced any more: whoever is still in the table has been reaped by another.
    fn forget_everybody(&mut self) -> Result<(), EngineError> {
        let left: Vec<TaskId> = self.tasks.iter().map(|(id, _)| id).collect();
        for id in left {
            self.end_task(id, Outcome::Killed(libc::SIGKILL))?;
        }
        Ok(())
    }

    /// After SIGKILL to all: waits for every end.
    pub(super) fn reap_everybody(&mut self) -> Result<(), EngineError> {
        while !self.tasks.is_empty() {
            match self.wait_blocking()? {
                Some((pid, Outcome::Stopped { .. })) => self.forgiving(tracee::resume(pid, 0), "let a task end")?,
                Some((pid, outcome)) => {
                    if let Some(id) = self.tasks.by_tid(pid) {
                        self.end_task(id, outcome)?;
                    }
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn on_event(&mut self, pid: Pid, outcome: Outcome) -> Result<(), EngineError> {
        self.counters.events += 1;
        self.ears.hush().map_err(EngineError::edge("hush the tasks"))?;
        let Some(id) = self.tasks.by_tid(pid) else {
            return match outcome {
                Outcome::Stopped { event: EVENT_STOP, .. } => {
                    self.early.push(pid);
                    Ok(())
                }
                Outcome::Stopped { .. } => self.forgiving(tracee::resume(pid, 0), "let a task go on"),
                // A thread that an exec of its process has ended.
                Outcome::Exited(_) | Outcome::Killed(_) => Ok(()),
            };
        };
        self.finish_change(id);
        match outcome {
            Outcome::Exited(_) | Outcome::Killed(_) => self.on_end(id, outcome),
            Outcome::Stopped { event: libc::PTRACE_EVENT_EXEC, .. } => self.on_exec(id, pid),
            Outcome::Stopped {
                event: libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK,
                ..
            } => self.on_clone(id, pid, outcome),
            Outcome::Stopped { event: libc::PTRACE_EVENT_VFORK_DONE, .. } => {
                if !self.is_released_later(id) {
                    self.stopped_and_ready(id);
                }
                Ok(())
            }
            Outcome::Stopped { event: EVENT_STOP, signal } => self.on_stop(id, pid, signal),
            Outcome::Stopped { signal, .. } => self.on_signal(id, pid, signal),
        }
    }

    /// Notes the stop of a parent in vfork(2) whose child's end or exec is yet to be told: which of the two is heard first is the host's choice,
    /// and the child's releases its parent.
    fn is_released_later(&mut self, id: TaskId) -> bool {
        let awaited = self.tasks.iter().any(|(_, task)| task.vfork_parent == Some(id));
        let waiting = self.tasks.get_mut(id).filter(|task| matches!(task.state, State::Blocked(Wait::Vfork)));
        let Some(task) = waiting.filter(|_| awaited) else { return false };
        task.stopped = true;
        true
    }

    fn stopped_and_ready(&mut self, id: TaskId) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.stopped = true;
        }
        self.ready(id, Resume::Unpark);
    }

    /// A birth: the newborn is held in its first stop until its turn comes.
    fn on_clone(&mut self, id: TaskId, pid: Pid, outcome: Outcome) -> Result<(), EngineError> {
        let gone = |error: &std::io::Error| super::is_gone(error);
        let child = match tracee::event_message(pid) {
            Ok(message) => Pid::from_raw(message as i32),
            Err(error) if gone(&error) => return Ok(()),
            Err(source) => return Err(EngineError::Edge { deed: "hear who was born", source }),
        };
        let registers = tracee::registers(pid).map_err(EngineError::edge("read how a task was born"))?;
        let (flags, clear_tid) = birth(pid, &registers);
        if let Some(place) = self.early.iter().position(|early| *early == child) {
            self.early.swap_remove(place);
        } else if !wait_for_newborn(child)? {
            return self.forgiving(tracee::resume(pid, 0), "let a parent go on");
        }
        let number = self.cage_number(child)?;
        let Some(parent) = self.tasks.get(id) else { return Ok(()) };
        let (parent_number, process) = (parent.number, parent.process);
        let process = if flags & libc::CLONE_THREAD as u64 != 0 {
            process
        } else {
            self.add_child_process(process, child, number, flags)
        };
        let newborn = self.tasks.add_task(child, number, process, State::Ready(Resume::Unpark));
        self.counters.clones += 1;
        self.counters.tasks_most = self.counters.tasks_most.max(self.tasks.len() as u64);
        if let Some(task) = self.tasks.get_mut(newborn) {
            task.stopped = true;
            task.clear_tid = (flags & libc::CLONE_CHILD_CLEARTID as u64 != 0).then_some(clear_tid);
        }
        self.ready(newborn, Resume::Unpark);
        self.record(parent_number, Event::Clone as i32, number.into(), [flags, 0])?;
        if matches!(outcome, Outcome::Stopped { event: libc::PTRACE_EVENT_VFORK, .. }) {
            if let Some(task) = self.tasks.get_mut(newborn) {
                task.vfork_parent = Some(id);
            }
            self.vforked.insert(child.as_raw(), id);
            self.block(id, Wait::Vfork, None);
        }
        self.forgiving(tracee::resume(pid, 0), "let a parent go on")
    }

    fn add_child_process(&mut self, parent: ProcessId, child: Pid, number: u32, flags: u64) -> ProcessId {
        let (memory, grandparent) =
            self.tasks.process(parent).map_or((0, None), |process| (process.memory, process.parent));
        let memory = if flags & libc::CLONE_VM as u64 != 0 { memory } else { self.tasks.new_memory() };
        let parent = if flags & libc::CLONE_PARENT as u64 != 0 { grandparent } else { Some(parent) };
        self.tasks.add_process(child, number, parent, memory)
    }

    /// A new program: other threads of its process are gone, and a vfork parent may go on.
    fn on_exec(&mut self, id: TaskId, pid: Pid) -> Result<(), EngineError> {
        let former = tracee::event_message(pid).map_err(EngineError::edge("hear who executed"))?;
        let former = Pid::from_raw(former as i32);
        // An exec outside of the first thread gives its caller the first thread's id.
        let id = if former == pid { id } else { self.tasks.by_tid(former).unwrap_or(id) };
        let Some(process) = self.tasks.get(id).map(|task| task.process) else { return Ok(()) };
        // The thread that vfork(2) made may be among them.
        let mut inherited = None;
        for other in self.tasks.of_process(process) {
            if other != id {
                inherited = inherited.or(self.tasks.get(other).and_then(|task| task.vfork_parent));
                self.futexes.remove(other.0);
                self.fallen.remove(&other);
                self.tasks.remove_task(other);
            }
        }
        self.timers.on_exec(process.0);
        let number = self.tasks.process(process).map_or(0, |process| process.number);
        self.tasks.rename(id, pid, number);
        self.vforked.remove(&former.as_raw());
        self.vforked.remove(&pid.as_raw());
        let memory = self.tasks.new_memory();
        let mut vfork_parent = None;
        if let Some(task) = self.tasks.get_mut(id) {
            task.state = State::Running;
            task.call = None;
            task.clear_tid = None;
            task.stopped = false;
            vfork_parent = task.vfork_parent.take().or(inherited);
        }
        if let Some(process) = self.tasks.process_mut(process) {
            process.memory = memory;
            process.maps = None;
        }
        self.current = Some(id);
        self.counters.execs += 1;
        self.release_vfork_parent(vfork_parent)?;
        if self.started {
            self.look_at_outside_input(id)
        } else {
            self.begin(id)?
        }
        self.record(number, Event::Exec as i32, 0, [0; 2])?;
        self.furnish_program(pid)?;
        self.forgiving(tracee::resume(pid, 0), "let a program begin")
    }

    /// The parent's wait in vfork(2) is over; its stop may have been heard already.
    fn release_vfork_parent(&mut self, parent: Option<TaskId>) -> Result<(), EngineError> {
        let Some(parent) = parent else { return Ok(()) };
        let Some(task) = self.tasks.get(parent) else { return Ok(()) };
        let (waits, stopped) = (matches!(task.state, State::Blocked(Wait::Vfork)), task.stopped);
        if waits && (stopped || self.wait_for_stop(parent)?) {
            self.ready(parent, Resume::Unpark);
        }
        Ok(())
    }

    fn on_stop(&mut self, id: TaskId, pid: Pid, signal: i32) -> Result<(), EngineError> {
        if matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
            self.forgiving(tracee::listen(pid), "leave a task in its stop")?;
            self.block(id, Wait::Stopped, None);
            self.signals_sent = true;
            // A parent that waits for stopped children hears of it.
            let parent = self.tasks.get(id).and_then(|task| self.tasks.process(task.process)).and_then(|p| p.parent);
            self.wake_waiting_parent(parent);
            return Ok(());
        }
        if self.tasks.get(id).is_some_and(|task| matches!(task.state, State::Blocked(Wait::Stopped))) {
            self.stopped_and_ready(id);
            return Ok(());
        }
        self.forgiving(tracee::resume(pid, 0), "let a task go on")
    }

    /// A signal is about to be delivered to the running task.
    fn on_signal(&mut self, id: TaskId, pid: Pid, signal: i32) -> Result<(), EngineError> {
        if signal == libc::SIGSEGV && self.answer_fault(id, pid)? {
            return Ok(());
        }
        let number = self.number_of(id);
        let from_outside = tracee::signal_sender(pid).is_ok_and(|(sender, code)| code == libc::SI_USER && sender == 0);
        if from_outside && self.started {
            self.escape(format!("signal {signal} came to task {number} from outside the cage"));
        }
        self.record(number, Event::Signal as i32, signal.into(), [0; 2])?;
        if self.is_crash_of_the_first(id, pid, signal) {
            return self.crash(pid, signal);
        }
        self.forgiving(tracee::resume(pid, signal), "deliver a signal")
    }

    /// True for a fault of the first process that it does not handle. The kernel ends such a process unless it is traced; then it drops the
    /// signal, and the fault comes again for ever (force_sig_info_to_task in kernel/signal.c; abort(3) of a first process ends in such a fault).
    fn is_crash_of_the_first(&self, id: TaskId, pid: Pid, signal: i32) -> bool {
        let first = self.tasks.get(id).map(|task| task.process).filter(|process| Some(*process) == self.root);
        let first =
            first.and_then(|process| self.tasks.process(process)).is_some_and(|root| root.number == FIRST_NUMBER);
        let by_kernel = || tracee::signal_sender(pid).is_ok_and(|(_, code)| code > 0);
        first && FAULTS.contains(&signal) && by_kernel() && !super::signals::is_caught(pid, signal)
    }

    /// Ends the cage as the fault would have ended it.
    fn crash(&mut self, pid: Pid, signal: i32) -> Result<(), EngineError> {
        self.crash = u8::try_from(signal).ok();
        let killed = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        killed.map_err(|errno| EngineError::Edge { deed: "end a process that has crashed", source: errno.into() })?;
        self.root.map_or(Ok(()), |root| self.reap_process(root))
    }

    /// The end of a task, and if a signal or exit_group took its process, of all its threads: nobody else runs before all are gone.
    pub(super) fn on_end(&mut self, id: TaskId, outcome: Outcome) -> Result<(), EngineError> {
        let Some(process) = self.tasks.get(id).map(|task| task.process) else { return Ok(()) };
        if self.started && self.ended_by.is_none() && self.first_process_ends() {
            return self.root.map_or(Ok(()), |root| self.reap_dying(root, Some((id, outcome))));
        }
        // A death that a call inside has just caused is told in our order, with the others that it caused.
        let caused =
            self.killer.is_some_and(|killer| self.tasks.get(killer).is_none_or(|task| task.process != process));
        let caused = (caused || self.doomed.contains(&process)) && outcome == Outcome::Killed(libc::SIGKILL);
        if caused || self.is_sibling_of_current(id, process) {
            self.fallen.insert(id, outcome);
            return Ok(());
        }
        let by_itself =
            self.killer.and_then(|killer| self.tasks.get(killer)).is_some_and(|task| task.process == process);
        // A task that kills another one reaps it at once; so unless it kills its own process, nobody inside sent this.
        if outcome == Outcome::Killed(libc::SIGKILL) && !by_itself && self.started && self.ended_by.is_none() {
            self.escape(format!("task {} was killed from outside the cage", self.number_of(id)));
        }
        if matches!(outcome, Outcome::Killed(_)) {
            return self.reap_dying(process, Some((id, outcome)));
        }
        self.end_task(id, outcome)
    }

    /// Waits for the end of every thread of a dying process, and tells of them.
    pub(super) fn reap_process(&mut self, process: ProcessId) -> Result<(), EngineError> {
        self.reap_dying(process, None)
    }

    /// The same, where one end has been heard of already. Which thread is gone first is the host's choice: all are awaited before any is
    /// told, oldest first, the process's first one last. With the first process of a container all others die, and the kernel keeps that one
    /// until they have been reaped (pid_namespaces(7)).
    fn reap_dying(&mut self, process: ProcessId, heard: Option<(TaskId, Outcome)>) -> Result<(), EngineError> {
        let leader = self.tasks.process(process).map(|process| process.pid);
        let takes_all =
            self.root == Some(process) && self.tasks.process(process).is_some_and(|root| root.number == FIRST_NUMBER);
        let mut dying: Vec<TaskId> =
            if takes_all { self.tasks.iter().map(|(id, _)| id).collect() } else { self.tasks.of_process(process) };
        dying.sort_by_key(|id| {
            let task = self.tasks.get(*id);
            (task.is_some_and(|task| task.process == process), task.map(|task| Some(task.tid) == leader))
        });
        let (fallen, others) = std::mem::take(&mut self.fallen).into_iter().partition(|(id, _)| dying.contains(id));
        self.fallen = others;
        let mut ends: BTreeMap<TaskId, Outcome> = fallen;
        ends.extend(heard);
        let others = self.await_ends(&dying, &mut ends)?;
        // Others that died meanwhile: an end below may be what killed them (PR_SET_PDEATHSIG), and then waits for them.
        let mut fell = Vec::new();
        let mut events = Vec::new();
        for (pid, outcome) in others {
            match (self.tasks.by_tid(pid), outcome) {
                (Some(id), Outcome::Exited(_) | Outcome::Killed(_)) => {
                    self.fallen.insert(id, outcome);
                    fell.push(id);
                }
                (Some(id), Outcome::Stopped { event: libc::PTRACE_EVENT_VFORK_DONE, .. })
                    if self.is_released_later(id) => {}
                _ => events.push((pid, outcome)),
            }
        }
        for id in dying {
            let first = self.tasks.get(id).is_some_and(|task| Some(task.process) == self.root);
            let told = ends.get(&id).copied().unwrap_or(Outcome::Killed(libc::SIGKILL));
            self.end_task(id, self.crash.filter(|_| first).map_or(told, |signal| Outcome::Killed(signal.into())))?;
        }
        for id in fell {
            if let Some(outcome) = self.fallen.remove(&id) {
                self.on_end(id, outcome)?;
            }
        }
        for (pid, outcome) in events {
            self.on_event(pid, outcome)?;
        }
        Ok(())
    }

    /// True for another thread of the process that has the turn: it waits, and so has not ended of its own accord.
    fn is_sibling_of_current(&self, id: TaskId, process: ProcessId) -> bool {
        let current = self.current.filter(|current| *current != id).and_then(|current| self.tasks.get(current));
        self.started && self.ended_by.is_none() && current.is_some_and(|current| current.process == process)
    }

    /// True when the first process of the namespace is about to end: the kernel then kills everybody else, and it waits for them.
    fn first_process_ends(&self) -> bool {
        let Some(root) = self.root.and_then(|root| self.tasks.process(root)) else { return false };
        root.number == FIRST_NUMBER && !root.zombie && is_exiting(root.pid)
    }

    /// Collects the ends of dying tasks, in whatever order they come; returns what was heard of others meanwhile.
    fn await_ends(
        &mut self,
        dying: &[TaskId],
        ends: &mut BTreeMap<TaskId, Outcome>,
    ) -> Result<Vec<(Pid, Outcome)>, EngineError> {
        let mut left: BTreeMap<i32, TaskId> = dying
            .iter()
            .filter(|id| !ends.contains_key(id))
            .filter_map(|id| self.tasks.get(*id).map(|task| (task.tid.as_raw(), *id)))
            .collect();
        let mut others = Vec::new();
        while !left.is_empty() {
            match self.hear(Who::Any, true) {
                Ok(Some((pid, Outcome::Stopped { .. }))) if left.contains_key(&pid.as_raw()) => {
                    self.forgiving(tracee::resume(pid, 0), "let a task end")?;
                }
                Ok(Some((pid, outcome))) => match left.remove(&pid.as_raw()) {
                    Some(id) => drop(ends.insert(id, outcome)),
                    None => others.push((pid, outcome)),
                },
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => break,
                Err(source) => return Err(EngineError::Edge { deed: "wait for the end of a process", source }),
            }
        }
        Ok(others)
    }

    /// Waits for the end of a task that is dying.
    pub(super) fn reap(&mut self, id: TaskId) -> Result<(), EngineError> {
        while let Some(tid) = self.tasks.get(id).map(|task| task.tid) {
            if let Some(outcome) = self.fallen.remove(&id) {
                return self.end_task(id, outcome);
            }
            match self.hear(Who::Task(tid), true) {
                Ok(Some((pid, outcome))) if pid != tid => self.on_event(pid, outcome)?,
                Ok(Some((_, Outcome::Stopped { .. }))) => self.forgiving(tracee::resume(tid, 0), "let a task end")?,
                Ok(Some((_, outcome))) => self.end_task(id, outcome)?,
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    self.end_task(id, Outcome::Killed(libc::SIGKILL))?;
                }
                Err(source) => return Err(EngineError::Edge { deed: "wait for the end of a task", source }),
            }
        }
        Ok(())
    }

    /// Takes a dead task out, and tells whoever waited for just that.
    pub(super) fn end_task(&mut self, id: TaskId, outcome: Outcome) -> Result<(), EngineError> {
        let Some(task) = self.tasks.remove_task(id) else { return Ok(()) };
        let status = match outcome {
            Outcome::Exited(code) => i64::from(code),
            Outcome::Killed(signal) => 128 + i64::from(signal),
            Outcome::Stopped { .. } => 0,
        };
        self.record(task.number, Event::End as i32, status, [0; 2])?;
        self.futexes.remove(id.0);
        self.vforked.remove(&task.tid.as_raw());
        self.forget_folder(id);
        let memory = self.tasks.process(task.process).map_or(0, |process| process.memory);
        if let Some(address) = task.clear_tid {
            self.wake_futex_of(memory, address);
        }
        self.wake_owner_died(memory);
        if self.current == Some(id) {
            self.current = None;
        }
        self.progress = true;
        self.release_vfork_parent(task.vfork_parent)?;
        let orphans = self.children_that_die(task.process);
        if self.tasks.process(task.process).is_some_and(|process| process.tasks == 0) {
            self.end_process(task.process);
        }
        self.reap_doomed(orphans)
    }

    /// Waits for the ends of processes that are known to die.
    pub(super) fn reap_doomed(&mut self, processes: Vec<ProcessId>) -> Result<(), EngineError> {
        self.doomed.extend(&processes);
        for process in processes {
            self.doomed.remove(&process);
            self.reap_process(process)?;
        }
        Ok(())
    }

    /// The children that the end of one of their parent's threads has killed: who asked for that by PR_SET_PDEATHSIG (prctl(2)).
    fn children_that_die(&self, parent: ProcessId) -> Vec<ProcessId> {
        if self.ended_by.is_some() {
            return Vec::new();
        }
        let children = self.tasks.processes().filter(|(_, process)| process.parent == Some(parent) && !process.zombie);
        children.map(|(child, _)| child).filter(|child| self.is_dying(*child)).collect()
    }

    fn end_process(&mut self, id: ProcessId) {
        self.timers.remove_process(id.0);
        self.folders.remove_process(id);
        let heir =
            self.root.filter(|root| *root != id && self.tasks.process(*root).is_some_and(|root| root.number == 1));
        let mut told = BTreeSet::new();
        for (child, process) in self.tasks.processes_mut() {
            if process.parent == Some(id) {
                process.parent = heir;
                // PR_SET_PDEATHSIG, or the hang-up of an orphaned group.
                told.insert(child);
            }
        }
        told.extend(heir);
        self.signals_to.append(&mut told);
        let parent = self.tasks.process_mut(id).and_then(|process| {
            process.zombie = true;
            process.parent
        });
        self.signals_to.extend(parent);
        self.wake_waiting_parent(parent);
        self.wake_waiting_parent(heir);
        if parent.is_none() {
            self.tasks.remove_process(id);
        }
    }

    /// Wakes a waiter as the kernel does when it clears the word of a dead thread.
    pub(super) fn wake_futex_of(&mut self, memory: u64, address: u64) {
        let key = super::model::futex::Key::Private { mm: memory, addr: address };
        for woken in self.futexes.wake(key, 1, u32::MAX) {
            self.ready(TaskId(woken), Resume::Return(0));
        }
    }

    /// A robust mutex of the dead task may have got its mark: who waits on a word that has changed is woken.
    fn wake_owner_died(&mut self, memory: u64) {
        let waiting: Vec<(TaskId, Pid, u64, u32)> = self
            .tasks
            .iter()
            .filter(|(_, task)| matches!(task.state, State::Blocked(Wait::Futex)))
            .filter(|(_, task)| self.tasks.process(task.process).is_some_and(|process| process.memory == memory))
            .filter_map(|(id, task)| task.call.map(|call| (id, task.tid, call.args[0], call.args[2] as u32)))
            .collect();
        for (id, tid, address, expected) in waiting {
            let died =
                guest::peek_u32(tid, address).is_ok_and(|word| word & OWNER_DIED != 0 && expected & OWNER_DIED == 0);
            if died {
                self.futexes.remove(id.0);
                self.ready(id, Resume::Return(0));
            }
        }
    }

    /// Waits until the first thread of a process with other threads is a zombie: it is told to nobody before they are gone.
    pub(super) fn wait_for_zombie_leader(&self, tid: Pid) {
        loop {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{tid}/stat")) else { return };
            match stat.rsplit_once(") ") {
                Some((_, rest)) if !rest.starts_with(['Z', 'X']) => {
                    std::thread::sleep(std::time::Duration::from_micros(ZOMBIE_LOOK_US));
                }
                _ => return,
            }
        }
    }

    /// Takes the turn from a task that makes no calls. Where it stops is the host's choice, and is told.
    pub(super) fn preempt(&mut self, id: TaskId) -> Result<(), EngineError> {
        let number = self.number_of(id);
        let limit = super::SPIN_CPU_MS;
        let sentence = format!("task {number} used the processor for {limit} ms without a call while others waited");
        if self.is_strict() {
            self.end_run(format!("{sentence}; the profile ends such a run"));
            return Ok(());
        }
        self.escape(sentence);
        self.counters.forced += 1;
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(()) };
        self.forgiving(tracee::interrupt(tid), "interrupt a task")?;
        match tracee::wait(Who::Task(tid), true) {
            Ok(Some((_, Outcome::Stopped { event: EVENT_STOP, .. }))) => {
                self.skip_to_deadline_if_nobody_is_ready();
                self.stopped_and_ready(id);
                Ok(())
            }
            Ok(Some((pid, outcome))) => self.on_event(pid, outcome),
            Ok(None) => Ok(()),
            Err(error) if super::is_gone(&error) => Ok(()),
            Err(source) => Err(EngineError::Edge { deed: "interrupt a task", source }),
        }
    }
}

/// Flags of the call that made a task, and the word to clear at its end.
fn birth(pid: Pid, registers: &tracee::Registers) -> (u64, u64) {
    match registers.orig_rax as i64 {
        libc::SYS_clone => (registers.rdi, registers.r10),
        libc::SYS_vfork => ((libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64, 0),
        // struct clone_args: flags, pidfd, child_tid (clone(2)).
        libc::SYS_clone3 => match guest::peek::<24>(pid, registers.rdi) {
            Ok(bytes) => {
                let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                (word(0), word(16))
            }
            Err(_) => (libc::SIGCHLD as u64, 0),
        },
        _ => (libc::SIGCHLD as u64, 0),
    }
}

/// True for a task that has begun to end and is no zombie yet.
pub(super) fn is_exiting(pid: Pid) -> bool {
    state_of(pid).is_some_and(|(state, exiting)| exiting && !matches!(state, 'Z' | 'X'))
}

/// True for a task that is neither in a ptrace stop nor about to end.
fn is_on_its_way(pid: Pid) -> bool {
    state_of(pid).is_some_and(|(state, exiting)| !exiting && !matches!(state, 'Z' | 'X' | 't'))
}

/// A task's state, and whether it has begun to end (proc_pid_stat(5): the third field, and of the ninth its flags). `None`: it is gone.
fn state_of(pid: Pid) -> Option<(char, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let flags: u64 = rest.split_ascii_whitespace().nth(6)?.parse().ok()?;
    Some((rest.chars().next()?, flags & EXITING != 0))
}

/// Waits for the first stop of a task that was just born. False: it was killed before.
fn wait_for_newborn(child: Pid) -> Result<bool, EngineError> {
    match tracee::wait(Who::Task(child), true) {
        Ok(Some((_, Outcome::Stopped { .. }))) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(false),
        Err(source) => Err(EngineError::Edge { deed: "wait for a newborn", source }),
    }
}

impl Engine {
    /// A task's number inside the cage's process namespace. Nobody in the cage can make another one.
    fn cage_number(&self, tid: Pid) -> Result<u32, EngineError> {
        let asked = self.numbers.as_ref().map(|numbers| facts::number_in_namespace(numbers.as_fd(), tid));
        match asked {
            Some(Ok(number)) => Ok(number),
            _ => cage_number(tid),
        }
    }
}

/// A task's number inside its own process namespace: the last of NSpid (proc_pid_status(5)).
pub(super) fn cage_number(tid: Pid) -> Result<u32, EngineError> {
    let status =
        std::fs::read_to_string(format!("/proc/{tid}/status")).map_err(EngineError::edge("read a task's number"))?;
    let number = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|line| line.split_ascii_whitespace().next_back())
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| EngineError::Edge {
        deed: "read a task's number",
        source: std::io::Error::from_raw_os_error(libc::ENODATA),
    })
}
