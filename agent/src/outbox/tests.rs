//! Batches in a world that loses, delays and repeats what is said, and whose members forget what they had not made durable.
#![allow(clippy::unwrap_used)]

use bpi_protocol::availability::coding::Coding;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Epoch, Round, TimeMs};
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use bpi_protocol::consensus::seal::Seal;
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use bpi_protocol::log::Log;
use bpi_protocol::log::leaf::{Leaf, TenantId};
use ed25519_dalek::{Signer as _, SigningKey};

use super::*;

const CHAIN: ChainId = ChainId([3; 32]);
const TENANT: TenantId = TenantId([9; 16]);

/// Believes the headers that the world has made.
#[derive(Debug)]
struct Believes;

impl Judge for Believes {
    fn is_final(&mut self, sealed: &Sealed) -> Result<(), String> {
        match sealed.header.poh.count {
            0 => Ok(()),
            _ => Err("a liar made it".to_owned()),
        }
    }
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn sealed(header: Header) -> Sealed {
    let member = Validator { key: PublicKey([1; 96]), possession: Signature([2; 48]), weight: 1 };
    let set = ValidatorSet::new(Epoch(0), vec![member]).unwrap();
    Sealed { header, seal: Seal::Threshold { round: Round(0), signature: Signature([0; 48]) }, set }
}

struct Pinner {
    key: SigningKey,
    durable: BTreeMap<Hash, ShardSet>,
}

/// What all validators have agreed on, and what each alone has in memory.
struct World {
    rng: Rng,
    now_ms: u64,
    loss: u64,
    pinners: Vec<Pinner>,
    pools: Vec<(BTreeSet<Hash>, BTreeMap<Hash, Attestation>)>,
    log: Log,
    places: BTreeMap<LeafHash, u64>,
    header: Header,
    attested: BTreeMap<Hash, Attested>,
    batches: BTreeMap<Hash, Batch>,
    under_way: Vec<(u64, Input)>,
    finals: BTreeMap<Hash, usize>,
    kept: BTreeMap<LeafHash, usize>,
    troubles: Vec<Trouble>,
}

fn identity(at: usize) -> Identity {
    [0xa0 + at as u8; 32]
}

impl World {
    fn new(seed: u64) -> Self {
        let pinners = (1..4).map(|byte| Pinner { key: SigningKey::from_bytes(&[byte; 32]), durable: BTreeMap::new() });
        Self {
            rng: Rng(seed),
            now_ms: 1_000,
            loss: 20,
            pinners: pinners.collect(),
            pools: vec![Default::default(); 4],
            log: Log::new(),
            places: BTreeMap::new(),
            header: Header { time: TimeMs(1_000_000), ..Header::default() },
            attested: BTreeMap::new(),
            batches: BTreeMap::new(),
            under_way: Vec::new(),
            finals: BTreeMap::new(),
            kept: BTreeMap::new(),
            troubles: Vec::new(),
        }
    }

    fn mesh(&self) -> Mesh {
        let pinners = self.pinners.iter().map(|pinner| pinner.key.verifying_key().to_bytes()).collect();
        Mesh { chain: CHAIN, validators: (0..4).map(identity).collect(), pinners }
    }

    fn later(&mut self, input: Input) {
        if self.rng.below(100) >= self.loss {
            let at_ms = self.now_ms + 1 + self.rng.below(60);
            self.under_way.push((at_ms, input));
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let lost = self.rng.below(100) < self.loss;
            match effect {
                Effect::Final(da_root) => *self.finals.entry(da_root).or_default() += 1,
                Effect::KeepInclusions(_, sealed, leaves) => {
                    for (leaf, inclusion) in leaves {
                        inclusion.check(&leaf.0, &sealed.header.receipts).unwrap();
                        *self.kept.entry(leaf).or_default() += 1;
                    }
                }
                Effect::Trouble(trouble) => self.troubles.push(trouble),
                Effect::KeepAcknowledgement(..) | Effect::KeepAttested(..) | Effect::Closed(_) => {}
                _ if lost => {}
                Effect::AskPinner(pinner, request) => self.pin(pinner, request),
                Effect::SendPieces(pinner, da_root, shards) => self.keep(pinner, da_root, shards),
                Effect::AskValidator(validator, request) => self.serve(validator, request),
            }
        }
    }

