//! What the ladder looks like: rows, the level asked for, and the one sentence and exit code that follow from them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::Falsehood;
use crate::digest::Sha256Digest;
use crate::receipt::Receipt;

/// How much must be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Signed by a trusted host, and whole.
    Signed,
    /// And the intent and everything between it and the receipt are there.
    Chained,
    /// And in a log.
    Included,
    /// And final, with its data available.
    Final,
    /// Signed, chained, and the same when run again. Needs no log.
    Rerun,
}

/// A word that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("level {found:?} is none of signed, chained, included, final and rerun")]
pub struct LevelError {
    /// The refused word.
    pub found: String,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 5] = [Self::Signed, Self::Chained, Self::Included, Self::Final, Self::Rerun];

    /// Its word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Chained => "chained",
            Self::Included => "included",
            Self::Final => "final",
            Self::Rerun => "rerun",
        }
    }

    /// Rows that must PASS.
    pub const fn required(self) -> &'static [RowName] {
        use RowName::{Availability, Chain, Finality, Identity, Inclusion, Rerun, Schema, Signature};
        match self {
            Self::Signed => &[Signature, Identity, Schema],
            Self::Chained => &[Signature, Identity, Schema, Chain],
            Self::Included => &[Signature, Identity, Schema, Chain, Inclusion],
            Self::Final => &[Signature, Identity, Schema, Chain, Inclusion, Finality, Availability],
            Self::Rerun => &[Signature, Identity, Schema, Chain, Rerun],
        }
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let found = || LevelError { found: text.chars().take(100).collect() };
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(found)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Rungs of the ladder, from the ground up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowName {
    /// A trusted key signed exactly these bytes.
    Signature,
    /// The key is that of the host the statement names.
    Identity,
    /// The statement keeps every rule, and its subject is its run.
    Schema,
    /// From the intent to the receipt no record is missing, added or changed.
    Chain,
    /// The receipt is in a log.
    Inclusion,
    /// A quorum sealed the log's state.
    Finality,
    /// The data can be had.
    Availability,
    /// The checker's own policy agrees.
    Policy,
    /// The same plan gave the same run-hash again.
    Rerun,
}

impl RowName {
    /// All rungs, from the ground up.
    pub const ALL: [Self; 9] = [
        Self::Signature,
        Self::Identity,
        Self::Schema,
        Self::Chain,
        Self::Inclusion,
        Self::Finality,
        Self::Availability,
        Self::Policy,
        Self::Rerun,
    ];

    /// Its one word, for programs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Chain => "chain",
            Self::Rerun => "rerun",
            other => other.as_str(),
        }
    }

    /// Its words in the ladder.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Identity => "identity",
            Self::Schema => "schema and run-hash",
            Self::Chain => "chain without gaps",
            Self::Inclusion => "inclusion",
            Self::Finality => "finality",
            Self::Availability => "availability",
            Self::Policy => "policy",
            Self::Rerun => "re-executed",
        }
    }
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for RowName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What was found about a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Proved true.
    Pass,
    /// Proved false.
    Fail,
    /// Neither.
    NotChecked,
}

impl Status {
    /// Its words in the ladder.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::NotChecked => "NOT CHECKED",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How a rung was found: true and why, false and how, or why it could not be checked.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    True(String),
    False(Falsehood),
    Unknown(String),
}

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which.
    pub name: RowName,
    /// What was found.
    pub status: Status,
    /// Why, in one sentence.
    pub detail: String,
    /// What is false, when something is.
    #[serde(skip)]
    pub falsehood: Option<Falsehood>,
}

impl Row {
    pub(super) fn of(name: RowName, finding: Finding) -> Self {
        match finding {
            Finding::True(detail) => Self { name, status: Status::Pass, detail, falsehood: None },
            Finding::Unknown(detail) => Self { name, status: Status::NotChecked, detail, falsehood: None },
            Finding::False(falsehood) => {
                Self { name, status: Status::Fail, detail: falsehood.to_string(), falsehood: Some(falsehood) }
            }
        }
    }

    pub(super) fn not_checked(name: RowName, why: &str) -> Self {
        Self::of(name, Finding::Unknown(why.to_owned()))
    }
}

/// The whole ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub level: Level,
    /// From the ground up.
    pub rows: Vec<Row>,
    /// What the receipt claims of its repeatability; none where it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Claimed>,
    /// What was taken out of the evidence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    /// Whether a policy was asked: then its row has to PASS at every level.
    #[serde(skip)]
    policy_asked: bool,
}

/// Something that was taken out of the evidence before it was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Withheld {
    /// `config.json`, or `chain.jsonl, seq 12`.
    pub part: String,
    /// By which it will be known again.
    pub digest: Sha256Digest,
    /// Whether something that was signed commits to this digest.
    pub committed: bool,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.committed { "signed records commit to it" } else { "by the word of whoever withheld it" };
        write!(f, "sha256:{}, {by}", self.digest)
    }
}

/// What an acceptance policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Name of the policy, for people.
    pub policy: String,
    /// Whether it accepts.
    pub accept: bool,
    /// Why it does not.
    pub reasons: BTreeSet<String>,
}

