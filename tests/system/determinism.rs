//! Under the profile `strict` a run repeats: time, chance and order are DockLock's, and what cannot repeat ends without a receipt.

use std::fs;
use std::time::{Duration, Instant};

use bpi_tests::command::Finished;
use bpi_tests::daemon::Version;
use bpi_tests::image::REFERENCE;
use bpi_tests::namespace::Namespace;
use bpi_tests::records::{Kind, Record, all_closed, read};
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure, eventually, skipped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cage;

pub const TESTS: &[(&str, crate::Test)] = &[
    ("two_strict_runs_print_the_same_and_have_one_run_hash_and_one_trace", same_twice),
    ("a_strict_run_repeats_under_another_containerd", same_across),
    ("no_date_of_the_host_shows_however_late_a_strict_container_starts", late_start),
    ("a_long_sleep_takes_logical_time_alone", sleep),
    ("a_deadlock_ends_with_an_abort_that_says_so", deadlock),
    ("the_death_of_the_engine_ends_the_container_and_leaves_nothing", engine_killed),
    ("a_strict_receipt_counts_denials_and_claims_no_more_than_was_controlled", claims),
];

const STRICT: &[&str] = &["--annotation", "io.bpi.docklock.profile=strict"];

/// What differs from run to run on a host of one's own: clocks, chance, process ids, names of files, and who comes first.
const RESTLESS: &str = "date -u +%Y-%m-%dT%H:%M:%S.%N; echo $RANDOM $RANDOM; head -c 8 /dev/urandom | od -An -tx1; \
    ls -la /; ls -lai /bin /proc | sort | head -n 80; cat /proc/sys/kernel/random/uuid /proc/uptime; echo $$; \
    for name in a b c d; do (i=0; while [ $i -lt 20 ]; do echo $name $i; i=$((i+1)); done) & done; wait; \
    seq 200 | while read n; do echo $n; done | grep 7 | sort -r | cksum; \
    mktemp; sleep 5; date -u; touch /tmp/new; stat / /tmp /tmp/new /bin/sh; echo $RANDOM > /out/number; date > /out/date";

fn strict<'daemon>(namespace: &Namespace<'daemon>, id: &str, argv: &[&str]) -> Result<Finished, Failure> {
    namespace.run(id, STRICT, argv)
}

fn trace_of(receipt: &Record) -> String {
    receipt.text("/run/trace/digest").to_owned()
}

/// The first line in which two texts differ, for messages.
fn difference(one: &str, other: &str) -> String {
    let pairs = one.lines().map(Some).chain([None]).zip(other.lines().map(Some).chain([None]));
    let found = pairs.enumerate().find(|(_, (a, b))| a != b);
    found.map_or_else(String::new, |(line, (a, b))| format!("line {}: {a:?} and {b:?}", line + 1))
}

fn expect_same(first: &(Finished, Record), second: &(Finished, Record)) -> Result<(), Failure> {
    let (one, other) = (first.0.text(), second.0.text());
    ensure(one == other, format!("stdout differs in {}", difference(&one, &other)))?;
    let (one, other) = (trace_of(&first.1), trace_of(&second.1));
    ensure(!one.is_empty() && one == other, format!("the traces are {one:?} and {other:?}"))?;
    let (one, other) = (&first.1, &second.1);
    let runs = || format!("{} and {}", one.predicate["run"], other.predicate["run"]);
    ensure(one.subject == other.subject, format!("the run-hashes differ; the runs are {}", runs()))
}

fn same_twice(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("repeats")?;
    let one = |id: &str| -> Result<(Finished, Record), Failure> {
        Ok((strict(&namespace, id, &["sh", "-c", RESTLESS])?.ok()?, namespace.receipt(id)?))
    };
    let (first, second) = (one("first")?, one("second")?);
    let said = first.0.text();
    ensure(said.starts_with("2027-01-01T00:00:0"), format!("the clock does not start in 2027: {said}"))?;
    ensure(said.contains("Fri Jan  1 00:00:0"), format!("the clock does not go on in 2027: {said}"))?;
    expect_same(&first, &second)?;
    namespace.leaves_nothing()?;
    done()
}

fn same_across(world: &World, version: Version) -> Outcome {
    for other in Version::ALL {
        if let Err(because) = world.containerd(other) {
            return skipped(because);
        }
    }
    let name = format!("across-{}", version.label());
    let under = |version: Version| -> Result<(Finished, Record), Failure> {
        let namespace = world.daemon(version)?.namespace(&name)?;
        Ok((strict(&namespace, "same", &["sh", "-c", RESTLESS])?.ok()?, namespace.receipt("same")?))
    };
    expect_same(&under(Version::Debian)?, &under(Version::Newer)?)?;
    done()
}

/// What containerd prepares is then older than the shim, by more than any clock's grain.
fn late_start(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("late")?;
    let argv = ["stat", "/", "/dev", "/dev/null", "/dev/shm", "/etc", "/etc/passwd", "/out", "/proc", "/sys", "/tmp"];
    let at_once = strict(&namespace, "at-once", &argv)?.ok()?;
    let mut create = vec!["containers", "create", "--runtime", namespace.daemon.runtime.as_str()];
    create.extend_from_slice(STRICT);
    create.extend_from_slice(&[REFERENCE, "late"]);
    create.extend_from_slice(&argv);
    namespace.ctr(&create)?.ok()?;
    std::thread::sleep(Duration::from_millis(1500));
    let late = namespace.ctr(&["tasks", "start", "late"])?.ok()?;
    ensure(at_once.text() == late.text(), format!("stdout differs in {}", difference(&at_once.text(), &late.text())))?;
    namespace.ctr(&["containers", "delete", "late"])?.ok()?;
    namespace.leaves_nothing()?;
    done()
}

