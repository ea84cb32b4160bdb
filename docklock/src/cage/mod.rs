//! The cage as a pure function: specification and policy go in, the caged specification and everything to enforce come out.
//!
//! [`plan`] narrows and never widens: what the specification asks for and the policy does not allow is either cut to the policy (limits,
//! capabilities, paths) or refused in one sentence (namespaces, devices, mounts), because half of it would be a different container.
//! Always true: the planned specification holds no seccomp, no personality and no capability beyond the policy; two plans of equal
//! content have equal digests on any host. Absent on purpose: doing. Only [`LandlockRules::apply`], [`raise_loopback`],
//! [`look_again`] and [`profile_for`] touch the system.

mod annotations;
mod choose;
mod devices;
mod error;
mod fences;
mod landlock;
mod loopback;
mod mounts;
mod namespaces;
mod normal;
mod process;
mod resources;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bpi_policies::profile::FROM_SPEC;
use bpi_policies::{CpuFeatures, HookRule, Policy, Schedule};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::{Fence, Source};
use bpi_protocol::run::{CageRef, Params};
use oci_spec::runtime::{LinuxPersonalityDomain, LinuxResources, Process, Root, Spec};

pub use bpi_policies::ExecRule;
pub use choose::profile_for;
pub use error::PlanError;
pub use fences::Fences;
pub use landlock::{LandlockError, LandlockRules};
pub use loopback::{LoopbackError, raise_loopback};

pub use crate::apparmor::AppArmorProfile;
use crate::host::HostCapabilities;

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// As the caller wrote it.
    pub spec: &'a Spec,
    /// What must hold.
    pub policy: &'a Policy,
    /// What this host can enforce.
    pub host: &'a HostCapabilities,
    /// Absolute path of the root file system on this host.
    pub rootfs: &'a Path,
    /// The container's writable layer is known, so it can be measured.
    pub has_layer: bool,
    /// Where its random bytes come from; without one, a seed that follows from the specification.
    pub seed: Option<[u8; 32]>,
}

/// Which files the receipt measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputScope {
    /// The writable layer.
    Layer,
    /// These absolute container paths, sorted.
    Paths(Vec<PathBuf>),
    /// None.
    None,
}

/// Everything about a run that is decided before it starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For libcontainer.
    pub spec: Spec,
    /// For the executor.
    pub fences: Fences,
    /// In force.
    pub policy: Policy,
    /// The specification without what belongs to this host or this run, as canonical JSON: enough to plan the same run again.
    pub config: Vec<u8>,
    /// Digest of that.
    pub config_digest: Sha256Digest,
    /// Seed, epoch and scheduler. A run that the kernel schedules has neither seed nor epoch.
    pub params: Params,
    /// Name and digest of the policy.
    pub cage: CageRef,
    /// Digest of the canonical bytes of the argument array.
    pub argv: Sha256Digest,
    /// Digest of the canonical bytes of the environment array.
    pub env: Sha256Digest,
    /// Budgets by name: of the cgroup, and logical ones.
    pub limits: BTreeMap<String, u64>,
    /// Every fence the policy demands, sorted by name.
    pub fence_report: Vec<Fence>,
    /// Every source of nondeterminism that is decided before the start, sorted by name. The engine reports the others.
    pub sources: Vec<Source>,
    /// Whether processes may enter later.
    pub exec: ExecRule,
    /// Which files the receipt measures.
    pub outputs: OutputScope,
    /// To be loaded before the container is made.
    pub apparmor: Option<AppArmorProfile>,
    /// The container has a network namespace of its own, whose loopback nobody else raises: [`raise_loopback`] before the start.
    pub own_network: bool,
}

/// Plans a run.
///
/// # Errors
/// What the specification asks for and the policy or the host refuses, in one sentence.
pub fn plan(request: &PlanRequest<'_>) -> Result<Plan, PlanError> {
    let PlanRequest { policy, host, .. } = *request;
    let mut spec = request.spec.clone();
    let declared = annotations::outputs(&spec)?;
    if !request.rootfs.is_absolute() {
        return Err(PlanError::Rootfs { path: request.rootfs.to_owned() });
    }
    let readonly = spec.root().as_ref().and_then(Root::readonly);
    let mut root = Root::default();
    root.set_path(request.rootfs.to_owned()).set_readonly(readonly);
    spec.set_root(Some(root));
    refuse_hooks(&spec, policy)?;
    refuse_processor(policy, host)?;
    names(&mut spec, policy);
    mounts::cage(&mut spec, policy)?;
    let shared = namespaces::cage(&mut spec, policy)?;
    let tenant_seccomp = take_odds(&mut spec)?;
    devices::cage(&mut spec, policy)?;
    let apparmor = fences::apparmor(&spec, policy, host)?;
    let label = fences::label(&spec, apparmor.as_ref());
    let kept = process::cage_first(&mut spec, policy)?;
    resources::narrow(resources::of(&mut spec)?, policy.profile());
    // Taken before what this host lacks is left out, so that equal plans have equal digests on unequal hosts.
    let config = normal::bytes(&spec, tenant_seccomp.as_ref())?;
    let config_digest = Sha256Digest::of(&config);
    let limits = resources::limits(&spec, &policy.profile().budget);
    let fence_report = fences::report(&mut spec, policy, host, apparmor.as_ref())?;
    let process = spec.process().as_ref().ok_or(PlanError::Missing { what: "process" })?;
    Ok(Plan {
        params: params(policy, request.seed, config_digest),
        config,
        config_digest,
        cage: CageRef { profile: policy.name().to_owned(), digest: policy.digest() },
        argv: normal::digest_strings(process.args().as_deref().unwrap_or_default())?,
        env: normal::digest_strings(process.env().as_deref().unwrap_or_default())?,
        limits,
        sources: sources::of(&spec, policy, &shared),
        exec: policy.profile().exec,
        outputs: declared.unwrap_or(if request.has_layer { OutputScope::Layer } else { OutputScope::None }),
        fences: Fences { apparmor: label, ..fences::of(policy, host, &shared, kept, tenant_seccomp) },
        fence_report,
        own_network: !shared.host_network && !shared.joined.contains(&bpi_policies::Namespace::Network),
        policy: policy.clone(),
        apparmor,
        spec,
    })
}

