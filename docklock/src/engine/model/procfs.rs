//! What the files of /proc and /sys show inside a cage: one generic machine, the same on every host.
//!
//! [`answer`] is an allow-list. A file named here is synthesised, filtered by [`filter`] or left to the kernel; every other one is absent.
//! Files of a task are never synthesised outright, since only the kernel knows whether the task exists: the caller reads the kernel's file
//! and [`filter`] removes what belongs to the host (times, placement, memory pressure, devices, inodes, mount sources).
//! Which place a path leads to is asked before ([`super::place`]). The files of /sys are few and never change ([`SYS`]).
//!
//! Absent on purpose: reading any file, writes (the caller decides on those).

use std::collections::HashMap;

use super::clock::{MONOTONIC_START_NS, SECOND_NS};
use super::place::{self, NAMESPACES, Place};

/// The kernel release of a cage, as uname(2) and /proc/sys/kernel/osrelease show it.
pub const RELEASE: &str = "6.1.0-docklock";
/// The kernel version of a cage, as uname(2) and /proc/sys/kernel/version show it.
pub const VERSION: &str = "#1 SMP DockLock";
/// The memory of a cage's machine, in units of 1024 bytes.
pub const MEMORY_KIB: u64 = 8 * 1024 * 1024;

/// The size of a page in bytes.
const PAGE_BYTES: u64 = 4096;
/// Every task's size and resident set in pages, as statm, stat, status and smaps_rollup show them.
const TASK_PAGES: u64 = 1000;
const RESIDENT_PAGES: u64 = 500;
/// Where the kernel's maps put the file name: `25 + sizeof(void *) * 6 - 1` columns and a space (fs/proc/task_mmu.c).
const MAPS_NAME_COLUMN: usize = 73;

/// What the synthesised files tell of the cage at the moment of an open.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Nanoseconds since the cage's boot.
    pub monotonic_ns: u64,
    /// What CLOCK_REALTIME shows when the run starts, in seconds; the boot is [`MONOTONIC_START_NS`] earlier.
    pub epoch_s: u64,
    /// The host name of the cage.
    pub hostname: &'a str,
    /// The NIS domain name of the cage.
    pub domainname: &'a str,
    /// The UUID of the cage's boot.
    pub boot_id: &'a str,
    /// A UUID made for this open.
    pub uuid: &'a str,
    /// How many tasks live in the cage.
    pub tasks: u32,
    /// The number of the caller's process.
    pub own: u32,
}

/// What an open of a path gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Synth {
    /// A file of these bytes.
    Bytes(Vec<u8>),
    /// The kernel's file at the same place, sent through [`filter`].
    Filter(FilterKind),
    /// The kernel's file about descriptor `fd` of task `number`, sent through [`descriptor`].
    Descriptor {
        /// The task.
        number: u32,
        /// The descriptor.
        fd: u32,
    },
    /// A symbolic link with this text.
    Link(&'static str),
    /// What the kernel gives.
    Pass,
    /// ENOENT.
    Absent,
}

/// The files of a task that are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterKind {
    /// /proc/N/stat
    Stat,
    /// /proc/N/statm
    Statm,
    /// /proc/N/status
    Status,
    /// /proc/N/maps
    Maps,
    /// /proc/N/smaps
    Smaps,
    /// /proc/N/smaps_rollup
    SmapsRollup,
    /// /proc/N/numa_maps
    NumaMaps,
    /// /proc/N/io
    Io,
    /// /proc/N/sched
    Sched,
    /// /proc/N/schedstat
    Schedstat,
    /// /proc/N/mountinfo
    Mountinfo,
    /// /proc/N/mounts
    Mounts,
    /// /proc/N/mountstats
    Mountstats,
    /// /proc/N/cgroup
    Cgroup,
    /// /proc/N/auxv
    Auxv {
        /// With the baseline's processor.
        baseline: bool,
    },
    /// /proc/N/wchan
    Wchan,
    /// /proc/N/loginuid
    Loginuid,
    /// /proc/N/coredump_filter
    CoredumpFilter,
    /// /proc/N/oom_score_adj
    OomScoreAdj,
    /// /proc/N/oom_adj
    OomAdj,
    /// /proc/N/uid_map
    UidMap,
    /// /proc/N/gid_map
    GidMap,
}

impl FilterKind {
    const ALL: [Self; 22] = [
        Self::Stat,
        Self::Statm,
        Self::Status,
        Self::Maps,
        Self::Smaps,
        Self::SmapsRollup,
        Self::NumaMaps,
        Self::Io,
        Self::Sched,
        Self::Schedstat,
        Self::Mountinfo,
        Self::Mounts,
        Self::Mountstats,
        Self::Cgroup,
        Self::Auxv { baseline: true },
        Self::Wchan,
        Self::Loginuid,
        Self::CoredumpFilter,
        Self::OomScoreAdj,
        Self::OomAdj,
        Self::UidMap,
        Self::GidMap,
    ];

