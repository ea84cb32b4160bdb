//! From a request to a container that is held before its first instruction.
//!
//! Two ways at once: the intent is made durable on its own thread while the launcher builds the container; `start` joins them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bpi_policies::Schedule;
use bpi_protocol::receipt;
use oci_spec::runtime::Spec;

use super::container::{Intent, Task};
use super::engine::Shared;
use super::orphan::{self, Remains};
use super::{CreateRequest, TaskError};
use crate::cage::{self, Plan, PlanRequest};
use crate::cgroup::Group;
use crate::engine::order::Order;
use crate::launch::{CageOrder, CreateOrder, Created};
use crate::spans::span;
use crate::spool::{OpenFacts, ProcessRef};
use crate::streams::{Prepared, Streams};
use crate::supervisor::Supervisor;
use crate::{apparmor, clock, filter, kernel, seal};

/// Longest config.json in bytes: a specification with ten thousand mounts fits.
const SPEC_BYTES_MAX: u64 = 16 << 20;
/// Longest id in characters: it becomes a file name.
const ID_CHARS_MAX: usize = 128;

/// Directory of one container and what stands in it.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
}

impl Home {
    pub(super) fn of(state_dir: &Path, boundary: &str, id: &str) -> Self {
        Self { dir: state_dir.join(boundary).join(id) }
    }

    /// Bundle with the caged config.json.
    pub(super) fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// Root of libcontainer's state.
    pub(super) fn oci_root(&self) -> PathBuf {
        self.dir.join("oci")
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

pub(super) fn create(shared: &Arc<Shared>, request: CreateRequest) -> Result<Arc<Task>, TaskError> {
    let _span = span("create");
    if !is_file_name(&request.id) {
        return Err(TaskError::Id { id: request.id });
    }
    let planned = plan(shared, &request)?;
    let cgroup = cgroup_of(&planned.spec, request.boundary.as_str(), &request.id);
    let group = Group::at(&cgroup)?;
    let home = Home::of(&shared.config.state_dir, request.boundary.as_str(), &request.id);
    make_home(&home, &request.id)?;
    let remains = Remains::new(&home.dir, group.clone());
    orphan::sign_home(&home, &cgroup, shared.launcher.pid())?;
    let intent = Intent::begin(shared, &request, &planned, &home, &cgroup);
    // From here on a failure must close the intent and remove what there is.
    match build(shared, request, planned, &home, group) {
        Ok(parts) => Task::adopt(shared, parts, intent, home),
        Err(error) => {
            remains.remove()?;
            intent.abort(shared, &format!("the container could not be created: {error}"))?;
            Err(error)
        }
    }
}

fn plan(shared: &Shared, request: &CreateRequest) -> Result<Plan, TaskError> {
    let _span = span("plan");
    let spec = read_spec(&request.bundle.join("config.json"))?;
    let policy = cage::profile_for(&spec, request.profile.as_deref(), &shared.config)?;
    let rootfs = request.rootfs.canonicalize().map_err(|source| TaskError::File {
        deed: "resolve the root file system",
        path: request.rootfs.clone(),
        source,
    })?;
    let plan = cage::plan(&PlanRequest {
        spec: &spec,
        policy: &policy,
        host: &shared.host,
        rootfs: &rootfs,
        has_layer: request.layer.is_some(),
        seed: request.seed,
    })?;
    cage::look_again(&plan)?;
    Ok(plan)
}

/// Everything a task is made of.
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) boundary: crate::spool::Boundary,
    pub(super) plan: Plan,
    pub(super) group: Group,
    pub(super) created: Created,
    pub(super) pidfd: OwnedFd,
    pub(super) streams: Streams,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) engine: Option<Order>,
    pub(super) image: super::ImageSource,
    pub(super) rootfs: PathBuf,
    pub(super) layer: Option<PathBuf>,
    pub(super) cage: CageOrder,
}

