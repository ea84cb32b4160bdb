//! A liar: it follows the protocol, and then says something else to some, signed with its own key.

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

/// What the liars of a history share.
pub struct Adversary {
    heard: Vec<Vec<u8>>,
    next: usize,
    heard_max: usize,
}

impl Adversary {
    /// One that remembers so many messages.
    pub fn new(heard_max: usize) -> Self {
        Self { heard: Vec::new(), next: 0, heard_max }
    }

    /// Remembers a message, to say it again some day.
    pub fn hear(&mut self, bytes: &[u8]) {
        if self.heard.len() < self.heard_max {
            self.heard.push(bytes.to_vec());
        } else {
            self.heard[self.next] = bytes.to_vec();
            self.next = (self.next + 1) % self.heard_max;
        }
    }

    /// What it says to one of the others instead of a message.
    #[allow(clippy::too_many_arguments)]
    pub fn say(
        &mut self,
        rng: &mut Rng,
        sets: &Sets,
        node: usize,
        tip: &Header,
        clock_ms: u64,
        message: &Message,
        honest: Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let Some(me) = crate::world::index_of(sets, node, message.height) else { return vec![honest] };
        let liar = Liar { sets, node, me, tip, clock_ms, place: Place { chain: sets.chain, height: message.height } };
        let mut said = Vec::new();
        match rng.below(10) {
            0..=3 => said.push(honest),
            4 => {}
            5 => said.extend(self.replay(rng)),
            6 => {
                // Bytes that nobody would write.
                let mut broken = honest;
                let at = rng.below(broken.len() as u64) as usize;
                broken[at] ^= 1 << rng.below(8);
                if rng.chance(300) {
                    broken.truncate(at);
                }
                said.push(broken);
            }
            _ => {
                said.push(self.lie(rng, &liar, message));
                if rng.chance(300) {
                    said.push(honest);
                }
            }
        }
        if rng.chance(50) {
            said.extend(self.replay(rng));
        }
        said
    }

    fn replay(&self, rng: &mut Rng) -> Option<Vec<u8>> {
        (!self.heard.is_empty()).then(|| rng.pick(&self.heard).clone())
    }

    fn lie(&self, rng: &mut Rng, liar: &Liar<'_>, message: &Message) -> Vec<u8> {
        let known = self.headers(message);
        let body = match &message.body {
            Body::Proposal(proposal) => liar.proposal(rng, proposal, self.changes(message, proposal.round)),
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
        Message { height: message.height, body }.to_bytes()
    }

    /// Headers of this height that it has heard of.
    fn headers(&self, message: &Message) -> Vec<Header> {
        let heard = self.heard.iter().filter_map(|bytes| Message::from_bytes(bytes).ok());
        let proposals = heard.filter(|heard| heard.height == message.height).filter_map(|heard| match heard.body {
            Body::Proposal(proposal) => Some(proposal.header),
            _ => None,
        });
        proposals.collect()
    }

    /// Round changes to a round that it has heard, without what they claim.
    fn changes(&self, message: &Message, round: Round) -> Vec<SignedRoundChange> {
        let heard = self.heard.iter().filter_map(|bytes| Message::from_bytes(bytes).ok());
        let changes = heard.filter(|heard| heard.height == message.height).filter_map(|heard| match heard.body {
            Body::RoundChange(change) if change.signed.round == round => Some(change.signed),
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
        match rng.below(12) {
            0 => header.height = header.height.next(),
            1 => header.parent = HeaderDigest([7; 32]),
            2 => header.time = self.tip.time,
            3 => header.time.0 += 1_000_000,
            4 => header.next_validators = self.tip.validators,
            5 => header.round = Round(rng.below(4) as u32),
            6 => header.proposer = ValidatorIndex(rng.below(6) as u16),
            _ => {}
        }
        header
    }

    fn proposal(&self, rng: &mut Rng, honest: &Proposal, changes: Vec<SignedRoundChange>) -> Body {
        let mut proposal = honest.clone();
        match rng.below(5) {
            // Another header, with the same justification.
            0..=2 => proposal.header = self.another_header(rng, honest.round),
            // One whose justification leaves out what was prepared.
            3 => {
                proposal.header = self.another_header(rng, honest.round);
                let empty = changes.into_iter().filter(|change| change.prepared.is_none()).collect();
                proposal.justification = Some(Justification { round_changes: empty, prepared: None });
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
            // Each time another bit: two that change the same one have signed together, since their sum holds.
            vote.signature.0[rng.below(16) as usize] ^= 1 << rng.below(8);
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
        match rng.below(5) {
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
            _ => {
                if let Some(claim) = &mut change.signed.prepared {
                    claim.round = Round(claim.round.0.saturating_sub(1));
                }
            }
        }
        change.signed.signature = self.sign(Said::RoundChange(change.signed.prepared), change.signed.round);
        Body::RoundChange(Box::new(change))
    }
}
