//! Facts about tasks and files as the kernel's own bytes. Two are asked by ioctl where /proc would tell them as text: ten times cheaper, on newer kernels.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::Pid;

use super::check;

/// `_IOR(0xb7, 8, int)`, linux/nsfs.h, Linux 6.11.
const NS_GET_PID_IN_PIDNS: libc::c_ulong = 0x8004_b708;

/// The number of `tid` inside the process namespace that `namespace` stands for (/proc/pid/ns/pid, ioctl_nsfs(2)).
///
/// # Errors
/// `ESRCH` when it is gone or not in there, `ENOTTY` on kernels before 6.11.
pub fn number_in_namespace(namespace: BorrowedFd<'_>, tid: Pid) -> io::Result<u32> {
    // SAFETY: this request takes an integer by value.
    let number = unsafe { check(libc::ioctl(namespace.as_raw_fd(), NS_GET_PID_IN_PIDNS, tid.as_raw()).into()) }?;
    u32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))
}

/// `struct procmap_query`, linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`, Linux 6.11.
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
const PROCMAP_QUERY_VMA_SHARED: u64 = 0x08;

/// The file behind a place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPlace {
    /// Device, as major and minor.
    pub device: (u32, u32),
    /// Inode.
    pub inode: u64,
    /// Bytes from the file's beginning.
    pub offset: u64,
}

/// What lies at `address` of the address space that `maps` stands for (an open /proc/pid/maps), if that is shared; else `None`.
///
/// # Errors
/// `ENOTTY` on kernels before 6.11, `ESRCH` when the address space is gone.
pub fn shared_place(maps: BorrowedFd<'_>, address: u64) -> io::Result<Option<SharedPlace>> {
    let mut query =
        ProcmapQuery { size: size_of::<ProcmapQuery>() as u64, query_addr: address, ..ProcmapQuery::default() };
    // SAFETY: `query` is a live structure of the size it states, which this request reads and writes; it names no buffers.
    match unsafe { check(libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query).into()) } {
        Ok(_) if query.vma_flags & PROCMAP_QUERY_VMA_SHARED != 0 => Ok(Some(SharedPlace {
            device: (query.dev_major, query.dev_minor),
            inode: query.inode,
            offset: query.vma_offset + (address - query.vma_start),
        })),
        Ok(_) => Ok(None),
        // Nothing is mapped there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `struct stat` of an open file (fstat(2)), as its bytes.
///
/// # Errors
/// As fstat(2).
pub fn stat(file: BorrowedFd<'_>) -> io::Result<[u8; size_of::<libc::stat>()]> {
    let mut raw = [0; size_of::<libc::stat>()];
    // SAFETY: `raw` is live, writable and as long as the structure that the kernel writes.
    unsafe { check(libc::syscall(libc::SYS_fstat, file.as_raw_fd(), raw.as_mut_ptr())) }?;
    Ok(raw)
}

/// `struct statx` of an open file (statx(2)), as its bytes; `flags` hold AT_EMPTY_PATH.
///
/// # Errors
/// As statx(2).
pub fn statx(file: BorrowedFd<'_>, flags: u32, mask: u32) -> io::Result<[u8; size_of::<libc::statx>()]> {
    let mut raw = [0; size_of::<libc::statx>()];
    // SAFETY: the name is a constant; `raw` is live, writable and as long as the structure that the kernel writes.
    unsafe { check(libc::syscall(libc::SYS_statx, file.as_raw_fd(), c"".as_ptr(), flags, mask, raw.as_mut_ptr())) }?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_number_in_ones_own_namespace_is_ones_own() {
        let own = File::open("/proc/self/ns/pid").unwrap();
        match number_in_namespace(own.as_fd(), nix::unistd::getpid()) {
            Ok(number) => assert_eq!(number, std::process::id()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOTTY)),
        }
    }

    #[test]
    fn a_stack_is_not_shared() {
        let here = 0_u8;
        let maps = File::open("/proc/self/maps").unwrap();
        match shared_place(maps.as_fd(), &raw const here as u64) {
            Ok(place) => assert_eq!(place, None),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOTTY)),
        }
    }
}
