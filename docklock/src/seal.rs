//! Turns the facts of a run into the record that is signed.
//!
//! Pure: [`receipt`] is a function of the facts, the place in the chain and the host. What the workload could observe or produced
//! goes into the run, what only this host knows goes beside it. Lists are sorted here, so the order in which the engine gathered
//! them never shows in the run-hash. The one look at the outside is [`RuntimeIdentity`], which names this binary.

mod vector;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bpi_protocol::canonical::CanonicalError;
use bpi_protocol::chain::{Record, RecordError};
use bpi_protocol::claim;
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::receipt::{
    Abort, Assurance, ChainLink, ExecRecord, Fence, Host, HostVector, Intent, Observed, Receipt, Source,
};
use bpi_protocol::run::{
    CageRef, CallCount, ConfigRef, Image, Input, Outputs, Params, RUN_TYPE, Run, RunResult, RuntimeRef, StreamDigest,
    Trace,
};
use bpi_protocol::schema::ESCAPES_MAX;
use sha2::{Digest as _, Sha256};

pub use vector::host_vector;

use crate::clock::{self, ClockError};
use crate::engine::report::Report;
use crate::signer::Signer;

/// `runtime.name` in every run.
pub const RUNTIME_NAME: &str = "docklock";
/// `runtime.abi`: raised whenever the same program could observe anything different.
///
/// 1: namespaces, limits and a filter. 2: the cage answers clocks, entropy, metadata and order itself.
pub const RUNTIME_ABI: u64 = 2;
/// Version and commit of this build, `0.1.0 (0123456789ab)`.
pub const VERSION: &str = env!("DOCKLOCK_VERSION");
/// `schedule` of a run that the kernel ordered.
const HOST_SCHEDULE: &str = "host";
/// Longest sentence of the engine's that goes into a record: at most 4 bytes a character, so within [`bpi_protocol::schema::TEXT_BYTES_MAX`].
const SENTENCE_CHARS_MAX: usize = 1000;
/// `platform` of every run.
const PLATFORM: &str = "linux/amd64";

/// Why there is nothing to sign.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A part of a record has no canonical bytes: a number beyond 2^53 - 1.
    #[error("a part of the record cannot be written as canonical JSON: {0}")]
    Canonical(#[from] CanonicalError),
    /// The host cannot be dated.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// A record that its readers would refuse.
    #[error("the record breaks its own rules and is not signed: {0}")]
    Record(#[from] RecordError),
    /// The binary of this process cannot be measured.
    #[error("could not {deed} {}: {source}", path.display())]
    Binary {
        /// What was tried.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SealError {
    /// The code under which docs/errors.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Canonical(_) => "DL0401",
            Self::Clock(error) => error.code(),
            Self::Record(_) => "DL0402",
            Self::Binary { .. } => "DL0403",
        }
    }
}

/// How a container's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
}

/// All that a receipt says about one run. Lists may come in any order.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Container id, as the caller named it.
    pub container_id: String,
    /// The OCI manifest, when the root file system came from a known image.
    pub image: Option<Image>,
    /// Digest of the normalised specification the container ran with.
    pub config: Sha256Digest,
    /// The policy that was in force.
    pub cage: CageRef,
    /// Digest of the JCS bytes of the argument array.
    pub argv: Sha256Digest,
    /// Digest of the JCS bytes of the environment array.
    pub env: Sha256Digest,
    /// Further inputs: `stdin`, mounted files and trees.
    pub inputs: Vec<Input>,
    /// Seed, epoch and scheduler of the plan.
    pub params: Params,
    /// Logical budgets by name.
    pub limits: BTreeMap<String, u64>,
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to standard output.
    pub stdout: StreamDigest,
    /// What it wrote to standard error.
    pub stderr: StreamDigest,
    /// The files it left behind.
    pub outputs: Outputs,
    /// What the engine saw and did.
    pub report: Report,
    /// Sources of nondeterminism and their status by the plan and by what was measured. Where the engine's report speaks of one, it
    /// saw the run and its word holds.
    pub sources: Vec<Source>,
    /// Fences and their status.
    pub fences: Vec<Fence>,
    /// Processes that entered by exec.
    pub execs: Vec<ExecRecord>,
    /// When the program was let go.
    pub started: SystemTime,
    /// When its first process was gone.
    pub finished: SystemTime,
    /// `uname -r`.
    pub kernel: String,
    /// What this host can do, and its CPU.
    pub host_vector: Option<HostVector>,
    /// CPU time of the whole container, where the host counts it.
    pub cpu_usec: Option<u64>,
    /// Highest memory use of the whole container, where the host counts it.
    pub memory_peak_bytes: Option<u64>,
    /// A client stopped reading before all was delivered.
    pub output_undelivered: bool,
    /// The binary that supervised.
    pub runtime: RuntimeIdentity,
}

