//! The chain of hashes that shows order and delay: SHA-256 over and over, at a bounded rate.
//!
//! ```text
//! stretch of a header:  start = SHA-256("bpi.poh.v1" || 0 || hash of the parent's end || digest of the parent)
//!                       tick  = SHA-256(hash before), `count` of them; without any, the header's end is its parent's
//! segments:             every 16 384 ticks the hash is noted, and the last one, which is the header's end
//! ```
//!
//! A stretch begins with its parent's digest, so it was not made before the parent was; it takes one core as long to make as its ticks take,
//! and any number of cores a fraction of that to check, a segment each. A header may claim fewer ticks than its time allows, even none: a
//! record of delay, never the clock of the rounds, and no reason to wait for a slow proposer.
//!
//! Always true: a claim is at most [`Rate::allowed`] ticks. Absent on purpose: clocks and threads of its own; the caller says how much time
//! has passed and calls [`Ticker::advance`], from a thread that may block for some milliseconds.

use std::time::Duration;

use bpi_protocol::consensus::header::{Header, PohEnd};
use bpi_protocol::consensus::ids::{HeaderDigest, TimeMs};
use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

/// Ticks between two noted hashes, but for the last segment: 1.6 ms to check.
pub const SEGMENT_TICKS: u64 = 16_384;
/// Segments of a header, at most: a second at the default rate, and 0.1 s to check on one core.
pub const SEGMENTS_MAX: usize = 64;
/// Ticks of a header, at most.
pub const TICKS_MAX: u64 = SEGMENT_TICKS * SEGMENTS_MAX as u64;
/// What the start of a stretch is hashed with.
const DOMAIN: &str = "bpi.poh.v1";
/// Ticks of [`capacity`]: some 25 ms.
const MEASURED_TICKS: u64 = 1 << 18;
/// First value of SHA-256 (FIPS 180-4, section 5.3.3).
const FIRST: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// How fast the chain of hashes may go: the same for all validators of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks in a second.
    pub ticks_per_second: u64,
}

impl Default for Rate {
    /// A quarter of a million: 2.4 % of a core here, with SHA extensions (10.6 million in a second; 2.4 without). Every validator hashes all of
    /// them again to check, so this is what the chain costs each.
    fn default() -> Self {
        Self { ticks_per_second: 250_000 }
    }
}

impl Rate {
    /// Ticks that are due after some time, at most [`TICKS_MAX`].
    pub fn due(self, elapsed: Duration) -> u64 {
        let ticks = u128::from(self.ticks_per_second).saturating_mul(elapsed.as_micros()) / 1_000_000;
        u64::try_from(ticks).unwrap_or(TICKS_MAX).min(TICKS_MAX)
    }

    /// Ticks that a header may claim: what the rate gives between its parent's time and its own.
    pub fn allowed(self, parent: TimeMs, time: TimeMs) -> u64 {
        self.due(Duration::from_millis(time.0.saturating_sub(parent.0)))
    }
}

/// Why a header's ticks are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PohError {
    /// The chain goes back.
    #[error("{count} ticks after {parent}")]
    Backwards {
        /// The header's.
        count: u64,
        /// Its parent's.
        parent: u64,
    },
    /// More than the time allows.
    #[error("{ticks} ticks are claimed and {allowed} allowed")]
    TooMany {
        /// Claimed.
        ticks: u64,
        /// What the rate gives in the time since the parent.
        allowed: u64,
    },
    /// Not the one number of segments that the ticks have.
    #[error("{found} segments; the ticks have {wanted}")]
    Segments {
        /// What there are.
        found: usize,
        /// What there have to be.
        wanted: usize,
    },
    /// The last segment ends elsewhere than the header, or a header without ticks not where its parent does.
    #[error("the header does not end where its ticks do")]
    End,
    /// Hashing does not lead from one noted hash to the next.
    #[error("segment {segment} does not lead to its end")]
    Broken {
        /// The first such one.
        segment: usize,
    },
}

