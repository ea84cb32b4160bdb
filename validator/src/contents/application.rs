//! The side of a node that knows what headers are about: one value that a host calls in four places.
//!
//! | the core says | the host calls |
//! |---|---|
//! | `Effect::Propose` | [`Application::assemble`], after [`Application::hear`] for each list that came |
//! | `Effect::Check` | [`Application::check`], with the contents that came beside the header |
//! | `Act::Append` | [`Application::finalise`], **then** keeps the header, then [`Application::tell`] |
//! | a receipt came | [`Application::admit`] |
//!
//! A header that a quorum has prepared is not checked again by the core, so what one voter refuses by what it alone has seen never stands
//! against what f + 1 honest others have accepted.
//!
//! Always true: the log is that of the parent whenever something is made or checked, or that is the error. After a
//! [`ContentsError::Ledger`] the disk is not to be trusted and the node has to stop.

use std::collections::BTreeSet;
use std::path::Path;

use bpi_protocol::availability::attestation::{Attestation, AttestationError};
use bpi_protocol::consensus::bytes::BytesError;
use bpi_protocol::consensus::header::{Header, InboxAnchor, LogHead, PohEnd};
use bpi_protocol::consensus::ids::{Height, TimeMs, ValidatorIndex};
use bpi_protocol::log::Hash;

use super::attestations::{self, AttestationRefusal, BatchId, PinnerRules, Waiting};
use super::body::{Contents, LEAVES_MAX};
use super::dealings::{fitting, is_of_log};
use super::inbox::{self, Inbox, InboxRefusal, InboxRules};
use super::leaf::{Leaf, LeafHash};
use super::ledger::{Ledger, LedgerError};
use super::lists::{LIST_MAX, List, ListRules, Lists};
use super::mempool::{Bounds, Mempool, Refusal};
use super::poh::{self, PohError, Rate, Ticker};

/// The numbers of a chain, the same for all its validators, and of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of the chain of hashes.
    pub rate: Rate,
    /// Of inclusion lists.
    pub lists: ListRules,
    /// Of the inbox.
    pub inbox: InboxRules,
    /// Of attestations.
    pub pinners: PinnerRules,
    /// This node's own.
    pub bounds: Bounds,
    /// How far a header's time may be ahead of this node's clock, in ms: clocks differ.
    pub ahead_ms_max: u64,
    /// Threads that check hashes; this node's own.
    pub threads: usize,
}

impl Default for Rules {
    fn default() -> Self {
        let (rate, lists, inbox, pinners, bounds) = Default::default();
        Self { rate, lists, inbox, pinners, bounds, ahead_ms_max: 1_000, threads: 2 }
    }
}

/// The fields of a header that say what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitments {
    /// The log after it.
    pub receipts: LogHead,
    /// Attestations.
    pub da_root: [u8; 32],
    /// Answers to inclusion lists.
    pub inclusion_list_root: [u8; 32],
    /// How far the inbox is served.
    pub inbox: InboxAnchor,
    /// The chain of hashes.
    pub poh: PohEnd,
}

impl Commitments {
    /// Those of a header.
    pub fn of(header: &Header) -> Self {
        let Header { receipts, da_root, inclusion_list_root, inbox, poh, .. } = *header;
        Self { receipts, da_root, inclusion_list_root, inbox, poh }
    }

    /// A header with these in the place of its own.
    pub fn in_header(self, header: Header) -> Header {
        let Self { receipts, da_root, inclusion_list_root, inbox, poh } = self;
        Header { receipts, da_root, inclusion_list_root, inbox, poh, ..header }
    }
}

