//! The three records of a chain: intent, receipt and abort, as in-toto predicates.
//!
//! An intent is durable before the workload's first instruction; a receipt or an abort closes it. So a crash, a `kill -9` or
//! a full disk leaves a gap that can be proved, never silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Sha256Digest;
use crate::run::Run;

/// `predicateType` of a [`Receipt`].
pub const RECEIPT_TYPE: &str = "https://bpi.io/attestation/execution-receipt/v1";
/// `predicateType` of an [`Intent`].
pub const INTENT_TYPE: &str = "https://bpi.io/attestation/execution-intent/v1";
/// `predicateType` of an [`Abort`].
pub const ABORT_TYPE: &str = "https://bpi.io/attestation/execution-abort/v1";

/// Position in a host's chain for one boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChainLink {
    /// Whose chain on this host: the containerd namespace, or `local` for runs without containerd.
    pub boundary: String,
    /// 0 for the first record, then one more each.
    pub seq: u64,
    /// SHA-256 of the previous envelope's PAE; absent only at `seq` 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Sha256Digest>,
    /// SHA-256 of the PAE of the intent that a receipt or an abort closes; absent in an intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ref: Option<Sha256Digest>,
}

/// Predicate of an execution receipt: the run, and what only this host knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// The deterministic core; the JCS bytes of this member are `run.json`, whose digest is `subject[0]`.
    pub run: Run,
    /// How much of the run the cage controlled, and what of it this host could enforce.
    pub assurance: Assurance,
    /// What was seen from outside.
    pub observed: Observed,
    /// Who signs.
    pub host: Host,
    /// Where this record stands.
    pub chain: ChainLink,
}

/// What the receipt claims, and what it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assurance {
    /// `D0` … `D3`: never more than [`crate::claim::strongest`] of the rest.
    pub level: String,
    /// Each source of nondeterminism and its status, sorted by name.
    pub sources: Vec<Source>,
    /// Each fence the policy demands and whether it was in force, sorted by name.
    pub fences: Vec<Fence>,
    /// Processes that entered by exec after the start; not empty means that a person or a probe could have changed the result.
    pub execs: Vec<ExecRecord>,
    /// Who ordered the tasks: `host` (the kernel), `single` (there was nothing to order), `serial-syscall`, `serial-branch` or `witnessed`.
    /// Absent in records older than the cage's own scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// What this host could enforce and what its CPU is; absent in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_vector: Option<HostVector>,
    /// One sentence for each point at which the run left the deterministic path, sorted; left out when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "some_entries")]
    pub escapes: Vec<String>,
    /// What was counted on the way (`notifications`, `turns`, …). It may depend on the host; left out when there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "some_counters")]
    pub counters: BTreeMap<String, u64>,
}

impl Assurance {
    /// Status of the source of that name.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.iter().find(|source| source.name == name).map(|source| source.status.as_str())
    }
}

/// What a host can do for determinism, and the CPU that its runs see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostVector {
    /// What the CPU calls itself, for people.
    pub cpu_model: String,
    /// Digest of what CPUID answers to a program, without what names one core of many.
    pub cpuid: Sha256Digest,
    /// `uname -r`.
    pub kernel: String,
    /// RDTSC can be trapped (prctl(2), PR_SET_TSC).
    pub tsc_trap: bool,
    /// CPUID can be trapped by the CPU itself (arch_prctl(2), ARCH_CPUID).
    pub cpuid_fault: bool,
    /// Whether retired conditional branches are counted alike each time: `exact`, `inexact` or `absent`.
    pub branch_counter: String,
    /// Security modules in force, sorted.
    pub lsms: Vec<String>,
}

/// An empty list has one spelling: none. So one value has one digest.
fn some_entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() { Err(serde::de::Error::custom("an empty list of escapes is left out")) } else { Ok(list) }
}

/// As [`some_entries`].
fn some_counters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let map = BTreeMap::deserialize(deserializer)?;
    if map.is_empty() { Err(serde::de::Error::custom("an empty set of counters is left out")) } else { Ok(map) }
}

/// Status of one source of nondeterminism: `controlled`, `pinned`, `witnessed`, `uncontrolled` or `not-exercised`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// `clock`, `entropy`, `network`, ….
    pub name: String,
    /// One of the five words.
    pub status: String,
    /// Why nothing controlled it, where the host knows; left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One fence: `in-force`, or `absent` with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fence {
    /// `seccomp`, `apparmor`, `landlock`, `cgroup-memory`, ….
    pub name: String,
    /// `in-force` or `absent`.
    pub status: String,
    /// Why it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The processes with one argument array that entered the running container. A probe that comes every ten seconds is one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecRecord {
    /// Digest of the JCS bytes of the argument array; absent in the one record for all arrays beyond those that are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Sha256Digest>,
    /// When the first of them entered: RFC 3339, UTC.
    pub started_on: String,
    /// How many entered.
    pub count: u64,
}

/// What only this host saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Observed {
    /// Container id, as the caller named it.
    pub container_id: String,
    /// Version of docklock with its commit.
    pub runtime_version: String,
    /// Digest of the binary that supervised the run.
    pub runtime_digest: Sha256Digest,
    /// RFC 3339, UTC.
    pub started_on: String,
    /// RFC 3339, UTC.
    pub finished_on: String,
    /// `uname -r`.
    pub kernel: String,
    /// CPU time of the whole container in microseconds, where the host counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usec: Option<u64>,
    /// Highest memory use of the whole container in bytes, where the host counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// True when the client stopped reading and part of a stream was hashed but not delivered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_undelivered: bool,
}

/// The host that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// SPIFFE id, `spiffe://<trust domain>/host/<name>`.
    pub id: String,
    /// OpenSSH fingerprint of the signing key, `SHA256:<base64 without padding>`.
    pub keyid: String,
    /// Kernel boot id, so that clocks before and after a reboot are not compared.
    pub boot_id: String,
}

/// Predicate of an intent: what is about to run. Its subject is the caged configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// Container id, as the caller named it.
    pub container_id: String,
    /// Policy about to be in force.
    pub cage: crate::run::CageRef,
    /// RFC 3339, UTC.
    pub intended_on: String,
    /// Who signs.
    pub host: Host,
    /// Where this record stands.
    pub chain: ChainLink,
}

/// Predicate of an abort: an intent that will never have a receipt, and why. Its subject is the intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Abort {
    /// Container id, as the caller named it.
    pub container_id: String,
    /// One sentence.
    pub reason: String,
    /// RFC 3339, UTC.
    pub aborted_on: String,
    /// Who signs.
    pub host: Host,
    /// Where this record stands.
    pub chain: ChainLink,
}
