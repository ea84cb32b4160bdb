//! The table of every x86-64 system call: `data/syscalls-x86_64.tsv` as values.
//!
//! It holds each number from 0 to 336 and from 424 to 469 once. A kernel newer than the table knows more; those are refused as unknown.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::{Class, Errno};

const DATA: &str = include_str!("../data/syscalls-x86_64.tsv");

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number in arch/x86/entry/syscalls/syscall_64.tbl.
    pub nr: u32,
    /// The kernel's name.
    pub name: &'static str,
    /// What becomes of it, where its condition holds.
    pub class: Class,
    /// What answers where the condition does not hold.
    pub refusal: Errno,
    /// Name of its condition.
    pub condition: Option<&'static str>,
    /// Why.
    pub reason: &'static str,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [nr, name, class, errno, condition, reason] = columns[..] else { return None };
        let named = match errno {
            "-" => None,
            name => Some(Errno::from_name(name)?),
        };
        let condition = (condition != "-").then_some(condition);
        let class = match (class, named) {
            ("allow", _) => Class::Allow,
            ("notify", _) => Class::Notify,
            ("deny", Some(errno)) => Class::Deny(errno),
            _ => return None,
        };
        // A condition without an errno, or the other way round, is a row that forgot to say what happens.
        let complete = matches!(class, Class::Deny(_)) && condition.is_none() || named.is_some() == condition.is_some();
        let row =
            Self { nr: nr.parse().ok()?, name, class, refusal: named.unwrap_or(Errno::ENOSYS), condition, reason };
        (complete && !reason.is_empty()).then_some(row)
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
            assert!(clauses.iter().any(|clause| clause.refusal.is_none()), "{name}");
        }
    }

    #[test]
    fn calls_that_stand_or_fall_together_have_one_class() {
        for pair in [["pkey_alloc", "pkey_free"], ["io_uring_setup", "io_uring_enter"], ["faccessat", "faccessat2"]] {
            assert_eq!(named(pair[0]).unwrap().class, named(pair[1]).unwrap().class, "{pair:?}");
        }
    }

    #[test]
    fn an_incomplete_row_is_refused() {
        assert_eq!(Row::parse("1\twrite\tallow\tEPERM\t-\twhy"), None);
        assert_eq!(Row::parse("1\twrite\tdeny\t-\t-\twhy"), None);
        assert_eq!(Row::parse("1\twrite\tallow\t-\t-\t"), None);
    }
}
