//! How a container ends, and what of that reaches whoever started it and the receipt.

use std::thread;
use std::time::Duration;

use bpi_tests::command::{DEADLINE, run};
use bpi_tests::daemon::Version;
use bpi_tests::records::{Kind, all_closed, read};
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure};

pub const TESTS: &[(&str, crate::Test)] = &[
    ("every_exit_code_from_0_to_255_comes_back", every_exit_code),
    ("a_caught_signal_decides_the_exit_code", caught_signals),
    ("a_kill_is_137_and_the_receipt_names_the_signal", kill),
    ("a_program_that_is_not_there_starts_nothing_and_leaves_nothing", missing_program),
    ("a_payload_that_ends_at_once_loses_neither_its_code_nor_its_output", ends_at_once),
];

const AT_ONCE: usize = 4;

fn every_exit_code(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("codes")?;
    let codes: Vec<i32> = (0..=255).collect();
    let one = |code: i32| -> Result<(), Failure> {
        let id = format!("code-{code}");
        namespace.run(&id, &[], &["sh", "-c", &format!("exit {code}")])?.expect_code(code)?;
        let receipt = namespace.receipt(&id)?;
        let said = receipt.predicate.pointer("/run/result/exitCode").and_then(serde_json::Value::as_i64);
        ensure(said == Some(i64::from(code)), format!("{id} ended with {code}, its receipt says {said:?}"))
    };
    thread::scope(|scope| {
        let parts = codes.chunks(codes.len().div_ceil(AT_ONCE));
        let workers: Vec<_> = parts.map(|part| scope.spawn(|| part.iter().try_for_each(|code| one(*code)))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| Failure::from("a worker panicked"))?)
    })?;
    namespace.leaves_nothing()?;
    done()
}

fn caught_signals(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("signals")?;
    for (code, signal) in [(41, "HUP"), (42, "INT"), (43, "QUIT"), (44, "USR1"), (45, "TERM")] {
        let id = format!("catches-{signal}");
        let script = format!("trap 'exit {code}' {signal}; touch /tmp/ready; while :; do sleep 0.02; done");
        let waiting = namespace.run_command(&id, &[], &["sh", "-c", &script]);
        thread::scope(|scope| -> Result<(), Failure> {
            let finished = scope.spawn(|| run(waiting, b"", DEADLINE));
            namespace.reaches(&id, "RUNNING")?;
            // The trap is set within microseconds of the start; until it is, init ignores the signal, so it is sent again.
            let sent = bpi_tests::eventually("the signal ends it", Duration::from_secs(20), || {
                let again = namespace.ctr(&["tasks", "kill", "--signal", &format!("SIG{signal}"), &id]).is_ok();
                (again && namespace.state(&id).ok()? != Some("RUNNING".into())).then_some(())
            });
            finished.join().map_err(|_| Failure::from("the waiting thread panicked"))??.expect_code(code)?;
            sent
        })?;
    }
    namespace.leaves_nothing()?;
    done()
}

fn kill(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("killed")?;
    let waiting = namespace.run_command("victim", &[], &["sleep", "1000"]);
    thread::scope(|scope| -> Result<(), Failure> {
        let finished = scope.spawn(|| run(waiting, b"", DEADLINE));
        namespace.reaches("victim", "RUNNING")?;
        namespace.ctr(&["tasks", "kill", "--signal", "SIGKILL", "victim"])?.ok()?;
        finished.join().map_err(|_| Failure::from("the waiting thread panicked"))??.expect_code(137).map(|_| ())
    })?;
    let receipt = namespace.receipt("victim")?;
    let signal = receipt.predicate.pointer("/run/result/signal").cloned().unwrap_or_default();
    ensure(signal == 9 || signal == "SIGKILL", format!("the receipt names signal {signal}"))?;
    namespace.leaves_nothing()?;
    done()
}

fn missing_program(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("missing")?;
    let finished = namespace.run("missing", &[], &["/no/such/program"])?;
    ensure(finished.code != 0, "ctr run of a program that is not there succeeded")?;
    let said = finished.error_text();
    ensure(said.contains("/no/such/program"), format!("the error does not name the program: {said}"))?;
    all_closed(&daemon.spool, &namespace.name, Duration::from_secs(10))?;
    let records = read(&daemon.spool, &namespace.name)?;
    ensure(records.iter().all(|record| record.kind != Kind::Receipt), "a receipt was made although nothing ran")?;
    namespace.leaves_nothing()?;
    namespace.run("present", &[], &["true"])?.ok()?;
    done()
}

fn ends_at_once(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("quick")?;
    for turn in 0..20 {
        let id = format!("quick-{turn}");
        let finished = namespace.run(&id, &[], &["echo", &id])?.ok()?;
        ensure(finished.text() == id, format!("{id} printed {:?}", finished.text()))?;
        namespace.receipt(&id)?;
    }
    namespace.leaves_nothing()?;
    done()
}
