//! How long it takes to append to a log of a million leaves on disk and to prove of it, to tick and to check ticks, and to check a header.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bpi_protocol::consensus::header::{Header, LogHead};
use bpi_protocol::consensus::ids::TimeMs;
use bpi_validator::contents::application::{Application, Rules};
use bpi_validator::contents::inbox::MemoryInbox;
use bpi_validator::contents::leaf::{Leaf, LeafHash, TenantId};
use bpi_validator::contents::ledger::Ledger;
use bpi_validator::contents::poh::{self, Claim, Rate, Ticker};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const LEAVES: u64 = 1_000_000;
/// What a thousand receipts in a second give a header.
const HEADER_LEAVES: u64 = 250;

fn leaves(from: u64, upto: u64) -> Vec<(Leaf, LeafHash)> {
    let leaf = |number: u64| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        Leaf { tenant: TenantId([number as u8; 16]), hash }
    };
    (from..upto).map(leaf).map(|leaf| (leaf, leaf.leaf_hash())).collect()
}

fn append(ledger: &mut Ledger, leaves: &[(Leaf, LeafHash)]) {
    let head = ledger.head_with(leaves.iter().map(|(_, hash)| hash));
    ledger.append(leaves, &head).expect("a disk with room");
}

fn log(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    Ledger::create(folder.path()).expect("a new folder");
    let mut ledger = Ledger::open(folder.path(), &LogHead::default()).expect("a new ledger");
    for from in (0..LEAVES).step_by(4_096) {
        append(&mut ledger, &leaves(from, (from + 4_096).min(LEAVES)));
    }
    let mut group = criterion.benchmark_group("ledger-1e6");
    let known: Vec<_> = leaves(0, LEAVES).into_iter().step_by(9_973).map(|(_, hash)| hash).collect();
    let unknown: Vec<_> = leaves(2 * LEAVES, 2 * LEAVES + 1_000).into_iter().map(|(_, hash)| hash).collect();
    let (mut known, mut unknown) = (known.iter().cycle(), unknown.iter().cycle());
    let mut at = 0;
    let mut next = move || {
        at = (at + 7_919) % LEAVES;
        at
    };
    group.bench_function("find", |bench| bench.iter(|| ledger.find(known.next().expect("a cycle"))));
    group.bench_function("find-none", |bench| bench.iter(|| ledger.find(unknown.next().expect("a cycle"))));
    group.bench_function("inclusion", |bench| {
        bench.iter(|| ledger.prove_inclusion(known.next().expect("a cycle"), LEAVES))
    });
    group.bench_function("consistency", |bench| bench.iter(|| ledger.prove_consistency(next(), LEAVES)));
    let head = ledger.head();
    group.bench_function("open", |bench| bench.iter(|| Ledger::open(folder.path(), &head).expect("the ledger")));
    let more = leaves(LEAVES, LEAVES + HEADER_LEAVES);
    group.throughput(Throughput::Elements(HEADER_LEAVES));
    group.bench_function("head-with-250", |bench| {
        bench.iter(|| ledger.head_with(more.iter().map(|(_, hash)| black_box(hash))));
    });
    let mut size = LEAVES;
    group.bench_function("append-250", |bench| {
        let batch = || {
            size += HEADER_LEAVES;
            leaves(size - HEADER_LEAVES, size)
        };
        bench.iter_batched(batch, |batch| append(&mut ledger, &batch), BatchSize::PerIteration);
    });
    group.finish();
    drop(ledger);
    header(criterion, folder.path());
}

/// A header of 250 leaves over a log of a million, without ticks.
fn header(criterion: &mut Criterion, folder: &std::path::Path) {
    // The benchmark before has appended on; what is beyond the parent is cut.
    let size = LEAVES;
    let mut frontier = bpi_protocol::log::Frontier::new();
    for (_, hash) in leaves(0, size) {
        frontier.append(hash.0);
    }
    let parent = Header { receipts: frontier.head(), ..Header::default() };
    let mut node = Application::open(folder, Rules::default(), MemoryInbox::new(), &parent).expect("the ledger");
    for (leaf, _) in leaves(size, size + HEADER_LEAVES) {
        node.admit(leaf, 0).expect("a new leaf");
    }
    let time = TimeMs(250);
    let ticker = Ticker::new(Rate::default(), &parent);
    let mut group = criterion.benchmark_group("header-of-250-at-1e6");
    group.bench_function("assemble", |bench| bench.iter(|| node.assemble(&parent, time, &ticker, Vec::new())));
    let (commitments, contents) = node.assemble(&parent, time, &ticker, Vec::new()).expect("contents");
    let header = commitments.in_header(Header { time, ..Header::default() });
    group.bench_function("check", |bench| {
        bench.iter(|| node.check(&parent, &header, &contents, time.0, 3).expect("good contents"))
    });
    group.finish();
}

fn ticks(criterion: &mut Criterion) {
    const TICKS: u64 = 250_000;
    let mut group = criterion.benchmark_group("poh");
    group.throughput(Throughput::Elements(TICKS));
    let parent = Header::default();
    let make = || {
        let mut ticker = Ticker::new(Rate::default(), &parent);
        ticker.advance(Duration::from_millis(250), u64::MAX);
        ticker
    };
    group.bench_function("make-250k", |bench| bench.iter(make));
    let Claim { end, segments } = make().claim(&parent, TICKS);
    let header = Header { time: TimeMs(250), poh: end, ..Header::default() };
    for threads in [1, 2] {
        group.bench_function(format!("check-250k-on-{threads}"), |bench| {
            bench.iter(|| poh::check(Rate::default(), &parent, &header, &segments, threads).expect("good ticks"));
        });
    }
    group.finish();
    let start = Instant::now();
    println!("capacity: {} ticks in a second", poh::capacity(|| start.elapsed()));
}

criterion_group!(benches, ticks, log);
criterion_main!(benches);
