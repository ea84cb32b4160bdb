//! What a container may leave behind, counted before and after: processes, cgroups, mounts, files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything of this world that a runtime could leak, as sorted sets of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// `pid command-line` of each process but the observer and its threads; zombies have their state instead.
    pub processes: BTreeSet<String>,
    /// Every cgroup folder whose path holds the marker.
    pub cgroups: BTreeSet<PathBuf>,
    /// Mount points whose path holds the marker.
    pub mounts: BTreeSet<String>,
    /// Files in the given folders.
    pub files: BTreeSet<PathBuf>,
}

impl Inventory {
    /// Takes stock of all whose name holds `marker` (a containerd namespace, a temporary folder), and of all files in `folders`.
    pub fn take(marker: &str, folders: &[&Path]) -> Self {
        let mut files = BTreeSet::new();
        for folder in folders {
            walk(folder, &mut |path| {
                files.insert(path.to_owned());
            });
        }
        Self { processes: processes(marker), cgroups: cgroups(marker), mounts: mounts(marker), files }
    }

    /// One line for each thing that is here and was not in `before`.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.processes.difference(&before.processes).map(|name| format!("process {name}")));
        lines.extend(self.cgroups.difference(&before.cgroups).map(|path| format!("cgroup {}", path.display())));
        lines.extend(self.mounts.difference(&before.mounts).map(|path| format!("mount {path}")));
        lines.extend(self.files.difference(&before.files).map(|path| format!("file {}", path.display())));
        lines
    }
}

/// Processes whose command line holds `marker`, and every zombie.
pub fn processes(marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == own || pid == "1" {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(marker) {
            found.insert(format!("{pid} {}", line.trim_end()));
        }
    }
    found
}

/// Processes in state Z whose parent is `parent`.
pub fn zombies_of(parent: u32) -> usize {
    let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = |text: &str| {
        let after = text.rsplit(')').next().unwrap_or_default();
        let mut words = after.split_whitespace();
        words.next() == Some("Z") && words.next() == Some(&parent.to_string())
    };
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| is_zombie(&stat(&name.to_string_lossy()))).count()
}

/// Cgroup folders of every hierarchy whose path holds `marker`, but for folders of just that name.
pub fn cgroups(marker: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    folders(Path::new("/sys/fs/cgroup"), &mut |path| {
        if path.to_string_lossy().contains(marker) && !path.ends_with(marker) {
            found.insert(path.to_owned());
        }
    });
    found
}

/// Cgroup folders of every hierarchy that are named `name`.
pub fn cgroups_named(name: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    folders(Path::new("/sys/fs/cgroup"), &mut |path| {
        if path.ends_with(name) {
            found.insert(path.to_owned());
        }
    });
    found
}

/// Mount points of this mount namespace whose path holds `marker`.
pub fn mounts(marker: &str) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| path.contains(marker))
        .map(str::to_owned)
        .collect()
}

fn folders(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            folders(&entry.path(), visit);
        }
    }
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        visit(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, visit);
        }
    }
}
