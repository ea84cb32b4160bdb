//! poll(2), select(2) and epoll_wait(2): the kernel answers what is settled; timeouts are logical.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::unistd::Pid;

use super::{Answer, WAIT_FILES_MAX};
use crate::engine::guest;
use crate::engine::model::clock::{self, TIMESPEC_BYTES};
use crate::engine::task::{Awaited, Call, TaskId};
use crate::engine::turns::any_ready;
use crate::engine::{Engine, Trouble, Verdict};

/// Bytes of `struct pollfd`.
const POLLFD_BYTES: usize = 8;
/// Bits of an `fd_set` word.
const WORD_BITS: usize = 64;
/// What makes a descriptor ready for each set of select(2): POLLIN_SET, POLLOUT_SET and POLLEX_SET of fs/select.c. poll(2) says POLLHUP and
/// POLLERR unasked, and a descriptor for writing whose other end has hung up is not ready here.
const SELECT_ANSWERS: [i16; 3] = [
    libc::POLLRDNORM | libc::POLLRDBAND | libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL,
    libc::POLLWRBAND | libc::POLLWRNORM | libc::POLLOUT | libc::POLLERR | libc::POLLNVAL,
    libc::POLLPRI | libc::POLLNVAL,
];
/// So many descriptors may be polled whatever the process may have.
const POLLED_ALWAYS: usize = 1024;

/// What a call waits for, and where it wants to be told that nothing came.
struct Watched {
    files: Vec<Awaited>,
    /// Addresses and bytes to write when the time is up.
    empty: Vec<(u64, Vec<u8>)>,
    /// An epoll set that holds signals: only its owner can ask the kernel, and an answer may be gone when it does.
    tried: bool,
}

impl Engine {
    pub(super) fn poll(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let timeout = timeout_of(tid, call)?;
        if timeout == Some(0) {
            return Ok(Verdict::Continue);
        }
        // What is wrong with the descriptors the kernel says best.
        let Some(watched) = self.watched(id, tid, call)? else { return Ok(Verdict::Continue) };
        if any_ready(tid, &watched.files) {
            if !watched.tried {
                return Ok(Verdict::Continue);
            }
            let deadline = timeout.map(|ns| self.clock.after(ns));
            return self.try_until(id, call, deadline, 0);
        }
        let Some(task) = self.tasks.get_mut(id) else { return Ok(Verdict::Settled) };
        if task.timed_out {
            for (address, bytes) in watched.empty {
                guest::write(tid, address, &bytes)?;
            }
            return Ok(Verdict::Return(0));
        }
        let deadline = if task.retried { task.deadline } else { timeout.map(|ns| self.clock.after(ns)) };
        task.retried = true;
        Ok(self.block_on(id, watched.files, deadline))
    }

    /// A descriptor to wait for. One of signalfd(2) is not asked of the kernel, which would answer for the engine's own signals.
    pub(super) fn awaited(&self, fd: OwnedFd, events: i16) -> Awaited {
        let signals = if self.signal_descriptors { signals_behind(&fd) } else { None };
        Awaited { signals, ..Awaited::new(fd, events) }
    }

    /// The members of an epoll set, if one of them is a descriptor of signalfd(2): polling the set itself would take that one's news away,
    /// since the kernel asks each member in the name of whoever polls.
    fn members_with_signals(&mut self, id: TaskId, set: &OwnedFd) -> Option<Vec<Awaited>> {
        if !self.signal_descriptors {
            return None;
        }
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", set.as_raw_fd())).ok()?;
        let mut members = Vec::new();
        for (number, events) in info.lines().filter_map(member).take(WAIT_FILES_MAX) {
            if let Some(fd) = self.descriptor(id, number) {
                members.push(self.awaited(fd, events));
            }
        }
        members.iter().any(|member| member.signals.is_some()).then_some(members)
    }

    /// The descriptors that a call in the kernel waits for: all of a poll, else what its first argument names.
    pub(in crate::engine) fn waited_for(&mut self, id: TaskId, call: &Call) -> Vec<OwnedFd> {
        let polls = matches!(call.nr, libc::SYS_poll | libc::SYS_ppoll | libc::SYS_select | libc::SYS_pselect6);
        if polls && let Ok(tid) = self.tid(id) {
            let watched = self.watched(id, tid, call).ok().flatten();
            return watched.map_or_else(Vec::new, |watched| watched.files.into_iter().map(|file| file.fd).collect());
        }
        self.descriptor(id, call.args[0] as i32).into_iter().collect()
    }

    /// The call's descriptors. `None`: one of them does not exist, or there are too many.
    fn watched(&mut self, id: TaskId, tid: Pid, call: &Call) -> Result<Option<Watched>, Trouble> {
        match call.nr {
            libc::SYS_poll | libc::SYS_ppoll => self.watched_by_poll(id, tid, call),
            libc::SYS_select | libc::SYS_pselect6 => self.watched_by_select(id, tid, call),
            _ => {
                let Some(fd) = self.descriptor(id, call.args[0] as i32) else { return Ok(None) };
                if let Some(files) = self.members_with_signals(id, &fd) {
                    return Ok(Some(Watched { files, empty: Vec::new(), tried: true }));
                }
                let files = vec![Awaited::new(fd, libc::POLLIN)];
                Ok(Some(Watched { files, empty: Vec::new(), tried: false }))
            }
        }
    }

