//! Taking shards, and letting them go: the one writer of disk and catalogue.
//!
//! ```text
//! Offer ─► may they? room? roots ─► da_root? ─► Have │ Refused │ Kept
//! Piece ─► file in staging/ ─► all there and root right ─► ready ─┐
//!                                                     commit: put, settle, one write of the catalogue ─► Kept, signed
//! ```
//!
//! Always true: nothing is signed before file, name and row are on the medium; what waits is bounded in bytes and offers, in all and for each agent, and goes
//! after a while. After an error nothing more is done: the process ends. Absent on purpose: the network, and any clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bpi_protocol::availability::attestation::{Acknowledgement, Batch, ShardSet};
use bpi_protocol::availability::placement::placement;
use bpi_protocol::availability::tree::da_root;
use bpi_protocol::consensus::ids::ChainId;
use bpi_protocol::frame::key::Signer;
use bpi_protocol::log::Hash;
use bpi_protocol::log::leaf::TenantId;
use bpi_protocol::mesh::pinner::{Answer, Described, Piece, Reason};

use crate::catalogue::{Catalogue, CatalogueError, Change, Record, without};
use crate::disk::{Disk, DiskError};
use crate::journal::{EntryKind, Event};
use crate::store::layout::{Layout, leaf_hashes};
use crate::store::{ShardKey, Shards, StoreError, name_of};

/// A promise that has so long to go, or less than what is asked for by so much, is not renewed: each is a durable write.
const RENEWED_AFTER_S: u64 = 3600;
/// How long a batch under legal hold is left before it is looked at again.
const HELD_S: u64 = 86_400;
const DAY_S: u64 = 86_400;

/// What holds for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Bytes that it may have here, trees included.
    pub quota_bytes: u64,
    /// How long its shards are kept.
    pub retention_days: u32,
    /// Nothing of it is let go.
    pub legal_hold: bool,
}

/// Whose batches an agent may bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Anybody's.
    All,
    /// Theirs.
    Some(BTreeSet<[u8; 16]>),
}

/// Who may do what here.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The chain that signatures are for.
    pub chain: ChainId,
    /// Agents and whose batches they bring.
    pub agents: BTreeMap<[u8; 32], Tenants>,
    /// Pinners that count for placement, this one too.
    pub pinners: Vec<[u8; 32]>,
    /// Whatever placement says.
    pub accept_any: bool,
    /// For tenants that have none of their own.
    pub tenant: TenantPolicy,
    /// By tenant.
    pub tenants: BTreeMap<[u8; 16], TenantPolicy>,
    /// Bounds of what waits.
    pub staging: Staging,
    /// Bytes of the disk that stay free.
    pub reserve_bytes: u64,
}

/// Bounds of what waits for its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staging {
    /// Bytes in all.
    pub bytes_max: u64,
    /// Bytes of one agent.
    pub agent_bytes_max: u64,
    /// Batches in all.
    pub offers_max: usize,
    /// Batches of one agent.
    pub agent_offers_max: usize,
    /// How long a batch may wait for its next piece, in s.
    pub wait_s: u64,
}

impl Policy {
    /// What holds for a tenant.
    pub fn of(&self, tenant: TenantId) -> TenantPolicy {
        self.tenants.get(&tenant.0).copied().unwrap_or(self.tenant)
    }
}

/// Why a keeper cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Where shards are.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is known of them.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

impl From<DiskError> for KeeperError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}

/// A shard whose pieces come.
#[derive(Debug)]
struct Assembly {
    /// Hashes of the leaves of each stripe that is there.
    chunks: Vec<Option<Vec<Hash>>>,
    missing: usize,
}

/// A batch of which pieces are awaited.
#[derive(Debug)]
struct Waiting {
    from: [u8; 32],
    described: Described,
    layout: Layout,
    shards: BTreeMap<u8, Assembly>,
    touched_s: u64,
}

impl Waiting {
    fn bytes(&self) -> u64 {
        self.layout.file_bytes() * self.shards.len() as u64
    }
}

/// A shard that is whole in staging.
#[derive(Debug)]
struct Ready {
    from: Option<[u8; 32]>,
    described: Described,
    key: ShardKey,
    path: PathBuf,
}