    /// True for a file that programs write; what they write changes the host's behaviour and no answer.
    pub fn is_written(self) -> bool {
        matches!(self, Self::CoredumpFilter | Self::OomScoreAdj | Self::OomAdj)
    }

    /// The kernel's name of the file below /proc/N.
    pub fn file(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Statm => "statm",
            Self::Status => "status",
            Self::Maps => "maps",
            Self::Smaps => "smaps",
            Self::SmapsRollup => "smaps_rollup",
            Self::NumaMaps => "numa_maps",
            Self::Io => "io",
            Self::Sched => "sched",
            Self::Schedstat => "schedstat",
            Self::Mountinfo => "mountinfo",
            Self::Mounts => "mounts",
            Self::Mountstats => "mountstats",
            Self::Cgroup => "cgroup",
            Self::Auxv { .. } => "auxv",
            Self::Wchan => "wchan",
            Self::Loginuid => "loginuid",
            Self::CoredumpFilter => "coredump_filter",
            Self::OomScoreAdj => "oom_score_adj",
            Self::OomAdj => "oom_adj",
            Self::UidMap => "uid_map",
            Self::GidMap => "gid_map",
        }
    }
}

/// What a place below /proc gives.
pub fn answer(place: &Place, facts: &Facts<'_>) -> Synth {
    let parts = place.parts();
    match parts.as_slice() {
        [] | [b"self" | b"thread-self" | b"mounts"] => return Synth::Pass,
        _ => {}
    }
    match place.task() {
        None => proc_file(&parts.join(&b'/'), facts).map_or(Synth::Absent, |text| Synth::Bytes(text.into_bytes())),
        Some((number, tail)) => task_file(place, number, &tail, facts),
    }
}

/// What the file `tail` of a task's folder gives.
fn task_file(place: &Place, number: u32, tail: &[&[u8]], facts: &Facts<'_>) -> Synth {
    if place.folder().is_some() {
        return Synth::Pass;
    }
    match tail {
        [b"cwd" | b"root" | b"exe"] => Synth::Pass,
        [b"fd", fd] if place::numbered(fd).is_some() => Synth::Pass,
        [b"fdinfo", fd] => place::numbered(fd).map_or(Synth::Absent, |fd| Synth::Descriptor { number, fd }),
        [b"ns", name] => {
            let known = NAMESPACES.iter().find(|(known, _)| known.as_bytes() == *name);
            known.map_or(Synth::Absent, |(_, text)| Synth::Link(text))
        }
        [b"mem"] if place.parts().first().copied().and_then(place::number) == Some(facts.own) => Synth::Pass,
        [b"comm" | b"cmdline" | b"environ" | b"limits" | b"setgroups" | b"clear_refs" | b"personality"] => Synth::Pass,
        [file] => FilterKind::ALL
            .into_iter()
            .find(|kind| kind.file().as_bytes() == *file)
            .map_or(Synth::Absent, Synth::Filter),
        _ => Synth::Absent,
    }
}

/// The files below /sys, by their path there, and the line that each holds.
pub const SYS: [(&str, &str); 8] = [
    ("devices/system/cpu/online", "0"),
    ("devices/system/cpu/possible", "0"),
    ("devices/system/cpu/present", "0"),
    ("devices/system/node/online", "0"),
    ("kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force"),
    ("kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never"),
    ("kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152"),
];

/// The text of a file below /proc that belongs to no task, by its path there.
fn proc_file(path: &[u8], facts: &Facts<'_>) -> Option<String> {
    if let Some(name) = path.strip_prefix(b"sys/") {
        return sysctl(name, facts).map(|line| format!("{line}\n"));
    }
    Some(match path {
        b"cpuinfo" => CPUINFO.into(),
        b"meminfo" => meminfo(),
        b"stat" => format!(
            "cpu  1 0 1 1 0 0 0 0 0 0\ncpu0 1 0 1 1 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime {}\nprocesses {}\nprocs_running 1\nprocs_blocked 0\n\
             softirq 0 0 0 0 0 0 0 0 0 0 0\n",
            facts.epoch_s.saturating_sub(MONOTONIC_START_NS / SECOND_NS),
            facts.tasks
        ),
        b"uptime" => {
            let hundredths = facts.monotonic_ns / 10_000_000;
            let (seconds, rest) = (hundredths / 100, hundredths % 100);
            format!("{seconds}.{rest:02} {seconds}.{rest:02}\n")
        }
        b"loadavg" => format!("0.00 0.00 0.00 1/{0} {0}\n", facts.tasks),
        b"version" => format!("Linux version {RELEASE} (docklock@docklock) {VERSION}\n"),
        b"filesystems" => FILESYSTEMS.into(),
        b"cmdline" => "\n".into(),
        b"devices" => DEVICES.into(),
        b"misc" | b"modules" | b"diskstats" => String::new(),
        b"swaps" => "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into(),
        b"partitions" => "major minor  #blocks  name\n\n".into(),
        b"vmstat" => VMSTAT.iter().map(|name| format!("{name} 0\n")).collect(),
        _ => return None,
    })
}

