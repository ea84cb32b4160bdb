//! Reading and writing: the kernel moves the bytes, once it is known that it will not make the caller wait.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::stat::FileStat;

use super::Answer;
use super::limit::Direction;
use crate::engine::guest::{self, kind};
use crate::engine::model::metadata::FileId;
use crate::engine::task::{Awaited, Call, TaskId};
use crate::engine::turns::any_ready;
use crate::engine::{Engine, Verdict};
use crate::kernel;
use crate::kernel::tracee;

/// Bytes of a write that are moved at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// A pipe takes this much in one piece or not at all (PIPE_BUF, pipe(7)).
const PIPE_BUF: u64 = 4096;

/// How a descriptor can make its caller wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// It cannot: a file, a folder, a device, or one that was opened not to.
    Never,
    /// For the other end inside the cage.
    Inside,
    /// For the world: a standard stream.
    Outside,
}

impl Engine {
    fn waits(&self, fd: &OwnedFd, stat: &FileStat) -> Waits {
        match kind(stat) {
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK | libc::S_IFCHR => Waits::Never,
            _ if self.outside.contains(&(stat.st_dev, stat.st_ino)) => Waits::Outside,
            _ if tracee::is_nonblocking(fd.as_fd()) => Waits::Never,
            _ => Waits::Inside,
        }
    }

    pub(super) fn read(&mut self, id: TaskId, call: &Call) -> Answer {
        // What can make a read wait has no position: pread(2) fails there with ESPIPE.
        let positional = matches!(call.nr, libc::SYS_pread64 | libc::SYS_preadv);
        let cannot_wait = positional || !self.outside_input && self.socket_limits.is_empty() && self.is_alone();
        if !self.random.opened && cannot_wait {
            return Ok(Verdict::Continue);
        }
        let Some(file) = self.file(id, call.args[0] as i32) else { return Ok(Verdict::Continue) };
        if let Some(verdict) = self.read_random(id, call, &file)? {
            return Ok(verdict);
        }
        let (fd, stat) = file;
        // The kernel refuses both at once; how full the pipe is must not be asked, for somebody outside may be emptying it.
        let for_sockets = !matches!(call.nr, libc::SYS_read | libc::SYS_readv | libc::SYS_preadv2);
        if kind(&stat) == libc::S_IFIFO && (for_sockets || tracee::is_write_only(fd.as_fd())) {
            return Ok(Verdict::Continue);
        }
        match self.waits(&fd, &stat) {
            Waits::Never => Ok(Verdict::Continue),
            Waits::Outside if kind(&stat) == libc::S_IFIFO => self.read_outside(id, call, fd),
            Waits::Inside | Waits::Outside if asks_not_to_wait(call) => Ok(Verdict::Continue),
            Waits::Inside | Waits::Outside => {
                let limit = self.limit_of(&stat, Direction::Receive);
                if limit.is_none() && self.is_alone() {
                    return Ok(Verdict::Continue);
                }
                let files = vec![self.awaited(fd, libc::POLLIN)];
                if any_ready(self.tid(id)?, &files) {
                    Ok(Verdict::Continue)
                } else {
                    self.wait_within(id, files, limit)
                }
            }
        }
    }

