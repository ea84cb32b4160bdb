//! Inode numbers, dates, devices and sizes as the guest sees them: stat(2), statx(2) and statfs(2) without the host's file system.
//!
//! Inode numbers are handed out from 1000 in order of first sight, so the order of the guest's own calls decides them. A date is the image's as long
//! as nothing in this run touched the file; a file that the run made or wrote shows the logical time of its last write, which the engine tells
//! ([`Metadata::created`], [`Metadata::written`], [`Metadata::changed`], [`Metadata::set_times`]); anything else the run changed shows the epoch.
//! "Touched" is told by the host's ctime, which no guest can set: so an image from the future keeps its dates too.
//! ctime is the logical time of the last change, and mtime as long as nothing was changed; atime equals mtime unless set by hand; btime is the
//! logical time of making, and the epoch for what the run did not make. All files are on device 1 and mount 1; a folder has 4096 bytes and one
//! link, as on btrfs. A file keeps its record when the host gives it another identity ([`Metadata::same`]): an overlay does so when it copies a file
//! up. Files of /proc have no record: their numbers follow from their names ([`super::place`]), their dates are the epoch.
//!
//! Approximate: link counts of files, and sizes of symbolic links, are the kernel's. Bound: [`RECORDS_MAX`] files; later ones are not remembered,
//! and [`Metadata::unremembered`] counts the answers that were given so.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

/// Bytes of `struct stat`, `struct statx` and `struct statfs` on x86-64.
pub const STAT_BYTES: usize = 144;
/// As [`STAT_BYTES`], for statx(2).
pub const STATX_BYTES: usize = 256;
/// As [`STAT_BYTES`], for statfs(2).
pub const STATFS_BYTES: usize = 120;
/// Files remembered at most: 2^20 of about 120 bytes are below 128 MB.
pub const RECORDS_MAX: usize = 1 << 20;
/// The first inode number handed out.
pub const INO_START: u64 = 1000;
/// Seconds, whole, in nanoseconds; dates are signed, for files from before 1970.
const SECOND_NS: i128 = 1_000_000_000;
/// The kernel stamps files with the time of its last tick: up to 10 ms (HZ=100) before now.
const TICK_NS: i128 = 10_000_000;

/// Every file is on this device: major 0, minor 1.
const DEVICE: u64 = 1;
const MOUNT_ID: u64 = 1;
const BLOCK_BYTES: u64 = 4096;
/// Major number of pseudo-terminals' slaves; all are shown as the first one, /dev/pts/0.
const PTS_MAJOR: u64 = 136;

/// `S_IFMT` and its values (inode(7)).
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
/// Mode of a file of /proc that the engine makes: regular, and everybody reads it.
const PLAIN_MODE: u32 = REGULAR | 0o444;

/// STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID: what every file system shall seem to know.
const STATX_MASK: u32 = 0x1fff;
/// STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND, STATX_ATTR_MOUNT_ROOT: others tell how the host stores the file.
const STATX_ATTRIBUTES: u64 = 0x10 | 0x20 | 0x2000;
/// ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_VALID.
const STATFS_FLAGS: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x20;
/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h: what a file system of the host is shown as.
const OVERLAY: u64 = 0x794c_7630;
/// File systems of the kernel's own, whose type stays: proc, sysfs, tmpfs, devpts, mqueue, pipefs, sockfs, anon_inode, cgroup2, ramfs.
const KERNELS: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0102_1994,
    0x1cd1,
    0x1980_0202,
    0x5049_5045,
    0x534f_434b,
    0x0904_1934,
    0x6367_7270,
    0x8584_58f6,
];
/// A file system of 4 GiB, half free, with a million inodes, half free.
const FS_BLOCKS: u64 = 1 << 20;
const NAME_BYTES_MAX: u64 = 255;

/// A file of the host: what the kernel calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device, as in `st_dev`.
    pub dev: u64,
    /// Inode number on it.
    pub ino: u64,
}