/// The line of a file below /proc/sys, by its path there.
fn sysctl(name: &[u8], facts: &Facts<'_>) -> Option<String> {
    let line = match name {
        b"kernel/osrelease" => RELEASE,
        b"kernel/ostype" => "Linux",
        b"kernel/version" => VERSION,
        b"kernel/hostname" => facts.hostname,
        b"kernel/domainname" => facts.domainname,
        b"kernel/pid_max" | b"kernel/threads-max" => "32768",
        b"kernel/cap_last_cap" => "40",
        b"kernel/ngroups_max" => "65536",
        b"kernel/random/boot_id" => facts.boot_id,
        b"kernel/random/uuid" => facts.uuid,
        b"kernel/random/entropy_avail" | b"kernel/random/poolsize" => "256",
        b"kernel/randomize_va_space" => "0",
        b"kernel/sem" => "32000\t1024000000\t500\t32000",
        b"kernel/shmmax" | b"kernel/shmall" => "18446744073692774399",
        b"kernel/shmmni" => "4096",
        b"kernel/msgmax" => "8192",
        b"kernel/msgmnb" => "16384",
        b"kernel/msgmni" => "32000",
        b"kernel/core_pattern" => "core",
        b"kernel/overflowuid" | b"kernel/overflowgid" => "65534",
        b"kernel/perf_event_paranoid" => "4",
        b"kernel/yama/ptrace_scope" => "1",
        b"kernel/seccomp/actions_avail" => "kill_process kill_thread trap errno user_notif trace log allow",
        b"vm/overcommit_memory" | b"vm/nr_hugepages" => "0",
        b"vm/overcommit_ratio" => "50",
        b"vm/max_map_count" => "65530",
        b"vm/mmap_min_addr" => "65536",
        b"vm/swappiness" => "60",
        b"fs/file-max" => "9223372036854775807",
        b"fs/file-nr" => "0\t0\t9223372036854775807",
        b"fs/nr_open" | b"fs/pipe-max-size" => "1048576",
        b"net/core/somaxconn" => "4096",
        b"net/ipv4/ip_local_port_range" => "32768\t60999",
        b"net/ipv4/tcp_fastopen" => "1",
        _ => return None,
    };
    Some(line.into())
}

/// One processor of the x86-64-v2 baseline, as [`super::processor`] tells of it.
const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 26\nmodel name\t: DockLock x86-64-v2\nstepping\t: 3\n\
microcode\t: 0x1\ncpu MHz\t\t: 1000.000\ncache size\t: 8192 KB\nphysical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\napicid\t\t: 0\n\
initial apicid\t: 0\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 4\nwp\t\t: yes\nflags\t\t: fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca \
cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm nopl pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm\nbugs\t\t:\nbogomips\t: 2000.00\n\
clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: 40 bits physical, \
48 bits virtual\npower management:\n\n";

const FILESYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tdevtmpfs\nnodev\tpipefs\nnodev\tsockfs\n\
nodev\tdevpts\nnodev\tmqueue\nnodev\toverlay\n";

const DEVICES: &str =
    "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n 10 misc\n136 pts\n\nBlock devices:\n";

const VMSTAT: [&str; 10] = [
    "nr_free_pages",
    "nr_dirty",
    "nr_writeback",
    "pgpgin",
    "pgpgout",
    "pswpin",
    "pswpout",
    "pgfault",
    "pgmajfault",
    "oom_kill",
];

/// Half of the memory free, nothing cached, no swap, no huge pages.
fn meminfo() -> String {
    let (total, half) = (MEMORY_KIB, MEMORY_KIB / 2);
    let rows = [
        ("MemTotal", total),
        ("MemFree", half),
        ("MemAvailable", half),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", 0),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", 0),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("CommitLimit", half),
        ("Committed_AS", 0),
    ];
    let mut text = String::new();
    for (name, kib) in rows {
        text += &format!("{:<16}{kib:>8} kB\n", format!("{name}:"));
    }
    for name in ["HugePages_Total:", "HugePages_Free:", "HugePages_Rsvd:", "HugePages_Surp:"] {
        text += &format!("{name:<16}{:>8}\n", 0);
    }
    text += &format!("{:<16}{:>8} kB\n", "Hugepagesize:", 2048);
    text
}

