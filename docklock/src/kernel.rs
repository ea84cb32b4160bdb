//! The calls into the kernel that no safe crate wraps.
//!
//! Each function is one system call with owned descriptors in and out. Nothing here decides anything; policy lives in the
//! callers. Every `unsafe` block names what it relies on. Absent on purpose: anything `nix` already offers.

pub mod counter;
pub mod ears;
pub mod facts;
pub mod socket;
pub mod timerfd;
pub mod tracee;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, sendmsg};
use nix::unistd::Pid;

/// Turns a raw return value into a result: -1 is the thread's errno.
fn check(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Opens a descriptor that stands for process `pid` (pidfd_open(2)). Close-on-exec by the kernel's own rule.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: two integers go in; a fresh descriptor that nobody else owns comes out.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))? as RawFd)) }
}

/// Sends signal `signum` to the process that `pidfd` stands for (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` when it is gone, `EINVAL` for a number that is no signal.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signum: i32) -> io::Result<()> {
    // SAFETY: the info pointer may be null by the man page; the rest are integers.
    unsafe {
        check(libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signum,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        ))
    }?;
    Ok(())
}

/// Forks the calling process so that the child is its *sibling*: the parent of both is the caller's parent (clone(2),
/// CLONE_PARENT). Returns `None` in the child.
///
/// # Safety
/// The calling process must have one thread: the child inherits only the calling thread, and a lock that another thread held
/// would stay locked for ever.
///
/// # Errors
/// `EINVAL` when the caller is the first process of a PID namespace.
pub unsafe fn fork_sibling() -> io::Result<Option<Pid>> {
    // SAFETY: with a null stack the child runs on a copy of the caller's stack, as with fork(2).
    let pid = unsafe { check(libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0)) }?;
    Ok((pid != 0).then(|| Pid::from_raw(pid as i32)))
}

/// Ends the process at once, without destructors or exit handlers: for a forked child that shares its parent's buffers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Sends `bytes` as one packet with `fds` attached (SCM_RIGHTS, unix(7)).
///
/// # Errors
/// `EPIPE` when the peer is gone (no signal is raised), `EMSGSIZE` when the packet does not fit the socket's buffer.
pub fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(socket.as_raw_fd(), &[io::IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Most descriptors one packet may carry here: a reply socket, an executor socket and three streams, with room to spare.
pub const PACKET_FDS_MAX: usize = 8;

/// Receives one packet of at most `limit` bytes and its descriptors. No bytes and no descriptors: the peer closed.
///
/// # Errors
/// `EMSGSIZE` when the packet was longer than `limit` or carried more than [`PACKET_FDS_MAX`] descriptors.
pub fn receive_with_fds(socket: BorrowedFd<'_>, limit: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    receive_with_sender(socket, limit).map(|(bytes, fds, _)| (bytes, fds))
}

/// As [`receive_with_fds`], and who sent it, by the number the process has here, if the socket has SO_PASSCRED (unix(7)).
///
/// # Errors
/// As [`receive_with_fds`].
pub fn receive_with_sender(socket: BorrowedFd<'_>, limit: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>, Option<Pid>)> {
    let mut buffer = vec![0; limit];
    let mut control = cmsg_space!([RawFd; PACKET_FDS_MAX], UnixCredentials);
    let (length, fds, sender, truncated) = {
        let mut slices = [io::IoSliceMut::new(&mut buffer)];
        let message = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(Errno::EINTR) => continue,
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        let mut sender = None;
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmRights(received) => fds.extend(received.into_iter().map(|fd| {
                    // SAFETY: the kernel has just installed these descriptors for us; nobody else knows their numbers.
                    unsafe { OwnedFd::from_raw_fd(fd) }
                })),
                // 0: a process that our process namespace does not know.
                ControlMessageOwned::ScmCredentials(from) => sender = Some(from.pid()).filter(|pid| *pid != 0),
                _ => {}
            }
        }
        let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        (message.bytes, fds, sender.map(Pid::from_raw), truncated)
    };
    if truncated {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    buffer.truncate(length);
    Ok((buffer, fds, sender))
}

/// What `seccomp_load` should return beside loading the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// No listener: the filter decides alone.
    None,
    /// A listener whose calls are killable only while they wait (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV): without it an
    /// ordinary signal during an answered call gives EINTR and loses the answer.
    Killable,
}

