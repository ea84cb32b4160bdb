//! The rules: what a node does when it has heard enough.

use bpi_protocol::consensus::equivocation::Step;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::justification::{Justification, SignedRoundChange, highest_prepared};
use bpi_protocol::consensus::message::{Body, Commit, Message, Proposal, RoundChange, Vote};
use bpi_protocol::consensus::scheme::Scheme;
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::statement::{self, PreparedClaim};

use super::state::{Core, Prepared};
use super::{Effect, Position, Record};

/// How many rounds before the present one COMMIT votes are kept.
const ROUNDS_KEPT: u32 = 8;

impl<S: Scheme + Clone> Core<S> {
    /// Applies the rules until none applies (`NodeNext` of the Dafny specification).
    pub(super) fn run(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        while self.upon_commits(out) || self.upon_prepares(out) || self.upon_round_changes(now_ms, out) {}
    }

    /// `UponProposal`: accepts a proposal that is justified and right, and says so.
    pub(super) fn accept(&mut self, now_ms: u64, proposal: &Proposal, out: &mut Vec<Effect>) {
        let Some(state) = &self.height else { return };
        if proposal.round > state.round {
            self.enter(now_ms, proposal.round, out);
        }
        let Some(state) = &mut self.height else { return };
        let digest = proposal.header.digest();
        state.valid.insert(digest, proposal.header);
        state.accepted = Some(digest);
        let (round, place) = (proposal.round, state.instance.place());
        if let Some(vote) = self.vote(statement::prepare(place, round, digest), round, digest) {
            let message = Message { height: place.height, body: Body::Prepare(vote) };
            if self.speak(Step::Prepare, message, out)
                && let Some(state) = &mut self.height
            {
                state.prepares.put(&vote, None, true);
            }
        }
    }

    /// `UponPrepare`: a quorum accepts what this node accepts in the present round, so it is prepared.
    fn upon_prepares(&mut self, out: &mut Vec<Effect>) -> bool {
        let silent = self.is_silent();
        let Some(state) = &mut self.height else { return false };
        let (round, place) = (state.round, state.instance.place());
        let said = state.last >= Some(Position { height: place.height, round, step: Step::Commit });
        // A crash may have come between the certificate and the vote.
        let known = state.prepared.as_ref().filter(|prepared| prepared.votes.round == round);
        let digest = match known.map(|prepared| prepared.header.digest()) {
            Some(digest) if !said && !silent => digest,
            Some(_) => return false,
            None => {
                let Some(digest) = state.accepted else { return false };
                let quorum = state.instance.set.quorum();
                if state.prepares.leader(round, quorum) != Some(digest) {
                    return false;
                }
                let statement = statement::prepare(place, round, digest);
                let mut bad = Vec::new();
                let scheme = &state.instance.scheme;
                let votes = state.prepares.certify(round, digest, &statement, quorum, scheme, &mut bad);
                let Some((votes, header)) = votes.zip(state.valid.get(&digest).copied()) else {
                    return !bad.is_empty();
                };
                state.prepared = Some(Prepared { header, votes });
                if silent {
                    return true;
                }
                out.push(Effect::Persist(Record::Prepared { header: Box::new(header), votes }));
                digest
            }
        };
        let Some(vote) = self.vote(statement::commit(place, round, digest), round, digest) else { return true };
        let shares = self.identity.as_ref().and_then(|identity| identity.shares.as_ref());
        let partials = shares.and_then(|shares| shares.partials(place, round, digest));
        let message = Message { height: place.height, body: Body::Commit(Commit { vote, partials }) };
        if self.speak(Step::Commit, message, out)
            && let Some(state) = &mut self.height
        {
            state.commits.put(&vote, partials, true);
        }
        true
    }

    /// `UponCommit`: a quorum has prepared a header in some round. It is final.
    fn upon_commits(&mut self, out: &mut Vec<Effect>) -> bool {
        let Some(state) = &mut self.height else { return false };
        let (place, quorum) = (state.instance.place(), state.instance.set.quorum());
        for round in state.commits.rounds() {
            let Some(digest) = state.commits.leader(round, quorum) else { continue };
            let statement = statement::commit(place, round, digest);
            let mut bad = Vec::new();
            let votes = state.commits.certify(round, digest, &statement, quorum, &state.instance.scheme, &mut bad);
            let Some(votes) = votes else { continue };
            let Some(header) = state.valid.get(&digest).copied() else {
                if !std::mem::replace(&mut state.missing, true) {
                    out.push(Effect::Missing { height: place.height });
                }
                continue;
            };
            let partials = state.commits.partials(round, digest);
            out.push(Effect::Finalise { header: Box::new(header), seal: Seal::Votes(votes), partials });
            self.height = None;
            return false;
        }
        false
    }

