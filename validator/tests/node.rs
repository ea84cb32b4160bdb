//! Whole nodes in one process.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpi_keyfile::PeerKey;
use bpi_protocol::availability::attestation::{Acknowledgement, Attestation, Batch, ShardSet};
use bpi_protocol::availability::coding::Coding;
use bpi_protocol::availability::tree::{ShardTree, da_root};
use bpi_protocol::availability::wrong::WrongEncoding;
use bpi_protocol::consensus::bls::{Keys, VerifyingKey};
use bpi_protocol::consensus::header::{LogHead, Seed};
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::consensus::light::{LightProof, check_final};
use bpi_protocol::consensus::scheme::PublicKey;
use bpi_protocol::finality::Finality;
use bpi_protocol::log::proof::Inclusion;
use bpi_protocol::mesh::pinner;
use bpi_protocol::mesh::validator::{Answer, Attested, Reason, Request};
use bpi_validator::beacon::seed::check_seed;
use bpi_validator::beacon::share::ShareBook;
use bpi_validator::contents::leaf::{Leaf, TenantId};
use bpi_validator::core::Core;
use bpi_validator::durable::Durable;
use bpi_validator::durable::watermark::Watermark;
use bpi_validator::keys::KeyFile;
use bpi_validator::node::agents::AgentNumber;
use bpi_validator::node::api::{self, Ask, Status};
use bpi_validator::node::ceremonies::Ceremonies;
use bpi_validator::node::config::{AgentConfig, Config, ProbeConfig};
use bpi_validator::node::genesis::{ChainRules, Genesis, Member, Pinner};
use bpi_validator::node::host::{Host, Parts};
use bpi_validator::node::metrics::Metrics;
use bpi_validator::node::network::Events;
use bpi_validator::node::network::memory::{Hub, Memory, Told, cluster};
use bpi_validator::node::schedule::Plan;
use bpi_validator::node::{now_ms, run};
use tokio::sync::{mpsc, oneshot, watch};

/// What any of these takes on a slow day.
const PATIENCE: Duration = Duration::from_secs(60);

/// Folders, keys and a genesis of so many validators, without ceremonies.
fn site(folder: &Path, validators: usize) -> (Arc<Genesis>, Vec<Config>) {
    let rules = ChainRules { ceremony_heights: 0, ..ChainRules::default() };
    site_with(folder, validators, |members| Genesis::text("test", now_ms(), rules, members, Vec::new()).unwrap())
}

/// The same, with a genesis of these members as somebody writes it.
fn site_with(
    folder: &Path,
    validators: usize,
    text_of: impl FnOnce(Vec<Member>) -> String,
) -> (Arc<Genesis>, Vec<Config>) {
    let mut members = Vec::new();
    let mut configs = Vec::new();
    for number in 0..validators {
        let home = folder.join(number.to_string());
        std::fs::create_dir(&home).unwrap();
        let text = "genesis = \"../genesis.toml\"\nkey_file = \"key\"\npeer_key_file = \"peer\"\ndata_dir = \"data\"\n\
                    inbox_file = \"../inbox\"\n[timing]\nblock_ms = 50\nround_ms = 1000\n";
        let config = Config::parse(&home.join("validator.toml"), text).unwrap();
        let key = KeyFile::create(&config.key_file).unwrap();
        Watermark::create(&Watermark::path_beside(&config.key_file), key.fingerprint(), Height(0)).unwrap();
        let peer = PeerKey::create(&config.peer_key_file).unwrap();
        members.push(Member {
            public_key: hex::encode(key.public_key().0),
            possession: hex::encode(key.possession().0),
            peer_key: hex::encode(peer.public()),
            weight: 1,
            region: (number % 2).to_string(),
        });
        configs.push(config);
    }
    std::fs::write(folder.join("inbox"), "").unwrap();
    let path = folder.join("genesis.toml");
    std::fs::write(&path, text_of(members)).unwrap();
    let genesis = Arc::new(Genesis::load(&path).unwrap());
    for config in &configs {
        run::init(config, &genesis).unwrap();
    }
    (genesis, configs)
}

