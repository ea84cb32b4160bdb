//! What a tracer and supervisor does to its tasks: ptrace(2), waitpid(2), pidfd_getfd(2), descriptors handed over by seccomp.
//!
//! `nix` has ptrace and waitpid too, but its signals end at 31: a status that carries a real-time signal is lost there.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::unistd::Pid;

use super::check;

/// What waitpid(2) told of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// It is stopped: by `signal`, or by the ptrace event `event` if that is not 0.
    Stopped {
        /// Signal number.
        signal: i32,
        /// PTRACE_EVENT_*, or 0.
        event: i32,
    },
}

/// Which tasks [`wait`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Any child or traced task.
    Any,
    /// This one.
    Task(Pid),
}

/// Waits for news of a child or traced task (waitpid(2) with __WALL). Without `block`, `None` says that there is none.
///
/// # Errors
/// `ECHILD` when there is nobody to wait for.
pub fn wait(who: Who, block: bool) -> io::Result<Option<(Pid, Outcome)>> {
    let pid = match who {
        Who::Any => -1,
        Who::Task(pid) => pid.as_raw(),
    };
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    let mut status: libc::c_int = 0;
    loop {
        // SAFETY: `status` is a live int, which waitpid writes.
        match unsafe { check(libc::waitpid(pid, &raw mut status, flags).into()) } {
            Ok(0) => return Ok(None),
            Ok(found) => return Ok(Some((Pid::from_raw(found as i32), outcome(status)))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The task that [`wait`] would tell of next, and true if it has ended. It is told again: nothing is taken.
///
/// # Errors
/// `ECHILD` when nobody is traced.
pub fn peek(who: Who, block: bool) -> io::Result<Option<(Pid, bool)>> {
    let (kind, number) = match who {
        Who::Any => (libc::P_ALL, 0),
        Who::Task(pid) => (libc::P_PID, pid.as_raw() as libc::id_t),
    };
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: an all-zero siginfo_t is a value of its type; waitid writes one, or leaves it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is live for the call.
        match unsafe { check(libc::waitid(kind, number, &raw mut info, flags).into()) } {
            Ok(_) => {
                // SAFETY: waitid fills in the fields of SIGCHLD, and zeroes when there is nothing.
                let pid = unsafe { info.si_pid() };
                let ended = matches!(info.si_code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED);
                return Ok((pid != 0).then_some((Pid::from_raw(pid), ended)));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn outcome(status: libc::c_int) -> Outcome {
    if libc::WIFEXITED(status) {
        Outcome::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Outcome::Killed(libc::WTERMSIG(status))
    } else {
        Outcome::Stopped { signal: libc::WSTOPSIG(status), event: status >> 16 }
    }
}

fn ptrace(request: libc::c_uint, pid: Pid, address: usize, data: usize) -> io::Result<libc::c_long> {
    // SAFETY: every caller in this file passes either integers or a pointer to a live value of the size the request wants.
    unsafe { check(libc::ptrace(request, pid.as_raw(), address as *mut libc::c_void, data as *mut libc::c_void)) }
}

/// Options of the tracer: events for exec, clone, fork and vfork, and the death of all tasks with the tracer's.
const SEIZE_OPTIONS: libc::c_int = libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEVFORKDONE
    | libc::PTRACE_O_EXITKILL;

/// Becomes the tracer of a running task without stopping it (PTRACE_SEIZE); its children are traced from birth.
///
/// # Errors
/// `EPERM` when it is traced already or may not be.
pub fn seize(pid: Pid) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE, pid, 0, SEIZE_OPTIONS as usize).map(drop)
}

/// Stops a task at the next chance, at the latest before it comes back to user code (PTRACE_INTERRUPT).
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn interrupt(pid: Pid) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0).map(drop)
}

/// Lets a stopped task go on, with `signal` if that is not 0.
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn resume(pid: Pid, signal: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_CONT, pid, 0, signal as usize).map(drop)
}

/// Lets a stopped task go on to the next entry into a system call, or exit from one (PTRACE_SYSCALL).
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn resume_to_call(pid: Pid) -> io::Result<()> {
    ptrace(libc::PTRACE_SYSCALL, pid, 0, 0).map(drop)
}

/// Leaves a task in its group stop and hears of what ends it (PTRACE_LISTEN).
///
/// # Errors
/// `EIO` when it is in no group stop.
pub fn listen(pid: Pid) -> io::Result<()> {
    ptrace(libc::PTRACE_LISTEN, pid, 0, 0).map(drop)
}

/// The number that goes with the event a task is stopped by (PTRACE_GETEVENTMSG).
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn event_message(pid: Pid) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message) as usize)?;
    Ok(message)
}

