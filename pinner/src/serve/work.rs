//! The threads of a pinner: one that writes, one that answers, one that scrubs. They share the shards and the catalogue, and only the first changes them.
//!
//! Always true: what waits for a thread is bounded, in number by its channel and in bytes by the permits that requests hold; the first error ends all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Described, Piece};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::answers::Reader;
use crate::catalogue::Catalogue;
use crate::config::ScrubConfig;
use crate::keeper::{Keeper, KeeperError, UnderWay};
use crate::metrics::Metrics;
use crate::store::ShardKey;

/// Requests that wait for the writer, at most.
pub const WORK_MAX: usize = 1024;
/// Requests that are done before what has become whole is made durable: one write of the index for all of them.
const WORK_AT_ONCE: usize = 64;
/// Questions that wait for an answer, at most.
pub const QUESTIONS_MAX: usize = 1024;
/// How often what is due is looked for.
pub const TICK: Duration = Duration::from_secs(1);
/// How often the scrubber looks for something to do.
const SCRUB_EVERY: Duration = Duration::from_millis(500);
/// How long the scrubber sleeps at a time, so that it ends soon after it is asked to.
const NAP: Duration = Duration::from_millis(100);

/// What the writer is to do.
#[derive(Debug)]
pub enum Work {
    /// Somebody offers shards.
    Offer([u8; 32], Box<Described>),
    /// A piece has come; its bytes are accounted for by permits, its agent's and one of all.
    Piece([u8; 32], Piece, [OwnedSemaphorePermit; 2]),
    /// A batch was read. True: all that is kept of it.
    Scrubbed(Hash, ShardSet, bool),
    /// A shard was made anew.
    Repaired(Box<Described>, ShardKey, PathBuf),
    /// A batch is proved to be wrongly encoded.
    Wrong(Hash, Vec<u8>),
    /// A second has passed.
    Tick,
}

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A leaf.
    Probe(ShardKey, u64),
    /// A chunk.
    Fetch(ShardKey, u32),
    /// What a batch is.
    Describe(Hash),
}

/// Says something to a member.
pub type Say = Arc<dyn Fn([u8; 32], &Answer) + Send + Sync>;

/// What waits in staging, for who shows it.
#[derive(Debug, Default)]
pub struct Shown {
    offers: AtomicU64,
    bytes: AtomicU64,
}

