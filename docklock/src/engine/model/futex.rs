//! Who waits on which futex, and who is woken: futex(2) without the kernel.
//!
//! The kernel would wake in an order that depends on hash buckets and on the host's load; here waiters stand in one line for each word and
//! leave it from the front. The caller reads the guest's word, compares it, and keeps deadlines; this model keeps the lines.
//!
//! As in the kernel: a waiter has a bitset, a wake of 0 or fewer wakes one, a requeued waiter keeps its bitset and stands last.
//! Refused with ENOSYS: priority inheritance, FUTEX_FD and operations we do not know. A waiter waits on one word (futex_waitv(2) is not modelled).
//! Bound: one entry for each task, so as many as the cage has tasks.

use std::collections::{BTreeMap, VecDeque};

use nix::errno::Errno;

/// `FUTEX_BITSET_MATCH_ANY`.
pub const MATCH_ANY: u32 = u32::MAX;

/// Which word, as the kernel tells words apart (futex(2): "two processes may map the same page at different addresses").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A word of one address space.
    Private {
        /// The address space.
        mm: u64,
        /// Address of the word.
        addr: u64,
    },
    /// A word of a shared mapping.
    Shared {
        /// Device of the mapped file.
        dev: u64,
        /// Inode of the mapped file.
        ino: u64,
        /// Byte in the file.
        offset: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    task: u32,
    bitset: u32,
}

/// All lines of waiters.
#[derive(Debug, Default)]
pub struct Futexes {
    lines: BTreeMap<Key, VecDeque<Waiter>>,
    places: BTreeMap<u32, Key>,
}

impl Futexes {
    /// Nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `task` last in the line of `key`. A task that waited elsewhere leaves that line.
    ///
    /// # Errors
    /// `EINVAL` for an empty bitset.
    pub fn wait(&mut self, task: u32, key: Key, bitset: u32) -> Result<(), Errno> {
        if bitset == 0 {
            return Err(Errno::EINVAL);
        }
        self.remove(task);
        self.lines.entry(key).or_default().push_back(Waiter { task, bitset });
        self.places.insert(task, key);
        Ok(())
    }

    /// Takes up to `count` waiters whose bitset meets `bitset` from the line of `key`, first come first. A count below 1 counts as 1, as in the
    /// kernel. An empty bitset, which the kernel answers with `EINVAL`, wakes nobody; see [`Command::parse`].
    pub fn wake(&mut self, key: Key, count: i32, bitset: u32) -> Vec<u32> {
        let count = usize::try_from(count).unwrap_or(0).max(1);
        self.take(key, count, bitset)
    }

    /// FUTEX_REQUEUE and FUTEX_CMP_REQUEUE: wakes `wake_n` waiters of `from`, and moves up to `requeue_n` of the others to the end of the line
    /// of `to`, each with its bitset. Gives the woken and how many moved; the call returns the sum.
    ///
    /// # Errors
    /// `EINVAL` for a negative count.
    pub fn requeue(&mut self, from: Key, to: Key, wake_n: i32, requeue_n: i32) -> Result<(Vec<u32>, usize), Errno> {
        let wake_n = usize::try_from(wake_n).map_err(|_| Errno::EINVAL)?;
        let requeue_n = usize::try_from(requeue_n).map_err(|_| Errno::EINVAL)?;
        let woken = self.take(from, wake_n, MATCH_ANY);
        let Some(mut line) = self.lines.remove(&from) else { return Ok((woken, 0)) };
        let moved = line.len().min(requeue_n);
        if from == to {
            self.lines.insert(from, line);
            return Ok((woken, moved));
        }
        let staying = line.split_off(moved);
        if !staying.is_empty() {
            self.lines.insert(from, staying);
        }
        if !line.is_empty() {
            self.places.extend(line.iter().map(|waiter| (waiter.task, to)));
            self.lines.entry(to).or_default().extend(line);
        }
        Ok((woken, moved))
    }

    /// Takes `task` out of its line: its deadline passed, a signal came, or it died. Whether it waited.
    pub fn remove(&mut self, task: u32) -> bool {
        let Some(key) = self.places.remove(&task) else { return false };
        if let Some(line) = self.lines.get_mut(&key) {
            line.retain(|waiter| waiter.task != task);
            if line.is_empty() {
                self.lines.remove(&key);
            }
        }
        true
    }

    /// What `task` waits on.
    pub fn place(&self, task: u32) -> Option<Key> {
        self.places.get(&task).copied()
    }

