//! Who runs next, and when nobody can.
//!
//! One task has the turn; all others wait in an unanswered notification or a ptrace stop. The one that has waited longest goes next. A
//! turn ends when its task blocks, ends, yields, or has made its quantum of calls while somebody else is ready. When nobody is ready the
//! logical clock jumps to the next deadline. When there is none either, everybody waits for something outside, or for ever.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use super::task::{Awaited, ProcessId, Resume, State, TaskId, Wait};
use super::trace::{CONTINUED, Event};
use super::{Engine, EngineError};
use crate::kernel::{self, Reply, tracee};

/// How long the engine sleeps at most while all wait for the outside, before it looks for signals that came from there.
const OUTSIDE_LOOK_MS: i64 = 50;
/// Jumps of the clock in a row that let nobody run, after which the run is ended.
const JUMPS_MAX: u32 = 100_000;
/// Looks without a change after which a cage that waits for nothing outside is called a deadlock.
const DEADLOCK_LOOKS: u32 = 10;

impl Engine {
    /// Puts a task into the queue of those that could run.
    pub(super) fn ready(&mut self, id: TaskId, resume: Resume) {
        self.arrivals += 1;
        let arrival = self.arrivals;
        if let Some(task) = self.tasks.get_mut(id) {
            task.state = State::Ready(resume);
            task.arrival = arrival;
        }
        if self.current == Some(id) {
            self.current = None;
        }
    }

    /// Parks a task until something happens.
    pub(super) fn block(&mut self, id: TaskId, wait: Wait, deadline: Option<u64>) {
        self.arrivals += 1;
        self.no_deadline_before = self.no_deadline_before.min(deadline.unwrap_or(u64::MAX));
        let arrival = self.arrivals;
        if let Some(task) = self.tasks.get_mut(id) {
            task.state = State::Blocked(wait);
            task.deadline = deadline;
            task.arrival = arrival;
        }
        if self.current == Some(id) {
            self.current = None;
        }
    }

    /// The ready task that has waited longest.
    fn first_ready(&self) -> Option<TaskId> {
        self.tasks
            .iter()
            .filter(|(_, task)| matches!(task.state, State::Ready(_)))
            .min_by_key(|(_, task)| task.arrival)
            .map(|(id, _)| id)
    }

    pub(super) fn somebody_is_ready(&self) -> bool {
        self.first_ready().is_some()
    }

    /// Makes every task ready whose descriptors have become so, oldest task first. Nobody runs meanwhile, so the answer is settled.
    pub(super) fn look_at_files(&mut self) -> bool {
        // One call for all: a thousand tasks that wait would cost a thousand calls at every turn.
        let (mut polled, mut owners, mut woken) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (id, task) in self.tasks.iter() {
            if let State::Blocked(Wait::Files(files)) = &task.state {
                let plain = files.iter().filter(|file| file.signals.is_none());
                polled.extend(plain.clone().map(pollfd));
                owners.extend(plain.map(|file| (id, file.answers)));
                let wanted = files.iter().filter_map(|file| file.signals).fold(0, |sum, set| sum | set);
                if wanted != 0 && super::signals::is_pending(task.tid, wanted) {
                    woken.insert(id);
                }
            }
        }
        if !polled.is_empty() && tracee::poll_now(&mut polled) > 0 {
            let answered = polled.iter().zip(owners).filter(|(entry, (_, answers))| entry.revents & answers != 0);
            woken.extend(answered.map(|(_, (owner, _))| owner));
        }
        for id in &woken {
            self.ready(*id, Resume::Retry);
        }
        !woken.is_empty()
    }

