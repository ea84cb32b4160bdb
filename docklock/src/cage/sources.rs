//! What the cage controls of each source of nondeterminism before a run starts, for the receipt's `assurance`.
//!
//! Namespaces, mounts and the plan fix some. The rest is the engine's under turns, and only the run can tell what of it was controlled;
//! under the host's schedule nothing controls it, and it is `uncontrolled` here, so that no receipt claims more than was done.

use bpi_policies::profile::FROM_SPEC;
use bpi_policies::{Namespace, Network, Policy, Schedule};
use bpi_protocol::receipt::Source;
use oci_spec::runtime::{Mount, Spec};

use super::namespaces::Shared;

/// Sources that only an engine can control, and whose status it reports.
const ENGINE: [&str; 11] = [
    "clock",
    "cpuid",
    "entropy",
    "file-metadata",
    "pids",
    "procfs",
    "rdrand",
    "rdtsc",
    "rlimits",
    "scheduling",
    "sysinfo",
];

/// Every source of which the plan knows the status, sorted by name.
pub(super) fn of(spec: &Spec, policy: &Policy, shared: &Shared) -> Vec<Source> {
    let profile = policy.profile();
    // Where the policy allows a connection, the caller may make it after the container is created.
    let closed = matches!(profile.network, Network::None | Network::Loopback) && spec.hooks().is_none();
    let hostname = profile.hostname != FROM_SPEC && !shared.joined.contains(&Namespace::Uts);
    // What is read-only is an input, and measured as one before the start; what others could write meanwhile is nobody's.
    let shared_mount =
        spec.mounts().iter().flatten().any(|mount| super::mounts::is_bind(mount) && !is_read_only(mount));
    let fixed = [
        ("aslr", profile.no_aslr),
        ("environment", true),
        ("hostname", hostname),
        ("mounts", !shared_mount),
        ("network", closed),
        ("umask", true),
    ];
    let fixed = fixed.map(|(name, controlled)| (name, if controlled { "controlled" } else { "uncontrolled" }));
    let open = ENGINE.into_iter().filter(|_| profile.schedule == Schedule::Host);
    let mut rows: Vec<Source> = fixed
        .into_iter()
        .chain(open.map(|name| (name, "uncontrolled")))
        .map(|(name, status)| Source { name: name.to_owned(), status: status.to_owned(), reason: None })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn is_read_only(mount: &Mount) -> bool {
    // As mount(8) reads them: the last word counts.
    let mut words = mount.options().iter().flatten().filter(|option| matches!(option.as_str(), "ro" | "rw"));
    words.next_back().is_some_and(|option| option == "ro")
}
