//! Reed-Solomon over stripes: bytes to shards with their commitment, and any k shards to bytes.
//!
//! Each shard is a sum of k others, each multiplied by a coefficient (`bpi_protocol::availability::field`). The products are computed by
//! `reed-solomon-erasure`'s vectors, some leaves of all shards at a time, which are hashed side by side while the processor's second cache has them. A
//! stripe of all shards is the most that is held beside input and output: n / k MiB.
//!
//! Always true: a shard counts for nothing before its root is found right, since decoding a bent one gives wrong bytes and no error. Absent on purpose:
//! threads: an agent has one core, and whoever has more codes several batches.

use std::borrow::Cow;

use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::availability::coding::{Coding, LEAF_BYTES, STRIPE_BYTES};
use bpi_protocol::availability::field::coefficients;
use bpi_protocol::availability::tree::{ShardRoot, ShardTree, da_root, join, shard_root};
use bpi_protocol::availability::wrong::WrongEncoding;
use bpi_protocol::log::Hash;
use reed_solomon_erasure::galois_8::{mul_slice, mul_slice_xor};

const LEAF: usize = LEAF_BYTES as usize;
/// Bytes of each shard that are worked on at a time, whole leaves: 64 shards stay in a second cache of 1 MiB, and a product in the first. Of 1 to 64 KiB
/// it makes the products fastest, though hashing takes three times as long.
const TILE_BYTES: usize = 8 * LEAF;

/// Why nothing can be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The vectors of `reed-solomon-erasure` are compiled for a processor with AVX2.
    #[error("this processor has no AVX2, which coding needs: an Intel Haswell, an AMD Zen or later")]
    Processor,
    /// Data of another length than the coding says.
    #[error("{found} bytes of data where {wanted} are coded")]
    Length {
        /// There are.
        found: u64,
        /// There have to be.
        wanted: u64,
    },
    /// Another number of shards to append to than the coding has.
    #[error("{found} shards to append to; the coding has {wanted}")]
    Shards {
        /// There are.
        found: usize,
        /// There have to be.
        wanted: usize,
    },
}

/// Refuses a processor on which the vectors would end the process.
fn processor() -> Result<(), CodecError> {
    #[cfg(target_arch = "x86_64")]
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("fma")) {
        return Err(CodecError::Processor);
    }
    Ok(())
}

/// Shards as sums of `points`, k others: a row of coefficients for each of `targets`.
struct Combination {
    points: Vec<u8>,
    targets: Vec<(u8, Vec<u8>)>,
}

impl Combination {
    fn new(points: Vec<u8>, targets: impl IntoIterator<Item = u8>) -> Self {
        let targets = targets.into_iter().map(|target| (target, coefficients(&points, target))).collect();
        Self { points, targets }
    }
}

/// The sum of the same bytes of several rows, each multiplied by its coefficient.
fn sum<'a>(coefficients: &[u8], rows: impl Iterator<Item = &'a [u8]>, out: &mut [u8]) {
    for (at, (coefficient, row)) in coefficients.iter().zip(rows).enumerate() {
        match at {
            0 => mul_slice(*coefficient, row, out),
            _ => mul_slice_xor(*coefficient, row, out),
        }
    }
}

/// A batch as it is spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// How it is coded.
    pub coding: Coding,
    /// What commits to it.
    pub da_root: Hash,
    /// The root of each shard.
    pub roots: Vec<Hash>,
    /// The shards, [`Coding::shard_bytes`] each.
    pub shards: Vec<Vec<u8>>,
}

/// Codes a batch, a stripe at a time.
pub struct Encoder {
    coding: Coding,
    combination: Combination,
    stripe: u32,
    roots: Vec<ShardRoot>,
}

impl Encoder {
    /// Begins a batch.
    ///
    /// # Errors
    /// [`CodecError::Processor`].
    pub fn new(coding: Coding) -> Result<Self, CodecError> {
        processor()?;
        let (k, n) = (coding.k(), coding.n());
        let combination = Combination::new(shards(0, k).collect(), shards(k, n));
        Ok(Self { coding, combination, stripe: 0, roots: shards(0, n).map(|_| ShardRoot::new()).collect() })
    }

    /// Bytes of data that the next stripe takes; 0 behind the last one.
    pub fn next_bytes(&self) -> usize {
        let begin = u64::from(self.stripe) * u64::from(STRIPE_BYTES);
        self.coding.length().saturating_sub(begin).min(STRIPE_BYTES.into()) as usize
    }

