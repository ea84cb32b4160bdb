//! `oci start`, `kill`, `delete`, `pause`, `resume` and `exec`: questions to the monitor.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use docklock::spool::Boundary;
use docklock::task::clean_up_orphan;
use nix::sys::signal::{SigSet, Signal};
use oci_spec::runtime::{Process, ProcessBuilder, UserBuilder};
use serde_json::Value;

use super::Setting;
use super::client::Monitor;
use super::create::write_pid;
use super::protocol::Request;
use crate::failure::Failure;

pub(super) fn start(setting: &Setting, id: &str) -> Result<u8, Failure> {
    Monitor::of(setting, id)?.ask(&Request::Start)?;
    Ok(0)
}

pub(super) fn pause(setting: &Setting, id: &str) -> Result<u8, Failure> {
    Monitor::of(setting, id)?.ask(&Request::Pause)?;
    Ok(0)
}

pub(super) fn resume(setting: &Setting, id: &str) -> Result<u8, Failure> {
    Monitor::of(setting, id)?.ask(&Request::Resume)?;
    Ok(0)
}

pub(super) fn kill(setting: &Setting, arguments: &liboci_cli::Kill) -> Result<u8, Failure> {
    let signal = signal_number(&arguments.signal)?;
    Monitor::of(setting, &arguments.container_id)?.ask(&Request::Kill { signal, all: arguments.all })?;
    Ok(0)
}

/// A name with or without `SIG`, in any case, or a number from 1 to 64 (real-time signals have no fixed names).
fn signal_number(text: &str) -> Result<i32, Failure> {
    let refused = || Failure::Signal { signal: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(refused()) };
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&name).map(|signal| signal as i32).map_err(|_| refused())
}

pub(super) fn delete(setting: &Setting, id: &str, force: bool) -> Result<u8, Failure> {
    match Monitor::of(setting, id).and_then(|monitor| monitor.ask(&Request::Delete { force })) {
        Ok(_) => Ok(0),
        // Its guardian has killed what it held; what is left is closed and removed here.
        Err(Failure::MonitorGone { .. }) => {
            clean_up_orphan(&setting.config, &Boundary::local(), id)?;
            let home = setting.home(id)?;
            match fs::remove_dir_all(&home) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Failure::File { deed: "remove", path: home, source: error })
                }
                _ => Ok(0),
            }
        }
        // As with rm -f: what is not there is deleted.
        Err(Failure::NoSuchContainer { .. }) if force => Ok(0),
        Err(failure) => Err(failure),
    }
}

pub(super) fn exec(setting: &Setting, arguments: liboci_cli::Exec) -> Result<u8, Failure> {
    if arguments.preserve_fds != 0 {
        return Err(Failure::Unsupported {
            what: "--preserve-fds",
            remedy: "a caged process gets its three standard streams and nothing else",
        });
    }
    let monitor = Monitor::of(setting, &arguments.container_id)?;
    let (detach, pid_file, console_socket) =
        (arguments.detach, arguments.pid_file.clone(), arguments.console_socket.clone());
    let process = Box::new(process(arguments)?);
    let streams: Vec<OwnedFd> = match console_socket {
        Some(_) => Vec::new(),
        None => [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()]
            .into_iter()
            .map(|fd| fd.try_clone_to_owned())
            .collect::<Result<_, _>>()
            .map_err(|source| Failure::System { deed: "copy the standard streams", source })?,
    };
    let exec_id = format!("exec-{}", std::process::id());
    let started = monitor.ask_with(&Request::Exec { exec_id, process, console_socket }, &streams)?;
    drop(streams);
    if let Some(path) = pid_file {
        write_pid(&path, started.get("pid").and_then(Value::as_u64).unwrap_or_default())?;
    }
    if detach { Ok(0) } else { monitor.answer().map(|value| status_in(&value)) }
}

/// The process to start: a whole process.json, or the command with what the options say.
fn process(arguments: liboci_cli::Exec) -> Result<Process, Failure> {
    if let Some(path) = arguments.process {
        let bytes = fs::read(&path).map_err(|source| Failure::File { deed: "read", path: path.clone(), source })?;
        return serde_json::from_slice(&bytes).map_err(|error| Failure::Bundle { path, reason: error.to_string() });
    }
    if arguments.command.is_empty() {
        return Err(Failure::Unsupported {
            what: "exec without a command",
            remedy: "name a command, or a file with --process",
        });
    }
    let (uid, gid) = arguments.user.map_or((0, 0), |(uid, gid)| (uid, gid.unwrap_or(uid)));
    let refused =
        |error: oci_spec::OciSpecError| Failure::System { deed: "build the process", source: io::Error::other(error) };
    let user =
        UserBuilder::default().uid(uid).gid(gid).additional_gids(arguments.additional_gids).build().map_err(refused)?;
    ProcessBuilder::default()
        .args(arguments.command)
        .env(arguments.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
        .cwd(arguments.cwd.unwrap_or_else(|| "/".into()))
        .terminal(arguments.tty)
        .user(user)
        .no_new_privileges(true)
        .build()
        .map_err(refused)
}

/// The exit status in a monitor's answer.
pub(super) fn status_in(value: &Value) -> u8 {
    value.get("status").and_then(Value::as_u64).and_then(|status| u8::try_from(status).ok()).unwrap_or(u8::MAX)
}

/// Passes the signals that would end this command to the container, over connections of their own.
pub(super) fn pass_signals_on(setting: &Setting, id: &str) -> Result<(), Failure> {
    let failed = |source| Failure::System { deed: "pass signals on", source };
    let set: SigSet =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2]
            .into_iter()
            .collect();
    set.thread_block().map_err(|errno| failed(errno.into()))?;
    let setting = Setting { config: setting.config.clone(), config_file: None, root: None };
    let id = id.to_owned();
    let pass = move || {
        while let Ok(signal) = set.wait() {
            let asked = Monitor::of(&setting, &id)
                .and_then(|monitor| monitor.ask(&Request::Kill { signal: signal as i32, all: false }));
            if let Err(failure) = asked {
                // It may have ended just now; then the main thread says how.
                tracing::debug!(%failure, "a signal found no process");
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(pass).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_signal_has_a_name_in_any_case_or_a_number() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("64", 64)] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-9", "SIG", "SIGSIGTERM", "KILLER"] {
            assert_eq!(signal_number(text).unwrap_err().code(), "DL0712", "{text}");
        }
    }
}
