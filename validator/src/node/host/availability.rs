//! Attestations and proofs of wrong encodings between nodes, those of headers that were missed, and random probes of pinners.
//!
//! ```text
//! <evidence>/wrong-encodings/<da_root>.wrong-encoding      the proof, durable before it counts
//! ```
//!
//! A node that has logged a header from its leaves alone, because its contents had not come, does not have its attestations: it asks peers for them, and
//! takes what is under the header's `da_root`. Until they come it says nothing of these batches. After a start it looks for such headers among the last
//! [`LOOKED_THROUGH`]; what is older stays unknown to it, and its peers prove it.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use bpi_protocol::availability::attestation::{Attestation, AttestationError};
use bpi_protocol::availability::wrong::WrongEncoding;
use bpi_protocol::consensus::header::Header;
use bpi_protocol::consensus::ids::Height;
use bpi_protocol::log::{EMPTY_ROOT, Hash};
use bpi_protocol::mesh::pinner;
use bpi_protocol::mesh::validator::{Answer, Reason};

use super::super::config::ProbeConfig;
use super::super::frame::Frame;
use super::super::network::Network;
use super::super::now_ms;
use super::{Host, HostError};
use crate::contents::attestations::{AttestationRefusal, BatchId, root_of};
use crate::contents::leaf::TenantId;
use crate::core::Peer;
use crate::durable::{Durable, DurableError};
use crate::probe::{Probe, Prober};

/// Headers that are looked through at a start for attestations that have not come.
const LOOKED_THROUGH: u64 = 4_096;
/// Heights whose attestations are waited for, at most; the oldest are given up.
const MISSING_MAX: usize = 4_096;
/// Heights that are asked for at once, of one peer.
const ASKED_AT_ONCE: usize = 16;
/// Between two such times, in ms.
const ASK_EVERY_MS: u64 = 500;
/// Proofs that are kept, at most, of 117 KiB at most; and those of batches that no header attests and that do not wait here, which anybody can make.
const WRONG_MAX: usize = 1_024;
const WRONG_OF_NOBODY_MAX: usize = 256;
const FOLDER: &str = "wrong-encodings";
const SUFFIX: &str = ".wrong-encoding";
/// Tenants that are looked through for one that is wanted: as many as have had the same shards acknowledged, so hardly ever more than one.
const TENANTS_OF_ROOT_MAX: usize = 64;
/// Throws for a batch that somebody still has to keep, at most: where one of ten is, four probes of five go out.
const THROWS_MAX: usize = 16;

/// What a node has of attestations beside its disk and what waits.
#[derive(Debug)]
pub(super) struct Availability {
    /// Final headers whose attestations have not come.
    missing: BTreeSet<Height>,
    /// Who was asked last.
    asked: usize,
    ask_again_ms: u64,
    /// Proofs that are kept, and those among them of batches that nobody here knew.
    wrong: usize,
    wrong_of_nobody: usize,
    rules: ProbeConfig,
    pub(super) prober: Prober,
    /// When the next probe goes out. `None`: none do.
    probe_ms: Option<u64>,
    /// Dice that were thrown at once.
    dice: VecDeque<u8>,
}

impl Availability {
    /// As the disk has it, with the batches that are proved to be wrong.
    pub(super) fn open(
        durable: &Durable,
        logged: Height,
        evidence: &Path,
        rules: ProbeConfig,
        pinners: &BTreeSet<[u8; 32]>,
    ) -> Result<(Self, Vec<Hash>), HostError> {
        let mut missing = BTreeSet::new();
        for height in (logged.0.saturating_sub(LOOKED_THROUGH).max(1)..=logged.0).map(Height) {
            let Some((header, _)) = durable.get(height)? else { continue };
            let has_some = header.da_root != EMPTY_ROOT;
            if has_some && durable.headers().attestations(height).map_err(DurableError::from)?.is_none() {
                missing.insert(height);
            }
        }
        let wrong =
            read_wrong(evidence).map_err(|source| HostError::Evidence { path: evidence.to_path_buf(), source })?;
        let probe_ms = (rules.per_s > 0 && !pinners.is_empty()).then_some(0);
        let prober = Prober::new(pinners.iter().copied(), rules.wait_ms);
        let availability = Self {
            missing,
            asked: 0,
            ask_again_ms: 0,
            wrong: wrong.len(),
            wrong_of_nobody: 0,
            rules,
            prober,
            probe_ms,
            dice: VecDeque::new(),
        };
        Ok((availability, wrong))
    }

    /// When something is due, at the latest.
    pub(super) fn due_ms(&self) -> u64 {
        let ask_again_ms = if self.missing.is_empty() { u64::MAX } else { self.ask_again_ms };
        self.probe_ms.unwrap_or(u64::MAX).min(ask_again_ms)
    }
}

