//! The kernel's limits on a container hold, and its end by one of them is told.

use bpi_tests::daemon::Version;
use bpi_tests::world::World;
use bpi_tests::{Outcome, done, ensure};

pub const TESTS: &[(&str, crate::Test)] = &[
    ("a_container_over_its_memory_limit_is_killed_and_has_its_receipt", memory),
    ("a_sites_own_profile_limits_the_number_of_processes", forks),
];

fn memory(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("memory")?;
    let finished = namespace.run("eater", &["--memory-limit", "33554432"], &["probe", "memory"])?;
    ensure(finished.code == 137, format!("over its limit of 32 MiB: {}", finished.describe()))?;
    namespace.receipt("eater")?;
    namespace.leaves_nothing()?;
    done()
}

fn forks(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("forks")?;
    let finished = namespace.run("forks", &["--annotation", "io.bpi.docklock.profile=few"], &["probe", "forks"])?;
    let said = finished.text();
    let children = said.rsplit(' ').next().and_then(|word| word.parse::<u32>().ok());
    ensure(
        children.is_some_and(|count| count < 64),
        format!("its profile allows 64 processes: {}", finished.describe()),
    )?;
    namespace.receipt("forks")?;
    namespace.leaves_nothing()?;
    done()
}
