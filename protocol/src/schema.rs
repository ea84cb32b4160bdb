//! What serde cannot say about a record: fixed words, order, ranges, and that members agree with each other.
//!
//! The writer checks with the same functions before it signs, so a record that would be refused is never signed. Absent on purpose:
//! any judgement of policy; a run that failed under a weak cage is a perfectly good record.

use crate::claim::{self, Claim};
use crate::receipt::{Abort, Assurance, ChainLink, Host, HostVector, Intent, Observed, Receipt};
use crate::run::{CallCount, RUN_TYPE, Run, RunResult, Trace};

/// Longest container id, host id, name or reason. The longest that is needed is a mount path: PATH_MAX.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Longest boundary: containerd's own limit for a namespace.
pub const BOUNDARY_BYTES_MAX: usize = 76;
/// Most escapes that a receipt lists. Each costs the run its claim; the sixty-fifth tells nobody more.
pub const ESCAPES_MAX: usize = 64;
/// Most counters, four times what the engine counts.
pub const COUNTERS_MAX: usize = 128;

/// What is wrong with a well-formed record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A member holds none of the words it may hold.
    #[error("{member} is {found:?}; it must be {allowed}")]
    Word {
        /// Path of the member.
        member: &'static str,
        /// What it holds.
        found: String,
        /// What it may hold.
        allowed: &'static str,
    },
    /// A list is not strictly ascending.
    #[error("{member} is not sorted and free of duplicates: {second:?} follows {first:?}")]
    Order {
        /// Path of the list.
        member: &'static str,
        /// Key of the earlier entry.
        first: String,
        /// Key of the later entry.
        second: String,
    },
    /// Two members that exclude or demand each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A number outside its range.
    #[error("{member} is {found}; it must be within {min} and {max}")]
    Range {
        /// Path of the member.
        member: &'static str,
        /// What it holds.
        found: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// A list with too many entries.
    #[error("{member} has {found} entries; it may have {max}")]
    Many {
        /// Path of the member.
        member: &'static str,
        /// How many it has.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// A level beyond what the receipt itself allows.
    #[error("assurance.level is {found}, but the receipt itself leaves no more than {allowed}: {because}")]
    Overclaim {
        /// What it claims.
        found: Claim,
        /// What it may claim.
        allowed: Claim,
        /// The gravest reason.
        because: String,
    },
    /// A text that is empty or too long.
    #[error("{member} has {bytes} bytes; it must have 1 to {max}")]
    Length {
        /// Path of the member.
        member: &'static str,
        /// Length found.
        bytes: usize,
        /// Largest allowed.
        max: usize,
    },
}

fn word(member: &'static str, found: &str, words: &[&str], allowed: &'static str) -> Result<(), SchemaError> {
    if words.contains(&found) {
        return Ok(());
    }
    Err(SchemaError::Word { member, found: clip(found), allowed })
}

fn text(member: &'static str, found: &str) -> Result<(), SchemaError> {
    match found.len() {
        1..=TEXT_BYTES_MAX => Ok(()),
        bytes => Err(SchemaError::Length { member, bytes, max: TEXT_BYTES_MAX }),
    }
}

fn clip(found: &str) -> String {
    found.chars().take(100).collect()
}

fn ascending<T>(member: &'static str, list: &[T], key: impl Fn(&T) -> (&str, &str)) -> Result<(), SchemaError> {
    for pair in list.windows(2) {
        let (first, second) = (key(&pair[0]), key(&pair[1]));
        if first >= second {
            return Err(SchemaError::Order {
                member,
                first: clip(&format!("{} {}", first.0, first.1)).trim_end().to_owned(),
                second: clip(&format!("{} {}", second.0, second.1)).trim_end().to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether `text` has the shape of RFC 3339 in UTC: `2026-01-02T03:04:05[.digits]Z`, months, days and hours in range.
fn is_utc_time(text: &str) -> bool {
    let Some((head, tail)) = text.split_at_checked(19) else { return false };
    let shape_fits = head.bytes().zip(*b"dddd-dd-ddTdd:dd:dd").all(|(found, wanted)| match wanted {
        b'd' => found.is_ascii_digit(),
        _ => found == wanted,
    });
    let number = |range: std::ops::Range<usize>| head[range].parse::<u8>().unwrap_or(u8::MAX);
    let fraction_fits = match tail.strip_suffix('Z') {
        Some("") => true,
        Some(fraction) => fraction.strip_prefix('.').is_some_and(|digits| {
            (1..=9).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
        }),
        None => false,
    };
    shape_fits
        && fraction_fits
        && (1..=12).contains(&number(5..7))
        && (1..=31).contains(&number(8..10))
        && number(11..13) < 24
        && number(14..16) < 60
        && number(17..19) <= 60
}

fn time(member: &'static str, found: &str) -> Result<(), SchemaError> {
    if is_utc_time(found) {
        return Ok(());
    }
    Err(SchemaError::Word {
        member,
        found: clip(found),
        allowed: "an RFC 3339 time in UTC, such as 2026-01-02T03:04:05Z",
    })
}

/// Checks the deterministic core.
///
/// # Errors
///
/// The first member that breaks a rule.
pub fn run(run: &Run) -> Result<(), SchemaError> {
    word("run.type", &run.type_, &[RUN_TYPE], "https://bpi.io/run/v1")?;
    text("run.platform", &run.platform)?;
    text("run.cage.profile", &run.cage.profile)?;
    text("run.runtime.name", &run.runtime.name)?;
    word("run.params.schedule", &run.params.schedule, &["host", "turns"], "host or turns")?;
    if let Some(trace) = &run.trace {
        if run.params.schedule == "host" {
            return Err(SchemaError::Contradiction("run.trace is there although the kernel scheduled"));
        }
        self::trace(trace)?;
    }
    for input in &run.inputs {
        text("run.inputs[].name", &input.name)?;
    }
    ascending("run.inputs", &run.inputs, |input| (&input.name, ""))?;
    let by_call =
        |call: &CallCount| -> (String, String) { (call.syscall.clone(), call.errno.clone().unwrap_or_default()) };
    for (member, calls) in [("run.denied", &run.denied), ("run.virtualised", &run.virtualised)] {
        let keys: Vec<_> = calls.iter().map(by_call).collect();
        ascending(member, &keys, |(name, errno)| (name, errno))?;
    }
    if run.denied.iter().any(|call| call.errno.is_none()) {
        return Err(SchemaError::Contradiction("run.denied holds a call without the errno it was refused with"));
    }
    if run.denied.iter().chain(&run.virtualised).any(|call| call.count == 0) {
        return Err(SchemaError::Contradiction("run.denied or run.virtualised counts a call that never happened"));
    }
    result(&run.result)
}

fn trace(trace: &Trace) -> Result<(), SchemaError> {
    word("run.trace.alg", &trace.alg, &["blake3"], "blake3")?;
    text("run.trace.format", &trace.format)?;
    let is_digest =
        trace.digest.len() == 64 && trace.digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_digest {
        return Ok(());
    }
    let allowed = "64 lower-case hexadecimal digits";
    Err(SchemaError::Word { member: "run.trace.digest", found: clip(&trace.digest), allowed })
}

fn result(result: &RunResult) -> Result<(), SchemaError> {
    match (result.exit_code, result.signal) {
        (Some(code), None) if code > 255 => {
            return Err(SchemaError::Range { member: "run.result.exitCode", found: code, min: 0, max: 255 });
        }
        (None, Some(signal)) if !(1..=64).contains(&signal) => {
            return Err(SchemaError::Range { member: "run.result.signal", found: signal, min: 1, max: 64 });
        }
        (Some(_), None) | (None, Some(_)) => {}
        (None, None) => return Err(SchemaError::Contradiction("run.result has neither exitCode nor signal")),
        (Some(_), Some(_)) => return Err(SchemaError::Contradiction("run.result has both exitCode and signal")),
    }
    word("run.result.outputs.scope", &result.outputs.scope, &["layer", "paths", "none"], "layer, paths or none")
}

/// Checks a receipt, its core included.
///
/// # Errors
///
/// The first member that breaks a rule.
pub fn receipt(receipt: &Receipt) -> Result<(), SchemaError> {
    run(&receipt.run)?;
    assurance(&receipt.assurance)?;
    claims(&receipt.run, &receipt.assurance)?;
    observed(&receipt.observed)?;
    host(&receipt.host)?;
    closing_link(&receipt.chain)
}

fn assurance(assurance: &Assurance) -> Result<(), SchemaError> {
    word("assurance.level", &assurance.level, &["D0", "D1", "D2", "D3"], "D0, D1, D2 or D3")?;
    for source in &assurance.sources {
        text("assurance.sources[].name", &source.name)?;
        let words = ["controlled", "pinned", "witnessed", "uncontrolled", "not-exercised"];
        let allowed = "controlled, pinned, witnessed, uncontrolled or not-exercised";
        word("assurance.sources[].status", &source.status, &words, allowed)?;
        if let Some(reason) = &source.reason {
            text("assurance.sources[].reason", reason)?;
            if source.status != "uncontrolled" {
                return Err(SchemaError::Contradiction("a source has a reason only where it is uncontrolled"));
            }
        }
    }
    ascending("assurance.sources", &assurance.sources, |source| (&source.name, ""))?;
    for fence in &assurance.fences {
        text("assurance.fences[].name", &fence.name)?;
        word("assurance.fences[].status", &fence.status, &["in-force", "absent"], "in-force or absent")?;
        if (fence.status == "absent") != fence.reason.is_some() {
            return Err(SchemaError::Contradiction("a fence has a reason exactly when it is absent"));
        }
    }
    ascending("assurance.fences", &assurance.fences, |fence| (&fence.name, ""))?;
    assurance.execs.iter().try_for_each(|exec| time("assurance.execs[].startedOn", &exec.started_on))?;
    if let Some(vector) = &assurance.host_vector {
        host_vector(vector)?;
    }
    most("assurance.escapes", assurance.escapes.len(), ESCAPES_MAX)?;
    assurance.escapes.iter().try_for_each(|escape| text("assurance.escapes[]", escape))?;
    ascending("assurance.escapes", &assurance.escapes, |escape| (escape, ""))?;
    most("assurance.counters", assurance.counters.len(), COUNTERS_MAX)?;
    assurance.counters.keys().try_for_each(|name| text("assurance.counters", name))
}

fn most(member: &'static str, found: usize, max: usize) -> Result<(), SchemaError> {
    if found <= max { Ok(()) } else { Err(SchemaError::Many { member, found, max }) }
}

fn host_vector(vector: &HostVector) -> Result<(), SchemaError> {
    text("assurance.hostVector.cpuModel", &vector.cpu_model)?;
    text("assurance.hostVector.kernel", &vector.kernel)?;
    let words = ["absent", "exact", "inexact"];
    word("assurance.hostVector.branchCounter", &vector.branch_counter, &words, "absent, exact or inexact")?;
    vector.lsms.iter().try_for_each(|lsm| text("assurance.hostVector.lsms[]", lsm))?;
    ascending("assurance.hostVector.lsms", &vector.lsms, |lsm| (lsm, ""))
}

/// What run and assurance say together.
fn claims(run: &Run, assurance: &Assurance) -> Result<(), SchemaError> {
    if let Some(class) = &assurance.schedule {
        let words = ["host", "serial-branch", "serial-syscall", "single", "witnessed"];
        word("assurance.schedule", class, &words, "host, single, serial-syscall, serial-branch or witnessed")?;
        if (class == "host") != (run.params.schedule == "host") {
            return Err(SchemaError::Contradiction(
                "assurance.schedule and run.params.schedule differ in who scheduled, the kernel or the cage",
            ));
        }
    }
    let Some(found) = Claim::from_word(&assurance.level) else { return Ok(()) };
    let shortfalls = claim::shortfalls(run, assurance);
    match shortfalls.first() {
        Some(gravest) if gravest.leaves() < found => {
            Err(SchemaError::Overclaim { found, allowed: gravest.leaves(), because: clip(&gravest.to_string()) })
        }
        _ => Ok(()),
    }
}

fn observed(observed: &Observed) -> Result<(), SchemaError> {
    text("observed.containerId", &observed.container_id)?;
    text("observed.runtimeVersion", &observed.runtime_version)?;
    text("observed.kernel", &observed.kernel)?;
    time("observed.startedOn", &observed.started_on)?;
    time("observed.finishedOn", &observed.finished_on)
}

fn host(host: &Host) -> Result<(), SchemaError> {
    text("host.bootId", &host.boot_id)?;
    text("host.id", &host.id)?;
    if is_spiffe_id(&host.id) {
        return Ok(());
    }
    Err(SchemaError::Word { member: "host.id", found: clip(&host.id), allowed: "spiffe://<trust domain>/<path>" })
}

/// Whether `id` has the shape of a SPIFFE id with a path (SPIFFE-ID, section 2).
pub(crate) fn is_spiffe_id(id: &str) -> bool {
    let domain_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let path_char = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let Some((domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    id.len() <= 2048
        && !domain.is_empty()
        && domain.bytes().all(domain_char)
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(path_char))
}

/// Checks an intent.
///
/// # Errors
///
/// The first member that breaks a rule.
pub fn intent(intent: &Intent) -> Result<(), SchemaError> {
    text("containerId", &intent.container_id)?;
    text("cage.profile", &intent.cage.profile)?;
    time("intendedOn", &intent.intended_on)?;
    host(&intent.host)?;
    if intent.chain.started_ref.is_some() {
        return Err(SchemaError::Contradiction("an intent closes nothing, yet it has a chain.startedRef"));
    }
    link(&intent.chain)
}

/// Checks an abort.
///
/// # Errors
///
/// The first member that breaks a rule.
pub fn abort(abort: &Abort) -> Result<(), SchemaError> {
    text("containerId", &abort.container_id)?;
    text("reason", &abort.reason)?;
    time("abortedOn", &abort.aborted_on)?;
    host(&abort.host)?;
    closing_link(&abort.chain)
}

fn closing_link(chain: &ChainLink) -> Result<(), SchemaError> {
    if chain.started_ref.is_none() {
        return Err(SchemaError::Contradiction(
            "a receipt or an abort must name the intent it closes in chain.startedRef",
        ));
    }
    if chain.seq == 0 {
        return Err(SchemaError::Contradiction("a receipt or an abort cannot be the first record of a chain"));
    }
    link(chain)
}

fn link(chain: &ChainLink) -> Result<(), SchemaError> {
    if chain.boundary.is_empty() || chain.boundary.len() > BOUNDARY_BYTES_MAX {
        let bytes = chain.boundary.len();
        return Err(SchemaError::Length { member: "chain.boundary", bytes, max: BOUNDARY_BYTES_MAX });
    }
    if chain.boundary.starts_with('.')
        || !chain.boundary.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        let found = clip(&chain.boundary);
        return Err(SchemaError::Word {
            member: "chain.boundary",
            found,
            allowed: "letters, digits, '.', '_' and '-'",
        });
    }
    match (chain.seq, chain.prev) {
        (0, Some(_)) => Err(SchemaError::Contradiction("the first record of a chain (seq 0) has a chain.prev")),
        (1.., None) => Err(SchemaError::Contradiction("a record after the first (seq 0) has no chain.prev")),
        _ => Ok(()),
    }
}
