//! What containerd tells those who listen, and in which order it must.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use bpi_tests::daemon::Version;
use bpi_tests::namespace::Namespace;
use bpi_tests::world::World;
use bpi_tests::{Failure, Outcome, done, ensure, eventually};

pub const TESTS: &[(&str, crate::Test)] = &[("events_come_in_order_and_tell_of_memory_that_ran_out", order)];

/// How long an event may take to be told.
const PATIENCE: Duration = Duration::from_secs(20);

/// `ctr events`, writing to a file, from the moment on when it is known to listen.
struct Listener {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Listener {
    fn start(namespace: &Namespace<'_>) -> Result<Self, Failure> {
        let file = tempfile::NamedTempFile::new()?;
        let output = File::options().append(true).open(file.path())?;
        let child = namespace.command(&["events"]).stdout(output).stdin(Stdio::null()).spawn()?;
        let listener = Self { child, file };
        // ctr does not say when it has subscribed: short runs do, once one of them is heard of.
        let mut runs = 0;
        eventually("ctr events listens", PATIENCE, || {
            runs += 1;
            namespace.run(&format!("herald-{runs}"), &[], &["true"]).ok()?;
            topics(listener.file.path(), "herald-").first().map(|_| ())
        })?;
        Ok(listener)
    }

    /// Topics that speak of a container, in the order in which they were told, once `last` is among them.
    fn until(&self, container: &str, last: &str) -> Result<Vec<String>, Failure> {
        eventually(&format!("{last} of {container}"), PATIENCE, || {
            let told = topics(self.file.path(), container);
            told.iter().any(|topic| topic == last).then_some(told)
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.child.kill().is_err() || self.child.wait().is_err() {
            eprintln!("ctr events had ended before");
        }
    }
}

/// A line of `ctr events`: date, time, zone, zone, namespace, topic, message.
fn topics(file: &Path, container: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let ours = text.lines().filter(|line| line.contains(&format!("\"{container}")));
    ours.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")))
        .map(str::to_owned)
        .collect()
}

fn order(world: &World, version: Version) -> Outcome {
    let namespace = world.daemon(version)?.namespace("events")?;
    let listener = Listener::start(&namespace)?;
    namespace.run("eater", &["--memory-limit", "33554432"], &["probe", "memory"])?.expect_code(137)?;
    let told = listener.until("eater", "/tasks/delete")?;
    let mut expected =
        ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"].iter().peekable();
    for topic in &told {
        expected.next_if(|next| *next == topic);
    }
    ensure(expected.peek().is_none(), format!("events out of order or missing: {told:?}"))?;
    let once = |topic: &str| told.iter().filter(|told| *told == topic).count() == 1;
    ensure(once("/tasks/start") && once("/tasks/exit"), format!("events told twice: {told:?}"))?;
    drop(listener);
    namespace.leaves_nothing()?;
    done()
}
