//! Cage profiles: everything one demands, read from TOML, with the digest of all of it.
//!
//! `strict`, `standard` and `service` are embedded; a site's own may extend one of them key by key. [`Policy::digest`] covers the resolved
//! rules and nothing of the host, so equal digests mean equal cages on any host. The name is not part of it.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bpi_protocol::canonical;
use bpi_protocol::digest::Sha256Digest;
use serde::{Deserialize, Serialize};

pub use error::PolicyError;

use crate::condition::{self, When};
use crate::{AUDIT_ARCH_X86_64, Call, Class, Errno, Rule, X32_SYSCALL_BIT, syscalls};

/// Longest profile text in bytes: the longest embedded one has 3 KiB.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// `hostname` and `domainname` of a profile that leaves them to the specification.
pub const FROM_SPEC: &str = "from-spec";

/// The last second that RFC 3339 can write.
const EPOCH_MAX: u64 = 253_402_300_799;

const EMBEDDED: [(&str, &str); 3] = [
    ("strict", include_str!("../profiles/strict.toml")),
    ("standard", include_str!("../profiles/standard.toml")),
    ("service", include_str!("../profiles/service.toml")),
];

/// Reach of the container's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// No internet sockets at all.
    None,
    /// A network namespace of its own, with nothing in it but loopback.
    Loopback,
    /// A network namespace of its own or of its pod, which the caller may have connected.
    Pod,
    /// The host's: for a site's own profile only.
    Host,
}

/// What becomes of a request to run another process inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecRule {
    /// It is refused.
    Refuse,
    /// It is caged like the first process, and the receipt names it.
    Taint,
}

/// What becomes of lifecycle hooks in a specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookRule {
    /// The specification is refused.
    Refuse,
    /// They run on the host, as the caller says.
    Allow,
}

/// How much a fence matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// Without it nothing runs.
    Required,
    /// Used where the host has it; the receipt says where it has not.
    IfAvailable,
    /// Not used.
    Off,
}

/// Kinds of namespace that a container may share with its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// System V IPC and message queues.
    Ipc,
    /// Network.
    Network,
    /// Process ids.
    Pid,
    /// User and group ids: a pod's containers join the one its sandbox made.
    User,
    /// Host name.
    Uts,
}

/// Rules about namespaces. Mount and cgroup are always the container's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespaces {
    /// Kinds that may be joined by path.
    pub joinable: BTreeSet<Namespace>,
}

/// Rules about mounts from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binds {
    /// Neither these host paths, nor what holds them, nor what they hold may be mounted.
    pub refused_sources: BTreeSet<String>,
}

/// A device beyond the standard ones that a container may be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    /// `c` or `b`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// How much each cgroup controller matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupFence {
    /// CPU quota and accounting.
    pub cpu: Demand,
    /// Device access.
    pub devices: Demand,
    /// Memory limit and accounting.
    pub memory: Demand,
    /// Number of processes.
    pub pids: Demand,
}

/// How much each fence matters. seccomp is always required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fences {
    /// AppArmor profile made from this policy.
    pub apparmor: Demand,
    /// Landlock rules.
    pub landlock: Demand,
    /// Cgroup controllers.
    pub cgroup: CgroupFence,
}

/// What Landlock shall enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockDemand {
    /// No device node can be made anywhere.
    pub deny_device_nodes: bool,
    /// When present, files can be changed beneath these absolute container paths only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_beneath: Option<BTreeSet<String>>,
}

/// Limits applied when the specification has none or wider ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// Thousandths of one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis_max: Option<u64>,
}

/// One resource limit of getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// What is enforced.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// Who decides which task runs when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The host's kernel, in real time.
    Host,
    /// The engine: one task at a time, in logical time.
    Turns,
}

/// What becomes of tasks that all wait for something that can never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The engine ends the run and says so.
    End,
    /// They wait: what is outside the cage may still move them.
    Wait,
}

/// What becomes of a task that computes on while others wait for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spin {
    /// The engine ends the run and says so: any other way would not repeat.
    End,
    /// It is stopped in real time, and the receipt claims less.
    Preempt,
}

/// What programs shall know of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuFeatures {
    /// All it can do.
    Host,
    /// What x86-64-v2 has: under turns the engine answers `cpuid` so, under the host's schedule libraries are told by their environment.
    Baseline,
}

