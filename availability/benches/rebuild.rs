//! Processor time of a batch rebuilt of random shards, over many sets of them, and the memory that coding takes. One thread; not criterion, which has no
//! percentiles. Arguments behind `--`: how many sets for 64 MiB (300), and how many for 16 KiB (1 000 000), where each result is compared.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/draw/mod.rs"]
mod draw;

use std::time::Duration;

use bpi_availability::codec::{Encoded, Encoder, Rebuild, encode};
use bpi_protocol::availability::coding::{Coding, STRIPE_BYTES};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use draw::choose;
use rustix::time::{ClockId, clock_gettime};

const MIB: usize = 1 << 20;

fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn random(rng: &mut ChaCha20Rng, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    rng.fill_bytes(&mut data);
    data
}

/// Processor time from shards as they come to the data: their roots are checked first. And whether the data are what they were.
fn rebuild(encoded: &Encoded, set: &[u8], data: &[u8]) -> (Duration, bool) {
    let shards: Vec<Vec<u8>> = set.iter().map(|shard| encoded.shards[usize::from(*shard)].clone()).collect();
    let roots = encoded.roots.clone();
    let began = processor_time();
    let mut rebuild = Rebuild::new(encoded.coding, encoded.da_root, roots).unwrap();
    set.iter().zip(shards).for_each(|(shard, bytes)| rebuild.add(*shard, bytes).unwrap());
    let rebuilt = rebuild.data().unwrap();
    (processor_time() - began, rebuilt == data)
}

fn sets(rng: &mut ChaCha20Rng, k: u16, n: u16, bytes: usize, count: usize) {
    let data = random(rng, bytes);
    let encoded = encode(Coding::new(k, n, bytes as u64).unwrap(), &data).unwrap();
    let mut wrong = 0;
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let (time, right) = rebuild(&encoded, &choose(rng, n, k), &data);
            wrong += usize::from(!right);
            time
        })
        .collect();
    times.sort_unstable();
    let [p50, p99, most] = [count / 2, count * 99 / 100, count - 1].map(|at| times[at].as_secs_f64() * 1e3);
    println!(
        "{} KiB, {k} of {n}: {count} sets, {wrong} with other data; processor time p50 {p50:.3}, p99 {p99:.3}, most {most:.3} ms",
        bytes / 1024
    );
}

/// The most memory this process has had, in KiB: VmHWM of proc_pid_status(5).
fn most_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Codes a gibibyte stripe by stripe; shards go away as soon as they are coded.
fn memory(rng: &mut ChaCha20Rng, k: u16, n: u16) {
    let stripe = random(rng, STRIPE_BYTES as usize);
    let before = most_memory_kib();
    let coding = Coding::new(k, n, 64 * MIB as u64).unwrap();
    for _ in 0..16 {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut shards = vec![Vec::new(); n.into()];
        while encoder.next_bytes() > 0 {
            encoder.stripe(&stripe, &mut shards).unwrap();
            shards.iter_mut().for_each(Vec::clear);
        }
        encoder.finish().unwrap();
    }
    println!(
        "{k} of {n}: 1 GiB coded and committed to stripe by stripe in {} KiB more than before",
        most_memory_kib() - before
    );
}

fn main() {
    let mut counts = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let (large, small) = (counts.next().unwrap_or(300), counts.next().unwrap_or(1_000_000));
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    memory(&mut rng, 16, 32);
    for (k, n) in [(4, 12), (16, 32), (16, 48)] {
        sets(&mut rng, k, n, 64 * MIB, large);
    }
    sets(&mut rng, 16, 48, 16 * 1024, small);
}
