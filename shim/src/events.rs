//! Tells containerd what happens to tasks, in the order its runtime-v2 document demands: create, start, exit, delete.
//!
//! ```text
//! happenings ─► Order (holds an exit back while its start is under way) ─► Outbox (bounded) ─► ttrpc ─► containerd
//! ```
//!
//! Always true: an event leaves only after the one before it was taken or given up, so a retry never overtakes. While containerd is away
//! the events wait; when more than [`OUTBOX_EVENTS_MAX`] wait, the oldest goes, and the log says so: a containerd that comes back asks
//! for the state of each task anyway. Absent on purpose: what happened. That is the receipts' business.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::MessageFull;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::topics;
use containerd_shim_protos::ttrpc::{Error as TtrpcError, context};
use tokio::sync::Notify;

use crate::wire::{any, timestamp};

/// Events that wait while containerd is away; some 300 bytes each, so at most a third of a megabyte.
const OUTBOX_EVENTS_MAX: usize = 1024;
/// How often containerd may refuse an event before it is given up.
const REFUSALS_MAX: u32 = 5;
/// How long one delivery may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause before containerd is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A container's first process, or one of its execs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// The container.
    pub container: String,
    /// The exec; empty for the first process, as in the task API.
    pub exec: String,
}

/// What happens to a process, as far as the order of events depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Added,
    Starting,
    Started,
    NotStarted,
    Exited,
    Deleted,
}

/// Lets each process's exit go only after its start has gone. Pure; `E` is whatever is published.
#[derive(Debug)]
struct Order<E> {
    /// Processes whose start is under way, each with the exit that came too early.
    starting: HashMap<ProcessKey, Option<E>>,
}

impl<E> Order<E> {
    fn new() -> Self {
        Self { starting: HashMap::new() }
    }

    /// Takes a step with its event and answers which events may go now, in order.
    fn take(&mut self, key: &ProcessKey, step: Step, event: Option<E>) -> impl Iterator<Item = E> + use<E> {
        let (now, later) = match step {
            Step::Starting => {
                self.starting.insert(key.clone(), None);
                (None, None)
            }
            Step::Exited => match self.starting.get_mut(key) {
                Some(held) => {
                    *held = event;
                    (None, None)
                }
                None => (event, None),
            },
            Step::Started | Step::NotStarted => (event, self.starting.remove(key).flatten()),
            Step::Deleted => (self.starting.remove(key).flatten(), event),
            Step::Added => (event, None),
        };
        now.into_iter().chain(later)
    }
}

/// Events on their way, oldest first. Pure.
#[derive(Debug)]
struct Outbox<E> {
    waiting: VecDeque<E>,
    limit: usize,
    lost: u64,
}

impl<E: Clone> Outbox<E> {
    fn new(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), limit, lost: 0 }
    }

    /// Adds an event; true when the oldest had to go for it.
    fn push(&mut self, event: E) -> bool {
        let full = self.waiting.len() >= self.limit;
        if full {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(event);
        full
    }

    /// The oldest event and the mark by which it is taken out.
    fn first(&self) -> Option<(u64, E)> {
        self.waiting.front().cloned().map(|event| (self.lost, event))
    }

    /// Takes the oldest event out, unless it went meanwhile to make room.
    fn done(&mut self, mark: u64) {
        if mark == self.lost {
            self.waiting.pop_front();
            // Marks tell one front from the next.
            self.lost += 1;
        }
    }
}

/// Orders and delivers the events of one shim.
#[derive(Debug)]
pub struct Events {
    namespace: String,
    state: Mutex<State>,
    arrived: Notify,
    emptied: Notify,
}

#[derive(Debug)]
struct State {
    order: Order<Envelope>,
    outbox: Outbox<Envelope>,
}

impl Events {
    /// For one containerd namespace.
    pub fn new(namespace: String) -> Self {
        let state = State { order: Order::new(), outbox: Outbox::new(OUTBOX_EVENTS_MAX) };
        Self { namespace, state: Mutex::new(state), arrived: Notify::new(), emptied: Notify::new() }
    }

    /// A container has been created.
    pub fn created(&self, key: &ProcessKey, event: &TaskCreate) {
        self.step(key, Step::Added, Some(self.envelope(topics::TASK_CREATE_EVENT_TOPIC, event)));
    }

    /// An exec has been added.
    pub fn exec_added(&self, key: &ProcessKey) {
        let event =
            TaskExecAdded { container_id: key.container.clone(), exec_id: key.exec.clone(), ..Default::default() };
        self.step(key, Step::Added, Some(self.envelope(topics::TASK_EXEC_ADDED_EVENT_TOPIC, &event)));
    }

    /// A start is under way: an exit that comes now waits for [`Events::started`] or [`Events::not_started`].
    pub fn starting(&self, key: &ProcessKey) {
        self.step(key, Step::Starting, None);
    }