    /// `UponRoundChange`: the proposer of a round that a quorum goes to proposes; who is behind f+1 others follows them.
    fn upon_round_changes(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        self.lead(now_ms, out) || self.follow(now_ms, out)
    }

    /// The first half: `isReceivedProposalJustification`.
    fn lead(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let Some(state) = &self.height else { return false };
        let Some(me) = state.me.filter(|_| !self.is_silent()) else { return false };
        let instance = &state.instance;
        let count = |round| state.changes.values().filter(|change| change.signed.round == round).count();
        let mine = state.changes.values().map(|change| change.signed.round).filter(|round| {
            let open = *round > state.round || *round == state.round && state.accepted.is_none();
            open && state.proposed < Some(*round)
                && instance.proposer(*round) == Some(me)
                && count(*round) >= instance.set.quorum()
        });
        let Some(round) = mine.max() else { return false };
        let claim = highest_prepared(state.changes_to(round));
        let asked = state.asked >= Some(round);
        let prepared = claim.and_then(|claim| state.prepared_by_change(claim));
        if prepared.is_none() && (asked || claim.is_some()) {
            return false;
        }
        if round > state.round {
            self.enter(now_ms, round, out);
        }
        match prepared {
            Some(header) => self.propose(round, header, out),
            None => {
                let Some(state) = &mut self.height else { return false };
                state.asked = Some(round);
                let height = state.instance.height();
                out.push(Effect::Propose { height, round, not_before_ms: state.start_ms });
                false
            }
        }
    }

    /// The second half: f+1 have gone to later rounds, so one of them is honest. The latest round that f+1 have reached.
    fn follow(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let Some(state) = &self.height else { return false };
        let mut later: Vec<_> =
            state.changes.values().map(|change| change.signed.round).filter(|round| *round > state.round).collect();
        later.sort_unstable_by(|one, other| other.cmp(one));
        let Some(round) = later.get(state.instance.set.faults()).copied() else { return false };
        self.enter_by_change(now_ms, round, out);
        true
    }

    /// `UponRoundTimeout`: the round is over.
    pub(super) fn upon_timeout(&mut self, now_ms: u64, height: Height, round: Round, out: &mut Vec<Effect>) {
        let Some(state) = self.height.as_ref().filter(|state| state.instance.height() == height) else { return };
        if state.round != round {
            return;
        }
        let meant = self.timing.round_at(state.start_ms, now_ms);
        self.enter_by_change(now_ms, meant.max(round.next()), out);
    }

    /// The host's header for a round that this node leads (`UponBlockTimeout` in the first round).
    pub(super) fn upon_own_header(&mut self, round: Round, header: Header, out: &mut Vec<Effect>) {
        let Some(state) = &self.height else { return };
        let mine = state.me.is_some() && state.instance.proposer(round) == state.me;
        let open = round == state.round && state.accepted.is_none() && state.proposed < Some(round);
        if !mine || !open || state.asked != Some(round) || header.height != state.instance.height() {
            return;
        }
        // Some may have gone on to later rounds meanwhile: then there is no quorum to show any more, and nobody to listen.
        if round > Round(0) && state.changes_to(round).count() < state.instance.set.quorum() {
            return;
        }
        // What was prepared meanwhile goes before.
        let header = match highest_prepared(state.changes_to(round)) {
            None => Some(header),
            Some(claim) => state.prepared_by_change(claim),
        };
        if let Some(header) = header {
            self.propose(round, header, out);
        }
    }

    fn propose(&mut self, round: Round, header: Header, out: &mut Vec<Effect>) -> bool {
        let Some(state) = &mut self.height else { return false };
        state.proposed = Some(round);
        let justification = (round > Round(0)).then(|| state.justification(round));
        let (place, digest) = (state.instance.place(), header.digest());
        let Some(vote) = self.vote(statement::proposal(place, round, digest), round, digest) else { return false };
        let proposal = Proposal { sender: vote.sender, round, header, justification, signature: vote.signature };
        let message = Message { height: place.height, body: Body::Proposal(Box::new(proposal.clone())) };
        if !self.speak(Step::Proposal, message, out) {
            return false;
        }
        if let Some(state) = &mut self.height {
            state.proposals.insert(round, proposal.clone());
        }
        // The round is the present one already, so the moment does not matter.
        self.accept(0, &proposal, out);
        true
    }