/// How much a run may use, counted in the cage's own units: a run that exceeds one ends at the same place on every host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// System calls that the engine sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_max: Option<u64>,
    /// Seconds of logical time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_seconds_max: Option<u64>,
    /// Tasks that live at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u64>,
    /// Bytes of address space of each process (RLIMIT_AS): the call that asks for more fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Bytes that calls write to regular files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes_max: Option<u64>,
}

/// Departures from the table's classes. A conditional call keeps its condition: of its classes, only those that do not refuse change.
/// A changed call has the same class under either schedule, but without turns `virtual` is `allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyscallChanges {
    /// Calls that run unseen.
    pub allow: BTreeSet<String>,
    /// Calls that the engine answers or orders.
    #[serde(rename = "virtual")]
    pub virtualise: BTreeSet<String>,
    /// Calls that are refused, condition or not, and with what.
    pub deny: BTreeMap<String, Errno>,
}

/// Everything a profile says, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is for, one sentence.
    #[serde(skip_serializing)]
    pub description: String,
    /// Who decides which task runs when.
    pub schedule: Schedule,
    /// Logical time at the start, in seconds since 1970.
    pub epoch: u64,
    /// Notifications after which a turn passes if another task can run.
    pub quantum: u32,
    /// What a deadlock means.
    pub on_deadlock: Outcome,
    /// What a spinning task means.
    pub on_spin: Spin,
    /// What programs shall know of the processor.
    pub cpu_features: CpuFeatures,
    /// Reach of the network.
    pub network: Network,
    /// Whether processes may enter later.
    pub exec: ExecRule,
    /// Whether hooks may run.
    pub hooks: HookRule,
    /// File mode creation mask.
    pub umask: u32,
    /// Addresses are not randomised.
    pub no_aslr: bool,
    /// PATH for a specification that has none.
    pub path: String,
    /// Host name, or [`FROM_SPEC`].
    pub hostname: String,
    /// NIS domain name, or [`FROM_SPEC`].
    pub domainname: String,
    /// Capabilities a container may keep, by their `CAP_` names.
    pub capabilities: BTreeSet<String>,
    /// Container paths that show nothing.
    pub masked_paths: BTreeSet<String>,
    /// Container paths that cannot be written.
    pub readonly_paths: BTreeSet<String>,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Mounts from the host.
    pub binds: Binds,
    /// Devices beyond the standard ones.
    #[serde(default)]
    pub devices: Vec<DeviceRule>,
    /// Fences demanded.
    pub fences: Fences,
    /// Landlock rules.
    pub landlock: LandlockDemand,
    /// Cgroup limits.
    #[serde(default)]
    pub limits: Limits,
    /// Logical budgets.
    #[serde(default)]
    pub budget: Budget,
    /// Resource limits by their `RLIMIT_` names.
    #[serde(default)]
    pub rlimits: BTreeMap<String, Rlimit>,
    /// Departures from the system call table; the digest covers the resolved rules instead.
    #[serde(default, skip_serializing)]
    pub syscalls: SyscallChanges,
}

/// A profile in force: what it says, and a rule for every system call.
#[derive(Clone, PartialEq, Eq)]
pub struct Policy {
    name: String,
    profile: Arc<Profile>,
    rules: Arc<BTreeMap<u32, Rule>>,
    digest: Sha256Digest,
}

/// Its name and digest: the rules would fill pages of a log.
impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policy({} {:?})", self.name, self.digest)
    }
}

impl Budget {
    /// Every budget by its field's name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        let Self { calls_max, virtual_seconds_max, tasks_max, memory_bytes_max, file_bytes_max } = *self;
        [
            ("calls_max", calls_max),
            ("virtual_seconds_max", virtual_seconds_max),
            ("tasks_max", tasks_max),
            ("memory_bytes_max", memory_bytes_max),
            ("file_bytes_max", file_bytes_max),
        ]
        .into_iter()
    }
}

impl Policy {
    /// Names of the embedded profiles, strictest first.
    pub fn embedded_names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    /// The embedded profile of that name.
    pub fn embedded(name: &str) -> Option<Self> {
        let (name, text) = EMBEDDED.iter().find(|(known, _)| *known == name)?;
        Some(Self::parse(name, text).expect("the embedded profiles are constant and a test parses each of them"))
    }