    fn pinner(&mut self, identity: Identity) -> &mut Pinner {
        self.pinners.iter_mut().find(|pinner| pinner.key.verifying_key().to_bytes() == identity).unwrap()
    }

    fn pin(&mut self, pinner: Identity, request: pinner::Request) {
        let pinner::Request::Offer(offer) = request else { unreachable!() };
        let da_root = offer.batch.da_root;
        let durable = self.pinner(pinner).durable.get(&da_root).copied().unwrap_or_default();
        match durable.union(offer.shards) == durable {
            true => self.keep(pinner, da_root, ShardSet::default()),
            false => self.later(Input::Pinner(pinner, pinner::Answer::Have { da_root, shards: durable })),
        }
    }

    fn keep(&mut self, from: Identity, da_root: Hash, shards: ShardSet) {
        let batch = self.batches[&da_root];
        let pinner = self.pinner(from);
        let durable = pinner.durable.entry(da_root).or_default();
        *durable = durable.union(shards);
        let (shards, until_s) = (*durable, 5_000_000);
        let signature = pinner.key.sign(&Acknowledgement::statement(CHAIN, &batch, shards, until_s)).to_bytes();
        let acknowledgement = Box::new(Acknowledgement { pinner: from, shards, until_s, signature });
        self.later(Input::Pinner(from, pinner::Answer::Kept { da_root, acknowledgement }));
    }

    fn serve(&mut self, validator: Identity, request: validator::Request) {
        let at = usize::from(validator[0] - 0xa0);
        match request {
            validator::Request::Submit { tenant, leaves } => {
                let accepted = leaves.len() as u16;
                self.pools[at].0.extend(leaves);
                self.later(Input::Validator(
                    validator,
                    validator::Answer::Submitted { tenant, accepted, refused: vec![] },
                ));
            }
            validator::Request::Attest(attestation) => {
                let da_root = attestation.batch.da_root;
                self.pools[at].1.insert(da_root, *attestation);
                let answer = validator::Answer::Attest { da_root, reason: Reason::Taken };
                self.later(Input::Validator(validator, answer));
            }
            validator::Request::Wanted { leaves, batches } => {
                let size = self.log.size();
                let mut header = self.header;
                if self.rng.below(20) == 0 {
                    header.poh.count = 1;
                }
                let place = |leaf: &LeafHash| {
                    let index = *self.places.get(leaf)?;
                    Some((*leaf, self.log.prove_inclusion(index, size).unwrap()))
                };
                let leaves: Vec<_> = leaves.iter().filter_map(place).collect();
                let batches = batches.iter().filter_map(|da_root| self.attested.get(da_root).cloned()).collect();
                let answer = validator::Answer::Proofs { sealed: Box::new(sealed(header)), leaves, batches };
                self.later(Input::Validator(validator, answer));
            }
            validator::Request::Wrong(_) => unreachable!(),
        }
    }

