//! Carries a process's standard streams between its client and its pipes, and hashes what passes.
//!
//! Output is hashed whole, delivered or not: a client that stops reading cannot change a receipt. Of standard input only what the
//! process consumed is hashed. Always true: memory is one buffer for each stream, however much passes; and a stream that stands still
//! after its process has ended is given up after [`PATIENCE`].

mod input;
mod output;
mod terminal;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::StreamDigest;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sha2::{Digest as _, Sha256};

use crate::kernel;
use crate::launch::ContainerStreams;
use terminal::Console;

/// Bytes a relay moves at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// Capacity asked of an output pipe; the kernel's default of 64 KiB is kept where it refuses.
const PIPE_BYTES: i32 = 1 << 20;
/// Stack of a relay thread in bytes; its buffer is on the heap.
const STACK_BYTES: usize = 64 * 1024;
/// How long a stream may stand still once its process has ended.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a stream could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A path given by the client could not be opened.
    #[error("could not open {path} for {stream}: {source}")]
    Open {
        /// Which stream.
        stream: &'static str,
        /// The client's path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call of ours failed.
    #[error("could not {deed}: {source}")]
    System {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The container's side of a stream failed.
    #[error("{stream} failed: {source}")]
    Broken {
        /// Which stream.
        stream: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody kept an output stream open and silent after the container's end.
    #[error("{stream} was still open {} seconds after its process had ended", PATIENCE.as_secs())]
    StillOpen {
        /// Which stream.
        stream: &'static str,
    },
    /// A relay thread panicked.
    #[error("the relay of {stream} panicked")]
    Panicked {
        /// Which stream.
        stream: &'static str,
    },
    /// libcontainer did not hand over the terminal.
    #[error("no terminal arrived within {} seconds", PATIENCE.as_secs())]
    NoTerminal,
}

/// Where one stream comes from or goes to.
#[derive(Debug, Default)]
pub enum Stdio {
    /// /dev/null.
    #[default]
    Null,
    /// A FIFO or file of the client.
    Path(PathBuf),
    /// A descriptor of the client.
    Fd(OwnedFd),
}

/// The client's side of a process.
#[derive(Debug, Default)]
pub struct Io {
    /// Source of standard input.
    pub stdin: Stdio,
    /// Sink of standard output, or of everything a terminal shows.
    pub stdout: Stdio,
    /// Sink of standard error; unused with a terminal.
    pub stderr: Stdio,
    /// Give the process a terminal.
    pub terminal: bool,
}

/// What passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Standard input the process consumed.
    pub stdin: StreamDigest,
    /// Standard output, or everything a terminal showed.
    pub stdout: StreamDigest,
    /// Standard error.
    pub stderr: StreamDigest,
    /// The client stopped reading: something was hashed and not delivered.
    pub undelivered: bool,
    /// The streams that stayed open, held by a process that outlived the one they were made for.
    pub left_open: bool,
}

/// Pipes and client ends, before the process exists.
#[derive(Debug)]
pub struct Prepared {
    source: Option<File>,
    out: Option<output::Relay>,
    err: Option<output::Relay>,
    stdin_pipe: Option<OwnedFd>,
    console: Option<Console>,
    container: Option<ContainerStreams>,
    stdout_sink: Option<output::Sink>,
}

impl Prepared {
    /// Opens the client's ends and makes the container's. `socket` is where a console socket may be bound.
    ///
    /// # Errors
    /// [`StreamError::Open`] names the client's path that could not be opened.
    pub fn open(io: Io, socket: &Path) -> Result<Self, StreamError> {
        let source = open_source(io.stdin)?;
        let stdout_sink = output::Sink::open("stdout", io.stdout)?;
        if io.terminal {
            let console = Some(Console::bind(socket)?);
            return Ok(Self {
                source,
                out: None,
                err: None,
                stdin_pipe: None,
                console,
                container: None,
                stdout_sink: Some(stdout_sink),
            });
        }
        let (stdin, stdin_pipe) = match source {
            Some(_) => {
                let (read, write) = pipe(false)?;
                (read, Some(write))
            }
            None => (null(OFlag::O_RDONLY)?, None),
        };
        let (stdout_read, stdout) = pipe(true)?;
        let (stderr_read, stderr) = pipe(true)?;
        Ok(Self {
            source,
            out: Some(output::Relay::new("stdout", stdout_read, stdout_sink)),
            err: Some(output::Relay::new("stderr", stderr_read, output::Sink::open("stderr", io.stderr)?)),
            stdin_pipe,
            console: None,
            container: Some(ContainerStreams { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) }),
            stdout_sink: None,
        })
    }

    /// The container's ends; none with a terminal. To be given to the launcher once.
    pub fn take_container_streams(&mut self) -> ContainerStreams {
        self.container.take().unwrap_or_default()
    }

    /// Path of the socket that wants the terminal.
    pub fn console_socket(&self) -> Option<PathBuf> {
        self.console.as_ref().map(|console| console.path().to_owned())
    }

    /// Starts the relays. With a terminal: the process must exist, so that its terminal has been sent.
    ///
    /// # Errors
    /// [`StreamError::NoTerminal`], or no thread could be started.
    pub fn run(self) -> Result<Streams, StreamError> {
        let Self { source, out, err, stdin_pipe, console, container, stdout_sink } = self;
        drop(container); // or our own copy of a write end would keep the stream open for ever
        let ended = Arc::new(event()?);
        let closing = Arc::new(event()?);
        let terminal = console.map(Console::accept).transpose()?.map(Arc::new);
        let out = match (out, &terminal, stdout_sink) {
            (Some(relay), _, _) => Some(relay),
            (None, Some(terminal), Some(sink)) => Some(output::Relay::new("the terminal", duplicate(terminal)?, sink)),
            (None, _, _) => None,
        };
        let target = match (stdin_pipe, &terminal) {
            (Some(pipe), _) => Some(input::Target::Pipe(pipe)),
            (None, Some(terminal)) => Some(input::Target::Terminal(duplicate(terminal)?)),
            (None, None) => None,
        };
        let stdin = match (source, target) {
            (Some(source), Some(target)) => {
                let relay = input::Relay::new(source, target);
                let (ended, closing) = (Arc::clone(&ended), Arc::clone(&closing));
                Some(spawn("stdin", move || relay.run(&ended, &closing))?)
            }
            _ => None,
        };
        let start = |relay: Option<output::Relay>, name: &'static str| {
            let ended = Arc::clone(&ended);
            relay.map(|relay| spawn(name, move || relay.run(&ended))).transpose()
        };
        let relays = Relays { stdin, out: start(out, "stdout")?, err: start(err, "stderr")? };
        Ok(Streams { terminal, ended, closing, relays: Mutex::new(Some(relays)) })
    }
}