    /// Codes the next stripe: appends to each of the n shards its chunk.
    ///
    /// # Errors
    /// When it is not [`Encoder::next_bytes`] long, or there are not n shards.
    pub fn stripe(&mut self, data: &[u8], shards: &mut [Vec<u8>]) -> Result<(), CodecError> {
        if shards.len() != self.roots.len() {
            return Err(CodecError::Shards { found: shards.len(), wanted: self.roots.len() });
        }
        let wanted = self.next_bytes();
        if data.len() != wanted || wanted == 0 {
            return Err(CodecError::Length { found: data.len() as u64, wanted: wanted as u64 });
        }
        let (k, chunk) = (usize::from(self.coding.k()), self.coding.chunk_bytes(self.stripe) as usize);
        let (of_data, of_parity) = shards.split_at_mut(k);
        let mut parts = data.chunks(chunk);
        for shard in of_data.iter_mut() {
            let (end, part) = (shard.len() + chunk, parts.next().unwrap_or_default());
            shard.extend_from_slice(part);
            shard.resize(end, 0);
        }
        of_parity.iter_mut().for_each(|shard| shard.resize(shard.len() + chunk, 0));
        let mut roots: Vec<ShardRoot> = self.roots.iter().map(|_| ShardRoot::new()).collect();
        for at in (0..chunk).step_by(TILE_BYTES) {
            let tile = at..chunk.min(at + TILE_BYTES);
            let rows: Vec<&[u8]> = of_data.iter().map(|shard| &tail(shard, chunk)[tile.clone()]).collect();
            for ((_, coefficients), shard) in self.combination.targets.iter().zip(of_parity.iter_mut()) {
                let begin = shard.len() - chunk;
                sum(coefficients, rows.iter().copied(), &mut shard[begin..][tile.clone()]);
            }
            let parity = of_parity.iter().map(|shard| &tail(shard, chunk)[tile.clone()]);
            ShardRoot::leaves_of_all(&mut roots, &rows.iter().copied().chain(parity).collect::<Vec<_>>());
        }
        self.roots.iter_mut().zip(roots).for_each(|(all, of_chunk)| all.push(of_chunk.root()));
        self.stripe += 1;
        Ok(())
    }

    /// Ends the batch: `da_root` and the root of each shard.
    ///
    /// # Errors
    /// When stripes are missing.
    pub fn finish(self) -> Result<(Hash, Vec<Hash>), CodecError> {
        let found = (u64::from(self.stripe) * u64::from(STRIPE_BYTES)).min(self.coding.length());
        if self.stripe != self.coding.stripes() {
            return Err(CodecError::Length { found, wanted: self.coding.length() });
        }
        let roots: Vec<Hash> = self.roots.iter().map(ShardRoot::root).collect();
        Ok((da_root(&self.coding, &roots), roots))
    }
}

/// Codes all of a batch.
///
/// # Errors
/// [`CodecError`].
pub fn encode(coding: Coding, data: &[u8]) -> Result<Encoded, CodecError> {
    if data.len() as u64 != coding.length() {
        return Err(CodecError::Length { found: data.len() as u64, wanted: coding.length() });
    }
    let mut encoder = Encoder::new(coding)?;
    let mut shards: Vec<Vec<u8>> = (0..coding.n()).map(|_| Vec::with_capacity(coding.shard_bytes() as usize)).collect();
    data.chunks(STRIPE_BYTES as usize).try_for_each(|stripe| encoder.stripe(stripe, &mut shards))?;
    let (da_root, roots) = encoder.finish()?;
    Ok(Encoded { coding, da_root, roots, shards })
}

/// The last bytes of a shard, so many.
fn tail(shard: &[u8], bytes: usize) -> &[u8] {
    &shard[shard.len() - bytes..]
}

/// Numbers of shards from one up to another, which is left out.
fn shards(from: u16, to: u16) -> impl Iterator<Item = u8> {
    (from..to).map(|shard| shard as u8)
}

