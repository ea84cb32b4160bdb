//! Reading a chain in order, and everything that can be wrong with the order.

use std::collections::BTreeMap;

use super::{Entry, Record};
use crate::digest::Sha256Digest;
use crate::receipt::Intent;

/// Why a record cannot follow those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Records are missing.
    #[error("records {first} to {last} are missing: seq {after} is followed by seq {found}", after = first - 1, found = last + 1)]
    Gap {
        /// First missing position.
        first: u64,
        /// Last missing position.
        last: u64,
    },
    /// A number was passed over although no record is missing.
    #[error("seq {found} names seq {previous} as the one before it: the numbers between them were left out")]
    Skipped {
        /// Position found.
        found: u64,
        /// Position before it.
        previous: u64,
    },
    /// The chain does not begin at seq 0 although it should.
    #[error("the chain begins at seq {found}; its first records are missing")]
    Headless {
        /// Position of the first record.
        found: u64,
    },
    /// The very same record again.
    #[error("the record at seq {seq} is there twice (a replay)")]
    Replay {
        /// Position.
        seq: u64,
    },
    /// Two records for one position.
    #[error("two different records claim seq {seq} (a fork)")]
    Fork {
        /// Position.
        seq: u64,
    },
    /// An earlier position after a later one.
    #[error("seq {found} stands after seq {previous} (records out of order)")]
    Reordered {
        /// Position found.
        found: u64,
        /// Position before it.
        previous: u64,
    },
    /// The link does not name the record before.
    #[error("the record at seq {seq} names {prev} as the one before it, but seq {before} is {actual}", before = seq - 1)]
    Unlinked {
        /// Position.
        seq: u64,
        /// What it names.
        prev: Sha256Digest,
        /// What stands there.
        actual: Sha256Digest,
    },
    /// A record of another chain.
    #[error("the record at seq {seq} belongs to boundary {found:?}, but the chain is that of {wanted:?}")]
    Boundary {
        /// Position.
        seq: u64,
        /// Boundary in the record.
        found: String,
        /// Boundary of the chain.
        wanted: String,
    },
    /// A record of another host.
    #[error("the record at seq {seq} is of host {found:?}, but the chain is that of {wanted:?}")]
    Host {
        /// Position.
        seq: u64,
        /// Host in the record.
        found: String,
        /// Host of the chain.
        wanted: String,
    },
    /// A closing record without its intent.
    #[error("the {kind} at seq {seq} closes intent {started_ref}, which is not in the chain before it")]
    IntentMissing {
        /// Position.
        seq: u64,
        /// `receipt` or `abort`.
        kind: &'static str,
        /// What it names.
        started_ref: Sha256Digest,
    },
    /// A second closing record.
    #[error("the {kind} at seq {seq} closes an intent that the {closed_by} at seq {closed_at} closed already")]
    ClosedTwice {
        /// Position.
        seq: u64,
        /// `receipt` or `abort`.
        kind: &'static str,
        /// Position of the first closing record.
        closed_at: u64,
        /// `receipt` or `abort`.
        closed_by: &'static str,
    },
    /// The intent is about another container.
    #[error("the {kind} at seq {seq} is of container {found:?}, but the intent it closes is of {wanted:?}")]
    OtherContainer {
        /// Position.
        seq: u64,
        /// `receipt` or `abort`.
        kind: &'static str,
        /// Container of the closing record.
        found: String,
        /// Container of the intent.
        wanted: String,
    },
    /// What ran is not what was intended.
    #[error("the receipt at seq {seq} is of another {what} than its intent announced")]
    OtherPlan {
        /// Position.
        seq: u64,
        /// `cage` or `configuration`.
        what: &'static str,
    },
}

/// An intent that nothing has closed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Digest of its PAE.
    pub pae_digest: Sha256Digest,
    /// Its position.
    pub seq: u64,
    /// The container it announced.
    pub container_id: String,
}

struct Announced {
    seq: u64,
    intent: Box<Intent>,
    config: Sha256Digest,
}

/// Reads the records of one chain in order and refuses the first that does not fit.
///
/// Memory: one entry for each open intent and less than 100 bytes for each closed one.
#[derive(Default)]
pub struct Walk {
    whole: bool,
    head: Option<Head>,
    open: BTreeMap<Sha256Digest, Announced>,
    closed: BTreeMap<Sha256Digest, (u64, &'static str)>,
    found: Option<Sha256Digest>,
}

struct Head {
    boundary: String,
    host_id: String,
    seq: u64,
    pae_digest: Sha256Digest,
}

impl Walk {
    /// For a whole chain: the first record must be seq 0, and every closing record must find its intent.
    pub fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// For a stretch of a chain: it may begin anywhere, and a closing record may close an intent from before the stretch.
    pub fn stretch() -> Self {
        Self::default()
    }