/// The kernel's file `raw` of a task without what belongs to the host. `vino` gives the cage's inode number for a device, in the encoding
/// of stat(2), and an inode number there. Lines that do not have the kernel's form are dropped.
pub fn filter(kind: FilterKind, raw: &[u8], vino: &mut dyn FnMut(u64, u64) -> u64) -> Vec<u8> {
    match kind {
        FilterKind::Stat => stat(raw),
        FilterKind::Statm => format!("{TASK_PAGES} {RESIDENT_PAGES} 200 10 0 300 0\n").into_bytes(),
        FilterKind::Status => status(raw),
        FilterKind::Maps => lines(raw).filter_map(|line| mapping(line, vino)).flatten().collect(),
        FilterKind::Smaps => {
            lines(raw).filter_map(|line| smaps_row(line).or_else(|| mapping(line, vino))).flatten().collect()
        }
        FilterKind::SmapsRollup => smaps_rollup(raw, vino),
        FilterKind::NumaMaps => lines(raw).filter_map(numa_mapping).flatten().collect(),
        FilterKind::Io => {
            b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
                .to_vec()
        }
        FilterKind::Sched => sched(raw),
        FilterKind::Schedstat => b"0 0 0\n".to_vec(),
        FilterKind::Mountinfo => mountinfo(raw),
        FilterKind::Mounts => mounts(raw),
        FilterKind::Mountstats => mountstats(raw),
        FilterKind::Cgroup => b"0::/\n".to_vec(),
        FilterKind::Auxv { baseline } => {
            let mut vector = super::stack::vector(raw, baseline);
            vector.resize(vector.len() + super::stack::ENTRY_BYTES, 0);
            vector
        }
        FilterKind::Wchan => b"0".to_vec(),
        // Nobody has logged in: (uid_t) -1.
        FilterKind::Loginuid => b"4294967295".to_vec(),
        // The kernel's default: anonymous mappings, ELF headers, private huge pages (core(5)).
        FilterKind::CoredumpFilter => b"00000033\n".to_vec(),
        FilterKind::OomScoreAdj | FilterKind::OomAdj => b"0\n".to_vec(),
        FilterKind::UidMap | FilterKind::GidMap => lines(raw).filter_map(id_mapping).flatten().collect(),
    }
}

