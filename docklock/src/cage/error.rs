//! Why there is no plan.

use std::path::PathBuf;

use bpi_policies::PolicyError;

/// Why a specification cannot be caged: what it asks for, and who refuses.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A part without which there is no container.
    #[error("the specification has no {what}")]
    Missing {
        /// Which part.
        what: &'static str,
    },
    /// The caller's path is relative.
    #[error("the root file system {path} is not an absolute path")]
    Rootfs {
        /// The path.
        path: PathBuf,
    },
    /// An annotation in our name that means nothing.
    #[error("annotation {name} is unknown; there are io.bpi.docklock.profile and io.bpi.docklock.outputs")]
    Annotation {
        /// Its name.
        name: String,
    },
    /// Declared outputs that are no paths.
    #[error("annotation io.bpi.docklock.outputs holds {value:?}; {limit}")]
    Outputs {
        /// The refused part.
        value: String,
        /// What it may hold.
        limit: &'static str,
    },
    /// There is no profile of that name.
    #[error("profile {name:?} is neither embedded (strict, standard, service) nor a file {path}")]
    UnknownProfile {
        /// The name.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The name could be a path.
    #[error("profile {name:?} is not a name: 1 to 64 of a–z, A–Z, 0–9, - and _")]
    ProfileName {
        /// The refused name.
        name: String,
    },
    /// The file cannot be read.
    #[error("could not read profile {path}: {source}")]
    ProfileFile {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file cannot be understood.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Programs would be told of instructions that the processor does not have.
    #[error("profile {profile} shows programs a processor of x86-64-v2, and this host's has less")]
    Processor {
        /// Policy.
        profile: String,
    },
    /// A namespace that would be the host's.
    #[error(
        "the specification leaves the container in the host's {kind} namespace; profile {profile} does not allow it"
    )]
    HostNamespace {
        /// Kind.
        kind: String,
        /// Policy.
        profile: String,
    },
    /// A namespace by path.
    #[error("the specification joins the {kind} namespace {path}; profile {profile} does not allow it")]
    JoinedNamespace {
        /// Kind.
        kind: String,
        /// Which.
        path: PathBuf,
        /// Policy.
        profile: String,
    },
    /// A namespace listed twice.
    #[error("the specification lists the {kind} namespace twice")]
    NamespaceTwice {
        /// Kind.
        kind: String,
    },
    /// A device of the host.
    #[error(
        "the specification gives the container device {path} ({kind} {major}:{minor}); profile {profile} does not allow it"
    )]
    Device {
        /// Path in the container.
        path: PathBuf,
        /// `c` or `b`.
        kind: String,
        /// Major number.
        major: i64,
        /// Minor number.
        minor: i64,
        /// Policy.
        profile: String,
    },
    /// A rule that opens devices of the host.
    #[error("the specification's device rule {rule} opens devices of the host; profile {profile} does not allow it")]
    DeviceRule {
        /// The rule.
        rule: String,
        /// Policy.
        profile: String,
    },
    /// A mount.
    #[error("the specification mounts {source_name:?} at {destination}: {why}")]
    Mount {
        /// What.
        source_name: String,
        /// Where.
        destination: PathBuf,
        /// Why not.
        why: String,
    },
    /// A hook.
    #[error("the specification runs the hook {path} on the host; profile {profile} does not allow hooks")]
    Hook {
        /// Program.
        path: PathBuf,
        /// Policy.
        profile: String,
    },
    /// What cannot be honoured must not be ignored.
    #[error("{what} is {value:?}: {why}")]
    Unsupported {
        /// Field.
        what: &'static str,
        /// Value.
        value: String,
        /// Why not.
        why: &'static str,
    },
    /// A fence the policy demands and the host lacks.
    #[error("profile {profile} requires the fence {fence}, and this host lacks it: {reason}")]
    Fence {
        /// Policy.
        profile: String,
        /// Which fence.
        fence: &'static str,
        /// What is missing.
        reason: String,
    },
    /// No canonical form.
    #[error("the specification has no canonical form: {reason}")]
    Canonical {
        /// Why.
        reason: String,
    },
}
