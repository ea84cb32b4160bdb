//! One file for each subcommand.

pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod genesis;
pub(crate) mod headers;
pub(crate) mod init;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod trust;
