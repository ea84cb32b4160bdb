//! What a command in the foreground owes its terminal and its signals.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// Requests to end after which the container is killed.
const PATIENCE: u32 = 3;

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

    /// Passes them on from now to the end of this process, to whichever container is attended to.
    pub(crate) fn pass(self, terminal: bool) -> Result<Arc<Attended>, Failure> {
        let Self(set) = self;
        let attended = Arc::new(Attended::default());
        let passing = Arc::clone(&attended);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || pass_all(&set, &passing, terminal))
            .map_err(|source| Failure::System { deed: "start the signal thread", source })?;
        Ok(attended)
    }
}

/// The container that gets this command's signals. One that arrives between two containers waits for the next.
#[derive(Default)]
pub(crate) struct Attended {
    state: Mutex<(Option<Arc<Task>>, Vec<Signal>)>,
    /// How often a person or a supervisor has asked this command to end.
    asked_to_end: AtomicU32,
}

impl Attended {
    /// From now on it is this one, or none.
    pub(crate) fn set(&self, task: Option<&Arc<Task>>, terminal: bool) {
        if let Some(task) = task.filter(|_| terminal) {
            resize(task);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = task.cloned();
        if let Some(task) = task {
            state.1.drain(..).for_each(|signal| pass_one(task, signal));
        }
    }

    /// Whether a person or a supervisor has asked this command to end.
    pub(crate) fn is_asked_to_end(&self) -> bool {
        self.asked_to_end.load(Ordering::Relaxed) > 0
    }

    fn pass(&self, signal: Signal) {
        if matches!(signal, Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM) {
            match self.asked_to_end.fetch_add(1, Ordering::Relaxed) + 1 {
                1 => {}
                PATIENCE => return self.kill(),
                asked => tracing::info!("asked {asked} times to end; at {PATIENCE} the container is killed"),
            }
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.0 {
            Some(task) => pass_one(task, signal),
            // Seven kinds, and each is pending once: the list stays short.
            None if !state.1.contains(&signal) => state.1.push(signal),
            None => {}
        }
    }

    /// The first process of a container ignores what it does not handle (pid_namespaces(7)), so asking alone may never end it.
    fn kill(&self) {
        if let Some(task) = &self.state.lock().unwrap_or_else(PoisonError::into_inner).0 {
            pass_one(task, Signal::SIGKILL);
        }
    }

    fn resized(&self) {
        if let Some(task) = &self.state.lock().unwrap_or_else(PoisonError::into_inner).0 {
            resize(task);
        }
    }
}

fn pass_one(task: &Task, signal: Signal) {
    if let Err(error) = task.signal(signal as i32, false) {
        tracing::debug!(%error, %signal, "a signal found no process");
    }
}

fn pass_all(set: &SigSet, attended: &Attended, terminal: bool) {
    loop {
        match set.wait() {
            Ok(Signal::SIGWINCH) if terminal => attended.resized(),
            Ok(Signal::SIGWINCH) => {}
            Ok(signal) => attended.pass(signal),
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
