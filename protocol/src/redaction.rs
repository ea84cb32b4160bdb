//! `redaction.json`: what was taken out of a piece of evidence, each part by its digest.
//!
//! A receipt is signed as a whole, so nothing inside it can be taken out. What lies beside it can: a file, or a record of the chain
//! between the intent and the receipt. Each is named here with the digest by which it is known, so that whoever is shown the part later
//! can tell that it is the one. Always true: what is named here is NOT CHECKED by [`crate::verify`], never PASS; and where something that
//! was signed commits to a part, another digest here is a falsehood. Absent on purpose: hiding a member of a file under the digest of
//! the whole file (docs/decisions/0110).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::digest::Sha256Digest;

/// `type` of a [`Redaction`].
pub const REDACTION_TYPE: &str = "https://bpi.io/redaction/v1";
/// Name of the file.
pub const REDACTION_FILE: &str = "redaction.json";
/// Longest file: 16 files of 200 bytes, and 5 000 records of 110.
pub const REDACTION_BYTES_MAX: usize = 1 << 20;
/// Most records of a chain that may be withheld one by one; whoever hides more hides chain.jsonl.
pub const RECORDS_MAX: usize = 5_000;
/// Most files.
const FILES_MAX: usize = 16;
/// Longest name of a file.
const NAME_BYTES_MAX: usize = 64;

/// Why bytes are no list of what was withheld.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedactionError {
    /// Not canonical JSON of this shape.
    #[error("it is {0}")]
    Canonical(#[from] CanonicalError),
    /// Another type.
    #[error("type is {found:?}; it must be {REDACTION_TYPE:?}")]
    Type {
        /// What it says.
        found: String,
    },
    /// Nothing is withheld.
    #[error("it names nothing; evidence of which nothing was withheld has no such file")]
    Empty,
    /// More entries than allowed.
    #[error("it names {found} {what}, more than the limit of {max}")]
    TooMany {
        /// `files` or `records`.
        what: &'static str,
        /// How many.
        found: usize,
        /// Limit in force.
        max: usize,
    },
    /// A name that no file of evidence has.
    #[error("{name:?} is no name of a file: 1 to {NAME_BYTES_MAX} of a-z, 0-9, dot and hyphen")]
    Name {
        /// The refused name.
        name: String,
    },
    /// Entries out of order, or one twice.
    #[error("its {what} are not in ascending order, each once")]
    Order {
        /// `files` or `records`.
        what: &'static str,
    },
}

/// A file that was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WithheldFile {
    /// Its name in the folder.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Sha256Digest,
}

/// A record of the chain that was taken out of chain.jsonl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WithheldRecord {
    /// Its position.
    pub seq: u64,
    /// SHA-256 of its envelope's PAE: what the next record names as `prev`.
    pub digest: Sha256Digest,
}

/// What was withheld.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redaction {
    /// Always [`REDACTION_TYPE`].
    #[serde(rename = "type")]
    type_: String,
    files: Vec<WithheldFile>,
    records: Vec<WithheldRecord>,
}

impl Redaction {
    /// Of these files and these records.
    ///
    /// # Errors
    ///
    /// When there is nothing, too much, or a name that no file of evidence has.
    pub fn new(
        files: BTreeMap<String, Sha256Digest>,
        records: BTreeMap<u64, Sha256Digest>,
    ) -> Result<Self, RedactionError> {
        let made = Self {
            type_: REDACTION_TYPE.to_owned(),
            files: files.into_iter().map(|(name, digest)| WithheldFile { name, digest }).collect(),
            records: records.into_iter().map(|(seq, digest)| WithheldRecord { seq, digest }).collect(),
        };
        made.check()?;
        Ok(made)
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`RedactionError`]: each rule that can be broken has its own.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RedactionError> {
        let read: Self = canonical::from_bytes(bytes, REDACTION_BYTES_MAX)?;
        read.check()?;
        Ok(read)
    }

    /// The file.
    ///
    /// # Errors
    ///
    /// When a position is beyond 2^53 - 1.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_bytes(self)
    }

    fn check(&self) -> Result<(), RedactionError> {
        if self.type_ != REDACTION_TYPE {
            return Err(RedactionError::Type { found: self.type_.chars().take(200).collect() });
        }
        if self.files.is_empty() && self.records.is_empty() {
            return Err(RedactionError::Empty);
        }
        most("files", self.files.len(), FILES_MAX)?;
        most("records", self.records.len(), RECORDS_MAX)?;
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        let named = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits);
        if let Some(file) = self.files.iter().find(|file| !named(&file.name)) {
            return Err(RedactionError::Name { name: file.name.chars().take(100).collect() });
        }
        if !self.files.windows(2).all(|pair| pair[0].name < pair[1].name) {
            return Err(RedactionError::Order { what: "files" });
        }
        if !self.records.windows(2).all(|pair| pair[0].seq < pair[1].seq) {
            return Err(RedactionError::Order { what: "records" });
        }
        Ok(())
    }

    /// The files, by name.
    pub fn files(&self) -> &[WithheldFile] {
        &self.files
    }

    /// The records, by position.
    pub fn records(&self) -> &[WithheldRecord] {
        &self.records
    }

    /// The digest of the file of that name, if it was withheld.
    pub fn file(&self, name: &str) -> Option<&Sha256Digest> {
        self.files.iter().find(|file| file.name == name).map(|file| &file.digest)
    }
}

fn most(what: &'static str, found: usize, max: usize) -> Result<(), RedactionError> {
    if found > max { Err(RedactionError::TooMany { what, found, max }) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some() -> Redaction {
        let digest = Sha256Digest::of(b"x");
        Redaction::new(BTreeMap::from([("config.json".to_owned(), digest)]), BTreeMap::from([(3, digest), (4, digest)]))
            .unwrap()
    }

    #[test]
    fn what_was_written_is_what_is_read() {
        let bytes = some().to_bytes().unwrap();
        assert_eq!(Redaction::from_bytes(&bytes).unwrap(), some());
    }

    #[test]
    fn each_broken_rule_is_refused_by_its_own_sentence() {
        let text = String::from_utf8(some().to_bytes().unwrap()).unwrap();
        let read = |text: &str| Redaction::from_bytes(text.as_bytes()).unwrap_err();
        assert!(matches!(read(&text.replace("redaction/v1", "redaction/v2")), RedactionError::Type { .. }));
        assert!(matches!(read(&text.replace("config.json", "../onfig")), RedactionError::Name { .. }));
        assert!(matches!(read(&text.replace("\"seq\":4", "\"seq\":3")), RedactionError::Order { what: "records" }));
        assert!(matches!(read(&text.replace("\"seq\"", "\"sex\"")), RedactionError::Canonical(_)));
        assert_eq!(Redaction::new(BTreeMap::new(), BTreeMap::new()).unwrap_err(), RedactionError::Empty);
        let many = (0..=RECORDS_MAX as u64).map(|seq| (seq, Sha256Digest::EMPTY)).collect();
        assert!(matches!(Redaction::new(BTreeMap::new(), many).unwrap_err(), RedactionError::TooMany { .. }));
    }
}
