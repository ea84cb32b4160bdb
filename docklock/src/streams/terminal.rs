//! The console socket: libcontainer connects to it and sends the master of the process's terminal.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::poll::PollFlags;

use super::{PATIENCE, StreamError, Woken, wait};
use crate::kernel;

/// Longest text that may come with the terminal: the name of its device.
const NAME_BYTES_MAX: usize = 4096;

/// A bound console socket; its path goes with it.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    pub(super) fn bind(path: &Path) -> Result<Self, StreamError> {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StreamError::System { deed: "replace an old console socket", source }),
        }
        let listener = UnixListener::bind(path)
            .map_err(|source| StreamError::System { deed: "bind the console socket", source })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal that was sent.
    pub(super) fn accept(self) -> Result<OwnedFd, StreamError> {
        let system = |deed| move |source| StreamError::System { deed, source };
        let ready = |fd| wait(fd, PollFlags::POLLIN, &[], Some(PATIENCE)).map_err(system("wait for the terminal"));
        if ready(self.listener.as_fd())? != Woken::Ready {
            return Err(StreamError::NoTerminal);
        }
        let (peer, _) = self.listener.accept().map_err(system("accept the terminal"))?;
        if ready(peer.as_fd())? != Woken::Ready {
            return Err(StreamError::NoTerminal);
        }
        let (_, fds) =
            kernel::receive_with_fds(peer.as_fd(), NAME_BYTES_MAX).map_err(system("receive the terminal"))?;
        fds.into_iter().next().ok_or(StreamError::NoTerminal)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // The directory goes with the container; a socket that stays behind until then harms nobody.
        drop(fs::remove_file(&self.path));
    }
}
