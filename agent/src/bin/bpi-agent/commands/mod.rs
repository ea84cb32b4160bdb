//! One file for each subcommand.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod evidence;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod order;
pub(crate) mod restore;
pub(crate) mod run;
