//! Making a bad shard anew: from a pinner that has it too, else of any k others.
//!
//! ```text
//! Describe to all ─► who has what ─► the shard itself │ k others, each whole and its root right ─► one stripe at a time ─► root right? ─► Repaired
//!                                                                                                                          └─► WrongEncoding
//! ```
//!
//! Always true: a shard counts for nothing before its root is found right, since decoding a bent one gives wrong bytes and no error; what is in memory is a
//! stripe of k shards, whatever the batch's size. That is why it does not use `bpi_availability::codec::Rebuild`, which holds all n shards: a pinner has
//! 150 MiB. The multiplication is a byte at a time: a pinner repairs a few shards a day. Absent on purpose: haste. What cannot be repaired is tried again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpi_protocol::availability::attestation::ShardSet;
use bpi_protocol::availability::coding::{Coding, LEAF_BYTES};
use bpi_protocol::availability::field::{coefficients, combine};
use bpi_protocol::availability::opening::Opening;
use bpi_protocol::availability::placement::placement;
use bpi_protocol::availability::wrong::{WrongEncoding, data_bytes};
use bpi_protocol::log::Hash;
use bpi_protocol::mesh::pinner::{Answer, Described, Request};

use crate::answers::Reader;
use crate::catalogue::Record;
use crate::disk::{Disk, Span};
use crate::keeper::KeeperError;
use crate::store::ShardKey;
use crate::store::layout::{Layout, leaf_hashes};

/// Chunks that are asked for ahead: a MiB when k is 4.
const AHEAD: u32 = 4;
const LEAF: usize = LEAF_BYTES as usize;

/// Reaches other pinners. An answer may be lost, and may come from anybody.
pub trait Peers {
    /// Asks one of them.
    fn ask(&mut self, to: &[u8; 32], request: &Request);
    /// The next answer of any of them, if one comes in time. `None`: none did.
    fn next(&mut self, wait: Duration) -> Option<([u8; 32], Answer)>;
}

/// What became of a shard.
#[derive(Debug)]
pub enum Outcome {
    /// It is whole in a file of its own, with its tree.
    Repaired {
        /// Which.
        key: ShardKey,
        /// The file.
        path: PathBuf,
    },
    /// The batch is wrongly encoded.
    Wrong(Box<WrongEncoding>),
    /// Not enough of the others could be had.
    Few {
        /// Could be had.
        found: u16,
        /// Needed.
        wanted: u16,
    },
    /// The others say another shard than the batch commits to, and the one that it commits to is nowhere: there is no proof, and no repair.
    Gone,
}

/// Repairs shards of one pinner.
#[derive(Debug)]
pub struct Repairer<P> {
    /// The others.
    pub peers: P,
    /// Who they are.
    pub known: Vec<[u8; 32]>,
    /// What is here.
    pub reader: Reader,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// A folder for files on their way, on the file system of the shards.
    pub folder: PathBuf,
    /// How long an answer is waited for.
    pub wait: Duration,
}

/// A shard that is whole: here, or in a file on its way.
enum Source {
    Own,
    File(PathBuf),
}

type Sources = BTreeMap<u8, Source>;

