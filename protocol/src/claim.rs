//! How much determinism a receipt may claim: a pure function of what it says itself.
//!
//! | claim | means |
//! |---|---|
//! | D3 | the same bits on any host |
//! | D2 | the same bits on any host whose CPU answers CPUID alike |
//! | D1 | the inputs are pinned; the named sources could have changed the result |
//! | D0 | recorded only |
//!
//! The rule is a list of [`Shortfall`]s, each with the strongest claim it leaves. The writer claims what they leave, and a reader refuses a
//! receipt that claims more ([`crate::schema`]), so no host can call a run repeatable and name an uncontrolled source in the same breath.
//! Absent on purpose: belief. Whether a source that is called `controlled` was so is the signer's word.

use std::fmt;

use crate::receipt::Assurance;
use crate::run::Run;

/// Sources that have to be named before a run may be called repeatable: what is not named was not looked at.
pub const SOURCES: [&str; 16] = [
    "aslr",
    "clock",
    "cpuid",
    "entropy",
    "environment",
    "file-metadata",
    "hostname",
    "image",
    "mounts",
    "network",
    "pids",
    "procfs",
    "rdrand",
    "rdtsc",
    "scheduling",
    "sysinfo",
];

/// Sources whose content is in the run by its digest when they are `pinned`: `run.image`, `run.inputs`, `run.config`.
const PINNED_IN_RUN: [&str; 6] = ["environment", "hostname", "image", "mounts", "stdin", "sysinfo"];

/// The one source that may be pinned outside the run: to the CPU of `assurance.hostVector`.
const PINNED_TO_HOST: &str = "cpuid";

/// The profile that lets the world in.
const SERVICE: &str = "service";

/// What a receipt claims, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Recorded only.
    D0,
    /// Inputs pinned, sources open.
    D1,
    /// Repeatable where CPUID answers alike.
    D2,
    /// Repeatable anywhere.
    D3,
}

impl Claim {
    /// All of them, weakest first.
    pub const ALL: [Self; 4] = [Self::D0, Self::D1, Self::D2, Self::D3];

    /// Its word in a receipt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::D0 => "D0",
            Self::D1 => "D1",
            Self::D2 => "D2",
            Self::D3 => "D3",
        }
    }

    /// The claim that a receipt's word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|claim| claim.as_str() == word)
    }

    /// What it means, in one clause.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::D0 => {
                "recorded only: what went in is not wholly known, so the run cannot be repeated from this receipt"
            }
            Self::D1 => "the inputs are pinned, but sources that nothing controlled could have changed the result",
            Self::D2 => "the same image and inputs give the same bits on any host whose CPU answers CPUID alike",
            Self::D3 => "the same image and inputs give the same bits on any host",
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One reason why a receipt may not claim more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// The root file system has no identity.
    #[error("the root file system came from no known image")]
    UnknownImage,
    /// Content that came from the host and was not measured.
    #[error("mounted content was too large or too odd to be pinned")]
    UnpinnedMounts,
    /// A process from outside.
    #[error("{count} processes entered by exec")]
    Entered {
        /// How many.
        count: u64,
    },
    /// The profile of long-running pods.
    #[error("the profile service lets the network and the host's time in")]
    Service,
    /// No turns.
    #[error("the kernel scheduled its tasks")]
    HostSchedule,
    /// A parameter of the virtual machine, or its log, is not in the run.
    #[error("the run does not say its {what}")]
    Unsaid {
        /// `seed`, `epoch` or `trace`.
        what: &'static str,
    },
    /// The run left the deterministic path.
    #[error("the run left the deterministic path {count} times")]
    Escaped {
        /// How often.
        count: usize,
    },
    /// A source that could have been anything.
    #[error("nothing controlled {name}")]
    Uncontrolled {
        /// The source.
        name: String,
    },
    /// A source that only its log can bring back.
    #[error("{name} was only witnessed")]
    Witnessed {
        /// The source.
        name: String,
    },
    /// A source that nobody speaks of.
    #[error("nothing is said of {name}")]
    Unnamed {
        /// The source.
        name: &'static str,
    },
    /// A source that is pinned to something that the receipt does not hold.
    #[error("{name} is pinned, but the receipt does not hold to what")]
    PinnedElsewhere {
        /// The source.
        name: String,
    },
    /// A source that this host has no means to control.
    #[error("{name} is called controlled on a host that cannot {means}")]
    NoMeans {
        /// The source.
        name: &'static str,
        /// What the host vector says it cannot do.
        means: &'static str,
    },
    /// The CPU's features are this host's.
    #[error("the CPU's features are pinned to this host's")]
    HostCpu,
}

impl Shortfall {
    /// The strongest claim it leaves.
    pub const fn leaves(&self) -> Claim {
        match self {
            Self::UnknownImage | Self::UnpinnedMounts | Self::Entered { .. } => Claim::D0,
            Self::HostCpu => Claim::D2,
            _ => Claim::D1,
        }
    }
}