/// A row of uid_map (user_namespaces(7)): numbers inside, numbers outside, how many. Outside is the host's: each is shown as itself.
fn id_mapping(line: &[u8]) -> Option<Vec<u8>> {
    let mut fields = words(line);
    let (inside, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
    let text = |field| std::str::from_utf8(field).ok();
    Some(format!("{0:>10} {0:>10} {1:>10}\n", text(inside)?, text(count)?).into_bytes())
}

/// The kernel's file `raw` about a descriptor (proc_pid_fdinfo(5)): position and flags, `ino` as the cage numbers it, mount 1, and the counter of
/// an eventfd. What else a kind of file adds is the host's.
pub fn descriptor(raw: &[u8], ino: u64) -> Vec<u8> {
    let row = |line: &[u8]| match line.split(|&byte| byte == b':').next() {
        Some(b"pos" | b"flags" | b"eventfd-count") => Some([line, b"\n"].concat()),
        Some(b"mnt_id") => Some(b"mnt_id:\t1\n".to_vec()),
        Some(b"ino") => Some(format!("ino:\t{ino}\n").into_bytes()),
        _ => None,
    };
    lines(raw).filter_map(row).flatten().collect()
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t' | b'\n')).filter(|word| !word.is_empty())
}

/// `words`, each followed by a space, and the last by a newline instead.
fn row(words: &[&[u8]]) -> Vec<u8> {
    let mut line = words.join(&b' ');
    line.push(b'\n');
    line
}

fn is_number(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn hexadecimal(word: &[u8]) -> Option<u64> {
    // `from_str_radix` would take a sign.
    if !word.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

/// /proc/N/stat. Fields are numbered as in proc_pid_stat(5); the command may hold spaces and parentheses, so the last `)` ends it.
fn stat(raw: &[u8]) -> Vec<u8> {
    let Some(end) = raw.iter().rposition(|&byte| byte == b')') else { return Vec::new() };
    let (mut out, rest) = (raw[..=end].to_vec(), &raw[end + 1..]);
    let size = (TASK_PAGES * PAGE_BYTES).to_string();
    // The kernel's own beginning of the stack, field 28, depends on its version; the arguments' text, field 48, lies above it on each.
    let stack = words(rest).nth(48 - 3).filter(|word| is_number(word)).unwrap_or(b"0");
    for (field, word) in (3_u32..).zip(words(rest)) {
        let shown: &[u8] = match field {
            3 => b"R",
            8 => b"-1",
            23 => size.as_bytes(),
            28 => stack,
            // Parent, group, session; priority, nice, threads; limit, code and stack; signal masks; exit signal; data, arguments, exit code.
            4..=6 | 18..=20 | 25..=27 | 32..=34 | 38 | 45..=52 if is_number(word) => word,
            _ => b"0",
        };
        out.push(b' ');
        out.extend_from_slice(shown);
    }
    out.push(b'\n');
    out
}

/// /proc/N/status: rows in the kernel's order.
fn status(raw: &[u8]) -> Vec<u8> {
    let kib = |name: &str, pages: u64| format!("{name}:\t{:>8} kB\n", pages * PAGE_BYTES / 1024).into_bytes();
    let mut out = Vec::new();
    for line in lines(raw) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let shown = match &line[..colon] {
            b"State" => b"State:\tR (running)\n".to_vec(),
            b"TracerPid" => b"TracerPid:\t0\n".to_vec(),
            b"VmPeak" => b"VmPeak:\t   10240 kB\n".to_vec(),
            b"VmSize" => kib("VmSize", TASK_PAGES),
            b"VmHWM" => kib("VmHWM", RESIDENT_PAGES),
            b"VmRSS" => kib("VmRSS", RESIDENT_PAGES),
            b"VmData" => kib("VmData", 300),
            b"VmSwap" => kib("VmSwap", 0),
            // The limit counts the host user's signals.
            b"SigQ" => b"SigQ:\t0/32768\n".to_vec(),
            b"Cpus_allowed" => b"Cpus_allowed:\t1\n".to_vec(),
            b"Cpus_allowed_list" => b"Cpus_allowed_list:\t0\n".to_vec(),
            b"Name" | b"Umask" | b"Tgid" | b"Ngid" | b"Pid" | b"PPid" | b"Uid" | b"Gid" | b"FDSize" | b"Groups"
            | b"NStgid" | b"NSpid" | b"NSpgid" | b"NSsid" | b"Threads" | b"SigPnd" | b"ShdPnd" | b"SigBlk"
            | b"SigIgn" | b"SigCgt" | b"CapInh" | b"CapPrm" | b"CapEff" | b"CapBnd" | b"CapAmb" | b"NoNewPrivs"
            | b"Seccomp" => [line, b"\n"].concat(),
            _ => continue,
        };
        out.extend(shown);
    }
    out
}

/// One line of maps: the device is 00:01 for every file and 00:00 for none, the inode is the cage's.
fn mapping(line: &[u8], vino: &mut dyn FnMut(u64, u64) -> u64) -> Option<Vec<u8>> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let (range, access, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (device, inode, name) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let dash = range.iter().position(|&byte| byte == b'-')?;
    hexadecimal(&range[..dash])?;
    hexadecimal(&range[dash + 1..])?;
    hexadecimal(offset)?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let (major, minor) = (hexadecimal(&device[..colon])?, hexadecimal(&device[colon + 1..])?);
    let inode: u64 = std::str::from_utf8(inode).ok()?.parse().ok()?;
    let (device, inode) = if inode == 0 { ("00:00", 0) } else { ("00:01", vino(device_number(major, minor), inode)) };

    let mut out = [range, access, offset].join(&b' ');
    out.extend_from_slice(format!(" {device} {inode} ").as_bytes());
    let name = name.trim_ascii_start();
    if !name.is_empty() {
        out.resize(out.len().max(MAPS_NAME_COLUMN), b' ');
        out.extend_from_slice(name);
    }
    out.push(b'\n');
    Some(out)
}

/// The mappings of files in a text like /proc/N/maps: the name of each in /proc/N/map_files, and device and inode as the text has them. Those two are
/// an overlay's own, and need not be the ones that stat(2) tells.
pub fn mapped_files(raw: &[u8]) -> Vec<(String, u64, u64)> {
    lines(raw).filter_map(mapped_file).collect()
}

fn mapped_file(line: &[u8]) -> Option<(String, u64, u64)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (range, device, inode) = (fields.next()?, fields.nth(2)?, fields.next()?);
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let device = device_number(hexadecimal(&device[..colon])?, hexadecimal(&device[colon + 1..])?);
    let inode: u64 = std::str::from_utf8(inode).ok()?.parse().ok().filter(|inode| *inode != 0)?;
    Some((format!("{:x}-{:x}", hexadecimal(&range[..dash])?, hexadecimal(&range[dash + 1..])?), device, inode))
}

/// `st_dev` of stat(2) for a device, as makedev(3) packs it.
fn device_number(major: u64, minor: u64) -> u64 {
    (major & 0xffff_f000) << 32 | (major & 0xfff) << 8 | (minor & 0xffff_ff00) << 12 | minor & 0xff
}

/// A row of smaps that tells of the mapping and not of the host's memory.
fn smaps_row(line: &[u8]) -> Option<Vec<u8>> {
    let kept = [&b"Size:"[..], b"KernelPageSize:", b"MMUPageSize:"].iter().any(|name| line.starts_with(name));
    kept.then(|| [line, b"\n"].concat())
}

fn smaps_rollup(raw: &[u8], vino: &mut dyn FnMut(u64, u64) -> u64) -> Vec<u8> {
    let Some(mut out) = lines(raw).find_map(|line| mapping(line, vino)) else { return Vec::new() };
    let resident = RESIDENT_PAGES * PAGE_BYTES / 1024;
    for (name, kib) in [
        ("Rss:", resident),
        ("Pss:", resident),
        ("Private_Dirty:", resident),
        ("Swap:", 0),
        ("SwapPss:", 0),
        ("Locked:", 0),
    ] {
        out.extend_from_slice(format!("{name:<16}{kib:>8} kB\n").as_bytes());
    }
    out
}

/// One line of numa_maps: address, the default policy, and which file or area.
fn numa_mapping(line: &[u8]) -> Option<Vec<u8>> {
    let address = words(line).next()?;
    hexadecimal(address)?;
    let area = words(line).skip(2).filter(|word| word.starts_with(b"file=") || matches!(*word, b"heap" | b"stack"));
    Some(row(&[address, b"default"].into_iter().chain(area).collect::<Vec<_>>()))
}

/// /proc/N/sched: the heading with the command and the number, and counters at 0.
fn sched(raw: &[u8]) -> Vec<u8> {
    let Some(heading) = lines(raw).next() else { return Vec::new() };
    let mut out = [heading, b"\n-------------------------------------------------------------------\n"].concat();
    for (name, value) in [
        ("se.exec_start", "0.000000"),
        ("se.vruntime", "0.000000"),
        ("se.sum_exec_runtime", "0.000000"),
        ("nr_switches", "0"),
        ("nr_voluntary_switches", "0"),
        ("nr_involuntary_switches", "0"),
        ("policy", "0"),
        ("prio", "120"),
    ] {
        out.extend_from_slice(format!("{name:<45}:{value:>21}\n").as_bytes());
    }
    out
}

/// The source shown for a mount of a filesystem type.
fn source(filesystem: &[u8]) -> &'static [u8] {
    match filesystem {
        b"overlay" => b"overlay",
        b"proc" => b"proc",
        _ => b"none",
    }
}