fn sleep(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("sleeps")?;
    let start = Instant::now();
    let script = "date +%s; sleep 1000; date +%s";
    let said = strict(&namespace, "sleeper", &["sh", "-c", script])?.ok()?.text();
    let took = start.elapsed();
    ensure(took < Duration::from_secs(20), format!("sleep 1000 took {took:?}"))?;
    ensure(said == "1798761600\n1798762600", format!("the clock says {said}"))?;
    done()
}

/// Records of one container that close its intent.
fn closing(namespace: &Namespace<'_>, id: &str) -> Result<Vec<Record>, Failure> {
    let records = read(&namespace.daemon.spool, &namespace.name)?;
    Ok(records.into_iter().filter(|record| record.kind != Kind::Intent && record.container() == id).collect())
}

/// The one record that closes a container's intent is an abort; gives its reason.
fn abort_reason(namespace: &Namespace<'_>, id: &str) -> Result<String, Failure> {
    let records = closing(namespace, id)?;
    let seen: Vec<_> = records.iter().map(|record| (record.kind, record.text("/reason"))).collect();
    match seen.as_slice() {
        [(Kind::Abort, reason)] => Ok((*reason).to_owned()),
        _ => Err(format!("{id} should have one abort and no receipt; it has {seen:?}").into()),
    }
}

fn deadlock(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("deadlock")?;
    let cases: [(&str, &[&str]); 3] = [
        ("child", &["sh", "-c", "mkfifo /tmp/nobody; cat /tmp/nobody & wait"]),
        ("pipeline", &["sh", "-c", "mkfifo /tmp/nobody; cat /tmp/nobody | cat"]),
        ("futex", &["probe", "wait-for-futex"]),
    ];
    for (id, argv) in cases {
        let finished = strict(&namespace, id, argv)?;
        ensure(finished.code != 0, format!("a deadlock ended well: {}", finished.describe()))?;
        let reason = abort_reason(&namespace, id)?;
        ensure(reason.contains("deadlock"), format!("the abort of {id} does not speak of a deadlock: {reason}"))?;
    }
    namespace.leaves_nothing()?;
    done()
}

/// The engine of a container: whoever traces its first process.
fn engine_of(init: u32) -> Result<Pid, Failure> {
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse::<i32>().ok());
    let tracer = tracer.filter(|pid| *pid > 0).ok_or_else(|| format!("nobody traces process {init}: {status}"))?;
    let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
    ensure(name.trim_end() == "docklock-engine", format!("process {init} is traced by {name:?}"))?;
    Ok(Pid::from_raw(tracer))
}

fn engine_killed(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("beheaded")?;
    // One that makes no calls, one that makes many, and one whose tasks take turns.
    let cases = [
        ("quiet", "while :; do :; done"),
        ("calls", "while :; do echo x; done > /dev/null"),
        ("turns", "for i in 1 2 3; do (while :; do true | cat; done) & done; wait"),
    ];
    for (id, script) in cases {
        let init = namespace.start(id, STRICT, &["sh", "-c", script])?;
        let engine = engine_of(init)?;
        kill(engine, Signal::SIGKILL).map_err(|error| format!("cannot kill the engine {engine}: {error}"))?;
        namespace.reaches(id, "STOPPED")?;
        all_closed(&daemon.spool, &namespace.name, Duration::from_secs(10))?;
        let reason = abort_reason(&namespace, id)?;
        ensure(!reason.is_empty(), format!("the abort of {id} gives no reason"))?;
        for pid in [engine.as_raw().cast_unsigned(), init] {
            let gone = || fs::metadata(format!("/proc/{pid}")).is_err().then_some(());
            eventually(&format!("process {pid} of {id} is gone"), Duration::from_secs(10), gone)?;
        }
        namespace.remove(id)?;
    }
    namespace.leaves_nothing()?;
    done()
}

fn claims(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("claims")?;
    let finished = strict(&namespace, "probe", &cage::argv())?;
    cage::expect_refusals(&finished.text())?;
    finished.expect_code(1)?;
    let receipt = namespace.receipt("probe")?;
    cage::expect_counts(&receipt)?;
    let assurance = &receipt.predicate["assurance"];
    let (level, schedule) = (receipt.text("/assurance/level"), receipt.text("/assurance/schedule"));
    ensure(["D1", "D2", "D3"].contains(&level), format!("the level is {level:?}: {assurance}"))?;
    ensure(!["", "host"].contains(&schedule), format!("the schedule is {schedule:?}: {assurance}"))?;
    let sources = assurance["sources"].as_array().cloned().unwrap_or_default();
    for name in ["cpuid", "rdrand"] {
        let known = sources.iter().find(|source| source["name"] == name).map(|source| &source["status"]);
        ensure(
            known.is_some_and(|status| status == "controlled" || status == "not-exercised"),
            format!("the code of this program was looked through, so {name} should be known: {assurance}"),
        )?;
    }
    done()
}