impl FileId {
    /// The file that a raw `struct stat` describes.
    pub fn of_stat(stat: &[u8; STAT_BYTES]) -> Self {
        Self { dev: u64_at(stat, stat::DEV), ino: u64_at(stat, stat::INO) }
    }

    /// The file that a raw `struct statx` describes.
    pub fn of_statx(statx: &[u8; STATX_BYTES]) -> Self {
        let dev = device(u32_at(statx, statx::DEV_MAJOR), u32_at(statx, statx::DEV_MINOR));
        Self { dev, ino: u64_at(statx, statx::INO) }
    }
}

/// Major and minor as one number, as makedev(3) does and `st_dev` holds.
pub fn device(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    (major & 0xffff_f000) << 32 | (major & 0xfff) << 8 | (minor & 0xffff_ff00) << 12 | minor & 0xff
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    vino: u64,
    mtime: Option<i128>,
    atime: Option<i128>,
    ctime: Option<i128>,
    /// When the run made it.
    made: Option<i128>,
}

/// What is known of a file before its answer is rewritten.
struct Seen {
    id: FileId,
    mode: u32,
    mtime: i128,
    ctime: i128,
}

/// What the guest is told instead.
struct Shown {
    vino: u64,
    mtime: i128,
    atime: i128,
    ctime: i128,
    btime: i128,
}

/// The files of one run.
#[derive(Debug)]
pub struct Metadata {
    started_ns: i128,
    epoch_ns: u64,
    kernel_devices: BTreeSet<u64>,
    records: BTreeMap<FileId, Record>,
    /// Other identities that the host gave to a file, and the one that has its record.
    others: BTreeMap<FileId, FileId>,
    next_ino: u64,
    unremembered: u64,
}

impl Metadata {
    /// No file is known. `started_ns` is the host's time since 1970 before anything of the cage was set up (mount points, device nodes and files of
    /// the runtime then count as touched); `epoch_ns` is what the guest's clock shows at the start.
    pub fn new(started_ns: u64, epoch_ns: u64) -> Self {
        Self {
            started_ns: i128::from(started_ns) - TICK_NS,
            epoch_ns,
            kernel_devices: BTreeSet::new(),
            records: BTreeMap::new(),
            others: BTreeMap::new(),
            next_ino: INO_START,
            unremembered: 0,
        }
    }

    /// Says that the dates on device `dev` are the host kernel's: they are shown as the epoch. The caller names at most one device for each mount
    /// of the cage, so there are few.
    pub fn kernel_device(&mut self, dev: u64) {
        self.kernel_devices.insert(dev);
    }

    /// The run made this file at the logical time `now`. It gets a new number even if the host uses an old one again.
    pub fn created(&mut self, id: FileId, now: u64) {
        let date = Some(self.logical(now));
        let vino = self.hand_out();
        self.others.remove(&id);
        self.remember(id, Record { vino, mtime: date, ctime: date, made: date, ..Record::default() });
    }

    /// The run wrote to this file, or changed the names in this folder, at the logical time `now`.
    pub fn written(&mut self, id: FileId, now: u64) {
        let date = Some(self.logical(now));
        let record = self.record(id);
        self.remember(id, Record { mtime: date, ctime: date, ..record });
    }

    /// The run changed owner, mode, attributes or names of this file at the logical time `now`, and not its bytes.
    pub fn changed(&mut self, id: FileId, now: u64) {
        let ctime = Some(self.logical(now));
        let record = self.record(id);
        self.remember(id, Record { ctime, ..record });
    }

    /// The guest set dates, in nanoseconds since 1970, at the logical time `now`; `None` leaves one as it is. See [`utimensat_times`].
    pub fn set_times(&mut self, id: FileId, atime: Option<i128>, mtime: Option<i128>, now: u64) {
        let ctime = Some(self.logical(now));
        let record = self.record(id);
        self.remember(id, Record { atime: atime.or(record.atime), mtime: mtime.or(record.mtime), ctime, ..record });
    }