/// Registers of a stopped task.
pub type Registers = libc::user_regs_struct;

/// Reads the registers of a stopped task.
///
/// # Errors
/// `ESRCH` when it is gone or not stopped.
pub fn registers(pid: Pid) -> io::Result<Registers> {
    // SAFETY: plain integers, for which all zeroes is a value.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, pid, 0, (&raw mut registers) as usize)?;
    Ok(registers)
}

/// Writes them.
///
/// # Errors
/// As [`registers`].
pub fn set_registers(pid: Pid, registers: &Registers) -> io::Result<()> {
    ptrace(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(registers) as usize).map(drop)
}

/// The signals that a stopped task blocks, signal 1 in the lowest bit (PTRACE_GETSIGMASK).
///
/// # Errors
/// As [`registers`].
pub fn signal_mask(pid: Pid) -> io::Result<u64> {
    let mut mask: u64 = 0;
    ptrace(libc::PTRACE_GETSIGMASK, pid, size_of::<u64>(), (&raw mut mask) as usize)?;
    Ok(mask)
}

/// Sets them.
///
/// # Errors
/// As [`registers`].
pub fn set_signal_mask(pid: Pid, mask: u64) -> io::Result<()> {
    ptrace(libc::PTRACE_SETSIGMASK, pid, size_of::<u64>(), (&raw const mask) as usize).map(drop)
}

/// The sender of the signal a task is stopped by: its pid as the tracer sees it, and `si_code`.
///
/// # Errors
/// `ESRCH` when it is gone or not stopped, `EINVAL` in a group stop.
pub fn signal_sender(pid: Pid) -> io::Result<(i32, i32)> {
    // SAFETY: plain integers, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETSIGINFO, pid, 0, (&raw mut info) as usize)?;
    // SAFETY: `si_pid` lies inside the structure for every code; for codes without a sender it holds another integer.
    Ok((unsafe { info.si_pid() }, info.si_code))
}

/// PIDFD_THREAD of linux/pidfd.h, Linux 6.9: the descriptor stands for one thread.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// A descriptor for the thread `tid`; on kernels before 6.9, for the process it belongs to, `leader`.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn pidfd_of_thread(tid: Pid, leader: Pid) -> io::Result<OwnedFd> {
    // SAFETY: two integers go in; a fresh descriptor that nobody else owns comes out.
    let opened = unsafe { check(libc::syscall(libc::SYS_pidfd_open, tid.as_raw(), PIDFD_THREAD)) };
    match opened {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => super::pidfd_open(leader),
        Err(error) => Err(error),
    }
}

/// A duplicate of descriptor `number` of the task behind `pidfd` (pidfd_getfd(2)). Close-on-exec by the kernel's own rule.
///
/// # Errors
/// `EBADF` when the task has no such descriptor, `EPERM` without the right to trace it.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: three integers go in; a fresh descriptor that nobody else owns comes out.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0))? as RawFd))
    }
}

/// `struct seccomp_notif_addfd`, seccomp_unotify(2).
#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const SECCOMP_IOCTL_NOTIF_ADDFD: libc::c_ulong = 0x4018_2103;
const SECCOMP_ADDFD_FLAG_SEND: u32 = 2;

/// Gives the caller of notification `id` a duplicate of `fd` at its lowest free number and answers the call with that number, in one step.
/// No signal may come meanwhile: one that breaks this off can leave the call answered with 0 and no descriptor given.
///
/// # Errors
/// `ENOENT` when the caller is gone, `EMFILE` when it may have no more descriptors: then the call is still unanswered.
pub fn notify_answer_with_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    fd: BorrowedFd<'_>,
    cloexec: bool,
) -> io::Result<RawFd> {
    let request = AddFd {
        id,
        flags: SECCOMP_ADDFD_FLAG_SEND,
        srcfd: fd.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: `request` is a live seccomp_notif_addfd, the size this request encodes.
    let number =
        unsafe { check(libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request).into()) }?;
    Ok(number as RawFd)
}

