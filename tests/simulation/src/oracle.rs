//! A second statement of the rules, apart from the core: plain predicates over sets of messages, written from the paper (arXiv 2002.03613,
//! algorithms 1 to 4) and the Dafny specification, with a reader of the wire format and of statements of its own.
//!
//! It sees what an honest node receives and what it says, and judges: may it say that now (safety), and must it have said more (progress).
//! It keeps everything, and forgets nothing when the node crashes.

use std::collections::{BTreeMap, BTreeSet};

type Digest = [u8; 32];
/// A claim that a header was prepared in a round.
type Claim = Option<(u32, Digest)>;

/// A message as the oracle reads it. Numbers are validators' places and rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Proposal {
        from: u16,
        round: u32,
        digest: Digest,
        made_in: u32,
        names: Names,
        changes: Vec<(u16, u32, Claim)>,
        prepared: Option<(u32, Vec<u16>)>,
    },
    Prepare {
        from: u16,
        round: u32,
        digest: Digest,
        /// Under another's name.
        lent: bool,
    },
    Commit {
        from: u16,
        round: u32,
        digest: Digest,
        /// Under another's name.
        lent: bool,
    },
    RoundChange {
        from: u16,
        round: u32,
        claim: Claim,
        prepared: Option<(Digest, u32, Vec<u16>)>,
    },
    Final {
        digest: Digest,
        round: u32,
        signers: Vec<u16>,
    },
    Other,
}

/// What a header names of its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    height: u64,
    parent: Digest,
    time_ms: u64,
    epoch: u64,
    validators: Digest,
    proposer: u16,
}

/// What the next header has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Digest of the last final header.
    pub digest: Digest,
    /// When that was made.
    pub time_ms: u64,
}

/// What the oracle has to be told of a height: nothing that the node itself says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The chain's name.
    pub chain: [u8; 32],
    /// Validators of the height.
    pub validators: usize,
    /// Who proposes in round r: the entry r modulo the length.
    pub proposers: Vec<u16>,
    /// The node's own place, if it votes.
    pub me: Option<u16>,
    /// The set that votes, by digest and epoch.
    pub set: (Digest, u64),
}

/// Tells whether a signature of a validator covers bytes: of one validator, or the sum of several.
pub type Verify<'a> = &'a dyn Fn(&[u16], &[u8], &[u8]) -> bool;

/// Votes of one kind: who voted for what in which round.
type Votes = BTreeMap<(u32, Digest), BTreeSet<u16>>;

/// What is known of one height by one node.
#[derive(Clone, Debug, Default)]
struct Known {
    prepares: Votes,
    commits: Votes,
    /// The same, of those heard in this life in time, for what must be said.
    fresh_prepares: Votes,
    fresh_commits: Votes,
    fresh_proposals: BTreeSet<(u32, Digest)>,
    /// The latest round that each has changed to, of what was heard in this life in time.
    fresh_changes: BTreeMap<u16, u32>,
    changes: BTreeMap<(u16, u32), Claim>,
    /// What was proposed names these.
    names: BTreeMap<Digest, Names>,
    /// Proposals that may be accepted, by round.
    proposals: BTreeSet<(u32, Digest)>,
    /// The last certificate that its disk keeps.
    kept: Claim,
    /// Headers that peers have shown to be final.
    finals: BTreeSet<Digest>,
    /// Headers that it has accepted in this life, so that it can take one for final.
    headers: BTreeSet<Digest>,
    own: BTreeMap<(u32, u8), Vec<u8>>,
    round: u32,
    /// The highest round in which it said COMMIT, and for what.
    committed: Claim,
    accepted_in_this_life: Option<(u32, Digest)>,
}

/// One node's witness.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    heights: BTreeMap<u64, Known>,
    facts: BTreeMap<u64, Facts>,
    /// The height that the node works on, and what it has to follow.
    parent: Option<(u64, Parent)>,
    /// Of the next height the last message of each kind from each peer: they count when it begins.
    ahead: BTreeMap<(usize, u8), Vec<u8>>,
    /// The timer of its round has run out, or the node has just begun, in this step.
    may_change: bool,
}

fn quorum(validators: usize) -> usize {
    // The least q with 3q >= 2N.
    (0..=validators).find(|q| 3 * q >= 2 * validators).unwrap_or(validators)
}

