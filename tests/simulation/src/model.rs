//! A model check of the core by stateright: four validators at one height, of which one is a traitor, and every way in which messages come late
//! or never and rounds end early.
//!
//! Links keep their order, as streams do (the simulator reorders); what is sent may come at any time, or never, so losing and delaying need no
//! steps of their own. The traitor has a script for each of the others, and every choice of scripts is tried: silence, either of two headers
//! with votes for it or for the other, or all of it at once.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Round, ValidatorIndex};
use bpi_protocol::consensus::justification::SignedRoundChange;
use bpi_protocol::consensus::message::{Body, Commit, Message, Proposal, RoundChange, Vote};
use bpi_protocol::consensus::scheme::Signer as _;
use bpi_protocol::consensus::statement;
use bpi_validator::core::{Core, Effect, Input, Instance, Peer, Recovered};
use bpi_validator::replica::Schedule as _;
use stateright::{Checker, Model, Property};

use crate::scheme::{ToyKey, ToyScheme};
use crate::sets::{NodeSchedule, Sets};
use crate::world::TIMING;

/// Honest validators; the traitor is the one before them, and proposes first.
const HONEST: usize = 3;

/// Validators, what was said, and what is final.
#[derive(Clone)]
pub struct State {
    cores: Vec<Core<ToyScheme>>,
    /// Which script the traitor follows towards each of the others.
    scripts: [usize; HONEST],
    /// What the others have said to all, in order.
    said: [Vec<Arc<[u8]>>; HONEST],
    /// How much of each link has been heard: of the traitor's first.
    heard: [[u8; HONEST + 1]; HONEST],
    decided: [Option<HeaderDigest>; HONEST],
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.cores, self.scripts, &self.said, self.heard, self.decided).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        // The cores are functions of what they have heard and in which order; two states are one if they act alike.
        let print = |state: &Self| {
            let mut hasher = std::hash::DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        print(self) == print(other)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "scripts {:?}, heard {:?}, decided {:?}", self.scripts, self.heard, self.decided)
    }
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An honest validator hears the next message of a link, the traitor's being the first.
    Hear(usize, usize),
    /// An honest validator's round ends.
    TimeOut(usize),
}

/// The system.
pub struct Cluster {
    instance: Instance<ToyScheme>,
    keys: Vec<ToyKey>,
    /// The last round that a timer may lead to.
    rounds: u32,
    /// What the traitor may say to one of the others, in order.
    scripts: Vec<Vec<Message>>,
}

