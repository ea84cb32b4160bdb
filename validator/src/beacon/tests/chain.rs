//! Whole chains in memory: replicas whose proposers the beacon draws, with votes and parts as real bytes, and a clock that the test moves.

use std::collections::VecDeque;

use bpi_protocol::consensus::header::Seed;
use bpi_protocol::consensus::ids::TimeMs;
use bpi_protocol::consensus::message::{Body, Final, Message, Partials};
use bpi_protocol::consensus::seal::Votes;

use super::super::assembly::{Act as Deed, Assembly, PARTS_MESSAGE_BYTES_MAX, PartsBody, PartsMessage};
use super::super::order::{proposers, shuffle};
use super::super::seed::check_seed;
use super::*;
use crate::core::timing::Timing;
use crate::core::{Core, Effect, Input, Instance, Peer, Recovered, Shares};
use crate::replica::{Act as Task, Replica, Schedule};

const TIMING: Timing = Timing { block_ms: 250, round_ms: 1000, doublings_max: 3 };

/// What a validator does with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Its COMMIT votes are right, their parts are not, and it sends no others.
    Bent,
    /// Its COMMIT votes have no parts, and it sends none.
    Without,
    /// Honest; none of its COMMIT votes arrives, and none reaches it.
    CutOff,
}

/// Always the same set.
struct OneSet {
    set: Arc<ValidatorSet>,
    keys: Keys,
    me: Option<ValidatorIndex>,
}

impl Schedule<Keys> for OneSet {
    fn instance(&self, parent: &Header) -> Option<(Instance<Keys>, Option<ValidatorIndex>)> {
        let (set, scheme, order) = (self.set.clone(), self.keys.clone(), proposers(parent, &self.set));
        Some((Instance { chain: CHAIN, parent: *parent, set, scheme, order }, self.me))
    }
}

struct Bent(ShareBook);

impl Manner {
    fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::CutOff)
    }
}

impl Shares for Bent {
    fn partials(&self, place: Place, round: Round, digest: HeaderDigest) -> Option<Partials> {
        let right = self.0.partials(place, round, digest)?;
        Some(Partials { seal: right.seed, seed: right.seal })
    }
}

struct Node {
    manner: Manner,
    replica: Replica<Keys>,
    assembly: Assembly,
    timer: Option<(u64, Height, Round)>,
    /// A header is to be made.
    proposal: Option<(u64, Height, Round)>,
    share: Arc<Share>,
    chain: Vec<(Header, Seal)>,
    seals: BTreeMap<Height, Seal>,
}

/// A message, as bytes.
#[derive(Clone)]
enum Wire {
    Core(Vec<u8>),
    Parts(Vec<u8>),
}

struct Net {
    sharing: Arc<Sharing>,
    set: Arc<ValidatorSet>,
    nodes: Vec<Node>,
    wires: VecDeque<(usize, usize, Wire)>,
    now_ms: u64,
    genesis: Header,
}

impl Net {
    fn new(manners: &[Manner]) -> Self {
        let count = manners.len() as u8;
        let plan = first(numbers(count));
        let mut held = hold(&plan, numbers(count), &BTreeMap::new(), &Faults::default());
        let (sharing, set) = (held.sharing(), plan.players);
        let digest = set.digest();
        let time = TimeMs(1_000_000);
        let genesis =
            Header { time, epoch: Epoch(1), validators: digest, next_validators: digest, ..Header::default() };
        let keys = Keys::new(&set).unwrap().with_group(&sharing.group().public_key()).unwrap();
        let mut net =
            Self { sharing, set: set.clone(), nodes: Vec::new(), wires: VecDeque::new(), now_ms: time.0, genesis };
        let mut begun = Vec::new();
        for (number, manner) in numbers(count).zip(manners) {
            let share = Arc::new(held.shares.remove(&number).unwrap());
            let book = ShareBook::default();
            book.install(Height(1), Some(share.clone()));
            let shares: Option<Arc<dyn Shares + Send + Sync>> = match manner {
                Manner::Honest | Manner::CutOff => Some(Arc::new(book)),
                Manner::Bent => Some(Arc::new(Bent(book))),
                Manner::Without => None,
            };
            let me = set.position(&key(number));
            let schedule = Box::new(OneSet { set: set.clone(), keys: keys.clone(), me });
            let core = Core::validator(TIMING, secret(number), shares);
            let (replica, tasks) = Replica::start(core, schedule, genesis, Recovered::default(), time.0);
            let (manner, assembly, chain, seals) = (*manner, Assembly::new(CHAIN), Vec::new(), BTreeMap::new());
            net.nodes.push(Node { manner, replica, assembly, timer: None, proposal: None, share, chain, seals });
            begun.push(tasks);
        }
        for (at, tasks) in begun.into_iter().enumerate() {
            net.finalise(at, &genesis, None, &[]);
            net.tasks(at, tasks);
        }
        net
    }

