//! Namespaces: the container's own, or its pod's where the policy allows; never the host's.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use bpi_policies::{Namespace, Network, Policy};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use super::PlanError;

/// Kinds that the container does not have to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    /// Joined by path.
    pub(super) joined: BTreeSet<Namespace>,
    /// The network is the host's own.
    pub(super) host_network: bool,
}

/// Kinds that every container must have.
const DEMANDED: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Network,
];

pub(super) fn cage(spec: &mut Spec, policy: &Policy) -> Result<Shared, PlanError> {
    let linux = spec.linux_mut().as_mut().ok_or(PlanError::Missing { what: "linux" })?;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let mut shared = Shared::default();
    for (at, namespace) in namespaces.iter().enumerate() {
        if namespaces[..at].iter().any(|earlier| earlier.typ() == namespace.typ()) {
            return Err(PlanError::NamespaceTwice { kind: spelled(namespace.typ()).to_owned() });
        }
        if let Some(path) = joined_path(namespace) {
            let allowed = joinable(namespace.typ())
                .filter(|word| policy.profile().namespaces.joinable.contains(word) && allows_network(policy, *word));
            let Some(word) = allowed else {
                let (kind, profile) = (spelled(namespace.typ()).to_owned(), policy.name().to_owned());
                return Err(PlanError::JoinedNamespace { kind, path, profile });
            };
            shared.joined.insert(word);
        }
    }
    for kind in DEMANDED {
        if namespaces.iter().any(|namespace| namespace.typ() == kind) {
            continue;
        }
        if kind == LinuxNamespaceType::Network && policy.profile().network == Network::Host {
            shared.host_network = true;
            continue;
        }
        return Err(PlanError::HostNamespace { kind: spelled(kind).to_owned(), profile: policy.name().to_owned() });
    }
    // containerd adds it on cgroup v2 only; without it /proc/self/cgroup names the host's paths.
    if !namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup) {
        let mut own = LinuxNamespace::default();
        own.set_typ(LinuxNamespaceType::Cgroup).set_path(None);
        namespaces.push(own);
    }
    linux.set_namespaces(Some(namespaces));
    Ok(shared)
}

fn allows_network(policy: &Policy, word: Namespace) -> bool {
    word != Namespace::Network || matches!(policy.profile().network, Network::Pod | Network::Host)
}

/// Refuses a joined namespace that turns out to be this process's own, which is the host's.
pub(super) fn look_at_joined(spec: &Spec, policy: &Policy) -> Result<(), PlanError> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    for namespace in namespaces.into_iter().flatten() {
        let Some(path) = joined_path(namespace) else { continue };
        let kind = spelled(namespace.typ());
        let entry = if kind == "network" { "net" } else { kind };
        let same = |own: Metadata| {
            std::fs::metadata(&path).is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
        };
        if std::fs::metadata(format!("/proc/self/ns/{entry}")).is_ok_and(same) {
            return Err(PlanError::HostNamespace { kind: kind.to_owned(), profile: policy.name().to_owned() });
        }
    }
    Ok(())
}

/// What a policy calls a kind that may be joined at all.
fn joinable(kind: LinuxNamespaceType) -> Option<Namespace> {
    match kind {
        LinuxNamespaceType::Ipc => Some(Namespace::Ipc),
        LinuxNamespaceType::Network => Some(Namespace::Network),
        LinuxNamespaceType::Pid => Some(Namespace::Pid),
        LinuxNamespaceType::User => Some(Namespace::User),
        LinuxNamespaceType::Uts => Some(Namespace::Uts),
        LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => None,
    }
}

/// The specification's own word; the type prints the kernel's.
fn spelled(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

/// An empty path means none.
fn joined_path(namespace: &LinuxNamespace) -> Option<std::path::PathBuf> {
    namespace.path().clone().filter(|path| !path.as_os_str().is_empty())
}