/// Why a batch is not rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// Nothing can be coded here.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The roots are not those that `da_root` commits to.
    #[error("{found} roots of shards do not lead to the da_root")]
    Roots {
        /// How many.
        found: usize,
    },
    /// There is no such shard.
    #[error("shard {shard}, of {n}")]
    Shard {
        /// Which.
        shard: u8,
        /// How many there are.
        n: u16,
    },
    /// There is no such stripe.
    #[error("stripe {stripe} of shard {shard}, of {stripes} stripes")]
    Stripe {
        /// Which shard.
        shard: u8,
        /// Which stripe.
        stripe: u32,
        /// How many there are.
        stripes: u32,
    },
    /// A shard, or a piece of one, is too short or too long.
    #[error("{found} bytes of shard {shard}; it has to be {wanted}")]
    Length {
        /// Which.
        shard: u8,
        /// There are.
        found: u64,
        /// There have to be.
        wanted: u64,
    },
    /// A shard is bent, swapped or of another batch.
    #[error("shard {shard} has another root: it is bent, or not that shard of this batch")]
    Root {
        /// Which.
        shard: u8,
    },
    /// Not enough shards.
    #[error("{found} shards are there and whole, and {wanted} are needed")]
    Few {
        /// There are.
        found: u16,
        /// Needed.
        wanted: u16,
    },
    /// What the shards say of another one is not what the batch commits to. Add that shard to those that are here, and the proof can be made.
    #[error("shard {shard} is committed to with another root than the others give: the batch is wrongly encoded")]
    Differs {
        /// Which.
        shard: u8,
    },
    /// The batch is wrongly encoded, and here is the proof.
    #[error("the batch is wrongly encoded, as leaf {} of its shards shows", proof.openings.first().map_or(0, |opening| opening.leaf))]
    Wrong {
        /// For validators and pinners.
        proof: Box<WrongEncoding>,
    },
}

/// A shard that comes in pieces.
struct Partial {
    bytes: Vec<u8>,
    /// The root of each chunk that is here.
    chunks: Vec<Option<Hash>>,
}

enum Slot {
    Empty,
    Partial(Partial),
    /// Its root is right.
    Whole(Vec<u8>),
}

/// A batch that is put together again of any k of its shards. It holds what it is given, n / k times the batch at most.
pub struct Rebuild {
    coding: Coding,
    da_root: Hash,
    roots: Vec<Hash>,
    slots: Vec<Slot>,
}

/// A batch that is whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The bytes that were coded.
    pub data: Vec<u8>,
    /// All n shards.
    pub shards: Vec<Vec<u8>>,
}

impl Rebuild {
    /// Begins with nothing. `roots` are those of all shards, and need not be trusted.
    ///
    /// # Errors
    /// When they do not lead to `da_root`.
    pub fn new(coding: Coding, da_root: Hash, roots: Vec<Hash>) -> Result<Self, RebuildError> {
        processor()?;
        if roots.len() != usize::from(coding.n()) || self::da_root(&coding, &roots) != da_root {
            return Err(RebuildError::Roots { found: roots.len() });
        }
        let slots = roots.iter().map(|_| Slot::Empty).collect();
        Ok(Self { coding, da_root, roots, slots })
    }

    /// Adds a shard.
    ///
    /// # Errors
    /// When it is not that shard; then it is as if it had not been added.
    pub fn add(&mut self, shard: u8, bytes: Vec<u8>) -> Result<(), RebuildError> {
        let (n, wanted) = (self.coding.n(), self.coding.shard_bytes());
        let at = usize::from(shard);
        let (Some(slot), Some(root)) = (self.slots.get_mut(at), self.roots.get(at)) else {
            return Err(RebuildError::Shard { shard, n });
        };
        if bytes.len() as u64 != wanted {
            return Err(RebuildError::Length { shard, found: bytes.len() as u64, wanted });
        }
        if shard_root(&bytes) != *root {
            return Err(RebuildError::Root { shard });
        }
        *slot = Slot::Whole(bytes);
        Ok(())
    }

    /// Adds the chunk of one stripe of a shard, in any order. True when the shard is whole and its root right. A piece that comes again replaces the
    /// first.
    ///
    /// # Errors
    /// When it is no piece, or completes a shard that has another root; then all pieces of that shard are forgotten.
    pub fn add_piece(&mut self, shard: u8, stripe: u32, bytes: &[u8]) -> Result<bool, RebuildError> {
        let (n, stripes, wanted) = (self.coding.n(), self.coding.stripes(), self.coding.chunk_bytes(stripe));
        let at = usize::from(shard);
        let (Some(slot), Some(root)) = (self.slots.get_mut(at), self.roots.get(at)) else {
            return Err(RebuildError::Shard { shard, n });
        };
        if stripe >= stripes {
            return Err(RebuildError::Stripe { shard, stripe, stripes });
        }
        if bytes.len() != wanted as usize {
            return Err(RebuildError::Length { shard, found: bytes.len() as u64, wanted: wanted.into() });
        }
        if let Slot::Empty = slot {
            let chunks = vec![None; stripes as usize];
            *slot = Slot::Partial(Partial { bytes: vec![0; self.coding.shard_bytes() as usize], chunks });
        }
        let Slot::Partial(partial) = slot else { return Ok(true) };
        let begin = self.coding.chunk_begin(stripe) as usize;
        partial.bytes[begin..begin + bytes.len()].copy_from_slice(bytes);
        partial.chunks[stripe as usize] = Some(shard_root(bytes));
        let Some(chunks) = partial.chunks.iter().copied().collect::<Option<Vec<Hash>>>() else { return Ok(false) };
        if join(&chunks) != *root {
            *slot = Slot::Empty;
            return Err(RebuildError::Root { shard });
        }
        *slot = Slot::Whole(std::mem::take(&mut partial.bytes));
        Ok(true)
    }