/// Everything that keeps a run from D3, whatever the receipt claims. Sorted: the gravest first, then in the order of the rule.
pub fn shortfalls(run: &Run, assurance: &Assurance) -> Vec<Shortfall> {
    let mut found = inputs(run, assurance);
    found.extend(order(run, assurance));
    found.extend(
        SOURCES.into_iter().filter(|name| assurance.source(name).is_none()).map(|name| Shortfall::Unnamed { name }),
    );
    for source in &assurance.sources {
        let name = source.name.clone();
        found.extend(match source.status.as_str() {
            // Both are among the inputs, and weigh more there.
            "uncontrolled" if matches!(source.name.as_str(), "image" | "mounts") => None,
            "uncontrolled" => Some(Shortfall::Uncontrolled { name }),
            "witnessed" => Some(Shortfall::Witnessed { name }),
            "pinned" if source.name == PINNED_TO_HOST && assurance.host_vector.is_some() => Some(Shortfall::HostCpu),
            "pinned" if !PINNED_IN_RUN.contains(&source.name.as_str()) => Some(Shortfall::PinnedElsewhere { name }),
            _ => None,
        });
    }
    found.extend(means(assurance));
    found.sort_by_key(Shortfall::leaves);
    found
}

/// The strongest claim that `run` and the rest of `assurance` leave; its own `level` is not asked.
pub fn strongest(run: &Run, assurance: &Assurance) -> Claim {
    shortfalls(run, assurance).iter().map(Shortfall::leaves).min().unwrap_or(Claim::D3)
}

fn inputs(run: &Run, assurance: &Assurance) -> Vec<Shortfall> {
    let mut found = Vec::new();
    if run.image.is_none() || assurance.source("image") == Some("uncontrolled") {
        found.push(Shortfall::UnknownImage);
    }
    if assurance.source("mounts") == Some("uncontrolled") {
        found.push(Shortfall::UnpinnedMounts);
    }
    if !assurance.execs.is_empty() {
        let count = assurance.execs.iter().fold(0_u64, |sum, exec| sum.saturating_add(exec.count));
        found.push(Shortfall::Entered { count });
    }
    found
}

fn order(run: &Run, assurance: &Assurance) -> Vec<Shortfall> {
    let mut found = Vec::new();
    if run.cage.profile == SERVICE {
        found.push(Shortfall::Service);
    }
    if run.params.schedule == "host" || assurance.schedule.as_deref().is_none_or(|class| class == "host") {
        // Without turns there is neither a log nor a clock to start: one reason is enough.
        found.push(Shortfall::HostSchedule);
        return found;
    }
    let said =
        [("seed", run.params.seed.is_some()), ("epoch", run.params.epoch.is_some()), ("trace", run.trace.is_some())];
    found.extend(said.into_iter().filter(|(_, said)| !said).map(|(what, _)| Shortfall::Unsaid { what }));
    if !assurance.escapes.is_empty() {
        found.push(Shortfall::Escaped { count: assurance.escapes.len() });
    }
    found
}

