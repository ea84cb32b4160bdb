//! Files of /proc: made or cleaned here, and handed in as memory files; and the folder /sys, filled once.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::Pid;

use crate::engine::model::metadata::{FileId, device};
use crate::engine::model::place::Place;
use crate::engine::model::procfs::{self, Facts, FilterKind, Synth};
use crate::engine::task::{Call, TaskId};
use crate::engine::{Engine, EngineError, Trouble, Verdict};
use crate::kernel::tracee;

/// File systems that show the host's kernel or machine (proc_pid_mountinfo(5)): none of them belongs into a cage under turns.
const HOSTS: [&str; 11] = [
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "bpf",
    "configfs",
    "efivarfs",
    "pstore",
    "fusectl",
];

/// File systems whose files have dates of the host's kernel alone: they began with a namespace, maybe before the cage.
const KERNELS: [&str; 2] = ["mqueue", "devpts"];

/// What stands behind a place below /proc.
pub(super) enum Behind {
    /// These bytes; a program may write to the kernel's file of that name.
    Bytes { bytes: Vec<u8>, written: bool },
    /// What the kernel has.
    Kernel,
    /// Nothing.
    Nothing,
}

impl Engine {
    /// What a place below /proc gives to this task, by its name alone.
    pub(super) fn what(&self, id: TaskId, place: &Place, uuid: &str) -> Synth {
        let facts = Facts {
            monotonic_ns: self.clock.monotonic(),
            epoch_s: self.policy.profile().epoch,
            hostname: &self.order.hostname,
            domainname: &self.order.domainname,
            boot_id: &self.boot_id,
            uuid,
            tasks: self.tasks.len() as u32,
            own: self.caller(id).process,
        };
        match procfs::answer(place, &facts) {
            Synth::Filter(FilterKind::Auxv { .. }) => {
                Synth::Filter(FilterKind::Auxv { baseline: self.shows_baseline() })
            }
            what => what,
        }
    }

    /// What an open of a place below /proc gives to this task.
    pub(super) fn behind(&mut self, id: TaskId, place: &Place) -> Behind {
        let uuid = if place.parts().ends_with(&[b"uuid"]) { self.random.uuid() } else { String::new() };
        let what = self.what(id, place, &uuid);
        let raw = match what {
            Synth::Bytes(bytes) => return Behind::Bytes { bytes, written: false },
            Synth::Pass | Synth::Link(_) => return Behind::Kernel,
            Synth::Absent => return Behind::Nothing,
            Synth::Filter(_) | Synth::Descriptor { .. } => self.slurp_place(id, place),
        };
        let Some(raw) = raw else { return Behind::Nothing };
        if let Synth::Descriptor { number, fd } = what {
            let ino = self.descriptor_ino(number, fd).unwrap_or(0);
            return Behind::Bytes { bytes: procfs::descriptor(&raw, ino), written: false };
        }
        let Synth::Filter(kind) = what else { return Behind::Nothing };
        let files = self.mapped_files(place, &raw);
        let metadata = &mut self.metadata;
        let bytes = procfs::filter(kind, &raw, &mut |dev, ino| {
            let seen = FileId { dev, ino };
            metadata.vino(files.get(&seen).copied().unwrap_or(seen))
        });
        Behind::Bytes { bytes, written: kind.is_written() }
    }

    /// The files that a text like /proc/N/maps names, as stat(2) identifies them, by the identity that the text has.
    fn mapped_files(&self, place: &Place, raw: &[u8]) -> BTreeMap<FileId, FileId> {
        let Some(tid) = place.task().and_then(|(number, _)| self.host_id(number)) else { return BTreeMap::new() };
        let found = |(name, dev, ino): (String, u64, u64)| {
            let stat = nix::sys::stat::stat(format!("/proc/{tid}/map_files/{name}").as_str()).ok()?;
            Some((FileId { dev, ino }, FileId { dev: stat.st_dev, ino: stat.st_ino }))
        };
        procfs::mapped_files(raw).into_iter().filter_map(found).collect()
    }

    /// The kernel's file. It writes the numbers of the reader's own namespace, so it is read from the guest's /proc.
    fn slurp_place(&self, id: TaskId, place: &Place) -> Option<Vec<u8>> {
        let own = self.tasks.get(id)?.tid;
        super::folder::slurp(&format!("/proc/{own}/root{}", String::from_utf8_lossy(&place.path())))
    }

