//! One container's control group after libcontainer has made it: who is in it, what it used, and how to end all of it.
//!
//! cgroups-rs knows v1, v2 and hybrid hosts; here it gets a path and answers in its own statistics. Always true: [`Group::kill_all`]
//! returns only when the group is empty, or says what is left.

mod warmth;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use cgroups_rs::CgroupStats;
use cgroups_rs::FreezerState;
use cgroups_rs::fs::Cgroup;
use cgroups_rs::fs::hierarchies;
use cgroups_rs::manager::{FsManager, Manager};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
pub use warmth::Warmth;

/// How long [`Group::kill_all`] waits for killed processes to leave.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Why a control group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A path that is no path below the root of a hierarchy.
    #[error("cgroup path {path:?} must be absolute, without `..` and without systemd's colons")]
    Path {
        /// The path.
        path: String,
    },
    /// cgroups-rs could not do it.
    #[error("could not {deed} of cgroup {path}: {source}")]
    Manager {
        /// What was tried.
        deed: &'static str,
        /// Which group.
        path: String,
        /// Its reason.
        source: Box<cgroups_rs::manager::Error>,
    },
    /// A file of the group could not be used.
    #[error("could not {deed} {file}: {source}")]
    File {
        /// What was tried.
        deed: &'static str,
        /// Which file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Processes survived SIGKILL for too long.
    #[error("{count} processes of cgroup {path} were still there {} seconds after SIGKILL", KILL_PATIENCE.as_secs())]
    Survivors {
        /// Which group.
        path: String,
        /// How many.
        count: usize,
    },
}

