//! Attestations of batches: which ones a header may carry, and those that wait for one.
//!
//! A batch is named by its `da_root` **and** its tenant: who has another's shards could have them acknowledged as its own, and must not stand in the way.
//! What a header may carry follows from the header and the genesis, so all voters judge alike: enough shards are acknowledged by pinners of the genesis,
//! until long enough after the header's time, and no batch is in a header twice. Across headers a batch may come again: not every node has all attestations.
//!
//! Always true of [`Waiting`]: what is in it was checked, signatures too, so a header that carries it costs a comparison; a batch waits once; neither all
//! tenants together nor any one of them holds more than its bound, and each has its turn, as leaves have ([`super::mempool`]). Absent on purpose: the
//! disk. Who attests says it again until it is proved.

use std::collections::{BTreeMap, BTreeSet};

use bpi_protocol::availability::attestation::{ACKNOWLEDGEMENT_BYTES, Attestation, AttestationError, BATCH_BYTES};
use bpi_protocol::consensus::ids::{ChainId, Height, TimeMs};
use bpi_protocol::log::{Frontier, Hash, Log, LogError, proof::Inclusion};

use super::leaf::TenantId;

/// Attestations of a header, at most: 256 in a second at four headers.
pub const ATTESTATIONS_MAX: usize = 64;
/// Bytes of all attestations of a header, at most: 37 with twelve pinners, 7 with 64. So a header has 481 signatures of pinners at most, 25 ms of a core.
pub const ATTESTATIONS_BYTES_MAX: usize = 64 * 1024;
/// Attestations that wait, at most: 9 MB of the longest.
const WAITING_MAX: usize = 1024;
/// Attestations of one tenant that wait, at most.
const WAITING_OF_TENANT_MAX: usize = 128;

/// Who counts as a pinner on a chain, and how long shards have to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinnerRules {
    /// What acknowledgements are signed for.
    pub chain: ChainId,
    /// How long after a header's time, in s.
    pub kept_s_min: u64,
    /// Ed25519 identities. Without any, no attestation holds.
    pub pinners: BTreeSet<[u8; 32]>,
}

impl PinnerRules {
    /// Until when a header of a time wants shards to be kept, in s since 1970.
    pub fn wanted_s(&self, time: TimeMs) -> u64 {
        (time.0 / 1000).saturating_add(self.kept_s_min)
    }

    /// Checks that a header of a time may carry an attestation.
    ///
    /// # Errors
    /// [`AttestationError`].
    pub fn check(&self, attestation: &Attestation, time: TimeMs) -> Result<(), AttestationError> {
        attestation.check(self.chain, self.wanted_s(time), |pinner| self.pinners.contains(pinner))
    }
}

/// Names a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// What commits to its shards.
    pub da_root: Hash,
    /// Whose it is.
    pub tenant: TenantId,
}

impl BatchId {
    /// That of an attestation.
    pub fn of(attestation: &Attestation) -> Self {
        Self { da_root: attestation.batch.da_root, tenant: attestation.batch.tenant }
    }
}

/// Bytes of an attestation.
pub fn bytes_of(attestation: &Attestation) -> usize {
    2 + BATCH_BYTES + attestation.acknowledgements.len() * ACKNOWLEDGEMENT_BYTES
}

/// The root that stands in the header: RFC 9162, section 2.1.1, over [`Attestation::leaf_hash`].
pub fn root_of(attestations: &[Attestation]) -> Hash {
    let mut tree = Frontier::new();
    for attestation in attestations {
        tree.append(attestation.leaf_hash());
    }
    tree.head().root
}

/// The way from one of a header's attestations to that root.
///
/// # Errors
/// When there are not so many.
pub fn prove(attestations: &[Attestation], index: u64) -> Result<Inclusion, LogError> {
    let mut tree = Log::new();
    for attestation in attestations {
        tree.append(attestation.leaf_hash());
    }
    tree.prove_inclusion(index, tree.size())
}

/// The first batch that is in a list twice.
pub fn first_twice(attestations: &[Attestation]) -> Option<BatchId> {
    let mut seen = BTreeSet::new();
    attestations.iter().map(BatchId::of).find(|batch| !seen.insert(*batch))
}

