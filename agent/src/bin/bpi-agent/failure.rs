//! Every way a subcommand can fail, each with its code in docs/errors.md and its exit status.

use bpi_program::output::StdoutError;
use std::io;

use bpi_agent::config::ConfigError;
use bpi_agent::evidence::MakingError;
use bpi_agent::restore::RestoreError;
use bpi_agent::run::RunError;
use bpi_agent_api::AskError;
use bpi_keyfile::KeyFileError;

/// What went wrong, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(Box<ConfigError>),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Run(Box<RunError>),
    #[error(transparent)]
    Evidence(#[from] Box<MakingError>),
    #[error(transparent)]
    Ask(Box<AskError>),
    #[error("the receipt is {level:?}, and {wanted:?} was wanted; `docklock receipts wait` goes on waiting")]
    NotReached { wanted: String, level: String },
    #[error(transparent)]
    Restore(#[from] Box<RestoreError>),
    #[error("{batches} batches could not be restored; they are named above, with the reasons")]
    Lost { batches: usize },
    #[error("could not start threads: {source}")]
    Threads { source: io::Error },
    #[error(transparent)]
    Stdout(#[from] StdoutError),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Run(Box::new(error))
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::Ask(Box::new(error))
    }
}

impl Failure {
    /// The code under which docs/errors.md explains it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "BA0101",
            Self::Key(_) => "BA0201",
            Self::Run(error) => error.code(),
            Self::Stdout(_) => "BA0501",
            Self::Ask(_) => "BA0502",
            Self::NotReached { .. } => "BA0503",
            Self::Evidence(_) => "BA0603",
            Self::Restore(_) => "BA0601",
            Self::Lost { .. } => "BA0602",
            Self::Threads { .. } => "BA0403",
        }
    }

    /// Its exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Key(_) => 2,
            Self::Run(error) if error.is_misuse() => 2,
            _ => 1,
        }
    }
}
