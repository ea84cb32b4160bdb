//! The system tests: what a tenant or a kubelet sees of DockLock, on real containerds, each test once for each of them.
//!
//! Each test has a containerd namespace of its own, and with it a chain of receipts of its own.

use std::process::ExitCode;
use std::sync::Arc;

use bpi_tests::daemon::Version;
use bpi_tests::world::{World, isolate, text_of};
use bpi_tests::{Outcome, skipped};
use libtest_mimic::{Arguments, Completion, Trial};

mod bad_input;
mod cage;
mod crowd;
mod detached;
mod determinism;
mod events;
mod exits;
mod limits;
mod pods;
mod receipts;
mod restart;
mod storm;
mod streams;

/// A test as the list below names it.
type Test = fn(&World, Version) -> Outcome;

/// One list for every containerd.
const TESTS: &[(&str, &[(&str, Test)])] = &[
    ("exits", exits::TESTS),
    ("streams", streams::TESTS),
    ("detached", detached::TESTS),
    ("events", events::TESTS),
    ("receipts", receipts::TESTS),
    ("cage", cage::TESTS),
    ("determinism", determinism::TESTS),
    ("limits", limits::TESTS),
    ("pods", pods::TESTS),
    ("bad_input", bad_input::TESTS),
    ("restart", restart::TESTS),
    ("crowd", crowd::TESTS),
    ("storm", storm::TESTS),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        let nothing: Vec<Trial> = names().into_iter().map(|name| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, nothing).exit_code();
    }
    if let Some(code) = isolate() {
        return code;
    }
    let world = match World::new() {
        Ok(world) => Arc::new(world),
        Err(failure) => {
            eprintln!("the world of the tests cannot be made: {}", text_of(&failure));
            return ExitCode::from(101);
        }
    };
    arguments.test_threads.get_or_insert(2);
    let conclusion = libtest_mimic::run(&arguments, trials(&world));
    let left = Arc::into_inner(world).map(World::close).unwrap_or_default();
    for line in &left {
        eprintln!("left behind after all tests: {line}");
    }
    if left.is_empty() { conclusion.exit_code() } else { ExitCode::from(101) }
}

fn name_of(version: Version, group: &str, test: &str) -> String {
    format!("{}::{group}::{test}", version.label())
}

fn names() -> Vec<String> {
    let of_version = |version: Version| {
        TESTS.iter().flat_map(move |(group, tests)| tests.iter().map(move |(test, _)| name_of(version, group, test)))
    };
    Version::ALL.into_iter().flat_map(of_version).collect()
}

fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in Version::ALL {
        for (group, tests) in TESTS {
            for (test, function) in *tests {
                let (world, name) = (Arc::clone(world), name_of(version, group, test));
                let title = name.clone();
                trials.push(Trial::ignorable_test(name, move || run_one(&world, version, &title, *function)));
            }
        }
    }
    trials
}

fn run_one(world: &World, version: Version, title: &str, test: Test) -> Outcome {
    if let Err(because) = world.containerd(version) {
        println!("skipped: {title}, because {because}");
        return skipped(because);
    }
    let outcome = test(world, version);
    if let Ok(completion) = &outcome
        && let Completion::Ignored { reason: Some(reason) } = completion
    {
        println!("skipped: {title}, {reason}");
    }
    outcome
}