    fn watched_by_poll(&mut self, id: TaskId, tid: Pid, call: &Call) -> Result<Option<Watched>, Trouble> {
        // An unsigned int: the kernel does not see the upper half of the register.
        let count = call.args[1] as u32 as usize;
        if count > WAIT_FILES_MAX || count > POLLED_ALWAYS && count > open_files_max(tid) {
            return Ok(None);
        }
        let mut entries = vec![0; count * POLLFD_BYTES];
        guest::read(tid, call.args[0], &mut entries)?;
        let mut files: Vec<Awaited> = Vec::new();
        // A caller may name one descriptor a thousand times; one duplicate of it is enough.
        let mut places: HashMap<i32, usize> = HashMap::new();
        for entry in entries.chunks_exact_mut(POLLFD_BYTES) {
            let number = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let events = i16::from_le_bytes([entry[4], entry[5]]);
            if let Some(file) = places.get(&number).and_then(|place| files.get_mut(*place)) {
                file.events |= events;
            } else if number >= 0 {
                let Some(fd) = self.descriptor(id, number) else { return Ok(None) };
                places.insert(number, files.len());
                files.push(self.awaited(fd, events));
            }
            entry[6..].fill(0);
        }
        Ok(Some(Watched { files, empty: vec![(call.args[0], entries)], tried: false }))
    }

    fn watched_by_select(&mut self, id: TaskId, tid: Pid, call: &Call) -> Result<Option<Watched>, Trouble> {
        let Ok(count) = usize::try_from(call.args[0] as i32) else { return Ok(None) };
        // The kernel does not look beyond the descriptors that the process has room for.
        let count = count.min(room_for_files(tid));
        let bytes = count.div_ceil(WORD_BITS) * 8;
        let mut sets = Vec::new();
        let mut empty = Vec::new();
        for address in &call.args[1..4] {
            let mut set = vec![0; bytes];
            if *address != 0 {
                guest::read(tid, *address, &mut set)?;
                empty.push((*address, vec![0; bytes]));
            }
            sets.push(set);
        }
        let mut files = Vec::new();
        for number in 0..count {
            let named = |set: &Vec<u8>| set[number / 8] & (1 << (number % 8)) != 0;
            let answers =
                sets.iter().zip(SELECT_ANSWERS).filter(|(set, _)| named(set)).fold(0, |sum, (_, answer)| sum | answer);
            if answers != 0 {
                let Some(fd) = self.descriptor(id, number as i32) else { return Ok(None) };
                files.push(Awaited { answers, ..self.awaited(fd, answers) });
            }
        }
        // select(2) of Linux tells what is left of the time: nothing.
        if call.nr == libc::SYS_select && call.args[4] != 0 {
            empty.push((call.args[4], vec![0; TIMESPEC_BYTES]));
        }
        Ok(Some(Watched { files, empty, tried: false }))
    }
}

/// How many descriptors a process has room for at present (FDSize, proc_pid_status(5)).
fn room_for_files(tid: Pid) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).and_then(|size| size.trim().parse().ok());
    size.unwrap_or(0).min(WAIT_FILES_MAX)
}

/// How many descriptors a process may have: more the kernel refuses to poll (RLIMIT_NOFILE, getrlimit(2)).
fn open_files_max(tid: Pid) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{tid}/limits")).unwrap_or_default();
    soft_limit_of_open_files(&limits).unwrap_or(0)
}

/// From a text like /proc/N/limits: `Max open files            1024                 4096                 files`.
fn soft_limit_of_open_files(limits: &str) -> Option<usize> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(usize::MAX) } else { soft.parse().ok() }
}

/// The signals that a descriptor of signalfd(2) is for; `None` for any other file (proc_pid_fdinfo(5): `sigmask`).
fn signals_behind(fd: &OwnedFd) -> Option<u64> {
    if nix::sys::stat::fstat(fd.as_fd()).ok()?.st_mode & libc::S_IFMT != 0 {
        return None;
    }
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let mask = info.lines().find_map(|line| line.strip_prefix("sigmask:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Number and events of a member of an epoll set, from a line of proc_pid_fdinfo(5): `tfd: 5 events: 19 data: …`.
fn member(line: &str) -> Option<(i32, i16)> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let events = u32::from_str_radix(words.nth(1)?, 16).ok()?;
    Some((number, (events & 0xffff) as i16))
}

/// Nanoseconds a call is ready to wait; `None`: for ever.
fn timeout_of(tid: Pid, call: &Call) -> Result<Option<u64>, Trouble> {
    let pointer = match call.nr {
        libc::SYS_poll => return Ok(clock::poll_timeout_ns(call.args[2] as i32)),
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => return Ok(clock::poll_timeout_ns(call.args[3] as i32)),
        libc::SYS_ppoll => call.args[2],
        libc::SYS_epoll_pwait2 => call.args[3],
        _ => call.args[4],
    };
    if pointer == 0 {
        return Ok(None);
    }
    let bytes: [u8; TIMESPEC_BYTES] = guest::peek(tid, pointer)?;
    let ns = if call.nr == libc::SYS_select { clock::select_timeout_ns(&bytes)? } else { clock::timespec_ns(&bytes)? };
    Ok(Some(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_is_read_from_its_line() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 1048576              files     \n";
        assert_eq!(soft_limit_of_open_files(limits), Some(1024));
        assert_eq!(soft_limit_of_open_files("Max open files unlimited unlimited files"), Some(usize::MAX));
        assert_eq!(soft_limit_of_open_files(""), None);
    }

    #[test]
    fn a_member_of_an_epoll_set_is_read_from_its_line() {
        let line = "tfd:        7 events: 80000019 data:                7  pos:0 ino:2b sdev:e";
        assert_eq!(member(line), Some((7, 0x19)));
        assert_eq!(member("pos:\t0"), None);
    }
}
