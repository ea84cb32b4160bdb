//! What is heard is judged here, before any rule sees it: by the predicate that is used where it counts.

use bpi_protocol::consensus::equivocation::{Equivocation, Said};
use bpi_protocol::consensus::ids::{HeaderDigest, Round, ValidatorIndex};
use bpi_protocol::consensus::justification::{check_proposal, check_round_change};
use bpi_protocol::consensus::light::check_continuity;
use bpi_protocol::consensus::message::{Body, Commit, Message, Partials, Proposal, RoundChange, Vote};
use bpi_protocol::consensus::scheme::Scheme;
use bpi_protocol::consensus::statement;

use super::state::{Core, HeightState};
use super::{Effect, Peer, Reason};

/// How many rounds ahead of the present one votes are kept. Together with [`ROUNDS_BEHIND`] the bound of what peers can make a node remember.
const ROUNDS_AHEAD: u32 = 8;
/// How many rounds back COMMIT votes are still counted.
const ROUNDS_BEHIND: u32 = 8;
/// Messages of the next height that are kept: some of each kind for each of 128 validators.
const AHEAD_MAX: usize = 512;

/// The two kinds of votes on a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prepare,
    Commit,
}

impl Kind {
    fn said(self, digest: HeaderDigest) -> Said {
        match self {
            Self::Prepare => Said::Prepare(digest),
            Self::Commit => Said::Commit(digest),
        }
    }
}

impl<S: Scheme + Clone> Core<S> {
    pub(super) fn hear(&mut self, now_ms: u64, from: Peer, message: Message, out: &mut Vec<Effect>) {
        let heard = self.judge(now_ms, from, message, out);
        if let Err(reason) = heard {
            out.push(Effect::Reject { from, reason });
        }
    }

    fn judge(&mut self, now_ms: u64, from: Peer, message: Message, out: &mut Vec<Effect>) -> Result<(), Reason> {
        let Some(state) = &mut self.height else { return self.keep(from, message) };
        let height = state.instance.height();
        if message.height < height {
            return Err(Reason::StaleHeight);
        }
        if message.height > height {
            return if message.height == height.next() { self.keep(from, message) } else { Err(Reason::FutureHeight) };
        }
        match message.body {
            Body::Prepare(vote) => state.hear_vote(Kind::Prepare, &vote, None, out),
            Body::Commit(Commit { vote, partials }) => state.hear_vote(Kind::Commit, &vote, partials, out),
            Body::RoundChange(change) => state.hear_round_change(*change, out),
            Body::Proposal(proposal) => self.hear_proposal(now_ms, from, *proposal, out),
            Body::Status | Body::Request | Body::Final(_) => Err(Reason::Kind),
        }
    }

    /// Keeps a message for the height that comes, the latest of its kind from a peer.
    fn keep(&mut self, from: Peer, message: Message) -> Result<(), Reason> {
        let key = (from, message.name());
        if self.ahead.len() >= AHEAD_MAX && !self.ahead.contains_key(&key) {
            return Err(Reason::FutureHeight);
        }
        self.ahead.insert(key, message);
        Ok(())
    }

    /// `isValidProposal`.
    fn hear_proposal(
        &mut self,
        now_ms: u64,
        from: Peer,
        proposal: Proposal,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        let Some(state) = &mut self.height else { return Err(Reason::StaleHeight) };
        let instance = &state.instance;
        let (place, round, digest) = (instance.place(), proposal.round, proposal.header.digest());
        if round < state.round {
            return Err(Reason::StaleRound);
        }
        if instance.proposer(round) != Some(proposal.sender) {
            return Err(Reason::NotProposer);
        }
        let statement = statement::proposal(place, round, digest);
        if !instance.scheme.verify(proposal.sender, &statement, &proposal.signature) {
            return Err(Reason::Signature);
        }
        if let Some(first) = state.proposals.get(&round) {
            let seen = first.header.digest();
            if seen == digest {
                return Err(Reason::Duplicate);
            }
            let both = [(Said::Proposal(seen), first.signature), (Said::Proposal(digest), proposal.signature)];
            let height = place.height;
            out.push(Effect::Evidence(Box::new(Equivocation { sender: proposal.sender, height, round, both })));
            return Err(Reason::Equivocation);
        }
        check_continuity(&instance.parent, &proposal.header, &instance.set).map_err(|_| Reason::Continuity)?;
        let again = match &proposal.justification {
            None if round == Round(0) => false,
            Some(justification) if round > Round(0) => {
                check_proposal(place, round, digest, justification, &instance.set, &instance.scheme)
                    .map_err(|_| Reason::Justification)?
            }
            _ => return Err(Reason::Justification),
        };
        // What a quorum has prepared was looked into by its honest members; a new header is made by the round's proposer in the round.
        if !again && (proposal.header.round != round || proposal.header.proposer != proposal.sender) {
            return Err(Reason::Continuity);
        }
        if again && proposal.header.round > round {
            return Err(Reason::Continuity);
        }
        // After a crash its own vote may be all that it remembers of the round: it waits for the header that the vote was for.
        let own = state.me.and_then(|me| state.prepares.get(round, me)).map(|ballot| ballot.digest);
        if round == state.round && (state.accepted.is_some() || own.is_some_and(|own| own != digest)) {
            return Err(Reason::Duplicate);
        }
        state.proposals.insert(round, proposal.clone());
        if again || state.valid.contains_key(&digest) {
            self.accept(now_ms, &proposal, out);
        } else {
            out.push(Effect::Check(Box::new(proposal.header)));
            state.pending = Some((from, proposal));
        }
        Ok(())
    }