/// Why contents are not made, not right, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The log is not that of the parent.
    #[error("the log has {ledger} leaves here, and {parent} after the parent")]
    NotAtParent {
        /// Here.
        ledger: u64,
        /// In the parent.
        parent: u64,
    },
    /// The contents are not as they may be written.
    #[error("the contents are malformed: {0}")]
    Form(BytesError),
    /// The attestations have another root than the header's.
    #[error("the attestations have not the root of the header")]
    DaRoot,
    /// A batch is attested twice.
    #[error("batch {} is attested twice", hex::encode(da_root))]
    AttestedTwice {
        /// Which.
        da_root: Hash,
    },
    /// An attestation does not hold.
    #[error("the attestation of batch {}: {source}", hex::encode(da_root))]
    Attestation {
        /// Which batch.
        da_root: Hash,
        /// Why not.
        source: AttestationError,
    },
    /// This validator has a proof that a batch is wrongly encoded.
    #[error("batch {} is proved to be wrongly encoded", hex::encode(da_root))]
    WrongEncoding {
        /// Which.
        da_root: Hash,
    },
    /// It is of a time to come: the next header could not come before that.
    #[error("the header's time is {ahead_ms} ms ahead of the clock here, of at most {max}")]
    Time {
        /// How far.
        ahead_ms: u64,
        /// How far it may be.
        max: u64,
    },
    /// A leaf is in the log already.
    #[error("leaf {hash} is in the log already")]
    Logged {
        /// Which.
        hash: LeafHash,
    },
    /// A leaf stands for a dealer's log, which is not there.
    #[error("leaf {hash} stands for a dealer's log, and has no bytes")]
    Reserved {
        /// Which.
        hash: LeafHash,
    },
    /// A leaf is in the contents twice.
    #[error("leaf {hash} is in the contents twice")]
    Twice {
        /// Which.
        hash: LeafHash,
    },
    /// Logs of dealers that may not be in this header.
    #[error("the dealers' logs: {0}")]
    Logs(String),
    /// The leaves do not lead to the header's log.
    #[error("the leaves do not lead to the log of the header")]
    Receipts,
    /// An answer is about a leaf that is not appended.
    #[error("the answer {hash} is no leaf of this header")]
    Answer {
        /// Which.
        hash: LeafHash,
    },
    /// The answers have another root than the header's.
    #[error("the answers have not the root of the header")]
    Answers,
    /// The inbox.
    #[error(transparent)]
    Inbox(#[from] InboxRefusal),
    /// A leaf that this validator has told early enough is not in, and there was room.
    #[error("leaf {hash} was told to all and is left out")]
    LeftOut {
        /// Which.
        hash: LeafHash,
    },
    /// The chain of hashes.
    #[error(transparent)]
    Poh(#[from] PohError),
    /// The log.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ContentsError {
    /// For counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotAtParent { .. } => "not-at-parent",
            Self::Form(_) => "form",
            Self::DaRoot => "da-root",
            Self::AttestedTwice { .. } => "attested-twice",
            Self::Attestation { source, .. } => attestations::name_of(source),
            Self::WrongEncoding { .. } => "wrong-encoding",
            Self::Time { .. } => "time",
            Self::Logged { .. } => "logged",
            Self::Reserved { .. } => "reserved",
            Self::Twice { .. } => "twice",
            Self::Logs(_) => "dealer-logs",
            Self::Receipts => "receipts",
            Self::Answer { .. } => "answer",
            Self::Answers => "answers-root",
            Self::Inbox(refusal) => refusal.name(),
            Self::LeftOut { .. } => "left-out",
            Self::Poh(error) => error.name(),
            Self::Ledger(_) => "ledger",
        }
    }

    /// True for what hangs on what this validator has seen: its proposer may be honest, and other voters may rightly accept.
    pub fn is_of_the_voter(&self) -> bool {
        match self {
            Self::NotAtParent { .. } | Self::Time { .. } | Self::LeftOut { .. } | Self::Ledger(_) => true,
            // A proof may not have come to others yet.
            Self::WrongEncoding { .. } => true,
            Self::Inbox(refusal) => !matches!(refusal, InboxRefusal::Backwards { .. } | InboxRefusal::Standing { .. }),
            _ => false,
        }
    }
}

/// Why a receipt was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// For a reason that its sender can be told.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log could not be asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Leaves that wait.
    pub waiting: usize,
    /// Tenants that they are of.
    pub tenants: usize,
    /// Attestations that wait.
    pub attestations: usize,
    /// Leaves that this validator has told to others and that still wait.
    pub told: usize,
    /// Leaves of the log.
    pub logged: u64,
    /// Blocks of the first layer between what is known here and what is served.
    pub inbox_lag_blocks: u64,
}

/// All that a node knows of what headers are about.
#[derive(Debug)]
pub struct Application<I> {
    rules: Rules,
    ledger: Ledger,
    pool: Mempool,
    lists: Lists,
    attestations: Waiting,
    /// Batches that are proved to be wrongly encoded.
    wrong: BTreeSet<Hash>,
    inbox: I,
    /// The anchor of the last final header.
    served: InboxAnchor,
}