impl<N: Network> Host<N> {
    /// Takes an attestation in, if no final header has it. Why not, otherwise.
    pub(super) fn admit_attestation(
        &mut self,
        attestation: Attestation,
    ) -> Result<Option<AttestationRefusal>, HostError> {
        let attested = self.durable.headers().attested(&BatchId::of(&attestation)).map_err(DurableError::from)?;
        let refusal = match attested {
            Some((height, _)) => Some(AttestationRefusal::Included { height }),
            None => self.contents.attest(attestation, now_ms()).err(),
        };
        refusal.iter().for_each(|refusal| self.metrics.refused(refusal.name()));
        Ok(refusal)
    }

    /// Attestations of a peer. Clocks differ and headers come in between, so only what can never have been right is a fault.
    pub(super) fn hear_attestations(&mut self, from: Peer, all: Vec<Attestation>) -> Result<(), HostError> {
        for attestation in all {
            let refusal = self.admit_attestation(attestation)?;
            if let Some(AttestationRefusal::False(error)) = refusal
                && !matches!(error, AttestationError::Short { .. })
            {
                self.network.blame(from, "attestation");
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps what a final header attests, before the header itself.
    pub(super) fn keep_attestations(&mut self, header: &Header, all: &[Attestation]) -> Result<(), HostError> {
        if all.is_empty() {
            return Ok(());
        }
        self.durable.keep_attestations(header.height, all)?;
        self.contents.attested(all);
        self.metrics.attested.inc_by(all.len() as u64);
        // They were proved wrong too late, or others had no proof yet: it is told, and no more can be done.
        for attestation in all.iter().filter(|attestation| self.contents.is_wrong(&attestation.batch.da_root)) {
            let da_root = hex::encode(attestation.batch.da_root);
            tracing::error!(height = %header.height, da_root, "a final header attests a batch that is proved to be wrongly encoded");
            self.metrics.wrong_attested.inc();
        }
        Ok(())
    }

    /// A final header was logged by its leaves alone.
    pub(super) fn misses_attestations(&mut self, header: &Header) {
        if header.da_root != EMPTY_ROOT && header.height > Height(0) {
            self.availability.missing.insert(header.height);
            while self.availability.missing.len() > MISSING_MAX {
                self.availability.missing.pop_first();
            }
        }
    }

    pub(super) fn serve_attested(&self, to: Peer, height: Height) -> Result<(), HostError> {
        if let Some(attestations) = self.durable.headers().attestations(height).map_err(DurableError::from)? {
            self.network.send(to, &Frame::Attested { height, attestations });
        }
        Ok(())
    }

    /// What a peer says that a header attests.
    pub(super) fn take_attested(&mut self, from: Peer, height: Height, all: Vec<Attestation>) -> Result<(), HostError> {
        let kept = match self.availability.missing.contains(&height) {
            true => self.durable.get(height)?,
            false => None,
        };
        let Some((header, _)) = kept else { return Ok(()) };
        if root_of(&all) != header.da_root {
            self.network.blame(from, "attested");
            return Ok(());
        }
        self.keep_attestations(&header, &all)?;
        self.availability.missing.remove(&height);
        Ok(())
    }

    /// Takes a proof that a batch is wrongly encoded, tells all others, and what became of it.
    pub(super) fn take_wrong(&mut self, from: Option<Peer>, proof: &[u8]) -> Result<Option<Answer>, HostError> {
        let checked = WrongEncoding::from_bytes(proof).ok().filter(|wrong| wrong.check().is_ok());
        let Some(WrongEncoding { da_root, .. }) = checked else {
            self.metrics.refused("wrong-encoding-false");
            from.iter().for_each(|peer| self.network.blame(*peer, "wrong-encoding"));
            // Bytes that name no batch are not answered.
            let named = WrongEncoding::from_bytes(proof).ok().map(|wrong| wrong.da_root);
            return Ok(named.map(|da_root| Answer::Attest { da_root, reason: Reason::False }));
        };
        let answered = |reason| Ok(Some(Answer::Attest { da_root, reason }));
        if self.contents.is_wrong(&da_root) {
            return answered(Reason::Wrong);
        }
        let attested = self.attested_of_root(&da_root, |_| true)?;
        let is_known = attested.is_some() || self.contents.waits(&da_root);
        if self.availability.wrong >= WRONG_MAX
            || (!is_known && self.availability.wrong_of_nobody >= WRONG_OF_NOBODY_MAX)
        {
            self.metrics.refused("wrong-encodings-full");
            return answered(Reason::Full);
        }
        let kept = write_wrong(&self.evidence, &da_root, proof);
        kept.map_err(|source| HostError::Evidence { path: self.evidence.clone(), source })?;
        self.availability.wrong += 1;
        self.availability.wrong_of_nobody += usize::from(!is_known);
        self.contents.refuse(da_root);
        self.metrics.wrong_encodings.inc();
        tracing::warn!(da_root = hex::encode(da_root), "a batch is proved to be wrongly encoded");
        if let Some((height, _)) = attested {
            tracing::error!(%height, da_root = hex::encode(da_root), "a final header attests a batch that is proved to be wrongly encoded");
            self.metrics.wrong_attested.inc();
        }
        self.network.broadcast(&Frame::WrongEncoding(proof.to_vec()));
        answered(Reason::Wrong)
    }

    /// Asks for what is missing, and looks at what pinners keep.
    pub(super) fn tick_availability(&mut self, now: u64) -> Result<(), HostError> {
        if !self.availability.missing.is_empty() && now >= self.availability.ask_again_ms && !self.peers.is_empty() {
            self.availability.ask_again_ms = now + ASK_EVERY_MS;
            self.availability.asked = (self.availability.asked + 1) % self.peers.len();
            let peer = Peer(self.availability.asked as u32);
            for height in self.availability.missing.iter().take(ASKED_AT_ONCE) {
                self.network.send(peer, &Frame::AttestedWanted { height: *height });
            }
        }
        for pinner in self.availability.prober.expire(now) {
            self.metrics.probed(&pinner, "unanswered");
        }
        if self.availability.probe_ms.is_some_and(|at| at <= now) {
            self.availability.probe_ms = Some(now + 1000 / u64::from(self.availability.rules.per_s.max(1)));
            self.probe(now)?;
        }
        Ok(())
    }

    /// Asks a pinner for a leaf, all of them by dice: of an attested batch, of a shard, of who keeps it.
    fn probe(&mut self, now: u64) -> Result<(), HostError> {
        for _ in 0..THROWS_MAX {
            let (Some(place), Some(dice)) = (self.throw::<32>(), self.throw::<24>()) else { return Ok(()) };
            let Some(attestation) = self.attested_after(&place)? else { return Ok(()) };
            let die = |at: usize| dice[8 * at..8 * at + 8].iter().fold(0, |die, byte| die << 8 | u64::from(*byte));
            let Some(probe) = Probe::choose(&attestation, [0, 1, 2].map(die), now / 1000) else { continue };
            if self.availability.prober.begin(probe, now) {
                self.network.ask_pinner(&probe.pinner, &probe.request());
            }
            return Ok(());
        }
        Ok(())
    }

    fn attested_after(&self, place: &Hash) -> Result<Option<Attestation>, DurableError> {
        let headers = self.durable.headers();
        let from = BatchId { da_root: *place, tenant: TenantId([0; 16]) };
        let found = match headers.attested_from(&from)? {
            Some(found) => Some(found),
            None => headers.attested_from(&BatchId::default())?,
        };
        let Some(batch) = found else { return Ok(None) };
        let Some((height, index)) = headers.attested(&batch)? else { return Ok(None) };
        let all = headers.attestations(height)?.unwrap_or_default();
        Ok(all.into_iter().nth(index.into()))
    }

    /// Where a batch with these shards is attested, of a tenant that is wanted. `None`: nowhere that is known here.
    pub(super) fn attested_of_root(
        &self,
        da_root: &Hash,
        is_wanted: impl Fn(&TenantId) -> bool,
    ) -> Result<Option<(Height, u16)>, DurableError> {
        let mut from = BatchId { da_root: *da_root, tenant: TenantId([0; 16]) };
        for _ in 0..TENANTS_OF_ROOT_MAX {
            let Some(found) = self.durable.headers().attested_from(&from)?.filter(|found| found.da_root == *da_root)
            else {
                return Ok(None);
            };
            if is_wanted(&found.tenant) {
                return Ok(self.durable.headers().attested(&found)?);
            }
            let Some(next) = u128::from_be_bytes(found.tenant.0).checked_add(1) else { return Ok(None) };
            from.tenant = TenantId(next.to_be_bytes());
        }
        Ok(None)
    }

    /// Random bytes. `None`: the kernel has none, and then nothing is probed.
    fn throw<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let dice = &mut self.availability.dice;
        if dice.len() < COUNT {
            let mut bytes = [0; 1024];
            if let Err(error) = getrandom::fill(&mut bytes) {
                tracing::warn!(%error, "no random bytes: nothing is probed");
                return None;
            }
            dice.extend(bytes);
        }
        let mut out = [0; COUNT];
        out.iter_mut().zip(dice.drain(..COUNT)).for_each(|(to, from)| *to = from);
        Some(out)
    }

    /// What a pinner has answered.
    pub(super) fn hear_pinner(&mut self, pinner: [u8; 32], answer: &pinner::Answer) {
        match self.availability.prober.hear(pinner, answer) {
            Some(verdict) => self.metrics.probed(&pinner, verdict.name()),
            None => self.metrics.refused("pinner-unasked"),
        }
    }
}

/// The batches that there are proofs of in a folder. A file with another name is passed over, as one that a crash left unfinished.
fn read_wrong(evidence: &Path) -> io::Result<Vec<Hash>> {
    let entries = match fs::read_dir(evidence.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut wrong = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let mut da_root = [0; 32];
        if hex::decode_to_slice(name, &mut da_root).is_ok() && wrong.len() < WRONG_MAX {
            wrong.push(da_root);
        }
    }
    Ok(wrong)
}

/// Keeps a proof, durably: a file, and its name.
fn write_wrong(evidence: &Path, da_root: &Hash, proof: &[u8]) -> io::Result<()> {
    let folder = evidence.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}{SUFFIX}", hex::encode(da_root)));
    let unfinished = path.with_extension("unfinished");
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(proof)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    for folder in [&folder, evidence, crate::durable::folder_of(evidence)] {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}