    /// One validator's turn: what it has in memory becomes final, and is forgotten everywhere.
    fn make_header(&mut self) {
        let at = self.rng.below(4) as usize;
        let (leaves, attestations) = std::mem::take(&mut self.pools[at]);
        for hash in leaves {
            let leaf = Leaf { tenant: TENANT, hash }.leaf_hash();
            if !self.places.contains_key(&leaf) {
                let index = self.log.append(leaf.0);
                self.places.insert(leaf, index);
            }
        }
        let fresh: Vec<_> =
            attestations.into_values().filter(|it| !self.attested.contains_key(&it.batch.da_root)).collect();
        let mut tree = Log::new();
        for attestation in &fresh {
            tree.append(attestation.leaf_hash());
        }
        let head = tree.head();
        let (height, receipts) = (self.header.height.next(), self.log.head());
        self.header = Header { height, receipts, da_root: head.root, ..self.header };
        for (index, attestation) in (0..).zip(fresh) {
            let inclusion = tree.prove_inclusion(index, head.size).unwrap();
            let da_root = attestation.batch.da_root;
            self.attested.insert(da_root, Attested { sealed: sealed(self.header), attestation, inclusion });
        }
        self.later(Input::Header);
    }
}

fn opened(number: u8) -> Opened {
    let entry = |at: u8| {
        let hash = [number, at].repeat(16).try_into().unwrap();
        Entry { hash, leaf: Leaf { tenant: TENANT, hash }.leaf_hash() }
    };
    let entries: Vec<_> = (0..5).map(entry).collect();
    let mut receipts = Log::new();
    for entry in &entries {
        receipts.append(entry.leaf.0);
    }
    let coding = Coding::new(4, 12, 5_000).unwrap();
    let receipts_root = receipts.head().root;
    let batch = Batch { tenant: TENANT, coding, da_root: [number; 32], receipts: 5, receipts_root };
    let (acknowledgements, included) = (Vec::new(), BTreeSet::new());
    Opened { batch, roots: vec![[0; 32]; 12], entries, acknowledgements, included, attested: false }
}

/// Runs one history, and gives the world at its end.
fn history(seed: u64) -> World {
    let mut world = World::new(seed);
    let mut outbox = Outbox::new(world.mesh(), Believes);
    let mut number = 0;
    while world.finals.len() < 20 || !outbox.is_empty() {
        world.now_ms += 1 + world.rng.below(20);
        assert!(world.now_ms < 1_000_000, "seed {seed}: {} of 20 batches are final", world.finals.len());
        if number < 20 && world.rng.below(8) == 0 {
            let opened = opened(number);
            world.batches.insert(opened.batch.da_root, opened.batch);
            number += 1;
            let effects = outbox.step(world.now_ms, Input::Opened(Box::new(opened)));
            world.carry_out(effects);
        }
        if world.rng.below(12) == 0 {
            world.make_header();
        }
        match world.rng.below(200) {
            0 => {
                let at = world.rng.below(4) as usize;
                world.pools[at] = Default::default();
            }
            // Nobody hears anybody for a while.
            1 => world.loss = 100,
            2..8 => world.loss = 20,
            _ => {}
        }
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut world.under_way).into_iter().partition(|(at_ms, _)| *at_ms <= world.now_ms);
        world.under_way = rest;
        for (_, input) in due {
            let effects = outbox.step(world.now_ms, input);
            world.carry_out(effects);
        }
        if outbox.deadline_ms().is_some_and(|at_ms| at_ms <= world.now_ms) {
            let effects = outbox.step(world.now_ms, Input::Time);
            world.carry_out(effects);
        }
    }
    assert!(outbox.deadline_ms().is_none());
    let all = ShardSet::from_iter(0..12);
    for da_root in world.batches.keys() {
        let durable = world.pinners.iter().filter_map(|pinner| pinner.durable.get(da_root));
        assert_eq!(durable.fold(ShardSet::default(), |sum, each| sum.union(*each)), all, "seed {seed}");
    }
    world
}

#[test]
fn whatever_is_lost_each_batch_becomes_final_once_and_each_leaf_is_kept_once() {
    for seed in 0..50 {
        let world = history(seed);
        assert!(world.finals.values().all(|times| *times == 1), "seed {seed}");
        assert!(world.kept.len() == 100 && world.kept.values().all(|times| *times == 1), "seed {seed}");
        assert!(world.troubles.iter().all(|trouble| matches!(trouble, Trouble::Unproved { .. })), "seed {seed}");
    }
}

