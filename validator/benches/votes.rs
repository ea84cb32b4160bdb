//! What COMMIT votes cost the core with real keys: one that only waits, a whole quorum with its check, and one with a vote among it that is
//! none; beside them the check of one signature, which is what each would cost if it were checked as it comes. All in processor time of the
//! thread: on a shared machine wall time says how busy the others are.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use bpi_protocol::consensus::bls::{Keys, SecretKey};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{Epoch, Round, TimeMs, ValidatorIndex};
use bpi_protocol::consensus::light::{chain_of, genesis};
use bpi_protocol::consensus::message::{Body, Commit, Message, Proposal, Vote};
use bpi_protocol::consensus::scheme::{Scheme as _, Signature, Signer as _};
use bpi_protocol::consensus::statement;
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use bpi_validator::core::timing::Timing;
use bpi_validator::core::{Core, Effect, Input, Instance, Peer, Recovered};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

const TIMING: Timing = Timing { block_ms: 250, round_ms: 1_000, doublings_max: 5 };
/// Within round 0 of the height after the genesis.
const NOW_MS: u64 = 300;

/// Processor time of the thread that measures, shown as wall time is.
struct ProcessorTime;

fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("this clock never goes below zero")
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        spent()
    }

    fn end(&self, start: Duration) -> Duration {
        spent().saturating_sub(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// An observer that has accepted a header, and the COMMIT votes of all validators for it.
struct Height {
    core: Core<Arc<Keys>>,
    keys: Arc<Keys>,
    statement: Vec<u8>,
    quorum: usize,
    votes: Vec<Message>,
}

impl Height {
    fn new(validators: u8) -> Self {
        let secrets: Vec<_> =
            (0..validators).map(|number| SecretKey::generate(&[number; 32]).expect("32 bytes of entropy")).collect();
        let member = |secret: &SecretKey| Validator {
            key: secret.public_key(),
            possession: secret.prove_possession(),
            weight: 1,
        };
        let set = ValidatorSet::new(Epoch(0), secrets.iter().map(member).collect()).expect("different keys");
        let parent = genesis(&set, TimeMs(0));
        let header = Header { height: parent.height.next(), parent: parent.digest(), time: TimeMs(250), ..parent };
        let (digest, quorum, sender) = (header.digest(), set.quorum(), ValidatorIndex(0));
        let keys = Arc::new(Keys::new(&set).expect("each with its proof"));
        let instance = Instance {
            chain: chain_of(&parent),
            parent,
            scheme: Arc::clone(&keys),
            set: Arc::new(set),
            order: vec![sender],
        };
        let (place, round) = (instance.place(), Round(0));
        let mut core = Core::observer(TIMING);
        core.start(NOW_MS, instance, None, Recovered::default());
        let signature = secrets[0].sign(&statement::proposal(place, round, digest));
        let proposal = Proposal { sender, round, header, justification: None, signature };
        let body = Body::Proposal(Box::new(proposal));
        let asked = core.step(NOW_MS, heard(Message { height: place.height, body }));
        assert_eq!(asked, [Effect::Check(Box::new(header))]);
        core.step(NOW_MS, Input::Checked { digest, valid: true });
        let statement = statement::commit(place, round, digest);
        let vote = |(sender, secret): (u16, &SecretKey)| {
            let vote = Vote { sender: ValidatorIndex(sender), round, digest, signature: secret.sign(&statement) };
            Message { height: place.height, body: Body::Commit(Commit { vote, partials: None }) }
        };
        let votes = (0..).zip(&secrets).map(vote).collect();
        Self { core, keys, statement, quorum, votes }
    }

    /// The first vote is another validator's: a point of the group, and no signature of its sender.
    fn with_a_false_vote(&self) -> Vec<Message> {
        let mut votes = self.votes[..=self.quorum].to_vec();
        let other = signature(&votes[1]);
        if let Body::Commit(commit) = &mut votes[0].body {
            commit.vote.signature = other;
        }
        votes
    }
}

fn signature(message: &Message) -> Signature {
    match &message.body {
        Body::Commit(commit) => commit.vote.signature,
        other => panic!("{other:?} is no COMMIT"),
    }
}

fn heard(message: Message) -> Input {
    Input::Message { from: Peer(0), message }
}

/// Hears votes, the last of which makes the header final and none before it.
fn finalise((mut core, votes): (Core<Arc<Keys>>, Vec<Message>)) -> Core<Arc<Keys>> {
    let last = votes.len() - 1;
    for (at, vote) in votes.into_iter().enumerate() {
        let effects = core.step(NOW_MS, heard(vote));
        let is_final = effects.iter().any(|effect| matches!(effect, Effect::Finalise { .. }));
        assert_eq!(is_final, at == last, "vote {at}: {effects:?}");
    }
    core
}

fn ingest(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = criterion.benchmark_group("commit-votes");
    for validators in [9, 25, 100] {
        let height = Height::new(validators);
        let (core, quorum) = (&height.core, height.quorum);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("one-that-waits", validators), |bench| {
            let fresh = || (core.clone(), heard(height.votes[0].clone()));
            let hear = |(mut core, vote): (Core<_>, Input)| {
                assert!(core.step(NOW_MS, vote).is_empty());
                core
            };
            bench.iter_batched(fresh, hear, BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("signature-alone", validators), |bench| {
            let signature = signature(&height.votes[0]);
            bench.iter(|| assert!(height.keys.verify(ValidatorIndex(0), &height.statement, &signature)));
        });
        group.throughput(Throughput::Elements(quorum as u64));
        group.bench_function(BenchmarkId::new("a-quorum", validators), |bench| {
            bench.iter_batched(|| (core.clone(), height.votes[..quorum].to_vec()), finalise, BatchSize::SmallInput);
        });
        group.throughput(Throughput::Elements(quorum as u64 + 1));
        group.bench_function(BenchmarkId::new("a-quorum-and-one-that-is-none", validators), |bench| {
            bench.iter_batched(|| (core.clone(), height.with_a_false_vote()), finalise, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = ingest
}
criterion_main!(benches);
