//! The ladder: what about a piece of evidence is true, what is false, and what could not be checked.
//!
//! Every rung is PASS, FAIL or NOT CHECKED with its reason, and every falsehood has its own sentence ([`Falsehood`]). Trust comes from
//! the caller alone. A rung is judged even when one below it failed, as far as that says something, because the second
//! falsehood often tells what the first is about. Absent on purpose: any guess; what is not proved is not PASS.

mod anchor;
mod availability;
mod falsehood;
mod report;
mod rungs;
mod withheld;

pub use falsehood::Falsehood;
pub use report::{Claimed, Level, LevelError, Report, Row, RowName, Ruling, Status, Withheld};

use crate::chain::{Entry, Record};
use crate::evidence::{AVAILABILITY_FILE, Evidence, FINALITY_FILE};
use crate::redaction::Redaction;
use crate::trust::Trust;

/// Judges `evidence` by `trust`. Which rows are required is `level`'s; all are always reported.
pub fn verify(evidence: &Evidence, trust: &Trust, level: Level) -> Report {
    Verifier::new(trust).judge(evidence, None, level)
}

/// Judges one piece of evidence after another, and remembers what it has found of validator sets and seals: a header seals many receipts.
#[derive(Debug)]
pub struct Verifier<'a> {
    trust: &'a Trust,
    seals: anchor::Seals,
}

impl<'a> Verifier<'a> {
    /// Believes whom `trust` names.
    pub fn new(trust: &'a Trust) -> Self {
        Self { trust, seals: anchor::Seals::default() }
    }

    /// As [`verify`]. Of evidence of which parts were withheld, what only they could show is NOT CHECKED and named.
    pub fn judge(&mut self, evidence: &Evidence, redaction: Option<&Redaction>, level: Level) -> Report {
        let Self { trust, seals } = self;
        let entry = evidence.entry();
        let signature = rungs::signature(evidence, trust, &entry);
        let (inclusion, finality) = anchor::findings(evidence, trust, seals);
        let availability = availability::finding(evidence, trust, &finality, seals);
        let rows = vec![
            Row::of(RowName::Signature, rungs::signature_finding(&signature, evidence)),
            Row::of(RowName::Identity, rungs::identity(&signature, &entry)),
            Row::of(RowName::Schema, withheld::schema(redaction, rungs::schema(evidence, &entry), &entry)),
            Row::of(RowName::Chain, rungs::chain(evidence, redaction, trust, &entry)),
            Row::of(RowName::Inclusion, withheld::unless(redaction, FINALITY_FILE, inclusion)),
            Row::of(RowName::Finality, withheld::unless(redaction, FINALITY_FILE, finality)),
            Row::of(RowName::Availability, withheld::unless(redaction, AVAILABILITY_FILE, availability)),
            Row::not_checked(RowName::Policy, "no policy was given"),
            Row::not_checked(RowName::Rerun, "the run was not done again"),
        ];
        let claimed = match &entry {
            Ok(Entry { record: Record::Receipt(receipt), .. }) => Some(Claimed::of(receipt)),
            _ => None,
        };
        let withheld = redaction.map(|redaction| withheld::parts(redaction, evidence, &entry)).unwrap_or_default();
        Report::new(level, rows, claimed, withheld)
    }
}
