//! A row of the table as one profile resolves it.

use std::fmt;

use crate::condition::Clause;
use crate::{Class, Compare};

/// The class of one system call under one profile, with the conditions that count there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Number in the x86-64 table.
    pub nr: u32,
    /// The kernel's name.
    pub name: &'static str,
    /// What becomes of it where no clause holds.
    pub class: Class,
    /// What becomes of it where a clause holds: an allowing one before every other, of the others the first.
    pub clauses: Vec<(Class, &'static Clause)>,
}

impl Rule {
    /// What becomes of a call with these arguments.
    pub fn decide(&self, args: &[u64; 6]) -> Class {
        let mut holding = self.clauses.iter().filter(|(_, clause)| clause.holds(args)).map(|(class, _)| *class);
        let Some(first) = holding.next() else { return self.class };
        if holding.any(|class| class == Class::Allow) { Class::Allow } else { first }
    }

    /// The arguments for which the class is [`Class::Allow`], as alternatives of comparisons that must all hold. An empty alternative
    /// holds always; no alternative holds never.
    pub fn allow_terms(&self) -> Vec<Vec<Compare>> {
        if self.class == Class::Allow {
            return vec![Vec::new()];
        }
        let allowing = self.clauses.iter().filter(|(class, _)| *class == Class::Allow);
        allowing.flat_map(|(_, clause)| clause.terms()).collect()
    }
}

/// One line for each thing a digest must cover: number, class and every clause in order.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.nr, self.class)?;
        for (class, clause) in &self.clauses {
            write!(f, "; {class:?}")?;
            for term in clause.terms() {
                f.write_str(" or")?;
                for Compare { arg, mask, value } in term {
                    write!(f, " a{arg}&{mask:#x}={value:#x}")?;
                }
            }
        }
        Ok(())
    }
}
