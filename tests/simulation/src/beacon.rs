//! Chains whose proposers the beacon draws: the real core, the real parts and real BLS keys, shared in a real ceremony, under loss, crashes and
//! up to f members who withhold parts, bend them, give them to some only, or propose only when the draw pleases them.
//!
//! A thousand times slower than [`crate::world`], which has everything else: here only what seeds can break is looked for. No two headers
//! may be final at a height; each must carry the one seed there is, and come from whom the seed before it drew; after the healing nobody may be
//! stuck, though the liars go on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bpi_protocol::consensus::bls::{Keys, SecretKey};
use bpi_protocol::consensus::header::{Header, Seed};
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light::LightProof;
use bpi_protocol::consensus::message::{Body, Final, Message, Partials};
use bpi_protocol::consensus::scheme::Signature;
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::{Validator, ValidatorSet, faults};
use bpi_validator::beacon::assembly::{Act, Assembly, PartsBody, PartsMessage};
use bpi_validator::beacon::ceremony::{Act as Deed, Ceremony};
use bpi_validator::beacon::order::proposers;
use bpi_validator::beacon::plan::Plan;
use bpi_validator::beacon::seed::check_seed;
use bpi_validator::beacon::share::{Share, ShareBook};
use bpi_validator::beacon::sharing::Sharing;
use bpi_validator::core::timing::Timing;
use bpi_validator::core::{Core, Effect, Input, Instance, Peer, Record, Recovered, Shares};
use bpi_validator::replica::{Act as Task, Replica, Schedule};

use crate::rng::Rng;

const CHAIN: ChainId = ChainId([7; 32]);
const TIMING: Timing = Timing { block_ms: 250, round_ms: 1000, doublings_max: 3 };
const START_MS: u64 = 1_000_000;
/// Heights that all must reach after the healing, within this time.
const HEIGHTS_AFTER: u64 = 4;
const PATIENCE_MS: u64 = 60_000;
/// Between two looks at what is lacking, and the time after which the next height is late.
const TICK_MS: u64 = 400;
const SEED_MS: u64 = 20;

/// What came of a history.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Final headers.
    pub heights: u64,
    /// Nodes that crashed.
    pub crashes: u64,
    /// Parts that liars kept back or bent.
    pub lies: u64,
    /// Light proofs that were made, each checked.
    pub proofs: u64,
    /// From the healing until all had gone on.
    pub healing_ms: u64,
    /// What was violated.
    pub violation: Option<String>,
}

/// Validators with a shared key.
struct Group {
    set: Arc<ValidatorSet>,
    keys: Keys,
    secrets: Vec<Arc<SecretKey>>,
    sharing: Arc<Sharing>,
    shares: Vec<Arc<Share>>,
    genesis: Header,
}

