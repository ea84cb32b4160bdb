//! Signals that come to tasks which wait, and calls that send them.
//!
//! A traced task that waits in a notification keeps even a fatal signal pending until it goes on. So after anything that may have sent one,
//! the engine looks at what is pending for each waiting task, and lets the kernel run the call of one that has a deliverable signal:
//! with that signal pending it ends at once, with the errno and the restart rule that the kernel has for it.

use nix::unistd::Pid;

use super::guest;
use super::hook::{ERESTART_RESTARTBLOCK, ERESTARTNOHAND};
use super::task::{Call, ProcessId, Resume, State, TaskId, Wait};
use super::{Engine, EngineError, Trouble, Verdict};
use crate::kernel::tracee::{self, Who};

/// Signals that are ignored by default: CHLD, CONT, URG, WINCH (signal(7)).
const IGNORED_BY_DEFAULT: u64 = bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGURG) | bit(libc::SIGWINCH);

/// How often, and at what distance, the engine looks at a thread that seems to run while it should wait: for a second.
const FATE_LOOKS_MAX: u32 = 50_000;
const FATE_LOOK_US: u64 = 20;

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The signal sets of a task, proc_pid_status(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signals {
    pending: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl Signals {
    fn parse(status: &str) -> Self {
        let mut signals = Self::default();
        for line in status.lines().filter(|line| line.starts_with("Sig") || line.starts_with("ShdPnd")) {
            let Some((name, value)) = line.split_once(":\t") else { continue };
            let Ok(set) = u64::from_str_radix(value, 16) else { continue };
            match name {
                "SigPnd" | "ShdPnd" => signals.pending |= set,
                "SigBlk" => signals.blocked = set,
                "SigIgn" => signals.ignored = set,
                "SigCgt" => signals.caught = set,
                _ => {}
            }
        }
        signals
    }

    /// Those that would be delivered under `blocked` and do anything.
    fn deliverable(&self, blocked: u64) -> u64 {
        self.pending & !blocked & !self.ignored & !(IGNORED_BY_DEFAULT & !self.caught)
    }
}

fn signals_of(tid: Pid) -> Option<Signals> {
    Some(Signals::parse(&std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?))
}

/// True when one of the signals `wanted` waits for the task, blocked or not.
pub(super) fn is_pending(tid: Pid, wanted: u64) -> bool {
    signals_of(tid).is_some_and(|signals| signals.pending & wanted != 0)
}

/// True when a signal would be delivered to the task now.
pub(super) fn has_signal(tid: Pid) -> bool {
    signals_of(tid).is_some_and(|signals| signals.deliverable(signals.blocked) != 0)
}

/// True when a task has a handler for a signal.
pub(super) fn is_caught(tid: Pid, signal: i32) -> bool {
    signals_of(tid).is_some_and(|signals| signals.caught & bit(signal) != 0)
}

/// The mask that a call puts up while it waits, if it brings one.
fn mask_of(tid: Pid, call: &Call) -> Option<u64> {
    let address = match call.nr {
        libc::SYS_rt_sigsuspend => call.args[0],
        libc::SYS_ppoll => call.args[3],
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => call.args[4],
        libc::SYS_pselect6 if call.args[5] != 0 => guest::peek_u64(tid, call.args[5]).ok()?,
        _ => return None,
    };
    if address == 0 { None } else { guest::peek_u64(tid, address).ok() }
}

impl Engine {
    /// True when somebody who waits may have a signal to take.
    pub(super) fn signals_are_due(&self) -> bool {
        self.signals_sent || !self.signals_to.is_empty()
    }

    /// Makes every waiting task ready that has a signal to take. Each look costs a read of /proc, so only those are looked at to whom one
    /// may have come.
    pub(super) fn scan_signals(&mut self) -> Result<(), EngineError> {
        let to_all = std::mem::take(&mut self.signals_sent);
        let to_these = std::mem::take(&mut self.signals_to);
        let mut woken = Vec::new();
        for (id, task) in self.tasks.iter() {
            let State::Blocked(wait) = &task.state else { continue };
            if matches!(wait, Wait::Vfork | Wait::Stopped) || !(to_all || to_these.contains(&task.process)) {
                continue;
            }
            let Some(signals) = signals_of(task.tid) else { continue };
            match &task.call {
                Some(call) if call.nr == libc::SYS_rt_sigtimedwait && signals.pending != 0 => {
                    woken.push((id, Resume::Retry));
                }
                Some(call) if call.nr == libc::SYS_rt_sigtimedwait => {}
                Some(call) => {
                    let blocked = mask_of(task.tid, call).unwrap_or(signals.blocked);
                    if signals.deliverable(blocked) != 0 {
                        woken.push((id, Resume::Interrupt));
                    }
                }
                // On its way out of a call that would have waited: the kernel interrupts that.
                None if signals.deliverable(signals.blocked) != 0 => woken.push((id, Resume::Unpark)),
                None => {}
            }
        }
        for (id, resume) in woken {
            self.futexes.remove(id.0);
            if let Some(task) = self.tasks.get_mut(id) {
                task.carried = None;
            }
            self.ready(id, resume);
        }
        Ok(())
    }

    /// The turn of a task whose wait a signal ends.
    pub(super) fn interrupted(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some((tid, call, deadline, written)) =
            self.tasks.get(id).and_then(|task| task.call.map(|call| (task.tid, call, task.deadline, task.written)))
        else {
            return Ok(());
        };
        let result = match call.nr {
            libc::SYS_nanosleep | libc::SYS_clock_nanosleep => {
                self.write_remaining(tid, &call, deadline);
                Some(ERESTARTNOHAND)
            }
            _ if written > 0 => Some(written as i64),
            _ => None,
        };
        let Some(value) = result else {
            if let Some(registers) = self.hook(id)? {
                self.restart_whole(tid, registers)?;
                self.release(id)?;
            }
            return Ok(());
        };
        let Some(call) = self.take_call(id, value)? else { return Ok(()) };
        let told = |engine: &Self| tracee::notify_return(engine.ears.listener(), call.id, value);
        if self.armed(id, told)?.is_some() {
            self.release(id)?;
        }
        Ok(())
    }

    /// A wait that no handler breaks is made again as the call it was: restart_syscall(2) would go on with it in the kernel, in real time.
    pub(super) fn restart_whole(&self, tid: Pid, mut registers: tracee::Registers) -> Result<(), EngineError> {
        if registers.rax as i64 != ERESTART_RESTARTBLOCK {
            return Ok(());
        }
        registers.rax = ERESTARTNOHAND as u64;
        self.forgiving(tracee::set_registers(tid, &registers), "have a call made again")
    }

    /// What is left of an interrupted sleep, where its caller wants to know (nanosleep(2)).
    fn write_remaining(&self, tid: Pid, call: &Call, deadline: Option<u64>) {
        let address = match call.nr {
            libc::SYS_nanosleep => call.args[1],
            _ if call.args[1] as i32 & libc::TIMER_ABSTIME != 0 => 0,
            _ => call.args[3],
        };
        if address != 0 {
            let left = deadline.map_or(0, |at| at.saturating_sub(self.clock.now()));
            // A caller that gave a bad address for the rest is not told: the sleep itself was fine.
            let _ = guest::write(tid, address, &super::model::clock::timespec(left));
        }
    }

    /// kill(2) and its family: the kernel decides who gets it. SIGKILL is over when its target is gone.
    pub(super) fn send_signal(&mut self, id: TaskId, call: &Call) -> Result<Verdict, Trouble> {
        let signal = match call.nr {
            libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => call.args[2],
            _ => call.args[1],
        } as i32;
        let target = call.args[0] as i32;
        if self.claims_to_come_from_outside(id, call)? {
            return Ok(Verdict::Return(-i64::from(libc::EPERM)));
        }
        self.killer = (signal == libc::SIGKILL).then_some(id);
        let hooked = self.hook(id);
        self.killer = None;
        let Some(registers) = hooked? else {
            // It has killed itself, and perhaps others with itself.
            if signal == libc::SIGKILL && self.ended_by.is_none() {
                self.reap_killed(id, libc::SYS_kill, -1)?;
            }
            return Ok(Verdict::Settled);
        };
        match self.process_of_number(target.unsigned_abs()) {
            Some(process) if target > 0 && call.nr != libc::SYS_pidfd_send_signal => {
                self.signals_to.insert(process);
            }
            _ => self.signals_sent = true,
        }
        if signal == libc::SIGKILL && registers.rax == 0 {
            self.reap_killed(id, call.nr, target)?;
        }
        if signal == libc::SIGCONT && registers.rax == 0 {
            self.hear_continued(id, call.nr, target)?;
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// True for a siginfo of the caller's own that says what only the kernel says of a sender in another namespace: SI_USER by process 0. The
    /// kernel lets a process send itself anything (rt_sigqueueinfo(2)); the receipt would tell of an outsider.
    fn claims_to_come_from_outside(&self, id: TaskId, call: &Call) -> Result<bool, Trouble> {
        const CODE_OFFSET: u64 = 8;
        const SENDER_OFFSET: u64 = 16;
        let info = match call.nr {
            libc::SYS_rt_sigqueueinfo | libc::SYS_pidfd_send_signal => call.args[2],
            libc::SYS_rt_tgsigqueueinfo => call.args[3],
            _ => 0,
        };
        let Some(tid) = self.tasks.get(id).map(|task| task.tid).filter(|_| info != 0) else { return Ok(false) };
        let word = |offset| guest::peek_u32(tid, info.wrapping_add(offset));
        Ok(word(CODE_OFFSET)? == libc::SI_USER as u32 && word(SENDER_OFFSET)? == 0)
    }

    fn reap_killed(&mut self, id: TaskId, nr: i64, target: i32) -> Result<(), EngineError> {
        let mut dying = self.may_be_hit(id, nr, target);
        // The kernel drops a SIGKILL from inside for the first process of the namespace (pid_namespaces(7)): it would never be over.
        dying.retain(|process| self.tasks.process(*process).is_some_and(|facts| facts.number != 1));
        dying.retain(|process| self.is_dying(*process));
        self.reap_doomed(dying)
    }

    /// Hears of tasks that SIGCONT has let go on: each tells so in a stop of its own, and its parent of it, whenever the host runs it.
    fn hear_continued(&mut self, id: TaskId, nr: i64, target: i32) -> Result<(), EngineError> {
        for process in self.may_be_hit(id, nr, target) {
            for stopped in self.tasks.of_process(process) {
                let mut looks = 0;
                while let Some(task) = self.tasks.get(stopped) {
                    if !matches!(task.state, State::Blocked(Wait::Stopped)) || looks >= FATE_LOOKS_MAX {
                        break;
                    }
                    match self.hear(Who::Task(task.tid), false) {
                        Ok(Some((pid, outcome))) => self.on_event(pid, outcome)?,
                        Ok(None) => std::thread::sleep(std::time::Duration::from_micros(FATE_LOOK_US)),
                        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => break,
                        Err(source) => return Err(EngineError::Edge { deed: "hear of a continued task", source }),
                    }
                    looks += 1;
                }
            }
        }
        Ok(())
    }

    /// The processes beside the sender's own that a signal of kill(2) or its family may have reached.
    fn may_be_hit(&self, id: TaskId, nr: i64, target: i32) -> Vec<ProcessId> {
        let own = self.tasks.get(id).map(|task| task.process);
        // The number may be that of a thread, or of a process whose first thread has ended.
        let number = target.unsigned_abs();
        let leads = |(process, facts): (ProcessId, &super::task::Process)| (facts.number == number).then_some(process);
        let named = self.tasks.processes().find_map(leads).or_else(|| self.process_of_number(number));
        let others = self.tasks.processes().filter(|(process, facts)| Some(*process) != own && !facts.zombie);
        let hit = others.filter(|(process, facts)| match (nr, target) {
            (libc::SYS_kill, -1) | (libc::SYS_pidfd_send_signal, _) => true,
            (libc::SYS_kill, 0) => group_of(facts.pid) == own.and_then(|own| self.group_of_process(own)),
            (libc::SYS_kill, group) if group < 0 => group_in_cage(facts.pid) == Some(group.unsigned_abs()),
            _ => named == Some(*process),
        });
        hit.map(|(process, _)| process).collect()
    }

    /// The process that a number in the cage stands for: its own, or that of one of its threads.
    fn process_of_number(&self, number: u32) -> Option<ProcessId> {
        self.tasks.iter().find(|(_, task)| task.number == number).map(|(_, task)| task.process)
    }

    /// True when SIGKILL has reached a process. Nobody in it runs, so a thread of its that does is on the way to its end, or to telling so.
    pub(super) fn is_dying(&self, process: ProcessId) -> bool {
        for id in self.tasks.of_process(process) {
            let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { continue };
            match fate_of(tid) {
                // A first thread that has ended waits as a zombie for the others: ask them.
                Fate::Zombie => {}
                Fate::Dies => return true,
                Fate::Lives => return false,
            }
        }
        true
    }

    fn group_of_process(&self, process: ProcessId) -> Option<i32> {
        group_of(self.tasks.process(process)?.pid)
    }

    /// rt_sigtimedwait(2): the kernel takes a signal that is there; otherwise the task waits.
    pub(super) fn wait_for_signal(&mut self, id: TaskId, call: &Call) -> Result<Verdict, Trouble> {
        let Some((tid, timed_out, retried, deadline)) =
            self.tasks.get(id).map(|task| (task.tid, task.timed_out, task.retried, task.deadline))
        else {
            return Ok(Verdict::Settled);
        };
        let timeout = match call.args[2] {
            0 => None,
            address => Some(super::calls::time::read_timespec(tid, address)?),
        };
        let wanted = guest::peek_u64(tid, call.args[0])?;
        let signals = signals_of(tid).unwrap_or_default();
        // Wanted ones come back as results; others that are deliverable interrupt.
        if signals.pending & wanted != 0 || signals.deliverable(signals.blocked | wanted) != 0 || timeout == Some(0) {
            if self.hook(id)?.is_some() {
                self.release(id)?;
            }
            return Ok(Verdict::Settled);
        }
        if timed_out {
            return Ok(Verdict::Return(-i64::from(libc::EAGAIN)));
        }
        let deadline = if retried { deadline } else { timeout.map(|ns| self.clock.now().saturating_add(ns)) };
        if let Some(task) = self.tasks.get_mut(id) {
            task.retried = true;
        }
        self.block(id, Wait::Signal, deadline);
        Ok(Verdict::Settled)
    }

    /// pause(2) and rt_sigsuspend(2).
    pub(super) fn suspend(&mut self, id: TaskId, call: &Call) -> Result<Verdict, Trouble> {
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(Verdict::Settled) };
        let signals = signals_of(tid).unwrap_or_default();
        let blocked = mask_of(tid, call).unwrap_or(signals.blocked);
        if signals.deliverable(blocked) != 0 {
            self.interrupted(id)?;
        } else {
            self.block(id, Wait::Signal, None);
        }
        Ok(Verdict::Settled)
    }
}

/// Process group by the host's number.
fn group_of(pid: Pid) -> Option<i32> {
    nix::unistd::getpgid(Some(pid)).ok().map(Pid::as_raw)
}

/// Process group by the cage's number: the last of NSpgid (proc_pid_status(5)).
fn group_in_cage(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpgid:"))?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// What becomes of a thread that waits.
enum Fate {
    Lives,
    Dies,
    Zombie,
}

/// Looks until it is clear whether SIGKILL has reached a thread: pending, or at work. A thread that waits is not running, unless it was just
/// woken to die.
fn fate_of(tid: Pid) -> Fate {
    for _ in 0..FATE_LOOKS_MAX {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else { return Fate::Zombie };
        let state = status.lines().find_map(|line| line.strip_prefix("State:\t")).unwrap_or("X");
        if state.starts_with(['Z', 'X']) {
            return Fate::Zombie;
        }
        if Signals::parse(&status).pending & bit(libc::SIGKILL) != 0 || super::events::is_exiting(tid) {
            return Fate::Dies;
        }
        if !state.starts_with('R') {
            return Fate::Lives;
        }
        std::thread::sleep(std::time::Duration::from_micros(FATE_LOOK_US));
    }
    Fate::Lives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_only_if_it_is_pending_open_and_does_something() {
        let status = "Name:\tsh\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000014000\nSigBlk:\t0000000000000000\n\
                      SigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n";
        let signals = Signals::parse(status);
        assert_eq!(signals.pending, bit(libc::SIGTERM) | bit(libc::SIGCHLD));
        assert_eq!(signals.deliverable(0), bit(libc::SIGTERM));
        assert_eq!(signals.deliverable(bit(libc::SIGTERM)), 0);
        let caught = Signals { caught: bit(libc::SIGCHLD), ..signals };
        assert_eq!(caught.deliverable(bit(libc::SIGTERM)), bit(libc::SIGCHLD));
        assert_eq!(Signals { ignored: bit(libc::SIGTERM), ..signals }.deliverable(0), 0);
    }
}
