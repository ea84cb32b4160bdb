//! The guest's clocks: one logical count of nanoseconds, and what each clock of clock_gettime(2) shows of it.
//!
//! Logical time starts at 0 with the run and moves only when the engine says so: it advances by the work done, and jumps to the next deadline
//! when nothing can run. CLOCK_REALTIME and CLOCK_TAI are the epoch of the plan plus logical time; CLOCK_MONOTONIC and CLOCK_BOOTTIME start at
//! 1000 s, as on a machine that has been up for a while; CPU clocks count advances and leave out jumps.
//!
//! Approximate: all tasks share one CPU clock, which starts with the run. A coarse clock is as fine as its neighbour, and no leap second and no
//! offset of TAI is known. Absent on purpose: the host's clock, and setting a clock.

use nix::errno::Errno;

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// What CLOCK_MONOTONIC and CLOCK_BOOTTIME show when the run starts.
pub const MONOTONIC_START_NS: u64 = 1000 * SECOND_NS;
/// Longest time the kernel represents: `KTIME_MAX`, 292 years. Longer ones are cut to it, as `timespec64_to_ktime` does.
pub const TIME_NS_MAX: u64 = i64::MAX as u64;
/// Bytes of a `struct timespec` and of a `struct timeval`.
pub const TIMESPEC_BYTES: usize = 16;
/// Bytes of a `struct itimerspec` and of a `struct itimerval`.
pub const ITIMERSPEC_BYTES: usize = 32;
/// `USER_HZ`: what times(2) and /proc/*/stat count in.
pub const TICKS_PER_SECOND: u64 = 100;

/// A clock that clock_gettime(2) knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClockId {
    /// CLOCK_REALTIME (0).
    Realtime,
    /// CLOCK_MONOTONIC (1).
    Monotonic,
    /// CLOCK_PROCESS_CPUTIME_ID (2), CLOCK_THREAD_CPUTIME_ID (3), and the clocks of clock_getcpuclockid(3).
    Cpu {
        /// The process or thread, in the numbers of the guest; 0 is the caller.
        id: u32,
        /// Whether `id` is a thread.
        thread: bool,
    },
    /// CLOCK_MONOTONIC_RAW (4).
    MonotonicRaw,
    /// CLOCK_REALTIME_COARSE (5).
    RealtimeCoarse,
    /// CLOCK_MONOTONIC_COARSE (6).
    MonotonicCoarse,
    /// CLOCK_BOOTTIME (7).
    Boottime,
    /// CLOCK_REALTIME_ALARM (8).
    RealtimeAlarm,
    /// CLOCK_BOOTTIME_ALARM (9).
    BoottimeAlarm,
    /// CLOCK_TAI (11).
    Tai,
}