    fn broadcast(&mut self, from: usize, wire: &Wire) {
        let others = (0..self.nodes.len()).filter(|to| *to != from);
        self.wires.extend(others.map(|to| (from, to, wire.clone())));
    }

    /// Says a message of consensus, unless it is a vote that is cut off.
    fn say(&mut self, from: usize, to: Option<Peer>, message: &Message) {
        let is_commit = matches!(message.body, Body::Commit(_));
        let wire = Wire::Core(message.to_bytes());
        for peer in 0..self.nodes.len() {
            let meant = to.map_or(peer != from, |to| to.0 as usize == peer);
            let cut = is_commit && [from, peer].iter().any(|end| self.nodes[*end].manner == Manner::CutOff);
            if meant && !cut {
                self.wires.push_back((from, peer, wire.clone()));
            }
        }
    }

    fn finalise(&mut self, at: usize, header: &Header, seal: Option<&Seal>, partials: &[(ValidatorIndex, Partials)]) {
        let Node { manner, share, assembly, .. } = &mut self.nodes[at];
        let share = manner.is_honest().then_some(share.as_ref());
        let deeds = assembly.finalise(header, seal, partials, Some(&self.sharing), share);
        self.deeds(at, None, deeds);
    }

    fn step(&mut self, at: usize, input: Input) {
        let tasks = self.nodes[at].replica.step(self.now_ms, input);
        self.tasks(at, tasks);
    }

    fn tasks(&mut self, at: usize, tasks: Vec<Task>) {
        for task in tasks {
            match task {
                Task::Core(Effect::Broadcast(message)) => self.say(at, None, &message),
                Task::Core(Effect::Send { to, message }) => self.say(at, Some(to), &message),
                Task::Core(Effect::SetTimer { height, round, at_ms }) => {
                    self.nodes[at].timer = Some((at_ms, height, round));
                }
                Task::Core(Effect::Propose { height, round, not_before_ms }) => {
                    self.nodes[at].proposal = Some((not_before_ms, height, round));
                }
                Task::Core(Effect::Check(header)) => {
                    let parent = self.nodes[at].replica.tip();
                    let valid = check_seed(CHAIN, parent, &header, Some(self.sharing.group())).is_ok();
                    self.step(at, Input::Checked { digest: header.digest(), valid });
                }
                Task::Core(_) => {}
                Task::Append { header, seal, partials } => {
                    self.nodes[at].chain.push((*header, seal));
                    self.finalise(at, &header, Some(&seal), &partials);
                }
                Task::Serve { to, height } => {
                    let past = self.nodes[at].chain.iter().find(|(header, _)| header.height == height).copied();
                    if let Some((header, seal)) = past {
                        self.say(
                            at,
                            Some(to),
                            &Message { height, body: Body::Final(Box::new(Final { header, seal })) },
                        );
                    }
                }
                Task::Stranded { height } => panic!("{at} is stranded at {height:?}"),
            }
        }
    }

