//! What the core remembers of a height, and how it is started, stopped and recovered.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bpi_protocol::consensus::equivocation::Step;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::message::{Body, Commit, Message, Partials, Proposal, RoundChange};
use bpi_protocol::consensus::scheme::{Scheme, Signer};
use bpi_protocol::consensus::seal::Votes;
use bpi_protocol::consensus::statement::Place;

use super::ballots::Ballots;
use super::instance::Instance;
use super::timing::Timing;
use super::{Effect, Input, Peer, Position, Record};

/// What a validator signs with.
#[derive(Clone)]
pub(super) struct Identity {
    pub signer: Arc<dyn Signer + Send + Sync>,
    pub shares: Option<Arc<dyn Shares + Send + Sync>>,
}

/// A validator's shares of the group's signatures.
pub trait Shares {
    /// Shares for the COMMIT vote of a header. `None`: at this height there are none.
    fn partials(&self, place: Place, round: Round, digest: HeaderDigest) -> Option<Partials>;
}

/// A prepared header and its certificate (`lastPreparedBlock`, `lastPreparedRound`).
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Prepared {
    pub header: Header,
    pub votes: Votes,
}

/// What a log kept of a height that was not final.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Own votes in the order of their positions.
    pub votes: Vec<Message>,
    /// What was prepared last.
    pub prepared: Option<(Header, Votes)>,
    /// Up to this height the key may have said more than is known here: the node watches and says nothing. A greater vote could deny what
    /// was prepared.
    pub silent_through: Option<Height>,
}

impl Recovered {
    /// True when something is forgotten.
    pub fn is_forgetful(&self) -> bool {
        self.silent_through.is_some()
    }
}

/// The consensus of one height after another, for one validator or for an observer. A copy goes its own way.
#[derive(Clone)]
pub struct Core<S> {
    pub(super) timing: Timing,
    pub(super) identity: Option<Identity>,
    /// Nothing is signed any more: an effect failed.
    pub(super) failed: bool,
    pub(super) height: Option<HeightState<S>>,
    /// Messages of the next height, one of each kind from each peer.
    pub(super) ahead: BTreeMap<(Peer, &'static str), Message>,
}

/// What is known of the present height.
#[derive(Clone)]
pub(super) struct HeightState<S> {
    pub instance: Instance<S>,
    /// Where this node stands in the set. `None`: it observes.
    pub me: Option<ValidatorIndex>,
    pub start_ms: u64,
    /// `round`.
    pub round: Round,
    /// `proposalAcceptedForCurrentRound`.
    pub accepted: Option<HeaderDigest>,
    /// `lastPreparedBlock` and `lastPreparedRound`.
    pub prepared: Option<Prepared>,
    /// A proposal whose contents are being looked into.
    pub pending: Option<(Peer, Proposal)>,
    /// Headers whose contents are right.
    pub valid: BTreeMap<HeaderDigest, Header>,
    /// The proposal that was seen first in a round, to find a second one.
    pub proposals: BTreeMap<Round, Proposal>,
    pub prepares: Ballots,
    pub commits: Ballots,
    /// The last round change of each validator, its claim proved.
    pub changes: BTreeMap<ValidatorIndex, RoundChange>,
    /// The round for which a header was asked of the host.
    pub asked: Option<Round>,
    /// The round for which this node has proposed.
    pub proposed: Option<Round>,
    /// Its last vote.
    pub last: Option<Position>,
    /// Its votes of the present round, to say them again.
    pub spoken: Vec<Message>,
    /// Told of a header that it has not seen.
    pub missing: bool,
}

impl<S: Scheme + Clone> Core<S> {
    /// A core that observes.
    pub fn observer(timing: Timing) -> Self {
        Self { timing, identity: None, failed: false, height: None, ahead: BTreeMap::new() }
    }

    /// A core that votes, in heights where it is in the set.
    pub fn validator(
        timing: Timing,
        signer: Arc<dyn Signer + Send + Sync>,
        shares: Option<Arc<dyn Shares + Send + Sync>>,
    ) -> Self {
        Self { identity: Some(Identity { signer, shares }), ..Self::observer(timing) }
    }

    /// True when an effect failed: nothing is signed any more.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The height that is worked on.
    pub fn height(&self) -> Option<Height> {
        self.height.as_ref().map(|state| state.instance.height())
    }

    /// The round that it is in.
    pub fn round(&self) -> Option<Round> {
        self.height.as_ref().map(|state| state.round)
    }

    /// The last round in which a header of the height was prepared.
    pub fn prepared_round(&self) -> Option<Round> {
        self.height.as_ref()?.prepared.as_ref().map(|prepared| prepared.votes.round)
    }

