//! The process part: identity, capabilities, limits, environment. The first process and every later one are caged by the same code.

use std::collections::BTreeSet;

use bpi_policies::{Policy, Rlimit};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};

use super::{Plan, PlanError};
use crate::apparmor::AppArmorProfile;

/// Cages the first process; returns the names of the capabilities it may ever hold.
pub(super) fn cage_first(
    spec: &mut Spec,
    policy: &Policy,
    apparmor: Option<&AppArmorProfile>,
) -> Result<BTreeSet<String>, PlanError> {
    let process = spec.process_mut().as_mut().ok_or(PlanError::Missing { what: "process" })?;
    let kept = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let kept = narrow(&kept, &policy.profile().capabilities);
    process.set_capabilities(Some(kept.clone()));
    cage(process, policy)?;
    if let Some(profile) = apparmor {
        process.set_apparmor_profile(Some(profile.name.clone()));
    }
    Ok(names(kept.bounding()))
}

/// Cages a process that enters later: within the capabilities of the first one, and like it where it says nothing.
pub(super) fn cage_exec(plan: &Plan, process: &Process) -> Result<Process, PlanError> {
    let first = plan.spec.process().as_ref().ok_or(PlanError::Missing { what: "process" })?;
    let mut process = process.clone();
    let asked = process.capabilities().clone().or_else(|| first.capabilities().clone()).unwrap_or_else(no_capabilities);
    process.set_capabilities(Some(narrow(&asked, &plan.fences.capabilities)));
    cage(&mut process, &plan.policy)?;
    process.set_apparmor_profile(first.apparmor_profile().clone());
    Ok(process)
}

fn cage(process: &mut Process, policy: &Policy) -> Result<(), PlanError> {
    let profile = policy.profile();
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(PlanError::Missing { what: "process.args" });
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        let why = "SELinux labels cannot be enforced here";
        return Err(PlanError::Unsupported { what: "process.selinuxLabel", value: label.to_owned(), why });
    }
    process.set_no_new_privileges(Some(true));
    process.user_mut().set_umask(Some(profile.umask));
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(format!("PATH={}", profile.path));
    }
    process.set_env(Some(env));
    let mut rlimits = process.rlimits().clone().unwrap_or_default();
    for (name, limit) in &profile.rlimits {
        lower(&mut rlimits, name, *limit)?;
    }
    process.set_rlimits(Some(rlimits));
    Ok(())
}

fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    let empty = || Some(Capabilities::new());
    none.set_bounding(empty())
        .set_permitted(empty())
        .set_effective(empty())
        .set_inheritable(empty())
        .set_ambient(empty());
    none
}

/// All five sets are given, because libcontainer leaves a missing one as it is; each is within those that the kernel derives it from
/// (capabilities(7)).
fn narrow(asked: &LinuxCapabilities, allowed: &BTreeSet<String>) -> LinuxCapabilities {
    let set = |asked: &Option<Capabilities>, within: Option<&Capabilities>| -> Capabilities {
        let asked = asked.iter().flatten().copied();
        asked.filter(|cap| allowed.contains(&name(*cap)) && within.is_none_or(|within| within.contains(cap))).collect()
    };
    let bounding = set(asked.bounding(), None);
    let permitted = set(asked.permitted(), Some(&bounding));
    let effective = set(asked.effective(), Some(&permitted));
    let inheritable = set(asked.inheritable(), Some(&bounding));
    let both = permitted.intersection(&inheritable).copied().collect();
    let ambient = set(asked.ambient(), Some(&both));
    let mut kept = no_capabilities();
    kept.set_bounding(Some(bounding)).set_permitted(Some(permitted)).set_effective(Some(effective));
    kept.set_inheritable(Some(inheritable)).set_ambient(Some(ambient));
    kept
}

/// `CAP_CHOWN`.
pub(super) fn name(capability: Capability) -> String {
    format!("CAP_{capability}")
}

fn names(set: &Option<Capabilities>) -> BTreeSet<String> {
    set.iter().flatten().map(|capability| name(*capability)).collect()
}

fn lower(rlimits: &mut Vec<PosixRlimit>, name: &str, limit: Rlimit) -> Result<(), PlanError> {
    let kind: PosixRlimitType = name.parse().map_err(|_| PlanError::Unsupported {
        what: "rlimits",
        value: name.to_owned(),
        why: "there is no such resource limit",
    })?;
    let present = rlimits.iter().position(|rlimit| rlimit.typ() == kind);
    let asked = present.map_or(limit, |at| Rlimit { soft: rlimits[at].soft(), hard: rlimits[at].hard() });
    let hard = asked.hard.min(limit.hard);
    let lowered = PosixRlimitBuilder::default().typ(kind).hard(hard).soft(asked.soft.min(limit.soft).min(hard)).build();
    let lowered = lowered.expect("all three fields of the builder are given");
    match present {
        Some(at) => rlimits[at] = lowered,
        None => rlimits.push(lowered),
    }
    Ok(())
}