impl PohError {
    /// For counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backwards { .. } => "poh-backwards",
            Self::TooMany { .. } => "poh-too-many",
            Self::Segments { .. } => "poh-segments",
            Self::End => "poh-end",
            Self::Broken { .. } => "poh-broken",
        }
    }
}

/// What a header claims: its end, and the ends of its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What stands in the header.
    pub end: PohEnd,
    /// What stands beside it, the last one being the header's end.
    pub segments: Vec<[u8; 32]>,
}

/// The stretch of the header to come, made tick by tick.
#[derive(Clone, Debug)]
pub struct Ticker {
    rate: Rate,
    parent: HeaderDigest,
    from: PohEnd,
    hash: [u8; 32],
    ticks: u64,
    segments: Vec<[u8; 32]>,
}

impl Ticker {
    /// The stretch after a final header, without ticks.
    pub fn new(rate: Rate, parent: &Header) -> Self {
        let digest = parent.digest();
        Self {
            rate,
            parent: digest,
            from: parent.poh,
            hash: start(&parent.poh, &digest),
            ticks: 0,
            segments: Vec::new(),
        }
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Makes the ticks that are due so long after the stretch began, at most `burst` of them, and returns how many it made. In a thread of
    /// its own, once a millisecond or so, with a burst of some thousand.
    pub fn advance(&mut self, elapsed: Duration, burst: u64) -> u64 {
        let made = self.rate.due(elapsed).saturating_sub(self.ticks).min(burst);
        let mut left = made;
        while left > 0 {
            let step = left.min(SEGMENT_TICKS - self.ticks % SEGMENT_TICKS);
            self.hash = after(self.hash, step);
            self.ticks += step;
            left -= step;
            if self.ticks.is_multiple_of(SEGMENT_TICKS) {
                self.segments.push(self.hash);
            }
        }
        made
    }

    /// What a header after this parent may claim now, of at most so many ticks: all of them, or where they are too many, whole segments.
    /// Nothing if the stretch begins at another header: no header waits for ticks.
    pub fn claim(&self, parent: &Header, allowed: u64) -> Claim {
        if self.parent != parent.digest() {
            return Claim { end: parent.poh, segments: Vec::new() };
        }
        let mut segments = self.segments.clone();
        let mut ticks = self.ticks;
        if ticks > allowed {
            segments.truncate(usize::try_from(allowed / SEGMENT_TICKS).unwrap_or(SEGMENTS_MAX));
            ticks = segments.len() as u64 * SEGMENT_TICKS;
        } else if !ticks.is_multiple_of(SEGMENT_TICKS) {
            segments.push(self.hash);
        }
        let hash = segments.last().copied().unwrap_or(self.from.hash);
        Claim { end: PohEnd { count: self.from.count.saturating_add(ticks), hash }, segments }
    }
}

/// Checks a header's claim, on so many threads.
///
/// # Errors
/// [`PohError`] for the first thing that does not hold; hashing comes last.
pub fn check(
    rate: Rate,
    parent: &Header,
    header: &Header,
    segments: &[[u8; 32]],
    threads: usize,
) -> Result<(), PohError> {
    let (from, to) = (parent.poh, header.poh);
    let ticks = to.count.checked_sub(from.count).ok_or(PohError::Backwards { count: to.count, parent: from.count })?;
    let allowed = rate.allowed(parent.time, header.time);
    if ticks > allowed {
        return Err(PohError::TooMany { ticks, allowed });
    }
    // At most `SEGMENTS_MAX`, as `ticks` are at most `TICKS_MAX`.
    let wanted = ticks.div_ceil(SEGMENT_TICKS) as usize;
    if segments.len() != wanted {
        return Err(PohError::Segments { found: segments.len(), wanted });
    }
    if *segments.last().unwrap_or(&from.hash) != to.hash {
        return Err(PohError::End);
    }
    let starts = std::iter::once(start(&from, &parent.digest())).chain(segments.iter().copied());
    let last = ticks - (wanted as u64).saturating_sub(1) * SEGMENT_TICKS;
    let runs: Vec<_> = starts
        .zip(segments)
        .enumerate()
        .map(|(at, (from, to))| (at, from, *to, if at + 1 == wanted { last } else { SEGMENT_TICKS }))
        .collect();
    match first_broken(&runs, threads) {
        Some(segment) => Err(PohError::Broken { segment }),
        None => Ok(()),
    }
}

/// A segment: which, whence, where to, in how many ticks.
type Run = (usize, [u8; 32], [u8; 32], u64);

/// The first segment that does not lead to its end, each thread looking at a part of them.
fn first_broken(runs: &[Run], threads: usize) -> Option<usize> {
    let broken = |part: &[Run]| part.iter().find(|(_, from, to, ticks)| after(*from, *ticks) != *to).map(|run| run.0);
    let part = runs.len().div_ceil(threads.max(1)).max(1);
    if part >= runs.len() {
        return broken(runs);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = runs.chunks(part).map(|part| (part, scope.spawn(move || broken(part)))).collect();
        // A part whose thread came to nothing is looked at again here: no claim passes unchecked.
        parts.into_iter().filter_map(|(part, thread)| thread.join().unwrap_or_else(|_| broken(part))).min()
    })
}

