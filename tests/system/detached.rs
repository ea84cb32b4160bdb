//! Containers that stay: listed, entered, measured, paused, killed, removed.

use std::time::Duration;

use bpi_tests::daemon::Version;
use bpi_tests::records::all_closed;
use bpi_tests::world::World;
use bpi_tests::{Outcome, done, ensure};

pub const TESTS: &[(&str, crate::Test)] = &[
    ("a_detached_container_is_listed_measured_killed_and_removed", lifecycle),
    ("exec_runs_in_the_container_and_is_named_in_the_receipt", exec),
    ("exec_into_a_strict_container_is_refused", exec_refused),
    ("a_paused_container_says_so_and_goes_on_when_resumed", pause),
    ("a_program_that_is_missing_is_named_and_the_container_can_still_end", missing_program),
];

/// Flags for a container that may be entered.
pub const ENTERABLE: &[&str] = &["--annotation", "io.bpi.docklock.profile=standard"];

fn lifecycle(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("stays")?;
    let pid = namespace.start("stays", &[], &["sleep", "1000"])?;
    ensure(
        std::fs::exists(format!("/proc/{pid}")).unwrap_or(false),
        format!("ctr tasks list names process {pid}, which is not there"),
    )?;
    ensure(namespace.state("stays")?.as_deref() == Some("RUNNING"), "it is not RUNNING")?;
    let listed = namespace.ctr(&["tasks", "ps", "stays"])?.ok()?.text();
    ensure(listed.contains(&pid.to_string()), format!("ctr tasks ps does not name {pid}: {listed}"))?;
    let metrics = namespace.ctr(&["tasks", "metrics", "stays"])?.ok()?.text();
    ensure(metrics.contains("memory"), format!("ctr tasks metrics has no memory: {metrics}"))?;
    namespace.ctr(&["tasks", "kill", "--signal", "SIGKILL", "stays"])?.ok()?;
    namespace.reaches("stays", "STOPPED")?;
    namespace.receipt("stays")?;
    namespace.ctr(&["tasks", "delete", "stays"])?.ok()?;
    namespace.ctr(&["containers", "delete", "stays"])?.ok()?;
    all_closed(&daemon.spool, &namespace.name, Duration::from_secs(5))?;
    namespace.leaves_nothing()?;
    done()
}

/// The failed process must be reaped: a zombie in its process namespace would keep the container's first process from ending.
fn missing_program(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("missing")?;
    namespace.start("host", ENTERABLE, &["sleep", "1000"])?;
    let refused = namespace.ctr(&["tasks", "exec", "--exec-id", "none", "host", "/no/such/program"])?;
    ensure(refused.code != 0, "exec of a missing program succeeded")?;
    ensure(refused.error_text().contains("/no/such/program"), format!("not named: {}", refused.describe()))?;
    namespace.remove("host")?;
    namespace.leaves_nothing()?;
    done()
}

fn exec(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("exec")?;
    namespace.start("entered", ENTERABLE, &["sleep", "1000"])?;
    let inside = namespace
        .ctr(&["tasks", "exec", "--exec-id", "first", "entered", "sh", "-c", "echo inside; exit 23"])?
        .expect_code(23)?;
    ensure(inside.text() == "inside", format!("exec printed {:?}", inside.text()))?;
    let shares = namespace.ctr(&["tasks", "exec", "--exec-id", "second", "entered", "ps"])?.ok()?.text();
    ensure(shares.contains("sleep 1000"), format!("exec does not see init: {shares}"))?;
    namespace.ctr(&["tasks", "kill", "--signal", "SIGKILL", "entered"])?.ok()?;
    namespace.reaches("entered", "STOPPED")?;
    let receipt = namespace.receipt("entered")?;
    let execs = receipt.predicate.pointer("/assurance/execs").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    ensure(execs == 2, format!("two processes entered, the receipt names {execs}"))?;
    namespace.remove("entered")?;
    namespace.leaves_nothing()?;
    done()
}

fn exec_refused(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("noexec")?;
    // Under turns a sleep is over at once, and whoever waits for nobody is ended: this one goes on making calls.
    let busy = ["sh", "-c", "while :; do echo; done >/dev/null"];
    namespace.start("closed", &["--annotation", "io.bpi.docklock.profile=strict"], &busy)?;
    let refused = namespace.ctr(&["tasks", "exec", "--exec-id", "first", "closed", "true"])?;
    ensure(refused.code != 0, "exec into a strict container succeeded")?;
    let said = refused.error_text();
    ensure(said.contains("exec"), format!("the refusal does not say what was refused: {said}"))?;
    ensure(namespace.state("closed")?.as_deref() == Some("RUNNING"), "the refusal harmed the container")?;
    namespace.remove("closed")?;
    namespace.leaves_nothing()?;
    done()
}

fn pause(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("pause")?;
    namespace.start("paused", &[], &["sh", "-c", "i=0; while :; do i=$((i+1)); done"])?;
    namespace.ctr(&["tasks", "pause", "paused"])?.ok()?;
    namespace.reaches("paused", "PAUSED")?;
    namespace.ctr(&["tasks", "resume", "paused"])?.ok()?;
    namespace.reaches("paused", "RUNNING")?;
    namespace.remove("paused")?;
    namespace.leaves_nothing()?;
    done()
}
