//! timerfd_create(2) in logical time: the timer is the model's, its descriptor a carrier of the kernel's that the engine makes readable.
//!
//! So reads, polls and epoll are the kernel's own. Not told: TFD_TIMER_CANCEL_ON_SET, as nobody inside can set a clock.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use super::Answer;
use crate::engine::guest;
use crate::engine::model::clock::{self, ClockId, ITIMERSPEC_BYTES};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, EngineError, Fault, Trouble, Verdict};
use crate::kernel::timerfd;

/// Timers after which those that nobody holds any more are looked for.
const TIMERS_SWEEP: usize = 256;
/// Most timers behind descriptors at once.
const TIMERS_MAX: usize = 4096;
/// The flags of timerfd_settime(2): TFD_TIMER_ABSTIME and TFD_TIMER_CANCEL_ON_SET.
const SETTIME_FLAGS: i32 = 3;
const ABSTIME: i32 = 1;

/// The engine's own descriptors of the carriers, by the timer's id.
#[derive(Debug, Default)]
pub(in crate::engine) struct TimerDescriptors {
    carriers: BTreeMap<u64, OwnedFd>,
    /// How many there were when those without a holder were looked for last.
    swept: usize,
}

impl Engine {
    pub(super) fn timerfd(&mut self, id: TaskId, call: &Call) -> Answer {
        match call.nr {
            libc::SYS_timerfd_create => self.timerfd_create(id, call),
            libc::SYS_timerfd_settime => self.timerfd_settime(id, call),
            _ => self.timerfd_gettime(id, call),
        }
    }

    fn timerfd_create(&mut self, id: TaskId, call: &Call) -> Answer {
        let flags = call.args[1] as i32;
        if flags & !(libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) != 0 {
            return Err(guest::EINVAL.into());
        }
        let named = ClockId::parse(call.args[0] as i32).ok_or(guest::EINVAL)?;
        match named {
            ClockId::Realtime | ClockId::Monotonic | ClockId::Boottime => {}
            // They need CAP_WAKE_ALARM.
            ClockId::RealtimeAlarm | ClockId::BoottimeAlarm => return Err(nix::errno::Errno::EPERM.into()),
            _ => return Err(guest::EINVAL.into()),
        }
        self.forget_timers_without_holder()?;
        if self.timerfds.carriers.len() >= TIMERS_MAX {
            return Err(nix::errno::Errno::ENFILE.into());
        }
        let timer = self.timers.create_descriptor(named);
        let made = timerfd::make(flags & libc::TFD_NONBLOCK != 0, timer).map_err(EngineError::edge("make a timer"))?;
        let verdict = self.hand_in_descriptor(id, call, made.as_fd(), flags & libc::TFD_CLOEXEC != 0)?;
        self.timerfds.carriers.insert(timer, made);
        Ok(verdict)
    }

    fn timerfd_settime(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let flags = call.args[1] as i32;
        if flags & !SETTIME_FLAGS != 0 {
            return Err(guest::EINVAL.into());
        }
        let (interval, value) = clock::itimerspec_ns(&guest::peek::<ITIMERSPEC_BYTES>(tid, call.args[2])?)?;
        let (timer, carrier, named) = self.timer_behind(id, call.args[0] as i32)?;
        let deadline = match value {
            0 => None,
            at if flags & ABSTIME != 0 => Some(self.clock.reaches(named, at)),
            ns => Some(self.clock.after(ns)),
        };
        let now = self.clock.now();
        let (old_interval, left) = self.timers.set_descriptor(timer, deadline, interval, now)?;
        // What expired before is forgotten.
        timerfd::set_label(carrier.as_fd(), timer).map_err(EngineError::edge("set a timer"))?;
        if deadline.is_some_and(|at| at <= now) {
            self.expire_timers()?;
        }
        if call.args[3] != 0 {
            guest::write(tid, call.args[3], &clock::itimerspec(old_interval, left))?;
        }
        Ok(Verdict::Return(0))
    }

    fn timerfd_gettime(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let (timer, _, _) = self.timer_behind(id, call.args[0] as i32)?;
        let ((interval, left), _) = self.timers.descriptor(timer, self.clock.now()).ok_or(guest::EINVAL)?;
        guest::write(tid, call.args[1], &clock::itimerspec(interval, left))?;
        Ok(Verdict::Return(0))
    }

    /// The timer that a task's descriptor stands for.
    fn timer_behind(&mut self, id: TaskId, number: i32) -> Result<(u64, OwnedFd, ClockId), Trouble> {
        let carrier = self.descriptor(id, number).ok_or(Fault(-i64::from(libc::EBADF)))?;
        let timer = timerfd::label(carrier.as_fd()).map_err(|_| guest::EINVAL)?;
        let (_, named) = self.timers.descriptor(timer, self.clock.now()).ok_or(guest::EINVAL)?;
        Ok((timer, carrier, named))
    }

    /// A timer has expired `ticks` times since it was told last.
    pub(in crate::engine) fn tick(&mut self, timer: u64, ticks: u64) -> Result<(), EngineError> {
        let Some(carrier) = self.timerfds.carriers.get(&timer) else { return Ok(()) };
        timerfd::add_ticks(carrier.as_fd(), ticks).map_err(EngineError::edge("let a timer expire"))
    }

    /// Drops the timers that no task has a descriptor of. One that is on its way through a socket just then never expires.
    fn forget_timers_without_holder(&mut self) -> Result<(), EngineError> {
        let count = self.timerfds.carriers.len();
        if count < TIMERS_SWEEP || count < self.timerfds.swept.saturating_mul(2) {
            return Ok(());
        }
        let mut held = std::collections::BTreeSet::new();
        for (_, process) in self.tasks.processes().filter(|(_, process)| !process.zombie) {
            let folder = format!("/proc/{}/fd", process.pid);
            let entries = std::fs::read_dir(&folder).map_err(EngineError::edge("list a task's descriptors"))?;
            for entry in entries.flatten() {
                let is_timer =
                    std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[timerfd]");
                if is_timer && let Some(label) = label_in(&format!("/proc/{}/fdinfo", process.pid), &entry.file_name())
                {
                    held.insert(label);
                }
            }
        }
        self.timers.retain_descriptors(|timer| held.contains(&timer));
        self.timerfds.carriers.retain(|timer, _| held.contains(timer));
        self.timerfds.swept = self.timerfds.carriers.len();
        Ok(())
    }
}

/// The label of a timer, from the interval that proc_pid_fdinfo(5) shows: `it_interval: (seconds, nanoseconds)`.
fn label_in(folder: &str, number: &std::ffi::OsStr) -> Option<u64> {
    let info = std::fs::read_to_string(std::path::Path::new(folder).join(number)).ok()?;
    let pair = info.lines().find_map(|line| line.strip_prefix("it_interval:"))?.trim();
    let (seconds, ns) = pair.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
    Some(seconds.parse::<u64>().ok()? * clock::SECOND_NS + ns.parse::<u64>().ok()?)
}