/// `ro` or `rw` of a list of mount options.
fn access(options: &[u8]) -> &'static [u8] {
    if options.split(|&byte| byte == b',').any(|option| option == b"ro") { b"ro" } else { b"rw" }
}

/// /proc/N/mountinfo. The device is that of every file in a cage; a parent outside the list (the root's) is 0.
fn mountinfo(raw: &[u8]) -> Vec<u8> {
    struct Mount<'a> {
        id: &'a [u8],
        parent: &'a [u8],
        point: &'a [u8],
        options: &'a [u8],
        filesystem: &'a [u8],
        super_options: &'a [u8],
    }
    fn parse(line: &[u8]) -> Option<Mount<'_>> {
        let mut fields = line.split(|&byte| byte == b' ');
        let (id, parent) = (fields.next()?, fields.next()?);
        let (_device, _root, point, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        // Optional fields end at a lone `-`.
        fields.find(|&field| field == b"-")?;
        // The source may be empty; splitting at each space keeps its place.
        let (filesystem, _source, super_options) = (fields.next()?, fields.next()?, fields.next()?);
        (is_number(id) && is_number(parent)).then_some(Mount { id, parent, point, options, filesystem, super_options })
    }
    let mounts: Vec<Mount<'_>> = lines(raw).filter_map(parse).collect();
    let numbers: HashMap<&[u8], usize> = mounts.iter().map(|mount| mount.id).zip(1..).collect();
    let mut out = Vec::new();
    for (number, mount) in (1_usize..).zip(&mounts) {
        let parent = numbers.get(mount.parent).copied().filter(|&parent| parent != number).unwrap_or(0);
        let ids = format!("{number} {parent} 0:1 /");
        out.extend(row(&[
            ids.as_bytes(),
            mount.point,
            access(mount.options),
            b"-",
            mount.filesystem,
            source(mount.filesystem),
            access(mount.super_options),
        ]));
    }
    out
}