/// To whom, and what.
pub type Outgoing = ([u8; 32], Answer);

/// What is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Batches.
    pub offers: usize,
    /// Bytes that they have taken or will.
    pub bytes: u64,
}

/// The one writer.
pub struct Keeper {
    policy: Policy,
    signer: Arc<dyn Signer + Send + Sync>,
    disk: Arc<dyn Disk>,
    shards: Arc<dyn Shards>,
    catalogue: Arc<Catalogue>,
    staging: PathBuf,
    waiting: BTreeMap<Hash, Waiting>,
    ready: Vec<Ready>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

fn refused(da_root: Hash, reason: Reason, sentence: impl Into<String>) -> Answer {
    Answer::Refused { da_root, reason, sentence: sentence.into() }
}

impl Keeper {
    /// Begins with an empty `staging`: what an earlier process left there was never acknowledged.
    ///
    /// # Errors
    /// When the folder cannot be made or emptied.
    pub fn open(
        policy: Policy,
        signer: Arc<dyn Signer + Send + Sync>,
        disk: Arc<dyn Disk>,
        shards: Arc<dyn Shards>,
        catalogue: Arc<Catalogue>,
        staging: PathBuf,
    ) -> Result<Self, KeeperError> {
        disk.make_folder(&staging)?;
        for name in disk.names(&staging)? {
            disk.remove(&staging.join(name))?;
        }
        Ok(Self { policy, signer, disk, shards, catalogue, staging, waiting: BTreeMap::new(), ready: Vec::new() })
    }

    /// What waits for its pieces.
    pub fn under_way(&self) -> UnderWay {
        UnderWay { offers: self.waiting.len(), bytes: self.waiting.values().map(Waiting::bytes).sum() }
    }

    /// Takes an offer, and answers it.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn offer(&mut self, now_s: u64, from: [u8; 32], offer: Described) -> Result<Answer, KeeperError> {
        let root = da_root(&offer.batch.coding, &offer.roots);
        let wanted = offer.batch.da_root;
        if let Some(no) = self.stranger(&from, &offer).or_else(|| self.falsehood(&offer, &root)) {
            return Ok(no);
        }
        if self.catalogue.wrong(&wanted)?.is_some() {
            return Ok(refused(wanted, Reason::Wrong, "the batch is proved to be wrongly encoded"));
        }
        let record = self.catalogue.record(&wanted)?;
        let other = |batch: &Batch| *batch != offer.batch;
        let waits = self.waiting.get(&wanted).map(|waiting| &waiting.described.batch);
        if record.as_ref().map(|record| &record.batch).or(waits).is_some_and(other) {
            let sentence = "the same shards are kept for a batch of another tenant, or with other receipts";
            return Ok(refused(wanted, Reason::False, sentence));
        }
        let good = record.as_ref().map(Record::good).unwrap_or_default();
        let missing = without(offer.shards, good);
        if missing.is_empty() {
            self.renew(now_s, &wanted, record)?;
            return self.kept(&wanted);
        }
        let have: ShardSet = offer.shards.iter().filter(|shard| good.contains(*shard)).collect();
        // What was lost is owed, so it counts already.
        let new = without(missing, record.map(|record| record.kept).unwrap_or_default());
        if let Some(no) = self.too_much(&from, &offer, missing, new)? {
            return Ok(no);
        }
        self.await_pieces(now_s, from, offer, missing);
        Ok(Answer::Have { da_root: wanted, shards: have })
    }

    /// Who is not to bring this.
    fn stranger(&self, from: &[u8; 32], offer: &Described) -> Option<Answer> {
        let tenant = offer.batch.tenant;
        let may = match self.policy.agents.get(from) {
            None => false,
            Some(Tenants::All) => true,
            Some(Tenants::Some(tenants)) => tenants.contains(&tenant.0),
        };
        let sentence =
            || format!("agent {} may not bring batches of tenant {}", hex::encode(from), hex::encode(tenant.0));
        (!may).then(|| refused(offer.batch.da_root, Reason::Stranger, sentence()))
    }