/// Why an attestation was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestationRefusal {
    /// All tenants together have too many.
    #[error("{WAITING_MAX} attestations are waiting already; send this one again in a moment")]
    Full,
    /// This tenant has too many.
    #[error("{WAITING_OF_TENANT_MAX} attestations of this tenant are waiting already; send this one again in a moment")]
    TenantFull,
    /// It waits already.
    #[error("an attestation of this batch is waiting already")]
    Duplicate,
    /// A header has it.
    #[error("the header of height {height} commits to this batch")]
    Included {
        /// Which header.
        height: Height,
    },
    /// The batch is proved to be wrongly encoded.
    #[error("this batch is proved to be wrongly encoded")]
    Wrong,
    /// It does not hold.
    #[error("the attestation does not hold: {0}")]
    False(#[from] AttestationError),
}

impl AttestationRefusal {
    /// For counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full => "attestations-full",
            Self::TenantFull => "attestations-tenant-full",
            Self::Duplicate => "attestation-duplicate",
            Self::Included { .. } => "attestation-included",
            Self::Wrong => "attestation-wrong",
            Self::False(error) => name_of(error),
        }
    }
}

/// For counters.
pub fn name_of(error: &AttestationError) -> &'static str {
    match error {
        AttestationError::Stranger { .. } => "attestation-stranger",
        AttestationError::Shard { .. } => "attestation-shard",
        AttestationError::Short { .. } => "attestation-short",
        AttestationError::Signature { .. } => "attestation-signature",
        AttestationError::Few { .. } => "attestation-few",
    }
}

/// Attestations that wait for a header.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    attestations: BTreeMap<BatchId, (u64, Attestation)>,
    /// Each tenant's batches, in the order they came; no queue is empty.
    queues: BTreeMap<TenantId, BTreeMap<u64, BatchId>>,
    arrivals: u64,
    /// Who was served last.
    served: Option<TenantId>,
}

impl Waiting {
    /// How many.
    pub fn len(&self) -> usize {
        self.attestations.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.attestations.is_empty()
    }

    /// True when a batch waits.
    pub fn contains(&self, batch: &BatchId) -> bool {
        self.attestations.contains_key(batch)
    }

    /// Batches that wait with these shards.
    pub fn of_root(&self, da_root: &Hash) -> Vec<BatchId> {
        let first = BatchId { da_root: *da_root, tenant: TenantId([0; 16]) };
        self.attestations
            .range(first..)
            .map(|(batch, _)| *batch)
            .take_while(|batch| batch.da_root == *da_root)
            .collect()
    }

    /// True when this very attestation was checked, but for the time.
    pub fn has_checked(&self, attestation: &Attestation) -> bool {
        self.attestations.get(&BatchId::of(attestation)).is_some_and(|(_, known)| known == attestation)
    }

    /// Takes an attestation in; its signatures are checked last.
    ///
    /// # Errors
    /// [`AttestationRefusal`].
    pub fn insert(
        &mut self,
        rules: &PinnerRules,
        attestation: Attestation,
        now: TimeMs,
    ) -> Result<(), AttestationRefusal> {
        let (batch, tenant) = (BatchId::of(&attestation), attestation.batch.tenant);
        if self.contains(&batch) {
            return Err(AttestationRefusal::Duplicate);
        }
        let of_tenant = |waiting: &Self| waiting.queues.get(&tenant).map_or(0, BTreeMap::len);
        if of_tenant(self) >= WAITING_OF_TENANT_MAX || self.len() >= WAITING_MAX {
            // Who never proposes has no other moment for it.
            self.forget_short(rules.wanted_s(now));
        }
        if of_tenant(self) >= WAITING_OF_TENANT_MAX {
            return Err(AttestationRefusal::TenantFull);
        }
        if self.len() >= WAITING_MAX {
            return Err(AttestationRefusal::Full);
        }
        rules.check(&attestation, now)?;
        self.attestations.insert(batch, (self.arrivals, attestation));
        self.queues.entry(tenant).or_default().insert(self.arrivals, batch);
        self.arrivals += 1;
        Ok(())
    }

    /// Forgets a batch: it is final, or wrong. False when it did not wait here.
    pub fn remove(&mut self, batch: &BatchId) -> bool {
        let Some((arrival, _)) = self.attestations.remove(batch) else { return false };
        if let Some(queue) = self.queues.get_mut(&batch.tenant) {
            queue.remove(&arrival);
            if queue.is_empty() {
                self.queues.remove(&batch.tenant);
            }
        }
        true
    }