impl<P: Peers> Repairer<P> {
    /// Makes the folder, empty.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self) -> Result<(), KeeperError> {
        self.disk.make_folder(&self.folder)?;
        for name in self.disk.names(&self.folder)? {
            self.disk.remove(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// Tries to make one bad shard of a batch anew.
    ///
    /// # Errors
    /// [`KeeperError`] when disk or index fail; not for what others do.
    pub fn repair(&mut self, record: &Record, shard: u8) -> Result<Outcome, KeeperError> {
        let mut files = Vec::new();
        let outcome = self.try_repair(record, shard, &mut files);
        let kept = match &outcome {
            Ok(Outcome::Repaired { path, .. }) => Some(path.clone()),
            _ => None,
        };
        for file in files.iter().filter(|file| Some(*file) != kept.as_ref()) {
            self.disk.remove(file)?;
        }
        outcome
    }

    fn try_repair(&mut self, record: &Record, target: u8, files: &mut Vec<PathBuf>) -> Result<Outcome, KeeperError> {
        let (da_root, coding) = (record.batch.da_root, record.batch.coding);
        let key = ShardKey { da_root, shard: target };
        let offers = self.who_has(record);
        for peer in holders(&offers, target) {
            if let Some(path) = self.fetch(record, target, &peer, files)? {
                return Ok(Outcome::Repaired { key, path });
            }
        }
        let mut sources = self.own(record, target)?;
        let k = usize::from(coding.k());
        self.gather(record, target, &offers, k, &mut sources, files)?;
        if sources.len() < k {
            return Ok(Outcome::Few { found: sources.len() as u16, wanted: coding.k() });
        }
        let points: Vec<u8> = sources.keys().copied().take(k).collect();
        let path = self.folder.join(format!("made.{}.{target}", hex::encode(da_root)));
        files.push(path.clone());
        self.disk.remove(&path)?;
        if self.compute(record, &points, &sources, target, &path)? {
            return Ok(Outcome::Repaired { key, path });
        }
        // The batch is wrongly encoded. Whoever has a shard that does not fit to these helps to show it.
        if let Some(proof) = self.behind_the_end(record, &points, &sources)? {
            return Ok(Outcome::Wrong(Box::new(proof)));
        }
        self.gather(record, target, &offers, usize::from(coding.n()), &mut sources, files)?;
        for extra in sources.keys().filter(|shard| !points.contains(shard)) {
            if let Some(proof) = self.no_code_word(record, &points, &sources, *extra)? {
                return Ok(Outcome::Wrong(Box::new(proof)));
            }
        }
        Ok(Outcome::Gone)
    }

    /// What of this batch is here and good.
    fn own(&self, record: &Record, target: u8) -> Result<Sources, KeeperError> {
        let mut sources = Sources::new();
        for shard in record.good().iter().filter(|shard| *shard != target).take(record.batch.coding.k().into()) {
            if self.reader.is_good(record, &ShardKey { da_root: record.batch.da_root, shard }, |_| {})? {
                sources.insert(shard, Source::Own);
            }
        }
        Ok(sources)
    }

    /// Who says to have what, those first that placement prefers.
    fn who_has(&mut self, record: &Record) -> Vec<([u8; 32], ShardSet)> {
        let da_root = record.batch.da_root;
        let order: Vec<[u8; 32]> =
            placement(&da_root, record.batch.coding.n(), &self.known).into_iter().map(|(peer, _)| peer).collect();
        order.iter().for_each(|peer| self.peers.ask(peer, &Request::Describe { da_root }));
        let until = Instant::now() + self.wait;
        let mut said: BTreeMap<[u8; 32], ShardSet> = BTreeMap::new();
        while said.len() < order.len() {
            let left = until.saturating_duration_since(Instant::now());
            let Some((from, answer)) = self.peers.next(left) else { break };
            let shards = match answer {
                Answer::Described(described) if described.batch.da_root == da_root => described.shards,
                Answer::Refused { da_root: of, .. } if of == da_root => ShardSet::default(),
                _ => continue,
            };
            if order.contains(&from) {
                said.insert(from, shards);
            }
        }
        order.into_iter().filter_map(|peer| said.get(&peer).map(|shards| (peer, *shards))).collect()
    }

    /// Fetches shards until there are so many.
    fn gather(
        &mut self,
        record: &Record,
        target: u8,
        offers: &[([u8; 32], ShardSet)],
        count: usize,
        sources: &mut Sources,
        files: &mut Vec<PathBuf>,
    ) -> Result<(), KeeperError> {
        for shard in (0..=255u8).take(record.batch.coding.n().into()).filter(|shard| *shard != target) {
            if sources.len() >= count {
                break;
            }
            if sources.contains_key(&shard) {
                continue;
            }
            for peer in holders(offers, shard) {
                if let Some(path) = self.fetch(record, shard, &peer, files)? {
                    sources.insert(shard, Source::File(path));
                    break;
                }
            }
        }
        Ok(())
    }

    /// A shard of another pinner in a file, with its tree. `None`: it did not give it, or gave something else.
    fn fetch(
        &mut self,
        record: &Record,
        shard: u8,
        peer: &[u8; 32],
        files: &mut Vec<PathBuf>,
    ) -> Result<Option<PathBuf>, KeeperError> {
        let (da_root, coding) = (record.batch.da_root, record.batch.coding);
        let path = self.folder.join(format!("fetched.{}.{shard}", hex::encode(da_root)));
        files.push(path.clone());
        self.disk.remove(&path)?;
        let stripes = coding.stripes();
        let mut chunks: Vec<Option<Vec<Hash>>> = vec![None; stripes as usize];
        let (mut missing, mut asked) = (stripes, 0);
        while missing > 0 {
            while asked < stripes && asked < stripes - missing + AHEAD {
                self.peers.ask(peer, &Request::Fetch { da_root, shard, stripe: asked });
                asked += 1;
            }
            let Some((from, answer)) = self.peers.next(self.wait) else { return Ok(None) };
            match answer {
                _ if from != *peer => {}
                Answer::Piece(piece) if piece.da_root == da_root && piece.shard == shard => {
                    let chunk = chunks.get_mut(piece.stripe as usize).filter(|chunk| chunk.is_none());
                    let Some(chunk) = chunk else { continue };
                    if piece.bytes.len() != coding.chunk_bytes(piece.stripe) as usize {
                        return Ok(None);
                    }
                    self.disk.write_at(&path, coding.chunk_begin(piece.stripe), &piece.bytes)?;
                    *chunk = Some(leaf_hashes(&piece.bytes).collect());
                    missing -= 1;
                }
                Answer::Refused { da_root: of, .. } if of == da_root => return Ok(None),
                _ => {}
            }
        }
        let leaves = chunks.into_iter().flatten().flatten().collect();
        Ok(self.finish(record, shard, &path, leaves)?.then_some(path))
    }

    /// Writes the tree behind a shard whose bytes are in a file. False: its root is another one.
    fn finish(&self, record: &Record, shard: u8, path: &Path, leaves: Vec<Hash>) -> Result<bool, KeeperError> {
        let layout = Layout::of(&record.batch.coding);
        let hashes = layout.hashes(leaves);
        if hashes.last() != record.roots.get(usize::from(shard)) {
            return Ok(false);
        }
        self.disk.write_at(path, layout.shard_bytes(), hashes.as_flattened())?;
        Ok(true)
    }

    /// The chunks of a stripe of some shards, in their order. `None`: one cannot be read any more.
    fn rows(
        &self,
        record: &Record,
        sources: &Sources,
        shards: &[u8],
        stripe: u32,
    ) -> Result<Option<Vec<Vec<u8>>>, KeeperError> {
        let coding = record.batch.coding;
        let mut rows = Vec::with_capacity(shards.len());
        for shard in shards {
            let key = ShardKey { da_root: record.batch.da_root, shard: *shard };
            let span = Span { offset: coding.chunk_begin(stripe), length: coding.chunk_bytes(stripe) as usize };
            let row = match sources.get(shard) {
                Some(Source::Own) => self.reader.chunk(record, &key, stripe)?,
                Some(Source::File(path)) => self.disk.read_at(path, &[span])?.and_then(|mut bytes| bytes.pop()),
                None => None,
            };
            let Some(row) = row else { return Ok(None) };
            rows.push(row);
        }
        Ok(Some(rows))
    }

    /// What k shards say of another one, in a file with its tree. False: it has another root than the batch commits to.
    fn compute(
        &self,
        record: &Record,
        points: &[u8],
        sources: &Sources,
        target: u8,
        path: &Path,
    ) -> Result<bool, KeeperError> {
        let (coding, weights) = (record.batch.coding, coefficients(points, target));
        let mut leaves = Vec::with_capacity(coding.leaves() as usize);
        for stripe in 0..coding.stripes() {
            let Some(rows) = self.rows(record, sources, points, stripe)? else { return Ok(false) };
            let chunk = combine(&weights, rows.iter().map(Vec::as_slice));
            self.disk.write_at(path, coding.chunk_begin(stripe), &chunk)?;
            leaves.extend(leaf_hashes(&chunk));
        }
        self.finish(record, target, path, leaves)
    }

    /// Shows that a shard is not what k others say of it. `None`: it is.
    fn no_code_word(
        &self,
        record: &Record,
        points: &[u8],
        sources: &Sources,
        extra: u8,
    ) -> Result<Option<WrongEncoding>, KeeperError> {
        let (coding, weights) = (record.batch.coding, coefficients(points, extra));
        for stripe in 0..coding.stripes() {
            let said = self.rows(record, sources, points, stripe)?;
            let (Some(rows), Some(found)) = (said, self.rows(record, sources, &[extra], stripe)?) else {
                return Ok(None);
            };
            let said = combine(&weights, rows.iter().map(Vec::as_slice));
            let Some(found) = found.first() else { return Ok(None) };
            if let Some(at) = said.chunks(LEAF).zip(found.chunks(LEAF)).position(|(said, found)| said != found) {
                let leaf = (coding.chunk_begin(stripe) as usize / LEAF + at) as u32;
                let mut shards = points.to_vec();
                shards.push(extra);
                shards.sort_unstable();
                return self.proof(record, sources, &shards, leaf);
            }
        }
        Ok(None)
    }

    /// Shows that there is something behind the end of the data. `None`: there is not.
    fn behind_the_end(
        &self,
        record: &Record,
        points: &[u8],
        sources: &Sources,
    ) -> Result<Option<WrongEncoding>, KeeperError> {
        let coding = record.batch.coding;
        let stripe = coding.stripes() - 1;
        let Some(rows) = self.rows(record, sources, points, stripe)? else { return Ok(None) };
        let first = coding.chunk_begin(stripe) as usize / LEAF;
        for data in (0..=255u8).take(coding.k().into()) {
            let said = combine(&coefficients(points, data), rows.iter().map(Vec::as_slice));
            let goes_on = |(at, leaf): (usize, &[u8])| {
                let used = data_bytes(&coding, data, (first + at) as u32);
                leaf.iter().skip(used).any(|byte| *byte != 0)
            };
            if let Some(at) = said.chunks(LEAF).enumerate().position(goes_on) {
                return self.proof(record, sources, points, (first + at) as u32);
            }
        }
        Ok(None)
    }

    /// Leaves at one offset, each with its way. `None`: it shows nothing, which a fault of ours would be.
    fn proof(
        &self,
        record: &Record,
        sources: &Sources,
        shards: &[u8],
        leaf: u32,
    ) -> Result<Option<WrongEncoding>, KeeperError> {
        let (coding, da_root) = (record.batch.coding, record.batch.da_root);
        let mut openings: Vec<Opening> = Vec::with_capacity(shards.len());
        for shard in shards {
            let key = ShardKey { da_root, shard: *shard };
            let opening = match sources.get(shard) {
                Some(Source::Own) => self.reader.opening(record, &key, leaf)?,
                Some(Source::File(path)) => {
                    self.reader.opening_by(record, &key, leaf, |spans| Ok(self.disk.read_at(path, spans)?))?
                }
                None => None,
            };
            let Some(opening) = opening else { return Ok(None) };
            openings.push(opening);
        }
        let proof = WrongEncoding { coding, da_root, openings };
        Ok(proof.check().is_ok().then_some(proof))
    }
}

/// Those who say to have a shard.
fn holders(offers: &[([u8; 32], ShardSet)], shard: u8) -> Vec<[u8; 32]> {
    offers.iter().filter(|(_, shards)| shards.contains(shard)).map(|(peer, _)| *peer).collect()
}

/// What a pinner tells of a batch.
pub fn described(record: &Record) -> Described {
    Described { batch: record.batch, shards: record.good(), roots: record.roots.clone() }
}

/// Bytes of disk that a repair takes at most: k shards and one more, with their trees; all n when the batch is wrongly encoded.
pub fn bytes_max(coding: &Coding) -> u64 {
    Layout::of(coding).file_bytes() * u64::from(coding.n())
}