/// What programs are told of must be there.
fn refuse_processor(policy: &Policy, host: &HostCapabilities) -> Result<(), PlanError> {
    if policy.profile().cpu_features == CpuFeatures::Baseline && !host.baseline_cpu {
        return Err(PlanError::Processor { profile: policy.name().to_owned() });
    }
    Ok(())
}

/// What makes the virtual machine that a program sees.
fn params(policy: &Policy, seed: Option<[u8; 32]>, config: Sha256Digest) -> Params {
    match policy.profile().schedule {
        Schedule::Host => Params { seed: None, epoch: None, schedule: "host".to_owned() },
        Schedule::Turns => {
            // Nobody chose one: then equal plans have equal seeds, and nothing of the host is in it.
            let follows = || Sha256Digest::of(format!("docklock seed 1 {config}").as_bytes());
            Params {
                seed: Some(seed.map_or_else(follows, Sha256Digest::from_bytes)),
                epoch: Some(policy.profile().epoch),
                schedule: "turns".to_owned(),
            }
        }
    }
}

/// Looks at this host for what a pure plan cannot see: a joined namespace that is the host's, a mount whose source is a symbolic link to
/// what the policy keeps out. To be called once, before anything is made.
///
/// # Errors
/// The same sentences as [`plan`].
pub fn look_again(plan: &Plan) -> Result<(), PlanError> {
    namespaces::look_at_joined(&plan.spec, &plan.policy)?;
    mounts::look_at_sources(&plan.spec, &plan.policy)
}

/// Cages a process that shall enter a planned container as the first one was caged.
///
/// # Errors
/// When the process asks for what cannot be honoured.
pub fn plan_exec(plan: &Plan, process: &Process) -> Result<Process, PlanError> {
    process::cage_exec(plan, process)
}

/// Narrows new limits for a running container to its policy.
pub fn plan_update(plan: &Plan, resources: &LinuxResources) -> LinuxResources {
    let mut narrowed = resources.clone();
    // Devices are fixed at creation.
    narrowed.set_devices(None);
    resources::cap(&mut narrowed, plan.policy.profile());
    narrowed
}

fn refuse_hooks(spec: &Spec, policy: &Policy) -> Result<(), PlanError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let lists = [
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
        #[allow(deprecated)] // still sent by callers that speak 1.0
        hooks.prestart(),
    ];
    let path = lists.into_iter().flatten().flatten().map(|hook| hook.path().clone()).next();
    match path {
        Some(path) if policy.profile().hooks == HookRule::Refuse => {
            Err(PlanError::Hook { path, profile: policy.name().to_owned() })
        }
        _ => Ok(()),
    }
}

/// Names where the specification has none: a fresh uts namespace would show the host's.
const HOSTNAME: &str = "docklock";
const DOMAINNAME: &str = "(none)";

fn names(spec: &mut Spec, policy: &Policy) {
    let choose = |ruled: &str, asked: &Option<String>, otherwise: &str| match asked.as_deref() {
        _ if ruled != FROM_SPEC => Some(ruled.to_owned()),
        Some(asked) if !asked.is_empty() => Some(asked.to_owned()),
        _ => Some(otherwise.to_owned()),
    };
    let profile = policy.profile();
    let hostname = choose(&profile.hostname, spec.hostname(), HOSTNAME);
    let domainname = choose(&profile.domainname, spec.domainname(), DOMAINNAME);
    spec.set_hostname(hostname).set_domainname(domainname);
}

/// Takes out what the executor does instead of libcontainer, and refuses what neither does.
fn take_odds(spec: &mut Spec) -> Result<Option<oci_spec::runtime::LinuxSeccomp>, PlanError> {
    let linux = spec.linux_mut().as_mut().ok_or(PlanError::Missing { what: "linux" })?;
    let unsupported = |what, value: String, why| Err(PlanError::Unsupported { what, value, why });
    if let Some(personality) = linux.personality() {
        if personality.domain() != LinuxPersonalityDomain::PerLinux
            || personality.flags().iter().flatten().next().is_some()
        {
            return unsupported("linux.personality", format!("{personality:?}"), "the policy alone decides it");
        }
        linux.set_personality(None);
    }
    if let Some(propagation) = linux.rootfs_propagation().as_deref().filter(|word| word.contains("shared")) {
        return unsupported(
            "linux.rootfsPropagation",
            propagation.to_owned(),
            "mounts of the container would reach the host",
        );
    }
    if linux.net_devices().iter().flatten().next().is_some() {
        return unsupported(
            "linux.netDevices",
            "a device".to_owned(),
            "devices of the host's network stay with the host",
        );
    }
    if let Some(label) = linux.mount_label().as_deref().filter(|label| !label.is_empty()) {
        return unsupported("linux.mountLabel", label.to_owned(), "SELinux labels cannot be enforced here");
    }
    let seccomp = linux.seccomp().clone();
    linux.set_seccomp(None);
    Ok(seccomp)
}

#[cfg(test)]
mod tests;
