//! How long a part of a group's signature takes, what it costs to put a quorum of them together, and a whole ceremony.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use bpi_protocol::consensus::bls::SecretKey;
use bpi_protocol::consensus::ids::{ChainId, Epoch, HeaderDigest, Height, Round, ValidatorIndex};
use bpi_protocol::consensus::scheme::{PublicKey, Signature};
use bpi_protocol::consensus::statement::{self, Place};
use bpi_protocol::consensus::validators::{Validator, ValidatorSet};
use bpi_validator::beacon::ceremony::{Act, Ceremony, Outcome};
use bpi_validator::beacon::order::shuffle;
use bpi_validator::beacon::partials::Collector;
use bpi_validator::beacon::plan::Plan;
use bpi_validator::beacon::share::Share;
use bpi_validator::beacon::sharing::Sharing;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

const PLACE: Place = Place { chain: ChainId([7; 32]), height: Height(1) };

fn secret(number: u8) -> Arc<SecretKey> {
    Arc::new(SecretKey::generate(&[number; 32]).expect("32 bytes of entropy"))
}

fn set(epoch: u64, members: u8) -> Arc<ValidatorSet> {
    let member = |number| {
        let secret = secret(number);
        Validator { key: secret.public_key(), possession: secret.prove_possession(), weight: 1 }
    };
    Arc::new(ValidatorSet::new(Epoch(epoch), (0..members).map(member).collect()).expect("different keys"))
}

/// The first ceremony of so many members.
fn first(members: u8) -> Plan {
    Plan { chain: PLACE.chain, start: Height(1), dealers: set(0, members), players: set(1, members), previous: None }
}

/// A ceremony in which all goes well: who took part, and the logs.
fn held(plan: &Plan, share: Option<&Share>) -> (Vec<Ceremony>, Vec<Vec<u8>>) {
    let members = plan.players.len() as u8;
    let keys: BTreeMap<PublicKey, usize> =
        (0..members).map(|number| (secret(number).public_key(), usize::from(number))).collect();
    let join = |number: u8| {
        let share = share.filter(|_| number == 0);
        Ceremony::join(plan.clone(), secret(number), &[number; 32], share, &[]).expect("a plan")
    };
    let mut room: Vec<_> = (0..members).map(join).collect();
    let mut logs = Vec::new();
    for number in 0..room.len() {
        let from = secret(number as u8).public_key();
        for act in room[number].deal() {
            let Act::Send { to, message } = act else { continue };
            let key = to;
            for act in room[keys[&to]].hear(&from, message).expect("a dealing") {
                let Act::Send { message, .. } = act else { continue };
                room[number].hear(&key, message).expect("an acknowledgement");
            }
        }
        logs.extend(room[number].close().into_iter().map(|act| match act {
            Act::Submit { log } => log,
            _ => panic!("a log"),
        }));
    }
    (room, logs)
}

/// What a quorum of so many members have: by resharing what one had, which is one log to look into, not one of each.
fn shares(members: u8) -> (Arc<Sharing>, Vec<Share>) {
    let first = first(1);
    let (mut room, logs) = held(&first, None);
    let one = conclude(room.remove(0), &logs);
    let previous = Some(Arc::new(one.sharing));
    let (dealers, players) = (first.players, set(2, members));
    let plan = Plan { chain: PLACE.chain, start: Height(2), dealers, players, previous };
    let (room, logs) = held(&plan, one.share.as_ref());
    let ends: Vec<_> = room.into_iter().take(plan.players.quorum()).map(|member| conclude(member, &logs)).collect();
    let sharing = Arc::new(ends[0].sharing.clone());
    (sharing, ends.into_iter().filter_map(|end| end.share).collect())
}

fn conclude(mut member: Ceremony, logs: &[Vec<u8>]) -> Outcome {
    for log in logs {
        member.include(log).expect("a log");
    }
    member.conclude(&[9; 32]).expect("an outcome")
}

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("beacon");
    for members in [9_u8, 25, 100] {
        group.sample_size(10);
        if members < 100 {
            let plan = first(members);
            let (_, logs) = held(&plan, None);
            println!("a log of {members}: {} bytes", logs[0].len());
            group.bench_function(BenchmarkId::new("look into all logs and conclude", members), |bencher| {
                let observer = || Ceremony::observe(plan.clone()).expect("a plan");
                bencher.iter_batched(observer, |observer| conclude(observer, &logs), BatchSize::PerIteration);
            });
        }
        let (sharing, shares) = shares(members);
        let commit = statement::commit(PLACE, Round(0), HeaderDigest([5; 32]));
        let parts: Vec<(ValidatorIndex, Signature)> =
            shares.iter().map(|share| (share.index(), share.sign(&commit))).take(sharing.quorum()).collect();
        group.sample_size(50);
        if members == 9 {
            group.bench_function("sign both parts of a COMMIT vote", |bencher| {
                bencher.iter(|| black_box(&shares[0]).partials(PLACE, Round(0), HeaderDigest([5; 32])));
            });
            group.bench_function("check one part", |bencher| {
                let key = sharing.key(parts[0].0).expect("a member");
                bencher.iter(|| assert!(key.verify(black_box(&commit), &parts[0].1)));
            });
        }
        group.bench_function(BenchmarkId::new("recover without a check", members), |bencher| {
            bencher.iter(|| sharing.recover(black_box(&parts)).expect("a quorum"));
        });
        let collect = |parts: &[(ValidatorIndex, Signature)]| {
            let mut collector = Collector::new(sharing.clone(), commit.clone());
            for (index, part) in parts {
                collector.add(*index, *part);
            }
            collector
        };
        group.bench_function(BenchmarkId::new("recover and check once", members), |bencher| {
            bencher.iter(|| assert!(collect(black_box(&parts)).whole().is_some()));
        });
        let mut bent = parts.clone();
        bent[1].1 = bent[0].1;
        group.bench_function(BenchmarkId::new("find one wrong part in a quorum", members), |bencher| {
            bencher.iter(|| assert_eq!(collect(black_box(&bent)).wrong().len(), 1));
        });
        group.bench_function(BenchmarkId::new("draw the proposers", members), |bencher| {
            let weights = vec![1; members.into()];
            bencher.iter(|| shuffle(black_box(&parts[0].1), &weights));
        });
    }
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