    /// What does not hold in an offer.
    fn falsehood(&self, offer: &Described, root: &Hash) -> Option<Answer> {
        let wanted = offer.batch.da_root;
        let no = |sentence: String| Some(refused(wanted, Reason::False, sentence));
        if *root != wanted {
            return no(format!("the roots of the shards lead to {}", hex::encode(root)));
        }
        if offer.shards.is_empty() {
            return no("no shard is offered".to_owned());
        }
        let own = self.own(&wanted, offer.batch.coding.n());
        let foreign = without(offer.shards, own);
        if let Some(first) = foreign.iter().next().filter(|_| !self.policy.accept_any) {
            let count = foreign.len();
            return no(format!("{count} of the shards, the first of them {first}, belong to other pinners"));
        }
        None
    }

    /// Shards that placement gives this pinner.
    fn own(&self, da_root: &Hash, n: u16) -> ShardSet {
        let identity = self.signer.identity();
        let places = placement(da_root, n, &self.policy.pinners);
        places.into_iter().find(|(pinner, _)| *pinner == identity).map(|(_, shards)| shards).unwrap_or_default()
    }

    /// Why there is no room for an offer.
    fn too_much(
        &self,
        from: &[u8; 32],
        offer: &Described,
        missing: ShardSet,
        new: ShardSet,
    ) -> Result<Option<Answer>, KeeperError> {
        let (wanted, tenant) = (offer.batch.da_root, offer.batch.tenant);
        let bytes = |shards: ShardSet| Layout::of(&offer.batch.coding).file_bytes() * u64::from(shards.len());
        let others = || self.waiting.iter().filter(|(root, _)| **root != wanted).map(|(_, waiting)| waiting);
        let coming: u64 = others().filter(|each| each.described.batch.tenant == tenant).map(Waiting::bytes).sum();
        let (quota, used) = (self.policy.of(tenant).quota_bytes, self.catalogue.usage_of(tenant).bytes);
        let more = bytes(new);
        if used.saturating_add(coming).saturating_add(more) > quota {
            let tenant = hex::encode(tenant.0);
            let sentence = format!(
                "tenant {tenant} has {used} bytes here and {coming} under way, these shards are {more}, and its quota is {quota} bytes"
            );
            return Ok(Some(refused(wanted, Reason::Quota, sentence)));
        }
        let bounds = self.policy.staging;
        let more = bytes(missing);
        let full = |what: &str, used: u64, limit: u64| {
            refused(
                wanted,
                Reason::Full,
                format!("{used} {what} are under way, these are {more} bytes, and {limit} is the most; again later"),
            )
        };
        let own = || others().filter(|each| each.from == *from);
        let (all_bytes, own_bytes) =
            (others().map(Waiting::bytes).sum::<u64>(), own().map(Waiting::bytes).sum::<u64>());
        if all_bytes.saturating_add(more) > bounds.bytes_max {
            return Ok(Some(full("bytes", all_bytes, bounds.bytes_max)));
        }
        if own_bytes.saturating_add(more) > bounds.agent_bytes_max {
            return Ok(Some(full("bytes of this agent", own_bytes, bounds.agent_bytes_max)));
        }
        if others().count() >= bounds.offers_max {
            return Ok(Some(full("batches", others().count() as u64, bounds.offers_max as u64)));
        }
        if own().count() >= bounds.agent_offers_max {
            return Ok(Some(full("batches of this agent", own().count() as u64, bounds.agent_offers_max as u64)));
        }
        let free = match self.shards.free_bytes() {
            Ok(Some(free)) => free.min(self.disk.free_bytes(&self.staging)?),
            Ok(None) => self.disk.free_bytes(&self.staging)?,
            Err(error) => return Err(error.into()),
        };
        let needed = all_bytes.saturating_add(more).saturating_add(self.policy.reserve_bytes);
        if free < needed {
            let sentence = format!("{free} bytes of the disk are free, and {needed} have to be");
            return Ok(Some(refused(wanted, Reason::Full, sentence)));
        }
        Ok(None)
    }

