//! The client's end of a monitor's socket.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;

use super::Setting;
use super::protocol::{self, Reply, Request};
use crate::failure::Failure;

/// Name of the socket in a monitor's folder.
pub(super) const SOCKET: &str = "control.sock";

/// A line to the monitor of one container.
pub(super) struct Monitor {
    id: String,
    socket: OwnedFd,
}

impl Monitor {
    /// Finds the monitor of container `id`.
    pub(super) fn of(setting: &Setting, id: &str) -> Result<Self, Failure> {
        let home = setting.home(id)?;
        match Self::connect(id, &home.join(SOCKET)) {
            Ok(monitor) => Ok(monitor),
            Err(Errno::NOENT) if !home.exists() => Err(Failure::NoSuchContainer { id: id.to_owned() }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Err(Failure::MonitorGone { id: id.to_owned() }),
            Err(errno) => Err(Failure::Monitor { id: id.to_owned(), problem: format!("cannot be reached: {errno}") }),
        }
    }

    fn connect(id: &str, path: &Path) -> Result<Self, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { id: id.to_owned(), socket })
    }

    /// Asks one thing and waits for the answer.
    pub(super) fn ask(&self, request: &Request) -> Result<Value, Failure> {
        self.ask_with(request, &[])
    }

    /// As [`Monitor::ask`], with descriptors.
    pub(super) fn ask_with(&self, request: &Request, fds: &[OwnedFd]) -> Result<Value, Failure> {
        protocol::send(self.socket.as_fd(), request, fds)?;
        self.answer()
    }

    /// Waits for a further answer to the last question.
    pub(super) fn answer(&self) -> Result<Value, Failure> {
        match protocol::receive::<Reply>(self.socket.as_fd())? {
            Some((reply, _)) => reply.into_result(),
            None => Err(Failure::MonitorGone { id: self.id.clone() }),
        }
    }
}
