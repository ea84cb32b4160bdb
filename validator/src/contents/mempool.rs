//! The mempool: leaves that wait for a header, each tenant's in a queue of its own.
//!
//! A header is filled by turns, one leaf of each tenant and round again (all leaves weigh the same, so deficit round robin is plain round
//! robin), beginning after the tenant that was served last. So one tenant's flood costs the others at most what it would cost if it were
//! empty and they many: whoever waits gets `room / tenants` leaves of each header, and with more tenants than room its turn within
//! `tenants / room` headers.
//!
//! Always true: no leaf is held twice, and neither all tenants together nor any one of them holds more than its bound. Absent on purpose:
//! eviction (what was taken in stays until it is final), and the log: [`super::application::Application::admit`] asks it first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::leaf::{Leaf, LeafHash, TenantId};

/// Bounds. A leaf that waits takes some 250 bytes, so the defaults are 8 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Leaves of all tenants.
    pub leaves_max: usize,
    /// Leaves of one tenant: so that none can fill the pool alone.
    pub tenant_leaves_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { leaves_max: 32_768, tenant_leaves_max: 4_096 }
    }
}

/// Why a leaf was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All tenants together have too many.
    #[error("{max} receipts are waiting already; send this one again in a moment")]
    Full {
        /// The bound.
        max: usize,
    },
    /// This tenant has too many.
    #[error("{max} receipts of this tenant are waiting already; send this one again in a moment")]
    TenantFull {
        /// The bound.
        max: usize,
    },
    /// It waits already.
    #[error("this receipt is waiting already")]
    Duplicate,
    /// It stands for a dealer's log, and no receipt does.
    #[error("this tenant is nobody's: its leaves stand for logs of the validators' ceremonies")]
    Reserved,
    /// It is in the log.
    #[error("this receipt is leaf {index} of the log")]
    Included {
        /// Which leaf.
        index: u64,
    },
}

impl Refusal {
    /// For counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::TenantFull { .. } => "tenant-full",
            Self::Duplicate => "duplicate",
            Self::Reserved => "reserved",
            Self::Included { .. } => "included",
        }
    }
}

/// A leaf that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    leaf: Leaf,
    seen_ms: u64,
}

/// Leaves that wait for a header.
#[derive(Clone, Debug, Default)]
pub struct Mempool {
    bounds: Bounds,
    /// Where each leaf stands.
    places: BTreeMap<LeafHash, (TenantId, u64)>,
    /// Each tenant's leaves, in the order they came; no queue is empty.
    queues: BTreeMap<TenantId, BTreeMap<u64, (LeafHash, Waiting)>>,
    /// Leaves that ever came.
    arrivals: u64,
    /// Who was served last.
    served: Option<TenantId>,
}

impl Mempool {
    /// Without leaves.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Leaves that wait.
    pub fn depth(&self) -> usize {
        self.places.len()
    }

    /// Tenants that have leaves waiting.
    pub fn tenants(&self) -> usize {
        self.queues.len()
    }

    /// True when a leaf waits.
    pub fn contains(&self, hash: &LeafHash) -> bool {
        self.places.contains_key(hash)
    }

    /// Takes a leaf in.
    ///
    /// # Errors
    /// [`Refusal`] when it waits already, or its tenant's bound or that of all is reached.
    pub fn insert(&mut self, leaf: Leaf, now_ms: u64) -> Result<LeafHash, Refusal> {
        let hash = leaf.leaf_hash();
        if self.places.contains_key(&hash) {
            return Err(Refusal::Duplicate);
        }
        let waiting = self.queues.get(&leaf.tenant).map_or(0, BTreeMap::len);
        if waiting >= self.bounds.tenant_leaves_max {
            return Err(Refusal::TenantFull { max: self.bounds.tenant_leaves_max });
        }
        if self.places.len() >= self.bounds.leaves_max {
            return Err(Refusal::Full { max: self.bounds.leaves_max });
        }
        self.places.insert(hash, (leaf.tenant, self.arrivals));
        let queue = self.queues.entry(leaf.tenant).or_default();
        queue.insert(self.arrivals, (hash, Waiting { leaf, seen_ms: now_ms }));
        self.arrivals += 1;
        Ok(hash)
    }

    /// Forgets a leaf: it is final. False when it did not wait here.
    pub fn remove(&mut self, hash: &LeafHash) -> bool {
        let Some((tenant, arrival)) = self.places.remove(hash) else { return false };
        if let Some(queue) = self.queues.get_mut(&tenant) {
            queue.remove(&arrival);
            if queue.is_empty() {
                self.queues.remove(&tenant);
            }
        }
        true
    }

    /// Leaves for a header, at most `room`, by turns; without those in `taken`. They go on waiting until they are final.
    pub fn fill(&mut self, room: usize, taken: &BTreeSet<LeafHash>) -> Vec<Leaf> {
        let (leaves, last) = self.by_turns(room, |hash, _| !taken.contains(hash));
        self.served = last.or(self.served);
        leaves
    }

    /// Leaves that were seen up to a moment and still wait, at most `max`, by turns.
    pub fn seen_before(&self, seen_ms: u64, max: usize) -> Vec<Leaf> {
        self.by_turns(max, |_, waiting| waiting.seen_ms <= seen_ms).0
    }