/// The receipt of a run.
///
/// # Errors
/// [`SealError::Clock`] for a time that RFC 3339 cannot write.
pub fn receipt(facts: &Facts, chain: ChainLink, host: Host) -> Result<Receipt, SealError> {
    let observed = Observed {
        container_id: facts.container_id.clone(),
        runtime_version: facts.runtime.version.clone(),
        runtime_digest: facts.runtime.digest,
        started_on: clock::rfc3339(facts.started)?,
        finished_on: clock::rfc3339(facts.finished)?,
        kernel: facts.kernel.clone(),
        cpu_usec: facts.cpu_usec,
        memory_peak_bytes: facts.memory_peak_bytes,
        output_undelivered: facts.output_undelivered,
    };
    let run = run(facts);
    let assurance = assurance(facts, &run);
    Ok(Receipt { run, assurance, observed, host, chain })
}

/// Why a run that has ended gets an abort and no receipt, if so: the engine ended it, so what came out is not what the program made.
pub fn refusal(facts: &Facts) -> Option<String> {
    facts.report.ended_by.as_ref().map(|reason| clip(reason))
}

fn assurance(facts: &Facts, run: &Run) -> Assurance {
    let mut assurance = Assurance {
        level: String::new(),
        sources: sources(facts),
        fences: weakest_fences(&facts.fences),
        execs: facts.execs.clone(),
        schedule: Some(facts.report.schedule.clone()),
        host_vector: facts.host_vector.clone(),
        escapes: escapes(&facts.report),
        counters: facts.report.counters.clone(),
    };
    assurance.level = claim::strongest(run, &assurance).as_str().to_owned();
    assurance
}

/// The deterministic core of a run.
pub fn run(facts: &Facts) -> Run {
    let mut inputs = facts.inputs.clone();
    inputs.push(Input { name: "argv".to_owned(), digest: facts.argv });
    inputs.push(Input { name: "env".to_owned(), digest: facts.env });
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    let (exit_code, signal) = match facts.ending {
        Ending::Exited(status) => (Some(u64::from(status)), None),
        Ending::Signaled(signal) => (None, Some(u64::from(signal))),
    };
    Run {
        type_: RUN_TYPE.to_owned(),
        image: facts.image.clone(),
        platform: PLATFORM.to_owned(),
        config: ConfigRef { digest: facts.config },
        cage: facts.cage.clone(),
        runtime: RuntimeRef { name: RUNTIME_NAME.to_owned(), abi: RUNTIME_ABI },
        inputs,
        params: params(facts),
        limits: facts.limits.clone(),
        result: RunResult {
            exit_code,
            signal,
            stdout: facts.stdout.clone(),
            stderr: facts.stderr.clone(),
            outputs: facts.outputs.clone(),
        },
        trace: facts.report.trace.as_ref().filter(|_| by_turns(facts)).map(|root| Trace {
            alg: root.alg.clone(),
            digest: root.digest.clone(),
            events: root.events,
            format: root.format.clone(),
        }),
        denied: sorted(&facts.report.denied),
        virtualised: sorted(&facts.report.answered),
    }
}

/// Whether the engine ordered the tasks, whatever was planned.
fn by_turns(facts: &Facts) -> bool {
    facts.report.schedule != HOST_SCHEDULE
}