    /// The next logical moment at which something happens by itself.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        match (self.next_deadline_of_tasks(), self.timers.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn next_deadline_of_tasks(&self) -> Option<u64> {
        let blocked = self.tasks.iter().filter(|(_, task)| matches!(task.state, State::Blocked(_)));
        blocked.filter_map(|(_, task)| task.deadline).min()
    }

    /// Lets everything happen whose time has come. Asked at each call, so it looks through the tasks only when one may be due.
    pub(super) fn fire(&mut self) -> Result<(), EngineError> {
        let now = self.clock.now();
        if now < self.no_deadline_before && self.timers.next_deadline().is_none_or(|at| now < at) {
            return Ok(());
        }
        loop {
            let of_task = self
                .tasks
                .iter()
                .filter(|(_, task)| matches!(task.state, State::Blocked(_)))
                .filter_map(|(id, task)| task.deadline.filter(|at| *at <= now).map(|at| (at, task.arrival, id)))
                .min();
            let of_timer = self.timers.next_deadline().filter(|at| *at <= now);
            match (of_task, of_timer) {
                (None, None) => {
                    self.no_deadline_before = self.next_deadline_of_tasks().unwrap_or(u64::MAX);
                    return Ok(());
                }
                (Some((at, _, id)), timer) if timer.is_none_or(|timer| at < timer) => self.time_out(id),
                _ => self.expire_timers()?,
            }
        }
    }

    fn time_out(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.deadline = None;
        task.timed_out = true;
        let resume = match &task.state {
            State::Blocked(Wait::Futex) => Resume::Return(-i64::from(libc::ETIMEDOUT)),
            State::Blocked(Wait::Sleep) => Resume::Return(0),
            // It is in a ptrace stop and makes its call again.
            State::Blocked(Wait::Retry) => {
                if let Some(carried) = &mut task.carried {
                    carried.timed_out = true;
                }
                Resume::Again
            }
            _ => Resume::Retry,
        };
        if matches!(resume, Resume::Return(_)) {
            self.futexes.remove(id.0);
        }
        self.ready(id, resume);
    }

    /// Gives the turn away, or waits until somebody can take it. Returns when a task has it, or none is left.
    pub(super) fn pick(&mut self) -> Result<(), EngineError> {
        let mut looks = 0;
        while self.current.is_none() && !self.tasks.is_empty() && self.ended_by.is_none() {
            if self.signals_are_due() {
                self.scan_signals()?;
            }
            self.fire()?;
            if self.signals_are_due() {
                self.scan_signals()?;
            }
            self.look_at_files();
            if let Some(id) = self.first_ready() {
                looks = 0;
                self.jumps = 0;
                self.grant(id)?;
                continue;
            }
            if std::mem::take(&mut self.progress) && self.retry_all() {
                continue;
            }
            if let Some(at) = self.next_deadline() {
                if at > self.clock.now() {
                    self.clock.jump_to(at);
                }
                // A timer that wakes nobody would go on for ever.
                self.jumps += 1;
                if self.jumps > JUMPS_MAX {
                    self.deadlock()?;
                    self.end_run("deadlock: only timers expire, and they wake nobody".to_owned());
                }
                continue;
            }
            self.wait_for_outside(&mut looks)?;
        }
        Ok(())
    }

    /// Lets every task try again that waits for something without a descriptor.
    fn retry_all(&mut self) -> bool {
        let waiting: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| matches!(task.state, State::Blocked(Wait::Retry)))
            .map(|(id, _)| id)
            .collect();
        for id in &waiting {
            self.ready(*id, Resume::Again);
        }
        !waiting.is_empty()
    }

    fn grant(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some(task) = self.tasks.get_mut(id) else { return Ok(()) };
        let State::Ready(resume) = task.state else { return Ok(()) };
        task.state = State::Running;
        let number = task.number;
        self.current = Some(id);
        self.calls_in_turn = 0;
        self.counters.turns += 1;
        self.record(number, Event::Turn as i32, 0, [0; 2])?;
        match resume {
            Resume::Unpark => self.unpark(id),
            Resume::Again => self.try_again(id),
            Resume::Return(value) => self.answer(id, value),
            Resume::Retry => self.decide(id),
            Resume::Interrupt => self.interrupted(id),
        }
    }

    /// Lets a task go on that is in a ptrace stop.
    pub(super) fn unpark(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some(task) = self.tasks.get_mut(id) else { return Ok(()) };
        task.stopped = false;
        let tid = task.tid;
        self.forgiving(tracee::resume(tid, 0), "let a task go on")
    }

    /// A result for the call a task waits in.
    pub(super) fn answer(&mut self, id: TaskId, value: i64) -> Result<(), EngineError> {
        let Some(call) = self.take_call(id, value)? else { return Ok(()) };
        self.counts.answered(call.nr);
        self.forgiving(tracee::notify_return(self.ears.listener(), call.id, value), "answer a call")
    }

    /// Lets the kernel run the call.
    pub(super) fn let_through(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some(call) = self.take_call(id, CONTINUED)? else { return Ok(()) };
        self.forgiving(kernel::notify_reply(self.ears.listener(), call.id, Reply::Continue), "let a call through")
    }

    pub(super) fn take_call(&mut self, id: TaskId, result: i64) -> Result<Option<super::task::Call>, EngineError> {
        let Some(task) = self.tasks.get_mut(id) else { return Ok(None) };
        let number = task.number;
        task.deadline = None;
        let Some(call) = task.call.take() else { return Ok(None) };
        self.record(number, call.nr as i32, result, [call.args[0], call.args[1]])?;
        Ok(Some(call))
    }

    /// Nobody can run and no deadline will come: only the outside can help, or nobody.
    fn wait_for_outside(&mut self, looks: &mut u32) -> Result<(), EngineError> {
        let mut fds: Vec<libc::pollfd> = Vec::new();
        for (_, task) in self.tasks.iter() {
            if let State::Blocked(Wait::Files(files)) = &task.state {
                fds.extend(files.iter().filter(|file| file.signals.is_none()).map(pollfd));
            }
        }
        let outside = self.waits_for_outside();
        self.ears.sleep(&mut fds, OUTSIDE_LOOK_MS).map_err(EngineError::edge("wait"))?;
        let heard = self.drain_events()?;
        self.signals_sent = true;
        self.progress = true;
        if heard || outside {
            *looks = 0;
            return Ok(());
        }
        *looks += 1;
        if *looks == DEADLOCK_LOOKS {
            self.deadlock()?;
        }
        Ok(())
    }

    /// True while a task waits for a descriptor that leads out of the cage.
    fn waits_for_outside(&self) -> bool {
        self.tasks.iter().any(|(_, task)| match &task.state {
            State::Blocked(Wait::Files(files)) => files.iter().any(|file| self.leads_outside(&file.fd)),
            _ => false,
        })
    }

    /// Every task waits for another one.
    fn deadlock(&mut self) -> Result<(), EngineError> {
        let waits: Vec<String> = self
            .tasks
            .iter()
            .map(|(_, task)| {
                let wait = match &task.state {
                    State::Blocked(wait) => wait.name(),
                    State::Ready(_) | State::Running => "its turn",
                };
                let call = task.call.map_or("no call", |call| self.policy.name_of(&call.of_policy()));
                format!("task {} waits in {call} for: {wait}", task.number)
            })
            .collect();
        let sentence = format!("deadlock: {}", waits.join("; "));
        self.give_up_or_escape(self.ends_on_deadlock(), sentence)
    }

    /// A task is gone: everything that only its end could bring about.
    pub(super) fn wake_waiting_parent(&mut self, parent: Option<ProcessId>) {
        let waiting: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| Some(task.process) == parent && matches!(task.state, State::Blocked(Wait::Child)))
            .map(|(id, _)| id)
            .collect();
        for id in waiting {
            self.ready(id, Resume::Retry);
        }
    }
}

/// True when one of `files`, for which the task `tid` waits, is ready now.
pub(super) fn any_ready(tid: nix::unistd::Pid, files: &[Awaited]) -> bool {
    let plain = || files.iter().filter(|file| file.signals.is_none());
    let mut polled: Vec<libc::pollfd> = plain().map(pollfd).collect();
    let wanted = files.iter().filter_map(|file| file.signals).fold(0, |sum, set| sum | set);
    let answered = |(entry, file): (&libc::pollfd, &Awaited)| entry.revents & file.answers != 0;
    (!polled.is_empty() && tracee::poll_now(&mut polled) > 0 && polled.iter().zip(plain()).any(answered))
        || (wanted != 0 && super::signals::is_pending(tid, wanted))
}

fn pollfd(file: &Awaited) -> libc::pollfd {
    libc::pollfd { fd: file.fd.as_raw_fd(), events: file.events, revents: 0 }
}