fn means(assurance: &Assurance) -> Vec<Shortfall> {
    let Some(host) = &assurance.host_vector else { return Vec::new() };
    let controlled = |name: &str| assurance.source(name) == Some("controlled");
    // CPUID takes no CPU that can trap it: it is found in the code and made to trap.
    let no_trap = controlled("rdtsc") && !host.tsc_trap;
    no_trap.then_some(Shortfall::NoMeans { name: "rdtsc", means: "trap it" }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::digest::Sha256Digest;
    use crate::receipt::{ExecRecord, HostVector, Source};
    use crate::run::{
        CageRef, ConfigRef, Image, Outputs, Params, RUN_TYPE, RunResult, RuntimeRef, StreamDigest, Trace,
    };

    fn run() -> Run {
        let nothing = StreamDigest { digest: Sha256Digest::EMPTY, bytes: 0 };
        Run {
            type_: RUN_TYPE.to_owned(),
            image: Some(Image { media_type: "application/x".to_owned(), digest: Sha256Digest::EMPTY }),
            platform: "linux/amd64".to_owned(),
            config: ConfigRef { digest: Sha256Digest::EMPTY },
            cage: CageRef { profile: "strict".to_owned(), digest: Sha256Digest::EMPTY },
            runtime: RuntimeRef { name: "docklock".to_owned(), abi: 2 },
            inputs: Vec::new(),
            params: Params {
                seed: Some(Sha256Digest::EMPTY),
                epoch: Some(1_640_995_200),
                schedule: "turns".to_owned(),
            },
            limits: BTreeMap::new(),
            result: RunResult {
                exit_code: Some(0),
                signal: None,
                stdout: nothing.clone(),
                stderr: nothing,
                outputs: Outputs { scope: "none".to_owned(), digest: Sha256Digest::EMPTY, entries: 0 },
            },
            trace: Some(Trace {
                alg: "blake3".to_owned(),
                digest: "0".repeat(64),
                events: 1,
                format: "docklock-trace/1".to_owned(),
            }),
            denied: Vec::new(),
            virtualised: Vec::new(),
        }
    }

    fn assurance() -> Assurance {
        let status = |name| match name {
            "image" | "mounts" => "pinned",
            "rdrand" => "not-exercised",
            _ => "controlled",
        };
        Assurance {
            level: "D0".to_owned(),
            sources: SOURCES
                .map(|name| Source { name: name.to_owned(), status: status(name).to_owned(), reason: None })
                .to_vec(),
            fences: Vec::new(),
            execs: Vec::new(),
            schedule: Some("serial-syscall".to_owned()),
            host_vector: Some(HostVector {
                cpu_model: "a CPU".to_owned(),
                cpuid: Sha256Digest::EMPTY,
                kernel: "6.1".to_owned(),
                tsc_trap: true,
                cpuid_fault: true,
                branch_counter: "absent".to_owned(),
                lsms: Vec::new(),
            }),
            escapes: Vec::new(),
            counters: BTreeMap::new(),
        }
    }

    fn with(name: &str, status: &str) -> Assurance {
        let mut assurance = assurance();
        assurance.sources.iter_mut().find(|source| source.name == name).unwrap().status = status.to_owned();
        assurance
    }

    #[test]
    fn a_run_without_a_shortfall_may_be_called_repeatable_anywhere() {
        assert_eq!(shortfalls(&run(), &assurance()), []);
        assert_eq!(strongest(&run(), &assurance()), Claim::D3);
    }

    #[test]
    fn sources_are_named_in_order() {
        assert!(SOURCES.is_sorted());
    }

    #[test]
    fn a_cpu_that_is_pinned_to_the_hosts_leaves_d2_and_without_a_host_vector_d1() {
        let mut pinned = with("cpuid", "pinned");
        assert_eq!((shortfalls(&run(), &pinned), strongest(&run(), &pinned)), (vec![Shortfall::HostCpu], Claim::D2));
        pinned.host_vector = None;
        assert_eq!(strongest(&run(), &pinned), Claim::D1);
    }

    #[test]
    fn every_source_counts_whatever_the_others_are() {
        for name in SOURCES {
            let expected = if matches!(name, "image" | "mounts") { Claim::D0 } else { Claim::D1 };
            assert_eq!(strongest(&run(), &with(name, "uncontrolled")), expected, "{name}");
            assert_eq!(strongest(&run(), &with(name, "witnessed")), Claim::D1, "{name}");
            assert_eq!(strongest(&run(), &with(name, "not-exercised")), Claim::D3, "{name}");
            let mut silent = assurance();
            silent.sources.retain(|source| source.name != name);
            assert_eq!(strongest(&run(), &silent), Claim::D1, "{name}");
        }
    }

    #[test]
    fn a_source_nobody_foresaw_counts_too() {
        let mut assurance = assurance();
        assurance.sources.push(Source { name: "warp".to_owned(), status: "pinned".to_owned(), reason: None });
        assert_eq!(shortfalls(&run(), &assurance), [Shortfall::PinnedElsewhere { name: "warp".to_owned() }]);
    }

    #[test]
    fn an_exec_an_unknown_image_or_an_unpinned_mount_leaves_d0() {
        let exec = ExecRecord { argv: None, started_on: "2026-01-02T03:04:05Z".to_owned(), count: 2 };
        assert_eq!(strongest(&run(), &Assurance { execs: vec![exec], ..assurance() }), Claim::D0);
        assert_eq!(strongest(&Run { image: None, ..run() }, &assurance()), Claim::D0);
        assert_eq!(strongest(&run(), &with("mounts", "uncontrolled")), Claim::D0);
    }

    #[test]
    fn an_escape_leaves_d1() {
        let escaped = Assurance { escapes: vec!["a wait ended by the host's clock".to_owned()], ..assurance() };
        assert_eq!(shortfalls(&run(), &escaped), [Shortfall::Escaped { count: 1 }]);
        assert_eq!(strongest(&run(), &escaped), Claim::D1);
    }

    #[test]
    fn a_service_or_a_run_without_turns_never_exceeds_d1() {
        let mut service = run();
        service.cage.profile = "service".to_owned();
        assert_eq!(strongest(&service, &assurance()), Claim::D1);
        let mut host = run();
        host.params.schedule = "host".to_owned();
        assert_eq!(strongest(&host, &assurance()), Claim::D1);
        for schedule in [None, Some("host".to_owned())] {
            assert_eq!(strongest(&run(), &Assurance { schedule, ..assurance() }), Claim::D1);
        }
    }

    #[test]
    fn a_run_that_does_not_say_how_to_repeat_it_is_not_repeatable() {
        let mut unseeded = run();
        unseeded.params.seed = None;
        let mut undated = run();
        undated.params.epoch = None;
        for run in [unseeded, undated, Run { trace: None, ..run() }] {
            assert_eq!(strongest(&run, &assurance()), Claim::D1);
        }
    }

    #[test]
    fn what_a_host_cannot_do_it_cannot_have_done() {
        let mut poor = assurance();
        let host = poor.host_vector.as_mut().unwrap();
        (host.tsc_trap, host.cpuid_fault) = (false, false);
        assert_eq!(shortfalls(&run(), &poor), [Shortfall::NoMeans { name: "rdtsc", means: "trap it" }]);
        assert_eq!(strongest(&run(), &poor), Claim::D1);
    }
}
