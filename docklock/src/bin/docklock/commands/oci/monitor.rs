//! The monitor: one process that holds one container from `oci create` to `oci delete`.
//!
//! Its standard input is a socket to the `create` that started it. It takes one order there, makes the container, answers with the
//! process id or the failure, and serves the control socket from then on. Always true: it answers only when the control socket can
//! be reached, and after a failure nothing of it is left. If it is killed, the engine's guardian ends what it held.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use docklock::config::Config;
use docklock::spool::Boundary;
use docklock::task::{CreateRequest, Engine, Exec, ExecRequest, Io, Status, Stdio, Task};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use serde_json::{Value, json};

use super::client::SOCKET;
use super::protocol::{self, Order, Reply, Request};
use super::{Setting, home};
use crate::failure::Failure;

/// Most clients served at once; only root reaches the socket, and each waits for one answer.
const CLIENTS_MAX: usize = 64;

/// One container and what belongs to it.
struct Held {
    engine: Engine,
    task: Arc<Task>,
    bundle: PathBuf,
    home: PathBuf,
}

pub(super) fn run(config_file: Option<PathBuf>, root: Option<PathBuf>) -> Result<u8, Failure> {
    let failed = |deed| move |errno: nix::errno::Errno| Failure::System { deed, source: errno.into() };
    let parent = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| Failure::System { deed: "take the socket", source })?;
    // The launcher inherits our standard input; it must not hold the line to our parent.
    let null = std::fs::File::open("/dev/null").map_err(|source| Failure::System { deed: "open /dev/null", source })?;
    nix::unistd::dup2_stdin(&null).map_err(failed("close the socket"))?;
    // A session of our own: a terminal's Ctrl-C is for the command in the foreground.
    nix::unistd::setsid().map_err(failed("leave the session"))?;
    // The engine forks its launcher before the client's streams arrive: a copy there would keep them open to the very end.
    let started = start_engine(config_file, root);
    // Taken even after a failure: a socket that is closed with something unread drops the answer on its way.
    let order = protocol::receive::<Order>(parent.as_fd())?;
    let prepared = match (started, order) {
        (Ok((config, engine)), Some((order, streams))) => prepare(&config, engine, order, streams),
        (Ok((_, engine)), None) => {
            engine.shut_down()?;
            Err(Failure::Unsupported { what: "monitor by hand", remedy: "use `docklock oci create`" })
        }
        (Err(failure), _) => Err(failure),
    };
    match prepared {
        Ok((held, listener)) => {
            protocol::send(parent.as_fd(), &Reply::Done(json!({ "pid": held.task.pid() })), &[])?;
            drop(parent);
            serve(&Arc::new(held), &listener)
        }
        Err(failure) => {
            protocol::send(parent.as_fd(), &Reply::of(Err(failure)), &[])?;
            Ok(1)
        }
    }
}

fn start_engine(config_file: Option<PathBuf>, root: Option<PathBuf>) -> Result<(Config, Engine), Failure> {
    let Setting { config, .. } = Setting::new(config_file, root)?;
    let engine = Engine::start(config.clone())?;
    Ok((config, engine))
}

/// Makes the container and the socket; after a failure the engine is shut down.
fn prepare(config: &Config, engine: Engine, order: Order, streams: Vec<OwnedFd>) -> Result<(Held, OwnedFd), Failure> {
    let bundle = order.bundle.clone();
    let made = home(config, &order.id).and_then(|home| {
        let listener = listen_at(&home.join(SOCKET))?;
        let task = engine.create(request(order, streams)?)?;
        Ok((home, listener, task))
    });
    match made {
        Ok((home, listener, task)) => Ok((Held { engine, task, bundle, home }, listener)),
        Err(failure) => {
            engine.shut_down()?;
            Err(failure)
        }
    }
}

fn request(order: Order, streams: Vec<OwnedFd>) -> Result<CreateRequest, Failure> {
    let (rootfs, terminal) = crate::commands::run::rootfs_of(&order.bundle)?;
    let io = match &order.console_socket {
        Some(socket) => console(socket)?,
        None => Io { terminal, ..given(streams)? },
    };
    Ok(CreateRequest {
        id: order.id,
        boundary: Boundary::local(),
        bundle: order.bundle,
        rootfs,
        layer: None,
        io,
        profile: None,
        image: Box::new(|| Ok(None)),
        no_pivot: order.no_pivot,
        seed: None,
        trace_log: None,
    })
}

fn listen_at(path: &Path) -> Result<OwnedFd, Failure> {
    let failed = |errno: Errno| Failure::File { deed: "listen at", path: path.to_path_buf(), source: errno.into() };
    let listener =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed)?;
    bind(&listener, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|source| Failure::File {
        deed: "guard",
        path: path.to_path_buf(),
        source,
    })?;
    listen(&listener, 16).map_err(failed)?;
    Ok(listener)
}

/// The three streams that came with a message.
fn given(streams: Vec<OwnedFd>) -> Result<Io, Failure> {
    let count = streams.len();
    match <[OwnedFd; 3]>::try_from(streams) {
        Ok([stdin, stdout, stderr]) => {
            Ok(Io { stdin: Stdio::Fd(stdin), stdout: Stdio::Fd(stdout), stderr: Stdio::Fd(stderr), terminal: false })
        }
        Err(_) => Err(Failure::System {
            deed: "take the standard streams",
            source: std::io::Error::other(format!("{count} descriptors came instead of 3")),
        }),
    }
}

