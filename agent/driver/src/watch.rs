//! What runs and ran under DockLock, whoever started it, so that a container without a receipt is found.
//!
//! Always true: events are hints that may be lost (containerd keeps none for who is away), and the list of containers is what there is; so who
//! subscribes lists afterwards, and does both again when the events end. Absent on purpose: deciding what an incident is.

use std::collections::{BTreeSet, VecDeque};

use containerd_client::events::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container as Known, ListContainersRequest, ListNamespacesRequest, ListTasksRequest, SubscribeRequest,
};
use containerd_client::tonic::{Status, Streaming};
use containerd_client::types::Envelope;
use containerd_client::types::v1::{Process, Status as State};
use prost::Message;

use crate::calls::{PATIENCE, Scope, answer, ms, refused};
use crate::error::DriverError;
use crate::run::LABEL;
use crate::{Driver, RUNTIME};

/// Bytes of an answer, at most: a list of 200 000 tasks.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Containers whose runtime is remembered, at most; the oldest goes, and an event of it then comes as of an unknown runtime.
const REMEMBERED_MAX: usize = 65_536;

/// A container of this runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// containerd's namespace, the boundary of its receipts.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// True when a driver made it.
    pub is_driven: bool,
    /// True while its task runs, or is made and not yet started; false when it ended or there is none.
    pub is_running: bool,
    /// How its task ended, when it did and is not deleted.
    pub exit: Option<crate::Exit>,
}

/// What happened to a container's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was made.
    Created,
    /// It runs.
    Started,
    /// It ended.
    Exited {
        /// 0 to 255.
        code: u32,
    },
    /// It was deleted.
    Deleted {
        /// 0 to 255.
        code: u32,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// containerd's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// What.
    pub happening: Happening,
    /// False when the container was gone before it could be asked for: then it may be of another runtime.
    pub is_known: bool,
}

/// What happens, from now on.
#[derive(Debug)]
pub struct Events {
    driver: Driver,
    stream: Streaming<Envelope>,
    ours: Remembered,
    others: Remembered,
}

/// The last so many containers.
#[derive(Debug, Default)]
struct Remembered {
    all: BTreeSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Remembered {
    fn add(&mut self, container: (String, String)) {
        if self.all.insert(container.clone()) {
            self.order.push_back(container);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.all.remove(&oldest);
            }
        }
    }

    fn remove(&mut self, container: &(String, String)) {
        // Its place in the order stays until it is the oldest; then nothing is there to remove.
        self.all.remove(container);
    }
}

impl Driver {
    /// Hears what happens to tasks, of all namespaces.
    ///
    /// # Errors
    /// [`DriverError`] when containerd does not let it.
    pub async fn events(&self) -> Result<Events, DriverError> {
        let filters = ["create", "start", "exit", "delete"].map(|word| format!("topic==\"/tasks/{word}\"")).into();
        let mut client = EventsClient::new(self.channel.clone());
        let call = client.subscribe(SubscribeRequest { filters });
        let stream = answer(("subscribing to", "task events"), PATIENCE, call).await?;
        let mut events =
            Events { driver: self.clone(), stream, ours: Remembered::default(), others: Remembered::default() };
        for container in self.containers().await? {
            events.ours.add((container.namespace, container.id));
        }
        Ok(events)
    }

