//! A guest's memory and descriptors, as the engine reaches them: as root, from outside, by the task's number.
//!
//! Only the task that has the turn could change what is read here, and it waits. That makes an answer repeatable; it is no security
//! boundary, so nothing that was read is trusted afterwards.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::sys::stat::{FileStat, fstat};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::Engine;
use super::task::TaskId;
use crate::kernel::tracee;

/// Longest path that the kernel takes, with its NUL (PATH_MAX, limits.h).
pub(super) const PATH_BYTES_MAX: usize = 4096;
const PAGE_BYTES: usize = 4096;

/// Most descriptors of the engine where the host allows as many: duplicates of those that tasks wait for, and one for each task.
pub(super) const DESCRIPTORS_MAX: u64 = 1 << 18;

/// A guest's mistake: the negative errno its call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub i64);

/// A guest's address that cannot be read or written.
pub(super) const EFAULT: Fault = Fault(-(libc::EFAULT as i64));
/// An argument out of range.
pub(super) const EINVAL: Fault = Fault(-(libc::EINVAL as i64));

/// Fills `into` from `address`.
pub(super) fn read(tid: Pid, address: u64, into: &mut [u8]) -> Result<(), Fault> {
    if into.is_empty() {
        return Ok(());
    }
    let remote = RemoteIoVec { base: address as usize, len: into.len() };
    let length = into.len();
    match process_vm_readv(tid, &mut [IoSliceMut::new(into)], &[remote]) {
        Ok(read) if read == length => Ok(()),
        _ => Err(EFAULT),
    }
}

/// As many bytes as there are, an array.
pub(super) fn peek<const N: usize>(tid: Pid, address: u64) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    read(tid, address, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn peek_u32(tid: Pid, address: u64) -> Result<u32, Fault> {
    Ok(u32::from_le_bytes(peek(tid, address)?))
}

pub(super) fn peek_u64(tid: Pid, address: u64) -> Result<u64, Fault> {
    Ok(u64::from_le_bytes(peek(tid, address)?))
}

/// Writes `bytes` to `address`; respects the guest's own protection of its pages.
pub(super) fn write(tid: Pid, address: u64, bytes: &[u8]) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Ok(());
    }
    let remote = RemoteIoVec { base: address as usize, len: bytes.len() };
    match process_vm_writev(tid, &[IoSlice::new(bytes)], &[remote]) {
        Ok(written) if written == bytes.len() => Ok(()),
        _ => Err(EFAULT),
    }
}

/// A guest's memory as a file: reading and writing go over protection, for pages that are mapped read-only (proc_pid_mem(5)).
pub(super) fn memory(tid: Pid) -> std::io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{tid}/mem"))
}

/// The NUL-terminated string at `address`, without its NUL; at most [`PATH_BYTES_MAX`] bytes with it.
pub(super) fn read_path(tid: Pid, address: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(256);
    let mut at = address;
    while bytes.len() < PATH_BYTES_MAX {
        // A string may end just before a page that cannot be read; short steps first, most paths are short.
        let to_page_end = PAGE_BYTES - (at as usize & (PAGE_BYTES - 1));
        let step = to_page_end.min(if bytes.is_empty() { 256 } else { PAGE_BYTES }).min(PATH_BYTES_MAX - bytes.len());
        let start = bytes.len();
        bytes.resize(start + step, 0);
        read(tid, at, &mut bytes[start..])?;
        if let Some(end) = bytes[start..].iter().position(|byte| *byte == 0) {
            bytes.truncate(start + end);
            return Ok(bytes);
        }
        at = at.wrapping_add(step as u64);
    }
    Err(Fault(-i64::from(libc::ENAMETOOLONG)))
}

impl Engine {
    /// A duplicate of a task's descriptor; `None` when it has none of that number.
    pub(super) fn descriptor(&mut self, id: TaskId, number: i32) -> Option<OwnedFd> {
        let leader = self.tasks.process(self.tasks.get(id)?.process)?.pid;
        let task = self.tasks.get_mut(id)?;
        let opened = match task.pidfd.take() {
            Some(pidfd) => Ok(pidfd),
            None => tracee::pidfd_of_thread(task.tid, leader),
        };
        let taken = opened.and_then(|pidfd| {
            let taken = tracee::pidfd_getfd(pidfd.as_fd(), number as RawFd);
            task.pidfd = Some(pidfd);
            taken
        });
        match taken {
            Ok(fd) => Some(fd),
            Err(error) => {
                // Without its duplicate the call would wait where nobody sees it.
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    self.end_run("tasks wait for more descriptors at once than the engine may have".to_owned());
                }
                None
            }
        }
    }

    /// The same with what fstat(2) says of it.
    pub(super) fn file(&mut self, id: TaskId, number: i32) -> Option<(OwnedFd, FileStat)> {
        let fd = self.descriptor(id, number)?;
        let stat = fstat(&fd).ok()?;
        Some((fd, stat))
    }
}

/// What kind of file a mode names.
pub(super) fn kind(stat: &FileStat) -> u32 {
    stat.st_mode & libc::S_IFMT
}
