//! Pays for the first move between control groups while nobody waits for it.
//!
//! The kernel's first write to `cgroup.procs` after a pause waits for an RCU grace period, 7–20 ms; those that follow within some
//! milliseconds take microseconds. So a thread moves itself between two v1 groups until the container has been moved. It changes
//! nothing but time: without the hierarchy, or without leave to write, there is no warmth, and no error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::unistd::gettid;

/// A v1 hierarchy whose groups cost nothing to be in.
const HIERARCHY: &str = "/sys/fs/cgroup/pids";
/// Time between two moves; the kernel stays warm for several of these.
const PERIOD: Duration = Duration::from_millis(1);
/// When nobody creates a container within this time, the warmth goes.
const LONGEST: Duration = Duration::from_millis(250);

/// A thread that keeps the kernel warm until this is dropped.
#[derive(Debug)]
pub struct Warmth {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Warmth {
    /// Starts it; `None` where it cannot help.
    pub fn start() -> Option<Self> {
        let hierarchy = Path::new(HIERARCHY);
        if !hierarchy.join("tasks").exists() {
            return None;
        }
        let scratch = hierarchy.join(format!("docklock-warmth-{}", std::process::id()));
        fs::create_dir(&scratch).ok()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let home = own_group(hierarchy);
        let thread = std::thread::Builder::new()
            .name("warmth".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || move_about(&home, &scratch, &stopped))
            .ok()?;
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Warmth {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It ends within one period, and has nothing to report.
            drop(thread.join());
        }
    }
}

fn move_about(home: &Path, scratch: &Path, stop: &AtomicBool) {
    let tid = gettid().to_string();
    let begun = Instant::now();
    while !stop.load(Ordering::Acquire) && begun.elapsed() < LONGEST {
        // The number, not `0`: for a thread that names itself as 0 the kernel skips the very lock that is to be warmed.
        if fs::write(scratch.join("tasks"), &tid).is_err() || fs::write(home.join("tasks"), &tid).is_err() {
            break;
        }
        std::thread::sleep(PERIOD);
    }
    if fs::write(home.join("tasks"), &tid).is_err() || fs::remove_dir(scratch).is_err() {
        tracing::warn!(scratch = %scratch.display(), "a scratch control group could not be removed");
    }
}

/// The group of this process in that hierarchy.
fn own_group(hierarchy: &Path) -> PathBuf {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.split_once(":pids:/").map(|(_, path)| path.to_owned()));
    hierarchy.join(own.unwrap_or_default())
}
