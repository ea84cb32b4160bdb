//! Reads the engine's log of decisions, and finds the first at which two logs part.
//!
//! A log is the 8 bytes `DLTRACE1` and then records of 40 bytes, little-endian: task u32, system call i32 (negative: an event beside the
//! calls), logical time u64 in nanoseconds since 1970, result i64, two arguments u64. The root in a receipt covers the first 24 bytes of
//! each; arguments are often addresses and are for people. Always true: memory does not grow with the log, and a record that is cut off
//! is an error, never an end.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufReader, ErrorKind, Read};

use bpi_policies::syscalls;
use serde::Serialize;

/// First bytes of a log.
pub const MAGIC: [u8; 8] = *b"DLTRACE1";
/// Bytes of one record.
pub const RECORD_BYTES: usize = 40;
/// Bytes of a record that the root covers.
const COVERED_BYTES: usize = 24;
/// Result of a call that the kernel was left to run.
const CONTINUED: i64 = i64::MIN;
/// Most records that are read: 160 GiB, more than a day of calls at two microseconds each.
const EVENTS_MAX: u64 = 1 << 32;
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// How many records before a divergence are shown.
const BEFORE: usize = 5;

/// Names of the events beside calls, from -1 down.
const EVENTS: [&str; 9] = ["turn", "clone", "exec", "end", "signal", "rdtsc", "timer", "cpuid", "rdrand"];

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Another kind of file.
    #[error("it does not begin with DLTRACE1")]
    NotALog,
    /// The writer was stopped in the middle of a record.
    #[error("it is cut off: {left} bytes follow record {events}, and a record has 40")]
    CutOff {
        /// Whole records before.
        events: u64,
        /// Bytes of the torn one.
        left: usize,
    },
    /// More than anybody wrote.
    #[error("it has more than {EVENTS_MAX} records")]
    TooLong,
    /// The medium.
    #[error("it cannot be read: {source}")]
    Read {
        /// What the kernel said.
        source: io::Error,
    },
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Number of the task inside the cage.
    pub task: u32,
    /// Number of the system call, or negative for an event beside the calls.
    pub call: i32,
    /// Logical nanoseconds since 1970.
    pub at_ns: u64,
    /// What was answered; `None` when the kernel was left to run the call.
    pub result: Option<i64>,
    /// The first two arguments.
    pub args: [u64; 2],
}

impl Event {
    fn of(bytes: &[u8; RECORD_BYTES]) -> Self {
        let part = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let result = part(16).cast_signed();
        Self {
            task: half(0),
            call: half(4).cast_signed(),
            at_ns: part(8),
            result: (result != CONTINUED).then_some(result),
            args: [part(24), part(32)],
        }
    }

    /// The system call's name in the kernel's table, or the event's.
    pub fn name(&self) -> String {
        match usize::try_from(self.call) {
            Ok(nr) => {
                let row = syscalls::table().iter().find(|row| row.nr as usize == nr);
                row.map_or_else(|| format!("call {nr}"), |row| row.name.to_owned())
            }
            Err(_) => {
                let at = usize::try_from(-1 - i64::from(self.call)).unwrap_or(usize::MAX);
                EVENTS.get(at).map_or_else(|| format!("event {}", self.call), |name| (*name).to_owned())
            }
        }
    }

    /// Whether the root covers the same of both.
    fn decides_like(&self, other: &Self) -> bool {
        (self.task, self.call, self.at_ns, self.result) == (other.task, other.call, other.at_ns, other.result)
    }
}

/// `task 3: futex(0x7ffff7d8a910, 0x189) = -11 at 1640995200.000120000`
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}: {}", self.task, self.name())?;
        if self.call >= 0 {
            write!(f, "({:#x}, {:#x})", self.args[0], self.args[1])?;
        }
        match self.result {
            Some(result) => write!(f, " = {result}")?,
            None => f.write_str(", left to the kernel")?,
        }
        write!(f, " at {}.{:09}", self.at_ns / 1_000_000_000, self.at_ns % 1_000_000_000)
    }
}

/// A log, read one record at a time.
pub struct Log<R> {
    input: BufReader<R>,
    events: u64,
}

