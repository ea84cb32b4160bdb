//! Shims killed by `kill -9` at random moments: every intent is closed, nothing is left, the next start works.
//!
//! The moments come from a seeded generator, so that a failure's seed repeats its schedule (the kernel's own timing stays its own).

use std::thread;
use std::time::Duration;

use bpi_tests::command::run;
use bpi_tests::daemon::Version;
use bpi_tests::leak::processes;
use bpi_tests::namespace::Namespace;
use bpi_tests::records::{Kind, all_closed, read};
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const TESTS: &[(&str, crate::Test)] = &[("shims_killed_at_random_moments_leave_no_open_intent_and_no_leak", storm)];

const SEED: u64 = 0x00D0_C10C;
/// From its first appearance a shim lives about this long, so the kills fall before, during and after the payload.
const MOMENT_US_MAX: u64 = 90_000;

struct Random(u64);

impl Random {
    /// xorshift64* (Vigna 2016).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

fn storm(world: &World, version: Version) -> Outcome {
    let daemon = world.daemon(version)?;
    let namespace = daemon.namespace("storm")?;
    let count = std::env::var("BPI_STORM").ok().and_then(|word| word.parse().ok()).unwrap_or(100_u64);
    // Both containerds share the number.
    let count = count.div_ceil(2);
    let mut random = Random(SEED);
    let mut hit = 0;
    for number in 0..count {
        let moment = Duration::from_micros(random.below(MOMENT_US_MAX));
        hit += usize::from(strike(&namespace, &format!("struck-{number}"), moment)?);
    }
    println!("{}: {hit} of {count} shims were there to be killed (seed {SEED:#x})", version.label());
    ensure(hit as u64 * 3 >= count, format!("only {hit} of {count} shims were met alive"))?;
    // A start closes what an earlier shim left open, should nobody else have.
    namespace.run("after-the-storm", &[], &["true"])?.ok()?;
    all_closed(&daemon.spool, &namespace.name, Duration::from_secs(20))?;
    let records = read(&daemon.spool, &namespace.name)?;
    ensure(records.iter().any(|record| record.kind == Kind::Abort), "no shim was killed while its container ran")?;
    namespace.leaves_nothing()?;
    let state: Vec<_> = std::fs::read_dir(daemon.state.join(&namespace.name)).into_iter().flatten().flatten().collect();
    ensure(state.is_empty(), format!("state left behind: {state:?}"))?;
    done()
}

/// Starts a container, kills its shim after `moment`, and cleans up as an operator would. True if the shim was there.
fn strike(namespace: &Namespace<'_>, id: &str, moment: Duration) -> Result<bool, Failure> {
    let command = namespace.run_command(id, &[], &["sh", "-c", "sleep 0.04; echo x > /out/x"]);
    let struck = thread::scope(|scope| -> Result<bool, Failure> {
        let running = scope.spawn(|| run(command, b"", Duration::from_secs(30)));
        let shim = eventually("the shim is there", Duration::from_secs(20), || shim_of(&namespace.name, id));
        thread::sleep(moment); // the random moment itself, not a wait for something
        let struck = shim.is_ok_and(|shim| kill(shim, Signal::SIGKILL).is_ok());
        running.join().map_err(|_| Failure::from("the running thread panicked"))??;
        Ok(struck)
    })?;
    // `ctr run` may have ended before containerd noticed: removing is repeated until it has.
    eventually(&format!("{id} can be removed"), Duration::from_secs(20), || {
        namespace.ctr(&["tasks", "delete", "--force", id]).ok()?;
        namespace.ctr(&["containers", "delete", id]).ok()?;
        let left = namespace.ctr(&["containers", "list", "--quiet"]).ok()?.text();
        (!left.lines().any(|line| line == id)).then_some(())
    })?;
    Ok(struck)
}

/// The serving process of a container's shim (the one that `start` left, so it has a socket): of all processes with its command line,
/// the one whose parent is none of them.
fn shim_of(namespace: &str, id: &str) -> Option<Pid> {
    let ours: Vec<i32> = processes(&format!("-id {id} "))
        .into_iter()
        .filter(|line| line.contains("containerd-shim") && line.contains(namespace) && line.contains(" -socket "))
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect();
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    ours.iter().copied().find(|pid| parent(*pid).is_none_or(|parent| !ours.contains(&parent))).map(Pid::from_raw)
}