/// The plan's parameters, as far as they came into force: a run that the kernel scheduled used neither seed nor epoch.
fn params(facts: &Facts) -> Params {
    if by_turns(facts) {
        facts.params.clone()
    } else {
        Params { seed: None, epoch: None, schedule: HOST_SCHEDULE.to_owned() }
    }
}

/// By name: what the engine saw, and of the rest what was planned and measured.
fn sources(facts: &Facts) -> Vec<Source> {
    let seen = &facts.report.sources;
    let unseen = facts.sources.iter().filter(|source| !seen.contains_key(&source.name)).cloned();
    let seen = seen.iter().map(|(name, status)| Source {
        name: name.clone(),
        status: status.clone(),
        reason: facts.report.reasons.get(name).filter(|_| status == "uncontrolled").map(|reason| clip(reason)),
    });
    weakest_sources(&unseen.chain(seen).collect::<Vec<_>>())
}

/// Sorted, each sentence once, and no more than a receipt may list: one place tells how many were left out, here or by the engine, which
/// counts on when it lists no more.
fn escapes(report: &Report) -> Vec<String> {
    let mut escapes: Vec<String> = report.escapes.iter().map(|sentence| clip(sentence)).collect();
    escapes.sort();
    escapes.dedup();
    let counted = report.counters.get("escapes").copied().unwrap_or_default();
    let mut left_out = counted.saturating_sub(report.escapes.len() as u64);
    if escapes.len() + usize::from(left_out > 0) > ESCAPES_MAX {
        left_out += (escapes.len() - (ESCAPES_MAX - 1)) as u64;
        escapes.truncate(ESCAPES_MAX - 1);
    }
    if left_out > 0 {
        escapes.push(format!("{left_out} further escapes are not listed"));
        escapes.sort();
    }
    escapes
}

/// A sentence that a record may hold, if it is not empty.
fn clip(sentence: &str) -> String {
    sentence.chars().take(SENTENCE_CHARS_MAX).collect()
}

/// By name. Where the plan and the run speak of one source, the weaker word holds: a receipt never claims more than either.
fn weakest_sources(sources: &[Source]) -> Vec<Source> {
    const WEAKEST_FIRST: [&str; 5] = ["uncontrolled", "witnessed", "not-exercised", "pinned", "controlled"];
    let rank = |status: &str| WEAKEST_FIRST.iter().position(|known| *known == status);
    let mut sources = sources.to_vec();
    sources.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| rank(&a.status).cmp(&rank(&b.status))));
    sources.dedup_by(|next, kept| next.name == kept.name);
    sources
}

/// By name. Of two words about one fence, `absent` holds.
fn weakest_fences(fences: &[Fence]) -> Vec<Fence> {
    let mut fences = fences.to_vec();
    fences.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.status.cmp(&b.status)));
    fences.dedup_by(|next, kept| next.name == kept.name);
    fences
}

/// By name, then errno, with equal answers counted together.
fn sorted(calls: &[CallCount]) -> Vec<CallCount> {
    let mut counts: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
    for call in calls {
        let count = counts.entry((call.syscall.clone(), call.errno.clone())).or_default();
        *count = count.saturating_add(call.count);
    }
    counts.into_iter().map(|((syscall, errno), count)| CallCount { syscall, errno, count }).collect()
}

/// The bytes to sign for a receipt. The subject is run.json, by its run-hash.
///
/// # Errors
/// [`SealError::Record`] when a reader would refuse the record; nothing false is ever signed.
pub fn receipt_statement(receipt: &Receipt) -> Result<Vec<u8>, SealError> {
    // A receipt's subject follows from itself, so the digest that is asked for is not used.
    Ok(Record::Receipt(Box::new(receipt.clone())).payload(Sha256Digest::EMPTY)?)
}

/// The bytes to sign for an intent. The subject is the caged configuration, by the digest of its normalised form.
///
/// # Errors
/// As [`receipt_statement`].
pub fn intent_statement(intent: &Intent, config: Sha256Digest) -> Result<Vec<u8>, SealError> {
    Ok(Record::Intent(Box::new(intent.clone())).payload(config)?)
}