#[test]
fn a_header_that_a_liar_made_and_a_signature_of_another_are_told_and_count_for_nothing() {
    let mut world = World::new(1);
    let mut outbox = Outbox::new(world.mesh(), Believes);
    let opened = opened(1);
    let (da_root, batch) = (opened.batch.da_root, opened.batch);
    let leaf = opened.entries[0].leaf;
    world.log.append(leaf.0);
    outbox.step(0, Input::Opened(Box::new(opened)));
    let header =
        Header { poh: bpi_protocol::consensus::header::PohEnd { count: 1, hash: [0; 32] }, ..Header::default() };
    let leaves = vec![(leaf, world.log.prove_inclusion(0, 1).unwrap())];
    let answer = validator::Answer::Proofs { sealed: Box::new(sealed(header)), leaves, batches: vec![] };
    let effects = outbox.step(0, Input::Validator(identity(0), answer));
    assert!(matches!(effects[0], Effect::Trouble(Trouble::Unproved { .. })), "{effects:?}");
    let pinner = world.mesh().pinners[0];
    let statement = Acknowledgement::statement(ChainId([4; 32]), &batch, ShardSet::default().with(0), 9);
    let signature = world.pinners[0].key.sign(&statement).to_bytes();
    let acknowledgement =
        Box::new(Acknowledgement { pinner, shards: ShardSet::default().with(0), until_s: 9, signature });
    let effects = outbox.step(0, Input::Pinner(pinner, pinner::Answer::Kept { da_root, acknowledgement }));
    assert_eq!(effects, [Effect::Trouble(Trouble::Forged { pinner, da_root })]);
}

#[test]
fn what_was_found_again_goes_on_from_where_it_was() {
    let world = World::new(1);
    let mut outbox = Outbox::new(world.mesh(), Believes);
    let mut opened = opened(1);
    opened.included = opened.entries.iter().map(|entry| entry.leaf).collect();
    let asked = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::AskPinner(..))).count();
    let effects = outbox.step(0, Input::Opened(Box::new(opened.clone())));
    assert_eq!((effects.len(), asked(&effects)), (3, 3), "leaves that are in the log are not submitted again");
    opened.attested = true;
    opened.batch.da_root = [2; 32];
    assert_eq!(outbox.step(0, Input::Opened(Box::new(opened))).last(), Some(&Effect::Final([2; 32])));
    assert_eq!((outbox.len(), outbox.is_empty()), (1, false), "it is final, and still spread");
    let mut closed = Vec::new();
    while let Some(at_ms) = outbox.deadline_ms().filter(|at_ms| *at_ms < 2 * SPREADING_MS) {
        closed.extend(outbox.step(at_ms, Input::Time).into_iter().filter(|effect| matches!(effect, Effect::Closed(_))));
    }
    assert_eq!(closed, [Effect::Closed([2; 32])], "not for ever");
}

#[test]
fn pauses_grow_and_each_silence_asks_another_validator() {
    let world = World::new(1);
    let mut outbox = Outbox::new(world.mesh(), Believes);
    outbox.step(0, Input::Opened(Box::new(opened(1))));
    let (mut now_ms, mut asked, mut submissions) = (0, BTreeSet::new(), 0);
    while now_ms < 100_000 {
        now_ms = outbox.deadline_ms().unwrap();
        for effect in outbox.step(now_ms, Input::Time) {
            if let Effect::AskValidator(validator, validator::Request::Submit { .. }) = effect {
                asked.insert(validator);
                submissions += 1;
            }
        }
    }
    assert_eq!((asked.len(), submissions), (4, 6), "2, 6, 14, 30, 60 and 90 s");
}

#[test]
fn a_validator_that_says_of_nothing_that_it_is_final_is_left_for_the_next() {
    let world = World::new(1);
    let mut outbox = Outbox::new(world.mesh(), Believes);
    outbox.step(0, Input::Opened(Box::new(opened(1))));
    let mut asked = BTreeSet::new();
    for round in 1..5 {
        let now_ms = round * ASK_MS;
        let mut liar = identity(0);
        for effect in outbox.step(now_ms, Input::Header) {
            if let Effect::AskValidator(validator, validator::Request::Wanted { .. }) = effect {
                liar = validator;
            }
        }
        asked.insert(liar);
        let nothing = || validator::Answer::Proofs {
            sealed: Box::new(sealed(world.header)),
            leaves: Vec::new(),
            batches: Vec::new(),
        };
        outbox.step(now_ms, Input::Validator(liar, nothing()));
    }
    assert_eq!(asked.len(), 4);
}