impl<R: Read> Log<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TraceError::NotALog`], [`TraceError::Read`].
    pub fn open(input: R) -> Result<Self, TraceError> {
        let mut log = Self { input: BufReader::with_capacity(BUFFER_BYTES, input), events: 0 };
        let mut magic = [0; MAGIC.len()];
        if log.fill(&mut magic)? < magic.len() || magic != MAGIC {
            return Err(TraceError::NotALog);
        }
        Ok(log)
    }

    /// Reads until `bytes` is full or the log ends; how far it came.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, TraceError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(TraceError::Read { source }),
            }
        }
        Ok(filled)
    }

    fn record(&mut self) -> Result<Option<[u8; RECORD_BYTES]>, TraceError> {
        let mut bytes = [0; RECORD_BYTES];
        match self.fill(&mut bytes)? {
            0 => return Ok(None),
            RECORD_BYTES => {}
            left => return Err(TraceError::CutOff { events: self.events, left }),
        }
        if self.events == EVENTS_MAX {
            return Err(TraceError::TooLong);
        }
        self.events += 1;
        Ok(Some(bytes))
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// [`TraceError::CutOff`], [`TraceError::TooLong`], [`TraceError::Read`].
    pub fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        Ok(self.record()?.map(|bytes| Event::of(&bytes)))
    }
}

/// The root over a whole log as a receipt names it, lower-case hexadecimal, and the number of its records.
///
/// # Errors
/// Any [`TraceError`].
pub fn root(input: impl Read) -> Result<(String, u64), TraceError> {
    let mut log = Log::open(input)?;
    let mut hash = blake3::Hasher::new();
    while let Some(record) = log.record()? {
        hash.update(&record[..COVERED_BYTES]);
    }
    Ok((hash.finalize().to_hex().to_string(), log.events))
}

/// Where two logs part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Divergence {
    /// Place of the record in both logs, counted from 0.
    pub index: u64,
    /// The record on the left; `None` when that log ends here.
    pub left: Option<Event>,
    /// The record on the right; `None` when that log ends here.
    pub right: Option<Event>,
    /// What came before in both, oldest first.
    pub before: Vec<Event>,
}

/// What two logs have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceDiff {
    /// Decisions that both logs have, in the same order.
    pub common: u64,
    /// The first that differs, if one does.
    pub divergence: Option<Divergence>,
    /// Place of the first record whose arguments differ although the decision is the same: often an address, and often the cause.
    pub first_argument: Option<u64>,
}

/// Reads two logs in step until they part.
///
/// # Errors
/// Any [`TraceError`], of either log.
pub fn first_divergence(left: impl Read, right: impl Read) -> Result<TraceDiff, TraceError> {
    let (mut left, mut right) = (Log::open(left)?, Log::open(right)?);
    let mut diff = TraceDiff { common: 0, divergence: None, first_argument: None };
    let mut before = VecDeque::with_capacity(BEFORE);
    loop {
        let (one, other) = (left.next_event()?, right.next_event()?);
        match (one, other) {
            (None, None) => return Ok(diff),
            (Some(one), Some(other)) if one.decides_like(&other) => {
                if one.args != other.args && diff.first_argument.is_none() {
                    diff.first_argument = Some(diff.common);
                }
                diff.common += 1;
                if before.len() == BEFORE {
                    before.pop_front();
                }
                before.push_back(one);
            }
            (left, right) => {
                diff.divergence = Some(Divergence { index: diff.common, left, right, before: before.into() });
                return Ok(diff);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(task: u32, call: i32, at_ns: u64, result: i64, args: [u64; 2]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(task.to_le_bytes());
        bytes.extend(call.to_le_bytes());
        bytes.extend(at_ns.to_le_bytes());
        bytes.extend(result.to_le_bytes());
        args.iter().for_each(|arg| bytes.extend(arg.to_le_bytes()));
        bytes
    }

    fn log(records: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC.to_vec(), records.concat()].concat()
    }

    fn steps(count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|n| record(1, 202, 1_640_995_200_000_000_000 + n, n.cast_signed(), [n, 0])).collect()
    }

    #[test]
    fn equal_logs_do_not_part_and_have_one_root() {
        let one = log(&steps(1000));
        let diff = first_divergence(&one[..], &one[..]).unwrap();
        assert_eq!((diff.common, diff.divergence, diff.first_argument), (1000, None, None));
        assert_eq!(root(&one[..]).unwrap().1, 1000);
    }

    #[test]
    fn the_first_decision_that_differs_is_found_with_what_came_before() {
        let (mut one, mut other) = (steps(100), steps(100));
        other[70] = record(1, 202, 1_640_995_200_000_000_070, -11, [0, 0]);
        one[3] = record(1, 202, 1_640_995_200_000_000_003, 3, [77, 0]);
        let diff = first_divergence(&log(&one)[..], &log(&other)[..]).unwrap();
        let parted = diff.divergence.unwrap();
        assert_eq!((parted.index, diff.common, diff.first_argument), (70, 70, Some(3)));
        assert_eq!((parted.left.unwrap().result, parted.right.unwrap().result), (Some(70), Some(-11)));
        assert_eq!(
            parted.before.iter().map(|event| event.result).collect::<Vec<_>>(),
            (65..70).map(Some).collect::<Vec<_>>()
        );
        assert_ne!(root(&log(&one)[..]).unwrap(), root(&log(&other)[..]).unwrap());
    }

    #[test]
    fn a_log_that_ends_early_parts_at_its_end() {
        let diff = first_divergence(&log(&steps(3))[..], &log(&steps(5))[..]).unwrap();
        let parted = diff.divergence.unwrap();
        assert_eq!((parted.index, parted.left, parted.right.unwrap().result), (3, None, Some(3)));
    }

    #[test]
    fn the_root_covers_no_arguments() {
        let (one, other) = (record(1, 1, 2, 3, [4, 5]), record(1, 1, 2, 3, [6, 7]));
        assert_eq!(root(&log(&[one])[..]).unwrap(), root(&log(&[other])[..]).unwrap());
    }

    #[test]
    fn what_is_no_log_or_is_cut_off_is_an_error() {
        assert!(matches!(root(&b"DLTRACE"[..]), Err(TraceError::NotALog)));
        assert!(matches!(root(&b"DLTRACE2"[..]), Err(TraceError::NotALog)));
        let mut torn = log(&steps(2));
        torn.truncate(torn.len() - 1);
        assert!(matches!(root(&torn[..]), Err(TraceError::CutOff { events: 1, left: 39 })));
    }

    #[test]
    fn an_event_reads_as_a_person_would_say_it() {
        let event =
            Event { task: 3, call: 202, at_ns: 1_640_995_200_000_120_000, result: Some(-11), args: [0x7f00, 0x189] };
        assert_eq!(event.to_string(), "task 3: futex(0x7f00, 0x189) = -11 at 1640995200.000120000");
        let turn = Event { call: -1, result: Some(0), ..event };
        assert_eq!(turn.to_string(), "task 3: turn = 0 at 1640995200.000120000");
        let strange = Event { call: -99, result: None, ..event };
        assert!(strange.to_string().starts_with("task 3: event -99, left to the kernel"), "{strange}");
        assert_eq!(Event { call: i32::MIN, ..event }.name(), "event -2147483648");
    }
}
