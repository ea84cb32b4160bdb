//! The fences the executor puts up, and the account of every one the policy demands.

use std::collections::BTreeSet;

use bpi_policies::{Demand, Policy};
use bpi_protocol::receipt::Fence;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Spec};
use serde::{Deserialize, Serialize};

use super::namespaces::Shared;
use super::{LandlockRules, PlanError, landlock};
use crate::apparmor::AppArmorProfile;
use crate::host::{CgroupMode, HostCapabilities};

/// `ADDR_NO_RANDOMIZE` (personality(2)).
const ADDR_NO_RANDOMIZE: u64 = 0x4_0000;

/// What the executor puts up in the container's own process, just before the program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fences {
    /// Always true.
    pub no_new_privs: bool,
    /// Execution domain with its flags.
    pub personality: u64,
    /// File mode creation mask.
    pub umask: u32,
    /// The AppArmor profile that the process changes to, where there is one.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// Landlock rules, where they are in force.
    pub landlock: Option<LandlockRules>,
    /// `CAP_` names: no set of the process may hold another.
    pub capabilities: BTreeSet<String>,
    /// The specification's own filter, stacked after ours.
    pub tenant_seccomp: Option<LinuxSeccomp>,
}

pub(super) fn of(
    policy: &Policy,
    host: &HostCapabilities,
    shared: &Shared,
    capabilities: BTreeSet<String>,
    tenant_seccomp: Option<LinuxSeccomp>,
) -> Fences {
    let profile = policy.profile();
    let wanted = profile.fences.landlock != Demand::Off && host.landlock_abi >= landlock::abi_needed(shared);
    Fences {
        no_new_privs: true,
        personality: if profile.no_aslr { ADDR_NO_RANDOMIZE } else { 0 },
        umask: profile.umask,
        apparmor: None,
        landlock: wanted.then(|| LandlockRules::of(policy, shared)),
        capabilities,
        tenant_seccomp,
    }
}

/// The AppArmor profile to put in force, if the policy wants one and the host can.
pub(super) fn apparmor(
    spec: &Spec,
    policy: &Policy,
    host: &HostCapabilities,
) -> Result<Option<AppArmorProfile>, PlanError> {
    if let Some(asked) = asked_profile(spec).filter(|_| !host.apparmor.enabled) {
        let why = "this host does not enforce AppArmor";
        return Err(PlanError::Unsupported { what: "process.apparmorProfile", value: asked.to_owned(), why });
    }
    if policy.profile().fences.apparmor == Demand::Off {
        return Ok(None);
    }
    Ok(host
        .apparmor
        .parser
        .as_deref()
        .filter(|_| host.apparmor.enabled)
        .map(|parser| AppArmorProfile::of(policy, parser)))
}

/// The name of the profile that processes change to: ours, else what the specification asks for.
pub(super) fn label(spec: &Spec, ours: Option<&AppArmorProfile>) -> Option<String> {
    ours.map(|profile| profile.name.as_str()).or_else(|| asked_profile(spec)).map(str::to_owned)
}

fn asked_profile(spec: &Spec) -> Option<&str> {
    let process = spec.process().as_ref()?;
    process.apparmor_profile().as_deref().filter(|asked| !asked.is_empty())
}

/// Accounts for each fence, sorted by name, and leaves out of the specification what this host cannot enforce.
pub(super) fn report(
    spec: &mut Spec,
    policy: &Policy,
    host: &HostCapabilities,
    apparmor: Option<&AppArmorProfile>,
) -> Result<Vec<Fence>, PlanError> {
    let demands = policy.profile().fences;
    let mut report = Report { policy, rows: Vec::new() };
    report.row("seccomp", Demand::Required, seccomp_missing(host))?;
    report.row("no-new-privs", Demand::Required, None)?;
    report.row("capabilities", Demand::Required, None)?;
    report.row("apparmor", demands.apparmor, apparmor.is_none().then(|| apparmor_missing(host)))?;
    report.row("landlock", demands.landlock, landlock_missing(host))?;
    let resources = super::resources::of(spec)?;
    for controller in CONTROLLERS {
        let demand = (controller.demand)(&demands.cgroup);
        let missing = controller_missing(host, controller.name);
        let unlimited = || {
            Some("neither the policy nor the specification sets a limit".to_owned())
                .filter(|_| !(controller.is_set)(resources))
        };
        report.row(controller.fence, demand, missing.clone().or_else(unlimited))?;
        if missing.is_some() || demand == Demand::Off {
            (controller.clear)(resources);
        }
    }
    report.rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(report.rows)
}