    /// Begins to wait for pieces, or goes on with those that have come.
    fn await_pieces(&mut self, now_s: u64, from: [u8; 32], offer: Described, missing: ShardSet) {
        let coding = offer.batch.coding;
        let (root, stripes) = (offer.batch.da_root, coding.stripes() as usize);
        let waiting = self.waiting.entry(root).or_insert_with(|| Waiting {
            from,
            layout: Layout::of(&coding),
            described: offer,
            shards: BTreeMap::new(),
            touched_s: now_s,
        });
        (waiting.from, waiting.touched_s) = (from, now_s);
        for shard in missing.iter() {
            waiting.shards.entry(shard).or_insert_with(|| Assembly { chunks: vec![None; stripes], missing: stripes });
        }
    }

    /// Takes a piece. There is an answer only when something is wrong with it; [`Keeper::commit`] says what has become whole.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn piece(&mut self, now_s: u64, from: [u8; 32], piece: &Piece) -> Result<Option<Answer>, KeeperError> {
        let Piece { da_root, shard, stripe, bytes } = piece;
        let key = ShardKey { da_root: *da_root, shard: *shard };
        // What nobody waits for has come twice, or too late: whoever wants to know offers again.
        let Some(waiting) = self.waiting.get_mut(da_root).filter(|waiting| waiting.from == from) else {
            return Ok(None);
        };
        let Some(assembly) = waiting.shards.get_mut(shard) else { return Ok(None) };
        let coding = waiting.described.batch.coding;
        let wanted = coding.chunk_bytes(*stripe) as usize;
        if *stripe >= coding.stripes() || bytes.len() != wanted {
            let found = bytes.len();
            let sentence = format!("stripe {stripe} of shard {shard} has {found} bytes, and has to have {wanted}");
            return Ok(Some(refused(*da_root, Reason::False, sentence)));
        }
        let Some(chunk) = assembly.chunks.get_mut(*stripe as usize) else { return Ok(None) };
        waiting.touched_s = now_s;
        if chunk.is_some() {
            return Ok(None);
        }
        let path = self.staging.join(name_of(&key));
        if let Err(error) = self.disk.write_at(&path, coding.chunk_begin(*stripe), bytes) {
            return self.no_room(&key, error);
        }
        *chunk = Some(leaf_hashes(bytes).collect());
        assembly.missing -= 1;
        if assembly.missing > 0 {
            return Ok(None);
        }
        let Some(assembly) = waiting.shards.remove(shard) else { return Ok(None) };
        let (from, described, layout) = (waiting.from, waiting.described.clone(), waiting.layout.clone());
        if waiting.shards.is_empty() {
            self.waiting.remove(da_root);
        }
        let hashes = layout.hashes(assembly.chunks.into_iter().flatten().flatten().collect());
        let (found, wanted) = (hashes.last().copied().unwrap_or_default(), described.roots.get(usize::from(*shard)));
        if Some(&found) != wanted {
            self.disk.remove(&path)?;
            let sentence = format!("shard {shard} has the root {}", hex::encode(found));
            return Ok(Some(refused(*da_root, Reason::False, sentence)));
        }
        if let Err(error) = self.disk.write_at(&path, layout.shard_bytes(), hashes.as_flattened()) {
            return self.no_room(&key, error);
        }
        self.ready.push(Ready { from: Some(from), described, key, path });
        Ok(None)
    }

    /// A shard that the disk has no room for is let go, as if nobody had offered it.
    fn no_room(&mut self, key: &ShardKey, error: DiskError) -> Result<Option<Answer>, KeeperError> {
        if !error.is_full() {
            return Err(error.into());
        }
        self.forget(&key.da_root)?;
        Ok(Some(refused(key.da_root, Reason::Full, format!("the disk is full: {}", error.source))))
    }

    fn forget(&mut self, da_root: &Hash) -> Result<(), KeeperError> {
        let Some(waiting) = self.waiting.remove(da_root) else { return Ok(()) };
        for shard in waiting.shards.keys() {
            self.disk.remove(&self.staging.join(name_of(&ShardKey { da_root: *da_root, shard: *shard })))?;
        }
        Ok(())
    }

    /// A shard that was made anew in a file of its own, with its tree, whose root was checked. What was let go meanwhile stays so.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn repaired(&mut self, described: Described, key: ShardKey, path: PathBuf) -> Result<(), KeeperError> {
        if self.catalogue.record(&key.da_root)?.is_some_and(|record| record.kept.contains(key.shard)) {
            self.ready.push(Ready { from: None, described, key, path });
            return Ok(());
        }
        Ok(self.disk.remove(&path)?)
    }

    /// Makes all durable that has become whole, and acknowledges it.
    ///
    /// # Errors
    /// [`KeeperError`]: nothing was acknowledged, and nothing may be any more.
    pub fn commit(&mut self, now_s: u64) -> Result<Vec<Outgoing>, KeeperError> {
        let (mut out, mut put): (Vec<Outgoing>, BTreeMap<Hash, Vec<Ready>>) = (Vec::new(), BTreeMap::new());
        for ready in std::mem::take(&mut self.ready) {
            match self.shards.put(&ready.key, &ready.path) {
                Ok(()) => put.entry(ready.key.da_root).or_default().push(ready),
                Err(error) if error.is_passing() => {
                    tracing::warn!(%error, "a shard was not taken");
                    self.disk.remove(&ready.path)?;
                    let sentence = "the bucket of this pinner does not take it; again later";
                    out.extend(ready.from.map(|from| (from, refused(ready.key.da_root, Reason::Full, sentence))));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if put.is_empty() {
            return Ok(out);
        }
        self.shards.settle()?;
        let mut change = Change::default();
        for (root, shards) in &put {
            self.put_row(now_s, root, shards, &mut change)?;
        }
        self.catalogue.commit(change)?;
        for (root, shards) in put {
            let from: BTreeSet<[u8; 32]> = shards.iter().filter_map(|ready| ready.from).collect();
            let answer = self.kept(&root)?;
            out.extend(from.into_iter().map(|from| (from, answer.clone())));
        }
        Ok(out)
    }

    fn put_row(&self, now_s: u64, root: &Hash, shards: &[Ready], change: &mut Change) -> Result<(), KeeperError> {
        let Some(first) = shards.first() else { return Ok(()) };
        let before = self.catalogue.record(root)?;
        let batch = first.described.batch;
        let until_s = self.until_s(now_s, batch.tenant);
        let mut after = before.clone().unwrap_or_else(|| Record {
            agent: first.from.unwrap_or_default(),
            accepted_s: now_s,
            until_s,
            due_s: until_s,
            scrubbed_s: now_s,
            kept: ShardSet::default(),
            bad: ShardSet::default(),
            batch,
            roots: first.described.roots.clone(),
        });
        if shards.iter().any(|ready| ready.from.is_some()) {
            after.until_s = after.until_s.max(until_s);
            after.due_s = after.due_s.max(after.until_s);
        }
        for ready in shards {
            let shard = ready.key.shard;
            after.kept = after.kept.with(shard);
            after.bad = after.bad.iter().filter(|bad| *bad != shard).collect();
            let (kind, detail) = match ready.from {
                Some(from) => (EntryKind::Kept, format!("brought by {}", hex::encode(from))),
                None => (EntryKind::Repaired, "of the shards of other pinners".to_owned()),
            };
            change.log(Event { time_s: now_s, kind, da_root: *root, shard: Some(shard), detail });
        }
        change.record(root, before.as_ref(), Some(&after));
        Ok(())
    }

    fn until_s(&self, now_s: u64, tenant: TenantId) -> u64 {
        now_s.saturating_add(u64::from(self.policy.of(tenant).retention_days) * DAY_S)
    }

    /// Whoever asks again for what is here may need it for longer.
    fn renew(&self, now_s: u64, root: &Hash, record: Option<Record>) -> Result<(), KeeperError> {
        let Some(before) = record else { return Ok(()) };
        let until_s = self.until_s(now_s, before.batch.tenant);
        if until_s <= before.until_s.saturating_add(RENEWED_AFTER_S) {
            return Ok(());
        }
        let after = Record { until_s, due_s: before.due_s.max(until_s), ..before.clone() };
        let mut change = Change::default();
        change.record(root, Some(&before), Some(&after));
        Ok(self.catalogue.commit(change)?)
    }

    /// The signed word for all that is here and good of a batch.
    fn kept(&self, root: &Hash) -> Result<Answer, KeeperError> {
        let Some(record) = self.catalogue.record(root)? else {
            return Ok(refused(*root, Reason::Missing, "nothing is kept of the batch"));
        };
        let (shards, until_s) = (record.good(), record.until_s);
        let statement = Acknowledgement::statement(self.policy.chain, &record.batch, shards, until_s);
        let signature = self.signer.sign(&statement);
        let acknowledgement = Acknowledgement { pinner: self.signer.identity(), shards, until_s, signature };
        Ok(Answer::Kept { da_root: *root, acknowledgement: Box::new(acknowledgement) })
    }

    /// What was found of a batch by reading it: which of its shards are bad.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn scrubbed(&mut self, now_s: u64, root: &Hash, bad: ShardSet, whole: bool) -> Result<(), KeeperError> {
        let Some(before) = self.catalogue.record(root)? else { return Ok(()) };
        let bad: ShardSet = bad.iter().filter(|shard| before.kept.contains(*shard)).collect();
        let mut after = Record { bad: before.bad.union(bad), ..before.clone() };
        if whole {
            after.scrubbed_s = now_s;
        }
        if after == before {
            return Ok(());
        }
        let mut change = Change::default();
        for shard in without(bad, before.bad).iter() {
            let detail = "what is on the medium does not lead to the root of the shard, or is not there".to_owned();
            tracing::warn!(da_root = hex::encode(root), shard, "a shard is bad");
            change.log(Event {
                time_s: now_s,
                kind: EntryKind::ScrubbedBad,
                da_root: *root,
                shard: Some(shard),
                detail,
            });
        }
        change.record(root, Some(&before), Some(&after));
        Ok(self.catalogue.commit(change)?)
    }

    /// Remembers that a batch is proved to be wrongly encoded, for good.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn wrong(&mut self, now_s: u64, root: &Hash, proof: Vec<u8>) -> Result<(), KeeperError> {
        if self.catalogue.wrong(root)?.is_some() {
            return Ok(());
        }
        self.forget(root)?;
        let mut change = Change::default();
        change.wrong(root, proof);
        let detail = "its shards are no code word; it is refused from now on".to_owned();
        change.log(Event { time_s: now_s, kind: EntryKind::RefusedWrong, da_root: *root, shard: None, detail });
        Ok(self.catalogue.commit(change)?)
    }

    /// Lets go what is due, and forgets what waits for its pieces for too long. The rows go first: a file that nobody knows of is swept away later.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn release(&mut self, now_s: u64) -> Result<usize, KeeperError> {
        let wait_s = self.policy.staging.wait_s;
        let old = |waiting: &Waiting| waiting.touched_s.saturating_add(wait_s) < now_s;
        let late: Vec<Hash> = self.waiting.iter().filter(|(_, each)| old(each)).map(|(root, _)| *root).collect();
        late.iter().try_for_each(|root| self.forget(root))?;
        let mut released = 0;
        for root in self.catalogue.due(now_s)? {
            let Some(record) = self.catalogue.record(&root)? else { continue };
            let mut change = Change::default();
            if self.policy.of(record.batch.tenant).legal_hold {
                let after = Record { due_s: now_s.saturating_add(HELD_S), ..record.clone() };
                change.record(&root, Some(&record), Some(&after));
                self.catalogue.commit(change)?;
                continue;
            }
            for shard in record.kept.iter() {
                let detail = format!("kept until {}", record.until_s);
                change.log(Event {
                    time_s: now_s,
                    kind: EntryKind::Released,
                    da_root: root,
                    shard: Some(shard),
                    detail,
                });
            }
            change.record(&root, Some(&record), None);
            self.catalogue.commit(change)?;
            for shard in record.kept.iter() {
                match self.shards.remove(&ShardKey { da_root: root, shard }) {
                    Err(error) if error.is_passing() => tracing::warn!(%error, "a shard is swept away later"),
                    removed => removed?,
                }
            }
            released += 1;
        }
        Ok(released)
    }

    /// Takes files away that no row knows of: a crash has left them between their rename and their row. All whose `da_root` begins with a byte.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn sweep(&mut self, first: u8) -> Result<usize, KeeperError> {
        let mut swept = 0;
        for key in self.shards.list(first)? {
            let known = self.catalogue.record(&key.da_root)?.is_some_and(|record| record.kept.contains(key.shard));
            if !known {
                self.shards.remove(&key)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}
