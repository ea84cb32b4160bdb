//! Clocks and sleep, in logical time.

use nix::unistd::Pid;

use super::Answer;
use crate::engine::guest;
use crate::engine::model::clock::{self, ClockId, TIMESPEC_BYTES};
use crate::engine::task::{Call, TaskId, Wait};
use crate::engine::{Engine, Trouble, Verdict};

/// `struct rusage` of x86-64: 16 words.
pub(in crate::engine) const RUSAGE_BYTES: usize = 144;
/// What every process is told of its largest resident size, in KiB.
const MAX_RSS_KIB: u64 = 4096;
/// `struct tms`.
const TMS_BYTES: usize = 32;

/// Nanoseconds of the timespec at `address`.
pub(in crate::engine) fn read_timespec(tid: Pid, address: u64) -> Result<u64, Trouble> {
    Ok(clock::timespec_ns(&guest::peek::<TIMESPEC_BYTES>(tid, address)?)?)
}

impl Engine {
    pub(super) fn clock_gettime(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let ns = self.clock.read(call.args[0] as i32).ok_or(guest::EINVAL)?;
        guest::write(tid, call.args[1], &clock::timespec(ns))?;
        Ok(Verdict::Return(0))
    }

    pub(super) fn clock_getres(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let ns = self.clock.resolution(call.args[0] as i32).ok_or(guest::EINVAL)?;
        if call.args[1] != 0 {
            guest::write(tid, call.args[1], &clock::timespec(ns))?;
        }
        Ok(Verdict::Return(0))
    }

    pub(super) fn gettimeofday(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        if call.args[0] != 0 {
            guest::write(tid, call.args[0], &clock::timeval(self.clock.realtime()))?;
        }
        if call.args[1] != 0 {
            guest::write(tid, call.args[1], &[0; 8])?;
        }
        Ok(Verdict::Return(0))
    }

    pub(super) fn time(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let seconds = self.clock.realtime() / clock::SECOND_NS;
        if call.args[0] != 0 {
            guest::write(tid, call.args[0], &seconds.to_le_bytes())?;
        }
        Ok(Verdict::Return(seconds as i64))
    }

    /// times(2): user time is the logical time that was not slept.
    pub(super) fn times(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        if call.args[0] != 0 {
            let mut tms = [0; TMS_BYTES];
            tms[..8].copy_from_slice(&clock::ticks(self.clock.busy()).to_le_bytes());
            guest::write(tid, call.args[0], &tms)?;
        }
        Ok(Verdict::Return(clock::ticks(self.clock.monotonic()) as i64))
    }

    pub(super) fn getrusage(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let who = call.args[0] as i32;
        if !matches!(who, libc::RUSAGE_SELF | libc::RUSAGE_CHILDREN | libc::RUSAGE_THREAD) {
            return Err(guest::EINVAL.into());
        }
        let busy = if who == libc::RUSAGE_CHILDREN { 0 } else { self.clock.busy() };
        guest::write(tid, call.args[1], &rusage(busy))?;
        Ok(Verdict::Return(0))
    }

    pub(super) fn sleep(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let (request, absolute_on) = if call.nr == libc::SYS_nanosleep {
            (call.args[0], None)
        } else {
            let number = call.args[0] as i32;
            let named = ClockId::parse(number).ok_or(guest::EINVAL)?;
            named.may_sleep()?;
            (call.args[2], (call.args[1] as i32 & libc::TIMER_ABSTIME != 0).then_some(named))
        };
        let ns = read_timespec(tid, request)?;
        let deadline = match absolute_on {
            Some(named) => self.clock.reaches(named, ns),
            None => self.clock.after(ns),
        };
        if deadline <= self.clock.now() {
            return Ok(Verdict::Return(0));
        }
        self.block(id, Wait::Sleep, Some(deadline));
        Ok(Verdict::Settled)
    }

    /// Lets time pass to the next deadline, when only sleepers are left beside the task that has the turn.
    pub(in crate::engine) fn skip_to_deadline_if_nobody_is_ready(&mut self) {
        if self.somebody_is_ready() {
            return;
        }
        if let Some(at) = self.next_deadline() {
            self.clock.jump_to(at);
        }
    }
}

/// A `struct rusage` with this much user time.
pub(in crate::engine) fn rusage(busy_ns: u64) -> [u8; RUSAGE_BYTES] {
    let mut bytes = [0; RUSAGE_BYTES];
    bytes[..16].copy_from_slice(&clock::timeval(busy_ns));
    bytes[32..40].copy_from_slice(&MAX_RSS_KIB.to_le_bytes());
    bytes
}
