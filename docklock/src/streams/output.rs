//! One output stream: container pipe (or terminal) → hash → client.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bpi_protocol::run::StreamDigest;
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;

use super::{BUFFER_BYTES, PATIENCE, Stdio, StreamError, Tally, Woken, is_fifo, reopen, set_nonblocking, wait};

/// The client's end of an output stream.
#[derive(Debug)]
pub(super) enum Sink {
    /// Nobody wants it.
    Discard,
    /// A file, FIFO or terminal of our own opening: its writes do not block.
    File(File),
    /// A descriptor that could not be reopened: its writes may block as long as the client likes.
    Shared(File),
}

impl Sink {
    pub(super) fn open(stream: &'static str, stdio: Stdio) -> Result<Self, StreamError> {
        match stdio {
            Stdio::Null => Ok(Self::Discard),
            Stdio::Path(path) => {
                open_path(&path).map(Self::File).map_err(|source| StreamError::Open { stream, path, source })
            }
            Stdio::Fd(fd) => Ok(match reopen(fd.as_fd(), OpenOptions::new().append(true)) {
                Some(file) => Self::File(file),
                None => Self::Shared(File::from(fd)),
            }),
        }
    }

    /// Delivers all of `bytes`; `false` when the client is gone or stood still for too long after the process's end.
    fn deliver(&mut self, mut bytes: &[u8], ended: &EventFd) -> io::Result<bool> {
        let file = match self {
            Self::Discard => return Ok(true),
            Self::Shared(file) => return Ok(file.write_all(bytes).is_ok()),
            Self::File(file) => file,
        };
        let mut patience = None;
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return Ok(false),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let events: &[&EventFd] = if patience.is_none() { &[ended] } else { &[] };
                    match wait(file.as_fd(), PollFlags::POLLOUT, events, patience)? {
                        Woken::Ready => {}
                        Woken::Event(_) => patience = Some(PATIENCE),
                        Woken::Silence => return Ok(false),
                    }
                }
                // The client closed its end, or its disk is full: the run is not its hostage.
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A FIFO is opened for both directions: that never waits for a reader, and survives a client that comes back.
fn open_path(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
    if is_fifo(path) {
        options.read(true).write(true)
    } else {
        options.append(true).create(true).mode(0o640)
    };
    options.open(path)
}

/// What an output stream carried.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) digest: StreamDigest,
    pub(super) undelivered: bool,
    pub(super) left_open: bool,
}

impl Default for Carried {
    fn default() -> Self {
        Self { digest: super::nothing(), undelivered: false, left_open: false }
    }
}

/// A relay that has not started.
#[derive(Debug)]
pub(super) struct Relay {
    name: &'static str,
    source: File,
    sink: Sink,
}

impl Relay {
    pub(super) fn new(name: &'static str, source: OwnedFd, sink: Sink) -> Self {
        Self { name, source: File::from(source), sink }
    }

    /// Carries until the last writer has closed.
    pub(super) fn run(mut self, ended: &EventFd) -> Result<Carried, StreamError> {
        let stream = self.name;
        let broken = |source| StreamError::Broken { stream, source };
        set_nonblocking(self.source.as_fd())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut tally = Tally::default();
        let (mut undelivered, mut left_open) = (false, false);
        let mut patience = None;
        loop {
            match self.source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    tally.add(&buffer[..length]);
                    if !undelivered && !self.sink.deliver(&buffer[..length], ended).map_err(broken)? {
                        undelivered = true;
                        self.sink = Sink::Discard;
                    }
                }
                // A terminal's last holder has closed it (pty(7)).
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let events: &[&EventFd] = if patience.is_none() { &[ended] } else { &[] };
                    match wait(self.source.as_fd(), PollFlags::POLLIN, events, patience).map_err(broken)? {
                        Woken::Ready => {}
                        Woken::Event(_) => patience = Some(PATIENCE),
                        Woken::Silence => {
                            left_open = true;
                            break;
                        }
                    }
                }
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(Carried { digest: tally.finish(), undelivered, left_open })
    }
}