/// The bytes to sign for an abort. The subject is the intent it closes, by the digest of its PAE.
///
/// # Errors
/// As [`receipt_statement`].
pub fn abort_statement(abort: &Abort) -> Result<Vec<u8>, SealError> {
    // As with a receipt.
    Ok(Record::Abort(Box::new(abort.clone())).payload(Sha256Digest::EMPTY)?)
}

/// This host as it signs: `host_id` from the configuration, the signer's key, the running boot.
///
/// # Errors
/// [`SealError::Clock`] when the boot id cannot be read.
pub fn host(host_id: &str, signer: &dyn Signer) -> Result<Host, SealError> {
    Ok(Host { id: host_id.to_owned(), keyid: signer.public_key().keyid(), boot_id: clock::boot_id()? })
}

/// Which build supervised a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeIdentity {
    /// [`VERSION`].
    pub version: String,
    /// SHA-256 of the binary of this process.
    pub digest: Sha256Digest,
}

impl RuntimeIdentity {
    /// Names the binary of this process. Hashing ten megabytes takes 5 ms, so the digest is kept in `cache_dir` under the file's
    /// device, inode, size and times; the folder is made for this user alone, and nobody else can set a change time.
    ///
    /// # Errors
    /// [`SealError::Binary`] when the binary cannot be read. A cache that cannot be written only costs time.
    pub fn of_this_process(cache_dir: &Path) -> Result<Self, SealError> {
        let path = Path::new("/proc/self/exe");
        let failed = |deed| move |source| SealError::Binary { deed, path: path.to_path_buf(), source };
        let mut binary = std::fs::File::open(path).map_err(failed("open"))?;
        let facts = binary.metadata().map_err(failed("stat"))?;
        let key = format!(
            "{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
            facts.dev(),
            facts.ino(),
            facts.len(),
            facts.mtime(),
            facts.mtime_nsec(),
            facts.ctime(),
            facts.ctime_nsec()
        );
        let cached = cache_dir.join(key);
        if let Some(digest) = read_cached(&cached) {
            return Ok(Self { version: VERSION.to_owned(), digest });
        }
        let digest = digest_of(&mut binary).map_err(failed("read"))?;
        if let Err(error) = write_cached(&cached, digest) {
            tracing::debug!(path = %cached.display(), %error, "the digest of this binary was not cached");
        }
        Ok(Self { version: VERSION.to_owned(), digest })
    }
}

fn digest_of(file: &mut impl Read) -> io::Result<Sha256Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sha256Digest::from_bytes(hash.finalize().into())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A digest from the cache, if its folder is ours alone and the file holds one.
fn read_cached(path: &Path) -> Option<Sha256Digest> {
    let folder = path.parent()?.symlink_metadata().ok()?;
    let user = nix::unistd::geteuid().as_raw();
    if !folder.is_dir() || folder.uid() != user || folder.mode() & 0o022 != 0 {
        return None;
    }
    Sha256Digest::from_hex(std::fs::read_to_string(path).ok()?.as_str())
}

