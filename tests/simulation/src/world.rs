//! A cluster on one thread: the real core and the real codecs, a network and disks that fail, a clock that jumps from event to event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;

use bpi_protocol::consensus::equivocation::Step;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::message::{Body, Final, Message};
use bpi_protocol::consensus::scheme::{Scheme as _, Signature};
use bpi_protocol::consensus::statement::Place;
use bpi_protocol::consensus::validators::Signers;
use bpi_validator::core::timing::Timing;
use bpi_validator::core::{Core, Effect, Input, Peer, Record};
use bpi_validator::replica::{Act, Replica};

use crate::adversary::{Adversary, Bytes, Turn};
use crate::disk::Disk;
use crate::oracle::{Facts, Oracle, Parent};
use crate::rng::Rng;
use crate::scenario::{Fault, Scenario};
use crate::scheme::ToyScheme;
use crate::sets::{GENESIS_MS, NodeSchedule, Sets, is_wrong};

/// Lengths of rounds in a simulation.
pub const TIMING: Timing = Timing { block_ms: 250, round_ms: 1000, doublings_max: 3 };
/// Heights that must become final after the network has healed.
const HEIGHTS_AFTER: u64 = 3;
/// What that may take beside the rounds, in ms: catching up, and messages still on their way.
const SETTLING_MS: u64 = 10_000;
/// Events of a history, at most: it would be a storm.
const EVENTS_MAX: u64 = 400_000;
/// How far ahead of a validator's clock a header may be, in ms.
const DRIFT_MS: u64 = 1_000;
/// Messages that an adversary remembers.
const HEARD_MAX: usize = 64;

/// What a vote is for: a header, or a claim with the round in which it was prepared.
type Spoken = (Option<Round>, HeaderDigest);

/// A node, by its number.
pub type Node = usize;

/// What must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two headers are final at this height.
    Fork(Height),
    /// A node has taken a header of this height for final that is not: its seal does not hold, or it does not follow its parent.
    Seal(Node, Height),
    /// An honest node has voted for a header whose contents are wrong, or taken it for final, at this height.
    Contents(Height),
    /// An honest node has signed two things for one step of this height and round.
    DoubleSignature(Node, Height, Round),
    /// A node is accused that has done nothing wrong, or by evidence that proves nothing.
    FalseEvidence(Option<Node>),
    /// What an honest node sent was refused as wrong, by this reason.
    Misjudged(Node, &'static str),
    /// The network has healed, and a node does not get beyond this height.
    Stuck(Node, Height),
    /// A node has said what the rules forbid it, or not said what they demand.
    Rule(Node, String),
    /// Too many events.
    Storm,
}

/// One process: a replica, its disk, its clock.
struct Process {
    node: usize,
    replica: Option<Replica<ToyScheme>>,
    disk: Disk,
    skew_ms: i64,
    /// Counts starts: what was meant for an earlier life is dropped.
    life: u64,
    timer: u64,
    /// Which of two with one key.
    twin: usize,
    /// What it may say.
    oracle: Oracle,
}

enum Event {
    Deliver { process: usize, from: usize, bytes: Bytes },
    Timer { process: usize, life: u64, number: u64, height: Height, round: Round },
    Propose { process: usize, life: u64, height: Height, round: Round },
    Checked { process: usize, life: u64, digest: HeaderDigest, valid: bool },
    Restart { process: usize },
    Crash,
    Cut,
    Heal,
}

/// An event at a moment; of those of one moment the first that was asked for comes first.
struct Due {
    at_ms: u64,
    seq: u64,
    event: Event,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.seq).cmp(&(other.at_ms, other.seq))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What went wrong.
    pub violation: Option<Violation>,
    /// Events.
    pub events: u64,
    /// The greatest final height.
    pub height: u64,
    /// The greatest round in which a header became final.
    pub round: u32,
    /// Crashes.
    pub crashes: u64,
    /// Pieces of evidence.
    pub evidence: u64,
    /// From the healing until all honest nodes have come far enough.
    pub healing_ms: u64,
}