    /// Shards that are here and whole.
    pub fn whole(&self) -> ShardSet {
        shards(0, self.coding.n()).filter(|shard| self.shard(*shard).is_some()).collect()
    }

    /// True when there are k of them.
    pub fn is_enough(&self) -> bool {
        self.whole().len() >= self.coding.k()
    }

    fn shard(&self, shard: u8) -> Option<&[u8]> {
        match self.slots.get(usize::from(shard))? {
            Slot::Whole(bytes) => Some(bytes),
            Slot::Empty | Slot::Partial(_) => None,
        }
    }

    /// The first k that are whole, by which the others are computed.
    fn points(&self) -> Result<Vec<u8>, RebuildError> {
        let (whole, wanted) = (self.whole(), self.coding.k());
        match whole.len() >= wanted {
            true => Ok(whole.iter().take(wanted.into()).collect()),
            false => Err(RebuildError::Few { found: whole.len(), wanted }),
        }
    }

    /// The bytes that were coded, of the first k shards that are whole. Nothing is said about whether the other shards are what these say of them:
    /// that is [`Rebuild::finish`], at twice the price.
    ///
    /// # Errors
    /// [`RebuildError::Few`].
    pub fn data(&self) -> Result<Vec<u8>, RebuildError> {
        let combination =
            Combination::new(self.points()?, shards(0, self.coding.k()).filter(|data| self.shard(*data).is_none()));
        let points: Vec<&[u8]> = combination.points.iter().filter_map(|point| self.shard(*point)).collect();
        // Zeroes that the kernel gives, and sums where they belong: memory that is touched costs more than the products.
        let last = self.coding.stripes() - 1;
        let whole = last as usize * STRIPE_BYTES as usize;
        let mut data = vec![0; whole + usize::from(self.coding.k()) * self.coding.chunk_bytes(last) as usize];
        for (stripe, data) in (0..).zip(data.chunks_mut(STRIPE_BYTES as usize)) {
            let (begin, chunk) = (self.coding.chunk_begin(stripe) as usize, self.coding.chunk_bytes(stripe) as usize);
            for (part, shard) in data.chunks_mut(chunk).zip(shards(0, self.coding.k())) {
                if let Some(bytes) = self.shard(shard) {
                    part.copy_from_slice(&bytes[begin..begin + chunk]);
                }
            }
            for at in (0..chunk).step_by(TILE_BYTES) {
                let tile = at..chunk.min(at + TILE_BYTES);
                for (target, coefficients) in &combination.targets {
                    let out = &mut data[usize::from(*target) * chunk..][tile.clone()];
                    sum(coefficients, points.iter().map(|point| &point[begin..][tile.clone()]), out);
                }
            }
        }
        data.truncate(self.coding.length() as usize);
        Ok(data)
    }

    /// Rebuilds data and shards, and compares all with what the batch commits to.
    ///
    /// # Errors
    /// [`RebuildError::Few`], and [`RebuildError::Wrong`] or [`RebuildError::Differs`] for a batch that is wrongly encoded; the shards stay here.
    pub fn finish(&mut self) -> Result<Rebuilt, RebuildError> {
        let points = self.points()?;
        // Those that are here and were not needed are computed as well, to be compared.
        let others = shards(0, self.coding.n()).filter(|shard| !points.contains(shard)).collect::<Vec<_>>();
        let combination = Combination::new(points, others);
        let mut computed = self.compute(&combination);
        let mut differs = None;
        for ((target, _), ours) in combination.targets.iter().zip(&computed) {
            match self.shard(*target) {
                Some(theirs) if theirs != ours => return Err(self.no_code_word(&combination.points, *target, ours)),
                Some(_) => {}
                None if self.roots.get(usize::from(*target)) != Some(&shard_root(ours)) => {
                    differs.get_or_insert(*target);
                }
                None => {}
            }
        }
        let rows: Vec<&[u8]> = self.all(&combination, &computed).take(self.coding.k().into()).collect();
        if let Some(leaf) = self.leaf_behind_the_end(&rows) {
            return Err(self.wrong(&combination.points, None, leaf));
        }
        if let Some(shard) = differs {
            return Err(RebuildError::Differs { shard });
        }
        let data = self.gather(&rows);
        for (slot, number) in self.slots.iter_mut().zip(shards(0, self.coding.n())) {
            let place = combination.targets.iter().position(|(target, _)| *target == number);
            if let (Slot::Empty | Slot::Partial(_), Some(place)) = (&slot, place) {
                *slot = Slot::Whole(std::mem::take(&mut computed[place]));
            }
        }
        let shards = self.slots.iter_mut().map(|slot| match std::mem::replace(slot, Slot::Empty) {
            Slot::Whole(bytes) => bytes,
            Slot::Empty | Slot::Partial(_) => Vec::new(),
        });
        Ok(Rebuilt { data, shards: shards.collect() })
    }