    /// The host has looked into a proposal's contents.
    pub(super) fn upon_checked(&mut self, now_ms: u64, digest: HeaderDigest, valid: bool, out: &mut Vec<Effect>) {
        let Some(state) = &mut self.height else { return };
        let Some((from, proposal)) = state.pending.take_if(|(_, proposal)| proposal.header.digest() == digest) else {
            return;
        };
        if !valid {
            out.push(Effect::Reject { from, reason: Reason::Contents });
        } else if proposal.round > state.round || proposal.round == state.round && state.accepted.is_none() {
            self.accept(now_ms, &proposal, out);
        }
    }
}

impl<S: Scheme + Clone> HeightState<S> {
    fn hear_vote(
        &mut self,
        kind: Kind,
        vote: &Vote,
        partials: Option<Partials>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        let (place, round) = (self.instance.place(), self.round);
        if vote.sender.at() >= self.instance.set.len() {
            return Err(Reason::Stranger);
        }
        let oldest = match kind {
            Kind::Prepare => round,
            Kind::Commit => Round(round.0.saturating_sub(ROUNDS_BEHIND)),
        };
        if vote.round < oldest {
            return Err(Reason::StaleRound);
        }
        if vote.round.0 > round.0.saturating_add(ROUNDS_AHEAD) {
            return Err(Reason::FutureRound);
        }
        let statement = |digest| kind.said(digest).statement(place, vote.round);
        let ballots = match kind {
            Kind::Prepare => &mut self.prepares,
            Kind::Commit => &mut self.commits,
        };
        let Some(first) = ballots.get(vote.round, vote.sender).copied() else {
            ballots.put(vote, partials, false);
            return Ok(());
        };
        if first.digest == vote.digest && (first.verified || first.signature == vote.signature) {
            return Err(Reason::Duplicate);
        }
        // One of the two may be somebody else's.
        let scheme = &self.instance.scheme;
        if !scheme.verify(vote.sender, &statement(vote.digest), &vote.signature) {
            return Err(Reason::Signature);
        }
        if !scheme.verify(vote.sender, &statement(first.digest), &first.signature) {
            if first.verified {
                // It held in a sum and does not hold alone: two who lent each other their signatures have signed, and neither can be shown.
                return Err(Reason::Equivocation);
            }
            ballots.remove(vote.round, vote.sender);
            ballots.put(vote, partials, true);
            return Ok(());
        }
        if first.digest == vote.digest {
            return Err(Reason::Duplicate);
        }
        let both = [(kind.said(first.digest), first.signature), (kind.said(vote.digest), vote.signature)];
        let (sender, round) = (vote.sender, vote.round);
        out.push(Effect::Evidence(Box::new(Equivocation { sender, height: place.height, round, both })));
        Err(Reason::Equivocation)
    }

    /// `validRoundChange`, with the certificate of what it claims.
    fn hear_round_change(&mut self, change: RoundChange, out: &mut Vec<Effect>) -> Result<(), Reason> {
        let (place, signed) = (self.instance.place(), &change.signed);
        let sender: ValidatorIndex = signed.sender;
        if sender.at() >= self.instance.set.len() {
            return Err(Reason::Stranger);
        }
        let former = self.changes.get(&sender).map(|former| former.signed);
        match former {
            Some(former) if former.round > signed.round => return Err(Reason::StaleRound),
            Some(former) if former == *signed => return Err(Reason::Duplicate),
            _ if signed.round < self.round || signed.round == Round(0) => return Err(Reason::StaleRound),
            _ => {}
        }
        let certificate = change.prepared.as_ref().map(|(_, votes)| votes);
        check_round_change(place, signed, certificate, &self.instance.set, &self.instance.scheme).map_err(|error| {
            match error {
                bpi_protocol::consensus::justification::JustificationError::Signature { .. } => Reason::Signature,
                _ => Reason::Justification,
            }
        })?;
        if let Some((header, _)) = &change.prepared
            && (Some(header.digest()) != signed.prepared.map(|claim| claim.digest)
                || check_continuity(&self.instance.parent, header, &self.instance.set).is_err())
        {
            return Err(Reason::Justification);
        }
        if let Some(former) = former.filter(|former| former.round == signed.round) {
            let both = [
                (Said::RoundChange(former.prepared), former.signature),
                (Said::RoundChange(signed.prepared), signed.signature),
            ];
            let (height, round) = (place.height, signed.round);
            out.push(Effect::Evidence(Box::new(Equivocation { sender, height, round, both })));
            return Err(Reason::Equivocation);
        }
        if let Some((header, _)) = &change.prepared {
            self.valid.insert(header.digest(), *header);
        }
        self.changes.insert(sender, change);
        Ok(())
    }
}
