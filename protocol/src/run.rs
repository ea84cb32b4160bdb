//! `run.json`: the deterministic core of a receipt.
//!
//! The rule for what is in here: what the workload could observe or what it produced. What only this host knows is signed
//! elsewhere ([`crate::receipt`]). Two honest runs of one plan have the same bytes, so the same run-hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// `type` of a [`Run`]: schema and version in one URI.
pub const RUN_TYPE: &str = "https://bpi.io/run/v1";

/// The deterministic core. Its RFC 8785 bytes are `run.json`; their SHA-256 is the run-hash.
///
/// Integers stay within 2^53 - 1, there are no floats and no nulls, and an unknown field is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// Always [`RUN_TYPE`].
    #[serde(rename = "type")]
    pub type_: String,
    /// The OCI manifest; absent when the root file system came from no known image (then `assurance` says so).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// `linux/amd64`.
    pub platform: String,
    /// The normalised OCI runtime specification the container ran with.
    pub config: ConfigRef,
    /// The policy in force.
    pub cage: CageRef,
    /// What could observe the difference between two runtimes.
    pub runtime: RuntimeRef,
    /// argv, env, stdin and mounted content, sorted by name.
    pub inputs: Vec<Input>,
    /// Entropy seed, guest clock and scheduler.
    pub params: Params,
    /// Logical budgets by name (`memoryBytes`, `pids`, …); never wall time.
    pub limits: BTreeMap<String, u64>,
    /// How it ended and what it produced.
    pub result: RunResult,
    /// Root over canonical system call events; absent where the cage does not order them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// System calls the cage refused, sorted by name, then errno.
    pub denied: Vec<CallCount>,
    /// System calls the cage answered itself, sorted by name.
    pub virtualised: Vec<CallCount>,
}

/// An OCI manifest by content: a tag is never identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// OCI or Docker media type of the manifest.
    pub media_type: String,
    /// Digest of the manifest's bytes.
    pub digest: Sha256Digest,
}

/// Digest of a normalised document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigRef {
    /// SHA-256 of the JCS bytes.
    pub digest: Sha256Digest,
}

/// The profile that made the cage, and the digest of everything it demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CageRef {
    /// Name of the profile: `strict`, `standard`, `service` or a site's own.
    pub profile: String,
    /// Digest of the resolved policy.
    pub digest: Sha256Digest,
}

/// The runtime as the workload sees it. Version and binary digest are signed outside the run-hash, so that an upgrade that
/// changes nothing keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeRef {
    /// `docklock`.
    pub name: String,
    /// Changes whenever the same program could observe anything different.
    pub abi: u64,
}

/// One input by name and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// `argv`, `env`, `stdin`, or the absolute path in the container of a mounted file or tree.
    pub name: String,
    /// Digest of the content. `argv` and `env` hash the JCS bytes of their array of strings.
    pub digest: Sha256Digest,
}

/// Parameters of the virtual machine that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Params {
    /// Entropy seed; absent where the cage passes the host's randomness through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Sha256Digest>,
    /// Start of the guest clock, seconds since 1970; absent where the guest reads the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// `host` where the kernel schedules, `turns` where the cage does. The class that came of it is in the assurance: it may be
    /// `single` on a day without a second task, and the plan was still the same.
    pub schedule: String,
}

/// How the container's first process ended, and what the container produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunResult {
    /// Exit status 0–255, when it exited by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u64>,
    /// Signal number that ended it, when one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u64>,
    /// Every byte written to standard output (of a terminal: everything the terminal showed).
    pub stdout: StreamDigest,
    /// Every byte written to standard error.
    pub stderr: StreamDigest,
    /// The files it left behind.
    pub outputs: Outputs,
}

/// A stream by content and length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamDigest {
    /// SHA-256 of all bytes.
    pub digest: Sha256Digest,
    /// Number of bytes.
    pub bytes: u64,
}

/// The output tree: SHA-256 over one line for each entry, in byte order of the paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outputs {
    /// `layer`: the container's writable layer; `paths`: the paths that the plan declared; `none`: nothing was measured.
    pub scope: String,
    /// Digest of the listing; of no bytes when nothing was measured or nothing was written.
    pub digest: Sha256Digest,
    /// Number of entries.
    pub entries: u64,
}

/// Root over the canonical event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trace {
    /// Hash of the event chain.
    pub alg: String,
    /// Root, lower-case hexadecimal.
    pub digest: String,
    /// Number of events.
    pub events: u64,
    /// Event format and version.
    pub format: String,
}

/// How often a system call met one answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallCount {
    /// Name in the kernel's table, or `unknown` for a number that is not in it, or `foreign-abi` for 32-bit and x32 entry.
    pub syscall: String,
    /// Errno name (`EPERM`) when the call was refused; absent when it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// Number of calls.
    pub count: u64,
}
