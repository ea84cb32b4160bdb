//! Files by name and descriptor: opening, metadata, times, mappings.
//!
//! The kernel resolves every name, as the task and in its root; the engine only rewrites what comes back.

use nix::unistd::Pid;

use super::Answer;
use super::proc::{Behind, is_ours};
use crate::engine::code::Made;
use crate::engine::guest::{self, kind};
use crate::engine::model::metadata::{
    FileId, STAT_BYTES, STATFS_BYTES, STATX_BYTES, utime_times, utimensat_times, utimes_times,
};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, Fault, Verdict};

const ENOENT: Fault = Fault(-(libc::ENOENT as i64));

impl Engine {
    pub(super) fn stat(&mut self, id: TaskId, call: &Call) -> Answer {
        if let Some(verdict) = self.fstat(id, call)? {
            return Ok(verdict);
        }
        let buffer = match call.nr {
            libc::SYS_newfstatat => call.args[2],
            libc::SYS_statx => call.args[4],
            _ => call.args[1],
        };
        let tid = self.tid(id)?;
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax == 0 {
            self.rewrite(tid, call.nr, buffer);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// What the kernel has written and the engine could not is the host's answer: the receipt tells.
    pub(super) fn must_be_rewritten(&mut self, rewritten: Result<(), Fault>) {
        if rewritten.is_err() {
            self.escape("an answer of the kernel could not be rewritten in a task's memory".to_owned());
        }
    }

    /// The kernel has just written there; a guest that took the page away meanwhile has nothing to read.
    fn rewrite(&mut self, tid: Pid, nr: i64, buffer: u64) {
        if nr == libc::SYS_statx {
            let rewritten = guest::peek::<STATX_BYTES>(tid, buffer).and_then(|mut raw| {
                self.metadata.rewrite_statx(&mut raw);
                guest::write(tid, buffer, &raw)
            });
            self.must_be_rewritten(rewritten);
        } else {
            let rewritten = guest::peek::<STAT_BYTES>(tid, buffer).and_then(|mut raw| {
                self.metadata.rewrite_stat(&mut raw);
                guest::write(tid, buffer, &raw)
            });
            self.must_be_rewritten(rewritten);
        }
    }

    pub(super) fn statfs(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax == 0 {
            let rewritten = guest::peek::<STATFS_BYTES>(tid, call.args[1]).and_then(|mut raw| {
                self.metadata.rewrite_statfs(&mut raw);
                guest::write(tid, call.args[1], &raw)
            });
            self.must_be_rewritten(rewritten);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    pub(super) fn open(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let (folder, name, flags) = match call.nr {
            libc::SYS_open => (libc::AT_FDCWD, call.args[0], call.args[1] as i32),
            libc::SYS_creat => (libc::AT_FDCWD, call.args[0], libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC),
            _ => (call.args[0] as i32, call.args[1], call.args[2] as i32),
        };
        let path = guest::read_path(tid, name)?;
        let path = absolute(tid, folder, path);
        if is_ours(&path) {
            return match self.behind(id, &path) {
                Behind::Bytes(bytes) if flags & libc::O_ACCMODE == libc::O_RDONLY => {
                    self.hand_in(id, call, &bytes, flags & libc::O_CLOEXEC != 0)
                }
                Behind::Bytes(_) => Err(Fault(-i64::from(libc::EACCES)).into()),
                Behind::Kernel => {
                    if path.ends_with(b"/mem") && flags & libc::O_ACCMODE != libc::O_RDONLY {
                        self.code_is_made(Made::ThroughProc);
                    }
                    Ok(Verdict::Continue)
                }
                Behind::Nothing => Err(ENOENT.into()),
            };
        }
        if path.starts_with(b"/dev/") {
            if let Some(process) = self.tasks.get(id).map(|task| task.process)
                && path.ends_with(b"random")
                && let Some(process) = self.tasks.process_mut(process)
            {
                process.random = true;
            }
            return Ok(Verdict::Continue);
        }
        if let Some(verdict) = self.open_fifo(id, tid, folder, &path, flags)? {
            return Ok(verdict);
        }
        if flags & (libc::O_CREAT | libc::O_TRUNC) != 0 {
            return self.open_for_change(id, flags);
        }
        Ok(Verdict::Continue)
    }

    /// A file that may be made or emptied gets its logical date at once.
    fn open_for_change(&mut self, id: TaskId, flags: i32) -> Answer {
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        let result = registers.rax as i64;
        if crate::engine::hook::is_restart(result) {
            self.try_again_later(id, &registers, None)?;
            return Ok(Verdict::Settled);
        }
        if result >= 0
            && let Some((_, stat)) = self.file(id, result as i32)
            && kind(&stat) == libc::S_IFREG
            && (stat.st_size == 0 || flags & libc::O_TRUNC != 0)
        {
            let now = self.clock.now();
            let file = FileId { dev: stat.st_dev, ino: stat.st_ino };
            self.metadata.written(file, now);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    pub(super) fn set_times(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let now = self.clock.realtime();
        let (folder, name, times, follow) = match call.nr {
            libc::SYS_utime | libc::SYS_utimes => (libc::AT_FDCWD, call.args[0], call.args[1], true),
            libc::SYS_futimesat => (call.args[0] as i32, call.args[1], call.args[2], true),
            _ => {
                (call.args[0] as i32, call.args[1], call.args[2], call.args[3] as i32 & libc::AT_SYMLINK_NOFOLLOW == 0)
            }
        };
        let (atime, mtime) = match call.nr {
            libc::SYS_utime => {
                let raw = if times == 0 { None } else { Some(guest::peek::<16>(tid, times)?) };
                let (atime, mtime) = utime_times(raw.as_ref(), now);
                (Some(atime), Some(mtime))
            }
            nr => {
                let raw = if times == 0 { None } else { Some(guest::peek::<32>(tid, times)?) };
                if nr == libc::SYS_utimensat {
                    utimensat_times(raw.as_ref(), now)?
                } else {
                    let (atime, mtime) = utimes_times(raw.as_ref(), now)?;
                    (Some(atime), Some(mtime))
                }
            }
        };
        // Which file is meant is asked before the call, and counts if the kernel agrees.
        let file = if name == 0 {
            self.file(id, folder).map(|(_, stat)| stat)
        } else {
            let path = guest::read_path(tid, name)?;
            let host = on_host(tid, folder, &path);
            if follow { nix::sys::stat::stat(host.as_str()).ok() } else { nix::sys::stat::lstat(host.as_str()).ok() }
        };
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        if registers.rax == 0
            && let Some(stat) = file
        {
            self.metadata.set_times(FileId { dev: stat.st_dev, ino: stat.st_ino }, atime, mtime);
        }
        self.release(id)?;
        Ok(Verdict::Settled)
    }

    /// truncate(2) and its like change a file's date.
    pub(super) fn resize(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let stat = if call.nr == libc::SYS_truncate {
            let path = guest::read_path(tid, call.args[0])?;
            nix::sys::stat::stat(on_host(tid, libc::AT_FDCWD, &path).as_str()).ok()
        } else {
            self.file(id, call.args[0] as i32).map(|(_, stat)| stat)
        };
        if let Some(stat) = stat {
            let now = self.clock.now();
            self.metadata.written(FileId { dev: stat.st_dev, ino: stat.st_ino }, now);
        }
        Ok(Verdict::Continue)
    }

    /// A mapping that can be executed, or through which a file can be written (mmap(2), mprotect(2): both have the protection third).
    pub(super) fn map(&mut self, id: TaskId, call: &Call) -> Answer {
        const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
        let shared = call.nr == libc::SYS_mmap && call.args[3] & libc::MAP_SHARED as u64 != 0;
        if shared
            && call.args[2] & PROT_WRITE != 0
            && call.args[3] & libc::MAP_ANONYMOUS as u64 == 0
            && let Some((_, stat)) = self.file(id, call.args[4] as i32)
            && kind(&stat) == libc::S_IFREG
        {
            let now = self.clock.now();
            self.metadata.written(FileId { dev: stat.st_dev, ino: stat.st_ino }, now);
        }
        if call.args[2] & libc::PROT_EXEC as u64 != 0 { self.map_code(id, call) } else { Ok(Verdict::Continue) }
    }

    /// Names below /proc and /sys exist only where they are answered.
    pub(super) fn look_up(&mut self, id: TaskId, call: &Call) -> Answer {
        let tid = self.tid(id)?;
        let (folder, name) = match call.nr {
            libc::SYS_readlink | libc::SYS_access => (libc::AT_FDCWD, call.args[0]),
            _ => (call.args[0] as i32, call.args[1]),
        };
        let path = absolute(tid, folder, guest::read_path(tid, name)?);
        if !is_ours(&path) {
            return Ok(Verdict::Continue);
        }
        match self.behind(id, &path) {
            Behind::Kernel => Ok(Verdict::Continue),
            Behind::Bytes(_) if matches!(call.nr, libc::SYS_readlink | libc::SYS_readlinkat) => {
                Err(guest::EINVAL.into())
            }
            Behind::Bytes(_) => {
                let mode = call.args[if call.nr == libc::SYS_access { 1 } else { 2 }] as i32;
                let refused = mode & (libc::W_OK | libc::X_OK) != 0;
                Ok(Verdict::Return(if refused { -i64::from(libc::EACCES) } else { 0 }))
            }
            Behind::Nothing => Err(ENOENT.into()),
        }
    }
}

/// A relative name below a descriptor or working directory that lies in /proc or /sys becomes absolute; any other stays.
fn absolute(tid: Pid, folder: i32, path: Vec<u8>) -> Vec<u8> {
    if path.first() == Some(&b'/') || path.is_empty() {
        return path;
    }
    let link = if folder == libc::AT_FDCWD { format!("/proc/{tid}/cwd") } else { format!("/proc/{tid}/fd/{folder}") };
    match nix::fcntl::readlink(link.as_str()) {
        Ok(at) => {
            use std::os::unix::ffi::OsStrExt;
            let at = at.as_bytes();
            if is_ours(at) { [at, b"/", &path].concat() } else { path }
        }
        Err(_) => path,
    }
}

/// A guest's path as this process reaches it. Symbolic links that are absolute lead astray: what is found so only names a file, for its
/// dates or as a FIFO, and is never opened for a guest.
pub(super) fn on_host(tid: Pid, folder: i32, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    match path.strip_prefix('/') {
        Some(rest) => format!("/proc/{tid}/root/{rest}"),
        None if folder == libc::AT_FDCWD => format!("/proc/{tid}/cwd/{path}"),
        None => format!("/proc/{tid}/fd/{folder}/{path}"),
    }
}