    /// The host calls the file `known` by the name `other` too: it stays one file to the guest. An overlay whose layers lie on different file
    /// systems does so when it copies a file up, and one name of a file with two may keep the former identity.
    pub fn same(&mut self, known: FileId, other: FileId) {
        let first = self.first(known);
        if first != self.first(other) && self.others.len() < RECORDS_MAX {
            self.others.insert(other, first);
        }
    }

    /// The identity that has the record.
    fn first(&self, id: FileId) -> FileId {
        self.others.get(&id).copied().unwrap_or(id)
    }

    /// The number that the guest knows the file by. Inode 0, which is none, stays 0.
    pub fn vino(&mut self, id: FileId) -> u64 {
        if id.ino == 0 { 0 } else { self.record(id).vino }
    }

    /// Answers that were given for files beyond [`RECORDS_MAX`]: their numbers differ from call to call, and their writes are forgotten.
    pub fn unremembered(&self) -> u64 {
        self.unremembered
    }

    /// Rewrites a `struct stat` (stat(2), x86-64) that the kernel filled.
    pub fn rewrite_stat(&mut self, raw: &mut [u8; STAT_BYTES]) {
        let shown = self.show(&Seen {
            id: FileId::of_stat(raw),
            mode: u32_at(raw, stat::MODE),
            mtime: date_at(raw, stat::MTIME),
            ctime: date_at(raw, stat::CTIME),
        });
        fill_stat(raw, &shown);
    }

    /// The same for the file of /proc that has the number `vino`.
    pub fn rewrite_stat_of_proc(&self, raw: &mut [u8; STAT_BYTES], vino: u64) {
        fill_stat(raw, &self.in_proc(vino));
    }

    /// Rewrites a `struct statx` (statx(2)) that the kernel filled. All basic fields, the birth and the mount are always there.
    pub fn rewrite_statx(&mut self, raw: &mut [u8; STATX_BYTES]) {
        let shown = self.show(&Seen {
            id: FileId::of_statx(raw),
            mode: mode_of_statx(raw),
            mtime: short_date_at(raw, statx::MTIME),
            ctime: short_date_at(raw, statx::CTIME),
        });
        fill_statx(raw, &shown);
    }

    /// As [`Self::rewrite_stat_of_proc`].
    pub fn rewrite_statx_of_proc(&self, raw: &mut [u8; STATX_BYTES], vino: u64) {
        fill_statx(raw, &self.in_proc(vino));
    }

    fn in_proc(&self, vino: u64) -> Shown {
        let epoch = self.logical(0);
        Shown { vino, mtime: epoch, atime: epoch, ctime: epoch, btime: epoch }
    }

    /// Rewrites a `struct statfs` (statfs(2), x86-64) that the kernel filled: a file system of the host becomes an overlay of 4 GiB, half full;
    /// one of the kernel's own keeps its type, and its emptiness if it counts no blocks.
    pub fn rewrite_statfs(&self, raw: &mut [u8; STATFS_BYTES]) {
        let kind = u64_at(raw, statfs::TYPE);
        let flags = u64_at(raw, statfs::FLAGS) & STATFS_FLAGS;
        let counted = u64_at(raw, statfs::BLOCKS) != 0;
        let kernels = KERNELS.contains(&kind);
        let (total, free) = if kernels && !counted { (0, 0) } else { (FS_BLOCKS, FS_BLOCKS / 2) };
        raw.fill(0);
        put(raw, statfs::TYPE, if kernels { kind } else { OVERLAY });
        for (at, value) in [
            (statfs::BSIZE, BLOCK_BYTES),
            (statfs::BLOCKS, total),
            (statfs::BFREE, free),
            (statfs::BAVAIL, free),
            (statfs::FILES, total),
            (statfs::FFREE, free),
            (statfs::NAMELEN, NAME_BYTES_MAX),
            (statfs::FRSIZE, BLOCK_BYTES),
            (statfs::FLAGS, flags),
        ] {
            put(raw, at, value);
        }
    }

    fn logical(&self, now: u64) -> i128 {
        i128::from(self.epoch_ns) + i128::from(now)
    }