fn build(
    shared: &Shared,
    request: CreateRequest,
    mut plan: Plan,
    home: &Home,
    group: Group,
) -> Result<Parts, TaskError> {
    let CreateRequest { id, boundary, rootfs, layer, io, image, no_pivot, trace_log, .. } = request;
    // The root of a writable layer and the mount points in it are as old as the layer, not as the image.
    let since =
        layer.as_ref().and_then(|layer| fs::metadata(layer).ok()?.created().ok()).unwrap_or_else(SystemTime::now);
    if let Some(profile) = &plan.apparmor {
        let _span = span("apparmor");
        apparmor::load(profile)?;
    }
    let cgroup = cgroup_of(&plan.spec, boundary.as_str(), &id);
    name_cgroup(&mut plan.spec, &cgroup);
    write_spec(home, &plan.spec)?;
    let cage = write_filters(shared, home, &plan)?;
    let mut prepared = Prepared::open(io, &home.file("init.tty"))?;
    let order = CreateOrder {
        id: id.clone(),
        root: home.oci_root(),
        bundle: home.bundle(),
        console: prepared.console_socket(),
        no_pivot,
        cage: cage.clone(),
        streams: prepared.take_container_streams(),
    };
    let created = {
        let _span = span("launch");
        shared.launcher.create(order)?
    };
    shared.cool_down();
    let (pidfd, streams) = match furnish(&created, &plan, prepared) {
        Ok(furnished) => furnished,
        Err(error) => {
            take_down(created, &group)?;
            return Err(error);
        }
    };
    let supervisor = Arc::new(Supervisor::new(plan.policy.clone()));
    let engine = engine_order(&plan, trace_log, since)?;
    Ok(Parts { id, boundary, plan, group, created, pidfd, streams, supervisor, engine, image, rootfs, layer, cage })
}

/// What a created container still lacks before it may start.
fn furnish(created: &Created, plan: &Plan, prepared: Prepared) -> Result<(OwnedFd, Streams), TaskError> {
    let watched = |source| TaskError::System { deed: "watch the container", source };
    let pidfd = kernel::pidfd_open(created.pid).map_err(watched)?;
    if plan.own_network {
        let _span = span("loopback");
        cage::raise_loopback(created.pid)?;
    }
    Ok((pidfd, prepared.run()?))
}

/// Ends a created container that nobody will start.
pub(super) fn take_down(created: Created, group: &Group) -> Result<(), TaskError> {
    let pid = created.pid;
    created.abandon()?;
    group.kill_all()?;
    super::exec::reap(pid);
    Ok(())
}

/// What the engine of the container is told; `None` while the kernel schedules.
fn engine_order(plan: &Plan, trace_log: Option<PathBuf>, since: SystemTime) -> Result<Option<Order>, TaskError> {
    let profile = plan.policy.profile();
    if profile.schedule == Schedule::Host {
        return Ok(None);
    }
    let profile_text = toml::to_string(profile).map_err(|error| TaskError::System {
        deed: "write the engine's policy",
        source: std::io::Error::other(error),
    })?;
    // A description is for people and is not written; a profile without one is not read.
    let profile_text = format!("description = \"\"\n{profile_text}");
    let seed = plan.params.seed.map_or([0; 32], |seed| *seed.as_bytes());
    Ok(Some(Order {
        profile: plan.policy.name().to_owned(),
        profile_text,
        seed,
        trace_log,
        since_ns: since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
        hostname: profile.hostname.clone(),
        domainname: profile.domainname.clone(),
    }))
}

/// Writes the filters where the launcher's child can read them.
fn write_filters(shared: &Shared, home: &Home, plan: &Plan) -> Result<CageOrder, TaskError> {
    let _span = span("filter");
    let filter = filter::cached(&plan.policy, &shared.config.state_dir.join(".filters"))?;
    let tenant_filter = match &plan.fences.tenant_seccomp {
        None => None,
        Some(seccomp) => {
            let path = home.file("tenant.bpf");
            write_private(&path, &filter::compile_tenant(seccomp)?)?;
            Some(path)
        }
    };
    let turns = plan.policy.profile().schedule == Schedule::Turns;
    Ok(CageOrder { fences: plan.fences.clone(), filter, tenant_filter, turns })
}