impl<I: Inbox> Application<I> {
    /// Goes on from the last final header, with the ledger in a folder ([`Ledger::create`] makes one for a genesis).
    ///
    /// # Errors
    /// Those of [`Ledger::open`].
    pub fn open(folder: &Path, rules: Rules, inbox: I, tip: &Header) -> Result<Self, LedgerError> {
        let ledger = Ledger::open(folder, &tip.receipts)?;
        let (pool, lists) = (Mempool::new(rules.bounds), Lists::new(rules.lists));
        let (attestations, wrong) = Default::default();
        Ok(Self { rules, ledger, pool, lists, attestations, wrong, inbox, served: tip.inbox })
    }

    /// The log, for proofs and for what peers have missed.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The view of the first layer, for who reads it on.
    pub fn inbox_mut(&mut self) -> &mut I {
        &mut self.inbox
    }

    /// Figures for metrics.
    pub fn figures(&self) -> Figures {
        Figures {
            waiting: self.pool.depth(),
            tenants: self.pool.tenants(),
            attestations: self.attestations.len(),
            told: self.lists.told(),
            logged: self.ledger.size(),
            inbox_lag_blocks: self.inbox.tip().map_or(0, |tip| tip.height.saturating_sub(self.served.height)),
        }
    }

    /// Takes a receipt in, to wait for a header.
    ///
    /// # Errors
    /// [`Refusal`] when it waits or is in the log already, or there is no room.
    pub fn admit(&mut self, leaf: Leaf, now_ms: u64) -> Result<LeafHash, AdmitError> {
        if is_of_log(&leaf) {
            return Err(Refusal::Reserved.into());
        }
        if let Some(index) = self.ledger.find(&leaf.leaf_hash())? {
            return Err(Refusal::Included { index }.into());
        }
        Ok(self.pool.insert(leaf, now_ms)?)
    }

    /// Takes an attestation in, to wait for a header. Whether a header has the batch already is for the caller to know.
    ///
    /// # Errors
    /// [`AttestationRefusal`] when it waits already, does not hold, is of a wrongly encoded batch, or there is no room.
    pub fn attest(&mut self, attestation: Attestation, now_ms: u64) -> Result<(), AttestationRefusal> {
        if self.wrong.contains(&attestation.batch.da_root) {
            return Err(AttestationRefusal::Wrong);
        }
        self.attestations.insert(&self.rules.pinners, attestation, TimeMs(now_ms))
    }

    /// Whether an attestation of these shards waits.
    pub fn waits(&self, da_root: &Hash) -> bool {
        !self.attestations.of_root(da_root).is_empty()
    }

    /// These batches are in a final header.
    pub fn attested(&mut self, attestations: &[Attestation]) {
        for attestation in attestations {
            self.attestations.remove(&BatchId::of(attestation));
        }
    }

    /// A batch is proved to be wrongly encoded: it is attested no more, as far as this validator has a say. False: that was known.
    pub fn refuse(&mut self, da_root: Hash) -> bool {
        for batch in self.attestations.of_root(&da_root) {
            self.attestations.remove(&batch);
        }
        self.wrong.insert(da_root)
    }

    /// Whether a batch is known to be wrongly encoded.
    pub fn is_wrong(&self, da_root: &Hash) -> bool {
        self.wrong.contains(da_root)
    }

    /// The inclusion list to tell all others after a final header.
    pub fn tell(&mut self, height: Height, now_ms: u64) -> List {
        let waiting = self.lists.seen_before_ms(now_ms).map(|seen_ms| self.pool.seen_before(seen_ms, 2 * LIST_MAX));
        self.lists.tell(height, now_ms, &waiting.unwrap_or_default())
    }

    /// Takes the list of another of so many validators.
    pub fn hear(&mut self, from: ValidatorIndex, mut list: List, validators: usize) {
        list.leaves.retain(|leaf| !is_of_log(leaf));
        self.lists.hear(from, list, validators);
    }

    /// The set of validators is another one.
    pub fn forget_heard(&mut self) {
        self.lists.forget_heard();
    }

