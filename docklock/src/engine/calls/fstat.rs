//! stat(2) and statx(2) of a descriptor: asked of a duplicate and answered, without a stop of the task.
//!
//! What the kernel says of an open file depends on nobody's rights or root; only its owner is told by the caller's user namespace. So this
//! is for cages in the engine's own, and for calls that succeed: an error is the kernel's to tell. By name it is a hook (`file`).

use std::os::fd::AsFd;

use nix::unistd::Pid;

use crate::engine::guest;
use crate::engine::model::metadata::FileId;
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Fault, Trouble, Verdict};
use crate::kernel::facts;

/// A stat call that names a descriptor.
struct OfDescriptor {
    number: i32,
    buffer: u64,
    /// What statx(2) is asked for, and how; `None` for the older calls.
    statx: Option<(u32, u32)>,
}

/// Flags that change nothing for an open file beside AT_EMPTY_PATH, without which the name would count.
const HARMLESS_FLAGS: i32 = libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;

impl Engine {
    /// The answer to a stat call that names a descriptor; `None` leaves it to the kernel.
    pub(super) fn fstat(&mut self, id: TaskId, call: &Call) -> Result<Option<Verdict>, Trouble> {
        if !self.shares_users {
            return Ok(None);
        }
        let tid = self.tid(id)?;
        let Some(of) = of_descriptor(tid, call) else { return Ok(None) };
        let Some(file) = self.descriptor(id, of.number) else { return Ok(None) };
        match of.statx {
            None => {
                let Ok(mut raw) = facts::stat(file.as_fd()) else { return Ok(None) };
                match self.place_behind(tid, of.number, FileId::of_stat(&raw)) {
                    Ok(Some(place)) => self.metadata.rewrite_stat_of_proc(&mut raw, place.ino()),
                    Ok(None) => self.metadata.rewrite_stat(&mut raw),
                    Err(_) => return Ok(None),
                }
                guest::write(tid, of.buffer, &raw)?;
            }
            Some((flags, mask)) => {
                let Ok(mut raw) = facts::statx(file.as_fd(), flags, mask) else { return Ok(None) };
                match self.place_behind(tid, of.number, FileId::of_statx(&raw)) {
                    Ok(Some(place)) => self.metadata.rewrite_statx_of_proc(&mut raw, place.ino()),
                    Ok(None) => self.metadata.rewrite_statx(&mut raw),
                    Err(_) => return Ok(None),
                }
                guest::write(tid, of.buffer, &raw)?;
            }
        }
        Ok(Some(Verdict::Return(0)))
    }
}

fn of_descriptor(tid: Pid, call: &Call) -> Option<OfDescriptor> {
    let (name, flags, buffer, statx) = match call.nr {
        libc::SYS_fstat => {
            return Some(OfDescriptor { number: call.args[0] as i32, buffer: call.args[1], statx: None });
        }
        libc::SYS_newfstatat => (call.args[1], call.args[3] as i32, call.args[2], None),
        libc::SYS_statx => {
            let flags = call.args[2] as i32;
            (call.args[1], flags & !libc::AT_STATX_SYNC_TYPE, call.args[4], Some((flags as u32, call.args[3] as u32)))
        }
        _ => return None,
    };
    let number = call.args[0] as i32;
    if number < 0 || flags & libc::AT_EMPTY_PATH == 0 || flags & !HARMLESS_FLAGS != 0 {
        return None;
    }
    // A null name counts as empty since Linux 6.11; whether it does here the kernel says.
    let name: Result<[u8; 1], Fault> = guest::peek(tid, name);
    (name == Ok([0])).then_some(OfDescriptor { number, buffer, statx })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(nr: i64, args: [u64; 6]) -> Call {
        Call { id: 0, nr, arch: 0, args }
    }

    fn number(call: &Call) -> Option<i32> {
        of_descriptor(nix::unistd::getpid(), call).map(|of| of.number)
    }

    #[test]
    fn only_an_empty_name_below_a_descriptor_means_the_descriptor() {
        let (empty, name) = (c"".as_ptr() as u64, c"x".as_ptr() as u64);
        let flags = libc::AT_EMPTY_PATH as u64;
        assert_eq!(number(&call(libc::SYS_fstat, [7, 1, 0, 0, 0, 0])), Some(7));
        assert_eq!(number(&call(libc::SYS_newfstatat, [7, empty, 1, flags, 0, 0])), Some(7));
        assert_eq!(number(&call(libc::SYS_newfstatat, [7, name, 1, flags, 0, 0])), None);
        assert_eq!(number(&call(libc::SYS_newfstatat, [7, empty, 1, 0, 0, 0])), None);
        assert_eq!(number(&call(libc::SYS_newfstatat, [7, 0, 1, flags, 0, 0])), None);
        assert_eq!(number(&call(libc::SYS_newfstatat, [libc::AT_FDCWD as u64, empty, 1, flags, 0, 0])), None);
        assert_eq!(number(&call(libc::SYS_statx, [7, empty, flags | 0x4000, 0xfff, 1, 0])), Some(7));
        assert_eq!(number(&call(libc::SYS_statx, [7, empty, flags | 0x10000, 0xfff, 1, 0])), None);
        assert_eq!(number(&call(libc::SYS_stat, [name, 1, 0, 0, 0, 0])), None);
    }
}
