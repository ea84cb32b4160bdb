//! A row of the table as one profile resolves it.

use std::fmt;

use crate::condition::Clause;
use crate::{Class, Compare, Errno};

/// The class of one system call under one profile, with the conditions that count there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Number in the x86-64 table.
    pub nr: u32,
    /// The kernel's name.
    pub name: &'static str,
    /// What becomes of it where its condition holds, or always when there is none.
    pub class: Class,
    /// What answers where no clause does.
    pub refusal: Errno,
    /// Clauses that count under this profile; `None` for an unconditional rule.
    pub clauses: Option<Vec<&'static Clause>>,
}

impl Rule {
    /// What becomes of a call with these arguments.
    pub fn decide(&self, args: &[u64; 6]) -> Class {
        let Some(clauses) = &self.clauses else { return self.class };
        let holds = |clause: &&&Clause| clause.holds(args);
        if clauses.iter().filter(|clause| clause.refusal.is_none()).any(|clause| holds(&clause)) {
            return self.class;
        }
        let refusal =
            clauses.iter().filter(|clause| clause.refusal.is_some()).find(holds).and_then(|clause| clause.refusal);
        Class::Deny(refusal.unwrap_or(self.refusal))
    }

    /// The arguments for which the class is [`Class::Allow`], as alternatives of comparisons that must all hold. An empty alternative
    /// holds always; no alternative holds never.
    pub fn allow_terms(&self) -> Vec<Vec<Compare>> {
        match (self.class, &self.clauses) {
            (Class::Allow, None) => vec![Vec::new()],
            (Class::Allow, Some(clauses)) => {
                clauses.iter().filter(|clause| clause.refusal.is_none()).flat_map(|clause| clause.terms()).collect()
            }
            (Class::Deny(_) | Class::Notify, _) => Vec::new(),
        }
    }
}

/// One line for each thing a digest must cover: number, class and every clause in order.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.nr, self.class, self.refusal)?;
        for clause in self.clauses.iter().flatten() {
            write!(f, "; {:?}", clause.refusal)?;
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