/// How many ticks in a second one core of this machine makes; `now` tells the time since any moment.
pub fn capacity(mut now: impl FnMut() -> Duration) -> u64 {
    let begin = now();
    std::hint::black_box(after(std::hint::black_box([0; 32]), MEASURED_TICKS));
    let took = now().saturating_sub(begin).as_nanos().max(1);
    u64::try_from(u128::from(MEASURED_TICKS) * 1_000_000_000 / took).unwrap_or(u64::MAX)
}

/// What the first tick of a stretch hashes.
fn start(end: &PohEnd, parent: &HeaderDigest) -> [u8; 32] {
    let hasher = Sha256::new().chain_update(DOMAIN).chain_update([0]).chain_update(end.hash);
    hasher.chain_update(parent.0).finalize().into()
}

/// So many hashes on: each is one compression of a block that is padded once.
fn after(hash: [u8; 32], ticks: u64) -> [u8; 32] {
    let mut block = [0; 64];
    block[..32].copy_from_slice(&hash);
    // FIPS 180-4, section 5.1.1: a one bit after the message, and its length in bits at the end: 256.
    (block[32], block[62]) = (0x80, 1);
    for _ in 0..ticks {
        let mut state = FIRST;
        compress256(&mut state, std::slice::from_ref(&block));
        for (to, word) in block.chunks_exact_mut(4).zip(state) {
            to.copy_from_slice(&word.to_be_bytes());
        }
    }
    let mut end = [0; 32];
    end.copy_from_slice(&block[..32]);
    end
}

#[cfg(test)]
mod tests {
    use bpi_protocol::consensus::ids::Height;
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { ticks_per_second: 1_000_000 };

    fn parent() -> Header {
        let poh = PohEnd { count: 77, hash: [5; 32] };
        Header { height: Height(4), time: TimeMs(1_000), poh, ..Header::default() }
    }

    /// A header `ms` after its parent, and the segments beside it.
    fn made(ms: u64) -> (Header, Vec<[u8; 32]>) {
        let mut ticker = Ticker::new(RATE, &parent());
        while ticker.advance(Duration::from_millis(ms), 5_000) > 0 {}
        let time = TimeMs(1_000 + ms);
        let Claim { end, segments } = ticker.claim(&parent(), RATE.allowed(TimeMs(1_000), time));
        (Header { height: Height(5), time, poh: end, ..Header::default() }, segments)
    }

