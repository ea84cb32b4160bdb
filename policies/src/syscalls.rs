//! The table of every x86-64 system call: `data/syscalls-x86_64.tsv` as values.
//!
//! It holds each number from 0 to 336 and from 424 to 469 once. A kernel newer than the table knows more; those are refused as unknown.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::{Class, Schedule};

const DATA: &str = include_str!("../data/syscalls-x86_64.tsv");

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number in arch/x86/entry/syscalls/syscall_64.tbl.
    pub nr: u32,
    /// The kernel's name.
    pub name: &'static str,
    /// What becomes of it where scheduling is the host's and no clause of its condition holds.
    pub host: Class,
    /// What becomes of it where tasks take turns and no clause of its condition holds.
    pub turns: Class,
    /// Name of its condition.
    pub condition: Option<&'static str>,
    /// `group:` and the group of conformance programs that exercise it.
    pub test: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [nr, name, host, turns, condition, test, reason] = columns[..] else { return None };
        let row = Self {
            nr: nr.parse().ok()?,
            name,
            // Without turns there is no engine to answer.
            host: Class::from_word(host).filter(|class| *class != Class::Virtual)?,
            turns: Class::from_word(turns)?,
            condition: (condition != "-").then_some(condition),
            test,
            reason,
        };
        (test.starts_with("group:") && !reason.is_empty()).then_some(row)
    }

    /// What becomes of it under `schedule` where no clause of its condition holds.
    pub fn class(&self, schedule: Schedule) -> Class {
        match schedule {
            Schedule::Host => self.host,
            Schedule::Turns => self.turns,
        }
    }
}

fn parse(data: &'static str) -> Result<Vec<Row>, &'static str> {
    data.lines().filter(|line| !line.starts_with('#')).map(|line| Row::parse(line).ok_or(line)).collect()
}

/// Every row, by rising number.
pub fn table() -> &'static [Row] {
    static TABLE: OnceLock<Vec<Row>> = OnceLock::new();
    TABLE.get_or_init(|| parse(DATA).expect("the embedded table is constant and a test reads every row of it"))
}

