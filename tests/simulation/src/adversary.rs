//! A liar: it follows the protocol, and then says something else to some or to all, signed with its own key: other headers, in turn and out of
//! turn, with justifications that are none, backed by its own votes; votes for anything; what others have said, again or at another height.

use std::collections::VecDeque;
use std::rc::Rc;

use bpi_protocol::consensus::equivocation::Said;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::justification::{Justification, SignedRoundChange};
use bpi_protocol::consensus::message::{Body, Commit, Final, Message, Proposal, RoundChange, Vote};
use bpi_protocol::consensus::scheme::Signer;
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::{Place, PreparedClaim};
use bpi_protocol::consensus::validators::Signers;

use crate::rng::Rng;
use crate::sets::{Sets, WRONG};

/// A message on the wire, shared by all who are sent it.
pub type Bytes = Rc<[u8]>;

/// What the liars of a history share.
pub struct Adversary {
    heard: VecDeque<(Bytes, Message)>,
    heard_max: usize,
    /// What a liar has said instead of its last message, if it says the same to all.
    same: Option<(usize, Bytes, Vec<Bytes>)>,
}

/// A liar, where it stands, and what it would say if it were honest.
pub struct Turn<'a> {
    /// The sets of the chain.
    pub sets: &'a Sets,
    /// Which node it is.
    pub node: usize,
    /// Its last final header.
    pub tip: &'a Header,
    /// Its clock.
    pub clock_ms: u64,
    /// What its core says.
    pub message: &'a Message,
    /// The bytes of that: the same ones for each receiver.
    pub honest: &'a Bytes,
}

impl Adversary {
    /// One that remembers so many messages.
    pub fn new(heard_max: usize) -> Self {
        Self { heard: VecDeque::new(), heard_max, same: None }
    }

    /// Remembers a message, to say it again some day.
    pub fn hear(&mut self, bytes: &Bytes, message: &Message) {
        if self.heard.len() >= self.heard_max {
            self.heard.pop_front();
        }
        self.heard.push_back((bytes.clone(), message.clone()));
    }

    /// What it says to one of the others instead of a message.
    pub fn say(&mut self, rng: &mut Rng, turn: &Turn<'_>) -> Vec<Bytes> {
        let Some(me) = crate::world::index_of(turn.sets, turn.node, turn.message.height) else {
            return vec![turn.honest.clone()];
        };
        if let Some((node, honest, said)) = &self.same
            && *node == turn.node
            && Rc::ptr_eq(honest, turn.honest)
        {
            return said.clone();
        }
        let place = Place { chain: turn.sets.chain, height: turn.message.height };
        let said = self.choose(
            rng,
            &Liar { sets: turn.sets, node: turn.node, me, tip: turn.tip, clock_ms: turn.clock_ms, place },
            turn,
        );
        self.same = rng.chance(400).then(|| (turn.node, turn.honest.clone(), said.clone()));
        said
    }

    fn choose(&mut self, rng: &mut Rng, liar: &Liar<'_>, turn: &Turn<'_>) -> Vec<Bytes> {
        let mut said = Vec::new();
        match rng.below(12) {
            0..=3 => said.push(turn.honest.clone()),
            4 => {}
            5 => said.extend(self.replay(rng, turn.message.height)),
            6 => {
                // Bytes that nobody would write.
                let mut broken = turn.honest.to_vec();
                let at = rng.below(broken.len() as u64) as usize;
                broken[at] ^= 1 << rng.below(8);
                if rng.chance(300) {
                    broken.truncate(at);
                }
                said.push(broken.into());
            }
            7 | 8 => {
                said.extend(self.forge(rng, liar, turn.message));
                if rng.chance(500) {
                    said.push(turn.honest.clone());
                }
            }
            _ => {
                said.push(self.lie(rng, liar, turn.message));
                if rng.chance(300) {
                    said.push(turn.honest.clone());
                }
            }
        }
        if rng.chance(50) {
            said.extend(self.replay(rng, turn.message.height));
        }
        said
    }