    /// Looks at what is mounted in the cage of the process `pid`, and furnishes its /sys if that is a memory file system.
    pub(in crate::engine) fn furnish_mounts(&mut self, pid: Pid) -> Result<(), EngineError> {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
            .map_err(EngineError::edge("look at the mounts of the cage"))?;
        self.hosts_mounts = mounts.lines().any(shows_host);
        for dev in mounts.lines().filter(|line| KERNELS.contains(&kind_of(line))).filter_map(device_of) {
            self.metadata.kernel_device(dev);
        }
        let sys = PathBuf::from(format!("/proc/{pid}/root/sys"));
        let mounted = mounts.lines().any(|line| line.split(' ').nth(4) == Some("/sys"));
        if !mounted || !statfs(&sys).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC) {
            return Ok(());
        }
        let stat = nix::sys::stat::stat(&sys)
            .map_err(|errno| EngineError::Edge { deed: "look at /sys", source: errno.into() })?;
        self.sys_device = Some(stat.st_dev);
        for (name, line) in procfs::SYS {
            let file = sys.join(name);
            fill(&file, line).map_err(EngineError::edge("furnish /sys"))?;
        }
        Ok(())
    }

    /// Answers an open(2) with a read-only file of these bytes.
    pub(super) fn hand_in(&mut self, id: TaskId, call: &Call, bytes: &[u8], cloexec: bool) -> Result<Verdict, Trouble> {
        let made = memory_file(bytes).map_err(EngineError::edge("make a memory file"))?;
        self.hand_in_descriptor(id, call, made.as_fd(), cloexec)
    }

    /// Answers a call that makes a descriptor with a duplicate of `fd`.
    pub(super) fn hand_in_descriptor(
        &mut self,
        id: TaskId,
        call: &Call,
        fd: BorrowedFd<'_>,
        cloexec: bool,
    ) -> Result<Verdict, Trouble> {
        let give = |listener: BorrowedFd<'_>| tracee::notify_answer_with_fd(listener, call.id, fd, cloexec);
        let given = self.ears.undisturbed(give);
        match given {
            Ok(number) => {
                self.take_call(id, number.into())?;
                self.counts.answered(call.nr);
                Ok(Verdict::Settled)
            }
            Err(error) if crate::engine::is_gone(&error) => Ok(Verdict::Settled),
            Err(error) => Ok(Verdict::Return(-i64::from(error.raw_os_error().unwrap_or(libc::EIO)))),
        }
    }
}

/// True for a line of mountinfo whose file system shows the host; /proc itself is answered for.
fn shows_host(line: &str) -> bool {
    let kind = kind_of(line);
    HOSTS.contains(&kind) || (kind == "proc" && line.split(' ').nth(4).is_none_or(|point| !below_proc(point)))
}

/// The type of file system of a line of mountinfo.
fn kind_of(line: &str) -> &str {
    line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or("")
}

/// The device of a line of mountinfo.
fn device_of(line: &str) -> Option<u64> {
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(device(major.parse().ok()?, minor.parse().ok()?))
}

fn below_proc(point: &str) -> bool {
    point == "/proc" || point.starts_with("/proc/")
}

fn fill(file: &std::path::Path, line: &str) -> std::io::Result<()> {
    for folder in file.ancestors().skip(1).take_while(|folder| !folder.exists()).collect::<Vec<_>>().into_iter().rev() {
        std::fs::create_dir(folder)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    std::fs::write(file, format!("{line}\n"))?;
    std::fs::set_permissions(file, Permissions::from_mode(0o444))
}

/// A file in memory that its holder cannot write.
fn memory_file(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"proc", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    file.set_permissions(Permissions::from_mode(0o444))?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::{device_of, shows_host};

    #[test]
    fn a_mount_that_shows_the_host_is_told_from_the_cages_own() {
        for line in [
            "33 24 0:29 / /sys ro - sysfs sysfs ro",
            "40 33 0:35 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw",
            "50 24 0:4 / /mnt/proc rw - proc proc rw",
        ] {
            assert!(shows_host(line), "{line}");
        }
        assert_eq!(device_of("25 24 8:259 / /dev/mqueue rw - mqueue mqueue rw"), Some(0x10_0803));
        for line in [
            "25 24 0:5 / /proc rw,nosuid - proc proc rw",
            "26 25 0:5 /bus /proc/bus ro,nosuid - proc proc rw",
            "33 24 0:29 / /sys rw master:1 - tmpfs tmpfs rw,size=1024k",
            "24 20 0:50 / / rw - overlay overlay rw,lowerdir=/sysfs",
        ] {
            assert!(!shows_host(line), "{line}");
        }
    }
}
