//! The process part: identity, capabilities, limits, environment. The first process and every later one are caged by the same code.

use std::collections::BTreeSet;

use bpi_policies::{CpuFeatures, Policy, Rlimit, Schedule};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};

use super::{Plan, PlanError};

/// Without a limit.
const UNLIMITED: u64 = u64::MAX;

/// Every limit of getrlimit(2) under turns, where neither specification nor profile names one: otherwise a process has what the runtime's
/// caller happens to have. The kernel's own defaults, but numbers where those follow from the host's memory (NPROC, SIGPENDING) or are
/// too small for today's programs (NOFILE). None is above what services usually have: raising one takes CAP_SYS_RESOURCE.
const UNDER_TURNS: [(PosixRlimitType, Rlimit); 16] = [
    (PosixRlimitType::RlimitAs, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitCore, Rlimit { soft: 0, hard: UNLIMITED }),
    (PosixRlimitType::RlimitCpu, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitData, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitFsize, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitLocks, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitMemlock, Rlimit { soft: 8 << 20, hard: 8 << 20 }),
    (PosixRlimitType::RlimitMsgqueue, Rlimit { soft: 819_200, hard: 819_200 }),
    (PosixRlimitType::RlimitNice, Rlimit { soft: 0, hard: 0 }),
    (PosixRlimitType::RlimitNofile, Rlimit { soft: 1 << 10, hard: 1 << 14 }),
    (PosixRlimitType::RlimitNproc, Rlimit { soft: 1 << 15, hard: 1 << 15 }),
    (PosixRlimitType::RlimitRss, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitRtprio, Rlimit { soft: 0, hard: 0 }),
    (PosixRlimitType::RlimitRttime, Rlimit { soft: UNLIMITED, hard: UNLIMITED }),
    (PosixRlimitType::RlimitSigpending, Rlimit { soft: 1 << 15, hard: 1 << 15 }),
    (PosixRlimitType::RlimitStack, Rlimit { soft: 8 << 20, hard: UNLIMITED }),
];

/// What tells glibc (manual, "Hardware Capability Tunables") and OpenSSL (OPENSSL_ia32cap(3)) to use nothing beyond x86-64-v2.
/// glibc ignores names it does not know, and XSAVE stays: without it lazy binding would lose vector arguments. The second has EDX of CPUID 1
/// in its low half (FXSR, SSE, SSE2), ECX in its high half (SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT), and nothing of CPUID 7.
const BASELINE: [(&str, &str); 2] = [
    (
        "GLIBC_TUNABLES",
        "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512BW,-AVX512F,-AVX512VL,-BMI1,-BMI2,-ERMS,-FMA,-FMA4,-FSRM,-LZCNT,-MOVBE,-RTM",
    ),
    ("OPENSSL_ia32cap", "0x98220107000000:0"),
];

/// Cages the first process; returns the names of the capabilities it may ever hold.
pub(super) fn cage_first(spec: &mut Spec, policy: &Policy) -> Result<BTreeSet<String>, PlanError> {
    let process = spec.process_mut().as_mut().ok_or(PlanError::Missing { what: "process" })?;
    let kept = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let kept = narrow(&kept, &policy.profile().capabilities);
    process.set_capabilities(Some(kept.clone()));
    cage(process, policy)?;
    Ok(names(kept.bounding()))
}

/// Cages a process that enters later: within the capabilities of the first one, and like it where it says nothing.
pub(super) fn cage_exec(plan: &Plan, process: &Process) -> Result<Process, PlanError> {
    let first = plan.spec.process().as_ref().ok_or(PlanError::Missing { what: "process" })?;
    let mut process = process.clone();
    let asked = process.capabilities().clone().or_else(|| first.capabilities().clone()).unwrap_or_else(no_capabilities);
    process.set_capabilities(Some(narrow(&asked, &plan.fences.capabilities)));
    cage(&mut process, &plan.policy)?;
    Ok(process)
}

fn cage(process: &mut Process, policy: &Policy) -> Result<(), PlanError> {
    let profile = policy.profile();
    // The executor puts it in force (`Fences::apparmor`).
    process.set_apparmor_profile(None);
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(PlanError::Missing { what: "process.args" });
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        let why = "SELinux labels cannot be enforced here";
        return Err(PlanError::Unsupported { what: "process.selinuxLabel", value: label.to_owned(), why });
    }
    process.set_no_new_privileges(Some(true));
    process.user_mut().set_umask(Some(profile.umask));
    process.set_env(Some(environment(process.env().clone().unwrap_or_default(), policy)));
    let mut rlimits = process.rlimits().clone().unwrap_or_default();
    for (name, limit) in &profile.rlimits {
        let kind = name.parse().map_err(|_| PlanError::Unsupported {
            what: "rlimits",
            value: name.to_owned(),
            why: "there is no such resource limit",
        })?;
        lower(&mut rlimits, kind, *limit);
    }
    if let Some(bytes) = profile.budget.memory_bytes_max {
        lower(&mut rlimits, PosixRlimitType::RlimitAs, Rlimit { soft: bytes, hard: bytes });
    }
    if profile.schedule == Schedule::Turns {
        for (kind, limit) in UNDER_TURNS {
            if !rlimits.iter().any(|rlimit| rlimit.typ() == kind) {
                lower(&mut rlimits, kind, limit);
            }
        }
    }
    process.set_rlimits(Some(rlimits));
    Ok(())
}

/// What the specification says, and what a program cannot do without. Locale and time zone stay the specification's: they are its inputs.
///
/// Masks for the processor's features are set only where the profile asks and no engine answers CPUID: a program sees them in its
/// environment, they slow down what uses vector units, and they bind only libraries that look for them.
fn environment(mut env: Vec<String>, policy: &Policy) -> Vec<String> {
    let path = [("PATH", policy.profile().path.as_str())];
    let masked = policy.profile().cpu_features == CpuFeatures::Baseline && policy.profile().schedule == Schedule::Host;
    let masks = BASELINE.into_iter().filter(|_| masked);
    for (name, value) in path.into_iter().chain(masks) {
        if !env.iter().any(|entry| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))) {
            env.push(format!("{name}={value}"));
        }
    }
    env
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

/// The stricter of what is asked and `limit`.
fn lower(rlimits: &mut Vec<PosixRlimit>, kind: PosixRlimitType, limit: Rlimit) {
    let present = rlimits.iter().position(|rlimit| rlimit.typ() == kind);
    let asked = present.map_or(limit, |at| Rlimit { soft: rlimits[at].soft(), hard: rlimits[at].hard() });
    let hard = asked.hard.min(limit.hard);
    let lowered = PosixRlimitBuilder::default().typ(kind).hard(hard).soft(asked.soft.min(limit.soft).min(hard)).build();
    let lowered = lowered.expect("all three fields of the builder are given");
    match present {
        Some(at) => rlimits[at] = lowered,
        None => rlimits.push(lowered),
    }
}