fn faults(validators: usize) -> usize {
    // The most f with N >= 3f + 1.
    (0..validators).take_while(|f| validators > 3 * f).last().unwrap_or(0)
}

/// Bytes from left to right.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn digest(&mut self) -> Option<Digest> {
        self.take(32)?.try_into().ok()
    }

    fn signers(&mut self) -> Option<Vec<u16>> {
        let bits = self.take(16)?;
        let bit = |place: u16| bits[15 - usize::from(place) / 8] >> (place % 8) & 1 == 1;
        Some((0..128).filter(|place| bit(*place)).collect())
    }
}

/// Length of a header on the wire.
const HEADER: usize = 360;

fn header_digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::new().chain_update(b"bpi.header.v1\0").chain_update(bytes).finalize().into()
}

/// Bytes of the longest statement.
const STATEMENT_MAX: usize = 11 + 1 + 32 + 8 + 4 + 1 + 4 + 32;

/// Statements as they are signed.
struct Statements<'a> {
    facts: &'a Facts,
    height: u64,
}

impl Statements<'_> {
    fn start(&self, kind: u8, round: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STATEMENT_MAX);
        bytes.extend(b"bpi.ibft.v1");
        bytes.push(kind);
        bytes.extend(self.facts.chain);
        bytes.extend(self.height.to_be_bytes());
        bytes.extend(round.to_be_bytes());
        bytes
    }

    fn on(&self, kind: u8, round: u32, digest: &Digest) -> Vec<u8> {
        let mut bytes = self.start(kind, round);
        bytes.extend(digest);
        bytes
    }

    fn change(&self, round: u32, claim: Claim) -> Vec<u8> {
        let mut bytes = self.start(4, round);
        match claim {
            None => bytes.push(0),
            Some((prepared, digest)) => {
                bytes.push(1);
                bytes.extend(prepared.to_be_bytes());
                bytes.extend(digest);
            }
        }
        bytes
    }
}

/// Reads a message and drops what is not signed as it says. `None`: nobody said that.
fn read(bytes: &[u8], facts: &Facts, verify: Verify<'_>) -> Option<Said> {
    let mut at = Cursor(bytes);
    let (_version, kind, height) = (at.number(1)?, at.number(1)?, at.number(8)?);
    let statements = Statements { facts, height };
    let needed = quorum(facts.validators);
    match kind {
        1 => {
            let (from, round) = (at.number(2)? as u16, at.number(4)? as u32);
            let header = at.take(HEADER)?;
            let (made_in, names) = read_header(header)?;
            let digest = header_digest(header);
            let mut changes = Vec::new();
            let mut prepared = None;
            if at.number(1)? == 1 {
                for _ in 0..at.number(2)? {
                    let (sender, to, claim, signature) = read_change(&mut at)?;
                    if !verify(&[sender], &statements.change(to, claim), signature) {
                        return None;
                    }
                    changes.push((sender, to, claim));
                }
                if at.number(1)? == 1 {
                    let (certified, signers, sum) = (at.number(4)? as u32, at.signers()?, at.take(48)?);
                    let claim = changes.iter().filter_map(|(.., claim)| *claim).max_by_key(|(round, _)| *round)?;
                    if !verify(&signers, &statements.on(2, certified, &claim.1), sum) {
                        return None;
                    }
                    prepared = Some((certified, signers));
                }
            }
            verify(&[from], &statements.on(1, round, &digest), at.take(48)?).then_some(Said::Proposal {
                from,
                round,
                digest,
                made_in,
                names,
                changes,
                prepared,
            })
        }
        2 | 3 => {
            let (sender, round, digest) = (at.number(2)? as u16, at.number(4)? as u32, at.digest()?);
            let (statement, signature) = (statements.on(kind as u8, round, &digest), at.take(48)?);
            // A vote counts for whoever has signed it: two liars who send each other's signatures make a sum that holds, and both have signed. But
            // nobody has to know that.
            let mut keys = std::iter::once(sender).chain(0..facts.validators as u16);
            let from = keys.find(|key| verify(&[*key], &statement, signature))?;
            Some(match kind {
                2 => Said::Prepare { from, round, digest, lent: from != sender },
                _ => Said::Commit { from, round, digest, lent: from != sender },
            })
        }
        4 => {
            let (from, round, claim, signature) = read_change(&mut at)?;
            if !verify(&[from], &statements.change(round, claim), signature) {
                return None;
            }
            let mut prepared = None;
            if at.number(1)? == 1 {
                let digest = header_digest(at.take(HEADER)?);
                let (certified, signers, sum) = (at.number(4)? as u32, at.signers()?, at.take(48)?);
                let good = signers.len() >= needed && verify(&signers, &statements.on(2, certified, &digest), sum);
                if !good {
                    return None;
                }
                prepared = Some((digest, certified, signers));
            }
            Some(Said::RoundChange { from, round, claim, prepared })
        }
        7 => {
            let digest = header_digest(at.take(HEADER)?);
            if at.number(1)? != 1 {
                return None;
            }
            let (round, signers, sum) = (at.number(4)? as u32, at.signers()?, at.take(48)?);
            let good = signers.len() >= needed && verify(&signers, &statements.on(3, round, &digest), sum);
            good.then_some(Said::Final { digest, round, signers })
        }
        _ => Some(Said::Other),
    }
}

