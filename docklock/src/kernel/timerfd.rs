//! timerfd_create(2) as a carrier: a descriptor that the engine makes readable, and that the kernel never does by itself.
//!
//! Such a timer is never armed. What would be its interval is a label that only the engine can write (the cage's own timerfd_settime(2) is
//! answered by the engine), so the timer behind any duplicate can be told.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

const SECOND_NS: u64 = 1_000_000_000;
/// TFD_IOC_SET_TICKS, linux/timerfd.h: Linux 3.17 with CONFIG_CHECKPOINT_RESTORE.
const SET_TICKS: libc::c_ulong = 0x4008_5400;

/// Makes a timer that stands still, close-on-exec here, and labels it.
///
/// # Errors
/// `EMFILE` or `ENFILE` when there may be no more descriptors.
pub fn make(nonblocking: bool, label: u64) -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | if nonblocking { libc::TFD_NONBLOCK } else { 0 };
    // SAFETY: two integers go in; a fresh descriptor that nobody else owns comes out.
    let timer =
        unsafe { OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags).into())? as RawFd) };
    set_label(std::os::fd::AsFd::as_fd(&timer), label)?;
    Ok(timer)
}

/// Labels a timer anew. It stays disarmed, and forgets its expiries.
///
/// # Errors
/// `EINVAL` when the descriptor is none of timerfd_create(2).
pub fn set_label(timer: BorrowedFd<'_>, label: u64) -> io::Result<()> {
    let interval = libc::timespec { tv_sec: (label / SECOND_NS) as i64, tv_nsec: (label % SECOND_NS) as i64 };
    let setting = libc::itimerspec { it_interval: interval, it_value: libc::timespec { tv_sec: 0, tv_nsec: 0 } };
    // SAFETY: `setting` is a live itimerspec, which the kernel reads; the old setting is not asked for.
    unsafe { check(libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()).into()) }?;
    Ok(())
}

/// The label of a timer.
///
/// # Errors
/// `EINVAL` when the descriptor is none of timerfd_create(2).
pub fn label(timer: BorrowedFd<'_>) -> io::Result<u64> {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut setting = libc::itimerspec { it_interval: zero, it_value: zero };
    // SAFETY: `setting` is a live itimerspec, which the kernel writes.
    unsafe { check(libc::timerfd_gettime(timer.as_raw_fd(), &raw mut setting).into()) }?;
    Ok(setting.it_interval.tv_sec as u64 * SECOND_NS + setting.it_interval.tv_nsec as u64)
}

/// Adds expiries that nobody has read yet, and wakes whoever polls.
///
/// # Errors
/// `ENOTTY` on a kernel that cannot set them.
pub fn add_ticks(timer: BorrowedFd<'_>, more: u64) -> io::Result<()> {
    let ticks = unread(timer)?.saturating_add(more);
    // SAFETY: the request reads a live u64.
    unsafe { check(libc::ioctl(timer.as_raw_fd(), SET_TICKS, &raw const ticks).into()) }?;
    Ok(())
}

/// Expiries that nobody has read: `ticks` of proc_pid_fdinfo(5).
fn unread(timer: BorrowedFd<'_>) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", timer.as_raw_fd()))?;
    let ticks = info.lines().find_map(|line| line.strip_prefix("ticks:")).and_then(|ticks| ticks.trim().parse().ok());
    ticks.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_carrier_keeps_its_label_and_is_readable_only_when_told() {
        let timer = make(true, 3_000_000_007).unwrap();
        let mut file = fs::File::from(timer.try_clone().unwrap());
        let mut count = [0; 8];
        assert_eq!(label(timer.as_fd()).unwrap(), 3_000_000_007);
        assert_eq!(file.read(&mut count).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        add_ticks(timer.as_fd(), 2).unwrap();
        add_ticks(timer.as_fd(), 3).unwrap();
        assert_eq!(file.read(&mut count).unwrap(), 8);
        assert_eq!(u64::from_ne_bytes(count), 5);
        assert_eq!(file.read(&mut count).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(label(timer.as_fd()).unwrap(), 3_000_000_007);
    }

    #[test]
    fn a_new_label_forgets_expiries() {
        let timer = make(true, 1).unwrap();
        add_ticks(timer.as_fd(), 2).unwrap();
        set_label(timer.as_fd(), 1).unwrap();
        assert_eq!(unread(timer.as_fd()).unwrap(), 0);
    }

    #[test]
    fn other_files_have_no_label() {
        let file = fs::File::open("/dev/null").unwrap();
        assert_eq!(label(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