    /// Makes what a header at this time, after this parent, is about: the inbox first, then what others ask for, then what waits; and `logs` of
    /// dealers, as many as fit.
    ///
    /// # Errors
    /// When the log is not that of the parent, or the disk fails.
    pub fn assemble(
        &mut self,
        parent: &Header,
        time: TimeMs,
        ticker: &Ticker,
        logs: Vec<Vec<u8>>,
    ) -> Result<(Commitments, Contents), ContentsError> {
        self.check_place(parent)?;
        let (anchor, inbox) = inbox::serve(&self.inbox, self.rules.inbox, parent.inbox);
        let mut taken: BTreeSet<_> = inbox.iter().map(|entry| entry.leaf.leaf_hash()).collect();
        let (mut leaves, mut answers) = (Vec::new(), BTreeSet::new());
        for (leaf, hash) in self.lists.wanted() {
            if leaves.len() == LEAVES_MAX {
                break;
            }
            if self.ledger.find(&hash)?.is_some() {
                continue;
            }
            answers.insert(hash);
            if taken.insert(hash) {
                leaves.push(leaf);
            }
        }
        leaves.extend(self.pool.fill(LEAVES_MAX - leaves.len(), &taken));
        let claim = ticker.claim(parent, self.rules.rate.allowed(parent.time, time));
        let answers = answers.into_iter().collect();
        let attestations = self.attestations.fill(self.rules.pinners.wanted_s(time));
        let contents = Contents { inbox, leaves, answers, segments: claim.segments, logs: fitting(logs), attestations };
        let appended = self.appended(&contents)?;
        let commitments = Commitments {
            receipts: self.ledger.head_with(appended.iter().map(|(_, hash)| hash)),
            da_root: contents.attestations_root(),
            inclusion_list_root: contents.answers_root(),
            inbox: anchor,
            poh: claim.end,
        };
        Ok((commitments, contents))
    }

    /// Checks that a header is about these contents, and that they are what this validator can vote for. `heard_ms`: when the proposal came,
    /// by this node's clock; `faults`: how many of the validators may be faulty (`ValidatorSet::faults`). Hashing comes last: some 25 ms of a
    /// core for a quarter of a million ticks.
    ///
    /// # Errors
    /// [`ContentsError`] for the first thing that does not hold.
    pub fn check(
        &self,
        parent: &Header,
        header: &Header,
        contents: &Contents,
        heard_ms: u64,
        faults: usize,
    ) -> Result<(), ContentsError> {
        self.check_place(parent)?;
        let (ahead_ms, max) = (header.time.0.saturating_sub(heard_ms), self.rules.ahead_ms_max);
        if ahead_ms > max {
            return Err(ContentsError::Time { ahead_ms, max });
        }
        contents.check_form().map_err(ContentsError::Form)?;
        self.check_attestations(header, &contents.attestations)?;
        let appended = self.check_leaves(header, contents)?;
        check_answers(header, contents, &appended)?;
        inbox::check(&self.inbox, self.rules.inbox, parent.inbox, header.inbox, &contents.inbox)?;
        self.check_lists(header, contents, &appended, heard_ms, faults)?;
        Ok(poh::check(self.rules.rate, parent, header, &contents.segments, self.rules.threads)?)
    }

    /// Keeps the leaves of a final header, durably, before the header itself is kept: after a crash between the two, [`Ledger::open`] cuts
    /// them. What is final was checked by a quorum, so only what is kept is checked: for a header that was missed, the leaves that a peer
    /// serves of its ledger will do ([`Contents::of_leaves`]).
    ///
    /// # Errors
    /// [`LedgerError::Head`] for other contents than the header's, and nothing is kept.
    pub fn finalise(&mut self, header: &Header, contents: &Contents) -> Result<(), ContentsError> {
        let appended = self.appended(contents)?;
        self.catch_up(header, &appended)?;
        self.attested(&contents.attestations);
        Ok(())
    }

    /// Keeps the leaves of a final header that this node has missed, as [`Application::finalise`] does.
    ///
    /// # Errors
    /// [`LedgerError::Head`] for other leaves than the header's, and nothing is kept.
    pub fn catch_up(&mut self, header: &Header, appended: &[(Leaf, LeafHash)]) -> Result<(), LedgerError> {
        self.ledger.append(appended, &header.receipts)?;
        for (_, hash) in appended {
            self.pool.remove(hash);
            self.lists.remove(hash);
        }
        self.served = header.inbox;
        self.inbox.forget_below(header.inbox.height);
        Ok(())
    }

