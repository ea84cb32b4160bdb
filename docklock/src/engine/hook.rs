//! Runs one call of a task in the kernel and stops the task before its own code goes on.
//!
//! The stop is armed while the task waits in its notification (PTRACE_INTERRUPT), then the call is let through: whatever would sleep
//! interruptibly returns at once, everything else completes. So the result can be rewritten under the task's own credentials, root and
//! working directory, and a call that might block can be tried.

use bpi_policies::Class;

use super::task::{Call, Resume, TaskId, Wait};
use super::trace::CONTINUED;
use super::{Engine, EngineError};
use crate::kernel::ears::Heard;
use crate::kernel::tracee::{self, Outcome, Registers, Who};
use crate::kernel::{self, Reply};

/// PTRACE_EVENT_STOP, ptrace(2).
pub(super) const EVENT_STOP: i32 = libc::PTRACE_EVENT_STOP;
/// What an interrupted call returns inside the kernel (include/linux/errno.h): ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND,
/// ERESTART_RESTARTBLOCK.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
/// ERESTARTNOHAND: EINTR where a handler runs, the call again where none does.
pub(super) const ERESTARTNOHAND: i64 = -514;
/// ERESTART_RESTARTBLOCK: EINTR where a handler runs, restart_syscall(2) where none does.
pub(super) const ERESTART_RESTARTBLOCK: i64 = -516;
/// Every signal but those that cannot be blocked.
pub(super) const ALL_SIGNALS: u64 = u64::MAX;
/// Bytes of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;

/// What became of a call that changes files.
pub(super) enum Changed {
    /// Its task is gone.
    Gone,
    /// The task makes it again at once.
    Again,
    /// It has returned this, and its task is stopped.
    Done(i64),
}

impl Engine {
    /// Runs the call. The task is stopped afterwards, or gone: then there are no registers.
    pub(super) fn hook(&mut self, id: TaskId) -> Result<Option<Registers>, EngineError> {
        self.hook_until(id, None)
    }

    /// As [`Self::hook`], for a call with a limit of the kernel's clock: whether that passes before the stop comes (`expired`, a result) is
    /// the host's, so the log has the same record of either.
    pub(super) fn hook_until(&mut self, id: TaskId, expired: Option<i64>) -> Result<Option<Registers>, EngineError> {
        self.counters.hooks += 1;
        let Some(call) = self.tasks.get_mut(id).and_then(|task| task.call.take()) else { return Ok(None) };
        let told = |engine: &Self| kernel::notify_reply(engine.ears.listener(), call.id, Reply::Continue);
        let registers = self.armed(id, told)?;
        if let Some(registers) = &registers {
            let result = registers.rax as i64;
            // Which of its own codes the kernel uses is no result: the call will be made again.
            let limited = expired.is_some_and(|expired| result == expired || result == -i64::from(libc::EINTR));
            let result = if is_restart(result) || limited { ERESTARTNOHAND } else { result };
            // Where the kernel maps depends on the size of its own vDSO: an address is no result that another host would give.
            let result = if call.nr == libc::SYS_mmap && !(-4095..0).contains(&result) { CONTINUED } else { result };
            let number = self.number_of(id);
            self.record(number, call.nr as i32, result, [call.args[0], call.args[1]])?;
        }
        Ok(registers)
    }

    /// As [`Self::hook`], for a call that changes files. A stop that is armed keeps an overlay from copying a file up (splice(2) looks for signals
    /// first): then the kernel makes the call again, and the engine lets it through without a stop. Whether a file lies in an upper layer is the
    /// host's, so the log has the same record of either; `hidden` says that it could happen.
    pub(super) fn hook_change(&mut self, id: TaskId, hidden: bool) -> Result<Changed, EngineError> {
        self.counters.hooks += 1;
        let Some(call) = self.tasks.get_mut(id).and_then(|task| task.call.take()) else { return Ok(Changed::Gone) };
        let told = |engine: &Self| kernel::notify_reply(engine.ears.listener(), call.id, Reply::Continue);
        let Some(registers) = self.armed(id, told)? else { return Ok(Changed::Gone) };
        let result = registers.rax as i64;
        if hidden && is_restart(result) {
            if let Some(task) = self.tasks.get_mut(id) {
                task.again = Some(call);
            }
            self.release(id)?;
            return Ok(Changed::Again);
        }
        let shown = if hidden { CONTINUED } else { result };
        let number = self.number_of(id);
        self.record(number, call.nr as i32, shown, [call.args[0], call.args[1]])?;
        Ok(Changed::Done(result))
    }