fn mounts(raw: &[u8]) -> Vec<u8> {
    let parse = |line| {
        let mut fields = <[u8]>::split(line, |&byte| byte == b' ').skip(1);
        let (point, filesystem, options) = (fields.next()?, fields.next()?, fields.next()?);
        Some(row(&[source(filesystem), point, filesystem, access(options), b"0", b"0"]))
    };
    lines(raw).filter_map(parse).flatten().collect()
}

/// /proc/N/mountstats: the line of each mount (`device SOURCE mounted on POINT with fstype TYPE`, or `no device …`), no statistics.
fn mountstats(raw: &[u8]) -> Vec<u8> {
    let parse = |line: &[u8]| {
        let fields: Vec<&[u8]> = words(line).collect();
        let at = fields.windows(2).position(|pair| pair == [&b"mounted"[..], b"on"])?;
        let (point, [b"with", b"fstype", filesystem, ..]) = fields.get(at + 2..)?.split_first()? else { return None };
        Some(row(&[b"device", source(filesystem), b"mounted", b"on", point, b"with", b"fstype", filesystem]))
    };
    lines(raw).filter_map(parse).flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FACTS: Facts<'static> = Facts {
        monotonic_ns: 12_340_000_000,
        epoch_s: 1_000_000_000,
        hostname: "cage",
        domainname: "(none)",
        boot_id: "boot",
        uuid: "fresh",
        tasks: 3,
        own: 5,
    };

    fn at(path: &str) -> Synth {
        answer(&Place::of_path(path.as_bytes()).unwrap(), &FACTS)
    }

    fn text(path: &str) -> String {
        match at(path) {
            Synth::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn filtered(kind: FilterKind, raw: &str) -> String {
        String::from_utf8(filter(kind, raw.as_bytes(), &mut |device, inode| device * 100_000 + inode)).unwrap()
    }

    #[test]
    fn a_file_that_is_not_named_is_absent() {
        for path in [
            "/proc/kallsyms",
            "/proc/net/tcp",
            "/proc/interrupts",
            "/proc/1/pagemap",
            "/proc/5/attr/current",
            "/proc/5/ns/none",
            "/proc/5/stat/x",
            "/proc/01/stat",
            "/proc/4294967296",
            "/proc/2/mem",
            "/proc/5/task/7/task",
            "/proc/sys",
        ] {
            assert_eq!(at(path), Synth::Absent, "{path}");
        }
    }

    #[test]
    fn facts_show_where_they_belong() {
        assert_eq!(text("/proc/uptime"), "12.34 12.34\n");
        assert_eq!(text("/proc/loadavg"), "0.00 0.00 0.00 1/3 3\n");
        assert_eq!(text("/proc/sys/kernel/hostname"), "cage\n");
        assert_eq!(text("/proc/sys/kernel/random/uuid"), "fresh\n");
        assert_eq!(text("/proc/sys/kernel/osrelease"), "6.1.0-docklock\n");
        assert_eq!(text("/proc/sys/kernel/random/boot_id"), "boot\n");
        assert!(text("/proc/stat").contains("\nbtime 999999000\n"));
        assert!(text("/proc/meminfo").starts_with("MemTotal:        8388608 kB\n"));
    }

    #[test]
    fn files_of_a_task_are_the_kernels_or_filtered() {
        assert_eq!(at("/proc/5/mounts"), Synth::Filter(FilterKind::Mounts));
        assert_eq!(at("/proc/5/task/7/stat"), Synth::Filter(FilterKind::Stat));
        assert_eq!(at("/proc/9/fdinfo/0"), Synth::Descriptor { number: 9, fd: 0 });
        assert_eq!(at("/proc/9/ns/net"), Synth::Link("net:[4026531833]"));
        for path in
            ["/proc", "/proc/self", "/proc/5/task", "/proc/5/task/7", "/proc/6/fd/0", "/proc/5/exe", "/proc/5/mem"]
        {
            assert_eq!(at(path), Synth::Pass, "{path}");
        }
    }

    #[test]
    fn every_listed_name_can_be_opened_or_read() {
        for (name, _) in place::ROOT.iter().filter(|(name, _)| !name.starts_with('.')) {
            assert_ne!(at(&format!("/proc/{name}")), Synth::Absent, "{name}");
        }
        for (name, _) in place::TASK.iter().filter(|(name, _)| !name.starts_with('.')) {
            assert_ne!(at(&format!("/proc/5/{name}")), Synth::Absent, "{name}");
        }
    }

    #[test]
    fn a_descriptor_shows_neither_mount_nor_inode_of_the_host() {
        let raw =
            b"pos:\t4\nflags:\t0100002\nmnt_id:\t1234\nino:\t987\neventfd-count: 2\neventfd-id: 77\nlock:\t1: POSIX\n";
        assert_eq!(descriptor(raw, 1001), b"pos:\t4\nflags:\t0100002\nmnt_id:\t1\nino:\t1001\neventfd-count: 2\n");
    }

    #[test]
    fn numbers_outside_of_a_user_namespace_are_not_shown() {
        let shown = filtered(FilterKind::UidMap, "         0     100000      65536\n");
        assert_eq!(shown, "         0          0      65536\n");
    }

    #[test]
    fn stat_keeps_who_a_task_is_and_forgets_what_it_used() {
        let raw: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let shown = filtered(FilterKind::Stat, &format!("9 (a ) b) S {}\n", raw.join(" ")));
        let expected = "9 (a ) b) R 4 5 6 0 -1 0 0 0 0 0 0 0 0 0 18 19 20 0 0 4096000 0 25 26 27 48 0 0 0 32 33 34 0 0 0 38 0 0 0 0 0 0 \
                        45 46 47 48 49 50 51 52\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn status_keeps_identity_and_fixes_memory_and_placement() {
        let raw = "Name:\tsh\nState:\tt (tracing stop)\nTracerPid:\t77\nVmRSS:\t    1234 kB\nRssAnon:\t 1 kB\nThreads:\t1\nSigQ:\t5/99\n\
                   Cpus_allowed:\tff\nCpus_allowed_list:\t0-7\nMems_allowed:\t1\nvoluntary_ctxt_switches:\t4\n";
        let expected = "Name:\tsh\nState:\tR (running)\nTracerPid:\t0\nVmRSS:\t    2000 kB\nThreads:\t1\nSigQ:\t0/32768\nCpus_allowed:\t1\n\
                        Cpus_allowed_list:\t0\n";
        assert_eq!(filtered(FilterKind::Status, raw), expected);
    }

    #[test]
    fn mappings_show_the_inodes_of_the_cage() {
        let header = "555555554000-555555556000 r--p 00001000 08:02 42                         /bin/a b";
        let shown = "555555554000-555555556000 r--p 00001000 00:01 205000042                  /bin/a b\n";
        let anonymous = "7ffff7fc1000-7ffff7fc3000 rw-p 00000000 00:00 0 \n";
        assert_eq!(filtered(FilterKind::Maps, &format!("{header}\n{anonymous}junk\n")), format!("{shown}{anonymous}"));
        let smaps = format!("{header}\nSize:                  8 kB\nRss:                   4 kB\nVmFlags: rd mr\n");
        assert_eq!(filtered(FilterKind::Smaps, &smaps), format!("{shown}Size:                  8 kB\n"));
        assert_eq!(device_number(0x103, 0x1ff), 0x0011_03ff);
    }

    #[test]
    fn a_mapped_file_is_named_as_map_files_names_it() {
        let raw = b"00400000-00401000 r--p 00001000 08:02 42                         /bin/a b\n\
                    7ffff7fc1000-7ffff7fc3000 rw-p 00000000 00:00 0 \njunk\nSize:    8 kB\n";
        assert_eq!(mapped_files(raw), [("400000-401000".to_owned(), 0x802, 42)]);
    }

    #[test]
    fn mounts_show_no_path_of_the_host() {
        let raw = "612 500 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/var/lib/x\n\
                   613 612 0:51 / /proc ro,nosuid - proc proc rw\n614 612 8:1 /home/me /data rw - ext4 /dev/sda1 rw\n";
        let expected = "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:1 / /proc ro - proc proc rw\n3 1 0:1 / /data rw - ext4 none rw\n";
        assert_eq!(filtered(FilterKind::Mountinfo, raw), expected);
        assert_eq!(filtered(FilterKind::Mounts, "/dev/sda1 /data ext4 ro,noatime 0 0\n"), "none /data ext4 ro 0 0\n");
        let stats = filtered(FilterKind::Mountstats, "device /dev/sda1 mounted on /data with fstype ext4\n\tage: 3\n");
        assert_eq!(stats, "device none mounted on /data with fstype ext4\n");
    }

    proptest! {
        #[test]
        fn no_input_panics(raw in proptest::collection::vec(any::<u8>(), 0..200), line in "[ -:()/a-f0-9\n]{0,120}") {
            for kind in FilterKind::ALL {
                filter(kind, &raw, &mut |_, inode| inode);
                filter(kind, line.as_bytes(), &mut |_, inode| inode);
            }
            descriptor(&raw, 1);
            mapped_files(&raw);
            mapped_files(line.as_bytes());
            for path in [[b"/proc/", raw.as_slice()].concat(), format!("/proc/{line}").into_bytes()] {
                if let Some(place) = Place::of_path(&path) {
                    answer(&place, &FACTS);
                }
            }
        }
    }
}
