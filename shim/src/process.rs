//! One process as the task API sees it: a container's first, or an exec; how it is started, and how its end is told.
//!
//! Always true: docklock calls back after the receipt is durable, and only then the exit is told, first as an event, then to who waits.

use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::events::task::TaskExit;
use docklock::task::{Exec, Exit, Status, Task, TaskError};
use tokio::sync::watch;

use crate::events::{Events, ProcessKey};
use crate::stdio::ClientIo;
use crate::wire::timestamp;

/// What waiters get of an exec that never ran.
const STATUS_NEVER_RAN: u32 = 255;

/// How a process ended, as the task API says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// 0–255, or 128 + signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// A container's first process or an exec.
pub struct Process {
    /// Which one.
    pub key: ProcessKey,
    /// The client's streams.
    pub client: ClientIo,
    /// What docklock knows it as.
    pub kind: Kind,
    ended: watch::Sender<Option<Ended>>,
}

/// The two kinds of process.
pub enum Kind {
    /// A container's first.
    Init(Arc<Task>),
    /// A further one.
    Exec(Arc<Exec>),
}

impl Process {
    /// One that has not ended.
    pub fn new(key: ProcessKey, client: ClientIo, kind: Kind) -> Arc<Self> {
        Arc::new(Self { key, client, kind, ended: watch::Sender::new(None) })
    }

    /// Its process id on this host; 0 before an exec runs.
    pub fn pid(&self) -> u32 {
        match &self.kind {
            Kind::Init(task) => task.pid(),
            Kind::Exec(exec) => exec.pid(),
        }
    }

    /// Its exit, once that has been told.
    pub fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    /// Becomes `Some` when its exit is told.
    pub fn watch(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }

    /// Where it stands. A process that has ended still runs for containerd until its receipt is durable.
    pub fn status(&self) -> Status {
        let status = match &self.kind {
            Kind::Init(task) => task.status(),
            Kind::Exec(exec) => exec.status(),
        };
        match (self.ended(), status) {
            (Some(_), _) => Status::Stopped,
            (None, Status::Stopped) => Status::Running,
            (None, status) => status,
        }
    }

    /// Lets it run.
    ///
    /// # Errors
    /// docklock's.
    pub fn start(&self) -> Result<(), TaskError> {
        match &self.kind {
            Kind::Init(task) => task.start(),
            Kind::Exec(exec) => exec.start(),
        }
    }

    /// Arranges for its exit to be told.
    pub fn when_it_ends(self: &Arc<Self>, events: &Arc<Events>) {
        let (process, events) = (Arc::clone(self), Arc::clone(events));
        let tell = Box::new(move |exit: Exit| process.tell(&exit, &events));
        match &self.kind {
            Kind::Init(task) => task.on_exit(tell),
            Kind::Exec(exec) => exec.on_exit(tell),
        }
    }

    /// The event goes first: who sees `wait` return may delete, and the delete event must not overtake.
    fn tell(&self, exit: &Exit, events: &Events) {
        let event = TaskExit {
            container_id: self.key.container.clone(),
            id: if self.key.exec.is_empty() { self.key.container.clone() } else { self.key.exec.clone() },
            pid: self.pid(),
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..TaskExit::default()
        };
        events.exited(&self.key, &event);
        self.ended.send_replace(Some(Ended { status: exit.status, at: exit.at }));
    }

    /// Ends the waiting for an exec that never ran: there is nobody to reap, and no event to publish.
    pub fn never_ran(&self) {
        self.ended.send_replace(Some(Ended { status: STATUS_NEVER_RAN, at: SystemTime::now() }));
    }

    /// Blocks until its exit has been told.
    pub fn wait_until_told(&self) -> Option<Ended> {
        let mut told = self.watch();
        // The sender lives in `self`, so there is always an answer.
        tokio::runtime::Handle::current().block_on(told.wait_for(Option::is_some)).ok().and_then(|ended| *ended)
    }

    /// What a sentence calls it.
    pub fn name(&self) -> String {
        let ProcessKey { container, exec } = &self.key;
        if exec.is_empty() { container.clone() } else { format!("{exec} of {container}") }
    }
}