    /// One leaf of each tenant after another that `wanted` lets through, from the tenant after the last served, and who came last.
    fn by_turns(&self, room: usize, wanted: impl Fn(&LeafHash, &Waiting) -> bool) -> (Vec<Leaf>, Option<TenantId>) {
        let after = |tenant| (Bound::Excluded(tenant), Bound::Unbounded);
        let split = self.served.map_or((Bound::Unbounded, Bound::Unbounded), after);
        let upto = |tenant| self.queues.range((Bound::Unbounded, Bound::Included(tenant)));
        let rest = self.served.map(upto).into_iter().flatten();
        let queues = self.queues.range(split).chain(rest);
        let mut turns: Vec<_> = queues.map(|(tenant, queue)| (*tenant, queue.values())).collect();
        let (mut leaves, mut last) = (Vec::new(), None);
        while leaves.len() < room && !turns.is_empty() {
            turns.retain_mut(|(tenant, queue)| {
                if leaves.len() == room {
                    return true;
                }
                let Some((_, waiting)) = queue.find(|(hash, waiting)| wanted(hash, waiting)) else { return false };
                leaves.push(waiting.leaf);
                last = Some(*tenant);
                true
            });
        }
        (leaves, last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(tenant: u8, number: u32) -> Leaf {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        Leaf { tenant: TenantId([tenant; 16]), hash }
    }

    fn pool(queues: &[usize]) -> Mempool {
        let mut pool = Mempool::new(Bounds { leaves_max: 10_000, tenant_leaves_max: 1_000 });
        for (tenant, length) in (0..).zip(queues) {
            for number in 0..*length as u32 {
                pool.insert(leaf(tenant, number), number.into()).unwrap();
            }
        }
        pool
    }

    #[test]
    fn each_bound_refuses_by_its_name_and_leaves_the_rest_in() {
        let mut pool = Mempool::new(Bounds { leaves_max: 3, tenant_leaves_max: 2 });
        pool.insert(leaf(1, 1), 0).unwrap();
        assert_eq!(pool.insert(leaf(1, 1), 0), Err(Refusal::Duplicate));
        pool.insert(leaf(1, 2), 0).unwrap();
        assert_eq!(pool.insert(leaf(1, 3), 0), Err(Refusal::TenantFull { max: 2 }));
        pool.insert(leaf(2, 1), 0).unwrap();
        assert_eq!(pool.insert(leaf(2, 2), 0), Err(Refusal::Full { max: 3 }));
        assert_eq!((pool.depth(), pool.tenants()), (3, 2));
        assert!(pool.remove(&leaf(1, 1).leaf_hash()) && !pool.remove(&leaf(1, 1).leaf_hash()));
        pool.insert(leaf(2, 2), 0).unwrap();
    }

    #[test]
    fn only_what_was_seen_long_enough_ago_is_told() {
        let pool = pool(&[5, 5]);
        assert_eq!(pool.seen_before(1, 10), [leaf(0, 0), leaf(1, 0), leaf(0, 1), leaf(1, 1)]);
        assert_eq!(pool.seen_before(9, 3).len(), 3);
    }

    #[test]
    fn with_more_tenants_than_room_each_has_its_turn_within_tenants_over_room_headers() {
        let mut pool = pool(&[20; 10]);
        let mut served = BTreeSet::new();
        for _ in 0..10_usize.div_ceil(3) {
            for leaf in pool.fill(3, &BTreeSet::new()) {
                served.insert(leaf.tenant);
                pool.remove(&leaf.leaf_hash());
            }
        }
        assert_eq!(served.len(), 10);
    }

    proptest! {
        #[test]
        fn a_flood_starves_nobody(queues in prop::collection::vec(0_usize..40, 1..12), flood in 0_usize..900, room in 0_usize..200) {
            let queues = [&queues[..], &[flood]].concat();
            let mut pool = pool(&queues);
            let leaves = pool.fill(room, &BTreeSet::new());
            prop_assert_eq!(leaves.len(), room.min(queues.iter().sum()), "no room is left while leaves wait");
            let share = room / queues.iter().filter(|length| **length > 0).count().max(1);
            for (tenant, length) in (0..).zip(&queues) {
                let own: Vec<_> = leaves.iter().filter(|leaf| leaf.tenant == TenantId([tenant; 16])).copied().collect();
                prop_assert!(own.len() >= share.min(*length));
                let oldest: Vec<_> = (0..own.len() as u32).map(|number| leaf(tenant, number)).collect();
                prop_assert_eq!(own, oldest, "the oldest go first");
            }
        }

        #[test]
        fn what_is_taken_already_is_not_filled_in_and_what_is_final_is_gone(taken in prop::collection::btree_set(0_u32..30, 0..30)) {
            let mut pool = pool(&[30]);
            let hashes: BTreeSet<_> = taken.iter().map(|number| leaf(0, *number).leaf_hash()).collect();
            let leaves = pool.fill(30, &hashes);
            prop_assert_eq!(leaves.len(), 30 - taken.len());
            prop_assert!(leaves.iter().all(|leaf| !hashes.contains(&leaf.leaf_hash())));
            hashes.iter().for_each(|hash| assert!(pool.remove(hash)));
            prop_assert_eq!(pool.fill(30, &BTreeSet::new()).len(), 30 - taken.len());
            prop_assert_eq!(pool.depth(), 30 - taken.len());
        }
    }
}
