//! alarm(2), setitimer(2) and timer_create(2), in logical time.
//!
//! Approximate: timers of CPU clocks (SIGVTALRM, SIGPROF, CLOCK_*_CPUTIME_ID) expire by logical time, in which sleep counts too. A signal of
//! an interval timer names a sender (SI_USER) and not the kernel. A timer whose signal number is pending, whoever sent that one, counts an
//! overrun and sends none.

use std::io;

use nix::unistd::Pid;

use super::{Answer, word};
use crate::engine::guest;
use crate::engine::model::clock::{self, ClockId, ITIMERSPEC_BYTES, SECOND_NS};
use crate::engine::model::timers::{Firing, INTERVAL_TIMERS, Kind};
use crate::engine::task::{Call, ProcessId, TaskId};
use crate::engine::trace::Event;
use crate::engine::{Engine, EngineError, Trouble, Verdict};
use crate::kernel::tracee;

/// Largest signal number (SIGRTMAX of the kernel).
const SIGNAL_MAX: i32 = 64;
/// The part of a `struct sigevent` that the kernel reads here: value, signo, notify, tid.
const SIGEVENT_BYTES: usize = 24;
/// SIGEV_SIGNAL, SIGEV_NONE and SIGEV_THREAD_ID of asm-generic/siginfo.h.
const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD_ID: i32 = 4;

/// Signal, value and thread of a POSIX timer; `None` for a null pointer.
type Notify = Option<(i32, u64, Option<u32>)>;

impl Engine {
    pub(super) fn timer(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let Some(process) = self.tasks.get(id).map(|task| task.process) else { return Ok(Verdict::Settled) };
        match call.nr {
            libc::SYS_alarm => self.alarm(process, call),
            libc::SYS_setitimer => self.setitimer(tid, process, call),
            libc::SYS_getitimer => {
                let which = interval_timer(call)?;
                let (interval, left) = self.timers.get_interval(process.0, which, self.clock.now());
                guest::write(tid, call.args[1], &clock::itimerval(interval, left))?;
                Ok(Verdict::Return(0))
            }
            libc::SYS_timer_create => self.timer_create(tid, process, call),
            libc::SYS_timer_settime => self.timer_settime(tid, process, call),
            libc::SYS_timer_gettime => {
                let (interval, left) = self.timers.gettime(process.0, call.args[0] as i32, self.clock.now())?;
                guest::write(tid, call.args[1], &clock::itimerspec(interval, left))?;
                Ok(Verdict::Return(0))
            }
            libc::SYS_timer_getoverrun => {
                Ok(Verdict::Return(self.timers.overrun(process.0, call.args[0] as i32)?.into()))
            }
            libc::SYS_timer_delete => {
                self.timers.delete(process.0, call.args[0] as i32)?;
                Ok(Verdict::Return(0))
            }
            _ => Err(nix::errno::Errno::ENOSYS.into()),
        }
    }

    /// alarm(2): what was left is rounded to a second, and is never 0 for an alarm that was set.
    fn alarm(&mut self, process: ProcessId, call: &Call) -> Answer {
        let value = u64::from(call.args[0] as u32) * SECOND_NS;
        let (_, left) = self.timers.set_interval(process.0, 0, value, 0, self.clock.now());
        let (seconds, rest) = (left / SECOND_NS, left % SECOND_NS);
        let up = rest >= SECOND_NS / 2 || (seconds == 0 && rest != 0);
        Ok(Verdict::Return((seconds + u64::from(up)) as i64))
    }

    /// setitimer(2). A null pointer for the new value disarms, as in the kernel.
    fn setitimer(&mut self, tid: Pid, process: ProcessId, call: &Call) -> Answer {
        let (interval, value) = match call.args[1] {
            0 => (0, 0),
            address => clock::itimerval_ns(&guest::peek::<ITIMERSPEC_BYTES>(tid, address)?)?,
        };
        let which = interval_timer(call)?;
        let (interval, left) = self.timers.set_interval(process.0, which, value, interval, self.clock.now());
        if call.args[2] != 0 {
            guest::write(tid, call.args[2], &clock::itimerval(interval, left))?;
        }
        Ok(Verdict::Return(0))
    }

    fn timer_create(&mut self, tid: Pid, process: ProcessId, call: &Call) -> Answer {
        let event = match call.args[1] {
            0 => None,
            address => Some(guest::peek::<SIGEVENT_BYTES>(tid, address)?),
        };
        let named = ClockId::parse(call.args[0] as i32).ok_or(guest::EINVAL)?;
        named.may_time()?;
        let notify = match event {
            Some(event) => self.notify(process, &event)?,
            None => None,
        };
        if !self.times_somebody(process, named) {
            return Err(guest::EINVAL.into());
        }
        let timer = self.timers.create(process.0, named, notify)?;
        if let Err(fault) = guest::write(tid, call.args[2], &timer.to_le_bytes()) {
            self.timers.delete(process.0, timer)?;
            return Err(fault.into());
        }
        Ok(Verdict::Return(0))
    }

