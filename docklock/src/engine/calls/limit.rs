//! How long a socket waits at most (SO_RCVTIMEO and SO_SNDTIMEO, socket(7)): in logical time.
//!
//! The kernel rounds such a limit to ticks, whose length is its configuration's, so what was asked is remembered here and told when asked for.

use std::collections::BTreeMap;

use nix::sys::stat::FileStat;

use super::{Answer, word};
use crate::engine::guest;
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Verdict};

/// Most sockets with a limit that are remembered. Numbers of sockets that are gone stay; then all are forgotten, and wait as the kernel would.
const KNOWN_MAX: usize = 1 << 16;
/// Bytes of a `struct timeval`, the same for the old and the new option on x86-64.
const TIMEVAL_BYTES: usize = 16;
const MICROSECOND_NS: u64 = 1000;
const SECOND_US: u64 = 1_000_000;

/// Which of a socket's two limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Direction {
    Receive,
    Send,
}

/// Microseconds, by the inode number of the socket.
pub(in crate::engine) type Limits = BTreeMap<(u64, Direction), u64>;

/// The limit that setsockopt(2) or getsockopt(2) is about (asm-generic/socket.h).
fn direction(call: &Call) -> Option<Direction> {
    match (call.args[1] as i32, call.args[2] as i32) {
        (libc::SOL_SOCKET, 20 | 66) => Some(Direction::Receive),
        (libc::SOL_SOCKET, 21 | 67) => Some(Direction::Send),
        _ => None,
    }
}

impl Engine {
    /// setsockopt(2): the kernel does it, and says what is wrong with it.
    pub(super) fn set_option(&mut self, id: TaskId, call: &Call) -> Answer {
        if let Some(direction) = direction(call)
            && call.args[4] >= TIMEVAL_BYTES as u64
            && let Some((_, stat)) = self.file(id, call.args[0] as i32)
            && let Ok(value) = guest::peek::<TIMEVAL_BYTES>(self.tid(id)?, call.args[3])
        {
            let (seconds, micros) = (word(&value, 0), word(&value, 8));
            if micros < SECOND_US && i64::try_from(seconds).is_ok() {
                if self.socket_limits.len() >= KNOWN_MAX {
                    self.socket_limits.clear();
                }
                let limit = seconds.saturating_mul(SECOND_US).saturating_add(micros);
                self.socket_limits.insert((stat.st_ino, direction), limit);
            }
        }
        self.try_now(id)
    }

    /// getsockopt(2): a limit as it was set.
    pub(super) fn get_option(&mut self, id: TaskId, call: &Call) -> Answer {
        let [_, _, _, value, length, _] = call.args;
        if let Some(direction) = direction(call)
            && let Some((_, stat)) = self.file(id, call.args[0] as i32)
            && let Some(limit) = self.socket_limits.get(&(stat.st_ino, direction)).copied()
        {
            let tid = self.tid(id)?;
            if guest::peek_u32(tid, length)? >= TIMEVAL_BYTES as u32 {
                let parts = [limit / SECOND_US, limit % SECOND_US];
                guest::write(tid, value, &parts.map(u64::to_le_bytes).concat())?;
                guest::write(tid, length, &(TIMEVAL_BYTES as u32).to_le_bytes())?;
                return Ok(Verdict::Return(0));
            }
        }
        self.try_now(id)
    }

    /// How long a socket waits at most, ns. `None`: for ever.
    pub(super) fn limit_of(&self, stat: &FileStat, direction: Direction) -> Option<u64> {
        let limit = self.socket_limits.get(&(stat.st_ino, direction)).filter(|micros| **micros > 0)?;
        (stat.st_mode & libc::S_IFMT == libc::S_IFSOCK).then(|| limit.saturating_mul(MICROSECOND_NS))
    }
}
