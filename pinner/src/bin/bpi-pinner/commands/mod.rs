//! One file for each subcommand.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod keygen;
pub(crate) mod log;
pub(crate) mod run;
pub(crate) mod scrub;
pub(crate) mod status;
