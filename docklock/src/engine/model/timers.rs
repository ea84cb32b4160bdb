//! The guest's timers: alarm(2), setitimer(2), timer_create(2) and timerfd_create(2), each with the logical time at which it expires.
//!
//! A process has three interval timers and up to [`POSIX_TIMERS_MAX`] POSIX timers; those behind descriptors belong to nobody. One index holds all that are armed, ordered by deadline
//! and then by birth; the order of [`Timers::expire`] is that order. A periodic timer that expires late fires once, is armed for the first
//! moment of its grid that is still to come, and counts what it left out as overrun (timer_getoverrun(2)).
//!
//! Approximate: a deadline is a logical time, also for a timer of a CPU clock. Nobody tells of a signal's delivery, so the overrun is what has
//! come since the signal was last sent.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::clock::ClockId;

/// Most POSIX timers of one process; the next is refused with `EAGAIN`. The kernel's own bound is RLIMIT_SIGPENDING, which a host chooses.
pub const POSIX_TIMERS_MAX: usize = 1024;
/// Interval timers of a process: ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF.
pub const INTERVAL_TIMERS: usize = 3;
/// What an interval timer shows that is due and has not fired: a microsecond, as the kernel says.
const DUE_INTERVAL_NS: u64 = 1000;
/// What a POSIX timer shows that is due and has not fired.
const DUE_POSIX_NS: u64 = 1;
/// Signals of the interval timers, by number.
const INTERVAL_SIGNALS: [i32; INTERVAL_TIMERS] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];

/// Which of the two interfaces a timer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// alarm(2) or setitimer(2): a signal of the kernel to the process.
    Interval,
    /// timer_create(2): a signal that names the timer.
    Posix {
        /// The timer's id in its process.
        id: i32,
    },
    /// timerfd_create(2): no signal, its descriptor becomes readable.
    Descriptor {
        /// The timer's id in the cage.
        id: u64,
        /// Expiries since the last one that was told.
        ticks: u64,
    },
}

/// A timer that has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Firing {
    /// Whose timer it is; 0 for one behind a descriptor.
    pub process: u32,
    /// Signal to send; 0 for none.
    pub signal: i32,
    /// How it is sent.
    pub kind: Kind,
    /// The thread that gets it (SIGEV_THREAD_ID), by its number in the cage; `None` is the process.
    pub thread: Option<u32>,
    /// `sigev_value`.
    pub value: u64,
}

/// A timer's name inside its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Interval(usize),
    Posix(i32),
    Descriptor(u64),
}

/// When a timer expires.
#[derive(Debug, Clone, Copy, Default)]
struct Setting {
    /// Its place among timers with the same deadline; unique.
    birth: u64,
    deadline: Option<u64>,
    interval: u64,
}

impl Setting {
    /// (interval, remaining); `due` is the remainder of one that should have fired.
    fn show(&self, now: u64, due: u64) -> (u64, u64) {
        let left = self.deadline.map_or(0, |at| if at > now { at - now } else { due });
        (self.interval, left)
    }

    /// After an expiry at `now`: arms it for the next moment of its grid, and returns how many moments were left out.
    fn step(&mut self, now: u64) -> u64 {
        let Some(at) = self.deadline.take() else { return 0 };
        let Some(missed) = now.saturating_sub(at).checked_div(self.interval) else { return 0 };
        let ahead = missed.checked_add(1).and_then(|periods| periods.checked_mul(self.interval));
        self.deadline = ahead.and_then(|ahead| at.checked_add(ahead));
        missed
    }
}

#[derive(Debug)]
struct Posix {
    setting: Setting,
    clock: ClockId,
    signal: i32,
    value: u64,
    thread: Option<u32>,
    overrun: u64,
    /// The overrun before the last expiry, for a signal that is then held back.
    overrun_before: u64,
}

#[derive(Debug, Default)]
struct Owned {
    intervals: [Setting; INTERVAL_TIMERS],
    posix: BTreeMap<i32, Posix>,
}

impl Owned {
    fn setting(&mut self, name: Name) -> Option<&mut Setting> {
        match name {
            Name::Interval(which) => self.intervals.get_mut(which),
            Name::Posix(id) => self.posix.get_mut(&id).map(|timer| &mut timer.setting),
            Name::Descriptor(_) => None,
        }
    }
}

/// The timers of all processes.
#[derive(Debug, Default)]
pub struct Timers {
    processes: BTreeMap<u32, Owned>,
    /// Behind descriptors, by id.
    descriptors: BTreeMap<u64, (Setting, ClockId)>,
    /// Those that are armed, by deadline and birth.
    armed: BTreeMap<(u64, u64), (u32, Name)>,
    births: u64,
}