type Thread<T> = JoinHandle<Result<T, StreamError>>;

#[derive(Debug)]
struct Relays {
    stdin: Option<Thread<StreamDigest>>,
    out: Option<Thread<output::Carried>>,
    err: Option<Thread<output::Carried>>,
}

/// The running relays of one process.
#[derive(Debug)]
pub struct Streams {
    terminal: Option<Arc<OwnedFd>>,
    ended: Arc<EventFd>,
    closing: Arc<EventFd>,
    relays: Mutex<Option<Relays>>,
}

impl Streams {
    /// Closes the process's standard input once what the client has written so far is through.
    ///
    /// # Errors
    /// When the relay cannot be told.
    pub fn close_stdin(&self) -> Result<(), StreamError> {
        raise(&self.closing)
    }

    /// Tells the terminal its size in characters; nothing without a terminal.
    ///
    /// # Errors
    /// What the kernel says of a terminal that is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), StreamError> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| {
            kernel::set_window_size(terminal.as_fd(), columns, rows)
                .map_err(|source| StreamError::System { deed: "resize the terminal", source })
        })
    }

    /// Waits until everything that the ended process wrote has passed, and says what passed. A second call waits for nothing and says
    /// `None`.
    ///
    /// # Errors
    /// A stream that broke: nothing can be said of it then.
    pub fn finish(&self) -> Result<Option<Measured>, StreamError> {
        let Some(relays) = self.relays.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(None) };
        raise(&self.ended)?;
        let out = join("stdout", relays.out)?.unwrap_or_default();
        let err = join("stderr", relays.err)?.unwrap_or_default();
        let stdin = join("stdin", relays.stdin)?.unwrap_or_else(nothing);
        let undelivered = out.undelivered || err.undelivered;
        let left_open = out.left_open || err.left_open;
        Ok(Some(Measured { stdin, stdout: out.digest, stderr: err.digest, undelivered, left_open }))
    }
}