fn write_cached(path: &Path, digest: Sha256Digest) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Written aside and renamed: another process may read it at any moment.
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&aside, digest.to_string())?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::report::TraceRoot;

    fn stream() -> StreamDigest {
        StreamDigest { digest: Sha256Digest::EMPTY, bytes: 0 }
    }

    fn call(syscall: &str, errno: Option<&str>, count: u64) -> CallCount {
        CallCount { syscall: syscall.to_owned(), errno: errno.map(str::to_owned), count }
    }

    fn source(name: &str, status: &str) -> Source {
        Source { name: name.to_owned(), status: status.to_owned(), reason: None }
    }

    fn facts() -> Facts {
        Facts {
            container_id: "demo".to_owned(),
            image: None,
            config: Sha256Digest::of(b"config"),
            cage: CageRef { profile: "standard".to_owned(), digest: Sha256Digest::of(b"cage") },
            argv: Sha256Digest::of(b"argv"),
            env: Sha256Digest::of(b"env"),
            inputs: vec![Input { name: "stdin".to_owned(), digest: Sha256Digest::EMPTY }],
            params: Params { seed: None, epoch: None, schedule: "host".to_owned() },
            limits: BTreeMap::new(),
            ending: Ending::Exited(7),
            stdout: stream(),
            stderr: stream(),
            outputs: crate::outputs::nothing(),
            report: Report {
                denied: vec![
                    call("mount", Some("EPERM"), 2),
                    call("bpf", Some("EPERM"), 1),
                    call("mount", Some("EPERM"), 3),
                ],
                schedule: "host".to_owned(),
                ..Report::default()
            },
            sources: vec![
                source("mounts", "pinned"),
                source("clock", "uncontrolled"),
                source("mounts", "uncontrolled"),
            ],
            fences: vec![
                Fence { name: "seccomp".to_owned(), status: "in-force".to_owned(), reason: None },
                Fence {
                    name: "apparmor".to_owned(),
                    status: "absent".to_owned(),
                    reason: Some("not in this kernel".to_owned()),
                },
            ],
            execs: Vec::new(),
            started: SystemTime::UNIX_EPOCH,
            finished: SystemTime::UNIX_EPOCH,
            kernel: "6.1".to_owned(),
            host_vector: None,
            cpu_usec: None,
            memory_peak_bytes: None,
            output_undelivered: false,
            runtime: RuntimeIdentity { version: VERSION.to_owned(), digest: Sha256Digest::EMPTY },
        }
    }

    fn link() -> ChainLink {
        ChainLink {
            boundary: "local".to_owned(),
            seq: 1,
            prev: Some(Sha256Digest::EMPTY),
            started_ref: Some(Sha256Digest::EMPTY),
        }
    }

    fn this_host() -> Host {
        Host {
            id: "spiffe://bpi.local/host/test".to_owned(),
            keyid: format!("SHA256:{}", "A".repeat(43)),
            boot_id: "11111111-1111-4111-8111-111111111111".to_owned(),
        }
    }

    #[test]
    fn a_receipt_of_facts_in_any_order_keeps_every_rule_of_its_readers() {
        let receipt = receipt(&facts(), link(), this_host()).unwrap();
        receipt_statement(&receipt).unwrap();
        assert_eq!(receipt.run.denied, [call("bpf", Some("EPERM"), 1), call("mount", Some("EPERM"), 5)]);
    }

    #[test]
    fn of_two_words_about_one_source_the_weaker_holds() {
        let receipt = receipt(&facts(), link(), this_host()).unwrap();
        assert_eq!(receipt.assurance.sources, [source("clock", "uncontrolled"), source("mounts", "uncontrolled")]);
    }

    #[test]
    fn what_only_this_host_knows_leaves_the_run_hash_alone() {
        let one = facts();
        let other = Facts {
            container_id: "other".to_owned(),
            finished: SystemTime::now(),
            cpu_usec: Some(5),
            kernel: "7.0".to_owned(),
            ..facts()
        };
        assert_eq!(run(&one), run(&other));
    }

    fn level(facts: &Facts) -> String {
        receipt(facts, link(), this_host()).unwrap().assurance.level
    }

    fn image() -> Option<Image> {
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        Some(Image { media_type, digest: Sha256Digest::EMPTY })
    }

    /// Facts of a run in which nothing was left open.
    fn caged() -> Facts {
        let root = TraceRoot {
            alg: "blake3".to_owned(),
            digest: "0".repeat(64),
            events: 3,
            format: "docklock-trace/1".to_owned(),
        };
        let sources = claim::SOURCES.map(|name| (name.to_owned(), "controlled".to_owned()));
        Facts {
            image: image(),
            params: Params {
                seed: Some(Sha256Digest::EMPTY),
                epoch: Some(1_640_995_200),
                schedule: "turns".to_owned(),
            },
            report: Report {
                trace: Some(root),
                sources: sources.into(),
                schedule: "single".to_owned(),
                ..Report::default()
            },
            ..facts()
        }
    }

    #[test]
    fn inputs_are_pinned_only_with_a_known_image_known_mounts_and_without_exec() {
        let exec = ExecRecord { argv: None, started_on: clock::now(), count: 1 };
        let pinned = Facts { image: image(), sources: vec![source("mounts", "pinned")], ..facts() };
        assert_eq!(level(&facts()), "D0");
        assert_eq!(level(&pinned), "D1");
        assert_eq!(level(&Facts { sources: vec![source("mounts", "uncontrolled")], ..pinned.clone() }), "D0");
        assert_eq!(level(&Facts { execs: vec![exec], ..pinned }), "D0");
    }

    #[test]
    fn a_run_that_the_cage_ordered_wholly_is_d3_and_its_receipt_keeps_every_rule() {
        let receipt = receipt(&caged(), link(), this_host()).unwrap();
        receipt_statement(&receipt).unwrap();
        assert_eq!((receipt.assurance.level.as_str(), receipt.run.params), ("D3", caged().params));
        assert_eq!(receipt.run.trace.unwrap().events, 3);
    }

    #[test]
    fn of_a_source_the_engine_has_the_last_word() {
        let mut facts = Facts { sources: vec![source("network", "uncontrolled")], ..caged() };
        facts.report.sources.insert("network".to_owned(), "not-exercised".to_owned());
        assert_eq!(level(&facts), "D3");
        facts.report.sources.insert("network".to_owned(), "uncontrolled".to_owned());
        facts.sources = vec![source("network", "controlled")];
        assert_eq!(level(&facts), "D1");
    }

    #[test]
    fn a_run_that_the_kernel_ordered_used_no_seed_and_has_no_trace() {
        let mut facts = caged();
        facts.report.schedule = "host".to_owned();
        let receipt = receipt(&facts, link(), this_host()).unwrap();
        receipt_statement(&receipt).unwrap();
        assert_eq!((receipt.run.params.seed, receipt.run.trace, receipt.assurance.level.as_str()), (None, None, "D1"));
    }

    #[test]
    fn more_escapes_than_a_receipt_may_list_are_counted() {
        let mut facts = caged();
        facts.report.escapes = (0..100).map(|number| format!("escape {number:03}")).collect();
        let receipt = receipt(&facts, link(), this_host()).unwrap();
        receipt_statement(&receipt).unwrap();
        let escapes = &receipt.assurance.escapes;
        assert_eq!((escapes.len(), escapes[0].as_str()), (ESCAPES_MAX, "37 further escapes are not listed"));
        assert_eq!(receipt.assurance.level, "D1");
        // The engine itself lists no more than some, and counts all.
        let mut report = Report { escapes: vec!["one".to_owned(), "one".to_owned()], ..Report::default() };
        assert_eq!(super::escapes(&report), ["one"]);
        report.counters.insert("escapes".to_owned(), 9);
        assert_eq!(super::escapes(&report), ["7 further escapes are not listed", "one"]);
    }

    #[test]
    fn a_run_that_the_engine_ended_is_no_receipt() {
        let mut facts = caged();
        assert_eq!(refusal(&facts), None);
        facts.report.ended_by = Some("all 2 tasks wait for each other".to_owned());
        assert_eq!(refusal(&facts).unwrap(), "all 2 tasks wait for each other");
    }

    #[test]
    fn a_closing_record_that_names_no_intent_is_not_signed() {
        let receipt = receipt(&facts(), ChainLink { started_ref: None, ..link() }, this_host()).unwrap();
        assert_eq!(receipt_statement(&receipt).unwrap_err().code(), "DL0402");
    }

    #[test]
    fn the_digest_of_this_binary_is_cached_and_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let first = RuntimeIdentity::of_this_process(&cache).unwrap();
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
        assert_eq!(RuntimeIdentity::of_this_process(&cache).unwrap(), first);
        // A folder that others could write is not believed.
        std::fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let entry = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        std::fs::write(entry, "0".repeat(64)).unwrap();
        assert_eq!(RuntimeIdentity::of_this_process(&cache).unwrap(), first);
    }
}
