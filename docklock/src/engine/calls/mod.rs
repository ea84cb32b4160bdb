//! The calls of class virtual: one function for each group, one table from number to function.

pub(super) mod change;
mod fifo;
pub(super) mod file;
pub(super) mod folder;
mod fstat;
mod futex;
mod identity;
mod life;
pub(super) mod limit;
pub(super) mod name;
pub(super) mod path;
mod poll;
pub(super) mod proc;
mod queue;
pub(super) mod random;
mod rlimit;
mod room;
mod stream;
pub(super) mod time;
mod timer;
pub(super) mod timerfd;

use super::task::{Awaited, Call, Carried, TaskId, Wait};
use super::{Engine, Fault, Trouble, Verdict};

impl From<nix::errno::Errno> for Fault {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(-(errno as i32 as i64))
    }
}

impl From<nix::errno::Errno> for Trouble {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Guest(errno.into())
    }
}

/// Most descriptors that one wait may name: more than the kernel lets a process have (fs.nr_open), which answers for what is beyond.
pub(super) const WAIT_FILES_MAX: usize = 1 << 20;

impl Engine {
    /// What a call of class virtual gets.
    pub(super) fn dispatch(&mut self, id: TaskId, call: &Call) -> Result<Verdict, Trouble> {
        match call.nr {
            libc::SYS_read
            | libc::SYS_pread64
            | libc::SYS_readv
            | libc::SYS_preadv
            | libc::SYS_preadv2
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4 => self.read(id, call),
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                self.write(id, call)
            }
            libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => self.write(id, call),

            libc::SYS_clock_gettime => self.clock_gettime(id, call),
            libc::SYS_clock_getres => self.clock_getres(id, call),
            libc::SYS_gettimeofday => self.gettimeofday(id, call),
            libc::SYS_time => self.time(id, call),
            libc::SYS_times => self.times(id, call),
            libc::SYS_getrusage => self.getrusage(id, call),
            libc::SYS_nanosleep | libc::SYS_clock_nanosleep => self.sleep(id, call),
            libc::SYS_alarm
            | libc::SYS_setitimer
            | libc::SYS_getitimer
            | libc::SYS_timer_create
            | libc::SYS_timer_settime
            | libc::SYS_timer_gettime
            | libc::SYS_timer_getoverrun
            | libc::SYS_timer_delete => self.timer(id, call),
            libc::SYS_timerfd_create | libc::SYS_timerfd_settime | libc::SYS_timerfd_gettime => self.timerfd(id, call),
            libc::SYS_signalfd | libc::SYS_signalfd4 => {
                self.signal_descriptors = true;
                Ok(Verdict::Continue)
            }

            libc::SYS_getrandom => self.getrandom(id, call),

            // It changes with the end of a parent, so it belongs to a turn.
            libc::SYS_getppid => Ok(Verdict::Continue),
            libc::SYS_uname => self.uname(id, call),
            libc::SYS_sysinfo => self.sysinfo(id, call),
            libc::SYS_getcpu => self.getcpu(id, call),
            libc::SYS_sched_getaffinity => self.sched_getaffinity(id, call),
            libc::SYS_setrlimit | libc::SYS_prlimit64 => self.set_limit(id, call),
            libc::SYS_sched_setaffinity
            | libc::SYS_sched_setscheduler
            | libc::SYS_sched_setparam
            | libc::SYS_sched_setattr => Ok(Verdict::Return(0)),

            libc::SYS_stat | libc::SYS_lstat | libc::SYS_fstat | libc::SYS_newfstatat | libc::SYS_statx => {
                self.stat(id, call)
            }
            libc::SYS_statfs | libc::SYS_fstatfs => self.statfs(id, call),
            libc::SYS_getdents | libc::SYS_getdents64 => self.getdents(id, call),
            libc::SYS_open | libc::SYS_openat | libc::SYS_creat => self.open(id, call),
            libc::SYS_utimensat | libc::SYS_utime | libc::SYS_utimes | libc::SYS_futimesat => self.set_times(id, call),
            libc::SYS_truncate | libc::SYS_ftruncate | libc::SYS_fallocate => self.resize(id, call),
            libc::SYS_mmap | libc::SYS_mprotect | libc::SYS_pkey_mprotect => self.map(id, call),
            libc::SYS_mremap => self.move_mapping(id, call),
            libc::SYS_readlink | libc::SYS_readlinkat => self.read_link(id, call),
            libc::SYS_access | libc::SYS_faccessat | libc::SYS_faccessat2 => self.look_up(id, call),
            libc::SYS_chmod
            | libc::SYS_fchmod
            | libc::SYS_fchmodat
            | libc::SYS_chown
            | libc::SYS_fchown
            | libc::SYS_lchown
            | libc::SYS_fchownat
            | libc::SYS_setxattr
            | libc::SYS_lsetxattr
            | libc::SYS_fsetxattr
            | libc::SYS_removexattr
            | libc::SYS_lremovexattr
            | libc::SYS_fremovexattr => self.change_attributes(id, call),
            libc::SYS_chdir | libc::SYS_fchdir => {
                self.change_folder();
                Ok(Verdict::Continue)
            }

            libc::SYS_poll
            | libc::SYS_ppoll
            | libc::SYS_select
            | libc::SYS_pselect6
            | libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2 => self.poll(id, call),
            libc::SYS_bind => self.bind(id, call),
            libc::SYS_connect | libc::SYS_listen => {
                self.name_before_use(id, call.args[0] as i32);
                self.try_now(id)
            }
            libc::SYS_setsockopt => self.set_option(id, call),
            libc::SYS_getsockopt => self.get_option(id, call),
            libc::SYS_futex => self.futex(id, call),
            libc::SYS_sched_yield => self.sched_yield(id),

            libc::SYS_wait4 | libc::SYS_waitid => self.wait(id, call),
            libc::SYS_exit => self.exit(id, call),
            libc::SYS_exit_group => self.exit_group(id),
            libc::SYS_set_tid_address => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.clear_tid = (call.args[0] != 0).then_some(call.args[0]);
                }
                Ok(Verdict::Continue)
            }
            libc::SYS_kill
            | libc::SYS_tkill
            | libc::SYS_tgkill
            | libc::SYS_rt_sigqueueinfo
            | libc::SYS_rt_tgsigqueueinfo
            | libc::SYS_pidfd_send_signal => self.send_signal(id, call),
            libc::SYS_rt_sigtimedwait => self.wait_for_signal(id, call),
            libc::SYS_rt_sigsuspend | libc::SYS_pause => self.suspend(id, call),

            // The kernel's own way to go on with a wait; the waits here never leave one, and without one it answers so.
            libc::SYS_restart_syscall => Ok(Verdict::Return(-i64::from(libc::EINTR))),

            libc::SYS_mkdir
            | libc::SYS_mkdirat
            | libc::SYS_mknod
            | libc::SYS_mknodat
            | libc::SYS_unlink
            | libc::SYS_unlinkat
            | libc::SYS_rmdir
            | libc::SYS_rename
            | libc::SYS_renameat
            | libc::SYS_renameat2
            | libc::SYS_link
            | libc::SYS_linkat
            | libc::SYS_symlink
            | libc::SYS_symlinkat => self.change_names(id, call),

            libc::SYS_sendfile | libc::SYS_splice | libc::SYS_tee => self.transfer(id, call),

            libc::SYS_semtimedop if call.args[3] != 0 => self.change_semaphores(id, call),
            libc::SYS_mq_timedsend | libc::SYS_mq_timedreceive if call.args[4] != 0 => self.use_queue(id, call),

            // Whatever else may sleep is tried: locks, queues, transfers between pipes.
            _ => self.try_now(id),
        }
    }

    /// Tries a call that may block and has no descriptor to wait for: the kernel runs it with a stop armed.
    pub(super) fn try_now(&mut self, id: TaskId) -> Result<Verdict, Trouble> {
        if self.is_alone() {
            return Ok(Verdict::Continue);
        }
        let Some(registers) = self.hook(id)? else { return Ok(Verdict::Settled) };
        let result = registers.rax as i64;
        if super::hook::is_restart(result) || result == -i64::from(libc::EINTR) {
            self.try_again_later(id, &registers, None)?;
        } else {
            self.release(id)?;
        }
        Ok(Verdict::Settled)
    }

    /// The same for a call that gives up at a logical time, with the result `expired`. The kernel's own timer may run out in the stop.
    fn try_until(&mut self, id: TaskId, call: &Call, deadline: Option<u64>, expired: i64) -> Answer {
        let Some(task) = self.tasks.get(id) else { return Ok(Verdict::Settled) };
        if task.timed_out {
            return Ok(Verdict::Return(expired));
        }
        let (tid, deadline) = (task.tid, if task.retried { task.deadline } else { deadline });
        let Some(registers) = self.hook_until(id, Some(expired))? else { return Ok(Verdict::Settled) };
        let result = registers.rax as i64;
        let interrupted = super::hook::is_restart(result) || result == -i64::from(libc::EINTR);
        let waited = interrupted && !super::signals::has_signal(tid) || result == expired && deadline.is_some();
        if !waited {
            self.release(id)?;
            return Ok(Verdict::Settled);
        }
        if let Some(task) = self.tasks.get_mut(id) {
            task.carried = Some(Carried { nr: call.nr, deadline, timed_out: false });
        }
        self.try_again_later(id, &registers, deadline)?;
        Ok(Verdict::Settled)
    }

    /// True when no other task exists and no timer runs: a call that blocks then blocks on nobody inside.
    pub(super) fn is_alone(&self) -> bool {
        self.tasks.len() == 1 && self.timers.next_deadline().is_none()
    }

    /// Gives the turn to whoever is ready; if all others sleep, time passes until one wakes.
    fn sched_yield(&mut self, id: TaskId) -> Result<Verdict, Trouble> {
        if self.tasks.len() == 1 {
            return Ok(Verdict::Return(0));
        }
        self.look_at_files();
        if !self.somebody_is_ready() {
            self.skip_to_deadline_if_nobody_is_ready();
            self.fire()?;
        }
        if !self.somebody_is_ready() {
            return Ok(Verdict::Return(0));
        }
        self.ready(id, super::Resume::Return(0));
        Ok(Verdict::Settled)
    }

    /// Parks a task on descriptors of its own.
    fn block_on(&mut self, id: TaskId, files: Vec<Awaited>, deadline: Option<u64>) -> Verdict {
        self.block(id, Wait::Files(files), deadline);
        Verdict::Settled
    }

    /// The host's thread id of a task, for reaching its memory.
    fn tid(&self, id: TaskId) -> Result<nix::unistd::Pid, Trouble> {
        // A task that is gone needs no answer; ESRCH is what the kernel would say.
        self.tasks.get(id).map(|task| task.tid).ok_or(Trouble::Guest(Fault(-i64::from(libc::ESRCH))))
    }
}

/// Little-endian words of a byte array.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

pub(super) type Answer = Result<Verdict, Trouble>;