    /// Begins a height: `NodeInit`, or after a final header the end of `UponCommit`. `me`: this node's place in the set.
    pub fn start(
        &mut self,
        now_ms: u64,
        instance: Instance<S>,
        me: Option<ValidatorIndex>,
        recovered: Recovered,
    ) -> Vec<Effect> {
        let start_ms = instance.parent.time.0.saturating_add(self.timing.block_ms);
        let height = instance.height();
        let forgotten = recovered.silent_through.is_some_and(|last| height <= last);
        let me = me.filter(|_| self.identity.is_some() && !forgotten);
        let mut state = HeightState {
            instance,
            me,
            start_ms,
            round: Round::default(),
            accepted: None,
            prepared: recovered.prepared.map(|(header, votes)| Prepared { header, votes }),
            pending: None,
            valid: BTreeMap::new(),
            proposals: BTreeMap::new(),
            prepares: Ballots::default(),
            commits: Ballots::default(),
            changes: BTreeMap::new(),
            asked: None,
            proposed: None,
            last: None,
            spoken: Vec::new(),
            missing: false,
        };
        if let Some(Prepared { header, .. }) = &state.prepared {
            state.valid.insert(header.digest(), *header);
        }
        let mut out = Vec::new();
        state.recall(recovered.votes, &mut out);
        let (spoken, meant) = (state.round, self.timing.round_at(start_ms, now_ms));
        self.height = Some(state);
        if meant > spoken {
            self.enter_by_change(now_ms, meant, &mut out);
        } else {
            self.set_timer(now_ms, &mut out);
            self.ask_for_header_of_first_round(&mut out);
        }
        for ((from, _), message) in std::mem::take(&mut self.ahead) {
            if message.height == height {
                self.hear(now_ms, from, message, &mut out);
            } else if message.height > height {
                self.ahead.insert((from, message.name()), message);
            }
        }
        self.run(now_ms, &mut out);
        out
    }

    /// One input, and what comes of it.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Message { from, message } => self.hear(now_ms, from, message, &mut out),
            Input::Timer { height, round } => self.upon_timeout(now_ms, height, round, &mut out),
            Input::Proposed { round, header } => self.upon_own_header(round, *header, &mut out),
            Input::Checked { digest, valid } => self.upon_checked(now_ms, digest, valid, &mut out),
            Input::Connected { peer } => self.repeat(peer, &mut out),
            Input::Failed => self.failed = true,
        }
        self.run(now_ms, &mut out);
        out
    }

    /// Says to a peer what this node has said in the round.
    fn repeat(&self, to: Peer, out: &mut Vec<Effect>) {
        let Some(state) = &self.height else { return };
        out.extend(state.spoken.iter().map(|message| Effect::Send { to, message: message.clone() }));
    }

    /// Signs nothing: an observer, one that was made to forget, or one whose disk failed.
    pub fn is_silent(&self) -> bool {
        self.failed || self.height.as_ref().is_none_or(|state| state.me.is_none())
    }

    /// Persists a vote and sends it. The vote of an earlier position, or another one of the same, is not made; the same one is sent again.
    pub(super) fn speak(&mut self, step: Step, message: Message, out: &mut Vec<Effect>) -> bool {
        if self.is_silent() {
            return false;
        }
        let Some(state) = &mut self.height else { return false };
        let Some(round) = message.round() else { return false };
        let position = Position { height: message.height, round, step };
        if state.last.is_some_and(|last| position <= last) {
            let said = state.spoken.contains(&message);
            if said {
                out.push(Effect::Broadcast(message));
            }
            return said;
        }
        state.last = Some(position);
        out.push(Effect::Persist(Record::Vote { position, message: Box::new(message.clone()) }));
        out.push(Effect::Broadcast(message.clone()));
        state.spoken.push(message);
        true
    }
}

impl<S: Scheme + Clone> HeightState<S> {
    /// Takes over own votes from before a crash, and says those of the last round again.
    fn recall(&mut self, votes: Vec<Message>, out: &mut Vec<Effect>) {
        for message in votes {
            let (Some(round), height) = (message.round(), message.height) else { continue };
            if height != self.instance.height() {
                continue;
            }
            let step = match &message.body {
                Body::Proposal(proposal) => {
                    self.proposed = Some(round);
                    self.asked = Some(round);
                    self.valid.insert(proposal.header.digest(), proposal.header);
                    Step::Proposal
                }
                Body::Prepare(vote) => {
                    self.prepares.put(vote, None, true);
                    Step::Prepare
                }
                Body::Commit(Commit { vote, partials }) => {
                    self.commits.put(vote, *partials, true);
                    Step::Commit
                }
                Body::RoundChange(change) => {
                    self.changes.insert(change.signed.sender, (**change).clone());
                    Step::RoundChange
                }
                Body::Status | Body::Request | Body::Final(_) => continue,
            };
            if round > self.round {
                self.round = round;
                self.spoken.clear();
            }
            self.last = self.last.max(Some(Position { height, round, step }));
            self.spoken.push(message);
        }
        for message in &self.spoken {
            if let Body::Proposal(proposal) = &message.body {
                self.accepted = Some(proposal.header.digest());
                self.proposals.insert(proposal.round, (**proposal).clone());
            }
        }
        out.extend(self.spoken.iter().cloned().map(Effect::Broadcast));
    }
}

/// All that decides what a core will do, but for what its instance, its timing and its keys are.
impl<S> Hash for Core<S> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.failed, &self.ahead).hash(hasher);
        let Some(state) = &self.height else { return };
        (state.me, state.round, state.accepted, &state.prepared, &state.pending, &state.valid).hash(hasher);
        (&state.proposals, &state.prepares, &state.commits, &state.changes).hash(hasher);
        (state.asked, state.proposed, state.last, &state.spoken, state.missing).hash(hasher);
    }
}