    fn deeds(&mut self, at: usize, from: Option<usize>, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Broadcast(message) => self.broadcast(at, &Wire::Parts(message.to_bytes())),
                Deed::Answer(message) => {
                    self.wires.push_back((at, from.unwrap(), Wire::Parts(message.to_bytes())));
                }
                Deed::Drawn { height, seed } => {
                    assert_eq!(self.nodes[at].assembly.seed_after(Height(height.0 - 1)), Some(&seed));
                }
                Deed::Sealed { height, seal } => assert_eq!(self.nodes[at].seals.insert(height, seal), None),
            }
        }
    }

    /// Makes a header for whoever was asked for one, waited long enough and knows the seed. True if somebody did.
    fn propose(&mut self) -> bool {
        for at in 0..self.nodes.len() {
            let Node { replica, assembly, proposal, .. } = &mut self.nodes[at];
            let Some((not_before_ms, height, round)) = *proposal else { continue };
            let parent = *replica.tip();
            let seed = assembly.seed_after(parent.height).copied();
            let Some(seed) = seed.filter(|_| parent.height.next() == height && not_before_ms <= self.now_ms) else {
                continue;
            };
            *proposal = None;
            let header = Header {
                height,
                round,
                parent: parent.digest(),
                time: TimeMs(self.now_ms.max(parent.time.0 + 1)),
                seed: Seed::Threshold(seed),
                proposer: ValidatorIndex(at as u16),
                ..parent
            };
            self.step(at, Input::Proposed { round, header: Box::new(header) });
            return true;
        }
        false
    }

    /// Lets everybody talk, and time pass when nobody does, until all have a height.
    fn run(&mut self, height: Height) {
        for _ in 0..100_000 {
            if let Some((from, to, wire)) = self.wires.pop_front() {
                match wire {
                    Wire::Core(bytes) => {
                        let message = Message::from_bytes(&bytes).unwrap();
                        self.step(to, Input::Message { from: Peer(from as u32), message });
                    }
                    Wire::Parts(bytes) => {
                        let deeds = self.nodes[to].assembly.hear(PartsMessage::from_bytes(&bytes).unwrap());
                        self.deeds(to, Some(from), deeds);
                    }
                }
            } else if self.propose() {
            } else if self.nodes.iter().all(|node| node.replica.tip().height >= height) {
                return;
            } else {
                self.now_ms += 50;
                for at in 0..self.nodes.len() {
                    let deeds = self.nodes[at].assembly.tick();
                    self.deeds(at, None, deeds);
                    if let Some((_, height, round)) = self.nodes[at].timer.take_if(|(at_ms, ..)| *at_ms <= self.now_ms)
                    {
                        self.step(at, Input::Timer { height, round });
                    }
                }
            }
        }
        panic!(
            "the chain stands still at {:?}",
            self.nodes.iter().map(|node| node.replica.tip().height).collect::<Vec<_>>()
        );
    }

    /// What anybody may check who knows the group's key: seeds, proposers and light proofs of all heights.
    fn check(&self, heights: u64) {
        let (group, weights) = (*self.sharing.group(), vec![1; self.set.len()]);
        let honest: Vec<_> = self.nodes.iter().filter(|node| node.manner.is_honest()).collect();
        let mut parent = self.genesis;
        for height in 1..=heights {
            let (header, _) = honest[0].chain[height as usize - 1];
            for node in &honest {
                assert_eq!(node.chain[height as usize - 1].0.digest(), header.digest());
            }
            assert_eq!(check_seed(CHAIN, &parent, &header, Some(&group)), Ok(()));
            if let Seed::Threshold(seed) = &parent.seed {
                let order = shuffle(seed, &weights);
                assert_eq!(header.proposer, order[header.round.0 as usize % order.len()], "height {height}");
            }
            parent = header;
        }
        for node in honest {
            for (header, _) in &node.chain[..heights as usize - 1] {
                let proof = LightProof::new(*header, &node.seals[&header.height]).unwrap();
                assert_eq!(proof.check(CHAIN, &group), Ok(header));
            }
        }
    }
}

#[test]
fn a_chain_of_one_and_of_four_draws_its_proposers_and_has_a_light_proof_of_each_header() {
    for count in [1, 4] {
        let mut net = Net::new(&vec![Manner::Honest; count]);
        net.run(Height(6));
        net.check(6);
        assert!(net.now_ms <= net.genesis.time.0 + 6 * 250 + 300, "no round was lost: {} ms", net.now_ms);
    }
}

#[test]
fn a_chain_goes_on_though_parts_of_f_validators_are_bent_and_f_honest_ones_hear_no_votes() {
    for manner in [Manner::Bent, Manner::Without] {
        // Votes of the first three are the quorum, and with them come two right parts: the third is what the last one sends afterwards.
        let mut net = Net::new(&[manner, Manner::Honest, Manner::Honest, Manner::CutOff]);
        net.run(Height(5));
        net.check(5);
    }
}