    fn hand_out(&mut self) -> u64 {
        let ino = self.next_ino;
        self.next_ino = self.next_ino.wrapping_add(1).max(INO_START);
        ino
    }

    fn record(&mut self, id: FileId) -> Record {
        if let Some(record) = self.records.get(&self.first(id)) {
            return *record;
        }
        let record = Record { vino: self.hand_out(), ..Record::default() };
        self.remember(id, record);
        record
    }

    fn remember(&mut self, id: FileId, record: Record) {
        let id = self.first(id);
        if self.records.len() < RECORDS_MAX || self.records.contains_key(&id) {
            self.records.insert(id, record);
        } else {
            self.unremembered += 1;
        }
    }

    fn show(&mut self, seen: &Seen) -> Shown {
        let record = self.record(seen.id);
        // Pipes, sockets and devices are not in the image; their dates are the host's.
        let dated =
            matches!(seen.mode & KIND, REGULAR | DIRECTORY | SYMLINK) && !self.kernel_devices.contains(&seen.id.dev);
        let untouched = seen.mtime < self.started_ns || seen.ctime < self.started_ns;
        let epoch = self.logical(0);
        let natural = if dated && untouched { seen.mtime } else { epoch };
        let mtime = record.mtime.unwrap_or(natural);
        Shown {
            vino: if seen.id.ino == 0 { 0 } else { record.vino },
            mtime,
            atime: record.atime.unwrap_or(mtime),
            ctime: record.ctime.unwrap_or(mtime),
            btime: record.made.unwrap_or(epoch),
        }
    }
}

/// A `struct stat` of a file of /proc that is answered without the kernel: root's, read-only, empty as all files there (proc(5)).
pub fn plain_stat() -> [u8; STAT_BYTES] {
    let mut raw = [0; STAT_BYTES];
    put_u32(&mut raw, stat::MODE, PLAIN_MODE);
    put(&mut raw, stat::NLINK, 1);
    raw
}

/// The same as a `struct statx`.
pub fn plain_statx() -> [u8; STATX_BYTES] {
    let mut raw = [0; STATX_BYTES];
    raw[statx::MODE..statx::MODE + 2].copy_from_slice(&(PLAIN_MODE as u16).to_le_bytes());
    put_u32(&mut raw, statx::NLINK, 1);
    raw
}

/// A `struct statfs` of /proc, to be rewritten: its type, and ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_VALID.
pub fn plain_statfs() -> [u8; STATFS_BYTES] {
    let mut raw = [0; STATFS_BYTES];
    put(&mut raw, statfs::TYPE, KERNELS[0]);
    put(&mut raw, statfs::FLAGS, 0x2 | 0x4 | 0x8 | 0x20);
    raw
}

fn fill_stat(raw: &mut [u8; STAT_BYTES], shown: &Shown) {
    let mode = u32_at(raw, stat::MODE);
    if mode & KIND == DIRECTORY {
        put(raw, stat::SIZE, BLOCK_BYTES);
        put(raw, stat::NLINK, 1);
    }
    let size = u64_at(raw, stat::SIZE);
    let rdev = u64_at(raw, stat::RDEV);
    put(raw, stat::DEV, DEVICE);
    put(raw, stat::INO, shown.vino);
    put(raw, stat::BLKSIZE, BLOCK_BYTES);
    put(raw, stat::BLOCKS, blocks(mode, size));
    if rdev >> 8 & 0xfff == PTS_MAJOR {
        put(raw, stat::RDEV, device(PTS_MAJOR as u32, 0));
    }
    for (at, date) in [(stat::ATIME, shown.atime), (stat::MTIME, shown.mtime), (stat::CTIME, shown.ctime)] {
        let (seconds, nanoseconds) = split(date);
        raw[at..at + 8].copy_from_slice(&seconds.to_le_bytes());
        put(raw, at + 8, u64::from(nanoseconds));
    }
    raw[stat::PAD..stat::PAD + 4].fill(0);
    raw[stat::UNUSED..].fill(0);
}