/// A node that runs in a thread of its own.
struct Running {
    asks: mpsc::Sender<Ask>,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

fn start(genesis: &Arc<Genesis>, config: &Config, (network, events): (Memory, Events)) -> Running {
    let (asks, asked) = mpsc::channel(api::ASKS_MAX);
    let (stop, stopped) = watch::channel(false);
    let (genesis, config) = (Arc::clone(genesis), config.clone());
    let thread = std::thread::spawn(move || {
        let key = KeyFile::load(&config.key_file).unwrap();
        let metrics = Metrics::new();
        let plan = Plan::new(Arc::clone(&genesis), Some(key.public_key()), Arc::clone(&metrics));
        let watermark = Watermark::path_beside(&config.key_file);
        let (durable, found) = Durable::open(&config.data_dir, &watermark, genesis.chain, key.fingerprint()).unwrap();
        let contents = run::open_contents(&config, &genesis, &durable).unwrap();
        let (key, book) = (Arc::new(key.into_secret()), ShareBook::default());
        let shares = Some(Arc::new(book.clone()) as Arc<_>);
        let ceremonies = config.data_dir.join("ceremonies");
        let parts = Parts {
            held: config.data_dir.join("contents.log"),
            ceremonies: Ceremonies::open(&ceremonies, Arc::clone(&genesis), Some(Arc::clone(&key)), book).unwrap(),
            core: Core::validator(config.timing.into(), key, shares),
            peers: peers_of(&genesis),
            agents: config.agent.iter().map(|agent| agent.agent().unwrap()).collect(),
            probe: config.probe,
            peer_key: Arc::new(PeerKey::load(&config.peer_key_file).unwrap()),
            evidence: config.data_dir.join("evidence"),
            network: network.clone(),
            genesis,
            plan,
            durable,
            found,
            contents,
            metrics,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let host = Host::start(parts).unwrap();
            network.announce();
            host.run(events, asked, stopped).await.unwrap();
        });
    });
    Running { asks, stop, thread }
}

/// Everybody's peer key, in the order of the folders.
fn peers_of(genesis: &Genesis) -> Vec<[u8; 32]> {
    let mut peers: Vec<[u8; 32]> = Vec::new();
    for period in &genesis.periods {
        let others: Vec<_> = period.peers.iter().filter(|key| !peers.contains(key)).copied().collect();
        peers.extend(others);
    }
    peers
}

impl Running {
    fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> T {
        let (answer, answered) = oneshot::channel();
        self.asks.blocking_send(question(answer)).unwrap();
        answered.blocking_recv().unwrap()
    }

    fn status(&self) -> Status {
        self.ask(Ask::Status)
    }

