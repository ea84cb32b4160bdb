//! A pod as a kubelet makes it: `RunPodSandbox` with the runtime handler that a RuntimeClass names.

use std::time::Duration;

use bpi_tests::cri::Cri;
use bpi_tests::daemon::{Daemon, Settings, Version};
use bpi_tests::image::REFERENCE;
use bpi_tests::records::{all_closed, receipt_of};
use bpi_tests::world::World;
use bpi_tests::{Outcome, done, ensure, eventually, skipped};
use k8s_cri::v1::ContainerState;

pub const TESTS: &[(&str, crate::Test)] = &[("a_pod_logs_is_entered_measured_stopped_and_removed", whole_life)];

/// CRI keeps its things in this containerd namespace.
const BOUNDARY: &str = "k8s.io";

fn whole_life(world: &World, version: Version) -> Outcome {
    if !std::fs::exists("/usr/lib/cni/ptp").unwrap_or(false) {
        return skipped("/usr/lib/cni/ptp does not exist (package containernetworking-plugins)");
    }
    let daemon = Daemon::start(world, version, &format!("pods-{}", version.label()), &Settings::default())?;
    let archive = daemon.image.archive.to_string_lossy().into_owned();
    let import = daemon.ctr(&["--namespace", BOUNDARY, "images", "import", &archive]);
    bpi_tests::command::run(import, b"", bpi_tests::command::DEADLINE)?.ok()?;
    let mut cri = Cri::connect(&daemon.socket)?;
    let mut seen = String::new();
    eventually("CRI sees the image", Duration::from_secs(20), || match cri.images() {
        Ok(names) if names.iter().any(|name| name == REFERENCE) => Some(()),
        Ok(names) => {
            seen = format!("{names:?}");
            None
        }
        Err(failure) => {
            seen = bpi_tests::world::text_of(&failure);
            None
        }
    })
    .map_err(|_| format!("CRI does not list {REFERENCE}: {seen}; containerd says: {}", daemon.log_tail()))?;
    let outcome = pod(&mut cri, &daemon);
    let log = daemon.log_tail();
    let mut left = daemon.stop();
    // A kubelet makes the pod's cgroup and takes it away; here the test does. One that is not empty is a leak.
    for folder in bpi_tests::leak::cgroups_named(&pod_name(version)) {
        if let Err(error) = std::fs::remove_dir(&folder) {
            left.push(format!("cgroup {}: {error}", folder.display()));
        }
    }
    outcome.map_err(|failure| format!("{}; containerd says: {log}", bpi_tests::world::text_of(&failure)))?;
    ensure(left.is_empty(), format!("left behind: {left:?}"))?;
    done()
}

fn pod_name(version: Version) -> String {
    format!("pod-{}", version.label().replace('_', "-"))
}

fn pod(cri: &mut Cri, daemon: &Daemon) -> Result<(), bpi_tests::Failure> {
    let name = pod_name(daemon.version);
    let logs = daemon.folder.join("pod-logs");
    let pod = cri.run_pod(&name, &logs, &[])?;
    let script = "echo to-the-log; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let container = cri.start(&pod, "main", REFERENCE, &["sh", "-c", script], &[])?;
    let log = eventually("the log has its line", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(logs.join("main.log")).ok()?;
        text.contains("to-the-log").then_some(text)
    })?;
    ensure(log.contains("stdout F to-the-log"), format!("the log is not in CRI's form: {log}"))?;
    let inside = cri.exec(&container, &["sh", "-c", "echo inside; exit 4"])?;
    ensure(inside.stdout == b"inside\n" && inside.exit_code == 4, format!("ExecSync gave {inside:?}"))?;
    let stats = cri.stats(&container)?;
    let bytes = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |value| value.value);
    ensure(bytes > 0, "ContainerStats says that the container uses no memory")?;
    ensure(cri.status(&container)?.0 == ContainerState::ContainerRunning, "the container is not running")?;
    cri.stop_and_remove(&container, 10)?;
    let receipt = receipt_of(&daemon.spool, BOUNDARY, &container)?;
    let execs = receipt.predicate.pointer("/assurance/execs").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    ensure(execs == 1, format!("one probe entered, the receipt names {execs}"))?;
    // One that ends by itself: its exit code is the kubelet's answer.
    let short = cri.start(&pod, "short", REFERENCE, &["sh", "-c", "exit 6"], &[])?;
    let code = eventually("the short container has exited", Duration::from_secs(20), || {
        let (state, code) = cri.status(&short).ok()?;
        (state == ContainerState::ContainerExited).then_some(code)
    })?;
    ensure(code == 6, format!("the short container exited with {code}"))?;
    cri.stop_and_remove(&short, 1)?;
    cri.remove_pod(&pod)?;
    all_closed(&daemon.spool, BOUNDARY, Duration::from_secs(10))?;
    receipt_of(&daemon.spool, BOUNDARY, &pod.id).map(|_| ())
}