    /// Whether these leaves lead from the log here to that of a header.
    pub fn leads_to<'a>(&self, header: &Header, leaves: impl Iterator<Item = &'a LeafHash>) -> bool {
        self.ledger.head_with(leaves) == header.receipts
    }

    /// Whether these contents lead from the log here to that of a header, and are attested as it says.
    ///
    /// # Errors
    /// Those of the log.
    pub fn is_about(&self, header: &Header, contents: &Contents) -> Result<bool, ContentsError> {
        let appended = self.appended(contents)?;
        let is_attested = contents.attestations_root() == header.da_root;
        Ok(is_attested && self.leads_to(header, appended.iter().map(|(_, hash)| hash)))
    }

    fn check_place(&self, parent: &Header) -> Result<(), ContentsError> {
        match self.ledger.head() == parent.receipts {
            true => Ok(()),
            false => Err(ContentsError::NotAtParent { ledger: self.ledger.size(), parent: parent.receipts.size }),
        }
    }

    /// Each batch once, none that is known to be wrong, and the header may carry each: what has waited here is checked but for the time.
    fn check_attestations(&self, header: &Header, attestations: &[Attestation]) -> Result<(), ContentsError> {
        if attestations::root_of(attestations) != header.da_root {
            return Err(ContentsError::DaRoot);
        }
        if let Some(BatchId { da_root, .. }) = attestations::first_twice(attestations) {
            return Err(ContentsError::AttestedTwice { da_root });
        }
        let wanted_s = self.rules.pinners.wanted_s(header.time);
        for attestation in attestations {
            let da_root = attestation.batch.da_root;
            let lasts = attestation.acknowledgements.iter().all(|each| each.until_s >= wanted_s);
            if !(lasts && self.attestations.has_checked(attestation)) {
                let holds = self.rules.pinners.check(attestation, header.time);
                holds.map_err(|source| ContentsError::Attestation { da_root, source })?;
            }
        }
        // What all would refuse comes first: this does not tell against the proposer.
        match attestations.iter().find(|attestation| self.is_wrong(&attestation.batch.da_root)) {
            Some(attestation) => Err(ContentsError::WrongEncoding { da_root: attestation.batch.da_root }),
            None => Ok(()),
        }
    }

    /// No leaf twice, none of the log, and all of them lead to the header's log.
    fn check_leaves(&self, header: &Header, contents: &Contents) -> Result<BTreeSet<LeafHash>, ContentsError> {
        if let Some(leaf) = contents.leaves.iter().find(|leaf| is_of_log(leaf)) {
            return Err(ContentsError::Reserved { hash: leaf.leaf_hash() });
        }
        let appended = self.appended(contents)?;
        let mut hashes = BTreeSet::new();
        for (_, hash) in &appended {
            if !hashes.insert(*hash) {
                return Err(ContentsError::Twice { hash: *hash });
            }
        }
        if !self.leads_to(header, appended.iter().map(|(_, hash)| hash)) {
            return Err(ContentsError::Receipts);
        }
        for hash in &hashes {
            if self.ledger.find(hash)?.is_some() {
                return Err(ContentsError::Logged { hash: *hash });
            }
        }
        Ok(hashes)
    }

    fn check_lists(
        &self,
        header: &Header,
        contents: &Contents,
        appended: &BTreeSet<LeafHash>,
        heard_ms: u64,
        faults: usize,
    ) -> Result<(), ContentsError> {
        if contents.leaves.len() == LEAVES_MAX {
            return Ok(());
        }
        // What is in the log was taken off the list when it became final.
        match self.lists.left_out(heard_ms, header.round, faults, appended) {
            Some(hash) => Err(ContentsError::LeftOut { hash }),
            None => Ok(()),
        }
    }

    fn appended(&self, contents: &Contents) -> Result<Vec<(Leaf, LeafHash)>, LedgerError> {
        contents.appended(|hash| Ok(self.ledger.find(hash)?.is_some()))
    }
}

/// Each answer is about a leaf of this header, and they have its root.
fn check_answers(header: &Header, contents: &Contents, appended: &BTreeSet<LeafHash>) -> Result<(), ContentsError> {
    if let Some(hash) = contents.answers.iter().find(|hash| !appended.contains(hash)) {
        return Err(ContentsError::Answer { hash: *hash });
    }
    if contents.answers_root() != header.inclusion_list_root {
        return Err(ContentsError::Answers);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
