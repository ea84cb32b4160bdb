//! `oci create` and `oci run`: a monitor that outlives this command.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use docklock::task::TaskError;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::Value;

use super::client::Monitor;
use super::protocol::{self, Order, Reply, Request};
use super::{Setting, lifecycle};
use crate::failure::Failure;

pub(super) fn run(setting: &Setting, arguments: liboci_cli::Create) -> Result<u8, Failure> {
    refuse_preserved(arguments.preserve_fds)?;
    let order =
        order(arguments.container_id, &arguments.bundle, arguments.console_socket.as_deref(), arguments.no_pivot)?;
    create(setting, &order, arguments.pid_file.as_deref())?;
    Ok(0)
}

pub(super) fn create_and_run(setting: &Setting, arguments: liboci_cli::Run) -> Result<u8, Failure> {
    refuse_preserved(arguments.preserve_fds)?;
    let id = arguments.container_id.clone();
    let order =
        order(arguments.container_id, &arguments.bundle, arguments.console_socket.as_deref(), arguments.no_pivot)?;
    create(setting, &order, arguments.pid_file.as_deref())?;
    let monitor = Monitor::of(setting, &id)?;
    if let Err(failure) = monitor.ask(&Request::Start) {
        monitor.ask(&Request::Delete { force: true })?;
        return Err(failure);
    }
    if arguments.detach {
        return Ok(0);
    }
    lifecycle::pass_signals_on(setting, &id)?;
    let status = lifecycle::status_in(&monitor.ask(&Request::Wait)?);
    if !arguments.keep {
        monitor.ask(&Request::Delete { force: false })?;
    }
    Ok(status)
}

fn refuse_preserved(count: i32) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    Err(Failure::Unsupported {
        what: "--preserve-fds",
        remedy: "a caged process gets its three standard streams and nothing else",
    })
}

fn order(id: String, bundle: &Path, console_socket: Option<&Path>, no_pivot: bool) -> Result<Order, Failure> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| Failure::File { deed: "resolve", path: path.to_path_buf(), source })
    };
    let (_, terminal) = crate::commands::run::rootfs_of(bundle)?;
    match (terminal, console_socket) {
        (true, None) => {
            return Err(Failure::Unsupported {
                what: "process.terminal without --console-socket",
                remedy: "name a socket that takes the terminal",
            });
        }
        (false, Some(_)) => {
            return Err(Failure::Unsupported {
                what: "--console-socket without process.terminal",
                remedy: "set process.terminal in config.json",
            });
        }
        _ => {}
    }
    Ok(Order { id, bundle: absolute(bundle)?, console_socket: console_socket.map(absolute).transpose()?, no_pivot })
}

/// Starts a monitor and waits until it holds the container. A failure leaves nothing behind.
fn create(setting: &Setting, order: &Order, pid_file: Option<&Path>) -> Result<(), Failure> {
    let home = setting.home(&order.id)?;
    make_home(&home, &order.id)?;
    let made = start_monitor(setting, order).and_then(|pid| match pid_file {
        Some(path) => write_pid(path, pid).inspect_err(|_| abandon(setting, &order.id)),
        None => Ok(()),
    });
    if made.is_err() {
        match fs::remove_dir_all(&home) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::File { deed: "remove", path: home, source: error });
            }
            _ => {}
        }
    }
    made
}

/// Deletes a container whose creation cannot be told to anybody. The first failure is what the caller hears of.
fn abandon(setting: &Setting, id: &str) {
    if let Err(failure) = lifecycle::delete(setting, id, true) {
        failure.report();
    }
}

fn make_home(home: &Path, id: &str) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Failure::File { deed: "make the folder", path, source }
    };
    if let Some(parent) = home.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed(parent))?;
    }
    match DirBuilder::new().mode(0o700).create(home) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(TaskError::Exists { id: id.to_owned(), dir: home.to_path_buf() }.into())
        }
        other => other.map_err(failed(home)),
    }
}

/// The process id of the container that the new monitor holds.
fn start_monitor(setting: &Setting, order: &Order) -> Result<u64, Failure> {
    let failed = |deed| move |source| Failure::System { deed, source };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Failure::System { deed: "make a socket pair", source: errno.into() })?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("docklock");
    if let Some(config) = &setting.config_file {
        command.arg("--config").arg(config);
    }
    command.arg("oci");
    if let Some(root) = &setting.root {
        command.arg("--root").arg(root);
    }
    command.arg("monitor").current_dir("/");
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    // Sent first, so that it waits in the socket: a monitor that fails at once would otherwise be gone before it could be told.
    let streams = [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()].map(copy);
    let streams: Vec<OwnedFd> = streams.into_iter().collect::<Result<_, _>>()?;
    protocol::send(ours.as_fd(), order, &streams)?;
    drop(streams);
    // Not waited for: it outlives this command, and init reaps it.
    command.spawn().map_err(failed("start the monitor"))?;
    drop(command);
    match protocol::receive::<Reply>(ours.as_fd())? {
        Some((reply, _)) => Ok(reply.into_result()?.get("pid").and_then(Value::as_u64).unwrap_or_default()),
        None => {
            Err(Failure::Monitor { id: order.id.clone(), problem: "ended before it held the container".to_owned() })
        }
    }
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    fd.try_clone_to_owned().map_err(|source| Failure::System { deed: "copy a standard stream", source })
}

/// Written aside and renamed, since whoever waits for this file reads it at once.
pub(super) fn write_pid(path: &Path, pid: u64) -> Result<(), Failure> {
    let failed = |source| Failure::File { deed: "write the process id to", path: path.to_path_buf(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let aside = std::path::PathBuf::from(name);
    fs::File::create(&aside).and_then(|mut file| write!(file, "{pid}")).map_err(failed)?;
    fs::rename(&aside, path).map_err(failed)
}