    /// The process runs.
    pub fn started(&self, key: &ProcessKey, pid: u32) {
        let container_id = key.container.clone();
        let envelope = if key.exec.is_empty() {
            self.envelope(topics::TASK_START_EVENT_TOPIC, &TaskStart { container_id, pid, ..Default::default() })
        } else {
            let event = TaskExecStarted { container_id, exec_id: key.exec.clone(), pid, ..Default::default() };
            self.envelope(topics::TASK_EXEC_STARTED_EVENT_TOPIC, &event)
        };
        self.step(key, Step::Started, Some(envelope));
    }

    /// The process could not be started.
    pub fn not_started(&self, key: &ProcessKey) {
        self.step(key, Step::NotStarted, None);
    }

    /// The process has ended.
    pub fn exited(&self, key: &ProcessKey, event: &TaskExit) {
        self.step(key, Step::Exited, Some(self.envelope(topics::TASK_EXIT_EVENT_TOPIC, event)));
    }

    /// The container is gone.
    pub fn deleted(&self, key: &ProcessKey, event: &TaskDelete) {
        self.step(key, Step::Deleted, Some(self.envelope(topics::TASK_DELETE_EVENT_TOPIC, event)));
    }

    /// The container ran out of memory.
    pub fn out_of_memory(&self, container_id: String) {
        self.send([self.envelope(topics::TASK_OOM_EVENT_TOPIC, &TaskOOM { container_id, ..Default::default() })]);
    }

    /// The container stands still.
    pub fn paused(&self, container_id: String) {
        self.send([self.envelope(topics::TASK_PAUSED_EVENT_TOPIC, &TaskPaused { container_id, ..Default::default() })]);
    }

    /// The container goes on.
    pub fn resumed(&self, container_id: String) {
        self.send([
            self.envelope(topics::TASK_RESUMED_EVENT_TOPIC, &TaskResumed { container_id, ..Default::default() })
        ]);
    }