fn mode_of_statx(raw: &[u8; STATX_BYTES]) -> u32 {
    u32::from(u16::from_le_bytes([raw[statx::MODE], raw[statx::MODE + 1]]))
}

fn fill_statx(raw: &mut [u8; STATX_BYTES], shown: &Shown) {
    let mode = mode_of_statx(raw);
    if mode & KIND == DIRECTORY {
        put(raw, statx::SIZE, BLOCK_BYTES);
        put_u32(raw, statx::NLINK, 1);
    }
    let size = u64_at(raw, statx::SIZE);
    let attributes = u64_at(raw, statx::ATTRIBUTES) & STATX_ATTRIBUTES;
    put_u32(raw, statx::MASK, STATX_MASK);
    put_u32(raw, statx::BLKSIZE, BLOCK_BYTES as u32);
    put(raw, statx::ATTRIBUTES, attributes);
    put(raw, statx::INO, shown.vino);
    put(raw, statx::BLOCKS, blocks(mode, size));
    put(raw, statx::ATTRIBUTES_MASK, STATX_ATTRIBUTES);
    if u64::from(u32_at(raw, statx::RDEV_MAJOR)) == PTS_MAJOR {
        put_u32(raw, statx::RDEV_MINOR, 0);
    }
    put_u32(raw, statx::DEV_MAJOR, 0);
    put_u32(raw, statx::DEV_MINOR, DEVICE as u32);
    put(raw, statx::MNT_ID, MOUNT_ID);
    raw[statx::PAD..statx::PAD + 2].fill(0);
    raw[statx::MNT_ID + 8..].fill(0);
    for (at, date) in [
        (statx::ATIME, shown.atime),
        (statx::BTIME, shown.btime),
        (statx::CTIME, shown.ctime),
        (statx::MTIME, shown.mtime),
    ] {
        let (seconds, nanoseconds) = split(date);
        raw[at..at + 8].copy_from_slice(&seconds.to_le_bytes());
        put(raw, at + 8, u64::from(nanoseconds));
    }
}

/// The (atime, mtime) that utimensat(2) sets, in nanoseconds since 1970. `times` is the guest's `struct timespec[2]`, or `None` for a null pointer:
/// both become `now_ns`, what the guest's CLOCK_REALTIME shows. `None` in the answer leaves a date as it is.
///
/// # Errors
/// `EINVAL` for nanoseconds outside 0 to 999 999 999 that are neither UTIME_NOW nor UTIME_OMIT.
pub fn utimensat_times(times: Option<&[u8; 32]>, now_ns: u64) -> Result<(Option<i128>, Option<i128>), Errno> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    let one = |seconds: i64, nanoseconds: i64| match nanoseconds {
        UTIME_NOW => Ok(Some(i128::from(now_ns))),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(i128::from(seconds) * SECOND_NS + i128::from(nanoseconds))),
        _ => Err(Errno::EINVAL),
    };
    let Some(raw) = times else { return Ok((Some(i128::from(now_ns)), Some(i128::from(now_ns)))) };
    Ok((one(i64_at(raw, 0), i64_at(raw, 8))?, one(i64_at(raw, 16), i64_at(raw, 24))?))
}

/// As [`utimensat_times`], for the `struct timeval[2]` of utimes(2) and futimesat(2).
///
/// # Errors
/// `EINVAL` for microseconds outside 0 to 999 999.
pub fn utimes_times(times: Option<&[u8; 32]>, now_ns: u64) -> Result<(i128, i128), Errno> {
    let one = |seconds: i64, microseconds: i64| match microseconds {
        0..1_000_000 => Ok(i128::from(seconds) * SECOND_NS + i128::from(microseconds) * 1000),
        _ => Err(Errno::EINVAL),
    };
    let Some(raw) = times else { return Ok((i128::from(now_ns), i128::from(now_ns))) };
    Ok((one(i64_at(raw, 0), i64_at(raw, 8))?, one(i64_at(raw, 16), i64_at(raw, 24))?))
}

