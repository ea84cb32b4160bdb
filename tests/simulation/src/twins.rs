//! Twins, enumerated (Bano et al., arXiv 2004.10617): four validators, one of them doubled, and in each round every way to part the five
//! processes in two and every proposer. Honest validators are alike, so of histories that differ only by their names one is run.
//!
//! After the rounds that are enumerated all can hear each other, and a header must become final within some rounds more.

use std::collections::VecDeque;

use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Round, ValidatorIndex};
use bpi_protocol::consensus::message::Message;
use bpi_validator::core::{Core, Effect, Input, Instance, Peer, Recovered};

use crate::scheme::ToyScheme;
use crate::sets::{NodeSchedule, Sets};
use crate::world::TIMING;
use bpi_validator::replica::Schedule;

/// Validators.
const VALIDATORS: usize = 4;
/// Processes: the last one is the twin of validator 0.
const PROCESSES: usize = 5;
/// Rounds after the enumerated ones, in which all can hear each other.
const ROUNDS_AFTER: usize = 6;
/// Messages of one round, at most.
const MESSAGES_MAX: usize = 10_000;

/// One round: who is apart from process 0, as bits 1 to 4, and who proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoundPlan {
    apart: u8,
    proposer: u8,
}

/// Every plan of one round.
pub fn plans() -> Vec<RoundPlan> {
    (0..16)
        .flat_map(|apart| (0..VALIDATORS as u8).map(move |proposer| RoundPlan { apart: apart << 1, proposer }))
        .collect()
}

/// The permutations of the honest validators 1, 2 and 3.
const PERMUTATIONS: [[u8; 4]; 6] = [[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3], [0, 2, 3, 1], [0, 3, 1, 2], [0, 3, 2, 1]];

fn renamed(plan: RoundPlan, names: &[u8; 4]) -> RoundPlan {
    let twin = plan.apart & 1 << 4;
    let apart = (1..4).filter(|node| plan.apart & 1 << node != 0).fold(twin, |sum, node| sum | 1 << names[node]);
    RoundPlan { apart, proposer: names[plan.proposer as usize] }
}

/// True for the one history of those that differ by names that is run.
pub fn is_first_of_its_kind(history: &[RoundPlan]) -> bool {
    PERMUTATIONS.iter().all(|names| history.iter().map(|plan| renamed(*plan, names)).ge(history.iter().copied()))
}

/// What all histories came to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Histories run.
    pub run: u64,
    /// Histories that are another one under other names.
    pub alike: u64,
    /// The first that went wrong, and how.
    pub wrong: Option<(Vec<RoundPlan>, String)>,
}

/// Runs every history of so many rounds whose number is `part` modulo `parts`.
pub fn enumerate(rounds: usize, part: u64, parts: u64) -> Total {
    let (plans, mut total) = (plans(), Total::default());
    let count = (plans.len() as u64).pow(rounds as u32);
    let sets = Sets::new(VALIDATORS, u64::MAX);
    for number in (part..count).step_by(parts.max(1) as usize) {
        let mut rest = number;
        let history: Vec<RoundPlan> = (0..rounds)
            .map(|_| {
                let plan = plans[(rest % plans.len() as u64) as usize];
                rest /= plans.len() as u64;
                plan
            })
            .collect();
        if !is_first_of_its_kind(&history) {
            total.alike += 1;
            continue;
        }
        total.run += 1;
        if let Err(sentence) = run(&sets, &history) {
            total.wrong = Some((history, sentence));
            return total;
        }
    }
    total
}

struct Cluster {
    cores: Vec<Core<ToyScheme>>,
    queue: VecDeque<(usize, usize, Message)>,
    apart: u8,
    decided: [Option<HeaderDigest>; PROCESSES],
    instance: Instance<ToyScheme>,
    now_ms: u64,
}

