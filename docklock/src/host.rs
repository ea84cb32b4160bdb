//! What this host can enforce: plain values, so that the plan is a pure function of them.
//!
//! [`HostCapabilities::probe`] reads a dozen small files and makes no change; the shim does it at each start. What costs more
//! than a millisecond (running `apparmor_parser --version`) is [`HostCapabilities::probe_slowly`], for `docklock doctor`.
//! Always true: what cannot be read counts as absent, so a fence is never claimed that was not seen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libseccomp::ScmpVersion;
use serde::Serialize;

use crate::engine::model::processor::host_has_baseline;

/// Where Debian and Ubuntu keep it; PATH is not asked, because a service's may lack sbin.
const APPARMOR_PARSERS: [&str; 3] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// Longest file of /proc or /sys that is read here, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// First kernel that knows SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (seccomp(2)).
const WAIT_KILLABLE_SINCE: (u32, u32) = (5, 19);

/// What this host can enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostCapabilities {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// Version of libseccomp, `2.5.4`; empty when it does not say.
    pub libseccomp: String,
    /// The kernel can hand calls to a supervisor (SECCOMP_RET_USER_NOTIF).
    pub seccomp_notify: bool,
    /// A notified call waits for its answer whatever signal arrives, short of death.
    pub seccomp_wait_killable: bool,
    /// Landlock's ABI version; 0 without Landlock.
    pub landlock_abi: u32,
    /// AppArmor.
    pub apparmor: AppArmor,
    /// Cgroups.
    pub cgroup: Cgroup,
    /// User namespaces can be made.
    pub user_namespaces: bool,
    /// The processor executes all of x86-64-v2, which profiles may promise.
    pub baseline_cpu: bool,
    /// The security modules in force, where the kernel tells.
    pub lsms: Vec<String>,
}

/// AppArmor on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppArmor {
    /// The kernel enforces it.
    pub enabled: bool,
    /// The program that loads profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<PathBuf>,
    /// What it calls itself; known to [`HostCapabilities::probe_slowly`] only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser_version: Option<String>,
}

/// How cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// Not at all.
    Absent,
    /// Controllers on v1 hierarchies, no unified one.
    V1,
    /// Controllers on v1 hierarchies beside a unified one.
    Hybrid,
    /// Unified only.
    V2,
}

/// Cgroups on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// How they are mounted.
    pub mode: CgroupMode,
    /// Controllers that can be used, in the mode's own spelling (`blkio` on v1 is `io` on v2).
    pub controllers: BTreeSet<String>,
}

impl HostCapabilities {
    /// Looks at this host; about 0.2 ms.
    pub fn probe() -> Self {
        Self::under(Path::new("/"))
    }

    /// The same, and what has to be asked of programs.
    pub fn probe_slowly() -> Self {
        let mut host = Self::probe();
        host.apparmor.parser_version = host.apparmor.parser.as_deref().and_then(parser_version);
        host
    }

    /// The look itself, with /proc, /sys and /usr beneath `root`. Kernel and library answer for themselves.
    fn under(root: &Path) -> Self {
        let uname = nix::sys::utsname::uname();
        let text = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            uname.as_ref().map(|uname| part(uname).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let kernel = text(nix::sys::utsname::UtsName::release);
        let notify = words(root, "proc/sys/kernel/seccomp/actions_avail").contains("user_notif");
        Self {
            machine: text(nix::sys::utsname::UtsName::machine),
            libseccomp: ScmpVersion::current().map(|version| version.to_string()).unwrap_or_default(),
            seccomp_notify: notify,
            seccomp_wait_killable: notify && release(&kernel).is_some_and(|version| version >= WAIT_KILLABLE_SINCE),
            landlock_abi: landlock_abi(),
            apparmor: AppArmor::under(root),
            cgroup: Cgroup::under(root),
            baseline_cpu: host_has_baseline(),
            user_namespaces: root.join("proc/self/ns/user").exists()
                && read(root, "proc/sys/user/max_user_namespaces").trim() != "0",
            lsms: read(root, "sys/kernel/security/lsm")
                .trim()
                .split(',')
                .filter(|lsm| !lsm.is_empty())
                .map(str::to_owned)
                .collect(),
            kernel,
        }
    }
}

impl AppArmor {
    fn under(root: &Path) -> Self {
        let parser = APPARMOR_PARSERS.iter().map(Path::new).find(|parser| within(root, parser).is_file());
        Self {
            enabled: read(root, "sys/module/apparmor/parameters/enabled").starts_with('Y'),
            parser: parser.map(Path::to_owned),
            parser_version: None,
        }
    }
}

impl Cgroup {
    fn under(root: &Path) -> Self {
        let unified = read(root, "sys/fs/cgroup/cgroup.controllers");
        if within(root, Path::new("/sys/fs/cgroup/cgroup.controllers")).is_file() {
            // The devices controller of v2 is a BPF program, not a name in this file.
            let controllers = unified.split_whitespace().map(str::to_owned).collect();
            return Self { mode: CgroupMode::V2, controllers };
        }
        let controllers: BTreeSet<String> = v1_controllers(&read(root, "proc/self/mountinfo"));
        let hybrid = within(root, Path::new("/sys/fs/cgroup/unified/cgroup.procs")).is_file();
        let mode = match (controllers.is_empty(), hybrid) {
            (true, false) => CgroupMode::Absent,
            (false, false) => CgroupMode::V1,
            (_, true) => CgroupMode::Hybrid,
        };
        Self { mode, controllers }
    }
}

/// Controllers of mounted v1 hierarchies by mountinfo (proc_pid_mountinfo(5)): the super options of a `cgroup` mount name them.
fn v1_controllers(mountinfo: &str) -> BTreeSet<String> {
    const KNOWN: [&str; 13] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "misc",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
    ];
    let mounts = mountinfo.lines().filter_map(|line| line.split_once(" - cgroup "));
    mounts
        .flat_map(|(_, after)| after.rsplit(' ').next().unwrap_or_default().split(','))
        .filter(|option| KNOWN.contains(option))
        .map(str::to_owned)
        .collect()
}

