//! Every way a subcommand can fail, each with its code in docs/errors.md and its exit status.

use bpi_program::output::StdoutError;
use bpi_relay::config::ConfigError;
use bpi_relay::serve::ServeError;

/// What went wrong, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Stdout(#[from] StdoutError),
}

impl Failure {
    /// The code under which docs/errors.md explains it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Config(ConfigError::Named { .. }) => "BR0102",
            Self::Config(_) => "BR0101",
            Self::Stdout(_) => "BR0201",
            Self::Serve(error) => error.code(),
        }
    }

    /// Its exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Serve(_) | Self::Stdout(_) => 1,
        }
    }
}
