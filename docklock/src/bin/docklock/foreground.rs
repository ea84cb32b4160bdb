//! What a command in the foreground owes its terminal and its signals.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use docklock::task::Task;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::failure::Failure;

/// Signals that end or change a foreground command, and so belong to the container.
const PASSED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Sends the log to standard error, at the configured level and above. Of what libcontainer says only errors are for a person;
/// `debug` and `trace` show the rest.
pub(crate) fn log_to_stderr(level: &str) {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    let theirs = if level >= LevelFilter::DEBUG { level } else { level.min(LevelFilter::ERROR) };
    let targets =
        Targets::new().with_default(level).with_target("libcontainer", theirs).with_target("libcgroups", theirs);
    let to_stderr =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).without_time();
    tracing_subscriber::registry().with(to_stderr).with(targets).init();
}

/// This terminal in raw mode, until it is dropped: keys go to the container's terminal, which echoes and edits.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Standard input's terminal; `None` when that is none.
    pub(crate) fn of_stdin() -> Result<Option<Self>, Failure> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed =
            |errno: nix::errno::Errno| Failure::System { deed: "set the terminal to raw mode", source: errno.into() };
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before) {
            tracing::warn!(%errno, "the terminal could not be set back; `reset` does it");
        }
    }
}

/// Signals that wait for a task to be passed to.
pub(crate) struct Signals(SigSet);

impl Signals {
    /// Holds the signals back in this thread and those it starts from now on: a thread of the engine that did not would be
    /// ended by the first of them. To be called after the launcher was forked, or every container would start with this mask.
    pub(crate) fn hold() -> Result<Self, Failure> {
        let set: SigSet = PASSED.into_iter().collect();
        set.thread_block().map_err(|errno| Failure::System { deed: "hold signals back", source: errno.into() })?;
        Ok(Self(set))
    }

    /// Passes them to the task from now to the end of this process.
    pub(crate) fn pass_to(self, task: &Arc<Task>, terminal: bool) -> Result<(), Failure> {
        let Self(set) = self;
        let task = Arc::clone(task);
        if terminal {
            resize(&task);
        }
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || pass_all(&set, &task, terminal))
            .map(drop)
            .map_err(|source| Failure::System { deed: "start the signal thread", source })
    }
}

fn pass_all(set: &SigSet, task: &Task, terminal: bool) {
    loop {
        match set.wait() {
            Ok(Signal::SIGWINCH) if terminal => resize(task),
            Ok(Signal::SIGWINCH) => {}
            Ok(signal) => {
                if let Err(error) = task.signal(signal as i32, false) {
                    tracing::debug!(%error, %signal, "a signal found no process");
                }
            }
            Err(errno) => {
                tracing::error!(%errno, "signals are no longer passed on");
                return;
            }
        }
    }
}

/// Gives the container's terminal the size of ours.
fn resize(task: &Task) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) => {
            if let Err(error) = task.resize(size.ws_col, size.ws_row) {
                tracing::debug!(%error, "the container's terminal kept its size");
            }
        }
        Err(error) => tracing::debug!(%error, "standard output has no size"),
    }
}
