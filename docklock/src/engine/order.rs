//! What the engine is told: its order at birth, and one message for the task it shall take.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::report::Report;

/// Everything the engine needs for its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Name of the policy.
    pub profile: String,
    /// The resolved profile, as TOML.
    pub profile_text: String,
    /// Seed of all randomness inside.
    pub seed: [u8; 32],
    /// Where the log of decisions goes, if somebody wants it.
    pub trace_log: Option<PathBuf>,
    /// Host time since 1970 in nanoseconds before anything of the container's root was made: what is newer has no date of the image.
    pub since_ns: u64,
    /// Host name that the guest sees.
    pub hostname: String,
    /// Domain name that the guest sees.
    pub domainname: String,
}

/// The task that the engine shall supervise.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Its process id as the shim sees it.
    pub pid: i32,
    /// Number of its listener among its descriptors, once it has loaded the filter.
    pub listener: i32,
}

/// What the engine says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    /// The task is supervised.
    Attached,
    /// It is not, or no longer: the container has been ended.
    Failed {
        /// One sentence.
        reason: String,
    },
    /// All tasks are gone.
    Over(Box<Report>),
}

/// Number of the call by which a task that has loaded its filter waits for the engine. No kernel has it.
pub const BARRIER: i64 = 0x0ddb;
/// What the engine answers to it.
pub const BARRIER_PASSED: i64 = 0x5afe;
