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
    /// Why.
    pub reason: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [nr, name, host, turns, condition, reason] = columns[..] else { return None };
        let row = Self {
            nr: nr.parse().ok()?,
            name,
            // Without turns there is no engine to answer.
            host: Class::from_word(host).filter(|class| *class != Class::Virtual)?,
            turns: Class::from_word(turns)?,
            condition: (condition != "-").then_some(condition),
            reason,
        };
        (!reason.is_empty()).then_some(row)
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

    #[test]
    fn every_condition_a_row_names_exists_and_lets_something_pass() {
        for name in table().iter().filter_map(|row| row.condition) {
            let clauses = condition::clauses(name).unwrap();
            assert!(clauses.iter().any(|clause| !matches!(clause.class, Class::Deny(_))), "{name}");
        }
    }

    #[test]
    fn calls_that_stand_or_fall_together_have_one_class() {
        for pair in [["pkey_alloc", "pkey_free"], ["io_uring_setup", "io_uring_enter"], ["faccessat", "faccessat2"]] {
            let [one, other] = pair.map(|name| named(name).unwrap());
            assert_eq!((one.host, one.turns), (other.host, other.turns), "{pair:?}");
        }
    }

    #[test]
    fn an_incomplete_row_is_refused() {
        assert!(Row::parse("1\twrite\tallow\tvirtual\t-\twhy").is_some());
        for wrong in [
            "1\twrite\tvirtual\tvirtual\t-\twhy",
            "1\twrite\tallow\tdeny\t-\twhy",
            "1\twrite\tallow\t-\twhy",
            "1\twrite\tallow\tvirtual\t-\t",
        ] {
            assert_eq!(Row::parse(wrong), None, "{wrong:?}");
        }
    }
}
