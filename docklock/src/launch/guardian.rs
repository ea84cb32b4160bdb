//! What the launcher does when the shim is gone: end whatever still builds containers, then let the guard close what is open.
//!
//! libcontainer's helpers go on making control groups after the shim's death. They are in the launcher's process group until the container's
//! first process exists, and that one is born inside its control group. So the group is killed first, from outside of it, and only then
//! is anything swept. Whoever else sweeps calls [`end_launcher`] before, for the same reason.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgrp, pause, setsid};

use crate::kernel;

/// How long killed helpers may take to vanish; one that is still there then is a zombie that its new parent does not reap.
const HELPERS_LINGER: Duration = Duration::from_secs(1);

/// Waits until `owner` has really ended (its socket closes before its process is gone), then runs `guard`.
pub(super) fn outlive(owner: Pid, guard: impl FnOnce(Pid)) -> ! {
    if let Ok(pidfd) = kernel::pidfd_open(owner) {
        wait_for_end(&pidfd);
    }
    let helpers = getpgrp();
    // SAFETY: the launcher never starts a thread.
    #[allow(unsafe_code)]
    let forked = unsafe { kernel::fork_single_threaded() };
    if let Ok(Some(_)) = forked {
        // Stays until it is killed with its group, so that nobody else can come to have the group's number.
        loop {
            pause();
        }
    }
    // The child, or the launcher itself where no process can be made: then helpers are swept up by whoever comes next.
    if forked.is_ok() && setsid().is_ok() {
        end_launcher(helpers);
    }
    guard(owner);
    kernel::exit_now(0)
}

/// Kills a launcher and the helpers in its group, and waits until they are gone.
pub fn end_launcher(group: Pid) {
    let begun = Instant::now();
    while killpg(group, Signal::SIGKILL) != Err(Errno::ESRCH) && begun.elapsed() < HELPERS_LINGER {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for_end(pidfd: &OwnedFd) {
    let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    while matches!(poll(&mut watched, PollTimeout::NONE), Err(Errno::EINTR)) {}
}