    /// Reads a profile's TOML text.
    ///
    /// # Errors
    /// When it is not TOML, has an unknown field, lacks one that it does not inherit, or names what does not exist.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PolicyError::TooLong { name: name.to_owned(), bytes: text.len() });
        }
        let table = inherit(name, read(name, text)?)?;
        let profile: Profile = table.try_into().map_err(|error| toml_error(name, &error))?;
        check(name, &profile)?;
        let rules = resolve(name, &profile)?;
        let digest = digest(name, &profile, &rules)?;
        Ok(Self { name: name.to_owned(), profile: Arc::new(profile), rules: Arc::new(rules), digest })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says beside the system calls.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Digest of everything it enforces, whatever the host and the name.
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// A rule for every known system call, by rising number.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// What becomes of a call: foreign entries and unknown numbers are refused with ENOSYS, as on a kernel that lacks them.
    pub fn decide(&self, call: &Call) -> Class {
        self.rule(call).map_or(Class::Deny(Errno::ENOSYS), |rule| rule.decide(&call.args))
    }

    /// The kernel's name of the call, `foreign-abi` for 32-bit and x32 entry, or `unknown`.
    pub fn name_of(&self, call: &Call) -> &'static str {
        if is_foreign(call) { "foreign-abi" } else { self.rule(call).map_or("unknown", |rule| rule.name) }
    }

    fn rule(&self, call: &Call) -> Option<&Rule> {
        if is_foreign(call) { None } else { self.rules.get(&u32::try_from(call.nr).ok()?) }
    }
}

/// The number -1 has the x32 bit as well; it is what a tracer leaves behind, and nobody's entry.
fn is_foreign(call: &Call) -> bool {
    call.arch != AUDIT_ARCH_X86_64 || call.nr > 0 && call.nr.unsigned_abs() & X32_SYSCALL_BIT != 0
}

fn toml_error(name: &str, error: &toml::de::Error) -> PolicyError {
    PolicyError::Toml { name: name.to_owned(), reason: error.to_string().trim_end().to_owned() }
}

fn read(name: &str, text: &str) -> Result<toml::Table, PolicyError> {
    text.parse().map_err(|error| toml_error(name, &error))
}

/// Lays a profile over the one it extends: tables key by key, everything else whole.
fn inherit(name: &str, mut table: toml::Table) -> Result<toml::Table, PolicyError> {
    let Some(base) = table.remove("extends") else { return Ok(table) };
    let refused = |base: String| PolicyError::Base { name: name.to_owned(), base };
    let Some(base) = base.as_str() else { return Err(refused(base.to_string())) };
    // One level for a site's profile, two because `service` extends `standard`; a name extends only embedded ones, so no cycle.
    let (known, text) =
        EMBEDDED.iter().find(|(known, _)| *known == base && *known != name).ok_or_else(|| refused(base.to_owned()))?;
    let mut under = inherit(known, read(known, text)?)?;
    overlay(&mut under, table);
    Ok(under)
}

fn overlay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn check(name: &str, profile: &Profile) -> Result<(), PolicyError> {
    let wrong = |field, value: String, limit| Err(PolicyError::Value { name: name.to_owned(), field, value, limit });
    if profile.umask > 0o777 {
        return wrong("umask", format!("{:o}", profile.umask), "the highest is 777 (octal)");
    }
    if profile.epoch > EPOCH_MAX {
        return wrong("epoch", profile.epoch.to_string(), "the highest is 253402300799, the end of the year 9999");
    }
    if profile.quantum == 0 {
        return wrong("quantum", profile.quantum.to_string(), "a turn is one notification at least");
    }
    for (name, max) in profile.budget.named().filter_map(|(name, max)| Some((name, max?))) {
        if max == 0 {
            return wrong("budget", name.to_owned(), "a budget of nothing runs nothing; leave it out for no budget");
        }
        if profile.schedule == Schedule::Host {
            return wrong("budget", name.to_owned(), "only turns are counted; schedule = \"host\" has no budgets");
        }
    }
    if let Some(capability) = profile.capabilities.iter().find(|capability| !capability.starts_with("CAP_")) {
        return wrong("capabilities", capability.clone(), "a capability is spelled CAP_…");
    }
    if let Some((rlimit, _)) =
        profile.rlimits.iter().find(|(rlimit, at)| !rlimit.starts_with("RLIMIT_") || at.soft > at.hard)
    {
        return wrong(
            "rlimits",
            rlimit.clone(),
            "a limit is spelled RLIMIT_… and its soft value is not above its hard one",
        );
    }
    let paths = profile.masked_paths.iter().chain(&profile.readonly_paths).chain(&profile.binds.refused_sources);
    if let Some(path) = paths.chain(profile.landlock.write_beneath.iter().flatten()).find(|path| !is_plain_path(path)) {
        return wrong("a path", path.clone(), "a path is absolute, without empty, . or .. parts");
    }
    if let Some(device) = profile.devices.iter().find(|device| !matches!(device.kind.as_str(), "c" | "b")) {
        return wrong("devices.type", device.kind.clone(), "it may be c or b");
    }
    Ok(())
}