/// Answers an intercepted call with a raw kernel return value: small negative numbers are errnos, those that the kernel keeps for
/// itself (ERESTART*) too.
///
/// # Errors
/// `ENOENT` when the caller is gone.
pub fn notify_return(listener: BorrowedFd<'_>, id: u64, value: i64) -> io::Result<()> {
    let (val, error) = if (-4095..0).contains(&value) { (0, value as i32) } else { (value, 0) };
    super::notify_send(listener, libc::seccomp_notif_resp { id, val, error, flags: 0 })
}

/// Sends `signal` to a process or, with `thread`, to one of its threads, as a POSIX timer does (SI_TIMER, rt_sigqueueinfo(2)).
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn send_timer_signal(process: Pid, thread: Option<Pid>, signal: i32, timer: i32, value: u64) -> io::Result<()> {
    // siginfo_t of x86-64 (bits/types/siginfo_t.h): signo, errno, code, padding, then _timer: tid, overrun, sigval.
    let mut info = [0_u8; 128];
    info[0..4].copy_from_slice(&signal.to_ne_bytes());
    info[8..12].copy_from_slice(&libc::SI_TIMER.to_ne_bytes());
    info[16..20].copy_from_slice(&timer.to_ne_bytes());
    info[24..32].copy_from_slice(&value.to_ne_bytes());
    // SAFETY: `info` is 128 bytes, the size of siginfo_t, which the kernel reads.
    unsafe {
        check(match thread {
            Some(thread) => {
                libc::syscall(libc::SYS_rt_tgsigqueueinfo, process.as_raw(), thread.as_raw(), signal, info.as_ptr())
            }
            None => libc::syscall(libc::SYS_rt_sigqueueinfo, process.as_raw(), signal, info.as_ptr()),
        })
    }?;
    Ok(())
}

/// Gives a process the priorities that one has by default, whatever its parent's are: nice value 0, no I/O class (setpriority(2),
/// ioprio_set(2)).
///
/// # Errors
/// `EACCES` without the right to raise a priority that is lower.
pub fn set_plain_priority(pid: Pid) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let who = pid.as_raw() as libc::id_t;
    // SAFETY: integers only.
    unsafe {
        check(libc::setpriority(libc::PRIO_PROCESS, who, 0).into())?;
        check(libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), 0))?;
    }
    Ok(())
}

/// Makes rdtsc and rdtscp of the calling thread raise SIGSEGV (PR_SET_TSC, prctl(2)). Inherited by fork and exec.
/// From here on the thread must not read the clock through the vDSO.
///
/// # Errors
/// `EINVAL` on a processor without time stamp disable.
pub fn trap_tsc() -> io::Result<()> {
    // SAFETY: two integers.
    unsafe { check(libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV).into()) }?;
    Ok(())
}

/// A call with a number that no kernel has: it reaches the listener of the calling thread's filter, whatever the policy, and returns what
/// that answers.
///
/// # Errors
/// `ENOSYS` when nobody listens.
pub fn barrier(number: i64) -> io::Result<i64> {
    // SAFETY: no kernel knows the number, so no memory is touched.
    unsafe { check(libc::syscall(number)) }
}

/// CPU time a thread has used, in nanoseconds, counted in ticks of 10 ms (utime and stime of proc_pid_stat(5)).
///
/// # Errors
/// `ENOENT` when it is gone.
pub fn thread_cpu_ns(tid: Pid) -> io::Result<u64> {
    const TICK_NS: u64 = 10_000_000;
    let stat = std::fs::read_to_string(format!("/proc/{tid}/task/{tid}/stat"))?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_ascii_whitespace().skip(11).take(2);
    Ok(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * TICK_NS)
}

/// Seconds since 1970 by the host's coarse clock, asked by a system call: the vDSO is no way for a thread that traps on rdtsc
/// (clock_gettime(2)).
///
/// # Errors
/// When the kernel has no such clock.
pub fn coarse_time_s() -> io::Result<i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec, which the call writes.
    unsafe { check(libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME_COARSE, &raw mut time)) }?;
    Ok(time.tv_sec)
}