/// What a container has used.
#[derive(Debug, Default)]
pub struct Stats {
    /// Counters of the controllers, as cgroups-rs reads them.
    pub counters: CgroupStats,
    /// True on a pure cgroup v2 host: the shim answers in the other message then.
    pub v2: bool,
    /// CPU time in microseconds.
    pub cpu_usec: Option<u64>,
    /// Highest memory use in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

/// A control group by its path below each hierarchy's root.
#[derive(Clone, Debug)]
pub struct Group {
    path: String,
}

impl Group {
    /// Names a group; it need not exist yet.
    ///
    /// # Errors
    /// [`CgroupError::Path`].
    pub fn at(cgroups_path: &str) -> Result<Self, CgroupError> {
        let refused = || CgroupError::Path { path: cgroups_path.to_owned() };
        let below = cgroups_path.strip_prefix('/').ok_or_else(refused)?;
        if below.is_empty() || below.contains(':') || below.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refused());
        }
        Ok(Self { path: below.to_owned() })
    }

    fn manager(&self) -> Result<FsManager, CgroupError> {
        FsManager::new(&self.path).map_err(self.failed("read the hierarchies"))
    }

    fn failed(&self, deed: &'static str) -> impl FnOnce(cgroups_rs::manager::Error) -> CgroupError + '_ {
        move |source| CgroupError::Manager { deed, path: self.path.clone(), source: Box::new(source) }
    }

    /// Process ids in the group, as this process sees them.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = Cgroup::load(hierarchies::auto(), &self.path)
            .procs()
            .into_iter()
            .filter_map(|pid| u32::try_from(pid.pid).ok())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Stops all tasks of the group where they are.
    ///
    /// # Errors
    /// The freezer's.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.manager()?.freeze(FreezerState::Frozen).map_err(self.failed("freeze the tasks"))
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The freezer's.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.manager()?.freeze(FreezerState::Thawed).map_err(self.failed("thaw the tasks"))
    }

    /// Sets new limits.
    ///
    /// # Errors
    /// The first controller's that refuses.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        self.manager()?.set(resources).map_err(self.failed("set the limits"))
    }

    /// What the group has used so far.
    ///
    /// # Errors
    /// When the hierarchies cannot be read; a counter that the host does not keep is absent instead.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let manager = self.manager()?;
        let counters = manager.stats();
        let v2 = manager.v2();
        let cpu_usec = if v2 {
            self.keyed("", "cpu.stat", "usage_usec")
        } else {
            self.number("cpuacct", "cpuacct.usage").map(|nanoseconds| nanoseconds / 1000)
        };
        let memory_peak_bytes =
            if v2 { self.number("", "memory.peak") } else { self.number("memory", "memory.max_usage_in_bytes") };
        Ok(Stats { counters, v2, cpu_usec, memory_peak_bytes, oom_kills: self.oom_kills() })
    }

    /// Processes of the group that the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        if hierarchies::is_cgroup2_unified_mode() {
            self.keyed("", "memory.events", "oom_kill").unwrap_or(0)
        } else {
            self.keyed("memory", "memory.oom_control", "oom_kill").unwrap_or(0)
        }
    }

    /// A descriptor that becomes ready when the group runs out of memory.
    ///
    /// # Errors
    /// When the host keeps no memory controller for the group.
    pub fn watch_oom(&self) -> Result<OomWatch, CgroupError> {
        let failed = |deed, file: &PathBuf| {
            let file = file.clone();
            move |source| CgroupError::File { deed, file, source }
        };
        if hierarchies::is_cgroup2_unified_mode() {
            let file = self.file("", "memory.events");
            let events = fs::File::open(&file).map_err(failed("open", &file))?;
            return Ok(OomWatch { ready: events.into(), events: PollFlags::POLLPRI, _control: None });
        }
        let file = self.file("memory", "memory.oom_control");
        let control = fs::File::open(&file).map_err(failed("open", &file))?;
        let ready = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| failed("make an event descriptor for", &file)(errno.into()))?;
        let registry = self.file("memory", "cgroup.event_control");
        fs::write(&registry, format!("{} {}", ready.as_fd().as_raw_fd(), control.as_raw_fd()))
            .map_err(failed("write", &registry))?;
        Ok(OomWatch { ready: ready.into(), events: PollFlags::POLLIN, _control: Some(control) })
    }

    /// Kills every process of the group and waits until it is empty. An absent group is an empty one.
    ///
    /// # Errors
    /// [`CgroupError::Survivors`].
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + KILL_PATIENCE;
        // A v2 group is killed in one stroke, against which no fork can race; elsewhere the sweep is repeated until nobody is left.
        let stroke = self.file("", "cgroup.kill");
        if stroke.exists() {
            fs::write(&stroke, "1").map_err(|source| CgroupError::File { deed: "write", file: stroke, source })?;
        }
        loop {
            let pids = self.pids();
            if pids.is_empty() {
                return Ok(());
            }
            for pid in &pids {
                match kill(Pid::from_raw(*pid as i32), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => {
                        return Err(CgroupError::File {
                            deed: "kill a process of",
                            file: self.path.clone().into(),
                            source: errno.into(),
                        });
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(CgroupError::Survivors { path: self.path.clone(), count: pids.len() });
            }
            // Frozen tasks die only when thawed; a group without a freezer has none.
            drop(self.thaw());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes the group from every hierarchy. An absent group is removed already.
    ///
    /// # Errors
    /// `EBUSY` while somebody is in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut manager = self.manager()?;
        manager.destroy().map_err(self.failed("remove the directories"))
    }

    /// True when no hierarchy has the group.
    pub fn is_gone(&self) -> bool {
        !Cgroup::load(hierarchies::auto(), &self.path).exists()
    }

    fn file(&self, controller: &str, name: &str) -> PathBuf {
        let mut path = PathBuf::from("/sys/fs/cgroup");
        if !controller.is_empty() {
            path.push(controller);
        }
        path.push(&self.path);
        path.push(name);
        path
    }

    fn number(&self, controller: &str, name: &str) -> Option<u64> {
        fs::read_to_string(self.file(controller, name)).ok()?.trim().parse().ok()
    }

    fn keyed(&self, controller: &str, name: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file(controller, name)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

/// Becomes ready when a group runs out of memory.
#[derive(Debug)]
pub struct OomWatch {
    ready: OwnedFd,
    events: PollFlags,
    _control: Option<fs::File>,
}

impl OomWatch {
    /// The descriptor to poll, and for what.
    pub fn polled(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.ready.as_fd(), self.events)
    }

    /// Takes the readiness back, so that the next poll waits for the next event.
    ///
    /// # Errors
    /// When the group is gone; the next poll would return at once for ever.
    pub fn acknowledge(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let read = if self.events == PollFlags::POLLPRI {
            nix::sys::uio::pread(self.ready.as_fd(), &mut buffer, 0)
        } else {
            nix::unistd::read(self.ready.as_fd(), &mut buffer)
        };
        match read {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_that_leaves_the_hierarchy_is_refused() {
        for path in ["", "/", "relative", "/a/../b", "/a//b", "system.slice:docklock:x"] {
            assert!(Group::at(path).is_err(), "{path:?}");
        }
        assert_eq!(Group::at("/default/demo").unwrap().path, "default/demo");
    }

    #[test]
    fn a_group_that_does_not_exist_is_empty_and_gone() {
        let group = Group::at("/docklock-test-that-does-not-exist").unwrap();
        assert!(group.pids().is_empty());
        assert!(group.is_gone());
        group.kill_all().unwrap();
    }
}
