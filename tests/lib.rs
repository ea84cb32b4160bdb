//! The shared harness of the system tests: real containerds, real containers, real receipts.
//!
//! Everything runs in one isolated world (own mounts, own processes, own network), so that whatever a failing test leaves behind
//! dies with it. Receipts are read here by hand, from the files, and not through the code under test.
//! Absent on purpose: mocks, and sleeps in place of events.

#[path = "system/harness/command.rs"]
pub mod command;
#[path = "system/harness/cri.rs"]
pub mod cri;
#[path = "system/harness/daemon.rs"]
pub mod daemon;
#[path = "system/harness/image.rs"]
pub mod image;
#[path = "system/harness/leak.rs"]
pub mod leak;
#[path = "system/harness/namespace.rs"]
pub mod namespace;
#[path = "system/harness/records.rs"]
pub mod records;
#[path = "system/harness/terminal.rs"]
pub mod terminal;
#[path = "system/harness/world.rs"]
pub mod world;

use std::time::{Duration, Instant};

/// Why a test failed, in one sentence.
pub type Failure = libtest_mimic::Failed;
/// What a test function returns.
pub type Outcome = Result<libtest_mimic::Completion, Failure>;

/// The test did what its name says.
pub fn done() -> Outcome {
    Ok(libtest_mimic::Completion::Completed)
}

/// The test could not be made here; the reason goes into the summary.
pub fn skipped(because: impl std::fmt::Display) -> Outcome {
    Ok(libtest_mimic::Completion::ignored_with(format!("because {because}")))
}

/// Fails with `text` unless `truth`.
///
/// # Errors
/// `text`, when `truth` is false.
pub fn ensure(truth: bool, text: impl std::fmt::Display) -> Result<(), Failure> {
    if truth { Ok(()) } else { Err(text.to_string().into()) }
}

/// Polls a fact of the outside world that announces itself by no event (a file of another program, a state in a daemon).
///
/// # Errors
/// When `fact` has not come true after `limit`; the text names it.
pub fn eventually<T>(what: &str, limit: Duration, mut fact: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = fact() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(format!("not within {limit:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(15));
    }
}
