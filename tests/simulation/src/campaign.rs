//! A campaign: seeds of one core counted over many runs, so that a million can be gathered in pieces.
//!
//! The state is a table, one line for each core and cluster size, and is replaced as a whole after each batch. Seeds run from 0 on, so a count
//! is also the next seed. It belongs to the digest of the core's sources ([`CORE`]): another core begins at 0. One that is wrong is not counted,
//! and is the first of the next run.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::world::{self, Outcome, Violation};

/// Names the core of this build.
pub const CORE: &str = env!("BPI_CORE");
/// Cluster sizes, and how many seeds of each are wanted. Sizes are run in this proportion, beyond the goal too.
pub const GOALS: [(usize, u64); 5] = [(4, 1_000_000), (1, 25_000), (7, 25_000), (9, 25_000), (10, 25_000)];
/// How much is lost at most when a run is ended from outside.
const BATCH: Duration = Duration::from_secs(20);
/// The first line of a state.
const TITLE: &str = "core\tvalidators\tseeds\theights\tcrashes\tevidence\tevents\tms";

/// Why a campaign cannot go on.
#[derive(Debug, Error)]
pub enum CampaignError {
    /// The state, or what lies beside it, cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state is none.
    #[error("{path}: line {line} is none of a campaign: {text:?}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// Another run goes on with this campaign.
    #[error("{path}: another run has it")]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// A history went wrong.
    #[error("seed {seed}, {validators} validators: {violation:?}")]
    Wrong {
        /// Which.
        seed: u64,
        /// The size of its cluster.
        validators: usize,
        /// What went wrong.
        violation: Violation,
    },
}

/// What the histories of one core and size came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Seeds without a violation: all from 0 on.
    pub seeds: u64,
    /// Heights that became final.
    pub heights: u64,
    /// Crashes.
    pub crashes: u64,
    /// Pieces of evidence.
    pub evidence: u64,
    /// Events.
    pub events: u64,
    /// Time that it took, in ms.
    pub ms: u64,
}

impl Count {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.heights += outcome.height;
        self.crashes += outcome.crashes;
        self.evidence += outcome.evidence;
        self.events += outcome.events;
    }
}

/// A campaign that goes on.
pub struct Campaign {
    path: PathBuf,
    counts: BTreeMap<(String, usize), Count>,
    /// Held as long as this run goes on.
    _lock: File,
}

fn parse(line: &str) -> Option<((String, usize), Count)> {
    let mut fields = line.split('\t');
    let (core, validators) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
    let numbers: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [seeds, heights, crashes, evidence, events, ms] = numbers[..] else { return None };
    Some(((core, validators), Count { seeds, heights, crashes, evidence, events, ms }))
}