/// A terminal whose controlling end goes to the caller's socket, as runc does it. The engine keeps a terminal of its own for the
/// process, because everything it shows is hashed; this one, in raw mode, carries the bytes on.
fn console(path: &Path) -> Result<Io, Failure> {
    let failed = |errno: nix::errno::Errno| Failure::File {
        deed: "hand a terminal to",
        path: path.to_path_buf(),
        source: errno.into(),
    };
    let io_failed = |source| Failure::File { deed: "hand a terminal to", path: path.to_path_buf(), source };
    let pair = nix::pty::openpty(None, None).map_err(failed)?;
    let mut raw = tcgetattr(&pair.slave).map_err(failed)?;
    cfmakeraw(&mut raw);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &raw).map_err(failed)?;
    let stream = std::os::unix::net::UnixStream::connect(path).map_err(io_failed)?;
    docklock::kernel::send_with_fds(stream.as_fd(), b"/dev/ptmx", &[pair.master.as_raw_fd()]).map_err(io_failed)?;
    let stdin = pair.slave.try_clone().map_err(io_failed)?;
    Ok(Io { stdin: Stdio::Fd(stdin), stdout: Stdio::Fd(pair.slave), stderr: Stdio::Null, terminal: true })
}

/// Serves clients until one deletes the container.
fn serve(held: &Arc<Held>, listener: &OwnedFd) -> Result<u8, Failure> {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(client) => client,
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(errno) => return Err(Failure::System { deed: "accept a client", source: errno.into() }),
        };
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (held, clients) = (Arc::clone(held), Arc::clone(&clients));
        let conversation = move || {
            if let Err(failure) = converse(&held, &client) {
                tracing::debug!(%failure, "a client hung up");
            }
            clients.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new()
            .name("client".to_owned())
            .spawn(conversation)
            .map_err(|source| Failure::System { deed: "start a thread", source })?;
    }
}

/// Answers everything one client asks.
fn converse(held: &Held, client: &OwnedFd) -> Result<(), Failure> {
    while let Some((request, fds)) = protocol::receive::<Request>(client.as_fd())? {
        match request {
            Request::Exec { exec_id, process, console_socket } => {
                let io = match &console_socket {
                    Some(path) => console(path),
                    None => given(fds),
                };
                let started = io.and_then(|io| start_exec(held, exec_id, *process, io));
                let (exec, reply) = match started {
                    Ok(exec) => (Some(Arc::clone(&exec)), Ok(json!({ "pid": exec.pid() }))),
                    Err(failure) => (None, Err(failure)),
                };
                protocol::send(client.as_fd(), &Reply::of(reply), &[])?;
                if let Some(exec) = exec {
                    let exit = exec.wait();
                    exec.delete()?;
                    protocol::send(client.as_fd(), &Reply::Done(json!({ "status": exit.status })), &[])?;
                }
            }
            Request::Delete { force } => {
                let deleted = delete(held, force);
                let done = deleted.is_ok();
                let told = protocol::send(client.as_fd(), &Reply::of(deleted), &[]);
                if done {
                    std::process::exit(0);
                }
                told?;
            }
            other => protocol::send(client.as_fd(), &Reply::of(answer(held, &other)), &[])?,
        }
    }
    Ok(())
}

fn start_exec(held: &Held, exec_id: String, process: oci_spec::runtime::Process, io: Io) -> Result<Arc<Exec>, Failure> {
    let terminal = process.terminal().unwrap_or(false);
    let exec = held.task.exec(ExecRequest { exec_id, process, io: Io { terminal, ..io } })?;
    exec.start()?;
    Ok(exec)
}

fn answer(held: &Held, request: &Request) -> Result<Value, Failure> {
    let task = &held.task;
    match request {
        Request::Start => task.start().map(|()| Value::Null).map_err(Failure::from),
        Request::State => Ok(state(held)),
        Request::Kill { signal, all } => {
            if task.status() == Status::Stopped {
                return Err(wrong_state(task, "it has no process to signal"));
            }
            Ok(task.signal(*signal, *all).map(|()| Value::Null)?)
        }
        Request::Pause => Ok(task.pause().map(|()| Value::Null)?),
        Request::Resume => Ok(task.resume().map(|()| Value::Null)?),
        Request::Ps => Ok(json!(task.pids())),
        Request::Wait => {
            let exit = task.wait();
            match exit.seal {
                Ok(_) => Ok(json!({ "status": exit.status })),
                Err(reason) => Err(Failure::NoReceipt { status: exit.status, reason }),
            }
        }
        Request::Delete { .. } | Request::Exec { .. } => Ok(Value::Null),
    }
}

/// The state document of the runtime specification (runtime.md, State).
fn state(held: &Held) -> Value {
    let task = &held.task;
    let status = task.status();
    let mut state = json!({
        "ociVersion": "1.2.0",
        "id": task.id(),
        "status": word(status),
        "bundle": held.bundle,
        "annotations": {},
    });
    if status != Status::Stopped {
        state["pid"] = json!(task.pid());
    }
    if let Some(Ok(receipt)) = task.exit().map(|exit| exit.seal) {
        state["annotations"] = json!({ "io.bpi.docklock.receipt": receipt.path });
    }
    state
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped => "stopped",
    }
}

fn wrong_state(task: &Task, remedy: &'static str) -> Failure {
    Failure::ContainerState { id: task.id().to_owned(), state: word(task.status()).to_owned(), remedy }
}

fn delete(held: &Held, force: bool) -> Result<Value, Failure> {
    if held.task.status() != Status::Stopped && !force {
        return Err(wrong_state(&held.task, "kill it first, or use --force"));
    }
    held.task.delete()?;
    held.engine.shut_down()?;
    std::fs::remove_dir_all(&held.home).map_err(|source| Failure::File {
        deed: "remove",
        path: held.home.clone(),
        source,
    })?;
    Ok(Value::Null)
}
