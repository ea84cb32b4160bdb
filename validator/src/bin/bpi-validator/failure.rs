//! Every way a subcommand can fail, each with its code in docs/errors.md and its exit status.

use bpi_program::output::StdoutError;
use std::path::PathBuf;

use bpi_validator::durable::DurableError;
use bpi_validator::durable::headers::HeadersError;
use bpi_validator::durable::watermark::WatermarkError;
use bpi_validator::keys::KeyFileError;
use bpi_validator::node::config::ConfigError;
use bpi_validator::node::genesis::GenesisError;
use bpi_validator::node::run::RunError;

/// What went wrong, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(Box<ConfigError>),
    #[error(transparent)]
    Genesis(Box<GenesisError>),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Watermark(Box<WatermarkError>),
    #[error(transparent)]
    Durable(Box<DurableError>),
    #[error(transparent)]
    Headers(Box<HeadersError>),
    #[error(transparent)]
    Run(Box<RunError>),
    #[error("{} names no validator, or no pinner: {reason}; `bpi-validator keygen` prints what names a validator", path.display())]
    Member { path: PathBuf, reason: String },
    #[error("height {height} is not final here; the last one that is is {tip}")]
    NotFinal { height: u64, tip: u64 },
    #[error("no node answers at {address}: {reason}; is it running, and is `api` its address?")]
    NoAnswer { address: String, reason: String },
    #[error(transparent)]
    Stdout(#[from] StdoutError),
}

/// Large errors are boxed: a failure is handed up through every subcommand.
macro_rules! boxed {
    ($($variant:ident, $error:ty);*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        }
    )*};
}

boxed! {
    Config, ConfigError;
    Genesis, GenesisError;
    Watermark, WatermarkError;
    Durable, DurableError;
    Headers, HeadersError;
    Run, RunError
}

impl Failure {
    /// The code under which docs/errors.md explains it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "BV0101",
            Self::Genesis(_) => "BV0102",
            Self::Member { .. } => "BV0103",
            Self::Key(_) => "BV0201",
            Self::Watermark(_) => "BV0301",
            Self::Durable(_) => "BV0302",
            Self::Headers(_) => "BV0303",
            Self::NotFinal { .. } => "BV0304",
            Self::Run(error) => error.code(),
            Self::NoAnswer { .. } => "BV0501",
            Self::Stdout(_) => "BV0502",
        }
    }

    /// Its exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Genesis(_) | Self::Member { .. } | Self::Key(_) => 2,
            Self::Run(error) if error.is_misuse() => 2,
            _ => 1,
        }
    }
}