    /// The containers of this runtime, of all namespaces, in order.
    ///
    /// # Errors
    /// [`DriverError`] when they cannot be listed.
    pub async fn containers(&self) -> Result<Vec<Container>, DriverError> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let call = client.list(ListNamespacesRequest::default());
        let namespaces = answer(("listing", "namespaces"), PATIENCE, call).await?.namespaces;
        let mut all = Vec::new();
        for namespace in namespaces {
            // A name that this version would not take is no boundary of ours.
            let Ok(scope) = Scope::new(&namespace.name) else { continue };
            all.extend(self.containers_of(&scope).await?);
        }
        all.sort_by(|one, other| (&one.namespace, &one.id).cmp(&(&other.namespace, &other.id)));
        Ok(all)
    }

    /// Those that a driver made and nobody removed: what a process that died left.
    ///
    /// # Errors
    /// As [`Driver::containers`].
    pub async fn left_behind(&self) -> Result<Vec<Container>, DriverError> {
        Ok(self.containers().await?.into_iter().filter(|container| container.is_driven).collect())
    }

    async fn containers_of(&self, scope: &Scope) -> Result<Vec<Container>, DriverError> {
        // Tasks first: a container that is made in between has none, and counts as running.
        let mut tasks = TasksClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let call = tasks.list(scope.request(ListTasksRequest::default()));
        let tasks = answer(("listing tasks of", &scope.namespace), PATIENCE, call).await?.tasks;
        let mut client = ContainersClient::new(self.channel.clone());
        let filters = vec![format!("runtime.name==\"{RUNTIME}\"")];
        let call = client.list_stream(scope.request(ListContainersRequest { filters }));
        let name = scope.namespace.clone();
        let mut stream = answer(("listing containers of", &name), PATIENCE, call).await?;
        let mut all = Vec::new();
        while let Some(message) = stream.message().await.map_err(refused("listing containers of", &name))? {
            let Some(container) = message.container.filter(is_ours) else { continue };
            let task = tasks.iter().find(|task| task.id == container.id);
            all.push(of(&scope.namespace, &container, task));
        }
        Ok(all)
    }
}

fn is_ours(container: &Known) -> bool {
    container.runtime.as_ref().is_some_and(|runtime| runtime.name == RUNTIME)
}

fn of(namespace: &str, container: &Known, task: Option<&Process>) -> Container {
    let has_ended = task.is_some_and(|task| task.status == State::Stopped as i32);
    Container {
        namespace: namespace.to_owned(),
        id: container.id.clone(),
        created_ms: ms(container.created_at.as_ref()),
        is_driven: container.labels.contains_key(LABEL),
        is_running: task.is_some() && !has_ended,
        exit: task
            .filter(|_| has_ended)
            .map(|task| crate::Exit { code: task.exit_status, at_ms: ms(task.exited_at.as_ref()) }),
    }
}

impl Events {
    /// The next thing that happens to a container of this runtime. None when containerd ends the stream: then subscribe and list again.
    ///
    /// # Errors
    /// [`DriverError`] when the stream broke.
    pub async fn next(&mut self) -> Result<Option<Event>, DriverError> {
        loop {
            let broke = |status: Status| refused("hearing of", "task events")(status);
            let Some(envelope) = self.stream.message().await.map_err(broke)? else { return Ok(None) };
            let Some(mut event) = read(&envelope) else { continue };
            let key = (event.namespace.clone(), event.id.clone());
            if event.happening == Happening::Created {
                // The id may have been another runtime's before.
                self.others.remove(&key);
                self.ours.remove(&key);
            }
            if self.others.all.contains(&key) {
                continue;
            }
            if !self.ours.all.contains(&key) {
                // Names that are none of ours are nobody's that this runtime ran.
                let Ok(scope) = Scope::new(&event.namespace) else { continue };
                match self.driver.get(&scope, &event.id).await? {
                    Some(container) if is_ours(&container) => self.ours.add(key),
                    Some(_) => {
                        self.others.add(key);
                        continue;
                    }
                    None => event.is_known = false,
                }
            }
            return Ok(Some(event));
        }
    }
}

/// An event of a container's first process; none for others (exec) and for what cannot be read.
fn read(envelope: &Envelope) -> Option<Event> {
    let bytes = &*envelope.event.as_ref()?.value;
    let (id, exec, happening) = match &*envelope.topic {
        "/tasks/create" => (TaskCreate::decode(bytes).ok()?.container_id, String::new(), Happening::Created),
        "/tasks/start" => (TaskStart::decode(bytes).ok()?.container_id, String::new(), Happening::Started),
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            (exit.container_id, exit.id, Happening::Exited { code: exit.exit_status })
        }
        "/tasks/delete" => {
            let deleted = TaskDelete::decode(bytes).ok()?;
            (deleted.container_id, deleted.id, Happening::Deleted { code: deleted.exit_status })
        }
        _ => return None,
    };
    if !exec.is_empty() && exec != id {
        return None;
    }
    let at_ms = ms(envelope.timestamp.as_ref());
    Some(Event { namespace: envelope.namespace.clone(), id, at_ms, happening, is_known: true })
}