impl Group {
    /// Of a size; made once.
    fn of(validators: usize) -> Result<Arc<Self>, String> {
        static MADE: LazyLock<Mutex<BTreeMap<usize, Arc<Group>>>> = LazyLock::new(Mutex::default);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = made.get(&validators) {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(Self::make(validators)?);
        made.insert(validators, Arc::clone(&group));
        Ok(group)
    }

    fn make(validators: usize) -> Result<Self, String> {
        let secrets = (0..validators).map(|number| SecretKey::generate(&[number as u8 + 1; 32]).map(Arc::new));
        let secrets: Vec<_> = secrets.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let members = secrets.iter().map(|secret| {
            let (key, possession) = (secret.public_key(), secret.prove_possession());
            Validator { key, possession, weight: 1 }
        });
        let set = Arc::new(ValidatorSet::new(Epoch(1), members.collect()).map_err(|error| error.to_string())?);
        let plan = Plan { chain: CHAIN, start: Height(1), dealers: set.clone(), players: set.clone(), previous: None };
        let join = |(number, secret): (usize, &Arc<SecretKey>)| {
            Ceremony::join(plan.clone(), secret.clone(), &[number as u8; 32], None, &[])
        };
        let joined = secrets.iter().enumerate().map(join).collect::<Result<Vec<_>, _>>();
        let mut ceremonies = joined.map_err(|error| error.to_string())?;
        let place = |key| set.position(&key).map(ValidatorIndex::at);
        let mut deeds: VecDeque<_> = VecDeque::new();
        for (number, ceremony) in ceremonies.iter_mut().enumerate() {
            deeds.extend(ceremony.deal().into_iter().map(|deed| (number, deed)));
        }
        let mut logs = BTreeMap::new();
        while let Some((from, deed)) = deeds.pop_front() {
            match deed {
                Deed::Keep { .. } => {}
                Deed::Submit { log } => drop(logs.insert(from, log)),
                Deed::Send { to, message } => {
                    let Some(ceremony) = place(to).and_then(|to| ceremonies.get_mut(to)) else { continue };
                    let heard = ceremony.hear(&secrets[from].public_key(), message);
                    let to = place(to).unwrap_or_default();
                    deeds.extend(heard.map_err(|error| error.to_string())?.into_iter().map(|deed| (to, deed)));
                }
            }
        }
        let (mut sharing, mut shares) = (None, Vec::new());
        for (number, mut ceremony) in ceremonies.into_iter().enumerate() {
            for log in logs.values() {
                ceremony.include(log).map_err(|error| error.to_string())?;
            }
            let outcome = ceremony.conclude(&[number as u8; 32]).map_err(|error| error.to_string())?;
            shares.push(Arc::new(outcome.share.ok_or("a member has no share")?));
            sharing = Some(Arc::new(outcome.sharing));
        }
        let sharing = sharing.ok_or("nobody shares")?;
        let keys = Keys::new(&set).and_then(|keys| keys.with_group(&sharing.group().public_key()));
        let (digest, time) = (set.digest(), TimeMs(START_MS));
        let genesis =
            Header { time, epoch: Epoch(1), validators: digest, next_validators: digest, ..Header::default() };
        Ok(Self { set, keys: keys.map_err(|error| error.to_string())?, secrets, sharing, shares, genesis })
    }
}

/// Always the same set.
struct OneSet {
    group: Arc<Group>,
    me: ValidatorIndex,
}

impl Schedule<Keys> for OneSet {
    fn instance(&self, parent: &Header) -> Option<(Instance<Keys>, Option<ValidatorIndex>)> {
        let (set, scheme) = (self.group.set.clone(), self.group.keys.clone());
        let order = proposers(parent, &set);
        Some((Instance { chain: CHAIN, parent: *parent, set, scheme, order }, Some(self.me)))
    }
}

/// What a member does with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Its votes have no parts, and it sends none.
    Withholds,
    /// Its parts are of something else, and it never proposes.
    Bends,
    /// Only those whose bits are set get its parts.
    Favours(u64),
    /// It proposes only when the seed draws itself for the next height, or with a seed that is none.
    Grinds,
}

/// A message, as bytes.
#[derive(Clone)]
enum Wire {
    Core(Vec<u8>),
    Parts(Vec<u8>),
}

#[derive(Clone)]
enum Event {
    Wire { from: usize, to: usize, wire: Wire },
    Timer { at: usize, height: Height, round: Round },
    Propose { at: usize, height: Height, round: Round },
    Tick { at: usize },
    Crash { at: usize },
    Start { at: usize },
}

/// Parts of a final header that are not looked at yet.
struct Shelved {
    header: Header,
    seal: Option<Seal>,
    partials: Vec<(ValidatorIndex, Partials)>,
}

struct Node {
    manner: Manner,
    /// `None`: it is down.
    replica: Option<Replica<Keys>>,
    assembly: Assembly,
    shelf: Vec<Shelved>,
    /// Its timer and its proposal, of the present life: earlier ones are void.
    life: u64,
    moved_ms: u64,
    /// Its disk.
    votes: Vec<Message>,
    prepared: Option<(Header, Votes)>,
    chain: Vec<(Header, Option<Seal>)>,
}

struct World {
    group: Arc<Group>,
    rng: Rng,
    nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), (u64, Event)>,
    number: u64,
    now_ms: u64,
    heal_ms: u64,
    loss: u64,
    outcome: Outcome,
    finals: BTreeMap<Height, Header>,
}