struct Report<'a> {
    policy: &'a Policy,
    rows: Vec<Fence>,
}

impl Report<'_> {
    fn row(&mut self, name: &'static str, demand: Demand, missing: Option<String>) -> Result<(), PlanError> {
        match (demand, missing) {
            (Demand::Off, _) => {}
            (Demand::Required, Some(reason)) => {
                return Err(PlanError::Fence { profile: self.policy.name().to_owned(), fence: name, reason });
            }
            (Demand::IfAvailable, Some(reason)) => {
                self.rows.push(Fence { name: name.to_owned(), status: "absent".to_owned(), reason: Some(reason) });
            }
            (_, None) => self.rows.push(Fence { name: name.to_owned(), status: "in-force".to_owned(), reason: None }),
        }
        Ok(())
    }
}

/// One cgroup controller: how a specification uses it, and how to leave it out.
struct Controller {
    name: &'static str,
    fence: &'static str,
    demand: fn(&bpi_policies::CgroupFence) -> Demand,
    is_set: fn(&LinuxResources) -> bool,
    clear: fn(&mut LinuxResources),
}

const CONTROLLERS: [Controller; 4] = [
    Controller {
        name: "cpu",
        fence: "cgroup-cpu",
        demand: |demands| demands.cpu,
        is_set: |resources| {
            resources.cpu().as_ref().and_then(oci_spec::runtime::LinuxCpu::quota).is_some_and(|quota| quota > 0)
        },
        clear: |resources| {
            resources.set_cpu(None);
        },
    },
    Controller {
        name: "devices",
        fence: "cgroup-devices",
        demand: |demands| demands.devices,
        is_set: |resources| resources.devices().is_some(),
        clear: |resources| {
            resources.set_devices(None);
        },
    },
    Controller {
        name: "memory",
        fence: "cgroup-memory",
        demand: |demands| demands.memory,
        is_set: |resources| {
            resources.memory().as_ref().and_then(oci_spec::runtime::LinuxMemory::limit).is_some_and(|limit| limit > 0)
        },
        clear: |resources| {
            resources.set_memory(None);
        },
    },
    Controller {
        name: "pids",
        fence: "cgroup-pids",
        demand: |demands| demands.pids,
        is_set: |resources| resources.pids().as_ref().is_some_and(|pids| pids.limit() > 0),
        clear: |resources| {
            resources.set_pids(None);
        },
    },
];

fn seccomp_missing(host: &HostCapabilities) -> Option<String> {
    if host.machine != "x86_64" {
        Some(format!("its machine is {}, and the system call table is that of x86_64", host.machine))
    } else if !host.seccomp_notify {
        Some("the kernel cannot hand calls to a supervisor".to_owned())
    } else if !host.seccomp_wait_killable {
        Some(format!("kernel {} lacks WAIT_KILLABLE_RECV, which Linux 5.19 brought", host.kernel))
    } else {
        None
    }
}

fn apparmor_missing(host: &HostCapabilities) -> String {
    let reason =
        if host.apparmor.enabled { "apparmor_parser is not installed" } else { "the kernel does not enforce AppArmor" };
    reason.to_owned()
}

fn landlock_missing(host: &HostCapabilities) -> Option<String> {
    match host.landlock_abi {
        0 => Some("the kernel does not enforce Landlock".to_owned()),
        abi if abi < landlock::ABI_MIN => Some(format!("Landlock ABI {abi} is below {}", landlock::ABI_MIN)),
        _ => None,
    }
}

fn controller_missing(host: &HostCapabilities, name: &str) -> Option<String> {
    match (host.cgroup.mode, name) {
        (CgroupMode::Absent, _) => Some("no cgroup file system is mounted".to_owned()),
        (CgroupMode::V2, "devices") => Some("on a unified cgroup host this build has no BPF device filter".to_owned()),
        _ if host.cgroup.controllers.contains(name) => None,
        _ => Some(format!("the {name} controller is not available")),
    }
}
