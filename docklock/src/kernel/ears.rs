//! Hearing calls and news of tasks in one sleep, without a poll(2) before each call.
//!
//! The engine sleeps in SECCOMP_IOCTL_NOTIF_RECV (seccomp_unotify(2)), which takes no signal mask. News of tasks is SIGCHLD, and one that
//! came just before the sleep would be slept over. So the handler also puts a file that is no listener at the descriptor by which the
//! engine receives: a receive that begins after the signal fails at once, one that sleeps already is broken off by the signal.
//! Always true: between a signal and the next [`Heard::News`] no receive sleeps. Absent on purpose: a second instance in one process,
//! for a handler knows only statics.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Notification, check, notify_receive};

/// What the handler puts, and where.
static STOPPER: AtomicI32 = AtomicI32::new(-1);
static EAR: AtomicI32 = AtomicI32::new(-1);
/// A signal came since [`Heard::News`] was told last.
static NEWS: AtomicBool = AtomicBool::new(false);
/// SIGALRM came since [`Ears::ticked`] was asked last.
static TICK: AtomicBool = AtomicBool::new(false);

/// What woke the engine.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// An intercepted call.
    Call(Notification),
    /// Perhaps news of tasks, perhaps a tick: look.
    News,
    /// The caller was killed in between, or no task is left under the filter.
    Nobody,
}

/// A seccomp listener, and the signals that interrupt listening.
#[derive(Debug)]
pub struct Ears {
    listener: OwnedFd,
    /// Another number for the listener, or for the stopper once a signal has come.
    ear: OwnedFd,
    /// Kept open for the handler.
    _stopper: OwnedFd,
    /// Nothing raises SIGCHLD at present.
    hushed: bool,
}

extern "C" fn on_signal(signal: libc::c_int) {
    if signal == libc::SIGALRM {
        TICK.store(true, Ordering::SeqCst);
    }
    NEWS.store(true, Ordering::SeqCst);
    let (stopper, ear) = (STOPPER.load(Ordering::SeqCst), EAR.load(Ordering::SeqCst));
    // SAFETY: three integers; dup2 is async-signal-safe (signal-safety(7)). Both numbers are open while the handler is installed, so
    // nothing but EBUSY or EINTR can fail, and errno, which only a failure touches, is put back.
    unsafe {
        let errno = *libc::__errno_location();
        while libc::dup3(stopper, ear, libc::O_CLOEXEC) < 0
            && matches!(*libc::__errno_location(), libc::EBUSY | libc::EINTR)
        {}
        *libc::__errno_location() = errno;
    }
}

impl Ears {
    /// Listens on `listener` from now on, is interrupted by SIGCHLD, and ticks every `tick_s` seconds of real time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(listener: OwnedFd, tick_s: i64) -> io::Result<Self> {
        let stopper = OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let ear = listener.try_clone()?;
        STOPPER.store(stopper.as_raw_fd(), Ordering::SeqCst);
        EAR.store(ear.as_raw_fd(), Ordering::SeqCst);
        act(Signal::SIGCHLD, SigHandler::Handler(on_signal))?;
        act(Signal::SIGALRM, SigHandler::Handler(on_signal))?;
        woken_by().thread_unblock()?;
        let period = libc::timeval { tv_sec: tick_s, tv_usec: 0 };
        let timer = libc::itimerval { it_interval: period, it_value: period };
        // SAFETY: `timer` is a live itimerval, which the kernel reads; the old value is not wanted.
        unsafe { check(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()).into()) }?;
        Ok(Self { listener, ear, _stopper: stopper, hushed: false })
    }

    /// The listener, for answers.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Sleeps until there is a call, or perhaps news.
    ///
    /// # Errors
    /// When the kernel refuses to listen.
    pub fn hear(&mut self) -> io::Result<Heard> {
        if self.unhush()? || self.had_news()? {
            return Ok(Heard::News);
        }
        match notify_receive(self.ear.as_fd()) {
            Ok(notification) => Ok(Heard::Call(notification)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Heard::Nobody),
            // EINTR: broken off. ENOTTY: the stopper knows no such request.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOTTY)) => {
                self.had_news()?;
                Ok(Heard::News)
            }
            Err(error) => Err(error),
        }
    }

    /// True when a signal came; listening is possible again.
    fn had_news(&mut self) -> io::Result<bool> {
        // A signal between these two steps is told next time.
        if !NEWS.swap(false, Ordering::SeqCst) {
            return Ok(false);
        }
        nix::unistd::dup3(self.listener.as_fd(), &mut self.ear, nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(true)
    }

    /// Lets nothing that tasks do raise a signal until the engine listens again: for what it waits for by itself, and while it looks anyway.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn hush(&mut self) -> io::Result<()> {
        if !self.hushed {
            // By default SIGCHLD does nothing; unlike with SIG_IGN, ends are still told by waitpid(2).
            act(Signal::SIGCHLD, SigHandler::SigDfl)?;
            self.hushed = true;
        }
        Ok(())
    }

    /// True when it was silent: what happened meanwhile is to be looked for.
    fn unhush(&mut self) -> io::Result<bool> {
        if self.hushed {
            act(Signal::SIGCHLD, SigHandler::Handler(on_signal))?;
        }
        Ok(std::mem::take(&mut self.hushed))
    }

    /// Does what no signal may break off.
    ///
    /// # Errors
    /// When the kernel refuses to hold signals back, or what `deed` returns.
    pub fn undisturbed<T>(&self, deed: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        woken_by().thread_block()?;
        let done = deed(self.listener.as_fd());
        woken_by().thread_unblock()?;
        done
    }

    /// True once for each tick, or for several that came together.
    pub fn ticked(&self) -> bool {
        TICK.swap(false, Ordering::SeqCst)
    }

    /// True when no task is left under the filter, though perhaps one is not yet a zombie.
    pub fn hung_up(&self) -> bool {
        super::tracee::is_hung_up(self.listener.as_fd())
    }

    /// Sleeps until one of `fds` is ready or a signal comes, `timeout_ms` at most (ppoll(2)).
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn sleep(&mut self, fds: &mut [libc::pollfd], timeout_ms: i64) -> io::Result<()> {
        woken_by().thread_block()?;
        let slept = if self.unhush()? || NEWS.load(Ordering::SeqCst) { Ok(()) } else { poll_unmasked(fds, timeout_ms) };
        woken_by().thread_unblock()?;
        self.had_news()?;
        slept
    }
}

fn act(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the one handler of this file is async-signal-safe, see there.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

fn woken_by() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD, Signal::SIGALRM])
}

/// ppoll(2) in which every signal is heard.
fn poll_unmasked(fds: &mut [libc::pollfd], timeout_ms: i64) -> io::Result<()> {
    let timeout = libc::timespec { tv_sec: timeout_ms / 1000, tv_nsec: (timeout_ms % 1000) * 1_000_000 };
    let (count, mask) = (fds.len() as libc::nfds_t, SigSet::empty());
    // SAFETY: `fds`, `timeout` and the mask are live values of the types ppoll wants.
    match unsafe { check(libc::ppoll(fds.as_mut_ptr(), count, &raw const timeout, mask.as_ref()).into()) } {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}