/// One history.
pub fn run(seed: u64, validators: usize) -> Outcome {
    match World::new(seed, validators) {
        Ok(world) => world.run(),
        Err(violation) => Outcome { violation: Some(format!("no ceremony: {violation}")), ..Outcome::default() },
    }
}

impl World {
    fn new(seed: u64, validators: usize) -> Result<Self, String> {
        let group = Group::of(validators)?;
        let mut rng = Rng::new(seed);
        let mut manners = vec![Manner::Honest; validators];
        for _ in 0..faults(validators) {
            let liar = rng.below(validators as u64) as usize;
            manners[liar] = match rng.below(4) {
                0 => Manner::Withholds,
                1 => Manner::Bends,
                2 => Manner::Favours(rng.bits()),
                _ => Manner::Grinds,
            };
        }
        let node = |manner| Node {
            manner,
            replica: None,
            assembly: Assembly::new(CHAIN),
            shelf: Vec::new(),
            life: 0,
            moved_ms: START_MS,
            votes: Vec::new(),
            prepared: None,
            chain: vec![(group.genesis, None)],
        };
        let nodes = manners.into_iter().map(node).collect();
        let (heal_ms, loss) = (START_MS + rng.between(1_000, 5_000), rng.below(300));
        let (events, finals, outcome) = (BTreeMap::new(), BTreeMap::new(), Outcome::default());
        let mut world = Self { group, rng, nodes, events, number: 0, now_ms: START_MS, heal_ms, loss, outcome, finals };
        for at in 0..validators {
            world.put(0, Event::Start { at });
            let crashes = world.rng.below(3);
            for _ in 0..crashes {
                let down = world.rng.between(START_MS, heal_ms);
                let up = world.rng.between(down, heal_ms);
                world.put(down - START_MS, Event::Crash { at });
                world.put(up - START_MS, Event::Start { at });
            }
            // Whoever is down when all heals comes back.
            world.put(heal_ms - START_MS, Event::Start { at });
        }
        Ok(world)
    }

    fn put(&mut self, after_ms: u64, event: Event) {
        self.number += 1;
        let life = match &event {
            Event::Timer { at, .. } | Event::Propose { at, .. } | Event::Tick { at } => self.nodes[*at].life,
            _ => 0,
        };
        self.events.insert((self.now_ms + after_ms, self.number), (life, event));
    }

    fn run(mut self) -> Outcome {
        let mut goal = None;
        while let Some(((at_ms, _), (life, event))) = self.events.pop_first() {
            self.now_ms = at_ms;
            self.happen(life, event);
            if self.outcome.violation.is_some() || self.now_ms < self.heal_ms {
                if self.outcome.violation.is_some() {
                    break;
                }
                continue;
            }
            let top = self.finals.keys().next_back().map_or(0, |height| height.0);
            let goal = *goal.get_or_insert(top + HEIGHTS_AFTER);
            if self.nodes.iter().all(|node| node.chain.len() as u64 > goal) {
                break;
            }
            if self.now_ms > self.heal_ms + PATIENCE_MS {
                let tips: Vec<_> = self.nodes.iter().map(|node| node.chain.len() - 1).collect();
                self.outcome.violation = Some(format!("stuck at {tips:?}, and {goal} was to be reached"));
                break;
            }
        }
        self.outcome.healing_ms = self.now_ms.saturating_sub(self.heal_ms);
        self.outcome.heights = self.finals.len() as u64;
        self.outcome
    }

    fn happen(&mut self, life: u64, event: Event) {
        match event {
            Event::Wire { from, to, wire } => self.hear(from, to, wire),
            Event::Timer { at, height, round } if life == self.nodes[at].life => {
                self.step(at, Input::Timer { height, round });
            }
            Event::Propose { at, height, round } if life == self.nodes[at].life => self.propose(at, height, round),
            Event::Tick { at } if life == self.nodes[at].life => self.tick(at),
            Event::Timer { .. } | Event::Propose { .. } | Event::Tick { .. } => {}
            Event::Crash { at } => {
                let node = &mut self.nodes[at];
                self.outcome.crashes += u64::from(node.replica.take().is_some());
                node.life += 1;
            }
            Event::Start { at } => self.start(at),
        }
    }

