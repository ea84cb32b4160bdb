//! One file for each subcommand.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod man;
pub(crate) mod run;