    /// What a `struct sigevent` asks for.
    fn notify(&self, process: ProcessId, event: &[u8; SIGEVENT_BYTES]) -> Result<Notify, Trouble> {
        let (value, numbers) = (word(event, 0), word(event, 8));
        let (signal, how) = (numbers as i32, (numbers >> 32) as i32);
        let thread = match how {
            SIGEV_NONE => return Ok(Some((0, value, None))),
            SIGEV_SIGNAL => None,
            SIGEV_THREAD_ID => {
                let number = word(event, 16) as u32;
                if self.thread(process, number).is_none() {
                    return Err(guest::EINVAL.into());
                }
                Some(number)
            }
            _ => return Err(guest::EINVAL.into()),
        };
        if !(1..=SIGNAL_MAX).contains(&signal) {
            return Err(guest::EINVAL.into());
        }
        Ok(Some((signal, value, thread)))
    }

    /// Whether a clock has an owner: a CPU clock of a thread must be one of `process`, that of a process any that lives.
    fn times_somebody(&self, process: ProcessId, named: ClockId) -> bool {
        match named {
            ClockId::Cpu { id: 0, .. } => true,
            ClockId::Cpu { id, thread: true } => self.thread(process, id).is_some(),
            ClockId::Cpu { id, thread: false } => {
                self.tasks.processes().any(|(_, process)| process.number == id && !process.zombie)
            }
            _ => true,
        }
    }

    /// The host's id of the thread of `process` with this number in the cage.
    fn thread(&self, process: ProcessId, number: u32) -> Option<Pid> {
        let of = |task: &crate::engine::task::Task| task.process == process && task.number == number;
        self.tasks.iter().find(|(_, task)| of(task)).map(|(_, task)| task.tid)
    }

    fn timer_settime(&mut self, tid: Pid, process: ProcessId, call: &Call) -> Answer {
        if call.args[2] == 0 {
            return Err(guest::EINVAL.into());
        }
        let (interval, value) = clock::itimerspec_ns(&guest::peek::<ITIMERSPEC_BYTES>(tid, call.args[2])?)?;
        let timer = call.args[0] as i32;
        let named = self.timers.clock_of(process.0, timer).ok_or(guest::EINVAL)?;
        let absolute = call.args[1] as i32 & libc::TIMER_ABSTIME != 0;
        let deadline = match value {
            0 => None,
            at if absolute => Some(self.clock.reaches(named, at)),
            ns => Some(self.clock.after(ns)),
        };
        let now = self.clock.now();
        let (interval, left) = self.timers.settime(process.0, timer, deadline, interval, now)?;
        if deadline.is_some_and(|at| at <= now) {
            self.expire_timers()?;
        }
        if call.args[3] != 0 {
            guest::write(tid, call.args[3], &clock::itimerspec(interval, left))?;
        }
        Ok(Verdict::Return(0))
    }

    /// Sends the signals of all timers whose time has come.
    pub(in crate::engine) fn expire_timers(&mut self) -> Result<(), EngineError> {
        for firing in self.timers.expire(self.clock.now()) {
            if let Kind::Descriptor { id, ticks } = firing.kind {
                self.record(0, Event::Timer as i32, 0, [id, ticks])?;
                self.tick(id, ticks)?;
                continue;
            }
            let owner = self.tasks.processes().find(|(id, process)| id.0 == firing.process && !process.zombie);
            let Some((id, pid, number)) = owner.map(|(id, process)| (id, process.pid, process.number)) else {
                continue;
            };
            self.record(number, Event::Timer as i32, firing.signal.into(), [0; 2])?;
            if firing.signal == 0 {
                continue;
            }
            let told = match firing.kind {
                // By the queue, with SI_TIMER: a plain kill from here would look like one from outside.
                Kind::Interval => tracee::send_timer_signal(pid, None, firing.signal, 0, 0),
                Kind::Posix { id: timer } => self.send_posix(id, pid, timer, &firing),
                Kind::Descriptor { .. } => Ok(()),
            };
            self.forgiving(told, "send the signal of a timer")?;
            self.signals_to.insert(id);
            // As for kill(2): over when its target is gone. The first process cannot be killed by anything inside.
            if firing.signal == libc::SIGKILL && self.is_dying(id) {
                self.reap_process(id)?;
            }
        }
        Ok(())
    }

    fn send_posix(&mut self, process: ProcessId, pid: Pid, timer: i32, firing: &Firing) -> io::Result<()> {
        let thread = match firing.thread {
            None => None,
            Some(number) => match self.thread(process, number) {
                Some(tid) => Some(tid),
                // A signal to a thread that has ended is lost.
                None => return Ok(()),
            },
        };
        let told = if is_pending(pid, thread, firing.signal) {
            Err(io::Error::from_raw_os_error(libc::EAGAIN))
        } else {
            tracee::send_timer_signal(pid, thread, firing.signal, timer, firing.value)
        };
        match told {
            // It is there already, or the queue of signals is full.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                self.timers.held_back(firing.process, timer);
                Ok(())
            }
            told => told,
        }
    }
}

/// The interval timer that a call names.
fn interval_timer(call: &Call) -> Result<usize, Trouble> {
    usize::try_from(call.args[0] as i32).ok().filter(|which| *which < INTERVAL_TIMERS).ok_or(guest::EINVAL.into())
}

/// Whether the signal waits already for the process or, with `thread`, for that thread (proc_pid_status(5)).
fn is_pending(pid: Pid, thread: Option<Pid>, signal: i32) -> bool {
    let (of, field) = thread.map_or((pid, "ShdPnd:"), |tid| (tid, "SigPnd:"));
    let Ok(status) = std::fs::read_to_string(format!("/proc/{of}/status")) else { return false };
    let set = status.lines().find_map(|line| line.strip_prefix(field));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set >> (signal - 1) & 1 == 1)
}