/// Digest of a stream that carried nothing.
fn nothing() -> StreamDigest {
    StreamDigest { digest: Sha256Digest::EMPTY, bytes: 0 }
}

/// A running SHA-256 with its length.
#[derive(Debug, Default)]
struct Tally {
    hash: Sha256,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn finish(self) -> StreamDigest {
        StreamDigest { digest: Sha256Digest::from_bytes(self.hash.finalize().into()), bytes: self.bytes }
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, StreamError> + Send + 'static,
) -> Result<Thread<T>, StreamError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(|source| StreamError::System { deed: "start a relay thread", source })
}

fn join<T>(stream: &'static str, thread: Option<Thread<T>>) -> Result<Option<T>, StreamError> {
    thread.map(|thread| thread.join().map_err(|_| StreamError::Panicked { stream })?).transpose()
}

fn event() -> Result<EventFd, StreamError> {
    EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| StreamError::System { deed: "make an event descriptor", source: errno.into() })
}

fn raise(event: &EventFd) -> Result<(), StreamError> {
    event.write(1).map(|_| ()).map_err(|errno| StreamError::System { deed: "raise an event", source: errno.into() })
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, StreamError> {
    fd.try_clone().map_err(|source| StreamError::System { deed: "duplicate the terminal", source })
}

/// A close-on-exec pipe: the container's end blocks as programs expect, ours does not. For output ours is the read end.
fn pipe(output: bool) -> Result<(OwnedFd, OwnedFd), StreamError> {
    let system = |errno: Errno| StreamError::System { deed: "make a pipe", source: errno.into() };
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(system)?;
    set_nonblocking(if output { read.as_fd() } else { write.as_fd() })?;
    if output {
        match fcntl(read.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
            // EPERM: the user's pipes already hold their share; a smaller pipe is only slower.
            Ok(_) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(system(errno)),
        }
    }
    Ok((read, write))
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), StreamError> {
    let system = |errno: Errno| StreamError::System { deed: "make a stream non-blocking", source: errno.into() };
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).map_err(system)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(system)?;
    Ok(())
}

fn null(flags: OFlag) -> Result<OwnedFd, StreamError> {
    nix::fcntl::open("/dev/null", flags | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .map_err(|errno| StreamError::System { deed: "open /dev/null", source: errno.into() })
}

/// Opens the client's input. A FIFO without a writer yet is waited for by the relay, not here.
fn open_source(stdin: Stdio) -> Result<Option<File>, StreamError> {
    match stdin {
        Stdio::Null => Ok(None),
        Stdio::Fd(fd) => Ok(Some(File::from(fd))),
        Stdio::Path(path) => OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .map(Some)
            .map_err(|source| StreamError::Open { stream: "stdin", path, source }),
    }
}

/// What `wait` saw first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// The stream is ready, or has hung up.
    Ready,
    /// One of the events was raised: its index, the lowest first.
    Event(usize),
    /// Nothing for as long as was allowed.
    Silence,
}

/// Waits for `events` on `stream` or for one of `raised`.
fn wait(
    stream: BorrowedFd<'_>,
    events: PollFlags,
    raised: &[&EventFd],
    patience: Option<Duration>,
) -> io::Result<Woken> {
    let mut watched = vec![PollFd::new(stream, events)];
    watched.extend(raised.iter().map(|event| PollFd::new(event.as_fd(), PollFlags::POLLIN)));
    let timeout = patience.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    loop {
        match poll(&mut watched, timeout) {
            Ok(0) => return Ok(Woken::Silence),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut woken = watched.iter().map(|one| one.any().unwrap_or(true));
        let stream_ready = woken.next().unwrap_or(true);
        // An event goes first: a stream that is always ready must not hide it.
        match woken.position(|raised| raised) {
            Some(index) => return Ok(Woken::Event(index)),
            None if stream_ready => return Ok(Woken::Ready),
            None => {}
        }
    }
}

fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// Opens what `fd` stands for once more, so that its flags are ours alone. `None` for what cannot be reopened, like a socket, and for
/// a regular file: there the offset must stay shared with whoever else writes through the descriptor, and writes never block.
fn reopen(fd: BorrowedFd<'_>, options: &mut OpenOptions) -> Option<File> {
    if nix::sys::stat::fstat(fd).ok()?.st_mode & libc::S_IFMT == libc::S_IFREG {
        return None;
    }
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
    options.open(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
}