/// The round in which a header was made, and what it names.
fn read_header(bytes: &[u8]) -> Option<(u32, Names)> {
    let mut at = Cursor(bytes);
    at.take(1)?;
    let (height, made_in) = (at.number(8)?, at.number(4)? as u32);
    let (parent, time_ms) = (at.digest()?, at.number(8)?);
    // The log of receipts, the data, the inclusion list, the inbox, the chain of hashes, the seed.
    at.take(40 + 32 + 32 + 40 + 40 + 49)?;
    let (epoch, validators) = (at.number(8)?, at.digest()?);
    at.take(32)?;
    Some((made_in, Names { height, parent, time_ms, epoch, validators, proposer: at.number(2)? as u16 }))
}

fn read_change<'a>(at: &mut Cursor<'a>) -> Option<(u16, u32, Claim, &'a [u8])> {
    let (from, round) = (at.number(2)? as u16, at.number(4)? as u32);
    let claim = match at.number(1)? {
        0 => None,
        _ => Some((at.number(4)? as u32, at.digest()?)),
    };
    Some((from, round, claim, at.take(48)?))
}

fn height_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?))
}

/// `JustifyPrePrepare` of algorithm 4, and that its header is the proposer's own unless it was prepared.
fn is_justified(said: &Said, facts: &Facts) -> bool {
    let Said::Proposal { from, round, digest, made_in, changes, prepared, names } = said else { return false };
    if facts.proposers[*round as usize % facts.proposers.len()] != *from {
        return false;
    }
    if *round == 0 {
        return *made_in == 0 && names.proposer == *from && changes.is_empty();
    }
    let senders: BTreeSet<u16> = changes.iter().map(|(sender, ..)| *sender).collect();
    let right = changes.iter().all(|(sender, to, claim)| {
        usize::from(*sender) < facts.validators && to == round && claim.is_none_or(|(prepared, _)| prepared < *round)
    });
    let needed = quorum(facts.validators);
    if !right || senders.len() < needed || senders.len() != changes.len() {
        return false;
    }
    let highest = changes.iter().filter_map(|(.., claim)| *claim).max_by_key(|(round, _)| *round);
    match (highest, prepared) {
        (None, None) => made_in == round && names.proposer == *from,
        (Some((in_round, value)), Some((certified, signers))) => {
            value == *digest && in_round == *certified && signers.len() >= needed
        }
        _ => false,
    }
}

impl Oracle {
    /// The node begins, or begins again after a crash: it has forgotten what it has heard.
    pub fn begin(&mut self) {
        self.may_change = true;
        self.ahead.clear();
        for known in self.heights.values_mut() {
            known.fresh_prepares.clear();
            known.fresh_commits.clear();
            known.accepted_in_this_life = None;
            known.fresh_proposals.clear();
            known.fresh_changes.clear();
            known.headers.clear();
        }
    }

    /// The timer of a round has run out. That of a round which the node has left means nothing.
    pub fn time_out(&mut self, height: u64, round: u32) {
        self.may_change |= self.heights.get(&height).is_none_or(|known| round >= known.round);
    }

