//! Which process, exactly: a number alone is reused, so its start time and boot go with it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SpoolError;
use crate::clock;

/// One process of one boot. Two references are equal only if they mean the same process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessRef {
    /// Process id as this process sees it.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    pub start_time: u64,
    /// Boot id.
    pub boot_id: String,
}

impl ProcessRef {
    /// The process that has the number `pid` now.
    ///
    /// # Errors
    /// [`SpoolError::Process`] when there is none, [`SpoolError::Clock`] when the boot id cannot be read.
    pub fn of(pid: u32) -> Result<Self, SpoolError> {
        match start_time(pid) {
            Ok(Some(start_time)) => Ok(Self { pid, start_time, boot_id: clock::boot_id()? }),
            Ok(None) => Err(SpoolError::Process { pid, source: io::ErrorKind::NotFound.into() }),
            Err(source) => Err(SpoolError::Process { pid, source }),
        }
    }

    /// True while this very process exists; one that ended but was not reaped yet no longer counts. `boot_id` is the
    /// running boot.
    ///
    /// # Errors
    /// [`SpoolError::Process`] when /proc cannot be asked: unknown is neither alive nor dead.
    pub fn is_alive(&self, boot_id: &str) -> Result<bool, SpoolError> {
        if self.boot_id != boot_id {
            return Ok(false);
        }
        start_time(self.pid)
            .map(|now| now == Some(self.start_time))
            .map_err(|source| SpoolError::Process { pid: self.pid, source })
    }
}

/// Start time of a living process; `None` when there is none with this number or it is a zombie.
fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let stat = match std::fs::read_to_string(path) {
        Ok(stat) => stat,
        // ESRCH: it went away between open and read.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // The name in field 2 may hold spaces and brackets: fields are counted from the last closing bracket.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    match (fields.first(), fields.get(19).and_then(|field| field.parse().ok())) {
        (Some(&("Z" | "X")), _) => Ok(None),
        (Some(_), Some(start_time)) => Ok(Some(start_time)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_process_is_alive_in_this_boot_only() {
        let me = ProcessRef::of(std::process::id()).unwrap();
        assert!(me.is_alive(&me.boot_id).unwrap());
        assert!(!me.is_alive("another boot").unwrap());
    }

    #[test]
    fn another_process_under_a_reused_number_is_not_taken_for_it() {
        let mut me = ProcessRef::of(std::process::id()).unwrap();
        me.start_time += 1;
        assert!(!me.is_alive(&me.boot_id).unwrap());
    }

    #[test]
    fn a_process_that_ended_is_dead_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let boot_id = clock::boot_id().unwrap();
        let pid = child.id();
        let wait = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid as i32)), wait).unwrap();
        assert_eq!(start_time(pid).unwrap(), None);
        child.wait().unwrap();
        assert!(
            ProcessRef::of(pid).is_err()
                || !ProcessRef { pid, start_time: 0, boot_id: boot_id.clone() }.is_alive(&boot_id).unwrap()
        );
    }
}