    /// Takes the next record.
    ///
    /// # Errors
    ///
    /// Why it cannot follow those before it; the walk is then as it was before the call.
    pub fn step(&mut self, entry: &Entry) -> Result<(), ChainError> {
        let Entry { record, subject, pae_digest } = entry;
        let (link, pae_digest) = (record.chain(), *pae_digest);
        self.check_link(record, pae_digest)?;
        self.check_close(record)?;
        match record {
            Record::Intent(intent) => {
                let announced = Announced { seq: link.seq, intent: intent.clone(), config: *subject };
                self.open.insert(pae_digest, announced);
            }
            Record::Receipt(_) | Record::Abort(_) => {
                if let Some(intent) = link.started_ref {
                    self.found = self.open.remove(&intent).map(|_| intent);
                    self.closed.insert(intent, (link.seq, record.kind()));
                }
            }
        }
        self.head = Some(Head {
            boundary: link.boundary.clone(),
            host_id: record.host().id.clone(),
            seq: link.seq,
            pae_digest,
        });
        Ok(())
    }

    /// Passes over a record that is known by its position and its digest alone; `like` is a record of the same chain. What it closed, and
    /// whether it names the one before it, stays unknown.
    ///
    /// # Errors
    ///
    /// When it does not come right after the last one.
    pub fn pass_over(&mut self, seq: u64, pae_digest: Sha256Digest, like: &Record) -> Result<(), ChainError> {
        if let Some(head) = &self.head {
            if seq <= head.seq {
                return Err(ChainError::Fork { seq });
            }
            if seq > head.seq + 1 {
                return Err(ChainError::Gap { first: head.seq + 1, last: seq - 1 });
            }
        }
        let (boundary, host_id) = (like.chain().boundary.clone(), like.host().id.clone());
        self.head = Some(Head { boundary, host_id, seq, pae_digest });
        Ok(())
    }

    fn check_link(&self, record: &Record, pae_digest: Sha256Digest) -> Result<(), ChainError> {
        let (link, seq) = (record.chain(), record.chain().seq);
        let Some(head) = &self.head else {
            return if self.whole && seq != 0 { Err(ChainError::Headless { found: seq }) } else { Ok(()) };
        };
        if link.boundary != head.boundary {
            let (found, wanted) = (link.boundary.clone(), head.boundary.clone());
            return Err(ChainError::Boundary { seq, found, wanted });
        }
        if record.host().id != head.host_id {
            let (found, wanted) = (record.host().id.clone(), head.host_id.clone());
            return Err(ChainError::Host { seq, found, wanted });
        }
        if pae_digest == head.pae_digest {
            return Err(ChainError::Replay { seq });
        }
        if seq == head.seq {
            return Err(ChainError::Fork { seq });
        }
        if seq < head.seq {
            return Err(ChainError::Reordered { found: seq, previous: head.seq });
        }
        if seq > head.seq + 1 && link.prev == Some(head.pae_digest) {
            return Err(ChainError::Skipped { found: seq, previous: head.seq });
        }
        if seq > head.seq + 1 {
            return Err(ChainError::Gap { first: head.seq + 1, last: seq - 1 });
        }
        match link.prev {
            Some(prev) if prev != head.pae_digest => Err(ChainError::Unlinked { seq, prev, actual: head.pae_digest }),
            _ => Ok(()),
        }
    }

    fn check_close(&self, record: &Record) -> Result<(), ChainError> {
        let (link, seq, kind) = (record.chain(), record.chain().seq, record.kind());
        let Some(started_ref) = link.started_ref else { return Ok(()) };
        if let Some(&(closed_at, closed_by)) = self.closed.get(&started_ref) {
            return Err(ChainError::ClosedTwice { seq, kind, closed_at, closed_by });
        }
        let Some(announced) = self.open.get(&started_ref) else {
            return if self.whole { Err(ChainError::IntentMissing { seq, kind, started_ref }) } else { Ok(()) };
        };
        if announced.intent.container_id != record.container_id() {
            let (found, wanted) = (record.container_id().to_owned(), announced.intent.container_id.clone());
            return Err(ChainError::OtherContainer { seq, kind, found, wanted });
        }
        if let Record::Receipt(receipt) = record {
            if receipt.run.cage != announced.intent.cage {
                return Err(ChainError::OtherPlan { seq, what: "cage" });
            }
            if receipt.run.config.digest != announced.config {
                return Err(ChainError::OtherPlan { seq, what: "configuration" });
            }
        }
        Ok(())
    }

    /// Position and PAE digest of the last record: what the next one must follow.
    pub fn head(&self) -> Option<(u64, Sha256Digest)> {
        self.head.as_ref().map(|head| (head.seq, head.pae_digest))
    }

    /// Whether the record named `intent` was walked over, is an intent, and the last record closed it.
    pub fn was_intent(&self, intent: &Sha256Digest) -> bool {
        self.found == Some(*intent)
    }

    /// Intents that nothing has closed, by position.
    pub fn open(&self) -> Vec<OpenIntent> {
        let mut open: Vec<_> = (self.open.iter())
            .map(|(pae_digest, announced)| OpenIntent {
                pae_digest: *pae_digest,
                seq: announced.seq,
                container_id: announced.intent.container_id.clone(),
            })
            .collect();
        open.sort_by_key(|intent| intent.seq);
        open
    }
}