impl ClockId {
    /// The clock of the number, or `None` where the kernel answers `EINVAL`.
    ///
    /// A negative number is a CPU clock: the complement of a process id, shifted by 3, with the kind in bits 0 and 1 and "thread" in bit 2
    /// (linux/posix-timers.h). Kind 3 names a descriptor of a hardware clock; the cage has none.
    pub fn parse(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Realtime,
            1 => Self::Monotonic,
            2 => Self::Cpu { id: 0, thread: false },
            3 => Self::Cpu { id: 0, thread: true },
            4 => Self::MonotonicRaw,
            5 => Self::RealtimeCoarse,
            6 => Self::MonotonicCoarse,
            7 => Self::Boottime,
            8 => Self::RealtimeAlarm,
            9 => Self::BoottimeAlarm,
            11 => Self::Tai,
            negative if negative < 0 && negative & 3 != 3 => {
                Self::Cpu { id: u32::try_from(!(negative >> 3)).ok()?, thread: negative & 4 != 0 }
            }
            _ => return None,
        })
    }

    /// Whether clock_nanosleep(2) takes it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for clocks that cannot be slept on; `EPERM` for alarm clocks, which need CAP_WAKE_ALARM.
    pub fn may_sleep(self) -> Result<(), Errno> {
        match self {
            Self::MonotonicRaw | Self::RealtimeCoarse | Self::MonotonicCoarse | Self::Cpu { id: 0, thread: true } => {
                Err(Errno::EOPNOTSUPP)
            }
            Self::RealtimeAlarm | Self::BoottimeAlarm => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// Whether timer_create(2) takes it.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for clocks without timers; `EPERM` for alarm clocks, which need CAP_WAKE_ALARM.
    pub fn may_time(self) -> Result<(), Errno> {
        match self {
            Self::MonotonicRaw | Self::RealtimeCoarse | Self::MonotonicCoarse => Err(Errno::EOPNOTSUPP),
            Self::RealtimeAlarm | Self::BoottimeAlarm => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// Whether it counts CPU time, and so stands still while nothing runs.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Cpu { .. })
    }
}

/// Logical time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    epoch_ns: u64,
    now_ns: u64,
    jumped_ns: u64,
}

impl Clock {
    /// A clock at logical time 0, which CLOCK_REALTIME shows as `epoch_ns` after 1970.
    pub fn new(epoch_ns: u64) -> Self {
        Self { epoch_ns: epoch_ns.min(TIME_NS_MAX), now_ns: 0, jumped_ns: 0 }
    }

    /// What CLOCK_REALTIME showed when the run started.
    pub fn epoch_ns(&self) -> u64 {
        self.epoch_ns
    }

    /// Logical time: nanoseconds since the run started.
    pub fn now(&self) -> u64 {
        self.now_ns
    }

    /// The part of logical time in which something ran: what CPU clocks count.
    pub fn busy(&self) -> u64 {
        self.now_ns - self.jumped_ns
    }

    /// CLOCK_REALTIME, in nanoseconds since 1970.
    pub fn realtime(&self) -> u64 {
        self.epoch_ns.saturating_add(self.now_ns)
    }

    /// CLOCK_MONOTONIC, in nanoseconds.
    pub fn monotonic(&self) -> u64 {
        MONOTONIC_START_NS.saturating_add(self.now_ns)
    }

    /// Lets `ns` pass in work.
    pub fn advance(&mut self, ns: u64) {
        self.now_ns = self.now_ns.saturating_add(ns).min(TIME_NS_MAX);
    }

    /// Moves to the logical time `ns` without work, as when all tasks sleep. A moment that has passed changes nothing: time never goes back.
    pub fn jump_to(&mut self, ns: u64) {
        let target = ns.min(TIME_NS_MAX).max(self.now_ns);
        self.jumped_ns += target - self.now_ns;
        self.now_ns = target;
    }

    /// What clock_gettime(2) answers, in nanoseconds; `None` is `EINVAL`. Whether a CPU clock's process lives is for the caller to see.
    pub fn read(&self, clock: i32) -> Option<u64> {
        ClockId::parse(clock).map(|clock| self.value(clock))
    }

    /// What `clock` shows, in nanoseconds.
    pub fn value(&self, clock: ClockId) -> u64 {
        match clock {
            ClockId::Realtime | ClockId::RealtimeCoarse | ClockId::RealtimeAlarm | ClockId::Tai => self.realtime(),
            ClockId::Cpu { .. } => self.busy(),
            ClockId::Monotonic
            | ClockId::MonotonicRaw
            | ClockId::MonotonicCoarse
            | ClockId::Boottime
            | ClockId::BoottimeAlarm => self.monotonic(),
        }
    }

    /// What clock_getres(2) answers, in nanoseconds; `None` is `EINVAL`.
    pub fn resolution(&self, clock: i32) -> Option<u64> {
        ClockId::parse(clock).map(|_| 1)
    }

    /// The logical time at which `clock` will show `absolute_ns`; 0 for a moment before the run. For a CPU clock: if nothing sleeps until then.
    /// `None` is `EINVAL`.
    pub fn deadline(&self, clock: i32, absolute_ns: u64) -> Option<u64> {
        ClockId::parse(clock).map(|clock| self.reaches(clock, absolute_ns))
    }

    /// [`Clock::deadline`] of a clock that is known.
    pub fn reaches(&self, clock: ClockId, absolute_ns: u64) -> u64 {
        let shown = self.value(clock);
        let logical = if absolute_ns >= shown {
            self.now_ns.saturating_add(absolute_ns - shown)
        } else {
            self.now_ns.saturating_sub(shown - absolute_ns)
        };
        logical.min(TIME_NS_MAX)
    }

    /// The logical time `relative_ns` from now.
    pub fn after(&self, relative_ns: u64) -> u64 {
        self.now_ns.saturating_add(relative_ns).min(TIME_NS_MAX)
    }
}

/// A `struct timespec` as nanoseconds; longer than [`TIME_NS_MAX`] is cut to it.
///
/// # Errors
/// `EINVAL` for negative seconds, and for nanoseconds outside 0 to 999 999 999 (clock_nanosleep(2); `timespec64_valid`).
pub fn timespec_ns(bytes: &[u8; TIMESPEC_BYTES]) -> Result<u64, Errno> {
    let (seconds, nanoseconds) = halves(bytes);
    if seconds < 0 || !(0..1_000_000_000).contains(&nanoseconds) {
        return Err(Errno::EINVAL);
    }
    Ok(whole(seconds, nanoseconds))
}

/// A `struct timeval` of setitimer(2) as nanoseconds; longer than [`TIME_NS_MAX`] is cut to it.
///
/// # Errors
/// `EINVAL` for negative seconds, and for microseconds outside 0 to 999 999.
pub fn timeval_ns(bytes: &[u8; TIMESPEC_BYTES]) -> Result<u64, Errno> {
    let (seconds, microseconds) = halves(bytes);
    if seconds < 0 || !(0..1_000_000).contains(&microseconds) {
        return Err(Errno::EINVAL);
    }
    Ok(whole(seconds, microseconds * 1000))
}

/// The timeout of select(2) as nanoseconds. The call is more lenient than setitimer(2): it carries whole seconds over from the microseconds.
///
/// # Errors
/// `EINVAL` when what results is negative.
pub fn select_timeout_ns(bytes: &[u8; TIMESPEC_BYTES]) -> Result<u64, Errno> {
    let (seconds, microseconds) = halves(bytes);
    let seconds = seconds.wrapping_add(microseconds / 1_000_000);
    let rest = microseconds % 1_000_000;
    if seconds < 0 || rest < 0 {
        return Err(Errno::EINVAL);
    }
    Ok(whole(seconds, rest * 1000))
}

/// The timeout of poll(2) and epoll_wait(2) as nanoseconds; `None` waits for ever.
pub fn poll_timeout_ns(milliseconds: i32) -> Option<u64> {
    u64::try_from(milliseconds).ok().map(|milliseconds| milliseconds * 1_000_000)
}

/// A `struct itimerspec`: (interval, value) as nanoseconds.
///
/// # Errors
/// `EINVAL` where [`timespec_ns`] refuses either half (timer_settime(2)).
pub fn itimerspec_ns(bytes: &[u8; ITIMERSPEC_BYTES]) -> Result<(u64, u64), Errno> {
    let (interval, value) = quarters(bytes);
    Ok((timespec_ns(&interval)?, timespec_ns(&value)?))
}

/// A `struct itimerval`: (interval, value) as nanoseconds.
///
/// # Errors
/// `EINVAL` where [`timeval_ns`] refuses either half (setitimer(2)).
pub fn itimerval_ns(bytes: &[u8; ITIMERSPEC_BYTES]) -> Result<(u64, u64), Errno> {
    let (interval, value) = quarters(bytes);
    Ok((timeval_ns(&interval)?, timeval_ns(&value)?))
}

/// `ns` as a `struct timespec`.
pub fn timespec(ns: u64) -> [u8; TIMESPEC_BYTES] {
    joined(ns / SECOND_NS, ns % SECOND_NS)
}

/// `ns` as a `struct timeval`, cut to microseconds as the kernel does.
pub fn timeval(ns: u64) -> [u8; TIMESPEC_BYTES] {
    joined(ns / SECOND_NS, ns % SECOND_NS / 1000)
}

/// A `struct itimerspec` of interval and value.
pub fn itimerspec(interval_ns: u64, value_ns: u64) -> [u8; ITIMERSPEC_BYTES] {
    pair(timespec(interval_ns), timespec(value_ns))
}

/// A `struct itimerval` of interval and value.
pub fn itimerval(interval_ns: u64, value_ns: u64) -> [u8; ITIMERSPEC_BYTES] {
    pair(timeval(interval_ns), timeval(value_ns))
}

/// `ns` in ticks of [`TICKS_PER_SECOND`], as times(2) counts.
pub fn ticks(ns: u64) -> u64 {
    ns / (SECOND_NS / TICKS_PER_SECOND)
}

fn whole(seconds: i64, nanoseconds: i64) -> u64 {
    let seconds = seconds.unsigned_abs().saturating_mul(SECOND_NS);
    seconds.saturating_add(nanoseconds.unsigned_abs()).min(TIME_NS_MAX)
}

fn halves(bytes: &[u8; TIMESPEC_BYTES]) -> (i64, i64) {
    let (mut first, mut second) = ([0; 8], [0; 8]);
    first.copy_from_slice(&bytes[..8]);
    second.copy_from_slice(&bytes[8..]);
    (i64::from_le_bytes(first), i64::from_le_bytes(second))
}

fn quarters(bytes: &[u8; ITIMERSPEC_BYTES]) -> ([u8; TIMESPEC_BYTES], [u8; TIMESPEC_BYTES]) {
    let (mut first, mut second) = ([0; TIMESPEC_BYTES], [0; TIMESPEC_BYTES]);
    first.copy_from_slice(&bytes[..TIMESPEC_BYTES]);
    second.copy_from_slice(&bytes[TIMESPEC_BYTES..]);
    (first, second)
}

fn joined(seconds: u64, rest: u64) -> [u8; TIMESPEC_BYTES] {
    let mut bytes = [0; TIMESPEC_BYTES];
    bytes[..8].copy_from_slice(&seconds.to_le_bytes());
    bytes[8..].copy_from_slice(&rest.to_le_bytes());
    bytes
}

fn pair(first: [u8; TIMESPEC_BYTES], second: [u8; TIMESPEC_BYTES]) -> [u8; ITIMERSPEC_BYTES] {
    let mut bytes = [0; ITIMERSPEC_BYTES];
    bytes[..TIMESPEC_BYTES].copy_from_slice(&first);
    bytes[TIMESPEC_BYTES..].copy_from_slice(&second);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH_NS: u64 = 1_640_995_200 * SECOND_NS;

    fn raw(seconds: i64, rest: i64) -> [u8; TIMESPEC_BYTES] {
        let mut bytes = [0; TIMESPEC_BYTES];
        bytes[..8].copy_from_slice(&seconds.to_le_bytes());
        bytes[8..].copy_from_slice(&rest.to_le_bytes());
        bytes
    }

    #[test]
    fn clocks_start_where_the_plan_says() {
        let clock = Clock::new(EPOCH_NS);
        let shown: Vec<_> = (0..13).map(|id| clock.read(id)).collect();
        let (wall, up, cpu) = (Some(EPOCH_NS), Some(MONOTONIC_START_NS), Some(0));
        assert_eq!(shown, [wall, up, cpu, cpu, up, wall, up, up, wall, up, None, wall, None]);
    }

    #[test]
    fn a_jump_costs_no_cpu_time() {
        let mut clock = Clock::new(EPOCH_NS);
        clock.advance(5);
        clock.jump_to(100);
        clock.advance(1);
        assert_eq!((clock.now(), clock.busy()), (101, 6));
    }

    #[test]
    fn the_clocks_of_other_processes_are_cpu_clocks() {
        let of = |pid: i32, low: i32| (!pid << 3) | low;
        assert_eq!(ClockId::parse(of(1234, 2)), Some(ClockId::Cpu { id: 1234, thread: false }));
        assert_eq!(ClockId::parse(of(1234, 6)), Some(ClockId::Cpu { id: 1234, thread: true }));
        assert_eq!(ClockId::parse(of(0, 0)), Some(ClockId::Cpu { id: 0, thread: false }));
        assert_eq!(ClockId::parse(of(7, 3)), None);
        assert_eq!(ClockId::parse(i32::MAX), None);
    }

    #[test]
    fn a_deadline_is_when_the_clock_shows_it() {
        let mut clock = Clock::new(EPOCH_NS);
        clock.advance(10);
        clock.jump_to(30);
        assert_eq!(clock.deadline(0, EPOCH_NS + 50), Some(50));
        assert_eq!(clock.deadline(1, MONOTONIC_START_NS + 50), Some(50));
        assert_eq!(clock.deadline(2, 15), Some(35));
        assert_eq!(clock.deadline(1, 1), Some(0));
        assert_eq!(clock.deadline(10, 1), None);
        assert_eq!(clock.deadline(0, u64::MAX), Some(TIME_NS_MAX));
    }

    #[test]
    fn some_clocks_are_not_slept_on() {
        let verdict = |id: i32| ClockId::parse(id).map(ClockId::may_sleep);
        assert_eq!(verdict(1), Some(Ok(())));
        assert_eq!(verdict(3), Some(Err(Errno::EOPNOTSUPP)));
        assert_eq!(verdict(5), Some(Err(Errno::EOPNOTSUPP)));
        assert_eq!(verdict(8), Some(Err(Errno::EPERM)));
    }

    #[test]
    fn durations_are_checked_as_the_kernel_does() {
        assert_eq!(timespec_ns(&raw(1, 5)), Ok(SECOND_NS + 5));
        assert_eq!(timespec_ns(&raw(0, 1_000_000_000)), Err(Errno::EINVAL));
        assert_eq!(timespec_ns(&raw(-1, 0)), Err(Errno::EINVAL));
        assert_eq!(timespec_ns(&raw(i64::MAX, 0)), Ok(TIME_NS_MAX));
        assert_eq!(timeval_ns(&raw(0, 999_999)), Ok(999_999_000));
        assert_eq!(timeval_ns(&raw(0, 1_000_000)), Err(Errno::EINVAL));
        assert_eq!(select_timeout_ns(&raw(0, 2_500_000)), Ok(2_500_000_000));
        assert_eq!(select_timeout_ns(&raw(0, -1)), Err(Errno::EINVAL));
        assert_eq!(poll_timeout_ns(-1), None);
        assert_eq!(poll_timeout_ns(5), Some(5_000_000));
    }

    proptest! {
        #[test]
        fn time_never_goes_back(steps in proptest::collection::vec((any::<bool>(), any::<u64>()), 0..20)) {
            let mut clock = Clock::new(EPOCH_NS);
            for (jumps, ns) in steps {
                let before = clock.clone();
                if jumps { clock.jump_to(ns) } else { clock.advance(ns) }
                prop_assert!(clock.now() >= before.now() && clock.busy() >= before.busy());
            }
        }

        #[test]
        fn what_is_written_reads_the_same(ns in 0..=TIME_NS_MAX, interval in 0..=TIME_NS_MAX) {
            prop_assert_eq!(timespec_ns(&timespec(ns)), Ok(ns));
            prop_assert_eq!(timeval_ns(&timeval(ns)), Ok(ns / 1000 * 1000));
            prop_assert_eq!(itimerspec_ns(&itimerspec(interval, ns)), Ok((interval, ns)));
        }

        #[test]
        fn no_raw_time_panics(bytes in any::<[u8; 32]>()) {
            let _ = itimerspec_ns(&bytes);
            let _ = itimerval_ns(&bytes);
            let mut half = [0; 16];
            half.copy_from_slice(&bytes[..16]);
            let _ = select_timeout_ns(&half);
        }
    }
}
