//! Every way a subcommand can fail, each with its code in docs/errors.md and its exit status.

use std::io;

use bpi_relay::config::ConfigError;
use bpi_relay::serve::ServeError;

/// What went wrong, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("could not write to standard output: {source}")]
    Stdout { source: io::Error },
}

impl Failure {
    /// The code under which docs/errors.md explains it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Config(ConfigError::Named { .. }) => "BR0102",
            Self::Config(_) => "BR0101",
            Self::Stdout { .. } => "BR0201",
            Self::Serve(error) => error.code(),
        }
    }

    /// Its exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Serve(_) | Self::Stdout { .. } => 1,
        }
    }
}