    #[test]
    fn a_tick_is_sha_256() {
        let mut hash = [9; 32];
        assert_eq!(after(hash, 0), hash);
        for _ in 0..100 {
            hash = Sha256::digest(hash).into();
        }
        assert_eq!(after([9; 32], 100), hash);
    }

    #[test]
    fn what_was_ticked_in_any_bursts_is_believed_on_any_number_of_threads() {
        for ms in [0, 1, 16, 17, 33, 250] {
            let (header, segments) = made(ms);
            assert_eq!(header.poh.count, 77 + ms * 1_000);
            for threads in [0, 1, 2, 3, 200] {
                assert_eq!(check(RATE, &parent(), &header, &segments, threads), Ok(()), "{ms} ms, {threads} threads");
            }
        }
    }

    #[test]
    fn a_stretch_after_another_parent_is_not_believed() {
        let (header, segments) = made(20);
        let other = Header { proposer: bpi_protocol::consensus::ids::ValidatorIndex(1), ..parent() };
        assert_eq!(check(RATE, &other, &header, &segments, 2), Err(PohError::Broken { segment: 0 }));
    }

    #[test]
    fn more_than_the_time_allows_is_refused_and_never_claimed() {
        let (header, segments) = made(40);
        let early = Header { time: TimeMs(1_039), ..header };
        let error = PohError::TooMany { ticks: 40_000, allowed: 39_000 };
        assert_eq!(check(RATE, &parent(), &early, &segments, 2), Err(error));
        let mut ticker = Ticker::new(RATE, &parent());
        ticker.advance(Duration::from_millis(40), u64::MAX);
        let claim = ticker.claim(&parent(), 39_000);
        assert_eq!((claim.end.count, claim.segments.len()), (77 + 2 * SEGMENT_TICKS, 2));
        assert_eq!(ticker.claim(&parent(), 0).end, parent().poh);
        let other = Header { height: Height(9), ..parent() };
        assert_eq!(ticker.claim(&other, u64::MAX), Claim { end: other.poh, segments: vec![] });
    }

    #[test]
    fn a_day_without_headers_gives_no_more_than_a_header_may_hold() {
        assert_eq!(RATE.allowed(TimeMs(0), TimeMs(u64::MAX)), TICKS_MAX);
        assert_eq!(RATE.due(Duration::MAX), TICKS_MAX);
        assert_eq!(RATE.allowed(TimeMs(9), TimeMs(3)), 0);
    }

    #[test]
    fn counts_and_ends_that_do_not_fit_are_refused_before_anything_is_hashed() {
        let (header, segments) = made(20);
        let with = |count, hash| Header { poh: PohEnd { count, hash }, ..header };
        let found = |header: &Header, segments: &[[u8; 32]]| check(RATE, &parent(), header, segments, 1);
        assert_eq!(found(&with(76, [0; 32]), &segments), Err(PohError::Backwards { count: 76, parent: 77 }));
        assert_eq!(found(&header, &segments[..1]), Err(PohError::Segments { found: 1, wanted: 2 }));
        assert_eq!(found(&with(header.poh.count, [0; 32]), &segments), Err(PohError::End));
        assert_eq!(found(&with(77, [0; 32]), &[]), Err(PohError::End));
        assert_eq!(found(&with(77, [5; 32]), &[]), Ok(()));
    }

    #[test]
    fn the_capacity_is_measured_by_the_time_that_it_is_told() {
        let mut times = [Duration::ZERO, Duration::from_millis(10)].into_iter();
        assert_eq!(capacity(|| times.next().expect("two looks at the clock")), MEASURED_TICKS * 100);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn one_changed_bit_is_found(segment in 0_usize..4, bit in 0_usize..256, threads in 1_usize..5) {
            let (mut header, mut segments) = made(60);
            segments[segment][bit / 8] ^= 1 << (bit % 8);
            header.poh.hash = segments[3];
            prop_assert_eq!(check(RATE, &parent(), &header, &segments, threads), Err(PohError::Broken { segment }));
        }
    }
}