/// What a receipt claims of its repeatability. The signer's word: no row of the ladder rests on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claimed {
    /// `D0` … `D3`.
    pub level: String,
    /// Class of the scheduler; `host` in records that do not say.
    pub schedule: String,
    /// Sources that nothing controlled.
    pub uncontrolled: Vec<String>,
    /// How often the run left the deterministic path.
    pub escapes: usize,
}

impl Claimed {
    pub(super) fn of(receipt: &Receipt) -> Self {
        let assurance = &receipt.assurance;
        let open = assurance.sources.iter().filter(|source| source.status == "uncontrolled");
        Self {
            level: assurance.level.clone(),
            schedule: assurance.schedule.clone().unwrap_or_else(|| "host".to_owned()),
            uncontrolled: open.map(|source| source.name.clone()).collect(),
            escapes: assurance.escapes.len(),
        }
    }
}

impl fmt::Display for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, schedule {}", self.level, self.schedule)?;
        if self.uncontrolled.is_empty() {
            f.write_str("; no source uncontrolled")?;
        } else {
            write!(f, "; uncontrolled: {}", self.uncontrolled.join(", "))?;
        }
        match self.escapes {
            0 => Ok(()),
            1 => f.write_str("; 1 escape"),
            escapes => write!(f, "; {escapes} escapes"),
        }
    }
}

impl Report {
    pub(super) fn new(level: Level, rows: Vec<Row>, claimed: Option<Claimed>, withheld: Vec<Withheld>) -> Self {
        Self { level, rows, claimed, withheld, policy_asked: false }
    }

    /// With what a policy says of it. What a policy accepts that is not signed by a trusted host is NOT CHECKED: nobody said it.
    #[must_use]
    pub fn with_ruling(mut self, ruling: Ruling) -> Self {
        let unproved = Level::Signed.required().iter().find(|name| self.status(**name) != Status::Pass);
        let Ruling { policy, accept, reasons } = ruling;
        let finding = match (accept, unproved) {
            (true, None) => Finding::True(format!("{policy} accepts it")),
            (true, Some(name)) => {
                Finding::Unknown(format!("{policy} would accept what it says, but {name} does not pass"))
            }
            (false, _) if reasons.is_empty() => {
                Finding::False(Falsehood::Refused { policy, reasons: vec!["it gives no reason".to_owned()] })
            }
            (false, _) => Finding::False(Falsehood::Refused { policy, reasons: reasons.into_iter().collect() }),
        };
        self.policy_asked = true;
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == RowName::Policy) {
            *row = Row::of(RowName::Policy, finding);
        }
        self
    }

    /// With what came of doing the run again: its run-hash, and that of the receipt.
    #[must_use]
    pub fn with_rerun(mut self, found: Sha256Digest, signed: Sha256Digest) -> Self {
        let finding = if found == signed {
            Finding::True(format!("the same run-hash {found} again"))
        } else {
            Finding::False(Falsehood::RerunDiffers { found, signed })
        };
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == RowName::Rerun) {
            *row = Row::of(RowName::Rerun, finding);
        }
        self
    }

    /// What was found about that rung.
    pub fn status(&self, name: RowName) -> Status {
        self.rows.iter().find(|row| row.name == name).map_or(Status::NotChecked, |row| row.status)
    }

    /// Whether that rung has to PASS.
    pub fn requires(&self, name: RowName) -> bool {
        self.level.required().contains(&name) || (self.policy_asked && name == RowName::Policy)
    }

    /// The first row that is false.
    pub fn first_false(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.status == Status::Fail)
    }

    /// The first required row that could not be checked.
    pub fn first_missing(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.status == Status::NotChecked && self.requires(row.name))
    }

    /// 0 all that was required passes, 1 the evidence is false, 3 incomplete, 4 refused by policy, 5 the rerun differs. (2, malformed
    /// or misuse, is for those who have no evidence to judge.)
    pub fn exit_code(&self) -> u8 {
        match self.first_false().map(|row| row.name) {
            Some(RowName::Policy) => 4,
            Some(RowName::Rerun) => 5,
            Some(_) => 1,
            None if self.first_missing().is_some() => 3,
            None => 0,
        }
    }

    /// One sentence: the first falsehood, else what is missing, else that all is well.
    pub fn verdict(&self) -> String {
        match (self.first_false(), self.first_missing()) {
            (Some(row), _) if row.name == RowName::Policy => format!("refused: {}: {}", row.name, row.detail),
            (Some(row), _) => format!("false: {}: {}", row.name, row.detail),
            (None, Some(row)) => {
                let who =
                    if row.name == RowName::Policy { "--policy".to_owned() } else { format!("level {}", self.level) };
                format!("incomplete: {who} needs {}: {}", row.name, row.detail)
            }
            (None, None) => format!("true: everything that level {} requires passes", self.level),
        }
    }
}

impl fmt::Display for Report {
    /// The ladder as text, one row a line, what is claimed, and the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "{:<11}  {:<19}  {}", row.status, row.name, row.detail)?;
        }
        if let Some(claimed) = &self.claimed {
            writeln!(f, "{:<11}  {:<19}  {claimed}", "CLAIMED", "determinism")?;
        }
        for withheld in &self.withheld {
            writeln!(f, "{:<11}  {:<19}  {withheld}", "WITHHELD", withheld.part)?;
        }
        writeln!(f, "{}", self.verdict())
    }
}