fn within(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

/// A small file's text; empty when it cannot be read or is no small file.
fn read(root: &Path, relative: &str) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read =
        fs::File::open(root.join(relative)).and_then(|file| file.take(FILE_BYTES_MAX as u64).read_to_end(&mut text));
    if read.is_ok() { String::from_utf8_lossy(&text).into_owned() } else { String::new() }
}

fn words(root: &Path, relative: &str) -> BTreeSet<String> {
    read(root, relative).split_whitespace().map(str::to_owned).collect()
}

/// Major and minor of `uname -r`.
fn release(kernel: &str) -> Option<(u32, u32)> {
    let mut parts = kernel.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Landlock's ABI by asking for one feature after another: each attempt only makes a descriptor (landlock_create_ruleset(2)).
fn landlock_abi() -> u32 {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, Scope,
    };
    let ruleset = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let makes = |asked: Result<Ruleset, RulesetError>| asked.and_then(Ruleset::create).is_ok();
    let steps: [(u32, &dyn Fn() -> bool); 6] = [
        (6, &|| makes(ruleset().scope(Scope::AbstractUnixSocket))),
        (5, &|| makes(ruleset().handle_access(AccessFs::from_all(ABI::V5)))),
        (4, &|| makes(ruleset().handle_access(AccessNet::BindTcp))),
        (3, &|| makes(ruleset().handle_access(AccessFs::from_all(ABI::V3)))),
        (2, &|| makes(ruleset().handle_access(AccessFs::from_all(ABI::V2)))),
        (1, &|| makes(ruleset().handle_access(AccessFs::from_all(ABI::V1)))),
    ];
    steps.iter().find(|(_, has)| has()).map_or(0, |(abi, _)| *abi)
}

fn parser_version(parser: &Path) -> Option<String> {
    let output = Command::new(parser).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn an_empty_host_has_nothing() {
        let dir = root(&[]);
        let host = HostCapabilities::under(dir.path());
        assert!(!host.seccomp_notify && !host.seccomp_wait_killable && !host.user_namespaces);
        assert_eq!((host.apparmor, host.cgroup.mode), (AppArmor::default(), CgroupMode::Absent));
    }

    #[test]
    fn a_unified_host_tells_its_controllers() {
        let dir = root(&[("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")]);
        let cgroup = Cgroup::under(dir.path());
        assert_eq!(cgroup.mode, CgroupMode::V2);
        assert!(cgroup.controllers.contains("pids") && !cgroup.controllers.contains("devices"));
    }

    #[test]
    fn a_hybrid_host_has_its_controllers_on_version_one() {
        let mountinfo = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw shared:1 - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let dir = root(&[("proc/self/mountinfo", mountinfo), ("sys/fs/cgroup/unified/cgroup.procs", "")]);
        let cgroup = Cgroup::under(dir.path());
        assert_eq!(cgroup.mode, CgroupMode::Hybrid);
        assert_eq!(cgroup.controllers.iter().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
    }

    #[test]
    fn apparmor_without_its_parser_is_enabled_and_cannot_be_loaded() {
        let dir = root(&[("sys/module/apparmor/parameters/enabled", "Y\n")]);
        assert_eq!(AppArmor::under(dir.path()), AppArmor { enabled: true, parser: None, parser_version: None });
    }

    #[test]
    fn a_release_is_read_with_any_suffix() {
        assert_eq!(release("6.1.0-21-amd64"), Some((6, 1)));
        assert_eq!(release("5.19-rc1"), Some((5, 19)));
        assert_eq!(release("custom"), None);
    }

    #[test]
    fn this_host_is_looked_at_without_a_failure() {
        let host = HostCapabilities::probe();
        assert!(!host.kernel.is_empty() && !host.libseccomp.is_empty());
    }
}