    /// The node works on a height.
    pub fn works_on(&mut self, height: u64, parent: Parent, facts: &dyn Fn(u64) -> Facts, verify: Verify<'_>) {
        self.parent = Some((height, parent));
        self.heights = self.heights.split_off(&height);
        self.facts = self.facts.split_off(&height);
        for bytes in std::mem::take(&mut self.ahead).into_values().filter(|bytes| height_of(bytes) == Some(height)) {
            self.hears(height, 0, &bytes, facts, verify);
        }
    }

    /// The node's disk keeps the certificate of a header.
    pub fn keeps(&mut self, height: u64, round: u32, digest: Digest) {
        self.heights.entry(height).or_default().kept = Some((round, digest));
    }

    /// An older disk was put back: certificates may be gone.
    pub fn loses(&mut self) {
        for known in self.heights.values_mut() {
            known.kept = None;
        }
    }

    /// The node receives a message while it works on a height.
    pub fn hears(&mut self, working: u64, from: usize, bytes: &[u8], facts: &dyn Fn(u64) -> Facts, verify: Verify<'_>) {
        let Some(height) = height_of(bytes).filter(|height| *height == working || *height == working + 1) else {
            return;
        };
        if height > working {
            self.ahead.insert((from, bytes[1]), bytes.to_vec());
        }
        let facts = &*self.facts.entry(height).or_insert_with(|| facts(height));
        let Some(said) = read(bytes, facts, verify) else { return };
        let known = self.heights.entry(height).or_default();
        known.take(&said, facts, height == working);
    }

    /// The node sends a message.
    ///
    /// # Errors
    /// A sentence when it may not.
    pub fn says(&mut self, bytes: &[u8], facts: &dyn Fn(u64) -> Facts, verify: Verify<'_>) -> Result<(), String> {
        let Some(height) = height_of(bytes) else { return Err("no message".to_owned()) };
        let facts = &*self.facts.entry(height).or_insert_with(|| facts(height));
        let Some(said) = read(bytes, facts, verify) else { return Err("it is not signed".to_owned()) };
        let may_change = self.may_change;
        let known = self.heights.entry(height).or_default();
        known.may_say(&said, facts, may_change)?;
        known.take(&said, facts, true);
        if let Said::Prepare { digest, .. } | Said::Commit { digest, .. } = &said
            && let Some((_, parent)) = self.parent.filter(|(working, _)| *working == height)
            && let Some(names) = known.names.get(digest)
            && !follows(names, height, &parent, facts)
        {
            return Err(format!("it votes for a header that does not follow height {}", height - 1));
        }
        Ok(())
    }

    /// The node takes a header for final.
    ///
    /// # Errors
    /// A sentence when nothing shows that it is.
    pub fn finalises(&mut self, height: u64, digest: Digest) -> Result<(), String> {
        let Some((known, facts)) = self.heights.get(&height).zip(self.facts.get(&height)) else {
            return Err(format!("height {height} is final out of nothing"));
        };
        let needed = quorum(facts.validators);
        let decided = known.commits.iter().any(|((_, value), senders)| *value == digest && senders.len() >= needed);
        // The next height begins within the step.
        self.may_change = true;
        if decided || known.finals.contains(&digest) {
            Ok(())
        } else {
            Err(format!("height {height} is final without a quorum of COMMIT"))
        }
    }

    /// The step is over: what must have been said?
    ///
    /// # Errors
    /// A sentence when it was not.
    pub fn rests(&mut self, working: u64, votes: bool) -> Result<(), String> {
        self.may_change = false;
        let Some((known, facts)) = self.heights.get(&working).zip(self.facts.get(&working)) else { return Ok(()) };
        let needed = quorum(facts.validators);
        for ((round, value), senders) in &known.fresh_commits {
            if senders.len() >= needed && known.headers.contains(value) {
                return Err(format!("a quorum has said COMMIT in round {round}, and the header is not final"));
            }
        }
        let Some(me) = facts.me.filter(|_| votes) else { return Ok(()) };
        known.has_followed(facts, me)?;
        let round = known.round;
        let said = known.own.contains_key(&(round, 3));
        // It may have gone on to a round that it is about to lead.
        let leads_later = known
            .changes
            .keys()
            .any(|(_, to)| *to > round && facts.proposers[*to as usize % facts.proposers.len()] == me);
        if known.kept.is_some_and(|(certified, _)| certified == round) && !said && !leads_later {
            return Err(format!("it keeps a certificate of round {round}, and has not said COMMIT"));
        }
        let Some((_, value)) = known.accepted_in_this_life.filter(|(accepted, _)| *accepted == round) else {
            return Ok(());
        };
        let prepared = known.fresh_prepares.get(&(round, value)).is_some_and(|senders| senders.len() >= needed);
        if prepared && !said && !leads_later {
            return Err(format!("a quorum has said PREPARE in round {round}, and this node has not said COMMIT"));
        }
        Ok(())
    }
}