impl Shown {
    /// What waits.
    pub fn under_way(&self) -> UnderWay {
        UnderWay { offers: self.offers.load(Ordering::Relaxed) as usize, bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn set(&self, under_way: UnderWay) {
        self.offers.store(under_way.offers as u64, Ordering::Relaxed);
        self.bytes.store(under_way.bytes, Ordering::Relaxed);
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The name of an answer, for figures.
fn result_of(answer: &Answer) -> &'static str {
    use bpi_protocol::mesh::pinner::Reason;
    match answer {
        Answer::Have { .. } => "have",
        Answer::Kept { .. } => "kept",
        Answer::Opening { .. } | Answer::Piece(_) | Answer::Described(_) => "answered",
        Answer::Refused { reason, .. } => match reason {
            Reason::Quota => "quota",
            Reason::Full => "full",
            Reason::Stranger => "stranger",
            Reason::False => "false",
            Reason::Missing => "missing",
            Reason::Wrong => "wrong",
        },
    }
}

/// Writes until nobody sends work any more.
///
/// # Errors
/// [`KeeperError`]: what was not acknowledged by then never is.
pub fn write(
    mut keeper: Keeper,
    mut work: mpsc::Receiver<Work>,
    say: &Say,
    shown: &Shown,
    metrics: &Metrics,
) -> Result<(), KeeperError> {
    for first in 0..=255 {
        match keeper.sweep(first) {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "files that were never acknowledged are taken away"),
            Err(KeeperError::Store(error)) if error.is_passing() => {
                tracing::warn!(%error, "what a crash may have left is looked for at the next start");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    while let Some(first) = work.blocking_recv() {
        let mut next = Some(first);
        for _ in 0..WORK_AT_ONCE {
            let Some(each) = next.take() else { break };
            do_work(&mut keeper, each, say, metrics)?;
            next = work.try_recv().ok();
        }
        if let Some(last) = next {
            do_work(&mut keeper, last, say, metrics)?;
        }
        for (to, answer) in keeper.commit(now_s())? {
            metrics.request("batch", result_of(&answer));
            say(to, &answer);
        }
        shown.set(keeper.under_way());
    }
    Ok(())
}

fn do_work(keeper: &mut Keeper, work: Work, say: &Say, metrics: &Metrics) -> Result<(), KeeperError> {
    let now_s = now_s();
    match work {
        Work::Offer(from, offer) => {
            let answer = keeper.offer(now_s, from, *offer)?;
            metrics.request("offer", result_of(&answer));
            say(from, &answer);
        }
        Work::Piece(from, piece, room) => {
            let answer = keeper.piece(now_s, from, &piece)?;
            metrics.request("piece", answer.as_ref().map_or("taken", result_of));
            answer.iter().for_each(|answer| say(from, answer));
            drop(room);
        }
        Work::Scrubbed(root, bad, whole) => keeper.scrubbed(now_s, &root, bad, whole)?,
        Work::Repaired(described, key, path) => keeper.repaired(*described, key, path)?,
        Work::Wrong(root, proof) => keeper.wrong(now_s, &root, proof)?,
        Work::Tick => {
            let released = keeper.release(now_s)?;
            if released > 0 {
                tracing::info!(released, "batches are let go at their time");
            }
        }
    }
    Ok(())
}

/// Answers until nobody asks any more.
///
/// # Errors
/// [`KeeperError`] when the index or the disk fails.
pub fn answer(
    reader: &Reader,
    mut asked: mpsc::Receiver<([u8; 32], Question)>,
    work: &mpsc::Sender<Work>,
    say: &Say,
    metrics: &Metrics,
) -> Result<(), KeeperError> {
    while let Some((from, question)) = asked.blocking_recv() {
        let (kind, read) = match question {
            Question::Probe(key, leaf) => ("probe", reader.probe(&key, leaf)),
            Question::Fetch(key, stripe) => ("fetch", reader.fetch(&key, stripe)),
            Question::Describe(root) => ("describe", reader.describe(&root)),
        };
        let read = match read {
            Err(KeeperError::Store(error)) if error.is_passing() => {
                tracing::warn!(%error, "a shard cannot be read now");
                metrics.request(kind, "failed");
                continue;
            }
            read => read?,
        };
        metrics.request(kind, if read.bad.is_some() { "bad" } else { result_of(&read.answer) });
        say(from, &read.answer);
        if let Some(ShardKey { da_root, shard }) = read.bad {
            let found = Work::Scrubbed(da_root, ShardSet::default().with(shard), false);
            if work.blocking_send(found).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What a scrubber is told.
#[derive(Debug, Default)]
pub struct Orders {
    /// It is to end.
    pub stop: AtomicBool,
    /// All that was scrubbed before is to be scrubbed, in s since 1970.
    pub before_s: AtomicU64,
}

/// Scrubs until it is told to end.
///
/// # Errors
/// [`KeeperError`] when the index or the disk fails.
pub fn scrub(
    reader: &Reader,
    catalogue: &Catalogue,
    config: ScrubConfig,
    work: &mpsc::Sender<Work>,
    orders: &Orders,
    metrics: &Metrics,
) -> Result<(), KeeperError> {
    let ended = || orders.stop.load(Ordering::Relaxed);
    let nap = |how_long: Duration| {
        let mut left = how_long;
        while !left.is_zero() && !ended() {
            std::thread::sleep(left.min(NAP));
            left = left.saturating_sub(NAP);
        }
    };
    // What the writer has been told of and has not written yet would be found again.
    let mut last = None;
    while !ended() {
        let before_s = orders.before_s.load(Ordering::Relaxed).max(now_s().saturating_sub(config.every_s));
        let next = catalogue
            .longest_unscrubbed()?
            .filter(|(scrubbed_s, root)| *scrubbed_s < before_s && last != Some((*scrubbed_s, *root)));
        let Some((scrubbed_s, root)) = next else {
            nap(SCRUB_EVERY);
            last = None;
            continue;
        };
        let pace = |bytes: u64| {
            metrics.scrubbed.inc_by(bytes);
            nap(Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(config.bytes_per_s)) as u64));
        };
        match reader.scrub(&root, pace) {
            Ok(bad) => {
                if ended() || work.blocking_send(Work::Scrubbed(root, bad, true)).is_err() {
                    return Ok(());
                }
                last = Some((scrubbed_s, root));
            }
            Err(KeeperError::Store(error)) if error.is_passing() => {
                tracing::warn!(%error, "a batch cannot be scrubbed now");
                nap(TICK);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
