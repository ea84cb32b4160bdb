//! Refusals as the task API carries them: a code that containerd acts on, and one sentence for whoever asked.

use std::fmt;

use containerd_shim_protos::ttrpc::{self, Code};
use docklock::task::{ErrorCode, TaskError};

use crate::arguments::ArgumentError;
use crate::bundle::BundleError;
use crate::options::OptionsError;
use crate::rootfs::RootFsError;
use crate::stdio::StdioError;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: Code,
    sentence: String,
}

impl Refusal {
    fn new(code: Code, sentence: impl fmt::Display) -> Self {
        Self { code, sentence: sentence.to_string() }
    }

    /// No such container, exec or process any more. containerd takes it for "already done".
    pub fn not_found(sentence: impl fmt::Display) -> Self {
        Self::new(Code::NOT_FOUND, sentence)
    }

    /// The name is taken.
    pub fn already_exists(sentence: impl fmt::Display) -> Self {
        Self::new(Code::ALREADY_EXISTS, sentence)
    }

    /// The request itself is wrong.
    pub fn invalid(sentence: impl fmt::Display) -> Self {
        Self::new(Code::INVALID_ARGUMENT, sentence)
    }

    /// The state forbids it.
    pub fn precondition(sentence: impl fmt::Display) -> Self {
        Self::new(Code::FAILED_PRECONDITION, sentence)
    }

    /// This shim does not do that.
    pub fn unimplemented(sentence: impl fmt::Display) -> Self {
        Self::new(Code::UNIMPLEMENTED, sentence)
    }

    /// The host cannot do it now.
    pub fn unavailable(sentence: impl fmt::Display) -> Self {
        Self::new(Code::UNAVAILABLE, sentence)
    }

    /// A fault of ours.
    pub fn internal(sentence: impl fmt::Display) -> Self {
        Self::new(Code::INTERNAL, sentence)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<Refusal> for ttrpc::Error {
    fn from(refusal: Refusal) -> Self {
        Self::RpcStatus(ttrpc::get_status(refusal.code, refusal.sentence))
    }
}

/// A [`TaskError`] already says its whole chain of causes.
impl From<TaskError> for Refusal {
    fn from(error: TaskError) -> Self {
        let code = match error.code() {
            ErrorCode::NotFound => Code::NOT_FOUND,
            ErrorCode::AlreadyExists => Code::ALREADY_EXISTS,
            ErrorCode::InvalidArgument => Code::INVALID_ARGUMENT,
            ErrorCode::FailedPrecondition => Code::FAILED_PRECONDITION,
            ErrorCode::PermissionDenied => Code::PERMISSION_DENIED,
            ErrorCode::Unavailable => Code::UNAVAILABLE,
            ErrorCode::Internal => Code::INTERNAL,
        };
        Self::new(code, error)
    }
}

impl From<RootFsError> for Refusal {
    fn from(error: RootFsError) -> Self {
        match error {
            RootFsError::Unsupported { .. } => Self::unimplemented(error),
            RootFsError::TooMany { .. } | RootFsError::OptionsTooLong { .. } => Self::invalid(error),
            RootFsError::Directory { .. }
            | RootFsError::Mount { .. }
            | RootFsError::Thread { .. }
            | RootFsError::Unmount { .. } => Self::internal(error),
        }
    }
}

impl From<StdioError> for Refusal {
    fn from(error: StdioError) -> Self {
        match error {
            StdioError::Unsupported { .. } => Self::unimplemented(error),
            StdioError::NotAbsolute { .. } | StdioError::Open { .. } => Self::invalid(error),
        }
    }
}

impl From<OptionsError> for Refusal {
    fn from(error: OptionsError) -> Self {
        Self::invalid(error)
    }
}

impl From<BundleError> for Refusal {
    fn from(error: BundleError) -> Self {
        Self::invalid(error)
    }
}

impl From<ArgumentError> for Refusal {
    fn from(error: ArgumentError) -> Self {
        Self::invalid(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_has_ended_is_not_found() {
        let status: ttrpc::Error = Refusal::from(TaskError::Ended { id: "demo".into() }).into();
        assert_eq!(status, ttrpc::Error::RpcStatus(ttrpc::get_status(Code::NOT_FOUND, "process demo has ended")));
    }
}
