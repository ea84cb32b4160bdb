//! How fast a batch is coded and committed to, rebuilt, sealed, and a probe's answer checked. One thread.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bpi_availability::codec::{Encoder, Rebuild, encode};
use bpi_availability::sealing::{ReaderKey, open, seal};
use bpi_protocol::availability::coding::{Coding, STRIPE_BYTES};
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::availability::tree::{ShardTree, shard_root};
use bpi_protocol::log::leaf::TenantId;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SHAPES: [(u16, u16); 3] = [(4, 12), (16, 32), (16, 48)];

fn random(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    ChaCha20Rng::seed_from_u64(7).fill_bytes(&mut data);
    data
}

fn coding(criterion: &mut Criterion) {
    for mib in [1, 64] {
        let data = random(mib << 20);
        let mut group = criterion.benchmark_group(format!("{mib} MiB"));
        group.throughput(Throughput::Bytes(data.len() as u64)).sample_size(10);
        for (k, n) in SHAPES {
            let coding = Coding::new(k, n, data.len() as u64).unwrap();
            let id = format!("{k} of {n}");
            // Shards whose memory is there already: the kernel's work for fresh pages is nobody's code.
            let mut shards: Vec<Vec<u8>> = (0..n).map(|_| Vec::with_capacity(coding.shard_bytes() as usize)).collect();
            group.bench_function(BenchmarkId::new("encode and commit", &id), |bencher| {
                bencher.iter(|| {
                    shards.iter_mut().for_each(Vec::clear);
                    let mut encoder = Encoder::new(coding).unwrap();
                    data.chunks(STRIPE_BYTES as usize).for_each(|each| encoder.stripe(each, &mut shards).unwrap());
                    encoder.finish().unwrap()
                });
            });
            let encoded = encode(coding, &data).unwrap();
            // The worst of all subsets: no shard of data that need not be computed, as far as there are others.
            let last = |from: u16| (from..n).rev().take(k.into()).map(|shard| shard as u8);
            let filled = || {
                let mut rebuild = Rebuild::new(coding, encoded.da_root, encoded.roots.clone()).unwrap();
                last(0).for_each(|shard| rebuild.add(shard, encoded.shards[usize::from(shard)].clone()).unwrap());
                rebuild
            };
            let whole = filled();
            group.bench_function(BenchmarkId::new("data of k shards", &id), |bencher| {
                bencher.iter(|| black_box(whole.data().unwrap()));
            });
            group.bench_function(BenchmarkId::new("roots of k shards", &id), |bencher| {
                bencher.iter(|| last(0).map(|shard| shard_root(&encoded.shards[usize::from(shard)])[0]).max());
            });
            group.bench_function(BenchmarkId::new("all shards rebuilt and compared", &id), |bencher| {
                bencher.iter_batched(filled, |mut rebuild| rebuild.finish().unwrap(), BatchSize::PerIteration);
            });
        }
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let reader = ReaderKey::generate(&mut rng);
        let plain = &data[..data.len() - (64 << 10)];
        let (sealed, slots) = seal(plain, TenantId::default(), &[reader.id()], &mut rng).unwrap();
        group.bench_function("seal", |bencher| {
            bencher.iter(|| seal(plain, TenantId::default(), &[reader.id()], &mut rng).unwrap());
        });
        group.bench_function("open", |bencher| {
            bencher.iter(|| open(&sealed, TenantId::default(), &slots[0], &reader).unwrap());
        });
        group.finish();
    }
}

fn probing(criterion: &mut Criterion) {
    let data = random(64 << 20);
    let coding = Coding::new(16, 48, data.len() as u64).unwrap();
    let encoded = encode(coding, &data).unwrap();
    let shard = &encoded.shards[40];
    let opening = ShardTree::of(shard).open(40, &encoded.roots, 3000, &shard[3000 << 10..3001 << 10]).unwrap();
    let bytes = opening.to_bytes();
    criterion.bench_function("probe's answer read and checked", |bencher| {
        bencher.iter(|| Opening::from_bytes(black_box(&bytes)).unwrap().check(&coding, &encoded.da_root).unwrap());
    });
}

criterion_group!(benches, coding, probing);
criterion_main!(benches);
