//! Semaphores and queues between processes, where a call waits with a limit: in logical time.

use super::Answer;
use super::time::read_timespec;
use crate::engine::Engine;
use crate::engine::guest;
use crate::engine::model::clock::ClockId;
use crate::engine::task::{Call, TaskId};

/// `struct sembuf`: a number, an operation, flags (semop(2)), of 2 bytes each.
const SEMBUF_BYTES: usize = 6;
const SEMBUF_FLAGS_AT: usize = 4;
/// Most operations of one call (SEMOPM).
const OPERATIONS_MAX: u64 = 500;

impl Engine {
    /// semtimedop(2) with a limit, which counts from now.
    pub(super) fn change_semaphores(&mut self, id: TaskId, call: &Call) -> Answer {
        let [_, operations, count, limit, ..] = call.args;
        let tid = self.tid(id)?;
        let deadline = self.clock.after(read_timespec(tid, limit)?);
        if count <= OPERATIONS_MAX {
            let mut bytes = vec![0; count as usize * SEMBUF_BYTES];
            guest::read(tid, operations, &mut bytes)?;
            let asks_not_to_wait = |operation: &[u8]| {
                i32::from(u16::from_le_bytes([operation[SEMBUF_FLAGS_AT], operation[SEMBUF_FLAGS_AT + 1]]))
                    & libc::IPC_NOWAIT
                    != 0
            };
            // Such an operation fails as the limit does; the kernel decides about the others beside it.
            if bytes.chunks_exact(SEMBUF_BYTES).any(asks_not_to_wait) {
                return self.try_now(id);
            }
        }
        self.try_until(id, call, Some(deadline), -i64::from(libc::EAGAIN))
    }

    /// mq_timedsend(2) and mq_timedreceive(2) with a limit: a moment of the real-time clock. The kernel, whose clock is another, would end
    /// the wait at once, and says the same of a limit that has passed.
    pub(super) fn use_queue(&mut self, id: TaskId, call: &Call) -> Answer {
        let moment = read_timespec(self.tid(id)?, call.args[4])?;
        let clock = ClockId::parse(libc::CLOCK_REALTIME).ok_or(guest::EINVAL)?;
        let deadline = self.clock.reaches(clock, moment);
        self.try_until(id, call, Some(deadline), -i64::from(libc::ETIMEDOUT))
    }
}
