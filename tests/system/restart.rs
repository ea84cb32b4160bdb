//! containerd is restarted while a container runs.

use bpi_tests::daemon::{Daemon, Settings, Version};
use bpi_tests::world::World;
use bpi_tests::{Outcome, done, ensure};

pub const TESTS: &[(&str, crate::Test)] =
    &[("a_container_survives_a_restart_of_containerd_and_has_its_receipt", survives)];

fn survives(world: &World, version: Version) -> Outcome {
    let daemon = Daemon::start(world, version, &format!("restart-{}", version.label()), &Settings::default())?;
    {
        let namespace = daemon.namespace("restart")?;
        let pid = namespace.start("survivor", crate::detached::ENTERABLE, &["sleep", "1000"])?;
        daemon.restart()?;
        ensure(namespace.pid("survivor")? == pid, "after the restart the task has another process")?;
        namespace.ctr(&["tasks", "exec", "--exec-id", "after", "survivor", "true"])?.ok()?;
        namespace.ctr(&["tasks", "kill", "--signal", "SIGKILL", "survivor"])?.ok()?;
        namespace.reaches("survivor", "STOPPED")?;
        namespace.receipt("survivor")?;
        namespace.remove("survivor")?;
        namespace.run("next", &[], &["true"])?.ok()?;
        namespace.leaves_nothing()?;
    }
    let left = daemon.stop();
    ensure(left.is_empty(), format!("left behind: {left:?}"))?;
    done()
}