/// Runs one history.
///
/// # Errors
/// What went wrong.
pub fn run(sets: &Sets, history: &[RoundPlan]) -> Result<(), String> {
    let schedule = NodeSchedule { sets: sets.clone(), node: 1 };
    let Some((mut instance, _)) = schedule.instance(&sets.genesis) else { return Err("no set".to_owned()) };
    let healed = (0..ROUNDS_AFTER as u16).map(|round| ValidatorIndex(round % VALIDATORS as u16));
    instance.order = history.iter().map(|plan| ValidatorIndex(plan.proposer.into())).chain(healed).collect();
    let start_ms = instance.parent.time.0 + TIMING.block_ms;
    let mut cluster = Cluster {
        cores: Vec::new(),
        queue: VecDeque::new(),
        apart: history.first().map_or(0, |plan| plan.apart),
        decided: [None; PROCESSES],
        instance,
        now_ms: start_ms,
    };
    // The sets of a simulation leave out node 0 at first, so validator i is node i + 1.
    for process in 0..PROCESSES {
        let key = sets.key(process % VALIDATORS + 1);
        cluster.cores.push(Core::validator(TIMING, std::sync::Arc::new(key), None));
    }
    for process in 0..PROCESSES {
        let me = ValidatorIndex((process % VALIDATORS) as u16);
        let effects = cluster.cores[process].start(start_ms, cluster.instance.clone(), Some(me), Recovered::default());
        cluster.carry_out(process, effects);
    }
    let rounds = history.len() + ROUNDS_AFTER;
    for round in 0..rounds {
        cluster.apart = history.get(round).map_or(0, |plan| plan.apart);
        if round > 0 {
            cluster.now_ms = start_ms + TIMING.offset_ms(Round(round as u32));
            cluster.time_out();
        }
        cluster.settle()?;
        let honest: Vec<_> = (1..VALIDATORS).filter_map(|process| cluster.decided[process]).collect();
        if honest.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("two headers are final after round {round}"));
        }
        // Whoever has a final header hands it on, once all can hear each other.
        if round >= history.len() && !honest.is_empty() {
            return Ok(());
        }
    }
    Err(format!("nothing is final {ROUNDS_AFTER} rounds after all could hear each other"))
}

impl Cluster {
    fn hears(&self, one: usize, other: usize) -> bool {
        (self.apart >> one & 1) == (self.apart >> other & 1)
    }

    fn time_out(&mut self) {
        for process in 0..PROCESSES {
            if let Some((height, round)) = self.cores[process].height().zip(self.cores[process].round()) {
                let effects = self.cores[process].step(self.now_ms, Input::Timer { height, round });
                self.carry_out(process, effects);
            }
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..MESSAGES_MAX {
            let Some((from, to, message)) = self.queue.pop_front() else { return Ok(()) };
            let input = Input::Message { from: Peer(from as u32), message };
            let effects = self.cores[to].step(self.now_ms, input);
            self.carry_out(to, effects);
        }
        Err("a storm of messages".to_owned())
    }

    fn carry_out(&mut self, process: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Broadcast(message) => {
                    for to in 0..PROCESSES {
                        if to != process && self.hears(process, to) {
                            self.queue.push_back((process, to, message.clone()));
                        }
                    }
                }
                Effect::Propose { round, .. } => {
                    let header = self.header(process, round);
                    let effects = self.cores[process].step(self.now_ms, Input::Proposed { round, header });
                    self.carry_out(process, effects);
                }
                Effect::Check(header) => {
                    let checked = Input::Checked { digest: header.digest(), valid: true };
                    let effects = self.cores[process].step(self.now_ms, checked);
                    self.carry_out(process, effects);
                }
                Effect::Finalise { header, .. } => self.decided[process] = Some(header.digest()),
                _ => {}
            }
        }
    }

    /// A header that differs from that of every other process and round.
    fn header(&self, process: usize, round: Round) -> Box<Header> {
        let mut header = self.instance.parent;
        header.height = self.instance.height();
        header.parent = self.instance.parent.digest();
        header.time.0 += 1;
        header.round = round;
        header.validators = header.next_validators;
        header.proposer = ValidatorIndex((process % VALIDATORS) as u16);
        header.da_root[0] = process as u8;
        Box::new(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_wrong_with_twins_in_two_rounds() {
        let total = enumerate(2, 0, 1);
        assert_eq!((total.run + total.alike, total.wrong), (64 * 64, None));
        assert!(total.run > 64 * 64 / 6);
    }
}