/// The header is of the height after its parent's, later than that, and for the set that votes.
fn follows(names: &Names, height: u64, parent: &Parent, facts: &Facts) -> bool {
    names.height == height
        && names.parent == parent.digest
        && names.time_ms > parent.time_ms
        && (names.validators, names.epoch) == facts.set
        && usize::from(names.proposer) < facts.validators
}

fn bytes_of(claim: Claim) -> Vec<u8> {
    claim.map_or_else(Vec::new, |(round, digest)| [&round.to_be_bytes()[..], &digest].concat())
}

impl Known {
    /// Line 9 of algorithm 3: when f+1 others have gone to later rounds the node is in one that f+1 have reached, or is about to lead one.
    fn has_followed(&self, facts: &Facts, me: u16) -> Result<(), String> {
        let mut later: Vec<u32> = self.fresh_changes.values().copied().filter(|round| *round > self.round).collect();
        later.sort_unstable_by(|one, other| other.cmp(one));
        let Some(reached) = later.get(faults(facts.validators)).copied() else { return Ok(()) };
        let leads = self.changes.keys().any(|(_, to)| {
            let senders = self.changes.keys().filter(|(_, other)| other == to).count();
            *to >= reached
                && facts.proposers[*to as usize % facts.proposers.len()] == me
                && senders >= quorum(facts.validators)
        });
        if leads {
            Ok(())
        } else {
            Err(format!("f+1 others have gone to round {reached}, and it stays in {}", self.round))
        }
    }

    fn take(&mut self, said: &Said, facts: &Facts, in_time: bool) {
        let known_validator = |from: &u16| usize::from(*from) < facts.validators;
        match said {
            Said::Prepare { from, round, digest, lent } if known_validator(from) => {
                self.prepares.entry((*round, *digest)).or_default().insert(*from);
                let others = self.prepares.iter().any(|((r, d), s)| r == round && d != digest && s.contains(from));
                if in_time && !lent && *round >= self.round && *round <= self.round + 8 && !others {
                    self.fresh_prepares.entry((*round, *digest)).or_default().insert(*from);
                }
            }
            Said::Commit { from, round, digest, lent } if known_validator(from) => {
                self.commits.entry((*round, *digest)).or_default().insert(*from);
                let others = self.commits.iter().any(|((r, d), s)| r == round && d != digest && s.contains(from));
                if in_time && !lent && *round + 8 >= self.round && *round <= self.round + 8 && !others {
                    self.fresh_commits.entry((*round, *digest)).or_default().insert(*from);
                }
                // What falls out of the window is not counted any more.
                let oldest = self.round.saturating_sub(8);
                self.fresh_commits.retain(|(round, _), _| *round >= oldest);
            }
            Said::RoundChange { from, round, claim, prepared } if known_validator(from) => {
                let proved = match (claim, prepared) {
                    (None, prepared) => prepared.is_none(),
                    (Some((in_round, value)), Some((digest, certified, _))) => {
                        in_round < round && in_round == certified && value == digest
                    }
                    (Some(_), None) => false,
                };
                if proved {
                    self.changes.insert((*from, *round), *claim);
                    if in_time {
                        let latest = self.fresh_changes.entry(*from).or_default();
                        *latest = (*latest).max(*round);
                    }
                }
            }
            Said::Proposal { round, digest, names, .. } if is_justified(said, facts) => {
                self.names.insert(*digest, *names);
                self.proposals.insert((*round, *digest));
                self.fresh_proposals.insert((*round, *digest));
            }
            Said::Final { digest, .. } => {
                self.finals.insert(*digest);
            }
            _ => {}
        }
    }

