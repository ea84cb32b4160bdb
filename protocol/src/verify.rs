//! The ladder: what about a piece of evidence is true, what is false, and what could not be checked.
//!
//! Every rung is PASS, FAIL or NOT CHECKED with its reason, and every falsehood has its own sentence ([`Falsehood`]). Trust comes from
//! the caller alone. A rung is judged even when one below it failed, as far as that says something, because the second
//! falsehood often tells what the first is about. Absent on purpose: any guess; what is not proved is not PASS.

mod anchor;
mod falsehood;
mod report;
mod rungs;

pub use falsehood::Falsehood;
pub use report::{Claimed, Level, LevelError, Report, Row, RowName, Status};

use crate::chain::{Entry, Record};
use crate::evidence::Evidence;
use crate::trust::Trust;

/// Judges `evidence` by `trust`. Which rows are required is `level`'s; all are always reported.
pub fn verify(evidence: &Evidence, trust: &Trust, level: Level) -> Report {
    let entry = evidence.entry();
    let signature = rungs::signature(evidence, trust, &entry);
    let (inclusion, finality) = anchor::findings(evidence, trust);
    let rows = vec![
        Row::of(RowName::Signature, rungs::signature_finding(&signature, evidence)),
        Row::of(RowName::Identity, rungs::identity(&signature, &entry)),
        Row::of(RowName::Schema, rungs::schema(evidence, &entry)),
        Row::of(RowName::Chain, rungs::chain(evidence, trust, &entry)),
        Row::of(RowName::Inclusion, inclusion),
        Row::of(RowName::Finality, finality),
        Row::not_checked(RowName::Availability, "no data root is part of this evidence"),
        Row::not_checked(RowName::Policy, "no policy was given"),
        Row::not_checked(RowName::Rerun, "the run was not done again"),
    ];
    let claimed = match &entry {
        Ok(Entry { record: Record::Receipt(receipt), .. }) => Some(Claimed::of(receipt)),
        _ => None,
    };
    Report::new(level, rows, claimed)
}