impl Campaign {
    /// Opens a state, or begins a new one where there is none.
    ///
    /// # Errors
    /// When another run has it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, CampaignError> {
        let lock_path = path.with_extension("lock");
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| CampaignError::File { path, source }
        };
        let lock = File::create(&lock_path).map_err(file_error(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => CampaignError::Taken { path: lock_path.clone() },
            TryLockError::Error(source) => CampaignError::File { path: lock_path.clone(), source },
        })?;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{TITLE}\n"),
            Err(error) => return Err(file_error(path)(error)),
        };
        let mut counts = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            match parse(line) {
                Some((key, count)) => drop(counts.insert(key, count)),
                None if at == 0 && line == TITLE => {}
                None => return Err(CampaignError::Line { path: path.to_owned(), line: at + 1, text: line.to_owned() }),
            }
        }
        Ok(Self { path: path.to_owned(), counts, _lock: lock })
    }

    /// What this core's histories in clusters of a size came to.
    pub fn count(&self, validators: usize) -> Count {
        self.counts.get(&(CORE.to_owned(), validators)).copied().unwrap_or_default()
    }

    /// Runs batches, of the size that is farthest from its goal, until the time is over.
    ///
    /// # Errors
    /// When a history goes wrong, or the state cannot be written.
    pub fn go_on(&mut self, limit: Option<Duration>) -> Result<(), CampaignError> {
        let started = Instant::now();
        while limit.is_none_or(|limit| started.elapsed() < limit) {
            let left = limit.map_or(BATCH, |limit| limit.saturating_sub(started.elapsed()).min(BATCH));
            let share =
                |(validators, goal): &(usize, u64)| self.count(*validators).seeds.saturating_mul(1_000_000) / goal;
            let Some((validators, _)) = GOALS.into_iter().min_by_key(share) else { return Ok(()) };
            self.batch(validators, left)?;
        }
        Ok(())
    }

    fn batch(&mut self, validators: usize, length: Duration) -> Result<(), CampaignError> {
        let mut count = self.count(validators);
        let (started, before) = (Instant::now(), count.ms);
        let mut wrong = None;
        while wrong.is_none() && started.elapsed() < length {
            let seed = count.seeds;
            let (outcome, _) = world::run(seed, validators, false);
            match outcome.violation {
                None => count.add(&outcome),
                Some(violation) => wrong = Some(CampaignError::Wrong { seed, validators, violation }),
            }
        }
        count.ms = before + started.elapsed().as_millis() as u64;
        self.counts.insert((CORE.to_owned(), validators), count);
        self.save()?;
        wrong.map_or(Ok(()), Err)
    }

    /// Writes the whole table beside the old one, and puts it in its place.
    fn save(&self) -> Result<(), CampaignError> {
        let lines = self.counts.iter().map(|((core, validators), count)| {
            let Count { seeds, heights, crashes, evidence, events, ms } = count;
            format!("{core}\t{validators}\t{seeds}\t{heights}\t{crashes}\t{evidence}\t{events}\t{ms}\n")
        });
        let text: String = std::iter::once(format!("{TITLE}\n")).chain(lines).collect();
        let new = self.path.with_extension("new");
        let file_error = |source| CampaignError::File { path: new.clone(), source };
        fs::write(&new, text).map_err(file_error)?;
        File::open(&new).and_then(|file| file.sync_all()).map_err(file_error)?;
        fs::rename(&new, &self.path).map_err(file_error)
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "core {CORE}, seeds without a violation:")?;
        for (validators, goal) in GOALS {
            let Count { seeds, heights, crashes, evidence, ms, .. } = self.count(validators);
            let rate = seeds as f64 * 1000.0 / (ms as f64).max(1.0);
            writeln!(
                f,
                "{validators:>3} validators: {seeds:>9} of {goal}; {heights} heights, {crashes} crashes, {evidence} pieces of evidence; {rate:.0} seeds/s"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_goes_on_where_it_was_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.tsv");
        let mut first = Campaign::open(&path).unwrap();
        first.batch(1, Duration::from_millis(50)).unwrap();
        let count = first.count(1);
        assert!(count.seeds > 0 && count.heights > count.seeds);
        assert!(matches!(Campaign::open(&path), Err(CampaignError::Taken { .. })));
        drop(first);
        let mut second = Campaign::open(&path).unwrap();
        assert_eq!(second.count(1), count);
        second.batch(1, Duration::from_millis(50)).unwrap();
        assert!(second.count(1).seeds > count.seeds);
    }

    #[test]
    fn the_count_of_another_core_is_kept_and_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.tsv");
        fs::write(&path, format!("{TITLE}\n0123456789abcdef\t1\t99\t0\t0\t0\t0\t0\n")).unwrap();
        let mut campaign = Campaign::open(&path).unwrap();
        assert_eq!(campaign.count(1), Count::default());
        campaign.batch(1, Duration::from_millis(10)).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("0123456789abcdef\t1\t99\t"));
    }

    #[test]
    fn a_state_that_is_none_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.tsv");
        fs::write(&path, format!("{TITLE}\nabc\t4\tmany\n")).unwrap();
        assert!(matches!(Campaign::open(&path), Err(CampaignError::Line { line: 2, .. })));
        assert!(fs::read_to_string(&path).unwrap().ends_with("many\n"));
    }

    #[test]
    fn the_size_farthest_from_its_goal_is_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.tsv");
        let line = |(validators, goal): (usize, u64)| {
            let seeds = if validators == 9 { goal - 1000 } else { goal };
            format!("{CORE}\t{validators}\t{seeds}\t0\t0\t0\t0\t0\n")
        };
        fs::write(&path, std::iter::once(format!("{TITLE}\n")).chain(GOALS.map(line)).collect::<String>()).unwrap();
        let mut campaign = Campaign::open(&path).unwrap();
        campaign.go_on(Some(Duration::from_millis(100))).unwrap();
        let grown = GOALS.into_iter().filter(|(validators, goal)| {
            campaign.count(*validators).seeds != if *validators == 9 { goal - 1000 } else { *goal }
        });
        assert_eq!(grown.map(|(validators, _)| validators).collect::<Vec<_>>(), [9]);
    }
}
