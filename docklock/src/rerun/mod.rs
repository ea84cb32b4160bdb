//! Doing a run again, and telling how two runs differ. Pure, but for reading what it is given.
//!
//! [`recipe`] turns a receipt and its configuration back into a specification to run; [`compare`] names the parts of two runs that differ,
//! [`trace_diff`] the first decision, [`listing`] the files. Always true: a part that is not at hand is never called equal.
//! Absent on purpose: running, which is [`crate::task`]'s, and belief, which is `docklock verify`'s.

pub mod compare;
pub mod listing;
pub mod recipe;
pub mod trace_diff;

/// Name of the configuration's normal form in a folder of evidence: what `run.config.digest` is the digest of.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the engine's log in a folder of evidence.
pub const TRACE_FILE: &str = "trace.log";
/// Name of the listing of outputs in a folder of evidence.
pub const OUTPUTS_FILE: &str = "outputs.txt";
/// Longest normal form that is read, in bytes: as long as the specification it comes from may be.
pub const CONFIG_BYTES_MAX: usize = 16 << 20;
