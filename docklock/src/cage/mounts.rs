//! Mounts and hidden paths: nothing of the host's kernel can be written, nothing the policy names can be reached.
//!
//! Where tasks take turns the machine that a program sees is the engine's: /proc holds processes alone, /sys is a memory file system that the
//! engine fills, control groups are absent.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use bpi_policies::{Policy, Schedule};
use oci_spec::runtime::{Mount, Spec};

use super::PlanError;

/// Files of /proc that tools such as lxcfs replace; runc lets the same ones be mounted over.
const PROC_FILES: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

pub(super) fn cage(spec: &mut Spec, policy: &Policy) -> Result<(), PlanError> {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        cage_mount(mount, policy).map_err(|why| PlanError::Mount {
            source_name: mount.source().as_deref().unwrap_or(Path::new("none")).to_string_lossy().into_owned(),
            destination: mount.destination().clone(),
            why,
        })?;
    }
    let profile = policy.profile();
    if profile.schedule == Schedule::Turns {
        show_no_machine_of_the_host(spec);
    }
    let linux = spec.linux_mut().as_mut().ok_or(PlanError::Missing { what: "linux" })?;
    let masked = union(linux.masked_paths().as_deref(), &profile.masked_paths);
    let readonly = union(linux.readonly_paths().as_deref(), &profile.readonly_paths);
    linux.set_masked_paths(Some(masked)).set_readonly_paths(Some(readonly));
    Ok(())
}

/// Leaves out what tells of the host: files of /proc that belong to no process (proc(5), subset=pid, Linux 5.8), what others mounted over such
/// files, all of /sys and the control groups. The engine answers for the files that a program may find there.
fn show_no_machine_of_the_host(spec: &mut Spec) {
    // The runtime writes a specification's kernel parameters below the container's own /proc/sys.
    let whole =
        spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()).is_some_and(|sysctl| !sysctl.is_empty());
    let Some(mounts) = spec.mounts_mut() else { return };
    mounts.retain(|mount| {
        let over_proc = is_bind(mount) && mount.destination().starts_with("/proc");
        !over_proc && !matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
    });
    for mount in mounts {
        match mount.typ().as_deref() {
            Some("sysfs") => {
                let options = ["nosuid", "nodev", "noexec", "mode=755", "size=1m"].map(str::to_owned).to_vec();
                mount.set_typ(Some("tmpfs".to_owned())).set_source(Some("tmpfs".into())).set_options(Some(options));
            }
            Some("proc") if !whole => {
                let mut options = mount.options().clone().unwrap_or_default();
                options.retain(|option| !option.starts_with("subset="));
                options.push("subset=pid".to_owned());
                mount.set_options(Some(options));
            }
            _ => {}
        }
    }
}

/// The order does not matter to the kernel, so the sorted one makes equal plans equal.
fn union(asked: Option<&[String]>, demanded: &BTreeSet<String>) -> Vec<String> {
    asked.into_iter().flatten().chain(demanded).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn cage_mount(mount: &mut Mount, policy: &Policy) -> Result<(), String> {
    let destination = lexical(mount.destination()).ok_or("its destination is not an absolute path without ..")?;
    if destination == Path::new("/") {
        return Err("it would cover the root file system".to_owned());
    }
    if let Some(option) =
        mount.options().iter().flatten().find(|option| matches!(option.as_str(), "shared" | "rshared"))
    {
        return Err(format!("with {option} mounts of the container would reach the host"));
    }
    let kind = if is_bind(mount) { "bind" } else { mount.typ().as_deref().unwrap_or("none") };
    match kind {
        "proc" if destination == Path::new("/proc") => Ok(()),
        "sysfs" if destination == Path::new("/sys") => readonly(mount),
        "proc" | "sysfs" => Err(format!("a second {kind} would show what is masked in the first")),
        "cgroup" | "cgroup2" => readonly(mount),
        "tmpfs" | "devpts" | "mqueue" => off_proc(&destination, false),
        "bind" => {
            off_proc(&destination, true)?;
            let source =
                mount.source().as_deref().and_then(lexical).ok_or("its source is not an absolute path without ..")?;
            refuse_source(&source, policy)
        }
        other => Err(format!("a file system of type {other} is not among those a container may mount")),
    }
}

/// As libcontainer and runc read it: by type, or by option whatever the type.
pub(super) fn is_bind(mount: &Mount) -> bool {
    let by_option = mount.options().iter().flatten().any(|option| matches!(option.as_str(), "bind" | "rbind"));
    by_option || mount.typ().as_deref() == Some("bind")
}

fn off_proc(destination: &Path, is_bind: bool) -> Result<(), String> {
    let replaces = is_bind && PROC_FILES.iter().any(|file| destination == Path::new(file));
    if destination.starts_with("/proc") && !replaces {
        return Err("it would cover a part of /proc".to_owned());
    }
    Ok(())
}

fn refuse_source(source: &Path, policy: &Policy) -> Result<(), String> {
    let refused = policy.profile().binds.refused_sources.iter().map(Path::new);
    let mut touched = refused.filter(|path| source.starts_with(path) || path.starts_with(source));
    touched
        .next()
        .map_or(Ok(()), |path| Err(format!("profile {} keeps {} of the host out", policy.name(), path.display())))
}

/// The same refusal after the file system has had its say: a source may be a symbolic link.
pub(super) fn look_at_sources(spec: &Spec, policy: &Policy) -> Result<(), PlanError> {
    for mount in spec.mounts().iter().flatten().filter(|mount| is_bind(mount)) {
        // One that cannot be resolved cannot be mounted either.
        let Some(Ok(real)) = mount.source().as_deref().map(Path::canonicalize) else { continue };
        refuse_source(&real, policy).map_err(|why| PlanError::Mount {
            source_name: real.to_string_lossy().into_owned(),
            destination: mount.destination().clone(),
            why,
        })?;
    }
    Ok(())
}

fn readonly(mount: &mut Mount) -> Result<(), String> {
    let mut options = mount.options().clone().unwrap_or_default();
    options.retain(|option| !matches!(option.as_str(), "rw" | "ro"));
    options.push("ro".to_owned());
    mount.set_options(Some(options));
    Ok(())
}

/// The path without `.` and empty parts; `None` for a relative one and for one with `..`, whose meaning the file system decides.
fn lexical(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components().peekable();
    if parts.peek() != Some(&Component::RootDir) {
        return None;
    }
    parts
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_) | Component::CurDir))
        .then(|| path.components().collect())
}
