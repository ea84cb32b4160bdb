//! What is counted: for the receipt, and for whoever asks where the time goes.

use std::collections::BTreeMap;

use bpi_policies::Policy;
use bpi_protocol::run::CallCount;

/// System call numbers that are counted one by one; the highest of Linux 6.18 is below.
const NUMBERS: usize = 512;

/// Answered and refused calls.
#[derive(Debug)]
pub(super) struct Counts {
    answered: Box<[u64; NUMBERS]>,
    denied: BTreeMap<(&'static str, &'static str), u64>,
}

impl Counts {
    pub fn new() -> Self {
        Self { answered: Box::new([0; NUMBERS]), denied: BTreeMap::new() }
    }

    pub fn answered(&mut self, nr: i64) {
        if let Some(count) = usize::try_from(nr).ok().and_then(|nr| self.answered.get_mut(nr)) {
            *count += 1;
        }
    }

    pub fn denied(&mut self, syscall: &'static str, errno: &'static str) {
        *self.denied.entry((syscall, errno)).or_default() += 1;
    }

    /// How often one of these calls was answered.
    pub fn of(&self, calls: &[i64]) -> u64 {
        calls.iter().filter_map(|nr| self.answered.get(usize::try_from(*nr).ok()?)).sum()
    }

    /// Refused calls, sorted by name, then errno.
    pub fn denied_calls(&self) -> Vec<CallCount> {
        self.denied
            .iter()
            .map(|((syscall, errno), count)| CallCount {
                syscall: (*syscall).to_owned(),
                errno: Some((*errno).to_owned()),
                count: *count,
            })
            .collect()
    }

    /// Answered calls, sorted by name.
    pub fn answered_calls(&self, policy: &Policy) -> Vec<CallCount> {
        let mut calls: Vec<CallCount> = (0..)
            .zip(self.answered.iter())
            .filter(|(_, count)| **count > 0)
            .map(|(nr, count)| {
                let call = bpi_policies::Call { arch: bpi_policies::AUDIT_ARCH_X86_64, nr, args: [0; 6] };
                CallCount { syscall: policy.name_of(&call).to_owned(), errno: None, count: *count }
            })
            .collect();
        calls.sort();
        calls
    }
}

/// Numbers for people and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub calls: u64,
    pub turns: u64,
    pub hooks: u64,
    pub events: u64,
    pub execs: u64,
    pub clones: u64,
    pub tsc: u64,
    pub cpuid: u64,
    pub rdrand: u64,
    pub patched: u64,
    pub unclear: u64,
    pub forced: u64,
    pub escapes: u64,
    pub tasks_most: u64,
}

impl Counters {
    pub fn to_map(self) -> BTreeMap<String, u64> {
        [
            ("calls", self.calls),
            ("turns", self.turns),
            ("hooks", self.hooks),
            ("events", self.events),
            ("execs", self.execs),
            ("clones", self.clones),
            ("tsc", self.tsc),
            ("cpuid", self.cpuid),
            ("rdrand", self.rdrand),
            ("code-patched", self.patched),
            ("code-unclear", self.unclear),
            ("forced", self.forced),
            ("escapes", self.escapes),
            ("tasks-most", self.tasks_most),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
    }
}
