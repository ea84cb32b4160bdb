//! What the arguments of a conditional system call must be: `data/conditions-x86_64.tsv` as values.
//!
//! A condition is a disjunction of rows, a row a conjunction of tests, a test a masked argument in (or not in) a set. Every row can be
//! written as masked-equals comparisons, the one operation that a BPF filter does without looking at the high half of an int.
//! Absent on purpose: pointers. What lies behind one can change between the look and the use.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::Class;

const DATA: &str = include_str!("../data/conditions-x86_64.tsv");

/// One comparison of a filter: `args[arg] & mask == value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Argument register, 0–5.
    pub arg: u8,
    /// Bits that are looked at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// When a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In every profile.
    Always,
    /// Where addresses are randomised.
    Aslr,
    /// Where they are not.
    NoAslr,
    /// Where the profile has a network of any kind.
    Inet,
    /// Where scheduling is the host's.
    Host,
    /// Where tasks take turns.
    Turns,
}

/// One test of one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    arg: u8,
    mask: u64,
    inside: bool,
    values: Vec<u64>,
}

/// One row of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// When it counts.
    pub when: When,
    /// What becomes of the call where it holds.
    pub class: Class,
    tests: Vec<Test>,
}

impl Test {
    fn holds(&self, args: &[u64; 6]) -> bool {
        let seen = args[usize::from(self.arg)] & self.mask;
        self.values.contains(&seen) == self.inside
    }

    /// The same as alternatives of one comparison each.
    fn alternatives(&self) -> Vec<Compare> {
        if self.inside {
            return self.values.iter().map(|value| Compare { arg: self.arg, mask: self.mask, value: *value }).collect();
        }
        let mut found = Vec::new();
        self.outside(Compare { arg: self.arg, mask: 0, value: 0 }, 64, &mut found);
        found
    }

    /// Everything that differs from all values, as the smallest prefixes of the mask's bits that none of them shares.
    fn outside(&self, prefix: Compare, bits_left: u32, found: &mut Vec<Compare>) {
        if !self.values.iter().any(|value| value & prefix.mask == prefix.value) {
            found.push(prefix);
            return;
        }
        let Some(bit) = (0..bits_left).rev().find(|bit| self.mask >> bit & 1 == 1) else { return };
        for value in [0, 1_u64 << bit] {
            self.outside(Compare { mask: prefix.mask | 1 << bit, value: prefix.value | value, ..prefix }, bit, found);
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (arg, rest) = text.strip_prefix('a')?.split_once('&')?;
        let (left, values) = rest.split_once('=')?;
        let (mask, inside) = left.strip_suffix('!').map_or((left, true), |mask| (mask, false));
        let test = Self {
            arg: arg.parse().ok().filter(|arg| *arg < 6)?,
            mask: number(mask)?,
            inside,
            values: values.split(',').map(number).collect::<Option<_>>()?,
        };
        test.values.iter().all(|value| value & !test.mask == 0).then_some(test)
    }
}

impl Clause {
    /// Whether all its tests hold.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        self.tests.iter().all(|test| test.holds(args))
    }

    /// The same as alternatives, each a conjunction of comparisons.
    pub fn terms(&self) -> Vec<Vec<Compare>> {
        self.tests.iter().fold(vec![Vec::new()], |terms, test| {
            let alternatives = test.alternatives();
            terms
                .iter()
                .flat_map(|term| alternatives.iter().map(|compare| term.iter().copied().chain([*compare]).collect()))
                .collect()
        })
    }

    /// The values its tests name, for tests that probe their neighbourhood.
    pub fn values(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        self.tests.iter().flat_map(|test| test.values.iter().map(|value| (test.arg, *value)))
    }

    fn parse(when: &str, class: &str, tests: &str) -> Option<Self> {
        let when = match when {
            "always" => When::Always,
            "aslr" => When::Aslr,
            "no-aslr" => When::NoAslr,
            "inet" => When::Inet,
            "host" => When::Host,
            "turns" => When::Turns,
            _ => return None,
        };
        Some(Self {
            when,
            class: Class::from_word(class)?,
            tests: tests.split(' ').map(Test::parse).collect::<Option<_>>()?,
        })
    }
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

fn parse(data: &'static str) -> Result<BTreeMap<&'static str, Vec<Clause>>, &'static str> {
    let mut conditions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in data.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut columns = line.split('\t');
        let (Some(name), Some(when), Some(class), Some(tests), None) =
            (columns.next(), columns.next(), columns.next(), columns.next(), columns.next())
        else {
            return Err(line);
        };
        conditions.entry(name).or_default().push(Clause::parse(when, class, tests).ok_or(line)?);
    }
    Ok(conditions)
}

/// The rows of the condition of that name.
pub fn clauses(name: &str) -> Option<&'static [Clause]> {
    conditions().get(name).map(Vec::as_slice)
}

/// Every condition, by name.
pub fn names() -> impl Iterator<Item = &'static str> {
    conditions().keys().copied()
}

fn conditions() -> &'static BTreeMap<&'static str, Vec<Clause>> {
    static CONDITIONS: OnceLock<BTreeMap<&'static str, Vec<Clause>>> = OnceLock::new();
    CONDITIONS.get_or_init(|| parse(DATA).expect("the embedded table is constant and a test reads every row of it"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn term_holds(term: &[Compare], args: &[u64; 6]) -> bool {
        term.iter().all(|compare| args[usize::from(compare.arg)] & compare.mask == compare.value)
    }

    #[test]
    fn every_row_of_the_table_can_be_read() {
        assert!(parse(DATA).unwrap().len() > 8);
    }

    #[test]
    fn a_value_outside_its_mask_is_refused() {
        assert_eq!(Test::parse("a1&0xf=16"), None);
    }

    proptest! {
        #[test]
        fn the_terms_of_a_row_hold_exactly_when_the_row_does(seed: [u64; 6], near in 0_usize..64, arg in 0_usize..6) {
            for clause in parse(DATA).unwrap().values().flatten() {
                let named: Vec<_> = clause.values().collect();
                let mut args = seed;
                let (index, value) = named[near % named.len()];
                args[usize::from(index)] = value;
                for args in [args, { args[arg] ^= 1 << (near % 64); args }, seed] {
                    prop_assert_eq!(clause.terms().iter().any(|term| term_holds(term, &args)), clause.holds(&args));
                }
            }
        }
    }
}