#[test]
fn parts_are_read_as_they_were_written_and_nothing_else_is() {
    let (seal, seed) = (Signature([1; 48]), Signature([2; 48]));
    let mine = PartsBody::Mine { sender: ValidatorIndex(9), partials: Partials { seal, seed } };
    for (body, length) in
        [(mine, PARTS_MESSAGE_BYTES_MAX), (PartsBody::Ask, 10), (PartsBody::Whole { seal, seed }, 106)]
    {
        let message = PartsMessage { height: Height(0x0102), body };
        let bytes = message.to_bytes();
        assert_eq!(bytes.len(), length);
        assert_eq!(PartsMessage::from_bytes(&bytes), Ok(message));
        for cut in 0..bytes.len() {
            assert!(PartsMessage::from_bytes(&bytes[..cut]).is_err());
        }
        for bent in [[&bytes[..], &[0]].concat(), [&[2], &bytes[1..]].concat(), [&[1, 4], &bytes[2..]].concat()] {
            assert!(PartsMessage::from_bytes(&bent).is_err());
        }
    }
    assert_eq!(PartsMessage { height: Height(5), body: PartsBody::Ask }.to_bytes(), [1, 2, 0, 0, 0, 0, 0, 0, 0, 5]);
}

#[test]
fn a_seal_whose_votes_came_in_a_later_round_is_made_again_for_the_headers_own_and_an_observer_asks_for_it() {
    let plan = first(numbers(4));
    let held = hold(&plan, numbers(4), &BTreeMap::new(), &Faults::default());
    let (sharing, shares) = (held.sharing(), held.shares);
    let digest = plan.players.digest();
    let header =
        Header { height: Height(3), round: Round(1), epoch: Epoch(1), validators: digest, ..Header::default() };
    let place = Place { chain: CHAIN, height: header.height };
    let votes = Seal::Votes(Votes { round: Round(4), signers: Signers::default(), signature: Signature([0; 48]) });
    let partials: Vec<_> =
        shares.values().map(|share| (share.index(), share.partials(place, Round(4), header.digest()))).collect();
    let mut members: Vec<_> = shares.values().map(|share| (Assembly::new(CHAIN), share)).collect();
    let mut calls = Vec::new();
    for (assembly, share) in &mut members {
        let acts = assembly.finalise(&header, Some(&votes), &partials, Some(&sharing), Some(share));
        let [Deed::Drawn { height: Height(4), .. }, Deed::Broadcast(call)] = acts[..] else { panic!("{acts:?}") };
        assert_eq!(assembly.tick(), [Deed::Broadcast(call)]);
        calls.push(call);
    }
    let first = &mut members[0].0;
    assert_eq!(first.hear(calls[0]), [], "its own");
    assert_eq!(first.hear(calls[1]), []);
    let acts = first.hear(calls[2]);
    let [Deed::Sealed { seal, .. }, Deed::Answer(whole)] = acts[..] else { panic!("{acts:?}") };
    assert_eq!((seal.round(), first.tick().len(), first.wrong(Height(3))), (Round(1), 0, Signers::default()));
    assert_eq!(LightProof::new(header, &seal).unwrap().check(CHAIN, sharing.group()), Ok(&header));

    let mut observer = Assembly::new(CHAIN);
    assert_eq!(observer.hear(whole), [], "not final here");
    let asks = observer.finalise(&header, Some(&votes), &[], Some(&sharing), None);
    let ask = PartsMessage { height: Height(3), body: PartsBody::Ask };
    assert_eq!(asks, [Deed::Broadcast(ask)]);
    assert_eq!(first.hear(ask), [Deed::Answer(whole)]);
    let PartsBody::Whole { seal: one, seed: two } = whole.body else { panic!("{whole:?}") };
    let swapped = PartsMessage { body: PartsBody::Whole { seal: two, seed: one }, ..whole };
    assert_eq!(observer.hear(swapped), [], "neither holds");
    assert_eq!(observer.hear(whole).len(), 2);
    assert_eq!(observer.hear(whole), [], "said once");

    // Who cannot have parts does nothing, and old heights are forgotten.
    assert_eq!(Assembly::new(CHAIN).finalise(&header, Some(&votes), &[], None, None), []);
    let other = Header { validators: plan.dealers.digest(), ..header };
    assert_eq!(Assembly::new(CHAIN).finalise(&other, Some(&votes), &[], Some(&sharing), None), []);
    for height in 4..8 {
        observer.finalise(&Header { height: Height(height), ..header }, None, &[], Some(&sharing), None);
    }
    assert_eq!((observer.seed_after(Height(3)), observer.tick().len()), (None, 4));
}