impl Timers {
    /// The logical time of the next expiry.
    pub fn next_deadline(&self) -> Option<u64> {
        self.armed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes everything that is due at `now`, in the order of deadlines, and of birth where these are equal. Periodic timers are armed again
    /// for a moment after `now`, the others are disarmed.
    pub fn expire(&mut self, now: u64) -> Vec<Firing> {
        let mut due = Vec::new();
        while let Some(first) = self.armed.first_entry() {
            if first.key().0 > now {
                break;
            }
            due.push(first.remove());
        }
        due.into_iter().filter_map(|(process, name)| self.fire(process, name, now)).collect()
    }

    fn fire(&mut self, process: u32, name: Name, now: u64) -> Option<Firing> {
        if let Name::Descriptor(id) = name {
            return self.fire_descriptor(id, now);
        }
        let owned = self.processes.get_mut(&process)?;
        let setting = owned.setting(name)?;
        let missed = setting.step(now);
        if let Some(at) = setting.deadline {
            self.armed.insert((at, setting.birth), (process, name));
        }
        match name {
            Name::Interval(which) => {
                let signal = *INTERVAL_SIGNALS.get(which)?;
                Some(Firing { process, signal, kind: Kind::Interval, thread: None, value: 0 })
            }
            Name::Posix(id) => {
                let timer = owned.posix.get_mut(&id)?;
                timer.overrun_before = timer.overrun;
                timer.overrun = if timer.signal == 0 { 0 } else { missed };
                let (signal, thread, value) = (timer.signal, timer.thread, timer.value);
                Some(Firing { process, signal, kind: Kind::Posix { id }, thread, value })
            }
            Name::Descriptor(_) => None,
        }
    }

    fn fire_descriptor(&mut self, id: u64, now: u64) -> Option<Firing> {
        let (setting, _) = self.descriptors.get_mut(&id)?;
        let ticks = setting.step(now).saturating_add(1);
        if let Some(at) = setting.deadline {
            self.armed.insert((at, setting.birth), (0, Name::Descriptor(id)));
        }
        Some(Firing { process: 0, signal: 0, kind: Kind::Descriptor { id, ticks }, thread: None, value: 0 })
    }

    /// The signal of the timer's last expiry was not sent, as the one before still waits: it counts as overrun of that one.
    pub fn held_back(&mut self, process: u32, id: i32) {
        if let Ok(timer) = self.timer(process, id) {
            timer.overrun = timer.overrun.saturating_add(timer.overrun_before).saturating_add(1);
        }
    }

    /// setitimer(2) of the timer `which`: 0 real, 1 virtual, 2 profiling. A value of 0 disarms. Returns the old (interval, remaining).
    /// A number that names no timer changes nothing.
    pub fn set_interval(
        &mut self,
        process: u32,
        which: usize,
        value_ns: u64,
        interval_ns: u64,
        now: u64,
    ) -> (u64, u64) {
        if which >= INTERVAL_TIMERS {
            return (0, 0);
        }
        let old = self.get_interval(process, which, now);
        let birth = self.next_birth();
        let deadline = (value_ns != 0).then(|| now.saturating_add(value_ns));
        // The kernel forgets the interval of a disarmed ITIMER_REAL and of no other.
        let interval = if which == 0 && value_ns == 0 { 0 } else { interval_ns };
        let setting = Setting { birth, deadline, interval };
        self.processes.entry(process).or_default();
        self.change(process, Name::Interval(which), setting);
        old
    }

    /// getitimer(2): (interval, remaining).
    pub fn get_interval(&self, process: u32, which: usize, now: u64) -> (u64, u64) {
        let setting = self.processes.get(&process).and_then(|owned| owned.intervals.get(which));
        setting.map_or((0, 0), |setting| setting.show(now, DUE_INTERVAL_NS))
    }

    /// timer_create(2): a disarmed timer with the lowest free id. `notify` is (signal, value, thread), with signal 0 for SIGEV_NONE; `None` is
    /// SIGALRM with the id as its value.
    ///
    /// # Errors
    /// `EAGAIN` when the process has [`POSIX_TIMERS_MAX`].
    pub fn create(
        &mut self,
        process: u32,
        clock: ClockId,
        notify: Option<(i32, u64, Option<u32>)>,
    ) -> Result<i32, Errno> {
        let birth = self.next_birth();
        let posix = &mut self.processes.entry(process).or_default().posix;
        if posix.len() >= POSIX_TIMERS_MAX {
            return Err(Errno::EAGAIN);
        }
        let id = (0_i32..).zip(posix.keys()).find(|(free, used)| free != *used).map(|(free, _)| free);
        let id = id.unwrap_or(posix.len() as i32);
        let (signal, value, thread) = notify.unwrap_or((libc::SIGALRM, u64::from(id.unsigned_abs()), None));
        let setting = Setting { birth, deadline: None, interval: 0 };
        posix.insert(id, Posix { setting, clock, signal, value, thread, overrun: 0, overrun_before: 0 });
        Ok(id)
    }

    /// timer_settime(2): expires at the logical time `deadline`, or never; a deadline that has passed is due at once. A disarmed timer has no
    /// interval. The overrun starts again at 0. Returns the old (interval, remaining).
    ///
    /// # Errors
    /// `EINVAL` for an unknown timer.
    pub fn settime(
        &mut self,
        process: u32,
        id: i32,
        deadline: Option<u64>,
        interval: u64,
        now: u64,
    ) -> Result<(u64, u64), Errno> {
        let timer = self.timer(process, id)?;
        let old = timer.setting.show(now, DUE_POSIX_NS);
        let birth = timer.setting.birth;
        (timer.overrun, timer.overrun_before) = (0, 0);
        let interval = if deadline.is_none() { 0 } else { interval };
        self.change(process, Name::Posix(id), Setting { birth, deadline, interval });
        Ok(old)
    }

    /// timer_gettime(2): (interval, remaining).
    ///
    /// # Errors
    /// `EINVAL` for an unknown timer.
    pub fn gettime(&self, process: u32, id: i32, now: u64) -> Result<(u64, u64), Errno> {
        Ok(self.known(process, id)?.setting.show(now, DUE_POSIX_NS))
    }

    /// timer_getoverrun(2), cut to DELAYTIMER_MAX, the largest int.
    ///
    /// # Errors
    /// `EINVAL` for an unknown timer.
    pub fn overrun(&self, process: u32, id: i32) -> Result<i32, Errno> {
        Ok(i32::try_from(self.known(process, id)?.overrun).unwrap_or(i32::MAX))
    }

    /// timer_delete(2).
    ///
    /// # Errors
    /// `EINVAL` for an unknown timer.
    pub fn delete(&mut self, process: u32, id: i32) -> Result<(), Errno> {
        let owned = self.processes.get_mut(&process).ok_or(Errno::EINVAL)?;
        let timer = owned.posix.remove(&id).ok_or(Errno::EINVAL)?;
        disarm(&mut self.armed, &timer.setting);
        Ok(())
    }

    /// The clock a POSIX timer was made for.
    pub fn clock_of(&self, process: u32, id: i32) -> Option<ClockId> {
        self.known(process, id).ok().map(|timer| timer.clock)
    }

    /// timerfd_create(2): a disarmed timer. Its id is above 0 and never used again.
    pub fn create_descriptor(&mut self, clock: ClockId) -> u64 {
        let id = self.next_birth();
        self.descriptors.insert(id, (Setting { birth: id, deadline: None, interval: 0 }, clock));
        id
    }

    /// timerfd_settime(2), as [`Self::settime`].
    ///
    /// # Errors
    /// `EINVAL` for an unknown timer.
    pub fn set_descriptor(
        &mut self,
        id: u64,
        deadline: Option<u64>,
        interval: u64,
        now: u64,
    ) -> Result<(u64, u64), Errno> {
        let (setting, _) = self.descriptors.get_mut(&id).ok_or(Errno::EINVAL)?;
        let old = setting.show(now, DUE_POSIX_NS);
        disarm(&mut self.armed, setting);
        (setting.deadline, setting.interval) = (deadline, interval);
        if let Some(at) = deadline {
            self.armed.insert((at, setting.birth), (0, Name::Descriptor(id)));
        }
        Ok(old)
    }

    /// timerfd_gettime(2): (interval, remaining); and the clock it was made for. `None` for an unknown timer.
    pub fn descriptor(&self, id: u64, now: u64) -> Option<((u64, u64), ClockId)> {
        self.descriptors.get(&id).map(|(setting, clock)| (setting.show(now, DUE_POSIX_NS), *clock))
    }

    /// Forgets the timers behind descriptors that are not `open` any more.
    pub fn retain_descriptors(&mut self, open: impl Fn(u64) -> bool) {
        let armed = &mut self.armed;
        self.descriptors.retain(|id, (setting, _)| {
            let stays = open(*id);
            if !stays {
                disarm(armed, setting);
            }
            stays
        });
    }

    /// How many timers there are behind descriptors.
    pub fn descriptors_len(&self) -> usize {
        self.descriptors.len()
    }

    /// Forgets a process that has ended.
    pub fn remove_process(&mut self, process: u32) {
        let Some(owned) = self.processes.remove(&process) else { return };
        for setting in owned.intervals.iter().chain(owned.posix.values().map(|timer| &timer.setting)) {
            disarm(&mut self.armed, setting);
        }
    }

    /// execve(2): POSIX timers vanish, interval timers stay.
    pub fn on_exec(&mut self, process: u32) {
        let Some(owned) = self.processes.get_mut(&process) else { return };
        for timer in std::mem::take(&mut owned.posix).into_values() {
            disarm(&mut self.armed, &timer.setting);
        }
    }

    fn next_birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }

    fn known(&self, process: u32, id: i32) -> Result<&Posix, Errno> {
        self.processes.get(&process).and_then(|owned| owned.posix.get(&id)).ok_or(Errno::EINVAL)
    }

    fn timer(&mut self, process: u32, id: i32) -> Result<&mut Posix, Errno> {
        self.processes.get_mut(&process).and_then(|owned| owned.posix.get_mut(&id)).ok_or(Errno::EINVAL)
    }

    fn change(&mut self, process: u32, name: Name, new: Setting) {
        let Some(setting) = self.processes.get_mut(&process).and_then(|owned| owned.setting(name)) else { return };
        disarm(&mut self.armed, setting);
        *setting = new;
        if let Some(at) = new.deadline {
            self.armed.insert((at, new.birth), (process, name));
        }
    }
}

fn disarm(armed: &mut BTreeMap<(u64, u64), (u32, Name)>, setting: &Setting) {
    if let Some(at) = setting.deadline {
        armed.remove(&(at, setting.birth));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: u32 = 3;

    fn posix(timers: &mut Timers, process: u32, signal: i32) -> i32 {
        timers.create(process, ClockId::Monotonic, Some((signal, 7, None))).unwrap()
    }

    #[test]
    fn an_alarm_fires_once() {
        let mut timers = Timers::default();
        assert_eq!(timers.next_deadline(), None);
        assert_eq!(timers.set_interval(P, 0, 50, 0, 100), (0, 0));
        assert_eq!(timers.next_deadline(), Some(150));
        assert_eq!(timers.get_interval(P, 0, 120), (0, 30));
        assert_eq!(timers.expire(149), []);
        let alarm = Firing { process: P, signal: libc::SIGALRM, kind: Kind::Interval, thread: None, value: 0 };
        assert_eq!(timers.expire(150), [alarm]);
        assert_eq!((timers.next_deadline(), timers.get_interval(P, 0, 150)), (None, (0, 0)));
    }

    #[test]
    fn each_interval_timer_has_its_signal() {
        let mut timers = Timers::default();
        for which in [2, 1, 0] {
            timers.set_interval(P, which, 10, 10, 0);
        }
        let signals =
            |timers: &mut Timers, now| timers.expire(now).iter().map(|firing| firing.signal).collect::<Vec<_>>();
        assert_eq!(signals(&mut timers, 10), [libc::SIGPROF, libc::SIGVTALRM, libc::SIGALRM]);
        assert_eq!(timers.next_deadline(), Some(20));
        assert_eq!(timers.set_interval(P, 0, 0, 5, 12), (10, 8));
        assert_eq!(timers.get_interval(P, 0, 12), (0, 0));
        assert_eq!(signals(&mut timers, 20), [libc::SIGPROF, libc::SIGVTALRM]);
        assert_eq!(timers.set_interval(P, 3, 1, 1, 20), (0, 0));
    }

    #[test]
    fn late_expiry_counts_overrun_and_keeps_the_grid() {
        let mut timers = Timers::default();
        let id = posix(&mut timers, P, 40);
        assert_eq!(timers.settime(P, id, Some(100), 10, 0), Ok((0, 0)));
        assert_eq!(timers.expire(135).len(), 1);
        assert_eq!(timers.overrun(P, id), Ok(3));
        assert_eq!(timers.next_deadline(), Some(140));
        assert_eq!(timers.expire(140).len(), 1);
        assert_eq!(timers.overrun(P, id), Ok(0));
        assert_eq!(timers.gettime(P, id, 144), Ok((10, 6)));
    }

    #[test]
    fn a_signal_held_back_is_overrun_of_the_one_before() {
        let mut timers = Timers::default();
        let id = posix(&mut timers, P, 40);
        timers.settime(P, id, Some(10), 10, 0).unwrap();
        timers.expire(10);
        for (now, overrun) in [(20, 1), (45, 3)] {
            timers.expire(now);
            timers.held_back(P, id);
            assert_eq!(timers.overrun(P, id), Ok(overrun));
        }
        timers.expire(50);
        assert_eq!(timers.overrun(P, id), Ok(0));
    }

    #[test]
    fn equal_deadlines_fire_in_order_of_birth() {
        let mut timers = Timers::default();
        let (first, second) = (posix(&mut timers, P, 1), posix(&mut timers, P, 2));
        let other = posix(&mut timers, 1, 3);
        timers.settime(1, other, Some(10), 0, 0).unwrap();
        timers.settime(P, second, Some(10), 0, 0).unwrap();
        timers.settime(P, first, Some(10), 0, 0).unwrap();
        let early = posix(&mut timers, P, 4);
        timers.settime(P, early, Some(9), 0, 0).unwrap();
        let order: Vec<_> = timers.expire(10).iter().map(|firing| firing.signal).collect();
        assert_eq!(order, [4, 1, 2, 3]);
    }

    #[test]
    fn the_lowest_free_id_is_given() {
        let mut timers = Timers::default();
        let ids: Vec<_> = (0..3).map(|_| posix(&mut timers, P, 1)).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert_eq!(timers.delete(P, 1), Ok(()));
        assert_eq!(timers.delete(P, 1), Err(Errno::EINVAL));
        assert_eq!((posix(&mut timers, P, 1), posix(&mut timers, P, 1), posix(&mut timers, 4, 1)), (1, 3, 0));
        for _ in 4..POSIX_TIMERS_MAX {
            posix(&mut timers, P, 1);
        }
        assert_eq!(timers.create(P, ClockId::Realtime, None), Err(Errno::EAGAIN));
    }

    #[test]
    fn without_an_event_it_is_sigalrm_with_the_id() {
        let mut timers = Timers::default();
        posix(&mut timers, P, 1);
        let id = timers.create(P, ClockId::Realtime, None).unwrap();
        timers.settime(P, id, Some(5), 0, 9).unwrap();
        assert_eq!(timers.clock_of(P, id), Some(ClockId::Realtime));
        assert_eq!(timers.gettime(P, id, 9), Ok((0, 1)));
        let kind = Kind::Posix { id: 1 };
        assert_eq!(timers.expire(9), [Firing { process: P, signal: libc::SIGALRM, kind, thread: None, value: 1 }]);
    }

    #[test]
    fn unknown_timers_are_invalid() {
        let mut timers = Timers::default();
        assert_eq!(timers.settime(P, 0, None, 0, 0), Err(Errno::EINVAL));
        assert_eq!(timers.gettime(P, 0, 0), Err(Errno::EINVAL));
        assert_eq!(timers.overrun(P, 0), Err(Errno::EINVAL));
        assert_eq!(timers.clock_of(P, 0), None);
        posix(&mut timers, P, 1);
        assert_eq!(timers.gettime(P, -1, 0), Err(Errno::EINVAL));
    }

    #[test]
    fn exec_ends_posix_timers_and_death_all() {
        let mut timers = Timers::default();
        let id = posix(&mut timers, P, 1);
        timers.settime(P, id, Some(10), 0, 0).unwrap();
        timers.set_interval(P, 0, 20, 0, 0);
        timers.set_interval(4, 0, 30, 0, 0);
        timers.on_exec(P);
        assert_eq!((timers.next_deadline(), timers.clock_of(P, id)), (Some(20), None));
        timers.remove_process(P);
        assert_eq!(timers.next_deadline(), Some(30));
        timers.remove_process(4);
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn disarming_forgets_deadline_and_interval() {
        let mut timers = Timers::default();
        let id = posix(&mut timers, P, 1);
        timers.settime(P, id, Some(10), 5, 0).unwrap();
        assert_eq!(timers.settime(P, id, None, 5, 4), Ok((5, 6)));
        assert_eq!((timers.next_deadline(), timers.gettime(P, id, 4)), (None, Ok((0, 0))));
    }

    proptest! {
        #[test]
        fn nothing_due_is_left(
            sets in proptest::collection::vec((0..3_u32, any::<u64>(), any::<u64>()), 1..20),
            mut moments in proptest::collection::vec(any::<u64>(), 1..20),
        ) {
            let mut timers = Timers::default();
            for (process, at, interval) in sets {
                let id = posix(&mut timers, process, 1);
                timers.settime(process, id, Some(at), interval, 0).unwrap();
            }
            moments.sort_unstable();
            for now in moments {
                timers.expire(now);
                prop_assert!(timers.next_deadline().is_none_or(|at| at > now));
            }
        }
    }
}