    /// Tasks that wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn take(&mut self, key: Key, count: usize, bitset: u32) -> Vec<u32> {
        let Some(line) = self.lines.get_mut(&key) else { return Vec::new() };
        let mut woken = Vec::new();
        line.retain(|waiter| {
            let wakes = woken.len() < count && waiter.bitset & bitset != 0;
            if wakes {
                woken.push(waiter.task);
            }
            !wakes
        });
        if line.is_empty() {
            self.lines.remove(&key);
        }
        for task in &woken {
            self.places.remove(task);
        }
        woken
    }
}

/// What a futex(2) asks for, without its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// FUTEX_WAIT: until woken, or `timeout` has passed on CLOCK_MONOTONIC.
    Wait,
    /// FUTEX_WAKE.
    Wake,
    /// FUTEX_REQUEUE.
    Requeue,
    /// FUTEX_CMP_REQUEUE: `EAGAIN` unless the word is `val3`.
    CmpRequeue,
    /// FUTEX_WAKE_OP: see [`WakeOp`].
    WakeOp,
    /// FUTEX_WAIT_BITSET: until woken, or the clock shows `timeout`.
    WaitBitset,
    /// FUTEX_WAKE_BITSET.
    WakeBitset,
}

/// The `futex_op` argument of futex(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// What is asked.
    pub operation: Operation,
    /// FUTEX_PRIVATE_FLAG: the word is private whatever its mapping says.
    pub private: bool,
    /// FUTEX_CLOCK_REALTIME: `timeout` is on CLOCK_REALTIME instead of CLOCK_MONOTONIC.
    pub realtime: bool,
}

