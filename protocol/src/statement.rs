//! in-toto Statement v1: what is said (`predicate`) about which bytes (`subject`).
//!
//! Each of our statements has exactly one subject, named by its SHA-256 alone; a second one could not be tied to the predicate by
//! any rule here. Absent on purpose: the optional members of in-toto's ResourceDescriptor.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// `_type` of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The thing a statement is about: an in-toto ResourceDescriptor with a name and one digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// `run.json` in a receipt, `config.json` in an intent, `intent` in an abort.
    pub name: String,
    /// SHA-256 of the subject's bytes (of an intent: of its envelope's PAE).
    pub digest: Sha256Digest,
}

/// A statement with predicate `P`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<P> {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// Exactly one.
    pub subject: Vec<Subject>,
    /// URI that says what `P` is.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said.
    pub predicate: P,
}

impl<P> Statement<P> {
    /// A statement about one subject.
    pub fn new(name: &str, digest: Sha256Digest, predicate_type: &str, predicate: P) -> Self {
        Self {
            type_: STATEMENT_TYPE.to_owned(),
            subject: vec![Subject { name: name.to_owned(), digest }],
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }
}
