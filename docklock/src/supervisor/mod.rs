//! Answers intercepted system calls: one thread for each listener, one pure [`Broker`] for the container.
//!
//! A container has a listener for its first process and one for each exec. A listener hangs up when the last task under its filter
//! is gone, which ends its thread. Always true: if a thread fails, the container is ended and gets no receipt, because a
//! dead supervisor turns calls into ENOSYS behind the receipt's back.

mod broker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bpi_policies::{Call, Policy};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use broker::{Broker, Decision};

use crate::engine::report::Report;
use crate::kernel::{self, Reply};
use crate::launch::{EngineProcess, LaunchError};

/// Stack of a supervisor thread in bytes: it holds a loop and a few maps' worth of calls.
const STACK_BYTES: usize = 128 * 1024;

/// Why a supervisor thread gave up.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// No thread could be started.
    #[error("could not start a supervisor thread: {0}")]
    Spawn(io::Error),
    /// The listener failed.
    #[error("could not {deed} on the seccomp listener: {source}")]
    Listener {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// An engine could not go on, or died.
    #[error(transparent)]
    Engine(#[from] LaunchError),
    /// A supervisor thread panicked.
    #[error("a supervisor thread panicked")]
    Panicked,
}

type Ending = Box<dyn FnOnce() + Send>;

/// The supervisor of one container: threads of this process while the kernel schedules, processes of their own where turns are taken.
#[derive(Debug)]
pub struct Supervisor {
    broker: Arc<Mutex<Broker>>,
    engines: Mutex<Vec<EngineProcess>>,
    watchers: Mutex<Watchers>,
}

/// The threads that answer, and the first failure of those that have ended.
#[derive(Debug, Default)]
struct Watchers {
    running: Vec<JoinHandle<Result<(), SupervisorError>>>,
    failure: Option<SupervisorError>,
}

impl Watchers {
    /// Joins the threads that `ended` picks: one that is not joined keeps its stack.
    fn join(&mut self, ended: impl FnMut(&mut JoinHandle<Result<(), SupervisorError>>) -> bool) {
        for thread in self.running.extract_if(.., ended) {
            let outcome = thread.join().unwrap_or(Err(SupervisorError::Panicked));
            self.failure = self.failure.take().or(outcome.err());
        }
    }
}

impl Supervisor {
    /// A supervisor with nothing to watch yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            broker: Arc::new(Mutex::new(Broker::new(policy))),
            watchers: Mutex::default(),
            engines: Mutex::default(),
        }
    }

    /// Keeps the engine of one more process, the first one's first.
    pub fn keep(&self, engine: EngineProcess) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
    }

    /// Answers the calls of `listener` until its last task is gone. `on_failure` runs if that cannot be done, and must end the tasks.
    ///
    /// # Errors
    /// [`SupervisorError::Spawn`]; then the listener is closed and every intercepted call fails with ENOSYS.
    pub fn watch(&self, listener: OwnedFd, on_failure: Ending) -> Result<(), SupervisorError> {
        let broker = Arc::clone(&self.broker);
        let thread = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let outcome = answer_until_hang_up(&listener, &broker);
                if outcome.is_err() {
                    on_failure();
                }
                outcome
            })
            .map_err(SupervisorError::Spawn)?;
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        // Each exec has a thread of its own, and a probed pod has many in its life.
        watchers.join(|thread| thread.is_finished());
        watchers.running.push(thread);
        Ok(())
    }

    /// Waits for every thread, then says what was counted. Call it when the container's tasks are gone.
    ///
    /// # Errors
    /// The first thread's failure: the counts are not complete then.
    pub fn finish(&self) -> Result<Report, SupervisorError> {
        let mut watchers = std::mem::take(&mut *self.watchers.lock().unwrap_or_else(PoisonError::into_inner));
        watchers.join(|_| true);
        if let Some(failure) = watchers.failure {
            return Err(failure);
        }
        let broker = self.broker.lock().map_err(|_| SupervisorError::Panicked)?;
        let mut whole = Report {
            schedule: "host".to_owned(),
            denied: broker.denied(),
            answered: broker.answered(),
            ..Report::default()
        };
        let engines = std::mem::take(&mut *self.engines.lock().unwrap_or_else(PoisonError::into_inner));
        for (place, engine) in engines.into_iter().enumerate() {
            let report = engine.finish()?;
            if place == 0 {
                whole = report;
            } else {
                whole.denied.extend(report.denied);
                whole.escapes.extend(report.escapes);
            }
        }
        Ok(whole)
    }
}

fn answer_until_hang_up(listener: &OwnedFd, broker: &Mutex<Broker>) -> Result<(), SupervisorError> {
    let failed = |deed| move |source| SupervisorError::Listener { deed, source };
    match kernel::notify_sync_wake_up(listener.as_fd()) {
        Ok(()) => {}
        // Linux before 6.6: slower, not weaker.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => return Err(failed("ask for synchronous wake-ups")(error)),
    }
    loop {
        let mut watched = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(failed("wait")(errno.into())),
        }
        let events = watched[0].revents().unwrap_or(PollFlags::POLLERR);
        if events.contains(PollFlags::POLLIN) {
            answer_one(listener, broker).map_err(failed("answer a call"))?;
        } else if events.contains(PollFlags::POLLHUP) {
            return Ok(());
        } else {
            return Err(failed("wait")(io::Error::from_raw_os_error(libc::EIO)));
        }
    }
}

/// Receives one call and answers it. A caller that died in between is nobody's failure, and is not counted.
fn answer_one(listener: &OwnedFd, broker: &Mutex<Broker>) -> io::Result<()> {
    let gone = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR));
    let notification = match kernel::notify_receive(listener.as_fd()) {
        Err(error) if gone(&error) => return Ok(()),
        other => other?,
    };
    let call = Call { arch: notification.arch, nr: notification.nr, args: notification.args };
    let mut broker = broker.lock().map_err(|_| io::Error::other("the broker panicked"))?;
    let decision = broker.decide(&call);
    // A continued call runs with whatever the task is now: make sure that it still is the task that asked.
    if decision.reply == Reply::Continue && !kernel::notify_id_valid(listener.as_fd(), notification.id)? {
        return Ok(());
    }
    match kernel::notify_reply(listener.as_fd(), notification.id, decision.reply) {
        Ok(()) => broker.count(decision),
        Err(error) if gone(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