    /// Standard input comes when its writer pleases: a read waits until it can be served in full, or the writer has closed.
    fn read_outside(&mut self, id: TaskId, call: &Call, fd: OwnedFd) -> Answer {
        let wanted = if call.nr == libc::SYS_read { call.args[2] } else { 1 };
        let capacity = tracee::pipe_capacity(fd.as_fd()).unwrap_or(PIPE_BUF);
        let waiting = kernel::bytes_waiting(fd.as_fd()).unwrap_or(0) as u64;
        let closed = {
            let mut polled = [libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }];
            tracee::poll_now(&mut polled) > 0 && polled[0].revents & libc::POLLHUP != 0
        };
        // A writer that has closed can have added no more since: look again.
        let waiting = if closed { u64::MAX } else { waiting };
        if waiting >= wanted.min(capacity) {
            return Ok(Verdict::Continue);
        }
        let since = self.tasks.len() == 1;
        if since {
            // Nobody inside can run meanwhile: waiting here is waiting there.
            return self.wait_for_input(id, &fd, wanted.min(capacity));
        }
        Ok(self.block_on(id, vec![Awaited::new(fd, libc::POLLHUP)], None))
    }

    /// Waits, outside of logical time, until standard input holds `wanted` bytes or is closed.
    fn wait_for_input(&mut self, id: TaskId, fd: &OwnedFd, wanted: u64) -> Answer {
        const LOOK_US: u64 = 500;
        let mut looks = 0_u32;
        loop {
            let waiting = kernel::bytes_waiting(fd.as_fd()).unwrap_or(0) as u64;
            let mut polled = [libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }];
            let closed = tracee::poll_now(&mut polled) > 0 && polled[0].revents & libc::POLLHUP != 0;
            if waiting >= wanted || closed || self.tasks.get(id).is_none() {
                return Ok(Verdict::Continue);
            }
            self.drain_events()?;
            // A signal from outside ends the wait as it would end the kernel's.
            if crate::engine::signals::has_signal(self.tid(id)?) {
                self.interrupted(id)?;
            }
            if self.tasks.get(id).is_none_or(|task| !matches!(task.state, crate::engine::State::Running)) {
                return Ok(Verdict::Settled);
            }
            looks = looks.saturating_add(1);
            std::thread::sleep(std::time::Duration::from_micros(LOOK_US * u64::from(looks.min(40))));
        }
    }

    pub(super) fn write(&mut self, id: TaskId, call: &Call) -> Answer {
        if matches!(call.nr, libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg) {
            self.name_before_use(id, call.args[0] as i32);
        }
        let Some((fd, stat)) = self.file(id, call.args[0] as i32) else { return Ok(Verdict::Continue) };
        if kind(&stat) == libc::S_IFREG {
            let now = self.clock.now();
            self.metadata.written(FileId { dev: stat.st_dev, ino: stat.st_ino }, now);
            return Ok(Verdict::Continue);
        }
        if self.waits(&fd, &stat) != Waits::Inside || asks_not_to_wait(call) {
            return Ok(Verdict::Continue);
        }
        let limit = self.limit_of(&stat, Direction::Send);
        if limit.is_none() && self.is_alone() {
            return Ok(Verdict::Continue);
        }
        let mut polled = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
        let ready = tracee::poll_now(&mut polled) > 0;
        let written = self.tasks.get(id).map_or(0, |task| task.written);
        if ready && polled[0].revents & (libc::POLLERR | libc::POLLHUP) != 0 {
            return Ok(if written > 0 { Verdict::Return(written as i64) } else { Verdict::Continue });
        }
        if call.nr != libc::SYS_write {
            return if ready { Ok(Verdict::Continue) } else { self.wait_within(id, writable(fd), limit) };
        }
        if ready && written == 0 && fits(&fd, &stat, call.args[2]) {
            return Ok(Verdict::Continue);
        }
        if ready && let Some(verdict) = self.write_in_pieces(id, call, &fd)? {
            return Ok(verdict);
        }
        self.wait_within(id, writable(fd), limit)
    }

    /// Parks a task on descriptors until the limit is over; then the call fails, or has moved what it has.
    fn wait_within(&mut self, id: TaskId, files: Vec<Awaited>, limit: Option<u64>) -> Answer {
        let new = limit.map(|ns| self.clock.after(ns));
        let Some(task) = self.tasks.get_mut(id) else { return Ok(Verdict::Settled) };
        if task.timed_out {
            let moved = if task.written > 0 { task.written as i64 } else { -i64::from(libc::EAGAIN) };
            return Ok(Verdict::Return(moved));
        }
        let deadline = if task.retried { task.deadline } else { new };
        task.retried = true;
        Ok(self.block_on(id, files, deadline))
    }

    /// Transfers between descriptors: the kernel does them once both ends are ready. A stop may not be armed, since they look for one first.
    pub(super) fn transfer(&mut self, id: TaskId, call: &Call) -> Answer {
        let (from, to) = match call.nr {
            libc::SYS_sendfile => (call.args[1], call.args[0]),
            libc::SYS_tee => (call.args[0], call.args[1]),
            _ => (call.args[0], call.args[2]),
        };
        let Some((to, target)) = self.file(id, to as i32) else { return Ok(Verdict::Continue) };
        let Some((from, source)) = self.file(id, from as i32) else { return Ok(Verdict::Continue) };
        // The kernel would move the host's random bytes; where it cannot transfer it says EINVAL too, and programs fall back to read(2).
        if super::random::is_random(&source) {
            return Err(guest::EINVAL.into());
        }
        if kind(&target) == libc::S_IFREG {
            let now = self.clock.now();
            self.metadata.written(FileId { dev: target.st_dev, ino: target.st_ino }, now);
        }
        if self.is_alone() {
            return Ok(Verdict::Continue);
        }
        for (fd, stat, events) in [(from, source, libc::POLLIN), (to, target, libc::POLLOUT)] {
            if self.waits(&fd, &stat) == Waits::Inside {
                let files = vec![self.awaited(fd, events)];
                if !any_ready(self.tid(id)?, &files) {
                    return Ok(self.block_on(id, files, None));
                }
            }
        }
        Ok(Verdict::Continue)
    }

    /// Moves what a pipe or socket takes now. `None`: it is full and more is left.
    fn write_in_pieces(
        &mut self,
        id: TaskId,
        call: &Call,
        fd: &OwnedFd,
    ) -> Result<Option<Verdict>, crate::engine::Trouble> {
        let tid = self.tid(id)?;
        let length = call.args[2];
        let mut written = self.tasks.get(id).map_or(0, |task| task.written);
        let mut buffer = vec![0; CHUNK_BYTES.min(length as usize)];
        while written < length {
            let step = (length - written).min(CHUNK_BYTES as u64) as usize;
            if let Err(fault) = guest::read(tid, call.args[1].wrapping_add(written), &mut buffer[..step]) {
                return if written > 0 { Ok(Some(Verdict::Return(written as i64))) } else { Err(fault.into()) };
            }
            match tracee::write_without_waiting(fd.as_fd(), &buffer[..step]) {
                Ok(moved) => {
                    written += moved as u64;
                    if moved < step {
                        break;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
                // The kernel says it itself, with SIGPIPE where that belongs to it.
                Err(_) if written == 0 => return Ok(Some(Verdict::Continue)),
                Err(_) => return Ok(Some(Verdict::Return(written as i64))),
            }
        }
        if let Some(task) = self.tasks.get_mut(id) {
            task.written = written;
        }
        Ok((written >= length).then_some(Verdict::Return(written as i64)))
    }
}

fn writable(fd: OwnedFd) -> Vec<Awaited> {
    vec![Awaited::new(fd, libc::POLLOUT)]
}

/// True when the kernel will take the whole write in one piece.
fn fits(fd: &OwnedFd, stat: &FileStat, length: u64) -> bool {
    if length <= PIPE_BUF {
        return true;
    }
    let empty = kernel::bytes_waiting(fd.as_fd()).is_ok_and(|waiting| waiting == 0);
    kind(stat) == libc::S_IFIFO && empty && tracee::pipe_capacity(fd.as_fd()).is_ok_and(|capacity| length <= capacity)
}

/// True for MSG_DONTWAIT in the flags of a socket call.
fn asks_not_to_wait(call: &Call) -> bool {
    let flags = match call.nr {
        libc::SYS_recvfrom | libc::SYS_sendto | libc::SYS_recvmmsg | libc::SYS_sendmmsg => call.args[3],
        libc::SYS_recvmsg | libc::SYS_sendmsg => call.args[2],
        _ => 0,
    };
    flags as i32 & libc::MSG_DONTWAIT != 0
}