impl Command {
    /// Takes the argument apart.
    ///
    /// # Errors
    /// `ENOSYS` for operations that are not modelled, and for FUTEX_CLOCK_REALTIME on others than FUTEX_WAIT_BITSET (`do_futex` of the kernel).
    pub fn parse(op: u32) -> Result<Self, Errno> {
        const PRIVATE: u32 = 128;
        const CLOCK_REALTIME: u32 = 256;
        let operation = match op & !(PRIVATE | CLOCK_REALTIME) {
            0 => Operation::Wait,
            1 => Operation::Wake,
            3 => Operation::Requeue,
            4 => Operation::CmpRequeue,
            5 => Operation::WakeOp,
            9 => Operation::WaitBitset,
            10 => Operation::WakeBitset,
            _ => return Err(Errno::ENOSYS),
        };
        let realtime = op & CLOCK_REALTIME != 0;
        if realtime && operation != Operation::WaitBitset {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { operation, private: op & PRIVATE != 0, realtime })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Add,
    Or,
    AndNot,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The `val3` of FUTEX_WAKE_OP: changes the second word, and wakes its waiters if the old value compares (futex(2), FUTEX_WAKE_OP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeOp {
    change: Change,
    operand: i32,
    comparison: Comparison,
    against: i32,
}

impl WakeOp {
    /// Takes the word apart: `shift:1 op:3 cmp:4 oparg:12 cmparg:12`, both arguments signed. A shift takes the low 5 bits of its operand, as the
    /// kernel does.
    ///
    /// # Errors
    /// `ENOSYS` for an unknown change or comparison. The kernel would still have made the change before it refuses the comparison; we make none.
    pub fn parse(word: u32) -> Result<Self, Errno> {
        let change = match word >> 28 & 7 {
            0 => Change::Set,
            1 => Change::Add,
            2 => Change::Or,
            3 => Change::AndNot,
            4 => Change::Xor,
            _ => return Err(Errno::ENOSYS),
        };
        let comparison = match word >> 24 & 15 {
            0 => Comparison::Equal,
            1 => Comparison::NotEqual,
            2 => Comparison::Less,
            3 => Comparison::LessOrEqual,
            4 => Comparison::Greater,
            5 => Comparison::GreaterOrEqual,
            _ => return Err(Errno::ENOSYS),
        };
        let argument = sign_extended(word >> 12);
        let operand = if word >> 31 == 1 { 1_i32 << (argument & 31) } else { argument };
        Ok(Self { change, operand, comparison, against: sign_extended(word) })
    }

    /// What the word becomes.
    pub fn apply(&self, old: u32) -> u32 {
        let operand = self.operand.cast_unsigned();
        match self.change {
            Change::Set => operand,
            Change::Add => old.wrapping_add(operand),
            Change::Or => old | operand,
            Change::AndNot => old & !operand,
            Change::Xor => old ^ operand,
        }
    }

    /// Whether the waiters of the second word are woken too. The kernel compares signed.
    pub fn compare(&self, old: u32) -> bool {
        let old = old.cast_signed();
        match self.comparison {
            Comparison::Equal => old == self.against,
            Comparison::NotEqual => old != self.against,
            Comparison::Less => old < self.against,
            Comparison::LessOrEqual => old <= self.against,
            Comparison::Greater => old > self.against,
            Comparison::GreaterOrEqual => old >= self.against,
        }
    }
}

/// The low 12 bits as a signed number.
fn sign_extended(bits: u32) -> i32 {
    (bits << 20).cast_signed() >> 20
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const A: Key = Key::Private { mm: 1, addr: 0x1000 };
    const B: Key = Key::Shared { dev: 1, ino: 2, offset: 8 };

    fn waiting(tasks: &[(u32, Key, u32)]) -> Futexes {
        let mut futexes = Futexes::new();
        for (task, key, bitset) in tasks {
            futexes.wait(*task, *key, *bitset).unwrap();
        }
        futexes
    }

    #[test]
    fn who_came_first_is_woken_first() {
        let mut futexes = waiting(&[(3, A, MATCH_ANY), (1, A, MATCH_ANY), (2, B, MATCH_ANY)]);
        assert_eq!(futexes.wake(A, 1, MATCH_ANY), [3]);
        assert_eq!(futexes.wake(A, 9, MATCH_ANY), [1]);
        assert!(futexes.wake(A, 9, MATCH_ANY).is_empty());
        assert_eq!(futexes.len(), 1);
    }

    #[test]
    fn words_of_other_address_spaces_are_other_words() {
        let mut futexes = waiting(&[(1, A, MATCH_ANY)]);
        assert!(futexes.wake(Key::Private { mm: 2, addr: 0x1000 }, 1, MATCH_ANY).is_empty());
    }

    #[test]
    fn a_wake_of_none_wakes_one() {
        let mut futexes = waiting(&[(1, A, MATCH_ANY), (2, A, MATCH_ANY), (3, A, MATCH_ANY)]);
        assert_eq!(futexes.wake(A, 0, MATCH_ANY), [1]);
        assert_eq!(futexes.wake(A, -5, MATCH_ANY), [2]);
    }

    #[test]
    fn bitsets_choose_who_wakes() {
        let mut futexes = waiting(&[(1, A, 1), (2, A, 2), (3, A, 3)]);
        assert_eq!(futexes.wake(A, 9, 2), [2, 3]);
        assert_eq!(futexes.wait(4, A, 0), Err(Errno::EINVAL));
        assert_eq!(futexes.len(), 1);
    }

    #[test]
    fn a_requeue_wakes_moves_and_leaves() {
        let mut futexes = waiting(&[(9, B, MATCH_ANY), (1, A, 1), (2, A, 2), (3, A, 4), (4, A, 8)]);
        assert_eq!(futexes.requeue(A, B, 1, 2), Ok((vec![1], 2)));
        assert_eq!(futexes.place(3), Some(B));
        assert_eq!(futexes.wake(B, 2, 4), [9, 3]);
        assert_eq!(futexes.wake(B, 9, MATCH_ANY), [2]);
        assert_eq!(futexes.wake(A, 9, MATCH_ANY), [4]);
        assert_eq!(futexes.requeue(A, B, -1, 0), Err(Errno::EINVAL));
        assert_eq!(futexes.requeue(A, B, 0, -1), Err(Errno::EINVAL));
    }

    #[test]
    fn a_requeue_to_itself_keeps_the_line() {
        let mut futexes = waiting(&[(1, A, MATCH_ANY), (2, A, MATCH_ANY), (3, A, MATCH_ANY)]);
        assert_eq!(futexes.requeue(A, A, 1, 1), Ok((vec![1], 1)));
        assert_eq!(futexes.wake(A, 9, MATCH_ANY), [2, 3]);
    }

    #[test]
    fn who_leaves_is_not_woken() {
        let mut futexes = waiting(&[(1, A, MATCH_ANY), (2, A, MATCH_ANY)]);
        assert!(futexes.remove(1));
        assert!(!futexes.remove(1));
        assert_eq!(futexes.wake(A, 1, MATCH_ANY), [2]);
        assert!(futexes.is_empty());
    }

    #[test]
    fn commands_are_taken_apart_as_the_kernel_does() {
        assert_eq!(Command::parse(128), Ok(Command { operation: Operation::Wait, private: true, realtime: false }));
        assert_eq!(
            Command::parse(9 | 256),
            Ok(Command { operation: Operation::WaitBitset, private: false, realtime: true })
        );
        assert_eq!(Command::parse(256), Err(Errno::ENOSYS));
        for unmodelled in [2, 6, 7, 8, 11, 12, 13, 14, 512, u32::MAX] {
            assert_eq!(Command::parse(unmodelled), Err(Errno::ENOSYS), "{unmodelled}");
        }
    }

    /// `FUTEX_OP(op, oparg, cmp, cmparg)` of linux/futex.h.
    fn word(op: u32, oparg: u32, cmp: u32, cmparg: u32) -> u32 {
        (op & 15) << 28 | (cmp & 15) << 24 | (oparg & 0xfff) << 12 | cmparg & 0xfff
    }

    #[test]
    fn a_wake_op_changes_the_word_and_compares_the_old_one() {
        let glibc = WakeOp::parse(word(0, 0, 4, 1)).unwrap();
        assert_eq!((glibc.apply(2), glibc.compare(2), glibc.compare(1)), (0, true, false));
        let changed = |op, oparg, old| WakeOp::parse(word(op, oparg, 0, 0)).unwrap().apply(old);
        assert_eq!(changed(1, 0xfff, 5), 4);
        assert_eq!(changed(2, 6, 1), 7);
        assert_eq!(changed(3, 6, 7), 1);
        assert_eq!(changed(4, 3, 6), 5);
        assert_eq!(changed(8, 31, 5), 1 << 31);
        assert_eq!(changed(8 | 2, 33, 0), 2);
        let compared = |cmp, cmparg, old| WakeOp::parse(word(0, 0, cmp, cmparg)).unwrap().compare(old);
        assert!(compared(2, 0, u32::MAX) && compared(0, 0xfff, u32::MAX) && compared(1, 1, 2));
        assert!(compared(3, 4, 4) && compared(5, 4, 4) && !compared(4, 4, 4));
        assert_eq!(WakeOp::parse(word(5, 0, 0, 0)), Err(Errno::ENOSYS));
        assert_eq!(WakeOp::parse(word(0, 0, 6, 0)), Err(Errno::ENOSYS));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(u32, u64, u32),
        Wake(u64, i32, u32),
        Requeue(u64, u64, i32, i32),
        Remove(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..12_u32, 0..4_u64, 0..4_u32).prop_map(|(task, key, bitset)| Step::Wait(task, key, bitset)),
            (0..4_u64, -1..4_i32, 0..4_u32).prop_map(|(key, count, bitset)| Step::Wake(key, count, bitset)),
            (0..4_u64, 0..4_u64, -1..4_i32, -1..4_i32)
                .prop_map(|(from, to, wake, move_)| Step::Requeue(from, to, wake, move_)),
            (0..12_u32).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// Against the plainest model there is: one list of (task, key, bitset) in order of arrival.
        #[test]
        fn lines_are_what_one_list_would_be(steps in proptest::collection::vec(step(), 0..60)) {
            let key = |number: u64| Key::Private { mm: number / 2, addr: number };
            let (mut futexes, mut list) = (Futexes::new(), Vec::<(u32, Key, u32)>::new());
            let wake = |list: &mut Vec<(u32, Key, u32)>, at: Key, count: usize, bitset: u32| {
                let mut woken = Vec::new();
                list.retain(|(task, key, bits)| {
                    let wakes = *key == at && bits & bitset != 0 && woken.len() < count;
                    if wakes { woken.push(*task) }
                    !wakes
                });
                woken
            };
            for step in steps {
                match step {
                    Step::Wait(task, at, bitset) => if futexes.wait(task, key(at), bitset).is_ok() {
                        list.retain(|waiter| waiter.0 != task);
                        list.push((task, key(at), bitset));
                    },
                    Step::Wake(at, count, bitset) => {
                        let expected = wake(&mut list, key(at), usize::try_from(count.max(1)).unwrap(), bitset);
                        prop_assert_eq!(futexes.wake(key(at), count, bitset), expected);
                    }
                    Step::Requeue(from, to, wake_n, move_n) => {
                        let Ok((woken, moved)) = futexes.requeue(key(from), key(to), wake_n, move_n) else { continue };
                        prop_assert_eq!(woken, wake(&mut list, key(from), usize::try_from(wake_n).unwrap(), MATCH_ANY));
                        let movers: Vec<_> = list.iter().filter(|waiter| waiter.1 == key(from)).take(moved).copied().collect();
                        prop_assert_eq!(movers.len(), moved);
                        if from != to {
                            list.retain(|waiter| !movers.contains(waiter));
                            list.extend(movers.into_iter().map(|(task, _, bitset)| (task, key(to), bitset)));
                        }
                    }
                    Step::Remove(task) => {
                        let waited = list.iter().any(|waiter| waiter.0 == task);
                        list.retain(|waiter| waiter.0 != task);
                        prop_assert_eq!(futexes.remove(task), waited);
                    }
                }
                prop_assert_eq!(futexes.len(), list.len());
            }
        }
    }
}