    fn envelope(&self, topic: &str, event: &dyn AnyEvent) -> Envelope {
        Envelope {
            timestamp: Some(timestamp(std::time::SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event.pack()).into(),
            ..Envelope::default()
        }
    }

    fn step(&self, key: &ProcessKey, step: Step, event: Option<Envelope>) {
        let mut state = self.state();
        let go = state.order.take(key, step, event);
        self.push(&mut state, go);
    }

    fn send(&self, events: impl IntoIterator<Item = Envelope>) {
        self.push(&mut self.state(), events);
    }

    /// Under the lock of the order, so that two threads cannot change places between the two.
    fn push(&self, state: &mut State, events: impl IntoIterator<Item = Envelope>) {
        for event in events {
            if state.outbox.push(event) {
                tracing::warn!(
                    limit = OUTBOX_EVENTS_MAX,
                    "containerd has been away too long: the oldest event is lost"
                );
            }
        }
        self.arrived.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers events to containerd's ttrpc socket at `address`, for ever.
    pub async fn deliver(&self, address: &str) {
        let mut line = Line { address: unix_address(address), client: None };
        loop {
            let first = self.state().outbox.first();
            match first {
                Some((mark, envelope)) => {
                    line.forward(envelope).await;
                    self.state().outbox.done(mark);
                }
                None => {
                    self.emptied.notify_waiters();
                    self.arrived.notified().await;
                }
            }
        }
    }

    /// Waits until everything has been delivered.
    pub async fn delivered(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.state().outbox.first().is_none() {
                return;
            }
            emptied.await;
        }
    }
}

/// An event that can be packed without being copied first.
trait AnyEvent {
    fn pack(&self) -> containerd_shim_protos::protobuf::well_known_types::any::Any;
}

impl<M: MessageFull> AnyEvent for M {
    fn pack(&self) -> containerd_shim_protos::protobuf::well_known_types::any::Any {
        any(self)
    }
}

/// The connection to containerd, made when it is needed and again when it breaks.
struct Line {
    address: String,
    client: Option<EventsClient>,
}

impl Line {
    /// Delivers one event, however long containerd is away; gives it up when containerd refuses it time and again.
    async fn forward(&mut self, envelope: Envelope) {
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: Some(envelope).into(), ..ForwardRequest::default() };
        let (mut pause, mut refusals) = (PAUSE_MIN, 0);
        loop {
            match self.attempt(&request).await {
                Ok(()) => return,
                Err(TtrpcError::RpcStatus(status)) => {
                    refusals += 1;
                    if refusals >= REFUSALS_MAX {
                        tracing::error!(
                            topic,
                            reason = status.message,
                            "containerd refused an event {REFUSALS_MAX} times; it is lost"
                        );
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(topic, %error, "containerd cannot be reached; the event waits");
                    self.client = None;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(&mut self, request: &ForwardRequest) -> Result<(), TtrpcError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(EventsClient::new(Client::connect(&self.address).await?)),
        };
        client.forward(context::with_duration(DELIVERY_TIMEOUT), request).await.map(drop)
    }
}

/// containerd gives a bare path; ttrpc wants a scheme.
fn unix_address(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("unix://{address}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ProcessKey {
        ProcessKey { container: "c".into(), exec: String::new() }
    }

    fn exec() -> ProcessKey {
        ProcessKey { container: "c".into(), exec: "e".into() }
    }

    fn run(order: &mut Order<&'static str>, steps: &[(&ProcessKey, Step, Option<&'static str>)]) -> Vec<&'static str> {
        steps.iter().flat_map(|(key, step, event)| order.take(key, *step, *event).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn an_exit_before_the_start_has_answered_waits_for_it() {
        let steps = [
            (&key(), Step::Added, Some("create")),
            (&key(), Step::Starting, None),
            (&key(), Step::Exited, Some("exit")),
            (&key(), Step::Started, Some("start")),
            (&key(), Step::Deleted, Some("delete")),
        ];
        assert_eq!(run(&mut Order::new(), &steps), ["create", "start", "exit", "delete"]);
    }

    #[test]
    fn an_exit_after_the_start_goes_at_once() {
        let mut order = Order::new();
        run(&mut order, &[(&key(), Step::Starting, None), (&key(), Step::Started, Some("start"))]);
        assert_eq!(run(&mut order, &[(&key(), Step::Exited, Some("exit"))]), ["exit"]);
    }

    #[test]
    fn a_container_that_is_killed_before_its_start_still_exits() {
        let steps = [(&key(), Step::Added, Some("create")), (&key(), Step::Exited, Some("exit"))];
        assert_eq!(run(&mut Order::new(), &steps), ["create", "exit"]);
    }

    #[test]
    fn a_start_that_fails_lets_the_exit_go() {
        let steps =
            [(&key(), Step::Starting, None), (&key(), Step::Exited, Some("exit")), (&key(), Step::NotStarted, None)];
        assert_eq!(run(&mut Order::new(), &steps), ["exit"]);
    }

    #[test]
    fn a_delete_never_overtakes_a_held_exit() {
        let steps = [
            (&key(), Step::Starting, None),
            (&key(), Step::Exited, Some("exit")),
            (&key(), Step::Deleted, Some("delete")),
        ];
        assert_eq!(run(&mut Order::new(), &steps), ["exit", "delete"]);
    }

    #[test]
    fn an_exec_does_not_hold_back_its_container() {
        let steps = [(&exec(), Step::Starting, None), (&key(), Step::Exited, Some("exit"))];
        assert_eq!(run(&mut Order::new(), &steps), ["exit"]);
    }

    #[test]
    fn a_full_outbox_loses_the_oldest_event() {
        let mut outbox = Outbox::new(2);
        assert!(!outbox.push(1));
        assert!(!outbox.push(2));
        assert!(outbox.push(3));
        assert_eq!(outbox.waiting, [2, 3]);
    }

    #[test]
    fn an_event_that_went_to_make_room_is_not_taken_out_twice() {
        let mut outbox = Outbox::new(2);
        outbox.push(1);
        outbox.push(2);
        let (mark, first) = outbox.first().unwrap_or_default();
        assert_eq!(first, 1);
        outbox.push(3);
        outbox.done(mark);
        assert_eq!(outbox.waiting, [2, 3]);
        let (mark, _) = outbox.first().unwrap_or_default();
        outbox.done(mark);
        outbox.done(mark);
        assert_eq!(outbox.waiting, [3]);
    }

    #[test]
    fn a_bare_path_becomes_an_address() {
        assert_eq!(unix_address("/run/c.sock.ttrpc"), "unix:///run/c.sock.ttrpc");
        assert_eq!(unix_address("unix:///run/c.sock"), "unix:///run/c.sock");
    }

    #[tokio::test]
    async fn events_wait_for_containerd_and_arrive_in_order() {
        use containerd_shim_protos::api::Empty;
        use containerd_shim_protos::shim_async::{Events as Service, create_events};
        use containerd_shim_protos::ttrpc::r#async::{Server, TtrpcContext};
        use std::sync::Arc;

        struct Sink(tokio::sync::mpsc::UnboundedSender<String>);
        #[async_trait::async_trait]
        impl Service for Sink {
            async fn forward(
                &self,
                _: &TtrpcContext,
                request: ForwardRequest,
            ) -> containerd_shim_protos::ttrpc::Result<Empty> {
                self.0.send(request.envelope().topic.clone()).map_err(|error| TtrpcError::Others(error.to_string()))?;
                Ok(Empty::default())
            }
        }

        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = format!("unix://{}", folder.path().join("events").display());
        let events = Arc::new(Events::new("default".into()));
        let delivery = tokio::spawn({
            let (events, address) = (Arc::clone(&events), address.clone());
            async move { events.deliver(&address).await }
        });
        // Nobody listens yet.
        events.created(&key(), &TaskCreate::default());
        events.starting(&key());
        events.exited(&key(), &TaskExit::default());
        events.started(&key(), 7);
        tokio::task::yield_now().await;
        let (sender, mut topics) = tokio::sync::mpsc::unbounded_channel();
        let mut server =
            Server::new().bind(&address).expect("a socket").register_service(create_events(Arc::new(Sink(sender))));
        server.start().await.expect("a server");
        events.delivered().await;
        for topic in ["/tasks/create", "/tasks/start", "/tasks/exit"] {
            assert_eq!(topics.recv().await.as_deref(), Some(topic));
        }
        delivery.abort();
        server.shutdown().await.expect("an orderly end");
    }
}