    /// Says again what was said, or puts it at another height.
    fn replay(&self, rng: &mut Rng, height: Height) -> Option<Bytes> {
        let (bytes, message) = self.heard.get(rng.below(self.heard.len() as u64) as usize)?;
        if rng.chance(200) && message.height != height {
            return Some(Message { height, body: message.body.clone() }.to_bytes().into());
        }
        Some(bytes.clone())
    }

    fn lie(&mut self, rng: &mut Rng, liar: &Liar<'_>, message: &Message) -> Bytes {
        let known = self.headers(message.height);
        let body = match &message.body {
            Body::Proposal(proposal) => liar.proposal(rng, proposal, self.changes(message.height)),
            Body::Prepare(vote) => Body::Prepare(liar.vote(rng, vote, &known, Said::Prepare)),
            Body::Commit(commit) => {
                let vote = liar.vote(rng, &commit.vote, &known, Said::Commit);
                Body::Commit(Commit { vote, partials: None })
            }
            Body::RoundChange(change) => liar.round_change(rng, change, &known),
            Body::Status if rng.chance(500) => liar.end(rng, message.height, &known),
            Body::Final(last) => liar.end(rng, message.height, &[last.header]),
            other => other.clone(),
        };
        let lie = Message { height: message.height, body };
        let bytes = lie.to_bytes().into();
        if matches!(lie.body, Body::Proposal(_)) {
            self.hear(&bytes, &lie);
        }
        bytes
    }

    /// A proposal in or out of turn, and perhaps its own votes for it.
    fn forge(&mut self, rng: &mut Rng, liar: &Liar<'_>, message: &Message) -> Vec<Bytes> {
        let about = message.round().unwrap_or_default();
        let order = liar.sets.order(message.height);
        let led = (about.0..about.0 + order.len() as u32).map(Round);
        let mut led = led.filter(|round| order[round.0 as usize % order.len()] == liar.me);
        let round = if rng.chance(300) { about } else { led.next().unwrap_or(about) };
        let (known, changes) = (self.headers(message.height), self.changes(message.height));
        let header =
            if known.is_empty() || rng.chance(700) { liar.another_header(rng, round) } else { *rng.pick(&known) };
        let (header, justification) = match changes.iter().find_map(|change| change.prepared) {
            Some(prepared) if round > Round(0) && rng.chance(200) => {
                (prepared.0, Some(liar.borrowed(round, prepared, &changes)))
            }
            _ => (header, liar.justification(rng, round, changes)),
        };
        let digest = header.digest();
        let signature = liar.sign(Said::Proposal(digest), round);
        let proposal = Proposal { sender: liar.me, round, header, justification, signature };
        let mut bodies = vec![Body::Proposal(Box::new(proposal))];
        if rng.chance(600) {
            let vote = |said| Vote { sender: liar.me, round, digest, signature: liar.sign(said, round) };
            bodies.push(Body::Prepare(vote(Said::Prepare(digest))));
            bodies.push(Body::Commit(Commit { vote: vote(Said::Commit(digest)), partials: None }));
        }
        let mut said = Vec::new();
        for body in bodies {
            let message = Message { height: message.height, body };
            let bytes: Bytes = message.to_bytes().into();
            self.hear(&bytes, &message);
            said.push(bytes);
        }
        said
    }

    /// Headers of a height that it has heard of.
    fn headers(&self, height: Height) -> Vec<Header> {
        let heard = self.heard.iter().filter(|(_, heard)| heard.height == height);
        let proposals = heard.filter_map(|(_, heard)| match &heard.body {
            Body::Proposal(proposal) => Some(proposal.header),
            _ => None,
        });
        proposals.collect()
    }