/// A history that runs.
pub struct World {
    scenario: Scenario,
    sets: Sets,
    rng: Rng,
    now_ms: u64,
    seq: u64,
    queue: BinaryHeap<Reverse<Due>>,
    processes: Vec<Process>,
    adversary: Adversary,
    cut: Vec<Vec<bool>>,
    healed: bool,
    finals: BTreeMap<u64, HeaderDigest>,
    spoken: BTreeMap<(Node, Height, Round, Step), Spoken>,
    wrong: BTreeSet<HeaderDigest>,
    /// Honest nodes that have had an older log put back.
    restored: Vec<usize>,
    outcome: Outcome,
    target: u64,
    story: Option<Vec<String>>,
}

/// Runs the history of a seed.
pub fn run(seed: u64, validators: usize, tell: bool) -> (Outcome, Vec<String>) {
    run_scenario(seed, Scenario::of(seed, validators), tell)
}

/// Runs a history under conditions of one's own.
pub fn run_scenario(seed: u64, scenario: Scenario, tell: bool) -> (Outcome, Vec<String>) {
    let mut world = World::new(seed, scenario, tell);
    world.go();
    (world.outcome, world.story.unwrap_or_default())
}

impl World {
    fn new(seed: u64, scenario: Scenario, tell: bool) -> Self {
        let sets = Sets::new(scenario.validators, scenario.epoch);
        let nodes = scenario.validators + 1;
        let mut rng = Rng::new(seed);
        let mut processes = Vec::new();
        for node in 0..nodes {
            let twins = if scenario.fault(node) == Some(Fault::Twins) { 2 } else { 1 };
            for twin in 0..twins {
                let skew_ms = rng.below(2 * scenario.skew_ms + 1) as i64 - scenario.skew_ms as i64;
                let disk = Disk::new(sets.genesis);
                processes.push(Process {
                    node,
                    replica: None,
                    disk,
                    skew_ms,
                    life: 0,
                    timer: 0,
                    twin,
                    oracle: Oracle::default(),
                });
            }
        }
        let count = processes.len();
        let mut world = Self {
            sets,
            rng,
            now_ms: GENESIS_MS,
            seq: 0,
            queue: BinaryHeap::new(),
            processes,
            adversary: Adversary::new(HEARD_MAX),
            cut: vec![vec![false; count]; count],
            healed: false,
            finals: BTreeMap::new(),
            spoken: BTreeMap::new(),
            wrong: BTreeSet::new(),
            restored: Vec::new(),
            outcome: Outcome::default(),
            target: u64::MAX,
            story: tell.then(Vec::new),
            scenario,
        };
        world.tell(|world| format!("{:?}", world.scenario));
        for process in 0..count {
            let after = world.rng.below(200);
            world.after(after, Event::Restart { process });
        }
        let (cut, crash, heal) = (world.scenario.cut_every_ms, world.scenario.crash_every_ms, world.scenario.heal_ms);
        if cut > 0 {
            world.after(cut, Event::Cut);
        }
        if crash > 0 {
            world.after(crash, Event::Crash);
        }
        world.after(heal, Event::Heal);
        world
    }

    fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("{:>7} ms  {}", self.now_ms - GENESIS_MS, line(self));
            if let Some(story) = &mut self.story {
                story.push(line);
            }
        }
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Due { at_ms: self.now_ms + delay_ms, seq: self.seq, event }));
    }

    fn violate(&mut self, violation: Violation) {
        self.tell(|_| format!("VIOLATION {violation:?}"));
        self.outcome.violation.get_or_insert(violation);
    }

    fn go(&mut self) {
        while let Some(Reverse(Due { at_ms, event, .. })) = self.queue.pop() {
            self.now_ms = at_ms;
            self.outcome.events += 1;
            if self.outcome.events > EVENTS_MAX {
                return self.violate(Violation::Storm);
            }
            self.on(event);
            if self.outcome.violation.is_some() || self.is_over() {
                return;
            }
        }
        // Nobody has anything more to say, and not even a timer runs.
        if let Some((node, height)) = self.behind() {
            self.violate(Violation::Stuck(node, height));
        }
    }

    /// An honest node that has not come far enough.
    fn behind(&self) -> Option<(Node, Height)> {
        let mut behind = self.processes.iter().filter(|process| self.scenario.fault(process.node).is_none());
        behind
            .find(|process| process.disk.tip().height.0 < self.target)
            .map(|process| (process.node, process.disk.tip().height))
    }

    /// All honest nodes have come far enough after the network has healed; or it has taken too long.
    fn is_over(&mut self) -> bool {
        if !self.healed {
            return false;
        }
        match self.behind() {
            None => {
                self.outcome.healing_ms = self.now_ms - GENESIS_MS - self.scenario.heal_ms;
                true
            }
            Some((node, height)) if self.now_ms > GENESIS_MS + self.scenario.heal_ms + self.patience_ms() => {
                self.violate(Violation::Stuck(node, height));
                true
            }
            Some(_) => false,
        }
    }

    /// How long the heights after the healing may take: of the first the round that everybody is in, those of f faulty proposers and a good one,
    /// each of the greatest length; of the others f + 1 rounds from the first on.
    fn patience_ms(&self) -> u64 {
        let faults = bpi_protocol::consensus::validators::faults(self.scenario.validators) as u32;
        let greatest = TIMING.length_ms(Round(TIMING.doublings_max));
        let other = TIMING.block_ms + TIMING.offset_ms(Round(faults + 1));
        u64::from(faults + 2) * greatest + (HEIGHTS_AFTER - 1) * other + SETTLING_MS
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Deliver { process, from, bytes } => self.deliver(process, from, &bytes),
            Event::Timer { process, life, number, height, round } => {
                let replaced = self.processes[process].timer != number;
                if self.lives(process, life) && (!replaced || self.rng.chance(self.scenario.old_timers)) {
                    self.tell(|world| format!("{} timer of height {height} round {round}", world.name(process)));
                    self.input(process, Input::Timer { height, round });
                }
            }
            Event::Propose { process, life, height, round } => self.make_header(process, life, height, round),
            Event::Checked { process, life, digest, valid } => {
                if self.lives(process, life) {
                    self.input(process, Input::Checked { digest, valid });
                }
            }
            Event::Restart { process } => self.restart(process),
            Event::Crash => self.crash_somebody(),
            Event::Cut => self.cut_links(),
            Event::Heal => self.heal(),
        }
    }

    fn lives(&self, process: usize, life: u64) -> bool {
        self.processes[process].life == life && self.processes[process].replica.is_some()
    }

    fn name(&self, process: usize) -> String {
        let Process { node, twin, .. } = &self.processes[process];
        match self.scenario.fault(*node) {
            None => format!("n{node}"),
            Some(Fault::Twins) => format!("n{node}{}!", ["a", "b"][*twin]),
            Some(_) => format!("n{node}!"),
        }
    }

    fn clock(&self, process: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.processes[process].skew_ms)
    }

    fn restart(&mut self, process: usize) {
        let node = self.processes[process].node;
        if self.processes[process].replica.is_some() || self.scenario.fault(node) == Some(Fault::Silent) {
            return;
        }
        let now_ms = self.clock(process);
        let key = self.sets.key(node);
        let core = Core::validator(TIMING, std::sync::Arc::new(key), None);
        let schedule = Box::new(NodeSchedule { sets: self.sets.clone(), node });
        let state = &mut self.processes[process];
        state.life += 1;
        let (tip, recovered) = (*state.disk.tip(), state.disk.recover());
        self.tell(|world| {
            let forgetful = if recovered.is_forgetful() { ", knowing less than it has said" } else { "" };
            format!("{} starts after height {}{forgetful}", world.name(process), tip.height)
        });
        let (replica, acts) = Replica::start(core, schedule, tip, recovered, now_ms);
        self.processes[process].replica = Some(replica);
        self.processes[process].oracle.begin();
        self.works_on(process, &tip);
        self.carry_out(process, acts);
        self.rests(process);
        for other in 0..self.processes.len() {
            if other != process && self.processes[other].replica.is_some() {
                self.input(other, Input::Connected { peer: Peer(process as u32) });
                self.input(process, Input::Connected { peer: Peer(other as u32) });
            }
        }
    }

    fn crash(&mut self, process: usize) {
        if self.processes[process].replica.take().is_none() {
            return;
        }
        self.outcome.crashes += 1;
        self.tell(|world| format!("{} crashes", world.name(process)));
        let fault = self.scenario.fault(self.processes[process].node);
        if fault == Some(Fault::Forgetful) {
            let records = self.rng.below(5) as usize;
            self.processes[process].disk.forget(records);
        } else if self.rng.chance(100) && self.may_restore(self.processes[process].node) {
            let records = self.rng.below(4) as usize;
            let heights = if self.rng.chance(300) { self.rng.below(4) as usize } else { 0 };
            self.processes[process].disk.restore_older(records, heights);
            self.processes[process].oracle.loses();
        }
        let down = self.rng.below(self.scenario.down_ms + 1);
        self.after(down, Event::Restart { process });
    }

    /// A node with an older log sits out the height, so it is like a faulty one: there may be f of both.
    fn may_restore(&mut self, node: usize) -> bool {
        let most = bpi_protocol::consensus::validators::faults(self.scenario.validators);
        if !self.restored.contains(&node) && self.restored.len() + self.scenario.faulty.len() < most {
            self.restored.push(node);
        }
        self.restored.contains(&node)
    }

    fn crash_somebody(&mut self) {
        if self.healed {
            return;
        }
        if self.rng.chance(self.scenario.crash_all) {
            for process in 0..self.processes.len() {
                self.crash(process);
            }
        } else {
            let process = self.rng.below(self.processes.len() as u64) as usize;
            self.crash(process);
        }
        let every = self.scenario.crash_every_ms;
        let next = self.rng.between(every / 2, every * 3 / 2);
        self.after(next, Event::Crash);
    }

    fn cut_links(&mut self) {
        if self.healed {
            return;
        }
        let count = self.processes.len();
        let whole = self.rng.chance(300);
        let sides: Vec<bool> = (0..count).map(|_| self.rng.chance(500)).collect();
        let one_way = self.rng.chance(self.scenario.one_way);
        for (from, row) in self.cut.iter_mut().enumerate() {
            for (to, cut) in row.iter_mut().enumerate() {
                let apart = sides[from] != sides[to] && (!one_way || sides[from]);
                *cut = !whole && apart;
            }
        }
        self.tell(|_| if whole { "links are whole".to_owned() } else { format!("cut {sides:?}, one way {one_way}") });
        let every = self.scenario.cut_every_ms;
        let next = self.rng.between(every / 2, every * 3 / 2);
        self.after(next, Event::Cut);
    }

    /// The network is whole from now on, everybody is up, and clocks agree.
    fn heal(&mut self) {
        self.healed = true;
        self.target = self.finals.keys().next_back().copied().unwrap_or(0) + HEIGHTS_AFTER;
        self.tell(|world| format!("all is well; height {} is wanted", world.target));
        for process in 0..self.processes.len() {
            self.cut[process].fill(false);
            self.processes[process].skew_ms = 0;
            self.restart(process);
        }
        for one in 0..self.processes.len() {
            for other in 0..self.processes.len() {
                if one != other && self.processes[one].replica.is_some() {
                    self.input(one, Input::Connected { peer: Peer(other as u32) });
                }
            }
        }
    }

    fn input(&mut self, process: usize, input: Input) {
        if let Input::Timer { height, round } = &input {
            self.processes[process].oracle.time_out(height.0, round.0);
        }
        let now_ms = self.clock(process);
        let Some(replica) = &mut self.processes[process].replica else { return };
        let acts = replica.step(now_ms, input);
        self.carry_out(process, acts);
        self.rests(process);
    }

    /// A node hears a message: its witness too, and what it owes a peer that is behind it.
    fn hear(&mut self, process: usize, from: usize, message: Message, bytes: &Bytes) {
        let now_ms = self.clock(process);
        let honest = self.is_honest(process);
        let Process { replica, oracle, node, .. } = &mut self.processes[process];
        let (Some(replica), node) = (replica, *node) else { return };
        let (working, height) = (replica.tip().height.next(), message.height);
        let is_behind = height < working && !matches!(message.body, Body::Final(_));
        let peer = Peer(from as u32);
        let acts = replica.step(now_ms, Input::Message { from: peer, message });
        if honest {
            let (facts, verify) = (facts_of(&self.sets, node), verify_of(&self.sets, bytes));
            oracle.hears(working.0, from, bytes, &facts, &verify);
            drop((facts, verify));
            if is_behind && !acts.contains(&Act::Serve { to: peer, height }) {
                let sentence = format!("a peer works on height {height}, and this node does not send it what is final");
                self.violate(Violation::Rule(node, sentence));
            }
        }
        self.carry_out(process, acts);
        self.rests(process);
    }

    fn is_honest(&self, process: usize) -> bool {
        self.scenario.fault(self.processes[process].node).is_none()
    }

    /// Tells the oracle that a node goes on after a final header.
    fn works_on(&mut self, process: usize, tip: &Header) {
        let Process { node, oracle, .. } = &mut self.processes[process];
        let (height, scheme) = (tip.height.next(), &self.sets.at(tip.height.next()).1);
        oracle.works_on(height.0, parent_of(tip), &facts_of(&self.sets, *node), &verifier(scheme));
    }

    /// Asks the oracle about what a node sends.
    fn consult(&mut self, process: usize, bytes: &[u8]) {
        if !self.is_honest(process) {
            return;
        }
        let Process { node, oracle, .. } = &mut self.processes[process];
        let node = *node;
        let (facts, verify) = (facts_of(&self.sets, node), verify_of(&self.sets, bytes));
        let judged = oracle.says(bytes, &facts, &verify);
        drop((facts, verify));
        if let Err(sentence) = judged {
            self.violate(Violation::Rule(node, sentence));
        }
    }

    /// Asks the oracle whether a node should have said more.
    fn rests(&mut self, process: usize) {
        let state = &self.processes[process];
        let Some(replica) = state.replica.as_ref().filter(|_| self.is_honest(process)) else { return };
        let (node, working) = (state.node, replica.tip().height.next().0);
        let votes = !replica.core().is_silent();
        if let Err(sentence) = self.processes[process].oracle.rests(working, votes) {
            self.violate(Violation::Rule(node, sentence));
        }
    }

    fn deliver(&mut self, process: usize, from: usize, bytes: &Bytes) {
        if self.processes[process].replica.is_none() {
            return;
        }
        match Message::from_bytes(bytes) {
            Ok(message) => {
                self.tell(|world| {
                    let round = message.round().map(|round| format!(" round {round}")).unwrap_or_default();
                    let (to, by) = (world.name(process), world.name(from));
                    format!("{by} → {to}: {} of height {}{round}", message.name(), message.height)
                });
                if self.scenario.fault(self.processes[process].node) == Some(Fault::Liar) {
                    self.adversary.hear(bytes, &message);
                }
                if let Body::Proposal(proposal) = &message.body
                    && is_wrong(&self.sets, &proposal.header)
                {
                    self.wrong.insert(proposal.header.digest());
                }
                self.hear(process, from, message, bytes);
            }
            Err(_) => self.refuse(process, from, "malformed"),
        }
    }

    fn refuse(&mut self, process: usize, from: usize, reason: &'static str) {
        self.tell(|world| format!("{} refuses {} of {}", world.name(process), reason, world.name(from)));
        let honest = |process: usize| self.scenario.fault(self.processes[process].node).is_none();
        if honest(process) && honest(from) && self.scenario.skew_ms == 0 {
            self.violate(Violation::Misjudged(self.processes[from].node, reason));
        }
    }

    fn make_header(&mut self, process: usize, life: u64, height: Height, round: Round) {
        if !self.lives(process, life) {
            return;
        }
        let tip = *self.processes[process].disk.tip();
        if tip.height.next() != height {
            return;
        }
        let node = self.processes[process].node;
        let Some(proposer) = self.sets.place_of(node, &self.sets.at(height).0) else { return };
        let nonce = self.rng.bits() >> 8;
        let header = self.sets.header(&tip, round, proposer, self.clock(process), nonce);
        self.input(process, Input::Proposed { round, header: Box::new(header) });
    }

    fn check(&mut self, process: usize, header: &Header) {
        let right = !is_wrong(&self.sets, header) && header.time.0 <= self.clock(process) + DRIFT_MS;
        let life = self.processes[process].life;
        let delay = self.rng.between(0, self.scenario.host_ms);
        self.after(delay, Event::Checked { process, life, digest: header.digest(), valid: right });
    }

    /// Carries out what a replica asks, in order; a crash may come between any two.
    fn carry_out(&mut self, process: usize, acts: Vec<Act>) {
        let node = self.processes[process].node;
        let fault = self.scenario.fault(node);
        let life = self.processes[process].life;
        let fragile = !self.healed && self.scenario.crash_every_ms > 0;
        for act in acts {
            if fragile && self.rng.chance(1) {
                return self.crash(process);
            }
            match act {
                Act::Core(Effect::Persist(record)) => {
                    if let Record::Prepared { header, votes } = &record {
                        let oracle = &mut self.processes[process].oracle;
                        oracle.keeps(header.height.0, votes.round.0, header.digest().0);
                    }
                    if !self.processes[process].disk.persist(record) {
                        self.tell(|world| format!("{}: the watermark forbids a vote", world.name(process)));
                        return self.input(process, Input::Failed);
                    }
                }
                Act::Core(Effect::Broadcast(message)) => {
                    let bytes = self.speak(process, &message);
                    for to in 0..self.processes.len() {
                        if to != process {
                            self.send(process, to, &message, &bytes);
                        }
                    }
                }
                Act::Core(Effect::Send { to, message }) => {
                    let bytes = self.speak(process, &message);
                    self.send(process, to.0 as usize, &message, &bytes);
                }
                Act::Core(Effect::SetTimer { height, round, at_ms }) => {
                    self.processes[process].timer += 1;
                    let number = self.processes[process].timer;
                    let delay = at_ms.saturating_sub(self.clock(process)).max(1);
                    self.after(delay, Event::Timer { process, life, number, height, round });
                }
                Act::Core(Effect::Propose { height, round, not_before_ms }) => {
                    let wait = not_before_ms.saturating_sub(self.clock(process));
                    let delay = wait + self.rng.between(0, self.scenario.host_ms);
                    self.after(delay, Event::Propose { process, life, height, round });
                }
                Act::Core(Effect::Check(header)) => self.check(process, &header),
                Act::Core(Effect::Reject { from, reason }) => {
                    if !reason.is_innocent() {
                        self.refuse(process, from.0 as usize, reason.name());
                    }
                }
                Act::Core(Effect::Evidence(evidence)) => {
                    self.outcome.evidence += 1;
                    let scheme = &self.sets.at(evidence.height).1;
                    let proved = evidence.check(self.sets.chain, scheme).is_ok();
                    let accused = self.sets.node_of(evidence.height, evidence.sender);
                    let guilty = accused.is_some_and(|node| self.scenario.fault(node).is_some());
                    self.tell(|world| format!("{} has evidence against n{accused:?}", world.name(process)));
                    if fault.is_none() && !(proved && guilty) {
                        self.violate(Violation::FalseEvidence(accused));
                    }
                }
                Act::Core(Effect::Finalise { .. } | Effect::Missing { .. }) => {}
                Act::Append { header, seal, .. } => self.append(process, *header, seal),
                Act::Serve { to, height } => {
                    if let Some((header, seal)) = self.processes[process].disk.get(height) {
                        let message = Message { height, body: Body::Final(Box::new(Final { header, seal })) };
                        let bytes = message.to_bytes().into();
                        self.send(process, to.0 as usize, &message, &bytes);
                    }
                }
                Act::Stranded { height } => self.violate(Violation::Stuck(node, height)),
            }
        }
    }

    /// A node says something: may it?
    fn speak(&mut self, process: usize, message: &Message) -> Bytes {
        let bytes: Bytes = message.to_bytes().into();
        self.witness(process, message);
        self.consult(process, &bytes);
        bytes
    }

    /// An honest node's vote: there must be no other for the step in all its lives, and it is not for wrong contents.
    fn witness(&mut self, process: usize, message: &Message) {
        let node = self.processes[process].node;
        if self.scenario.fault(node).is_some() {
            return;
        }
        let (step, said) = match &message.body {
            Body::Proposal(proposal) => (Step::Proposal, (None, proposal.header.digest())),
            Body::Prepare(vote) => (Step::Prepare, (None, vote.digest)),
            Body::Commit(commit) => (Step::Commit, (None, commit.vote.digest)),
            Body::RoundChange(change) => {
                let claim = change.signed.prepared;
                let digest = claim.map_or(HeaderDigest::default(), |claim| claim.digest);
                (Step::RoundChange, (claim.map(|claim| claim.round), digest))
            }
            Body::Status | Body::Request | Body::Final(_) => return,
        };
        let round = message.round().unwrap_or_default();
        if !self.wrong.is_empty() && self.wrong.contains(&said.1) {
            self.violate(Violation::Contents(message.height));
        }
        let former = self.spoken.insert((node, message.height, round, step), said);
        if former.is_some_and(|former| former != said) {
            self.violate(Violation::DoubleSignature(node, message.height, round));
        }
    }

    fn append(&mut self, process: usize, header: Header, seal: bpi_protocol::consensus::seal::Seal) {
        let node = self.processes[process].node;
        let (height, digest) = (header.height, header.digest());
        self.tell(|world| {
            format!("{} has final height {height} {digest:?} in round {}", world.name(process), seal.round())
        });
        let parent = *self.processes[process].disk.tip();
        self.processes[process].disk.append(header, seal);
        if self.scenario.fault(node).is_some() {
            return;
        }
        if let Err(sentence) = self.processes[process].oracle.finalises(height.0, digest.0) {
            self.violate(Violation::Rule(node, sentence));
        }
        self.works_on(process, &header);
        let (set, scheme, _) = self.sets.at(height);
        let place = Place { chain: self.sets.chain, height };
        let sealed = seal.check(place, &header, set, scheme).is_ok();
        if !sealed || bpi_protocol::consensus::light::check_continuity(&parent, &header, set).is_err() {
            self.violate(Violation::Seal(node, height));
        }
        if is_wrong(&self.sets, &header) {
            self.violate(Violation::Contents(height));
        }
        let known = *self.finals.entry(height.0).or_insert(digest);
        if known != digest {
            self.violate(Violation::Fork(height));
        }
        self.outcome.height = self.outcome.height.max(height.0);
        self.outcome.round = self.outcome.round.max(seal.round().0);
    }

    fn send(&mut self, from: usize, to: usize, message: &Message, honest: &Bytes) {
        let node = self.processes[from].node;
        match self.scenario.fault(node) {
            Some(Fault::Liar) => {
                let clock_ms = self.clock(from);
                let (sets, tip) = (&self.sets, self.processes[from].disk.tip());
                let said = self.adversary.say(&mut self.rng, &Turn { sets, node, tip, clock_ms, message, honest });
                for bytes in said {
                    self.transmit(from, to, &bytes);
                }
            }
            // Each twin talks to its own side, which changes with the links.
            Some(Fault::Twins) => {
                let side = (to + self.now_ms as usize / 3000 + self.processes[from].twin).is_multiple_of(2);
                if side || self.rng.chance(150) {
                    self.transmit(from, to, honest);
                }
            }
            _ => self.transmit(from, to, honest),
        }
    }

    fn transmit(&mut self, from: usize, to: usize, bytes: &Bytes) {
        if to >= self.processes.len() {
            return;
        }
        let copies = if self.healed {
            1
        } else if self.cut[from][to] || self.rng.chance(self.scenario.loss) {
            0
        } else {
            1 + usize::from(self.rng.chance(self.scenario.twice))
        };
        for _ in 0..copies {
            let (low, high) = self.scenario.delay_ms;
            let mut delay = self.rng.between(low, high);
            if !self.healed && self.rng.chance(self.scenario.late) {
                delay += self.rng.below(self.scenario.late_ms);
            }
            self.after(delay, Event::Deliver { process: to, from, bytes: Rc::clone(bytes) });
        }
    }
}