/// The system call in which a thread sleeps, interruptibly, and its arguments (state S and `syscall` of proc(5)); `None` while it runs, waits
/// for a disk, or is in a stop.
pub fn sleeps_in(tid: Pid) -> Option<(i64, [u64; 6])> {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    if !stat.rsplit_once(") ")?.1.starts_with('S') {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let number = fields.next()?.parse().ok()?;
    let mut args = [0; 6];
    for argument in &mut args {
        *argument = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some((number, args))
}

/// How many of `fds` are ready now; their revents say for what (poll(2) with no timeout).
pub fn poll_now(fds: &mut [libc::pollfd]) -> usize {
    // SAFETY: `fds` is a live slice of pollfd, whose length goes with it.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
    usize::try_from(ready).unwrap_or(0)
}

/// True when nobody holds the other end of `fd` any more (POLLHUP, poll(2)).
pub fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }];
    poll_now(&mut polled) > 0 && polled[0].revents & libc::POLLHUP != 0
}

/// True when a description was opened for writing alone (O_WRONLY).
pub fn is_write_only(fd: BorrowedFd<'_>) -> bool {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_ACCMODE == libc::O_WRONLY)
}

/// True when calls on `fd` return EAGAIN rather than wait (O_NONBLOCK, fcntl(2)).
pub fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFL takes no third argument and touches no memory.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// Bytes that a pipe holds when it is full (F_GETPIPE_SZ, fcntl(2)).
///
/// # Errors
/// `EBADF` when it is no pipe.
pub fn pipe_capacity(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: F_GETPIPE_SZ takes no third argument and touches no memory.
    Ok(unsafe { check(libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ).into()) }? as u64)
}

/// Writes what fits now (pwritev2(2) with RWF_NOWAIT), without SIGPIPE's consequences for the caller, which ignores that signal.
///
/// # Errors
/// `EAGAIN` when nothing fits, `EPIPE` when nobody reads.
pub fn write_without_waiting(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the vector names a live slice that the kernel only reads.
    match unsafe { check(libc::pwritev2(fd.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT) as libc::c_long) } {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => write_by_other_means(fd, bytes),
        written => Ok(written? as usize),
    }
}

/// The same where the kernel knows RWF_NOWAIT for neither pipes (before Linux 6.5) nor sockets: by the flag of send(2), and for a pipe by a
/// description of its own, since the caller's flags are shared.
fn write_by_other_means(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is a live slice that the kernel only reads.
    match unsafe { check(libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) as libc::c_long) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            let own = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            own?.write(bytes)
        }
        written => Ok(written? as usize),
    }
}

/// All entries of a folder as the kernel gives them (getdents64(2)), from the descriptor's position on.
///
/// # Errors
/// `ENOTDIR` when it is none.
pub fn read_folder(folder: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    const STEP_BYTES: usize = 64 * 1024;
    let mut entries = Vec::new();
    loop {
        let start = entries.len();
        entries.resize(start + STEP_BYTES, 0);
        let into = &mut entries[start..];
        // SAFETY: `into` is a live, writable slice, whose length goes with it.
        let read =
            unsafe { check(libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), into.as_mut_ptr(), into.len())) }?
                as usize;
        entries.truncate(start + read);
        if read == 0 {
            return Ok(entries);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Bytes that fit until there is no more room.
    fn fill(fd: BorrowedFd<'_>, write: fn(BorrowedFd<'_>, &[u8]) -> io::Result<usize>) -> usize {
        let mut whole = 0;
        loop {
            match write(fd, &[7; 10_000]) {
                Ok(some) => whole += some,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return whole;
                }
            }
        }
    }

    #[test]
    fn a_pipe_takes_as_much_by_either_means() {
        let fills = [write_without_waiting, write_by_other_means].map(|write| {
            let (_read, end) = nix::unistd::pipe().unwrap();
            fill(end.as_fd(), write)
        });
        assert_eq!(fills[0], fills[1]);
        assert!(fills[0] > 60_000);
    }

    #[test]
    fn a_socket_takes_what_fits_and_says_when_nobody_reads() {
        let (reader, end) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(fill(end.as_fd(), write_by_other_means) > 65_536);
        drop(reader);
        let error = write_by_other_means(end.as_fd(), b"more").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
