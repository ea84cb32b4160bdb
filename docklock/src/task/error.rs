//! What a caller can be told.

use std::io;
use std::path::PathBuf;

use crate::apparmor::AppArmorError;
use crate::cage::{LoopbackError, PlanError};
use crate::cgroup::CgroupError;
use crate::filter::FilterError;
use crate::launch::LaunchError;
use crate::outputs::OutputsError;
use crate::seal::SealError;
use crate::signer::SignerError;
use crate::spool::SpoolError;
use crate::streams::StreamError;
use crate::supervisor::SupervisorError;

/// The kinds of refusal that callers tell apart; the shim maps them to ttrpc codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No such container or process.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The request itself is wrong.
    InvalidArgument,
    /// The request is right, and the state forbids it.
    FailedPrecondition,
    /// The policy forbids it.
    PermissionDenied,
    /// The host lacks something now: disk space, the key, a process.
    Unavailable,
    /// Anything else.
    Internal,
}

/// Why a container or process could not be made, started or controlled.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A container id that would not do as a file name.
    #[error("container id {id:?} must be 1 to 128 of the characters a-z A-Z 0-9 . _ - and not begin with a dot")]
    Id {
        /// The id.
        id: String,
    },
    /// An exec id that would not do as a file name.
    #[error("exec id {id:?} must be 1 to 128 of the characters a-z A-Z 0-9 . _ - and not begin with a dot")]
    ExecId {
        /// The id.
        id: String,
    },
    /// The name is taken.
    #[error("container {id} already exists in {dir}; delete it first")]
    Exists {
        /// The id.
        id: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// The bundle's config.json cannot be used.
    #[error("could not use {path}: {reason}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The plan refuses.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The host's key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The chain on disk.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A record could not be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The AppArmor profile.
    #[error(transparent)]
    AppArmor(#[from] AppArmorError),
    /// The streams.
    #[error(transparent)]
    Streams(#[from] StreamError),
    /// The launcher.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The output tree.
    #[error(transparent)]
    Outputs(#[from] OutputsError),
    /// The supervisor.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// The loopback interface.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// The control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A file of ours.
    #[error("could not {deed} {path}: {source}")]
    File {
        /// What was tried.
        deed: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call of ours.
    #[error("could not {deed}: {source}")]
    System {
        /// What was tried.
        deed: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state forbids it.
    #[error("could not {deed} {id}: it is {state}")]
    State {
        /// What was asked.
        deed: &'static str,
        /// Of what.
        id: String,
        /// What it is instead.
        state: &'static str,
    },
    /// The profile refuses exec.
    #[error(
        "profile {profile} refuses exec into container {id}, because its receipt speaks of one program; run it under a profile with exec = \"taint\", such as service (annotation io.bpi.docklock.profile=service)"
    )]
    ExecRefused {
        /// The container.
        id: String,
        /// Its profile.
        profile: String,
    },
    /// The process is gone.
    #[error("process {id} has ended")]
    Ended {
        /// The container or exec.
        id: String,
    },
    /// The intent's thread panicked.
    #[error("the thread that makes the intent durable panicked")]
    IntentPanicked,
}

impl TaskError {
    /// What kind of refusal it is.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Id { .. }
            | Self::ExecId { .. }
            | Self::Spec { .. }
            | Self::Plan(_)
            | Self::Streams(StreamError::Open { .. }) => ErrorCode::InvalidArgument,
            Self::Exists { .. } => ErrorCode::AlreadyExists,
            Self::State { .. } => ErrorCode::FailedPrecondition,
            Self::ExecRefused { .. } => ErrorCode::PermissionDenied,
            Self::Ended { .. } => ErrorCode::NotFound,
            Self::Signer(_) | Self::Spool(_) => ErrorCode::Unavailable,
            Self::Launch(LaunchError::Refused { .. }) => ErrorCode::FailedPrecondition,
            _ => ErrorCode::Internal,
        }
    }
}