/// What an oracle is told of heights.
fn facts_of(sets: &Sets, node: usize) -> impl Fn(u64) -> Facts {
    move |height| {
        let height = Height(height);
        let (set, _, digest) = sets.at(height);
        let proposers = sets.order(height).iter().map(|index| index.0).collect();
        Facts {
            chain: sets.chain.0,
            validators: set.len(),
            proposers,
            me: sets.place_of(node, set).map(|index| index.0),
            set: (digest.0, set.epoch().0),
        }
    }
}

/// What the header after one has to follow.
fn parent_of(header: &Header) -> Parent {
    Parent { digest: header.digest().0, time_ms: header.time.0 }
}

/// What checks the signatures of a message for an oracle.
fn verify_of(sets: &Sets, bytes: &[u8]) -> impl Fn(&[u16], &[u8], &[u8]) -> bool {
    let height = bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    verifier(&sets.at(Height(height)).1)
}

fn verifier(scheme: &ToyScheme) -> impl Fn(&[u16], &[u8], &[u8]) -> bool {
    move |signers, statement, signature| {
        let Ok(signature) = signature.try_into() else { return false };
        let signers: Signers = signers.iter().map(|signer| ValidatorIndex(*signer)).collect();
        scheme.verify_aggregate(signers, statement, &Signature(signature))
    }
}

/// The validator that a node is, for adversaries.
pub fn index_of(sets: &Sets, node: usize, height: Height) -> Option<ValidatorIndex> {
    sets.place_of(node, &sets.at(height).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_history() {
        let (first, story) = run(7, 4, true);
        let (second, again) = run(7, 4, true);
        assert!(first.events > 100 && first.violation.is_none());
        assert_eq!((first.events, story), (second.events, again));
    }

    #[test]
    fn nothing_goes_wrong_in_the_first_histories_of_clusters_of_many_sizes() {
        for validators in [1, 2, 3, 4, 5, 7, 9, 10] {
            for seed in 0..40 {
                let (outcome, _) = run(seed, validators, false);
                assert_eq!(outcome.violation, None, "seed {seed}, {validators} validators");
            }
        }
    }
}