    /// Arms the stop, answers by `told`, and waits for the stop.
    pub(super) fn armed(
        &mut self,
        id: TaskId,
        told: impl FnOnce(&Self) -> std::io::Result<()>,
    ) -> Result<Option<Registers>, EngineError> {
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(None) };
        // This stop is waited for here; a signal for it would only be one thing more to look at.
        self.ears.hush().map_err(EngineError::edge("hush the tasks"))?;
        self.forgiving(tracee::interrupt(tid), "arm a stop")?;
        let told = told(self);
        self.forgiving(told, "let a call through")?;
        if !self.wait_for_stop(id)? {
            return Ok(None);
        }
        match tracee::registers(tid) {
            Ok(registers) => Ok(Some(registers)),
            Err(error) if super::is_gone(&error) => Ok(None),
            Err(source) => Err(EngineError::Edge { deed: "read the registers of a task", source }),
        }
    }

    /// Stops a task on its way out of a call that the kernel does not run.
    pub(super) fn stop_instead(&mut self, id: TaskId) -> Result<Option<Registers>, EngineError> {
        self.counters.hooks += 1;
        let Some(call) = self.tasks.get_mut(id).and_then(|task| task.call.take()) else { return Ok(None) };
        self.armed(id, |engine| kernel::notify_reply(engine.ears.listener(), call.id, Reply::Value(0)))
    }

    /// Makes a task that [`Self::stop_instead`] left with the registers `stopped` run another call from the same place. It is stopped
    /// afterwards, with the result as that of its own call, or gone: then there are no registers.
    pub(super) fn make_call(
        &mut self,
        id: TaskId,
        stopped: &Registers,
        call: &Call,
    ) -> Result<Option<Registers>, EngineError> {
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(None) };
        let mask = match tracee::signal_mask(tid) {
            Ok(mask) => mask,
            Err(error) if super::is_gone(&error) => return Ok(None),
            Err(source) => return Err(EngineError::Edge { deed: "read a task's signal mask", source }),
        };
        self.forgiving(tracee::set_signal_mask(tid, ALL_SIGNALS), "block a task's signals")?;
        let [rdi, rsi, rdx, r10, r8, r9] = call.args;
        let rip = stopped.rip.wrapping_sub(SYSCALL_BYTES);
        let made = Registers { rip, rax: call.nr as u64, orig_rax: u64::MAX, rdi, rsi, rdx, r10, r8, r9, ..*stopped };
        self.forgiving(tracee::set_registers(tid, &made), "set a task's registers")?;
        let by_trap = |signal, event| (signal, event) == (libc::SIGTRAP, 0);
        self.forgiving(tracee::resume_to_call(tid), "let a task make a call")?;
        if !self.wait_for(id, by_trap)? {
            return Ok(None);
        }
        self.forgiving(tracee::resume_to_call(tid), "let a task make a call")?;
        let is_asked = self.policy.decide(&call.of_policy()) == Class::Virtual;
        if is_asked && !self.let_made_call_through(id)? || !self.wait_for(id, by_trap)? {
            return Ok(None);
        }
        let result = match tracee::registers(tid) {
            Ok(registers) => registers.rax,
            Err(error) if super::is_gone(&error) => return Ok(None),
            Err(source) => return Err(EngineError::Edge { deed: "read the registers of a task", source }),
        };
        let after = Registers { rax: result, orig_rax: u64::MAX, ..*stopped };
        self.forgiving(tracee::set_registers(tid, &after), "give a task its registers back")?;
        self.forgiving(tracee::set_signal_mask(tid, mask), "give a task its signal mask back")?;
        let number = self.number_of(id);
        self.record(number, call.nr as i32, result as i64, [call.args[0], call.args[1]])?;
        Ok(Some(after))
    }

    /// The filter asks about a call that the engine itself makes a task do. False: the task is gone.
    fn let_made_call_through(&mut self, id: TaskId) -> Result<bool, EngineError> {
        loop {
            let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(false) };
            match self.ears.hear().map_err(EngineError::edge("receive a call"))? {
                Heard::Call(asked) if asked.pid as i32 == tid.as_raw() => {
                    let told = kernel::notify_reply(self.ears.listener(), asked.id, Reply::Continue);
                    self.forgiving(told, "let a call through")?;
                    return Ok(true);
                }
                Heard::Call(other) => self.on_call(other)?,
                Heard::News => {
                    self.drain_events()?;
                }
                Heard::Nobody => {
                    self.drain_events()?;
                    if self.ears.hung_up() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn is_sibling(&self, one: TaskId, other: TaskId) -> bool {
        self.tasks.get(one).zip(self.tasks.get(other)).is_some_and(|(one, other)| one.process == other.process)
    }

    /// True for the first thread of a process that has others.
    fn leads_others(&self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get(id) else { return false };
        self.tasks.process(task.process).is_some_and(|process| process.pid == task.tid && process.tasks > 1)
    }

    /// Waits until a task that is about to stop has stopped. False: it is gone instead.
    pub(super) fn wait_for_stop(&mut self, id: TaskId) -> Result<bool, EngineError> {
        self.wait_for(id, |_, event| matches!(event, EVENT_STOP | libc::PTRACE_EVENT_VFORK_DONE))
    }

    /// The same for a stop by a signal and an event that are `wanted`.
    fn wait_for(&mut self, id: TaskId, wanted: impl Fn(i32, i32) -> bool) -> Result<bool, EngineError> {
        loop {
            let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(false) };
            // The first thread of a dying process is told only when its tracer has heard of all others: then those must be heard too.
            let who = if self.leads_others(id) { Who::Any } else { Who::Task(tid) };
            match self.hear(who, true) {
                Ok(Some((pid, Outcome::Stopped { signal, event }))) if pid == tid && wanted(signal, event) => {
                    if let Some(task) = self.tasks.get_mut(id) {
                        task.stopped = true;
                    }
                    return Ok(true);
                }
                Ok(Some((pid, outcome))) => match self.tasks.by_tid(pid) {
                    Some(other)
                        if pid != tid && self.is_sibling(id, other) && !matches!(outcome, Outcome::Stopped { .. }) =>
                    {
                        self.fallen.insert(other, outcome);
                    }
                    _ => self.on_event(pid, outcome)?,
                },
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    self.end_task(id, Outcome::Killed(libc::SIGKILL))?;
                    return Ok(false);
                }
                Err(source) => return Err(EngineError::Edge { deed: "wait for a stop", source }),
            }
        }
    }

    /// Lets a hooked task go on: now if it has the turn, else when it gets it.
    pub(super) fn release(&mut self, id: TaskId) -> Result<(), EngineError> {
        if self.current == Some(id) {
            return self.unpark(id);
        }
        self.ready(id, Resume::Unpark);
        Ok(())
    }

    /// The hooked call would have blocked: the task makes it again when something has happened. Until then it stays on its way out of the
    /// call, so that a signal that comes first interrupts it by the kernel's own rules (signal(7), SA_RESTART).
    pub(super) fn try_again_later(
        &mut self,
        id: TaskId,
        registers: &Registers,
        deadline: Option<u64>,
    ) -> Result<(), EngineError> {
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(()) };
        self.restart_whole(tid, *registers)?;
        self.block(id, Wait::Retry, deadline);
        Ok(())
    }

    /// Lets a task make the call again that [`Self::try_again_later`] left it in.
    pub(super) fn try_again(&mut self, id: TaskId) -> Result<(), EngineError> {
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return Ok(()) };
        let registers = match tracee::registers(tid) {
            Ok(registers) => registers,
            Err(error) if super::is_gone(&error) => return Ok(()),
            Err(source) => return Err(EngineError::Edge { deed: "read the registers of a task", source }),
        };
        let rewound = Registers {
            rax: registers.orig_rax,
            rip: registers.rip.wrapping_sub(SYSCALL_BYTES),
            orig_rax: u64::MAX,
            ..registers
        };
        self.forgiving(tracee::set_registers(tid, &rewound), "rewind a call")?;
        self.unpark(id)
    }
}

/// True for a return value by which the kernel says that a call was interrupted.
pub(super) fn is_restart(result: i64) -> bool {
    RESTARTS.contains(&result)
}