const SECCOMP_FILTER_FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Loads a BPF program (8 bytes an instruction, struct sock_filter) as a seccomp filter of the calling thread (seccomp(2)).
///
/// # Errors
/// `EACCES` without no_new_privs, `EBUSY` when the task already has a listener, `EINVAL` for a malformed program.
pub fn seccomp_load(program: &[u8], listener: Listener) -> io::Result<Option<OwnedFd>> {
    let too_long = || io::Error::from_raw_os_error(libc::EINVAL);
    if program.is_empty() || !program.len().is_multiple_of(8) {
        return Err(too_long());
    }
    let length = u16::try_from(program.len() / 8).map_err(|_| too_long())?;
    let header = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let flags = match listener {
        Listener::None => 0,
        Listener::Killable => SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    };
    // SAFETY: `header` points at `length` instructions inside `program`, which outlives the call; the kernel copies and
    // validates them and needs no alignment of the source.
    let value =
        unsafe { check(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const header)) }?;
    Ok(match listener {
        Listener::None => None,
        // SAFETY: with NEW_LISTENER a positive return value is a fresh descriptor.
        Listener::Killable => Some(unsafe { OwnedFd::from_raw_fd(value as RawFd) }),
    })
}

/// One intercepted system call as the kernel reports it (struct seccomp_notif, seccomp_unotify(2)).
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names this call until it is answered.
    pub id: u64,
    /// Thread id of the caller as this process sees it.
    pub pid: u32,
    /// AUDIT_ARCH_* of the entry that was used.
    pub arch: u32,
    /// System call number.
    pub nr: i32,
    /// Its six argument registers.
    pub args: [u64; 6],
}

