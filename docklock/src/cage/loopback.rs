//! Raises the loopback interface of a fresh network namespace.
//!
//! A new namespace has `lo`, and it is down: then 127.0.0.1 cannot be bound. libcontainer leaves it so, and the executor has no
//! capability left to change it. So a thread of the supervising process enters the namespace, asks the kernel over rtnetlink(7), and ends:
//! a network namespace belongs to a thread, so nothing else in the process moves.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::unistd::Pid;

/// `RTM_NEWLINK` of linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK` of linux/netlink.h.
const REQUEST_ACK: u16 = 0x1 | 0x4;
/// `NLMSG_ERROR`, which also carries the acknowledgement: error 0.
const NLMSG_ERROR: u16 = 2;
/// `IFF_UP` of linux/if.h.
const IFF_UP: u32 = 1;
/// The first interface of every namespace is `lo`.
const LOOPBACK_INDEX: i32 = 1;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const REQUEST_BYTES: usize = 32;

/// Why loopback is still down.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// The namespace could not be opened.
    #[error("could not open {path}: {source}")]
    Namespace {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step inside failed.
    #[error("could not {deed} to raise the loopback interface: {source}")]
    Step {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Raises `lo` in the network namespace of process `pid`. Raising it twice is harmless.
///
/// # Errors
/// When the process is gone, or the kernel refuses.
pub fn raise_loopback(pid: Pid) -> Result<(), LoopbackError> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let namespace = File::open(&path).map_err(|source| LoopbackError::Namespace { path, source })?;
    let step = |deed| move |source: io::Error| LoopbackError::Step { deed, source };
    let thread = std::thread::Builder::new().name("loopback".to_owned()).stack_size(64 * 1024);
    let raised = thread.spawn(move || inside(&namespace)).map_err(step("start a thread"))?.join();
    raised.unwrap_or_else(|_| Err(step("finish the thread")(io::Error::other("it panicked"))))
}

fn inside(namespace: &File) -> Result<(), LoopbackError> {
    let step = |deed| move |errno: Errno| LoopbackError::Step { deed, source: errno.into() };
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(step("enter the network namespace"))?;
    let route = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
        .map_err(step("open a route socket"))?;
    send(route.as_raw_fd(), &request(), MsgFlags::empty()).map_err(step("send the request"))?;
    let mut answer = [0; 256];
    let length = recv(route.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(step("receive the answer"))?;
    match verdict(&answer[..length]) {
        Some(0) => Ok(()),
        Some(error) => Err(step("set the interface up")(Errno::from_raw(-error))),
        None => Err(step("understand the answer")(Errno::EBADMSG)),
    }
}

fn request() -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_ACK.to_ne_bytes());
    bytes[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    bytes[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    bytes[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    bytes
}

/// The error number in an acknowledgement.
fn verdict(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::UdpSocket;

    use super::*;

    /// The namespace belongs to a thread; its own entry in /proc names it.
    #[test]
    fn a_fresh_namespace_can_bind_and_reach_loopback() {
        let bound = std::thread::spawn(|| {
            if nix::sched::unshare(CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("skipped: this user may not make network namespaces");
                return None;
            }
            let reach = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", socket.local_addr()?));
            let before = reach().is_ok();
            raise_loopback(nix::unistd::gettid()).unwrap();
            raise_loopback(nix::unistd::gettid()).unwrap();
            Some((before, reach().is_ok()))
        });
        assert!(bound.join().unwrap().is_none_or(|bound| bound == (false, true)));
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = raise_loopback(Pid::from_raw(i32::MAX)).unwrap_err();
        assert!(error.to_string().contains("/proc/2147483647/ns/net"), "{error}");
    }

    #[test]
    fn an_answer_cut_short_is_no_verdict() {
        assert_eq!(verdict(&[0; 18]), None);
    }
}
