//! The subcommands, one file each.

pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod folder;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod oci;
pub(crate) mod profiles;
pub(crate) mod receipts;
pub(crate) mod redact;
pub(crate) mod rerun;
pub(crate) mod run;
pub(crate) mod verify;