    /// Distinct senders of round changes to rounds of at least `round`.
    fn changers(&self, at_least: u32) -> usize {
        self.changes.keys().filter(|(_, to)| *to >= at_least).map(|(from, _)| *from).collect::<BTreeSet<_>>().len()
    }

    fn once(&mut self, round: u32, step: u8, what: &[u8]) -> Result<(), String> {
        match self.own.insert((round, step), what.to_vec()) {
            Some(former) if former != what => Err(format!("two votes of step {step} in round {round}")),
            _ => Ok(()),
        }
    }

    fn may_say(&mut self, said: &Said, facts: &Facts, may_change: bool) -> Result<(), String> {
        let needed = quorum(facts.validators);
        let me = facts.me;
        let again = |known: &Self, round: u32, step: u8, what: &[u8]| {
            known.own.get(&(round, step)).is_some_and(|own| own == what)
        };
        match said {
            Said::Proposal { from, round, digest, .. } => {
                if Some(*from) != me || !is_justified(said, facts) {
                    return Err(format!("the proposal of round {round} is not justified"));
                }
                if again(self, *round, 1, digest) {
                    return Ok(());
                }
                if *round < self.round {
                    return Err(format!("it proposes in round {round} and is in round {}", self.round));
                }
                self.round = *round;
                self.proposals.insert((*round, *digest));
                self.fresh_proposals.insert((*round, *digest));
                self.headers.insert(*digest);
                self.once(*round, 1, digest)
            }
            Said::Prepare { from, round, digest, .. } => {
                if again(self, *round, 2, digest) {
                    return Ok(());
                }
                if Some(*from) != me || *round < self.round {
                    return Err(format!("it says PREPARE in round {round} and is in round {}", self.round));
                }
                if !self.proposals.contains(&(*round, *digest)) {
                    return Err(format!(
                        "it says PREPARE in round {round} to what was not proposed with justification"
                    ));
                }
                self.round = *round;
                // A crash may have come between keeping the vote and sending it: then it is sent without the header being known.
                self.accepted_in_this_life = None;
                if self.fresh_proposals.contains(&(*round, *digest)) {
                    self.headers.insert(*digest);
                    self.accepted_in_this_life = Some((*round, *digest));
                }
                self.once(*round, 2, digest)
            }
            Said::Commit { from, round, digest, .. } => {
                if again(self, *round, 3, digest) {
                    return Ok(());
                }
                let prepared = self.prepares.get(&(*round, *digest)).map_or(0, BTreeSet::len);
                if Some(*from) != me || *round != self.round || prepared < needed {
                    return Err(format!("it says COMMIT in round {round} with {prepared} votes of {needed}"));
                }
                self.committed = Some((*round, *digest));
                self.once(*round, 3, digest)
            }
            Said::RoundChange { from, round, claim, .. } => {
                let what = bytes_of(*claim);
                if again(self, *round, 0, &what) {
                    return Ok(());
                }
                if Some(*from) != me || *round <= self.round {
                    return Err(format!("it changes to round {round} from round {}", self.round));
                }
                if !may_change && self.changers(*round) < faults(facts.validators) + 1 {
                    return Err(format!("it changes to round {round} without a reason"));
                }
                if let Some((committed, value)) = self.committed
                    && claim.is_none_or(|(in_round, digest)| {
                        in_round < committed || in_round == committed && digest != value
                    })
                {
                    return Err(format!("it leaves behind what it said COMMIT to in round {committed}"));
                }
                self.round = *round;
                self.accepted_in_this_life = None;
                self.once(*round, 0, &what)
            }
            Said::Final { .. } | Said::Other => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        assert_eq!([1, 2, 3, 4, 7, 9, 10, 25].map(quorum), [1, 2, 2, 3, 5, 6, 7, 17]);
        assert_eq!([1, 2, 3, 4, 7, 9, 10, 25].map(faults), [0, 0, 0, 1, 2, 2, 3, 8]);
        assert_eq!(HEADER, bpi_protocol::consensus::header::HEADER_BYTES);
    }
}