    fn wait(&self, what: &str, fits: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        loop {
            let status = self.status();
            if fits(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {status:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(self) {
        self.stop.send(true).unwrap();
        self.thread.join().unwrap();
    }
}

fn leaf(number: u8) -> Leaf {
    Leaf { tenant: TenantId([number % 3; 16]), hash: [number; 32] }
}

#[test]
fn leaves_given_to_one_node_are_proved_by_another_and_one_that_comes_late_has_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let (genesis, configs) = site(folder.path(), 4);
    let mut networks = cluster(4).into_iter();
    let mut nodes: Vec<_> =
        configs[..3].iter().map(|config| start(&genesis, config, networks.next().unwrap())).collect();

    let leaves: Vec<_> = (0..50).map(leaf).collect();
    let submitted = nodes[0].ask(|answer| Ask::Submit(leaves.clone(), answer));
    assert_eq!((submitted.accepted, submitted.refused.len()), (50, 0));
    let again = nodes[0].ask(|answer| Ask::Submit(vec![leaf(7)], answer));
    assert_eq!((again.accepted, again.refused.len()), (0, 1), "it waits, or is in the log");
    nodes.iter().for_each(|node| drop(node.wait("the leaves become final", |status| status.log == [50, 50])));

    // Long enough that nobody remembers what the late one asks for.
    let height = nodes[0].status().height + 20;
    nodes[0].wait("heights move without one of four", |status| status.height >= height);
    nodes.push(start(&genesis, &configs[3], networks.next().unwrap()));
    let late = nodes[3].wait("the late one catches up", |status| status.height > height && status.log == [50, 50]);
    assert_eq!(late.votes, "yes");
    let more = nodes[3].ask(|answer| Ask::Submit((50..60).map(leaf).collect(), answer));
    assert_eq!(more.accepted, 10);
    nodes.iter().for_each(|node| drop(node.wait("its leaves become final", |status| status.log == [60, 60])));

    // Who has caught up takes its turns again, though no leaf has come since.
    let began = Instant::now();
    let is_its_own = |node: &Running| {
        let (header, _) = node.ask(|answer| Ask::Header(None, answer)).unwrap().unwrap();
        header.proposer.0 == 3 && header.round.0 == 0
    };
    while !is_its_own(&nodes[0]) {
        assert!(began.elapsed() < PATIENCE, "the late one never proposes");
        std::thread::sleep(Duration::from_millis(5));
    }

    // What the first layer forces in comes in by itself, once it lies far enough behind.
    let forced = leaf(99);
    let block = |height: u64, entries: &str| {
        let hash = hex::encode([height as u8; 32]);
        format!("{{\"height\":{height},\"hash\":\"{hash}\",\"entries\":[{entries}]}}\n")
    };
    let entry =
        format!("{{\"tenant\":\"{}\",\"hash\":\"{}\"}}", hex::encode(forced.tenant.0), hex::encode(forced.hash));
    let lines = [block(7, ""), block(8, &entry), block(9, ""), block(10, "")].concat();
    std::fs::write(folder.path().join("inbox"), lines).unwrap();
    nodes.iter().for_each(|node| drop(node.wait("what is forced becomes final", |status| status.log == [61, 61])));
    let (header, _) = nodes[1].ask(|answer| Ask::Header(None, answer)).unwrap().unwrap();
    assert_eq!((header.inbox.height, header.inbox.hash), (8, [8; 32]));

    for node in &nodes {
        let found = node.ask(|answer| Ask::Inclusion(leaf(33), None, answer)).unwrap().unwrap();
        let bytes = |text: &String| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
        let proof = Inclusion { index: found.index, size: found.size, path: found.path.iter().map(bytes).collect() };
        let (header, _) = node.ask(|answer| Ask::Header(None, answer)).unwrap().unwrap();
        assert_eq!(header.receipts, LogHead { size: 61, root: bytes(&found.root) });
        proof.check(&leaf(33).leaf_hash().0, &header.receipts).unwrap();
        let bytes = node.ask(|answer| Ask::Finality(leaf(33), answer)).unwrap().unwrap();
        let finality = Finality::from_bytes(&bytes).unwrap();
        finality.inclusion.check(&leaf(33).leaf_hash().0, &finality.header.receipts).unwrap();
        let keys = Keys::new(&finality.set).unwrap();
        check_final(finality.chain, &finality.header, &finality.seal, &finality.set, &keys).unwrap();
        assert_eq!((finality.chain, finality.tenant), (genesis.chain, leaf(33).tenant));
        let absent = Leaf { hash: [200; 32], ..leaf(0) };
        assert!(node.ask(|answer| Ask::Inclusion(absent, None, answer)).unwrap().is_none());
        assert!(node.ask(|answer| Ask::Finality(absent, answer)).unwrap().is_none());
    }
    nodes.into_iter().for_each(Running::end);

    // What they have kept is one chain, and goes on where it ended.
    let tips: Vec<_> = configs
        .iter()
        .map(|config| *Durable::open_to_observe(&config.data_dir, genesis.chain).unwrap().0.tip())
        .collect();
    let shortest = tips.iter().map(|tip| tip.height).min().unwrap();
    let at_shortest = configs.iter().map(|config| {
        let (durable, _) = Durable::open_to_observe(&config.data_dir, genesis.chain).unwrap();
        durable.get(shortest).unwrap().unwrap().0
    });
    assert!(at_shortest.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn leaves_of_a_final_header_that_no_log_has_are_logged_from_what_was_kept_before_the_vote() {
    let folder = tempfile::tempdir().unwrap();
    let (genesis, configs) = site(folder.path(), 1);
    let (ledger, before) = (configs[0].data_dir.join("ledger"), folder.path().join("ledger-before"));
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy(&ledger, &before);
    let hub = Hub::new(1);
    let node = start(&genesis, &configs[0], hub.join(0));
    node.ask(|answer| Ask::Submit(vec![leaf(1), leaf(2)], answer));
    let first = node.wait("the leaves become final", |status| status.log == [2, 2]);
    node.end();

    // As if all had been killed between their votes and the log, and come back with votes alone.
    std::fs::remove_dir_all(&ledger).unwrap();
    copy(&before, &ledger);
    let node = start(&genesis, &configs[0], hub.join(0));
    node.wait("there is nobody to ask", |status| status.log == [2, 2] && status.height > first.height + 2);
    assert!(node.ask(|answer| Ask::Inclusion(leaf(2), None, answer)).unwrap().is_some());
    node.end();
}

/// Heights of a ceremony in the test below.
const CEREMONY: u64 = 60;

/// Some validators in epoch 0, and others in epoch 1, which may vote after the second ceremony and not after the first.
fn two_epochs(members: &[Member], first: &[usize], second: &[usize]) -> String {
    let block = |heading: &str, member: &Member| {
        let Member { public_key, possession, peer_key, .. } = member;
        format!(
            "[[{heading}]]\npublic_key = \"{public_key}\"\npossession = \"{possession}\"\npeer_key = \"{peer_key}\"\n"
        )
    };
    let first: String = first.iter().map(|at| block("validator", &members[*at])).collect();
    let second: String = second.iter().map(|at| block("epoch.validator", &members[*at])).collect();
    let rules = format!("[rules]\nceremony_heights = {CEREMONY}\n");
    let head = format!("version = 1\nname = \"test\"\ntime_ms = {}\n{rules}", now_ms());
    format!("{head}{first}[[epoch]]\nfirst_height = {}\n{second}", CEREMONY + 2)
}

#[test]
fn a_ceremony_that_too_few_take_part_in_fails_and_is_held_again_with_the_old_set_voting() {
    let folder = tempfile::tempdir().unwrap();
    let text = |members: Vec<Member>| two_epochs(&members, &[0, 1, 2, 3], &[2, 3, 4, 5]);
    let (genesis, configs) = site_with(folder.path(), 6, text);
    let hub = Hub::new(6);
    let start = |at: usize| start(&genesis, &configs[at], hub.join(at as u32));
    let mut nodes: Vec<_> = (0..4).map(start).collect();
    // Half of the set to come is away: more than may be spared.
    let failed = nodes[0].wait("two slots are over", |status| status.height > 2 * CEREMONY + 1);
    assert_eq!((failed.epoch, failed.group_key.is_some()), (0, true));
    let ceremonies = |number: usize| configs[number].data_dir.join("ceremonies");
    let outcome = format!("outcome-{}", CEREMONY + 1);
    assert!(std::fs::read(ceremonies(0).join(&outcome)).unwrap().is_empty(), "it is known that it failed");
    nodes.extend([start(4), start(5)]);
    let changed = nodes[4].wait("the set changes", |status| status.epoch == 1);
    assert_eq!(changed.group_key, failed.group_key);
    let epoch = |height| nodes[0].ask(|answer| Ask::Header(Some(Height(height)), answer)).unwrap().unwrap().0.epoch.0;
    let second_from = (1..=changed.height).find(|height| epoch(*height) == 1).unwrap();
    assert_eq!(second_from % CEREMONY, 1);
    nodes[5].wait("it goes on", |status| status.height > changed.height + 3);
    nodes.into_iter().for_each(Running::end);
    for number in 0..6 {
        let names = std::fs::read_dir(ceremonies(number)).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("ceremony-")).collect();
        assert!(left.is_empty(), "secrets of ceremonies that are over: {left:?}");
    }
}

#[test]
fn the_validators_get_a_key_draw_their_proposers_hand_the_key_on_and_one_that_comes_late_has_its_share() {
    let folder = tempfile::tempdir().unwrap();
    let (genesis, configs) = site_with(folder.path(), 5, |members| two_epochs(&members, &[0, 1, 2, 3], &[1, 2, 3, 4]));
    let hub = Hub::new(5);
    let mut nodes: Vec<_> = (0..4).map(|at| start(&genesis, &configs[at], hub.join(at as u32))).collect();

    // In the middle of the dealings one is started again, and has forgotten nothing.
    nodes[2].wait("heights move", |status| status.height >= 3);
    assert_eq!(nodes[2].status().ceremony, Some("deals"));
    nodes.remove(2).end();
    nodes.insert(2, start(&genesis, &configs[2], hub.join(2)));

    let keyed = nodes[0].wait("there is a key", |status| status.group_key.is_some());
    assert!(keyed.height > CEREMONY);
    let handed = nodes[3].wait("the key is handed on", |status| status.epoch == 1 && status.height > 2 * CEREMONY + 6);
    assert_eq!(handed.group_key, keyed.group_key, "one key for the life of the chain");
    nodes.remove(0).end();

    // The fifth comes when its set votes already: what it was dealt stands in the logs, which it fetches.
    nodes.push(start(&genesis, &configs[4], hub.join(4)));
    let late = nodes[3].wait("the late one catches up", |status| status.height > handed.height + 5);
    assert_eq!((late.votes, &late.group_key), ("yes", &keyed.group_key));
    // With one of four away its parts are needed.
    nodes.remove(0).end();
    let needed = nodes[2].wait("it is needed", |status| status.height > late.height + 8);

    let mut group = PublicKey([0; 96]);
    hex::decode_to_slice(keyed.group_key.unwrap(), &mut group.0).unwrap();
    let group = VerifyingKey::new(&group).unwrap();
    let last = needed.height - 4;
    let header = |height| nodes[1].ask(|answer| Ask::Header(Some(Height(height)), answer)).unwrap().unwrap().0;
    // A ceremony that a busy machine makes fail is held again: the slot is another one, its place in it is not.
    let keyed_from = (1..=last).find(|height| header(*height).seed != Seed::RoundRobin).unwrap();
    let second_from = (1..=last).find(|height| header(*height).epoch.0 == 1).unwrap();
    assert_eq!((keyed_from % CEREMONY, second_from % CEREMONY), (2, 1));
    let mut proofs = 0;
    for height in 1..=last {
        let (parent, header) = (header(height - 1), header(height));
        // Those who voted on the parent have the key from a slot's first height on.
        let has_key = height >= keyed_from;
        assert_eq!(check_seed(genesis.chain, &parent, &header, has_key.then_some(&group)), Ok(()), "height {height}");
        assert_eq!(header.epoch.0, u64::from(height >= second_from));
        // Made by who proposed next, at least; some of them run no more.
        for light in
            nodes.iter().filter_map(|node| node.ask(|answer| Ask::Light(Some(Height(height)), answer)).unwrap())
        {
            assert!(height + 1 >= keyed_from);
            let proof = LightProof::from_bytes(&hex::decode(light.proof).unwrap()).unwrap();
            assert_eq!(proof.check(genesis.chain, &group).map(|header| header.digest()), Ok(header.digest()));
            proofs += 1;
        }
    }
    assert!(proofs > (last - keyed_from) / 3, "{proofs} light proofs of {last} headers");
    let latest = nodes[1].ask(|answer| Ask::Light(None, answer)).unwrap().unwrap();
    assert!(latest.height + 2 >= nodes[1].status().height, "the last header's, when somebody asks");
    let drawn: Vec<_> = (keyed_from..=last).map(|height| header(height).proposer.0).collect();
    let in_turn = drawn.windows(2).filter(|pair| pair[1] == (pair[0] + 1) % 4).count();
    assert!(in_turn < drawn.len() * 3 / 4, "proposers are drawn, not in turn: {drawn:?}");
    nodes.into_iter().for_each(Running::end);
    let shares = |number: usize| configs[number].data_dir.join("ceremonies/share-1.toml").exists();
    assert_eq!([0, 1, 2, 3, 4].map(shares), [false, true, true, true, true]);
    let old = |number: usize| configs[number].data_dir.join("ceremonies/share-0.toml").exists();
    assert_eq!([1, 2, 3].map(old), [false; 3], "erased");
}

const TENANT: TenantId = TenantId([5; 16]);
const AGENT: AgentNumber = AgentNumber(0);

/// Three pinners, and what they keep: shards of nothing that anybody could decode.
struct Pinners {
    keys: Vec<PeerKey>,
    chain: bpi_protocol::consensus::ids::ChainId,
}

impl Pinners {
    /// A site whose genesis has them, with an agent of one tenant and one of all.
    fn site(folder: &Path, validators: usize) -> (Self, Arc<Genesis>, Vec<Config>) {
        let keys: Vec<_> =
            (0..3).map(|number| PeerKey::create(&folder.join(format!("pinner{number}"))).unwrap()).collect();
        let identity = |key: &PeerKey| Pinner { identity: hex::encode(key.public()), ..Pinner::default() };
        let pinners = keys.iter().map(identity).collect();
        let rules = ChainRules { ceremony_heights: 0, kept_s_min: 3600, ..ChainRules::default() };
        let text = |members| Genesis::text("test", now_ms(), rules, members, pinners).unwrap();
        let (genesis, mut configs) = site_with(folder, validators, text);
        for config in &mut configs {
            let agent = |key: u8, tenant: String| AgentConfig { key: hex::encode([key; 32]), tenants: vec![tenant] };
            config.agent = vec![agent(1, hex::encode(TENANT.0)), agent(2, "*".to_owned())];
            config.probe.per_s = 0;
        }
        (Self { keys, chain: genesis.chain }, genesis, configs)
    }

    /// Four shards of a batch of twelve at each of the first so many.
    fn attest(&self, number: u8, pinners: usize, until_s: u64) -> Attestation {
        let (coding, roots) = (Coding::new(4, 12, 5000).unwrap(), roots_of(number));
        let da_root = da_root(&coding, &roots);
        let batch = Batch { tenant: TENANT, coding, da_root, receipts: 1, receipts_root: [number; 32] };
        let acknowledge = |(at, key): (u8, &PeerKey)| {
            let shards: ShardSet = (4 * at..4 * at + 4).collect();
            let signature = key.sign(&Acknowledgement::statement(self.chain, &batch, shards, until_s));
            Acknowledgement { pinner: key.public(), shards, until_s, signature }
        };
        let mut acknowledgements: Vec<_> = (0..).zip(&self.keys[..pinners]).map(acknowledge).collect();
        acknowledgements.sort_by_key(|each| each.pinner);
        Attestation { batch, acknowledgements }
    }
}

/// No code word: that would be a polynomial over the field, and this is one over the integers.
fn shard(number: u8, at: u8) -> Vec<u8> {
    vec![number ^ at.wrapping_mul(at).wrapping_mul(37); Coding::new(4, 12, 5000).unwrap().shard_bytes() as usize]
}

fn roots_of(number: u8) -> Vec<[u8; 32]> {
    (0..12).map(|at| ShardTree::of(&shard(number, at)).root()).collect()
}

fn opening(number: u8, at: u8, leaf: u64) -> bpi_protocol::availability::opening::Opening {
    let bytes = shard(number, at);
    let leaf_bytes = &bytes[leaf as usize * 1024..][..1024];
    ShardTree::of(&bytes).open(at, &roots_of(number), leaf, leaf_bytes).unwrap()
}

fn soon_s() -> u64 {
    now_ms() / 1000 + 4000
}

/// What a node answers an agent.
fn ask_as(hub: &Hub, node: u32, agent: AgentNumber, request: Request) -> Option<Answer> {
    hub.told(node);
    hub.ask(node, agent, request);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        for told in hub.told(node) {
            if let Told::Agent(to, answer) = told {
                assert_eq!(to, agent);
                return Some(answer);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn reason_of(hub: &Hub, attestation: &Attestation) -> Reason {
    match ask_as(hub, 0, AGENT, Request::Attest(Box::new(attestation.clone()))) {
        Some(Answer::Attest { da_root, reason }) if da_root == attestation.batch.da_root => reason,
        other => panic!("{other:?}"),
    }
}

/// Waits until a node proves a batch, and checks the proof as anybody would.
fn attested_by(hub: &Hub, node: u32, genesis: &Genesis, attestation: &Attestation) -> Attested {
    let began = Instant::now();
    let batches = vec![attestation.batch.da_root];
    loop {
        let wanted = Request::Wanted { leaves: Vec::new(), batches: batches.clone() };
        if let Some(Answer::Proofs { batches, .. }) = ask_as(hub, node, AGENT, wanted)
            && let Some(attested) = batches.first()
        {
            let (header, set) = (&attested.sealed.header, &attested.sealed.set);
            let keys = Keys::new(set).unwrap();
            check_final(genesis.chain, header, &attested.sealed.seal, set, &keys).unwrap();
            let head = LogHead { size: attested.inclusion.size, root: header.da_root };
            attested.inclusion.check(&attested.attestation.leaf_hash(), &head).unwrap();
            assert_eq!(&attested.attestation, attestation);
            return attested.clone();
        }
        assert!(began.elapsed() < PATIENCE, "node {node} does not prove the batch");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_batch_that_pinners_keep_is_attested_and_proved_after_a_start_and_what_does_not_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (pinners, genesis, configs) = Pinners::site(folder.path(), 1);
    let hub = Hub::new(1);
    let node = start(&genesis, &configs[0], hub.join(0));
    let first = pinners.attest(1, 3, soon_s());
    assert_eq!(reason_of(&hub, &first), Reason::Taken);
    let attested = attested_by(&hub, 0, &genesis, &first);
    assert_eq!(reason_of(&hub, &first), Reason::Included);

    assert_eq!(reason_of(&hub, &pinners.attest(2, 1, soon_s())), Reason::False, "too few");
    assert_eq!(reason_of(&hub, &pinners.attest(2, 3, soon_s() - 1000)), Reason::False, "too short");
    let mut stranger = pinners.attest(2, 3, soon_s());
    stranger.acknowledgements[2].pinner = [0xff; 32];
    assert_eq!(reason_of(&hub, &stranger), Reason::False, "a stranger");
    let mut forged = pinners.attest(2, 3, soon_s());
    forged.batch.receipts_root = [0; 32];
    assert_eq!(reason_of(&hub, &forged), Reason::False, "another batch than was signed");
    let mut others = pinners.attest(2, 3, soon_s());
    others.batch.tenant = TenantId([6; 16]);
    assert_eq!(reason_of(&hub, &others), Reason::Tenant);

    // Leaves go the same way, each tenant's by its agent.
    let leaf = Leaf { tenant: TENANT, hash: [9; 32] };
    let submit = |agent, tenant| ask_as(&hub, 0, agent, Request::Submit { tenant, leaves: vec![leaf.hash] });
    let other = TenantId([6; 16]);
    let refused = vec![(leaf.hash, Reason::Tenant)];
    assert_eq!(submit(AGENT, other), Some(Answer::Submitted { tenant: other, accepted: 0, refused }));
    assert_eq!(
        submit(AgentNumber(1), TENANT),
        Some(Answer::Submitted { tenant: TENANT, accepted: 1, refused: vec![] })
    );
    node.wait("the leaf becomes final", |status| status.log == [1, 1]);
    let wanted = Request::Wanted { leaves: vec![leaf.leaf_hash()], batches: vec![[8; 32]] };
    let Some(Answer::Proofs { sealed, leaves, batches }) = ask_as(&hub, 0, AGENT, wanted) else { panic!() };
    assert!(batches.is_empty());
    leaves[0].1.check(&leaf.leaf_hash().0, &sealed.header.receipts).unwrap();

    // A wrong encoding: five leaves at one offset that are no code word.
    let wrong = pinners.attest(3, 3, soon_s());
    let openings = (0..5).map(|at| opening(3, at, 0)).collect();
    let proof = WrongEncoding { coding: wrong.batch.coding, da_root: wrong.batch.da_root, openings };
    let mut false_proof = proof.clone();
    false_proof.openings[0].bytes[7] ^= 1;
    let judged = |proof: &WrongEncoding| ask_as(&hub, 0, AGENT, Request::Wrong(proof.to_bytes()));
    let said = |reason| Some(Answer::Attest { da_root: wrong.batch.da_root, reason });
    assert_eq!(judged(&false_proof), said(Reason::False));
    assert_eq!(judged(&proof), said(Reason::Wrong));
    assert_eq!(reason_of(&hub, &wrong), Reason::Wrong);
    node.end();

    let node = start(&genesis, &configs[0], hub.join(0));
    let again = attested_by(&hub, 0, &genesis, &first);
    assert_eq!((again.sealed.header, again.inclusion), (attested.sealed.header, attested.inclusion));
    assert_eq!((reason_of(&hub, &first), reason_of(&hub, &wrong)), (Reason::Included, Reason::Wrong));
    let bytes = node.ask(|answer| Ask::Availability(first.batch.da_root, Some(TENANT), answer)).unwrap().unwrap();
    assert!(
        matches!(Answer::from_bytes(&bytes), Ok(Answer::Proofs { batches, .. }) if batches[0].attestation == first)
    );
    assert_eq!(node.ask(|answer| Ask::Availability([0; 32], None, answer)), Ok(None));
    let of_other = node.ask(|answer| Ask::Availability(first.batch.da_root, Some(other), answer));
    assert_eq!(of_other, Ok(None));
    node.end();
}

#[test]
fn a_batch_told_to_one_node_is_proved_by_all_and_by_one_that_comes_late_and_a_wrong_one_is_known_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let (pinners, genesis, configs) = Pinners::site(folder.path(), 4);
    let hub = Hub::new(4);
    let mut nodes: Vec<_> = (0..3).map(|at| start(&genesis, &configs[at], hub.join(at as u32))).collect();
    nodes[0].wait("heights move", |status| status.height > 1);
    let batches: Vec<_> = (1..6).map(|number| pinners.attest(number, 3, soon_s())).collect();
    for batch in &batches {
        assert_eq!(reason_of(&hub, batch), Reason::Taken);
    }
    for batch in &batches {
        (0..3).for_each(|node| drop(attested_by(&hub, node, &genesis, batch)));
    }
    let height = nodes[0].status().height + 20;
    nodes[0].wait("it is long past", |status| status.height >= height);

    let wrong = pinners.attest(9, 3, soon_s());
    let openings = (2..7).map(|at| opening(9, at, 1)).collect();
    let proof = WrongEncoding { coding: wrong.batch.coding, da_root: wrong.batch.da_root, openings };
    let told = ask_as(&hub, 1, AGENT, Request::Wrong(proof.to_bytes()));
    assert_eq!(told, Some(Answer::Attest { da_root: wrong.batch.da_root, reason: Reason::Wrong }));
    let began = Instant::now();
    while reason_of(&hub, &wrong) != Reason::Wrong {
        assert!(began.elapsed() < PATIENCE, "the others hear of the proof");
    }

    nodes.push(start(&genesis, &configs[3], hub.join(3)));
    for batch in &batches {
        attested_by(&hub, 3, &genesis, batch);
    }
    nodes.into_iter().for_each(Running::end);
}

#[test]
fn pinners_are_probed_at_random_and_judged_by_what_they_show() {
    let folder = tempfile::tempdir().unwrap();
    let (pinners, genesis, mut configs) = Pinners::site(folder.path(), 1);
    configs[0].probe = ProbeConfig { per_s: 100, wait_ms: 300 };
    let hub = Hub::new(1);
    let node = start(&genesis, &configs[0], hub.join(0));
    let batch = pinners.attest(1, 3, soon_s());
    hub.ask(0, AGENT, Request::Attest(Box::new(batch.clone())));
    // The first shows what it is asked for, the second something else, and the third nothing.
    let began = Instant::now();
    let figures = loop {
        for told in hub.told(0) {
            let Told::Pinner(key, pinner::Request::Probe { da_root, shard, leaf }) = told else { continue };
            assert_eq!(da_root, batch.batch.da_root);
            let at = pinners.keys.iter().position(|pinner| pinner.public() == key).unwrap();
            assert_eq!(at, usize::from(shard / 4), "whoever keeps it is asked");
            let shown = if at == 0 { shard } else { (shard + 1) % 12 };
            let opening = opening(1, shown, leaf).to_bytes();
            if at < 2 {
                hub.answer(0, key, pinner::Answer::Opening { da_root, shard, leaf, opening });
            }
        }
        let figures = node.status().pinners;
        let known = figures[0].right > 3 && figures[1].wrong > 3 && figures[2].unanswered > 3;
        if known {
            break figures;
        }
        assert!(began.elapsed() < PATIENCE, "{figures:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((figures[0].wrong, figures[1].right, figures[2].right + figures[2].wrong), (0, 0, 0));
    node.end();
}

#[test]
fn pinners_and_how_long_they_keep_are_part_of_the_chains_name_and_a_genesis_without_them_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (pinners, genesis, _) = Pinners::site(folder.path(), 1);
    let path = folder.path().join("genesis.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let chain =
        |text: &str| Genesis::parse(&path, text).map(|genesis| genesis.chain).map_err(|error| error.to_string());
    assert_eq!(chain(&text), Ok(genesis.chain));
    assert_ne!(chain(&text.replace("kept_s_min = 3600", "kept_s_min = 3601")), Ok(genesis.chain));
    let key = |at: usize| hex::encode(pinners.keys[at].public());
    let other = hex::encode(PeerKey::create(&folder.path().join("other")).unwrap().public());
    assert_ne!(chain(&text.replace(&key(0), &other)), Ok(genesis.chain));
    let bare = text.split("[[pinner]]").next().unwrap();
    assert_eq!(
        chain(bare),
        chain(&bare.replace("kept_s_min = 3600", "kept_s_min = 7")),
        "it counts with pinners alone"
    );
    for (from, to, why) in [
        (key(0), key(1), "has the identity of another one"),
        (key(0), key(0)[2..].to_owned(), "not 32 bytes in hex"),
        (key(0), "00".repeat(32), "sound"),
        (key(0), hex::encode(genesis.periods[0].peers[0]), "peer_key of a validator"),
    ] {
        let sentence = chain(&text.replace(&from, &to)).unwrap_err();
        assert!(sentence.contains(why), "{why}: {sentence}");
    }
}

#[test]
fn a_key_of_nobody_and_a_peer_key_of_another_are_told_by_sentences() {
    let folder = tempfile::tempdir().unwrap();
    let (genesis, configs) = site(folder.path(), 2);
    let key = |config: &Config| KeyFile::load(&config.key_file).unwrap().public_key();
    let peer = |config: &Config| PeerKey::load(&config.peer_key_file).unwrap().public();
    let place = |key, peer: [u8; 32]| run::place(&genesis, key, &peer).map_err(|error| error.to_string());
    assert_eq!(place(Some(key(&configs[1])), peer(&configs[1])), Ok("is validator 1 of 2 from height 0 on".to_owned()));
    assert_eq!(place(None, peer(&configs[0])), Ok("observes".to_owned()));
    assert!(place(Some(key(&configs[0])), peer(&configs[1])).unwrap_err().contains("the genesis has"));
    let other: PathBuf = folder.path().join("other");
    let stranger = KeyFile::create(&other).unwrap().public_key();
    assert!(place(Some(stranger), peer(&configs[0])).unwrap_err().contains("no validator set"));
}

#[test]
fn a_genesis_that_cannot_be_is_refused_by_a_sentence_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (genesis, _) = site_with(folder.path(), 5, |members| two_epochs(&members, &[0, 1, 2, 3], &[1, 2, 3, 4]));
    let path = folder.path().join("genesis.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Genesis::parse(&path, &text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let key = |at: usize| hex::encode(genesis.periods[0].set.members()[at].key.0);
    let peer = |at: usize| hex::encode(genesis.periods[0].peers[at]);
    let rules = format!("ceremony_heights = {CEREMONY}");
    let first = format!("first_height = {}", CEREMONY + 2);
    for (from, to, why) in [
        ("version = 1", "version = 2", "version 2 is unknown"),
        ("name = \"test\"", "name = \"\"", "1 to 64 visible"),
        (&rules, "ceremony_heights = 7", "0 or at least 8"),
        (&rules, "inbox_lag_blocks = 9\ninbox_overdue_blocks = 9", "more than inbox_lag_blocks"),
        (&rules, "ceremonies = 9", "unknown field"),
        (&first, "first_height = 0", "an epoch of height 0 follows one of height 0"),
        (&key(1), &key(0), "no set"),
        (&key(1), &key(1)[2..], "not 96 bytes in hex"),
        (&key(1), &"00".repeat(96), "no good key"),
        (&peer(1), &peer(0), "the same peer_key"),
    ] {
        let sentence = refused(from, to);
        assert!(sentence.contains(why) && sentence.contains("genesis.toml"), "{why}: {sentence}");
    }
}