    pub(super) fn ask_for_header_of_first_round(&mut self, out: &mut Vec<Effect>) {
        if self.is_silent() {
            return;
        }
        let Some(state) = &mut self.height else { return };
        let first = Round(0);
        if state.round == first && state.asked.is_none() && state.instance.proposer(first) == state.me {
            state.asked = Some(first);
            let height = state.instance.height();
            out.push(Effect::Propose { height, round: first, not_before_ms: state.start_ms });
        }
    }

    /// Goes to a round and tells the others, with what was prepared (`createRoundChange`).
    pub(super) fn enter_by_change(&mut self, now_ms: u64, round: Round, out: &mut Vec<Effect>) {
        self.enter(now_ms, round, out);
        if self.is_silent() {
            return;
        }
        let Some(state) = &self.height else { return };
        let place = state.instance.place();
        let prepared = state.prepared.clone();
        let claim = prepared
            .as_ref()
            .map(|Prepared { header, votes }| PreparedClaim { round: votes.round, digest: header.digest() });
        let statement = statement::round_change(place, round, claim);
        let Some(vote) = self.vote(statement, round, HeaderDigest::default()) else { return };
        let signed = SignedRoundChange { sender: vote.sender, round, prepared: claim, signature: vote.signature };
        let change = RoundChange { signed, prepared: prepared.map(|Prepared { header, votes }| (header, votes)) };
        let message = Message { height: place.height, body: Body::RoundChange(Box::new(change.clone())) };
        if self.speak(Step::RoundChange, message, out)
            && let Some(state) = &mut self.height
        {
            state.changes.insert(vote.sender, change);
        }
    }

    fn enter(&mut self, now_ms: u64, round: Round, out: &mut Vec<Effect>) {
        let Some(state) = &mut self.height else { return };
        state.round = round;
        state.accepted = None;
        state.spoken.clear();
        if state.pending.as_ref().is_some_and(|(_, proposal)| proposal.round < round) {
            state.pending = None;
        }
        let kept = Round(round.0.saturating_sub(ROUNDS_KEPT));
        state.prepares.forget_before(round);
        state.commits.forget_before(kept);
        state.proposals = state.proposals.split_off(&kept);
        self.set_timer(now_ms, out);
    }

    /// The end of the present round: aligned to the start of the height, and never shorter than half of its length.
    pub(super) fn set_timer(&self, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(state) = &self.height else { return };
        let end = state.start_ms.saturating_add(self.timing.offset_ms(state.round.next()));
        let soonest = now_ms.saturating_add(self.timing.length_ms(state.round) / 2);
        let height = state.instance.height();
        out.push(Effect::SetTimer { height, round: state.round, at_ms: end.max(soonest) });
    }

    /// A signature of this node, as a vote.
    fn vote(&self, statement: Vec<u8>, round: Round, digest: HeaderDigest) -> Option<Vote> {
        let sender: ValidatorIndex = self.height.as_ref()?.me.filter(|_| !self.is_silent())?;
        let signature = self.identity.as_ref()?.signer.sign(&statement);
        Some(Vote { sender, round, digest, signature })
    }
}

impl<S: Scheme + Clone> super::state::HeightState<S> {
    /// The round changes to a round.
    pub(super) fn changes_to(&self, round: Round) -> impl Iterator<Item = &SignedRoundChange> {
        self.changes.values().map(|change| &change.signed).filter(move |signed| signed.round == round)
    }

    /// The header that a proved claim is about.
    fn prepared_by_change(&self, claim: PreparedClaim) -> Option<Header> {
        let mut proved = self.changes.values().filter_map(|change| change.prepared.as_ref());
        proved
            .find(|(header, votes)| votes.round == claim.round && header.digest() == claim.digest)
            .map(|(header, _)| *header)
    }

    /// `Q_rc` for a round, and the certificate of its highest claim.
    fn justification(&self, round: Round) -> Justification {
        let round_changes: Vec<_> = self.changes_to(round).copied().collect();
        let claim = highest_prepared(&round_changes);
        let proved = self.changes.values().filter_map(|change| change.prepared.as_ref());
        let prepared = claim.and_then(|claim| {
            let mut fitting =
                proved.filter(|(header, votes)| votes.round == claim.round && header.digest() == claim.digest);
            fitting.next().map(|(_, votes)| *votes)
        });
        Justification { round_changes, prepared }
    }
}
