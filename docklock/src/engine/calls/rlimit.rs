//! Limits that the kernel would enforce by what the host does (setrlimit(2)).
//!
//! - RLIMIT_CPU counts real time, and its signal would come when the host pleases.
//! - RLIMIT_SIGPENDING counts the signals of all processes of a user of the host. Beyond it the kernel still delivers a signal of tgkill(2), and
//!   forgets who sent it: it would look like one from outside the cage.
//!
//! Both are taken and have no effect. The other limits go to the kernel.

use nix::unistd::Pid;

use super::Answer;
use crate::engine::guest;
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Verdict};

/// `struct rlimit` of x86-64: the soft and the hard limit.
const RLIMIT_BYTES: usize = 16;

impl Engine {
    /// setrlimit(2) and prlimit(2) of one of the limits above: nothing else arrives here.
    pub(super) fn set_limit(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let [resource, new, old] = match call.nr {
            libc::SYS_setrlimit => [call.args[0], call.args[1], 0],
            _ => [call.args[1], call.args[2], call.args[3]],
        };
        let limit: [u8; RLIMIT_BYTES] = guest::peek(tid, new)?;
        if super::word(&limit, 0) > super::word(&limit, 8) {
            return Err(guest::EINVAL.into());
        }
        if old != 0 {
            let in_force = in_force(tid, resource as u32).ok_or(guest::EINVAL)?;
            guest::write(tid, old, &in_force.map(u64::to_le_bytes).concat())?;
        }
        Ok(Verdict::Return(0))
    }
}

/// The limit that the plan gave to every process of the cage, since no call changes it: soft and hard.
fn in_force(tid: Pid, resource: u32) -> Option<[u64; 2]> {
    let name = match resource {
        libc::RLIMIT_CPU => "Max cpu time",
        libc::RLIMIT_SIGPENDING => "Max pending signals",
        _ => return None,
    };
    parse(&std::fs::read_to_string(format!("/proc/{tid}/limits")).ok()?, name)
}

/// The soft and the hard limit of a row of /proc/PID/limits (proc_pid_limits(5)).
fn parse(table: &str, name: &str) -> Option<[u64; 2]> {
    let row = table.lines().find_map(|line| line.strip_prefix(name))?;
    let mut columns = row.split_ascii_whitespace();
    let mut next = || match columns.next()? {
        "unlimited" => Some(libc::RLIM_INFINITY),
        number => number.parse().ok(),
    };
    Some([next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_prints_them() {
        let own = nix::unistd::gettid();
        let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_SIGPENDING).unwrap();
        assert_eq!(in_force(own, libc::RLIMIT_SIGPENDING), Some([soft, hard]));
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max cpu time              unlimited            7                    seconds   \n";
        assert_eq!(parse(table, "Max cpu time"), Some([libc::RLIM_INFINITY, 7]));
        assert_eq!(parse(table, "Max pending signals"), None);
    }
}
