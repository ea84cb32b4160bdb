//! A counter of the processor's for the calling thread's own code (perf_event_open(2)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// `PERF_TYPE_RAW`: the configuration is the processor's own number of an event.
const PERF_TYPE_RAW: u32 = 4;
/// `PERF_ATTR_SIZE_VER0`: the first published form of the structure, which every kernel reads.
const ATTRIBUTES_BYTES: u32 = 64;
/// Bits of `perf_event_attr`: disabled, pinned, exclude_kernel, exclude_hv.
const FLAGS: u64 = 1 | 1 << 2 | 1 << 5 | 1 << 6;
/// Close-on-exec.
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
/// `_IO('$', 0)`, `_IO('$', 1)`, `_IO('$', 3)` of linux/perf_event.h.
const ENABLE: libc::c_ulong = 0x2400;
const DISABLE: libc::c_ulong = 0x2401;
const RESET: libc::c_ulong = 0x2403;

/// `struct perf_event_attr` in its first form.
#[repr(C)]
struct Attributes {
    kind: u32,
    bytes: u32,
    config: u64,
    /// Sampling, which is not wanted: period, kinds of samples, form of what is read.
    sampling: [u64; 3],
    flags: u64,
    /// Wake-ups, breakpoints and what later forms put there.
    rest: [u64; 2],
}

/// A counter at rest. Only code of the calling thread outside the kernel counts.
#[derive(Debug)]
pub struct Counter(OwnedFd);

impl Counter {
    /// A counter of the event with this number.
    ///
    /// # Errors
    /// `ENOENT` and `EOPNOTSUPP` where the processor or its hypervisor has no such event, `EACCES` and `EPERM` where the kernel keeps it to itself,
    /// `ENOSYS` without perf.
    pub fn open(event: u64) -> io::Result<Self> {
        let attributes = Attributes {
            kind: PERF_TYPE_RAW,
            bytes: ATTRIBUTES_BYTES,
            config: event,
            sampling: [0; 3],
            flags: FLAGS,
            rest: [0; 2],
        };
        // SAFETY: `attributes` is live and says its own size; pid 0 and cpu -1 are this thread on any processor, -1 no group.
        let fd = unsafe {
            check(libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC))
        }?;
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// What `work` adds to the counter.
    ///
    /// # Errors
    /// `ENODATA` where the processor's counters are taken by others.
    pub fn of(&self, work: impl FnOnce()) -> io::Result<u64> {
        self.tell(RESET)?;
        self.tell(ENABLE)?;
        work();
        self.tell(DISABLE)?;
        let mut bytes = [0; 8];
        // A pinned counter that found no room reads as the end of a file.
        if nix::unistd::read(&self.0, &mut bytes)? != bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODATA));
        }
        Ok(u64::from_ne_bytes(bytes))
    }

    fn tell(&self, request: libc::c_ulong) -> io::Result<()> {
        // SAFETY: these requests take no memory.
        unsafe { check(libc::ioctl(self.0.as_raw_fd(), request, 0).into()) }.map(drop)
    }
}
