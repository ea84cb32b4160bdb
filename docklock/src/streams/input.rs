//! Standard input: client → container pipe or terminal, hashing what the process consumed.
//!
//! What the relay has written says nothing about what the program read: a pipe holds 64 KiB, and how much of it is filled when a program
//! ends early is chance. So the bytes that may still lie in the pipe are kept aside, and hashed once they have left it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use bpi_protocol::run::StreamDigest;
use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;

use super::{StreamError, Tally, Woken, reopen, wait};
use crate::kernel;

/// Bytes moved at once: what a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where the input goes.
#[derive(Debug)]
pub(super) enum Target {
    /// The write end of the process's pipe.
    Pipe(OwnedFd),
    /// The master of its terminal.
    Terminal(OwnedFd),
}

/// A relay that has not started.
#[derive(Debug)]
pub(super) struct Relay {
    source: File,
    target: File,
    consumed: Consumed,
}

/// Hashes what has left the pipe; keeps aside what may still be in it.
#[derive(Debug)]
struct Consumed {
    pipe: bool,
    tally: Tally,
    in_pipe: VecDeque<u8>,
}

impl Consumed {
    fn written(&mut self, bytes: &[u8]) {
        if self.pipe { self.in_pipe.extend(bytes) } else { self.tally.add(bytes) }
    }

    /// Hashes everything but the last `waiting` bytes.
    fn settle(&mut self, waiting: usize) {
        let gone = self.in_pipe.len().saturating_sub(waiting);
        let (front, back) = self.in_pipe.as_slices();
        let from_front = gone.min(front.len());
        self.tally.add(&front[..from_front]);
        self.tally.add(&back[..gone - from_front]);
        self.in_pipe.drain(..gone);
    }
}

impl Relay {
    pub(super) fn new(source: File, target: Target) -> Self {
        let (target, pipe) = match target {
            Target::Pipe(fd) => (File::from(fd), true),
            Target::Terminal(fd) => (File::from(fd), false),
        };
        Self { source, target, consumed: Consumed { pipe, tally: Tally::default(), in_pipe: VecDeque::new() } }
    }

    /// Carries until the client closes, `closing` is raised and nothing is left, or the process has `ended`.
    pub(super) fn run(mut self, ended: &EventFd, closing: &EventFd) -> Result<StreamDigest, StreamError> {
        let broken = |source| StreamError::Broken { stream: "stdin", source };
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut draining = false;
        loop {
            let raised: &[&EventFd] = if draining { &[ended] } else { &[ended, closing] };
            let patience = draining.then_some(std::time::Duration::ZERO);
            match wait(self.source.as_fd(), PollFlags::POLLIN, raised, patience).map_err(broken)? {
                Woken::Silence => break,
                Woken::Event(0) => break,
                Woken::Event(_) => draining = true,
                Woken::Ready => match self.source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => {
                        if !self.pass_on(&buffer[..length], ended).map_err(broken)? {
                            break;
                        }
                    }
                    Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                    // A client's terminal that hung up is the end of input, as is EIO of a background job.
                    Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                    Err(error) => return Err(broken(error)),
                },
            }
        }
        self.finish(ended).map_err(broken)
    }

    /// Writes all of `bytes`; `false` when the process closed its end or has ended.
    fn pass_on(&mut self, mut bytes: &[u8], ended: &EventFd) -> io::Result<bool> {
        while !bytes.is_empty() {
            match self.target.write(bytes) {
                Ok(written) => {
                    self.consumed.written(&bytes[..written]);
                    bytes = &bytes[written..];
                    if self.consumed.pipe {
                        self.consumed.settle(kernel::bytes_waiting(self.target.as_fd())?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if wait(self.target.as_fd(), PollFlags::POLLOUT, &[ended], None)? != Woken::Ready {
                        return Ok(false);
                    }
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Lets the process see the end of its input, and waits for its own end, when it is known what it consumed.
    fn finish(self, ended: &EventFd) -> io::Result<StreamDigest> {
        let Self { source, target, mut consumed } = self;
        drop(source);
        if !consumed.pipe {
            return Ok(consumed.tally.finish());
        }
        // A read end of our own outlives the write end: the reader sees the end of file, and the pipe can still be asked what it holds.
        let watcher = reopen(target.as_fd(), OpenOptions::new().read(true))
            .ok_or_else(|| io::Error::other("the pipe could not be reopened"))?;
        drop(target);
        wait(ended.as_fd(), PollFlags::POLLIN, &[], None)?;
        consumed.settle(kernel::bytes_waiting(watcher.as_fd())?);
        Ok(consumed.tally.finish())
    }
}
