//! What kind of machine this is: the same one everywhere.

use super::Answer;
use crate::engine::guest;
use crate::engine::model::clock::SECOND_NS;
use crate::engine::model::procfs;
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Verdict};

/// Bytes of one field of `struct utsname` (uname(2)).
const UTS_FIELD_BYTES: usize = 65;
/// Bytes of `struct sysinfo` (sysinfo(2)).
const SYSINFO_BYTES: usize = 112;

impl Engine {
    pub(super) fn uname(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let mut bytes = [0; 6 * UTS_FIELD_BYTES];
        let fields =
            ["Linux", &self.order.hostname, procfs::RELEASE, procfs::VERSION, "x86_64", &self.order.domainname];
        for (field, text) in bytes.chunks_exact_mut(UTS_FIELD_BYTES).zip(fields) {
            let length = text.len().min(UTS_FIELD_BYTES - 1);
            field[..length].copy_from_slice(&text.as_bytes()[..length]);
        }
        guest::write(tid, call.args[0], &bytes)?;
        Ok(Verdict::Return(0))
    }

    pub(super) fn sysinfo(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let memory = procfs::MEMORY_KIB * 1024;
        let mut bytes = [0; SYSINFO_BYTES];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0, self.clock.monotonic() / SECOND_NS);
        put(32, memory);
        put(40, memory / 2);
        bytes[80..82].copy_from_slice(&(self.tasks.len().min(usize::from(u16::MAX)) as u16).to_le_bytes());
        bytes[104..108].copy_from_slice(&1_u32.to_le_bytes());
        guest::write(tid, call.args[0], &bytes)?;
        Ok(Verdict::Return(0))
    }

    pub(super) fn getcpu(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        for address in [call.args[0], call.args[1]] {
            if address != 0 {
                guest::write(tid, address, &[0; 4])?;
            }
        }
        Ok(Verdict::Return(0))
    }

    /// One processor, number 0. The kernel writes whole words of 8 bytes and refuses less than one.
    pub(super) fn sched_getaffinity(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        if call.args[1] < 8 || call.args[1] & 7 != 0 {
            return Err(guest::EINVAL.into());
        }
        guest::write(tid, call.args[2], &1_u64.to_le_bytes())?;
        Ok(Verdict::Return(8))
    }
}