/// The row of that name.
pub fn named(name: &str) -> Option<&'static Row> {
    static NAMES: OnceLock<BTreeMap<&'static str, &'static Row>> = OnceLock::new();
    NAMES.get_or_init(|| table().iter().map(|row| (row.name, row)).collect()).get(name).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::condition;

    #[test]
    fn every_number_of_the_architecture_has_exactly_one_row() {
        let numbers: Vec<u32> = parse(DATA).unwrap().iter().map(|row| row.nr).collect();
        assert_eq!(numbers, (0..=336).chain(424..=469).collect::<Vec<_>>());
    }

    #[test]
    fn every_name_is_used_once() {
        let names: BTreeSet<_> = table().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), table().len());
    }

    /// The kernel's own table, as the headers that every C compiler here needs have it. A newer kernel's calls must get rows.
    #[test]
    fn every_call_of_the_kernels_headers_has_a_row_of_its_name() {
        let header = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]
            .into_iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .expect("the kernel's headers (linux-libc-dev) are installed");
        let calls: Vec<(&str, u32)> = header
            .lines()
            .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
            .map(|(name, nr)| (name, nr.trim().parse().unwrap()))
            .collect();
        assert!(calls.len() > 350, "{}", calls.len());
        for (name, nr) in calls {
            assert_eq!(named(name).map(|row| row.nr), Some(nr), "{name}");
        }
    }

    #[test]
    fn every_row_says_why_and_names_a_group_of_the_conformance_corpus() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/cage/programs.toml");
        let corpus: toml::Table = std::fs::read_to_string(corpus).unwrap().parse().unwrap();
        let programs = corpus["program"].as_array().unwrap();
        let groups: BTreeSet<_> = programs.iter().map(|program| program["row"].as_str().unwrap()).collect();
        for row in table() {
            assert!(row.reason.len() > 9, "{}: {:?}", row.name, row.reason);
            assert!(row.test.strip_prefix("group:").is_some_and(|group| groups.contains(group)), "{row:?}");
        }
    }

    #[test]
    fn the_group_tells_what_turns_make_of_a_row() {
        for row in table() {
            let class = match row.test {
                "group:refusals" => matches!(row.turns, Class::Deny(_)) && row.condition.is_none(),
                "group:runtimes" => row.turns == Class::Allow || row.condition.is_some(),
                _ => row.turns == Class::Virtual || row.condition.is_some() || row.test == "group:processes",
            };
            assert!(class, "{row:?}");
        }
    }

    #[test]
    fn every_condition_is_used_and_can_make_a_difference() {
        let used: BTreeSet<_> = table().iter().filter_map(|row| row.condition).collect();
        assert_eq!(used, condition::names().collect());
        for row in table() {
            let Some(clauses) = row.condition.and_then(condition::clauses) else { continue };
            assert!(clauses.iter().any(|clause| clause.class != row.turns), "{}", row.name);
            let passes = |class| !matches!(class, Class::Deny(_));
            assert!(passes(row.turns) || clauses.iter().any(|clause| passes(clause.class)), "{}", row.name);
        }
    }

    /// Turns order what can be seen: a call that passes by default would pass whatever a clause says of it.
    #[test]
    fn under_turns_a_conditional_call_passes_only_by_a_clause() {
        for row in table().iter().filter(|row| row.condition.is_some()) {
            assert_ne!(row.turns, Class::Allow, "{}", row.name);
            let refuses = |clause: &condition::Clause| {
                matches!(clause.class, Class::Deny(_)) && clause.when != condition::When::Turns
            };
            let clauses = row.condition.and_then(condition::clauses).unwrap();
            assert!(row.host != Class::Allow || !clauses.iter().any(refuses), "{}", row.name);
        }
    }

    /// Linux 5.19 (README) ends with set_mempolicy_home_node. What came later is there on one host and missing on another.
    #[test]
    fn under_turns_no_call_passes_that_the_oldest_kernel_lacks() {
        for row in table().iter().filter(|row| row.nr > named("set_mempolicy_home_node").unwrap().nr) {
            assert!(matches!(row.turns, Class::Deny(_)) && row.condition.is_none(), "{}", row.name);
        }
    }

    #[test]
    fn calls_that_stand_or_fall_together_have_one_class() {
        for family in [
            "pkey_alloc pkey_free pkey_mprotect",
            "io_uring_setup io_uring_enter io_uring_register",
            "faccessat faccessat2 access",
            "signalfd signalfd4",
            "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
            "timerfd_create timerfd_settime timerfd_gettime",
            "open openat creat",
            "openat2 futex_waitv",
            "shmctl semctl msgctl",
            "poll ppoll select pselect6 epoll_wait epoll_pwait epoll_pwait2",
        ] {
            let classes = |name| named(name).map(|row| (row.host, row.turns));
            let first = classes(family.split(' ').next().unwrap());
            assert!(first.is_some() && family.split(' ').all(|name| classes(name) == first), "{family}");
        }
    }

    #[test]
    fn an_incomplete_row_is_refused() {
        assert!(Row::parse("1\twrite\tallow\tvirtual\t-\tgroup:pipes\twhy").is_some());
        for wrong in [
            "1\twrite\tvirtual\tvirtual\t-\tgroup:pipes\twhy",
            "1\twrite\tallow\tdeny\t-\tgroup:pipes\twhy",
            "1\twrite\tallow\t-\tgroup:pipes\twhy",
            "1\twrite\tallow\tvirtual\t-\twhy",
            "1\twrite\tallow\tvirtual\t-\t-\twhy",
            "1\twrite\tallow\tvirtual\t-\tgroup:pipes\t",
        ] {
            assert_eq!(Row::parse(wrong), None, "{wrong:?}");
        }
    }
}
