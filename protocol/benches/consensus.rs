//! How long it takes to check a vote, a quorum's certificate and a sealed header, and to keep a log of a million receipts and prove of it.
#![allow(missing_docs)]

use std::hint::black_box;

use bpi_protocol::consensus::bls::{Keys, SecretKey};
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::{ChainId, Epoch, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::scheme::{Scheme as _, Signature, Signer as _};
use bpi_protocol::consensus::seal::{Seal, Votes};
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::{Signers, Validator, ValidatorSet};
use bpi_protocol::log::{Frontier, Log, leaf_hash};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PLACE: Place = Place { chain: ChainId([7; 32]), height: Height(1) };
const LEAVES: u64 = 1_000_000;

/// A set of validators, a header, and the COMMIT votes of the first quorum of them.
struct Committee {
    set: ValidatorSet,
    keys: Keys,
    header: Header,
    parts: Vec<Signature>,
    votes: Votes,
}

impl Committee {
    fn new(validators: u8) -> Self {
        let secrets: Vec<_> =
            (0..validators).map(|number| SecretKey::generate(&[number; 32]).expect("32 bytes of entropy")).collect();
        let member = |secret: &SecretKey| Validator {
            key: secret.public_key(),
            possession: secret.prove_possession(),
            weight: 1,
        };
        let set = ValidatorSet::new(Epoch(0), secrets.iter().map(member).collect()).expect("different keys");
        let keys = Keys::new(&set).expect("each with its proof");
        let header = Header { height: PLACE.height, ..Header::default() };
        let commit = statement::commit(PLACE, Round(0), header.digest());
        let signers: Signers = set.indices().take(set.quorum()).collect();
        let parts: Vec<_> = signers.iter().map(|index| secrets[index.at()].sign(&commit)).collect();
        let signature = keys.aggregate(&parts).expect("signatures");
        Self { set, keys, header, parts, votes: Votes { round: Round(0), signers, signature } }
    }
}

fn votes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("consensus");
    let secret = SecretKey::generate(&[0; 32]).expect("32 bytes of entropy");
    for validators in [9_u8, 25, 100] {
        let Committee { set, keys, header, parts, votes } = Committee::new(validators);
        let digest = header.digest();
        if validators == 9 {
            let commit = statement::commit(PLACE, Round(0), digest);
            group.bench_function("sign a vote", |bencher| bencher.iter(|| secret.sign(black_box(&commit))));
            group.bench_function("verify a vote", |bencher| {
                bencher.iter(|| assert!(keys.verify(ValidatorIndex(0), black_box(&commit), &parts[0])));
            });
            group.bench_function("digest of a header", |bencher| bencher.iter(|| black_box(&header).digest()));
        }
        group.bench_function(BenchmarkId::new("add the votes of a quorum", validators), |bencher| {
            bencher.iter(|| keys.aggregate(black_box(&parts)).expect("signatures"));
        });
        group.bench_function(BenchmarkId::new("verify the votes of a quorum", validators), |bencher| {
            bencher.iter(|| black_box(&votes).check_committed(PLACE, digest, &set, &keys).expect("a quorum"));
        });
        group.bench_function(BenchmarkId::new("digest and seal of a header", validators), |bencher| {
            let seal = Seal::Votes(votes);
            bencher.iter(|| seal.check(PLACE, black_box(&header), &set, &keys).expect("final"));
        });
        group.sample_size(20);
        group.bench_function(BenchmarkId::new("look into a set", validators), |bencher| {
            bencher.iter(|| Keys::new(black_box(&set)).expect("each with its proof"));
        });
        group.sample_size(100);
    }
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let leaves: Vec<_> = (0..LEAVES).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect();
    let fill = || {
        let mut log = Log::new();
        for leaf in &leaves {
            log.append(*leaf);
        }
        log
    };
    let log = fill();
    let head = log.head();
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(LEAVES)).sample_size(10);
    group.bench_function("append a million leaves", |bencher| bencher.iter(fill));
    group.bench_function("append a million leaves to a frontier", |bencher| {
        bencher.iter(|| {
            let mut frontier = Frontier::new();
            for leaf in &leaves {
                frontier.append(*leaf);
            }
            assert_eq!(frontier.head(), head);
        });
    });
    group.throughput(Throughput::Elements(1)).sample_size(100);
    group.bench_function("head of a million", |bencher| bencher.iter(|| black_box(&log).head()));
    // A stride that is prime to the size, so that every depth is met.
    let mut index = 0;
    group.bench_function("prove that one of a million is in", |bencher| {
        bencher.iter(|| {
            index = (index + 618_033) % LEAVES;
            black_box(&log).prove_inclusion(index, LEAVES).expect("it is")
        });
    });
    let proof = log.prove_inclusion(700_001, LEAVES).expect("it is");
    let leaf = leaf_hash(&700_001_u64.to_be_bytes());
    group.bench_function("check that one of a million is in", |bencher| {
        bencher.iter(|| black_box(&proof).check(&leaf, &head).expect("it is"));
    });
    group.bench_function("prove that a million go on from 618 033", |bencher| {
        bencher.iter(|| black_box(&log).prove_consistency(618_033, LEAVES).expect("they do"));
    });
    let (first, proof) =
        (log.head_at(618_033).expect("it was"), log.prove_consistency(618_033, LEAVES).expect("they do"));
    group.bench_function("check that a million go on from 618 033", |bencher| {
        bencher.iter(|| black_box(&proof).check(&first, &head).expect("they do"));
    });
    group.finish();
}

criterion_group!(benches, votes, log);
criterion_main!(benches);
