//! Reading shards: probes, fetches, and looking whether what is on the medium is still what was acknowledged.
//!
//! Always true: nothing leaves that has not led to the root which the batch's `da_root` commits to; what does not is told as a finding and never as good.
//! A probe reads a leaf and one hash for each level, a fetch a chunk and as many. Absent on purpose: any change.

use std::sync::Arc;

use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::log::{Hash, Log, leaf_hash};
use bpi_protocol::mesh::pinner::{Answer, Described, Piece, Reason};

use crate::catalogue::{Catalogue, Record};
use crate::disk::Span;
use crate::keeper::KeeperError;
use crate::store::layout::{Layout, Leaves, hashes_of, leaf_hashes};
use crate::store::{ShardKey, Shards};

/// Answers who asks.
#[derive(Clone, Debug)]
pub struct Reader {
    shards: Arc<dyn Shards>,
    catalogue: Arc<Catalogue>,
}

/// An answer, and what was found bad on the way.
#[derive(Debug)]
pub struct Read {
    /// What to say.
    pub answer: Answer,
    /// A shard that is not as it should be.
    pub bad: Option<ShardKey>,
}

/// Bytes of leaves, and the hashes beside their way.
type Proved = (Vec<u8>, Vec<Hash>);

fn proved_by(
    record: &Record,
    key: &ShardKey,
    leaves: Leaves,
    read: impl Fn(&[Span]) -> Result<Option<Vec<Vec<u8>>>, KeeperError>,
) -> Result<Option<Proved>, KeeperError> {
    let layout = Layout::of(&record.batch.coding);
    let Some(mut parts) = read(&layout.spans(leaves))? else { return Ok(None) };
    let bytes = if parts.is_empty() { return Ok(None) } else { parts.remove(0) };
    let Some(beside) = hashes_of(&parts) else { return Ok(None) };
    let root = layout.root(leaves, &bytes, &beside);
    let good = root.is_some() && root.as_ref() == record.roots.get(usize::from(key.shard));
    Ok(good.then_some((bytes, beside)))
}

impl Reader {
    /// Of what is kept.
    pub fn new(shards: Arc<dyn Shards>, catalogue: Arc<Catalogue>) -> Self {
        Self { shards, catalogue }
    }

    fn missing(da_root: &Hash, bad: Option<ShardKey>) -> Read {
        let sentence = "no such leaf, chunk, shard or batch is here".to_owned();
        Read { answer: Answer::Refused { da_root: *da_root, reason: Reason::Missing, sentence }, bad }
    }

    /// Leaves of a shard and the hashes beside their way, checked. `Ok(None)`: they are not good.
    fn proved(&self, record: &Record, key: &ShardKey, leaves: Leaves) -> Result<Option<Proved>, KeeperError> {
        proved_by(record, key, leaves, |spans| Ok(self.shards.read(key, spans)?))
    }

    /// The chunk of a stripe, checked. `None`: it is not good.
    ///
    /// # Errors
    /// [`KeeperError`] when the disk fails.
    pub fn chunk(&self, record: &Record, key: &ShardKey, stripe: u32) -> Result<Option<Vec<u8>>, KeeperError> {
        Ok(self.proved(record, key, Layout::chunk(&record.batch.coding, stripe))?.map(|(bytes, _)| bytes))
    }

    /// A leaf and its way to `da_root`. `None`: it is not good.
    ///
    /// # Errors
    /// [`KeeperError`] when the disk fails.
    pub fn opening(&self, record: &Record, key: &ShardKey, leaf: u32) -> Result<Option<Opening>, KeeperError> {
        self.opening_by(record, key, leaf, |spans| Ok(self.shards.read(key, spans)?))
    }

    /// The same of a file that is read in another way.
    ///
    /// # Errors
    /// What reading says.
    pub fn opening_by(
        &self,
        record: &Record,
        key: &ShardKey,
        leaf: u32,
        read: impl Fn(&[Span]) -> Result<Option<Vec<Vec<u8>>>, KeeperError>,
    ) -> Result<Option<Opening>, KeeperError> {
        let leaves = Leaves { begin: leaf.into(), count: 1 };
        let Some((bytes, in_shard)) = proved_by(record, key, leaves, read)? else { return Ok(None) };
        let mut top = Log::new();
        for root in &record.roots {
            top.append(leaf_hash(root));
        }
        let in_batch = top.prove_inclusion(key.shard.into(), top.size()).map(|proof| proof.path);
        let (Ok(in_batch), Ok(bytes)) = (in_batch, bytes.try_into()) else { return Ok(None) };
        Ok(Some(Opening { shard: key.shard, leaf, bytes: Box::new(bytes), in_shard, in_batch }))
    }

