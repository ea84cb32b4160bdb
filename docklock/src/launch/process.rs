//! The launcher process: takes a packet, forks a sibling to serve it, and never does the work itself.
//!
//! When its socket ends without a farewell, the shim has died: then it is the guardian that ends what the shim left behind.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, setsid};

use super::{PACKET_BYTES_MAX, Reply, Request, container, guardian};
use crate::kernel;

/// Farewell of the owner.
pub(super) const DISMISS: &[u8] = b"dismiss";
/// Second packet of a create conversation.
pub(super) const START: &[u8] = b"start";

/// A launcher that was not needed for this long will probably wait for its container's end.
const SETTLES_AFTER_MS: u16 = 2000;

/// Serves until the owner says farewell or dies.
pub(super) fn serve(socket: OwnedFd, owner: Pid, guard: impl FnOnce(Pid)) -> ! {
    // A signal meant for the shim's process group must not take the guardian away.
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        ignored.add(signal);
    }
    // A session of its own: what a person types at the owner's terminal is not meant for the launcher.
    if setsid().is_err() || ignored.thread_block().is_err() || prctl::set_name(c"docklock-guard").is_err() {
        kernel::exit_now(70);
    }
    loop {
        settle(&socket);
        let Ok((packet, fds)) = kernel::receive_with_fds(socket.as_fd(), PACKET_BYTES_MAX) else {
            continue; // an oversized packet: its reply socket is closed, which is the refusal
        };
        if packet == DISMISS {
            kernel::exit_now(0);
        }
        if packet.is_empty() && fds.is_empty() {
            guardian::outlive(owner, guard);
        }
        delegate(&socket, &packet, fds);
    }
}

/// Waits for a packet; makes this process small when none has come for a while.
fn settle(socket: &OwnedFd) {
    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if poll(&mut watched, SETTLES_AFTER_MS) == Ok(0) {
        // Its memory is all that this could have saved.
        drop(kernel::release_code());
    }
}

fn delegate(socket: &OwnedFd, packet: &[u8], fds: Vec<OwnedFd>) {
    let mut fds = fds.into_iter();
    let Some(reply) = fds.next() else { return };
    let refused = |reason: String| answer(&reply, &Reply::Refused { reason });
    let (present, request): ([bool; 4], Request) = match serde_json::from_slice(packet) {
        Ok(parsed) => parsed,
        Err(error) => return refused(format!("the request does not parse: {error}")),
    };
    // SAFETY: the launcher never starts a thread.
    #[allow(unsafe_code)]
    match unsafe { kernel::fork_sibling() } {
        Ok(Some(child)) => answer(&reply, &Reply::Child { pid: child.as_raw() }),
        Err(error) => refused(format!("fork: {error}")),
        Ok(None) => {
            // Helpers that outlive the shim would go on building a container for nobody.
            if prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
                kernel::exit_now(70);
            }
            // The guardian's own line must end with the guardian and the shim, not with a container.
            // SAFETY: this child owns its copy of the descriptor, uses it no more, and ends without running destructors.
            drop(unsafe { kernel::adopt_fd(socket.as_raw_fd()) });
            let mut next = |there: bool| if there { fds.next() } else { None };
            let [executor, stdin, stdout, stderr] = present.map(&mut next);
            let streams = super::ContainerStreams { stdin, stdout, stderr };
            let unblocked = SigSet::all().thread_unblock();
            match unblocked.map_err(|errno| format!("unblock signals: {errno}")) {
                Ok(()) => container::serve(request, executor, streams, reply),
                Err(reason) => answer(&reply, &Reply::Refused { reason }),
            }
            kernel::exit_now(0)
        }
    }
}

/// Sends one answer. A peer that is gone needs none: it finds the container by the open intent.
pub(super) fn answer(socket: &OwnedFd, reply: &Reply) {
    let bytes = serde_json::to_vec(reply).unwrap_or_else(|_| b"{\"Refused\":{\"reason\":\"unprintable\"}}".to_vec());
    if kernel::send_with_fds(socket.as_fd(), &bytes, &[]).is_err() {
        kernel::exit_now(71);
    }
}
