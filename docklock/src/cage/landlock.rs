//! Landlock rules: what no capability and no file mode can grant back.
//!
//! A rule set that handles any file right also forbids, since its second version, to move files between directories unless that right
//! is handled and granted; so it is granted beneath `/` explicitly. Signals are not scoped: each exec is a domain of its own, and a
//! scope would cut it off from the first process. Always true: a planned rule set is enforced whole or the program does not run.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bpi_policies::Policy;
use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

use super::namespaces::Shared;

/// Lowest ABI: the first that lets files move between directories at all (Linux 5.19, as is the supervisor's lowest kernel).
pub(super) const ABI_MIN: u32 = 2;
/// ABI that scopes abstract sockets (Linux 6.12).
const ABI_SCOPE: u32 = 6;

/// What Landlock shall enforce. Paths are the container's, resolved when the rules are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockRules {
    /// No character or block device node can be made anywhere.
    pub deny_device_nodes: bool,
    /// When present, files can be changed beneath these paths only; one that does not exist grants nothing.
    pub write_beneath: Option<BTreeSet<PathBuf>>,
    /// Abstract unix sockets of processes outside cannot be reached.
    pub scope_abstract_sockets: bool,
}

/// Why a planned rule set is not in force.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel refused a rule.
    #[error("the kernel refused the rules: {source}")]
    Rules {
        /// What the crate says.
        source: RulesetError,
    },
    /// A granted path could not be opened.
    #[error("could not open {path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the crate says.
        source: PathFdError,
    },
    /// The kernel enforces less than it was asked for.
    #[error("the kernel enforces the rules only in part ({status:?})")]
    Partial {
        /// What it says.
        status: RulesetStatus,
    },
}

/// Abstract sockets belong to a network namespace; only the host's own needs the scope, because shims and daemons listen there.
pub(super) fn abi_needed(shared: &Shared) -> u32 {
    if shared.host_network { ABI_SCOPE } else { ABI_MIN }
}

impl LandlockRules {
    pub(super) fn of(policy: &Policy, shared: &Shared) -> Self {
        let demand = &policy.profile().landlock;
        Self {
            deny_device_nodes: demand.deny_device_nodes,
            write_beneath: demand.write_beneath.as_ref().map(|paths| paths.iter().map(PathBuf::from).collect()),
            scope_abstract_sockets: shared.host_network,
        }
    }

    /// Puts the rules in force for this thread and all its children, for ever. no_new_privs must be set.
    ///
    /// # Errors
    /// When the kernel refuses any part.
    pub fn apply(&self) -> Result<(), LandlockError> {
        let refused = |source| LandlockError::Rules { source };
        let handled = self.handled();
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if handled.is_empty() && !self.scope_abstract_sockets {
            return Ok(());
        }
        if !handled.is_empty() {
            ruleset = ruleset.handle_access(handled).map_err(refused)?;
        }
        if self.scope_abstract_sockets {
            ruleset = ruleset.scope(Scope::AbstractUnixSocket).map_err(refused)?;
        }
        let mut created = ruleset.create().map_err(refused)?;
        for (path, granted) in self.grants(handled) {
            let fd = match PathFd::new(&path) {
                Ok(fd) => fd,
                Err(_) if !path.exists() => continue,
                Err(source) => return Err(LandlockError::Path { path, source }),
            };
            created = created.add_rule(PathBeneath::new(fd, granted)).map_err(refused)?;
        }
        let status = created.restrict_self().map_err(refused)?;
        if status.ruleset != RulesetStatus::FullyEnforced {
            return Err(LandlockError::Partial { status: status.ruleset });
        }
        Ok(())
    }

    fn handled(&self) -> BitFlags<AccessFs> {
        let mut handled = BitFlags::EMPTY;
        if self.deny_device_nodes {
            handled |= AccessFs::MakeChar | AccessFs::MakeBlock;
        }
        if self.write_beneath.is_some() {
            handled |= AccessFs::from_write(ABI::V2);
        }
        if handled.is_empty() { handled } else { handled | AccessFs::Refer }
    }

    fn grants(&self, handled: BitFlags<AccessFs>) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
        let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
        let given = if self.deny_device_nodes { handled & !devices } else { handled };
        match &self.write_beneath {
            _ if handled.is_empty() => Vec::new(),
            None => vec![(PathBuf::from("/"), given)],
            Some(paths) => paths.iter().map(|path| (path.clone(), given)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