    /// The record of a batch when a shard of it is here and good, as far as is known.
    fn good(&self, key: &ShardKey) -> Result<Option<Record>, KeeperError> {
        Ok(self.catalogue.record(&key.da_root)?.filter(|record| record.good().contains(key.shard)))
    }

    /// A leaf and its path.
    ///
    /// # Errors
    /// [`KeeperError`] when the index or the disk fails.
    pub fn probe(&self, key: &ShardKey, leaf: u64) -> Result<Read, KeeperError> {
        let ShardKey { da_root, shard } = *key;
        let Some(record) = self.good(key)? else { return Ok(Self::missing(&da_root, None)) };
        let coding = record.batch.coding;
        let Some(number) = u32::try_from(leaf).ok().filter(|_| leaf < coding.leaves()) else {
            return Ok(Self::missing(&da_root, None));
        };
        let Some(opening) = self.opening(&record, key, number)? else {
            return Ok(Self::missing(&da_root, Some(*key)));
        };
        Ok(Read { answer: Answer::Opening { da_root, shard, leaf, opening: opening.to_bytes() }, bad: None })
    }

    /// A chunk.
    ///
    /// # Errors
    /// [`KeeperError`] when the index or the disk fails.
    pub fn fetch(&self, key: &ShardKey, stripe: u32) -> Result<Read, KeeperError> {
        let ShardKey { da_root, shard } = *key;
        let record = self.good(key)?.filter(|record| stripe < record.batch.coding.stripes());
        let Some(record) = record else { return Ok(Self::missing(&da_root, None)) };
        Ok(match self.chunk(&record, key, stripe)? {
            Some(bytes) => Read { answer: Answer::Piece(Piece { da_root, shard, stripe, bytes }), bad: None },
            None => Self::missing(&da_root, Some(*key)),
        })
    }

    /// What a batch is, and what of it is here and good.
    ///
    /// # Errors
    /// [`KeeperError`] when the index fails.
    pub fn describe(&self, da_root: &Hash) -> Result<Read, KeeperError> {
        let Some(record) = self.catalogue.record(da_root)? else { return Ok(Self::missing(da_root, None)) };
        let described = Described { batch: record.batch, shards: record.good(), roots: record.roots };
        Ok(Read { answer: Answer::Described(Box::new(described)), bad: None })
    }

    /// Reads a whole shard, a stripe at a time, and its tree, and says whether all of it is good. `pace` is told how many bytes were read, and may wait.
    ///
    /// # Errors
    /// [`KeeperError`] when the index or the disk fails.
    pub fn is_good(&self, record: &Record, key: &ShardKey, mut pace: impl FnMut(u64)) -> Result<bool, KeeperError> {
        let coding = record.batch.coding;
        let layout = Layout::of(&coding);
        // 32 bytes for a leaf of 1 KiB: 2 MiB for the longest shard.
        let mut leaves = Vec::with_capacity(layout.leaves() as usize);
        for stripe in 0..coding.stripes() {
            let span = Span { offset: coding.chunk_begin(stripe), length: coding.chunk_bytes(stripe) as usize };
            let Some(bytes) = self.shards.read(key, &[span])? else { return Ok(false) };
            bytes.iter().for_each(|bytes| leaves.extend(leaf_hashes(bytes)));
            pace(span.length as u64);
        }
        let hashes = layout.hashes(leaves);
        let length = hashes.as_flattened().len();
        let Some(tree) = self.shards.read(key, &[Span { offset: layout.shard_bytes(), length }])? else {
            return Ok(false);
        };
        pace(length as u64);
        let right = hashes.last().is_some() && hashes.last() == record.roots.get(usize::from(key.shard));
        Ok(right && tree.first().is_some_and(|tree| tree == hashes.as_flattened()))
    }

    /// Which shards of a batch are bad, by reading all that is kept of it.
    ///
    /// # Errors
    /// [`KeeperError`] when the index or the disk fails.
    pub fn scrub(&self, da_root: &Hash, mut pace: impl FnMut(u64)) -> Result<ShardSet, KeeperError> {
        let Some(record) = self.catalogue.record(da_root)? else { return Ok(ShardSet::default()) };
        let mut bad = ShardSet::default();
        for shard in record.kept.iter() {
            if !self.is_good(&record, &ShardKey { da_root: *da_root, shard }, &mut pace)? {
                bad = bad.with(shard);
            }
        }
        Ok(bad)
    }
}