    fn start(&mut self, at: usize) {
        if self.nodes[at].replica.is_some() {
            return;
        }
        let (group, now_ms) = (self.group.clone(), self.now_ms);
        let me = ValidatorIndex(at as u16);
        let book = ShareBook::default();
        book.install(Height(1), Some(group.shares[at].clone()));
        let shares: Arc<dyn Shares + Send + Sync> = Arc::new(book);
        let core = Core::validator(TIMING, group.secrets[at].clone(), Some(shares));
        let node = &mut self.nodes[at];
        node.life += 1;
        node.assembly = Assembly::new(CHAIN);
        node.shelf.clear();
        let tip = node.chain.last().map_or(group.genesis, |(header, _)| *header);
        let (votes, prepared) = (node.votes.clone(), node.prepared);
        let recovered = Recovered { votes, prepared, silent_through: None };
        let (replica, tasks) = Replica::start(core, Box::new(OneSet { group, me }), tip, recovered, now_ms);
        node.replica = Some(replica);
        self.put(0, Event::Tick { at });
        self.tasks(at, tasks);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != at) {
            self.step(at, Input::Connected { peer: Peer(peer as u32) });
            self.step(peer, Input::Connected { peer: Peer(at as u32) });
        }
    }

    fn hear(&mut self, from: usize, to: usize, wire: Wire) {
        if self.nodes[to].replica.is_none() {
            return;
        }
        match wire {
            Wire::Core(bytes) => match Message::from_bytes(&bytes) {
                Ok(message) => self.step(to, Input::Message { from: Peer(from as u32), message }),
                Err(error) => self.violates(format!("a message is not read: {error}")),
            },
            Wire::Parts(bytes) => match PartsMessage::from_bytes(&bytes) {
                Ok(message) => {
                    self.assemble_shelved(to, message.height);
                    let acts = self.nodes[to].assembly.hear(message);
                    self.carry(to, Some(from), acts);
                }
                Err(error) => self.violates(format!("parts are not read: {error}")),
            },
        }
    }

    fn step(&mut self, at: usize, input: Input) {
        let now_ms = self.now_ms;
        let Some(replica) = &mut self.nodes[at].replica else { return };
        let tasks = replica.step(now_ms, input);
        self.tasks(at, tasks);
    }

    fn tasks(&mut self, at: usize, tasks: Vec<Task>) {
        for task in tasks {
            match task {
                Task::Core(Effect::Persist(Record::Vote { message, .. })) => self.nodes[at].votes.push(*message),
                Task::Core(Effect::Persist(Record::Prepared { header, votes })) => {
                    self.nodes[at].prepared = Some((*header, votes));
                }
                Task::Core(Effect::Broadcast(message)) => {
                    (0..self.nodes.len()).filter(|to| *to != at).for_each(|to| self.say(at, to, &message));
                }
                Task::Core(Effect::Send { to, message }) => self.say(at, to.0 as usize, &message),
                Task::Core(Effect::SetTimer { height, round, at_ms }) => {
                    self.put(at_ms.saturating_sub(self.now_ms), Event::Timer { at, height, round });
                }
                Task::Core(Effect::Propose { height, round, not_before_ms }) => {
                    self.assemble_shelved(at, Height(height.0 - 1));
                    self.put(not_before_ms.saturating_sub(self.now_ms), Event::Propose { at, height, round });
                }
                Task::Core(Effect::Check(header)) => {
                    let parent = self.tip(at);
                    let valid = check_seed(CHAIN, &parent, &header, Some(self.group.sharing.group())).is_ok();
                    self.step(at, Input::Checked { digest: header.digest(), valid });
                }
                Task::Core(_) => {}
                Task::Append { header, seal, partials } => self.append(at, *header, seal, partials),
                Task::Serve { to, height } => {
                    if let Some((header, Some(seal))) = self.nodes[at].chain.get(height.0 as usize).copied() {
                        let body = Body::Final(Box::new(Final { header, seal }));
                        self.say(at, to.0 as usize, &Message { height, body });
                    }
                }
                Task::Stranded { height } => self.violates(format!("{at} is stranded at height {height}")),
            }
        }
    }

    fn append(&mut self, at: usize, header: Header, seal: Seal, partials: Vec<(ValidatorIndex, Partials)>) {
        let parent = self.tip(at);
        let first = *self.finals.entry(header.height).or_insert(header);
        if first != header {
            self.violates(format!("two headers are final at height {}", header.height));
        }
        // Said here once more, apart from the program's own check.
        let statement = statement::seed(Place { chain: CHAIN, height: header.height }, parent.epoch);
        let group = self.group.sharing.group();
        let is_right = matches!(header.seed, Seed::Threshold(signature) if group.verify(&statement, &signature));
        if !is_right {
            self.violates(format!("the seed of height {} is none", header.height));
        }
        let order = proposers(&parent, &self.group.set);
        if header.proposer != order[header.round.0 as usize % order.len()] {
            self.violates(format!("height {} is not from whom the seed drew", header.height));
        }
        let now_ms = self.now_ms;
        let node = &mut self.nodes[at];
        node.votes.clear();
        node.prepared = None;
        node.moved_ms = now_ms;
        node.chain.push((header, Some(seal)));
        if !partials.is_empty() {
            node.shelf.push(Shelved { header, seal: Some(seal), partials });
        }
    }

    /// As the host does: parts are looked at when they are needed.
    fn assemble_shelved(&mut self, at: usize, height: Height) {
        let shelf = &mut self.nodes[at].shelf;
        shelf.retain(|parts| parts.header.height.0 + 4 > height.0);
        if let Some(found) = shelf.iter().position(|parts| parts.header.height == height) {
            let parts = shelf.remove(found);
            self.assemble(at, parts);
        }
    }

    fn assemble(&mut self, at: usize, Shelved { header, seal, partials }: Shelved) {
        let (sharing, share) = (self.group.sharing.clone(), self.group.shares[at].clone());
        let acts = self.nodes[at].assembly.finalise(&header, seal.as_ref(), &partials, Some(&sharing), Some(&share));
        self.carry(at, None, acts);
    }

    fn tick(&mut self, at: usize) {
        self.put(TICK_MS, Event::Tick { at });
        let tip = self.tip(at);
        let node = &self.nodes[at];
        if !node.assembly.holds(tip.height) && self.now_ms >= node.moved_ms + TICK_MS {
            self.assemble_shelved(at, tip.height);
            if !self.nodes[at].assembly.holds(tip.height) {
                self.assemble(at, Shelved { header: tip, seal: None, partials: Vec::new() });
            }
        }
        let acts = self.nodes[at].assembly.tick();
        self.carry(at, None, acts);
    }

    fn carry(&mut self, at: usize, from: Option<usize>, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Broadcast(message) => {
                    (0..self.nodes.len()).filter(|to| *to != at).for_each(|to| self.tell(at, to, message));
                }
                Act::Answer(message) => from.into_iter().for_each(|to| self.tell(at, to, message)),
                Act::Drawn { height, seed } => {
                    if self.nodes[at].assembly.seed_after(Height(height.0 - 1)) != Some(&seed) {
                        self.violates(format!("the seed of height {height} is told and not known"));
                    }
                }
                Act::Sealed { height, seal } => {
                    let Some((header, _)) = self.nodes[at].chain.get(height.0 as usize).copied() else { continue };
                    let proof = LightProof::new(header, &seal);
                    let holds = proof.is_some_and(|proof| proof.check(CHAIN, self.group.sharing.group()).is_ok());
                    if !holds {
                        self.violates(format!("the light proof of height {height} does not hold"));
                    }
                    self.outcome.proofs += 1;
                }
            }
        }
    }

    fn propose(&mut self, at: usize, height: Height, round: Round) {
        let parent = self.tip(at);
        if parent.height.next() != height || self.nodes[at].manner == Manner::Bends {
            return;
        }
        let Some(mut seed) = self.nodes[at].assembly.seed_after(parent.height).copied().map(Seed::Threshold) else {
            self.put(SEED_MS, Event::Propose { at, height, round });
            return;
        };
        if self.nodes[at].manner == Manner::Grinds {
            let draws = Header { height, seed, ..parent };
            let mine = proposers(&draws, &self.group.set).first() == Some(&ValidatorIndex(at as u16));
            match self.rng.below(3) {
                _ if mine => {}
                0 => seed = Seed::RoundRobin,
                1 => seed = Seed::Threshold(self.group.shares[at].seed_after(place_of(&parent))),
                _ => return,
            }
            self.outcome.lies += u64::from(!mine);
        }
        let time = TimeMs(self.now_ms.max(parent.time.0 + 1));
        let proposer = ValidatorIndex(at as u16);
        let header = Header { height, round, parent: parent.digest(), time, seed, proposer, ..parent };
        self.step(at, Input::Proposed { round, header: Box::new(header) });
    }

    /// Sends a message of consensus, whose parts a liar may keep back or bend.
    fn say(&mut self, from: usize, to: usize, message: &Message) {
        let mut message = message.clone();
        if let Body::Commit(commit) = &mut message.body
            && let Some(partials) = commit.partials
        {
            commit.partials = self.parts(from, to, partials);
        }
        self.send(from, to, Wire::Core(message.to_bytes()));
    }

    fn tell(&mut self, from: usize, to: usize, mut message: PartsMessage) {
        match &mut message.body {
            PartsBody::Mine { partials, .. } => match self.parts(from, to, *partials) {
                Some(told) => *partials = told,
                None => return,
            },
            // Who withholds does not help others out either.
            PartsBody::Whole { .. } if self.parts(from, to, NO_PARTS).is_none() => return,
            PartsBody::Whole { seal, seed } if self.nodes[from].manner == Manner::Bends => std::mem::swap(seal, seed),
            PartsBody::Whole { .. } | PartsBody::Ask => {}
        }
        self.send(from, to, Wire::Parts(message.to_bytes()));
    }

    /// What one tells another of its parts.
    fn parts(&mut self, from: usize, to: usize, partials: Partials) -> Option<Partials> {
        let told = match self.nodes[from].manner {
            Manner::Honest | Manner::Grinds => return Some(partials),
            Manner::Withholds => None,
            Manner::Bends => Some(Partials { seal: partials.seed, seed: partials.seal }),
            Manner::Favours(bits) if bits >> (to % 64) & 1 == 1 => return Some(partials),
            Manner::Favours(_) => None,
        };
        self.outcome.lies += 1;
        told
    }

    fn send(&mut self, from: usize, to: usize, wire: Wire) {
        let healed = self.now_ms >= self.heal_ms;
        if !healed && self.rng.chance(self.loss) {
            return;
        }
        let late = if healed { self.rng.between(1, 20) } else { self.rng.between(1, 150) };
        self.put(late, Event::Wire { from, to, wire });
    }

    fn tip(&self, at: usize) -> Header {
        self.nodes[at].chain.last().map_or(self.group.genesis, |(header, _)| *header)
    }

    fn violates(&mut self, sentence: String) {
        self.outcome.violation.get_or_insert(sentence);
    }
}

const NO_PARTS: Partials = Partials { seal: Signature([0; 48]), seed: Signature([0; 48]) };

fn place_of(parent: &Header) -> Place {
    Place { chain: CHAIN, height: parent.height }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_one_and_of_four_goes_on_whatever_one_of_them_does_with_its_parts() {
        for (seed, validators) in (0..12).map(|seed| (seed, 4)).chain([(0, 1), (1, 7)]) {
            let outcome = run(seed, validators);
            assert_eq!(outcome.violation, None, "seed {seed} of {validators}");
            assert!(outcome.heights >= HEIGHTS_AFTER && outcome.proofs > 0, "{outcome:?}");
        }
    }
}