fn make_home(home: &Home, id: &str) -> Result<(), TaskError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TaskError::File { deed: "make the directory", path, source }
    };
    if let Some(parent) = home.dir.parent() {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(parent).map_err(failed(parent))?;
    }
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    match private.create(&home.dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(TaskError::Exists { id: id.to_owned(), dir: home.dir.clone() });
        }
        other => other.map_err(failed(&home.dir))?,
    }
    for dir in [home.bundle(), home.oci_root()] {
        private.create(&dir).map_err(failed(&dir))?;
    }
    Ok(())
}

fn read_spec(path: &Path) -> Result<Spec, TaskError> {
    let refused = |reason: String| TaskError::Spec { path: path.to_owned(), reason };
    let bytes = fs::metadata(path).map_err(|error| refused(error.to_string()))?.len();
    if bytes > SPEC_BYTES_MAX {
        return Err(refused(format!("it has {bytes} bytes; the limit is {SPEC_BYTES_MAX}")));
    }
    let text = fs::read(path).map_err(|error| refused(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| refused(format!("it is no OCI runtime specification: {error}")))
}

fn write_spec(home: &Home, spec: &Spec) -> Result<(), TaskError> {
    let path = home.bundle().join("config.json");
    let bytes =
        serde_json::to_vec(spec).map_err(|error| TaskError::Spec { path: path.clone(), reason: error.to_string() })?;
    write_private(&path, &bytes)
}

pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TaskError> {
    let failed = |source| TaskError::File { deed: "write", path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    std::io::Write::write_all(&mut file, bytes).map_err(failed)
}

/// The specification's own path, or one of ours where it names none.
fn cgroup_of(spec: &Spec, boundary: &str, id: &str) -> String {
    let named = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    named.map_or_else(|| format!("/docklock/{boundary}/{id}"), |path| path.display().to_string())
}

fn name_cgroup(spec: &mut Spec, path: &str) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_cgroups_path(Some(PathBuf::from(path)));
    spec.set_linux(Some(linux));
}

pub(super) fn is_file_name(id: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl Intent {
    /// Starts to make the intent durable.
    fn begin(shared: &Arc<Shared>, request: &CreateRequest, plan: &Plan, home: &Home, cgroup: &str) -> Self {
        let shared = Arc::clone(shared);
        let boundary = request.boundary.clone();
        let id = request.id.clone();
        let (cage, config) = (plan.cage.clone(), plan.config_digest);
        // A run that the kernel schedules is not repeated, and the environment of a service is best kept nowhere.
        let kept = plan.params.seed.is_some().then(|| plan.config.clone());
        let (dir, cgroup) = (home.dir.clone(), cgroup.to_owned());
        Self::spawn(request.boundary.clone(), request.id.clone(), move || {
            let _span = span("intend");
            let spool = shared.spool(&boundary)?;
            orphan::close_orphans(&shared, &spool)?;
            if let Some(Err(error)) = kept.map(|config| spool.keep_config(&config)) {
                tracing::warn!(container = id, %error, "the configuration was not kept, so the run cannot be done again from its receipt alone");
            }
            let owner = ProcessRef::of(std::process::id())?;
            let facts =
                OpenFacts { container_id: id.clone(), owner, state_dir: dir, cgroups: vec![PathBuf::from(cgroup)] };
            let statement = |chain| {
                let host = shared.identity.clone();
                seal::intent_statement(
                    &receipt::Intent { container_id: id, cage, intended_on: clock::now(), host, chain },
                    config,
                )
            };
            Ok(spool.intend(shared.signer.as_ref(), facts, statement)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_leave_its_directory_is_refused() {
        for id in ["", ".", "..", "../a", "a/b", ".hidden", "a b", "ü"] {
            assert!(!is_file_name(id), "{id:?}");
        }
        assert!(is_file_name("demo-1.2_x"));
        assert!(!is_file_name(&"a".repeat(129)));
    }
}
