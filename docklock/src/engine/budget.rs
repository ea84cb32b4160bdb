//! Logical budgets: counted in the cage's own units, so that a run that exceeds one ends at the same call on every host.
//!
//! What a run may map is no matter of the engine: the plan makes it RLIMIT_AS of every process, and the kernel refuses the same call each time.

use super::guest::{self, kind};
use super::task::{Call, TaskId};
use super::{Engine, EngineError};

/// Longest vector of buffers (UIO_MAXIOV, writev(2)).
const BUFFERS_MAX: u64 = 1024;
/// Bytes of a `struct iovec`.
const IOVEC_BYTES: u64 = 16;

impl Engine {
    /// False when the call spends the last of a budget: then the run is over.
    pub(super) fn within_budget(&mut self, id: TaskId, call: &Call) -> Result<bool, EngineError> {
        if self.policy.profile().budget.file_bytes_max.is_some() {
            self.file_bytes = self.file_bytes.saturating_add(self.bytes_for_files(id, call));
        }
        let budget = &self.policy.profile().budget;
        let seconds = self.clock.now() / 1_000_000_000;
        let tasks = self.tasks.len() as u64;
        let spent = [
            ("calls", budget.calls_max, self.counters.calls),
            ("logical seconds", budget.virtual_seconds_max, seconds),
            ("tasks", budget.tasks_max, tasks),
            ("bytes written to files", budget.file_bytes_max, self.file_bytes),
        ];
        let over = spent.iter().find_map(|(what, limit, used)| {
            limit.filter(|limit| used > limit).map(|limit| format!("the budget of {limit} {what} is spent"))
        });
        match over {
            Some(sentence) => {
                self.end_run(sentence);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// How many bytes a call asks to write to a regular file. What is written through a mapping is not seen.
    fn bytes_for_files(&mut self, id: TaskId, call: &Call) -> u64 {
        let (number, bytes) = match call.nr {
            libc::SYS_write | libc::SYS_pwrite64 => (call.args[0], call.args[2]),
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => (call.args[0], self.bytes_of_vector(id, call)),
            libc::SYS_sendfile | libc::SYS_fallocate => (call.args[0], call.args[3]),
            libc::SYS_splice => (call.args[2], call.args[4]),
            _ => return 0,
        };
        let is_file = self.file(id, number as i32).is_some_and(|(_, stat)| kind(&stat) == libc::S_IFREG);
        if is_file { bytes } else { 0 }
    }

    /// The sum of a vector's lengths; the kernel refuses a vector that cannot be read.
    fn bytes_of_vector(&self, id: TaskId, call: &Call) -> u64 {
        let Some(tid) = self.tasks.get(id).map(|task| task.tid) else { return 0 };
        (0..call.args[2].min(BUFFERS_MAX))
            .filter_map(|index| {
                guest::peek_u64(tid, call.args[1].wrapping_add(IOVEC_BYTES * index).wrapping_add(8)).ok()
            })
            .fold(0, u64::saturating_add)
    }
}