    /// Round changes of a height that it has heard.
    fn changes(&self, height: Height) -> Vec<RoundChange> {
        let heard = self.heard.iter().filter(|(_, heard)| heard.height == height);
        let changes = heard.filter_map(|(_, heard)| match &heard.body {
            Body::RoundChange(change) => Some((**change).clone()),
            _ => None,
        });
        changes.collect()
    }
}

struct Liar<'a> {
    sets: &'a Sets,
    node: usize,
    me: ValidatorIndex,
    tip: &'a Header,
    clock_ms: u64,
    place: Place,
}

impl Liar<'_> {
    fn sign(&self, said: Said, round: Round) -> bpi_protocol::consensus::scheme::Signature {
        self.sets.key(self.node).sign(&said.statement(self.place, round))
    }

    fn another_header(&self, rng: &mut Rng, round: Round) -> Header {
        let mut nonce = rng.bits() >> 8;
        if rng.chance(300) {
            nonce |= u64::from(WRONG) << 56;
        }
        let mut header = self.sets.header(self.tip, round, self.me, self.clock_ms, nonce);
        match rng.below(16) {
            0 => header.height = header.height.next(),
            1 => header.parent = HeaderDigest([7; 32]),
            2 => header.time = self.tip.time,
            3 => header.time.0 += 1_000_000,
            4 => header.next_validators = self.tip.validators,
            5 => header.round = Round(rng.below(4) as u32),
            6 => header.proposer = ValidatorIndex(rng.below(6) as u16),
            7 => header.epoch = header.epoch.next(),
            8 => header.validators = self.sets.at(Height(header.height.0 + 2 * rng.below(4))).2,
            _ => {}
        }
        header
    }

    /// What a proposer of a round might show, who has no right to propose what it wants to.
    fn justification(&self, rng: &mut Rng, round: Round, changes: Vec<RoundChange>) -> Option<Justification> {
        if round == Round(0) {
            return rng.chance(50).then(|| Justification { round_changes: Vec::new(), prepared: None });
        }
        let way = rng.below(6);
        if way == 0 {
            return None;
        }
        let own = SignedRoundChange {
            sender: self.me,
            round,
            prepared: None,
            signature: self.sign(Said::RoundChange(None), round),
        };
        let mut round_changes = vec![own];
        let mut certificates = Vec::new();
        for change in changes {
            let signed = change.signed;
            let fits = match way {
                // Those of earlier rounds too.
                1 | 2 => signed.round <= round,
                // Those that claim nothing.
                3 => signed.round == round && signed.prepared.is_none(),
                _ => signed.round == round,
            };
            if fits && round_changes.iter().all(|other| other.sender != signed.sender) {
                round_changes.push(signed);
                certificates.extend(change.prepared.map(|(_, votes)| votes));
            }
        }
        if way == 4 {
            // One voice several times.
            let twice = *rng.pick(&round_changes);
            round_changes.resize(self.sets.at(self.place.height).0.quorum(), twice);
        }
        let prepared = if way == 5 || certificates.is_empty() { None } else { Some(*rng.pick(&certificates)) };
        Some(Justification { round_changes, prepared })
    }

    /// Claims that a header was prepared later than its certificate says, so that it goes before another one.
    fn borrowed(&self, round: Round, (header, votes): (Header, Votes), changes: &[RoundChange]) -> Justification {
        let claim = Some(PreparedClaim { round: Round(round.0 - 1), digest: header.digest() });
        let signature = self.sign(Said::RoundChange(claim), round);
        let mut round_changes = vec![SignedRoundChange { sender: self.me, round, prepared: claim, signature }];
        for signed in changes.iter().map(|change| change.signed).filter(|signed| signed.round == round) {
            if round_changes.iter().all(|other| other.sender != signed.sender) {
                round_changes.push(signed);
            }
        }
        Justification { round_changes, prepared: Some(votes) }
    }

    fn proposal(&self, rng: &mut Rng, honest: &Proposal, changes: Vec<RoundChange>) -> Body {
        let mut proposal = honest.clone();
        match rng.below(5) {
            // Another header, with the same justification.
            0..=2 => proposal.header = self.another_header(rng, honest.round),
            // One whose justification leaves out what was prepared, or is none.
            3 => {
                proposal.header = self.another_header(rng, honest.round);
                proposal.justification = self.justification(rng, honest.round, changes);
            }
            _ => {
                if let Some(justification) = &mut proposal.justification {
                    let some = rng.below(justification.round_changes.len() as u64 + 1) as usize;
                    justification.round_changes.truncate(some);
                    let twice = justification.round_changes.first().copied();
                    justification.round_changes.extend(twice.filter(|_| rng.chance(500)));
                }
            }
        }
        if rng.chance(200) {
            proposal.round = Round(rng.below(5) as u32);
        }
        proposal.signature = self.sign(Said::Proposal(proposal.header.digest()), proposal.round);
        Body::Proposal(Box::new(proposal))
    }

    fn vote(&self, rng: &mut Rng, honest: &Vote, known: &[Header], said: fn(HeaderDigest) -> Said) -> Vote {
        let mut vote = *honest;
        match rng.below(6) {
            0 => vote.digest = HeaderDigest([rng.below(3) as u8; 32]),
            1 => vote.round = Round(rng.below(4) as u32),
            2 => vote.sender = ValidatorIndex(rng.below(u64::from(self.me.0) + 3) as u16),
            _ if !known.is_empty() => vote.digest = rng.pick(known).digest(),
            _ => {}
        }
        vote.signature = self.sign(said(vote.digest), vote.round);
        if rng.chance(100) {
            // In a byte of its sender's own: two that change one bit have signed together, since their sum holds (as in BLS), and the oracle
            // counts votes one by one.
            vote.signature.0[usize::from(vote.sender.0) % 16] ^= 1 << rng.below(8);
        }
        vote
    }

    /// A final header that nobody but itself has sealed.
    fn end(&self, rng: &mut Rng, height: Height, known: &[Header]) -> Body {
        let mut header = if known.is_empty() { self.another_header(rng, Round(0)) } else { *rng.pick(known) };
        if rng.chance(500) {
            let round = Round(rng.below(2) as u32);
            header = self.another_header(rng, round);
        }
        header.height = height;
        let round = Round(rng.below(3) as u32);
        let signature = self.sign(Said::Commit(header.digest()), round);
        let signers = if rng.chance(300) { Signers(0xf) } else { Signers::one(self.me) };
        Body::Final(Box::new(Final { header, seal: Seal::Votes(Votes { round, signers, signature }) }))
    }

    /// Forgets what it has prepared, or claims what it has not.
    fn round_change(&self, rng: &mut Rng, honest: &RoundChange, known: &[Header]) -> Body {
        let mut change = honest.clone();
        match rng.below(6) {
            0..=1 => {
                change.signed.prepared = None;
                change.prepared = None;
            }
            2 if !known.is_empty() => {
                let header = *rng.pick(known);
                let round = Round(rng.below(u64::from(change.signed.round.0) + 1) as u32);
                let claim = PreparedClaim { round, digest: header.digest() };
                change.signed.prepared = Some(claim);
                let signature = self.sign(Said::Prepare(claim.digest), round);
                change.prepared = Some((header, Votes { round, signers: Signers::one(self.me), signature }));
            }
            3 => change.signed.round = Round(change.signed.round.0 + rng.below(6) as u32),
            4 => {
                if let Some(claim) = &mut change.signed.prepared {
                    claim.round = Round(claim.round.0.saturating_sub(1));
                }
            }
            _ => {
                if let Some(claim) = &mut change.signed.prepared {
                    claim.round = Round(change.signed.round.0.saturating_sub(1));
                }
            }
        }
        change.signed.signature = self.sign(Said::RoundChange(change.signed.prepared), change.signed.round);
        Body::RoundChange(Box::new(change))
    }
}