    fn forget_short(&mut self, wanted_s: u64) {
        let is_short =
            |attestation: &Attestation| attestation.acknowledgements.iter().any(|each| each.until_s < wanted_s);
        let all = self.attestations.iter();
        let short: Vec<BatchId> = all.filter(|(_, (_, known))| is_short(known)).map(|(batch, _)| *batch).collect();
        for batch in &short {
            self.remove(batch);
        }
    }

    /// Attestations for a header that wants shards to be kept until a time, by turns; they go on waiting until they are final. Those that are not kept for
    /// so long are forgotten.
    pub fn fill(&mut self, wanted_s: u64) -> Vec<Attestation> {
        self.forget_short(wanted_s);
        let after: Vec<TenantId> = match self.served {
            Some(served) => {
                let (upto, rest): (Vec<_>, Vec<_>) = self.queues.keys().partition(|tenant| **tenant <= served);
                rest.into_iter().chain(upto).copied().collect()
            }
            None => self.queues.keys().copied().collect(),
        };
        let mut turns: Vec<_> =
            after.iter().filter_map(|tenant| Some((tenant, self.queues.get(tenant)?.values()))).collect();
        let (mut out, mut room, mut last) = (Vec::new(), ATTESTATIONS_BYTES_MAX, None);
        'full: while !turns.is_empty() {
            let mut left = Vec::with_capacity(turns.len());
            for (tenant, mut queue) in turns {
                let next = queue.next().and_then(|batch| self.attestations.get(batch));
                let Some((_, attestation)) = next else { continue };
                let bytes = bytes_of(attestation);
                if out.len() == ATTESTATIONS_MAX || bytes > room {
                    // Its turn is the next header's first.
                    break 'full;
                }
                room -= bytes;
                out.push(attestation.clone());
                last = Some(*tenant);
                left.push((tenant, queue));
            }
            turns = left;
        }
        self.served = last.or(self.served);
        out
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! Pinners of tests, and what they sign.

    use bpi_protocol::availability::attestation::{Acknowledgement, Batch, ShardSet};
    use bpi_protocol::availability::coding::Coding;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    pub(crate) const CHAIN: ChainId = ChainId([7; 32]);

    pub(crate) fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    /// Three of them.
    pub(crate) fn rules() -> PinnerRules {
        let pinners = (1..=3).map(|number| key(number).verifying_key().to_bytes()).collect();
        PinnerRules { chain: CHAIN, kept_s_min: 100, pinners }
    }

    fn acknowledgements(batch: &Batch, pinners: &[u8], until_s: u64) -> Vec<Acknowledgement> {
        let acknowledge = |(at, number): (u8, &u8)| {
            let shards: ShardSet = (4 * at..4 * at + 4).collect();
            let key = key(*number);
            let signature = key.sign(&Acknowledgement::statement(CHAIN, batch, shards, until_s)).to_bytes();
            Acknowledgement { pinner: key.verifying_key().to_bytes(), shards, until_s, signature }
        };
        let mut all: Vec<_> = (0..).zip(pinners).map(acknowledge).collect();
        all.sort_by_key(|each| each.pinner);
        all
    }

    /// Has a changed batch acknowledged again.
    pub(crate) fn sign(attestation: &mut Attestation, pinners: &[u8]) {
        let until_s = attestation.acknowledgements.first().map_or(0, |each| each.until_s);
        attestation.acknowledgements = acknowledgements(&attestation.batch, pinners, until_s);
    }