/// Waits for the next intercepted call.
///
/// # Errors
/// `ENOENT` when the caller was killed in between (try again), `EINTR` on a signal.
pub fn notify_receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: the structure is plain integers, for which all zeroes is a value; the kernel demands zeroes on entry.
    let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` is a live, writable seccomp_notif, the size this request encodes.
    unsafe { check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw).into()) }?;
    Ok(Notification { id: raw.id, pid: raw.pid, arch: raw.data.arch, nr: raw.data.nr, args: raw.data.args })
}

/// The answer to an intercepted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The call fails with this errno; the kernel does not run it.
    Errno(i32),
    /// The call returns this value; the kernel does not run it.
    Value(i64),
    /// The kernel runs the call as it stands.
    Continue,
}

/// Answers an intercepted call.
///
/// # Errors
/// `ENOENT` when the caller is gone: nobody saw the answer.
pub fn notify_reply(listener: BorrowedFd<'_>, id: u64, reply: Reply) -> io::Result<()> {
    let (val, error, flags) = match reply {
        Reply::Errno(errno) => (0, -errno, 0),
        Reply::Value(value) => (value, 0, 0),
        Reply::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    notify_send(listener, libc::seccomp_notif_resp { id, val, error, flags })
}

/// Sends an answer. A signal may come while the kernel waits for its own lock: nothing was sent then, so it is sent again.
fn notify_send(listener: BorrowedFd<'_>, mut raw: libc::seccomp_notif_resp) -> io::Result<()> {
    loop {
        // SAFETY: `raw` is a live seccomp_notif_resp, the size this request encodes.
        let sent =
            unsafe { check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw).into()) };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// True while the call `id` still waits for its answer, so its thread id still means the same task.
///
/// # Errors
/// Anything but `ENOENT`, which is the answer `false`.
pub fn notify_id_valid(listener: BorrowedFd<'_>, id: u64) -> io::Result<bool> {
    // SAFETY: `id` is a live u64, the size this request encodes.
    match unsafe { check(libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id).into()) }
    {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `_IOW('!', 4, __u64)` and its one flag, Linux 6.6: the answering thread hands its CPU straight to the woken task.
const SECCOMP_IOCTL_NOTIF_SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: libc::c_ulong = 1;

/// Asks for synchronous wake-ups on this listener: 1.5 µs a call instead of 4.9.
///
/// # Errors
/// `EINVAL` on kernels before 6.6, where calls are only slower.
pub fn notify_sync_wake_up(listener: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this request takes its flags by value.
    unsafe {
        check(
            libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP).into(),
        )
    }?;
    Ok(())
}

/// Bytes that wait in a pipe to be read (FIONREAD, ioctl_tty(2)). Either end will do.
///
/// # Errors
/// `ENOTTY` when the descriptor is no pipe, socket or terminal.
pub fn bytes_waiting(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: `count` is a live int, which FIONREAD writes.
    unsafe { check(libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count).into()) }?;
    usize::try_from(count).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))
}

/// Tells a terminal its size in characters (TIOCSWINSZ, ioctl_tty(2)).
///
/// # Errors
/// `ENOTTY` when the descriptor is no terminal.
pub fn set_window_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a live winsize, which TIOCSWINSZ reads.
    unsafe { check(libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size).into()) }?;
    Ok(())
}

/// Takes over descriptor `number`, which this process inherited for itself.
///
/// # Safety
/// Nothing else in the process may use or close that number from now on.
pub unsafe fn adopt_fd(number: RawFd) -> OwnedFd {
    // SAFETY: by this function's own contract.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Forks a process that has one thread, like fork(2). Returns `None` in the child.
///
/// # Safety
/// The calling process must have one thread.
///
/// # Errors
/// `EAGAIN` at the limit of processes.
pub unsafe fn fork_single_threaded() -> io::Result<Option<Pid>> {
    // SAFETY: one thread, by this function's own contract.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Gives every signal its default action and opens the mask: what a caller ignores or holds back (SIGPIPE here, SIGHUP under nohup(1)) would
/// pass through execve(2) to the program, and differ from host to host.
pub fn reset_signals() {
    const SIGNAL_MAX: i32 = 64;
    // SAFETY: the default action runs no code of ours; numbers that may not be set (SIGKILL, SIGSTOP, libc's own two) are refused and are at their
    // default already. An empty set is a live sigset_t.
    unsafe {
        for signal in 1..=SIGNAL_MAX {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Takes the calling thread out of restartable sequences (rseq(2)), which glibc enters by itself: the kernel then writes the thread's
/// processor into its memory after each switch, for nobody. Where it cannot be done, switches are only slower.
pub fn leave_rseq() {
    const RSEQ_BYTES: u32 = 32;
    const RSEQ_FLAG_UNREGISTER: i32 = 1;
    const RSEQ_SIGNATURE: u32 = 0x5305_3053;
    // SAFETY: the name is a constant; glibc documents the symbol as a ptrdiff_t from the thread pointer, which is what pthread_self returns
    // on x86-64. The kernel compares the address with what is registered and only forgets it.
    unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        if let Some(offset) = offset.as_ref() {
            let area = (libc::pthread_self() as usize).wrapping_add_signed(*offset);
            libc::syscall(libc::SYS_rseq, area, RSEQ_BYTES, RSEQ_FLAG_UNREGISTER, RSEQ_SIGNATURE);
        }
    }
}

/// Number of threads of the calling process, from /proc/self/task.
///
/// # Errors
/// When /proc is not mounted.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Gives the pages of this program's own code and constants back to the page cache; they come back one fault at a time when they are
/// needed. For a process that has nothing to do for a long while: most of its resident memory is code that ran once.
///
/// # Errors
/// When /proc/self/smaps cannot be read, or the kernel refuses.
pub fn release_code() -> io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    for range in unmodified_mappings(&maps, &program.to_string_lossy()) {
        // SAFETY: a private mapping of a file that is not writable and has no anonymous page equals the file, and stays so while
        // nobody makes it writable, which only the dynamic linker does, before main. Dropping its pages loses nothing: the next
        // access reads the file's again.
        unsafe { check(libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED).into()) }?;
    }
    Ok(())
}

/// The read-only private mappings of `program` in a smaps text (proc_pid_smaps(5)) that hold no page of their own.
fn unmodified_mappings(smaps: &str, program: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let mut fields = line.split_whitespace();
        let (first, second) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if let Some((from, to)) = first.split_once('-') {
            let bounds = usize::from_str_radix(from, 16).ok().zip(usize::from_str_radix(to, 16).ok());
            let ours = matches!(second, "r-xp" | "r--p") && line.ends_with(program);
            current = bounds.filter(|_| ours).map(|(from, to)| from..to);
        } else if first == "Anonymous:" && second == "0" {
            found.extend(current.take());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0-55e0 r--p 00000000 fe:00 1 /bin/shim
Rss: 4 kB
Anonymous: 0 kB
55e0-55f0 r-xp 00010000 fe:00 1 /bin/shim
Anonymous: 0 kB
55f0-5600 r--p 00020000 fe:00 1 /bin/shim
Anonymous: 8 kB
5600-5610 rw-p 00030000 fe:00 1 /bin/shim
Anonymous: 0 kB
7f00-7f10 r-xp 00000000 fe:00 2 /lib/libc.so
Anonymous: 0 kB
";

    #[test]
    fn only_unmodified_read_only_mappings_of_the_program_are_given_back() {
        assert_eq!(unmodified_mappings(SMAPS, "/bin/shim"), [0x55d0..0x55e0, 0x55e0..0x55f0]);
    }

    #[test]
    fn a_program_goes_on_after_its_code_was_given_back() {
        assert!(release_code().is_ok());
        assert_eq!(format!("{:?}", thread_count().is_ok()), "true");
    }
}
