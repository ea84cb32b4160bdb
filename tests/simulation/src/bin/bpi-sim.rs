//! `bpi-sim`: runs simulated histories.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bpi_simulation::world;
use clap::Parser;

/// Runs simulated histories of a validator cluster.
#[derive(Parser)]
#[command(name = "bpi-sim", version)]
struct Options {
    /// Validators of a set.
    #[arg(short = 'n', long, default_value_t = 4)]
    validators: usize,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Tell each history as a story.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let started = Instant::now();
    let limit = options.seconds.map(Duration::from_secs);
    let (mut done, mut heights, mut crashes, mut evidence, mut events, mut most_round) = (0_u64, 0, 0, 0, 0, 0);
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        let (outcome, story) = world::run(seed, options.validators, options.trace);
        for line in story {
            println!("{line}");
        }
        done += 1;
        heights += outcome.height;
        crashes += outcome.crashes;
        evidence += outcome.evidence;
        events += outcome.events;
        most_round = most_round.max(outcome.round);
        if let Some(violation) = outcome.violation {
            println!("seed {seed}, {} validators: {violation:?}", options.validators);
            println!("scripts/bpi sim --seed {seed} -n {} --trace", options.validators);
            return ExitCode::FAILURE;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{done} seeds, {} validators: no violation; {heights} heights, highest sealing round {most_round}, {crashes} crashes, {evidence} pieces of evidence, \
         {events} events; {:.0} seeds/s",
        options.validators,
        done as f64 / seconds
    );
    ExitCode::SUCCESS
}