fn is_plain_path(path: &str) -> bool {
    path == "/" || path.starts_with('/') && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn resolve(name: &str, profile: &Profile) -> Result<BTreeMap<u32, Rule>, PolicyError> {
    let changes = &profile.syscalls;
    let lists = [
        ("allow", changes.allow.iter().collect::<Vec<_>>()),
        ("virtual", changes.virtualise.iter().collect()),
        ("deny", changes.deny.keys().collect()),
    ];
    let mut seen = BTreeSet::new();
    for (list, names) in lists {
        for syscall in names {
            if syscalls::named(syscall).is_none() {
                return Err(PolicyError::Syscall { name: name.to_owned(), list, syscall: syscall.clone() });
            }
            if !seen.insert(syscall) {
                return Err(PolicyError::Value {
                    name: name.to_owned(),
                    field: "syscalls",
                    value: syscall.clone(),
                    limit: "a call has one class",
                });
            }
        }
    }
    Ok(syscalls::table().iter().map(|row| (row.nr, rule(profile, row))).collect())
}

fn rule(profile: &Profile, row: &'static syscalls::Row) -> Rule {
    let changes = &profile.syscalls;
    let unconditional = |class| Rule { nr: row.nr, name: row.name, class, clauses: Vec::new() };
    if let Some(errno) = changes.deny.get(row.name) {
        return unconditional(Class::Deny(*errno));
    }
    let changed = if changes.allow.contains(row.name) {
        Some(Class::Allow)
    } else if changes.virtualise.contains(row.name) {
        Some(Class::Virtual)
    } else {
        None
    };
    let effective = |class| match (class, profile.schedule) {
        (Class::Virtual, Schedule::Host) => Class::Allow,
        (class, _) => class,
    };
    let Some(condition) = row.condition else {
        return unconditional(effective(changed.unwrap_or(row.class(profile.schedule))));
    };
    // A changed class must not open what the condition refuses.
    let class = |class| effective(if matches!(class, Class::Deny(_)) { class } else { changed.unwrap_or(class) });
    let counts = |when| match when {
        When::Always => true,
        When::Aslr => !profile.no_aslr,
        When::NoAslr => profile.no_aslr,
        When::Inet => profile.network != Network::None,
        When::Host => profile.schedule == Schedule::Host,
        When::Turns => profile.schedule == Schedule::Turns,
    };
    let counting = condition::clauses(condition).into_iter().flatten().filter(|clause| counts(clause.when));
    let clauses: Vec<_> = counting.map(|clause| (class(clause.class), clause)).collect();
    // Where a clause refuses, the call as a whole cannot pass unseen, whatever a profile changes.
    let refused = clauses.iter().any(|(class, _)| *class != Class::Allow);
    let own = match class(row.class(profile.schedule)) {
        Class::Allow if refused => effective(row.class(profile.schedule)),
        own => own,
    };
    // Where nothing is left to look at, the kernel answers from its bitmap.
    if clauses.iter().all(|(class, _)| *class == own) {
        unconditional(own)
    } else {
        Rule { clauses, ..unconditional(own) }
    }
}

#[derive(Serialize)]
struct Enforced<'a> {
    profile: &'a Profile,
    rules: Vec<String>,
}

fn digest(name: &str, profile: &Profile, rules: &BTreeMap<u32, Rule>) -> Result<Sha256Digest, PolicyError> {
    let enforced = Enforced { profile, rules: rules.values().map(ToString::to_string).collect() };
    let bytes = canonical::to_bytes(&enforced)
        .map_err(|error| PolicyError::Canonical { name: name.to_owned(), reason: error.to_string() })?;
    Ok(Sha256Digest::of(&bytes))
}

#[cfg(test)]
mod tests;
