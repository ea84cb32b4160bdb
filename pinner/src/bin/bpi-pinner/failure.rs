//! Every way a subcommand can fail, each with its code in docs/errors.md and its exit status.

use bpi_program::output::StdoutError;
use std::io;
use std::path::PathBuf;

use bpi_keyfile::KeyFileError;
use bpi_pinner::catalogue::CatalogueError;
use bpi_pinner::config::ConfigError;
use bpi_pinner::serve::RunError;
use bpi_pinner::table::TableError;

/// What went wrong, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("no pinner answers at {address}: {source}; start it, or correct `api`")]
    Ask { address: String, source: io::Error },
    #[error("the pinner at {address} answers {status}: {text}")]
    Answer { address: String, status: u16, text: String },
    #[error("{} shards are bad: {}", .shards.len(), .shards.join(", "))]
    Bad { shards: Vec<String> },
    #[error("could not write {}: {reason}", path.display())]
    Write { path: PathBuf, reason: String },
    #[error(transparent)]
    Stdout(#[from] StdoutError),
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::Run(error.into())
    }
}

impl From<CatalogueError> for Failure {
    fn from(error: CatalogueError) -> Self {
        Self::Run(error.into())
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::Run(error.into())
    }
}

impl Failure {
    /// The code under which docs/errors.md explains it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "BP0101",
            Self::Run(error) => error.code(),
            Self::Ask { .. } | Self::Answer { .. } => "BP0404",
            Self::Bad { .. } => "BP0308",
            Self::Write { .. } => "BP0502",
            Self::Stdout(_) => "BP0501",
        }
    }

    /// Its exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Run(error) if error.is_misuse() => 2,
            _ => 1,
        }
    }
}
