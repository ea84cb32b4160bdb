//! `bpi-sim`: runs simulated histories.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bpi_simulation::campaign::{Campaign, CampaignError};
use bpi_simulation::{model, twins, world};
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
    /// Instead, go on with a campaign: seeds of several cluster sizes that nobody has counted for this core, counted in this file.
    #[arg(long, value_name = "FILE")]
    campaign: Option<PathBuf>,
    /// Instead, run every history of twins among four validators over so many rounds, at most 4.
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u8).range(1..=4))]
    twins: Option<u8>,
    /// With --twins: only the histories whose number is PART modulo PARTS.
    #[arg(long, num_args = 2, value_names = ["PART", "PARTS"], default_values_t = [0, 1], requires = "twins")]
    part: Vec<u64>,
    /// Instead, check a model of one height up to this round, with a traitor among four.
    #[arg(long, value_name = "ROUNDS")]
    model: Option<u32>,
    /// With --model: how many states are looked at, at most, breadth first. All there are, depth first, if nothing is said.
    #[arg(long)]
    states: Option<usize>,
    /// Instead of clusters with all that can happen, chains whose proposers the beacon draws, with real keys and members who withhold their
    /// parts.
    #[cfg(feature = "beacon")]
    #[arg(long, conflicts_with_all = ["campaign", "twins", "model", "trace"])]
    beacon: bool,
    /// Tell each history as a story.
    #[arg(long)]
    trace: bool,
}

fn go_on(path: &Path, limit: Option<Duration>) -> Result<(), CampaignError> {
    let mut campaign = Campaign::open(path)?;
    let ended = campaign.go_on(limit);
    print!("{campaign}");
    ended
}

#[cfg(feature = "beacon")]
fn beacon(options: &Options) -> ExitCode {
    let (started, limit) = (Instant::now(), options.seconds.map(Duration::from_secs));
    let (mut done, mut healing_ms) = (0_u64, 0);
    let mut total = bpi_simulation::beacon::Outcome::default();
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        let outcome = bpi_simulation::beacon::run(seed, options.validators);
        if let Some(violation) = outcome.violation {
            println!("beacon, seed {seed}, {} validators: {violation}", options.validators);
            println!("scripts/bpi sim --beacon --seed {seed} -n {}", options.validators);
            return ExitCode::FAILURE;
        }
        done += 1;
        total.heights += outcome.heights;
        total.crashes += outcome.crashes;
        total.lies += outcome.lies;
        total.proofs += outcome.proofs;
        healing_ms = healing_ms.max(outcome.healing_ms);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "beacon, {done} seeds, {} validators: no violation; {} heights, {} crashes, {} parts withheld or bent, {} light proofs, slowest healing \
         {healing_ms} ms; {:.1} seeds/s",
        options.validators,
        total.heights,
        total.crashes,
        total.lies,
        total.proofs,
        done as f64 / seconds
    );
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let options = Options::parse();
    #[cfg(feature = "beacon")]
    if options.beacon {
        return beacon(&options);
    }
    let started = Instant::now();
    if let Some(rounds) = options.twins {
        let total = twins::enumerate(rounds.into(), options.part[0], options.part[1]);
        if let Some((history, sentence)) = total.wrong {
            println!("{history:?}: {sentence}");
            return ExitCode::FAILURE;
        }
        let rate = total.run as f64 / started.elapsed().as_secs_f64();
        println!(
            "twins, {rounds} rounds: {} histories, and {} alike: no violation; {rate:.0} histories/s",
            total.run, total.alike
        );
        return ExitCode::SUCCESS;
    }
    if let Some(rounds) = options.model {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        return match model::check(rounds, options.states, threads) {
            Ok(checked) if checked.wrong.is_empty() => {
                let model::Checked { states, unique, depth, complete, .. } = checked;
                let all = if complete { "all there are" } else { "not all there are" };
                let seconds = started.elapsed().as_secs_f64();
                println!(
                    "model up to round {rounds}: {states} states, {unique} different ({all}), depth {depth}: no violation; {seconds:.0} s"
                );
                ExitCode::SUCCESS
            }
            Ok(checked) => {
                println!("{:?}", checked.wrong);
                ExitCode::FAILURE
            }
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let limit = options.seconds.map(Duration::from_secs);
    if let Some(path) = options.campaign {
        return match go_on(&path, limit) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let (mut done, mut heights, mut crashes, mut evidence, mut events) = (0_u64, 0, 0, 0, 0);
    let (mut most_round, mut healing_ms) = (0, 0);
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
        healing_ms = healing_ms.max(outcome.healing_ms);
        if let Some(violation) = outcome.violation {
            println!("seed {seed}, {} validators: {violation:?}", options.validators);
            println!("scripts/bpi sim --seed {seed} -n {} --trace", options.validators);
            return ExitCode::FAILURE;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{done} seeds, {} validators: no violation; {heights} heights, highest sealing round {most_round}, {crashes} crashes, {evidence} pieces of evidence, \
         {events} events, slowest healing {healing_ms} ms; {:.0} seeds/s",
        options.validators,
        done as f64 / seconds
    );
    ExitCode::SUCCESS
}
