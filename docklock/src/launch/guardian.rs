//! What the launcher does when the shim is gone: outlive it, then let the guard close what it left open.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::kernel;

/// Waits until `owner` has really ended (its socket closes before its process is gone), then runs `guard`.
pub(super) fn outlive(owner: Pid, guard: impl FnOnce(Pid)) -> ! {
    if let Ok(pidfd) = kernel::pidfd_open(owner) {
        wait_for_end(&pidfd);
    }
    guard(owner);
    kernel::exit_now(0)
}

fn wait_for_end(pidfd: &OwnedFd) {
    let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    while matches!(poll(&mut watched, PollTimeout::NONE), Err(nix::errno::Errno::EINTR)) {}
}