    /// A batch of 12 shards, four at each of these pinners.
    pub(crate) fn attestation(tenant: u8, number: u32, pinners: &[u8], until_s: u64) -> Attestation {
        let mut da_root = [tenant; 32];
        da_root[..4].copy_from_slice(&number.to_be_bytes());
        let coding = Coding::new(4, 12, 5000).unwrap();
        let tenant = TenantId([tenant; 16]);
        let batch = Batch { tenant, coding, da_root, receipts: 1, receipts_root: [9; 32] };
        let mut attestation = Attestation { batch, acknowledgements: Vec::new() };
        attestation.acknowledgements = acknowledgements(&attestation.batch, pinners, until_s);
        attestation
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{self, attestation, rules};
    use super::*;

    const NOW: TimeMs = TimeMs(5_000);

    #[test]
    fn an_attestation_waits_once_and_each_bound_refuses_by_its_name() {
        let (mut waiting, rules) = (Waiting::default(), rules());
        let mut insert = |attestation| waiting.insert(&rules, attestation, NOW).map_err(|refusal| refusal.name());
        assert_eq!(insert(attestation(1, 0, &[1, 2, 3], 105)), Ok(()));
        assert_eq!(insert(attestation(1, 0, &[1, 2], 105)), Err("attestation-duplicate"));
        assert_eq!(insert(attestation(1, 1, &[1, 2], 104)), Err("attestation-short"));
        assert_eq!(insert(attestation(1, 1, &[1], 105)), Err("attestation-few"));
        assert_eq!(insert(attestation(1, 1, &[1, 2, 4], 105)), Err("attestation-stranger"));
        let mut forged = attestation(1, 1, &[1, 2], 105);
        forged.acknowledgements[1].until_s += 1;
        assert_eq!(insert(forged), Err("attestation-signature"));
        for number in 1..WAITING_OF_TENANT_MAX as u32 {
            assert_eq!(insert(attestation(1, number, &[1, 2], 105)), Ok(()));
        }
        assert_eq!(insert(attestation(1, 999, &[1, 2], 105)), Err("attestations-tenant-full"));
        assert_eq!(insert(attestation(2, 0, &[1, 2], 105)), Ok(()));
        // What no header can carry any more makes room.
        waiting.insert(&rules, attestation(1, 999, &[1, 2], 106), TimeMs(6_000)).unwrap();
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn who_attests_anothers_shards_does_not_stand_in_its_way() {
        let (mut waiting, rules) = (Waiting::default(), rules());
        let own = attestation(1, 0, &[1, 2], 105);
        let mut copied = attestation(2, 0, &[1, 2], 105);
        copied.batch.da_root = own.batch.da_root;
        sample::sign(&mut copied, &[1, 2]);
        for attestation in [&copied, &own] {
            waiting.insert(&rules, attestation.clone(), NOW).unwrap();
        }
        assert_eq!(waiting.of_root(&own.batch.da_root), [BatchId::of(&own), BatchId::of(&copied)]);
        let filled = waiting.fill(105);
        assert_eq!((&filled[..], first_twice(&filled)), (&[own, copied][..], None));
    }

    #[test]
    fn a_flood_of_one_tenant_leaves_the_others_their_turns_and_what_is_short_is_forgotten() {
        let (mut waiting, rules) = (Waiting::default(), rules());
        for number in 0..100 {
            waiting.insert(&rules, attestation(1, number, &[1, 2, 3], 200), NOW).unwrap();
        }
        waiting.insert(&rules, attestation(2, 0, &[1, 2, 3], 105), NOW).unwrap();
        waiting.insert(&rules, attestation(3, 0, &[1, 2, 3], 200), NOW).unwrap();
        let filled = waiting.fill(105);
        assert_eq!(filled.len(), ATTESTATIONS_MAX);
        let tenants: Vec<u8> = filled.iter().map(|attestation| attestation.batch.tenant.0[0]).collect();
        assert_eq!((&tenants[..3], tenants.iter().filter(|tenant| **tenant == 1).count()), (&[1, 2, 3][..], 62));
        assert!(filled.iter().all(|attestation| waiting.has_checked(attestation)));
        let first = BatchId::of(&filled[0]);
        assert!(waiting.remove(&first) && !waiting.remove(&first));
        assert!(!waiting.fill(106).iter().any(|attestation| attestation.batch.tenant.0[0] == 2));
        assert_eq!(waiting.len(), 100);
    }

    #[test]
    fn each_attestation_of_a_header_is_proved_to_be_under_its_root() {
        use bpi_protocol::consensus::header::LogHead;
        let list: Vec<_> = (0..5).map(|number| attestation(1, number, &[1, 2], 105)).collect();
        let head = LogHead { size: 5, root: root_of(&list) };
        for (index, attestation) in (0..).zip(&list) {
            prove(&list, index).unwrap().check(&attestation.leaf_hash(), &head).unwrap();
            assert_eq!(bytes_of(attestation), attestation.to_bytes().len());
        }
        assert!(prove(&list, 5).is_err());
        assert_eq!(root_of(&[]), bpi_protocol::log::EMPTY_ROOT);
        assert_eq!(first_twice(&list), None);
        assert_eq!(first_twice(&[&list[..], &list[3..4]].concat()), Some(BatchId::of(&list[3])));
    }
}
