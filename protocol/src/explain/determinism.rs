//! What a receipt claims about its repeatability, and why no more.

use super::{Advice, LISTED_MAX, below, line, listed, quiet};
use crate::claim::{Claim, Shortfall, shortfalls};
use crate::receipt::{Assurance, Receipt};
use crate::run::Run;

/// What each source is, for who did not build the cage.
const SOURCES: [(&str, &str); 20] = [
    ("aslr", "where its memory lies"),
    ("clock", "the time it reads, and how long it waits"),
    ("cpuid", "what the CPU says it can do, and on which core"),
    ("entropy", "random bytes"),
    ("environment", "its environment"),
    ("file-metadata", "times, numbers and order of its files"),
    ("hostname", "the name of its host"),
    ("image", "the files it starts from"),
    ("locale", "its language and time zone"),
    ("mounts", "what is mounted from the host"),
    ("network", "who it talks to"),
    ("pids", "numbers of its processes and threads"),
    ("procfs", "what /proc and /sys tell"),
    ("rdrand", "random numbers from the CPU"),
    ("rdtsc", "cycles the CPU has counted"),
    ("rlimits", "its resource limits"),
    ("scheduling", "which of its tasks goes first"),
    ("signals", "when signals reach it"),
    ("sysinfo", "memory, load and CPUs of the host"),
    ("umask", "its file mode mask"),
];

pub(super) fn what_is_claimed(page: &mut String, receipt: &Receipt, advice: &dyn Advice) {
    let (run, assurance) = (&receipt.run, &receipt.assurance);
    let meaning = Claim::from_word(&assurance.level).map_or("a level unknown here", Claim::meaning);
    line(page, &format!("Determinism claimed: {}: {meaning}.", quiet(&assurance.level)));
    line(page, &how_it_was_ordered(assurance));
    how_to_repeat(page, run);
    sources(page, assurance);
    escapes(page, assurance);
    why_no_more(page, run, assurance, advice);
}

fn how_it_was_ordered(assurance: &Assurance) -> String {
    let class = assurance.schedule.as_deref().unwrap_or("host");
    let words = match class {
        "host" => "The kernel decided when each of its tasks ran",
        "single" => "It never had two tasks that could run, so there was nothing to order",
        "serial-syscall" => "The cage let one task run at a time and passed the turn between system calls",
        "serial-branch" => "The cage let one task run at a time and passed the turn at counted branches",
        "witnessed" => "The cage wrote down when each of its tasks ran",
        other => return format!("Its tasks were ordered in a way unknown here ({}).", quiet(other)),
    };
    format!("{words} (schedule {class}).")
}

fn how_to_repeat(page: &mut String, run: &Run) {
    if let (Some(seed), Some(epoch)) = (run.params.seed, run.params.epoch) {
        line(page, &format!("Its random bytes came from seed {seed}; its clock began {epoch} s after 1970."));
    }
    if let Some(trace) = &run.trace {
        line(
            page,
            &format!(
                "{} decisions of the cage are hashed into {}:{} ({}).",
                trace.events,
                quiet(&trace.alg),
                quiet(&trace.digest),
                quiet(&trace.format)
            ),
        );
    }
}

fn sources(page: &mut String, assurance: &Assurance) {
    let with = |status: &str| -> Vec<&str> {
        let rows = assurance.sources.iter().filter(|source| source.status == status);
        rows.map(|source| source.name.as_str()).collect()
    };
    let groups = [
        ("controlled", "Controlled by the cage"),
        ("pinned", "Pinned by digest"),
        ("witnessed", "Only witnessed, by the digest of a log"),
        ("not-exercised", "Not used by this run, so nothing to control"),
    ];
    for (status, words) in groups {
        let names = with(status);
        if !names.is_empty() {
            line(page, &format!("{words}: {}.", names.iter().map(|name| quiet(name)).collect::<Vec<_>>().join(", ")));
        }
    }
    let open = with("uncontrolled");
    if !open.is_empty() {
        let names: Vec<_> = open.iter().map(|name| quiet(name)).collect();
        line(
            page,
            &format!(
                "What could have made it come out differently another time, because nothing controlled it: {}.",
                names.join(", ")
            ),
        );
        for (name, words) in SOURCES.iter().filter(|(name, _)| open.contains(name)) {
            let source = assurance.sources.iter().find(|source| source.name == *name);
            let why = source
                .and_then(|source| source.reason.as_deref())
                .map_or_else(String::new, |reason| format!(" ({})", quiet(reason.trim_end_matches('.'))));
            below(page, &format!("{name}: {words}{why}"));
        }
    }
}

fn escapes(page: &mut String, assurance: &Assurance) {
    let escapes = &assurance.escapes;
    if escapes.is_empty() {
        return;
    }
    line(page, "It left the deterministic path:");
    for escape in escapes.iter().take(LISTED_MAX) {
        below(page, &format!("{}.", quiet(escape.trim_end_matches('.'))));
    }
    if escapes.len() > LISTED_MAX {
        below(page, &format!("and {} times more.", escapes.len() - LISTED_MAX));
    }
}

fn why_no_more(page: &mut String, run: &Run, assurance: &Assurance, advice: &dyn Advice) {
    let mut shortfalls = shortfalls(run, assurance);
    // The uncontrolled ones stand above, one by one.
    shortfalls.retain(|shortfall| !matches!(shortfall, Shortfall::Uncontrolled { .. }));
    if shortfalls.is_empty() {
        return;
    }
    let reasons = listed(&shortfalls, |shortfall| quiet(&shortfall.to_string()), "reasons more");
    line(page, &format!("It claims no more, because: {reasons}."));
    let mut told: Vec<String> = Vec::new();
    for words in shortfalls.iter().take(LISTED_MAX).filter_map(|shortfall| advice.on_shortfall(run, shortfall)) {
        if !told.contains(&words) {
            below(page, &words);
            told.push(words);
        }
    }
}