impl Cluster {
    /// One height, up to a round.
    ///
    /// # Errors
    /// Never with the sets of a simulation.
    pub fn new(rounds: u32) -> Result<Self, &'static str> {
        let sets = Sets::new(HONEST + 1, u64::MAX);
        let schedule = NodeSchedule { sets: sets.clone(), node: 1 };
        let (mut instance, _) = schedule.instance(&sets.genesis).ok_or("no set")?;
        instance.order = (0..=HONEST as u16).map(ValidatorIndex).collect();
        let keys = (1..=HONEST + 1).map(|node| sets.key(node)).collect();
        let mut cluster = Self { instance, keys, rounds, scripts: Vec::new() };
        cluster.write_scripts();
        Ok(cluster)
    }

    fn header(&self, proposer: usize, round: u32, mark: u8) -> Header {
        let parent = self.instance.parent;
        let mut header = parent;
        header.height = self.instance.height();
        header.parent = parent.digest();
        header.time.0 += 1;
        header.round = Round(round);
        header.validators = parent.next_validators;
        header.proposer = ValidatorIndex(proposer as u16);
        header.da_root[0] = mark;
        header
    }

    fn write_scripts(&mut self) {
        let headers = [1, 2].map(|mark| self.header(0, 0, mark));
        // Which header is proposed and which is voted for; `None`: neither.
        let plans: [&[(usize, usize)]; 6] = [&[], &[(0, 0)], &[(1, 1)], &[(0, 1)], &[(1, 0)], &[(0, 0), (1, 1)]];
        for plan in plans {
            let mut script = Vec::new();
            for (proposed, voted) in plan {
                script.extend(self.lines(&headers[*proposed], &headers[*voted]));
            }
            if !plan.is_empty() {
                script.extend((1..=self.rounds).map(|round| self.change(Round(round))));
            }
            self.scripts.push(script);
        }
    }

    /// A proposal of one header, and votes for another.
    fn lines(&self, proposed: &Header, voted: &Header) -> Vec<Message> {
        let (place, key, sender) = (self.instance.place(), self.keys[0], ValidatorIndex(0));
        let (round, digest) = (Round(0), voted.digest());
        let vote = |signature| Vote { sender, round, digest, signature };
        let signature = key.sign(&statement::proposal(place, round, proposed.digest()));
        let bodies = [
            Body::Proposal(Box::new(Proposal { sender, round, header: *proposed, justification: None, signature })),
            Body::Prepare(vote(key.sign(&statement::prepare(place, round, digest)))),
            Body::Commit(Commit { vote: vote(key.sign(&statement::commit(place, round, digest))), partials: None }),
        ];
        bodies.map(|body| Message { height: place.height, body }).into()
    }

    /// A round change that leaves behind what was prepared.
    fn change(&self, round: Round) -> Message {
        let place = self.instance.place();
        let signature = self.keys[0].sign(&statement::round_change(place, round, None));
        let signed = SignedRoundChange { sender: ValidatorIndex(0), round, prepared: None, signature };
        Message { height: place.height, body: Body::RoundChange(Box::new(RoundChange { signed, prepared: None })) }
    }

    /// The next message of a link, if there is one.
    fn next_of(&self, state: &State, who: usize, from: usize) -> Option<Message> {
        let at = usize::from(state.heard[who][from]);
        match from.checked_sub(1) {
            None => self.scripts[state.scripts[who]].get(at).cloned(),
            Some(speaker) => Message::from_bytes(state.said[speaker].get(at)?).ok(),
        }
    }

    fn carry_out(&self, state: &mut State, who: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Broadcast(message) => {
                    state.said[who].push(message.to_bytes().into());
                }
                Effect::Propose { round, .. } => {
                    let header = Box::new(self.header(who + 1, round.0, 3));
                    let effects = state.cores[who].step(0, Input::Proposed { round, header });
                    self.carry_out(state, who, effects);
                }
                Effect::Check(header) => {
                    let checked = Input::Checked { digest: header.digest(), valid: true };
                    let effects = state.cores[who].step(0, checked);
                    self.carry_out(state, who, effects);
                }
                Effect::Finalise { header, .. } => state.decided[who] = Some(header.digest()),
                _ => {}
            }
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let count = self.scripts.len();
        let choices = (0..count.pow(HONEST as u32))
            .map(|number| [number % count, number / count % count, number / count / count])
            // Without later rounds the honest are alike: of choices that differ by their names one is looked at.
            .filter(|scripts| self.rounds > 0 || scripts.is_sorted());
        let start = |scripts| {
            let mut state = State {
                cores: Vec::new(),
                scripts,
                said: Default::default(),
                heard: Default::default(),
                decided: [None; HONEST],
            };
            for who in 0..HONEST {
                let mut core = Core::validator(TIMING, Arc::new(self.keys[who + 1]), None);
                let me = Some(ValidatorIndex(who as u16 + 1));
                let effects = core.start(0, self.instance.clone(), me, Recovered::default());
                state.cores.push(core);
                self.carry_out(&mut state, who, effects);
            }
            state
        };
        choices.map(start).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for who in (0..HONEST).filter(|who| state.decided[*who].is_none()) {
            let links = (0..=HONEST).filter(|from| *from != who + 1);
            actions.extend(
                links.filter(|from| self.next_of(state, who, *from).is_some()).map(|from| Action::Hear(who, from)),
            );
            if state.cores[who].round().is_some_and(|round| round.0 < self.rounds) {
                actions.push(Action::TimeOut(who));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let (who, input) = match action {
            Action::Hear(who, from) => {
                let message = self.next_of(last, who, from)?;
                state.heard[who][from] += 1;
                (who, Input::Message { from: Peer(from as u32), message })
            }
            Action::TimeOut(who) => {
                let core = &state.cores[who];
                (who, Input::Timer { height: core.height()?, round: core.round()? })
            }
        };
        let effects = state.cores[who].step(0, input);
        self.carry_out(&mut state, who, effects);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two final headers", |_: &Self, state: &State| {
                let mut decided = state.decided.iter().flatten();
                decided.next().is_none_or(|first| decided.all(|other| other == first))
            }),
            Property::sometimes("all have decided", |_: &Self, state: &State| {
                state.decided.iter().all(Option::is_some)
            }),
        ]
    }
}

/// What a check came to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// States that were looked at.
    pub states: usize,
    /// Different ones of them.
    pub unique: usize,
    /// Longest way to a state.
    pub depth: usize,
    /// True when there are no others.
    pub complete: bool,
    /// Properties that do not hold, and the way to where they do not.
    pub wrong: Vec<String>,
}

/// Looks at up to so many states, breadth first; without a bound at all there are, depth first, which keeps few of them in memory.
///
/// # Errors
/// As [`Cluster::new`].
pub fn check(rounds: u32, states_max: Option<usize>, threads: usize) -> Result<Checked, &'static str> {
    let builder = Cluster::new(rounds)?.checker().threads(threads);
    Ok(match states_max {
        Some(most) => checked(&builder.target_state_count(most).spawn_bfs().join(), most),
        None => checked(&builder.spawn_dfs().join(), usize::MAX),
    })
}

fn checked(checker: &impl Checker<Cluster>, states_max: usize) -> Checked {
    let forks = checker.discovery("no two final headers");
    Checked {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        complete: checker.state_count() < states_max,
        wrong: forks.into_iter().map(|path| format!("{:?}", path.into_states().last())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_of_the_first_messages_makes_two_headers_final() {
        let checked = check(1, Some(20_000), 1).unwrap();
        assert!(checked.unique > 2_000, "{checked:?}");
        assert!(checked.wrong.is_empty(), "{checked:?}");
    }
}