/// As [`utimensat_times`], for the `struct utimbuf` of utime(2): two times in seconds.
pub fn utime_times(times: Option<&[u8; 16]>, now_ns: u64) -> (i128, i128) {
    let now = i128::from(now_ns) / SECOND_NS;
    let (atime, mtime) = times.map_or((now, now), |raw| (i128::from(i64_at(raw, 0)), i128::from(i64_at(raw, 8))));
    (atime * SECOND_NS, mtime * SECOND_NS)
}

/// Blocks of 512 bytes, as a file system of 4096-byte blocks without holes counts them.
fn blocks(mode: u32, size: u64) -> u64 {
    match mode & KIND {
        REGULAR | DIRECTORY => size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES / 512),
        _ => 0,
    }
}

/// Seconds and nanoseconds of a date; one that no `time_t` holds is cut.
fn split(date: i128) -> (i64, u32) {
    let seconds = date.div_euclid(SECOND_NS).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    (seconds as i64, date.rem_euclid(SECOND_NS) as u32)
}

/// Offsets in `struct stat`, arch/x86/include/uapi/asm/stat.h.
mod stat {
    pub(super) const DEV: usize = 0;
    pub(super) const INO: usize = 8;
    pub(super) const NLINK: usize = 16;
    pub(super) const MODE: usize = 24;
    pub(super) const PAD: usize = 36;
    pub(super) const RDEV: usize = 40;
    pub(super) const SIZE: usize = 48;
    pub(super) const BLKSIZE: usize = 56;
    pub(super) const BLOCKS: usize = 64;
    pub(super) const ATIME: usize = 72;
    pub(super) const MTIME: usize = 88;
    pub(super) const CTIME: usize = 104;
    pub(super) const UNUSED: usize = 120;
}

/// Offsets in `struct statx`, include/uapi/linux/stat.h.
mod statx {
    pub(super) const MASK: usize = 0;
    pub(super) const BLKSIZE: usize = 4;
    pub(super) const ATTRIBUTES: usize = 8;
    pub(super) const NLINK: usize = 16;
    pub(super) const MODE: usize = 28;
    pub(super) const PAD: usize = 30;
    pub(super) const INO: usize = 32;
    pub(super) const SIZE: usize = 40;
    pub(super) const BLOCKS: usize = 48;
    pub(super) const ATTRIBUTES_MASK: usize = 56;
    pub(super) const ATIME: usize = 64;
    pub(super) const BTIME: usize = 80;
    pub(super) const CTIME: usize = 96;
    pub(super) const MTIME: usize = 112;
    pub(super) const RDEV_MAJOR: usize = 128;
    pub(super) const RDEV_MINOR: usize = 132;
    pub(super) const DEV_MAJOR: usize = 136;
    pub(super) const DEV_MINOR: usize = 140;
    pub(super) const MNT_ID: usize = 144;
}

/// Offsets in `struct statfs`, include/uapi/asm-generic/statfs.h.
mod statfs {
    pub(super) const TYPE: usize = 0;
    pub(super) const BSIZE: usize = 8;
    pub(super) const BLOCKS: usize = 16;
    pub(super) const BFREE: usize = 24;
    pub(super) const BAVAIL: usize = 32;
    pub(super) const FILES: usize = 40;
    pub(super) const FFREE: usize = 48;
    pub(super) const NAMELEN: usize = 64;
    pub(super) const FRSIZE: usize = 72;
    pub(super) const FLAGS: usize = 80;
}

// The offsets are constants within arrays of fixed size; a wrong one fails the first test that runs.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    u64_at(bytes, at).cast_signed()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn date_at(bytes: &[u8], at: usize) -> i128 {
    i128::from(i64_at(bytes, at)) * SECOND_NS + i128::from(u64_at(bytes, at + 8))
}

/// A `struct statx_timestamp`: the nanoseconds have 32 bits, and padding follows.
fn short_date_at(bytes: &[u8], at: usize) -> i128 {
    i128::from(i64_at(bytes, at)) * SECOND_NS + i128::from(u32_at(bytes, at + 8))
}

#[cfg(test)]
mod tests;