    /// The targets of a combination, whole shards each.
    fn compute(&self, combination: &Combination) -> Vec<Vec<u8>> {
        let length = self.coding.shard_bytes() as usize;
        let mut computed: Vec<Vec<u8>> = combination.targets.iter().map(|_| vec![0; length]).collect();
        let rows: Vec<&[u8]> = combination.points.iter().filter_map(|point| self.shard(*point)).collect();
        for at in (0..length).step_by(TILE_BYTES) {
            let range = at..length.min(at + TILE_BYTES);
            for ((_, coefficients), out) in combination.targets.iter().zip(&mut computed) {
                sum(coefficients, rows.iter().map(|row| &row[range.clone()]), &mut out[range.clone()]);
            }
        }
        computed
    }

    /// Shards in order, those that are here and those that were computed.
    fn all<'a>(&'a self, combination: &'a Combination, computed: &'a [Vec<u8>]) -> impl Iterator<Item = &'a [u8]> {
        shards(0, self.coding.n()).filter_map(move |shard| {
            let place = combination.targets.iter().position(|(target, _)| *target == shard);
            self.shard(shard).or_else(|| computed.get(place?).map(Vec::as_slice))
        })
    }

    /// The data in the k data shards.
    fn gather(&self, rows: &[&[u8]]) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.coding.length() as usize + rows.len() * LEAF);
        for stripe in 0..self.coding.stripes() {
            let (begin, chunk) = (self.coding.chunk_begin(stripe) as usize, self.coding.chunk_bytes(stripe) as usize);
            rows.iter().for_each(|row| data.extend_from_slice(&row[begin..begin + chunk]));
        }
        data.truncate(self.coding.length() as usize);
        data
    }

    /// The first leaf of data shards that holds something behind the end of the data: of the last stripe.
    fn leaf_behind_the_end(&self, rows: &[&[u8]]) -> Option<u32> {
        let last = self.coding.stripes() - 1;
        let (begin, chunk) = (self.coding.chunk_begin(last) as usize, self.coding.chunk_bytes(last) as usize);
        let used = (self.coding.length() - u64::from(last) * u64::from(STRIPE_BYTES)) as usize;
        let at = rows.iter().enumerate().find_map(|(row, bytes)| {
            let from = used.saturating_sub(row * chunk).min(chunk);
            bytes[begin + from..begin + chunk].iter().position(|byte| *byte != 0).map(|place| begin + from + place)
        })?;
        u32::try_from(at / LEAF).ok()
    }

    /// Shows that a shard is not what the others say of it.
    fn no_code_word(&self, points: &[u8], extra: u8, ours: &[u8]) -> RebuildError {
        let theirs = self.shard(extra).unwrap_or_default();
        let leaf = theirs.chunks(LEAF).zip(ours.chunks(LEAF)).position(|(theirs, ours)| theirs != ours);
        self.wrong(points, Some(extra), leaf.unwrap_or(0) as u32)
    }

    /// The proof of leaves at one offset. Hashes the shards again, which happens once in the life of a batch that should not be.
    fn wrong(&self, points: &[u8], extra: Option<u8>, leaf: u32) -> RebuildError {
        let mut numbers: Cow<'_, [u8]> = points.into();
        if let Some(extra) = extra {
            numbers.to_mut().push(extra);
            numbers.to_mut().sort_unstable();
        }
        let begin = leaf as usize * LEAF;
        let openings = numbers.iter().filter_map(|number| {
            let bytes = self.shard(*number)?;
            ShardTree::of(bytes).open(*number, &self.roots, leaf.into(), bytes.get(begin..begin + LEAF)?)
        });
        let openings = openings.collect();
        let proof = WrongEncoding { coding: self.coding, da_root: self.da_root, openings };
        RebuildError::Wrong { proof: Box::new(proof) }
    }
}
