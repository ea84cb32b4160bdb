//! What the engine tells of a run when it is over.

use std::collections::BTreeMap;

use bpi_protocol::run::CallCount;
use serde::{Deserialize, Serialize};

/// Everything a receipt needs of what the engine saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Root over the decisions; absent while the kernel schedules.
    pub trace: Option<TraceRoot>,
    /// Calls that were refused, sorted by name, then errno.
    pub denied: Vec<CallCount>,
    /// Calls that the engine answered itself, sorted by name.
    pub answered: Vec<CallCount>,
    /// Sources of nondeterminism that the engine knows of, and their status in this run.
    pub sources: BTreeMap<String, String>,
    /// Why a source is not what it could be, one sentence, by its name.
    pub reasons: BTreeMap<String, String>,
    /// `host`, `single` or `serial-syscall`.
    pub schedule: String,
    /// What was counted: notifications, turns, hooks, ….
    pub counters: BTreeMap<String, u64>,
    /// One sentence for each point at which the run left the deterministic path.
    pub escapes: Vec<String>,
    /// The signal by which the first process would have ended had nobody traced it; the engine then had to kill it.
    pub crash: Option<u8>,
    /// Why the engine ended the run, if it did.
    pub ended_by: Option<String>,
}

/// Root over the log of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRoot {
    /// `blake3`.
    pub alg: String,
    /// Lower-case hexadecimal.
    pub digest: String,
    /// Number of events.
    pub events: u64,
    /// `docklock-trace/1`.
    pub format: String,
}
