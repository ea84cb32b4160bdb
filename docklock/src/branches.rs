//! Whether this processor counts retired conditional branches alike each time: what a later scheduler would preempt spinning tasks by.
//!
//! Instruction counts differ from run to run, because interrupts add to them; the count of conditional branches does not, where
//! hardware and hypervisor keep it. Nothing relies on it yet: it is measured for `docklock doctor` and for the host vector of a receipt.

use std::arch::x86_64::__cpuid;
use std::hint::black_box;
use std::io;

use crate::kernel::counter::Counter;

/// Retired conditional branches: AMD's event 0xd1 (PPR of family 17h and later), Intel's 0xc4 with mask 0x01 (SDM, volume 3, BR_INST_RETIRED).
const AMD_EVENT: u64 = 0xd1;
const INTEL_EVENT: u64 = 0x01c4;

/// What the counter did.
#[derive(Debug)]
pub enum SelfTest {
    /// The same count in every run.
    Exact {
        /// That count.
        count: u64,
    },
    /// Different counts for the same work.
    Inexact {
        /// The lowest.
        least: u64,
        /// The highest.
        most: u64,
    },
    /// There is none.
    Absent {
        /// What the kernel said.
        reason: io::Error,
    },
}

impl SelfTest {
    /// The word of a receipt's host vector.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Exact { .. } => "exact",
            Self::Inexact { .. } => "inexact",
            Self::Absent { .. } => "absent",
        }
    }
}

/// Counts the branches of `runs` times the same loop of `turns` turns.
pub fn self_test(runs: usize, turns: u64) -> SelfTest {
    match counts(runs, turns) {
        Ok(counts) => judge(&counts),
        Err(reason) => SelfTest::Absent { reason },
    }
}

fn counts(runs: usize, turns: u64) -> io::Result<Vec<u64>> {
    let event = if is_intel() { INTEL_EVENT } else { AMD_EVENT };
    let counter = Counter::open(event)?;
    (0..runs)
        .map(|_| {
            counter.of(|| {
                let mut sum = 0_u64;
                for turn in 0..black_box(turns) {
                    sum = black_box(sum ^ turn);
                }
            })
        })
        .collect()
}

fn is_intel() -> bool {
    // "Genu" of GenuineIntel, in EBX.
    __cpuid(0).ebx == u32::from_le_bytes(*b"Genu")
}

/// A counter that never counts is none.
fn judge(counts: &[u64]) -> SelfTest {
    match (counts.iter().min(), counts.iter().max()) {
        (Some(&least), Some(&most)) if most == least && most > 0 => SelfTest::Exact { count: most },
        (Some(&least), Some(&most)) if most > 0 => SelfTest::Inexact { least, most },
        _ => SelfTest::Absent { reason: io::Error::from_raw_os_error(libc::ENODATA) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_count_above_zero_is_exact() {
        assert!(matches!(judge(&[7, 7, 7]), SelfTest::Exact { count: 7 }));
        assert!(matches!(judge(&[7, 8, 7]), SelfTest::Inexact { least: 7, most: 8 }));
        assert!(matches!(judge(&[0, 0]), SelfTest::Absent { .. }));
        assert!(matches!(judge(&[]), SelfTest::Absent { .. }));
    }

    #[test]
    fn where_there_is_a_counter_it_counts_each_turn_of_the_loop() {
        match self_test(5, 10_000) {
            SelfTest::Exact { count } | SelfTest::Inexact { least: count, .. } => assert!(count >= 10_000, "{count}"),
            SelfTest::Absent { reason } => eprintln!("skipped: {reason}"),
        }
    }
}
